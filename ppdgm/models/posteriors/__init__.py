"""Posteriors: distributions over a latent, given the encoder's output."""

from ppdgm.models.posteriors.base import Family, Posterior, halves
from ppdgm.models.posteriors.binary import RelaxedBernoulli
from ppdgm.models.posteriors.flow import FlowPosterior
from ppdgm.models.posteriors.full import FullCovarianceNormal
from ppdgm.models.posteriors.gumbel import GumbelSoftmax
from ppdgm.models.posteriors.location_scale import DiagonalLaplace, DiagonalLogistic, DiagonalStudentT
from ppdgm.models.posteriors.normal import DiagonalNormal

__all__ = [
    "DiagonalLaplace",
    "DiagonalLogistic",
    "DiagonalNormal",
    "DiagonalStudentT",
    "Family",
    "FlowPosterior",
    "FullCovarianceNormal",
    "GumbelSoftmax",
    "Posterior",
    "RelaxedBernoulli",
    "halves",
]
