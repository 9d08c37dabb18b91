"""How time and memory of a training step grow with K, B, N, depth and the size of images."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.seconds_per_step.machine import BUSY, Watch, refuse_if_busy

from . import probe
from .common import Found, Options, heads, number, row, verdict, verdicts

TITLE = "Growth"
ROUNDS = 1
NAMES = ("ppdgm-numpyro", "ppdgm-pyro-eager", "jax-by-hand", "torch-by-hand")
CHUNKED = ("ppdgm-numpyro-chunked", "ppdgm-pyro-chunked")  # 50 particles at a time
NOTE = (
    "A process for each cell: µs per step (median of three stretches); seconds from the imports to the end of the "
    "first step; peak memory of the process in MiB. Medians of {} rounds. Compiled programs are not kept between "
    "processes."
)


@dataclass(frozen=True)
class Axis:
    """What grows: a size of the program, or an attribute of the case, and its values."""

    what: str
    case: str
    name: str
    values: tuple[int, ...]
    of_case: bool = False

    def spec(self, value: int) -> dict[str, Any]:
        return {"case": self.case, "changes" if self.of_case else "sizes": {self.name: value}}

    def contestants(self, value: int) -> tuple[str, ...]:
        """Without chunks, 5,000 particles need 10 GB."""
        if self.name != "k":
            return NAMES
        return CHUNKED if value > 500 else (*NAMES, *CHUNKED) if value > 50 else NAMES


AXES = (
    Axis("K (IWAE, B = 20)", "iwae", "k", (5, 50, 500, 5000)),
    Axis("B (VAE)", "vae", "batch", (20, 100, 500, 2500), of_case=True),
    Axis("N (VAE, B = 100)", "vae", "rows_of", (10_000, 40_000, 160_000), of_case=True),
    Axis("layers of an IAF (B = 100)", "iaf", "depth", (1, 2, 4, 8)),
    Axis("levels of a ladder (B = 100)", "ladder", "levels", (2, 4, 8)),
    Axis("side of images (convolutional VAE, B = 100)", "convolutional", "side", (16, 28, 64)),
)


def measure(options: Options) -> Iterator[Found]:
    """A process for each point and contestant, `rounds` times.

    Raises:
        BusyMachine: other processes worked meanwhile (never with `force`).
    """
    watch, found = Watch(), {"rounds": options.rounds_of(ROUNDS), "others": [], "axes": {}}
    for axis in AXES[:2] if options.quick else AXES:
        if options.programs and axis.case not in options.programs:
            continue
        points = found["axes"].setdefault(axis.what, {})
        for value in axis.values[:2] if options.quick else axis.values:
            point = points.setdefault(str(value), {})
            for name in (n for n in axis.contestants(value) if options.only is None or n in options.only):
                options.say(f"growth: {axis.what}: {value}, {name}")
                spec = {**axis.spec(value), "task": "train", "contestant": name, "device": options.device}
                off = {"PPDGM_COMPILATION_CACHE": "off"}
                point[name] = [probe.run({**spec, "timed": 0.5}, off) for _ in range(found["rounds"])]
            found["others"].append(watch.others())
            if found["others"][-1] > BUSY and not options.force:
                refuse_if_busy(found["others"][-1], f"at {axis.what}: {value}")
        yield found


def page(found: Found) -> list[str]:
    """For each axis the time, the first step and the memory."""
    lines = ["", NOTE.format(found["rounds"])]
    for what, points in found["axes"].items():
        names = list(dict.fromkeys(name for point in points.values() for name in point))
        lines += ["", f"### {what}"]
        for title, of in (
            ("µs/step", lambda m: m["seconds_per_step"] * 1e6),
            ("first step, s", lambda m: m["first"] - m["imported"]),
            ("peak, MiB", lambda m: m["peak"] / 2**20),
        ):
            lines += ["", *heads((title, *(f"{int(value):,}" for value in points)))]
            for name in names:
                cells = [number(median(map(of, p[name]))) if name in p else "–" for p in points.values()]
                lines.append(row(name, *cells))
        if "5000" in points and "50" in points:
            lines += verdicts(line for name in CHUNKED for line in _flat(points, name))
    return lines


def _flat(points: dict[str, Any], name: str) -> list[str]:
    """K = 5,000 in chunks beside K = 50 at once."""
    whole = {"ppdgm-numpyro-chunked": "ppdgm-numpyro", "ppdgm-pyro-chunked": "ppdgm-pyro-eager"}[name]
    if name not in points["5000"] or whole not in points["50"]:
        return []
    many, few = (median(m["peak"] for m in points[k][n]) for k, n in (("5000", name), ("50", whole)))
    return verdict(f"{name}: peak of K = 5,000 in chunks of 50 ÷ that of K = 50", many / few, 1.3)
