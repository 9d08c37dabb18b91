"""Conditional VAEs and factor analysis. What is enumerated has its own tests, as plain handlers don't enumerate."""

import numpy as np
from instances import Instance, binary, normal_latents

from ppdgm.models import (
    MLP,
    Categorical,
    ConditionalVAE,
    ConvEncoder,
    FactorAnalysis,
    FullCovarianceNormal,
    Gaussian,
    MixtureOfGaussians,
)


def _labelled(data):
    """With classes 0 to 2."""
    return lambda rng, size, shape: data(rng, size, shape) | {"label": rng.integers(3, size=size)}


def _scaled(rng, size, shape):
    """Dimensions of different size and spread."""
    return {"x": rng.normal(size=(size, *shape)) * np.exp(rng.normal(size=shape)) + rng.normal(size=shape)}


def _levels(rng, size, shape):
    return {"x": rng.integers(4, size=(size, *shape))}


def _conditional(latent=(2,), event=(5,), data=binary, closed_forms=("z",), **parts):
    nets = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))} | parts
    return Instance(
        lambda: ConditionalVAE(event_shape=event, classes=3, latent=latent, **nets),
        data=_labelled(data),
        latents=normal_latents(z=latent),
        closed_forms=closed_forms,
    )


def _factors(event=(4,), latent=2, **options):
    return Instance(
        lambda: FactorAnalysis(event_shape=event, latent=latent, **options),
        data=_scaled,
        latents=normal_latents(z=(latent,)),
        closed_forms=("z",) if options else (),
    )


ZOO = {
    "conditional": _conditional(),
    "conditional prior": _conditional((2, 2), conditional_prior=True),
    "conditional mixture of a full covariance": _conditional(
        data=_scaled, posterior=FullCovarianceNormal(), prior=MixtureOfGaussians(components=2), closed_forms=(),
        likelihood=Gaussian(),
    ),
    "conditional convolutions": _conditional(event=(2, 4, 5), encoder=ConvEncoder(channels=(2,), kernel=3)),
    "conditional levels": _conditional(event=(2, 3), data=_levels, likelihood=Categorical(levels=4)),
    "factor analysis exact": _factors(),
    "factor analysis exact matrix": _factors((2, 3), 3),
    "factor analysis linear": _factors(posterior="linear"),
}  # fmt: skip
