"""Likelihoods: distributions over a datum, given the decoder's output."""

from ppdgm.models.likelihoods.base import BadData, Likelihood, refuse
from ppdgm.models.likelihoods.bernoulli import Bernoulli
from ppdgm.models.likelihoods.gaussian import Gaussian

__all__ = ["BadData", "Bernoulli", "Gaussian", "Likelihood", "refuse"]
