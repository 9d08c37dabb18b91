"""Data outside the support of what they are observed from: every row is looked at, before training and evaluation."""

import contextlib
import re
import warnings

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as npd
import pyro
import pyro.distributions as pyd
import pytest
import torch
from scipy.stats import norm

import ppdgm
from ppdgm import Program
from ppdgm.backends.numpyro.support import confine as confine_jax
from ppdgm.backends.numpyro.support import observe as observe_jax
from ppdgm.backends.pyro.support import confine as confine_torch
from ppdgm.backends.pyro.support import observe as observe_torch
from ppdgm.errors import DataError, PpdgmError, ProgramError
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.support import check_support
from ppdgm.models import VAE, Bernoulli, likelihoods
from ppdgm.program import constant
from ppdgm.registry import backend as load

N, BAD = 600, 500  # a row that no first look reaches
BOTH = pytest.mark.parametrize("backend", ["pyro", "numpyro"])


def look(program, x, backend, training=True, **options):
    fields = x if isinstance(x, dict) else {"x": x}
    runtime = load(backend).Runtime(program, "cpu")
    feed = Feed(runtime, fields)
    params = runtime.initialise(0, feed.sample, "float32")
    check_support(program, runtime, params, feed, training, **options)


def rows(good, bad=None):
    """N rows that can be; with `bad`, one that can't."""
    x = np.repeat(np.asarray(good, "float32")[None], N, 0)
    if bad is not None:
        x[BAD] = bad
    return x


class Observing(Program):
    """z ~ N(0, 1), and x from a distribution that `make(P, r, n)` gives, of a positive parameter or draw r."""

    make: object
    draws: bool = False

    def build(self, c):
        c.param("raw", (2,))
        c.param("loc", (1,), label="guide")

    def model(self, P, x, n=None):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            d = self.make(P, P.xp.exp(P.param("raw") + (z if self.draws else 0.0)), n)
            P.sample("x", d if d.event_shape else d.to_event(1), obs=x)

    def guide(self, P, x, n=None):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("loc"), P.full((1,), 1.0)).to_event(1))


def own_density(support):
    def make(P, r, n):
        log_prob = lambda x: P.xp.sum(-x * r, axis=-1)
        return P.distribution(lambda random, batch: (random.normal((*batch, 2)), None), log_prob, (2,), support=support)

    return make


REAL = [0.5, 0.5]
CASES = {  # name: (distribution, a row that can be, one that can't)
    "Bernoulli": (lambda P, r, n: P.dist.Bernoulli(logits=r), [0, 1], [0, 7]),
    "Beta": (lambda P, r, n: P.dist.Beta(r, r), REAL, [0.5, 1.5]),
    "Chi2": (lambda P, r, n: P.dist.Chi2(r), REAL, [0.5, -1]),
    "Dirichlet": (lambda P, r, n: P.dist.Dirichlet(r), REAL, [0.5, 0.6]),
    "Exponential": (lambda P, r, n: P.dist.Exponential(r), REAL, [0.5, -1]),
    "Gamma": (lambda P, r, n: P.dist.Gamma(r, r), REAL, [-0.5, 1]),
    "Geometric": (lambda P, r, n: P.dist.Geometric(logits=r), [0, 3], [0, 1.5]),
    "HalfCauchy": (lambda P, r, n: P.dist.HalfCauchy(r), REAL, [-0.5, 1]),
    "HalfNormal": (lambda P, r, n: P.dist.HalfNormal(r), REAL, [-0.5, 1]),
    "InverseGamma": (lambda P, r, n: P.dist.InverseGamma(r, r), REAL, [-0.5, 1]),
    "LogNormal": (lambda P, r, n: P.dist.LogNormal(r, r), REAL, [-0.5, 1]),
    "GammaPoisson": (lambda P, r, n: P.dist.GammaPoisson(r, r), [0, 3], [1.5, 3]),
    "Poisson": (lambda P, r, n: P.dist.Poisson(r), [0, 3], [0, 1.5]),
    "Weibull": (lambda P, r, n: P.dist.Weibull(r, r), REAL, [0.5, -7]),
    "own, positive": (own_density("positive"), REAL, [0.5, -1]),
    "own, whole": (own_density("nonnegative_integer"), [0, 3], [0, 1.5]),
    "own, levels": (own_density((0, 3)), [0, 3], [0, 4]),
    "own, unit": (own_density("unit_interval"), REAL, [0.5, 1.5]),
}


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_every_support_is_looked_at(case, backend):
    make, good, bad = CASES[case]
    look(Observing(make=make), rows(good), backend)
    for training in (True, False):
        with pytest.raises(DataError, match=rf"Site 'x': got data outside the support.*in row {BAD}. 1 of {N} rows"):
            look(Observing(make=make), rows(good, bad), backend, training)


@BOTH
def test_what_the_site_sees_is_made_of_the_data(backend):
    made = Observing(make=lambda P, r, n: P.dist.Exponential(r))
    shifted = type("Shifted", (Observing,), {"model": lambda self, P, x: Observing.model(self, P, x - 1)})
    look(shifted(make=made.make), rows([1.5, 2]), backend)
    with pytest.raises(DataError, match=f"in row {BAD}"):
        look(shifted(make=made.make), rows([1.5, 2], [1.5, 0.5]), backend)


@BOTH
def test_every_observed_site_is_looked_at(backend):
    class Classes(Observing):
        def model(self, P, x, n):
            super().model(P, x)
            with P.plate("data", x):
                P.sample("n", P.dist.Categorical(P.full((3,), 1 / 3)), obs=n)

    fields = lambda n: {"x": rows(REAL), "n": rows(2, n).astype(np.int64)}
    program = Classes(make=CASES["Exponential"][0])
    look(program, fields(0), backend)
    with pytest.raises(DataError, match=rf"Site 'n'.*in row {BAD}"):
        look(program, fields(3), backend)


@BOTH
def test_masked_entries_do_not_count(backend):
    make = lambda P, r, n: P.dist.Exponential(r).mask(n > 0)
    there = rows([1, 1], [1, 0])
    look(Observing(make=make), {"x": rows(REAL, [0.5, -1]), "n": there}, backend)
    with pytest.raises(DataError, match=f"in row {BAD}"):
        look(Observing(make=make), {"x": rows(REAL, [-0.5, 1]), "n": there}, backend)


UNIFORM = lambda P, r, n: P.dist.Uniform(0 * r, r)
BINOMIAL = lambda P, r, n: P.dist.Binomial(total_count=n, logits=r)


@BOTH
def test_bounds_of_data_parameters_and_draws(backend):
    """Of data: a fact. Of parameters: refused to begin with, −∞ later. Of draws: −∞."""
    total = rows([3, 3], [3, 1])
    look(Observing(make=BINOMIAL), {"x": rows([2, 3], [2, 1]), "n": total}, backend)
    for training in (True, False):
        with pytest.raises(DataError, match=f"in row {BAD}"):
            look(Observing(make=BINOMIAL), {"x": rows([2, 3]), "n": total}, backend, training)
    with pytest.raises(DataError, match=rf"at the first values of the parameters, first in row {BAD}"):
        look(Observing(make=UNIFORM), rows(REAL, [0.5, 1.5]), backend)
    look(Observing(make=UNIFORM), rows(REAL, [0.5, 1.5]), backend, training=False)
    look(Observing(make=UNIFORM, draws=True), rows(REAL, [0.5, 1.5]), backend)


@BOTH
def test_outside_a_bound_of_parameters_everything_is_minus_infinity(backend):
    """Uniform(0, θ) and q = p: the ELBO and log p(x) are −2 log θ, or −∞; neither is NaN, and nothing warns."""
    program, theta = Observing(make=UNIFORM), 1.25
    params = {"raw": np.full(2, np.log(theta), "float32"), "loc": np.zeros(1, "float32")}
    fit = ppdgm.inference.Fit(program, params, backend)
    x = rows(REAL, [0.5, 1.5])[BAD - 2 : BAD + 3]
    expected = np.where(np.arange(5) == 2, -np.inf, -2 * np.log(theta))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for found in (fit.elbo(x, k=3), fit.log_likelihood(x, k=3)):
            np.testing.assert_allclose(found.values, expected, rtol=1e-5)
            assert found.mean == -np.inf
            assert np.isnan([found.standard_error, found.monte_carlo_error]).all()
            assert str(found).startswith("-inf nats, because 1 of N = 5 rows")
    assert fit.log_weights(x, k=2)[:, 2].tolist() == [-np.inf, -np.inf]


def t(*numbers):
    return torch.tensor(numbers) if len(numbers) > 1 else torch.tensor(numbers[0])


PYRO_BOUNDS = [  # (distribution, values inside, values outside)
    (pyd.Uniform(t(1.0), t(2.0)), [1.5], [0.5, 2.5]),
    (pyd.Binomial(t(3.0), t(0.4)), [0, 3], [-1, 4]),
    (pyd.BetaBinomial(t(1.0), t(2.0), total_count=t(3.0)), [0, 3], [-1, 4]),
    (pyd.DirichletMultinomial(t(1.0, 2.0), total_count=t(3.0)), [[1, 2]], [[1, 1], [-1, 4]]),
    (pyd.AffineBeta(t(2.0), t(2.0), t(1.0), t(2.0)), [1.5], [0.5, 3.5]),
    (pyd.Pareto(t(1.0), t(2.0)), [1.5], [0.5]),
    (pyd.GeneralizedPareto(t(1.0), t(2.0), t(-0.5)), [1.5, 4.5], [0.5, 5.5]),
]
NUMPYRO_BOUNDS = [
    (npd.Uniform(1.0, 2.0), [1.5], [0.5, 2.5]),
    (npd.BinomialProbs(0.4, np.float32(3) * jnp.ones(1)), [0, 3], [-1, 4]),
    (npd.BetaBinomial(1.0, 2.0, jnp.full(1, 3)), [0, 3], [-1, 4]),
    (npd.Pareto(1.0, 2.0), [1.5], [0.5]),
    (npd.LogUniform(jnp.ones(1), 2.0), [1.5], [0.5, 2.5]),
    (npd.TruncatedNormal(0.0, 1.0, low=jnp.ones(1), high=2.0), [1.5], [0.5, 2.5]),
    (npd.DiscreteUniform(jnp.full(1, 1), 3), [1, 3], [0, 4]),
]


@pytest.mark.parametrize("d, good, bad", [*PYRO_BOUNDS, *NUMPYRO_BOUNDS], ids=lambda v: type(v).__name__)
def test_log_p_is_minus_infinity_beyond_bounds_that_are_parameters(d, good, bad):
    """And else what the library says; with its checks on, nothing is raised."""
    if isinstance(d, torch.distributions.Distribution):
        found = lambda x: observe_torch(d, torch.tensor(x, dtype=torch.float32), lambda d, x: d.log_prob(x)).tolist()
        expected = d.log_prob(torch.tensor(good, dtype=torch.float32)).tolist()
    else:
        found = lambda x: observe_jax(
            d, np.asarray(x, "float32"), lambda: d.log_prob(np.asarray(x, "float32"))
        ).tolist()
        expected = d.log_prob(np.asarray(good, "float32")).tolist()
    assert found(good) == expected and np.isfinite(expected).all()
    assert found(bad) == [-np.inf] * len(bad)


# --- plain pairs ------------------------------------------------------------------------------------------------------


def pyro_pair(how, part=None):
    def model(x):
        rate = pyro.param("rate", torch.ones(4), constraint=pyd.constraints.positive)
        with pyro.plate("data", N if part else x.shape[0], subsample_size=part, dim=-2 if how == "plates" else -1) as i:
            z = pyro.sample("z", pyd.Normal(0.0, 1.0))
            d = pyd.Exponential(rate + 0 * (z if how == "plates" else z[..., None]))
            if how == "plates":
                with pyro.plate("columns", 4):
                    pyro.sample("x", d, obs=x[i])
            elif how == "mask":
                with pyro.poutine.mask(mask=x[i][:, 0] >= 0):
                    pyro.sample("x", d.to_event(1), obs=x[i])
            else:
                pyro.sample("x", d.to_event(1), obs=x[i] if part else x.reshape(-1, 4))

    def guide(x):
        with pyro.plate("data", N if part else x.shape[0], subsample_size=part, dim=-2 if how == "plates" else -1):
            pyro.sample("z", pyd.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    return Program.from_pyro(model, guide)


def numpyro_pair(how, part=None):
    def model(x):
        rate = numpyro.param("rate", np.ones(4, "float32"), constraint=npd.constraints.positive)
        dim = -2 if how == "plates" else -1
        with numpyro.plate("data", N if part else x.shape[0], subsample_size=part, dim=dim) as i:
            z = numpyro.sample("z", npd.Normal(0.0, 1.0))
            d = npd.Exponential(rate + 0 * (z if how == "plates" else z[..., None]))
            if how == "plates":
                with numpyro.plate("columns", 4):
                    numpyro.sample("x", d, obs=x[i])
            elif how == "mask":
                with numpyro.handlers.mask(mask=x[i][:, 0] >= 0):
                    numpyro.sample("x", d.to_event(1), obs=x[i])
            else:
                numpyro.sample("x", d.to_event(1), obs=x[i] if part else x.reshape(-1, 4))

    def guide(x):
        dim = -2 if how == "plates" else -1
        with numpyro.plate("data", N if part else x.shape[0], subsample_size=part, dim=dim):
            numpyro.sample("z", npd.Normal(numpyro.param("loc", 0.0), 1.0))

    return Program.from_numpyro(model, guide)


@pytest.mark.parametrize("how, part", [("", None), ("", 8), ("plates", None), ("plates", 8), ("mask", None)])
@pytest.mark.parametrize("pair, backend", [(pyro_pair, "pyro"), (numpyro_pair, "numpyro")])
def test_pairs(pair, backend, how, part):
    look(pair(how, part), rows([0.5] * 4), backend)
    with pytest.raises(DataError, match=f"in row {BAD}. 1 of {N} rows"):
        look(pair(how, part), rows([0.5] * 4, [0.5, 0.5, 0.5, -1]), backend)
    if how == "mask":
        look(pair(how, part), rows([0.5] * 4, [-1, 0.5, 0.5, 0.5]), backend)


# --- where it is asked ------------------------------------------------------------------------------------------------


def test_every_entry():
    program = Observing(make=CASES["Exponential"][0])
    good, bad = rows(REAL), rows(REAL, [0.5, -1])
    fit = ppdgm.fit(program, good, backend="pyro", steps=1, progress=False)
    for asked in (
        lambda: ppdgm.fit(program, bad, backend="pyro", steps=1, progress=False),
        lambda: ppdgm.fit(program, good, validation=bad, backend="pyro", steps=1, progress=False),
        lambda: fit.elbo(bad),
        lambda: fit.log_likelihood(bad, k=2),
        lambda: fit.log_weights(bad),
        lambda: fit.encode(bad),
        lambda: fit.reconstruct(bad),
        lambda: fit.posterior(bad),
        lambda: fit.diagnose(bad),
        lambda: fit.to_arviz(bad),
        lambda: ppdgm.log_weights(program, fit.params, bad, backend="pyro"),
    ):
        with pytest.raises(DataError, match=f"in row {BAD}"):
            asked()


@BOTH
def test_probabilities_are_looked_at_as_what_is_drawn_of_them(backend):
    program = Observing(make=CASES["Bernoulli"][0])
    look(program, rows([0.2, 0.9]), backend, rounded=True)
    with pytest.raises(DataError, match="in row 0"):
        look(program, rows([0.2, 0.9]), backend)


def test_the_packages_own_programs_are_not_looked_at_twice(monkeypatch):
    def twice(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(load("pyro").Runtime, "observed", twice)
    look(VAE(event_shape=(2,), likelihood=Bernoulli()), rows([0, 1]), "pyro")
    for name in likelihoods.__all__:
        part = getattr(likelihoods, name)
        if isinstance(part, type) and issubclass(part, likelihoods.Likelihood) and part is not likelihoods.Likelihood:
            assert part.__module__.startswith("ppdgm.models.")


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_checks_that_a_program_puts_off_are_off(backend):
    """Grey values of a Bernoulli, as Pyro's own tutorial has them; an own density's checks can't be put off."""
    make = lambda P, r, n: P.dist.Bernoulli(probs=r / 9, validate_args=False)
    look(Observing(make=make), rows([0.3, 0.9]), backend)
    with pytest.raises(DataError):
        look(Observing(make=own_density("positive")), rows(REAL, [0.5, -1]), backend)


class Waiting(Program):
    """z ~ Exponential(1), which the guide, N(6, 1), leaves once in 10⁹ draws; x ~ N(z, 1)."""

    def build(self, c):
        c.param("loc", (), constant(6.0), label="guide")
        c.param("shift", ())

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Exponential(P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(z + P.param("shift"), 1.0).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.full((1,), 0.0) + P.param("loc"), 1.0).to_event(1))


def pyro_waiting():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyd.Exponential(torch.ones(1)).to_event(1))
            pyro.sample("x", pyd.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(6.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyd.Normal(loc * torch.ones(1), 1.0).to_event(1))

    return Program.from_pyro(model, guide)


def numpyro_waiting():
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", npd.Exponential(jnp.ones(1)).to_event(1))
            numpyro.sample("x", npd.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        loc = numpyro.param("loc", 6.0)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", npd.Normal(loc * jnp.ones(1), 1.0).to_event(1))

    return Program.from_numpyro(model, guide)


@pytest.mark.parametrize(
    ("make", "backend"),
    [(Waiting, "pyro"), (Waiting, "numpyro"), (pyro_waiting, "pyro"), (numpyro_waiting, "numpyro")],
)
def test_latents_outside_their_support_weigh_nothing(make, backend):
    """The guide's own log-density, and log p of latents inside, stay what they are."""
    program, x = make(), np.full((2, 1), 5.0, "float32")
    params = {"loc": np.float32(6.0), "shift": np.float32(0.0)}
    params = params if make is Waiting else {"loc": params["loc"]}
    z = np.array([[[-0.5], [2.0]], [[1.0], [-3.0]]], "float32")
    found = ppdgm.trace(program, params, x, k=2, backend=backend, values={"z": z})
    right = np.where(z[..., 0] < 0, -np.inf, -z[..., 0])
    assert np.allclose(found.log_p["z"], right, atol=1e-6)
    assert np.allclose(found.log_q["z"], norm.logpdf(z[..., 0], 6.0), atol=1e-5)
    assert np.allclose(found.log_p["x"], norm.logpdf(5.0, z[..., 0]), atol=1e-5)


@pytest.mark.parametrize(
    ("confine", "dist", "array"),
    [(confine_torch, pyd, torch.tensor), (confine_jax, npd, jnp.array)],
    ids=["pyro", "numpyro"],
)
def test_bounds_of_latents_are_of_each_number(confine, dist, array):
    """Whatever the formula gives outside; what has to sum to 1 does so up to rounding, and is left alone."""
    for d, good, bad in ((dist.LogNormal(0.0, 1.0), 0.5, -0.5), (dist.Beta(array(2.0), array(2.0)), 0.5, 1.5)):
        assert confine(d, array([good, bad]), array([0.25, 0.25])).tolist() == [0.25, -np.inf]
    simplex = dist.Dirichlet(array([1.0, 1.0]))
    assert float(confine(simplex, array([0.5, 0.50001]), array(0.25))) == 0.25


class Leaving(Program):
    """z ~ Exponential(1) and q(z|x) = N(3, 1), which is below 0 with a probability of 0.00135."""

    def build(self, context):
        context.param("loc", (), lambda rng, shape, data: np.full(shape, 3.0))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Exponential(P.full((), 1.0)))
            P.sample("x", P.dist.Normal(z, P.full((), 1.0)), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("loc") + 0.0 * x, P.full((), 1.0)))


@BOTH
def test_a_guide_that_leaves_the_support_is_told_of_with_its_rows(backend):
    """The rows are those of -inf: as many as Φ(−3) has them leave in k draws, within 4 standard errors, seed 0."""
    x, k = np.full(60, 1.0, np.float32), 500
    fit = ppdgm.fit(Leaving(), x, steps=1, learning_rate=0.0, backend=backend, progress=False)
    with pytest.warns(UserWarning, match=r"'z': in .* the guide draws values outside the support") as told:
        found = fit.elbo(x, k=k)
    (rows,) = re.search(r"in (\d+) of 60 rows", str(told[0].message)).groups()
    leave = 1 - norm.cdf(3) ** k  # a row with a draw below 0; of Pyro's closed form, KL = ∞, any row
    assert int(rows) == np.isneginf(found.values).sum()
    assert int(rows) == 60 or abs(int(rows) - 60 * leave) < 4 * (60 * leave * (1 - leave)) ** 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(fit.log_likelihood(x, k=1000).values).all()  # such draws weigh nothing


class Table(Program):
    """x ~ N(t[i], 1), or with the class of i in a one-hot vector; or c ~ Cat(3) instead of i, summed out."""

    how: str = "index"
    size: int = 3

    def build(self, c):
        c.param("t", (self.size,), lambda rng, shape, data: np.arange(shape[0]))
        c.param("logits", (3,))

    def model(self, P, x, i=None):
        with P.plate("data", x):
            if self.how == "latent":
                i = P.sample("c", P.dist.Categorical(logits=P.param("logits")), infer={"enumerate": "parallel"})
            t = P.param("t")
            loc = P.xp.sum(P.one_hot(i, self.size) * t, axis=-1) if self.how == "one_hot" else t[i]
            P.sample("x", P.dist.Normal(loc[..., None], P.full((1,), 1.0)).to_event(1), obs=x)


@BOTH
@pytest.mark.parametrize("how", ["index", "one_hot"])
def test_an_index_outside_its_axis_is_refused(how, backend):
    """JAX took the last number of the table (or a vector of zeros), trained on it, and told an exact log p."""
    program, index = Table(how=how), np.arange(N) % 3
    fit = ppdgm.Fit(program, program.initialise(0), backend)
    x = np.zeros((N, 1), "float32")
    np.testing.assert_allclose(fit.elbo({"x": x, "i": index}).values, norm(index, 1).logpdf(0), rtol=1e-5)
    index[BAD] = 3
    where = f"Row {BAD}.*3" if backend == "numpyro" else "out of bounds|num_classes"
    with pytest.raises(ProgramError, match=where):
        fit.log_likelihood({"x": x, "i": index}, k=2)
    with pytest.raises(ProgramError, match=where):
        ppdgm.fit(program, {"x": x, "i": index}, steps=1, backend=backend, progress=False, compile=False)
    fit.info.update(fields=["x", "i"], shapes={"x": [1], "i": []})
    assert fit.sample(3, given={"i": [0, 2, 1]}).shape == (3, 1)
    with pytest.raises(PpdgmError, match=r"index 3|class 3|num_classes"):
        fit.sample(3, given={"i": [0, 3, 1]})


@BOTH
def test_a_table_with_too_few_numbers_for_a_latent_is_refused(backend):
    program = Table(how="latent", size=2)
    with pytest.raises(ProgramError, match="index 2 is out of bounds"):
        ppdgm.Fit(program, program.initialise(0), backend).elbo(rows([0.0]))


def test_indices_that_jax_can_not_check_are_told(monkeypatch):
    def unknown(function):
        def checked(*args):
            raise NotImplementedError

        return checked

    monkeypatch.setattr("ppdgm.backends.numpyro.runtime.with_indices_checked", unknown)
    program, fields = Table(), {"x": np.zeros((N, 1), "float32"), "i": np.arange(N) % 3}
    with pytest.warns(UserWarning, match="JAX can't check that it stays within its axis .NotImplementedError"):
        found = ppdgm.Fit(program, program.initialise(0), "numpyro").elbo(fields)
    np.testing.assert_allclose(found.values, norm(fields["i"], 1).logpdf(0), rtol=1e-5)


def test_a_plain_numpyro_pair_with_an_index_outside_its_axis_gets_a_warning():
    def model(x, i):
        t = numpyro.param("t", jnp.arange(3.0))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", npd.Normal(t[i], 1.0), obs=x)

    fields = {"x": np.zeros(5), "i": np.array([0, 1, 2, 0, 3])}
    with pytest.warns(UserWarning, match="Row 4: out-of-bounds .* index 3"):
        ppdgm.fit(Program.from_numpyro(model), fields, steps=1, progress=False)


@pytest.mark.parametrize("far", [False, True])
def test_draws_with_indices_of_their_own_do_not_hide_those_of_the_program(far):
    """JAX's checks refused LKJ's and Wishart's own draws, and could not read Multinomial's, nor Poisson's for draws."""

    def model(x, i):
        numpyro.sample("corr", npd.LKJCholesky(3, 1.0))
        numpyro.sample("cov", npd.Wishart(4.0, jnp.eye(2)))
        with numpyro.plate("data", len(x)):
            n = numpyro.sample("n", npd.Poisson(2.0))
            k = numpyro.sample("k", npd.Multinomial(5, jnp.ones(3) / 3))
            numpyro.sample("x", npd.Normal(jnp.arange(3.0)[i] + 0 * (n + k[..., 0]), 1.0), obs=x)

    def guide(x, i):
        numpyro.sample("corr", npd.LKJCholesky(3, 1.0))
        numpyro.sample("cov", npd.Wishart(4.0, jnp.eye(2)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("n", npd.Poisson(2.0))
            numpyro.sample("k", npd.Multinomial(5, jnp.ones(3) / 3))

    index = np.array([0, 1, 2, 0, 3 if far else 1])
    fit = ppdgm.Fit(Program.from_numpyro(model, guide), {}, "numpyro")
    with pytest.warns(UserWarning, match="Row 4: .*index 3") if far else contextlib.nullcontext():
        found = fit.elbo({"x": np.zeros(5), "i": index}, k=2)
    np.testing.assert_allclose(found.values[:4], norm(index[:4], 1).logpdf(0), rtol=1e-5)
