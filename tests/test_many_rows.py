"""What XLA fuses for many rows is what it computes one operation at a time (jaxlib 0.10.2 got this wrong).

A program's small tests don't see it: XLA takes other kernels from some 32,768 rows on.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import make_data, make_params, make_program
from readings import get_runtime, run_trace

K, B = 300, 400
NAMES = (  # sums of products over latents, which were wrong, and other long chains
    "prior vamp of full covariances",
    "posterior full covariance",
    "posterior full covariance of a matrix",
    "posterior planar",
    "posterior sylvester",
    "posterior iaf",
    "posterior spline",
    "conditional mixture of a full covariance",
    "hvae three levels factorised",
)


def test_a_sum_of_products_of_many_rows():
    """The smallest program that showed it: off by 15 under jaxlib 0.10.2."""
    rng = np.random.default_rng(0)
    matrix, noise = rng.normal(size=(B, 2, 2)).astype(np.float32), rng.normal(size=(K, B, 2)).astype(np.float32)
    found = jax.jit(lambda m, e: 1 + jnp.sum(m * e[..., None, :], axis=-1))(matrix, noise)
    assert np.allclose(found, 1 + np.einsum("bij,kbj->kbi", matrix, noise), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_fused_and_unfused_agree(name):
    program, params, data = make_program(name), make_params(name), make_data(name, B)
    runtime = get_runtime("numpyro", program)
    fused = run_trace(runtime, params, data, K, seed=1)
    with jax.disable_jit():
        plain = run_trace(runtime, params, data, K, seed=1)
    for read in ("values", "log_p", "log_q"):
        for site, value in getattr(plain, read).items():
            got = np.asarray(getattr(fused, read)[site])
            scale = max(1.0, float(np.abs(value).mean()))
            assert np.abs(got - value).max() < 1e-3 * scale, (read, site)
