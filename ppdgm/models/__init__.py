"""Programs and their parts. Each family of parts lists its own public names."""

from ppdgm import nets
from ppdgm.models import flows, likelihoods, posteriors, priors
from ppdgm.models.autoencoder import Autoencoder
from ppdgm.models.autoregressive_model import AutoregressiveModel
from ppdgm.models.conditional import ConditionalVAE
from ppdgm.models.dequantised import Dequantised
from ppdgm.models.factor_analysis import FactorAnalysis
from ppdgm.models.flow_model import FlowModel
from ppdgm.models.flows import *
from ppdgm.models.gaussian_mixture import GaussianMixture
from ppdgm.models.hierarchical import HierarchicalVAE
from ppdgm.models.likelihoods import *
from ppdgm.models.mixture_vae import MixtureVAE
from ppdgm.models.posteriors import *
from ppdgm.models.ppca import PPCA
from ppdgm.models.priors import *
from ppdgm.models.prod_lda import ProdLDA
from ppdgm.models.semi_supervised import SemiSupervisedVAE
from ppdgm.models.vae import VAE
from ppdgm.models.vq_vae_2 import VQVAE2
from ppdgm.nets import *
from ppdgm.program import Part, Program

__all__ = [
    "PPCA",
    "VAE",
    "VQVAE2",
    "Autoencoder",
    "AutoregressiveModel",
    "ConditionalVAE",
    "Dequantised",
    "FactorAnalysis",
    "FlowModel",
    "GaussianMixture",
    "HierarchicalVAE",
    "MixtureVAE",
    "Part",
    "ProdLDA",
    "Program",
    "SemiSupervisedVAE",
]
__all__ += flows.__all__
__all__ += likelihoods.__all__
__all__ += nets.__all__
__all__ += posteriors.__all__
__all__ += priors.__all__
