"""What validation watches, and `Minimise`: runs without an ELBO, or without a model, train, stop, save and resume."""

import csv
import json
import os
import pickle

import numpy as np
import pytest
from typer.testing import CliRunner

import ppdgm
from ppdgm import Program
from ppdgm.callbacks import Callback
from ppdgm.cli.app import app
from ppdgm.errors import CheckpointError, DataError, ProgramError, SpecError, TrainingError, UnsupportedByBackend
from ppdgm.inference import SVI, Criterion, Minimise, Stage
from ppdgm.inference.engines.criteria import ELBO
from ppdgm.inference.engines.engine import Composite, Engine, Phase, first_watched
from ppdgm.inference.runs.layout import read_status
from ppdgm.models import MLP, VAE
from ppdgm.program import constant

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
Y = (X @ [1.0, -2.0, 0.5] + 0.3 + 0.1 * RNG.normal(size=40)).astype("float32")
DATA = {"x": X, "y": Y}
HELD = {n: v[:13] for n, v in DATA.items()}
QUIET = {"progress": False, "compile": False, "seed": 3}


def settings(backend, **more):
    return {n: v for n, v in (QUIET | {"backend": backend} | more).items() if n != "compile" or backend == "pyro"}


class Line(Program):
    """Least squares, without a model."""

    def build(self, c):
        c.param("w", (3,))
        c.param("b", (1,))

    def loss(self, P, x, y):
        return (y - P.xp.sum(x * P.param("w"), axis=-1) - P.param("b")[0]) ** 2


def by_hand(params, data):
    return (data["y"] - data["x"] @ params["w"] - params["b"][0]) ** 2


@both
def test_least_squares_equals_the_normal_equations(backend):
    sgd = {"optimiser": "sgd", "learning_rate": 0.2, "batch_size": 40}
    fit = ppdgm.fit(Line(), DATA, engine=Minimise(), steps=150, **sgd, **settings(backend))
    columns = np.c_[X, np.ones(40)].astype(float)
    right = np.linalg.solve(columns.T @ columns, columns.T @ Y)
    np.testing.assert_allclose(np.r_[fit.params["w"], fit.params["b"]], right, atol=1e-3)
    assert set(fit.history) == {"objective", "loss", "step"} and fit.stopped == "done"
    np.testing.assert_allclose(fit.history["loss"][0], (Y.astype(float) ** 2).mean(), rtol=1e-5)  # at w = b = 0
    np.testing.assert_array_equal(fit.history["objective"], -fit.history["loss"])


@both
def test_the_validation_loss_equals_numpy(backend):
    """Of 13 rows, and of 600, which are two chunks, of which the last is filled up."""
    many = {n: np.tile(v, (15,) + (1,) * (v.ndim - 1)) + np.float32(0.01) for n, v in DATA.items()}
    for held in (HELD, many):
        engine = settings(backend, keep_best=False, validation=held)
        fit = ppdgm.fit(Line(), DATA, engine=Minimise(), epochs=3, batch_size=16, **engine)
        assert fit.history["validation_step"].tolist() == [3, 6, 9]
        np.testing.assert_allclose(fit.history["validation_loss"][-1], by_hand(fit.params, held).mean(), rtol=1e-5)
        np.testing.assert_allclose(fit.criterion(held), by_hand(fit.params, held), rtol=1e-4, atol=1e-6)
    assert fit.history["validation_loss"][-1] < fit.history["validation_loss"][0]


class Weighed(Line):
    """Of two particles, with a penalty on w and a bend in the loss."""

    def loss(self, P, x, y):
        with P.plate("data", x):
            P.penalty("ridge", 0.0 * y + P.xp.sum(P.param("w") ** 2))
        found = super().loss(P, x, y)
        return P.xp.stack([found, 3.0 * found])


@both
def test_particles_penalties_and_a_ragged_minibatch(backend):
    """Means over particles and rows, without padding; the penalty is in the objective, and not in what is watched."""
    start = {"w": np.array([1.0, 0.0, 2.0], "float32"), "b": np.array([0.5], "float32")}
    fit = ppdgm.fit(
        Weighed(), DATA, engine=Minimise(), steps=2, batch_size=32, learning_rate=0.0, params=start, validation=HELD,
        **settings(backend),
    )  # fmt: skip
    rows = np.random.default_rng([3, 0]).permutation(40)
    losses = [2.0 * by_hand(start, DATA)[i].mean() for i in (rows[:32], rows[32:])]
    np.testing.assert_allclose(fit.history["loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(fit.history["objective"], -np.array(losses) - 5.0, rtol=1e-5)
    np.testing.assert_allclose(fit.history["validation_loss"], 2.0 * by_hand(start, HELD).mean(), rtol=1e-5)
    pieces = ppdgm.fit(
        Weighed(), DATA, engine=Minimise(), steps=2, batch_size=32, params=start, accumulate=4, **settings(backend)
    )
    whole = ppdgm.fit(Weighed(), DATA, engine=Minimise(), steps=2, batch_size=32, params=start, **settings(backend))
    np.testing.assert_allclose(pieces.params["w"], whole.params["w"], rtol=1e-5)


# --- a criterion of one's own -----------------------------------------------------------------------------------------


class Walk(Program):
    """A number that grows by the learning rate at each step of plain gradients."""

    def build(self, c):
        c.param("t", (), constant(0.0))

    def loss(self, P, x):
        return 0.0 * x[:, 0] - P.param("t")


class Watched(Minimise):
    """Watches −|t − 4|: better until step 4, and worse after it. Or its negative, of which smaller is better."""

    turned: bool = False

    def criterion(self):
        sign = 1.0 if self.turned else -1.0
        of = lambda step: sign * step.xp.abs(step.params["t"] - 4.0) + 0.0 * step.rows()["x"][:, 0]
        return Criterion("distance", of, smaller=self.turned)


STEPS = {"optimiser": "sgd", "learning_rate": 1.0, "batch_size": 32}
ROWS = X[:32]  # their mean of equal numbers has no rounding


@both
@pytest.mark.parametrize("turned", [False, True])
def test_early_stopping_and_keep_best_follow_the_criterion(backend, turned, tmp_path):
    engine = Watched(turned=turned)
    options = settings(backend, validation=X[:5], early_stopping=3, **STEPS)
    fit = ppdgm.fit(Walk(), ROWS, engine=engine, epochs=20, out=tmp_path / "run", **options)
    assert fit.stopped == "early stopping" and fit.info["steps"] == 7 and float(fit.params["t"]) == 4.0
    right = np.abs(np.arange(1, 8) - 4.0) * (1 if turned else -1)
    np.testing.assert_allclose(fit.history["validation_distance"], right)
    last = ppdgm.fit(Walk(), ROWS, engine=engine, epochs=20, keep_best=False, **options)
    assert float(last.params["t"]) == 7.0
    status = read_status(tmp_path / "run")
    assert (status["criterion"], status["validation"], status["validation_elbo"]) == ("distance", 0.0, None)
    assert "best validation distance 0" in (tmp_path / "run" / "log.txt").read_text()
    again = ppdgm.load(tmp_path / "run", classes=[Walk, Watched])
    assert float(again.params["t"]) == 4.0 and again.history["validation_distance"].tolist() == right.tolist()


def test_the_default_is_the_elbo_and_stages_take_their_last():
    assert SVI().criterion() is ELBO and ELBO.key == "validation_elbo"
    stages = ppdgm.inference.Stages(stages=(Stage(engine=SVI(), steps=5), Stage(engine=Minimise())))
    assert stages.criterion().name == "loss" and first_watched(stages) == 5
    back = ppdgm.inference.Stages(stages=(Stage(engine=Minimise(), steps=5), Stage(engine=SVI(), steps=2), SVI_LAST))
    assert back.criterion() is ELBO and first_watched(back) == 5
    assert first_watched(SVI()) == first_watched(ppdgm.inference.EM()) == 0


SVI_LAST = Stage(engine=SVI())


@both
def test_early_stopping_waits_for_the_stage_of_its_criterion(backend):
    """The first stage moves nothing, so the loss stands still for 6 validations, which are not counted."""
    program = VAEWithLoss(event_shape=(3,), latent=1, encoder=MLP(hidden=(2,)), decoder=MLP(hidden=(2,)))
    engine = [Stage(engine=SVI(), steps=6, learning_rate=0.0), Stage(engine=Minimise(), learning_rate=0.0)]
    bits = (X > 0).astype("float32")
    fit = ppdgm.fit(program, bits, engine=engine, epochs=20, validation=bits[:5], early_stopping=2, **settings(backend))
    assert fit.stopped == "early stopping" and fit.info["steps"] == 7  # of steps 6 and 7
    assert np.isnan(fit.history["loss"][:6]).all() and np.isnan(fit.history["elbo"][6:]).all()


class VAEWithLoss(VAE):
    """A model and guide, and a loss beside them."""

    def loss(self, P, x):
        return P.xp.sum((x - 0.5) ** 2, axis=-1) + 0.0 * P.param("decoder.layers.0.bias")[0]


# --- engines without a criterion --------------------------------------------------------------------------------------


class Climb(Engine):
    """No criterion, and a number with a name of its own."""

    def objective(self, step):
        loss = step.xp.mean(step.run("loss").returned)
        return {"objective": -loss, "height": -loss}

    def criterion(self):
        return None


@both
def test_an_engine_without_a_criterion(backend, tmp_path):
    fit = ppdgm.fit(Walk(), ROWS, engine=Climb(), epochs=3, out=tmp_path / "run", **settings(backend, **STEPS))
    assert float(fit.params["t"]) == 3.0 and set(fit.history) == {"objective", "height", "step"}
    with pytest.raises(ProgramError, match="Climb has no criterion"):
        fit.criterion(X)
    for more in ({"validation": X}, {"early_stopping": 2}, {"validation": X, "early_stopping": 2}):
        name = "early_stopping" if "early_stopping" in more else "validation"
        with pytest.raises(TrainingError, match=f"^{name}: got .* but Climb has no criterion, so no number says"):
            ppdgm.fit(Walk(), ROWS, engine=Climb(), epochs=3, **settings(backend, **STEPS, **more))
    status = read_status(tmp_path / "run")
    assert (status["elbo"], status["criterion"], status["objective"]) == (None, None, pytest.approx(1.0))


def test_a_data_set_with_validation_rows_that_are_not_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    data = ppdgm.load_data("x.npy", scale="none")
    fit = ppdgm.fit(Walk(), data, engine=Climb(), steps=2, out="run", progress=True)
    told = "Climb has no criterion: the data's validation rows are not used"
    assert told in (tmp_path / "run/log.txt").read_text() and told in capsys.readouterr().err
    assert "validation_step" not in fit.history


class Game(Program):
    """f(a, b) = −(a − 1)² + (b − 2)² − a b / 2, which a makes large and b small. No model."""

    def build(self, c):
        c.param("a", (), constant(0.0), label="critic")
        c.param("b", (), constant(0.0), label="maker")

    def value(self, P, x):
        a, b = P.param("a"), P.param("b")
        return 0.0 * x[:, 0] - (a - 1) ** 2 + (b - 2) ** 2 - 0.5 * a * b


class Side(Engine):
    sign: float = 1.0
    offset: float = 0.0

    def objective(self, step):
        return {"objective": self.sign * step.xp.mean(step.run("value").returned) + self.offset}

    def criterion(self):
        return None


class Play(Composite):
    """Three steps of the critic, then one of the maker."""

    def phases(self):
        return Phase(Side(), ("critic",)), Phase(Side(sign=-1.0, offset=-1e5), ("maker",))  # far below the critic's

    def phase_of(self, steps):
        return (steps % 4 == 3).astype(np.int32)


@both
def test_two_players(backend, tmp_path):
    """Against plain gradient steps by hand; saved, loaded and resumed. It does not diverge by its objective."""
    options = settings(backend, optimiser="sgd", learning_rate=0.1)
    fit = ppdgm.fit(Game(), X, engine=Play(), steps=30, batch_size=40, out=tmp_path / "whole", **options)
    a = b = 0.0
    for step in range(30):
        if step % 4 == 3:
            b -= 0.1 * (2 * (b - 2) - 0.5 * a)
        else:
            a += 0.1 * (-2 * (a - 1) - 0.5 * b)
    np.testing.assert_allclose([fit.params["a"], fit.params["b"]], [a, b], rtol=1e-5)
    assert fit.stopped == "done" and Play().criterion() is None
    with pytest.raises(TrainingError, match="Play has no criterion"):
        ppdgm.fit(Game(), X, engine=Play(), steps=30, validation=X, **options)


# --- runs -------------------------------------------------------------------------------------------------------------


class Recorded(Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def open(self, step):
        return None

    def write(self, values, step):
        self.seen.append(values)

    def close(self):
        return None


@both
def test_a_resumed_run_equals_an_uninterrupted_one(backend, tmp_path):
    options = settings(backend, validation=HELD, batch_size=16, early_stopping=50, weight_average=0.5)
    whole = ppdgm.fit(Line(), DATA, engine=Minimise(), epochs=6, out=tmp_path / "whole", **options)
    stop = lambda now: now.step >= 6
    ppdgm.fit(Line(), DATA, engine=Minimise(), epochs=6, out=tmp_path / "part", callbacks=stop, **options)
    part = ppdgm.resume(tmp_path / "part", DATA, validation=HELD, classes=[Line], progress=False)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(part.params[name], value)
    for name, value in whole.history.items():
        np.testing.assert_array_equal(part.history[name], value, err_msg=name)
    same = [(tmp_path / run / "history.csv").read_bytes() for run in ("whole", "part")]
    assert same[0] == same[1]
    rows = list(csv.DictReader((tmp_path / "whole/history.csv").read_text().splitlines()))
    assert [*rows[0]] == ["step", "objective", "loss", "validation_loss"] and rows[0]["validation_loss"] == ""
    assert float(rows[2]["validation_loss"]) == pytest.approx(whole.history["validation_loss"][0])
    assert sorted(p.name for p in (tmp_path / "whole/pictures").iterdir()) == ["history.png"]
    assert "could not be drawn" not in (tmp_path / "whole/log.txt").read_text()
    opened = ppdgm.load(tmp_path / "whole", classes=[Line], backend="pyro" if backend == "numpyro" else "numpyro")
    np.testing.assert_allclose(opened.criterion(HELD).mean(), whole.history["validation_loss"].min(), rtol=1e-5)
    same = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(same.criterion(HELD), opened.criterion(HELD))


def test_a_run_that_watched_something_else_is_not_resumed(tmp_path, monkeypatch):
    options = settings("numpyro", validation=X[:5], **STEPS)
    ppdgm.fit(Walk(), ROWS, engine=Watched(), epochs=3, out=tmp_path / "run", callbacks=lambda now: True, **options)
    of = lambda step: step.rows()["x"][:, 0]
    monkeypatch.setattr(Watched, "criterion", lambda self: Criterion("other", of))
    with pytest.raises(CheckpointError, match="it watched 'distance', and the engine's criterion is now 'other'"):
        ppdgm.resume(tmp_path / "run", ROWS, validation=X[:5], classes=[Walk, Watched], progress=False)


@both
def test_progress_and_callbacks_name_the_criterion(backend):
    seen, board = [], Recorded()
    options = settings(backend, validation=HELD, batch_size=40)
    fit = ppdgm.fit(Line(), DATA, engine=Minimise(), steps=2, callbacks=[seen.append, board], **options)
    now, loss = seen[-1], fit.history["validation_loss"][-1]
    assert (now.criterion, now.validation, now.validation_elbo) == ("loss", loss, None)
    assert now.bound == f"objective {-now.metrics['loss']:.2f}  validation loss {loss:.2f}"
    assert board.seen[-1]["validation/loss"] == loss and "train/loss" in board.seen[-1]


PROGRAM = """
from ppdgm import Program


class Line(Program):
    event_shape: tuple[int, ...] = (3,)

    def build(self, c):
        c.param("w", (2,))

    def loss(self, P, x):
        return (x[:, 2] - P.xp.sum(x[:, :2] * P.param("w"), axis=-1)) ** 2
"""


@both
def test_the_command_line(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    (tmp_path / "line.py").write_text(PROGRAM)
    run = lambda *words: CliRunner().invoke(app, [str(w) for w in words])
    fit = ("fit", "line.py:Line", "--data", "x.npy", "--set", "data.scale=none", "--set", "data.validation=4")
    more = ("--engine", "minimise", "--backend", backend, "--steps", 30, "--learning-rate", 0.05)
    found = run(*fit, *more, "--no-compile", "--out", "runs/a", *(["--json"] if backend == "pyro" else []))
    assert found.exit_code == 0, found.output
    status = read_status(tmp_path / "runs/a")
    if backend == "pyro":
        told = json.loads(found.stdout)
        assert (told["criterion"], told["validation"], told["validation_elbo"]) == ("loss", status["validation"], None)
        assert (
            set(told["test"]) == {"loss", "n", "weighted"}
            and told["test"]["loss"]["mean"] > 0
            and told["engine"] == "Minimise"
        )
    else:
        lines = found.stdout.splitlines()
        assert f"Best validation loss  {status['validation']:.4g}" in lines and "  Lower is better." in lines
        assert "ELBO" not in found.stdout and "evaluate" not in found.stdout
    listed = run("runs", "--json")
    (one,) = json.loads(listed.stdout)
    assert (one["criterion"], one["validation"], one["elbo"]) == ("loss", status["validation"], None)
    row = run("runs").stdout.splitlines()[1]
    assert f"loss {status['validation']:.4g}" in row and "Minimise" in row
    failed = run("evaluate", "runs/a", "--program", "line.py")
    assert failed.exit_code and "Line has no model(self, P, x)" in failed.output and "Traceback" not in failed.output
    assert "Minimise" in run("models").stdout and "role" in run("models", "minimise").stdout
    assert os.listdir("runs/a/pictures") == ["history.png"]


# --- refused ----------------------------------------------------------------------------------------------------------


def loss_of(returned):
    class Odd(Line):
        def loss(self, P, x, y):
            return returned(P, x, y, super().loss(P, x, y))

    return Odd()


def mixing(P, x, y, loss):
    return loss + P.xp.mean(loss)


def observing(P, x, y, loss):
    with P.plate("data", x):
        P.sample("x", P.dist.Normal(P.param("w"), P.full((3,), 1.0)).to_event(1), obs=x)
    return loss


def drawing(P, x, y, loss):
    with P.plate("data", x):
        z = P.sample("z", P.dist.Poisson(P.full((), 1.0) + P.param("b")[0] ** 2))
    return loss + z


ODD = {
    "a scalar": (lambda P, x, y, loss: P.xp.mean(loss), r"an array of shape \(\), .* take no mean: padding rows"),
    "events": (
        lambda P, x, y, loss: loss[:, None],
        r"shape \(3, 1\), .* each of the 3 rows, \[3\] .*Sum over the axes",
    ),
    "nothing": (lambda P, x, y, loss: None, r"Odd.loss: got NoneType, expected a loss of each row"),
    "whole numbers": (lambda P, x, y, loss: P.xp.astype(loss, P.xp.int32), "expected floating numbers"),
    "an observation": (observing, "observes site 'x', but Minimise.. adds no log p"),
    "a draw": (drawing, "no gradient passes through the draw of site 'z'"),
    "an error": (lambda P, x, y, loss: loss + P.param("v"), "Parameter 'v' is not declared"),
}


@both
@pytest.mark.parametrize("case", ODD)
def test_losses_that_are_refused(backend, case):
    returned, message = ODD[case]
    with pytest.raises(ProgramError, match=message):
        ppdgm.fit(loss_of(returned), DATA, engine=Minimise(), steps=2, **settings(backend))


class Sized(Line):
    width: int = 3


@both
def test_what_else_is_refused(backend):
    fit = lambda program, data, engine=Minimise(), **more: ppdgm.fit(  # noqa: B008  # frozen
        program, data, engine=engine, steps=2, **settings(backend, **more)
    )
    with pytest.raises(ProgramError, match=r"Line has no los\(self, P, x\), .* Did you mean 'loss'\?"):
        fit(Line(), DATA, Minimise(role="los"))
    with pytest.raises(ProgramError, match=r"Sized.width is no function of P and the data, .* Define one"):
        fit(Sized(), DATA, Minimise(role="width"))
    with pytest.raises(ProgramError, match=r"Line.loss: got data with the fields x, but it takes x, y"):
        fit(Line(), X)
    with pytest.raises(DataError, match="nan"):
        fit(Line(), {"x": X, "y": np.where(Y > 0, Y, np.nan)})
    with pytest.raises(DataError, match="rows"):
        fit(Line(), {"x": X, "y": Y[:5]})
    with pytest.raises(TrainingError, match="accumulate: what 'loss' returns for a row depends on the other rows"):
        fit(loss_of(mixing), DATA, batch_size=4, accumulate=2)
    fit(loss_of(mixing), DATA, batch_size=4)
    with pytest.raises(ProgramError, match=r"Line has no model\(self, P, x\)"):
        fit(Line(), DATA, SVI())
    with pytest.raises(TrainingError, match=r"diagnose_epochs: Line has no model\(self, P, x\)"):
        fit(Line(), DATA, diagnose_epochs=1)
    pair = Program.from_numpyro(lambda x: None) if backend == "numpyro" else Program.from_pyro(lambda x: None)
    with pytest.raises((UnsupportedByBackend, ProgramError)):
        fit(pair, X)


class Plain(Engine):
    """With the default criterion, in a program without a model."""

    def objective(self, step):
        return {"objective": -step.xp.mean(step.run("loss").returned)}


class Named(Plain):
    def objective(self, step):
        found = super().objective(step)
        return {**found, "validation_loss": found["objective"]}


class Scalar(Plain):
    def criterion(self):
        return Criterion("size", lambda step: step.xp.mean(step.run("loss").returned))


class Words(Plain):
    def criterion(self):
        return "loss"


@both
def test_engines_of_ones_own_that_are_refused(backend):
    fit = lambda engine, **more: ppdgm.fit(Walk(), ROWS, engine=engine, steps=2, **settings(backend, **more))
    assert fit(Plain()).info["steps"] == 2
    with pytest.raises(ProgramError, match="validation: Plain watches the ELBO, but Walk has no model"):
        fit(Plain(), validation=X)
    with pytest.raises(ProgramError, match=r"Criterion 'size': got an array of shape \(\), expected one number"):
        fit(Scalar(), validation=X)
    with pytest.raises(ProgramError, match=r"Named.objective: got the name 'validation_loss'"):
        fit(Named())
    with pytest.raises(ProgramError, match=r"Words.criterion: got str, expected a Criterion"):
        fit(Words())


def test_criteria_that_are_refused():
    for name in ("step", "a b", "", 3):
        with pytest.raises(SpecError, match="expected a name for the history"):
            Criterion(name, abs)
    for name, of in (("elbo", abs), ("loss", None), ("loss", 3)):
        with pytest.raises(SpecError, match="expected a function of a step"):
            Criterion(name, of)


class Trivial(Line):
    """A model and guide that say nothing."""

    def model(self, P, x, y):
        pass

    def guide(self, P, x, y):
        pass


@both
def test_a_trivial_model(backend):
    fit = ppdgm.fit(Trivial(), DATA, engine=Minimise(), steps=3, validation=HELD, **settings(backend))
    assert len(fit.history["validation_loss"]) == 3
    with pytest.raises(ProgramError, match="no observed site"):
        fit.elbo(DATA)
    with pytest.raises(ProgramError, match="no observed site, so it draws no data"):
        fit.sample(3)
    with pytest.raises(ProgramError, match="draws no latent"):
        fit.encode(DATA)
    with pytest.raises(ProgramError, match="no observed site"):
        ppdgm.fit(Trivial(), DATA, engine=Plain(), steps=3, validation=HELD, **settings(backend))


class Elsewhere(Line):
    """A model whose support has no row of the data; a loss does not mind."""

    def model(self, P, x, y):
        with P.plate("data", x):
            P.sample("x", P.dist.LogNormal(P.full((3,), 0.0), P.full((3,), 1.0)).to_event(1), obs=x)


@both
def test_a_model_that_is_not_used_is_not_read(backend):
    assert len(ppdgm.fit(Elsewhere(), DATA, engine=Minimise(), steps=2, **settings(backend)).history["loss"]) == 2
    with pytest.raises(DataError, match="outside the support"):
        ppdgm.fit(Elsewhere(), DATA, engine=SVI(), steps=2, **settings(backend))


NO_MODEL = {
    "elbo": lambda f: f.elbo(DATA),
    "log_likelihood": lambda f: f.log_likelihood(DATA),
    "log_weights": lambda f: ppdgm.log_weights(f.program, f.params, DATA, backend=f.backend),
    "sample": lambda f: f.sample(2),
    "sample given": lambda f: f.sample(40, given={"x": X}),
    "encode": lambda f: f.encode(DATA),
    "reconstruct": lambda f: f.reconstruct(DATA),
    "posterior": lambda f: f.posterior(DATA),
    "diagnose": lambda f: f.diagnose(DATA),
    "to_arviz": lambda f: f.to_arviz(DATA),
    "loo": lambda f: f.loo(DATA),
    "log_evidence": lambda f: f.log_evidence(DATA),
    "bind": lambda f: f.program.bind(f.backend)[0](**DATA),
}


@both
def test_reports_of_a_program_without_a_model(backend):
    fit = ppdgm.fit(Line(), DATA, engine=Minimise(), steps=1, **settings(backend))
    fields = DATA if backend == "numpyro" else {n: __import__("torch").tensor(v) for n, v in DATA.items()}
    for name, ask in NO_MODEL.items():
        with pytest.raises(ProgramError, match=r"^Line has no model\(self, P, x\), so it has no likelihood"):
            ask(fit) if name != "bind" else fit.program.bind(backend)[0](**fields)


# --- numbers that are not finite, and runs that diverge ---------------------------------------------------------------


@both
def test_a_loss_that_is_not_finite_is_reported_with_its_rows(backend, capsys):
    class Log(Line):
        def loss(self, P, x, y):
            return super().loss(P, x, y) - P.xp.where(x[:, 0] > 50.0, P.xp.log(0.0 * y), 0.0 * y)

    data = {**DATA, "x": np.where(np.arange(40)[:, None] == 7, 100.0, X).astype("float32")}
    fit = ppdgm.fit(Log(), data, engine=Minimise(), steps=4, batch_size=10, **settings(backend))
    assert fit.info["skipped"] == 1
    assert "what 'loss' returned is inf in rows [7] (1 of the 10 in the minibatch)" in capsys.readouterr().err


@both
def test_a_loss_that_grows_has_diverged(backend, capsys):
    options = settings(backend, optimiser="sgd", learning_rate=2.0, batch_size=40)
    fit = ppdgm.fit(Line(), DATA, engine=Minimise(), steps=15, **options)
    assert fit.stopped == "diverged" and "Training diverged: the objective was" in capsys.readouterr().err


def test_a_compiled_run_equals_an_eager_one():
    options = {"engine": Minimise(), "steps": 5, "validation": HELD, "backend": "pyro", "progress": False}
    one, other = (ppdgm.fit(Line(), DATA, compile=compile, **options) for compile in (True, False))
    np.testing.assert_allclose(one.params["w"], other.params["w"], rtol=1e-5)
    assert one.info["compile"]


class Noisy(Walk):
    """A loss that is noise."""

    def loss(self, P, x):
        return P.random.normal((2, x.shape[0])) ** 2 + 0.0 * P.param("t")


@both
def test_noise_is_the_same_at_each_validation(backend):
    """Of a mean of 1 with variance 2 for each number: 520 rows of two particles, 5 standard errors of 0.044."""
    many = np.zeros((520, 1), "float32")
    options = settings(backend, learning_rate=0.0, validation=many, batch_size=260)
    fit = ppdgm.fit(Noisy(), many, engine=Minimise(), epochs=3, **options)
    held = fit.history["validation_loss"]
    assert held[0] == held[1] == held[2] and len(set(fit.history["loss"].tolist())) == 6
    rows = fit.criterion(many)
    assert abs(rows.mean() - 1.0) < 0.22 and len(set(rows.tolist())) == 520  # chunks have noise of their own
