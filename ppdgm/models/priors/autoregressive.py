"""The autoregressive prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import expm1, log, pi, prod
from typing import ClassVar

import numpy as np

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.flows.conditioner import declare_conditioner
from ppdgm.models.priors.base import Prior
from ppdgm.nets import MADE, Activation
from ppdgm.program import Context
from ppdgm.specs import PositiveFloat, PositiveInt, Shape

UNIT = log(expm1(1.0))  # its softplus is 1


class AutoregressivePrior(Prior):
    """p(z) = Π_d p(z_d|z_<d), each a mixture of normals; a MADE gives weights, means and scales from z_<d.

    Germain et al. 2015, arXiv:1502.03509, with the mixtures of Uria et al. 2013, arXiv:1306.0186. The density takes one
    pass, and a draw D passes. Its `mean` is the chain of conditional means, a point that is used for the expectation.

    Args:
        hidden: widths of the masked net.
        components: the number of normals in each conditional.
        activation: the activation of the masked net.
        min_scale: a floor under the scales.
    """

    mean_is_a_point: ClassVar[bool] = True

    hidden: Shape = (200,)
    components: PositiveInt = 1
    activation: Activation = "tanh"
    min_scale: PositiveFloat = 0.01

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        width = prod(shape)
        net = MADE(hidden=self.hidden, activation=self.activation)
        declare_conditioner(context, "net", net, (width,), (3, self.components, width))
        bias = f"{context.prefix}net.layers.{len(self.hidden)}.bias"
        context.declared.params[bias] = replace(context.declared.params[bias], init=self._apart)
        return ()

    def _apart(
        self, rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Equal weights, scales of 1, and means that differ: components that start equal would stay equal."""
        spread = rng.normal(size=(self.components, shape[0] // (3 * self.components)))
        rows = np.zeros((3, *spread.shape))
        rows[1] = 0.5 * spread if self.components > 1 else 0.0
        return rows.ravel()

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, event, width = P.xp, P.shape, prod(P.shape)
        ranks = P.constant(list(range(width)))

        def conditionals(z: Array) -> tuple[Array, Array, Array]:
            """Log-weights, means and scales, each [..., components, D]."""
            out = P.net("net")(z)
            logits, loc, raw = (out[..., i, :, :] for i in range(3))
            log_weight = logits - xp.expand_dims(P.logsumexp(logits, -2), axis=-2)
            return log_weight, loc, self.min_scale + P.softplus(raw + UNIT)

        def log_prob(z: Array) -> Array:
            flat = xp.reshape(z, (*z.shape[: len(z.shape) - len(event)], width))
            log_weight, loc, scale = conditionals(flat)
            noise = (flat[..., None, :] - loc) / scale
            log_normal = -0.5 * noise**2 - xp.log(scale) - 0.5 * log(2 * pi)
            return xp.sum(P.logsumexp(log_weight + log_normal, -2), axis=-1)

        def ancestral(next_of: Callable[[Array], Array], lead: tuple[int, ...]) -> Array:
            """Each z_d in order, by `next_of`, which gets the z so far."""

            def place(state: tuple[Array, Array]) -> tuple[Array, Array]:
                z, known = state
                return xp.where(ranks == known, next_of(z), z), known + 1.0

            z, _ = P.repeat(width, place, (P.full((*lead, width), 0.0), P.full((), 0.0)))
            return xp.reshape(z, (*lead, *event))

        def sample(random: Random, batch_shape: tuple[int, ...]) -> tuple[Array, None]:
            gumbel = random.gumbel((*batch_shape, self.components, width))
            normal = random.normal((*batch_shape, width))

            def draw(z: Array) -> Array:
                log_weight, loc, scale = conditionals(z)
                scores = log_weight + gumbel  # the largest is a draw of the component
                chosen = scores == xp.max(scores, axis=-2, keepdims=True)
                return xp.sum(xp.where(chosen, loc + scale * normal[..., None, :], 0.0), axis=-2)

            return ancestral(draw, batch_shape), None

        def mean() -> Array:
            def expect(z: Array) -> Array:
                log_weight, loc, _ = conditionals(z)
                return xp.sum(xp.exp(log_weight) * loc, axis=-2)

            return ancestral(expect, ())

        return P.distribution(sample, log_prob, event, mean=mean, pathwise=self.components == 1)
