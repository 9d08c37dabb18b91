"""Enumerated sites: their bounds are the sums that one would write by hand, and nothing else sees their axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from enumerated import ALL, CLASSES, SITES, Child, Discrete, Tables, Two, by_hand, make, probabilities, unit_normal
from readings import BACKENDS, get_runtime, precision, run_trace, train

import ppdgm
from ppdgm import enumeration
from ppdgm.errors import ProgramError
from ppdgm.inference import SVI, bounds

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
every_kind = pytest.mark.parametrize("kind", SITES, ids=lambda kind: kind.__name__)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


# --- sums ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("k", [1, 3])
@every_backend
@every_kind
def test_bounds_equal_the_sums_by_hand(kind, backend, k, dtype):
    program, params, data = make(kind, dtype)
    with precision(dtype):
        found = run_trace(get_runtime(backend, program), params, data, k, seed=2)
    elbo, log_weights = by_hand(kind, params, data, found.values)
    for got, expected in ((bounds.elbo(found, np), elbo), (bounds.log_weights(found, np), log_weights)):
        assert got.shape == (k if kind is not Discrete else k, 4)
        np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=10 * TOLERANCE[dtype])
    assert all(t.shape == (k, 4) for terms in (found.log_p, found.log_q) for t in terms.values())
    assert set(found.values) == {*SITES[kind][0], *(("z",) if kind is not Discrete else ())}
