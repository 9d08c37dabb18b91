"""Programs without a likelihood, by engines of one's own: an f-GAN of two players, and sliced score matching."""

import numpy as np
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError
from ppdgm.inference import Minimise, Optimiser
from ppdgm.inference.engines.engine import Engine, Phase
from ppdgm.models import MLP

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
QUICK = {"progress": False, "compile": False}


class Generator(Program):
    """z ~ N(0, 1), x = shift + scale · z without a density; and a critic. Nowozin et al. 2016, arXiv:1606.00709."""

    def build(self, context):
        context.param("scale", (1,), lambda rng, shape, data: np.full(shape, 2.0))
        context.param("shift", (1,), lambda rng, shape, data: np.full(shape, 1.0))
        context.net("critic", MLP(hidden=(32,)), (1,), (1,), label="critic")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.implicit(P.param("shift") + P.param("scale") * z).to_event(1), obs=x)

    def critic(self, P, x):
        return P.net("critic")(x)[..., 0]


class Players(Engine):
    """F = E_data[T] − E_model[exp(T − 1)] ≤ KL(data ‖ model): `turns` steps of the critic, then one of the model."""

    turns: int = 5

    def objective(self, step):
        xp, fake = step.xp, step.run("model", generate=True).values["x"][0]
        real, drawn = step.run("critic").returned, step.run("critic", data={"x": fake}).returned
        bound = xp.mean(real) - xp.mean(xp.exp(drawn - 1.0))
        return {"objective": bound, "bound": bound, "players": {"critic": bound, "model": -bound}}

    def criterion(self):
        return None

    def phases(self):
        fast, slow = Optimiser(name="adam", beta1=0.5), Optimiser(name="rmsprop")
        return (
            Phase(self, ("critic",), players=("critic",), optimiser=fast),
            Phase(self, ("model",), players=("model",), optimiser=slow),
        )

    def phase_of(self, steps):
        return (steps % (self.turns + 1) == self.turns).astype(np.int32)


@both
def test_f_gan_bounds_and_finds_the_distribution(backend):
    """The critic's bound is KL(N(0, 1) ‖ N(1, 2²)) = 0.443 within 0.02; with it, the generator finds 1 and 0."""
    x = np.random.default_rng(0).normal(size=(20000, 1)).astype("float32")
    settings = {"backend": backend, "batch_size": 500, **QUICK}
    fit = ppdgm.fit(Generator(), x, engine=Players(turns=900), steps=900, learning_rate=1e-2, **settings)
    exact = np.log(2.0) + (1 + 1.0**2) / (2 * 2.0**2) - 0.5
    assert abs(fit.history["bound"][-300:].mean() - exact) < 0.02
    assert fit.params["scale"] == 2.0 and fit.params["shift"] == 1.0  # only the critic moved
    fit = ppdgm.fit(Generator(), x, engine=Players(turns=5), steps=2400, learning_rate=5e-3, **settings)
    assert abs(abs(fit.params["scale"][0]) - 1.0) < 0.05 and abs(fit.params["shift"][0]) < 0.05
    drawn = fit.sample(4000)
    assert abs(drawn.mean() - fit.params["shift"][0]) < 4 * abs(fit.params["scale"][0]) / np.sqrt(4000)
    for evaluate in (fit.elbo, fit.log_likelihood):
        with pytest.raises(ProgramError, match=r"'x' is a draw without a density.*fit.sample"):
            evaluate(x[:10])


class Score(Program):
    """s(x) = A x + b, by sliced score matching, E_v[vᵀ ∇(vᵀ s) + ½ (vᵀ s)²]. Song et al. 2019, arXiv:1905.07088."""

    def build(self, context):
        context.net("score", MLP(hidden=()), (2,), (2,))

    def loss(self, P, x):
        v = P.random.normal(tuple(x.shape))
        score, pull = P.vjp(P.net("score"), x)
        return P.xp.sum(pull(v) * v, axis=-1) + 0.5 * P.xp.sum(score * v, axis=-1) ** 2


@both
def test_sliced_score_matching_finds_the_score_of_a_gaussian(backend):
    covariance = np.array([[1.0, 0.6], [0.6, 2.0]])
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(20000, 2)) @ np.linalg.cholesky(covariance).T).astype("float32")
    settings = {"backend": backend, "batch_size": 1000, "learning_rate": 0.02, **QUICK}
    fit = ppdgm.fit(Score(), x, engine=Minimise(), steps=1000, weight_average=0.99, **settings)
    exact = -np.linalg.inv(np.cov(x.T))
    np.testing.assert_allclose(fit.params["score.layers.0.weight"], exact, atol=0.05)
