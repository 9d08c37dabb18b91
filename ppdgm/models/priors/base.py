"""What every prior is."""

from __future__ import annotations

from typing import ClassVar

from ppdgm.models.posteriors import Family
from ppdgm.program import Part


class Prior(Part):
    """A distribution over the latent variable.

    Its `distribution` is handed the program's posterior too, as a function of inputs to distributions, where the latent
    has one of the data alone. `build` knows the inputs' shape as `context.inputs`, which is None where there is none.
    """

    role: ClassVar[str] = "prior"
    family: ClassVar[Family] = "real"
    follows: ClassVar[bool] = (
        False  #: whether it moves with the guide, so that nothing draws codes to a place of its own
    )
