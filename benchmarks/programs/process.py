"""Start-up, compilation and peak memory of a training step: a process for each program and contestant."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from . import probe
from .cases import BOUNDS, make
from .common import Found, Options, heads, number, race, row

TITLE = "Start-up, compilation and memory of a training step"
ROUNDS = 2
#: contestant, and whether compiled programs are kept from an earlier process
PROCESSES = {
    "ppdgm-numpyro": ("ppdgm-numpyro", False),
    "ppdgm-numpyro, warm cache": ("ppdgm-numpyro", True),
    "ppdgm-pyro-eager": ("ppdgm-pyro-eager", False),
    "jax-by-hand": ("jax-by-hand", False),
    "torch-by-hand": ("torch-by-hand", False),
    "numpyro-svi": ("numpyro-svi", False),
    "pyro-svi": ("pyro-svi", False),
}
COMPILED = {n: (n, False) for n in ("ppdgm-pyro", "torch-compiled")}  # only if asked for: a minute each
PROGRAMS = ("vae", "iaf", "ladder", "convolutional", "iwae-dreg")
NOTE = (
    "Seconds from the start of the process: until its libraries are imported, until the first step is done (compiled, "
    "with an empty cache), and of that what came after the imports. Memory: at most, and what it rose by in two steps "
    "(compiler included). Medians of {} rounds. ppdgm: the step inside `fit`, without its checks before training."
)


def measure(options: Options) -> Iterator[Found]:
    """Processes in turns, program by program."""
    chosen = options.contestants_of(PROCESSES if options.only is None else {**PROCESSES, **COMPILED})
    programs: Found = {}
    for name in options.programs_of(PROGRAMS, ("vae",)):
        measured: dict[str, list[probe.Measured]] = {}
        with tempfile.TemporaryDirectory() as folder:
            there = {n: c for n, c in chosen.items() if "svi" not in n or make(name).elbo in BOUNDS}
            makers = {n: partial(_process, name, n, *c, Path(folder), measured, options) for n, c in there.items()}
            found = race(f"process {name}", makers, options.rounds_of(ROUNDS), options)
        kept = len(found["others"])
        programs[name] = {"others": found["others"], "measured": {n: v[-kept:] for n, v in measured.items()}}
        yield {"programs": programs}


def _process(
    program: str, label: str, contestant: str, warm: bool, folder: Path, measured: dict[str, list[probe.Measured]],
    options: Options,
) -> tuple[Callable[[], object], int]:  # fmt: skip
    spec = {"task": "train", "case": program, "contestant": contestant, "device": options.device}

    def once() -> None:
        environment = {"PPDGM_COMPILATION_CACHE": str(folder / "warm") if warm else "off"}
        with tempfile.TemporaryDirectory() as fresh:
            measured.setdefault(label, []).append(probe.run(spec, {**environment, "TORCHINDUCTOR_CACHE_DIR": fresh}))

    if warm:
        probe.run(spec, {"PPDGM_COMPILATION_CACHE": str(folder / "warm")})
    return once, 1


def page(found: Found) -> list[str]:
    """A table for each program."""
    rounds = len(next(iter(found["programs"].values()))["others"])
    lines = ["", NOTE.format(rounds)]
    for name, program in found["programs"].items():
        names = ("contestant", "imported, s", "first step, s", "of that after imports", "peak, MiB", "rise, MiB")
        lines += ["", f"### {name}", "", *heads(names)]
        for contestant, turns in program["measured"].items():
            of = {what: median(turn[what] for turn in turns) for what in turns[0]}
            seconds = (of["imported"], of["first"], of["first"] - of["imported"])
            sizes = (of["peak"] / 2**20, of["rise"] / 2**20)
            lines.append(row(contestant, *(f"{s:.2f}" for s in seconds), *map(number, sizes)))
    return lines
