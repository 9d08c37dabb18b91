"""Real data for a first model: the UCI digits, which come with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppdgm.errors import DataError, nearest

_SPLIT_SEED = 0
_HELD_OUT = {"validation": 150, "test": 300}


@dataclass(frozen=True)
class Dataset:
    """Arrays of data, one row a datum.

    Attributes:
        name: of the set.
        train, validation, test: [N, *event_shape].
        labels: the classes of each split, [N], by the split's name.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    labels: dict[str, np.ndarray]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{n} {len(getattr(self, n))}" for n in ("train", "validation", "test"))
        return f"Dataset({self.name!r}: {sizes} data of shape {self.event_shape})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return self.train.shape[1:]


def load_data(name: str, binarised: bool = True) -> Dataset:
    """A data set by name.

    Args:
        name: "digits": 1,797 images of 8×8 with 17 grey levels (UCI, by way of scikit-learn).
        binarised: pixels as 0 or 1, those of at least half the largest level being 1; else in [0, 1].

    Raises:
        DataError: no data set has this name.
    """
    if name != "digits":
        raise DataError(f"Unknown data set {name!r}. {nearest(name, ['digits'])}")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = (images / 16.0).reshape(-1, 8, 8).astype(np.float32)
    x = (x >= 0.5).astype(np.float32) if binarised else x
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(x))
    ends = np.cumsum([len(x) - sum(_HELD_OUT.values()), *_HELD_OUT.values()])
    rows = dict(zip(("train", *_HELD_OUT), np.split(order, ends[:-1]), strict=True))
    return Dataset(name, **{n: x[r] for n, r in rows.items()}, labels={n: labels[r] for n, r in rows.items()})


def binarise(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """x ~ Bernoulli(x), drawn once with `seed`, for x in [0, 1]."""
    x = np.asarray(x)
    if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
        raise DataError(f"Got data between {x.min()} and {x.max()}, expected [0, 1]. Scale them first.")
    return (np.random.default_rng(seed).random(x.shape) < x).astype(np.float32)
