"""Priors: distributions over a latent, without a head."""

from ppdgm.models.priors.aggregated import AggregatedPosterior
from ppdgm.models.priors.autoregressive import AutoregressivePrior
from ppdgm.models.priors.base import Prior
from ppdgm.models.priors.bounded import BetaPrior, DirichletPrior, GammaPrior, LogNormalPrior
from ppdgm.models.priors.codes import CodePrior
from ppdgm.models.priors.discrete import BernoulliPrior, CategoricalPrior
from ppdgm.models.priors.flow import FlowPrior
from ppdgm.models.priors.mixture import MixtureOfGaussians
from ppdgm.models.priors.normal import StandardNormal
from ppdgm.models.priors.vamp import VampPrior

__all__ = [
    "AggregatedPosterior",
    "AutoregressivePrior",
    "BernoulliPrior",
    "BetaPrior",
    "CategoricalPrior",
    "CodePrior",
    "DirichletPrior",
    "FlowPrior",
    "GammaPrior",
    "LogNormalPrior",
    "MixtureOfGaussians",
    "Prior",
    "StandardNormal",
    "VampPrior",
]
