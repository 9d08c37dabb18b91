"""Settings that would change nothing are refused: every field of every engine, and every argument of `fit`."""

import ast
import inspect
from pathlib import Path

import numpy as np
import optax
import pyro
import pytest
import torch
from readings import BACKENDS

import ppdgm
from ppdgm import Program
from ppdgm.errors import PpdgmError, SpecError
from ppdgm.inference import (
    EM,
    HMC,
    IWAE,
    SVI,
    LaggingInference,
    Linear,
    Minimise,
    MonteCarloEM,
    Optimiser,
    Renyi,
    Resampled,
    ReweightedWakeSleep,
    Stage,
    Stages,
    VariationalEM,
    WakeSleep,
)
from ppdgm.models import MLP, PPCA, VAE, Autoencoder, BernoulliPrior, RelaxedBernoulli
from ppdgm.program import zeros

both = pytest.mark.parametrize("backend", BACKENDS)
X = (np.random.default_rng(0).random((20, 4)) < 0.5).astype("float32")
NETS = {"encoder": MLP(hidden=()), "decoder": MLP(hidden=())}
SMOOTH = VAE(event_shape=(4,), latent=1, **NETS)
BITS = VAE(event_shape=(4,), latent=1, prior=BernoulliPrior(), posterior=RelaxedBernoulli(kl="relaxed"), **NETS)
NOTHING = Autoencoder(event_shape=(4,), latent=1, **NETS)


class Mean(Program):
    """x ~ N(m, 1): nothing latent, and no net."""

    def build(self, context):
        context.param("m", (4,), zeros)

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("m"), P.full(1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        pass


SCORE, LATENT = "is for score-function gradients", "would change nothing, because the guide draws no latent"
ADAPTED = [MonteCarloEM(sampler=HMC(step_size=s)) for s in (0.5, 0.01)]  # one number for both: it is adapted
BASELINES = ("none", "running", "leave_one_out", "learned")
IN_TRAINING = [
    *((SMOOTH, SVI(k=2, baseline=b), SCORE) for b in BASELINES),
    *((SMOOTH, IWAE(k=2, baseline=b), SCORE) for b in BASELINES),
    (SMOOTH, Renyi(k=2, baseline="running"), SCORE),
    (BITS, SVI(baseline="running"), SCORE),
    (BITS, SVI(k=2, estimator="relaxed", baseline="learned"), SCORE),
    (SMOOTH, VariationalEM(engine=SVI(baseline="running")), SCORE),
    (SMOOTH, Stages(stages=(Stage(engine=SVI(), steps=1), Stage(engine=SVI(baseline="learned")))), SCORE),
    (SMOOTH, Stages(stages=(Stage(engine=ADAPTED[0], steps=1), Stage(engine=ADAPTED[1]))), "HMC: step_size begins"),
    (SMOOTH, SVI(estimator="relaxed"), "this program has none"),
    (SMOOTH, IWAE(estimator="relaxed"), "this program has none"),
    (NOTHING, SVI(beta=2.0), f"beta {LATENT}"),
    (NOTHING, SVI(beta=Linear(steps=2)), f"beta {LATENT}"),
    (NOTHING, SVI(capacity=1.0), f"capacity {LATENT}"),
    (NOTHING, SVI(free_bits=0.1), f"free_bits {LATENT}"),
    (NOTHING, SVI(kl_at_most=0.1), f"kl_at_most {LATENT}"),
    (NOTHING, SVI(estimator="stl"), f"estimator='stl' {LATENT}"),
    (NOTHING, IWAE(k=3), "no draws to weight"),
    (NOTHING, Renyi(k=3, alpha=2.0), "no draws to weight"),
]
AT_ONCE = [
    (lambda: SVI(capacity=1.0, beta=2.0), "capacity replaces beta"),
    (lambda: SVI(capacity=1.0, beta=Linear(steps=5)), "capacity replaces beta"),
    (lambda: SVI(gamma=3.0), "gamma is a setting of capacity"),
    (lambda: SVI(multiplier_rate=0.1), "multiplier_rate is a setting of kl_at_most"),
    (lambda: SVI(free_bits_per="dimension"), "free_bits_per is a setting of free_bits"),
    (lambda: SVI(free_bits_of="datum"), "free_bits_of is a setting of free_bits"),
    (lambda: IWAE(k=2, estimator="vimco", baseline="running"), "estimator='vimco' has its own baseline"),
    (lambda: WakeSleep(sleep_phi=0.0), "the guide would never be trained"),
    (lambda: ReweightedWakeSleep(wake_phi=0.0), "the guide would never be trained"),
    (lambda: LaggingInference(window=5, most=4), "a window of 5 steps would never be full"),
    (lambda: Stages(stages=(Stage(engine=LaggingInference(), steps=5), Stage(engine=SVI()))), "chooses its phases"),
    (lambda: Stages(stages=(Stage(engine=LaggingInference()),)), "chooses its phases"),  # the model would never move
]
MATTERS = {  # fields that say something wherever their engine is taken, or are refused by tests of their own
    SVI: {"k", "kl"},
    IWAE: {"groups", "guide_groups", "elbo_share"},  # with k=1 all bounds are the ELBO: sweeps over K begin there
    Renyi: {"groups", "estimator"},
    ReweightedWakeSleep: {"k", "sleep_phi"},
    WakeSleep: {"k", "wake_phi"},
    Minimise: {"role"},
    EM: set(),
    VariationalEM: {"e_steps", "m_steps"},
    MonteCarloEM: {"e_steps", "m_steps", "engine", "sampler"},
    LaggingInference: {"every", "engine"},
    Stages: set(),
    Resampled: {"k", "draws"},
    HMC: {"chains", "moves", "num_leapfrog", "step_size"},
}


@both
@pytest.mark.parametrize("case", IN_TRAINING, ids=lambda c: f"{type(c[0]).__name__}-{type(c[1]).__name__}-{c[2]}")
def test_settings_without_effect_on_a_program_are_refused(case, backend):
    program, engine, told = case
    started = []
    with pytest.raises(PpdgmError, match=told):
        ppdgm.fit(program, X, engine=engine, steps=2, backend=backend, progress=False, callbacks=[started.append])
    assert not started


@pytest.mark.parametrize(("make", "told"), AT_ONCE)
def test_settings_without_effect_beside_others_are_refused(make, told):
    with pytest.raises(SpecError, match=told):
        make()


def test_every_field_of_every_engine_is_in_a_table():
    """A new field has a case above, or a place among those that always matter."""
    seen = {
        (node.func.id, keyword.arg)
        for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        for keyword in node.keywords
    }
    for engine, matters in MATTERS.items():
        missing = engine.model_fields.keys() - matters - {n for kind, n in seen if kind == engine.__name__}
        assert not missing, (engine.__name__, missing)


def train(program=SMOOTH, **settings):
    return ppdgm.fit(program, X, progress=False, **{"steps": 2, **settings})


def pair(**settings):
    def model(x):
        loc = pyro.param("loc", lambda: torch.zeros(4))
        with pyro.plate("data", len(x)):
            pyro.sample("x", pyro.distributions.Normal(loc, 1.0).to_event(1), obs=x)

    return train(Program.from_pyro(model, lambda x: None, data_plate="data"), **settings)


OWN = Stages(stages=(Stage(engine=SVI(), steps=1, learning_rate=0.1), Stage(engine=IWAE(k=2), learning_rate=0.1)))
FIRST = Stages(stages=(Stage(engine=SVI(), steps=1, learning_rate=0.1), Stage(engine=SVI())))


def named(count, rate=None):
    """Two stages, of which so many have an optimiser of their own."""
    adam = [Optimiser()] * count + [None] * (2 - count)
    first, last = (None if o is None else rate for o in adam)
    return Stages(stages=(
        Stage(engine=SVI(), steps=1, optimiser=adam[0], learning_rate=first),
        Stage(engine=SVI(), optimiser=adam[1], learning_rate=last),
    ))  # fmt: skip


REFUSED = {
    "early_stopping": [(lambda: train(early_stopping=3), "needs validation")],
    "checkpoint_steps": [(lambda: train(checkpoint_steps=3), "the run's folder, but there is no folder")],
    "checkpoint_minutes": [
        (lambda: train(checkpoint_minutes=1.0), "the run's folder, but there is no folder"),
        (lambda: train(checkpoint_minutes=1.0, checkpoint_steps=2, out="never"), "Give only one of them"),
    ],
    "overwrite": [(lambda: train(overwrite=True), "the run's folder, but there is no folder")],
    "compile": [
        (lambda: train(compile=True), "on numpyro, JAX always compiles every step"),
        (lambda: train(PPCA(event_shape=(4,)), engine=EM(), compile=True, backend="pyro"), "closed-form steps"),
        (lambda: train(PPCA(event_shape=(4,)), engine=EM(), compile=True), "closed-form steps"),
        (lambda: train(engine=MonteCarloEM(sampler=HMC()), compile=True, backend="pyro"), "can't compile HMC"),
        (lambda: pair(compile=True), "which a plain pair needs"),
        (lambda: train(optimiser=lambda p: None, compile=True, backend="pyro"), "can't compile your own optimiser"),
    ],
    "learning_rate": [
        (lambda: train(engine=OWN, learning_rate=0.1), "every stage has its own learning rate"),
        (lambda: train(engine=FIRST, optimiser=optax.adam(0.1)), "Stage: learning_rate works only with an optimiser"),
        (lambda: train(optimiser=optax.adam(0.1), learning_rate=0.1), "your own optimiser has its own"),
        (lambda: train(engine=named(1), optimiser=optax.adam(0.1)), "Give the stage a learning_rate"),
    ],
    "clip_norm": [
        (lambda: train(optimiser=optax.adam(0.1), clip_norm=1.0), "with an optimiser that is given by name"),
        (lambda: train(engine=named(2), clip_norm=1.0), "clip_norm: every stage has its own optimiser"),
    ],
    "mixed_precision": [
        (lambda: train(Mean(), mixed_precision=True), "is for nets, and this program has none"),
        (lambda: train(mixed_precision=True, dtype="float64"), "float64"),
    ],
    "tf32": [
        (lambda: train(tf32=True), "the device is cpu"),
        (lambda: train(PPCA(event_shape=(4,)), engine=EM(), tf32=True), "tf32: .*closed-form|the device is cpu"),
    ],
    "batch_size": [(lambda: train(PPCA(event_shape=(4,)), engine=EM(), batch_size=3), "uses all 20")],
    "accumulate": [(lambda: train(PPCA(event_shape=(4,)), engine=EM(), accumulate=2), "closed-form steps")],
    "devices": [
        (lambda: train(PPCA(event_shape=(4,)), engine=EM(), devices="all"), "devices: EM.. takes closed-form steps"),
        (lambda: train(devices=3), "devices: got 3, but JAX found 1"),
        (lambda: train(devices=3, backend="pyro"), "devices: got 3, .* torchrun is not used"),
    ],
    "particle_chunk": [
        (lambda: train(particle_chunk=1), "the engine's number of particles is 1, so it would change nothing"),
        (lambda: train(PPCA(event_shape=(4,)), engine=EM(), particle_chunk=2), "particle_chunk: .* closed-form steps"),
    ],
    "rematerialise": [
        (lambda: train(Mean(), rematerialise=True), "is for nets, and this program has none"),
        (
            lambda: train(rematerialise=True, compile=True, backend="pyro"),
            "would keep what rematerialise=True computes",
        ),
    ],
    "weight_average": [(lambda: train(PPCA(event_shape=(4,)), engine=EM(), weight_average=0.9), "closed-form")],
    "binarise": [(lambda: train(PPCA(event_shape=(4,)), engine=EM(), binarise="dynamic"), "closed-form")],
    "optimiser": [
        (lambda: train(PPCA(event_shape=(4,)), engine=EM(), optimiser="sgd"), "closed-form"),
        (lambda: train(engine=named(2), optimiser="sgd"), "optimiser: every stage has its own optimiser"),
        (lambda: train(engine=named(2, 0.1), optimiser=optax.adam(0.1)), "every stage has its own optimiser"),
    ],
}
ALWAYS = {  # that say something in every run, or say what they change (`keep_best` without validation data)
    *("program", "data", "validation", "engine", "backend", "epochs", "steps", "keep_best", "max_skipped", "seed"),
    *("diagnose_epochs", "callbacks", "params", "device", "dtype", "progress", "out", "unknown", "weights", "augment"),
}


@pytest.mark.parametrize("case", [c for cases in REFUSED.values() for c in cases], ids=lambda c: c[1])
def test_arguments_of_fit_without_effect_are_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, told = case
    with pytest.raises(PpdgmError, match=told):
        call()
    assert not any(tmp_path.iterdir())


def test_every_argument_of_fit_is_in_a_table():
    assert {*inspect.signature(ppdgm.fit).parameters} == REFUSED.keys() | ALWAYS


@both
def test_what_is_left_is_taken(backend):
    """compile=False where nothing would be compiled; and the recipe says no learning rate that no step takes."""
    fit = train(engine=OWN, backend=backend, compile=False)
    assert fit.training.learning_rate is None and fit.training.compile is False
    assert fit.info["compile"] is (backend == "numpyro")


def test_steps_of_the_guide_are_at_most_so_many():
    """`most` in the middle of a window, too."""
    controller = LaggingInference(window=4, most=6).controller(per_epoch=100)
    taken, value = [], 0.0
    while len(taken) < 14:
        turns = controller.next(100)
        controller.seen(turns, value + np.arange(len(turns)))  # ever better
        value += len(turns)
        taken += turns.tolist()
    assert taken == [*[0] * 6, 1, *[0] * 6, 1]
