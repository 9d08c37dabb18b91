"""What schedules, plans, directors and training steps give, against the same worked out by hand in NumPy."""

from types import SimpleNamespace

import numpy as np
import pytest
from readings import BACKENDS

import ppdgm
from ppdgm.inference import SVI, LaggingInference, Optimiser, Stage, Stages, VariationalEM
from ppdgm.inference.batches import Batches
from ppdgm.inference.engine import knobs_of_phases, rates_of_phases
from ppdgm.inference.watch import Watch
from ppdgm.models import Program
from ppdgm.program import normal
from ppdgm.schedules import Constant, Cosine, Cyclical, Exponential, Linear, Sigmoid

both = pytest.mark.parametrize("backend", BACKENDS)

# --- schedules ------------------------------------------------------------------------------------------------------

SCHEDULES = {
    Constant(value=0.3): ([0, 7], [0.3, 0.3]),
    Linear(start=0.2, end=1.0, steps=4): ([0, 1, 3, 4, 9], [0.2, 0.4, 0.8, 1.0, 1.0]),
    Sigmoid(steps=12): ([0, 6, 7, 12, 13], [1 / (1 + np.exp(6)), 0.5, 1 / (1 + np.exp(-1)), 1.0, 1.0]),
    Cyclical(start=0.1, end=1.1, steps=20, cycles=2, rise=0.5): (
        [0, 1, 4, 5, 9, 10, 12, 15, 19, 20, 50],
        [0.1, 0.3, 0.9, 1.1, 1.1, 0.1, 0.5, 1.1, 1.1, 1.1, 1.1],
    ),
    # Warm-up: the first step takes a part of the peak, the last one all of it; the cosine begins there.
    Cosine(peak=0.8, end=0.2, steps=12, warmup=4): (
        [0, 1, 2, 3, 4, 8, 12, 20],
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.5, 0.2, 0.2],
    ),
    Cosine(peak=1.0, steps=3): ([0, 1, 3], [1.0, 0.75, 0.0]),
    Exponential(start=2.0, rate=0.25, every=2): ([0, 1, 2, 5], [2.0, 1.0, 0.5, 2.0 * 0.25**2.5]),
}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_at_their_corners(schedule):
    steps, right = SCHEDULES[schedule]
    np.testing.assert_allclose(schedule(np.array(steps)), right, rtol=1e-12)
    if schedule.reached():
        later = schedule(np.arange(schedule.reached(), schedule.reached() + 3))
        assert (later == later[0]).all()
        assert schedule(np.array([schedule.reached() - 1])) != later[0] or isinstance(schedule, Cyclical)


def test_stages_count_from_their_own_first_step():
    """Rates, knobs and turns of each step; the run's rate where a stage has none."""
    first = SVI(beta=Linear(end=1.0, steps=4))
    inner = VariationalEM(e_steps=2, m_steps=1, engine=SVI(beta=Linear(start=0.5, end=1.0, steps=5)))
    ramp = Linear(start=0.1, end=0.5, steps=4)
    engine = Stages(stages=(Stage(engine=first, steps=4), Stage(engine=inner, learning_rate=ramp)))
    steps = np.arange(11)
    turns = engine.turns(steps)
    assert turns.tolist() == [0, 0, 0, 0, 1, 1, 2, 1, 1, 2, 1]
    rates = rates_of_phases(engine, Exponential(start=1.0, rate=0.5), steps, turns)
    np.testing.assert_allclose(rates, [1, 0.5, 0.25, 0.125, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5], rtol=1e-6)
    knobs = knobs_of_phases(engine, steps)
    np.testing.assert_allclose(knobs["beta"], [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1], rtol=1e-6)
    for name in ("beta@1", "beta@2"):
        np.testing.assert_allclose(knobs[name], [0.5] * 5 + [0.6, 0.7, 0.8, 0.9, 1.0, 1.0], rtol=1e-6)
    assert [s.reached() for s in engine.schedules().values()] == [4, 9]
    assert [p.labels for p in engine.phases()] == [None, ("guide",), ("model",)]


def test_batches_hold_each_datum_once_an_epoch_in_another_order():
    batches = Batches(10, 4, seed=3)
    index, weight = batches.rows(0, 6, 7)
    epochs = [index[3 * e : 3 * e + 3][weight[3 * e : 3 * e + 3] > 0] for e in (0, 1)]
    assert all(sorted(e) == list(range(10)) for e in epochs) and epochs[0].tolist() != epochs[1].tolist()
    assert weight.sum(1).tolist() == [4, 4, 2, 4, 4, 2, 0]
    assert all(len(set(row)) == 4 for row in index[:6])  # padding is other data
    again, _ = Batches(10, 4, seed=3).rows(4, 2, 2)
    other, _ = Batches(10, 4, seed=4).rows(0, 6, 7)
    assert np.array_equal(again, index[4:6]) and not np.array_equal(other, index)


def test_validation_waits_as_long_as_it_says(monkeypatch):
    """The first of equal values is the best one, and looks before `warm` aren't counted against it."""
    values = iter([-3.0, -4.0, -2.0, -2.0, -5.0, -2.5])
    judge = SimpleNamespace(elbo=lambda k, seed: SimpleNamespace(mean=next(values)))
    monkeypatch.setattr("ppdgm.inference.watch.replace", lambda judge, params: judge)
    trainer = SimpleNamespace(judged=None, now=0)
    trainer.values = lambda: {"step": trainer.now}
    watch, done = Watch(judge, patience=3, warm=40), []
    for trainer.now in range(10, 70, 10):
        done.append(watch.look(trainer, trainer.now))
    assert done == [False, False, False, False, False, True]  # of steps 40, 50 and 60
    assert watch.best == -2.0 and watch.best_params == {"step": 30}


def test_lagging_inference_takes_its_turns():
    """Windows of φ until one is no better, then a step of θ; with no more information, both."""
    director = LaggingInference(window=2, most=6).director(per_epoch=2)
    guide, model, both_ = 0, 1, 2
    taken = []
    objective = iter([1, 3, 2, 4, 2, 4, -9, 1, 1, 0, 1, -9])  # window means 2, 3, 3: then θ; 1, 0.5: then θ

    def go():
        turns = director.next(5)
        taken.extend(turns.tolist())
        return director.seen(turns, np.array([float(next(objective)) for _ in turns]))

    looks = [go() for _ in range(7)]
    assert taken == [guide] * 6 + [model] + [guide] * 4 + [model]
    assert looks == [False] * 6 + [True]  # after two steps of θ
    for information, aggressive in ((0.1, True), (0.3, True), (0.2, False)):
        director.look(information)
        assert director.aggressive is aggressive
    assert director.next(3).tolist() == [both_] * 3
    short = LaggingInference(window=2, most=4).director(per_epoch=1)
    for k in range(2):  # ever better, but four steps at most
        short.seen(short.next(5), np.array([k, k + 1.0]))
    assert short.next(5).tolist() == [model]


# --- steps ----------------------------------------------------------------------------------------------------------


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
