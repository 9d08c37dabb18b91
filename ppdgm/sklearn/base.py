"""What the estimators share: rows in, a trained program inside, numbers of rows out."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from math import prod
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from ppdgm.errors import SpecError, shown
from ppdgm.inference import Engine, Fit
from ppdgm.inference import fit as train
from ppdgm.program import Program

ROWS = 256  # rows are computed in batches of this size: JAX compiles once, and no row sees how many others there are
_BAD_ENDS = {
    "diverged": "the objective ended far below where it began",
    "not finite": "steps with numbers that are not finite",
    "failed": "an error",
}


class ProgramEstimator(BaseEstimator):
    """The base of the estimators.

    Attributes:
        fit_: the trained program, with all that ppdgm can tell of it: bounds, diagnoses, reports.
        n_features_in_, feature_names_in_: of the data.
    """

    default_engine: ClassVar[Engine | None] = None
    missing: ClassVar[bool] = False  #: whether X may have NaN

    program: Program | None
    engine: Engine | None
    epochs: int
    learning_rate: float
    batch_size: int | None
    backend: str
    device: str
    seed: int

    fit_: Fit
    n_features_in_: int

    @abstractmethod
    def _make(self, event_shape: tuple[int, ...]) -> Program:
        """The program to train, for rows of this shape."""

    def fit(self, X: Any, y: object = None) -> Self:
        """Train the program.

        Args:
            X: rows [N, D] of finite numbers; a program whose rows have another shape of D numbers gets them in that.
            y: ignored, as in scikit-learn's own estimators without a target.

        Raises:
            ValueError: data or parameters that can't be used.
        """
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=self._finite)
        width, given = rows.shape[1], self.program
        if given is not None and not isinstance(given, Program):
            raise SpecError(f"program: got {shown(given)}, expected a Program such as VAE(…), or None.")
        event = (width,) if given is None else tuple(getattr(given, "event_shape", (width,)))
        if prod(event) != width:
            raise SpecError(
                f"program: its rows have the shape {event}, {prod(event)} numbers, but X has {width} features. Give a "
                f"program with event_shape=({width},)."
            )
        made = train(
            self._make(event),
            self._shaped(rows, event),
            engine=self.engine or self.default_engine,
            backend=self.backend,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            device=self.device,
            seed=self.seed,
            progress=False,
        )
        if (reason := _BAD_ENDS.get(made.stopped)) is not None:
            warnings.warn(
                f"{type(self).__name__}: training did not converge: {reason}. Try a smaller learning_rate, or scale "
                "X, for example with StandardScaler.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.fit_ = made
        return self

    def sample(self, n_samples: int = 1, seed: int = 0) -> np.ndarray:
        """Rows drawn from the model, [n_samples, D].

        Args:
            n_samples: their number.
            seed: of the draws.
        """
        check_is_fitted(self)
        return _flat(self.fit_.sample(n_samples, seed=seed))

    @property
    def _finite(self) -> bool | Literal["allow-nan"]:
        return "allow-nan" if self.missing else True

    @staticmethod
    def _shaped(rows: np.ndarray, event: tuple[int, ...]) -> np.ndarray:
        return rows.reshape(len(rows), *event)

    @property
    def _event(self) -> tuple[int, ...]:
        return tuple(self.fit_.info["shapes"]["x"])

    def _checked(self, X: Any) -> np.ndarray:
        """Rows of the estimator's number of features."""
        check_is_fitted(self)
        found: np.ndarray = validate_data(
            self, X, dtype=[np.float64, np.float32], ensure_all_finite=self._finite, reset=False
        )
        return found

    def _by_batches(self, rows: np.ndarray, numbers: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """`numbers(x)` of all rows, in batches of one size: the last is filled up with the first rows."""
        size = -(-len(rows) // ROWS) * ROWS
        filled = self._shaped(rows, self._event)[np.arange(size) % len(rows)]
        found = [numbers(filled[i : i + ROWS]) for i in range(0, size, ROWS)]
        return np.concatenate(found)[: len(rows)].astype(rows.dtype, copy=False)


def _flat(values: Any) -> np.ndarray:
    """Rows of numbers, [N, D]; several arrays by name are joined, in the order of the names."""
    parts = values.values() if isinstance(values, dict) else [values]
    return np.concatenate([np.asarray(v).reshape(len(v), -1) for v in parts], axis=1)
