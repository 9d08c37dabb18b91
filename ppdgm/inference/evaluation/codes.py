"""Values of latents from which data are decoded: along a dimension, and between two rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.inference.evaluation.evaluator import Evaluator, Sites
from ppdgm.language import questions
from ppdgm.language.tracer import Params, ProgramTracer
from ppdgm.language.vocabulary import Array, Noise
from ppdgm.program import PlainPair

if TYPE_CHECKING:
    from ppdgm.language.runtime import Native, Runtime

STEPS, REACH = 9, 2.5  # values along a line; standard deviations of the prior to each side


@dataclass(frozen=True)
class Codes:
    """Values of latents from which the observed sites of some rows can be decoded.

    Attributes:
        evaluator: of the program and its data.
        rows: indices, [n].
        values: by site, [n, *event], or [1, *event] for a latent that all rows share: means of the guide, and the most
            probable values of `discrete` sites.
        discrete: sites that have no values between theirs.
    """

    evaluator: Evaluator
    rows: np.ndarray
    values: Sites
    discrete: frozenset[str]

    def movable(self, name: str) -> bool:
        """Whether each row has a value of its own, with others around it."""
        return name in self.values and self._own(name) and name not in self.discrete

    def decoded(self) -> Sites:
        """Observed sites of all rows, [n, *event]."""
        return self._decoded(self.values, self.rows)

    def along(self, j: int, site: str, d: int, values: np.ndarray) -> Sites:
        """Observed sites with the d-th number of the j-th row's latent at `values` [steps], [steps, *event].

        The model's latents that depend on the dimension are at their means given it; the others stay as they are.
        """
        start, same = self._at(j, len(values)), np.repeat(self.rows[j : j + 1], len(values))
        moved = start[site].reshape(len(values), -1).copy()
        moved[:, d] = values
        sites = {**start, site: moved.reshape(start[site].shape)}
        scores = self._scores(sites, same)
        follows = [n for n, v in scores.items() if n in sites and n != site and np.ptp(v) > 1e-6 * np.abs(v).max()]
        return self._decoded({n: v for n, v in sites.items() if n not in follows}, same)

    def between(self, i: int, j: int, share: np.ndarray) -> Sites:
        """Observed sites on the straight line from the i-th row's code (0) to the j-th's (1), [steps, *event].

        Fields and classes are those of the nearer code.
        """
        if not any(self.movable(n) for n in self.values):
            raise ProgramError("there are no values between the codes of two rows.")
        near, steps = share <= 0.5, len(share)
        one, other, line = self._at(i, steps), self._at(j, steps), Sites()
        for n, v in one.items():
            weight = np.reshape(np.where(near, 0, 1) if n in self.discrete else share, (-1, *(1,) * (v.ndim - 1)))
            line[n] = ((1 - weight) * v + weight * other[n]).astype(v.dtype) if self._own(n) else v
        return self._decoded(line, np.where(near, self.rows[i], self.rows[j]))

    def _own(self, name: str) -> bool:
        return len(self.values[name]) == len(self.rows)

    def _at(self, j: int, count: int) -> Sites:
        """The code of the j-th row, `count` times."""
        return {n: np.repeat(v[j : j + 1], count, axis=0) if self._own(n) else v for n, v in self.values.items()}

    def _decoded(self, sites: Sites, rows: np.ndarray) -> Sites:
        """The means of observed sites at latents, with the fields of these rows."""
        data, index = self.evaluator.feed.rows(rows)
        found = self.evaluator.runtime.decoded(self.evaluator.params, data, index, self._given(sites))
        return {n: v[0] for n, v in found.items()}

    def _scores(self, sites: Sites, rows: np.ndarray) -> Sites:
        """log p of each site of the model at latents, [n], with the fields of these rows."""
        runtime, (data, index) = self.evaluator.runtime, self.evaluator.feed.rows(rows)
        at = data, runtime.index(index), runtime.put(self._given(sites))
        found: Sites = runtime.ask(_scored, self.evaluator.params, None, *at)
        return {n: v[0] for n, v in found.items()}

    def _given(self, sites: Sites) -> Sites:
        to = self.evaluator.dtype
        return {n: v[None].astype(to if v.dtype.kind == "f" else v.dtype) for n, v in sites.items()}


def codes_of(evaluator: Evaluator, latents: Sites, rows: np.ndarray) -> Codes:
    """The codes of some rows, from the latents of all.

    Raises:
        ProgramError: the values of discrete latents are not known: those of a plain pair, or beside a flow.
    """
    values = {n: v[rows] if len(v) == evaluator.size else v for n, v in latents.items()}
    data, index = evaluator.feed.rows(rows)
    drawn = evaluator.runtime.draws(evaluator.params, data, index, 4, evaluator.stream("codes"))
    discrete = frozenset(n for n, v in drawn.items() if n in values and (v == np.round(v)).all())
    if discrete and isinstance(evaluator.program, PlainPair):
        raise ProgramError("the means of a plain pair's discrete latents are none of their values.")
    if discrete:
        runtime = evaluator.runtime
        seen: Sites = runtime.ask(_seen, evaluator.params, None, data, runtime.index(index))
        values |= {n: seen[n][0] for n in discrete}
    return Codes(evaluator, rows, values, discrete)


def on_scale(draws: np.ndarray, d: int, steps: np.ndarray) -> np.ndarray:
    """Values of the d-th number at steps in standard deviations of the prior, from its mean.

    Args:
        draws: of the prior, [S, *event].
        d: the number.
        steps: [n].
    """
    along = draws.reshape(len(draws), -1)[:, d]
    return np.asarray(along.mean() + steps * along.std())


def _seen(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array) -> Native:
    tracer = cast(ProgramTracer, runtime.tracer)
    return questions.seen(tracer.ask(params, None, runtime.select(data, index), index.shape[0]))


def _scored(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, given: Native) -> Native:
    return runtime.tracer.model(params, runtime.select(data, index), index, given)
