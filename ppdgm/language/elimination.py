"""Sums over the enumerated sites of plain pairs, whose terms are in plates of any number.

Plates have dimensions counted from the right. Each enumerated site has its own dimension, to the left of all these.
A site is summed out together with the terms that depend on it, inside its own plates; the terms of plates further in
are added up first. So words are summed over one by one, and not over all sentences (Obermeyer et al. 2019,
arXiv:1902.03210).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.language.enumeration import LogSumExp, clamped, log_sum
from ppdgm.language.vocabulary import Array, Namespace


@dataclass(frozen=True)
class Term:
    """A log-probability of a site.

    Attributes:
        log_prob: [*enumerated, *plates].
        plates: name -> its dimension, negative.
    """

    log_prob: Array
    plates: Mapping[str, int]


ALIKE = 1e-4  #: relative to 1 + |term|: far above rounding errors

Terms = dict[str, Term]
Left = dict[str, tuple[int, Mapping[str, int]]]  # sites that are not yet summed over: dimension and plates


@dataclass(frozen=True)
class Sums:
    """Sums over enumerated sites.

    Args:
        guide: the guide's enumerated sites -> their dimension, negative.
        own: the same for sites that only the model has.
        probs: log q of the guide's enumerated sites.
        xp, logsumexp: the array operations.
    """

    guide: Mapping[str, int]
    own: Mapping[str, int]
    xp: Namespace
    logsumexp: LogSumExp
    probs: Mapping[str, Term] = field(default_factory=dict)

    @classmethod
    def over(cls, guide: Iterable[str], every: Iterable[str], width: int, xp: Namespace, logsumexp: LogSumExp) -> Sums:
        """Sums over the guide's enumerated sites, and over all of them, whose dimensions follow `width` of plates."""
        axes, guide = {n: -(width + 1 + i) for i, n in enumerate(every)}, list(guide)
        own = {n: axis for n, axis in axes.items() if n not in guide}
        return cls({n: axes[n] for n in guide}, own, xp, logsumexp)

    def terms(
        self, log_p: Mapping[str, Term], log_q: Mapping[str, Term], observed: Container[str]
    ) -> tuple[Sums, Terms, Terms, list[Term] | None]:
        """What a trace needs of the terms inside the data plate; a site that only the guide has gets log p = 0.

        Args:
            log_p, log_q: as they were read.
            observed: sites.

        Returns:
            The sums at these probabilities; log_p and log_q, as expectations under the guide's enumerated sites; and
            log Σ_y p(x, z, y) / q(z|x, y) as terms to be added, None if the guide enumerates nothing.

        Raises:
            ProgramError: sites are in plates for which there is no such sum.
        """
        for name in self.guide:
            _check_alike(name, log_p.get(name), log_q[name])
        sums = replace(self, probs={n: self._clamped(log_q[n], axis) for n, axis in self.guide.items()})
        log_p = sums._without_own(log_p, observed)
        marginal = sums._marginal(log_p, log_q) if self.guide else None
        zeros = {n: Term(self.xp.zeros_like(t.log_prob), t.plates) for n, t in log_q.items() if n not in log_p}
        expect = lambda terms: {n: sums.expect(n, t) for n, t in terms.items()}
        return sums, expect({**log_p, **zeros}), expect(log_q), marginal

    def _without_own(self, log_p: Mapping[str, Term], observed: Container[str]) -> Terms:
        """The model's terms with its own sites summed out: log Σ_c p(c) Π p(site|c).

        The terms that depend on c become one: of the observed site among them, or of the last latent. Others become 0.
        """
        return self._eliminate({**log_p}, self.own, observed)

    def expect(self, name: str, term: Term, further: int = 0) -> Term:
        """A term's expectation under the guide's sites; `further` dimensions follow those of the plates."""
        names = self._ancestors(name, term, further)
        if not names:
            return term
        xp, log_probs = self.xp, sum(self.probs[n].log_prob for n in names)
        log_probs = xp.reshape(log_probs, (*log_probs.shape, *(1,) * further))
        possible = log_probs > -float("inf")
        total = xp.where(possible, xp.exp(log_probs) * xp.where(possible, term.log_prob, 0.0), 0.0)
        for name in names:
            total = xp.sum(total, axis=self.guide[name] - further, keepdims=True)
        return Term(total, term.plates)

    def _marginal(self, log_p: Mapping[str, Term], log_q: Mapping[str, Term]) -> list[Term]:
        """log Σ_y p(x, z, y) / q(z|x, y) over the guide's sites y, as terms to be added."""
        xp = self.xp
        terms = dict(log_p) | {f"q({n})": Term(-t.log_prob, t.plates) for n, t in log_q.items() if n not in self.guide}
        for name, q in self.probs.items():
            possible = q.log_prob > -float("inf")
            for n, t in terms.items():
                if _depends(t.log_prob, self.guide[name]):
                    terms[n] = Term(xp.where(possible, t.log_prob, 0.0), t.plates)
            ruled_out = xp.where(possible, xp.zeros_like(q.log_prob), -float("inf"))
            terms[f"possible({name})"] = Term(ruled_out, q.plates)
        return list(self._eliminate(terms, self.guide, ()).values())

    def log_total(self, log_p: Mapping[str, Term], moved: Mapping[str, Array]) -> list[Term]:
        """log Σ_c p(x, c) over the model's own sites, as terms to be added; its derivatives by `moved` are p(c|x).

        Args:
            log_p: of the model.
            moved: zeros for each value of each own site, in its plates.
        """
        zeros = {f"moved({n})": Term(x, log_p[n].plates) for n, x in moved.items()}
        return list(self._without_own({**log_p, **zeros}, ()).values())

    def check_shared(self, shared: Mapping[str, Term]) -> None:
        """Refuse a site outside the data plate that depends on one inside."""
        for name, term in shared.items():
            for site, axis in {**self.guide, **self.own}.items():
                if _depends(term.log_prob, axis):
                    raise escapes(name, site, "the data plate")

    def depends_on_own(self, array: Array, further: int = 0) -> bool:
        """Whether an array has the dimension of a site that is summed out of the model."""
        return any(_depends(array, axis - further) for axis in self.own.values())

    def _eliminate(self, terms: Terms, axes: Mapping[str, int], observed: Container[str]) -> Terms:
        terms = dict(terms)
        left = {n: (axis, self.probs[n].plates) for n, axis in self.guide.items()}
        left |= {n: (axis, terms[n].plates) for n, axis in axes.items()}
        for name in sorted(axes, key=lambda n: (-len(terms[n].plates), axes[n])):
            axis, own = left.pop(name)[0], terms.pop(name)
            inside = [n for n, t in terms.items() if _depends(t.log_prob, axis)]
            if not inside:
                continue  # nothing depends on it: its probabilities sum to 1
            total = own.log_prob
            for n in inside:
                total = total + self._within(n, terms[n], name, own.plates, left)
            total = log_sum(total, own.log_prob, axis, self.xp, self.logsumexp)
            total = self.xp.expand_dims(total, axis=total.ndim + 1 + axis)
            home = next((n for n in inside if n in observed), inside[-1])
            for n in inside:
                terms[n] = Term(total if n == home else self.xp.zeros_like(total), own.plates)
        return terms

    def _within(self, name: str, term: Term, site: str, plates: Mapping[str, int], left: Left) -> Array:
        """A term that depends on `site`, added up over the plates that do not contain the site."""
        if missing := [p for p in plates if p not in term.plates]:
            raise escapes(name, site, f"plate {missing[0]!r}")
        further = {p: dim for p, dim in term.plates.items() if p not in plates}
        for other, (axis, there) in left.items():
            if _depends(term.log_prob, axis) and any(p in there for p in further):
                plate = next(p for p in further if p in there)
                raise ProgramError(
                    f"Site {name!r} depends on {site!r}, which is enumerated outside plate {plate!r}, and on "
                    f"{other!r}, which is enumerated inside it. {other!r} can't be summed over first, because the sum "
                    "would be over all its joint values in the plate. Enumerate both in the model, or draw one of them "
                    "in the guide."
                )
        total = term.log_prob
        for dim in further.values():
            total = self.xp.sum(total, axis=dim, keepdims=True)
        return total

    def _ancestors(self, name: str, term: Term, further: int) -> list[str]:
        """The guide's enumerated sites that a term depends on, and the sites that these depend on."""
        found = [n for n, axis in self.guide.items() if _depends(term.log_prob, axis - further)]
        for site in found:  # this list grows
            if missing := [p for p in self.probs[site].plates if p not in term.plates]:
                raise escapes(name, site, f"plate {missing[0]!r}")
            found += [n for n, a in self.guide.items() if n not in found and _depends(self.probs[site].log_prob, a)]
        return found

    def _clamped(self, term: Term, axis: int) -> Term:
        """A term whose masked rows have all their probability at the site's first value."""
        return Term(clamped(term.log_prob, axis, self.xp), term.plates)


def at_values(x: Array, chosen: Mapping[int, Array], xp: Namespace, further: int = 0) -> Array:
    """An array [*enumerated, *plates, …] at one value of each enumerated site.

    Args:
        x: the array.
        chosen: dimension -> whether each value is the chosen one, [S, …, *plates].
        xp: the array operations.
        further: dimensions after the plates'.
    """
    for axis, mask in chosen.items():
        if x.ndim - further >= -axis and x.shape[axis - further] > 1:
            mask = xp.reshape(mask, (*mask.shape, *(1,) * further))
            x = xp.sum(xp.where(mask, x, xp.zeros_like(x)), axis=axis - further, keepdims=True)
    return x


def to_left(value: Array, axes: int, xp: Namespace) -> Array:
    """A value [K, B, *axes, …] as [*axes, K, B, …], without the axes on the left that it doesn't have."""
    value = xp.moveaxis(value, tuple(range(2, 2 + axes)), tuple(range(axes)))
    lost = next((i for i in range(axes) if value.shape[i] > 1), axes)
    return xp.reshape(value, value.shape[lost:])


def check_read(name: str, enumerated: np.ndarray, alone: np.ndarray) -> None:
    """Refuse a site whose term changes when a value is given instead of enumerated."""
    with np.errstate(invalid="ignore"):
        known = np.isfinite(enumerated) & np.isfinite(alone)
        if (known & (np.abs(enumerated - alone) > ALIKE * (1 + np.abs(alone)))).any():
            raise ProgramError(
                f"Site {name!r}: its term at an enumerated value differs from its term when this value is drawn. The "
                "values of an enumerated site have their own dimension, left of all plates. Count dimensions from the "
                "right (c.sum(-1), h[..., 0, :]), and take rows of a table with table[c]."
            )


def _depends(array: Array, axis: int) -> bool:
    return bool(array.ndim >= -axis and array.shape[axis] > 1)


def _check_alike(name: str, p: Term | None, q: Term) -> None:
    if p is None:
        raise ProgramError(
            f"Site {name!r} is enumerated in the guide, but is auxiliary, not a latent of the model. A sum over its "
            'values would be inside log q. Draw it: leave "enumerate" out, and train with '
            "estimator='score'."
        )
    if p.plates.keys() != q.plates.keys():
        raise ProgramError(
            f"Site {name!r} is enumerated in the plates {', '.join(q.plates)} in the guide, but in "
            f"{', '.join(p.plates)} in the model. Put it into the same plates in both."
        )


def escapes(name: str, site: str, plate: str) -> ProgramError:
    """The error for a site outside a plate that depends on one that is enumerated inside."""
    return ProgramError(
        f"Site {name!r} is outside {plate}, but depends on {site!r}, which is enumerated inside it. Put both into the "
        "same plates, or sum over the plate first."
    )
