"""Published NumPyro programs: regressions, hierarchies, Gaussian processes, missing data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints, transforms
from numpyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal

from benchmarks.published.listing import Made, binary, choices, counts, normal, published

N, Z = 40, 2
CHAINS = "AutoNormal; published with NUTS"
NB = "notebooks/source/"


def regression(path: str, plate: str, name: str, model, data, guide=AutoNormal, told: str = CHAINS, change: str = ""):
    """A program with latents that all data share, under one of the library's guides."""

    def make() -> Made:
        return model, guide(model), data()

    make.__name__ = name
    published("numpyro", path, plate, change, told)(make)


def _logistic(data, labels, subsample_size=None):
    dim = data.shape[1]
    coefs = numpyro.sample("coefs", dist.Normal(jnp.zeros(dim), jnp.ones(dim)))
    with numpyro.plate("N", data.shape[0], subsample_size=subsample_size) as idx:
        numpyro.sample("obs", dist.Bernoulli(logits=jnp.dot(data[idx], coefs)), obs=labels[idx])


def _subsampled(data, obs):
    n, m = data.shape
    theta = numpyro.sample("theta", dist.Normal(jnp.zeros(m), 0.5 * jnp.ones(m)))
    with numpyro.plate("N", n, subsample_size=10):
        feats, seen = numpyro.subsample(data, event_dim=1), numpyro.subsample(obs, event_dim=0)
        numpyro.sample("obs", dist.Bernoulli(logits=theta @ feats.T), obs=seen)


def _stein_bnn(x, y, hidden=5):
    precision = numpyro.sample("prec_nn", dist.Gamma(1.0, 0.1))
    n, m = x.shape
    with numpyro.plate("l1_hidden", hidden, dim=-1):
        b1 = numpyro.sample("nn_b1", dist.Normal(0.0, 1.0 / jnp.sqrt(precision)))
        with numpyro.plate("l1_feat", m, dim=-2):
            w1 = numpyro.sample("nn_w1", dist.Normal(0.0, 1.0 / jnp.sqrt(precision)))
    with numpyro.plate("l2_hidden", hidden, dim=-1):
        w2 = numpyro.sample("nn_w2", dist.Normal(0.0, 1.0 / jnp.sqrt(precision)))
    b2 = numpyro.sample("nn_b2", dist.Normal(0.0, 1.0 / jnp.sqrt(precision)))
    seen = numpyro.sample("prec_obs", dist.Gamma(1.0, 0.1))
    with numpyro.plate("data", n, subsample_size=10, dim=-1):
        batch_x, batch_y = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        loc = numpyro.deterministic("y_bnn", jax.nn.relu(batch_x @ w1 + b1) @ w2 + b2)
        numpyro.sample("y", dist.Normal(loc, 1.0 / jnp.sqrt(seen)), obs=batch_y)


def _bnn(X, Y, hidden=4):
    n, width = X.shape
    w1 = numpyro.sample("w1", dist.Normal(jnp.zeros((width, hidden)), jnp.ones((width, hidden))))
    w2 = numpyro.sample("w2", dist.Normal(jnp.zeros((hidden, hidden)), jnp.ones((hidden, hidden))))
    w3 = numpyro.sample("w3", dist.Normal(jnp.zeros((hidden, 1)), jnp.ones((hidden, 1))))
    z = jnp.matmul(jnp.tanh(jnp.matmul(jnp.tanh(jnp.matmul(X, w1)), w2)), w3)
    sigma = 1.0 / jnp.sqrt(numpyro.sample("prec_obs", dist.Gamma(3.0, 1.0)))
    with numpyro.plate("data", n):
        numpyro.sample("Y", dist.Normal(z, sigma).to_event(1), obs=Y)


def _zero_inflated(X, Y):
    width = X.shape[1]
    b1 = numpyro.sample("b1", dist.Normal(0.0, 1.0).expand([width]).to_event(1))
    b2 = numpyro.sample("b2", dist.Normal(0.0, 1.0).expand([width]).to_event(1))
    q = jax.scipy.special.expit(jnp.dot(X, b1[:, None])).reshape(-1)
    lam = jnp.exp(jnp.dot(X, b2[:, None]).reshape(-1))
    with numpyro.plate("obs", X.shape[0]):
        numpyro.sample("Y", dist.ZeroInflatedPoisson(gate=q, rate=lam), obs=Y)


def _proportion(design_matrix, outcome=None):
    width = design_matrix.shape[1]
    beta = numpyro.sample("coefficients", dist.MultivariateNormal(0.0, covariance_matrix=jnp.eye(width)))
    with numpyro.plate("data", design_matrix.shape[0]):
        numpyro.sample("obs", dist.Bernoulli(logits=design_matrix.dot(beta)), obs=outcome)


def _fully_pooled(at_bats, hits):
    phi = numpyro.sample("phi", dist.Uniform(0, 1))
    with numpyro.plate("num_players", at_bats.shape[0]):
        numpyro.sample("obs", dist.Binomial(at_bats, probs=phi), obs=hits)


def _not_pooled(at_bats, hits):
    with numpyro.plate("num_players", at_bats.shape[0]):
        phi = numpyro.sample("phi", dist.Uniform(0, 1))
        numpyro.sample("obs", dist.Binomial(at_bats, probs=phi), obs=hits)


def _partially_pooled(at_bats, hits):
    m, kappa = numpyro.sample("m", dist.Uniform(0, 1)), numpyro.sample("kappa", dist.Pareto(1, 1.5))
    with numpyro.plate("num_players", at_bats.shape[0]):
        phi = numpyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
        numpyro.sample("obs", dist.Binomial(at_bats, probs=phi), obs=hits)


def _partially_pooled_with_logit(at_bats, hits):
    loc, scale = numpyro.sample("loc", dist.Normal(-1, 1)), numpyro.sample("scale", dist.HalfCauchy(1))
    with numpyro.plate("num_players", at_bats.shape[0]):
        alpha = numpyro.sample("alpha", dist.Normal(loc, scale))
        numpyro.sample("obs", dist.Binomial(at_bats, logits=alpha), obs=hits)


def _lung(unique):
    def model(patient_code, Weeks, FVC_obs=None):
        mu_a, s_a = numpyro.sample("mu_a", dist.Normal(0.0, 5.0)), numpyro.sample("s_a", dist.HalfNormal(10.0))
        mu_b, s_b = numpyro.sample("mu_b", dist.Normal(0.0, 3.0)), numpyro.sample("s_b", dist.HalfNormal(3.0))
        with numpyro.plate("plate_i", unique(patient_code)):
            a, b = numpyro.sample("a", dist.Normal(mu_a, s_a)), numpyro.sample("b", dist.Normal(mu_b, s_b))
        sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
        with numpyro.plate("data", len(patient_code)):
            numpyro.sample("obs", dist.Normal(a[patient_code] + b[patient_code] * Weeks, sigma), obs=FVC_obs)

    return model


def _complete_cases(A, B, Y):
    b_a, b_b = numpyro.sample("b_A", dist.Normal(0, 2.5)), numpyro.sample("b_B", dist.Normal(0, 2.5))
    s = numpyro.sample("s_Y", dist.HalfCauchy(2.5))
    with numpyro.plate("obs", A.shape[0]):
        numpyro.sample("obs_Y", dist.Normal(b_a * A + b_b * B, s), obs=Y)


def _imputed(A, B, Y):
    seen = A >= 0
    mu, slope = numpyro.sample("mu_A", dist.Normal(0, 2.5)), numpyro.sample("b_B_A", dist.Normal(0, 2.5))
    b_a, b_b = numpyro.sample("b_A", dist.Normal(0, 2.5)), numpyro.sample("b_B", dist.Normal(0, 2.5))
    s = numpyro.sample("s_Y", dist.HalfCauchy(2.5))
    with numpyro.plate("obs", A.shape[0]):
        eta = mu + B * slope
        imputed = numpyro.sample("A", dist.Bernoulli(logits=eta).mask(False), infer={"enumerate": "parallel"})
        log_prob = dist.Bernoulli(logits=eta).log_prob(imputed)
        numpyro.factor("A_obs", jnp.where(seen & (imputed != A), -jnp.inf, log_prob))
        numpyro.sample("obs_Y", dist.Normal(b_a * imputed + b_b * B, s), obs=Y)


def _ordinal_improper(X, Y, classes=3):
    slope = numpyro.sample("b_X_eta", dist.Normal(0, 5))
    support = constraints.ordered_vector
    c = numpyro.sample("c_y", dist.ImproperUniform(support=support, batch_shape=(), event_shape=(classes - 1,)))
    with numpyro.plate("obs", X.shape[0]):
        numpyro.sample("Y", dist.OrderedLogistic(X * slope, c), obs=Y)


def _ordinal(X, Y, classes=3):
    slope = numpyro.sample("b_X_eta", dist.Normal(0, 5))
    prior = dist.TransformedDistribution(dist.Normal(0, 1).expand([classes - 1]), transforms.OrderedTransform())
    c = numpyro.sample("c_y", prior)
    with numpyro.plate("obs", X.shape[0]):
        numpyro.sample("Y", dist.OrderedLogistic(X * slope, c), obs=Y)


def _ordinal_reparam(X, Y, classes=3):
    from numpyro.infer.reparam import TransformReparam

    slope = numpyro.sample("b_X_eta", dist.Normal(0, 5))
    with handlers.reparam(config={"c_y": TransformReparam()}):
        simplex = dist.Dirichlet(jnp.ones(classes))
        c = numpyro.sample("c_y", dist.TransformedDistribution(simplex, transforms.SimplexToOrderedTransform(0.0)))
    with numpyro.plate("obs", X.shape[0]):
        numpyro.sample("Y", dist.OrderedLogistic(X * slope, c), obs=Y)


def _difference_in_means(y_post, treatment):
    intercept, beta = numpyro.sample("intercept", dist.Normal(0, 2)), numpyro.sample("beta", dist.Normal(0, 3))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2))
    with numpyro.plate("observations", len(treatment)):
        numpyro.sample("y_post_pred", dist.Normal(intercept + beta * treatment, sigma), obs=y_post)


def _truncated(x):
    loc, scale = numpyro.sample("loc", dist.Normal()), numpyro.sample("scale", dist.LogNormal())
    with numpyro.plate("observations", len(x)):
        numpyro.sample("x", dist.TruncatedNormal(loc, scale, high=5.0), obs=x)


def _linear(x, y):
    a, b = numpyro.sample("intercept", dist.Normal(0.0, 10.0)), numpyro.sample("slope", dist.Normal(0.0, 5.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    mu = numpyro.deterministic("mu", a + b * x)
    with numpyro.plate("data", len(x)):
        numpyro.sample("obs", dist.Normal(mu, sigma), obs=y)


def _schools(sigma, y):
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("J", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def _rendered(data):
    mean, sd = numpyro.sample("m", dist.Normal(0, 1)), numpyro.sample("sd", dist.LogNormal(0.0, 1))
    with numpyro.plate("N", len(data)):
        numpyro.sample("obs", dist.Normal(mean, sd), obs=data)


def _hilbert_gp(x, y):
    from numpyro.contrib.hsgp.approximation import hsgp_squared_exponential

    alpha = numpyro.sample("alpha", dist.InverseGamma(12, 10))
    length = numpyro.sample("length", dist.InverseGamma(6, 1))
    noise = numpyro.sample("noise", dist.InverseGamma(12, 10))
    f = hsgp_squared_exponential(x=x, alpha=alpha, length=length, ell=3.0, m=5, non_centered=True)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("likelihood", dist.Normal(f, noise), obs=y)


def _circulant(x, y):
    n = x.size
    sigma, length = numpyro.sample("sigma", dist.HalfNormal()), numpyro.sample("length_scale", dist.InverseGamma(5, 25))
    k = jnp.arange(n // 2 + 1)
    spectrum = sigma**2 * length * jnp.sqrt(2 * jnp.pi) * jnp.exp(-2 * (jnp.pi * k * length / n) ** 2) + 1e-4
    z = numpyro.sample("z", dist.CirculantNormal(jnp.zeros(n), covariance_rfft=spectrum))
    with numpyro.plate("n", n):
        numpyro.sample("y", dist.BernoulliLogits(z), obs=y)


def _baseball() -> dict:
    return {"at_bats": np.full(18, 45), "hits": 8 + counts(18, rate=5.0).astype(int)}


def _eight() -> dict:
    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12], "float32")
    return {"sigma": np.array([15.0, 10, 16, 11, 9, 11, 10, 18], "float32"), "y": y}


_xy = lambda: {"x": normal(N), "y": 0.5 * normal(N) + 1.0}
_patients = lambda: {"patient_code": choices(5, N), "Weeks": normal(N), "FVC_obs": normal(N, 1)[:, 0]}
_missing = lambda: {"A": choices(2, N) * 1.0, "B": normal(N), "Y": normal(N, 1)[:, 0]}
_ordered = lambda: {"X": normal(N), "Y": choices(3, N)}
SVI_GUIDE = "AutoNormal; published with Stein VI over it"

regression(
    "examples/covtype.py", "N", "covtype", _logistic, lambda: {"data": normal(N, 4), "labels": choices(2, N) == 1}
)
regression(
    "examples/hmcecs.py", "N", "hmcecs", _subsampled, lambda: {"data": normal(N, 4), "obs": binary(N)}, AutoDelta, ""
)
regression(
    "examples/stein_bnn.py",
    "data",
    "stein_bnn",
    _stein_bnn,
    lambda: {"x": normal(N, 3), "y": normal(N)},
    AutoNormal,
    SVI_GUIDE,
)
regression("examples/bnn.py", "data", "bnn", _bnn, lambda: {"X": normal(N, 3), "Y": normal(N, 1)})
_inflated = lambda: {"X": normal(N, 3), "Y": counts(N)}
regression("examples/zero_inflated_poisson.py", "obs", "zero_inflated_delta", _zero_inflated, _inflated, AutoDelta, "")
regression(
    "examples/zero_inflated_poisson.py",
    "obs",
    "zero_inflated_normal",
    _zero_inflated,
    _inflated,
    AutoDiagonalNormal,
    "",
)
_design = lambda: {"design_matrix": normal(N, 3), "outcome": binary(N)}
regression("examples/proportion_test.py", "data", "proportion_test", _proportion, _design)
for _name, _model in (("fully_pooled", _fully_pooled), ("not_pooled", _not_pooled)):
    regression("examples/baseball.py", "num_players", f"baseball_{_name}", _model, _baseball)
regression("examples/baseball.py", "num_players", "baseball_partially_pooled", _partially_pooled, _baseball)
regression("examples/baseball.py", "num_players", "baseball_with_logit", _partially_pooled_with_logit, _baseball)
_LUNG = NB + "bayesian_hierarchical_linear_regression.ipynb"
regression(_LUNG, "data", "lung_as_it_is", _lung(lambda codes: len(np.unique(codes))), _patients)
regression(
    _LUNG, "data", "lung", _lung(lambda codes: 5), _patients, change="the number of patients is not counted inside"
)
regression(NB + "discrete_imputation.ipynb", "obs", "complete_cases", _complete_cases, _missing)
_hidden = lambda model: AutoNormal(handlers.block(model, hide=["A"]))
regression(NB + "discrete_imputation.ipynb", "obs", "imputed", _imputed, _missing, _hidden)
regression(NB + "ordinal_regression.ipynb", "obs", "ordinal_improper", _ordinal_improper, _ordered)
regression(NB + "ordinal_regression.ipynb", "obs", "ordinal", _ordinal, _ordered)
regression(NB + "ordinal_regression.ipynb", "obs", "ordinal_reparameterised", _ordinal_reparam, _ordered)
_post = lambda: {"y_post": normal(N), "treatment": binary(N)}
regression(NB + "bayesian_cuped.ipynb", "observations", "difference_in_means", _difference_in_means, _post)
regression(
    NB + "truncated_distributions.ipynb", "observations", "truncated_normal", _truncated, lambda: {"x": normal(N)}
)
regression(NB + "effect_handlers.ipynb", "data", "effect_handlers_linear", _linear, _xy)
regression(NB + "effect_handlers.ipynb", "J", "eight_schools", _schools, _eight)
regression(
    NB + "model_rendering.ipynb",
    "N",
    "model_rendering",
    _rendered,
    lambda: {"data": normal(N)},
    told="AutoNormal; none is published",
)
regression(NB + "hsgp_example.ipynb", "data", "hilbert_space_gp", _hilbert_gp, _xy)
regression(
    NB + "circulant_gp.ipynb", "n", "circulant_gp", _circulant, lambda: {"x": np.arange(N) * 1.0, "y": choices(2, N)}
)
