"""What a run looks at while it is trained: in the history, the progress line, and callbacks; and nothing else moves."""

import csv

import numpy as np
import pytest
from planted import data, fit_of
from readings import BACKENDS
from test_export import Mean
from test_turns import Shift

import ppdgm
from ppdgm.callbacks import Callback
from ppdgm.errors import TrainingError
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.runs.progress import Progress
from ppdgm.inference.training.monitor import Monitor
from ppdgm.models import MLP, VAE, HierarchicalVAE

both = pytest.mark.parametrize("backend", BACKENDS)
X = (data(83) > 0).astype("float32")
NETS = {"encoder": MLP(hidden=(8,)), "decoder": MLP(hidden=(8,))}
PROGRAM = VAE(event_shape=(6,), latent=2, **NETS)


@both
def test_numbers_are_those_of_closed_forms(backend):
    """An exact linear guide: its KL, the variances of its means and its information are formulas."""
    fit, x = fit_of(backend=backend), data(500)
    found = Monitor(fit._runtime, Feed(fit._runtime, {"x": x}), 1).measure(fit._native)
    p = fit.params
    means, scale = x @ p["guide.weight"].T + p["guide.bias"], np.exp(p["guide.log_scale"])
    kl = (0.5 * (means**2 + scale**2 - 1) - np.log(scale)).sum(1).mean()
    assert found["live_kl_z"] == pytest.approx(kl, rel=1e-4)
    assert found["live_active_z"] == 2
    information = 0.5 * np.log(1 + means.var(0) / scale**2).sum()  # of normal codes; of 500 data, a little less
    assert information - 0.3 < found["live_information"] < information + 0.05


@both
def test_looks_go_to_the_history_and_change_nothing_else(backend, tmp_path):
    seen: list[Progress] = []
    options = {"epochs": 7, "batch_size": 20, "backend": backend, "progress": False}
    plain = ppdgm.fit(PROGRAM, X, validation=X[:40], **options)
    fit = ppdgm.fit(
        PROGRAM, X, validation=X[:40], diagnose_epochs=3, callbacks=[seen.append], out=tmp_path / "run", **options
    )
    assert all(np.array_equal(plain.params[n], v) for n, v in fit.params.items())
    assert all(np.array_equal(plain.history[n], fit.history[n]) for n in plain.history)
    assert fit.history["live_step"].tolist() == [15, 30, 35]  # five steps are an epoch; and the end
    last = Monitor(fit._runtime, Feed(fit._runtime, {"x": X[:40]}), 1).measure(fit._runtime.put(fit.params))
    named = {n: v[-1] for n, v in fit.history.items() if n.startswith("live_") and n != "live_step"}
    assert named == pytest.approx(last, rel=1e-5) and set(named) == {"live_kl_z", "live_active_z", "live_information"}
    assert seen[-1].live == named and f"active {int(named['live_active_z'])}  information" in seen[-1].bound
    assert 0 < fit.info["diagnose_share"] < 1
    assert "measured the latents 3 times" in (tmp_path / "run" / "log.txt").read_text()
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").read_text().splitlines()))
    assert [float(r["live_kl_z"]) for r in rows if r["live_kl_z"]] == pytest.approx(fit.history["live_kl_z"])
    again = ppdgm.load(tmp_path / "run")
    assert np.array_equal(again.history["live_information"], fit.history["live_information"])


@both
def test_looks_are_resumed(backend, tmp_path):
    options = {"epochs": 6, "batch_size": 20, "backend": backend, "progress": False, "diagnose_epochs": 2}

    def crash(now):
        if now.step >= 22:
            raise KeyError

    whole = ppdgm.fit(PROGRAM, X, **options)
    with pytest.raises(KeyError):
        ppdgm.fit(PROGRAM, X, out=tmp_path / "run", checkpoint_steps=11, callbacks=[crash], **options)
    again = ppdgm.resume(tmp_path / "run", X, progress=False)
    assert all(np.array_equal(whole.history[n], again.history[n]) for n in whole.history)


def test_several_sites_each_have_their_own():
    program = HierarchicalVAE(event_shape=(6,), latent=(3, 2), levels=MLP(hidden=(4,)), **NETS)
    fit = ppdgm.fit(program, X, epochs=1, diagnose_epochs=1, progress=False)
    assert {"live_kl_z1", "live_kl_z2", "live_active_z1", "live_active_z2"} <= set(fit.history)


def test_programs_without_a_latent_of_each_datum_are_refused():
    for program, reason in ((Mean(), "all rows share"), (Shift(), "the guide is a point mass")):
        with pytest.raises(TrainingError, match=f"diagnose_epochs: .*{reason}.*Leave it out"):
            ppdgm.fit(program, X[:, :1], epochs=1, diagnose_epochs=1, progress=False)


def test_callbacks_get_them_by_name():
    class Kept(Callback):
        def open(self, step):
            self.values = {}

        def write(self, values, step):
            self.values |= values

        def close(self):
            pass

    kept = Kept()
    ppdgm.fit(PROGRAM, X, epochs=2, diagnose_epochs=1, progress=False, callbacks=kept)
    assert {"live/kl_z", "live/active_z", "live/information"} <= set(kept.values)
