"""Draws from causal nets are those of a full pass of the net for each place in the order, at the same noise."""

import jax
import numpy as np
import pytest
import torch
from flow_tools import Plain, draw_params, run
from readings import BACKENDS, precision

import ppdgm
from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.backends.pyro.vocabulary import TorchVocabulary
from ppdgm.errors import ProgramError, TrainingError
from ppdgm.inference import SVI, Engine
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import (
    MADE,
    VAE,
    Autoregressive,
    AutoregressiveModel,
    Bernoulli,
    Categorical,
    CoupledDiscretisedLogistics,
    DiscretisedLogistic,
    GatedPixelCNN,
    Gaussian,
    PixelCNNPlusPlus,
    PixelSNAIL,
    Program,
)
from ppdgm.models.likelihoods.autoregressive import Kept, declare_autoregressive
from ppdgm.nets.causal import CausalNet, Places
from ppdgm.program import Context

both = pytest.mark.parametrize("backend", BACKENDS)
PIXELS = GatedPixelCNN(channels=6, layers=3, first_kernel=5, hidden=12)
PLUS = PixelCNNPlusPlus(channels=4, levels=2, blocks=1)
SNAIL = PixelSNAIL(channels=4, layers=2, blocks=1, key=3, value=4)
COUPLED = CoupledDiscretisedLogistics(levels=5, components=2)
FAST = {"compile": False, "progress": False}


def slow(P, net, places, condition):
    """A pass of the net for each place in the order; numbers that are not known yet are 0."""
    of = P.constant(net.order(places.event))

    def place(state):
        x, known = state
        head = net.causal(P, places.encoded(x), condition, places.event, places.outputs)
        return P.xp.where(of == known, places.value(head), x), known + 1.0

    first = P.full((*places.leading, *places.event), 0.0), P.full((), 0.0)
    return P.repeat(int(net.order(places.event).max()) + 1, place, first)[0]


CASES = {
    "made": (MADE(hidden=(9, 8), ordering="random", seed=1), Bernoulli(), (2, 3), (), ()),
    "made, given a vector": (MADE(hidden=(9,)), Categorical(levels=3), (5,), (2,), (4,)),
    "pixels": (PIXELS, Bernoulli(), (6, 5), (), ()),
    "pixels, given a vector": (PIXELS, Bernoulli(), (5, 4), (2,), (4,)),
    "pixels, no position": (PIXELS.replace(position=False, kernel=1), DiscretisedLogistic(levels=4), (4, 5), (), ()),
    "one layer": (PIXELS.replace(layers=1), Bernoulli(), (4, 3), (), ()),
    "colours": (PIXELS, Categorical(levels=3), (3, 3, 4), (), ()),
    "colours, given a map": (PIXELS, DiscretisedLogistic(levels=4), (2, 3, 4), (2, 3, 4), (4,)),
    "real numbers": (PIXELS, Gaussian(scale="per_dimension"), (4, 3), (), ()),
    "plus": (PLUS, COUPLED, (3, 4, 2), (3,), (4,)),
    "plus, given a map": (PLUS, Bernoulli(), (4, 4), (1, 4, 4), (4,)),
    "snail": (SNAIL, COUPLED, (2, 3, 3), (), ()),
}


@both
@pytest.mark.parametrize("case", CASES)
def test_draws_and_means_are_those_of_full_passes(case, backend):
    net, each, event, condition, batch = CASES[case]
    found = Declarations()
    declare_autoregressive(Context(found), net, each, event, condition)
    params = draw_params(found, 0.2 if net is PLUS else 0.5)
    given = np.random.default_rng(1).normal(size=(*batch, *condition)) if condition else None
    leading = (3, *batch) if batch else (6,)

    def draws(P, given):
        inner, outputs, scope = P.scope("each"), P.scope("each.head").shape, P.scope("net")
        kept = Kept(P._random(jax.random.key(0) if backend == "numpyro" else None))
        each.draw(inner, kept, (*leading, *event), P.full((*leading, *outputs), 0.0))
        drawn = lambda head: each.draw(inner, kept.again(), (*leading, *event), head)
        mean = lambda head: each.distribution(inner, head).mean
        encoded = lambda x: each.encoded(P, x)
        all_ = [Places(value, encoded, event, outputs, leading) for value in (drawn, mean)]
        how = net.ancestral, lambda *args: CausalNet.ancestral(net, *args), lambda *args: slow(args[0], net, *args[1:])
        return tuple(f(scope, places, given) for places in all_ for f in how)

    torch.manual_seed(0)
    with precision("float64"):
        fast, jacobi, right, *means = run(backend, draws, params, found, given)
    close = {"rtol": 0, "atol": 1e-9}
    if isinstance(each, Gaussian):
        np.testing.assert_allclose(fast, right, **close)
    else:
        np.testing.assert_array_equal(fast, right)
    np.testing.assert_array_equal(jacobi, right)
    assert (fast[1:] != fast[:1]).mean() > 0.02  # rows differ
    for other in means[:2]:
        np.testing.assert_allclose(other, means[2], **close)


@both
@pytest.mark.parametrize("net", [MADE(hidden=(20,)), GatedPixelCNN(channels=4, layers=2, first_kernel=3)])
def test_float32_draws_of_a_run_are_those_of_full_passes(net, backend, monkeypatch):
    """With fit.sample, in which torch's and JAX's own noise is drawn."""
    x = (np.random.default_rng(0).random((60, 6, 6)) < np.linspace(0.1, 0.9, 36).reshape(6, 6)).astype("float32")
    program = AutoregressiveModel(event_shape=(6, 6), net=net)
    fit = ppdgm.fit(program, x, backend=backend, steps=20, learning_rate=0.02, **FAST)
    fast = fit.sample(40, seed=2)
    monkeypatch.setattr(type(net), "ancestral", lambda net, P, places, condition: slow(P, net, places, condition))
    again = ppdgm.Fit(program, fit.params, backend=backend).sample(40, seed=2)
    np.testing.assert_array_equal(fast, again)


def test_few_passes_are_enough_where_numbers_hardly_depend_on_each_other(monkeypatch):
    calls, causal = [], MADE.causal
    monkeypatch.setattr(MADE, "causal", lambda self, *args: calls.append(0) or causal(self, *args))
    program = AutoregressiveModel(event_shape=(100,), net=MADE(hidden=(100,)))
    params = {n: 0.3 * v for n, v in program.initialise(0).items()}
    drawn = ppdgm.Fit(program, params, backend="pyro").sample(20)
    assert drawn.shape == (20, 100) and len(calls) < 60  # in two draws: a first one looks for noise
    calls.clear()
    copies = AutoregressiveModel(event_shape=(30,), net=MADE(hidden=()), likelihood=Gaussian(scale=0.01))
    params = {n: np.zeros_like(v) for n, v in copies.initialise(0).items()}
    params["net.layers.0.weight"][np.arange(29), np.arange(1, 30)] = 1.0  # a random walk: all passes are needed
    walk = ppdgm.Fit(copies, params, backend="pyro").sample(2000)
    assert 60 <= len(calls) <= 62
    np.testing.assert_allclose(walk.var(0), 1e-4 * np.arange(1, 31), rtol=0.15)  # 4 standard errors are 0.13


@both
def test_the_mean_of_a_decoder_is_the_chain_of_conditional_means(backend):
    """log-odds of x_j are a + b x_{j−1}; so means are known."""
    likelihood = Autoregressive(net=MADE(hidden=()), condition=(1,))
    program = VAE(event_shape=(4,), latent=1, likelihood=likelihood)
    x = np.zeros((3, 4), "float32")
    fit = ppdgm.fit(program, x, backend=backend, steps=1, **FAST)
    params = {n: np.zeros_like(v) for n, v in fit.params.items()}
    params["likelihood.net.layers.0.weight"][np.arange(3), np.arange(1, 4)] = 1.5
    params["likelihood.net.layers.0.bias"][:] = -0.5
    right = [1 / (1 + np.exp(0.5))]
    for _ in range(3):
        right.append(1 / (1 + np.exp(0.5 - 1.5 * right[-1])))
    found = ppdgm.Fit(program, params, backend=backend).reconstruct(x)
    np.testing.assert_allclose(found, np.broadcast_to(right, (3, 4)), atol=1e-6)


# --- dropout ---------------------------------------------------------------------------------------------------------


class Dropped(Program):
    """x ~ N(drop(1) m, 1), and what is dropped is returned."""

    rate: float = 0.3
    layers: bool = False

    def build(self, context):
        context.param("m", (50,))
        context.net("net", PixelSNAIL(channels=2, layers=1, blocks=1, key=1, value=1, dropout=0.5), (5, 10), (5, 10))

    def model(self, P, x):
        kept = P.dropout(P.full((*x.shape,), 1.0), self.rate)
        seen = P.net("net")(P.xp.reshape(x, (-1, 5, 10)))[..., 0, 0, None] if self.layers else 0.0
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("m") * kept + seen, P.full((50,), 1.0)).to_event(1), obs=x)
        return kept


class Counted(Engine):
    """What a step's run returned, as history."""

    def objective(self, step):
        kept, again = step.run("model").returned, step.run("model").returned
        trace, xp = step.trace(1), step.xp
        zero = lambda a: xp.astype(a == 0, a.dtype)
        both = xp.mean(zero(kept) * zero(again))
        return {
            "objective": xp.mean(trace.log_p["x"]), "mean": xp.mean(kept), "zeros": xp.mean(zero(kept)), "both": both,
        }  # fmt: skip

    def criterion(self):
        return None


@both
def test_dropout_is_on_in_training_only(backend):
    x = np.ones((200, 50), "float32")
    fit = ppdgm.fit(Dropped(), x, backend=backend, engine=Counted(), steps=4, batch_size=200, learning_rate=0.0, **FAST)
    error = 4 * (0.3 * 0.7 / 10_000) ** 0.5
    np.testing.assert_allclose(fit.history["zeros"], 0.3, atol=error)
    np.testing.assert_allclose(fit.history["both"], 0.09, atol=error)  # each run has dropout of its own
    np.testing.assert_allclose(fit.history["mean"], 1.0, atol=error / 0.7)
    assert len(np.unique(fit.history["zeros"])) > 1
    trained = ppdgm.Fit(Dropped(), {**fit.params, "m": np.ones(50, "float32")}, backend=backend)
    np.testing.assert_allclose(trained.log_likelihood(x).values, -25 * np.log(2 * np.pi), rtol=1e-6)
    assert trained.log_likelihood(x).exact


@both
def test_where_dropout_would_not_be_the_same_is_refused(backend):
    x = np.ones((8, 50), "float32")
    few = {"backend": backend, "steps": 1, **FAST}
    with pytest.raises(ProgramError, match=r"P\.dropout.*rematerialise"):
        ppdgm.fit(Dropped(layers=True), x, rematerialise=True, **few)
    decoder = Autoregressive(net=SNAIL.replace(dropout=0.5), condition=(2,))
    program = VAE(event_shape=(3, 3), latent=2, likelihood=decoder)
    with pytest.raises(TrainingError, match=r"particle_chunk: the program takes P\.dropout"):
        ppdgm.fit(program, np.ones((8, 3, 3), "float32"), engine=SVI(k=4), particle_chunk=2, **few)


class Drawing(Engine):
    """A draw, as one number."""

    def objective(self, step):
        drawn, xp = step.run("model", generate=True).values["x"][0], step.xp
        weights = xp.reshape(xp.arange(drawn.shape[0] * 9, dtype=drawn.dtype), drawn.shape)
        return {"objective": xp.mean(step.trace(1).log_p["x"]), "drawn": xp.sum(weights * drawn)}

    def criterion(self):
        return None


@both
def test_draws_in_a_training_step_have_no_dropout(backend):
    """They are those of the net without dropout, at the same noise."""
    net = PixelSNAIL(channels=2, layers=1, blocks=1, key=1, value=1)
    x = (np.random.default_rng(0).random((20, 3, 3)) < 0.5).astype("float32")
    plain, dropped = (
        ppdgm.fit(
            AutoregressiveModel(event_shape=(3, 3), net=net.replace(dropout=rate)), x, backend=backend,
            engine=Drawing(), steps=1, **FAST,
        ).history for rate in (0.0, 0.9)
    )  # fmt: skip
    assert plain["drawn"] == dropped["drawn"] > 0
    assert plain["objective"] != dropped["objective"]


# --- P.repeat(…, early=True) -----------------------------------------------------------------------------------------


@both
def test_a_loop_that_ends_early_has_the_same_result(backend):
    """Newton's square root, and a carry of several arrays of which one has NaN; with no gradient."""
    found = Declarations()

    def of(P, x):
        newton = lambda y: 0.5 * (y + x / y)
        pair = lambda state: (newton(state[0]), state[1])
        never = lambda state: (newton(state[0]), state[1] + 1.0)
        first = P.xp.ones_like(x)
        nan = x + float("nan")
        return (
            P.repeat(30, newton, first),
            P.repeat(30, newton, first, early=True),
            P.repeat(10**9, pair, (first, nan), early=True)[0],  # it would not end
            P.repeat(7, never, (first, 0.0 * x), early=True)[1],
        )

    x = np.array([[0.5, 2.0], [3.0, 1e4]])
    with precision("float64"):
        plain, early, beside, count = run(backend, of, {"type": np.zeros(1)}, found, x)
    np.testing.assert_allclose(plain, np.sqrt(x), rtol=1e-15)
    np.testing.assert_array_equal(early, plain)
    np.testing.assert_array_equal(beside, plain)
    assert (count == 7).all()


def test_a_loop_that_ends_early_has_no_gradient():
    def of(P, x):
        return P.xp.sum(x * P.repeat(3, lambda y: y * x, P.xp.ones_like(x), early=True))

    x = np.array([2.0, 3.0], "float32")
    slope = jax.grad(lambda x: of(JaxVocabulary(Plain(), {"x": x}, Declarations()), x))(x)
    leaf = torch.tensor(x, requires_grad=True)
    of(TorchVocabulary(Plain(), {"x": leaf}, Declarations()), leaf).backward()
    np.testing.assert_allclose(slope, x**3)
    np.testing.assert_allclose(leaf.grad.numpy(), x**3)


def test_a_rate_of_dropout_is_a_probability():
    with pytest.raises(ProgramError, match=r"P\.dropout: got the rate 1\.0, expected a number from 0"):
        NumpyVocabulary.over({}, Declarations()).dropout(np.ones(3), 1.0)
