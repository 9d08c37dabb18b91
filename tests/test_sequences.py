"""Causal nets for sequences: they are the equations, see what they should, sum to 1, draw what they score."""

from itertools import product

import jax
import numpy as np
import pytest
from flow_tools import draw_params, run, speak
from readings import BACKENDS, precision
from reference.sequences import heads
from scipy.stats import bernoulli, chi2

import ppdgm
from ppdgm.data import mu_law_decode, mu_law_encode
from ppdgm.errors import DataError, SpecError
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import (
    GRU,
    LSTM,
    MLP,
    VAE,
    Autoregressive,
    AutoregressiveModel,
    Bernoulli,
    Categorical,
    Gaussian,
    WaveNet,
    Windowed,
)
from ppdgm.models.likelihoods.autoregressive import autoregressive, declare_autoregressive
from ppdgm.program import Context

FAST = {"compile": False, "progress": False}
WAVES = WaveNet(channels=4, layers=2, stacks=2, hidden=12)
NETS = [
    GRU(width=5),
    LSTM(width=4, position=True),
    Windowed(window=3, net=MLP(hidden=(6,))),
    WAVES,
    WaveNet(channels=3, layers=2, kernel=3, hidden=12, position=True),
]
named = lambda net: type(net).__name__


def declared(net, each, event, condition=()):
    found = Declarations()
    declare_autoregressive(Context(found), net, each, event, condition)
    return found, draw_params(found, 0.7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", NETS, ids=named)
def test_the_net_is_its_equations(net, backend):
    """For sequences of numbers and of rows; conditions of all times, of each time, and none; particles broadcast."""
    rng = np.random.default_rng(0)
    for event, condition in (((6,), ()), ((6, 2), (3,)), ((6,), (6, 2))):
        each = Gaussian(scale="network")
        found, params = declared(net, each, event, condition)
        x, c = rng.normal(size=(4, *event)), rng.normal(size=(3, 1, *condition))
        outputs = (2, *event)
        given = None if not condition else c

        def call(P, x, c, event=event, outputs=outputs, condition=condition):
            return net.causal(P.scope("net"), x, c if condition else None, event, outputs)

        with precision("float64"):
            got = run(backend, call, params, found, x, c)
        right = lambda x, c, *of: heads(net.to_dict(), of[0], "net", x, c, *of[1:])
        of = params, event, outputs
        if given is None:
            expected = np.array([right(a, None, *of) for a in x])
        else:
            expected = np.array([[right(a, b[0], *of) for a in x] for b in c])
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", NETS, ids=named)
def test_probabilities_sum_to_one(net, backend):
    for event, levels in (((6,), 2), ((3, 2), 2), ((4,), 3)):
        each = Bernoulli() if levels == 2 else Categorical(levels=3)
        found, params = declared(net, each, event)
        x = np.array(list(product(range(levels), repeat=int(np.prod(event)))), float).reshape(-1, *event)
        with precision("float64"):
            log_p = run(
                backend, lambda P, x, each=each, event=event: autoregressive(P, net, each, event, None, ()).log_prob(x),
                params, found, x,
            )  # fmt: skip
        assert abs(np.exp(log_p).sum() - 1) < 1e-10
        assert np.exp(log_p).max() > 2 * np.exp(log_p).mean()


def delays_of_condition(net, times):
    """How many times late an output sees a condition: it enters beside the convolution of each layer."""
    if not isinstance(net, WaveNet):
        return {0} if isinstance(net, Windowed) else set(range(times))
    found = ending = {0}
    for d in net.dilations[:0:-1]:  # all layers but the first
        ending = {late + d * i for late in ending for i in range(net.kernel)}
        found = found | ending
    return found


@pytest.mark.parametrize("net", [*NETS, WaveNet(channels=3, layers=3, kernel=2, hidden=12)], ids=named)
def test_an_output_sees_its_receptive_field_and_nothing_else(net):
    times, c = 12, 2
    event, found = (times, c), Declarations()
    declare_autoregressive(Context(found), net, Bernoulli(), event, (times, 2))

    def slopes(params, x, y):
        call = lambda x, y: net.causal(speak("numpyro", params, found).scope("net"), x, y, event, event)
        return jax.jacrev(call, argnums=(0, 1))(x, y)

    with precision("float64"):
        slopes, rng = jax.jit(slopes), np.random.default_rng(3)
        several = [
            slopes(draw_params(found, 0.7, seed=i), rng.normal(size=event), rng.normal(size=(times, 2)))
            for i in range(3)
        ]
    of_x, of_y = (np.max([np.abs(a) for a in each], axis=0) for each in zip(*several, strict=True))
    reach = getattr(net, "receptive_field", times)
    back = np.arange(times)[:, None] - np.arange(times)[None, :]
    assert ((of_x > 1e-13).all((1, 3)) == ((back >= 1) & (back <= reach))).all()  # every number of a seen row
    assert ((of_x > 1e-13).any((1, 3)) == ((back >= 1) & (back <= reach))).all()
    assert ((of_y > 1e-13).any((1, 3)) == np.isin(back, sorted(delays_of_condition(net, times)))).all()


def test_the_receptive_field_is_a_sum_over_layers():
    assert WaveNet(layers=10).receptive_field == 1024
    assert WaveNet(layers=3, stacks=2, kernel=3).receptive_field == 1 + 2 * 2 * 7
    assert WaveNet(layers=3, stacks=2).dilations == (1, 2, 4, 1, 2, 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", [GRU(width=6), WAVES], ids=named)
def test_draws_have_the_probabilities_that_are_scored(net, backend):
    x = np.array(list(product(range(2), repeat=5)), "float32")
    rng = np.random.default_rng(0)
    data = x[rng.choice(32, size=300, p=rng.dirichlet(np.full(32, 0.3)))]
    program = AutoregressiveModel(event_shape=(5,), net=net)
    fit = ppdgm.fit(program, data, backend=backend, steps=100, learning_rate=0.03, clip_norm=1.0, **FAST)
    found = fit.log_likelihood(x)
    assert found.exact
    p, n = np.exp(found.values.astype(float)), 4000
    seen = np.bincount(fit.sample(n, seed=1).astype(int) @ 2 ** np.arange(5)[::-1], minlength=32)
    common = n * p > 5
    got, expected = np.append(seen[common], seen[~common].sum()), n * np.append(p[common], p[~common].sum())
    assert p.max() > 0.1
    assert chi2.sf(((got - expected) ** 2 / np.maximum(expected, 1e-9)).sum(), len(got) - 1) > 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_covariates_with_a_row_for_each_time_stay_with_their_time(backend):
    """A model of x_t given y_1..t and a label: log p is the reference's, and draws follow y."""
    rng = np.random.default_rng(0)
    y, label = rng.normal(size=(400, 5, 2)).astype("float32"), rng.integers(2, size=400)
    x = (rng.random((400, 5)) < np.where(y[..., 0] > 0, 0.9, 0.1)).astype("float32")
    program = AutoregressiveModel(
        event_shape=(5,), net=WaveNet(channels=4, layers=2, hidden=8), classes=2, covariates=(5, 2)
    )
    data = {"x": x, "y": y, "label": label}
    fit = ppdgm.fit(program, data, backend=backend, steps=200, learning_rate=0.02, **FAST)
    few = {n: v[:6] for n, v in data.items()}
    given = np.concatenate([np.repeat(np.eye(2)[label[:6]][:, None], 5, 1), y[:6]], 2)
    logits = [
        heads(program.net.to_dict(), fit.params, "net", *row, (5,), (5,)) for row in zip(x[:6], given, strict=True)
    ]
    right = bernoulli.logpmf(x[:6], 1 / (1 + np.exp(-np.array(logits)))).sum(1)
    np.testing.assert_allclose(fit.log_likelihood(few).values, right, rtol=1e-4)
    drawn = fit.sample(400, given={"y": y, "label": label})
    assert np.mean((drawn > 0) == (y[..., 0] > 0)) > 0.8


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decoder_of_sequences(backend):
    x = np.array(list(product(range(2), repeat=4)), "float32")
    net, condition = (GRU(width=4), (3,)) if backend == "pyro" else (WAVES, (4, 2))
    program = VAE(event_shape=(4,), latent=1, likelihood=Autoregressive(net=net, condition=condition))
    fit = ppdgm.fit(program, x, backend=backend, steps=20, **FAST)
    exact = np.exp(fit.log_likelihood(x, k=1000).values.astype(float))
    assert abs(exact.sum() - 1) < 0.05
    assert fit.elbo(x, k=200).mean < np.log(exact).mean() + 0.01
    assert fit.sample(3).shape == (3, 4)


@pytest.mark.parametrize("net", [WAVES, NETS[2]], ids=named)
def test_a_compiled_step_on_torch_is_the_eager_one(net):
    x = (np.random.default_rng(0).random((64, 6)) < 0.5).astype("float32")
    program, few = AutoregressiveModel(event_shape=(6,), net=net), {"steps": 6, "batch_size": 32, "progress": False}
    compiled, eager = (ppdgm.fit(program, x, backend="pyro", compile=c, **few).params for c in (True, False))
    for name, value in eager.items():
        np.testing.assert_allclose(compiled[name], value, atol=1e-6)


def test_mu_law_is_the_formula_and_its_inverse():
    x = np.linspace(-1, 1, 2001)
    level = mu_law_encode(x)
    f = np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)
    assert np.abs((level / 255 * 2 - 1) - f).max() <= 1 / 255 + 1e-12  # half a level
    assert level.min() == 0 and level.max() == 255 and (np.diff(level) >= 0).all()
    assert np.array_equal(mu_law_encode(mu_law_decode(np.arange(256))), np.arange(256))
    assert np.array_equal(mu_law_encode(mu_law_decode(np.arange(16), 16), 16), np.arange(16))
    near, far = (np.abs(mu_law_decode(mu_law_encode(x)) - x)[np.abs(x) < a].max() for a in (0.01, 1.1))
    assert near < 3.1e-4 and far < 0.0219  # ln 256 (1/255 + |x|) / 255: finer near 0
    with pytest.raises(DataError, match=r"got 1.5, expected numbers in \[−1, 1\]"):
        mu_law_encode(np.array([0.0, 1.5]))
    with pytest.raises(DataError, match="whole numbers from 0 to 255"):
        mu_law_decode(np.array([256]))


def test_what_can_not_be_is_refused():
    with pytest.raises(SpecError, match=r"GRU: got rows of shape \(1, 4, 4\), expected sequences"):
        AutoregressiveModel(event_shape=(1, 4, 4), net=GRU()).declarations()
    with pytest.raises(SpecError, match=r"condition of shape \(5, 2\), expected a vector \(C,\), or a map \(4, C\)"):
        VAE(event_shape=(4,), likelihood=Autoregressive(net=WaveNet(), condition=(5, 2))).declarations()
