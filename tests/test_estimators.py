"""Gradient estimators, through the training loop: unbiased ones have the exact mean, the others the bias they have.

The bias of relaxed and straight-through gradients over temperatures is in test_discrete_training.py.
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
    NESTED,
    NESTED_X,
    POINT,
    SEEN,
    TIGHT,
    by_label,
    centred_bounds,
    check_centred,
    check_discrete,
    exact_of_discrete,
    labels_of,
    means_and_errors,
    nested,
    of_draws,
    sample,
    sample_discrete,
    sampled_bounds,
)
from readings import BACKENDS

from ppdgm.errors import ProgramError
from ppdgm.inference import IWAE, SVI, Renyi, ReweightedWakeSleep, WakeSleep, estimators, svi
from ppdgm.models import PPCA

both = pytest.mark.parametrize("backend", BACKENDS)
statistical = pytest.mark.statistical


@cache
def centred(backend):
    engines = {(name, k): case[0] for k in (1, 8) for name, case in of_draws(k).items()}
    return sample(CENTRED, POINT, SEEN, engines, backend)


@cache
def discrete(backend):
    return sample_discrete(DISCRETE, backend)


def guide_of(program, parts):
    return np.concatenate([np.ravel(parts[n]) for n, label in labels_of(program).items() if label == "guide"])


# --- means ------------------------------------------------------------------------------------------------------------


@statistical
@both
def test_means_where_draws_carry_gradients(backend):
    """Against closed forms and NumPy's differences, at K = 1 and 8."""
    for k in (1, 8):
        for name, (_, *bounds) in of_draws(k).items():
            if (name, k) not in BIASED:
                check_centred(centred(backend)[name, k], k, *bounds, name)


@statistical
@both
@pytest.mark.parametrize("name", NESTED)
def test_means_with_several_latents_and_a_prior_that_knows_the_guide(backend, name):
    """Against a plainer estimator of the same bound: reparameterised, or enumerated."""
    program, params, _, cases = nested(name)
    found = sample(program, params, NESTED_X, {case: engine for case, (engine, _) in cases.items()}, backend, size=200)
    for case, (_, bound) in cases.items():
        check_mean_gradient(found[case], *sampled_bounds(name)[bound], labels_of(program), name=f"{name}, {case}")


@statistical
@both
def test_means_where_draws_are_discrete(backend):
    """Against sums over all C^K joint draws, and, of dreams, over all data."""
    for name, case in DISCRETE.items():
        if (name, None) not in BIASED:
            check_discrete(discrete(backend)[name], case, name)
