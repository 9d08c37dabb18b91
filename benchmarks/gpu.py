"""Both backends on a GPU: train, evaluate, and compare with the CPU.

    python benchmarks/gpu.py [--device cuda] [--steps 5000]

For each backend: seconds per training step on the device and on the CPU, log-likelihood and its time, and parity: the
log-weights of one reading with the same parameters and the same latents on both devices, relative to
|log p| + |log q|. Then the same with TF32 and with bfloat16 in training, on Pyro with CUDA graphs, and with data that
are streamed from disk; the largest difference of parameters after 200 such steps (0 where the bits are the same). With
several GPUs, training and evaluation over two of them, beside one. Then the programs of `benchmarks/programs` beside
loops by hand.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
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
    program: Program, backend: str, device: str, x: np.ndarray, batch: int, steps: int, **how: Any
) -> Any:
    """Mean over the stretches after the first (which compiles), and the fit."""
    rates: list[float] = []
    compiled = {"compile": True} if backend == "pyro" else {}  # JAX compiles in any case
    watch = {"progress": False, "callbacks": [lambda now: rates.append(now.rate)]}
    place = {"backend": backend, "device": device}
    fit = ppdgm.fit(program, x, steps=steps, batch_size=batch, **{**compiled, **place, **watch, **how})
    return 1.0 / rates[-1], fit


def apart(one: Any, other: Any) -> float:
    """The largest difference of two fits' parameters."""
    return max(float(np.abs(one.params[n] - v).max()) for n, v in other.params.items())


def alike(program: Program, backend: str, device: str, x: np.ndarray, name: str, steps: int) -> None:
    """CUDA graphs and streamed rows beside what they replace: differences after some steps, and times."""
    few = min(steps, 200)
    run = lambda rows, count, **how: seconds_per_step(program, backend, device, rows, 128, count, **how)
    plain = run(x, few)[1]

    def show(what: str, rows: np.ndarray, **how: Any) -> None:
        try:
            difference, took = apart(plain, run(rows, few, **how)[1]), run(rows, steps, **how)[0]
        except PpdgmError as error:  # no graph had been tried on a GPU when this was written
            print(f"  {name}, {what}: {error}", flush=True)
        else:
            print(f"  {name}, B = 128, {what}: {1e3 * took:.3f} ms a step; difference {difference:.1e}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        show("streamed", np.load(f"{folder}/x.npy", mmap_mode="r"))
    if backend == "pyro" and device != "cpu":
        show("CUDA graphs", x, compile="cudagraphs")


def over_ranks(device: str, backend: str, x: np.ndarray, steps: int) -> None:
    """Training and evaluation in one of several processes, or in the only one."""
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1 or backend == "numpyro"
    how = {"backend": backend, "device": device, "compile": False, "progress": False, "seed": 1, "batch_size": 512}
    one = ppdgm.fit(PROGRAMS["mlp"], x, steps=steps, devices="all" if together else 1, **how)
    there = one.over("all") if together else one
    started = time.perf_counter()
    found = there.log_likelihood(x[:1000], k=100, memory="64 MiB")
    if there.process == 0:
        took, elbo, place = time.perf_counter() - started, one.history["elbo"][-1], one.info["device"]
        print(f"  {place}: ELBO {elbo:.3f}, log-likelihood {found.mean:.4f} in {took:.1f} s", flush=True)


def over_several(device: str, backend: str, steps: int) -> None:
    """One GPU, then two: the same numbers up to rounding."""
    print(f"== {backend} over several devices", flush=True)
    script = [str(Path(__file__)), "--device", device, "--ranks", backend, "--steps", str(steps)]
    two = ["-m", "torch.distributed.run", "--nproc-per-node", "2"] if backend == "pyro" else []
    for visible, how in (("0", []), ("0,1", two)):  # this process has most of the first one's memory, if it is JAX's
        own = {"CUDA_VISIBLE_DEVICES": visible, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        subprocess.run([sys.executable, *how, *script], check=True, env={**os.environ, **own})


def gpus() -> int:
    """The number of GPUs here."""
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return len(listed.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--cpu-steps", type=int, default=300)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=5000)
    parser.add_argument("--backends", nargs="+", default=["numpyro", "pyro"])
    parser.add_argument("--ranks", help=argparse.SUPPRESS)  # in a process that this one starts
    options = parser.parse_args()
    x = synthetic(options.n)
    if options.ranks:
        over_ranks(options.device, options.ranks, x, options.steps)
        return
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
            alike(program, backend, options.device, x, name, options.steps)
        if options.device == "cuda" and gpus() > 1:
            over_several(options.device, backend, min(options.steps, 200))
    race = [sys.executable, "-m", "benchmarks.programs", "steps", "--rounds", "5", "--force", "--device"]
    subprocess.run([*race, options.device], cwd=Path(__file__).parents[1], check=True)


if __name__ == "__main__":
    main()
