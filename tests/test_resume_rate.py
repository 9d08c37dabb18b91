"""A run that goes on with another learning rate is the run whose recipe had that change from the start."""

import shutil

import numpy as np
import pytest

import ppdgm
from ppdgm.errors import CheckpointError, SpecError, TrainingError
from ppdgm.inference import EM, SVI, Cosine, Linear, Recipe, Stage, Switch
from ppdgm.inference.runs.rates import taken, with_change
from ppdgm.models import MLP, PPCA, VAE

BACKENDS = ("numpyro", "pyro")
X = np.random.default_rng(0).random((41, 6)).astype("float32")
V = np.round(X[:9])
PROGRAM = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
OPTIONS = {"batch_size": 8, "compile": False, "progress": False, "binarise": "dynamic", "weight_average": 0.9}
OLD, NEW = Cosine(peak=1e-2, steps=30), Linear(start=0.03, end=0.01, steps=20)


def same(a, b):
    arrays = [(f.params, f.history) for f in (a, b)]
    return all(
        x.keys() == y.keys() and all(np.array_equal(x[n], y[n], equal_nan=True) for n in x)
        for x, y in zip(*arrays, strict=True)
    )


def copied_to(copy, out):
    """A callback that copies the run's folder at its first call: as a kill at that moment would leave it."""

    def callback(now):
        if not copy.exists():
            shutil.copytree(out, copy, ignore=shutil.ignore_patterns(".lock"))

    return callback


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_equals_the_run_that_had_the_change_from_the_start(backend, tmp_path):
    out, killed = tmp_path / "run", tmp_path / "killed"
    options = {**OPTIONS, "backend": backend}
    ppdgm.fit(PROGRAM, X, out=out, steps=30, learning_rate=OLD, **options)
    again = {"steps": 60, "learning_rate": NEW, "progress": False}
    pieces = ppdgm.resume(out, X, callbacks=copied_to(killed, out), **again)
    rate = Switch(first=OLD, at=30, then=NEW)
    whole = ppdgm.fit(PROGRAM, X, steps=60, learning_rate=rate, **options)
    assert same(whole, pieces) and pieces.training.learning_rate == rate == ppdgm.load(out).training.learning_rate
    assert "learning rate from step 30 on: Linear(start=0.03, end=0.01, steps=20)" in (out / "log.txt").read_text()
    assert Recipe.from_table(ppdgm.load(out).recipe.table()).training.learning_rate == rate
    # Killed before its first checkpoint: the recipe knows of the change, and the checkpoint does not.
    assert ppdgm.load(killed).training.learning_rate == OLD
    assert same(whole, ppdgm.resume(killed, X, progress=False))
    other = ppdgm.fit(PROGRAM, X, steps=60, learning_rate=OLD, **options)
    assert not same(whole, other)  # `same` can say no


def test_from_an_earlier_checkpoint_later_changes_are_dropped(tmp_path):
    out = tmp_path / "run"
    ppdgm.fit(PROGRAM, X, out=out, steps=40, learning_rate=0.01, checkpoint_steps=20, **OPTIONS)
    shutil.copytree(out, tmp_path / "early")
    ppdgm.resume(out, X, steps=60, learning_rate=0.03, progress=False)
    early = tmp_path / "early" / "checkpoints" / f"step-{20:010d}.safetensors"
    shutil.copytree(tmp_path / "early", tmp_path / "again")
    found = ppdgm.resume(tmp_path / "early", X, checkpoint=early, learning_rate=0.02, progress=False)
    assert found.training.learning_rate == Switch(first=0.01, at=20, then=0.02)
    switches = Switch(first=0.01, at=40, then=0.03)
    assert with_change(switches, 20, 0.02) == Switch(first=0.01, at=20, then=0.02)
    assert with_change(switches, 50, 0.02) == Switch(first=switches, at=50, then=0.02)
    assert taken(switches.to_dict(), 40) == 0.01 and taken(switches.to_dict(), 41) == switches.to_dict()


@pytest.mark.parametrize("backend", BACKENDS)
def test_early_stopping_counts_again(backend, tmp_path):
    """At a rate of 0 nothing gets better, and it ends after 3 looks; with another rate it looks again."""
    out, killed = tmp_path / "run", tmp_path / "killed"
    options = {**OPTIONS, "backend": backend, "validation": V, "early_stopping": 3, "weight_average": None}
    first = ppdgm.fit(PROGRAM, X, out=out, steps=120, learning_rate=0.0, **options)
    assert first.stopped == "early stopping" and first.info["steps"] == 24
    again = {"validation": V, "progress": False}
    assert ppdgm.resume(out, X, **again).info["steps"] == 24
    found = ppdgm.resume(out, X, learning_rate=0.01, callbacks=copied_to(killed, out), **again)
    assert found.info["steps"] > 24 and found.history["validation_elbo"].max() > first.history["validation_elbo"].max()
    whole = ppdgm.fit(PROGRAM, X, steps=120, learning_rate=Switch(first=0.0, at=24, then=0.01), **options)
    assert same(whole, found) and same(whole, ppdgm.resume(killed, X, **again))


def test_stages_with_their_own_rates_keep_them(tmp_path):
    out, own = tmp_path / "run", tmp_path / "own"
    engine = [Stage(engine=SVI(), steps=10, learning_rate=0.01), SVI(k=2)]
    ppdgm.fit(PROGRAM, X, out=out, engine=engine, steps=20, **OPTIONS)
    assert ppdgm.resume(out, X, steps=30, learning_rate=0.02, progress=False).training.learning_rate.then == 0.02
    engine = [Stage(engine=SVI(), steps=10), Stage(engine=SVI(k=2), learning_rate=0.01)]
    ppdgm.fit(PROGRAM, X, out=own, engine=engine, steps=20, learning_rate=0.01, **OPTIONS)
    with pytest.raises(TrainingError, match="learning_rate: each stage that is left has its own learning rate"):
        ppdgm.resume(own, X, steps=30, learning_rate=0.02, progress=False)


def test_what_is_refused(tmp_path):
    out = tmp_path / "run"
    ppdgm.fit(PROGRAM, X, out=out, steps=10, learning_rate=0.01, **OPTIONS)
    before = (out / "recipe.toml").read_bytes()
    cases = {
        "already at its last step, 10": {"learning_rate": 0.1},
        "needs 30 steps, but only 10 are left": {"learning_rate": OLD, "steps": 20},
        "expected a number": {"learning_rate": "fast", "steps": 20},
        "batch_size: a resumed run can't change it: the order": {"batch_size": 3},
        "engine: a resumed run can't change it: the optimiser's state": {"engine": SVI(k=3)},
        "beta: a resumed run can't change it: it is a setting of the run's engine": {"beta": 2.0},
        r"clip_norm: .* start a new run: fit\(…, clip_norm=…, params=load": {"clip_norm": 1.0},
        "no argument 'learningrate'. Did you mean 'learning_rate'": {"learningrate": 0.1},
    }
    for message, options in cases.items():
        with pytest.raises((TrainingError, SpecError), match=message):
            ppdgm.resume(out, X, progress=False, **options)
    assert (out / "recipe.toml").read_bytes() == before
    with pytest.raises(SpecError, match=r"learning_rate: got -0\.1"):
        ppdgm.resume(out, X, steps=20, learning_rate=-0.1, progress=False)
    text = before.decode()
    (out / "recipe.toml").write_text(text.replace("learning_rate = 0.01", "learning_rate = 0.02"))
    with pytest.raises(CheckpointError, match=r"training.learning_rate was 0.01, and is now 0.02"):
        ppdgm.resume(out, X, steps=20, progress=False)
    exact = tmp_path / "exact"
    ppdgm.fit(PPCA(event_shape=(6,), posterior="exact"), X, engine=EM(), steps=3, progress=False, out=exact)
    with pytest.raises(TrainingError, match="closed-form steps"):
        ppdgm.resume(exact, X, steps=9, learning_rate=0.1, progress=False)
