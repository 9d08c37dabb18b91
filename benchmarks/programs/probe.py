"""A process of its own for one contestant: start-up, the first step, seconds per step and peak memory.

`run` starts it; `python -m benchmarks.programs.probe JSON` is the process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

TURNS = 3  # timed stretches
Spec = dict[str, Any]
Measured = dict[str, float]


class ProbeFailed(Exception):
    """A process that ended without a result."""


def run(spec: Spec, environment: dict[str, str] | None = None) -> Measured:
    """Measure in a new process.

    Args:
        spec: "task" ("train" or "likelihood"), "contestant", "device"; for "train": "case", "sizes", "changes" of the
            case, and "timed", seconds of a timed stretch (0: steps are not timed); for "likelihood": "rows" and "k".
        environment: changes to this process's own.

    Returns:
        "imported", "ready", "first": seconds from the start until then; "seconds_per_step" if they are timed; "peak",
        "rise": bytes at most, and above what there was before the first step.

    Raises:
        ProbeFailed: the process did not get so far.
    """
    sent = json.dumps({**spec, "spawned": time.time()})
    command = [sys.executable, "-m", __spec__.name, sent]
    done = subprocess.run(command, env=environment_with(environment or {}), capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise ProbeFailed(f"{sent}: exit code {done.returncode}: {done.stderr[-1500:]}")
    return json.loads(lines[-1])


def environment_with(changes: dict[str, str]) -> dict[str, str]:
    """This process's own with changes, as after an installation.

    With PYTHONDONTWRITEBYTECODE, Python would compile ppdgm's files in every process, but not those of the libraries,
    which pip has compiled.
    """
    return {**{n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}, **changes}


def main() -> None:
    """Print what was measured."""
    spec = json.loads(sys.argv[1])
    print(json.dumps((_train if spec["task"] == "train" else _judge)(spec)), flush=True)


def _train(spec: Spec) -> Measured:
    from .cases import Sizes, make
    from .contestants import MORE, STEPS, load, maker

    made = {**STEPS, **MORE}[spec["contestant"]]
    load(made[0])
    found = {"imported": time.time() - spec["spawned"]}
    case = make(spec["case"], Sizes(**spec.get("sizes", {})), device=spec["device"], **spec.get("changes", {}))
    contestant = maker(made)(case)
    one = contestant(case.rows(1, seed=2))
    found["ready"] = time.time() - spec["spawned"]
    before = memory("VmRSS")
    one()
    found["first"] = time.time() - spec["spawned"]
    if spec.get("timed"):
        started = time.perf_counter()
        one()
        steps = min(50, max(2, round(spec["timed"] / (time.perf_counter() - started))))
        stretch, taken = contestant(case.rows(steps, seed=3)), []
        stretch()  # for JAX, another number of steps is another program
        for _ in range(TURNS):
            started = time.perf_counter()
            stretch()
            taken.append((time.perf_counter() - started) / steps)
        found["seconds_per_step"] = median(taken)
    else:
        one()
    return found | _memory(spec["device"], before)


def _judge(spec: Spec) -> Measured:
    from .cases import make
    from .contestants import LIKELIHOODS, maker

    case = make("vae", device=spec["device"])
    judge, x = maker(LIKELIHOODS[spec["contestant"]])(case), case.data[: spec["rows"]]
    before = memory("VmRSS")
    judge(x, spec["k"])
    return _memory(spec["device"], before)


def _memory(device: str, before: int) -> Measured:
    """At most, and above `before`; on a GPU what the library's own allocator held."""
    if device == "cpu":
        return {"peak": memory("VmHWM"), "rise": memory("VmHWM") - before}
    held = 0
    if "torch" in sys.modules:
        import torch

        held = torch.cuda.max_memory_allocated()
    if "jax" in sys.modules:
        import jax

        held = max(held, jax.devices()[0].memory_stats()["peak_bytes_in_use"])
    return {"peak": held, "rise": held}


def memory(what: str) -> int:
    """Bytes of this process: "VmHWM" at most so far, "VmRSS" now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


if __name__ == "__main__":
    main()
