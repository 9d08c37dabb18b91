"""What every posterior is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ppdgm.language import Array, Vocabulary
from ppdgm.program import Part

Family = Literal["real", "categorical", "binary"]  # of latent variables: prior and posterior must agree


class Posterior(Part):
    """A distribution over the latent variable, given the encoder's output."""

    role: ClassVar[str] = "posterior"
    family: ClassVar[Family] = "real"

    @property
    def infer(self) -> Mapping[str, Any] | None:
        """What the guide's site says of its inference: {"enumerate": "parallel"}, or None."""
        return None

    def variable(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the latent variable, for latents of the shape that a program asks for."""
        return latent

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what the decoder sees of a variable of `shape`."""
        return shape

    def code(self, P: Vocabulary, z: Array) -> Array:
        """What the decoder sees of z: z itself, or the codebook's vectors of its classes."""
        return z

    def counterpart(self, prior: Any) -> Any:
        """The prior's distribution as it scores this posterior's values: its discrete twin if they are enumerated."""
        return getattr(prior, "discrete", None) or prior if self.infer else prior

    def base(self, P: Vocabulary, *head: Array) -> Any:
        """The distribution that priors made of posteriors mix: the posterior itself, or a flow's base."""
        return self(P, *head)


def halves(head: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A head [..., 2, *shape] as its two parts, each [..., *shape]."""
    rest = (slice(None),) * len(shape)
    return head[(..., 0, *rest)], head[(..., 1, *rest)]
