"""What schedules, plans and directors give at each step, and when validation stops a run: worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from ppdgm.inference import SVI, LaggingInference, Stage, Stages, VariationalEM
from ppdgm.inference.engines.criteria import ELBO
from ppdgm.inference.engines.engine import hyperparameters_of, last_reached, rates_of
from ppdgm.inference.inputs.batches import Batches
from ppdgm.inference.training.validation import Validation
from ppdgm.specs.schedules import Constant, Cosine, Cyclical, Exponential, Linear, Sigmoid, Switch

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
    Switch(first=Linear(start=0.2, end=1.0, steps=8), at=4, then=Linear(start=3.0, end=1.0, steps=2)): (
        [0, 2, 3, 4, 5, 6, 9],
        [0.2, 0.4, 0.5, 3.0, 2.0, 1.0, 1.0],
    ),
    Switch(first=Switch(first=0.5, at=2, then=0.25), at=3, then=0.125): (
        [0, 1, 2, 3, 9],
        [0.5, 0.5, 0.25, 0.125, 0.125],
    ),
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
    """Rates, hyperparameters and phases of each step; the run's rate where a stage has none."""
    first = SVI(beta=Linear(end=1.0, steps=4))
    inner = VariationalEM(e_steps=2, m_steps=1, engine=SVI(beta=Linear(start=0.5, end=1.0, steps=5)))
    ramp = Linear(start=0.1, end=0.5, steps=4)
    engine = Stages(stages=(Stage(engine=first, steps=4), Stage(engine=inner, learning_rate=ramp)))
    steps = np.arange(11)
    turns = engine.phase_of(steps)
    assert turns.tolist() == [0, 0, 0, 0, 1, 1, 2, 1, 1, 2, 1]
    rates = rates_of(engine, Exponential(start=1.0, rate=0.5), steps, turns)
    np.testing.assert_allclose(rates, [1, 0.5, 0.25, 0.125, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5], rtol=1e-6)
    first, *others = hyperparameters_of(engine, steps)
    np.testing.assert_allclose(first["beta"], [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1], rtol=1e-6)
    for other in others:
        np.testing.assert_allclose(other["beta"], [0.5] * 5 + [0.6, 0.7, 0.8, 0.9, 1.0, 1.0], rtol=1e-6)
    assert last_reached(engine) == 9
    assert last_reached(engine.replace(stages=(engine.stages[0], Stage(engine=SVI())))) == 4  # a constant ends nowhere
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
    values = iter([-3.0, -2.0, -4.0, -2.0, -5.0, -2.5])
    monkeypatch.setattr("ppdgm.inference.training.validation.replace", lambda evaluator, params: evaluator)
    monkeypatch.setattr(
        "ppdgm.inference.training.validation.watched", lambda evaluator, criterion: np.array([next(values)])
    )
    trainer = SimpleNamespace(judged=None, now=0)
    trainer.values = lambda: {"step": trainer.now}
    watch, done = Validation(ELBO, None, patience=3, warm=40), []
    for trainer.now in range(10, 70, 10):
        done.append(watch.look(trainer, trainer.now))
    assert done == [False, False, False, False, False, True]  # of steps 40, 50 and 60
    assert watch.best == -2.0 and watch.best_params == {"step": 20}


def test_lagging_inference_takes_its_turns():
    """Windows of φ until one is no better, then a step of θ; with no more information, both."""
    controller = LaggingInference(window=2, most=20).controller(per_epoch=2)
    guide, model, both_ = 0, 1, 2
    taken = []
    objective = iter([1, 3, 2, 4, 2, 4, -9, 1, 1, 0, 1, -9])  # window means 2, 3, 3: then θ; 1, 0.5: then θ

    def go():
        turns = controller.next(5)
        taken.extend(turns.tolist())
        return controller.seen(turns, np.array([float(next(objective)) for _ in turns]))

    looks = [go() for _ in range(7)]
    assert taken == [guide] * 6 + [model] + [guide] * 4 + [model]
    assert looks == [False] * 6 + [True]  # after two steps of θ
    for information, aggressive in ((0.1, True), (0.3, True), (0.2, False)):
        controller.look(information)
        assert controller.aggressive is aggressive
    assert controller.next(3).tolist() == [both_] * 3
    short = LaggingInference(window=2, most=4).controller(per_epoch=1)
    for k in range(2):  # ever better, but four steps at most
        short.seen(short.next(5), np.array([k, k + 1.0]))
    assert short.next(5).tolist() == [model]
