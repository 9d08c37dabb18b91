"""log p(x) and the gaps of a few data where the posterior is not what the guide is: closed forms and quadrature."""

import numpy as np
import pytest
from planted import data, fit_of
from readings import BACKENDS
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from ppdgm.diagnostics.diagnosis import Diagnosis, Gaps
from ppdgm.inference import Fit
from ppdgm.inference.evaluation.evidence import evidence
from ppdgm.inference.evaluation.gaussian import RowGaussians
from ppdgm.inference.evaluation.refit import refit
from ppdgm.models import PPCA

pytestmark = pytest.mark.statistical
SIGMA = 0.5


class Linear:
    """x ~ N(Wz, σ²), z ~ N(0, I) with a posterior whose dimensions are correlated, as a joint density in NumPy."""

    def __init__(self, latent, size=8, width=16, seed=0):
        rng = np.random.default_rng(seed)
        mix = np.eye(latent) + 1.4 * np.tril(np.ones((latent, latent)), -1) / np.sqrt(latent)
        self.W = 0.7 * rng.normal(size=(width, latent)) @ mix
        self.x = rng.normal(size=(size, latent)) @ self.W.T + SIGMA * rng.normal(size=(size, width))
        self.precision = self.W.T @ self.W / SIGMA**2 + np.eye(latent)
        self.mean = self.x @ self.W @ np.linalg.inv(self.precision) / SIGMA**2
        self.scale = np.diag(self.precision) ** -0.5  # of the best diagonal guide
        self.gap = 0.5 * (np.log(np.diag(self.precision)).sum() - np.linalg.slogdet(self.precision)[1])
        covariance = self.W @ self.W.T + SIGMA**2 * np.eye(width)
        self.evidence = multivariate_normal(np.zeros(width), covariance).logpdf(self.x)

    def __call__(self, z, beta=1.0):
        residual = self.x - z @ self.W.T
        slope = -z + beta * residual @ self.W / SIGMA**2
        return norm.logpdf(z).sum(2), norm.logpdf(residual, 0, SIGMA).sum(2), slope

    def draws(self, number, seed=0):
        return self.mean + self.scale * np.random.default_rng(seed).normal(size=(number, *self.mean.shape))

    def log_guide(self, z):
        return norm.logpdf(z, self.mean, self.scale).sum(2)


@pytest.mark.parametrize("latent", [1, 2, 6, 12])
def test_evidence_of_correlated_posteriors_is_exact_where_the_guides_own_is_far_too_low(latent):
    """Of the best diagonal guide; 4 Monte Carlo errors, which are small. The refitted full covariance is exact."""
    model = Linear(latent)
    diagonal, full = (refit(model, model.draws(200), family, 300) for family in ("diagonal", "full"))
    assert np.abs(full.elbo - model.evidence).max() < 0.05
    error = np.sqrt((diagonal.errors**2).sum()) / 8
    assert abs((model.evidence - diagonal.elbo).mean() - model.gap) < 4 * error + 2e-3
    prior = np.random.default_rng(3).normal(size=(1000, *model.mean.shape))
    found = evidence(model, full.posterior, model.draws(1000, 2), prior, model.log_guide)
    assert found.known.all() and found.errors.max() < 0.06
    assert (np.abs(found.values - model.evidence) < 4 * found.errors + 1e-3).all()
    if latent == 12:
        z = model.draws(2000, 4)
        alone = logsumexp(sum(model(z)[:2]) - model.log_guide(z), axis=0) - np.log(2000)
        assert (alone - model.evidence).mean() < -1.5


def test_where_the_mixture_does_not_cover_the_posterior_chains_do_or_it_is_told():
    """A Gaussian a third as wide as the posterior, and two widths of that away from it, in twelve dimensions."""
    model = Linear(12)
    root = np.linalg.cholesky(np.linalg.inv(model.precision))
    off = RowGaussians(model.mean + 2 * root.sum(1) / np.sqrt(12), np.broadcast_to(root / 3, (8, 12, 12)))
    found = evidence(model, off, None, None, model.log_guide, temperatures=300)
    error = np.sqrt((found.errors**2).sum()) / 8
    assert found.known.all() and abs((found.values - model.evidence).mean()) < 4 * error < 0.25
    short = evidence(model, off, None, None, model.log_guide, temperatures=1)
    assert not short.known.any() and (short.values - model.evidence).mean() < -0.3


GRID = np.stack(np.meshgrid(*2 * [np.linspace(-7, 7, 1401)], indexing="ij"), -1).reshape(-1, 1, 2)


def banana(x):
    """x ~ N(z₂ − z₁², ¼²): the posterior is a ridge along a parabola."""

    def joint(z, beta=1.0):
        off = x - z[..., 1] + z[..., 0] ** 2
        slope = np.stack([-2 * z[..., 0] * off, off], -1) * 16
        return norm.logpdf(z).sum(2), norm.logpdf(off, 0, 0.25), -z + beta * slope

    return joint


def two_modes(x):
    """x ~ N(z₁², ½²): two modes in z₁ for x > 0, of which the guide knows one."""

    def joint(z, beta=1.0):
        off = x - z[..., 0] ** 2
        slope = np.stack([2 * z[..., 0] * off, 0 * off], -1) * 4
        return norm.logpdf(z).sum(2), norm.logpdf(off, 0, 0.5), -z + beta * slope

    return joint


@pytest.mark.parametrize("model", [banana, two_modes])
def test_evidence_of_posteriors_that_are_no_gaussians_is_that_of_quadrature(model):
    x = np.array([1.0, 2.0, 4.0])
    joint = model(x)
    exact = logsumexp(sum(joint(GRID)[:2]), axis=0) + 2 * np.log(0.01)
    centre = np.stack([np.sqrt(x) if model is two_modes else 0 * x, 0 * x], 1)
    noise = np.random.default_rng(0).normal(size=(2, 1000, 3, 2))
    guide = centre + 0.3 * noise[0]
    best = refit(joint, guide[:200], "full", 300)
    found = evidence(joint, best.posterior, guide, noise[1], lambda z: norm.logpdf(z, centre, 0.3).sum(2))
    assert (np.abs(found.values - exact) < 4 * found.errors + 1e-3).all() and found.errors.max() < 0.15
    assert found.known[:2].all() and (exact - best.elbo > 0.1).all()
    if model is two_modes:  # half of each would be missed by what knows one mode
        alone = evidence(joint, best.posterior, guide, None, lambda z: norm.logpdf(z, centre, 0.3).sum(2))
        assert abs((exact - alone.values)[2] - np.log(2)) < 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_gaps_of_the_best_diagonal_guide_are_those_of_closed_forms(backend):
    """All of the gap is the family's; 4 errors over data, which are draws' alone."""
    model = Linear(12, width=16)
    slope = np.linalg.inv(model.precision) @ model.W.T / SIGMA**2
    params = {
        "weight": model.W, "loc": np.zeros(16), "log_scale": np.log(SIGMA),
        "guide.weight": slope, "guide.bias": np.zeros(12), "guide.log_scale": np.log(model.scale),
    }  # fmt: skip
    program = PPCA(event_shape=(16,), latent=12, posterior="linear")
    fit = Fit(program, {n: np.asarray(v, "float32") for n, v in params.items()}, backend)
    found = fit.diagnose(model.x.astype("float32"), parts="gaps", refit_steps=300).gaps
    assert found.unknown == 0 and (np.abs(found.log_likelihood - model.evidence) < 4 * found.errors + 5e-3).all()
    for gap, right in ((found.inference, model.gap), (found.approximation, model.gap), (found.amortisation, 0.0)):
        assert abs(gap.value - right) < 4 * gap.error < 0.6


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gap_of_an_exact_guide_is_zero(backend):
    """Its log-weights are log p(x), each of them: no draws are needed."""
    found = fit_of(backend=backend).diagnose(data(8), parts="gaps", few=8, refit_steps=200).gaps
    assert abs(found.inference.value) < 1e-6 and found.inference.error < 1e-6 and (found.errors == 0).all()
    assert abs(found.amortisation.value) < 1e-4


def test_gaps_say_of_which_data_they_are_a_lower_bound_only():
    n = np.zeros(4)
    known = np.array([True, False, True, False])
    gaps = Gaps(np.arange(4), n, n - 0.05, n - 0.02, "diagonal", n, known)
    assert gaps.unknown == 2 and "for 2 of them log p(x) is only a lower bound" in str(gaps)
    verdict = {f.about: str(f) for f in Diagnosis("fit", 4, gaps=gaps).verdict}["Gaps"]
    assert "lower bound" in verdict and "tight" not in verdict
