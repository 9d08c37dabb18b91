"""Test log-likelihood by k importance samples: time per row and particle, and memory by k."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from math import expm1, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import probe
from .cases import Case, make
from .common import Found, Options, best, heads, number, race, ranked, ratio, row, verdict, verdicts
from .contestants import LIKELIHOODS, maker

TITLE = "Test log-likelihood"
ROUNDS = 5
K, ROWS, FEW = 5000, 100, 2  # pythae judges few rows: it takes them one by one
NATS = 0.5
NOTE = (
    "VAE 784-200-200-50, untrained. ppdgm: `fit.log_likelihood`; by hand: chunks of 50 particles; pythae: "
    "`get_nll`, in batches of 100 (its default), 500 and 5,000 particles, on 2 rows."
)
MEMORY = (
    "Peak memory of a process of its own, MiB, and what it rose by while it judged; 100 rows, pythae 2. The rise "
    "includes compiled programs."
)


class NearPrior(Case):
    """First values with q(z|x) near p(z), and a decoder that sees little of z: importance weights of little spread."""

    def first(self) -> dict[str, NDArray[np.float32]]:
        values = super().first()
        half = len(values["encoder.layers.2.bias"]) // 2
        values["encoder.layers.2.bias"][half:] = log(expm1(1.0 - 1e-4))  # a scale of 1
        values["encoder.layers.2.weight"] *= 0.1
        values["decoder.layers.0.weight"] *= 0.1
        return values


class DifferentNumbers(Exception):
    """Contestants whose log p(x) are too far apart."""


def measure(options: Options) -> Iterator[Found]:
    """Race them on the same rows; then a process for each contestant and k.

    Raises:
        DifferentNumbers: they do not compute the same log p(x).
    """
    k, case, means = 100 if options.quick else K, as_near_prior(make("vae", device=options.device)), {}
    known = options.contestants_of(LIKELIHOODS)
    makers = {n: partial(_stretch, case, n, maker(made), k, means) for n, made in known.items()}
    found = race("likelihood", makers, options.rounds_of(ROUNDS), options) | {"k": k, "mean": means}
    middle = float(np.median(list(means.values())))
    if astray := {n: v for n, v in means.items() if not abs(v - middle) <= NATS}:
        raise DifferentNumbers(f"Mean log p(x) of the first rows: {middle:.2f} nats in the middle, but {astray}.")
    yield found
    memory: Found = {}
    for name in found["seconds"]:
        for many in (50, k):
            options.say(f"likelihood: memory of {name}, k = {many}")
            spec = {"task": "likelihood", "contestant": name, "rows": rows_of(name), "k": many}
            memory.setdefault(name, {})[str(many)] = probe.run({**spec, "device": options.device})
    yield {**found, "memory": memory}


def as_near_prior(case: Case) -> NearPrior:
    """The same case with these first values."""
    return NearPrior(**{field.name: getattr(case, field.name) for field in fields(case)})


def rows_of(name: str) -> int:
    """The number of rows that a contestant judges in a turn."""
    return FEW if name.startswith("pythae") else ROWS


def _stretch(
    case: Case, name: str, made: Callable[[Case], Any], k: int, means: dict[str, float]
) -> tuple[Callable[[], object], int]:
    judge, x = made(case), case.data[: rows_of(name)]
    means[name] = float(np.mean(np.atleast_1d(judge(x, k))[:FEW]))  # compiles, too
    return lambda: judge(x, k), len(x) * k


def page(found: Found) -> list[str]:
    """Times, memory, and whether the targets are met."""
    means, seconds = {n: f"{v:.2f}" for n, v in found["mean"].items()}, found["seconds"]
    theirs, mine = best(seconds, [n for n in seconds if n.startswith("pythae")]), best(seconds, list(LIKELIHOODS)[:2])
    references = ("jax-by-hand", "torch-by-hand", *([theirs] if theirs else []))
    lines = ["", f"{NOTE} k = {found['k']:,}, {len(found['others'])} rounds."]
    lines += ranked(found, references, "µs per row and particle", 1e6, {"log p(x) of 2 rows": means})
    if mine and theirs:
        lines += verdicts(verdict(f"{mine} ÷ pythae's `get_nll` at its best", ratio(seconds, mine, theirs), 0.1))
    if not (memory := found.get("memory")):
        return lines
    ks = list(next(iter(memory.values())))
    names = [f"{what}, k = {int(k):,}" for k in ks for what in ("peak", "rise")]
    lines += ["", MEMORY, "", *heads(("contestant", *names, "peak ÷"))]
    for name, by_k in memory.items():
        cells = [number(by_k[k][what] / 2**20) for k in ks for what in ("peak", "rise")]
        lines.append(row(name, *cells, f"{by_k[ks[-1]]['peak'] / by_k[ks[0]]['peak']:.2f}"))
    return lines
