"""Mixtures of discretised logistics whose colours depend on each other, for colour images."""

from __future__ import annotations

from math import prod
from typing import ClassVar, NamedTuple

import numpy as np

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods.base import Levels
from ppdgm.models.likelihoods.logistic import draw_level, log_mass, mean_level
from ppdgm.models.likelihoods.scale import row
from ppdgm.nets.base import lead
from ppdgm.program import Context
from ppdgm.specs import PositiveInt

_WIDEST = 30.0  # of log s: all levels are equally probable there, and exp of much more is infinite


class CoupledDiscretisedLogistics(Levels):
    """p(pixel|z) = Σ_k π_k Π_c DiscretisedLogistic(x_c; m_kc + Σ_{d<c} a_kcd v_d, s_kc), v = 2 x / (levels − 1) − 1.

    Salimans et al. 2017, arXiv:1701.05517. The colours of a pixel share the component, and the means of later colours
    move with the earlier ones, a = tanh(·). log π is the sum of a row of the head over the colours, before it is
    normalised; for an even number of colours, a part of the last row of a's is not read. For images (H, W), it is a
    mixture for each pixel. Its `mean` has earlier colours at their means, a point that is used for the expectation.

    Args:
        components: the number of logistics in the mixture.
        min_log_scale: a floor under log s, in units in which the levels span [−1, 1].
    """

    mean_is_a_point: ClassVar[bool] = True

    components: PositiveInt = 10
    min_log_scale: float = -7.0

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.head_shape(shape)

    def head_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Rows for log π, m and log s, and as many as the a's need, [rows, components, *shape]."""
        return (3 + _split(shape)[0] // 2, self.components, *shape)

    def drawn_together(self, shape: tuple[int, ...]) -> np.ndarray:
        colours, pixels = _split(shape)
        return np.broadcast_to(np.arange(prod(pixels)), (colours, prod(pixels))).reshape(shape)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        event, mixture = P.shape, self._mixture(P, head[0])
        pixels = tuple(range(-len(mixture.pixels), 0))

        def log_prob(x: Array) -> Array:
            levels = mixture.of_image(x)
            total = mixture.log_weights
            centres: list[Array] = []
            for c, level in enumerate(levels):
                total = total + log_mass(P, level, mixture.loc(c, centres), mixture.scales[c], self.levels)
                centres.append(self._centre(level))
            return P.xp.sum(P.logsumexp(total, mixture.axis), axis=pixels)

        def mean() -> Array:
            found: list[Array] = []
            for c, scale in enumerate(mixture.scales):
                loc = mixture.loc(c, [self._centre(level) for level in found])
                found.append(mean_level(P, loc, scale, self.levels))
            weights = P.xp.exp(mixture.log_weights)
            return mixture.as_image([P.xp.sum(weights * level, axis=mixture.axis) for level in found])

        return P.distribution(
            lambda random, batch: (self._drawn(P, random, (*batch, *event), mixture), None),
            log_prob,
            event,
            lead(head[0], self.head_shape(event)),
            support=self.support,
            mean=mean,
            pathwise=False,
        )

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        return self._drawn(P, random, shape, self._mixture(P, head))

    def _drawn(self, P: Vocabulary, random: Random, shape: tuple[int, ...], mixture: Mixture) -> Array:
        """The component of each pixel, then its colours one after the other."""
        xp, size = P.xp, (*shape[: len(shape) - len(P.shape)], *mixture.pixels)
        scores = xp.moveaxis(mixture.log_weights, mixture.axis, -1) + random.gumbel((*size, self.components))
        chosen = xp.moveaxis(P.one_hot(xp.argmax(scores, axis=-1), self.components), -1, mixture.axis)
        levels: list[Array] = []
        for c, scale in enumerate(mixture.scales):
            loc = mixture.loc(c, [self._centre(level)[mixture.wide] for level in levels])
            of = lambda each: xp.sum(each * chosen, axis=mixture.axis)
            levels.append(draw_level(P, random, size, of(loc), of(scale), self.levels))
        return mixture.as_image(levels)

    def _centre(self, level: Array) -> Array:
        return 2.0 * level / (self.levels - 1) - 1.0

    def _mixture(self, P: Vocabulary, head: Array) -> Mixture:
        xp, event = P.xp, P.shape
        colours, pixels = _split(event)
        wide, axis = (self.components, *event), -1 - len(pixels)

        def by_colour(i: int) -> list[Array]:
            each = row(head, wide, i)
            each = xp.reshape(each, (*lead(each, wide), self.components, colours, *pixels))
            return [each[(..., c, *(slice(None),) * len(pixels))] for c in range(colours)]

        logits, locs, raws = sum(by_colour(0)), by_colour(1), by_colour(2)
        rows = [xp.tanh(a) for i in range(colours // 2) for a in by_colour(3 + i)]
        pairs = [(c, d) for c in range(colours) for d in range(c)]
        slopes = dict(zip(pairs, rows, strict=False))
        log_weights = logits - xp.expand_dims(P.logsumexp(logits, axis), axis=axis)
        floor, ceiling = P.full((), self.min_log_scale), P.full((), _WIDEST)
        scales = [xp.exp(xp.where(raw < floor, floor, xp.where(raw > ceiling, ceiling, raw))) for raw in raws]
        return Mixture(P, pixels, log_weights, locs, scales, slopes)


class Mixture(NamedTuple):
    """The mixture of every pixel; arrays are [..., components, *pixels], one for each colour."""

    P: Vocabulary
    pixels: tuple[int, ...]
    log_weights: Array
    locs: list[Array]
    scales: list[Array]
    slopes: dict[tuple[int, int], Array]  # (colour, earlier colour) -> a

    @property
    def axis(self) -> int:
        """The axis of components."""
        return -1 - len(self.pixels)

    @property
    def wide(self) -> tuple[object, ...]:
        """The index that gives an array of pixels an axis of components."""
        return (..., None, *(slice(None),) * len(self.pixels))

    def loc(self, c: int, earlier: list[Array]) -> Array:
        """The means of a colour, given the centres of the earlier ones' levels."""
        return self.locs[c] + sum(self.slopes[c, d] * centre for d, centre in enumerate(earlier))

    def of_image(self, x: Array) -> list[Array]:
        """The colours of images [..., *event], each [..., 1, *pixels]."""
        flat = self.P.xp.reshape(x, (*lead(x, self.P.shape), len(self.locs), *self.pixels))
        return [flat[(..., slice(c, c + 1), *self.wide[2:])] for c in range(len(self.locs))]

    def as_image(self, colours: list[Array]) -> Array:
        """Images [..., *event] of colours, each [..., *pixels]."""
        image = self.P.xp.stack(colours, axis=self.axis)
        return self.P.xp.reshape(image, (*lead(colours[0], self.pixels), *self.P.shape))


def _split(shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The number of colours, and the shape of the pixels: an event (C, H, W) has colours, any other has not."""
    return (shape[0], shape[1:]) if len(shape) == 3 else (1, shape)
