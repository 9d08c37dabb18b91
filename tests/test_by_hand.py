"""What training steps give, against the same worked out by hand in NumPy: their rates, states and noise."""

import numpy as np
import pytest
from readings import BACKENDS

import ppdgm
from ppdgm.inference import SVI, Optimiser, Stage, VariationalEM
from ppdgm.inference.inputs.batches import Batches
from ppdgm.models import Program
from ppdgm.program import normal
from ppdgm.specs.schedules import Cosine, Exponential, Linear

both = pytest.mark.parametrize("backend", BACKENDS)


class Centre(Program):
    """x ~ N(m, e^2s), without latents: the gradient of the mean log p(x) is known."""

    def build(self, context):
        context.param("m", (2,), normal(1.0))
        context.param("s", (2,), normal(0.3), label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("m"), P.xp.exp(P.param("s"))).to_event(1), obs=x)

    def guide(self, P, x):
        """No latents."""


def gradient_of(params, x):
    """Of the mean log p(x), and its value."""
    off, scale = x - params["m"], np.exp(params["s"])
    value = (-0.5 * (off / scale) ** 2 - params["s"] - 0.5 * np.log(2 * np.pi)).sum(1).mean()
    return {"m": (off / scale**2).mean(0), "s": ((off / scale) ** 2 - 1).mean(0)}, value


X = np.random.default_rng(2).normal(1.0, 2.0, size=(10, 2)).astype("float32")
CLIP, MOMENTUM, AVERAGE = 1.0, 0.5, 0.7


@both
def test_steps_of_stages_are_those_by_hand(backend):
    """Rates by stage, momentum anew in each, the norm clipped over all parameters, ragged minibatches, the average."""
    engine = [
        Stage(engine=SVI(), steps=3, learning_rate=Linear(start=0.05, end=0.2, steps=3)),
        Stage(engine=SVI(), steps=4, freeze="s", learning_rate=Cosine(peak=0.2, steps=4, warmup=2)),
        VariationalEM(e_steps=1, m_steps=2),
    ]
    fit = ppdgm.fit(
        Centre(), X, engine=engine, steps=12, batch_size=4, learning_rate=Exponential(start=0.1, rate=0.9),
        optimiser=Optimiser(name="sgd", momentum=MOMENTUM, clip_norm=CLIP), weight_average=AVERAGE, seed=5,
        backend=backend, progress=False,
    )  # fmt: skip
    rates = [0.05, 0.1, 0.15, 0.1, 0.2, 0.2, 0.1, *(0.1 * 0.9**t for t in range(7, 12))]
    phases = [0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 2, 3]
    moving = {0: ("m", "s"), 1: ("m",), 2: ("s",), 3: ("m",)}
    params = {n: v.astype(float) for n, v in Centre().initialise(5).items()}
    index, weight = Batches(10, 4, 5).rows(0, 12, 12)
    average, speed, values, clipped = dict(params), {}, [], 0
    for t in range(12):
        gradient, value = gradient_of(params, X[index[t][weight[t] > 0]].astype(float))
        values.append(value)
        names = moving[phases[t]]
        norm = np.sqrt(sum((gradient[n] ** 2).sum() for n in names))
        clipped += norm > CLIP
        for n in names:
            g = gradient[n] * min(1.0, CLIP / norm)
            state = speed[phases[t], n] = MOMENTUM * speed.get((phases[t], n), 0.0) + g
            params[n] = params[n] + rates[t] * state
        average = {n: AVERAGE * average[n] + (1 - AVERAGE) * params[n] for n in params}
    assert 2 < clipped < 10
    np.testing.assert_allclose(fit.history["objective"], values, rtol=2e-5)
    for n in params:
        np.testing.assert_allclose(fit.params[n], average[n], rtol=2e-5)


def ascent(name, gradients, params, rate):
    """What an optimiser by name makes of gradients, a function of parameters, with the settings below."""
    b1, b2, eps, decay = SETTINGS["beta1"], SETTINGS["beta2"], SETTINGS["eps"], SETTINGS["weight_decay"]
    m, v = ({n: np.zeros(2) for n in params} for _ in range(2))
    for t in range(1, 6):
        for n, g in gradients(params).items():
            m[n] = b1 * m[n] + (1 - b1) * g
            if name == "adamax":
                v[n] = np.maximum(b2 * v[n], np.abs(g) + eps)
                step = m[n] / (1 - b1**t) / v[n]
            else:
                v[n] = b2 * v[n] + (1 - b2) * g * g
                step = m[n] / (1 - b1**t) / (np.sqrt(v[n] / (1 - b2**t)) + eps)
            kept = 1 - rate * decay if name == "adamw" else 1.0
            params = {**params, n: kept * params[n] + rate * step}
    return params


# Far enough from the usual ones that each counts within five steps.
SETTINGS = {"beta1": 0.6, "beta2": 0.8, "eps": 0.05, "weight_decay": 0.3}


@both
@pytest.mark.parametrize("name", ["adam", "adamw", "adamax"])
def test_optimisers_by_name_are_those_by_hand(name, backend):
    optimiser = Optimiser(name=name, **{n: v for n, v in SETTINGS.items() if n != "weight_decay" or name == "adamw"})
    fit = ppdgm.fit(
        Centre(), X, steps=5, batch_size=10, learning_rate=0.1, optimiser=optimiser, backend=backend, progress=False
    )
    first = {n: v.astype(float) for n, v in Centre().initialise(0).items()}
    right = ascent(name, lambda p: gradient_of(p, X.astype(float))[0], first, 0.1)
    for n, v in right.items():
        np.testing.assert_allclose(fit.params[n], v, rtol=2e-5)


class Noisy(Program):
    """z ~ N(0, 1), x ~ N(z, 1), q(z|x) = N(0, 1): the bound of a draw is log N(x; z, 1)."""

    def build(self, context):
        context.param("m", (2,), normal(0.0))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.param("m"), P.full((), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(z, P.full((), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(0.0 * x, P.full((), 1.0)).to_event(1))


class Bits(Program):
    """x ~ Bernoulli(σ(1.5)), without latents: what varies are the bits that are drawn from probabilities."""

    def build(self, context):
        context.param("m", (2,), normal(0.0))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Bernoulli(logits=P.param("m") + 1.5).to_event(1), obs=x)

    def guide(self, P, x):
        """No latents."""


PROBABLE = np.random.default_rng(4).uniform(0.1, 0.9, size=(4, 2)).astype("float32")
SEEN = PROBABLE.astype(float)
STEPS = 500
NOISE = {  # program, options, mean and variance of the objective of a step over all four data
    "draws": (
        Noisy(), {}, (-0.5 * (SEEN**2 + 1) - 0.5 * np.log(2 * np.pi)).sum(1).mean(),
        (0.5 + SEEN**2).sum() / 16,  # Var(½(x − z)²) = ½ + x²
    ),
    "bits": (
        Bits(), {"binarise": "dynamic"}, (1.5 * SEEN - np.log1p(np.exp(1.5))).sum(1).mean(),
        1.5**2 * (SEEN * (1 - SEEN)).sum() / 16,
    ),
}  # fmt: skip


@both
@pytest.mark.statistical
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("name", NOISE)
def test_each_step_datum_and_piece_has_noise_of_its_own(name, pieces, backend):
    """Nothing moves, so that steps differ by their noise alone: its mean, variance and independence are known."""
    program, options, mean, variance = NOISE[name]
    fit = ppdgm.fit(
        program, PROBABLE, steps=STEPS, batch_size=4, learning_rate=0.0, accumulate=pieces, seed=1, backend=backend,
        compile=False, progress=False, engine=SVI(kl="monte_carlo"), **options,
    )  # fmt: skip
    found = fit.history["objective"].astype(float)
    assert abs(found.mean() - mean) < 4 * (variance / STEPS) ** 0.5
    centred = found - mean
    spread = ((centred**2 - variance) ** 2).mean() ** 0.5 / STEPS**0.5
    assert abs((centred**2).mean() - variance) < 4 * spread < 0.5 * variance
    assert abs((centred[1:] * centred[:-1]).mean()) < 4 * variance / STEPS**0.5


class Everywhere(Program):
    """m ~ N(0, 1) once for all data, x ~ N(m, 1); q(m) = N(0, 1)."""

    def build(self, context):
        context.param("anchor", (2,), normal(0.0))

    def model(self, P, x):
        m = P.sample("m", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(m + 0.0 * P.param("anchor"), P.full((), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        P.sample("m", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))


@both
@pytest.mark.statistical
def test_the_error_of_latents_that_all_data_share(backend):
    """Data move together: Var of mean_n log N(x_n; m, 1) is Σ_d x̄_d² + ½, over k draws."""
    fit = ppdgm.fit(Everywhere(), PROBABLE, steps=1, learning_rate=0.0, backend=backend, progress=False)
    for k in (100, 1600):
        right = ((SEEN.mean(0) ** 2 + 0.5).sum() / k) ** 0.5
        found = fit.elbo(PROBABLE, k=k, seed=k)
        assert found.monte_carlo_error == pytest.approx(right, rel=5 / k**0.5)  # a variance's error, with its kurtosis
        mean = (-0.5 * (SEEN**2 + 1) - 0.5 * np.log(2 * np.pi)).sum(1).mean()
        assert abs(found.mean - mean) < 4 * right


ALIKE = np.repeat(PROBABLE[:1], 4, axis=0)  # so that nothing but draws tells data apart, nor their order


@both
def test_the_seed_is_that_of_draws(backend):
    found = [
        ppdgm.fit(
            Noisy(), ALIKE, steps=2, learning_rate=0.0, seed=seed, backend=backend, progress=False,
            engine=SVI(kl="monte_carlo"),
        ).history["objective"]
        for seed in (1, 2)
    ]  # fmt: skip
    assert not np.isin(found[0], found[1]).any()


def test_chunks_of_an_evaluation_have_draws_of_their_own():
    fit = ppdgm.Fit(Noisy(), Noisy().initialise(0), "pyro")
    for memory in (1, "auto"):  # a datum in each chunk, or all in one
        assert len(set(fit.elbo(ALIKE, k=1, memory=memory).values)) == len(ALIKE)


def test_a_warm_up_is_over_with_the_last_schedule():
    """β is constant; patience counts from the end of the capacity's."""
    fit = ppdgm.fit(
        Noisy(), ALIKE, validation=ALIKE, engine=SVI(capacity=Linear(end=1.0, steps=6)), steps=20, learning_rate=0.0,
        early_stopping=2, backend="pyro", progress=False,
    )  # fmt: skip
    assert fit.stopped == "early stopping" and fit.info["steps"] == 7  # steps 6 and 7 are no better than the first


class Idle(Centre):
    """With a parameter that log p(x) does not depend on."""

    def build(self, context):
        super().build(context)
        context.param("idle", (2,), normal(1.0))


@both
def test_weights_without_a_gradient_decay_too(backend):
    """θ ← (1 − η λ) θ in each of ten steps, on both backends; torch passes over what has no gradient."""
    fit = ppdgm.fit(
        Idle(), X, steps=10, learning_rate=0.1, optimiser=Optimiser(name="adamw", weight_decay=0.5), seed=5,
        backend=backend, progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(fit.params["idle"], Idle().initialise(5)["idle"] * 0.95**10, rtol=1e-5)


class Faint(Program):
    """x ~ N(ε m, 1), ε = 1e-6: at m = 0 the gradient of a datum is ε x."""

    def build(self, context):
        context.param("m", (2,), normal(0.0))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(1e-6 * P.param("m"), P.full((2,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        pass


@pytest.mark.parametrize(
    ("backend", "compiled"),
    [("numpyro", False), ("pyro", False), ("pyro", True)],
)
def test_a_small_gradient_is_clipped_to_the_norm_itself(backend, compiled):
    """‖g‖ = 5e-6, clipped to 1e-6 and not to 5/6 of it: a step of g / ‖g‖ at a rate of 1e6; one below stays."""
    x = np.tile(np.float32([3.0, 4.0]), (4, 1))
    settings = {"steps": 1, "optimiser": "sgd", "learning_rate": 1e6, "progress": False, "compile": compiled}
    for most, step in ((1e-6, [0.6, 0.8]), (1e-5, [3.0, 4.0])):
        fit = ppdgm.fit(Faint(), x, clip_norm=most, backend=backend, **settings)
        np.testing.assert_allclose(fit.params["m"], step, rtol=1e-5)
