"""Masked nets of many orderings: the ensemble is a density, training takes one ordering, missing numbers are drawn."""

from functools import cache

import jax
import numpy as np
import pytest
from causal_tools import all_values, declared
from flow_tools import draw_params, run, speak
from readings import BACKENDS, precision
from reference.sequences import masked
from scipy.special import logsumexp
from scipy.stats import bernoulli, chi2

import ppdgm
from ppdgm.errors import DataError, ProgramError, SpecError
from ppdgm.inference import SVI
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import (
    MADE,
    PPCA,
    VAE,
    Autoregressive,
    AutoregressiveModel,
    Bernoulli,
    Categorical,
    GatedPixelCNN,
    OrderAgnosticMADE,
)
from ppdgm.models.likelihoods.autoregressive import autoregressive, declare_autoregressive
from ppdgm.program import Context

FAST = {"compile": False, "progress": False}
PYRO = {"backend": "pyro", **FAST}
NETS = [
    OrderAgnosticMADE(hidden=(11, 9), orders=3, activation="tanh"),
    OrderAgnosticMADE(hidden=(14, 12), orders=4, averaged=3, connectivity="random", activation="tanh", seed=2),
]


def in_order(net, params, x, places, r, condition=None, levels=2):
    """log p(x) [n] of a Bernoulli or categorical model in an ordering, with the masks of the r-th."""
    own = {n[4:]: np.asarray(v, float) for n, v in params.items() if n.startswith("net.")}
    degrees = [own[f"degrees.{i}"][r] for i in range(len(net.hidden))]
    flat, table = x.reshape(len(x), -1), net.to_dict()
    if levels == 2:
        logits = masked(table, own, places, degrees, flat, condition, (1, flat.shape[1]))[:, 0]
        return bernoulli.logpmf(flat, 1 / (1 + np.exp(-logits))).sum(1)
    logits = masked(table, own, places, degrees, flat / (levels - 1), condition, (levels, flat.shape[1]))
    log_p = logits - logsumexp(logits, axis=1, keepdims=True)
    return np.take_along_axis(log_p, flat.astype(int)[:, None], 1)[:, 0].sum(1)


def every_order(net, params, x, count, condition=None, levels=2):
    """[R, n]."""
    orders = np.asarray(params["net.orders"])
    return np.array([in_order(net, params, x, orders[r], r, condition, levels) for r in range(count)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", NETS, ids=lambda net: net.connectivity)
def test_likelihoods_are_averaged_and_sum_to_one(net, backend):
    event, condition = (2, 3), np.array([0.3, -1.0])
    for each, levels, given in ((Bernoulli(), 2, condition), (Categorical(levels=3), 3, None)):
        found, params = declared(net, each, event, () if given is None else (2,))
        x = all_values(event, levels)

        def log_p(P, x, c, each=each, given=given):
            seen = None if given is None else c[None] + 0 * x[:, 0, :1]
            batch = () if given is None else (len(x),)
            return autoregressive(P, net, each, event, seen, batch).log_prob(x)

        with precision("float64"):
            got = run(backend, log_p, params, found, x, condition)
        rows = None if given is None else np.tile(condition, (len(x), 1))
        apart = every_order(net, params, x, 3, rows, levels)
        np.testing.assert_allclose(got, logsumexp(apart, axis=0) - np.log(3), rtol=1e-10)
        assert abs(np.exp(got).sum() - 1) < 1e-10
        assert np.abs(apart[0] - apart[1]).max() > 0.1  # orderings differ


@pytest.mark.parametrize("net", [n.replace(hidden=(40, 40)) for n in NETS], ids=lambda net: net.connectivity)
def test_in_each_ordering_an_output_sees_exactly_what_comes_before(net):
    event, found = (2, 3), Declarations()
    declare_autoregressive(Context(found), net, Bernoulli(), event)

    def slopes(params, x, r):
        P = speak("numpyro", params, found).scope("net")
        return jax.jacrev(lambda x: net.ordered(P, x, None, event, event, net.order_at(P, r, event)))(x)

    with precision("float64"):
        slopes, rng = jax.jit(slopes), np.random.default_rng(0)
        for r in range(net.orders):
            params = draw_params(found, 0.7, seed=r)
            moves = np.abs(slopes(params, rng.normal(size=event), float(r))).reshape(6, 6) > 1e-12
            places = params["net.orders"][r]
            assert (moves == (places[None, :] < places[:, None])).all()
    assert net.order(event).ravel().tolist() == params["net.orders"][0].tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_has_the_likelihood_of_one_ordering(backend):
    x = all_values((4,), 2).astype("float32")
    program = AutoregressiveModel(event_shape=(4,), net=NETS[1].replace(averaged=None))
    fit = ppdgm.fit(program, x, backend=backend, steps=40, batch_size=16, learning_rate=1e-12, seed=1, **FAST)
    each = every_order(program.net, fit.params, x, 4).mean(1)
    off = np.abs(fit.history["elbo"][:, None] - each[None])
    assert (off.min(1) < 1e-5).all() and set(off.argmin(1)) == {0, 1, 2, 3}  # all in 40 draws but with 4e-5
    found = fit.elbo(x)
    assert found.exact
    np.testing.assert_allclose(found.values, logsumexp(every_order(program.net, fit.params, x, 4), 0) - np.log(4), 1e-5)


@cache
def trained(backend):
    x, rng = all_values((2, 3), 2).astype("float32"), np.random.default_rng(0)
    data = x[rng.choice(64, size=300, p=rng.dirichlet(np.full(64, 0.3)))]
    program = AutoregressiveModel(
        event_shape=(2, 3), net=OrderAgnosticMADE(hidden=(24,), orders=3, connectivity="random")
    )
    return ppdgm.fit(program, data, backend=backend, steps=150, learning_rate=0.02, **FAST), data


def chi_square(counts, p):
    n = counts.sum()
    common = n * p > 5
    got, expected = np.append(counts[common], counts[~common].sum()), n * np.append(p[common], p[~common].sum())
    return chi2.sf(((got - expected) ** 2 / np.maximum(expected, 1e-9)).sum(), max((expected > 0).sum() - 1, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_have_the_probabilities_of_the_ensemble(backend):
    fit, _ = trained(backend)
    x = all_values((2, 3), 2).astype("float32")
    p = np.exp(fit.log_likelihood(x).values.astype(float))
    drawn = fit.sample(4000, seed=1).reshape(-1, 6).astype(int) @ 2 ** np.arange(6)[::-1]
    counts = np.bincount(drawn, minlength=64)
    assert chi_square(counts, p) > 1e-4
    one = np.exp(in_order(fit.program.net, fit.params, x, fit.params["net.orders"][0], 0))
    assert chi_square(counts, one) < 1e-6  # a single ordering is another distribution


def test_a_run_is_continued_saved_and_opened_elsewhere(tmp_path):
    data = all_values((4,), 2).astype("float32")
    program = AutoregressiveModel(event_shape=(4,), net=NETS[0])
    short = {"batch_size": 8, "seed": 3, "backend": "pyro", **FAST}
    whole = ppdgm.fit(program, data, epochs=4, **short)
    ppdgm.fit(program, data, epochs=2, out=tmp_path / "run", **short)
    again = ppdgm.resume(tmp_path / "run", epochs=4, data=data, progress=False)
    for name, value in whole.params.items():
        assert np.array_equal(again.params[name], value), name
    other = ppdgm.load(tmp_path / "run", backend="numpyro")
    np.testing.assert_allclose(other.elbo(data).values, whole.elbo(data).values, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_numbers_have_the_enumerated_conditional(backend):
    fit, _ = trained(backend)
    net, every = fit.program.net, all_values((2, 3), 2)
    missing = np.array([[True, False, True], [False, True, False]])
    row = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    order = fit.params["net.orders"][0].reshape(2, 3)
    late = np.argsort(np.argsort((order + 6 * missing).ravel()))  # known numbers first, then the others
    same = (every == row)[:, ~missing].all(1)
    log_p = in_order(net, fit.params, every[same], late, 0)
    p = np.exp(log_p - logsumexp(log_p))
    drawn = fit.impute(np.tile(row, (3000, 1, 1)).astype("float32"), missing, seed=2)
    assert drawn.shape == (3000, 2, 3) and (drawn[:, ~missing] == row[~missing]).all()
    at = every[same][:, missing].astype(int) @ [4, 2, 1]
    counts = np.bincount(drawn[:, missing].astype(int) @ [4, 2, 1], minlength=8)[at]
    assert p.max() < 0.95 and chi_square(counts, p) > 1e-4
    assert chi_square(counts, np.full(8, 1 / 8)) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_row_has_its_own_missing_numbers(backend):
    fit, data = trained(backend)
    missing = np.random.default_rng(0).random((40, 2, 3)) < 0.1
    missing[0], missing[1] = False, True
    drawn, again = (fit.impute(data[:40], missing, seed=4) for _ in range(2))
    assert (drawn[~missing] == data[:40][~missing]).all() and np.isin(drawn, (0, 1)).all()
    assert np.array_equal(drawn, again) and not np.array_equal(drawn, fit.impute(data[:40], missing, seed=5))
    other = np.where(missing, 1 - data[:40], data[:40])
    assert np.array_equal(fit.impute(other, missing, seed=4), drawn)  # what is there does not matter


def test_a_fixed_order_has_the_conditional_of_what_comes_last():
    rng = np.random.default_rng(0)
    x = (rng.random((200, 2, 3)) < 0.5).astype("float32")
    x[:, 1] = np.where(rng.random((200, 3)) < 0.9, x[:, 0], 1 - x[:, 0])
    net = GatedPixelCNN(channels=4, layers=2, first_kernel=3, hidden=4)
    fit = ppdgm.fit(AutoregressiveModel(event_shape=(2, 3), net=net), x, steps=60, learning_rate=0.02, **PYRO)
    every, missing = all_values((2, 3), 2).astype("float32"), np.array([[False] * 3, [False, True, True]])
    row = every[0b101100]
    same = (every == row)[:, ~missing].all(1)
    p = np.exp(fit.log_likelihood(every).values[same].astype(float))
    drawn = fit.impute(np.tile(row, (2000, 1, 1)), missing)[:, 1, 1:].astype(int) @ [2, 1]
    assert chi_square(np.bincount(drawn, minlength=4), p / p.sum()) > 1e-4
    with pytest.raises(DataError, match=r"the missing number at \(0, 0\) comes before the known one at \(0, 1\)"):
        fit.impute(x[:3], ~missing & (np.arange(6).reshape(2, 3) < 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decoder_of_many_orderings(backend):
    x = all_values((4,), 2).astype("float32")
    likelihood = Autoregressive(net=NETS[0], condition=(3,))
    program = VAE(event_shape=(4,), latent=1, likelihood=likelihood)
    fit = ppdgm.fit(program, x, backend=backend, steps=30, engine=SVI(k=2), **FAST)
    exact = np.exp(fit.log_likelihood(x, k=1000).values.astype(float))
    assert abs(exact.sum() - 1) < 0.05
    assert fit.elbo(x, k=200).mean < np.log(exact).mean() + 0.01
    assert fit.reconstruct(x).shape == fit.sample(16).shape == x.shape


def test_a_compiled_step_on_torch_trains():
    x = all_values((4,), 2).astype("float32")
    program = AutoregressiveModel(event_shape=(4,), net=NETS[1])
    fit = ppdgm.fit(
        program, x, backend="pyro", compile=True, steps=20, batch_size=16, learning_rate=1e-12, progress=False
    )
    each = every_order(program.net, fit.params, x, 4).mean(1)
    off = np.abs(fit.history["elbo"][:, None] - each[None])
    assert (off.min(1) < 1e-5).all() and len(set(off.argmin(1))) > 2


def test_what_can_not_be_is_refused():
    with pytest.raises(SpecError, match="averaged=9 is more than orders=8"):
        OrderAgnosticMADE(averaged=9)
    with pytest.raises(SpecError, match="OrderAgnosticMADE is for a density"):
        OrderAgnosticMADE().params((3,), (2, 3))
    x = all_values((3,), 2).astype("float32")
    fit = ppdgm.fit(AutoregressiveModel(event_shape=(3,), net=MADE(hidden=(4,))), x, steps=1, **PYRO)
    with pytest.raises(DataError, match=r"got an array of float64 of shape \(3,\), expected booleans of shape \(3,\)"):
        fit.impute(x, np.zeros(3))
    other = ppdgm.fit(PPCA(event_shape=(3,), latent=1), x, steps=1, **PYRO)
    with pytest.raises(ProgramError, match="PPCA has no impute"):
        other.impute(x, np.ones(3, bool))
