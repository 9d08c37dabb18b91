"""Drawing images: time per image."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from .cases import Case, make
from .common import Found, Options, race, ranked
from .contestants import IMAGES, maker

TITLE = "Drawing images"
ROUNDS = 9
PROGRAMS = ("vae", "ladder", "convolutional")
N = 10_000
NOTE = (
    "x ~ p(x) of 28×28 pixels, as NumPy arrays, without compilation. ppdgm: `fit.sample(n)`; pythae: its sampler, "
    "which returns probabilities and draws no pixels."
)


def measure(options: Options) -> Iterator[Found]:
    """Race the contestants of each program."""
    n, programs = 200 if options.quick else N, {}
    for name in options.programs_of(PROGRAMS, PROGRAMS):
        case = make(name, device=options.device)
        makers = {c: partial(_stretch, case, maker(made), n) for c, made in options.contestants_of(IMAGES).items()}
        programs[name] = race(f"sampling {name}", makers, options.rounds_of(ROUNDS), options)
        yield {"programs": programs, "n": n}


def _stretch(case: Case, made: Callable[[Case], Any], n: int) -> tuple[Callable[[], object], int]:
    draw, seeds = made(case), count()
    shape = draw(n, next(seeds)).shape  # compiles, too
    if shape != (n, *case.data.shape[1:]):
        raise ValueError(f"{case}: got images of shape {shape}.")
    return lambda: draw(n, next(seeds)), n


def page(found: Found) -> list[str]:
    """A table for each program, with images per second."""
    lines = ["", f"{NOTE} n = {found['n']:,}."]
    for name, program in found["programs"].items():
        rate = {n: f"{1.0 / np.median(v):,.0f}" for n, v in program["seconds"].items()}
        title = f"### {name}: {len(program['others'])} rounds"
        references = ("jax-by-hand", "torch-by-hand", "pythae")
        lines += ["", title, *ranked(program, references, "µs per image", 1e6, {"images/s": rate})]
    return lines
