"""Every run and every noise of a step has draws of its own; a run of one function answers as the trace does."""

import numpy as np
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.errors import UnsupportedByBackend
from ppdgm.inference import SVI
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.engine import Engine
from ppdgm.language.reader import Gradients

BACKENDS = ("numpyro", "pyro")
X = np.random.default_rng(0).normal(size=(30, 2)).astype("float32")
SCALE = 0.7


class Pair(Program):
    """z ~ N(0, 1), x | z ~ N(z, 0.7²); q(z|x) = N(a x, s²). Its third function is no part of any bound."""

    event_shape: tuple[int, ...] = (2,)

    def build(self, context):
        context.param("a", (2,), lambda rng, shape, data: np.full(shape, 0.5), label="guide")
        context.param("s", (2,), lambda rng, shape, data: np.full(shape, 0.3), label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(z, P.full((2,), SCALE)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("a") * x, P.param("s")).to_event(1))

    def critic(self, P, x):
        return P.xp.sum(P.param("a") * x, axis=-1)


def distance(a, b, xp):
    return xp.mean(xp.abs(a - b))


def hmc(step):
    start = {"z": step.stop_gradient(step.trace().values["z"])}
    step_size = step.xp.mean(0.0 * start["z"]) + 0.1
    return lambda: step.hmc(start, step_size, 2, 2)[0]["z"]


NOISES = {
    "trace": lambda step: lambda: step.trace().values["z"],
    "run": lambda step: lambda: step.run("guide").values["z"],
    "generate": lambda step: lambda: step.run("model", generate=True).values["x"],
    "gumbel": lambda step: lambda: step.gumbel((3, 40)),
    "sleep": lambda step: lambda: step.sleep()["z"],
    "hmc": hmc,
}


class Twice(Engine):
    """Draws twice by one kind of noise, and shows how far apart the two are."""

    noise: str

    def objective(self, step):
        step.trace(gradients=Gradients(relaxed=False, scored=[], walked=self.noise == "hmc"))
        draw, weights = NOISES[self.noise](step), step.weights
        apart = distance(draw(), draw(), step.xp)
        elbo = bounds.mean(bounds.elbo(step.trace(), step.xp), weights, step.xp)
        return {"objective": elbo, "elbo": elbo, "kl": 0.0 * elbo, "apart": apart + 0.0 * elbo}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", NOISES)
def test_two_uses_of_a_noise_differ(backend, noise):
    fit = ppdgm.fit(Pair(), X, engine=Twice(noise=noise), backend=backend, steps=2, progress=False, compile=False)
    assert (fit.history["apart"] > 0.01).all()


class Roles(Engine):
    """Compares runs of single functions with the trace at the same latents, and with the function itself."""

    k: int = 3

    def objective(self, step):
        xp, trace, weights = step.xp, step.trace(self.k), step.weights
        given = {"z": step.stop_gradient(trace.values["z"])}
        x = step.rows()["x"]
        other = {"x": x + 1.0}
        guide, model = step.run("guide", given=given), step.run("model", given=given)
        critic = step.run("critic", data=other)
        at_mean = step.run("guide", choose="mean", k=1)
        elbo = bounds.mean(bounds.elbo(trace, xp), weights, xp)
        found = {
            "objective": elbo,
            "elbo": elbo,
            "log_q": distance(guide.log_prob["z"], trace.log_q["z"], xp),
            "log_p": distance(model.log_prob["z"] + model.log_prob["x"], trace.log_p["z"] + trace.log_p["x"], xp),
            "critic": distance(critic.returned, 0.5 * xp.sum(x + 1.0, axis=-1), xp),
            "mean": distance(at_mean.values["z"], 0.5 * x[None], xp),
            "stopped": distance(step.run("guide", given=given, stopped=True).log_prob["z"], trace.log_q["z"], xp),
        }
        return {n: v + 0.0 * elbo for n, v in found.items()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_of_single_functions(backend):
    fit = ppdgm.fit(
        Pair(), X, engine=Roles(), backend=backend, steps=1, learning_rate=0.0, progress=False, compile=False
    )
    for name in ("log_q", "log_p", "critic", "mean", "stopped"):
        assert fit.history[name][0] < 1e-5, name


def plain_pair(backend):
    if backend == "pyro":
        import pyro as lib
        import torch as xp
        from pyro import distributions as dist
    else:
        import jax.numpy as xp
        import numpyro as lib
        from numpyro import distributions as dist

    def model(x):
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(xp.zeros(2), xp.ones(2)).to_event(1))
            lib.sample("x", dist.Normal(z, SCALE * xp.ones(2)).to_event(1), obs=x)

    def guide(x):
        a = lib.param("a", xp.full((2,), 0.5))
        with lib.plate("data", len(x)):
            lib.sample("z", dist.Normal(a * x, 0.3 * xp.ones(2)).to_event(1))

    bring = Program.from_pyro if backend == "pyro" else Program.from_numpyro
    return bring(model, guide)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_plain_pair_draws_again_and_has_no_other_functions(backend):
    pair = plain_pair(backend)
    fit = ppdgm.fit(pair, X, engine=Twice(noise="trace"), steps=2, progress=False)
    assert (fit.history["apart"] > 0.01).all()
    with pytest.raises(UnsupportedByBackend, match="has a model and a guide"):
        ppdgm.fit(pair, X, engine=Twice(noise="run"), steps=1, progress=False)
    assert np.isfinite(ppdgm.fit(pair, X, engine=SVI(), steps=1, progress=False).history["elbo"]).all()
