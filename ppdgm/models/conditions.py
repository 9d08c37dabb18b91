"""What a program may be conditional on: classes, such as the field `label`, and covariates, the field `y`."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from math import prod

import numpy as np
from pydantic import field_validator

from ppdgm.errors import DataError, ProgramError
from ppdgm.language.unseen import is_given
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.classes import as_one_hot, check_labels
from ppdgm.models.likelihoods import refuse
from ppdgm.models.likelihoods.base import FEW
from ppdgm.nets.base import flatten
from ppdgm.program import Program
from ppdgm.specs import PositiveInt, Shape

_TAKEN = ("x", "y", "exposure")
_SMALL, _LARGE = 0.01, 10.0  # the sizes of covariates that raise no doubt


class Conditioned(Program):
    """A program that may be conditional on classes and on covariates.

    Args:
        classes: the number of classes of the field `label`, whole numbers from 0; or several fields of classes by name,
            classes={"batch": 3, "cell_type": 8}, in a recipe [["batch", 3], ["cell_type", 8]].
        covariates: the shape of one row of the field `y`, real numbers of size about 1.
    """

    classes: PositiveInt | tuple[tuple[str, PositiveInt], ...] | None = None
    covariates: Shape | None = None

    @abstractmethod
    def model(self, P: Vocabulary, x: Array, **given: Array) -> None: ...

    @field_validator("classes", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        return tuple(value.items()) if isinstance(value, Mapping) else value

    @field_validator("classes")
    @classmethod
    def _named(cls, value: object) -> object:
        names = [name for name, _ in value] if isinstance(value, tuple) else ["label"]
        if not names or len(set(names)) < len(names) or any(n in _TAKEN or not n.isidentifier() for n in names):
            raise ValueError(f"different names of fields, none of them {', '.join(_TAKEN)}")
        return value

    @property
    def class_fields(self) -> dict[str, int]:
        """The fields of classes, and the number of classes of each."""
        return {"label": self.classes} if isinstance(self.classes, int) else dict(self.classes or ())

    @property
    def condition_width(self) -> int:
        """How many numbers the condition has; 0 if there is none."""
        return sum(self.class_fields.values()) + (prod(self.covariates) if self.covariates else 0)

    def condition(self, P: Vocabulary, given: Batch) -> Array | None:
        """The one-hot classes and the covariates, side by side: [B, condition_width]; None if there is no condition."""
        if unread := [name for name in given if name not in (*self.class_fields, *(("y",) if self.covariates else ()))]:
            raise ProgramError(f"{type(self).__name__} does not read the field {unread[0]!r}. Leave it out.")
        parts = [as_one_hot(P, given.get(name), count, name) for name, count in self.class_fields.items()]
        if self.covariates:
            y = given.get("y")
            if not is_given(y):
                raise ProgramError(
                    "The program is conditional on 'y', which is not given. Give its rows: "
                    "fit.sample(3, given={'y': …})."
                )
            parts.append(flatten(P, y, self.covariates))
        return P.concat(parts) if parts else None

    def check_condition(self, data: Batch, beside: tuple[str, ...] = ()) -> None:
        """Refuse data that lack a field of the condition, or have one that the program would not read.

        Args:
            data: rows by field.
            beside: further fields, which are read beside x and the condition.

        Raises:
            DataError: so it is.
        """
        kind = type(self).__name__
        needed = dict.fromkeys(self.class_fields, f"classes={self.classes!r}")
        needed |= {"y": f"covariates={self.covariates!r}"} if self.covariates else {}
        for name, argument in needed.items():
            if name not in data and "x" in data:  # without x, these are what is given to draw it
                raise DataError(f"{kind}({argument}): the data have no field {name!r}. Give it beside x.")
        for name in data:
            if name not in ("x", *needed, *beside):
                argument = "covariates=…" if name == "y" else "classes=…"
                hint = "" if name == "exposure" else f"; or, for a model that is conditional on it, give {argument}"
                raise DataError(
                    f"{kind}: the data have a field {name!r}, which p(x) does not read. Leave it out{hint}."
                )
        for name, count in self.class_fields.items():
            if name in data:
                check_labels(data[name], count, name=name)
        if self.covariates and "y" in data:
            self._check_covariates(np.asarray(data["y"]), self.covariates)

    def _check_covariates(self, y: np.ndarray, shape: tuple[int, ...]) -> None:
        if y.shape[1:] != tuple(shape):
            raise DataError(f"Data 'y': got rows of shape {y.shape[1:]}, expected {tuple(shape)} as in covariates.")
        refuse("y", y, ~np.isfinite(y), "finite numbers")
        if len(y) < FEW:
            return
        size = np.sqrt(np.mean(np.square(y, dtype=np.float64), axis=0)).reshape(-1)
        if far := [i for i in np.flatnonzero(size) if not _SMALL <= size[i] <= _LARGE]:
            warnings.warn(
                f"Data 'y': covariate {int(far[0])} has numbers of size about {size[far[0]]:.2g}; nets read numbers of "
                "size about 1. y is taken as it is: the run keeps no scale of it. Scale it, in training and afterwards "
                "in the same way.",
                stacklevel=2,
            )


class DataDensity(Conditioned):
    """A program whose model is one density, p(x) or p(x | label, y): its ELBO is exactly log p.

    Args:
        event_shape: shape of one row of the data.
    """

    event_shape: Shape
