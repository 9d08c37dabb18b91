"""Priors: distributions over a latent, without a head."""

from ppdgm.models.priors.base import Prior
from ppdgm.models.priors.normal import StandardNormal

__all__ = ["Prior", "StandardNormal"]
