"""Pin this process to its cores, and check whether the rest of the machine is quiet.

This file imports no numerical library: torch and XLA size their thread pools when they are imported.
"""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import psutil

BUSY = 0.10
"""More than this much of a core in the hands of other processes is a busy machine."""


class BusyMachine(Exception):
    """Other processes use so much of the machine that timings would mean nothing."""


class Watch:
    """Measures how much CPU other processes use, in cores, from one call to the next.

    It takes the machine's busy time minus our own, so it also covers the time in which we work ourselves: it
    sees a process that starts in the middle of a round, not only one that runs while we sleep.
    """

    def __init__(self) -> None:
        self._before = self._read()

    def others(self) -> float:
        """Cores that other processes used since the last call, time stolen by a hypervisor included."""
        now = self._read()
        wall, busy, own = (b - a for a, b in zip(self._before, now, strict=True))
        self._before = now
        return max(0.0, (busy - own) / wall)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        cpu = psutil.cpu_times()
        busy_fields = ("user", "nice", "system", "irq", "softirq", "steal")
        busy = sum(getattr(cpu, field, 0.0) for field in busy_fields)
        children = sum(os.times()[2:4])  # those that have ended
        return time.perf_counter(), busy, time.process_time() + children


def pin(threads: int, device: str = "cpu") -> list[int]:
    """Pin the process to the quietest of its cores, and with it the libraries that are imported later."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("This benchmark pins itself to a core, which this system does not offer.")
    use = psutil.cpu_percent(interval=0.3, percpu=True)
    cores = sorted(sorted(os.sched_getaffinity(0), key=lambda core: use[core])[:threads])
    if len(cores) < threads:
        raise SystemExit(f"--threads {threads} needs as many cores, and this process may use {len(cores)}.")
    os.sched_setaffinity(0, cores)
    os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    return cores


def refuse_if_busy(others: float, when: str) -> None:
    """Raise `BusyMachine` with the sentence that the user reads."""
    if others > BUSY:
        raise BusyMachine(
            f"The machine is busy: {when}, other processes used {others:.2f} of a core (limit {BUSY:.2f}), "
            "so no seconds per step are reported. Stop them, or pass --force for a table that is marked BUSY."
        )


def describe() -> dict[str, str]:
    """The machine on which the figures were measured."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), model)
    packages = ("torch", "pyro-ppl", "jax", "numpyro", "optax")
    return {
        "cpu": f"{model}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
