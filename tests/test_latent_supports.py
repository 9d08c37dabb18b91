"""Latents that are positive, in (0, 1) or on the simplex, and Gumbels: draws, slopes of means, exact posteriors."""

import jax
import numpy as np
import pytest
import torch
from flow_tools import speak
from readings import BACKENDS, get_runtime, precision, run_trace
from scipy.special import betaln
from scipy.special import gamma as gamma_function
from scipy.stats import beta, dirichlet_multinomial, gamma, gumbel_r, kstest, lognorm, nbinom, weibull_min

import ppdgm
from ppdgm import Program
from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import (
    MLP,
    NAF,
    VAE,
    AggregatedPosterior,
    BetaPrior,
    DiagonalBeta,
    DiagonalGamma,
    DiagonalGumbel,
    DiagonalKumaraswamy,
    DiagonalLogNormal,
    DiagonalNormal,
    DiagonalWeibull,
    DirichletPosterior,
    DirichletPrior,
    FlowPosterior,
    GammaPrior,
    StandardNormal,
)
from ppdgm.program import Context

every_backend = pytest.mark.parametrize("backend", BACKENDS)
soft = lambda r: np.logaddexp(0.0, r)
scaled = lambda r, part: part.min_scale + soft(r) - soft(r - (part.max_scale - part.min_scale))

# part -> (head -> SciPy's distribution, head -> its mean), for a head of two numbers
CASES = {
    "gumbel": (
        DiagonalGumbel(),
        lambda m, s, p: gumbel_r(m, scaled(s, p)),
        lambda m, s, p: m + 0.5772156649 * scaled(s, p),
    ),
    "log-normal": (
        DiagonalLogNormal(),
        lambda m, s, p: lognorm(scaled(s, p), scale=np.exp(m)),
        lambda m, s, p: np.exp(m + scaled(s, p) ** 2 / 2),
    ),
    "weibull": (
        DiagonalWeibull(),
        lambda m, s, p: weibull_min(1 / scaled(s, p), scale=np.exp(m)),
        lambda m, s, p: np.exp(m) * gamma_function(1 + scaled(s, p)),
    ),
    "gamma": (
        DiagonalGamma(min_concentration=0.5),
        lambda a, r, p: gamma(0.5 + soft(a), scale=1 / (1e-3 + soft(r))),
        lambda a, r, p: (0.5 + soft(a)) / (1e-3 + soft(r)),
    ),
    "beta": (
        DiagonalBeta(min_concentration=0.7),
        lambda a, b, p: beta(0.7 + soft(a), 0.7 + soft(b)),
        lambda a, b, p: (0.7 + soft(a)) / (1.4 + soft(a) + soft(b)),
    ),
    "kumaraswamy": (
        DiagonalKumaraswamy(min_concentration=0.7),
        None,
        lambda a, b, p: np.exp(np.log(0.7 + soft(b)) + betaln(1 + 1 / (0.7 + soft(a)), 0.7 + soft(b))),
    ),
}
HEAD, SIZE = np.array([0.3, -0.9]), 20_000


def drawn(backend, part, head):
    """Draws [SIZE] of one number at a head, and their gradients by the head [SIZE, 2], float64, seed 3."""
    declared = Declarations()
    Context(declared).part(part, (1,))
    heads = np.tile(head[:, None], (SIZE, 1, 1))
    with precision("float64"):
        if backend == "numpyro":

            def total(heads):
                z = part(speak(backend, {"anchor": np.zeros(())}, declared), heads).rsample(jax.random.key(3))
                return z.sum(), z

            slopes, z = jax.jit(jax.grad(total, has_aux=True))(heads)
            return np.asarray(z)[:, 0], np.asarray(slopes)[:, :, 0]
        with torch.random.fork_rng():
            torch.manual_seed(3)
            heads = torch.tensor(heads, requires_grad=True)
            z = part(speak(backend, {"anchor": np.zeros(())}, declared), heads).rsample()
            return z.detach().numpy()[:, 0], torch.autograd.grad(z.sum(), heads)[0].numpy()[:, :, 0]


@pytest.mark.statistical
@every_backend
@pytest.mark.parametrize("name", CASES)
def test_draws_are_scipys_and_their_slopes_those_of_the_mean(name, backend):
    """KS at 20,000 draws; ∇E z in closed form within 4 standard errors; and drawn 5 % too wide, they would not pass."""
    part, scipy, mean = CASES[name]
    z, slopes = drawn(backend, part, HEAD)
    a, b = 0.7 + soft(HEAD)
    cdf = (lambda z: 1 - (1 - z**a) ** b) if scipy is None else scipy(*HEAD, part).cdf
    assert kstest(z, cdf).pvalue > 1e-3
    assert kstest(z * 1.05, lambda z: cdf(np.minimum(z, 1.0) if part.family == "unit" else z)).pvalue < 1e-3
    step = 1e-5 * np.eye(2)
    right = np.array([(mean(*(HEAD + s), part) - mean(*(HEAD - s), part)) / 2e-5 for s in step])
    error = slopes.std(0) / SIZE**0.5
    assert (np.abs(slopes.mean(0) - right) < 4 * error + 1e-9).all()
    assert (error < 0.05 * np.abs(right).max()).all()


# --- posteriors that are exact: the ELBO of every draw is log p(x) --------------------------------------------------


def unsoft(v):
    return np.log(np.expm1(v))


class Counts(Program):
    """z ~ Gamma(a, b), x | z ~ Poisson(z); the guide is the posterior, Gamma(a + x, b + 1)."""

    prior: GammaPrior = GammaPrior(concentration=1.3, rate=0.7)
    posterior: DiagonalGamma = DiagonalGamma()

    def build(self, context):
        context.param("anchor")
        context.part(self.prior, (1,))
        context.part(self.posterior, (1,))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            P.sample("x", P.dist.Poisson(z).to_event(1), obs=x)

    def guide(self, P, x):
        unsoft = lambda v: P.xp.log(P.xp.expm1(v))
        with P.plate("data", x):
            rate = P.full(tuple(x.shape), float(np.log(np.expm1(1.7 - 1e-3))))
            P.sample("z", self.posterior(P, P.xp.stack([unsoft(x + 0.3), rate], axis=-2)))


class Shares(Program):
    """z ~ Dirichlet(α), x | z ~ Multinomial(5, z); the guide is the posterior, Dirichlet(α + x)."""

    prior: DirichletPrior = DirichletPrior(concentration=1.4)
    posterior: DirichletPosterior = DirichletPosterior()

    def build(self, context):
        context.param("anchor")
        context.part(self.prior, (3,))
        context.part(self.posterior, (3,))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            P.sample("x", P.dist.Multinomial(total_count=5, probs=z), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.posterior(P, P.xp.log(P.xp.expm1(x + 0.4))))


@every_backend
def test_exact_posteriors_have_the_exact_evidence_at_every_draw(backend):
    cases = [
        (Counts(), np.array([[0.0], [1.0], [2.0], [9.0]]), lambda x: nbinom.logpmf(x[:, 0], 1.3, 0.7 / 1.7)),
        (
            Shares(),
            np.array([[5.0, 0, 0], [1, 2, 2], [0, 1, 4]]),
            lambda x: dirichlet_multinomial.logpmf(x.astype(int), [1.4] * 3, 5),
        ),
    ]
    for program, x, log_evidence in cases:
        params = {"anchor": np.zeros((), "float64")}
        with precision("float64"):
            trace = run_trace(get_runtime(backend, program), params, {"x": x}, 6)
        every = sum(trace.log_p.values()) - sum(trace.log_q.values())
        np.testing.assert_allclose(every, np.tile(log_evidence(x), (6, 1)), rtol=1e-6)


def vae(**parts):
    net = MLP(hidden=(4,))
    return VAE(event_shape=(3,), encoder=net, decoder=net, **{"latent": 2, **parts})


def test_a_prior_and_a_posterior_over_other_numbers_are_refused():
    for prior, posterior, words in [
        (StandardNormal(), DiagonalGamma(), "is for positive latents. Choose prior=GammaPrior() or LogNormalPrior()."),
        (GammaPrior(), DiagonalNormal(), "is for real latents"),
        (BetaPrior(), DirichletPosterior(), "Choose prior=DirichletPrior()."),
        (GammaPrior(), DiagonalKumaraswamy(), "Choose prior=BetaPrior()."),
        (AggregatedPosterior(components=3), DiagonalBeta(), "which is for real latents, but"),
    ]:
        with pytest.raises(SpecError) as refused:
            vae(prior=prior, posterior=posterior).declarations()
        assert words in str(refused.value)
    with pytest.raises(SpecError, match=r"FlowPosterior.initial: got DiagonalGamma, which is for positive latents"):
        FlowPosterior(flow=NAF(), initial=DiagonalGamma())
    with pytest.raises(SpecError, match=r"DirichletPrior: got latents of shape .1,., expected at least 2"):
        vae(latent=1, prior=DirichletPrior(), posterior=DirichletPosterior()).declarations()


@every_backend
@pytest.mark.parametrize(
    ("prior", "posterior"),
    [(GammaPrior(), DiagonalWeibull()), (BetaPrior(), DiagonalKumaraswamy()), (DirichletPrior(), DirichletPosterior())],
    ids=["positive", "unit", "simplex"],
)
def test_a_vae_over_them_trains_and_answers(prior, posterior, backend):
    x = (np.random.default_rng(0).random((60, 3)) < [0.1, 0.5, 0.8]).astype("float32")
    program = vae(prior=prior, posterior=posterior)
    fit = ppdgm.fit(program, x, backend=backend, steps=60, learning_rate=0.02, compile=False, progress=False)
    assert np.isfinite(fit.history["elbo"]).all()
    z = fit.encode(x)
    assert (z > 0).all() and fit.sample(5).shape == (5, 3)
    bound, likelihood = fit.elbo(x, k=20), fit.log_likelihood(x, k=200)
    assert bound.mean < likelihood.mean + 3 * likelihood.monte_carlo_error
