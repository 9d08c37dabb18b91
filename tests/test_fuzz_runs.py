"""Arrays, arguments and files of every kind: they work, or one line says why not; never half, never a warning."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import attempt, damage, damages, fuzzed, values
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import ppdgm
from ppdgm.cli import runs as table_of_runs
from ppdgm.inference import SVI, Linear
from ppdgm.inference.runs.layout import check_free, read_status
from ppdgm.inference.training.job import Job
from ppdgm.models import MLP, VAE, Gaussian

QUICK = {"steps": 2, "backend": "pyro", "compile": False, "progress": False}
SMALL = {"latent": 2, "encoder": MLP(hidden=(3,)), "decoder": MLP(hidden=(3,))}
X = (np.random.default_rng(0).random((20, 3)) < 0.5).astype("float32")
PROGRAM = VAE(event_shape=(3,), **SMALL)

# --- arrays -------------------------------------------------------------------------------------------------------

numbers = st.one_of(
    arrays.floating_dtypes(endianness="?"),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.boolean_dtypes(),
)
others = st.one_of(
    arrays.complex_number_dtypes(),
    arrays.unicode_string_dtypes(max_len=3),
    arrays.byte_string_dtypes(max_len=3),
    arrays.datetime64_dtypes(),
    arrays.timedelta64_dtypes(),
    st.just(np.dtype(object)),
    st.just(np.dtype([("a", "f4"), ("b", "i8", (2,))])),
)
shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
LOOKS = {
    "as it is": lambda a: a,
    "turned round": lambda a: a[::-1] if a.ndim else a,
    "transposed": lambda a: a.T,
    "every other": lambda a: a[..., ::2] if a.ndim else a,
    "repeated": lambda a: np.broadcast_to(a, (3, *a.shape)),
    "masked": lambda a: np.ma.array(a, mask=np.resize([True, False], a.shape)),
    "nothing masked": np.ma.array,
    "a list": lambda a: a.tolist(),
    "a record": lambda a: a.view(np.recarray),
    "single numbers": lambda a: list(a.reshape(-1)),
    "of rows": lambda a: list(a) if a.ndim else [a],
    "in a tuple": lambda a: (a, a),
    "named": lambda a: {"x": a, "label": a},
    "of torch": lambda a: torch.zeros(a.shape),
}
anything = st.one_of(
    st.builds(lambda a, look: LOOKS[look](a), arrays.arrays(numbers | others, shapes), st.sampled_from([*LOOKS])),
    st.builds(lambda a, look: LOOKS[look](a), arrays.arrays(numbers, (4, 3)), st.sampled_from([*LOOKS])),
    values,
    st.none(),
)


@pytest.fixture
def only_prepared(monkeypatch):
    """Runs are checked and made ready, and end there."""
    monkeypatch.setattr(Job, "run", lambda job, *_, **__: None if hasattr(job, "feed") else job.prepare())


@given(
    data=anything,
    validation=st.none() | anything,
    gaussian=st.booleans(),
    binarise=st.sampled_from(["none", "dynamic"]),
)
@fuzzed(400)
def test_any_data_to_train_on(data, validation, gaussian, binarise, only_prepared):
    shape = getattr(data, "shape", (4, 3))[1:]
    likelihood = {"likelihood": Gaussian()} if gaussian else {}
    program = VAE(event_shape=tuple(shape) if 0 not in shape else (3,), **SMALL, **likelihood)
    attempt(lambda: ppdgm.fit(program, data, validation=validation, binarise=binarise, **QUICK))


@given(data=arrays.arrays(numbers, arrays.array_shapes(max_dims=3, max_side=4)))
@fuzzed(60)
def test_any_numbers_are_trained_on(data):
    """One step, with however large numbers; nothing is returned that is not finite."""
    program = VAE(event_shape=data.shape[1:], likelihood=Gaussian(), **SMALL)
    fit = attempt(lambda: ppdgm.fit(program, data, **{**QUICK, "steps": 1}))
    if fit is not None:
        assert all(np.isfinite(v).all() for v in fit.params.values())
        attempt(lambda: fit.elbo(data, k=2))


@pytest.fixture(scope="module")
def fit():
    return ppdgm.fit(VAE(event_shape=(3,), likelihood=Gaussian(), **SMALL), X, **QUICK)


@given(data=anything)
@example(data=np.full((4, 3), 1e30))  # log p is −∞
@example(data=np.ma.array(np.ones((4, 3)), mask=np.eye(4, 3)))
@fuzzed(300)
def test_any_data_to_judge(data, fit):
    found = attempt(lambda: fit.elbo(data, k=2))
    if found is not None and not isinstance(data, dict):
        with np.errstate(over="ignore"):
            same = np.array(np.asarray(data).tolist(), "f4")  # in order, and of the usual type
        assert np.array_equal(found.values, fit.elbo(same, k=2).values, equal_nan=True)
    attempt(lambda: ppdgm.log_weights(fit.program, fit.params, data, k=2, backend="pyro"))
    attempt(lambda: fit.encode(data))
    attempt(lambda: fit.reconstruct(data))


@given(name=anything)
@fuzzed(150)
def test_any_name_of_data(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not (isinstance(name, str) and set("/.~") & {*name}):
        attempt(lambda: ppdgm.load_data(name))


# --- arguments ----------------------------------------------------------------------------------------------------

HUGE = 10**40
junk = st.sampled_from([
    None, True, False, 0, 1, -1, 2.5, math.nan, math.inf, HUGE, 1j, "", "x", "auto", "\ud800", "\0", b"x", [], [1],
    ["x"], [None], (), (1, 2), {}, {"x": 1}, {1: 2}, set(), object(), object, np.int64(3), np.float32(1), Path("x"),
    print, MLP, MLP(), SVI, Linear(steps=3), X, X[0, 0],
])  # fmt: skip


@given(name=st.sampled_from([*ppdgm.fit.__kwdefaults__]), value=junk)
@fuzzed(500)
def test_any_argument_of_fit(name, value, only_prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    length = {} if name == "epochs" else {"steps": 2}
    attempt(lambda: ppdgm.fit(PROGRAM, X, **{"backend": "pyro", "progress": False, **length, name: value}))


CALLS = {
    "elbo, k": lambda fit, v: fit.elbo(X, k=v),
    "elbo, seed": lambda fit, v: fit.elbo(X, k=2, seed=v),
    "elbo, memory": lambda fit, v: fit.elbo(X, k=2, memory=v),
    "log_likelihood, k": lambda fit, v: fit.log_likelihood(X, k=v),
    "encode, k": lambda fit, v: fit.encode(X, k=v),
    "encode, seed": lambda fit, v: fit.encode(X, k=2, seed=v),
    "sample, n": lambda fit, v: fit.sample(v),
    "sample, seed": lambda fit, v: fit.sample(2, seed=v),
    "sample, given": lambda fit, v: fit.sample(2, given=v),
    "save": lambda fit, v: fit.save(v),
    "bind": lambda fit, v: fit.program.bind(v),
    "bind, params": lambda fit, v: fit.program.bind("pyro", v),
    "initialise": lambda fit, v: fit.program.initialise(v),
    "log_weights, program": lambda fit, v: ppdgm.log_weights(v, fit.params, X, backend="pyro"),
    "log_weights, params": lambda fit, v: ppdgm.log_weights(fit.program, v, X, backend="pyro"),
    "log_weights, backend": lambda fit, v: ppdgm.log_weights(fit.program, fit.params, X, backend=v),
    "log_weights, device": lambda fit, v: ppdgm.log_weights(fit.program, fit.params, X, backend="pyro", device=v),
    "trace, k": lambda fit, v: ppdgm.trace(fit.program, fit.params, X, backend="pyro", k=v),
    "trace, values": lambda fit, v: ppdgm.trace(fit.program, fit.params, X, backend="pyro", values=v),
    "trace, a value": lambda fit, v: ppdgm.trace(fit.program, fit.params, X, backend="pyro", values={"z": v}),
    "load": lambda fit, v: ppdgm.load(v),
    "load, backend": lambda fit, v: ppdgm.load("saved", v),
    "load, program": lambda fit, v: ppdgm.load("saved", program=v),
    "load, classes": lambda fit, v: ppdgm.load("saved", classes=v),
    "load, device": lambda fit, v: ppdgm.load("saved", device=v).elbo(X, k=2),
    "resume": lambda fit, v: ppdgm.resume(v, X),
    "load_data": lambda fit, v: ppdgm.load_data(v),
    "load_data, fields": lambda fit, v: ppdgm.load_data("digits", fields=v),
    "load_data, seed": lambda fit, v: ppdgm.load_data("digits", seed=v),
    "load_data, test": lambda fit, v: ppdgm.load_data("digits", test=v),
    "load_data, transform": lambda fit, v: ppdgm.load_data("digits", transform=v),
}


@given(call=st.sampled_from([*CALLS]), value=junk)
@fuzzed(600)
def test_any_argument(call, value, fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if call.startswith("load,") and not Path("saved").exists():
        fit.save("saved")
    if not (value is HUGE and call.endswith((", k", ", n"))):  # that many draws are only a matter of time
        attempt(lambda: CALLS[call](fit, value))


# --- run folders --------------------------------------------------------------------------------------------------

FILES = ("weights.safetensors", "checkpoints/step-0000000001.safetensors", "checkpoints/step-0000000002.safetensors",
         "recipe.toml", "status.json", "log.txt", "history.csv")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that is over, its files, and what came of it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("history_picture", "samples_picture"):  # slow, and no part of this
            patch.setattr(f"ppdgm.plots.{name}", lambda *_: None)
        fit = ppdgm.fit(PROGRAM, X, **QUICK, checkpoint_steps=1, out=folder)
        yield folder, {name: (folder / name).read_bytes() for name in FILES}, fit


def restore(run):
    folder, files, _ = run
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(name=st.sampled_from(FILES), changed=damages | st.sampled_from([None, *FILES]))
@example(name=FILES[0], changed=damage("flipped", 0.99, 1, b""))
@example(name=FILES[2], changed=damage("flipped", 0.99, 1, b""))
@example(name=FILES[2], changed=FILES[0])  # a result in the place of a checkpoint
@fuzzed(150)
def test_any_damage_to_a_run(name, changed, run):
    """What is opened, or goes on, has the run's own parameters; a folder that is only opened stays as it is."""
    folder, (_, files, whole) = restore(run), run
    if changed is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(changed(files[name]) if callable(changed) else files[changed])
    before = contents(folder)
    opened = attempt(lambda: ppdgm.load(folder))
    assert isinstance(read_status(folder), dict)
    assert table_of_runs.read_run(folder, folder.parent)["run"] == str(folder)
    assert contents(folder) == before
    for found in (opened, attempt(lambda: ppdgm.resume(folder, X, progress=False))):
        if found is not None and found.info["steps"] == 2:
            for got, expected in ((found.params, whole.params), (found.history, whole.history)):
                assert got.keys() == expected.keys()
                assert all(np.array_equal(got[n], expected[n]) for n in expected)


@given(status=values | st.dictionaries(st.sampled_from(["state", "step", "steps", "elbo", "updated"]), values))
@example(status=[1, 2])
@example(status={"updated": 10**400, "elbo": True, "state": "running"})
@fuzzed(150)
def test_any_status(status, run):
    folder = restore(run)
    (folder / "status.json").write_text(json.dumps(status, default=str))
    table_of_runs._row(table_of_runs.read_run(folder, folder.parent))
    check_free(folder, overwrite=True)
