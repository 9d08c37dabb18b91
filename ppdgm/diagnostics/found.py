"""Results of a diagnosis, and what its verdict, tables and figures read of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ppdgm.diagnostics.annealing import Bracket
from ppdgm.diagnostics.arrays import Measured, standard_error
from ppdgm.diagnostics.calibration import Coverage
from ppdgm.diagnostics.codebook import CodeUse
from ppdgm.diagnostics.curve import BoundCurve
from ppdgm.diagnostics.latents import LatentUse
from ppdgm.diagnostics.predictive import PredictiveCheck
from ppdgm.diagnostics.rank_tests import Uniformity
from ppdgm.diagnostics.surgery import Surgery
from ppdgm.diagnostics.weights import WeightQuality


@dataclass(frozen=True)
class Gaps:
    """How much the guide loses on some data, and why. Cremer et al. 2018, arXiv:1801.03558.

    Inference gap = approximation gap + amortisation gap: log p(x) − L[q] = (log p(x) − L[q*]) + (L[q*] − L[q]), where
    q* is the best member of a family, found for each row separately.

    Attributes:
        index: indices of the rows, [n].
        log_likelihood: log p(x), [n], nats.
        guide: L[q] of the encoder's posterior, [n].
        refitted: L[q*], [n].
        family: the family of q*, "diagonal" or "full" covariance.
        errors: Monte Carlo errors of log p(x), [n].
        known: whether log p(x) is known, [n]. If not, no sampler covers the posterior, and the value is only a lower
            bound. By default it is known for all rows.
    """

    index: np.ndarray
    log_likelihood: np.ndarray
    guide: np.ndarray
    refitted: np.ndarray
    family: str
    errors: np.ndarray | None = None
    known: np.ndarray | None = None

    @property
    def unknown(self) -> int:
        """For how many rows log p(x) is only a lower bound; then so are their inference and approximation gaps."""
        return 0 if self.known is None else int((~self.known).sum())

    @property
    def inference(self) -> Measured:
        """Mean of log p(x) − L[q]."""
        return _mean(self.log_likelihood - self.guide)

    @property
    def approximation(self) -> Measured:
        """Mean of log p(x) − L[q*]: no encoder of this family can remove it."""
        return _mean(self.log_likelihood - self.refitted)

    @property
    def amortisation(self) -> Measured:
        """Mean of L[q*] − L[q]: a better encoder would remove it. It is negative if the guide's family is richer."""
        return _mean(self.refitted - self.guide)

    def __str__(self) -> str:
        about = f"{len(self.index)} rows, {self.family} covariance"
        if self.unknown:
            about += (
                f"; for {self.unknown} of them log p(x) is only a lower bound, so the first two gaps are larger "
                "than shown"
            )
        return (
            f"inference gap {self.inference} nats = approximation gap {self.approximation} + amortisation gap "
            f"{self.amortisation} ({about})"
        )


@dataclass(frozen=True)
class Baseline:
    """The result of a model without latents: independent columns of the same likelihood, fitted to other rows.

    Attributes:
        index: indices of the rows, [n].
        values: log p of each row under the columns, [n], nats.
    """

    index: np.ndarray
    values: np.ndarray

    def gain(self, log_likelihood: np.ndarray) -> Measured:
        """Mean of log p(x) minus that of the columns, for log p(x) of all rows [N]; with its error over data."""
        return _mean(log_likelihood[self.index] - self.values)


@dataclass(frozen=True)
class Pictures:
    """Arrays that a report draws; arrays that are not available are None.

    Attributes:
        samples: means of the likelihood at draws of the prior, [n, *event_shape].
        shown: indices of some rows, chosen at random, [n]; traversals start from the first of them, and
            interpolations go between the first and the second, the third and the fourth, ….
        data: these rows, [n, *event_shape].
        reconstructions: the reconstructions of these rows.
        worst: indices of the rows with the largest k̂, the worst first.
        worst_data, worst_reconstructions: these rows and their reconstructions, [len(worst), *event_shape].
        traversals: decoded along the most informative dimensions, [D', steps, *event_shape].
        traversed: the names of these dimensions, such as "z[3]", with their KL.
        steps: values that are traversed, in standard deviations of the prior.
        interpolations: decoded between the codes of pairs of rows, [pairs, steps, *event_shape].
        codes: means of the guide for each site, flat, [N, D].
        labels: labels of the rows, [N].
        aggregated: draws of the guide, one for each row, for each site, flat, [N, D].
        prior: draws of the prior for each site, flat, [n, D].
    """

    samples: np.ndarray | None = None
    shown: np.ndarray | None = None
    data: np.ndarray | None = None
    reconstructions: np.ndarray | None = None
    worst: np.ndarray | None = None
    worst_data: np.ndarray | None = None
    worst_reconstructions: np.ndarray | None = None
    traversals: np.ndarray | None = None
    traversed: tuple[str, ...] = ()
    steps: np.ndarray | None = None
    interpolations: np.ndarray | None = None
    codes: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: np.ndarray | None = None
    aggregated: Mapping[str, np.ndarray] = field(default_factory=dict)
    prior: Mapping[str, np.ndarray] = field(default_factory=dict)


def _mean(values: np.ndarray) -> Measured:
    return Measured(float(values.mean()), standard_error(values))


class EstimateLike(Protocol):
    """A bound on log p(x) of each row, in nats."""

    @property
    def values(self) -> np.ndarray: ...
    @property
    def errors(self) -> np.ndarray: ...
    @property
    def k(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def standard_error(self) -> float: ...
    @property
    def monte_carlo_error(self) -> float: ...
    @property
    def exact(self) -> bool: ...
    @property
    def of(self) -> str: ...
    @property
    def bias(self) -> float: ...
    @property
    def dimensions(self) -> int | None: ...
    @property
    def bits_per_dimension(self) -> float | None: ...


class FindingLike(Protocol):
    """One result, in words."""

    @property
    def about(self) -> str: ...
    @property
    def grade(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def advice(self) -> str: ...


class Found(Protocol):
    """A `Diagnosis`."""

    @property
    def title(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def log_likelihood(self) -> EstimateLike | None: ...
    @property
    def elbo(self) -> EstimateLike | None: ...
    @property
    def baseline(self) -> Baseline | None: ...
    @property
    def curve(self) -> BoundCurve | None: ...
    @property
    def weights(self) -> WeightQuality | None: ...
    @property
    def use(self) -> LatentUse | None: ...
    @property
    def codes(self) -> Mapping[str, CodeUse]: ...
    @property
    def surgery(self) -> Surgery | None: ...
    @property
    def calibration(self) -> Mapping[str, Uniformity]: ...
    @property
    def coverage(self) -> Mapping[str, Coverage]: ...
    @property
    def pit(self) -> Mapping[str, np.ndarray]: ...
    @property
    def checks(self) -> tuple[PredictiveCheck, ...]: ...
    @property
    def prior_checks(self) -> tuple[PredictiveCheck, ...]: ...
    @property
    def gaps(self) -> Gaps | None: ...
    @property
    def bracket(self) -> Bracket | None: ...
    @property
    def withheld(self) -> Mapping[str, str]: ...
    @property
    def pictures(self) -> Pictures: ...
    @property
    def history(self) -> Mapping[str, np.ndarray]: ...
    @property
    def recipe(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...
    @property
    def seconds(self) -> Mapping[str, float]: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def units(self) -> str: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def taken(self) -> str: ...
    @property
    def verdict(self) -> Sequence[FindingLike]: ...
