"""Rational-quadratic spline coupling."""

from __future__ import annotations

from math import expm1, log
from typing import Annotated, NamedTuple

from pydantic import Field

from ppdgm.language.vocabulary import Array, Namespace, Vocabulary
from ppdgm.models.flows.coupling import Coupling
from ppdgm.specs import PositiveFloat

FLOOR = 0.05  #: the least width and height of a bin, as a fraction of an equal share
MIN_SLOPE = 0.01
_UNIT = log(expm1(1.0 - MIN_SLOPE))  # its softplus is the slope of the identity minus the floor


class RQSpline(Coupling):
    """Neural spline flow: a monotone rational-quadratic spline of each x_b on [−bound, bound], and x_b itself outside.

    Durkan et al. 2019, arXiv:1906.04032. Its knots and slopes are functions of x_a and the context; x_a stays. Both
    directions take one pass.

    Args:
        bins: number of pieces of each spline.
        bound: half the width of the interval that the spline changes, in units of z.
    """

    bins: Annotated[int, Field(ge=2, le=100)] = 8
    bound: PositiveFloat = 5.0

    @property
    def rows(self) -> int:
        return 3 * self.bins - 1

    def _move(self, P: Vocabulary, numbers: Array, x: Array, inverse: bool) -> tuple[Array, Array]:
        xp, n = P.xp, self.bins
        inside = xp.abs(x) < self.bound
        clipped = xp.where(inside, x, 0.0)  # so that the branch that is not used is finite, and its gradient too
        left, width = self._bins(P, numbers[..., :n, :])
        low, height = self._bins(P, numbers[..., n : 2 * n, :])
        piece = self._piece(P, clipped, (low if inverse else left), left, width, low, height, numbers[..., 2 * n :, :])
        y, log_slope = _inverse(xp, piece, clipped) if inverse else _forward(xp, piece, clipped)
        return xp.where(inside, y, x), xp.where(inside, log_slope, 0.0)

    def _bins(self, P: Vocabulary, raw: Array) -> tuple[Array, Array]:
        """The beginning of each bin, and its size; [..., bins, n]."""
        shares = P.xp.exp(raw - P.xp.expand_dims(P.logsumexp(raw, -2), axis=-2))
        sizes = 2.0 * self.bound * (FLOOR / self.bins + (1.0 - FLOOR) * shares)
        begins = [P.xp.zeros_like(sizes[..., 0, :]) - self.bound]
        for k in range(self.bins - 1):  # array_api_compat's cumulative_sum does not compile without a warning
            begins.append(begins[-1] + sizes[..., k, :])
        return P.xp.stack(begins, axis=-2), sizes

    def _piece(self, P: Vocabulary, x: Array, begins: Array, *bins: Array) -> _Piece:
        """The numbers of the bin that contains x."""
        xp, (left, width, low, height, raw) = P.xp, bins
        inner = MIN_SLOPE + P.softplus(raw + _UNIT)
        one = xp.ones_like(inner[..., :1, :])  # at the ends: the slope of the tails
        before, after = xp.concat([one, inner], axis=-2), xp.concat([inner, one], axis=-2)
        passed = xp.astype(begins[..., 1:, :] <= x[..., None, :], x.dtype)
        chosen = xp.concat([one, passed], axis=-2) - xp.concat([passed, 0.0 * one], axis=-2)  # 1 for its bin
        return _Piece(*(xp.sum(chosen * each, axis=-2) for each in (left, width, low, height, before, after)))


class _Piece(NamedTuple):
    """One bin: from (left, low) to (left + width, low + height), with the slopes at its ends."""

    left: Array
    width: Array
    low: Array
    height: Array
    before: Array
    after: Array


def _forward(xp: Namespace, p: _Piece, x: Array) -> tuple[Array, Array]:
    """y and log dy/dx. Equations 4 and 5 of the paper."""
    slope, at = p.height / p.width, (x - p.left) / p.width
    across = at * (1.0 - at)
    below = slope + (p.before + p.after - 2.0 * slope) * across
    return p.low + p.height * (slope * at**2 + p.before * across) / below, _log_slope(xp, p, slope, at, below)


def _inverse(xp: Namespace, p: _Piece, y: Array) -> tuple[Array, Array]:
    """x and log dx/dy: the root of a quadratic. Equations 6 to 8 of the paper."""
    slope, up = p.height / p.width, y - p.low
    bend = up * (p.before + p.after - 2.0 * slope)
    a, b, c = p.height * (slope - p.before) + bend, p.height * p.before - bend, -slope * up
    square = b**2 - 4.0 * a * c
    at = 2.0 * c / (-b - xp.sqrt(xp.where(square > 0.0, square, 1e-20)))  # negative only by rounding
    below = slope + (p.before + p.after - 2.0 * slope) * at * (1.0 - at)
    return p.left + p.width * at, -_log_slope(xp, p, slope, at, below)


def _log_slope(xp: Namespace, p: _Piece, slope: Array, at: Array, below: Array) -> Array:
    above = p.after * at**2 + 2.0 * slope * at * (1.0 - at) + p.before * (1.0 - at) ** 2
    return 2.0 * xp.log(slope) + xp.log(above) - 2.0 * xp.log(below)
