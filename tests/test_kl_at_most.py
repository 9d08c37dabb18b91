"""A KL of at most ε, by a multiplier: closed forms of a linear-Gaussian pair, and what is refused."""

import numpy as np
import pytest
from pydantic import ValidationError
from readings import BACKENDS
from scipy.optimize import brentq

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError, SpecError
from ppdgm.inference import SVI
from ppdgm.program import constant

NOISE = 0.5
X = np.random.default_rng(0).normal(scale=1.1, size=64).astype("float32")
SECOND = float(np.mean(X.astype(float) ** 2))
FAST = {"compile": False, "progress": False}


class Pair(Program):
    """z ~ N(0, 1), x ~ N(z, NOISE²), q(z|x) = N(a x, s²)."""

    def build(self, c):
        c.param("a", (), constant(0.3), label="guide")
        c.param("log_s", (), constant(-0.2), label="guide")
        c.param("unused", (), constant(0.0))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((), 0.0), 1.0))
            P.sample("x", P.dist.Normal(z + 0.0 * P.param("unused"), NOISE), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("a") * x, P.xp.exp(P.param("log_s"))))


def best(beta):
    """a, s and the mean KL of the best guide for E log p(x|z) − β KL."""
    tau = 1 / NOISE**2
    a, variance = tau / (tau + beta), beta / (tau + beta)
    return a, variance**0.5, 0.5 * (a * a * SECOND + variance - 1 - np.log(variance))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("limit", [0.3, 5.0])
def test_the_kl_ends_at_the_limit_where_it_binds(limit, backend):
    beta = brentq(lambda beta: best(beta)[2] - limit, 1, 1000) if best(1.0)[2] > limit else 1.0
    assert (beta > 1) == (limit < 1)
    engine = SVI(k=8, kl_at_most=limit, multiplier_rate=0.03)
    fit = ppdgm.fit(
        Pair(), X, engine=engine, backend=backend, steps=400, batch_size=64, seed=1, learning_rate=0.02, **FAST
    )
    a, s, kl = best(beta)
    np.testing.assert_allclose(fit.history["kl"][-150:].mean(), kl, rtol=0.015)
    np.testing.assert_allclose(fit.history["beta"][-150:].mean(), beta, rtol=0.05)
    np.testing.assert_allclose([fit.params["a"], np.exp(fit.params["log_s"])], [a, s], rtol=0.04)
    assert (fit.history["beta"] >= 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_moves_beta_as_stated_also_in_pieces(backend):
    """log β rises by rate · clip(KL/ε − 1), with the KL of the whole minibatch."""
    engine = SVI(kl_at_most=0.4, multiplier_rate=0.1)
    found = [
        ppdgm.fit(
            Pair(), X, engine=engine, backend=backend, steps=4, batch_size=64, learning_rate=0.01, accumulate=n, **FAST
        )
        for n in (1, 4)
    ]
    kl, beta = (found[0].history[n].astype(float) for n in ("kl", "beta"))
    steps = 0.1 * np.clip(kl / 0.4 - 1, -1, 1)
    expected, now = [], 0.0
    for step in steps:
        expected.append(np.exp(now))
        now = max(0.0, now + step)
    np.testing.assert_allclose(beta, expected, rtol=1e-5)
    np.testing.assert_allclose(found[1].history["beta"], beta, rtol=1e-5)


def test_a_run_that_goes_on_has_its_multiplier(tmp_path):
    engine = SVI(kl_at_most=0.2, multiplier_rate=0.1)
    how = {"engine": engine, "backend": "pyro", "batch_size": 64, "learning_rate": 0.01, **FAST}
    whole = ppdgm.fit(Pair(), X, steps=6, **how)
    ppdgm.fit(Pair(), X, steps=3, out=tmp_path / "a", **how)
    again = ppdgm.resume(tmp_path / "a", data=X, classes=[Pair], steps=6, progress=False)
    np.testing.assert_array_equal(again.history["beta"], whole.history["beta"])


class NoLatent(Program):
    def build(self, c):
        c.param("m")

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("m"), 1.0), obs=x)


def test_refusals():
    for other in ({"beta": 2.0}, {"capacity": 1.0}, {"free_bits": 1.0}):
        with pytest.raises((SpecError, ValidationError), match="kl_at_most finds β"):
            SVI(kl_at_most=1.0, **other)
    with pytest.raises((SpecError, ValidationError), match="multiplier_rate is a setting of kl_at_most"):
        SVI(multiplier_rate=0.1)
    with pytest.raises((SpecError, ValidationError), match="greater than 0"):
        SVI(kl_at_most=0.0)
    with pytest.raises(ProgramError, match="kl_at_most would change nothing"):
        ppdgm.fit(NoLatent(), X, engine=SVI(kl_at_most=1.0), backend="pyro", steps=1, **FAST)
