"""Callbacks for TensorBoard and Weights & Biases: what they write, where they are used, and that they lose no run."""

import struct
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

import ppdgm
from ppdgm.callbacks import OptunaPruning, TensorBoard, WandB
from ppdgm.errors import PackageMissing, PpdgmError
from ppdgm.inference.runs.progress import Progress
from ppdgm.models import MLP, VAE

X = (np.random.default_rng(0).random((20, 6)) < 0.4).astype("float32")


def now(step, elbo=-10.0, validation=None):
    return Progress(step, 1000, step / 100, 1.0, 50.0, {"elbo": elbo, "kl": 2.0}, validation)


# --- event files, read by their published format alone ----------------------------------------------------------------


def fields(data):
    """(number, value) of each field of a protocol buffer: integers, 8 or 4 bytes, or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}.get(kind) or varint(data, at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def events(folder):
    """(step, tag, value) of all scalars, in the order of writing; (step, "START", None) where a run (re)starts."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length, its checksum, the record, its checksum
            (size,) = struct.unpack_from("<Q", data, at)
            record = dict(fields(data[at + 12 : at + 12 + size]))
            at += 16 + size
            if 7 in record:  # session log
                yield record[2], "START", None
            for number, value in fields(record.get(5, b"")):  # summary
                assert number == 1
                scalar = dict(fields(value))
                yield record[2], scalar[1].decode(), struct.unpack("<f", scalar[2])[0]


def test_tensorboard_reads_what_is_written(tmp_path):
    with TensorBoard(tmp_path / "a" / "b") as board:
        assert not (tmp_path / "a").exists()  # nothing before the first call
        board(now(100))
        board(now(200, -9.5, -11.0))
        board(now(300, -9.0, -11.0))  # the same validation as before
        board(now(400, -8.5, -10.5))
    found = list(events(tmp_path / "a" / "b"))
    assert found[0] == (100, "START", None)
    of = lambda tag: [(step, value) for step, name, value in found if name == tag]
    assert of("train/elbo") == [(100, -10.0), (200, -9.5), (300, -9.0), (400, -8.5)]
    assert of("train/kl") == [(step, 2.0) for step in (100, 200, 300, 400)]
    assert of("rate") == [(step, 50.0) for step in (100, 200, 300, 400)]
    assert of("validation/elbo") == [(200, -11.0), (400, -10.5)]
    assert {name for _, name, _ in found} == {"START", "train/elbo", "train/kl", "rate", "validation/elbo"}


def test_a_resumed_run_takes_the_place_of_later_steps(tmp_path):
    """TensorBoard drops events of earlier files from the step of a session's start on."""
    for steps in ((100, 200, 300), (200, 300)):
        with TensorBoard(tmp_path) as board:
            for step in steps:
                board(now(step, -step - len(steps)))
    kept = {}
    for step, tag, value in events(tmp_path):
        if tag == "START":
            kept = {s: v for s, v in kept.items() if s < step}
        elif tag == "train/elbo":
            kept[step] = value
    assert kept == {100: -103.0, 200: -202.0, 300: -302.0}


def test_training_writes_events(tmp_path):
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
    with TensorBoard(tmp_path) as board:
        fit = ppdgm.fit(program, X, validation=X, steps=6, batch_size=10, callbacks=[board], progress=False)
    found = list(events(tmp_path))
    steps = [step for step, tag, _ in found if tag == "train/elbo"]
    assert {2, 4, 6} <= {*steps}  # the ends of epochs, and of stretches in between
    means = [fit.history["elbo"][a:b].mean() for a, b in pairwise([0, *steps])]
    np.testing.assert_allclose([v for _, tag, v in found if tag == "train/elbo"], means, rtol=1e-6)
    held_out = [v for _, tag, v in found if tag == "validation/elbo"]
    np.testing.assert_allclose(held_out, fit.history["validation_elbo"], rtol=1e-6)


# --- Weights & Biases, and what goes wrong ----------------------------------------------------------------------------


class Wandb:
    """A module of that name that keeps what it is told."""

    def __init__(self):
        self.told, self.fails = [], False

    def init(self, **settings):
        self.told.append(("init", settings))
        return SimpleNamespace(log=self.log, finish=lambda: self.told.append(("finish",)))

    def log(self, values, step):
        if self.fails:
            raise ConnectionError("no network,\nand more")
        self.told.append((step, values))


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_weights_and_biases_is_told_of_each_stretch(wandb):
    callback = WandB("digits", id="vae-1", name="first", mode="offline")
    assert wandb.told == []  # nothing before the first call
    with callback:
        callback(now(100))
        callback(now(200, -9.0, -11.0))
    assert wandb.told == [
        ("init", {"project": "digits", "id": "vae-1", "resume": "allow", "name": "first", "mode": "offline"}),
        (100, {"train/elbo": -10.0, "train/kl": 2.0, "rate": 50.0}),
        (200, {"train/elbo": -9.0, "train/kl": 2.0, "rate": 50.0, "validation/elbo": -11.0}),
        ("finish",),
    ]


def test_nothing_is_opened_or_closed_where_there_was_no_step(wandb):
    with WandB("digits"):
        pass
    assert wandb.told == []


def test_a_failing_library_is_told_once_and_left_out(wandb, capsys):
    with WandB("digits") as callback:
        callback(now(100))
        wandb.fails = True
        callback(now(200))
        wandb.fails = False
        callback(now(300))
    assert [told[0] for told in wandb.told] == ["init", 100]
    said = capsys.readouterr().err.splitlines()
    assert said == ["WandB failed, and is not used for the rest of the run: ConnectionError: no network, and more"]


def test_a_folder_that_can_not_be_written_loses_no_run(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
    board = TensorBoard(tmp_path / "file" / "events")
    fit = ppdgm.fit(program, X, steps=3, callbacks=[board], progress=False)
    assert len(fit.history["elbo"]) == 3
    assert capsys.readouterr().err.count("TensorBoard failed, and is not used for the rest of the run") == 1


def test_torch_takes_the_place_of_tensorboardx(monkeypatch, tmp_path):
    written = []
    writer = lambda *args, **settings: SimpleNamespace(
        add_scalar=lambda *told: written.append(told), close=lambda: written.append((args, settings))
    )
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # not to be imported
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))
    with TensorBoard(tmp_path) as board:
        board(now(7))
    assert written == [
        ("train/elbo", -10.0, 7),
        ("train/kl", 2.0, 7),
        ("rate", 50.0, 7),
        ((str(tmp_path),), {"purge_step": 7, "flush_secs": 10, "filename_suffix": ".7"}),
    ]


@pytest.mark.parametrize(
    ("make", "modules", "words"),
    [
        (lambda: TensorBoard("x"), ["tensorboardX", "torch.utils.tensorboard"], "pip install tensorboardX"),
        (lambda: WandB("x"), ["wandb"], "pip install wandb"),
    ],
)
def test_a_missing_package_is_told_before_any_training(make, modules, words, monkeypatch):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PackageMissing, match=words) as raised:
        make()
    assert isinstance(raised.value, PpdgmError) and isinstance(raised.value, ImportError)


# --- Optuna, the real one ---------------------------------------------------------------------------------------------


def tuned(tmp_path, rates, **study):
    """Trials with these learning rates, pruned from the third epoch on if the bound is below −4 nats."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))

    def objective(trial):
        fit = ppdgm.fit(
            program, X, validation=X, epochs=8, batch_size=5, seed=0, progress=False, out=tmp_path / str(trial.number),
            learning_rate=trial.suggest_categorical("rate", rates), callbacks=OptunaPruning(trial),
        )  # fmt: skip
        return fit.history["validation_elbo"].max()

    pruner = optuna.pruners.ThresholdPruner(lower=-4.0, n_warmup_steps=3)
    made = optuna.create_study(
        pruner=pruner,
        sampler=optuna.samplers.GridSampler({"rate": rates}, seed=0),
        **{"direction": "maximize", **study},
    )
    made.optimize(objective, n_trials=len(rates))
    return {t.params["rate"]: t for t in made.get_trials()}


def test_a_pruned_trial_ends_and_its_run_is_whole(tmp_path):
    trials = tuned(tmp_path, [0.0, 0.03])
    good, bad = trials[0.03], trials[0.0]
    assert good.state.name == "COMPLETE" and sorted(good.intermediate_values) == list(range(1, 9))
    assert bad.state.name == "PRUNED" and sorted(bad.intermediate_values) == [1, 2, 3]
    run = ppdgm.load(tmp_path / str(bad.number))
    assert run.stopped == "callback" and run.info["steps"] == 12 and len(run.history["validation_elbo"]) == 3
    np.testing.assert_allclose(run.history["validation_elbo"], [*bad.intermediate_values.values()])
    assert {f.name for f in (tmp_path / str(bad.number)).iterdir()} >= {
        "weights.safetensors",
        "history.csv",
        "pictures",
    }
    more = ppdgm.resume(tmp_path / str(bad.number), X, validation=X, progress=False)  # it can go on
    assert more.stopped == "done" and more.info["steps"] == 32


def test_what_pruning_refuses(tmp_path):
    with pytest.raises(PpdgmError, match="expected the trial that Optuna gives"):
        OptunaPruning(3)
    trial = optuna.trial.FixedTrial({})
    with pytest.raises(PpdgmError, match="means over stretches"):
        OptunaPruning(trial, "elbo")
    with pytest.raises(PpdgmError, match="direction='maximize'"):
        tuned(tmp_path, [0.01], direction="minimize")
    several = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(PpdgmError, match="2 directions"):
        OptunaPruning(several.ask())
    program = VAE(event_shape=(6,), latent=2)
    options = {"epochs": 2, "batch_size": 5, "progress": False}
    with pytest.raises(PpdgmError, match="this run has no validation"):
        ppdgm.fit(program, X, callbacks=OptunaPruning(trial), **options)
    with pytest.raises(PpdgmError, match="validation watches 'validation_elbo'"):
        ppdgm.fit(program, X, validation=X, callbacks=OptunaPruning(trial, "validation_loss"), **options)
    ppdgm.fit(program, X, validation=X, callbacks=OptunaPruning(trial), **options)  # a fixed trial never prunes
