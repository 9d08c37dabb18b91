"""Likelihoods: distributions over a row of the data, given the decoder's output."""

from ppdgm.models.likelihoods.autoregressive import Autoregressive
from ppdgm.models.likelihoods.base import BadData, Likelihood, refuse
from ppdgm.models.likelihoods.bernoulli import Bernoulli
from ppdgm.models.likelihoods.categorical import Categorical
from ppdgm.models.likelihoods.continuous_bernoulli import ContinuousBernoulli
from ppdgm.models.likelihoods.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from ppdgm.models.likelihoods.coupled import CoupledDiscretisedLogistics
from ppdgm.models.likelihoods.discretised import Discretised
from ppdgm.models.likelihoods.flow import FlowLikelihood
from ppdgm.models.likelihoods.gaussian import Gaussian
from ppdgm.models.likelihoods.laplace import Laplace
from ppdgm.models.likelihoods.logistic import DiscretisedLogistic, MixtureOfDiscretisedLogistics
from ppdgm.models.likelihoods.multinomial import Multinomial
from ppdgm.models.likelihoods.one_hot import OneHot
from ppdgm.models.likelihoods.table import Table

__all__ = [
    "Autoregressive",
    "BadData",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "CoupledDiscretisedLogistics",
    "Discretised",
    "DiscretisedLogistic",
    "FlowLikelihood",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "MixtureOfDiscretisedLogistics",
    "Multinomial",
    "NegativeBinomial",
    "OneHot",
    "Poisson",
    "Table",
    "ZeroInflatedNegativeBinomial",
    "refuse",
]
