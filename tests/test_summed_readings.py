"""Sites that the model alone has and sums out: what is decoded and predicted for rows, against Bayes' rule by hand."""

import numpy as np
import pytest
from readings import BACKENDS
from scipy.special import log_softmax, logsumexp
from scipy.stats import norm

from ppdgm.errors import ProgramError
from ppdgm.inference.evaluation.result import Fit
from ppdgm.program import Program

every_backend = pytest.mark.parametrize("backend", BACKENDS)
ENUMERATE = {"enumerate": "parallel"}


class Experts(Program):
    """a ~ Cat, b|a ~ Cat, x ~ N(m[a, b] + z/10, 1/2): z alone is in the guide."""

    guided: bool = True
    bounded: bool = False

    def build(self, c):
        c.param("a", (2,))
        c.param("b", (2, 3))
        c.param("m", (2, 3))

    def model(self, P, x):
        with P.plate("data", x):
            a = P.one_hot(P.sample("a", P.dist.Categorical(logits=P.param("a")), infer=ENUMERATE), 2)
            b = P.one_hot(P.sample("b", P.dist.Categorical(logits=a @ P.param("b")), infer=ENUMERATE), 3)
            mean = P.xp.sum((a @ P.param("m")) * b, axis=-1)
            if self.guided:
                mean = mean + 0.1 * P.sample("z", self.latent(P, 0.0))
            P.sample("x", P.dist.Normal(mean, 0.5), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            if self.guided:
                P.sample("z", self.latent(P, 0.1 * x))

    def latent(self, P, mean):
        one = P.full((), 1.0)
        normal = P.dist.Normal(mean * one, one)
        if not self.bounded:
            return normal
        return P.dist.TransformedDistribution(normal, [P.dist.transforms.SigmoidTransform()])


PARAMS = {
    "a": np.array([0.5, 0.0], "float32"),
    "b": np.array([[1.0, 0, 0.2], [0, 0.5, 0]], "float32"),
    "m": np.array([[-4.0, -3.0, 0.0], [0.6, 3.0, 4.0]], "float32"),
}
X = np.array([-4.1, -3.4, 0.35, 0.2, 3.4, 4.2], "float32")


def opened(backend, **fields):
    return Fit(Experts(**fields), PARAMS, backend, info={"fields": ["x"]})


def joint(x, z):
    """log p(a, b, x | z), [..., 2, 3]."""
    prior = log_softmax(PARAMS["a"])[:, None] + log_softmax(PARAMS["b"], axis=1)
    return prior + norm.logpdf(x[..., None, None], PARAMS["m"] + 0.1 * z[..., None, None], 0.5)


def decoded(z):
    log_p = joint(X, z)
    a, b = logsumexp(log_p, axis=2).argmax(1), logsumexp(log_p, axis=1).argmax(1)
    return PARAMS["m"][a, b] + 0.1 * z


@every_backend
def test_rows_are_decoded_at_their_own_most_probable_values(backend):
    assert opened(backend).reconstruct(X) == pytest.approx(decoded(0.1 * X), abs=1e-5)
    fit = opened(backend, guided=False)
    assert fit.reconstruct(X) == pytest.approx(decoded(0.0 * X), abs=1e-5)
    for how in ("guide", "importance", "mcmc"):
        with pytest.raises(ProgramError, match="this program has enumerated ones, or none"):
            fit.posterior(X, draws=5, how=how)


@every_backend
def test_rows_are_predicted_from_their_own_posterior(backend):
    """At given z; 4,000 draws for each row, and 4.5 standard errors. The prior's mean is 3 or more away."""
    fit, n = opened(backend), 4000
    z = np.tile(0.3 * X, (n, 1))
    found = fit._runtime.predictive(fit._native, fit._runtime.put({"x": X}), np.arange(6), {"z": z}, 0)["x"]
    p = np.exp(joint(X, z[0]) - logsumexp(joint(X, z[0]), axis=(1, 2), keepdims=True))
    means = PARAMS["m"] + 0.1 * z[0][:, None, None]
    mean = (p * means).sum((1, 2))
    variance = (p * (means**2 + 0.25)).sum((1, 2)) - mean**2
    assert (abs(found.mean(0) - mean) < 4.5 * np.sqrt(variance / n)).all()
    assert found.var(0) == pytest.approx(variance, rel=0.2)


@every_backend
def test_latents_without_a_mean_are_decoded_so_too(backend):
    fit = opened(backend, bounded=True)
    with pytest.warns(UserWarning, match="Monte Carlo means"):
        z = fit.encode(X)
    with pytest.warns(UserWarning, match="Monte Carlo means"):
        assert fit.reconstruct(X) == pytest.approx(decoded(z), abs=1e-5)
