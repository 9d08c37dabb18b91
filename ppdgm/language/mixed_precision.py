"""Products in bfloat16."""

from __future__ import annotations

from collections.abc import Callable

from ppdgm.language.native import Padding
from ppdgm.language.vocabulary import Array, Vocabulary


class MixedPrecision(Vocabulary):
    """Nets multiply in bfloat16; parameters and densities keep their type. A backend's words come after this class."""

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        return self._wide(super().linear, x, weight, bias)

    def conv2d(self, x: Array, weight: Array, bias: Array, *how: Padding) -> Array:
        return self._wide(super().conv2d, x, weight, bias, *how)

    def conv_transpose2d(self, x: Array, weight: Array, bias: Array, *how: int | tuple[int, int]) -> Array:
        return self._wide(super().conv_transpose2d, x, weight, bias, *how)

    def _wide(
        self, product: Callable[..., Array], x: Array, weight: Array, bias: Array, *how: Padding | tuple[int, int]
    ) -> Array:
        narrow = lambda a: self.xp.astype(a, self.xp.bfloat16, copy=False)
        return self.xp.astype(product(narrow(x), narrow(weight), narrow(bias), *how), bias.dtype, copy=False)
