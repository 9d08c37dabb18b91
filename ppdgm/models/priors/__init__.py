"""Priors: distributions over a latent, without a head."""

from ppdgm.models.priors.base import Prior
from ppdgm.models.priors.discrete import BernoulliPrior, CategoricalPrior
from ppdgm.models.priors.normal import StandardNormal

__all__ = ["BernoulliPrior", "CategoricalPrior", "Prior", "StandardNormal"]
