"""Pictures of the latent space: what is decoded is of the row whose code it begins with."""

import numpy as np
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.models import MLP, VAE, BernoulliPrior, RelaxedBernoulli

N, A = 100, 0.5
RNG = np.random.default_rng(0)
Y = RNG.normal(size=N).astype(np.float32)
X = (RNG.normal(size=(N, 2)) + 10 * Y[:, None]).astype(np.float32)


class Mixed(Program):
    """θ, a class c, z, and w around z; x ~ N(z + w + 3c + θ + 10y, 1)."""

    shares: bool

    def build(self, c):
        c.param("a", (1,))

    def model(self, P, x, y):
        shared = P.sample("theta", P.dist.Normal(0.0, 1.0)) if self.shares else 1.5
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), 1.0).to_event(1))
            w = P.sample("w", P.dist.Normal(2 * z, 1.0).to_event(1))
            c = P.sample("c", P.dist.Bernoulli(probs=P.full((), 0.5)))
            mean = z + w + (3 * c + shared + 10 * y)[..., None] + P.param("a")[0]
            P.sample("x", P.dist.Normal(mean, P.full((2,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x, y):
        if self.shares:
            P.sample("theta", P.dist.Normal(1.5, 0.1))
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(A * (x - 10 * y[..., None]), P.full((2,), 0.5)).to_event(1))
            P.sample("w", P.dist.Normal(z, 1.0).to_event(1))
            P.sample("c", P.dist.Bernoulli(logits=x[:, 0] - 10 * y))


def pictures(program, data, backend, **sizes):
    fit = ppdgm.Fit(program, program.initialise(0), backend, info={"fields": list(data), "shapes": sizes})
    return fit.diagnose(data, parts=("latents", "pictures"), few=8).pictures, fit.reconstruct(data)


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
@pytest.mark.parametrize("shares", [True, False])
def test_fields_classes_and_shared_latents_are_those_of_the_row(shares, backend):
    found, again = pictures(Mixed(shares=shares), {"x": X, "y": Y}, backend, x=[2], y=[])
    centred = X - 10 * Y[:, None]
    z, bit = A * centred, 3.0 * (centred[:, :1] > 0) + 1.5 + 10 * Y[:, None]
    np.testing.assert_allclose(again, 2 * z + bit, atol=1e-4)
    np.testing.assert_allclose(found.interpolations[:, 0], again[found.shown[0:12:2]], atol=1e-4)
    np.testing.assert_allclose(found.interpolations[:, -1], again[found.shown[1:12:2]], atol=1e-4)
    if shares:  # then nothing is known of the dimensions' KL
        return
    first = found.shown[0]
    for name, x in zip(found.traversed, found.traversals, strict=True):
        site, d = name[0], int(name[2])
        value = z[first].copy()
        at = np.tile(value, (len(found.steps), 1))
        draws = found.prior[site][:, d]
        at[:, d] = draws.mean() + draws.std() * found.steps
        follows = 2 * at if site == "z" else value  # w is at its mean given z, or z stays
        np.testing.assert_allclose(x, at + follows + bit[first], atol=1e-4)
    assert {name[0] for name in found.traversed} == {"z", "w"}


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_nothing_is_decoded_between_classes(backend):
    """Log-odds, which are the codes of bits, are none of their values."""
    net = MLP(hidden=(4,))
    parts = {"prior": BernoulliPrior(), "posterior": RelaxedBernoulli(), "encoder": net, "decoder": net}
    found, _ = pictures(VAE(event_shape=(2,), latent=3, **parts), {"x": (X > 0).astype(np.float32)}, backend, x=[2])
    assert found.traversals is None and found.interpolations is None
    assert found.reconstructions is not None
