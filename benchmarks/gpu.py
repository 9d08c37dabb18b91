"""Both backends on a GPU: train, evaluate, and compare with the CPU.

    python benchmarks/gpu.py [--device cuda] [--steps 5000]

For each backend: seconds per training step on the device and on the CPU, log-likelihood and its time, and parity: the
log-weights of one reading with the same parameters and the same latents on both devices, relative to
|log p| + |log q|. Then the same with TF32 and with bfloat16 in training, and the programs of `benchmarks/programs`
beside loops by hand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import ppdgm
from ppdgm.errors import PpdgmError
from ppdgm.models import MLP, VAE, ConvDecoder, ConvEncoder, Program
from ppdgm.registry import backend as load_backend

SIZES = {"B = 128": 128, "B = 2048": 2048}
PROGRAMS: dict[str, Program] = {
    "mlp": VAE(event_shape=(28, 28), encoder=MLP(), decoder=MLP()),
    "conv": VAE(event_shape=(28, 28), encoder=ConvEncoder(), decoder=ConvDecoder()),
}


def synthetic(n: int) -> np.ndarray:
    """Binary images with structure: thresholded mixtures of two smooth patterns."""
    rng = np.random.default_rng(0)
    grid = np.linspace(-1, 1, 28)
    patterns = np.stack([np.outer(np.sin(f * grid), np.cos(g * grid)) for f in range(1, 5) for g in range(1, 5)])
    images = np.tensordot(rng.normal(size=(n, len(patterns))), patterns, 1) + 0.3 * rng.normal(size=(n, 28, 28))
    return (images > 0.5).astype(np.float32)


def parity(program: Program, backend: str, device: str, x: np.ndarray) -> float:
    """Largest difference of log-weights between device and CPU, relative to |log p| + |log q|."""
    params = program.initialise(0)
    drawn = ppdgm.trace(program, params, x, k=8, backend=backend, device="cpu")
    values = {"z": drawn.values["z"]}
    there = ppdgm.trace(program, params, x, k=8, backend=backend, device=device, values=values)
    log_p = drawn.log_p["x"] + drawn.log_p["z"]
    difference = there.log_p["x"] + there.log_p["z"] - there.log_q["z"] - (log_p - drawn.log_q["z"])
    return float(np.abs(difference / (np.abs(log_p) + np.abs(drawn.log_q["z"]))).max())


def seconds_per_step(
    program: Program, backend: str, device: str, x: np.ndarray, batch: int, steps: int, **how: bool
) -> Any:
    """Mean over the stretches after the first (which compiles), and the fit."""
    rates: list[float] = []
    fit = ppdgm.fit(
        program,
        x,
        backend=backend,
        device=device,
        steps=steps,
        batch_size=batch,
        compile=True if backend == "pyro" else "auto",  # JAX compiles in any case
        progress=False,
        callbacks=[lambda now: rates.append(now.rate)],
        **how,
    )
    return 1.0 / rates[-1], fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--cpu-steps", type=int, default=300)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=5000)
    parser.add_argument("--backends", nargs="+", default=["numpyro", "pyro"])
    options = parser.parse_args()
    x = synthetic(options.n)
    for backend in options.backends:
        try:
            runtime = load_backend(backend).Runtime(PROGRAMS["mlp"], options.device)
        except PpdgmError as error:
            sys.exit(f"{backend}: {error}")
        print(f"== {backend} on {runtime.device}")
        for name, program in PROGRAMS.items():
            print(f"  {name}: log-weights, device against CPU: {parity(program, backend, options.device, x[:64]):.1e}")
            for label, batch in SIZES.items():
                there, fit = seconds_per_step(program, backend, options.device, x, batch, options.steps)
                here, _ = seconds_per_step(program, backend, "cpu", x, batch, options.cpu_steps)
                print(
                    f"  {name}, {label}: {1e3 * there:.3f} ms a step; CPU {1e3 * here:.3f} ms; ratio {here / there:.1f}"
                )
                if options.device != "cpu":
                    for how in ({"tf32": True}, {"mixed_precision": True}):
                        took, _ = seconds_per_step(program, backend, options.device, x, batch, options.steps, **how)
                        print(f"  {name}, {label}, {next(iter(how))}: {1e3 * took:.3f} ms a step")
            started = time.perf_counter()
            likelihood = fit.log_likelihood(x[:1000], k=options.k)
            print(f"  {name}: log-likelihood {likelihood}, in {time.perf_counter() - started:.1f} s", flush=True)
    race = [sys.executable, "-m", "benchmarks.programs", "--device", options.device, "--rounds", "5", "--force"]
    subprocess.run(race, cwd=Path(__file__).parents[1], check=True)


if __name__ == "__main__":
    main()
