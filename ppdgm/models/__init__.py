"""Programs and their parts."""

from ppdgm.models.likelihoods import Bernoulli, Gaussian, Likelihood
from ppdgm.models.posteriors import DiagonalNormal, Posterior
from ppdgm.models.ppca import PPCA
from ppdgm.models.priors import Prior, StandardNormal
from ppdgm.models.vae import VAE
from ppdgm.nets import MLP, ConvDecoder, ConvEncoder, GatedMLP, Net, ResidualMLP
from ppdgm.program import Part, Program

__all__ = [
    "MLP",
    "PPCA",
    "VAE",
    "Bernoulli",
    "ConvDecoder",
    "ConvEncoder",
    "DiagonalNormal",
    "GatedMLP",
    "Gaussian",
    "Likelihood",
    "Net",
    "Part",
    "Posterior",
    "Prior",
    "Program",
    "ResidualMLP",
    "StandardNormal",
]
