"""Kill training at random moments, resume, and compare with the run that was never killed, bit for bit.

    python -m benchmarks.kills [--kills 25] [--out runs/kills]

For each backend (and for torch.compile), one run goes through undisturbed. The same run is then started in a separate
process that gets SIGKILL again and again: at random moments and, every third time, while a checkpoint is written.
It has a learning-rate schedule, weight averages, dynamic binarisation and early stopping. At the end,
parameters, history and the bytes of history.csv must have the same hash as those of the undisturbed run. If not, the
exit status is 1. Cases of engines other than SVI also diagnose the latents during training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ENGINES = ("lagging", "stages", "variational EM", "Monte Carlo EM")
CASES = {"numpyro": ("numpyro", False, "SVI"), "pyro": ("pyro", False, "SVI"), "pyro, compiled": ("pyro", True, "SVI")}
CASES |= {f"{backend}, {engine}": (backend, False, engine) for backend in ("numpyro", "pyro") for engine in ENGINES}
STEPS = 9000


def make_engine(name: str) -> Any:
    """An engine by the name of its case."""
    from ppdgm.inference import SVI, LaggingInference, Linear, MonteCarloEM, Stage, VariationalEM

    return {
        "SVI": lambda: SVI(k=2, beta=Linear(steps=STEPS // 4)),
        "lagging": LaggingInference,
        "stages": lambda: [Stage(engine=SVI(k=2), steps=STEPS // 2), VariationalEM()],
        "variational EM": VariationalEM,
        "Monte Carlo EM": MonteCarloEM,
    }[name]()


def train(out: Path, backend: str, compiled: bool, engine: str) -> Any:
    """Start the run if there is nothing to resume, otherwise resume it."""
    import ppdgm
    from ppdgm.inference import Cosine
    from ppdgm.models import MLP, VAE

    if any(out.glob("checkpoints/step-*.safetensors")):
        return ppdgm.resume(out, progress=False)
    data = ppdgm.load_data("digits", binarise="dynamic")
    net = MLP(hidden=(300, 300))
    return ppdgm.fit(
        VAE(event_shape=data.event_shape, latent=16, encoder=net, decoder=net),
        data,
        engine=make_engine(engine),
        diagnose_epochs=None if engine == "SVI" else 20,
        backend=backend,
        steps=STEPS,
        learning_rate=Cosine(peak=2e-3, steps=STEPS, warmup=200),
        clip_norm=50.0,
        weight_average=0.99,
        early_stopping=10_000,
        compile=compiled,
        checkpoint_steps=150,
        progress=False,
        out=out,
        overwrite=out.exists(),
    )


def digest(out: Path) -> str:
    """A hash of the parameters and of the whole history, as arrays and as a file."""
    import ppdgm

    fit = ppdgm.load(out)
    arrays = {**fit.params, **{f"history {n}": v for n, v in fit.history.items()}}
    parts = [n.encode() + np.ascontiguousarray(arrays[n]).tobytes() for n in sorted(arrays)]
    return hashlib.sha256(b"".join([*parts, (out / "history.csv").read_bytes()])).hexdigest()


def writing(out: Path) -> bool:
    """Whether a checkpoint is being written at this moment."""
    folder = out / "checkpoints"
    return folder.exists() and any(n.startswith(".step-") for n in os.listdir(folder))


def kill_once(out: Path, case: str, rng: np.random.Generator, when: str) -> str | None:
    """Start or resume the run, kill it, and say at which step; None if the run ended before."""
    before, had = status(out).get("updated", 0), checkpoints(out)
    child = subprocess.Popen([sys.executable, "-m", "benchmarks.kills", "--child", case, "--out", str(out)])
    started = lambda: status(out).get("updated", 0) != before if when == "early" else checkpoints(out) != had
    while child.poll() is None and not started():
        time.sleep(0.01)
    delay = rng.uniform(0.0, 3.0 if when == "early" else 1.0)
    end = time.perf_counter() + delay
    while child.poll() is None:
        if time.perf_counter() > end and (when != "in a write" or writing(out)):
            break
        time.sleep(0.0002 if when == "in a write" else 0.002)
    if child.poll() is not None:
        return None
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = checkpoints(out)
    half = "a checkpoint half-written" if writing(out) else "nothing half-written"
    last = f"{left[-1]} {file_hash(out / 'checkpoints' / left[-1])}" if left else "no checkpoint yet"
    return f"{when:10} {delay:.2f} s, last said to be at step {status(out).get('step')}; {half}; whole: {last}"


def checkpoints(out: Path) -> list[str]:
    """Names of the checkpoint files."""
    return sorted(f.name for f in out.glob("checkpoints/step-*.safetensors"))


def file_hash(path: Path) -> str:
    """The hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def status(out: Path) -> dict[str, Any]:
    """The status that the run last wrote."""
    try:
        return dict(json.loads((out / "status.json").read_text()))
    except (OSError, ValueError):
        return {}


def one_case(case: str, kills: int, out: Path, log: Any) -> bool:
    """Whether the killed run ends with the same result as the undisturbed one."""
    rng = np.random.default_rng(kills)
    whole, killed = out / f"{case}, whole", out / f"{case}, killed"
    subprocess.run([sys.executable, "-m", "benchmarks.kills", "--child", case, "--out", str(whole)], check=True)
    expected, count, writes, ended = digest(whole), 0, 0, False
    log(f"== {case}: undisturbed, {STEPS} steps: {expected}")
    while count < kills and not ended:
        found = kill_once(killed, case, rng, ("early", "later", "in a write")[count % 3])
        ended = found is None
        count += not ended
        writes += bool(found and "a checkpoint half" in found)
        log(f"{count:3d} {found or 'came to its end'}")
    subprocess.run([sys.executable, "-m", "benchmarks.kills", "--child", case, "--out", str(killed)], check=True)
    found = digest(killed)
    verdict = "equal" if found == expected else "DIFFERENT"
    log(f"== {case}: {count} kills, {writes} of them during a write: {found} {verdict}")
    return found == expected


def main() -> int:
    """Run all cases, with a log."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25, help="for each case")
    parser.add_argument("--out", type=Path, default=Path("runs/kills"))
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        train(given.out, *CASES[given.child])
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "log.txt").open("a") as file:

        def log(line: str) -> None:
            print(line, flush=True)
            print(line, file=file, flush=True)

        right = [one_case(case, given.kills, given.out, log) for case in ([given.case] if given.case else CASES)]
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
