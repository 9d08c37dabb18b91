"""SVI on linear-Gaussian programs: its objective and gradient are the closed form's, and it ends where it must."""

import numpy as np
import pytest
from checks import assert_within, check_expected_step, check_independent, check_padding
from measure import measure_steps
from oracle import Shared, gradient, ppca, ppca_elbo, ppca_log_likelihood, shared_elbo, shared_posterior
from readings import BACKENDS, precision

import ppdgm
from ppdgm import SVI
from ppdgm.errors import ProgramError
from ppdgm.inference import Cosine
from ppdgm.models import PPCA

both = pytest.mark.parametrize("backend", BACKENDS)
statistical = pytest.mark.statistical
KNOBS = {"beta": np.float32(1.0)}


def make_shared(size=7, dtype="float64"):
    """(program, params, data) with one latent for all data."""
    program = Shared(event_shape=(2,))
    x = np.random.default_rng(1).normal(size=(size, 2)) + np.array([1.0, -0.5])
    params = program.initialise(0, dtype=dtype)
    params["m.log_scale"] -= 1.5  # a guide that has moved from the prior: its KL is large against errors
    return program, params, x.astype(dtype)


# --- minibatches ----------------------------------------------------------------------------------------------------


@both
@statistical
@pytest.mark.parametrize("batch_size", [3, 5, 7])  # of 7 data: a last minibatch of 1, of 2, and all at once
def test_expected_step_does_not_depend_on_the_batch_size_with_a_shared_latent(backend, batch_size):
    program, params, x = make_shared()
    closed = lambda p: shared_elbo(p, x)
    with precision("float64"):
        measure = lambda b: measure_steps(program, params, x, SVI(k=64), backend, b)
        check_expected_step(measure, batch_size, closed(params), gradient(closed, params))


@both
@statistical
@pytest.mark.parametrize("kl", ["auto", "monte_carlo"])
def test_expected_step_does_not_depend_on_the_batch_size(backend, kl):
    program, params, x = ppca(np.random.default_rng(2), shape=(3,), size=7, dtype="float64")
    closed = lambda p: ppca_elbo(p, x).mean()
    with precision("float64"):
        measure = lambda b: measure_steps(program, params, x, SVI(k=16, kl=kl), backend, b)
        check_expected_step(measure, 3, closed(params), gradient(closed, params))


@both
def test_padding_of_a_ragged_minibatch_does_not_count(backend):
    program, params, x = make_shared(dtype="float32")
    values = {n: np.random.default_rng(0).normal(size=(3, s, 2)).astype("float32") for n, s in (("m", 1), ("z", 5))}
    first = values | {"z": values["z"][:, :2]}
    padded = ppdgm.trace(program, params, x[:5], k=3, backend=backend, values=values, kl=True)
    own = ppdgm.trace(program, params, x[:2], k=3, backend=backend, values=first, kl=True)
    check_padding(SVI(), own, padded, np.array([1.0, 1, 0, 0, 0]), KNOBS, 7)


# --- one latent for all data ----------------------------------------------------------------------------------------


@both
def test_log_weights_refuse_a_latent_for_all_data(backend):
    program, params, x = make_shared(dtype="float32")
    for call in (
        lambda: ppdgm.log_weights(program, params, x, backend=backend),
        lambda: ppdgm.Fit(program, params, backend).log_likelihood(x, k=3),
        lambda: ppdgm.Fit(program, params, backend).log_weights(x),
    ):
        with pytest.raises(ProgramError, match="'m' is one latent for all data"):
            call()


@both
def test_svi_asks_for_the_data_size_where_a_latent_is_for_all_data(backend):
    program, params, x = make_shared(dtype="float32")
    terms = ppdgm.trace(program, params, x, k=3, backend=backend, kl=True)
    with pytest.raises(ProgramError, match="data_size"):
        SVI()(terms, np, np.ones(len(x)), KNOBS, data_size=None)
    SVI()(terms, np, np.ones(len(x)), KNOBS, data_size=len(x))


@both
@statistical
def test_elbo_counts_a_latent_for_all_data_once(backend):
    program, params, x = make_shared(size=30, dtype="float32")
    fit = ppdgm.Fit(program, params, backend)
    found = np.array([fit.elbo(x, k=2000, seed=seed).mean for seed in range(16)])
    assert_within(found.mean(), shared_elbo(params, x), found.std(ddof=1) / 4, small=True)


@both
@statistical
def test_latent_for_all_data_is_drawn_per_particle(backend):
    program, params, x = make_shared(size=30, dtype="float32")
    terms = ppdgm.trace(program, params, x, k=400, backend=backend)
    assert terms.values["m"].shape == (400, 1, 2) and terms.shared["m"].shape == (400,)
    check_independent((terms.values["m"] - params["m.loc"]) / np.exp(params["m.log_scale"]))
    mean = x * params["slope"] + params["offset"]
    check_independent((terms.values["z"] - mean) / np.exp(params["log_scale"]))


@both
@statistical
def test_fit_recovers_the_posterior_of_a_latent_for_all_data(backend):
    program, _, x = make_shared(size=50, dtype="float32")
    fit = ppdgm.fit(
        program,
        x,
        steps=3000,
        batch_size=32,  # and a last one of 18
        engine=SVI(k=8),
        learning_rate=Cosine(peak=0.03, steps=3000),
        backend=backend,
        progress=False,
        compile=False,
    )
    mean, scale = shared_posterior(x.astype(float))
    # The noise of gradients leaves this much, in posterior standard deviations (its spread over 8 seeds).
    assert_within(fit.params["m.loc"], mean, 0.03 * scale, "mean")
    assert_within(np.exp(fit.params["m.log_scale"]), scale, 0.01 * scale, "scale")


# --- where training ends --------------------------------------------------------------------------------------------


@both
@statistical
def test_svi_reaches_the_maximum_likelihood(backend):
    _, _, x = ppca(np.random.default_rng(6), shape=(5,), latent=2, size=200)
    program = PPCA(event_shape=(5,), latent=2, posterior="linear")
    best = ppca_log_likelihood(program.maximum_likelihood(x), x).mean()
    start = program.initialise(1)
    assert ppca_elbo(start, x).mean() < best - 5  # far away
    fit = ppdgm.fit(
        program,
        x,
        steps=3000,
        batch_size=100,
        engine=SVI(k=2),
        learning_rate=Cosine(peak=0.03, steps=3000),
        params=start,
        backend=backend,
        progress=False,
        compile=False,
    )
    # There a linear guide is exact, so that the best bound is the best likelihood.
    assert best - 1e-2 <= ppca_elbo(fit.params, x).mean() <= best
    assert best - 1e-2 <= ppca_log_likelihood(fit.params, x).mean() <= best


@pytest.mark.statistical
@pytest.mark.parametrize("backend", BACKENDS)
def test_monte_carlo_error_knows_of_draws_that_data_share(backend):
    """The latent outside the plate moves all data together: the reported error is the spread over 150 seeds."""
    program = Shared(event_shape=(2,))
    x = np.random.default_rng(0).normal(1.0, 1.0, (30, 2)).astype("float32")
    fit = ppdgm.Fit(program, program.initialise(1), backend)
    found = [fit.elbo(x, k=40, seed=s) for s in range(150)]
    spread = np.std([e.mean for e in found], ddof=1)
    reported = np.sqrt(np.mean([e.monte_carlo_error**2 for e in found]))
    independent = np.sqrt((found[0].errors ** 2).sum()) / len(x)
    assert independent < 0.8 * spread  # what the sum of independent errors would say
    assert abs(reported / spread - 1) < 4 * (2 * 149) ** -0.5


def test_beta_weighs_the_kl_of_latents_only():
    """Of two sites outside the plate, one latent and one observed, beta weighs the latent's."""
    terms = {n: np.full((3, 4), v) for n, v in {"x": -5.0, "z": -2.0}.items()}
    shared = {"m": np.full(3, -8.0), "y": np.full(3, -16.0)}
    values = {"z": np.zeros((3, 4)), "m": np.zeros((3, 1))}
    trace = ppdgm.Trace(values, terms, {"z": np.full((3, 4), -1.0)}, {}, shared)
    found = SVI(k=3)(trace, np, np.ones(4), {"beta": 0.5}, data_size=8)
    assert found["elbo"] == -5 - (-1 + 2) + (-8 - 16) / 8
    assert found["kl"] == (-1 + 2) + 8 / 8
    assert found["objective"] == -5 - 16 / 8 - 0.5 * found["kl"]
