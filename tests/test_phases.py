"""Each phase has its own optimiser, learning rate, schedule and projection; against steps by hand."""

import re
from pathlib import Path

import numpy as np
import pytest

import ppdgm
from ppdgm import Program, specs
from ppdgm.errors import SpecError
from ppdgm.inference import (
    SVI,
    Composite,
    Constant,
    Criterion,
    Engine,
    Linear,
    Optimiser,
    Phase,
    Schedule,
    Stage,
    Stages,
    bounds,
)
from ppdgm.models import MLP, VAE

BACKENDS = ("numpyro", "pyro")
X = np.random.default_rng(0).normal(size=(8, 1)).astype("float32")
CLIP = 0.3


class Bowl(Program):
    """Two parameters, whose objective the engine writes down."""

    event_shape: tuple[int, ...] = (1,)

    def build(self, context):
        context.param("a", (2,), lambda rng, shape, data: np.array([0.0, 2.0]), label="guide")
        context.param("b", (2,), lambda rng, shape, data: np.array([0.0, 1.0]))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample(
                "x", P.dist.Normal(P.full((1,), 0.0) + 0.0 * P.param("b")[0], P.full((1,), 1.0)).to_event(1), obs=x
            )

    def guide(self, P, x):
        pass


class Players(Engine):
    """a and b in turns, each on −Σ (a − 1)² − Σ (b − 2)², weighed by a schedule."""

    weight: float | Linear = Linear(start=1.0, end=2.0, steps=4)

    def objective(self, step):
        xp, p = step.xp, step.params
        return {"objective": -step.hyperparameters["weight"] * (xp.sum((p["a"] - 1) ** 2) + xp.sum((p["b"] - 2) ** 2))}

    def phases(self):
        sgd = Optimiser(name="sgd")
        guide = Phase(self, ("guide",), optimiser=sgd, learning_rate=Constant(value=0.1))
        return guide, Phase(self, ("model",), projection=lambda xp, p: xp.clip(p, -CLIP, CLIP))

    def phase_of(self, steps):
        return (steps % 2).astype(np.int32)


def by_hand(steps):
    """Plain gradient steps of a; RMSprop of b at 0.05, clipped after each step."""
    a, b, v = np.array([0.0, 2.0]), np.array([0.0, 1.0]), np.zeros(2)
    for step in range(steps):
        weight = min(1.0 + step / 4, 2.0)
        if step % 2 == 0:
            a = a - 0.1 * weight * 2 * (a - 1)
        else:
            g = weight * 2 * (b - 2)
            v = 0.8 * v + 0.2 * g**2
            b = np.clip(b - 0.05 * g / (np.sqrt(v) + 1e-4), -CLIP, CLIP)
    return a, b


@pytest.mark.parametrize(("backend", "compile"), [("numpyro", False), ("pyro", False), ("pyro", True)])
def test_phases_against_steps_by_hand(backend, compile):
    rmsprop = Optimiser(name="rmsprop", decay=0.8, eps=1e-4)
    settings = {"learning_rate": 0.05, "optimiser": rmsprop, "progress": False, "compile": compile}
    if backend == "numpyro":
        del settings["compile"]
    for steps in (5, 6, 9):
        fit = ppdgm.fit(Bowl(), X, engine=Players(), backend=backend, steps=steps, **settings)
        for name, right in zip("ab", by_hand(steps), strict=True):
            np.testing.assert_allclose(fit.params[name], right, rtol=1e-5, err_msg=f"{name} after {steps}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stage_has_its_own_optimiser(backend, tmp_path):
    """Frozen by a rate of 0 in one stage; moved by plain steps in the other; written in the recipe, and resumed."""
    program = VAE(event_shape=(1,), latent=1, encoder=MLP(hidden=(2,)), decoder=MLP(hidden=(2,)))
    sgd = Stage(engine=SVI(), steps=2, learning_rate=0.5, optimiser=Optimiser(name="sgd"))
    engine = Stages(stages=(sgd, Stage(engine=SVI(), learning_rate=0.0)))
    settings = {"backend": backend, "progress": False, "compile": False, "seed": 1}
    both = ppdgm.fit(program, np.round(np.abs(X) % 1), engine=engine, steps=4, out=tmp_path / "run", **settings)
    settings |= {"learning_rate": 0.5, "optimiser": "sgd"}
    one = ppdgm.fit(program, np.round(np.abs(X) % 1), engine=SVI(), steps=2, **settings)
    for name, value in one.params.items():
        np.testing.assert_array_equal(both.params[name], value, err_msg=name)
    assert ppdgm.load(tmp_path / "run").engine == engine


def test_rmsprop_has_its_own_settings():
    with pytest.raises(SpecError, match="beta1"):
        Optimiser(name="rmsprop", beta1=0.5)
    with pytest.raises(SpecError, match="decay"):
        Optimiser(name="adam", decay=0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_engine_in_contributing(backend):
    """Its text runs as it stands, and its ELBO is that of SVI without closed forms, for the same draws."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    names = {"Engine": Engine, "bounds": bounds, "Schedule": Schedule, **vars(specs)}
    exec(re.search(r"```python\n(class Annealed.*?)```", text, re.S)[1], names)
    program = VAE(event_shape=(1,), latent=1, encoder=MLP(hidden=(2,)), decoder=MLP(hidden=(2,)))
    settings = {"backend": backend, "progress": False, "compile": False, "steps": 3, "learning_rate": 0.0}
    beta, x = Linear(start=0.5, end=1.0, steps=2), (X > 0).astype("float32")
    ours = ppdgm.fit(program, x, engine=names["Annealed"](k=2, beta=beta), **settings).history
    svi = ppdgm.fit(program, x, engine=SVI(k=2, beta=beta, kl="monte_carlo"), **settings).history
    np.testing.assert_allclose(ours["elbo"], svi["elbo"], rtol=1e-5)
    assert (np.abs(ours["objective"] - ours["elbo"])[0] > 1e-3) and ours["objective"][2] == ours["elbo"][2]


class Shift(Program):
    """x = a + z; its critic is linear."""

    event_shape: tuple[int, ...] = (1,)

    def build(self, context):
        context.param("a", (1,), lambda rng, shape, data: np.ones(shape))
        context.param("slope", (1,), label="critic")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.implicit(P.param("a") + z).to_event(1), obs=x)

    def critic(self, P, x):
        return P.xp.sum(P.param("slope") * x, axis=-1)


@pytest.mark.statistical
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_two_players_in_contributing(backend):
    """Their text runs as it stands: the mean of the draws goes to that of the data, and the slope stays in its clip.

    Near the end the model's mean steps by the rate, 0.02, around a mean of 400 rows and 400 draws: error 0.07.
    """
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    names = {
        "Engine": Engine,
        "Composite": Composite,
        "Phase": Phase,
        "Optimiser": Optimiser,
        "bounds": bounds,
        "np": np,
    }
    code = re.search(r"```python\n(class Gap.*?)```.*?```python\n(def criterion.*?)```", text, re.S)
    exec(code[1], names)
    x = np.random.default_rng(1).normal(size=(400, 1)).astype("float32")
    options = {"backend": backend, "progress": False, "compile": False, "learning_rate": 0.02, "batch_size": 400}
    fit = ppdgm.fit(Shift(), x, engine=names["Wasserstein"](), steps=600, **options)
    assert abs(float(fit.params["a"][0]) - x.mean()) < 0.25 and abs(fit.params["slope"][0]) <= 0.1 + 1e-7
    assert fit.params["slope"][0] != 0 and set(fit.history) == {"objective", "step"}
    exec(code[2], names | {"Criterion": Criterion})
    assert names["Wasserstein"]().criterion() is None
