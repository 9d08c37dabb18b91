"""A run that was stopped goes on as if it never was: the same bits, on each backend."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import optax
import pytest
import torch

import ppdgm
from ppdgm.errors import CheckpointError, DataError, PpdgmError, TrainingError
from ppdgm.inference import SVI, Cosine, LaggingInference, Linear, MonteCarloEM, Resampled, Stage, VariationalEM
from ppdgm.models import MLP, VAE

BACKENDS = ("numpyro", "pyro")
X = np.random.default_rng(0).random((41, 6)).astype("float32")
V = np.round(X[:9])
PROGRAM = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
EVERYTHING = {
    "engine": SVI(k=2, beta=Linear(steps=40)),
    "learning_rate": Cosine(peak=1e-2, steps=90, warmup=10),
    "clip_norm": 1.0,
    "weight_average": 0.9,
    "binarise": "dynamic",
    "validation": V,
    "early_stopping": 50,
    "steps": 90,
    "batch_size": 8,  # 41 = 5·8 + 1: stretches and epochs end with a ragged minibatch
    "compile": False,
    "progress": False,
}


class Crash(Exception):
    pass


def crash_at(step):
    def callback(now):
        if now.step >= step:
            raise Crash

    return callback


def same(a, b):
    arrays = [(f.params, f.history) for f in (a, b)]
    return all(
        x.keys() == y.keys() and all(np.array_equal(x[n], y[n], equal_nan=True) for n in x)
        for x, y in zip(*arrays, strict=True)
    )


def crash_and_resume(out, at, **options):
    """The run, stopped by an error at each of the steps, and resumed from its folder."""
    own = {n: options[n] for n in ("optimiser",) if n in options and not isinstance(options[n], str)}
    with pytest.raises(Crash):
        ppdgm.fit(PROGRAM, X, out=out, callbacks=[crash_at(at[0])], checkpoint_steps=7, **options)
    again = {"validation": options.get("validation"), "progress": False, **own}
    for step in at[1:]:
        with pytest.raises(Crash):
            ppdgm.resume(out, X, callbacks=[crash_at(step)], **again)
    return ppdgm.resume(out, X, **again)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_resumed_run_equals_an_uninterrupted_one(backend, tmp_path):
    whole = ppdgm.fit(PROGRAM, X, backend=backend, **EVERYTHING)
    pieces = crash_and_resume(tmp_path / "run", (20, 21, 60), backend=backend, **EVERYTHING)
    assert same(whole, pieces) and pieces.stopped == "done" and len(whole.history["elbo"]) == 90
    assert same(whole, ppdgm.load(tmp_path / "run"))
    other = ppdgm.fit(PROGRAM, X, backend=backend, **{**EVERYTHING, "seed": 1})
    assert not same(whole, other)  # `same` can say no


def test_a_compiled_run_resumes_compiled(tmp_path):
    options = {**EVERYTHING, "backend": "pyro", "compile": True}
    whole = ppdgm.fit(PROGRAM, X, **options)
    pieces = crash_and_resume(tmp_path / "run", (30,), **options)
    assert same(whole, pieces) and pieces.info["compile"] is True


@pytest.mark.parametrize("name", ["adamw", "adamax", "sgd", "own"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_optimiser_resumes(backend, name, tmp_path):
    own = {
        "numpyro": optax.chain(optax.add_noise(0.1, 0.5, 0), optax.amsgrad(optax.linear_schedule(0.1, 0.01, 60))),
        "pyro": lambda params: torch.optim.RMSprop(params, lr=1e-2, momentum=0.5),
    }
    options = {"steps": 60, "batch_size": 8, "compile": False, "progress": False}
    options |= {"optimiser": own[backend] if name == "own" else name, "backend": backend, "binarise": "dynamic"}
    whole = ppdgm.fit(PROGRAM, X, **options)
    assert same(whole, crash_and_resume(tmp_path / "run", (15, 40), **options))


@pytest.mark.parametrize("backend", BACKENDS)
def test_early_stopping_is_remembered(backend, tmp_path):
    """At a learning rate of 0 nothing gets better: it ends after as many looks, in one session or in three."""
    options = {**EVERYTHING, "backend": backend, "learning_rate": 0.0, "early_stopping": 7, "engine": SVI()}
    whole = ppdgm.fit(PROGRAM, X, **options)
    assert whole.stopped == "early stopping" and whole.info["steps"] == 8 * 6
    pieces = crash_and_resume(tmp_path / "run", (12, 30), **options)
    assert pieces.stopped == "early stopping" and same(whole, pieces)
    again = ppdgm.resume(tmp_path / "run", X, validation=V, progress=False)
    assert again.stopped == "early stopping" and same(whole, again)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_best_parameters_are_remembered(backend, tmp_path):
    """A learning rate that destroys the model late: the best validation was long before the crash."""
    late = Linear(start=0.001, end=3.0, steps=90)
    options = {**EVERYTHING, "backend": backend, "learning_rate": late, "weight_average": None, "clip_norm": None}
    whole = ppdgm.fit(PROGRAM, X, **options)
    assert whole.history["validation_step"][whole.history["validation_elbo"].argmax()] < 60
    pieces = crash_and_resume(tmp_path / "run", (70,), **options)
    assert same(whole, pieces) and same(whole, ppdgm.load(tmp_path / "run"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_and_a_request_to_end_leave_a_run_to_go_on_with(backend, tmp_path):
    whole = ppdgm.fit(PROGRAM, X, backend=backend, **EVERYTHING)
    for number, sign in enumerate((signal.SIGINT, signal.SIGTERM)):
        out, passed_on = tmp_path / str(number), []
        before = signal.signal(signal.SIGTERM, lambda number, frame: passed_on.append(number))  # noqa: B023
        stop = lambda now, sign=sign: signal.raise_signal(sign) if now.step >= 20 else None
        part = ppdgm.fit(PROGRAM, X, backend=backend, out=out, callbacks=[stop], checkpoint_steps=7, **EVERYTHING)
        signal.signal(signal.SIGTERM, before)
        assert passed_on == [signal.SIGTERM] * (sign == signal.SIGTERM)  # it is of the whole process, not of `fit`
        assert part.stopped == "interrupted" and part.info["steps"] < 90
        assert json.loads((out / "status.json").read_text())["state"] == "interrupted"
        assert same(whole, ppdgm.resume(out, X, validation=V, progress=False))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_finished_run_trains_on_for_longer(backend, tmp_path):
    """As if it had been planned so from the start; what it held stays whole."""
    options = {"batch_size": 8, "backend": backend, "compile": False, "progress": False, "weight_average": 0.5}
    whole = ppdgm.fit(PROGRAM, V, steps=40, **options)
    ppdgm.fit(PROGRAM, V, steps=25, out=tmp_path / "run", **options)
    longer = ppdgm.resume(tmp_path / "run", V, steps=40, progress=False)
    assert same(whole, longer) and same(whole, ppdgm.load(tmp_path / "run"))
    assert "steps = 40" in (tmp_path / "run" / "recipe.toml").read_text()


ENGINES = {
    "lagging": LaggingInference(window=3, most=6, every=2),
    "stages of EM": [Stage(engine=VariationalEM(e_steps=2), steps=6), MonteCarloEM(e_steps=2, sampler=Resampled(k=3))],
    "streamed": SVI(),
}


@pytest.mark.parametrize(("backend", "name"), [*(("pyro", n) for n in ENGINES), ("numpyro", "streamed")])
def test_the_history_of_a_killed_run_is_the_same_file(backend, name, tmp_path):
    """The bytes of history.csv: killed (the folder as it then is) and resumed, and saved from what is loaded.

    benchmarks/kills.py does it with every engine on both backends.
    """
    data, out = np.round(X), tmp_path / "whole"
    if name == "streamed":
        np.save(tmp_path / "x.npy", data)
        data = np.load(tmp_path / "x.npy", mmap_mode="r")
    options = {"steps": 16, "batch_size": 8, "checkpoint_steps": 4, "diagnose_epochs": 1, "validation": V}
    options |= {"engine": ENGINES[name], "backend": backend, "compile": False, "progress": False, "out": out}
    killed = lambda now: shutil.copytree(out, tmp_path / "killed", dirs_exist_ok=True) if now.step == 12 else None
    ppdgm.fit(PROGRAM, data, callbacks=[killed], **options)
    ppdgm.resume(tmp_path / "killed", data, validation=V, progress=False)
    ppdgm.load(out).save(tmp_path / "saved")
    whole, *others = [(tmp_path / n / "history.csv").read_bytes() for n in ("whole", "killed", "saved")]
    columns = b"step,objective,elbo,kl,phase," if name == "lagging" else b"step,objective,elbo,kl,"
    assert whole.startswith(columns + b"validation_elbo,live_active_z,live_information,live_kl_z\n")
    assert others == [whole, whole]


CHILD = """
import sys, numpy as np, ppdgm
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_resume import EVERYTHING, PROGRAM, V, X
out = Path({out!r})
slow = lambda now: __import__("time").sleep(0.02)
if any(out.glob("checkpoints/step-*")):
    ppdgm.resume(out, X, validation=V, progress=False, callbacks=[slow])
else:
    ppdgm.fit(PROGRAM, X, backend={backend!r}, out=out, overwrite=out.exists(), callbacks=[slow], checkpoint_steps=7,
              **EVERYTHING)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_random_and_resumed(backend, tmp_path):
    """A small version of benchmarks/kills.py: SIGKILL to a process of its own."""
    out, rng, kills = tmp_path / "run", np.random.default_rng(0), 0
    from pathlib import Path

    code = textwrap.dedent(CHILD.format(out=str(out), backend=backend, tests=str(Path(__file__).parent)))
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", code])
        first = _step(out)
        while child.poll() is None and _step(out) == first:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        if child.poll() is None:
            child.kill()
            kills += 1
        child.wait()
    assert kills and ppdgm.inference.runs.checkpoint.__name__
    final = ppdgm.resume(out, X, validation=V, progress=False)
    assert same(ppdgm.fit(PROGRAM, X, backend=backend, **EVERYTHING), final)
    left = {f.name for f in (out / "checkpoints").iterdir()}
    assert len(left) == 2 and all(n.startswith("step-") for n in left)  # nothing half-written stays


def _step(out):
    found = sorted(out.glob("checkpoints/step-*"))
    return found[-1].name if found else ""


def test_two_sessions_cannot_write_one_folder(tmp_path):
    out, found = tmp_path / "run", []

    def intrude(now):
        for call in (
            lambda: ppdgm.resume(out, X, validation=V, progress=False),
            lambda: ppdgm.fit(PROGRAM, X, out=out, overwrite=True, checkpoint_steps=7, **EVERYTHING),
        ):
            if now.step > 10 and len(found) < 2:
                with pytest.raises(CheckpointError) as error:
                    call()
                found.append(str(error.value))

    ppdgm.fit(PROGRAM, X, out=out, callbacks=[intrude], checkpoint_steps=7, **EVERYTHING)
    assert len(found) == 2 and all("still writing to it" in message for message in found)


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_a_run_with_validation_data_goes_on_with_the_same(backend, tmp_path):
    """Without them it would return the last parameters, and with others values of both would choose the best."""
    out, options = (
        tmp_path / "run",
        {"backend": backend, "compile": False, "steps": 6, "batch_size": 20, "binarise": "dynamic"},
    )
    with pytest.raises(Crash):
        ppdgm.fit(
            PROGRAM, X, validation=V, out=out, callbacks=[crash_at(4)], checkpoint_steps=1, progress=False, **options
        )
    with pytest.raises(DataError, match="was started with validation data"):
        ppdgm.resume(out, X, progress=False)
    with pytest.raises(DataError, match="validation: got other data"):
        ppdgm.resume(out, X, validation=V[1:], progress=False)
    assert len(ppdgm.resume(out, X, validation=V, progress=False).history["validation_elbo"]) > 1


def test_what_resume_refuses(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Crash):
        ppdgm.fit(PROGRAM, X, out=out, callbacks=[crash_at(20)], checkpoint_steps=7, **EVERYTHING)
    cases = {
        "data were given in Python": lambda: ppdgm.resume(out),
        "content was": lambda: ppdgm.resume(out, 1 - X, validation=V),
        "number of rows was 41, and is now 40": lambda: ppdgm.resume(out, X[:40], validation=V),
        "needs validation": lambda: ppdgm.resume(out, X),
        "validation: got other data": lambda: ppdgm.resume(out, X, validation=1 - V),
        "already has one": lambda: ppdgm.resume(out, X, validation=V, optimiser=optax.adam(0.1)),
        "not a run's folder": lambda: ppdgm.resume(tmp_path, X),
        "already at step": lambda: ppdgm.resume(out, X, validation=V, steps=3),
    }
    for message, call in cases.items():
        with pytest.raises(PpdgmError, match=message):
            call()
    assert issubclass(DataError, PpdgmError) and issubclass(TrainingError, PpdgmError)
    ppdgm.resume(out, X, validation=V, progress=False)
