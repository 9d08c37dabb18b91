"""An estimate of the memory of a training step, before the first one."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.runs.settings import Training
from ppdgm.language.runtime import Native, Runtime

MOST_LAYERS = 1000  #: numbers that a net keeps for each number of a row; below this, no run is looked at
_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"), (
    "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
)  # fmt: skip


def warnings_of(
    runtime: Runtime,
    params: Native,
    feed: Feed,
    training: Training,
    rows: int,
    particles: int,
) -> list[str]:
    """What to do if a step is likely to need more memory than is free; none if it is not, or if that is not known.

    Args:
        runtime: of the program.
        params: first values.
        feed: of the data.
        training: the run's settings.
        rows: B.
        particles: the largest K of the engine's phases; 0 if there are none.
    """
    free = runtime.free_bytes()
    free = free_on_host() if free is None else free
    k = min(particles, training.particle_chunk or particles)
    b = -(-rows // (training.accumulate * runtime.share.devices))
    each = sum(prod(v.shape[1:]) * np.dtype(v.dtype).itemsize for v in feed.fields.values())
    if free is None or not k or k * b * each * MOST_LAYERS < free:
        return []
    try:
        data = feed.some(runtime.tracer.batch_size or 4)
        needed = runtime.bytes_of_step(params, data, k, b, training.rematerialise)
    except Exception:  # an estimate must not end a run, which reports its own errors
        return []
    if needed <= free:
        return []
    of, less = (f"{k} particles", "a smaller " if training.particle_chunk else "a ") if k > 1 else ("one particle", "")
    chunk = f"{less}particle_chunk, " if less else ""
    return [
        f"A step with {of} of {b} rows needs about {needed / 2**30:.1f} GiB of memory, "
        f"and {free / 2**30:.1f} GiB are free, so training may run out of it. Give {chunk}a smaller batch_size, "
        "accumulate, or a smaller net."
    ]


def free_on_host() -> int | None:
    """Bytes that this process may still take: of the machine, or of its group if that is less; None if not known."""
    pairs = ((_number(limit), _number(used)) for limit, used in _GROUPS)
    found = [limit - used for limit, used in pairs if limit is not None and used is not None]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = meminfo.read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min(found, default=None)


def _number(file: str) -> int | None:
    try:
        text = Path(file).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max": no limit
