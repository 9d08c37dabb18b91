"""A user's mistakes end in one message that names the place and the remedy, before any work starts."""

import numpy as np
import optax
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.errors import PpdgmError
from ppdgm.inference import SVI, Optimiser
from ppdgm.models import MLP, VAE, Bernoulli, StandardNormal

BACKENDS = ("numpyro", "pyro")
X = (np.random.default_rng(0).random((20, 6)) < 0.4).astype("float32")


class Right(Program):
    event_shape: tuple[int, ...] = (6,)

    def build(self, c):
        c.net("decoder", MLP(hidden=(8,)), (4,), self.event_shape)
        c.net("encoder", MLP(hidden=(8,)), self.event_shape, (2, 4), label="guide")

    def prior(self, P):
        return P.dist.Normal(P.full((4,), 0.0), P.full((4,), 1.0)).to_event(1)

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            P.sample("x", P.dist.Bernoulli(logits=P.net("decoder")(z)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            h = P.net("encoder")(x)
            P.sample("z", P.dist.Normal(h[..., 0, :], P.softplus(h[..., 1, :])).to_event(1))


class NegativeScale(Right):
    def guide(self, P, x):
        with P.plate("data", x):
            h = P.net("encoder")(x)
            P.sample("z", P.dist.Normal(h[..., 0, :], h[..., 1, :]).to_event(1))


class UndeclaredPart(Right):
    def prior(self, P):
        return StandardNormal()(P)


class SizeInPlate(Right):
    def guide(self, P, x):
        with P.plate("data", x.shape[0]):
            pass


class WrongWidth(Right):
    def guide(self, P, x):
        P.net("encoder")(P.xp.concat([x, x], axis=-1))


class NoSuchWord(Right):
    def guide(self, P, x):
        P.exp(x)


class NoSuchNet(Right):
    def guide(self, P, x):
        P.net("encodr")(x)


class IntegerShape(Right):
    def build(self, c):
        c.net("decoder", MLP(), 4, (6,))


class NotANet(Right):
    def build(self, c):
        c.net("decoder", Bernoulli(), (4,), (6,))


class NotAPart(Right):
    def build(self, c):
        c.part(MLP(), (4,))


class NotAnInit(Right):
    def build(self, c):
        c.param("w", (3,), 0.0)


class InitOfWrongShape(Right):
    def build(self, c):
        c.param("w", (3,), lambda rng, shape, data=None: np.zeros(4))


class NoModel(Program):
    event_shape: tuple[int, ...] = (6,)

    def guide(self, P, x):
        pass


PROGRAMS = {
    NegativeScale: "scale",
    UndeclaredPart: "The prior StandardNormal is not declared in build()",
    SizeInPlate: "expected the data themselves",
    WrongWidth: "Net 'encoder': got an array of shape (3, 12), expected […, 6] as declared in build()",
    NoSuchWord: "P has no attribute 'exp'. Use P.xp.exp",
    NoSuchNet: "Did you mean 'encoder'?",
    IntegerShape: "Net 'decoder': inputs: got shape 4",
    NotANet: "expected a Net, such as MLP()",
    NotAPart: "expected a prior, posterior or likelihood",
    NotAnInit: "Parameter 'w': got init=0.0",
    InitOfWrongShape: "init gave shape (4,), expected (3,)",
    NoModel: "NoModel has no model(self, P, x)",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_mistakes_in_a_program(program, backend):
    with pytest.raises(PpdgmError) as error:
        ppdgm.fit(program(), X, steps=1, backend=backend, progress=False)
    assert PROGRAMS[program] in str(error.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_in_a_program_names_its_line(backend):
    with pytest.raises(PpdgmError, match=r"test_mistakes\.py:\d+, `P\.exp\(x\)`"):
        ppdgm.fit(NoSuchWord(), X, steps=1, backend=backend, progress=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_elbo_without_a_finite_log_q_is_none(backend):
    """A closed-form KL doesn't see the sign of a scale: what it gives must not pass for a bound."""
    fit = ppdgm.Fit(NegativeScale(), NegativeScale().initialise(0), backend)
    assert np.isnan(fit.elbo(X).mean)


def test_plain_pairs_are_checked_by_their_own_library():
    import numpyro
    import numpyro.distributions as ndist
    import pyro
    import pyro.distributions as dist
    import torch

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=z[..., None] * torch.ones(6)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0))

    def numpyro_model(x):
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", ndist.Normal(0.0, 1.0))
            numpyro.sample("x", ndist.Bernoulli(logits=np.zeros(6)).to_event(1), obs=x)

    def numpyro_guide(x):
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", ndist.Normal(numpyro.param("m", 0.0), 1.0))

    for pair in (Program.from_pyro(model, guide), Program.from_numpyro(numpyro_model, numpyro_guide)):
        with pytest.raises(PpdgmError, match="support"):
            ppdgm.fit(pair, X * 0.5, steps=1, progress=False)
        ppdgm.fit(pair, X, steps=1, progress=False)


class Conditional(Right):
    """p(x|z, y) with y given."""

    def build(self, c):
        c.net("decoder", MLP(hidden=(8,)), (5,), self.event_shape)
        c.net("encoder", MLP(hidden=(8,)), self.event_shape, (2, 4), label="guide")

    def model(self, P, x, y):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            both = P.xp.concat([z, P.xp.broadcast_to(y, (*z.shape[:-1], 1))], axis=-1)
            P.sample("x", P.dist.Bernoulli(logits=P.net("decoder")(both)).to_event(1), obs=x)

    def guide(self, P, x, y):
        super().guide(P, x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_conditional_model_is_sampled_given_its_fields(backend):
    y = X[:, :1].copy()
    fit = ppdgm.fit(Conditional(), {"x": X, "y": y}, steps=2, backend=backend, progress=False)
    low, high = (fit.sample(9, mean=True, given={"y": np.full((9, 1), v)}) for v in (-9.0, 9.0))
    assert low.shape == (9, 6) and not np.allclose(low, high)
    with pytest.raises(PpdgmError, match="given="):
        fit.sample(9)


class Labels(Right):
    """Two observed sites, of which one is categorical."""

    def build(self, c):
        super().build(c)
        c.net("label", MLP(hidden=()), (4,), (3,))

    def model(self, P, x, y):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            P.sample("x", P.dist.Bernoulli(logits=P.net("decoder")(z)).to_event(1), obs=x)
            P.sample("y", P.dist.Categorical(logits=P.net("label")(z)), obs=y)

    def guide(self, P, x, y):
        super().guide(P, x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_observed_sites_come_back_by_name(backend):
    fit = ppdgm.fit(Labels(), {"x": X, "y": np.arange(20) % 3}, steps=2, backend=backend, progress=False)
    found, drawn = fit.reconstruct({"x": X, "y": np.arange(20) % 3}), fit.sample(7)
    assert found["x"].shape == (20, 6) and found["y"].shape == (20,)
    assert drawn["x"].shape == (7, 6) and set(np.unique(drawn["y"])) <= {0, 1, 2}


CALLS = {
    "positional": (lambda: MLP(200, 200), "MLP takes its fields by name"),
    "tuple": (lambda: VAE(event_shape=64), "expected a tuple, such as (64,)"),
    "negative rate": (lambda: train(learning_rate=-1.0), "learning_rate: got -1.0"),
    "two rates": (
        lambda: train(optimiser=optax.adam(1e-3), learning_rate=1.0),
        "works only with an optimiser that is given by name",
    ),
    "momentum of adam": (lambda: Optimiser(momentum=0.9), "Optimiser: momentum: is a setting of sgd, but not of adam"),
    "decay of adamax": (lambda: Optimiser(name="adamax", weight_decay=0.1), "weight_decay: is a setting of adamw"),
    "beta1 of sgd": (lambda: Optimiser(name="sgd", beta1=0.5), "beta1: is a setting of adam and adamw and"),
    "compile": (lambda: train(compile="yes"), "compile: got 'yes'"),
    "callbacks": (lambda: train(callbacks=["x"]), "callbacks: got"),
    "params": (lambda: train(params=3), "params: got int"),
    "out": (lambda: train(out="/proc/x/y"), "can't be made"),
    "beta": (lambda: SVI(beta="linear"), "SVI.beta: got 'linear'"),
    "bind": (lambda: Right().bind("pyro", {"a": X}), "got nothing for 'decoder.layers.0.weight'"),
    "bind to what": (lambda: Right().bind("jax"), "Unknown backend 'jax'"),
}


def train(**options):
    return ppdgm.fit(Right(), X, steps=1, progress=False, **options)


@pytest.mark.parametrize("case", CALLS)
def test_mistakes_in_calls(case):
    call, message = CALLS[case]
    with pytest.raises(PpdgmError) as error:
        call()
    assert message in str(error.value)
