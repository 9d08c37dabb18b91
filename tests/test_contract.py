"""What every program keeps on both backends: its log-weights, their gradients, its ELBO, its draws.

Every program of tests/programs.py runs through every test here. `reference` is the judge.
"""

import ast
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from programs import ALL, CLOSED_FORMS, LATENTS, PROGRAMS, ZOO, make_data, make_params, make_program, states_of
from readings import BACKENDS, READINGS, RUNTIMES, get_runtime, precision, run_trace
from reference import log_joint_and_guide
from scipy.integrate import quad
from scipy.stats import norm

from ppdgm.inference.engines import bounds
from ppdgm.language.reader import Gradients

K = 3
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}

every_program = pytest.mark.parametrize("name", PROGRAMS)
every_one = pytest.mark.parametrize("name", ALL)  # with the zoo
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def given_latents(name):
    """Latents from nowhere in particular, the same for every reading: [K, B, D]."""
    rng = np.random.default_rng(5)
    if name in ZOO:
        return ZOO[name].latents and ZOO[name].latents(rng, K, 4)
    width = PROGRAMS[name]().latent
    return {site: rng.normal(size=(K, 4, width)) for site in LATENTS[name]}


def data_in(name, dtype):
    return {n: v.astype(dtype) for n, v in make_data(name).items()}


# --- log-weights ---------------------------------------------------------------------------------------------------


def test_the_reference_imports_nothing_of_ppdgm():
    files = list((Path(__file__).parent / "reference").glob("*.py"))
    trees = [ast.parse(f.read_text()) for f in files]
    names = {n.name for t in trees for node in ast.walk(t) if isinstance(node, ast.Import) for n in node.names}
    names |= {node.module for t in trees for node in ast.walk(t) if isinstance(node, ast.ImportFrom)}
    assert len(files) >= 3
    assert {n.partition(".")[0] for n in names} == {"math", "numpy", "scipy", "reference"}
    text = "".join(f.read_text() for f in files)
    assert "__import__" not in text
    assert "importlib" not in text


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("reading", READINGS)
@every_one
def test_log_weights_equal_the_reference(name, reading, dtype):
    """At the reading's own draws, and at given latents; error relative to |log p| + |log q|."""
    program, params, data = make_program(name), make_params(name, dtype), data_in(name, dtype)
    if name in ZOO and not ZOO[name].handlers and "handlers" in reading:
        pytest.skip("enumerated, which plain handlers are not")
    given = given_latents(name)
    elsewhere = given and {n: v.astype(dtype) for n, v in given.items()}
    tolerance = ZOO[name].tolerance if name in ZOO and dtype == "float32" else TOLERANCE[dtype]
    for latents in (None, elsewhere) if given else (None,):
        with precision(dtype):
            used, log_p, log_q = READINGS[reading](program, params, data, K, latents, seed=3)
        expected_p, expected_q = log_joint_and_guide(program.to_dict(), params, data, used)
        assert log_p.shape == log_q.shape == (K, 4)
        assert log_p.dtype == log_q.dtype == dtype
        size = np.abs(expected_p) + np.abs(expected_q)
        error = np.abs((log_p - log_q) - (expected_p - expected_q)) / size
        assert error.max() <= tolerance
        for got, expected in ((log_p, expected_p), (log_q, expected_q)):
            assert (np.abs(got - expected) / size).max() <= tolerance
        if latents is not None:
            assert {n: v.tolist() for n, v in used.items()} == {n: v.tolist() for n, v in latents.items()}


@every_backend
@every_program
def test_same_seed_same_bits_and_every_draw_is_its_own(name, backend):
    params, data = make_params(name), make_data(name)
    runtime = get_runtime(backend, PROGRAMS[name]())
    first, second, other = (run_trace(runtime, params, data, K, seed) for seed in (1, 1, 2))
    for site, value in first.values.items():
        assert value.tobytes() == second.values[site].tobytes()
        assert (value != other.values[site]).all()
        assert len(np.unique(value)) == value.size  # one draw for each particle, datum and dimension
    for terms, again in ((first.log_p, second.log_p), (first.log_q, second.log_q)):
        assert {n: v.tobytes() for n, v in terms.items()} == {n: v.tobytes() for n, v in again.items()}


def test_a_fresh_process_draws_the_same_bits():
    name, code = (
        "vae coupling",
        """
import sys
from programs import PROGRAMS, make_data, make_params
from readings import BACKENDS, get_runtime, run_trace
name, k = sys.argv[1], int(sys.argv[2])
for backend in BACKENDS:
    trace = run_trace(get_runtime(backend, PROGRAMS[name]()), make_params(name), make_data(name), k, seed=1)
    print(trace.values["z"].tobytes().hex(), trace.log_p["x"].tobytes().hex())
""",
    )
    run = [sys.executable, "-c", code, name, str(K)]
    fresh = subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    for backend, line in zip(BACKENDS, fresh.stdout.splitlines(), strict=True):
        here = run_trace(get_runtime(backend, PROGRAMS[name]()), make_params(name), make_data(name), K, seed=1)
        assert line == f"{here.values['z'].tobytes().hex()} {here.log_p['x'].tobytes().hex()}"


# --- gradients -----------------------------------------------------------------------------------------------------


def loss_over_torch(tracer, data, given, seed):
    """(params -> (mean log-weight, its gradient by name)) in float64."""
    data = {n: torch.tensor(v) for n, v in data.items()}
    given = None if given is None else {n: torch.tensor(v) for n, v in given.items()}
    index = torch.arange(len(data["x"]))

    def run(params):
        leaves = {n: torch.tensor(v, requires_grad=True) for n, v in params.items()}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            terms = tracer.trace(leaves, None, data, index, K, given, gradients=Gradients())
        value = bounds.log_weights(terms, torch).mean()
        grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return value.item(), {n: g.numpy() for n, g in zip(leaves, grads, strict=True)}

    return run


def loss_over_jax(tracer, data, given, seed):
    index = jnp.arange(len(data["x"]))

    @jax.jit
    @jax.value_and_grad
    def run(params):
        terms = tracer.trace(params, jax.random.key(seed), data, index, K, given, gradients=Gradients())
        return bounds.log_weights(terms, jnp).mean()

    def run_on_numpy(params):
        value, grads = run(params)
        return float(value), {n: np.asarray(g) for n, g in grads.items()}

    return run_on_numpy


LOSSES = {"pyro": loss_over_torch, "numpyro": loss_over_jax}


def loss(name, backend, given, seed=7):
    tracer = get_runtime(backend, make_program(name)).tracer
    return LOSSES[backend](tracer, data_in(name, "float64"), given, seed)


def assert_slopes(gradients, value_of, params, still=()):
    """Each parameter's gradient along a random direction of length 1 is the central difference there."""
    rng, step = np.random.default_rng(11), 1e-5
    for name, value in params.items():
        if name in still:
            continue
        direction = rng.normal(size=value.shape)
        direction /= np.linalg.norm(direction)
        up, down = (value_of(params | {name: value + s * step * direction}) for s in (1, -1))
        slope, got = (up - down) / (2 * step), (gradients[name] * direction).sum()
        assert abs(got - slope) <= 1e-6 * max(1.0, abs(slope)), name


@pytest.mark.parametrize("name", [n for n in ALL if given_latents(n)])
def test_gradients_at_given_latents_equal_each_other_and_the_reference(name):
    params, latents, data = make_params(name, "float64"), given_latents(name), data_in(name, "float64")
    with precision("float64"):
        (_, torch_gradients), (_, jax_gradients) = (loss(name, b, latents)(params) for b in BACKENDS)

    def reference(params):
        log_p, log_q = log_joint_and_guide(make_program(name).to_dict(), params, data, latents)
        return (log_p - log_q).mean()

    assert_slopes(torch_gradients, reference, params, states_of(name))
    for site, gradient in torch_gradients.items():
        np.testing.assert_allclose(jax_gradients[site], gradient, rtol=1e-9, atol=1e-11 * np.abs(gradient).max())


@every_backend
@every_one
def test_pathwise_gradients_equal_finite_differences_and_reach_every_parameter(name, backend):
    """FIELD row 9: nothing cuts the gradient on its way through the draws to the encoder."""
    params = make_params(name, "float64")
    with precision("float64"):
        run = loss(name, backend, given=None)
        _, gradients = run(params)
        if name not in ZOO or not ZOO[name].by_rejection:
            assert_slopes(gradients, lambda params: run(params)[0], params, states_of(name))
    still = {*(ZOO[name].still if name in ZOO else ()), *states_of(name)}
    assert {n for n, g in gradients.items() if np.abs(g).max() <= 1e-8} == still


# --- the ELBO ------------------------------------------------------------------------------------------------------


def kl_error(trace):
    """(Monte Carlo ELBO − ELBO with closed forms, the Monte Carlo error of that, Monte Carlo ELBO), means over data."""
    monte_carlo = bounds.log_weights(trace, np)
    difference = (monte_carlo - bounds.elbo(trace, np)).mean(1)  # [K]
    return difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5, monte_carlo.mean()


@pytest.mark.statistical
@every_backend
@every_one
def test_analytic_and_monte_carlo_elbo_agree(name, backend):
    """FIELD row 7: within 4 Monte Carlo errors, these below 0.2 % of the value. Seed 1, K = 20,000, B = 4."""
    runtime = get_runtime(backend, make_program(name))
    closed_forms = ZOO[name].closed_forms if name in ZOO else CLOSED_FORMS[name]
    trace = run_trace(runtime, make_params(name), make_data(name), 20_000 if closed_forms else 2, seed=1, kl=True)
    assert set(trace.kl) == set(closed_forms)
    if not closed_forms:  # nothing to compare: both are the Monte Carlo value
        return
    difference, error, value = kl_error(trace)
    assert 0 < error <= 0.002 * abs(value)
    assert abs(difference) <= 4 * error


@pytest.mark.statistical
@every_backend
def test_a_closed_form_in_the_wrong_order_would_be_seen(backend, monkeypatch):
    """The wrong twin: KL(q(z2|x)‖p(z2|z1)) at a z1 that was drawn after z2 is biased, by far more than 4 errors."""
    order = lambda q, p, latent, kl, enumerated: {n: kl(q[n], p[n]) for n in latent}
    monkeypatch.setattr("ppdgm.language.terms.closed_forms", order)
    runtime = RUNTIMES[backend](PROGRAMS["reversed"](), "cpu")  # not the shared one, which knows the right order
    trace = run_trace(runtime, make_params("reversed"), make_data("reversed"), 20_000, seed=1, kl=True)
    assert set(trace.kl) == {"z1", "z2"}
    difference, error, _ = kl_error(trace)
    assert abs(difference) > 8 * error


@every_backend
def test_a_closed_form_is_kept_per_dimension(backend):
    """Summed over D it is the KL of the whole latent, which SciPy integrates."""
    name = "ppca linear"
    params, data = make_params(name), make_data(name)
    trace = run_trace(get_runtime(backend, PROGRAMS[name]()), params, data, K, kl=True)
    assert trace.kl["z"].shape[1:] == (4, 2)
    mean = data["x"].astype(float) @ params["guide.weight"].T + params["guide.bias"]
    scale = np.exp(params["guide.log_scale"].astype(float))
    for b, d in np.ndindex(4, 2):
        q = norm(mean[b, d], scale[d])
        expected, _ = quad(lambda z, q=q: q.pdf(z) * (q.logpdf(z) - norm.logpdf(z)), *q.interval(1 - 1e-14))
        np.testing.assert_allclose(trace.kl["z"][:, b, d], expected, rtol=1e-5)


# --- first values --------------------------------------------------------------------------------------------------


@every_program
def test_first_values_are_the_same_on_both_backends(name):
    program, data = PROGRAMS[name](), make_data(name)
    torch_values, jax_values = (get_runtime(b, program).initialise(4, data, "float32") for b in BACKENDS)
    assert list(torch_values) == list(jax_values)
    for site, value in torch_values.items():
        assert value.dtype == np.float32
        assert value.shape == program.declarations().params[site].shape
        assert value.tobytes() == jax_values[site].tobytes()
    other = program.initialise(5)
    drawn = [n for n, v in torch_values.items() if np.unique(v).size > 1]
    assert drawn  # not all are constants
    assert all((torch_values[n] != other[n]).any() for n in drawn)
