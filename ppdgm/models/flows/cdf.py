"""The flow of each number by a distribution function."""

from __future__ import annotations

from math import exp, log, pi

from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.models.flows.base import Flow
from ppdgm.models.flows.sigmoids import fall, implicit, rise, sigmoids
from ppdgm.nets.base import unflatten
from ppdgm.program import Context, zeros
from ppdgm.specs import PositiveInt

_HALF_LOG_2PI = 0.5 * log(2 * pi)
STEPS = 7  #: of Newton's, for Φ⁻¹: to rounding, everywhere
SPREAD = 2.0  #: the components' places at the start, from −2 to 2, in units of the logistics' scale


class CDFFlow(Flow):
    """x = F⁻¹(Φ(z)) of each number, F(x) = Σ_m w_m σ(a_m x + b_m) the distribution function of a mixture of logistics.

    Papamakarios et al. 2021, arXiv:1912.02762. If z ~ N(0, I), each number of x has exactly the mixture's density. It
    mixes no numbers: put it into a `Chain`. f⁻¹ is in closed form up to Φ⁻¹; f is found by bisection. Both take one
    pass. Its numbers are parameters, plus the context.

    Args:
        components: M, the number of logistics for each number of x.
    """

    components: PositiveInt = 8

    def build(self, scope: Context, width: int, conditional: bool) -> int:
        scope.param("numbers", (3 * self.components * width,), zeros)
        return 3 * self.components * width if conditional else 0

    def forward(self, P: Vocabulary, x: Array, context: Array | None) -> tuple[Array, Array]:
        mixture = self._mixture(P, x.shape[-1], context)
        logit, log_slope = normal_logit(P, x)
        y = fall(P, mixture, logit)
        return y, P.xp.sum(log_slope - rise(P, mixture, y)[1], axis=-1)

    def inverse(self, P: Vocabulary, y: Array, context: Array | None) -> tuple[Array, Array]:
        logit, log_slope = rise(P, self._mixture(P, y.shape[-1], context), y)
        x = normal_quantile(P, logit)
        return x, P.xp.sum(log_slope - normal_logit(P, x)[1], axis=-1)

    def _mixture(self, P: Vocabulary, width: int, context: Array | None) -> tuple[Array, Array, Array]:
        numbers = P.param("numbers") if context is None else P.param("numbers") + context
        return sigmoids(P, unflatten(P, numbers, (3 * self.components, width)), SPREAD)


def normal_logit(P: Vocabulary, z: Array) -> tuple[Array, Array]:
    """log Φ(z) − log Φ(−z), and the logarithm of its derivative φ(z) / (Φ(z) Φ(−z))."""
    below, above = P.log_ndtr(z), P.log_ndtr(-z)
    return below - above, -0.5 * z * z - _HALF_LOG_2PI - below - above


def normal_quantile(P: Vocabulary, logit: Array) -> Array:
    """z with log Φ(z) − log Φ(−z) = logit, by Newton's steps from farther out: for z > 0, the left side is convex.

    There |logit| ≥ 4 φ(0) |z|, and |logit| ≥ z²/2 − log 2, because Φ(−z) ≤ exp(−z²/2) / 2.
    """
    target = P.stop_gradient(logit)
    size = P.xp.abs(target)

    def step(z: Array) -> Array:
        there, log_slope = normal_logit(P, z)
        return z - (there - size) * P.xp.exp(-log_slope)

    most = P.xp.minimum(size / (4.0 * exp(-_HALF_LOG_2PI)), P.xp.sqrt(2.0 * (size + log(2.0))))
    found = P.repeat(STEPS, step, most) * P.xp.sign(target)
    return implicit(P, found, logit, *normal_logit(P, found))
