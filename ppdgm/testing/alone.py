"""Invariants of a density by itself: it integrates to 1, its draws are its own, and nothing breaks at the extremes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
from scipy.special import logsumexp
from scipy.stats import chi2

from ppdgm.errors import DataError
from ppdgm.models import Likelihood, Part
from ppdgm.testing.bench import Bench, against_standard, log_density
from ppdgm.testing.broken import Broken
from ppdgm.testing.grids import make_grid
from ppdgm.testing.subject import Subject
from ppdgm.testing.wrappers import Alone, Mixed

DRAWS = 20_000
LEVEL = 1e-4  #: of the tests on draws
QUADRATURE = 2e-3  #: by how much an integral may miss 1
SUPPORT = 300  #: whole numbers that a likelihood may have, for which all pairs are summed over
ERRORS = 4.0  #: Monte Carlo errors that are no deviation


def density(subject: Subject, backend: str) -> str:
    """It integrates, or sums, to 1 for each head."""
    return "; ".join(f"{what} {measured}" for what, measured, _ in _masses(subject, backend))


def samples(subject: Subject, backend: str) -> str:
    """Draws are distributed as the density says."""
    return "; ".join(_compare(*both) for _, _, both in _masses(subject, backend) if both is not None)
