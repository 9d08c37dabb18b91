"""Gradient estimators, through the training loop: unbiased ones have the exact mean, the others the bias they have.

The bias of relaxed and straight-through gradients at every temperature is in test_discrete_training.py.
"""

from functools import cache
from itertools import product

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from checks import check_mean_gradient
from estimator_cases import (
    CATEGORICAL,
    CENTRED,
    DISCRETE,
    ELBO,
    MANY_K,
    NESTED,
    NESTED_X,
    PLAIN,
    POINT,
    SEEN,
    TIGHT,
    check_centred,
    check_discrete,
    exact_of_centred,
    exact_of_discrete,
    labels_of,
    means_and_errors,
    near_the_posterior,
    nested,
    of_draws,
    of_guide,
    sample,
    sample_discrete,
    sampled_bounds,
    slope_of_signal,
)
from readings import BACKENDS

import ppdgm
from ppdgm.errors import ProgramError
from ppdgm.inference import IWAE, SVI, ReweightedWakeSleep, WakeSleep
from ppdgm.inference.engines import bounds, estimators
from ppdgm.models import Program
from ppdgm.program import zeros

both = pytest.mark.parametrize("backend", BACKENDS)
statistical = pytest.mark.statistical
# JAX takes a second to compile a case: on numpyro these are left out, whose parts are all parts of others.
LEFT_OUT = [
    ("svi, closed form", 1),
    ("iwae", 1),
    ("renyi", 1),
    ("renyi, dreg", 1),
    ("miwae, dreg", 8),
    ("ciwae, dreg", 8),
]
LEFT_OUT += [("ladder", "stl"), ("chain", "stl"), ("dreg", 4), ("dreg", 16)]
BIASED = ("iwae, stl", 8)


def wanted(backend, key):
    return backend == "pyro" or key not in LEFT_OUT


@cache
def centred(backend):
    """Cases of both numbers of particles, in one trainer."""
    cases = {(name, k): case for k in (1, 8) for name, case in of_draws(k).items()}
    engines = {key: case[0] for key, case in cases.items() if wanted(backend, key)}
    sizes = {(name, k): 80 if k == 1 else 64 if name == "iwae" else 48 for name, k in engines}
    return cases, sample(CENTRED, POINT, SEEN, engines, backend, sizes=sizes)


@cache
def discrete(backend):
    return sample_discrete(DISCRETE, backend)


# --- means ------------------------------------------------------------------------------------------------------------


@statistical
@both
def test_means_where_draws_carry_gradients(backend):
    """Against closed forms and NumPy's differences, at K = 1 and 8."""
    cases, found = centred(backend)
    for name, k in found:
        if (name, k) != BIASED:
            check_centred(found[name, k], k, *cases[name, k][1:], name)


@statistical
@both
@pytest.mark.parametrize("name", NESTED)
def test_means_with_several_latents_or_a_prior_that_knows_the_guide(backend, name):
    """Against a plainer estimator of the same bound: reparameterised, or enumerated."""
    program, params, size, _, cases = nested(name)
    engines = {case: engine for case, (engine, _) in cases.items() if wanted(backend, (name, case))}
    found = sample(program, params, NESTED_X, engines, backend, size=size)
    for case in engines:
        bound = cases[case][1]
        exact, errors = sampled_bounds(name)[bound]
        check_mean_gradient(found[case], exact, labels_of(program), errors, f"{name}, {case}")


@statistical
@both
def test_means_where_draws_are_discrete(backend):
    """Against sums over all C^K joint draws, and, of dreams, over all data; baselines move meanwhile."""
    for name, case in DISCRETE.items():
        check_discrete(discrete(backend)[name], case, name)


# --- variances --------------------------------------------------------------------------------------------------------


BASELINES = {  # the variance of the guide's gradient, against that of another; as measured
    ("svi, running", "svi, none"): 0.15,
    ("svi, learned", "svi, none"): 0.14,
    ("svi, leave one out, 8", "svi, none"): 0.21,
    ("iwae, leave one out, 2", "iwae, none, 2"): 0.14,
    ("iwae, running, 2", "iwae, none, 2"): 0.26,
    ("iwae, learned, 2", "iwae, none, 2"): 0.24,
}


@statistical
@both
def test_baselines_make_the_variance_small(backend):
    total = lambda name: of_guide(CATEGORICAL, {n: g.var(0, ddof=1) for n, g in discrete(backend)[name].items()}).sum()
    found = {pair: total(pair[0]) / total(pair[1]) for pair in BASELINES}
    eighth = total("svi, none") / 8  # of 8 independent particles
    found["svi, leave one out, 8", "svi, none"] = total("svi, leave one out, 8") / eighth
    for pair, ratio in found.items():
        assert abs(ratio - BASELINES[pair]) < 0.5 * BASELINES[pair], f"{pair}: {ratio:.2f}"


@statistical
@both
def test_signal_and_noise_of_many_particles(backend):
    """Rainforth et al. 2018: the guide's SNR falls as K^−½, the model's rises as K^½; with dreg both rise."""
    params, x = near_the_posterior()
    keys = [key for key in product(("reparam", "dreg"), MANY_K) if wanted(backend, key)]
    engines = {(e, k): IWAE(k=k, estimator=e) for e, k in keys}
    found = sample(PLAIN, params, x, engines, backend, copies=400, size=100, sizes={("reparam", 64): 500})
    slopes = {}
    for estimator, label in (("reparam", "guide"), ("reparam", "model"), ("dreg", "guide")):
        slope, error = slope_of_signal({k: found[e, k] for e, k in keys if e == estimator}, label)
        assert error < 0.03
        slopes[estimator, label] = slope
    assert abs(slopes["reparam", "guide"] + 0.5) < 0.1  # −0.51 and −0.52, by backend
    assert abs(slopes["reparam", "model"] - 0.5) < 0.1  # 0.45 and 0.49
    assert slopes["dreg", "guide"] > -0.1  # 0.51 and 0.52


# --- biases -----------------------------------------------------------------------------------------------------------


def check_bias(samples, program, exact, errors, recorded):
    """‖E[g] − exact‖ / ‖exact‖ of the guide's gradient is what is recorded, and no chance."""
    means, spreads = means_and_errors(samples)
    size, off = np.linalg.norm(of_guide(program, exact)), of_guide(program, means) - of_guide(program, exact)
    error = np.linalg.norm(np.hypot(of_guide(program, spreads), of_guide(program, errors))) / size
    bias = np.linalg.norm(off) / size
    assert bias > 4 * error, f"a bias of {bias:.3f} is within 4 errors of {error:.3f}"
    assert abs(bias - recorded) < 4 * error < 0.1 * bias, f"bias {bias:.3f} ± {error:.3f}, {recorded} recorded"


@statistical
@both
def test_stl_is_biased_for_more_than_one_particle(backend):
    """∇ log q, which it leaves out, has the mean 0 in the ELBO alone."""
    found = centred(backend)[1][BIASED]
    exact = exact_of_centred(8, TIGHT, TIGHT)
    check_bias(found, CENTRED, *exact, recorded=1.24)
    with pytest.raises(AssertionError, match="errors of"):
        check_centred(found, 8, TIGHT, TIGHT)
    with pytest.raises(AssertionError, match="is within 4 errors"):
        check_bias(centred(backend)[1]["iwae", 8], CENTRED, *exact, recorded=0.0)


@statistical
@pytest.mark.parametrize(("engine", "bound", "recorded"), [(SVI, ELBO, 1.16), (IWAE, TIGHT, 1.60)])
def test_relaxations_are_biased(engine, bound, recorded):
    """At τ = ½, of bounds that have the relaxation's own KL."""
    case = engine(k=8, estimator="relaxed"), bound, bound
    (found,) = sample_discrete({"": case}, "pyro").values()
    exact = exact_of_discrete(*case)
    check_bias(found, CATEGORICAL, exact, {n: 0 * v for n, v in exact.items()}, recorded)


# --- wrong twins: what is wrong is so before any backend, and pyro compiles nothing -----------------------------------


class Uniform(ReweightedWakeSleep):
    """Without the weights."""

    reweighted = False


def of_everyone(step, terms, bound, replace):
    """A particle's own term counts in what stands for it, or is not left out."""
    if not replace:
        return bound(terms)[None] + 0.0 * terms
    same = np.eye(len(terms), dtype=bool).reshape(len(terms), -1, *(1,) * (terms.ndim - 1))
    return bound(step.xp.where(step.xp.asarray(same), terms.mean(0)[None, None], terms[:, None]))


def without_gradients(step, trace):
    return step.trace(given=estimators.held(step, trace), stopped=True)


def scaled_by(change):
    """The factor of gradients through draws, changed."""
    return lambda right: lambda step, trace, factor: right(step, trace, change(factor))


WRONG = {  # module, function, what makes a wrong one of it, and the case that it spoils
    "dreg, weighed once": (estimators, "with_scaled_draws", scaled_by(lambda w: 1.0 + 0.0 * w), "iwae, dreg"),
    "dreg, weighed thrice": (estimators, "with_scaled_draws", scaled_by(lambda w: w**2), "iwae, dreg"),
    "dreg of another bound": (estimators, "with_scaled_draws", scaled_by(lambda w: 2.0 * w - 1.0), "renyi, dreg"),
    "stl, stopped draws": (estimators, "stopped", lambda right: without_gradients, "svi, stl"),
    "vimco, of everyone": (estimators, "without", lambda right: of_everyone, "iwae, vimco, 8"),
    "leave none out": (estimators, "without", lambda right: of_everyone, "iwae, leave one out, 2"),
    "mean of all": (
        estimators, "score", lambda right: lambda t, trace, s: right(t, trace, 7 / 8 * s), "svi, leave one out, 8"
    ),
    "no log q": (bounds, "elbo", lambda right: lambda trace, *_: sum(trace.log_p.values()), "svi, running"),
}  # fmt: skip


@statistical
@pytest.mark.parametrize("name", WRONG)
def test_wrong_estimators_fail(name, monkeypatch):
    module, function, wrong, of = WRONG[name]
    monkeypatch.setattr(module, function, wrong(getattr(module, function)))
    if of in DISCRETE:
        case = DISCRETE[of]
        (found,) = sample_discrete({of: case}, "pyro").values()
        check = lambda: check_discrete(found, case)
    else:
        engine, *climbed = of_draws(8)[of]
        (found,) = sample(CENTRED, POINT, SEEN, {of: engine}, "pyro").values()
        check = lambda: check_centred(found, 8, *climbed)
    with pytest.raises(AssertionError, match="errors of"):
        check()


@statistical
def test_wrong_players_fail():
    """A guide that learns from data, not dreams; one without weights; bounds of the wrong label."""
    awake, asleep = WakeSleep(wake_phi=1.0, sleep_phi=0.0), DISCRETE["wake-sleep"]
    uniform, weighted = Uniform(k=4, wake_phi=0.7, sleep_phi=0.5), DISCRETE["rws, 4"]
    found = sample_discrete({"awake": (awake,), "uniform": (uniform,)}, "pyro")
    crossed = sample(CENTRED, POINT, SEEN, {"piwae": of_draws(8)["piwae"][0]}, "pyro")["piwae"]
    for check in (
        lambda: check_discrete(found["awake"], asleep),
        lambda: check_discrete(found["uniform"], weighted),
        lambda: check_centred(crossed, 8, *reversed(of_draws(8)["piwae"][1:])),
    ):
        with pytest.raises(AssertionError, match="errors of"):
            check()


# --- what has no such gradient ----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("setting", [{"free_bits": 0.1}, {"capacity": 1.0}])
def test_what_is_no_mean_of_draws_terms_refuses_scored_draws_beside_others(backend, setting):
    """The KL of one latent may depend on the draw of another: its gradient was left out, in silence."""
    program, params, *_ = nested("mixed")
    with pytest.raises(ProgramError, match=r"Site 'y' has a score-function gradient.*the only latent"):
        sample(program, params, NESTED_X, {"": SVI(k=2, estimator="score", **setting)}, backend)


class Levels(Program):
    """t ~ N(0, 1) of all data; z ~ N(t, 1), x ~ N(z, 1) of each; t and z are normal in the guide."""

    def build(self, context):
        for name in SLOPES:
            context.param(name, (), zeros, label="guide")

    def model(self, P, x):
        one = P.full((), 1.0)
        t = P.sample("t", P.dist.Normal(0 * one, one))
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(t, one))
            P.sample("x", P.dist.Normal(z, one), obs=x)

    def guide(self, P, x):
        P.sample("t", P.dist.Normal(P.param("m"), P.xp.exp(P.param("s"))))
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("a") * x + P.param("b"), P.xp.exp(P.param("c"))))


def levels_on_numpyro():
    """The same as a plain pair."""
    value = lambda name: numpyro.param(name, jnp.zeros(()))

    def model(x):
        t = numpyro.sample("t", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(t, 1.0))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        numpyro.sample("t", dist.Normal(value("m"), jnp.exp(value("s"))))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(value("a") * x + value("b"), jnp.exp(value("c"))))

    return Program.from_numpyro(model, guide, data_plate="data")


SLOPES, FEW = ("m", "s", "a", "b", "c"), np.array([1.0, 2.5, 0.5, -0.5], "float32")


@pytest.mark.parametrize("estimator", ["stl", "reparam"])
@pytest.mark.parametrize("way", ["pyro", "numpyro", "pair"])
@statistical
def test_latents_of_all_data_keep_their_gradient(way, estimator):
    """N L = Σ E[log N(x; z, 1) + log N(z; t, 1)] + E log N(t; 0, 1) + Σ c + s, at parameters of 0."""
    program, steps = (levels_on_numpyro() if way == "pair" else Levels()), []
    for seed in range(4):
        fit = ppdgm.fit(
            program, FEW, engine=SVI(k=2000, kl="monte_carlo", estimator=estimator), steps=1, optimiser="sgd",
            learning_rate=1.0, seed=seed, backend="pyro" if way == "pyro" else "numpyro", progress=False,
        )  # fmt: skip
        steps.append([float(fit.params[n]) for n in SLOPES])
    n, mean = len(FEW), FEW.mean()  # at 0: E(x − z) = x, E(z − t) = 0, all variances 1
    exact = [0.0, (1 - (n + 1)) / n, (FEW**2).mean(), mean, 1 - 2.0]
    error = 3.0 / np.sqrt(4 * 2000)  # of the mean of four; a term's standard deviation is below 3
    np.testing.assert_allclose(np.mean(steps, axis=0), exact, atol=4 * error)


@both
def test_an_analytic_kl_is_refused_beside_a_latent_of_all_data(backend):
    """Its KL is of draws: the setting would hold for z alone, and say nothing."""
    with pytest.raises(ProgramError, match=r"'t' has no closed-form KL.*kl='auto'"):
        ppdgm.fit(Levels(), FEW, engine=SVI(kl="analytic"), steps=1, backend=backend, progress=False)


class OneLevel(Program):
    """t ~ N(0, 1), which all data share; x ~ N(t, 1)."""

    def build(self, context):
        context.param("m", (), label="guide")

    def model(self, P, x):
        t = P.sample("t", P.dist.Normal(P.full((), 0.0), P.full((), 1.0)))
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(t, 1.0), obs=x)

    def guide(self, P, x):
        P.sample("t", P.dist.Normal(P.param("m"), P.full((), 1.0)))


@both
def test_free_bits_are_refused_where_all_latents_are_shared(backend):
    """They would change nothing."""
    with pytest.raises(ProgramError, match=r"free_bits.*all rows share all latents"):
        ppdgm.fit(OneLevel(), FEW, engine=SVI(free_bits=1.0), steps=1, backend=backend, progress=False)
