"""The base class of priors."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.models.posteriors import Family
from ppdgm.program import Part


class Prior(Part):
    """A distribution over the latent variable.

    If the posterior of the latent depends only on the data, `distribution` gets it too, as a function from inputs to
    distributions. `build` finds the shape of the inputs in `context.inputs`, which is None without such a posterior.
    """

    role: ClassVar[str] = "prior"
    family: ClassVar[Family] = "real"
    follows: ClassVar[bool] = (
        False  #: whether it moves with the guide, so that nothing pulls the codes to a fixed place
    )

    def settle(self, P: NumpyVocabulary, z: np.ndarray) -> None:
        """Set first values that depend on values z [N, *event] of the latent, by `P.set`; by default there are none."""
