"""Draws zoo_mnist.png from the arrays in benchmarks/results/zoo_mnist: gains over the plain VAE, paired over images."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "benchmarks" / "results" / "zoo_mnist"
CELLS = {
    "spline": "spline posterior",
    "iaf": "IAF posterior",
    "realnvp": "RealNVP posterior",
    "sylvester": "Sylvester posterior",
    "mog": "mixture prior",
    "hvae": "two levels",
    "hvae_vamp": "two levels, VampPrior",
    "realnvp_prior": "RealNVP prior",
    "vamp": "VampPrior",
    "vamp_iaf": "VampPrior, IAF posterior",
}

figure = Figure(figsize=(7, 3.4), layout="constrained")
axes = figure.subplots()
for row, cell in enumerate(CELLS):
    for seed in (0, 1):
        of = lambda name, s=seed: np.load(RESULTS / f"{name}-numpyro-{s}-15.npz")["log_likelihood"]
        gain = of(cell) - of("standard")
        error = gain.std(ddof=1) / len(gain) ** 0.5
        axes.errorbar(gain.mean(), row + 0.15 * (2 * seed - 1), xerr=2 * error, fmt="o", ms=4, color="#2566a0")
axes.set_yticks(range(len(CELLS)), list(CELLS.values()))
axes.axvline(0, color="0.5", lw=0.8)
axes.set_xlabel("gain in test log p(x) over the plain VAE, nats per image (two seeds, ± 2 standard errors)")
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(HERE / "zoo_mnist.png", dpi=100)
