"""The base class of posteriors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.program import Part

# Kinds of latents: prior and posterior must have the same. "unit" is (0, 1).
Family = Literal["real", "positive", "unit", "simplex", "categorical", "binary"]
CONTINUOUS = ("real", "positive", "unit", "simplex")


class Posterior(Part):
    """A distribution over the latent variable, given the encoder's output."""

    role: ClassVar[str] = "posterior"
    family: ClassVar[Family] = "real"
    settles: ClassVar[bool] = False  #: whether first values depend on what the encoder gives

    @property
    def infer(self) -> Mapping[str, object] | None:
        """The `infer` argument of the guide's site: {"enumerate": "parallel"}, or None."""
        return None

    def variable(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the latent variable, if the program has latents of shape `latent`."""
        return latent

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the decoder's input, for a variable of `shape`."""
        return shape

    def code(self, P: Vocabulary, z: Array) -> Array:
        """The decoder's input: z itself, or the codebook's vectors of its classes."""
        return z

    def counterpart(self, P: Vocabulary, prior: Dist) -> Dist:
        """The prior's distribution that scores this posterior's values: the discrete one if they are enumerated."""
        return getattr(prior, "discrete", None) or prior if self.infer else prior

    def settle(self, P: NumpyVocabulary, head: np.ndarray) -> None:
        """Set first values that depend on heads [N, *head] of the data, by `P.set`; by default there are none."""

    def base(self, P: Vocabulary, *head: Array) -> Dist:
        """The distribution that priors made of posteriors mix: the posterior itself, or a flow's base."""
        return self(P, *head)


def halves(head: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A head [..., 2, *shape] as its two parts, each [..., *shape]."""
    rest = (slice(None),) * len(shape)
    return head[(..., 0, *rest)], head[(..., 1, *rest)]
