"""What a density of data may be conditional on: classes, the field `label`, and covariates, the field `y`."""

from __future__ import annotations

from abc import abstractmethod
from math import prod

import numpy as np

from ppdgm.errors import DataError, ProgramError
from ppdgm.language.unseen import is_given
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.classes import as_one_hot, check_labels
from ppdgm.models.likelihoods import refuse
from ppdgm.nets.base import flatten
from ppdgm.program import Program
from ppdgm.specs import PositiveInt, Shape


class DataDensity(Program):
    """A program whose model is one density, p(x) or p(x | label, y): its ELBO is exactly log p.

    Args:
        event_shape: shape of one row of the data.
        classes: for p(x | label): the number of classes of the field `label`, whole numbers from 0.
        covariates: for p(x | y): the shape of one row of the field `y`, real numbers.
    """

    event_shape: Shape
    classes: PositiveInt | None = None
    covariates: Shape | None = None

    @abstractmethod
    def model(self, P: Vocabulary, x: Array, label: Array | None = None, y: Array | None = None) -> None: ...

    @property
    def condition_width(self) -> int:
        """How many numbers the condition has; 0 if there is none."""
        return (self.classes or 0) + (prod(self.covariates) if self.covariates else 0)

    def condition(self, P: Vocabulary, label: Array | None, y: Array | None) -> Array | None:
        """The one-hot label and the covariates, side by side: [B, condition_width]."""
        parts = []
        if self.classes:
            parts.append(as_one_hot(P, label, self.classes))
        if self.covariates:
            if not is_given(y):
                raise ProgramError(
                    "The program is conditional on 'y', which is not given. Give its rows: "
                    "fit.sample(3, given={'y': …})."
                )
            parts.append(flatten(P, y, self.covariates))
        return P.concat(parts) if parts else None

    def check_condition(self, data: Batch) -> None:
        """Refuse data that lack a field of the condition, or have one that the density would not read.

        Raises:
            DataError: so it is.
        """
        kind = type(self).__name__
        for name, argument, value in (("label", "classes", self.classes), ("y", "covariates", self.covariates)):
            if value and name not in data and "x" in data:  # without x, these are what is given to draw it
                raise DataError(f"{kind}({argument}={value!r}): the data have no field {name!r}. Give it beside x.")
            if not value and name in data:
                raise DataError(
                    f"{kind}: the data have a field {name!r}, which p(x) does not read. Leave it out; or, for a "
                    f"density that is conditional on it, give the program {argument}=…."
                )
        if self.classes and "label" in data:
            check_labels(data["label"], self.classes)
        if self.covariates and "y" in data:
            rows = np.asarray(data["y"])
            if rows.shape[1:] != tuple(self.covariates):
                raise DataError(
                    f"Data 'y': got rows of shape {rows.shape[1:]}, expected {tuple(self.covariates)} as in covariates."
                )
            refuse("y", rows, ~np.isfinite(rows), "finite numbers")
