"""States, which P.update moves and no optimiser does, and P.batch_mean: against NumPy by hand."""

import jax
import numpy as np
import numpyro
import pyro
import pytest
import torch

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError, TrainingError
from ppdgm.inference import EM, IWAE, SVI, ReweightedWakeSleep, Stage, VariationalEM
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.inputs.batches import Batches
from ppdgm.models import MLP, VAE, DiagonalNormal, Gaussian
from ppdgm.program import constant
from ppdgm.testing import check

BACKENDS = ("numpyro", "pyro")
RNG = np.random.default_rng(0)
N, B, STEPS = 23, 5, 12  # the fifth minibatch of an epoch has two padding rows
X = RNG.normal(size=(N, 2)).astype("float32") + 1.0


def train(program, backend, x=X, **options):
    defaults = {"steps": STEPS, "batch_size": B, "seed": 3, "progress": False, "compile": False, "learning_rate": 0.05}
    return ppdgm.fit(program, x, backend=backend, **{**defaults, **options})


def minibatches(steps=STEPS):
    """The rows that count, of each step."""
    index, weight = Batches(N, B, 3).rows(0, steps, steps)
    return [X[i[w > 0]] for i, w in zip(index, weight, strict=True)]


# --- running means -------------------------------------------------------------------------------------------------


class Running(Program):
    """x ~ N(shift, 1): the running mean of x, the number of steps, the shift before the step, and two that swap."""

    def build(self, c):
        c.param("shift", (2,), constant(0.5))
        c.state("mean", (2,), constant(3.0))
        c.state("steps")
        c.state("before", (2,))
        c.state("left", (), constant(1.0))
        c.state("right", (), constant(2.0))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("shift"), 1.0).to_event(1), obs=x)
        mean = 0.9 * P.param("mean") + 0.1 * P.batch_mean(x, 1)
        P.update("mean", mean)
        P.update("steps", P.param("steps") + 1.0)
        P.update("before", P.param("shift"))
        P.update("left", P.param("right"))
        P.update("right", P.param("left"))


def by_hand(steps=STEPS):
    """Plain gradient steps of the shift, and the states; the mean after each step."""
    shift, before, mean, means = np.full(2, 0.5), np.zeros(2), np.full(2, 3.0), []
    for rows in minibatches(steps):
        before, shift = shift, shift + 0.05 * (rows.astype(float).mean(0) - shift)
        mean = 0.9 * mean + 0.1 * rows.astype(float).mean(0)
        means.append(mean)
    swapped = {"left": 1.0 + steps % 2, "right": 2.0 - steps % 2}
    return {"shift": shift, "before": before, "mean": mean, "steps": steps, **swapped}, means


@pytest.mark.parametrize(("backend", "compile"), [("numpyro", False), ("pyro", False), ("pyro", True)])
def test_a_running_mean_by_hand(backend, compile):
    for steps in (5, STEPS):
        fit = train(Running(), backend, steps=steps, optimiser="sgd", **({"compile": True} if compile else {}))
        right, _ = by_hand(steps)
        for name, value in fit.params.items():
            np.testing.assert_allclose(value, right[name], rtol=1e-5, atol=1e-6, err_msg=f"{name} after {steps}")
    assert backend == "numpyro" or fit.info["compile"] == compile


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_have_no_average(backend):
    fit = train(Running(), backend, optimiser="sgd", weight_average=0.9)
    right, _ = by_hand()
    for name in ("mean", "steps", "before"):
        np.testing.assert_allclose(fit.params[name], right[name], rtol=1e-5)
    assert np.abs(fit.params["shift"] - right["shift"]).max() > 0.05


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frozen_state_stays(backend):
    engine = [Stage(engine=SVI(), steps=4), Stage(engine=SVI(), freeze=("mean",))]
    fit = train(Running(), backend, engine=engine, optimiser="sgd")
    _, means = by_hand()
    np.testing.assert_allclose(fit.params["mean"], means[3], rtol=1e-5)
    assert fit.params["steps"] == STEPS
    with pytest.raises(TrainingError, match=r"'means' matches no parameter\. Did you mean 'mean'"):
        train(Running(), backend, engine=[Stage(engine=SVI(), freeze=("means",))])


@pytest.mark.parametrize("backend", BACKENDS)
def test_types_and_precision(backend):
    class Narrow(VAE):
        def build(self, c):
            super().build(c)
            c.state("code", (2,))

        def guide(self, P, x):
            P.update("code", P.batch_mean(P.net("encoder")(x)[..., 0, :], 1))
            super().guide(P, x)

    program = Narrow(event_shape=(2,), latent=2, likelihood=Gaussian(), encoder=MLP(hidden=()), decoder=MLP(hidden=()))
    fit = train(program, backend, mixed_precision=True)
    assert fit.params["code"].dtype == np.float32 and np.abs(fit.params["code"]).min() > 0
    with jax.enable_x64(True):
        wide = train(Running(), backend, dtype="float64", optimiser="sgd")
    np.testing.assert_allclose(wide.params["mean"], by_hand()[0]["mean"], rtol=1e-12)


# --- steps with several runs ---------------------------------------------------------------------------------------


class Counting(VAE):
    """Counts its steps: the guide by 1, the model by 10, of which only the first is kept."""

    def build(self, c):
        super().build(c)
        c.state("count")
        c.state("seen")

    def guide(self, P, x):
        super().guide(P, x)
        P.update("count", P.param("count") + 1.0)

    def model(self, P, x):
        super().model(P, x)
        P.update("count", P.param("count") + 10.0)
        P.update("seen", P.param("seen") + 1.0)


COUNTING = Counting(event_shape=(2,), latent=2, likelihood=Gaussian(), encoder=MLP(hidden=()), decoder=MLP(hidden=()))
ENGINES = [
    SVI(estimator="stl"),
    IWAE(k=3, estimator="dreg"),
    ReweightedWakeSleep(k=2, sleep_phi=1.0),
    VariationalEM(),
]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: getattr(e, "estimator", type(e).__name__))
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_moves_each_state_once(backend, engine):
    fit = train(COUNTING, backend, engine=engine, steps=7)
    assert (fit.params["count"], fit.params["seen"]) == (7.0, 7.0)


class Twice(Engine):
    """Runs one function at the minibatch and at zeros."""

    def objective(self, step):
        first, other = step.run("probe", k=3), step.run("probe", data={"x": 0.0 * step.rows()["x"]}, k=3)
        assert set(first.updates) == {"mean"} and step.updates["mean"] is first.updates["mean"]
        return {"objective": (first.returned + other.returned).sum() * 0.0 + first.returned[0]}


class Probed(Running):
    def probe(self, P, x):
        """[K, B, 2] with the means −1, 0 and 1 of the particles, and [B, 2]: both have the rows' mean."""
        value = x + P.constant([[[-1.0]], [[0.0]], [[1.0]]])
        mean = P.batch_mean(value, 1)
        P.update("mean", mean)
        return mean - P.batch_mean(x, 1) + P.param("shift")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_run_of_a_step_counts_and_particles_are_averaged(backend):
    fit = train(Probed(), backend, engine=Twice(), steps=5, learning_rate=0.0)  # the fifth minibatch is padded
    np.testing.assert_allclose(fit.params["mean"], minibatches(5)[-1].mean(0), rtol=1e-5)
    np.testing.assert_allclose(fit.history["objective"], 0.5, atol=1e-5)


class Moved(Program):
    """A state in a density, which no gradient moves; and a penalty a² m², m the mean of the minibatch."""

    def build(self, c):
        c.param("a", (), constant(0.7))
        c.state("b", (), constant(0.3))

    def model(self, P, x):
        mean = P.batch_mean(P.param("a") * x[:, 0], 0)
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("b") + 0.0 * P.param("a"), P.full((2,), 1.0)).to_event(1), obs=x)
            P.penalty("moment", mean**2 + 0.0 * x[:, 0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mean_has_a_gradient_and_a_state_has_none(backend):
    fit, a = train(Moved(), backend, optimiser="sgd"), 0.7
    for rows in minibatches():
        a -= 0.05 * 2 * a * rows[:, 0].astype(float).mean() ** 2
    np.testing.assert_allclose(fit.params["a"], a, rtol=1e-5)
    assert fit.params["b"] == np.float32(0.3)


class Normalised(Program):
    """Batch norm of x before a density: the minibatch's mean in training, the running mean in evaluations."""

    running: bool = True

    def build(self, c):
        c.param("scale", (2,), constant(0.5))
        c.state("mean", (2,))

    def model(self, P, x):
        old = P.param("mean")
        mean = P.batch_mean(x, 1, otherwise=old if self.running else None)
        P.update("mean", 0.5 * old + 0.5 * mean)
        with P.plate("data", x):
            P.sample("x", P.dist.Normal((x - mean) * P.param("scale"), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluations_use_the_running_mean(backend):
    fit, mean = train(Normalised(), backend, learning_rate=0.0), np.zeros(2)
    log_p = lambda x, mean: (-0.5 * (x - 0.5 * (x - mean)) ** 2 - 0.5 * np.log(2 * np.pi)).sum(-1)
    for step, rows in enumerate(minibatches()):
        np.testing.assert_allclose(fit.history["elbo"][step], log_p(rows, rows.mean(0)).mean(), rtol=1e-4)
        mean = 0.5 * mean + 0.5 * rows.mean(0)
    np.testing.assert_allclose(fit.elbo(X).values, log_p(X, mean), rtol=1e-4)
    np.testing.assert_allclose(fit.elbo(X[:3]).values, fit.elbo(X).values[:3], rtol=1e-6)
    with pytest.raises(ProgramError, match=r"Site 'x': the terms of one row change.*otherwise=P\.param"):
        train(Normalised(running=False), backend)


# --- steps that are not finite -------------------------------------------------------------------------------------


class Fragile(Program):
    def build(self, c):
        c.param("shift", (2,))
        c.state("mean")
        c.state("steps")

    def model(self, P, x, divisor):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("shift"), 1.0).to_event(1), obs=x)
        P.update("mean", P.batch_mean(1.0 / divisor, 0))
        P.update("steps", P.param("steps") + 1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_whose_update_is_not_finite_is_skipped(backend, capsys, monkeypatch):
    data = {"x": X, "divisor": np.ones(N, "float32")}
    data["divisor"][7] = 0.0
    index, _ = Batches(N, B, 3).rows(0, STEPS, STEPS)
    bad = [i for i, rows in enumerate(index) if 7 in rows]
    whole = train(Fragile(), backend, data)
    monkeypatch.setattr("ppdgm.inference.training.loop.STRETCH_STEPS", 3)
    fit = train(Fragile(), backend, data)
    assert all(np.array_equal(fit.params[n], v) for n, v in whole.params.items())
    assert bad and fit.history["skipped_step"].tolist() == bad
    assert (fit.params["steps"], fit.params["mean"]) == (STEPS - len(bad), 1.0)
    assert (
        "the update of the state 'mean' is inf, although all terms and gradients are finite" in capsys.readouterr().err
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_whose_objective_is_not_finite_moves_no_state(backend, capsys):
    x = np.where(np.arange(N)[:, None] == 7, np.float32(3e38), X)
    index, _ = Batches(N, B, 3).rows(0, STEPS, STEPS)
    bad = [i for i, rows in enumerate(index) if 7 in rows]
    fit = train(Running(), backend, x)
    assert fit.history["skipped_step"].tolist() == bad and fit.params["steps"] == STEPS - len(bad)
    assert np.abs(fit.params["mean"]).max() < 10


# --- refusals ------------------------------------------------------------------------------------------------------


def updates(statement):
    class Wrong(Running):
        def model(self, P, x):
            super().model(P, x)
            statement(P, x)

        def build(self, c):
            super().build(c)
            c.state("free", (2,))
            c.net("net", MLP(hidden=(2,)), (2,), (2,))

    return Wrong()


WRONG = {
    "a name": (lambda P, x: P.update("fre", x[0]), "state 'fre' is not declared in build(). Did you mean 'free'"),
    "a parameter": (lambda P, x: P.update("shift", x[0]), "It is a parameter, which an optimiser moves"),
    "a net": (lambda P, x: P.update("net", x[0]), "It is a net"),
    "twice": (lambda P, x: P.update("steps", P.param("steps")), "P.update('steps'): the state is updated twice"),
    "a shape": (lambda P, x: P.update("free", x), "expected (2,) as declared in build(). All rows"),
    "a number": (lambda P, x: P.update("free", 1.0), "P.update('free'): got 1.0, expected an array of shape (2,)"),
    "a type": (
        lambda P, x: P.update("free", P.xp.astype(P.param("mean"), P.xp.int32)),
        "got numbers of type int32, expected float32",
    ),
    "in a loop": (
        lambda P, x: P.repeat(1, lambda y: (P.update("free", y), y)[1], P.param("mean")),
        "P.update('free', …) is in the body of P.repeat, which only computes",
    ),
    "rows": (lambda P, x: P.batch_mean(x[0], 1), "got an array of shape (2,) with event_ndim=1, expected [B, *event]"),
    "axes": (lambda P, x: P.batch_mean(x, 0), "got an array of shape (3, 2) with event_ndim=0"),
    "no axes": (lambda P, x: P.batch_mean(x, None), "got event_ndim=None, expected the number of axes"),
    "whole numbers": (
        lambda P, x: P.batch_mean(P.xp.astype(x, P.xp.int32), 1),
        "got numbers of type int32, expected floating ones",
    ),
    "otherwise": (
        lambda P, x: P.batch_mean(x, 1, otherwise=P.param("steps")),
        "got an array of shape () for otherwise, expected the shape of one event, (2,)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("backend", BACKENDS)
def test_refusals(backend, case):
    statement, message = WRONG[case]
    with pytest.raises(ProgramError) as caught:
        train(updates(statement), backend)
    assert message in str(caught.value)


def test_declarations_are_refused():
    class Doubled(Running):
        init: bool = False

        def build(self, c):
            super().build(c)
            c.state("other", (), 0.0) if self.init else c.state("shift")

    with pytest.raises(ProgramError, match="State 'shift' is declared twice"):
        Doubled().declarations()
    with pytest.raises(ProgramError, match=r"State 'other': got init=0\.0, expected a function"):
        Doubled(init=True).declarations()

    class Endless(Running):
        def build(self, c):
            super().build(c)
            c.state("least", (2,), constant(np.inf))

    with pytest.raises(ProgramError, match="State 'least': init gave inf, expected finite numbers"):
        Endless().initialise()
    with pytest.raises(ProgramError, match="hold_states: got True, but the program declares no states"):
        VAE(event_shape=(2,), latent=1).bind("pyro", hold_states=True)


class OnlyMeans(Moved):
    """Takes a mean, and updates nothing."""


class OnlyUpdates(Running):
    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("shift"), 1.0).to_event(1), obs=x)
        P.update("steps", P.param("steps") + 1.0)


@pytest.mark.parametrize(
    ("program", "reason"),
    [(OnlyMeans(), "takes P.batch_mean"), (OnlyUpdates(), "updates the state 'steps'")],
    ids=["mean", "update"],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_pieces_are_refused(backend, program, reason):
    with pytest.raises(TrainingError, match=f"accumulate: the program {reason}, which needs the whole minibatch"):
        train(program, backend, batch_size=4, accumulate=2)


def test_closed_form_steps_are_refused():
    class Closed(Running):
        def e_step(self, params, x):
            return {"log_likelihood": 0.0}

        def m_step(self, params, statistics):
            return {}

    with pytest.raises(ProgramError, match=r"run no P\.update, so the state 'before' would never change"):
        ppdgm.fit(Closed(), X, engine=EM(), steps=1, progress=False)


# --- bind ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_bound_programs_hold_their_states_or_refuse(backend):
    program, params = Normalised(), {"scale": np.full(2, 0.5, "float32"), "mean": np.ones(2, "float32")}
    x = torch.tensor(X) if backend == "pyro" else X
    with pytest.raises(ProgramError, match=r"P\.update\('mean'\): the tools of .* have no training step"):
        run_bound(*program.bind(backend, params), x, backend)
    model, guide = program.bind(backend, params, hold_states=True)
    sites, log_p = run_bound(model, guide, x, backend)
    assert "scale" in sites and "mean" not in sites
    terms = ppdgm.trace(program, params, X, k=1, backend=backend)
    np.testing.assert_allclose(log_p, terms.log_p["x"].sum(), rtol=1e-5)


def run_bound(model, guide, x, backend):
    """The names of the parameters of Pyro's or NumPyro's SVI after a step with the guide, and log p."""
    if backend == "pyro":
        svi = pyro.infer.SVI(model, guide, pyro.optim.SGD({"lr": 0.0}), pyro.infer.Trace_ELBO())
        svi.step(x)
        trace = pyro.poutine.trace(model).get_trace(x)
        return set(trace.param_nodes), trace.log_prob_sum().item()
    svi = numpyro.infer.SVI(model, guide, numpyro.optim.SGD(0.0), numpyro.infer.Trace_ELBO())
    state, _ = svi.update(svi.init(jax.random.key(0), x), x)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(x)
    log_p = trace["x"]["fn"].log_prob(x).sum()
    assert svi.get_params(state).keys() == {n for n, site in trace.items() if site["type"] == "param"}
    return set(svi.get_params(state)), log_p


# --- parts ---------------------------------------------------------------------------------------------------------


class Centred(DiagonalNormal):
    """A head that is centred by its running mean."""

    def build(self, context, shape):
        context.state("centre", shape)
        return super().build(context, shape)

    def distribution(self, P, *head):
        centre = P.param("centre")
        mean = P.batch_mean(head[0][..., 0, :], 1, otherwise=centre)
        P.update("centre", 0.9 * centre + 0.1 * mean)
        shift = P.constant([1.0, 0.0])[:, None] * mean
        return super().distribution(P, head[0] - shift)


def test_a_part_with_a_state_keeps_the_contract():
    check(Centred(), shape=(2,))
