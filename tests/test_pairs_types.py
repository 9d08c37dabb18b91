"""A plain pair has its fields in the types in which they are given: masks are booleans, and indices whole numbers."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from readings import precision
from scipy.special import logsumexp
from scipy.stats import norm

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError, UnsupportedByBackend

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


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("kind", ["int8", "int16", "uint8"])
@pytest.mark.parametrize("pair", [False, True])
def test_computing_with_short_whole_numbers_does_not_overflow(pair, kind, backend):
    """x ~ N(300 n, 1): 300 · 100 is more than a byte, or two, can hold, and became −29 984, say."""
    lib, dist, xp, _ = LIBRARIES[backend]

    class Own(Program):
        def build(self, c):
            c.param("m", ())

        def model(self, P, x, n):
            with P.plate("data", x):
                P.sample("x", P.dist.Normal(P.param("m") + n * n * 30, 1.0), obs=x)

    def model(x, n):
        m = lib.param("m", xp.zeros(()))
        with lib.plate("data", len(x)):
            lib.sample("x", dist.Normal(m + n * n * 30, 1.0), obs=x)

    n = np.array([1, 50, 100, 127])
    program = (Program.from_pyro if backend == "pyro" else Program.from_numpyro)(model) if pair else Own()
    rows = {"x": (n * n * 30.0).astype("float32"), "n": n.astype(kind)}
    fit = ppdgm.fit(program, rows, steps=1, learning_rate=0.0, backend=backend, progress=False, compile=False)
    np.testing.assert_allclose(fit.elbo(rows).values, norm(0, 1).logpdf(0), atol=1e-4)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_obs_mask_needs_a_mask_in_the_guide(backend):
    """A guide without it has a density of what is not missing, too: log p(x) was 1.5 nats too high in such a row."""
    lib, dist, xp, mask = LIBRARIES[backend]
    model, _, _ = by_obs_mask(lib, dist, xp, mask)

    def guide(x, there, group, row, masked=False):
        with lib.plate("data", len(x)):
            loc = xp.where(row, x[:, 0] / (1 + SCALE**2), lib.param("m", xp.zeros(())))
            z = lib.sample("z", dist.Normal(loc, xp.where(row, SCALE / (1 + SCALE**2) ** 0.5, 1.0)))
            unknown = dist.Normal(z, SCALE)
            lib.sample("x_unobserved", unknown.mask(~row) if masked else unknown)

    data = {"x": X, "there": THERE, "group": GROUP, "row": ROW}
    pair = lambda guide: getattr(Program, f"from_{backend}")(model, guide)
    how = {"steps": 1, "learning_rate": 0.0, "progress": False, "compile": False}
    with pytest.raises(ProgramError, match=r"'x_unobserved': obs_mask= .*opposite mask"):
        ppdgm.fit(pair(guide), data, **how)
    fit = ppdgm.fit(pair(lambda x, there, group, row: guide(x, there, group, row, True)), data, **how)
    right = norm(0, (1 + SCALE**2) ** 0.5).logpdf(X[:, 0]) * ROW
    np.testing.assert_allclose(fit.log_likelihood(data, k=3).values, right, atol=1e-5)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_whole_number_times_a_fraction_is_float64_in_a_float64_program(backend):
    """t / 1000 of a time in milliseconds was float32 on torch: wrong by up to 64 seconds."""

    class Late(Program):
        def build(self, c):
            c.param("m", ())

        def model(self, P, x, t):
            with P.plate("data", x):
                P.sample("x", P.dist.Normal(P.param("m") + t / 1000 - 1.7e9, 1.0), obs=x)

    t = 1_700_000_000_000 + np.arange(5) * 250
    rows, how = {"x": np.arange(5) / 4, "t": t}, {"steps": 1, "learning_rate": 0.0, "progress": False}
    with precision("float64"):
        fit = ppdgm.fit(Late(), rows, backend=backend, dtype="float64", compile=False, **how)
        np.testing.assert_allclose(fit.elbo(rows).values, norm(0, 1).logpdf(0), atol=1e-6)
        np.testing.assert_allclose(fit.history["elbo"], norm(0, 1).logpdf(0), atol=1e-6)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_products_of_whole_numbers_have_more_than_32_bits_or_are_refused(backend):
    """86,400² was −1,124,974,592 on JAX."""

    class Squared(Program):
        def build(self, c):
            c.param("m", ())

        def model(self, P, x, t):
            with P.plate("data", x):
                P.sample("x", P.dist.Normal(P.param("m") + 1e-9 * ((t - 1) * t), 1.0), obs=x)

    how = {"steps": 1, "learning_rate": 0.0, "progress": False, "backend": backend, "compile": False}
    few, many = ({"x": 1e-9 * (t - 1.0) * t, "t": t} for t in (np.arange(-9, 46_000, 1000), np.arange(0, 86_401, 9600)))
    fit = ppdgm.fit(Squared(), few, **how)
    np.testing.assert_allclose(fit.elbo(few).values, norm(0, 1).logpdf(0), atol=1e-6)
    if backend == "numpyro":
        for run in (lambda: fit.elbo(many), lambda: ppdgm.fit(Squared(), many, **how)):
            with pytest.raises(UnsupportedByBackend, match="may be 7464873600, but JAX is in 32-bit mode"):
                run()
    with precision("float64"):
        wide = ppdgm.fit(Squared(), many, dtype="float64", **how)
        np.testing.assert_allclose(wide.elbo(many).values, norm(0, 1).logpdf(0), atol=1e-9)
