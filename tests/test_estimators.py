"""Gradient estimators, through the training loop: unbiased ones have the exact mean, the others the bias they have.

The bias of relaxed and straight-through gradients at every temperature is in test_discrete_training.py.
"""

from functools import cache

import numpy as np
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

from ppdgm.errors import ProgramError
from ppdgm.inference import IWAE, SVI, ReweightedWakeSleep, WakeSleep, bounds, estimators

both = pytest.mark.parametrize("backend", BACKENDS)
statistical = pytest.mark.statistical
SAME_GRAPHS = [("iwae", 1), ("renyi", 1), ("miwae, dreg", 8), ("ciwae, dreg", 8)]  # as others': JAX compiles 0.8 s each


@cache
def discrete(backend):
    return sample_discrete(DISCRETE, backend)


# --- means ------------------------------------------------------------------------------------------------------------


@statistical
@both
def test_means_where_draws_carry_gradients(backend):
    """Against closed forms and NumPy's differences, at K = 1 and 8."""
    cases = {(name, k): case for k in (1, 8) for name, case in of_draws(k).items()}
    cases = {key: case for key, case in cases.items() if backend == "pyro" or key not in SAME_GRAPHS}
    found = sample(CENTRED, POINT, SEEN, {key: case[0] for key, case in cases.items()}, backend)
    for (name, k), (_, *of) in cases.items():
        check_centred(found[name, k], k, *of, name)


@statistical
@both
@pytest.mark.parametrize("name", NESTED)
def test_means_with_several_latents_or_a_prior_that_knows_the_guide(backend, name):
    """Against a plainer estimator of the same bound: reparameterised, or enumerated."""
    program, params, _, cases = nested(name)
    found = sample(program, params, NESTED_X, {case: engine for case, (engine, _) in cases.items()}, backend, size=100)
    for case, (_, bound) in cases.items():
        exact, errors = sampled_bounds(name)[bound]
        check_mean_gradient(found[case], exact, labels_of(program), errors, f"{name}, {case}")


@statistical
@both
def test_means_where_draws_are_discrete(backend):
    """Against sums over all C^K joint draws, and, of dreams, over all data; baselines move meanwhile."""
    for name, case in DISCRETE.items():
        check_discrete(discrete(backend)[name], case, name)


# --- variances --------------------------------------------------------------------------------------------------------


BASELINES = {  # the variance of the guide's gradient against that without a baseline; measured
    ("svi, running", "svi, none"): 0.3,
    ("svi, learned", "svi, none"): 0.3,
    ("svi, leave one out, 8", "svi, none, 8"): 0.3,
    ("iwae, running, 2", "iwae, none, 2"): 0.3,
    ("iwae, learned, 2", "iwae, none, 2"): 0.3,
    ("iwae, leave one out, 2", "iwae, none, 2"): 0.3,
}


@statistical
@both
def test_baselines_make_the_variance_small(backend):
    spread = lambda name: of_guide(CATEGORICAL, {n: g.var(0, ddof=1) for n, g in discrete(backend)[name].items()}).sum()
    for (name, without), ratio in BASELINES.items():
        print(name, spread(name) / spread(without))
        assert spread(name) / spread(without) < 1.5 * ratio, name
    print("vimco/loo", spread("iwae, vimco, 8") / spread("iwae, leave one out, 8"))


@statistical
@both
def test_signal_and_noise_of_many_particles(backend):
    """Rainforth et al. 2018: the guide's SNR falls as K^−½, the model's rises as K^½; doubly reparameterised, both."""
    params, x = near_the_posterior()
    engines = {(e, k): IWAE(k=k, estimator=e) for e in ("reparam", "dreg") for k in MANY_K}
    found = sample(PLAIN, params, x, engines, backend, size=100, sizes={("reparam", k): 200 for k in MANY_K})
    slopes = {}
    for estimator, label in (("reparam", "guide"), ("reparam", "model"), ("dreg", "guide")):
        slope, error = slope_of_signal({k: found[estimator, k] for k in MANY_K}, label)
        assert error < 0.03
        slopes[estimator, label] = slope
    assert abs(slopes["reparam", "guide"] + 0.5) < 0.1  # −0.51
    assert abs(slopes["reparam", "model"] - 0.5) < 0.1  # 0.47
    assert slopes["dreg", "guide"] > -0.1  # 0.51
    print(slopes)


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
    engine = {k: IWAE(k=k, estimator="stl") for k in (1, 8)}
    found = sample(CENTRED, POINT, SEEN, engine, backend)
    check_centred(found[1], 1, TIGHT, TIGHT)
    check_bias(found[8], CENTRED, *exact_of_centred(8, TIGHT, TIGHT), recorded=1.24)
    with pytest.raises(AssertionError, match="errors of"):
        check_centred(found[8], 8, TIGHT, TIGHT)


@statistical
@pytest.mark.parametrize(("engine", "bound", "recorded"), [(SVI, ELBO, 1.16), (IWAE, TIGHT, 1.60)])
def test_relaxations_are_biased(engine, bound, recorded):
    """At τ = ½, of bounds that have the relaxation's own KL."""
    case = engine(k=8, estimator="relaxed"), bound, bound
    (found,) = sample_discrete({"": case}, "pyro").values()
    exact = exact_of_discrete(*case)
    check_bias(found, CATEGORICAL, exact, {n: 0 * v for n, v in exact.items()}, recorded)


# --- wrong twins ------------------------------------------------------------------------------------------------------


def of_everyone(_, terms, bound, replace):
    """VIMCO's baseline, with the mean of all particles in a particle's place, its own among them."""
    return np.stack
