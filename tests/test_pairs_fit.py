"""Plain pairs, unmodified, through fit, elbo, log_likelihood, encode, reconstruct, save and load."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppdgm
from ppdgm import Program
from ppdgm.errors import CheckpointError, PpdgmError
from ppdgm.inference import IWAE

N, D = 41, 2
X = (np.random.default_rng(0).random((N, 6)) < 0.4).astype("float32")


class WithBuffers(torch.nn.Module):
    """Pyro's own VAE example, with a BatchNorm and a dropout layer in the encoder."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 2 * D)
        )
        self.decoder = torch.nn.Sequential(torch.nn.Linear(D, 8), torch.nn.Softplus(), torch.nn.Linear(8, 6))

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = x.new_zeros(torch.Size((x.shape[0], D)))
            z = pyro.sample("latent", dist.Normal(z_loc, torch.ones_like(z_loc)).to_event(1))
            loc = torch.sigmoid(self.decoder(z))
            pyro.sample("obs", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=x.reshape(-1, 6))
            return loc

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = self.encoder(x.reshape(-1, 6)).chunk(2, -1)
            pyro.sample("latent", dist.Normal(z_loc, z_scale.exp()).to_event(1))


def pyro_buffers():
    torch.manual_seed(0)
    vae = WithBuffers()
    return Program.from_pyro(vae.model, vae.guide)


def pyro_subsampled():
    torch.manual_seed(0)
    encoder, decoder = torch.nn.Linear(6, D), torch.nn.Linear(D, 6)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", N, subsample_size=8) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x[i])

    def guide(x):
        pyro.module("encoder", encoder)
        scale = pyro.param("scale", torch.ones(D), constraint=dist.constraints.positive)
        with pyro.plate("data", N, subsample_size=8) as i:
            pyro.sample("z", dist.Normal(encoder(x[i]), scale).to_event(1))

    return Program.from_pyro(model, guide)


def _numpyro(plate):
    def dense(name, x, outputs):
        init = lambda key: 0.3 * jax.random.normal(key, (x.shape[-1], outputs))
        return x @ numpyro.param(name, init)

    def model(x):
        with plate(x) as i:
            z = numpyro.sample("z", ndist.Normal(jnp.zeros(D), 1.0).to_event(1))
            numpyro.sample("x", ndist.Bernoulli(logits=dense("w", z, 6)).to_event(1), obs=x[i])

    def guide(x):
        scale = numpyro.param("scale", jnp.ones(D), constraint=ndist.constraints.positive)
        with plate(x) as i:
            numpyro.sample("z", ndist.Normal(dense("v", x[i], D), scale).to_event(1))

    return Program.from_numpyro(model, guide)


def numpyro_full():
    return _numpyro(lambda x: numpyro.plate("data", x.shape[0]))


def numpyro_subsampled():
    return _numpyro(lambda x: numpyro.plate("data", N, subsample_size=8))


PAIRS = {f.__name__: f for f in (pyro_buffers, pyro_subsampled, numpyro_full, numpyro_subsampled)}


def train(pair, **options):
    batch = None if "subsample" in options.pop("name") else 8
    return ppdgm.fit(pair, X, steps=60, batch_size=batch, learning_rate=1e-2, progress=False, **options)


@pytest.mark.parametrize("name", PAIRS)
def test_a_plain_pair_goes_through_everything(name, tmp_path):
    pair = PAIRS[name]()
    fit = train(pair, name=name, validation=X[:9], out=tmp_path / "run")
    assert np.isfinite(fit.history["elbo"]).all() and len(fit.history["validation_elbo"]) > 0
    elbo, likelihood = fit.elbo(X, k=400), fit.log_likelihood(X, k=400)
    assert elbo.values.shape == likelihood.values.shape == (N,)
    error = np.hypot(elbo.monte_carlo_error, likelihood.monte_carlo_error)
    assert likelihood.mean > elbo.mean - 4 * error
    assert fit.encode(X).shape == (N, D) and fit.encode(X, k=3).shape == (3, N, D)
    assert fit.reconstruct(X).shape == (N, 6)
    again = ppdgm.load(tmp_path / "run", program=PAIRS[name]())  # the pair anew, at its first values
    assert np.array_equal(again.log_likelihood(X, k=400).values, likelihood.values)
    with pytest.raises(CheckpointError, match="Give the pair"):
        ppdgm.load(tmp_path / "run")
    assert fit.sample(3).shape == (3, 6)  # its values: tests/test_pairs_sample.py
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_seed_gives_the_same_bits(name):
    a, b = (train(PAIRS[name](), name=name, seed=2) for _ in range(2))
    assert all(np.array_equal(a.params[n], b.params[n]) for n in a.params)


def test_chunks_do_not_matter():
    """A memory limit that cuts the data into chunks changes draws, not what is estimated."""
    fit = train(pyro_buffers(), name="pyro_buffers")
    whole, cut = fit.elbo(X, k=300), fit.elbo(X, k=300, memory=20_000)
    assert abs(whole.mean - cut.mean) < 4 * np.hypot(whole.monte_carlo_error, cut.monte_carlo_error)


def test_evaluation_leaves_buffers_and_modes_alone():
    """FIELD 5."""
    torch.manual_seed(0)
    vae = WithBuffers()
    fit = train(Program.from_pyro(vae.model, vae.guide), name="")
    assert vae.encoder[1].num_batches_tracked > 0 and vae.encoder.training
    before = {n: t.clone() for n, t in vae.state_dict().items()}
    running = [n for n in fit.params if n.endswith("running_mean")]
    assert len(running) == 1 and np.abs(fit.params[running[0]]).max() > 0
    fit.elbo(X), fit.log_likelihood(X, k=10), fit.encode(X), fit.reconstruct(X)
    assert all(torch.equal(before[n], t) for n, t in vae.state_dict().items())
    assert all(m.training for m in vae.modules())


def test_arguments_that_do_not_fit_a_pair():
    with pytest.raises(PpdgmError, match="fixes it at 8"):
        ppdgm.fit(pyro_subsampled(), X, steps=1, batch_size=5)
    with pytest.raises(PpdgmError, match="plain pyro pair"):
        ppdgm.fit(pyro_subsampled(), X, steps=1, backend="numpyro")
    with pytest.raises(PpdgmError, match="'rows'"):
        pair = pyro_buffers()
        ppdgm.fit(Program.from_pyro(pair.model, pair.guide, data_plate="rows"), X, steps=1)


def test_many_particles_are_one_run_on_numpyro():
    """In rehearsal, in training and at given latents: the model is called as often for K = 30 as for K = 2."""
    from ppdgm.registry import backend

    calls, counts, x = [], [], np.ones(3, "float32")

    def model(x):
        calls.append(1)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", ndist.Normal(jnp.zeros(len(x)), 1.0))
            numpyro.sample("x", ndist.Normal(z, 1.0), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", ndist.Normal(numpyro.param("a", 0.5) * x, 1.0))

    for k in (2, 30):
        calls.clear()
        pair = Program.from_numpyro(model, guide)
        fit = ppdgm.fit(pair, x, engine=IWAE(k=k), backend="numpyro", steps=1, progress=False)
        fit.log_likelihood(x, k=k)
        runtime = backend("numpyro").Runtime(pair, "cpu")
        params, data = runtime.put(fit.params), runtime.put({"x": x})
        prior, _, slopes = runtime.joint(params, data, np.arange(3), {"z": np.ones((k, 3), "float32")}, np.ones(()))
        assert prior.shape == (k, 3) and slopes["z"].shape == (k, 3)
        np.testing.assert_allclose(slopes["z"], -1.0, rtol=1e-6)  # −z + (x − z), at 1
        counts.append(len(calls))
    assert counts[1] <= counts[0] + 1
