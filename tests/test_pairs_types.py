"""A plain pair has its fields in the types in which they are given: masks are booleans, and indices whole numbers."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError

N, D, GROUPS = 12, 3, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype("float32")
THERE, GROUP = RNG.random((N, D)) < 0.6, RNG.integers(0, GROUPS, N)
ROW = RNG.random(N) < 0.6
LIBRARIES = {
    "numpyro": (numpyro, numpyro_dist, jnp, numpyro.handlers.mask),
    "pyro": (pyro, pyro_dist, torch, pyro.poutine.mask),
}
SCALE, WIDTH = 0.5, 0.7


def draw_z(lib, dist, xp, x, row):
    return lib.sample("z", dist.Normal(0.0 * x[:, 0] + lib.param("m", xp.zeros(())), WIDTH))


def in_its_distribution(lib, dist, xp, _):
    """`.mask(there)` and `~there`, datum by datum; the offsets by `group` as an index."""

    def model(x, there, group, row):
        offset = lib.param("offset", xp.arange(GROUPS) / 10.0)[group]
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(0.0 * x[:, 0], 1.0))
            loc = (z + offset)[..., None] + 0.0 * x
            lib.sample("x", dist.Normal(loc, SCALE).mask(there).to_event(1), obs=x)
            lib.sample("rest", dist.Normal(0.0 * x, 2.0).mask(~there).to_event(1), obs=x)

    right = lambda x, z: (norm(z + GROUP[:, None] / 10, SCALE).logpdf(x) * THERE + norm(0, 2.0).logpdf(x) * ~THERE).sum(
        -1
    )
    return model, draw_z, right


def by_a_handler(lib, dist, xp, mask):
    """A handler's mask around a site."""

    def model(x, there, group, row):
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(0.0 * x[:, 0], 1.0))
            with mask(mask=row):
                lib.sample("x", dist.Normal(z[..., None] + 0.0 * x, SCALE).to_event(1), obs=x)

    return model, draw_z, lambda x, z: norm(z, SCALE).logpdf(x).sum(-1) * ROW


def by_obs_mask(lib, dist, xp, _):
    """`obs_mask`: the library makes of what is missing a latent of its own, which the guide draws."""

    def model(x, there, group, row):
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(0.0 * x[:, 0], 1.0))
            lib.sample("x", dist.Normal(z, SCALE), obs=x[:, 0], obs_mask=row)

    def draws(lib, dist, xp, x, row):
        z = draw_z(lib, dist, xp, x, row)
        lib.sample("x_unobserved", dist.Normal(z, SCALE).mask(~row))

    return model, draws, lambda x, z: norm(z, SCALE).logpdf(x[:, :1]).sum(-1) * ROW


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("case", [in_its_distribution, by_a_handler, by_obs_mask])
def test_booleans_and_whole_numbers_stay(case, backend):
    lib, dist, xp, mask = LIBRARIES[backend]
    model, draws, right = case(lib, dist, xp, mask)

    def guide(x, there, group, row):
        assert all(str(a.dtype).endswith(t) for a, t in ((x, "float32"), (there, "bool"), (row, "bool")))
        with lib.plate("data", len(x)):
            draws(lib, dist, xp, x, row)

    data = {"x": X.astype("float64"), "there": THERE, "group": GROUP, "row": ROW}
    fit = ppdgm.fit(
        getattr(Program, f"from_{backend}")(model, guide), data, steps=2, learning_rate=1e-7, progress=False
    )
    grid = np.linspace(-8.0, 8.0, 1001)[:, None]
    density = right(X[None], grid[..., None]) + norm(0, 1).logpdf(grid)
    exact = logsumexp(density, axis=0) + np.log(grid[1, 0] - grid[0, 0])
    found = fit.log_likelihood(data, k=1000)
    np.testing.assert_allclose(found.values, exact, atol=5 * found.errors.max() + 1e-3)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_net_is_given_floating_numbers(backend):
    """x of whole numbers stays too: torch's nets refuse it with the remedy, JAX promotes it."""
    lib, dist, xp, _ = LIBRARIES[backend]
    weight = torch.nn.Linear(D, 1)

    def model(x):
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(xp.zeros(len(x)), 1.0))
            lib.sample("x", dist.Poisson(xp.exp(z[..., None] + xp.zeros(D))).to_event(1), obs=x)

    def guide(x):
        if backend == "pyro":
            pyro.module("net", weight)
        w = lib.param("w", xp.zeros((D, 1)))
        with lib.plate("data", len(x)):
            lib.sample("z", dist.Normal((weight(x) if backend == "pyro" else x @ w)[:, 0], WIDTH))

    pair, x = getattr(Program, f"from_{backend}")(model, guide), RNG.poisson(2.0, (N, D))
    if backend == "pyro":
        with pytest.raises(ProgramError, match=r"same dtype.*whole numbers unchanged.*x.astype\('float32'\)"):
            ppdgm.fit(pair, x, steps=2, progress=False)
    assert np.isfinite(ppdgm.fit(pair, x.astype("float32"), steps=2, progress=False).elbo(x.astype("float32")).mean)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_chains_refuse_a_latent_that_is_masked(backend):
    """Where x is there, `obs_mask` leaves a latent without a density: a chain never turns. Elsewhere chains run."""
    lib, dist, xp, mask = LIBRARIES[backend]
    model, draws, _ = by_obs_mask(lib, dist, xp, mask)

    def guide(x, there, group, row):
        with lib.plate("data", len(x)):
            draws(lib, dist, xp, x, row)

    data = {"x": X[:3], "there": THERE[:3], "group": GROUP[:3], "row": np.array([False, True, False])}
    fit = ppdgm.fit(getattr(Program, f"from_{backend}")(model, guide), data, steps=1, progress=False)
    how = {"how": "mcmc", "draws": 2, "warmup": 2, "chains": 1}
    with pytest.raises(ProgramError, match=r"'x_unobserved': log p.* does not depend on it for row 1"):
        fit.posterior(data, **how)
    if backend == "pyro":  # NumPyro's takes a minute to compile
        missing = {n: v[[0, 2]] for n, v in data.items()}
        assert fit.posterior(missing, **how)["z"].shape[:2] == (2, 2)
