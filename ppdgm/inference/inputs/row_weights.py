"""Weights of rows: of training data, of validation data, and of what is evaluated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data import Dataset
from ppdgm.errors import DataError, TrainingError, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ppdgm.inference.engines.engine import Engine
    from ppdgm.language.tracer import Tracer

    Weights = ArrayLike | Mapping[str, ArrayLike]
    Given = Mapping[str, ArrayLike]

SPLITS = ("train", "validation")


def weights_by_split(given: Weights | None, data: object, validation: object) -> Given:
    """The weights that `fit` was given, or those of a `Dataset`; its validation weights are for its own rows.

    Raises:
        DataError: they are of another split.
    """
    if given is None:
        held = getattr(data, "weights", {}) if isinstance(data, Dataset) else {}
        return {n: w for n, w in held.items() if n == "train" or (n == "validation" and validation is None)}
    if not isinstance(given, Mapping):
        return {"train": given}
    if unknown := [n for n in given if n not in SPLITS] or ["nothing"] * ("train" not in given):
        raise DataError(f"weights: got {unknown[0]!r}, expected weights of 'train', and perhaps of 'validation'.")
    return given


def check_weights(given: ArrayLike, size: int, name: str = "weights") -> np.ndarray:
    """Weights of rows [N] in float64.

    Raises:
        DataError: they are no numbers, or not one for each row; some are negative or not finite; or all are 0.
    """
    try:
        found = np.asarray(given)
        numbers = found.dtype.kind in "fiub"
    except ValueError:  # a ragged list
        numbers = False
    if not numbers:
        raise DataError(f"{name}: got {shown(given)}, expected a number for each row, [N].")
    if found.shape != (size,):
        raise DataError(f"{name}: got an array of shape {found.shape}, expected one number for each row, ({size},).")
    found = found.astype(np.float64)
    if (wrong := ~(np.isfinite(found) & (found >= 0))).any():
        i = int(np.argmax(wrong))
        raise DataError(f"{name}: got {found[i]} at index ({i},), expected finite numbers that are not negative.")
    if not found.any():
        raise DataError(f"{name}: got only zeros, so that no row counts. Give a positive number to some rows.")
    return found


def of_mean_one(weights: np.ndarray) -> np.ndarray:
    """w_i N / Σ w, so that a learning rate means the same as without weights."""
    found: np.ndarray = weights / weights.mean()
    return found


def digest_of(*weights: np.ndarray | None) -> str:
    """A checksum of weights, of which some may be absent."""
    told = [b"none" if w is None else w.tobytes() for w in weights]
    return hashlib.sha256(b"\0".join(told)).hexdigest()


def check_weighable(engine: Engine, tracer: Tracer) -> None:
    """Refuse weights where the objective is not a mean over the rows of the data.

    Raises:
        TrainingError: with the reason.
    """
    name = type(engine).__name__
    if not getattr(engine, "reads_data", True):
        raise TrainingError(f"weights: {name}() reads no data, so there are no rows to weight. Leave them out.")
    if engine.controller(1) is not None:
        raise TrainingError(
            f"weights: {name}() chooses its steps by the mutual information of rows, in which each counts once. Use "
            "VariationalEM(), or leave the weights out."
        )
    if tracer.subsamples or tracer.batch_size is not None:
        raise TrainingError(
            "weights: the pair's plate has a size of its own, and scales its rows itself. Use a plate of all rows that "
            "it is given, or leave the weights out."
        )
