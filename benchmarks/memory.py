"""Peak memory of training with many particles, read in chunks: whole processes, one for each line.

    python -m benchmarks.memory

IWAE of a VAE 784-200-200-50 on minibatches of 20 random rows, with K = 50 particles at once, and with K = 5,000 in
chunks of 50. The limit is a ratio of 1.3. Peaks are the kernel's own (VmHWM), of imports, data, compiler and steps.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BACKENDS = ("numpyro", "pyro")
CASES = ((50, None), (5000, 50))
LIMIT = 1.3


def peak() -> int:
    """Bytes that this process had in memory at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def train(backend: str, estimator: str, k: int, chunk: int | None) -> None:
    """Three steps; prints the peak."""
    import numpy as np

    import ppdgm
    from ppdgm.inference import IWAE
    from ppdgm.models import MLP, VAE

    x = np.random.default_rng(0).integers(0, 2, (60, 784)).astype(np.float32)
    net = MLP(hidden=(200, 200))
    program = VAE(event_shape=(784,), latent=50, encoder=net, decoder=net)
    engine = IWAE(k=k, estimator=estimator)
    fit = ppdgm.fit(
        program, x, engine=engine, steps=3, batch_size=20, backend=backend, particle_chunk=chunk, progress=False,
        compile=False,
    )  # fmt: skip
    assert np.isfinite(fit.history["objective"]).all()
    print(peak())


def measure(backend: str, estimator: str, k: int, chunk: int | None) -> int:
    """The peak of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--one", backend, estimator, str(k), str(chunk or 0)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure every case, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=4, help="backend, estimator, K and chunk, in this process")
    parser.add_argument("--estimator", default="auto", choices=("auto", "dreg", "stl"))
    given = parser.parse_args()
    if given.one:
        backend, estimator, k, chunk = given.one
        return train(backend, estimator, int(k), int(chunk) or None)
    worst = 0.0
    for backend in BACKENDS:
        few, many = (measure(backend, given.estimator, k, chunk) for k, chunk in CASES)
        worst = max(worst, many / few)
        print(f"{backend}: K = 50 {few / 2**20:.0f} MiB, K = 5,000 {many / 2**20:.0f} MiB, ratio {many / few:.2f}")
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
