"""What the array API lacks: operations on arrays, which each backend supplies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ppdgm.language.native import Array, Namespace, Padding
from ppdgm.language.shapes import broadcast_shapes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Operations:
    """The words of `P` that only compute."""

    xp: ClassVar[Namespace]  #: array-API namespace

    def constant(self, value: ArrayLike) -> Array:
        """Numbers or a NumPy array, in the program's floating type and on its device."""
        raise NotImplementedError

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        """An array filled with one number, in the program's floating type and on its device."""
        raise NotImplementedError

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        """x [..., I] · weight [I, O] + bias [O]."""
        raise NotImplementedError

    def conv2d(self, x: Array, weight: Array, bias: Array, stride: int, padding: Padding) -> Array:
        """Cross-correlation of x [B, I, H, W] with weight [O, I, h, w].

        The padding is one number of pixels, or ((top, bottom), (left, right)).
        """
        raise NotImplementedError

    def conv_transpose2d(
        self, x: Array, weight: Array, bias: Array, stride: int, padding: int, output_padding: tuple[int, int]
    ) -> Array:
        """The transpose of `conv2d`: x [B, I, H, W], weight [I, O, h, w]; `output_padding` adds rows and columns."""
        raise NotImplementedError

    def activation(self, name: str, x: Array) -> Array:
        """One of `nets.ACTIVATIONS`, elementwise."""
        raise NotImplementedError

    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)), elementwise."""
        return self.activation("softplus", x)

    def stop_gradient(self, x: Array) -> Array:
        """x, without its gradient."""
        raise NotImplementedError

    def logsumexp(self, x: Array, axis: int = -1) -> Array:
        """log Σ exp(x) over an axis, without overflow; −∞ if all entries are −∞."""
        raise NotImplementedError

    def lgamma(self, x: Array) -> Array:
        """log Γ(x), elementwise."""
        raise NotImplementedError

    def log_ndtr(self, x: Array) -> Array:
        """log Φ(x), the logarithm of the standard normal distribution function, elementwise, also far to the left."""
        raise NotImplementedError

    def one_hot(self, index: Array, size: int) -> Array:
        """Whole numbers [...] as unit vectors [..., size]."""
        raise NotImplementedError

    def concat(self, arrays: Sequence[Array]) -> Array:
        """Vectors side by side: [..., D₁], [..., D₂], … to [..., D₁ + D₂ + …], with the leading dimensions broadcast.

        A latent has axes of particles (and of enumerated sites); data do not have them.
        """
        lead = broadcast_shapes(*(tuple(a.shape[:-1]) for a in arrays))
        return self.xp.concat([self.xp.broadcast_to(a, (*lead, a.shape[-1])) for a in arrays], axis=-1)
