"""VAEs with each likelihood, and with gated convolutions."""

from instances import Instance, normal_latents, real

from ppdgm.models import (
    MLP,
    VAE,
    Categorical,
    ContinuousBernoulli,
    ConvDecoder,
    ConvEncoder,
    DiscretisedLogistic,
    Laplace,
    MixtureOfDiscretisedLogistics,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)

_GATES = {"gated": True, "activation": "identity"}


def levels(count):
    """Whole numbers, the ends among them."""

    def data(rng, size, shape):
        x = rng.integers(0, count, size=(size, *shape))
        x[0].flat[0], x[0].flat[-1] = 0, count - 1
        return {"x": x}

    return data


def counts(rng, size, shape):
    return {"x": rng.poisson(rng.gamma(1.0, 4.0, size=(size, *shape))) * (rng.random((size, *shape)) < 0.7)}


def unit(rng, size, shape):
    x = rng.random((size, *shape))
    x[0].flat[0], x[0].flat[-1] = 0.0, 1.0
    return {"x": x}


def _vae(likelihood, data, shape=(5,), encoder=None, decoder=None):
    program = VAE(
        event_shape=shape,
        latent=2,
        likelihood=likelihood,
        encoder=encoder or MLP(hidden=(4,)),
        decoder=decoder or MLP(hidden=(4,)),
    )
    return Instance(lambda: program, data=data, latents=normal_latents(z=(2,)), closed_forms=("z",))


ZOO = {
    "continuous bernoulli": _vae(ContinuousBernoulli(), unit),
    "laplace": _vae(Laplace(), real),
    "laplace from network": _vae(Laplace(scale="network", min_scale=0.1), real, (2, 2)),
    "categorical": _vae(Categorical(levels=4), levels(4)),
    "categorical of 256": _vae(Categorical(), levels(256), (2, 2)),
    "discretised logistic": _vae(DiscretisedLogistic(levels=4), levels(4), (2, 2)),
    "discretised logistic fixed": _vae(DiscretisedLogistic(scale=0.3, levels=16), levels(16)),
    "discretised logistic of 256": _vae(DiscretisedLogistic(scale="per_dimension"), levels(256)),
    "mixture of logistics": _vae(MixtureOfDiscretisedLogistics(components=3, levels=16), levels(16), (2, 2)),
    "mixture of logistics of 256": _vae(MixtureOfDiscretisedLogistics(components=2, min_scale=0.01), levels(256)),
    "poisson": _vae(Poisson(), counts),
    "poisson exp": _vae(Poisson(link="exp"), counts, (2, 2)),
    "negative binomial": _vae(NegativeBinomial(), counts),
    "negative binomial network": _vae(NegativeBinomial(inverse_dispersion="network", link="exp"), counts, (2, 2)),
    "negative binomial fixed": _vae(NegativeBinomial(inverse_dispersion=2.0), counts),
    "zero inflated": _vae(ZeroInflatedNegativeBinomial(inverse_dispersion="learned", link="exp"), counts),
    "zero inflated network": _vae(
        ZeroInflatedNegativeBinomial(inverse_dispersion="network", min_inverse_dispersion=0.1), counts, (2, 2)
    ),
    "gated convolutions": _vae(
        ContinuousBernoulli(),
        unit,
        (7, 6),
        ConvEncoder(channels=(2, 3), **_GATES),
        ConvDecoder(channels=(3, 2), **_GATES),
    ),
    "gated residual convolutions": _vae(
        MixtureOfDiscretisedLogistics(components=2, levels=8),
        levels(8),
        (2, 6, 6),
        ConvEncoder(channels=(4,), kernel=3, norm="group", groups=2, residual=1, gated=True, activation="elu"),
        ConvDecoder(channels=(4, 2), norm="group", groups=2, residual=1, gated=True, activation="silu"),
    ),
}
