"""Which rows are training, validation and test data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppdgm.errors import DataError

SPLITS = ("train", "validation", "test")
_TENTH = 0.1

Amount = float | int | None
Rows = np.ndarray | None  # None: all of them, in order


def split_rows(
    sizes: Mapping[str, int], asked: Mapping[str, Amount], default: Mapping[str, Amount], seed: int
) -> dict[str, tuple[str, Rows] | None]:
    """For each split, the part that it is taken from and its rows; None if it has no data.

    Args:
        sizes: the number of rows of the set's original parts: "train", and perhaps "validation" and "test".
        asked: fractions or rows of "validation" and "test", or None for the default.
        default: the same; None for all that a part has, or else a tenth of the training data.
        seed: of the order in which rows are drawn.

    Raises:
        DataError: more rows than there are, or none left to train on.
    """
    found: dict[str, tuple[str, Rows] | None] = {}
    drawn: dict[str, int] = {}
    for name in SPLITS[1:]:
        amount = default[name] if asked[name] is None else asked[name]
        if name not in sizes:
            drawn[name] = _rows(name, _TENTH if amount is None else amount, sizes["train"], asked[name] is not None)
        elif amount is None:
            found[name] = name, None
        else:
            count = _rows(name, amount, sizes[name], asked[name] is not None)
            if count > sizes[name]:
                raise DataError(
                    f"{name}: got {amount}, expected at most {sizes[name]}, the rows of this split in the set."
                )
            order = np.random.default_rng(seed).permutation(sizes[name])
            found[name] = (name, order[:count]) if count else None
    left = sizes["train"] - sum(drawn.values())
    if left < 1:
        taken = ", ".join(f"{n}={asked[n] if asked[n] is not None else c}" for n, c in drawn.items())
        raise DataError(
            f"{taken}: got {sizes['train']} rows, and none is left to train on. Ask for fewer rows. To have all rows "
            "in one split, give validation=0, test=0 and use data.train."
        )
    mixed = np.random.default_rng(seed).permutation(sizes["train"])
    found["train"] = "train", mixed[:left] if left < sizes["train"] else None
    at = left
    for name, count in drawn.items():
        found[name] = ("train", mixed[at : at + count]) if count else None
        at += count
    return {name: found[name] for name in SPLITS}


def _rows(name: str, amount: float | int, size: int, explicit: bool) -> int:
    if isinstance(amount, int):
        return amount
    count = round(amount * size)
    if count == 0 and explicit:
        raise DataError(f"{name}: got the fraction {amount} of {size} rows, which is no row. Give more, or 0 for none.")
    return count
