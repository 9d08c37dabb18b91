"""FIELD 23. A step that is not finite is told by site, quantity and data; it is skipped, and counted."""

import numpy as np
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.inference.inputs.batches import Batches
from ppdgm.models import MLP
from ppdgm.program import constant

BACKENDS = ("numpyro", "pyro")
RNG = np.random.default_rng(0)
N, B, BAD = 41, 8, 29
DATA = {
    "x": (RNG.random((N, 6)) < 0.5).astype("float32"),
    "root": np.ones((N, 1), "float32"),  # 0 makes the gradient NaN, though the value is finite
    "divisor": np.ones((N, 1), "float32"),  # 0 makes the value infinite
}


class Fragile(Program):
    event_shape: tuple[int, ...] = (6,)

    def build(self, c):
        c.param("gain", (), constant(1.0))
        c.net("decoder", MLP(hidden=(8,)), (2,), self.event_shape)
        c.net("encoder", MLP(hidden=(8,)), self.event_shape, (2, 2), label="guide")

    def model(self, P, x, root, divisor):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            logits = P.net("decoder")(z) * P.xp.sqrt(P.param("gain") * root) / divisor
            P.sample("x", P.dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, P, x, root, divisor):
        with P.plate("data", x):
            h = P.net("encoder")(x)
            P.sample("z", P.dist.Normal(h[..., 0, :], P.softplus(h[..., 1, :]) + 0.1).to_event(1))


def spoiled(field, bad=(BAD,)):
    data = {n: v.copy() for n, v in DATA.items()}
    data[field][list(bad)] = 0.0
    return data


def train(data, backend, **options):
    defaults = {"steps": 40, "batch_size": B, "seed": 3, "progress": False, "compile": False, "weight_average": 0.9}
    return ppdgm.fit(Fragile(), data, backend=backend, **{**defaults, **options})


def steps_with(bad, steps=40, seed=3):
    """Steps whose minibatch holds one of these data, also as padding."""
    index, _ = Batches(N, B, seed).rows(0, steps, steps)
    return [i for i, row in enumerate(index) if set(bad) & set(row.tolist())]


@pytest.mark.parametrize("field", ["root", "divisor"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_just_the_bad_steps_are_skipped(backend, field, capsys):
    fit = train(spoiled(field), backend)
    expected = steps_with([BAD])
    assert 5 < len(expected) < 15
    assert fit.history["skipped_step"].tolist() == expected and fit.info["skipped"] == len(expected)
    assert fit.stopped == "done" and all(np.isfinite(v).all() for v in fit.params.values())
    report = capsys.readouterr().err
    assert f"Step {expected[0]} was skipped" in report and report.count("was skipped") == 5  # the others are counted
    if field == "root":
        assert "the gradient of 'gain' is nan, although all terms are finite" in report
    else:
        assert "log p of site 'x' is" in report and f"in rows [{BAD}] (1 of the 8 in the minibatch)" in report
        assert np.isnan(fit.history["objective"][expected]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_skipped_step_moves_nothing(backend):
    first = steps_with([BAD])[0]
    before, after = (train(spoiled("root"), backend, steps=n) for n in (first, first + 1))
    assert all(np.array_equal(before.params[n], after.params[n]) for n in before.params)
    healthy = train(DATA, backend, steps=first)
    assert all(np.array_equal(before.params[n], healthy.params[n]) for n in before.params)


@pytest.mark.parametrize("field", ["root", "divisor"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_skipping_does_not_depend_on_stretches_or_sessions(backend, field, monkeypatch, tmp_path):
    data = spoiled(field)
    whole = train(data, backend, binarise="dynamic")
    pieces = {}
    with monkeypatch.context() as patch:
        patch.setattr("ppdgm.inference.training.loop.STRETCH_STEPS", 3)
        pieces["stretches"] = train(data, backend, binarise="dynamic")

    def crash(now):
        if now.step >= 15:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(data, backend, binarise="dynamic", out=tmp_path / "run", callbacks=[crash], checkpoint_steps=6)
    pieces["sessions"] = ppdgm.resume(tmp_path / "run", data, progress=False)
    for name, fit in pieces.items():
        assert all(np.array_equal(whole.params[n], fit.params[n]) for n in whole.params), name
        assert np.array_equal(whole.history["skipped_step"], fit.history["skipped_step"])
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"Step {steps_with([BAD])[0]} was skipped" in log


@pytest.mark.parametrize("backend", BACKENDS)
def test_too_many_in_a_row_end_training_with_its_checkpoint_whole(backend, tmp_path, capsys):
    data = spoiled("root", bad=range(5, N))
    fit = train(data, backend, max_skipped=4, out=tmp_path / "run", validation=DATA)
    assert fit.stopped == "not finite" and fit.info["skipped"] == fit.info["steps"] == 4
    first = Fragile().initialise(3)
    assert all(np.array_equal(fit.params[n], first[n]) for n in first)
    assert "4 steps in a row were not finite" in capsys.readouterr().err
    assert ppdgm.load(tmp_path / "run").stopped == "not finite"
    assert np.isfinite(ppdgm.load(tmp_path / "run").elbo(DATA).mean)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_whose_square_overflows_is_noticed(backend, capsys):
    """Adam would keep its infinite second moment, and never move the parameter again; all parameters stay finite."""
    data = {**DATA, "divisor": DATA["divisor"].copy()}
    data["divisor"][BAD] = 1e-25
    fit = train(data, backend)
    assert fit.history["skipped_step"].tolist() == steps_with([BAD])
    assert np.isfinite(fit.history["objective"]).all() and "overflows in the optimiser" in capsys.readouterr().err
