"""Use of the latents: active units, and which dimensions and sites have collapsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppdgm.diagnostics.arrays import as_array, float64
from ppdgm.errors import DataError, require


@dataclass(frozen=True)
class ActiveUnits:
    """Burda's statistic of each dimension.

    Attributes:
        variance: of the posterior means over data, [D].
        threshold: above which a dimension is active.
    """

    variance: np.ndarray
    threshold: float

    @property
    def active(self) -> np.ndarray:
        """[D] of booleans."""
        return self.variance > self.threshold

    @property
    def count(self) -> int:
        """How many dimensions are active."""
        return int(self.active.sum())


@dataclass(frozen=True)
class SiteUse:
    """What one site carries.

    Attributes:
        name: of the site.
        used: whether each dimension carries information on the data, [D].
        variance: of the posterior means over data, [D]; None where no means were given.
        kl: mean KL(q ‖ p) of each dimension, [D], nats; None where only the site's is known.
        site_kl: mean KL of the site, nats; None where none was given.
    """

    name: str
    used: np.ndarray
    variance: np.ndarray | None
    kl: np.ndarray | None
    site_kl: float | None

    @property
    def collapsed(self) -> bool:
        """Whether no dimension is used."""
        return not self.used.any()

    @property
    def by_kl(self) -> np.ndarray:
        """The dimensions, the most informative first: by KL, else by the variance of the means, [D]."""
        for values in (self.kl, self.variance):
            if values is not None:
                return np.argsort(-values, kind="stable")
        return np.arange(len(self.used))


@dataclass(frozen=True)
class LatentUse:
    """What each site carries.

    Attributes:
        sites: in the order given.
        nats: the KL below which a dimension, or a site, carries nothing.
        threshold: the variance of means above which a dimension is active.
    """

    sites: tuple[SiteUse, ...]
    nats: float
    threshold: float

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Names of the sites that carry nothing."""
        return tuple(s.name for s in self.sites if s.collapsed)

    def __str__(self) -> str:
        alive = [s for s in self.sites if not s.collapsed]
        words = [
            f"{int(s.used.sum())} of {len(s.used)} {'dimensions' if len(s.used) > 1 else 'dimension'}" for s in alive
        ]
        if len(self.sites) > 1:
            words = [f"{text} of {s.name}" for s, text in zip(alive, words, strict=True)]
        several = len(alive) > 1 or sum(int(s.used.sum()) for s in alive) != 1
        parts = [f"{_list(words)} {'carry' if several else 'carries'} information"] if alive else []
        if gone := self.collapsed:
            parts.append(
                f"{'sites' if len(gone) > 1 else 'site'} {_list(gone)} {'have' if len(gone) > 1 else 'has'} collapsed"
            )
        return "; ".join(parts)


def active_units(means: Any, threshold: float = 0.01) -> ActiveUnits:
    """A_d = Var_x(E_q[z_d|x]), active above the threshold. Burda et al. 2016, arXiv:1509.00519.

    Args:
        means: E_q[z|x_n], [N, D], N ≥ 2; of categorical latents the probabilities of C classes, [N, D, C], of which the
            variances add up.
        threshold: in the units of z², which are those of a prior with variance 1.

    Raises:
        DataError: no numbers [N, D], or a single datum.
        PpdgmError: a negative threshold.
    """
    require("threshold", threshold, (int, float), 0.0, "a variance, at least 0")
    return ActiveUnits(_variance("means", means), float(threshold))


def latent_use(
    means: Mapping[str, Any], kl: Mapping[str, Any] | None = None, nats: float = 0.01, threshold: float = 0.01
) -> LatentUse:
    """Which dimensions and sites carry information, and which have collapsed.

    A dimension whose mean KL is below `nats` carries less information than that (I(x; z_d) ≤ E KL), however its means
    vary, as those of a site whose prior moves do; one with a larger KL does, unless neither its means nor its KL vary
    over data: then the guide departs from the prior alike for all of them. Where only a site's KL is known, it has
    collapsed if that is below `nats`; and its dimensions, as all without a KL, are told by Burda's statistic.

    Args:
        means: for each site E_q[z|x_n], [N, D], or [N, D, C] of categorical latents. A site may be left out that has a
            KL per dimension.
        kl: for each site KL(q(z|x_n) ‖ p), [N, D] per dimension, or [N] for the site, nats.
        nats: below which a KL counts as none.
        threshold: of the variance of means.

    Raises:
        DataError: no sites, no numbers of these shapes, or a single datum.
        PpdgmError: nats or threshold is negative.
    """
    require("nats", nats, (int, float), 0.0, "a KL, at least 0")
    require("threshold", threshold, (int, float), 0.0, "a variance, at least 0")
    kl = {} if kl is None else kl
    if not isinstance(means, Mapping) or not isinstance(kl, Mapping) or not {**means, **kl}:
        raise DataError("means, kl: expected mappings of sites to arrays, with at least one site: {'z': means}.")
    sites = (_site(name, means.get(name), kl.get(name), nats, threshold) for name in {**means, **kl})
    return LatentUse(tuple(sites), float(nats), float(threshold))


def _site(name: str, means: Any, kl: Any, nats: float, threshold: float) -> SiteUse:
    variance = None if means is None else _variance(f"means[{name!r}]", means)
    each = None if kl is None else float64(f"kl[{name!r}]", kl, "N …")
    if each is not None and len(each) < 2:
        raise DataError(f"kl[{name!r}]: got one datum, expected several.")
    if each is None or each.ndim == 1:
        if variance is None:
            raise DataError(
                f"means: got none for site {name!r}, whose kl is not per dimension. Give its means, [N, D]."
            )
        total = None if each is None else float(each.mean())
        carries = total is None or total >= nats
        return SiteUse(name, (variance > threshold) & carries, variance, None, total)
    if each.ndim > 2 or (variance is not None and each.shape[1:] != variance.shape):
        like = "D" if variance is None else f"D = {len(variance)}"
        raise DataError(f"kl[{name!r}]: got shape {each.shape}, expected [N, {like}] per dimension, or [N].")
    varies = each.std(0) > nats
    if variance is not None:
        varies |= variance > threshold
    return SiteUse(name, (each.mean(0) >= nats) & varies, variance, each.mean(0), float(each.sum(1).mean()))


def _variance(name: str, means: Any) -> np.ndarray:
    array = as_array(name, means)
    classes = array.ndim == 3
    array = float64(name, array, "N D C" if classes else "N D")
    if len(array) < 2:
        raise DataError(f"{name}: got one datum, expected several: the statistic is a variance over data.")
    variance = array.var(0, ddof=1)
    return variance.sum(-1) if classes else variance


def _list(words: Any) -> str:
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
