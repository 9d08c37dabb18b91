"""Posteriors and priors made of flows: normalised densities, draws that follow them, refusals, training."""

import jax
import numpy as np
import pytest
import torch
from flow_tools import draw_params, run, speak
from programs import make_data, make_params, make_program
from readings import BACKENDS, get_runtime, precision, run_trace
from reference.flows import flow_posterior, flow_prior
from scipy.stats import chi2

import ppdgm
from ppdgm.errors import ProgramError, SpecError
from ppdgm.inference import SVI
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import (
    IAF,
    MADE,
    MAF,
    MLP,
    VAE,
    AutoregressivePrior,
    DiagonalNormal,
    Flow,
    FlowPosterior,
    FlowPrior,
    Gaussian,
    RealNVP,
    RQSpline,
)
from ppdgm.program import Context

_SMALL = {"depth": 2, "hidden": (6,), "activation": "tanh", "context_size": 2}
FLOWS = {"iaf": IAF(**_SMALL), "realnvp": RealNVP(**_SMALL), "spline": RQSpline(**_SMALL, bins=4)}
PARTS = {f"posterior {n}": FlowPosterior(flow=f) for n, f in FLOWS.items()} | {
    "prior maf": FlowPrior(flow=MAF(**_SMALL, max_log_scale=1.0)),
    "prior realnvp": FlowPrior(flow=FLOWS["realnvp"]),
    "prior spline": FlowPrior(flow=FLOWS["spline"]),
    "prior autoregressive": AutoregressivePrior(hidden=(6,)),
    "prior mixtures": AutoregressivePrior(hidden=(6,), components=3),
}
every_part = pytest.mark.parametrize("name", PARTS)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def declare(part, shape):
    """(what a part over variables of a shape declares, parameters, its head of one datum [1, H] or none)."""
    declared = Declarations()
    width = Context(declared).part(part, shape)
    head = [0.7 * np.random.default_rng(2).normal(size=(1, *width))] if width else []
    return declared, draw_params(declared), head


# --- a density of two numbers --------------------------------------------------------------------------------------

FINE, COARSE, EDGE = 480, 24, 9.0  # cells of the quadrature, and of the test, along each axis of [−9, 9]²


def cell_masses(backend, part):
    """The density's mass in each fine cell [FINE, FINE], by the midpoint rule."""
    declared, params, head = declare(part, (2,))
    middles = (np.arange(FINE) + 0.5) / FINE * 2 * EDGE - EDGE
    z = np.stack(np.meshgrid(middles, middles, indexing="ij"), -1).reshape(-1, 1, 2)
    with precision("float64"):
        log_p = run(backend, lambda P, z, *head: part(P, *head).log_prob(z), params, declared, z, *head)
    return np.exp(log_p).reshape(FINE, FINE) * (2 * EDGE / FINE) ** 2


def draws(backend, part, size):
    declared, params, head = declare(part, (2,))
    with precision("float64"):
        if backend == "numpyro":
            sample = lambda params, head: part(speak(backend, params, declared), *head).sample(
                jax.random.key(3), (size,)
            )
            return np.asarray(jax.jit(sample)(params, head)).reshape(size, 2)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            d = part(speak(backend, params, declared), *(torch.tensor(h) for h in head))
            return d.sample((size,)).numpy().reshape(size, 2)


def p_value(masses, z):
    """Pearson's test of draws against the masses of coarse cells; those with few draws are one."""
    step = FINE // COARSE
    expected = masses.reshape(COARSE, step, COARSE, step).sum((1, 3)).ravel() * len(z)
    edges = np.linspace(-EDGE, EDGE, COARSE + 1)
    got = np.histogram2d(*z.T, bins=(edges, edges))[0].ravel()
    few = expected < 10
    expected = np.append(expected[~few], len(z) - expected[~few].sum())
    got = np.append(got[~few], len(z) - got[~few].sum())
    return chi2.sf(((got - expected) ** 2 / expected).sum(), len(got) - 1)


@pytest.mark.statistical
@every_backend
@every_part
def test_the_density_integrates_to_1_and_draws_follow_it(name, backend):
    """20,000 draws at a fixed seed pass at the level of 1e-3; drawn 6 % too wide, they would not."""
    part = PARTS[name]
    masses, z = cell_masses(backend, part), draws(backend, part, 20_000)
    assert abs(masses.sum() - 1) < 1e-3
    assert np.isfinite(z).all()
    assert p_value(masses, z) > 1e-3
    assert p_value(masses, z.mean(0) + 1.06 * (z - z.mean(0))) < 1e-6


# --- means, bases, orders of passes --------------------------------------------------------------------------------


def test_the_mean_of_a_flow_posterior_is_the_image_of_its_initial_mean():
    program, params, data = (f("posterior spline") for f in (make_program, make_params, make_data))
    for backend in BACKENDS:
        encoded = ppdgm.Fit(program=program, params=params, backend=backend).encode(data["x"])
        weight, bias = (params[f"encoder.layers.1.{n}"].copy() for n in ("weight", "bias"))
        weight[:, 2:4], bias[2:4] = 0.0, -40.0  # a spread of no more than DiagonalNormal's least scale, 1e-4
        narrow = params | {"encoder.layers.1.weight": weight, "encoder.layers.1.bias": bias}
        drawn = run_trace(get_runtime(backend, program), narrow, data, 1).values["z"][0]
        np.testing.assert_allclose(encoded, drawn, atol=2e-3)


@every_backend
def test_its_base_is_the_initial_distribution(backend):
    part = FlowPosterior(flow=FLOWS["iaf"], initial=DiagonalNormal(min_scale=0.3))
    declared, params, (head,) = declare(part, (2, 3))
    assert head.shape == (1, 2 * 6 + 2)

    def of_base(P, head):
        d = part.base(P, head)
        return d.mean, d.log_prob(d.mean)

    with precision("float64"):
        mean, log_q = run(backend, of_base, params, declared, head)
    scale = 0.3 + np.logaddexp(0, head[:, 6:12])
    np.testing.assert_allclose(mean.reshape(1, 6), head[:, :6])
    np.testing.assert_allclose(log_q, -np.log(scale * np.sqrt(2 * np.pi)).sum(1))


@every_backend
def test_a_flow_may_start_from_a_flow(backend):
    inner = FlowPosterior(flow=FLOWS["realnvp"])
    program = VAE(
        event_shape=(5,), latent=2, posterior=FlowPosterior(flow=FLOWS["iaf"], initial=inner), decoder=MLP(hidden=(4,))
    )
    params, data, runtime = program.initialise(0), make_data("posterior spline"), get_runtime(backend, program)
    trace = run_trace(runtime, params, data, 3)
    again = run_trace(runtime, params, data, 3, latents={"z": trace.values["z"]})
    np.testing.assert_allclose(again.log_q["z"], trace.log_q["z"], rtol=1e-4)


class NoInverse(Flow):
    """Takes its inverse for unknown."""

    fast = "forward"
    one_way = True

    def build(self, context, width, conditional):
        return 0

    def forward(self, P, x, context):
        return x + 1.0, 0.0 * x[..., 0]

    def inverse(self, P, y, context):
        raise AssertionError("not called")


def test_a_one_way_flow_is_no_prior_and_scores_only_its_own_draws():
    refused = (
        r"FlowPrior.flow: NoInverse has no known inverse, .* Expected one of ActNorm, CDFFlow, ContinuousFlow, Glow, "
        r"InvertibleLinear, MAF, "
    )
    with pytest.raises(SpecError, match=refused):
        FlowPrior(flow=NoInverse())
    program = VAE(event_shape=(5,), latent=2, posterior=FlowPosterior(flow=NoInverse()))
    params, data, runtime = program.initialise(0), make_data("posterior spline"), get_runtime("pyro", program)
    trace = run_trace(runtime, params, data, 2)
    assert np.isfinite(trace.log_q["z"]).all()
    with pytest.raises(ProgramError, match="FlowPosterior with NoInverse is known only at its own draws"):
        run_trace(runtime, params, data, 2, latents={"z": trace.values["z"]})


SLOW = {
    "posterior": (FlowPosterior, MAF(**_SMALL), "draws z, and MAF needs D passes", "IAF, "),
    "prior": (FlowPrior, IAF(**_SMALL), "scores a given z, and IAF needs D passes", "MAF, "),
}


@pytest.mark.parametrize("role", SLOW)
def test_the_slow_direction_is_refused_or_warned_of_and_right(role):
    part, flow, reason, fast = SLOW[role]
    with pytest.raises(SpecError) as refused:
        part(flow=flow)
    for words in (f"{part.__name__}.flow", reason, fast, "RQSpline, RealNVP", "allow_slow=True"):
        assert words in str(refused.value)
    with pytest.warns(UserWarning, match=reason):
        slow = part(flow=flow, allow_slow=True)
    net = MLP(hidden=(4,))
    program = VAE(event_shape=(5,), latent=3, encoder=net, decoder=net, **{role: slow})
    x, params = make_data("posterior spline")["x"], draw_params(program.declarations(), dtype="float32")
    for backend in BACKENDS:
        trace = run_trace(get_runtime(backend, program), params, {"x": x}, 3)
        z, table = trace.values["z"].astype(float), program.to_dict()
        if role == "prior":
            np.testing.assert_allclose(trace.log_p["z"], flow_prior(table, params, z), rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_allclose(trace.log_q["z"], flow_posterior(table, params, x, z), rtol=1e-4, atol=1e-4)


def test_an_initial_distribution_of_discrete_latents_is_refused():
    class Coins(DiagonalNormal):
        family = "binary"

    with pytest.raises(SpecError, match=r"FlowPosterior.initial: got Coins, which is for binary latents, expected"):
        FlowPosterior(flow=IAF(), initial=Coins())


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "k", "flow", "prior"),
    [("pyro", 1, IAF, MAF), ("pyro", 3, RQSpline, RealNVP), ("numpyro", 3, IAF, MAF)],
)
def test_200_steps_on_digits_raise_the_elbo(backend, k, flow, prior):
    options = {"depth": 2, "hidden": (20,), "context_size": 8}
    data, net = ppdgm.load_data("digits"), MLP(hidden=(50,))
    program = VAE(
        event_shape=data.event_shape,
        latent=4,
        posterior=FlowPosterior(flow=flow(**options)),
        prior=FlowPrior(flow=prior(**options)),
        encoder=net,
        decoder=net,
    )
    fit = ppdgm.fit(
        program, data.train, engine=SVI(k=k), steps=200, batch_size=100, seed=0, backend=backend, progress=False
    )
    assert all(np.isfinite(v).all() for v in fit.history.values())
    assert all(np.isfinite(v).all() for v in fit.params.values())
    before = ppdgm.Fit(program=program, params=program.initialise(0), backend=backend)
    first, last = (f.elbo(data.test, k=5).mean for f in (before, fit))
    assert last > first + 5


def test_torch_compiles_flows_and_masked_nets_as_one_graph():
    """All that is peculiar to them: splines both ways, masks, passes one after the other, a random ordering."""
    options = {"depth": 1, "hidden": (5,), "context_size": 3}
    program = VAE(
        event_shape=(2,),
        latent=3,
        posterior=FlowPosterior(flow=RQSpline(**options), initial=FlowPosterior(flow=IAF(**options))),
        prior=FlowPrior(flow=MAF(**options)),
        likelihood=Gaussian(),
        encoder=MLP(hidden=(4,)),
        decoder=MADE(hidden=(4,), ordering="random"),
    )
    x = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")
    fit = ppdgm.fit(program, x, steps=2, batch_size=4, backend="pyro", compile=True, progress=False)
    assert np.isfinite(fit.history["elbo"]).all()
