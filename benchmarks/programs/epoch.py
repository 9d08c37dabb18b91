"""Seconds of an epoch of MNIST, B = 100, beside pythae's trainer."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Case, make
from .common import Found, Options, best, race, ranked, ratio, verdict, verdicts
from .contestants import STEPS, maker

TITLE = "An epoch of 60,000 images"
ROUNDS = 3
NAMES = ("ppdgm-numpyro", "ppdgm-pyro", "jax-by-hand", "torch-by-hand", "pythae")
NOTE = (
    "VAE 784-200-200-50, B = 100: 600 steps, without start and compilation. ppdgm: the loop inside `fit`; pythae: "
    "`train_step` of its trainer, with its data loader and without its progress bar."
)


def measure(options: Options) -> Iterator[Found]:
    """Race whole epochs, each in its own order of rows."""
    case = replace(make("vae", device=options.device), given=images(2000 if options.quick else 60_000))
    steps = len(case.data) // case.batch
    makers = options.contestants_of({n: partial(_epoch, case, maker(STEPS[n]), steps) for n in NAMES})
    found = race("epoch", makers, options.rounds_of(ROUNDS), options)
    yield {**found, "data": "MNIST" if "PPDGM_DATA" in os.environ else "noise", "rows": len(case.data)}


def _epoch(case: Case, made: Callable[[Case], Any], steps: int) -> tuple[Callable[[], object], int]:
    order = np.random.default_rng(0).permutation(steps * case.batch).reshape(steps, case.batch)
    epoch = made(case)(order)
    epoch()  # compiles
    return epoch, 1


def images(rows: int) -> np.ndarray:
    """Rows of MNIST, 0 or 1, if PPDGM_DATA names a folder that holds `mnist/`; else noise of the same ink."""
    if "PPDGM_DATA" not in os.environ:
        return make("vae", rows_of=rows).data
    from benchmarks.mnist import images as read

    x = read(Path(os.environ["PPDGM_DATA"]), "train")[:rows]
    return (x > np.random.default_rng(0).random(x.shape)).astype(np.float32)


def page(found: Found) -> list[str]:
    """The table, and whether the target is met."""
    lines = ["", f"{NOTE} {found['rows']:,} rows of {found['data']}, {len(found['others'])} rounds."]
    lines += ranked(found, ("pythae", "jax-by-hand", "torch-by-hand"), "seconds", 1.0)
    mine = best(found["seconds"], NAMES[:2])
    reached = ratio(found["seconds"], mine, "pythae") if mine else None
    return [*lines, *verdicts(verdict(f"{mine} ÷ pythae's trainer", reached, 1 / 6))]
