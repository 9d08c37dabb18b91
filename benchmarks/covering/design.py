"""A covering set: rows of choices in which every pair that is allowed occurs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import numpy as np

Row = tuple[str, ...]
Pair = tuple[int, str, int, str]  # factor, choice, factor, choice
TRIES = 40


def cover(factors: dict[str, list[str]], refusal: Callable[[Row], str | None], seed: int = 0) -> list[Row]:
    """Rows in which every allowed pair of choices occurs at least once, greedily few.

    Args:
        factors: name -> choices.
        refusal: the reason why a row is not possible, or None.
        seed: the seed of the order.
    """
    rng, names = np.random.default_rng(seed), list(factors)
    left: dict[Pair, None] = {}
    for i, j in combinations(range(len(names)), 2):
        left |= {(i, a, j, b): None for a, b in product(factors[names[i]], factors[names[j]])}
    rows: list[Row] = []
    while left:
        pair = next(iter(left))
        candidates = [row for row in _completions(pair, factors, rng) if refusal(row) is None]
        if not candidates:
            candidates = [row for row in _all(pair, factors) if refusal(row) is None][:1]
        if not candidates:
            del left[pair]  # refused with any other choices
            continue
        best = max(candidates, key=lambda row: sum(p in left for p in pairs_of(row)))
        rows.append(best)
        for covered in pairs_of(best):
            left.pop(covered, None)
    return rows


def pairs_of(row: Row) -> list[Pair]:
    """Every pair of choices in a row."""
    return [(i, row[i], j, row[j]) for i, j in combinations(range(len(row)), 2)]


def refused(factors: dict[str, list[str]], refusal: Callable[[Row], str | None], rows: list[Row]) -> dict[Pair, str]:
    """The pairs that no row has, each with its own reason, not that of another pair in the same row."""
    names, covered = list(factors), {p for row in rows for p in pairs_of(row)}
    found = {}
    for i, j in combinations(range(len(names)), 2):
        for a, b in product(factors[names[i]], factors[names[j]]):
            if (pair := (i, a, j, b)) not in covered:
                reasons = [refusal(row) for row in _all(pair, factors)]
                assert all(reasons), pair
                found[pair] = min(filter(None, reasons), key=lambda r: "which is for" in r)
    return found


def _completions(pair: Pair, factors: dict[str, list[str]], rng: np.random.Generator) -> list[Row]:
    fixed = {pair[0]: pair[1], pair[2]: pair[3]}
    draw = lambda i, choices: fixed.get(i, choices[rng.integers(len(choices))])
    return [tuple(draw(i, c) for i, c in enumerate(factors.values())) for _ in range(TRIES)]


def _all(pair: Pair, factors: dict[str, list[str]]) -> product:
    fixed = {pair[0]: [pair[1]], pair[2]: [pair[3]]}
    return product(*(fixed.get(i, c) for i, c in enumerate(factors.values())))
