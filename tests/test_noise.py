"""Random numbers outside sample sites: dropout is off in evaluation; other noise is refused there, not in training."""

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from flax import nnx
from numpyro.contrib.module import eqx_module, flax_module, nnx_module
from torch.nn import functional

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError
from ppdgm.nets import ForeignNet

N, X = 12, 3
DATA = np.random.default_rng(0).normal(size=(N, X)).astype("float32")
QUICK = {"steps": 3, "batch_size": 4, "progress": False, "learning_rate": 0.0}

# --- NumPyro ---------------------------------------------------------------------------------------------------------


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, deterministic=False):
        h = linen.Dropout(0.5, deterministic=deterministic)(linen.Dense(8)(x))
        attend = linen.MultiHeadDotProductAttention(2, dropout_rate=0.5, deterministic=False)
        h = attend(h[:, None], h[:, None])[:, 0]
        h = linen.Dropout(0.5)(h, deterministic=False)
        return linen.Dense(1)(h)[:, 0]


class Eqx(eqx.Module):
    layer: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, inference):
        self.layer = eqx.nn.Linear(X, 1, key=jax.random.key(0))
        self.dropout = eqx.nn.Dropout(0.5, inference=inference)

    def __call__(self, x, key):
        return self.layer(self.dropout(x, key=key))[0]


class Nnx(nnx.Module):
    def __init__(self):
        self.layer, self.dropout = nnx.Linear(X, 1, rngs=nnx.Rngs(0)), nnx.Dropout(0.5)

    def __call__(self, x, rngs):
        return self.layer(self.dropout(x, rngs=rngs))[:, 0]


def by_linen(x):
    net = flax_module("net", Linen(), input_shape=(1, X), apply_rng=["dropout"])
    return net(x, rngs={"dropout": numpyro.prng_key()})


def by_eqx(x):
    net = eqx_module("net", Eqx(False))
    return jax.vmap(net)(x, jax.random.split(numpyro.prng_key(), len(x)))


def by_nnx(x):
    return nnx_module("net", Nnx())(x, rngs=nnx.Rngs(numpyro.prng_key()))


def by_hand(x):
    w = numpyro.param("w", jnp.ones(X))
    return x @ w + jax.random.normal(numpyro.prng_key(), (len(x),))


def numpyro_pair(encode):
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", numpyro_dist.Normal(0.0, 1.0))
            numpyro.sample("x", numpyro_dist.Normal(z[:, None] + jnp.zeros(X), 1.0).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", numpyro_dist.Normal(encode(x), 0.5))

    return Program.from_numpyro(model, guide)


def attended_by_hand(params):
    tree = {}
    for name, value in params.items():
        *path, leaf = name.removeprefix("net.").split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = value

    class Off(linen.Module):
        @linen.compact
        def __call__(self, x):
            h = linen.Dense(8)(x)[:, None]
            return linen.Dense(1)(linen.MultiHeadDotProductAttention(2)(h, h)[:, 0])[:, 0]

    return Off().apply({"params": tree}, DATA)


@pytest.mark.parametrize(
    ("encode", "by_the_layers"),
    [
        (by_linen, attended_by_hand),
        (by_eqx, lambda p: DATA @ p["net.layer.weight"][0] + p["net.layer.bias"]),
    ],
    ids=["linen", "equinox"],
)
def test_dropout_is_off_in_numpyros_evaluations(encode, by_the_layers):
    fit = ppdgm.fit(numpyro_pair(encode), DATA, validation=DATA, **QUICK)
    expected = by_the_layers(fit.params)
    np.testing.assert_allclose(fit.encode(DATA), expected, rtol=1e-4, atol=1e-5)
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_allclose(fit.encode(DATA[order]), expected[order], rtol=1e-4, atol=1e-5)


def test_dropout_stays_on_in_numpyros_training():
    """What dropout adds to the spread of z costs some nats of the objective, and none of the bound that is reported."""
    x = 3.0 * DATA
    fit = ppdgm.fit(numpyro_pair(by_eqx), x, **{**QUICK, "steps": 100, "batch_size": N})
    seen = fit.history["objective"].astype(float)
    error = np.hypot(seen.std() / len(seen) ** 0.5, fit.elbo(x, k=100).monte_carlo_error)
    assert fit.elbo(x, k=100).mean - seen.mean() > 5.0 * error


@pytest.mark.parametrize("encode", [by_nnx, by_hand], ids=["nnx", "a key by hand"])
def test_other_keys_are_refused_in_numpyros_evaluations(encode):
    program = numpyro_pair(encode)
    fit = ppdgm.fit(program, DATA, **QUICK)
    for call in (fit.elbo, fit.encode, lambda x: ppdgm.log_weights(program, fit.params, x)):
        with pytest.raises(ProgramError, match=r"random numbers outside its sample sites.*uses numpyro.prng_key\(\)"):
            call(DATA)
    with pytest.raises(ProgramError, match="random numbers outside"):
        ppdgm.fit(program, DATA, validation=DATA, **QUICK)


# --- Pyro ------------------------------------------------------------------------------------------------------------


class Noisy(torch.nn.Module):
    """A layer with noise, and one more that may be zero."""

    def __init__(self, noise):
        super().__init__()
        self.layer, self.noise, self.drop = torch.nn.Linear(X, 1), noise, torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.layer(NOISES[self.noise](self, x))[..., 0]


NOISES = {
    "Dropout": lambda net, x: net.drop(x),
    "dropout told": lambda net, x: functional.dropout(x, 0.5, training=net.training),
    "dropout": lambda net, x: functional.dropout(x, 0.5),
    "randn": lambda net, x: x + torch.randn_like(x),
    "numpy": lambda net, x: x + float(np.random.normal()),  # noqa: NPY002  # as users write it
    "thrown away": lambda net, x: x + 0.0 * torch.randn(()),
}
REFUSED = {"dropout", "randn", "numpy"}


def pyro_pair(noise):
    net = Noisy(noise)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro_dist.Normal(0.0, 1.0))
            pyro.sample("x", pyro_dist.Normal(z.unsqueeze(-1) + torch.zeros(X), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro_dist.Normal(net(x), 0.5))

    return Program.from_pyro(model, guide)


class Written(Program):
    """The same over P."""

    event_shape: tuple[int, ...] = (X,)
    encoder: ForeignNet

    def build(self, context):
        context.net("encoder", self.encoder, (X,), (1,))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(z + P.full((X,), 0.0), P.full((X,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.net("encoder")(x), P.full((1,), 0.5)).to_event(1))


class Column(torch.nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.net = Noisy(noise)

    def forward(self, x):
        return self.net(x)[..., None]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", ["pair", "program"])
def test_noise_in_pyros_evaluations(kind, noise):
    program = pyro_pair(noise) if kind == "pair" else Written(encoder=ForeignNet(module=Column(noise), library="torch"))
    options = QUICK if kind == "pair" else {**QUICK, "backend": "pyro"}
    fit = ppdgm.fit(program, DATA, **options)
    if noise in REFUSED:
        for call in (fit.elbo, fit.encode):
            with pytest.raises(ProgramError, match=r"random numbers outside its sample sites.*training=self.training"):
                call(DATA)
        with pytest.raises(ProgramError, match="random numbers outside"):
            ppdgm.fit(program, DATA, validation=DATA, **options)
        return
    weight, bias = (
        next(v for n, v in fit.params.items() if n.endswith(f"layer.{leaf}")) for leaf in ("weight", "bias")
    )
    np.testing.assert_allclose(np.ravel(fit.encode(DATA)), DATA @ weight[0] + bias, rtol=1e-4, atol=1e-5)
    assert np.isfinite(fit.elbo(DATA, k=2).mean)


def test_noise_before_a_last_layer_of_zeros_is_found_before_training():
    """At its first values the layer hides what is dropped out; after a step no validation could mean anything."""

    def model(x):
        weight = pyro.param("weight", torch.zeros(2, X))
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", pyro_dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", pyro_dist.Normal(functional.dropout(z) @ weight, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", pyro_dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))

    pair = Program.from_pyro(model, guide)
    with pytest.raises(ProgramError, match="random numbers outside its sample sites"):
        ppdgm.fit(pair, DATA, validation=DATA, **QUICK)
    ppdgm.fit(pair, DATA, **QUICK)


class Decoding(Written):
    """Noise in the model, which is drawn from."""

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((X,), 0.0), P.full((X,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(P.net("encoder")(z) + P.full((X,), 0.0), P.full((X,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.full((X,), 0.0), P.full((X,), 0.5)).to_event(1))


def decoding_pair(noise):
    net = Noisy(noise)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro_dist.Normal(torch.zeros(X), 1.0).to_event(1))
            pyro.sample("x", pyro_dist.Normal(net(z)[..., None] + torch.zeros(X), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro_dist.Normal(torch.zeros(len(x), X), 0.5).to_event(1))

    return Program.from_pyro(model, guide)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", ["pair", "program"])
def test_noise_where_pyros_models_are_drawn_from(kind, noise):
    foreign = lambda: Decoding(encoder=ForeignNet(module=Column(noise), library="torch"))
    fit = ppdgm.fit(decoding_pair(noise) if kind == "pair" else foreign(), DATA, **{**QUICK, "backend": "pyro"})
    calls = [{}, {"mean": True}, *([{"given": {"z": np.ones((4, X))}}] if kind == "program" else [])]
    for how in calls:
        if noise in REFUSED:
            with pytest.raises(ProgramError, match=r"The model draws random numbers outside.*training=self.training"):
                fit.sample(4, **how)
        else:
            assert fit.sample(4, **how).shape == (4, X)
