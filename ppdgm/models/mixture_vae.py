"""The variational autoencoder with clusters in its latent space."""

from __future__ import annotations

from math import expm1, log
from typing import Any, Literal

from ppdgm.language import Array, Batch, Vocabulary
from ppdgm.models.classes import log_softmax, one_hot_categorical
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.posteriors import DiagonalNormal, Posterior
from ppdgm.nets import MLP, Net
from ppdgm.program import Context, Program, constant, normal, zeros
from ppdgm.spec import PositiveFloat, PositiveInt, Shape
