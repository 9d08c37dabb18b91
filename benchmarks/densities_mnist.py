"""Densities of MNIST on two cores: one table in nats, one in bits per dimension, and samples of each model.

    PPDGM_DATA=… python benchmarks/densities_mnist.py                       # at most 30 minutes in all
    PPDGM_DATA=… python benchmarks/densities_mnist.py --minutes 1 --only MADE VAE

Binarised once (four models) or with its 256 grey levels (Glow). Each model is trained for the same time, on the
backend that is the faster one for its nets on a CPU. Perceptrons keep the parameters that were best on 1,000 validation
images.
Judged on the first 1,000 test images: log p(x) is exact for MADE and the GatedPixelCNN, importance-sampled for the
VAEs, and a bound by uniform noise for Glow. Differences are paired to the VAE's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from math import log
from pathlib import Path

import matplotlib
import numpy as np

import ppdgm
from ppdgm import Fit, Program
from ppdgm.inference import Progress
from ppdgm.models import (
    MADE,
    MLP,
    VAE,
    Autoregressive,
    AutoregressiveModel,
    Dequantised,
    FlowPrior,
    GatedPixelCNN,
    Glow,
)

matplotlib.use("agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
SHAPE, BATCH, TEST, HELD, DRAWN = (28, 28), 100, 1000, 1000, 10
PIXELS = GatedPixelCNN(channels=16, layers=6, first_kernel=7, kernel=5, hidden=32)
NEAR = GatedPixelCNN(channels=16, layers=2, first_kernel=5, kernel=3, hidden=32)  # 3 columns to each side, 4 rows above
GLOW = Glow(image=SHAPE, levels=2, depth=6, hidden=32)
NET = MLP(hidden=(300, 300), activation="relu")


@dataclass(frozen=True)
class Model:
    """A model, the backend and the learning rate of its training, and the draws of its report (0: exact)."""

    program: Program
    backend: str
    rate: float
    k: int = 0

    @property
    def keep_best(self) -> bool:
        """Small nets see the data many times, and learn them by heart; a convolutional net sees few epochs."""
        return self.backend == "numpyro"


BINARY = {
    "MADE": Model(AutoregressiveModel(event_shape=SHAPE, net=MADE(hidden=(1000,), activation="relu")), "numpyro", 1e-3),
    "GatedPixelCNN": Model(AutoregressiveModel(event_shape=SHAPE, net=PIXELS), "pyro", 3e-3),
    "VAE": Model(VAE(event_shape=SHAPE, latent=40, encoder=NET, decoder=NET), "numpyro", 1e-3, 1000),
    "VAE, GatedPixelCNN decoder": Model(
        VAE(
            event_shape=SHAPE, latent=40, encoder=NET, decoder=NET,
            likelihood=Autoregressive(net=NEAR, condition=(1, *SHAPE)),
        ), "pyro", 2e-3, 100,
    ),
}  # fmt: skip
GREY = {
    "Glow": Model(
        Dequantised(event_shape=SHAPE, levels=256, prior=FlowPrior(flow=GLOW)),
        "pyro", 1e-3, 8,
    )
}  # fmt: skip


def train_for(seconds: float, model: Model, train: np.ndarray, held: np.ndarray) -> Fit:
    """Train until the time is up, counted from the first compiled steps."""
    began: list[float] = []

    def is_over(now: Progress) -> bool:
        began.append(time.perf_counter())
        return began[-1] - began[0] > seconds

    return ppdgm.fit(
        model.program, train, validation=held if model.keep_best else None, keep_best=model.keep_best,
        steps=10**6, batch_size=BATCH,
        learning_rate=model.rate, weight_average=0.999 if model.keep_best else 0.99, backend=model.backend,
        compile=False, callbacks=[is_over], seed=0, progress=False,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*BINARY, *GREY]
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, for each model")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="MODEL")
    options = parser.parse_args()
    if "PPDGM_DATA" not in os.environ:
        sys.exit("Set PPDGM_DATA to the folder that holds mnist/.")
    RESULTS.mkdir(exist_ok=True)
    began, found, values, pictures = time.perf_counter(), {}, {}, {}
    binary = ppdgm.load_data("mnist", binarise="static", seed=0)
    grey = ppdgm.load_data("mnist", binarise="none", scale="none", seed=0)
    for name in options.only:
        data, model = (binary, BINARY[name]) if name in BINARY else (grey, GREY[name])
        shape = model.program.event_shape
        train, held = data.train.reshape(-1, *shape), data.validation[:HELD].reshape(-1, *shape)
        test = data.test[:TEST].reshape(-1, *shape)
        start = time.perf_counter()
        fit = train_for(60 * options.minutes, model, train, held)
        steps = fit.info["steps"]
        trained = time.perf_counter()
        if name in GREY:
            log_p = fit.elbo(test, k=model.k).values
        else:
            log_p = fit.log_likelihood(test, k=model.k or 1).values
        judged = time.perf_counter()
        pictures[name] = fit.sample(DRAWN, seed=1).reshape(DRAWN, *SHAPE) / (255 if name in GREY else 1)
        values[name] = log_p
        found[name] = {
            "backend": model.backend, "steps": steps, "epochs": steps * BATCH / len(train),
            "train_s": trained - start, "judge_s": judged - trained, "sample_s": time.perf_counter() - judged,
            "nats": float(log_p.mean()), "error": float(log_p.std(ddof=1) / len(log_p) ** 0.5),
            "bits": float(-log_p.mean() / (784 * log(2))), "k": model.k,
            "parameters": int(sum(np.size(v) for v in fit.params.values())),
        }  # fmt: skip
        print(name, json.dumps(found[name]), flush=True)
    write(found, values, time.perf_counter() - began, options.minutes)
    draw(pictures)


def write(found: dict[str, dict], values: dict[str, np.ndarray], seconds: float, minutes: float) -> None:
    """`densities_mnist.md`."""
    lines = [
        "# Densities of MNIST on two cores",
        "",
        f"Each model is trained for about {minutes:g} minutes; {seconds / 60:.0f} minutes in all. {TEST:,} test rows.",
        "",
        "| model | backend | parameters | epochs | log p(x), nats | to the VAE, paired | bits/dim | train + judge, s |"
        " 10 samples, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        against = ""
        if name in BINARY and name != "VAE" and "VAE" in values:
            gap = values[name] - values["VAE"]
            against = f"{gap.mean():+.2f} ± {gap.std(ddof=1) / len(gap) ** 0.5:.2f}"
        how = "" if not row["k"] else f" (bound, {row['k']} draws)"
        lines.append(
            f"| {name} | {row['backend']} | {row['parameters']:,} | {row['epochs']:.1f} | {row['nats']:.2f} ± "
            f"{row['error']:.2f}{how} | {against} | {row['bits']:.3f} | {row['train_s']:.0f} + {row['judge_s']:.0f} | "
            f"{row['sample_s']:.1f} |"
        )
    lines += ["", "![Samples](densities_mnist.png)"]
    (RESULTS / "densities_mnist.md").write_text("\n".join(lines) + "\n")


def draw(pictures: dict[str, np.ndarray]) -> None:
    """`densities_mnist.png`: a row of samples for each model."""
    figure, rows = plt.subplots(len(pictures), DRAWN, figsize=(DRAWN * 0.8, len(pictures) * 0.95), squeeze=False)
    for axes, (name, images) in zip(rows, pictures.items(), strict=True):
        axes[0].set_title(name, loc="left", fontsize=8)
        for place, image in zip(axes, images, strict=True):
            place.imshow(image, cmap="gray_r", vmin=0, vmax=1)
            place.set_axis_off()
    figure.tight_layout(pad=0.3)
    figure.savefig(RESULTS / "densities_mnist.png", dpi=80)


if __name__ == "__main__":
    main()
