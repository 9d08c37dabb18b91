"""The multinomial likelihood: counts of a row, given their total."""

from __future__ import annotations

from math import prod
from typing import NoReturn

import numpy as np

from ppdgm.errors import DataError, ProgramError
from ppdgm.language.vocabulary import Array, Batch, Dist, Random, Support, Vocabulary
from ppdgm.models.likelihoods.base import Likelihood
from ppdgm.models.likelihoods.log_counts import log_poisson
from ppdgm.nets.base import flatten, lead, unflatten
from ppdgm.program import Context


class Multinomial(Likelihood):
    """p(x|z) = n! / Π x_j! · Π π_j^x_j, for counts x with the total n = Σ x_j; π = softmax(h), h the decoder's output.

    n is not modelled: for log p it is taken from x itself. Means n π and draws need it: the field `exposure` [N] has
    the totals, as in `fit.sample(10, given={"exposure": 100})`. If the data have this field, it must be their totals.
    Encoders see log(1 + x).
    """

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    @property
    def reads_exposure(self) -> bool:
        return True

    @property
    def needs_exposure(self) -> bool:
        return False

    @property
    def takes_total(self) -> bool:
        return True

    @property
    def support(self) -> Support:
        return "nonnegative_integer"

    @property
    def expected_data(self) -> str:
        return f"counts: {super().expected_data}, not scaled (scale='none')"

    def encoded(self, P: Vocabulary, x: Array) -> Array:
        return P.xp.log1p(P.xp.clip(x, 0.0, None))

    def check_exposure(self, data: Batch) -> None:
        super().check_exposure(data)
        if "exposure" not in data:
            return
        given = np.asarray(data["exposure"])
        if (given != np.rint(given)).any():
            raise DataError("Data 'exposure': got numbers that are not whole. For Multinomial it is a row's total.")
        if "x" in data:
            x = np.asarray(data["x"])
            total = x.reshape(len(x), -1).sum(1)
            if (bad := total != given).any():
                row = int(np.argmax(bad))
                raise DataError(
                    f"Data 'exposure': got {given[row]:g} for row {row}, whose counts have the total {total[row]:g}. "
                    "For Multinomial it is this total. Leave it out, or give x.sum(1)."
                )

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, event = P.xp, P.shape
        h = flatten(P, head[0], event)
        log_share = h - P.logsumexp(h, -1)[..., None]
        share = xp.exp(log_share)
        total = xp.reshape(head[1], tuple(head[1].shape[: head[1].ndim - len(event)])) if len(head) > 1 else None

        def log_prob(x: Array) -> Array:
            """A multinomial is a row of Poisson counts given their sum: log p has no differences of large numbers."""
            x = flatten(P, x, event)
            n = xp.sum(x, axis=-1)
            at = xp.clip(n, 1.0, None)  # with n = 0 the terms cancel for any rate
            each = log_poisson(P, x, at[..., None] * share, xp.log(at)[..., None] + log_share)
            return xp.sum(each, axis=-1) - log_poisson(P, n, at, xp.log(at))

        def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, None]:
            if total is None:
                _needs_totals("draws")
            return unflatten(P, random.multinomial(total, share, batch), event), None

        def mean() -> Array:
            if total is None:
                _needs_totals("means")
            return unflatten(P, total[..., None] * share, event)

        shape = lead(h, (prod(event),))
        if total is not None:
            shape = np.broadcast_shapes(shape, tuple(total.shape))
        return P.distribution(sample, log_prob, event, shape, support=self.support, mean=mean, pathwise=False)


def _needs_totals(what: str) -> NoReturn:
    raise ProgramError(
        f"Multinomial: {what} need the total of each row, which is not modelled. Give it as the field 'exposure': "
        "fit.sample(10, given={'exposure': 100}), or data with an exposure, {'x': x, 'exposure': x.sum(1)}."
    )
