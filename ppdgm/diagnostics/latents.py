"""Use of the latents: active units, and which dimensions and sites have collapsed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.arrays import as_array, float64
from ppdgm.errors import DataError, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ActiveUnits:
    """Burda's statistic of each dimension.

    Attributes:
        variance: the variance of the posterior means over data, [D].
        threshold: a dimension with a larger variance is active.
    """

    variance: np.ndarray
    threshold: float

    @property
    def active(self) -> np.ndarray:
        """Whether each dimension is active, booleans [D]."""
        return self.variance > self.threshold

    @property
    def count(self) -> int:
        """The number of active dimensions."""
        return int(self.active.sum())


@dataclass(frozen=True)
class SiteUse:
    """The information that one site carries.

    Attributes:
        name: the name of the site.
        used: whether each dimension carries information about the data, [D].
        variance: the variance of the posterior means over data, [D]; None if no means were given.
        kl: mean KL(q ‖ p) of each dimension, [D], nats; None if only the KL of the site is known.
        site_kl: mean KL of the site, nats; None if none was given.
    """

    name: str
    used: np.ndarray
    variance: np.ndarray | None
    kl: np.ndarray | None
    site_kl: float | None

    @property
    def collapsed(self) -> bool:
        """Whether no dimension of the site is used."""
        return not self.used.any()

    @property
    def by_kl(self) -> np.ndarray:
        """The dimensions, the most informative first: by KL, or without it by the variance of the means, [D]."""
        for values in (self.kl, self.variance):
            if values is not None:
                return np.argsort(-values, kind="stable")
        return np.arange(len(self.used))


@dataclass(frozen=True)
class LatentUse:
    """The information that each site carries.

    Attributes:
        sites: the sites, in the given order.
        nats: a dimension or site with a smaller KL carries no information.
        threshold: a dimension is active if the variance of its means is larger.
    """

    sites: tuple[SiteUse, ...]
    nats: float
    threshold: float

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Names of the sites that carry no information."""
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


def active_units(means: ArrayLike, threshold: float = 0.01) -> ActiveUnits:
    """A_d = Var_x(E_q[z_d|x]), active above the threshold. Burda et al. 2016, arXiv:1509.00519.

    Args:
        means: E_q[z|x_n], [N, D], N ≥ 2; for categorical latents the probabilities of C classes, [N, D, C], whose
            variances are added up.
        threshold: in the units of z²; the default is for a prior with variance 1.

    Raises:
        DataError: the array is not numbers [N, D], or has a single row.
        PpdgmError: the threshold is negative.
    """
    require("threshold", threshold, (int, float), 0.0, "a variance, at least 0")
    return ActiveUnits(_variance("means", means), float(threshold))


def latent_use(
    means: Mapping[str, ArrayLike],
    kl: Mapping[str, ArrayLike] | None = None,
    nats: float = 0.01,
    threshold: float = 0.01,
) -> LatentUse:
    """Which dimensions and sites carry information, and which have collapsed.

    A dimension whose mean KL is below `nats` carries less information than that (I(x; z_d) ≤ E KL), even if its means
    vary, for example because its prior moves. A dimension with a larger KL carries information, unless neither its
    means nor its KL vary over data: then the guide differs from the prior in the same way for all rows. If only the KL
    of a site is known, the site has collapsed if that is below `nats`. Dimensions without their own KL are judged by
    Burda's statistic.

    Args:
        means: for each site E_q[z|x_n], [N, D], or [N, D, C] for categorical latents. A site with a KL for each
            dimension needs no means.
        kl: for each site KL(q(z|x_n) ‖ p), [N, D] for each dimension, or [N] for the site, nats.
        nats: a smaller KL counts as zero.
        threshold: the threshold for the variance of means.

    Raises:
        DataError: there are no sites, the arrays are not numbers of these shapes, or they have a single row.
        PpdgmError: nats or threshold is negative.
    """
    require("nats", nats, (int, float), 0.0, "a KL, at least 0")
    require("threshold", threshold, (int, float), 0.0, "a variance, at least 0")
    kl = {} if kl is None else kl
    if not isinstance(means, Mapping) or not isinstance(kl, Mapping) or not {**means, **kl}:
        raise DataError("means, kl: expected mappings of sites to arrays, with at least one site: {'z': means}.")
    sites = (_site(name, means.get(name), kl.get(name), nats, threshold) for name in {**means, **kl})
    return LatentUse(tuple(sites), float(nats), float(threshold))


def _site(name: str, means: ArrayLike | None, kl: ArrayLike | None, nats: float, threshold: float) -> SiteUse:
    variance = None if means is None else _variance(f"means[{name!r}]", means)
    each = None if kl is None else float64(f"kl[{name!r}]", kl, "N …")
    if each is not None and len(each) < 2:
        raise DataError(f"kl[{name!r}]: got one row, expected several.")
    if each is None or each.ndim == 1:
        if variance is None:
            raise DataError(
                f"means: got no means for site {name!r}, whose kl is not per dimension. Give its means, [N, D]."
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


def _variance(name: str, means: ArrayLike) -> np.ndarray:
    array = as_array(name, means)
    classes = array.ndim == 3
    array = float64(name, array, "N D C" if classes else "N D")
    if len(array) < 2:
        raise DataError(f"{name}: got one row, expected several: the statistic is a variance over rows.")
    variance = array.var(0, ddof=1)
    return variance.sum(-1) if classes else variance


def _list(words: Iterable[str]) -> str:
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
