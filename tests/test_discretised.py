"""Any likelihood with a CDF, discretised: tails and narrow cells against SciPy, your own, refusals."""

import numpy as np
import pytest
from flow_tools import Plain
from likelihood_tools import log_prob
from readings import BACKENDS
from reference.likelihoods import LaplaceTails, log_discretised
from scipy.stats import laplace, norm

import ppdgm
from ppdgm.errors import ProgramError, SpecError
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import (
    MADE,
    AutoregressiveModel,
    Bernoulli,
    Categorical,
    Discretised,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
)
from ppdgm.models.likelihoods.interval_mass import log_laplace_mass, log_left_tail, log_normal_mass
from ppdgm.models.likelihoods.scale import LocationScaleLikelihood

P = NumpyVocabulary(Plain(), {}, Declarations())
FAMILIES = {"gaussian": (Gaussian, norm, log_normal_mass), "laplace": (Laplace, laplace, log_laplace_mass)}
every_family = pytest.mark.parametrize("family", FAMILIES)


def test_the_left_tail_is_scipys():
    e = -np.concatenate([[0.0, 1e-9, 1e-3], np.linspace(0.1, 40, 400), 10.0 ** np.arange(2, 12)])
    np.testing.assert_allclose(log_left_tail(P, e), norm.logcdf(e), rtol=2e-14, atol=2e-15)


def by_pieces(d, low, high):
    """log of the mass of an interval by Gauss's rule on 2,000 pieces of the density, each relative to its largest."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(low, high, 2001)
    edges = np.union1d(edges, [0.0]) if low < 0 < high else edges  # where a density may have a kink
    half = 0.5 * np.diff(edges)[:, None]
    at = edges[:-1, None] + half * (nodes + 1)
    terms = d.logpdf(at) + np.log(half * weights)
    top = terms.max()
    return top + np.log(np.exp(terms - top).sum())


@every_family
def test_masses_of_intervals(family):
    """Narrow and wide, in both tails and around the middle; each next to its mirror image."""
    _, d, mass = FAMILIES[family]
    for low in (-30.0, -6.0, -1.0, -0.3, -0.05, 0.0, 0.2, 5.0, 25.0):
        for width in (1e-6, 1e-3, 0.05, 0.12, 0.7, 3.0):
            found = mass(P, np.array([low, -low - width]), np.array([low + width, -low]))
            np.testing.assert_allclose(found, by_pieces(d, low, low + width), rtol=1e-9, atol=3e-9)
    ends = mass(P, np.array([-1e10, 0.5, -1e10]), np.array([0.5, 1e10, 1e10]))
    np.testing.assert_allclose(ends, [d.logcdf(0.5), d.logsf(0.5), 0.0], atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_family
def test_tails_are_stable(family, dtype, backend):
    """Scales from far narrower than a level to far wider than all, locations inside and far outside."""
    cls, d, _ = FAMILIES[family]
    loc, log_scale, x = (
        a.ravel()
        for a in np.meshgrid([-3.0, -0.9, 0.011, 0.6, 2.0], np.log([0.004, 0.05, 1.0, 50.0]), [0, 1, 100, 254, 255])
    )
    raw = np.log(np.expm1(np.exp(log_scale) - 1e-3))
    head = np.stack([loc, raw], 1)[:, :, None].astype(dtype).astype(float)
    value, slope = log_prob(backend, Discretised(of=cls(scale="network")), x[:, None].astype(float), head, dtype)
    scale = 1e-3 + np.logaddexp(0, head[:, 1, 0])
    d = LaplaceTails if d is laplace else d
    with np.errstate(divide="ignore", invalid="ignore"):
        right = log_discretised(x, d(head[:, 0, 0], scale), 256)
    assert np.isfinite(right).all()  # the reference is in float64
    np.testing.assert_allclose(
        value, right, rtol=2e-5 if dtype == "float32" else 1e-8, atol=1e-4 if dtype == "float32" else 1e-8
    )
    assert np.isfinite(slope).all()


class Logistic(LocationScaleLikelihood):
    """Your own: a logistic."""

    def distribution(self, P, *head):
        loc, scale = self.location_and_scale(P, head[0])
        e = lambda x: (x - loc) / scale
        lead = tuple(loc.shape[: len(loc.shape) - len(P.shape)])
        log_f = lambda x: P.xp.sum(-e(x) - 2 * P.softplus(-e(x)) - P.xp.log(scale), axis=-1)
        sample = lambda random, batch: (self.draw(P, random, (*batch, *P.shape), head[0]), None)
        return P.distribution(sample, log_f, P.shape, lead, mean=lambda: loc)

    def log_mass(self, P, low, high, head):
        loc, scale = self.location_and_scale(P, head)
        a, b = (low - loc) / scale, (high - loc) / scale
        return -P.softplus(-b) - P.softplus(a) + P.xp.log(-P.xp.expm1(a - b))

    def draw(self, P, random, shape, head):
        loc, scale = self.location_and_scale(P, head)
        u = random.uniform(shape)
        return loc + scale * (P.xp.log(u) - P.xp.log1p(-u))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_logistic_of_your_own_is_the_discretised_logistic(backend):
    x = np.arange(16.0)[:, None]
    head = np.random.default_rng(0).normal(size=(16, 2, 1))
    own = log_prob(backend, Discretised(levels=16, of=Logistic(scale="network")), x, head)
    for mine, theirs in zip(own, log_prob(backend, DiscretisedLogistic(levels=16), x, head), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-9)


def test_it_is_a_number_of_an_autoregressive_model():
    x = np.random.default_rng(0).binomial(7, 0.4, size=(60, 3)).astype("float32")
    program = AutoregressiveModel(event_shape=(3,), net=MADE(hidden=(8,)), likelihood=Discretised(levels=8))
    fit = ppdgm.fit(program, x, backend="pyro", steps=3, batch_size=60, compile=False, progress=False)
    assert fit.elbo(x).exact and fit.elbo(x).dimensions == 3
    drawn = fit.sample(50)
    assert ((drawn >= 0) & (drawn <= 7) & (drawn == np.rint(drawn))).all()


def test_refusals():
    for of in (Bernoulli(), Categorical()):
        with pytest.raises(SpecError, match=f"{type(of).__name__}, which has no log_mass"):
            Discretised(of=of)
    with pytest.raises(ProgramError, match="no log_mass"):
        Bernoulli().log_mass(P, 0.0, 1.0, 0.0)
