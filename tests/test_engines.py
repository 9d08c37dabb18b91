"""Engines: their bounds against closed forms, what they end at, what they refuse, and that they resume."""

import itertools
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import optax
import pytest
from oracle import gradient, ppca, ppca_elbo, ppca_log_likelihood
from readings import BACKENDS, precision
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture as SklearnMixture
from trainers import make_plan, make_trainer

import ppdgm
from ppdgm.errors import PpdgmError, ProgramError, SpecError, TrainingError
from ppdgm.inference import (
    EM,
    HMC,
    IWAE,
    SVI,
    LaggingInference,
    Linear,
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
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.inputs.batches import Batches
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.models import (
    MLP,
    PPCA,
    VAE,
    Autoencoder,
    BernoulliPrior,
    FactorAnalysis,
    FlowPosterior,
    GaussianMixture,
    Planar,
    RelaxedBernoulli,
    SemiSupervisedVAE,
)
from ppdgm.registry import backend as load_backend

both = pytest.mark.parametrize("backend", BACKENDS)
statistical = pytest.mark.statistical
RNG = np.random.default_rng(0)
X = (RNG.random((41, 6)) < 0.5).astype("float32")
NETS = {"encoder": MLP(hidden=(8,)), "decoder": MLP(hidden=(8,))}
PROGRAM = VAE(event_shape=(6,), latent=2, **NETS)
BITS = VAE(event_shape=(6,), latent=2, prior=BernoulliPrior(), posterior=RelaxedBernoulli(kl="relaxed"), **NETS)
SEMI = SemiSupervisedVAE(event_shape=(6,), classes=2, latent=2, classifier=MLP(hidden=(8,)), **NETS)
PLANAR = VAE(event_shape=(6,), latent=2, posterior=FlowPosterior(flow=Planar()), **NETS)
LINEAR = (RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, 5)) + 0.5 * RNG.normal(size=(60, 5))).astype("float32")


def trainer_of(program, params, engine, backend, data_size, seed=0, rate=1e-3, **options):
    runtime = load_backend(backend).Runtime(program, "cpu")
    return make_trainer(runtime, engine, runtime.put(params), seed, data_size, **options)


def steps_of(trainer, x, count, batch, first=0, rate=1e-3):
    """The metrics of some steps of a trainer."""
    index, weight = Batches(len(x), batch, 0).rows(first, count, count)
    plan = make_plan(trainer.engine, index, weight, np.full(count, rate, np.float32), first, count)
    return trainer.run(plan, trainer.runtime.put({"x": x}))


# --- bounds ---------------------------------------------------------------------------------------------------------


@statistical
@both
def test_bounds_lie_in_order_and_reach_the_likelihood(backend):
    """ELBO = L_1 ≤ L_K ≤ L_{K+1} ≤ log p(x), each through the training loop; L_K → log p(x)."""
    program, params, x = ppca(np.random.default_rng(3), shape=(3,), size=6, dtype="float64")
    found = {}
    with precision("float64"):
        for k in (1, 4, 16, 256):
            tiled = np.tile(x, (2000 // k, 1))
            trainer = trainer_of(program, params, IWAE(k=k), backend, len(tiled), rate=0.0)
            values = steps_of(trainer, tiled, 8, len(tiled), rate=0.0)["objective"]
            found[k] = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    elbo, likelihood = ppca_elbo(params, x).mean(), ppca_log_likelihood(params, x).mean()
    assert abs(found[1][0] - elbo) < 4 * found[1][1] < 0.02 * abs(elbo)
    means = [m for m, _ in found.values()]
    assert all(b > a for a, b in itertools.pairwise(means)) and means[-1] < likelihood + 4 * found[256][1]
    assert likelihood - means[-1] < 0.05 * (likelihood - elbo)


def test_renyi_bounds_have_the_right_limits():
    log_w = np.random.default_rng(0).normal(size=(7, 5)) * 3
    bound = lambda a: bounds.renyi(log_w, a, logsumexp)
    np.testing.assert_allclose(bound(0.0), logsumexp(log_w, 0) - np.log(7))
    np.testing.assert_allclose(bound(1.0), log_w.mean(0))
    for near in (1 - 1e-6, 1 + 1e-6):
        np.testing.assert_allclose(bound(near), log_w.mean(0), rtol=1e-4, atol=1e-4)
    values = [bound(a) for a in (-1.0, 0.0, 0.3, 0.9, 1.0, 2.0)]
    assert all((b < a).all() for a, b in itertools.pairwise(values))  # falls with α


@both
def test_settings_of_one_objective(backend):
    """Groups, mixtures and K = 1 against sums by hand, for the loop's own draws."""
    params = PROGRAM.initialise(0)
    runtime = load_backend(backend).Runtime(PROGRAM, "cpu")
    found = {}
    for name, engine in {
        "miwae": IWAE(k=3, groups=2), "ciwae": IWAE(k=6, elbo_share=0.3), "piwae": IWAE(k=6, guide_groups=3),
        "iwae": IWAE(k=6), "renyi": Renyi(k=6, alpha=0.4), "one": IWAE(k=1, groups=6), "elbo": Renyi(k=6, alpha=1.0),
    }.items():  # fmt: skip
        trainer = trainer_of(PROGRAM, params, engine, backend, len(X))
        found[name] = steps_of(trainer, X, 1, 41)
    values = {n: float(f["objective"][0]) for n, f in found.items()}
    elbos = [float(f["elbo"][0]) for f in found.values()]
    assert np.ptp(elbos) < 1e-4  # the same draws in all of them
    assert values["one"] == pytest.approx(elbos[0], abs=1e-4) == pytest.approx(values["elbo"], abs=1e-4)
    assert values["ciwae"] == pytest.approx(0.3 * elbos[0] + 0.7 * values["iwae"], abs=1e-4)
    assert elbos[0] < values["renyi"] < values["iwae"] and elbos[0] < values["miwae"] < values["iwae"]
    assert values["piwae"] == pytest.approx(values["iwae"], abs=1e-5)  # what is reported is the model's
    assert runtime.name == backend


def test_log_weights_of_one_datum_do_not_see_the_others():
    """FIELD 1: the minibatch's bound is the mean over its data, whatever the batch."""
    params = PROGRAM.initialise(0)
    trace = ppdgm.trace(PROGRAM, params, X, k=5)
    whole = bounds.renyi(bounds.log_weights(trace, np), 0.0, logsumexp)
    halves = slice(0, 20), slice(20, 41)
    cut = lambda terms, rows: {n: v[:, rows] for n, v in terms.items()}
    parts = [trace._replace(log_p=cut(trace.log_p, i), log_q=cut(trace.log_q, i)) for i in halves]
    apart = [bounds.renyi(bounds.log_weights(p, np), 0.0, logsumexp) for p in parts]
    np.testing.assert_allclose(np.concatenate(apart), whole)


# --- SVI's KL -------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("per", ["site", "dimension"])
@pytest.mark.parametrize("of", ["datum", "batch"])
def test_free_bits_have_no_gradient_below_the_floor(backend, per, of):
    params = PROGRAM.initialise(0)
    grads = {}
    for floor in (0.0, 50.0):
        engine = SVI(free_bits=floor, free_bits_per=per, free_bits_of=of)
        trainer = trainer_of(PROGRAM, params, engine, backend, len(X), optimiser=Optimiser(name="sgd"))
        steps_of(trainer, X, 1, 41, rate=1.0)
        grads[floor] = {n: v - params[n] for n, v in trainer.values().items()}
    trainer = trainer_of(PROGRAM, params, SVI(beta=0.0), backend, len(X), optimiser=Optimiser(name="sgd"))
    steps_of(trainer, X, 1, 41, rate=1.0)
    free = {n: v - params[n] for n, v in trainer.values().items()}
    for n in params:
        np.testing.assert_allclose(grads[50.0][n], free[n], atol=1e-6)
    assert max(np.abs(grads[0.0][n] - free[n]).max() for n in params) > 1e-4


@both
def test_free_bits_hold_the_kl_up(backend):
    """On noise, plain SVI collapses; with λ nats the KL ends at 0.9 λ or more."""
    x = (np.random.default_rng(1).random((200, 6)) < 0.5).astype("float32")
    options = {"steps": 600, "learning_rate": 5e-3, "backend": backend, "progress": False}
    free = ppdgm.fit(PROGRAM, x, engine=SVI(free_bits=1.0), **options).history["kl"][-50:].mean()
    plain = ppdgm.fit(PROGRAM, x, **options).history["kl"][-50:].mean()
    assert plain < 0.3 and 0.9 <= free < 1.5


@both
def test_capacity_holds_the_kl_at_c(backend):
    engine = SVI(capacity=Linear(end=2.0, steps=200), gamma=50.0)
    fit = ppdgm.fit(PROGRAM, X, engine=engine, steps=600, learning_rate=5e-3, backend=backend, progress=False)
    assert fit.history["kl"][-50:].mean() == pytest.approx(2.0, abs=0.1)
    step = (
        fit.history["elbo"]
        + fit.history["kl"]
        - 50.0 * np.abs(fit.history["kl"] - np.minimum(fit.history["step"] - 1, 200) / 100)
    )
    np.testing.assert_allclose(fit.history["objective"], step, rtol=2e-3, atol=2e-3)


# --- estimators: what fits what -------------------------------------------------------------------------------------


REFUSED = [
    (PROGRAM, SVI(estimator="score"), "not reparameterised, but every latent"),
    (PROGRAM, IWAE(k=2, estimator="vimco"), "not reparameterised, but every latent"),
    (PLANAR, IWAE(k=2, estimator="dreg"), "no known inverse"),
    (PLANAR, LaggingInference(), "no known inverse"),
    (PROGRAM, EM(), "e_step.*VariationalEM"),
    (PPCA(event_shape=(6,), posterior="linear"), EM(), "trains only the model"),
    (Autoencoder(event_shape=(6,), **NETS), WakeSleep(), "no latent"),
    (BITS.replace(posterior=RelaxedBernoulli(enumerate=True)), ReweightedWakeSleep(), "Use SVI.*enumerate=True from"),
    (SEMI, IWAE(k=2, estimator="stl"), "IWAE weighs draws.*enumerates one.*Use SVI.*SemiSupervisedVAE.*always"),
    (SEMI, WakeSleep(), "WakeSleep weighs draws.*SemiSupervisedVAE.*always"),
    (SEMI, SVI(estimator="stl"), "Leave the estimator out"),
    (BITS.replace(posterior=RelaxedBernoulli()), IWAE(k=2), 'kl="relaxed"'),
]  # fmt: skip


@both
@pytest.mark.parametrize("case", REFUSED, ids=lambda c: f"{type(c[0]).__name__}-{type(c[1]).__name__}")
def test_what_does_not_fit_is_refused_before_training(backend, case):
    program, engine, words = case
    started = []
    with pytest.raises(PpdgmError, match=words):
        ppdgm.fit(program, X, engine=engine, steps=3, backend=backend, progress=False, callbacks=[started.append])
    assert not started


class Own(Engine):
    """An engine of one's own: `told` says what it returns of the ELBO."""

    told: ClassVar[Callable[[Any, Any], Any]]

    def objective(self, step):
        log_w = bounds.log_weights(step.trace(), step.xp)
        return type(self).told(bounds.mean(log_w, step.weights, step.xp), step.xp)


def own(told):
    return type("Mine", (Own,), {"told": staticmethod(told), "__module__": __name__})


OWN = {  # what an objective returns, and what is said
    "no objective": (own(lambda e, xp: {"elbo": e, "kl": e}), "expected 'objective' too"),
    "nothing": (own(lambda e, xp: None), "got NoneType, expected a dictionary with 'objective'"),
    "a number": (own(lambda e, xp: e), "expected a dictionary with 'objective'"),
    "several": (
        own(lambda e, xp: {"objective": xp.stack([e, e])}),
        "an array of shape (2,) for 'objective'",
    ),
    "no array": (own(lambda e, xp: {"objective": 3.0}), "got float for 'objective', expected one number"),
}


@both
@pytest.mark.parametrize("case", OWN)
def test_what_an_engine_of_ones_own_returns_is_checked_before_training(backend, case, tmp_path):
    engine, words = OWN[case]
    with pytest.raises(ProgramError, match=re.escape(words)) as error:
        ppdgm.fit(PROGRAM, X, engine=engine(), steps=3, backend=backend, progress=False, out=tmp_path / "run")
    assert str(error.value).startswith("Mine.objective: got ") and not (tmp_path / "run").exists()


@both
def test_an_engine_of_ones_own_without_an_elbo(backend, tmp_path, capsys):
    """It trains, with a line of progress, validation, checkpoints and pictures; its history has what it returns."""
    engine = own(lambda e, xp: {"objective": e})()
    options = {
        "validation": X[:9],
        "early_stopping": 3,
        "diagnose_epochs": 1,
        "out": tmp_path / "run",
    }
    fit = ppdgm.fit(PROGRAM, X, engine=engine, epochs=2, backend=backend, compile=False, **options)
    assert {"objective", "validation_elbo"} <= {*fit.history} and "elbo" not in fit.history
    assert "objective" in capsys.readouterr().err and np.isfinite(fit.elbo(X).mean)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IWAE(k=1, estimator="vimco"), "k=2 or more"),
        (lambda: SVI(k=1, baseline="leave_one_out"), "k=2 or more"),
        (lambda: SVI(free_bits=1.0, capacity=2.0), "only one of them"),
        (lambda: SVI(estimator="stl", kl="analytic"), "estimator='stl' needs the KL from draws"),
        (lambda: SVI(gamma=3.0), "gamma is a setting of capacity"),
        (lambda: SVI(free_bits_per="dimension"), "free_bits_per is a setting of free_bits"),
        (lambda: SVI(free_bits_of="datum", capacity=1.0), "free_bits_of is a setting of free_bits"),
        (lambda: SVI(estimator="dreg"), "'stl'"),
        (lambda: IWAE(k=8, guide_groups=3), "expected a divisor of"),
        (lambda: Stages(stages=()), "at least one"),
        (lambda: Stages(stages=(Stage(engine=SVI()), Stage(engine=IWAE()))), "only the last stage"),
        (lambda: Stages(stages=(Stage(engine=EM()),)), "uses gradients"),
    ],
)
def test_settings_that_can_not_be(make, words):
    with pytest.raises(SpecError, match=words):
        make()


def test_a_site_without_gradient_trains_by_the_score_function():
    """Bits as they are, with leave-one-out by default."""
    fit = ppdgm.fit(BITS, X, engine=SVI(k=4, estimator="score"), steps=300, learning_rate=5e-3, progress=False)
    assert fit.history["elbo"][-30:].mean() > fit.history["elbo"][:30].mean() + 0.05


# --- learning a known discrete posterior ----------------------------------------------------------------------------


@statistical
@both
@pytest.mark.parametrize(
    "engine", [ReweightedWakeSleep(k=20), IWAE(k=10, estimator="vimco"), SVI(k=8, estimator="score")], ids=str
)
def test_a_discrete_posterior_is_learned(backend, engine):
    """One bit, of which p(z|x) is known: the guide's KL to it ends below 0.01 nats, and so the bound's gap."""
    program = VAE(
        event_shape=(3,), latent=1, prior=BernoulliPrior(), posterior=RelaxedBernoulli(kl="relaxed"),
        encoder=MLP(hidden=(16,)), decoder=MLP(hidden=()),
    )  # fmt: skip
    x = np.random.default_rng(0).random((400, 3)) < 0.5 + 0.35 * np.sign(np.random.default_rng(1).normal(size=(400, 1)))
    x = x.astype("float32")
    params = program.initialise(0)
    params["decoder.layers.0.weight"] = np.array([[1.2, -0.8, 1.0]], "float32")
    frozen = Stages(stages=(Stage(engine=engine, freeze=("decoder.*",)),))
    fit = ppdgm.fit(
        program, x, engine=frozen, params=params, steps=1500, learning_rate=1e-2, batch_size=100, backend=backend,
        weight_average=0.99, progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(fit.params["decoder.layers.0.weight"], params["decoder.layers.0.weight"])
    exact = program.replace(posterior=RelaxedBernoulli(enumerate=True))
    elbo = ppdgm.inference.Fit(exact, fit.params, backend).elbo(x).values  # sums over the bit: no draws
    likelihood = fit.log_likelihood(x, k=4000).values
    assert np.mean(likelihood - elbo) < 0.01
    first = ppdgm.inference.Fit(exact, params, backend).elbo(x).values
    assert np.mean(likelihood - first) > 0.05


# --- EM -------------------------------------------------------------------------------------------------------------


@both
def test_exact_em_never_falls_and_ends_at_maximum_likelihood(backend):
    program = PPCA(event_shape=(5,), latent=2)
    with precision("float64"):
        fit = ppdgm.fit(program, LINEAR, engine=EM(), steps=400, backend=backend, dtype="float64", progress=False)
    assert np.diff(fit.history["objective"]).min() > -1e-9
    best = program.exact_log_likelihood(program.maximum_likelihood(LINEAR), LINEAR).mean()
    assert fit.history["objective"][-1] == pytest.approx(best, abs=1e-8)
    assert program.exact_log_likelihood(fit.params, LINEAR).mean() == pytest.approx(best, abs=1e-8)


def test_exact_em_equals_scikit_learns_from_the_same_start():
    x = LINEAR.astype(float)
    program = GaussianMixture(event_shape=(5,), components=2, min_scale=0.0)
    start = SklearnMixture(2, reg_covar=0.0, random_state=0, max_iter=1)
    with pytest.warns(Warning):  # that it has not converged
        start.fit(x)
    params = program.parameters(start.weights_, start.means_, start.covariances_)
    with precision("float64"):
        fit = ppdgm.fit(program, x, engine=EM(), steps=20, params=params, dtype="float64", progress=False)
    other = SklearnMixture(
        2, reg_covar=0.0, max_iter=20, tol=0.0, weights_init=start.weights_, means_init=start.means_,
        precisions_init=start.precisions_,
    )  # fmt: skip
    with pytest.warns(Warning):  # that it has not converged
        other.fit(x)
    assert program.exact_log_likelihood(fit.params, x).mean() == pytest.approx(other.score(x), abs=1e-8)
    np.testing.assert_allclose(fit.params["loc"], other.means_, atol=1e-7)


def test_exact_em_in_chunks_and_for_a_program_of_ones_own(monkeypatch):
    from ppdgm.inference.training import exact

    program = FactorAnalysis(event_shape=(5,), latent=1)
    whole = ppdgm.fit(program, LINEAR, engine=EM(), steps=7, progress=False)
    monkeypatch.setattr(exact, "ROWS", 16)
    parts = ppdgm.fit(program, LINEAR, engine=EM(), steps=7, progress=False)
    np.testing.assert_allclose(parts.history["objective"], whole.history["objective"], rtol=1e-12)


@both
def test_variational_em_moves_one_side_at_a_time(backend):
    engine = VariationalEM(e_steps=2, m_steps=1)
    params = PROGRAM.initialise(0)
    trainer = trainer_of(PROGRAM, params, engine, backend, len(X))
    labels, before = trainer.tracer.labels, trainer.values()
    for step, moves in enumerate(["guide", "guide", "model", "guide", "guide", "model"]):
        steps_of(trainer, X, 1, 8, first=step)
        after = trainer.values()
        moved = {labels[n] for n in after if not np.array_equal(after[n], before[n])}
        assert moved == {moves}
        before = after


def model_gradients(sampler, backend):
    """Steps of the model at draws of the posterior on PPCA, as mean gradient, its standard error, and the exact one."""
    program, params, x = ppca(np.random.default_rng(3), shape=(3,), size=6, dtype="float64")
    tiled, likelihood = np.tile(x, (50, 1)), lambda p: ppca_log_likelihood(p, x).mean()
    engine = MonteCarloEM(e_steps=1, m_steps=1, sampler=sampler)
    with precision("float64"):
        trainer = trainer_of(program, params, engine, backend, len(tiled), optimiser=Optimiser(name="sgd"))
        found = []
        for step in range(1, 61, 2):  # the model's turns
            before = trainer.values()
            steps_of(trainer, tiled, 1, len(tiled), first=step, rate=1e-6)
            found.append({n: (v - before[n]) / 1e-6 for n, v in trainer.values().items()})
    found = found[10:]  # a step size takes some steps to adapt
    assert all(not found[0][n].any() for n in params if n.startswith("guide."))
    exact = gradient(likelihood, params)
    for n in ("weight", "loc", "log_scale"):
        draws = np.array([f[n] for f in found])
        yield draws.mean(0), draws.std(0, ddof=1) / np.sqrt(len(draws)), exact[n], np.linalg.norm(exact["weight"])


@statistical
@both
@pytest.mark.parametrize("sampler", [Resampled(k=200, draws=10), HMC(chains=10, moves=20, num_leapfrog=20)], ids=repr)
def test_the_gradient_at_draws_of_the_posterior_is_that_of_the_likelihood(sampler, backend):
    for mean, error, exact, norm in model_gradients(sampler, backend):
        assert (np.abs(mean - exact) < 4 * error + 1e-2).all()  # neither K nor a chain is infinite
        assert (error < 0.02 * norm).all()


@both
def test_chains_that_hardly_move_give_another_gradient(backend):
    found = model_gradients(HMC(chains=10, moves=1, num_leapfrog=1, step_size=1e-6), backend)
    assert any((np.abs(mean - exact) > 10 * error + 0.1).any() for mean, error, exact, _ in found)


@both
def test_chains_refuse_latents_that_they_can_not_move(backend):
    engine = MonteCarloEM(sampler=HMC())
    with pytest.raises(ProgramError, match=r"all real numbers.*Resampled"):
        ppdgm.fit(BITS, X, engine=engine, steps=2, backend=backend, progress=False)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"clip_norm": 1.0}, "clip_norm: EM"),
        ({"optimiser": "sgd"}, "optimiser: EM"),
        ({"optimiser": Optimiser(beta1=0.5)}, "optimiser: EM"),
        ({"optimiser": optax.sgd(1.0)}, "optimiser: EM"),
        ({"batch_size": 10}, f"batch_size: got 10, but each step of EM.* uses all {len(LINEAR)} rows"),
    ],
)
def test_settings_of_gradient_steps_are_refused_in_exact_em(setting, told):
    with pytest.raises(TrainingError, match=told):
        ppdgm.fit(PPCA(event_shape=(5,)), LINEAR, engine=EM(), steps=3, **setting)


# --- stages ---------------------------------------------------------------------------------------------------------


@both
def test_stages_take_their_turns_and_leave_alone_what_is_frozen(backend):
    stages = [Stage(engine=SVI(beta=Linear(steps=5)), steps=10), Stage(engine=IWAE(k=3), freeze=("encoder.*",))]
    params = PROGRAM.initialise(0)
    first = ppdgm.fit(
        PROGRAM, X, engine=SVI(beta=Linear(steps=5)), steps=10, params=params, backend=backend, progress=False
    )
    fit = ppdgm.fit(PROGRAM, X, engine=stages, steps=30, params=params, backend=backend, progress=False)
    np.testing.assert_allclose(fit.history["objective"][:10], first.history["objective"], rtol=1e-6)
    for n in params:
        same = np.allclose(fit.params[n], first.params[n], rtol=0, atol=1e-6)  # two runs that are compiled differently
        assert same == n.startswith("encoder.")
    gap = fit.history["objective"] - fit.history["elbo"]
    assert (gap[10:] > 0).all()  # a bound of several particles, from its stage on
    recipe = ppdgm.inference.Recipe(PROGRAM, fit.training, fit.engine).table()
    assert ppdgm.inference.Recipe.from_table(recipe).engine == fit.engine


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([Stage(engine=SVI(), steps=30), IWAE()], "stages before the last take 30 steps"),
        (
            [Stage(engine=SVI(beta=Linear(steps=20)), steps=10), IWAE()],
            "beta: the schedule needs 20 steps, but its stage",
        ),
        ([Stage(engine=SVI(), steps=10, freeze=("decodr.*",)), IWAE()], "'decodr.*' matches no parameter"),
    ],
)
def test_stages_that_can_not_be(stages, words):
    with pytest.raises(TrainingError, match=words):
        ppdgm.fit(PROGRAM, X, engine=stages, steps=30, progress=False)


# --- loops ----------------------------------------------------------------------------------------------------------


def test_both_backends_take_the_same_steps_without_draws():
    """Also where a gradient's memory lies otherwise than its parameter's, which torch's fused optimisers misread."""
    program = GaussianMixture(event_shape=(5,), components=3)
    a, b = (ppdgm.fit(program, LINEAR, steps=40, backend=b, batch_size=24, progress=False) for b in BACKENDS)
    np.testing.assert_allclose(a.history["objective"], b.history["objective"], rtol=1e-5)


def test_a_later_phase_that_can_not_be_compiled_is_told(monkeypatch):
    """Steps were taken by then: going on eagerly would take them twice, with an optimiser that has forgotten them."""
    from ppdgm.backends.pyro import step

    made = []

    def compile(function, **_):
        made.append(function)
        number = len(made)

        def run(*arguments):
            if number == 2:
                raise RuntimeError("no graph of it")
            return function(*arguments)

        return run

    monkeypatch.setattr(step.torch, "compile", compile)
    trainer = trainer_of(PROGRAM, PROGRAM.initialise(0), VariationalEM(e_steps=2), "pyro", len(X), compile=True)
    with pytest.raises(TrainingError, match=r"can't compile this program.*no graph of it.*compile=False"):
        steps_of(trainer, X, 3, 8)
    assert trainer.compiled


RESUMED = {
    "score": (BITS, SVI(estimator="score")),
    "learned": (BITS, SVI(estimator="score", baseline="learned")),
    "vimco": (BITS, IWAE(k=3, estimator="vimco")),
    "dreg": (PROGRAM, IWAE(k=3, estimator="dreg")),
    "rws": (PROGRAM, ReweightedWakeSleep(k=3, sleep_phi=0.5)),
    "variational em": (PROGRAM, VariationalEM(e_steps=3, m_steps=2)),
    "chains": (PROGRAM, MonteCarloEM(e_steps=1, sampler=HMC(moves=2, num_leapfrog=2))),
    "lagging": (PROGRAM, LaggingInference(window=3, most=9, every=2)),
    "stages": (PROGRAM, Stages(stages=(Stage(engine=SVI(), steps=20), Stage(engine=IWAE(k=3), freeze=("encoder.*",))))),
    "em": (PPCA(event_shape=(6,), latent=2), EM()),
}


@both
@pytest.mark.parametrize("engine", [SVI(estimator="score"), SVI(k=3, estimator="score"), IWAE(k=1, estimator="score")])
def test_the_objective_is_the_bound_whatever_the_gradients_estimator(engine, backend):
    fit = ppdgm.fit(BITS, X, engine=engine, steps=4, batch_size=8, backend=backend, progress=False, learning_rate=0.0)
    assert fit.history["objective"] == pytest.approx(fit.history["elbo"], abs=1e-4)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("IWEA", "Did you mean 'IWAE'"),
        (IWAE, "Write IWAE"),
        (HMC(), r"HMC is a sampler of MonteCarloEM: MonteCarloEM\(sampler=HMC"),
        ([SVI(), IWAE(k=2)], r"Stage\(engine=SVI\(\), steps=1000\)"),
    ],
    ids=str,
)
def test_what_is_no_engine_is_told_with_what_was_meant(engine, words):
    with pytest.raises(PpdgmError, match=words):
        ppdgm.fit(PROGRAM, X, engine=engine, steps=2, progress=False)


def test_stages_in_a_recipe_need_no_kind():
    table = {
        "backend": "numpyro",
        "program": {"kind": "VAE", "event_shape": [6]},
        "engine": {
            "kind": "Stages",
            "stages": [
                {"steps": 10, "engine": {"kind": "SVI", "beta": {"kind": "Linear", "steps": 10}}},
                {"engine": {"kind": "IWAE", "k": 3}, "freeze": "decoder.*"},
            ],
        },
        "training": {"steps": 20},
    }
    warm = Stage(engine=SVI(beta=Linear(steps=10)), steps=10)
    expected = Stages(stages=(warm, Stage(engine=IWAE(k=3), freeze=("decoder.*",))))
    assert Recipe.from_table(table, ()).engine == expected


class Crash(Exception):
    pass


@both
@pytest.mark.parametrize("name", RESUMED)
def test_every_engine_resumes(backend, name, tmp_path):
    program, engine = RESUMED[name]
    exact = {} if name == "em" else {"batch_size": 8, "weight_average": 0.9}
    options = {"engine": engine, "steps": 50, "progress": False, "backend": backend, **exact}

    def crash(now):
        if now.step >= 30:
            raise Crash

    whole = ppdgm.fit(program, X, **options)
    with pytest.raises(Crash):
        ppdgm.fit(program, X, out=tmp_path / "run", callbacks=[crash], checkpoint_steps=7, **options)
    again = ppdgm.resume(tmp_path / "run", X, progress=False)
    for mine, other in ((whole.params, again.params), (whole.history, again.history)):
        assert mine.keys() == other.keys()
        assert all(np.array_equal(mine[n], other[n], equal_nan=True) for n in mine)
    assert not any(n.startswith("engine/") for n in whole.params)


@both
def test_a_bad_step_of_any_phase_is_skipped_and_told(backend, capsys):
    x = X[:40].copy()
    x[5] = 1e38  # Gaussian: finite data, of which the likelihood overflows
    program = VAE(event_shape=(6,), latent=2, likelihood=ppdgm.models.Gaussian(), **NETS)
    fit = ppdgm.fit(program, x, engine=VariationalEM(e_steps=2), steps=12, batch_size=8, backend=backend, max_skipped=3)
    assert len(fit.history["skipped_step"]) == 2 and "in rows [5]" in capsys.readouterr().err
