"""Densities at the ends of their supports, of every distribution that both libraries have: SciPy's, or the formula."""

from math import inf, log, pi

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from readings import BACKENDS
from scipy import stats

from ppdgm import Program
from ppdgm.backends import numpyro as numpyro_backend
from ppdgm.backends import pyro as pyro_backend
from ppdgm.backends.numpyro.distributions import Distributions, mended
from ppdgm.backends.pyro.distributions import DISTRIBUTIONS
from ppdgm.backends.pyro.distributions import mended as mended_torch
from ppdgm.backends.pyro.vocabulary import unvalidated
from ppdgm.errors import ProgramError
from ppdgm.program import zeros

SHARES, ODDS = [0.2, 0.5, 0.3], [0.2, 0.8, 0.5]
STEPS = [-1.0, 0.2, 1.4]
ORDERED = log(stats.logistic.cdf(0.2, 0.3) - stats.logistic.cdf(-1.0, 0.3))
ENDS = [  # (distribution, parameters, value, log p)
    ("Exponential", (1.7,), 0.0, stats.expon.logpdf(0, scale=1 / 1.7)),
    ("Gamma", (1.0, 1.7), 0.0, stats.gamma.logpdf(0, 1, scale=1 / 1.7)),
    ("Gamma", (2.0, 1.7), 0.0, -inf),
    ("Gamma", (0.5, 1.7), 0.0, inf),
    ("Chi2", (2.0,), 0.0, stats.chi2.logpdf(0, 2)),
    ("HalfNormal", (1.3,), 0.0, stats.halfnorm.logpdf(0, scale=1.3)),
    ("HalfCauchy", (1.3,), 0.0, stats.halfcauchy.logpdf(0, scale=1.3)),
    ("Weibull", (2.0, 1.0), 0.0, stats.weibull_min.logpdf(0, 1, scale=2)),
    ("Weibull", (2.0, 2.0), 0.0, -inf),
    ("Beta", (1.0, 1.6), 0.0, stats.beta.logpdf(0, 1, 1.6)),
    ("Beta", (1.6, 1.0), 1.0, stats.beta.logpdf(1, 1.6, 1)),
    ("Beta", (2.0, 2.0), 0.0, -inf),
    ("Kumaraswamy", (1.0, 1.6), 0.0, log(1.6)),
    ("Kumaraswamy", (1.6, 1.0), 1.0, log(1.6)),
    ("Kumaraswamy", (1.6, 2.0), 1.0, -inf),
    ("Uniform", (-0.5, 1.5), 1.5, stats.uniform.logpdf(1.5, -0.5, 2.0)),
    ("Uniform", (-0.5, 1.5), -0.5, stats.uniform.logpdf(-0.5, -0.5, 2.0)),
    ("Pareto", (1.5, 2.0), 1.5, stats.pareto.logpdf(1.5, 2, scale=1.5)),
    ("VonMises", (0.3, 1.5), pi, stats.vonmises.logpdf(pi, 1.5, 0.3)),
    ("VonMises", (0.3, 1.5), -pi, stats.vonmises.logpdf(-pi, 1.5, 0.3)),
    ("Bernoulli", (0.3,), 0.0, log(0.7)),
    ("Bernoulli", (0.3,), 1.0, log(0.3)),
    ("Binomial", (5, 0.3), 0.0, stats.binom.logpmf(0, 5, 0.3)),
    ("Binomial", (5, 0.3), 5.0, stats.binom.logpmf(5, 5, 0.3)),
    ("Geometric", (0.3,), 0.0, log(0.3)),
    ("Geometric", (1.0,), 0.0, 0.0),
    ("Poisson", (1.3,), 0.0, -1.3),
    ("BetaBinomial", (1.3, 2.0, 5), 0.0, stats.betabinom.logpmf(0, 5, 1.3, 2.0)),
    ("BetaBinomial", (1.3, 2.0, 5), 5.0, stats.betabinom.logpmf(5, 5, 1.3, 2.0)),
    ("GammaPoisson", (1.3, 2.0), 0.0, stats.nbinom.logpmf(0, 1.3, 2 / 3)),
    ("Categorical", (SHARES,), 2, log(0.3)),
    ("Categorical", (SHARES,), 2.0, log(0.3)),  # as a field x has its numbers
    ("OrderedLogistic", (0.3, STEPS), 1.0, ORDERED),
    ("Multinomial", (4, SHARES), [4.0, 0.0, 0.0], 4 * log(0.2)),
    ("Dirichlet", ([1.0, 1.0, 2.0],), [0.0, 0.4, 0.6], stats.dirichlet.logpdf([0.0, 0.4, 0.6], [1.0, 1.0, 2.0])),
    ("Dirichlet", ([2.0, 1.0, 2.0],), [0.0, 0.4, 0.6], -inf),
    (
        "DirichletMultinomial",
        ([1.0, 1.0, 2.0], 4),
        [4.0, 0.0, 0.0],
        stats.dirichlet_multinomial.logpmf([4, 0, 0], [1, 1, 2], 4),
    ),
]
RIGHT = np.array([right for *_, right in ENDS])
WHOLE = (int,)  # numbers of trials are no parameters


def check(values, inside, gradients):
    np.testing.assert_allclose(values, RIGHT, rtol=1e-6, atol=1e-9)
    finite = np.isfinite(RIGHT)
    assert np.all(np.asarray(inside)[finite])
    assert all(np.isfinite(g).all() for g, f in zip(gradients, finite, strict=True) if f)


def test_ends_of_pyros():
    made = lambda n, p: mended_torch(getattr(pyro_dist, n)(*p))
    tensor = lambda v: torch.tensor(v, dtype=torch.float64)
    values, inside, gradients = [], [], []
    for name, parameters, value, _ in ENDS:
        own = [v if isinstance(v, WHOLE) else tensor(v).requires_grad_() for v in parameters]
        x, leaves = tensor(value), [v for v in own if isinstance(v, torch.Tensor)]
        assert name == "Multinomial" or type(made(name, own)) is type(
            getattr(DISTRIBUTIONS, name)(*own)
        )  # the same in P
        inside.append(bool(made(name, own).support.check(x).all()))
        with unvalidated():
            values.append(made(name, own).log_prob(x))
        slopes = torch.autograd.grad(values[-1], leaves, allow_unused=True)
        gradients.append(np.concatenate([np.ravel(g) for g in slopes if g is not None]))
    check([v.item() for v in values], inside, gradients)


def test_ends_of_numpyros():
    split = [[v for v in parameters if not isinstance(v, WHOLE)] for _, parameters, *_ in ENDS]

    def score(leaves):
        found, inside = [], []
        for (name, parameters, value, _), own in zip(ENDS, leaves, strict=True):
            left, x = iter(own), jnp.asarray(value)
            arguments = [v if isinstance(v, WHOLE) else next(left) for v in parameters]
            d = mended(getattr(numpyro_dist, name)(*arguments))
            assert name == "Bernoulli" or type(d) is type(getattr(Distributions(), name)(*arguments))  # the same in P
            found.append(d.log_prob(x))
            inside.append(jnp.all(d.support(x)))
        return sum(found), (jnp.stack(found), inside)

    with jax.enable_x64(True):
        leaves = [[jnp.asarray(v) for v in own] for own in split]
        gradients, (values, inside) = jax.jit(jax.grad(score, has_aux=True))(leaves)
    check(values, inside, [np.concatenate([np.ravel(v) for v in own]) for own in gradients])


# --- in programs and pairs -----------------------------------------------------------------------------------------


def sites(dist, x, array):
    """Observed sites with a datum each at an end, from x = [[0, 1], …]."""
    zero, one, counts = x[:, 0], x[:, 1], x[:, 2:5]
    return {
        "exponential": (dist.Exponential(array(1.7)), zero),
        "gamma": (dist.Gamma(array(1.0), array(1.7)), zero),
        "half_normal": (dist.HalfNormal(array(1.3)), zero),
        "uniform": (dist.Uniform(array(0.0), array(1.0)), one),
        "events": (dist.Uniform(array([0.0, 0.0]), array([1.0, 2.0])).to_event(1), x[:, :2]),
        "masked": (dist.Exponential(array(1.7)).mask(zero == 0.0), zero),
        "class": (dist.Categorical(array(SHARES)), one),
        "classes": (dist.Categorical(logits=array([ODDS, ODDS])).to_event(1), x[:, :2]),
        "ordered": (dist.OrderedLogistic(array(0.3), array(STEPS)), one),
        "shares": (dist.Dirichlet(array([1.0, 1.0])), x[:, :2]),
        "counts": (dist.Multinomial(5 if dist is pyro_dist else x[:, 5], logits=array(ODDS)), counts),
    }


DATA = np.array([[0, 1, 2, 3, 0, 5], [0, 1, 0, 1, 0, 1]], np.float32)
LOG_SHARES = np.array(ODDS) - np.log(np.exp(ODDS).sum())
SCORES = {
    "exponential": log(1.7),
    "gamma": log(1.7),
    "half_normal": stats.halfnorm.logpdf(0, scale=1.3),
    "uniform": 0.0,
    "events": -log(2.0),
    "masked": log(1.7),
    "class": log(SHARES[1]),
    "classes": LOG_SHARES[0] + LOG_SHARES[1],
    "ordered": ORDERED,
    "shares": 0.0,
    "counts": [stats.multinomial.logpmf(x, x.sum(), np.exp(LOG_SHARES)) for x in DATA[:, 2:5]],
}


class Ends(Program):
    """A site at each end."""

    event_shape: tuple[int, ...] = (6,)

    def build(self, context):
        context.param("unused", (1,), zeros)

    def model(self, P, x):
        with P.plate("data", x):
            for name, (d, value) in sites(P.dist, x, P.constant).items():
                P.sample(name, d, obs=value)

    def guide(self, P, x):
        pass


def pair(backend):
    lib, dist, array = (pyro, pyro_dist, torch.tensor) if backend == "pyro" else (numpyro, numpyro_dist, jnp.array)

    def model(x):
        lib.param("unused", array([0.0]))
        with lib.plate("data", x.shape[0]):
            for name, (d, value) in sites(dist, x, array).items():
                lib.sample(name, d, obs=value)

    return getattr(Program, f"from_{backend}")(model, lambda x: None)


@pytest.mark.parametrize("kind", ["program", "pair"])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_ends_in_programs_and_pairs(backend, kind):
    runtime = {"pyro": pyro_backend, "numpyro": numpyro_backend}[backend].Runtime(
        Ends() if kind == "program" else pair(backend), "cpu"
    )
    data, params = runtime.put({"x": DATA}), runtime.put(runtime.initialise(0, {"x": DATA}, "float32"))
    runtime.validate(params, data, 2, 2)
    found = runtime.trace(params, data, np.arange(2), 1, 0, None, False)
    for name, right in SCORES.items():
        np.testing.assert_allclose(found.log_p[name][0], np.broadcast_to(right, 2), rtol=1e-5, atol=1e-6, err_msg=name)


def test_draws_of_a_multinomial_with_totals():
    totals, probs = torch.tensor([0.0, 3.0, 40.0]), torch.tensor(SHARES)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = DISTRIBUTIONS.Multinomial(totals, probs).sample((4_000,))
    assert torch.equal(drawn.sum(-1), totals.expand(4_000, 3))
    error = (totals[:, None] * probs * (1 - probs) / 4_000).sqrt()
    assert ((drawn.mean(0) - totals[:, None] * probs).abs() <= 4.0 * error).all()
    expected = totals[:, None] * probs * (1 - probs)
    assert ((drawn.var(0) - expected).abs() <= 0.15 * expected).all()


def test_a_pair_with_totals_for_pyros_multinomial_is_told_what_to_do():
    def model(x):
        pyro.param("unused", torch.zeros(1))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("x", pyro_dist.Multinomial(x.sum(-1), logits=torch.zeros(3)), obs=x)

    runtime = pyro_backend.Runtime(Program.from_pyro(model, lambda x: None), "cpu")
    with pytest.raises(ProgramError, match=r"total_count=int\(x.sum\(-1\).max\(\)\)"):
        runtime.initialise(0, {"x": DATA[:, 2:5]}, "float32")


# --- far from the bulk ----------------------------------------------------------------------------------------------

CUTS, FAR = [-1.0, 0.0, 2.0], [-100.0, -30.0, 0.3, 30.0, 100.0]


def ordered(eta, k):
    """log [σ(c_k − η) − σ(c_{k−1} − η)], with 80 digits."""
    with mpmath.workdps(80):
        steps = [mpmath.mpf(0), *(1 / (1 + mpmath.exp(mpmath.mpf(eta) - c)) for c in CUTS), mpmath.mpf(1)]
        return mpmath.log(steps[k + 1] - steps[k])


@pytest.mark.parametrize("how", ["P", "pair"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_ordered_classes_far_from_the_cut_points(backend, how):
    """log p of every class at η, and its slope by η, in float32; with Pyro's own, −15.9 for −101."""
    right = np.array([[float(ordered(eta, k)) for k in range(4)] for eta in FAR])
    slope = np.array([[float(mpmath.diff(lambda e, k=k: ordered(e, k), eta)) for k in range(4)] for eta in FAR])
    eta = np.repeat(np.float32(FAR), 4)
    if backend == "numpyro":
        words, x = Distributions() if how == "P" else numpyro_dist, jnp.tile(jnp.arange(4), 5)
        score = lambda e: mended(words.OrderedLogistic(e, jnp.asarray(CUTS))).log_prob(x)
        values, slopes = score(jnp.asarray(eta)), jax.grad(lambda e: score(e).sum())(jnp.asarray(eta))
    else:
        words, x = DISTRIBUTIONS if how == "P" else pyro_dist, torch.arange(4).repeat(5)
        leaf = torch.tensor(eta, requires_grad=True)
        d = mended_torch(words.OrderedLogistic(leaf, torch.tensor(CUTS)))
        values = d.log_prob(x)
        np.testing.assert_allclose(d.expand([2, 20]).log_prob(x)[1].detach(), values.detach())
        slopes, values = torch.autograd.grad(values.sum(), leaf)[0], values.detach()
    np.testing.assert_allclose(np.asarray(values).reshape(5, 4), right, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(np.asarray(slopes).reshape(5, 4), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("low", [-3.0, 2.0, 5.0, 8.0, 12.0])
def test_normals_between_bounds_above_their_mean(low):
    """In float32; NumPyro's own is 0.04 nats wrong from 5 deviations above the mean, and +∞ from 6."""
    x = np.float32([low, low + 0.25, low + 1])
    d = Distributions().TruncatedNormal(1.0, 2.0, low=1 + 2 * low, high=1 + 2 * (low + 1))
    assert type(d) is type(mended(numpyro_dist.TruncatedNormal(1.0, 2.0, low=0.0, high=1.0)))
    right = stats.truncnorm.logpdf(x, low, low + 1) - np.log(2)
    np.testing.assert_allclose(d.log_prob(1 + 2 * jnp.asarray(x)), right, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(d.mean, stats.truncnorm.mean(low, low + 1, 1, 2), rtol=1e-4)
    slope = jax.grad(
        lambda loc: Distributions().TruncatedNormal(loc, 2.0, low=1 + 2 * low, high=3 + 2 * low).log_prob(2 + 2 * low)
    )
    step = lambda loc: stats.truncnorm.logpdf(2 + 2 * low, (1 + 2 * low - loc) / 2, (3 + 2 * low - loc) / 2, loc, 2)
    np.testing.assert_allclose(slope(1.0), (step(1 + 1e-4) - step(1 - 1e-4)) / 2e-4, rtol=1e-3, atol=1e-4)
