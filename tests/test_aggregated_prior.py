"""The aggregated posterior as prior: its density, its draws, and the ELBO as reconstruction minus information."""

import numpy as np
import pytest
from readings import BACKENDS, get_runtime
from scipy.special import logsumexp
from scipy.stats import kstest, norm

import ppdgm
from ppdgm.errors import SpecError
from ppdgm.models import MLP, VAE, AggregatedPosterior, DiagonalNormal, Gaussian, StandardNormal

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 2)).astype("float32")
NET = MLP(hidden=(4,))


def make(n=30):
    return VAE(
        event_shape=(2,), latent=1, encoder=NET, decoder=NET, likelihood=Gaussian(scale=0.7),
        posterior=DiagonalNormal(min_scale=0.05), prior=AggregatedPosterior(components=n),
    )  # fmt: skip


@pytest.fixture(scope="module", params=BACKENDS)
def fit(request):
    how = {"steps": 300, "batch_size": 30, "learning_rate": 0.02, "compile": False, "progress": False}
    return ppdgm.fit(make(), X, backend=request.param, **how)


def forward(params, net, x):
    h = np.tanh(x @ params[f"{net}.layers.0.weight"] + params[f"{net}.layers.0.bias"])
    return h @ params[f"{net}.layers.1.weight"] + params[f"{net}.layers.1.bias"]


def posterior(params, x):
    """Mean and scale [N] by the encoder's equation."""
    out = forward(params, "encoder", x)
    return out[:, 0], 0.05 + np.logaddexp(0, out[:, 1])


def test_the_elbo_on_the_training_data_is_reconstruction_minus_mutual_information(fit):
    """By quadrature over z: KL(q(z)‖p(z)) = 0, so the mean KL is I(x; z)."""
    params = {n: v.astype(float) for n, v in fit.params.items()}
    np.testing.assert_array_equal(params["prior.rows"], X)
    loc, scale = posterior(params, X.astype(float))
    z = np.linspace(-30, 30, 40_001)
    q = norm.pdf(z[:, None], loc, scale)
    log_q = norm.logpdf(z[:, None], loc, scale)
    marginal = logsumexp(log_q, axis=1) - np.log(30)
    step = z[1] - z[0]
    information = (q * (log_q - marginal[:, None])).sum(0).mean() * step
    x_hat = forward(params, "decoder", z[:, None])
    log_x = norm.logpdf(X[None], x_hat[:, None], 0.7).sum(-1)
    reconstruction = (q * log_x).sum(0).mean() * step
    found = fit.elbo(X, k=3000)
    assert abs(found.mean - (reconstruction - information)) < 4 * found.monte_carlo_error
    assert found.monte_carlo_error < 0.02 and information > 0.3


def test_its_draws_are_those_of_the_posteriors(fit):
    """KS of 4,000 draws of the prior, seed 3, against the mixture; moved by a fifth of their spread, they fail."""
    loc, scale = posterior({n: v.astype(float) for n, v in fit.params.items()}, X.astype(float))
    runtime = get_runtime(fit.backend, fit.program)
    latents, _ = runtime.prior(runtime.put(fit.params), {"x": None}, 4000, 3, False)
    z = np.asarray(latents["z"])[0, :, 0].astype(float)
    cdf = lambda z: norm.cdf(z[:, None], loc, scale).mean(1)
    assert kstest(z, cdf).pvalue > 1e-3
    assert kstest(z + 0.2 * z.std(), cdf).pvalue < 1e-3


def test_no_prior_has_a_larger_elbo_on_the_training_data(fit):
    """Against N(0, I) with the same nets: the gain is KL(q(z)‖N(0, I)) ≥ 0."""
    same = fit.program.replace(prior=StandardNormal())
    params = {n: v for n, v in fit.params.items() if n != "prior.rows"}
    other = ppdgm.Fit(program=same, params=params, backend=fit.backend)
    gain = fit.elbo(X, k=2000), other.elbo(X, k=2000)
    assert gain[0].mean > gain[1].mean + 4 * (gain[0].monte_carlo_error + gain[1].monte_carlo_error)


def test_it_is_saved_and_another_number_of_rows_is_refused(tmp_path):
    how = {"steps": 2, "compile": False, "progress": False, "backend": "numpyro"}
    first = ppdgm.fit(make(), X, out=tmp_path / "run", **how)
    again = ppdgm.load(tmp_path / "run")
    np.testing.assert_array_equal(again.params["prior.rows"], X)
    assert again.elbo(X[:5]).mean == first.elbo(X[:5]).mean
    with pytest.raises(
        SpecError, match=r"got 20 for training data of shape .30, 2., .* AggregatedPosterior.components=30."
    ):
        ppdgm.fit(make(20), X, **how)
