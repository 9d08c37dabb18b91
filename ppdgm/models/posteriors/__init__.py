"""Posteriors: distributions over a latent, given the encoder's output."""

from ppdgm.models.posteriors.base import Family, Posterior, halves
from ppdgm.models.posteriors.binary import RelaxedBernoulli
from ppdgm.models.posteriors.bounded import DiagonalBeta, DiagonalKumaraswamy, DirichletPosterior
from ppdgm.models.posteriors.flow import FlowPosterior
from ppdgm.models.posteriors.full import FullCovarianceNormal
from ppdgm.models.posteriors.gumbel import GumbelSoftmax
from ppdgm.models.posteriors.location_scale import (
    DiagonalGumbel,
    DiagonalLaplace,
    DiagonalLogistic,
    DiagonalStudentT,
)
from ppdgm.models.posteriors.normal import DiagonalNormal
from ppdgm.models.posteriors.positive import DiagonalGamma, DiagonalLogNormal, DiagonalWeibull
from ppdgm.models.posteriors.quantised import VectorQuantised

__all__ = [
    "DiagonalBeta",
    "DiagonalGamma",
    "DiagonalGumbel",
    "DiagonalKumaraswamy",
    "DiagonalLaplace",
    "DiagonalLogNormal",
    "DiagonalLogistic",
    "DiagonalNormal",
    "DiagonalStudentT",
    "DiagonalWeibull",
    "DirichletPosterior",
    "Family",
    "FlowPosterior",
    "FullCovarianceNormal",
    "GumbelSoftmax",
    "Posterior",
    "RelaxedBernoulli",
    "VectorQuantised",
    "halves",
]
