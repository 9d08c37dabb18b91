"""The posterior of the real number behind a whole one; `Dequantised` uses it."""

from __future__ import annotations

from math import log, log1p, prod
from typing import Annotated, ClassVar

from pydantic import Field

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.posteriors.base import Posterior
from ppdgm.nets import MLP, Net
from ppdgm.program import Context

_MARGIN = 2.0**-21  # of all levels: eight times the rounding of a float32 number of that size


class Dequantiser(Posterior):
    """q(z|x): z = (x + u) / levels, with u in (0, 1) uniform, or u = σ(s), s ~ noise(net(x / levels)).

    The head is x / levels. u keeps a distance of levels · 2⁻²¹ from 0 and 1, where float32 numbers round to the next
    cell. The `mean` of a noise is a point, with u = σ(E s).

    Args:
        levels: how many values a number of x can take.
        noise: the distribution of s; None: u is uniform.
        net: the net that the noise sees x through.
    """

    mean_is_a_point: ClassVar[bool] = True

    levels: Annotated[int, Field(ge=2)] = 256
    noise: Posterior | None = None
    net: Net = MLP()

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.noise is not None:
            context.net("net", self.net, shape, context.part(self.noise, shape, name="noise"))
        return shape

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, event, margin = P.xp, P.shape, self.levels * _MARGIN
        axes, lead = tuple(range(-len(event), 0)), tuple(head[0].shape[: len(head[0].shape) - len(event)])
        log_width = log1p(-2 * margin) - log(self.levels)  # of the interval of z
        at = lambda part: head[0] + (margin + (1 - 2 * margin) * part) / self.levels
        inside = lambda z: ((z - head[0]) * self.levels - margin) / (1 - 2 * margin)  # in (0, 1), up to rounding
        holds = lambda part: xp.all((part > -margin) & (part < 1 + margin), axis=axes)

        if self.noise is None:
            log_q = -prod(event) * log_width

            def score(z: Array) -> Array:
                return xp.where(holds(inside(z)), P.full((), log_q), P.full((), -float("inf")))

            draw = lambda random, batch: (at(random.uniform((*batch, *event))), P.full(batch, log_q))
            return P.distribution(draw, score, event, lead, mean=lambda: at(0.5))

        noise = self.noise.distribution(P.scope("noise"), P.net("net")(head[0]))

        def log_slope(s: Array) -> Array:
            """log |∂z/∂s|."""
            return xp.sum(log_width - P.softplus(s) - P.softplus(-s), axis=axes)

        def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, Array]:
            s, log_q = random.draw(noise, batch)
            return at(P.activation("sigmoid", s)), log_q - log_slope(s)

        def log_prob(z: Array) -> Array:
            part = inside(z)
            kept = xp.clip(part, 0.25 * margin, 1 - 0.25 * margin)
            s = xp.log(kept) - xp.log1p(-kept)
            return xp.where(holds(part), noise.log_prob(s) - log_slope(s), P.full((), -float("inf")))

        mean = lambda: at(P.activation("sigmoid", noise.mean))
        return P.distribution(sample, log_prob, event, lead, mean=mean, pathwise=bool(noise.has_rsample))
