"""VAEs with each likelihood, and with gated convolutions."""

from instances import Instance, binary, normal_latents, real

from ppdgm.models import (
    MLP,
    VAE,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    ConvDecoder,
    ConvEncoder,
    Discretised,
    DiscretisedLogistic,
    Laplace,
    MixtureOfDiscretisedLogistics,
    Multinomial,
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
    # A wide encoder, for a KL that is not small: densities on [0, 1] are near 1, and errors are relative to the ELBO.
    "continuous bernoulli": _vae(ContinuousBernoulli(), unit, encoder=MLP(hidden=(20,))),
    "laplace": _vae(Laplace(scale="network", min_scale=0.1), real, (2, 2)),
    "categorical": _vae(Categorical(levels=4), levels(4), (2, 2)),
    "discretised logistic": _vae(DiscretisedLogistic(scale="per_dimension"), levels(256)),
    "discretised gaussian": _vae(Discretised(levels=6), levels(6), (2, 2)),
    "discretised laplace": _vae(Discretised(levels=16, of=Laplace(scale="learned")), levels(16)),
    "mixture of logistics": _vae(MixtureOfDiscretisedLogistics(components=3, levels=16), levels(16), (2, 2)),
    "poisson": _vae(Poisson(), counts),
    "negative binomial": _vae(NegativeBinomial(), counts),
    "negative binomial from network": _vae(NegativeBinomial(inverse_dispersion="network", link="exp"), counts, (2, 2)),
    "zero inflated": _vae(ZeroInflatedNegativeBinomial(inverse_dispersion="learned", link="exp"), counts),
    "multinomial": _vae(Multinomial(), counts, (2, 3)),
    "gated convolutions": _vae(
        Bernoulli(),
        binary,
        (5, 6),
        ConvEncoder(channels=(2,), **_GATES),
        ConvDecoder(channels=(2, 2), **_GATES),
    ),
}
