"""The neural autoregressive flow."""

from __future__ import annotations

from typing import Literal

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.autoregressive import Masked
from ppdgm.models.flows.sigmoids import fall, rise, sigmoids
from ppdgm.specs import PositiveInt

SPREAD = 1.0  #: the sigmoids' centres at the start: from −1 to 1, where their sum is almost the identity


class NAF(Masked):
    """Neural autoregressive flow: x_d ← σ⁻¹(Σ_m w_m σ(a_m x_d + b_m)), with w, a, b functions of x_<d and the context.

    Huang et al. 2018, arXiv:1804.00779. w > 0, Σ w = 1 and a > 0, so that the map rises; it is computed in log space.
    The other direction takes D passes, with a bisection at each.

    Args:
        units: M, the number of sigmoids.
        one_pass: the direction of the layers: "forward" for a posterior, whose draws then take one pass; "inverse" for
            a prior and for a density of data, whose scores then take one pass.
    """

    units: PositiveInt = 8
    one_pass: Literal["forward", "inverse"] = "forward"

    @property
    def fast(self) -> Literal["forward", "inverse"]:  # type: ignore[override]  # as its field says
        return self.one_pass

    @property
    def rows(self) -> int:
        return 3 * self.units

    def _move(self, P: Vocabulary, numbers: Array, x: Array) -> tuple[Array, Array]:
        return rise(P, sigmoids(P, numbers, SPREAD), x)

    def _solve(self, P: Vocabulary, numbers: Array, y: Array) -> Array:
        return fall(P, sigmoids(P, numbers, SPREAD), y)

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        return self._one_pass(P, x, context) if self.one_pass == "forward" else self._many_passes(P, x, context)

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        return self._many_passes(P, y, context) if self.one_pass == "forward" else self._one_pass(P, y, context)
