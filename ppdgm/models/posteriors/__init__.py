"""Posteriors: distributions over a latent, given the encoder's output."""

from ppdgm.models.posteriors.base import Family, Posterior, halves
from ppdgm.models.posteriors.normal import DiagonalNormal

__all__ = ["DiagonalNormal", "Family", "Posterior", "halves"]
