"""Training: what it returns, when it stops, what it refuses."""

import os
import signal
import threading

import numpy as np
import optax
import pytest
import torch

import ppdgm
from ppdgm.errors import PpdgmError
from ppdgm.inference import SVI, Cosine, Linear
from ppdgm.models import MLP, VAE

BACKENDS = ("numpyro", "pyro")
RNG = np.random.default_rng(0)
X = (RNG.random((41, 6)) < RNG.random(6)).astype("float32")


def small(**fields):
    return VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)), **fields)


def train(backend, **options):
    defaults = {"steps": 30, "batch_size": 8, "progress": False, "seed": 3, "compile": False}
    return ppdgm.fit(small(), X, backend=backend, **{**defaults, **options})


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_seed_gives_the_same_bits(backend):
    a, b, other = train(backend), train(backend), train(backend, seed=4)
    assert all(np.array_equal(a.params[n], b.params[n]) for n in a.params)
    assert np.array_equal(a.history["elbo"], b.history["elbo"])
    assert not np.array_equal(a.history["elbo"], other.history["elbo"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_stretches_do_not_matter(backend, monkeypatch):
    """However often training looks up, it takes the same steps."""
    whole = train(backend)
    monkeypatch.setattr("ppdgm.inference.training.loop.STRETCH_STEPS", 7)
    pieces = train(backend)
    assert all(np.array_equal(whole.params[n], pieces.params[n]) for n in whole.params)


@pytest.mark.parametrize("backend", BACKENDS)
def test_history_and_epochs(backend):
    fit = train(backend, steps=None, epochs=3, validation=X[:9])
    assert fit.history["elbo"].shape == fit.history["kl"].shape == fit.history["step"].shape == (18,)  # 41 = 5·8 + 1
    assert fit.history["validation_step"].tolist() == [6, 12, 18]
    assert fit.stopped == "done" and fit.info["steps"] == 18


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_raises_the_bound(backend):
    fit = train(backend, steps=400, learning_rate=1e-2)
    before = ppdgm.Fit(fit.program, fit.program.initialise(3), backend).elbo(X, k=50)
    after = fit.elbo(X, k=50)
    assert after.mean > before.mean + 10 * np.hypot(after.monte_carlo_error, before.monte_carlo_error)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("binarise", ["none", "dynamic"])
def test_a_last_batch_of_one_datum_trains(backend, binarise):
    """FIELD 10. 41 = 5·8 + 1; and a single datum in all."""
    fit = train(backend, steps=None, epochs=2, binarise=binarise)
    assert np.isfinite(fit.history["elbo"]).all()
    one = ppdgm.fit(small(), X[:1], backend=backend, steps=3, progress=False)
    assert np.isfinite(one.history["elbo"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_reported_elbo_has_beta_one(backend):
    """FIELD 4. The same first step, with β = 0 and β = 1, reports one ELBO; the objective differs by the KL."""
    free = train(backend, steps=1, engine=SVI(beta=0.0)).history
    full = train(backend, steps=1, engine=SVI(beta=1.0)).history
    assert np.allclose(free["elbo"], full["elbo"], rtol=1e-6)
    assert np.allclose(full["objective"], full["elbo"], rtol=1e-6)
    assert np.allclose(free["objective"], full["elbo"] + full["kl"], rtol=1e-5)
    assert full["kl"][0] > 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_beta_follows_its_schedule_in_steps(backend):
    history = train(backend, steps=8, engine=SVI(beta=Linear(start=0.0, end=2.0, steps=4))).history
    beta = (history["elbo"] + history["kl"] - history["objective"]) / history["kl"]
    assert np.allclose(beta, [0, 0.5, 1, 1.5, 2, 2, 2, 2], atol=1e-3)


def test_a_warm_up_longer_than_the_run_is_refused():
    """FIELD 4."""
    with pytest.raises(PpdgmError, match=r"beta: the schedule needs 100 steps, but the run has 30"):
        train("numpyro", engine=SVI(beta=Linear(steps=100)))
    with pytest.raises(PpdgmError, match=r"beta: the schedule needs 100 .* learning_rate: the schedule needs 90"):
        train("numpyro", learning_rate=Cosine(peak=1e-3, steps=90), engine=SVI(beta=Linear(steps=100)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_early_stopping_waits_for_the_warm_up(backend):
    """FIELD 4. At a learning rate of 0 nothing gets better: patience runs out, but not before the warm-up is over."""
    stop = {"steps": None, "epochs": 40, "validation": X[:9], "early_stopping": 2, "learning_rate": 0.0}
    assert train(backend, **stop).info["steps"] == 3 * 6  # the first is the best; then two without a better one
    warm = train(backend, **stop, engine=SVI(beta=Linear(steps=60)))
    assert warm.stopped == "early stopping" and warm.info["steps"] == 60 + 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_keep_best_returns_the_best_validated_parameters(backend):
    """A learning rate that destroys the model late: the kept parameters are from before."""
    late = Linear(start=0.001, end=2.0, steps=60)
    best = train(backend, steps=60, validation=X[:9], learning_rate=late)
    last = train(backend, steps=60, validation=X[:9], learning_rate=late, keep_best=False)
    assert best.history["validation_elbo"].argmax() < len(best.history["validation_elbo"]) - 1
    assert best.elbo(X[:9], k=200).mean > last.elbo(X[:9], k=200).mean


@pytest.mark.parametrize("backend", BACKENDS)
def test_weight_averages_are_those_of_the_steps(backend):
    """By hand, from the parameters after each of six steps; and they are what is validated and returned."""
    average = {n: v.astype(float) for n, v in small().initialise(3).items()}
    for steps in range(1, 7):
        now = train(backend, steps=steps, learning_rate=0.05).params
        average = {n: 0.8 * average[n] + 0.2 * now[n] for n in average}
    fit = train(backend, steps=6, learning_rate=0.05, weight_average=0.8, validation=X)
    assert all(np.allclose(fit.params[n], average[n], atol=1e-6) for n in average)
    assert not all(np.allclose(fit.params[n], now[n], atol=1e-3) for n in average)
    judged = ppdgm.Fit(small(), fit.params, backend).elbo(X, k=1, seed=0).mean
    assert fit.history["validation_elbo"][-1] == pytest.approx(judged, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_is_right_where_logits_are_zero(backend):
    """A zero-initialised last layer: the first step of SGD moves its bias by the mean of x − σ(0)."""
    params = small().initialise(0)
    params["decoder.layers.1.weight"][:] = 0.0
    fit = train(backend, params=params, optimiser="sgd", learning_rate=1.0, steps=1, batch_size=41)
    assert np.allclose(fit.params["decoder.layers.1.bias"], (X - 0.5).mean(0), atol=1e-6)


def test_own_optimisers():
    own = {"numpyro": optax.adam(1e-2), "pyro": lambda params: torch.optim.Adam(params, lr=1e-2)}
    for backend in BACKENDS:
        by_name = train(backend, learning_rate=1e-2)
        mine = train(backend, optimiser=own[backend])
        assert all(np.allclose(by_name.params[n], mine.params[n], atol=1e-5) for n in mine.params)
        with pytest.raises(PpdgmError, match="optimiser: got"):
            train(backend, optimiser=own[BACKENDS[1 - BACKENDS.index(backend)]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_callbacks_see_progress_and_can_stop(backend):
    seen = []

    def watch(now):
        seen.append((now.step, now.metrics["elbo"], now.bound))
        return now.step >= 20

    fit = train(backend, steps=1000, callbacks=[watch])
    assert fit.stopped == "callback" and fit.info["steps"] == seen[-1][0] < 1000
    assert all(np.isfinite(elbo) for _, elbo, _ in seen)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_returns_what_was_reached(backend):
    def interrupt(now):
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    fit = train(backend, steps=10_000, callbacks=[interrupt])
    assert fit.stopped == "interrupted" and 0 < fit.info["steps"] < 10_000
    assert np.isfinite(fit.elbo(X).mean)
    assert signal.getsignal(signal.SIGINT) is before


def test_training_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(train("numpyro", steps=2)))
    thread.start()
    thread.join()
    assert found[0].info["steps"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_diverges_stops_and_says_where(backend, capsys):
    fit = train(backend, optimiser="sgd", learning_rate=1e30)
    assert fit.stopped == "not finite"
    assert all(np.isfinite(v).all() for v in fit.params.values())
    assert "10 steps in a row were not finite" in capsys.readouterr().err


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_ends_far_below_its_start_is_no_success(backend, capsys, tmp_path):
    fit = train(backend, learning_rate=1e6, out=tmp_path / "a")
    assert fit.stopped == "diverged" == ppdgm.load(tmp_path / "a").stopped
    assert fit.history["elbo"][-1] < 100 * fit.history["elbo"][0] < 0
    assert "Training diverged: the ELBO was" in capsys.readouterr().err
    assert train(backend).stopped == "done"


def test_progress_lines_have_rate_time_left_and_bound(capsys):
    train("numpyro", progress=True)
    err = capsys.readouterr().err
    assert all(word in err for word in ("step 30/30", "epoch 5.0/5", "/s", "took", "ELBO -", "KL "))
    train("numpyro", progress=False)
    assert capsys.readouterr().err == ""


REFUSED = {
    "spelling": ({"optimizer": "adam"}, "fit() has no argument 'optimizer'. Did you mean 'optimiser'?"),
    "average": ({"weight_average": 1.0}, "weight_average: got 1.0; expected a number less than 1"),
    "skipped": ({"max_skipped": 0}, "max_skipped: got 0"),
    "minutes": ({"checkpoint_minutes": -1.0}, "checkpoint_minutes: got -1.0"),
    "neither": ({"steps": None}, "one of epochs=… and steps=…"),
    "both": ({"epochs": 1}, "one of epochs=… and steps=…"),
    "no steps": ({"steps": 0}, "steps: got 0"),
    "seed": ({"seed": -1}, "seed: got -1"),
    "batch": ({"batch_size": 0}, "batch_size: got 0"),
    "backend": ({"backend": "jax"}, "Unknown backend 'jax'"),
    "engine": ({"engine": "svi"}, "engine: got 'svi'"),
    "optimiser": ({"optimiser": "adm"}, "Did you mean 'adam'?"),
    "rate": ({"learning_rate": "fast"}, "got 'fast'"),
    "dtype": ({"dtype": "float16"}, "dtype: got 'float16'"),
    "patience": ({"early_stopping": 3}, "needs validation"),
    "device": ({"device": "cuda:9"}, "No device 'cuda:9'"),
    "params": ({"params": {"a": np.zeros(2)}}, "parameter 'decoder.layers.0.weight' is missing"),
    "clip": (
        {"optimiser": optax.sgd(1.0), "clip_norm": 1.0},
        "clip_norm: works only with an optimiser that is given by name",
    ),
    "validation": ({"validation": X[:, :2]}, "got data of shape (2,), expected (6,)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_are_refused_before_work_starts(case):
    options, message = REFUSED[case]
    with pytest.raises(PpdgmError) as error:
        train(**{"backend": "numpyro", **options})
    assert message in str(error.value)


BAD_DATA = {
    "empty": (X[:0], "at least one row"),
    "shape": (X[:, :3], "expected (6,)"),
    "range": (X * 2, "at index (0,"),
    "nan": (np.where(np.arange(6) == 2, np.nan, X), "at index (0, 2), expected finite"),
    "ragged": ([[1, 2], [3]], "rows of different lengths"),
    "words": (np.array([["a"] * 6]), "got text, expected real numbers"),
    "none": (None, "got nothing (None)"),
    "fields": ({"x": X, "label": X[:, 0]}, "takes ['x']"),
    "missing": ({"y": X}, "takes ['x']"),
    "lengths": ({"x": X, "y": X[:3]}, "the same number"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_are_refused(case):
    data, message = BAD_DATA[case]
    with pytest.raises(PpdgmError) as error:
        ppdgm.fit(small(), data, steps=1, progress=False)
    assert message in str(error.value)


def test_programs_are_told_from_other_things():
    with pytest.raises(PpdgmError, match="program: got str, expected a Program"):
        ppdgm.fit("vae", X, steps=1)


def test_float64_on_numpyro_needs_64_bit_mode():
    import jax

    with pytest.raises(ppdgm.UnsupportedByBackend, match="enable_x64"):
        train("numpyro", dtype="float64")
    with jax.enable_x64(True):
        fit = train("numpyro", dtype="float64", steps=2)
        assert fit.params["encoder.layers.0.weight"].dtype == np.float64


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_in_a_callback_does_not_lose_the_run(backend, tmp_path):
    def fail(now):
        raise RuntimeError("a slip in a callback")

    with pytest.raises(RuntimeError, match="a slip"):
        train(backend, callbacks=[fail], out=tmp_path / "run")
    kept = ppdgm.load(tmp_path / "run")
    assert kept.stopped == "failed" and kept.info["steps"] > 0 and np.isfinite(kept.elbo(X).mean)
