"""Reverse KL: against closed forms of Gaussians; log Z, k̂ and effective sample size; distillation; refusals."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import ppdgm
from ppdgm import Program
from ppdgm.errors import DataError, ProgramError, SpecError, TrainingError
from ppdgm.inference import SVI, Cosine, ReverseKL, Stage, Target
from ppdgm.inference.evaluation.normaliser import normaliser_of
from ppdgm.models import (
    IAF,
    MADE,
    MLP,
    VAE,
    ActNorm,
    AutoregressiveModel,
    Bernoulli,
    Categorical,
    Chain,
    ContinuousBernoulli,
    FlowModel,
    Gaussian,
    GaussianMixture,
    InvertibleLinear,
    RealNVP,
)

BACKENDS = ["numpyro", "pyro"]
both = pytest.mark.parametrize("backend", BACKENDS)
FAST = {"compile": False, "progress": False}
MEAN, COV = np.array([1.0, -2.0]), np.array([[1.5, 0.6], [0.6, 0.8]])
LOG_Z = 3.0
PRECISION = np.linalg.inv(COV)
AFFINE = FlowModel(event_shape=(2,), flow=Chain(flows=(InvertibleLinear(), ActNorm())))


def log_target(P, x):
    """log N(x; MEAN, COV) + LOG_Z + log of its own constant: ∫ exp is e^LOG_Z."""
    d = x - P.constant(MEAN)
    constant = 0.5 * np.linalg.slogdet(2 * np.pi * COV)[1]
    return -0.5 * P.xp.sum((d @ P.constant(PRECISION)) * d, axis=-1) + (LOG_Z - constant)


class Bowl(Target):
    """exp(−½ ‖x‖² / v): Z = (2πv)^(D/2)."""

    variance: float = 2.0

    def log_density(self, P, x):
        return -0.5 * P.xp.sum(x**2, axis=-1) / self.variance


def moments(program, params):
    """Mean and covariance of an affine flow's density: x = A u + b, by f⁻¹ at points, in NumPy."""
    points = np.concatenate([np.zeros((1, 2)), np.eye(2)])
    u, _ = program.noise(params, points)
    inverse = np.linalg.inv((u[1:] - u[0]).T)
    return -inverse @ u[0], inverse @ inverse.T


def kl(mean, cov, other_mean, other_cov):
    """KL(N(mean, cov) ‖ N(other))."""
    d, precision = other_mean - mean, np.linalg.inv(other_cov)
    sizes = np.linalg.slogdet(other_cov)[1] - np.linalg.slogdet(cov)[1]
    return 0.5 * (np.trace(precision @ cov) + d @ precision @ d - len(d) + sizes)


@both
def test_its_objective_is_log_z_minus_the_closed_form_and_training_makes_that_small(backend):
    still = ppdgm.fit(
        AFFINE,
        engine=ReverseKL(target=log_target),
        backend=backend,
        steps=40,
        batch_size=500,
        learning_rate=1e-9,
        **FAST,
    )
    first = kl(*moments(AFFINE, still.params), MEAN, COV)
    found = still.history["objective"]
    assert abs(found.mean() - (LOG_Z - first)) < 4 * found.std() / len(found) ** 0.5 and first > 1
    fit = ppdgm.fit(
        AFFINE, engine=ReverseKL(target=log_target), backend=backend, steps=400, batch_size=100,
        learning_rate=Cosine(peak=0.05, end=0.0, steps=400), **FAST,
    )  # fmt: skip
    last = kl(*moments(AFFINE, fit.params), MEAN, COV)
    assert last < 1e-3
    drawn = fit.sample(4000)
    np.testing.assert_allclose(np.cov(drawn.T), COV, atol=6 * 2.0 / 4000**0.5)
    report = fit.normaliser(4000)
    assert abs(report.log_z - LOG_Z) < 4 * report.error + 1e-4
    assert abs(report.kl - last) < 4 * report.kl_error + 1e-4
    assert report.covered and report.effective_sample_size > 3900 and report.draws == 4000
    assert "log Z = " in str(report) and "k̂" in str(report)
    far = still.normaliser(4000)
    assert far.log_z < LOG_Z + 4 * far.error and far.effective_sample_size < 2000 and far.pareto_k > report.pareto_k
    w = np.exp(far.log_weights - far.log_weights.max())
    assert far.effective_sample_size == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-6)
    assert far.log_z == pytest.approx(np.log(w.mean()) + far.log_weights.max(), rel=1e-9)
    assert far.kl == pytest.approx(far.log_z - far.log_weights.mean())


@both
def test_a_named_target_is_in_the_recipe_and_a_run_goes_on(backend, tmp_path):
    program, engine = FlowModel(event_shape=(2,), flow=ActNorm()), ReverseKL(target=Bowl(variance=3.0))
    settings = {"engine": engine, "backend": backend, "learning_rate": 0.05, "batch_size": 50, **FAST}
    whole = ppdgm.fit(program, steps=20, **settings)
    ppdgm.fit(program, steps=10, out=tmp_path / "run", **settings)
    more = ppdgm.resume(tmp_path / "run", classes=[Bowl], steps=20, progress=False)
    np.testing.assert_array_equal(more.params["flow.shift"], whole.params["flow.shift"])
    loaded = ppdgm.load(tmp_path / "run", classes=[Bowl])
    assert loaded.engine == engine
    report = loaded.normaliser(2000)
    assert abs(report.log_z - np.log(2 * np.pi * 3.0)) < 4 * report.error


class AR1(Program):
    """x_t = a x_(t−1) + s ε_t, as a plain program: the teacher."""

    event_shape: tuple[int, ...] = (4,)

    def build(self, context):
        context.param("a", (), lambda rng, shape, data: np.array(0.7))
        context.param("s", (), lambda rng, shape, data: np.array(0.6))

    def model(self, P, x):
        with P.plate("data", x):
            before = P.xp.concat([P.xp.zeros_like(x[..., :1]), x[..., :-1]], axis=-1)
            P.sample("x", P.dist.Normal(P.param("a") * before, P.param("s")).to_event(1), obs=x)


@both
def test_a_student_learns_an_autoregressive_teacher(backend):
    """An affine IAF of AR(1): KL(student ‖ teacher) from the student's matrix, in closed form, below 1e-3."""
    teacher = ppdgm.Fit(program=AR1(), params=AR1().initialise(0))
    with pytest.warns(UserWarning, match="IAF needs D passes"):
        student = FlowModel(event_shape=(4,), flow=IAF(hidden=(), depth=1), allow_slow=True)
    fit = ppdgm.fit(
        student, engine=ReverseKL(target=teacher), backend=backend, steps=700, batch_size=200,
        learning_rate=Cosine(peak=0.05, end=0.0, steps=700), **FAST,
    )  # fmt: skip
    matrix = np.linalg.inv(np.eye(4) - 0.7 * np.eye(4, k=-1)) * 0.6
    right = matrix @ matrix.T
    u = student.noise(fit.params, np.concatenate([np.zeros((1, 4)), np.eye(4)]))[0]
    inverse = np.linalg.inv((u[1:] - u[0]).T)
    exact = kl(-inverse @ u[0], inverse @ inverse.T, np.zeros(4), right)
    assert exact < 1e-3
    report = fit.normaliser(2000)
    assert abs(report.log_z) < 4 * report.error + 1e-4  # a normalised target
    assert abs(report.kl - exact) < 4 * report.kl_error + 1e-4
    start = student.initialise(0)
    assert abs(np.exp(fit.history["objective"][0])) < 1 and set(start) == set(fit.params)


@both
def test_the_density_of_a_teacher_is_its_own_also_if_it_sums_over_a_latent(backend):
    """log w + log q at draws is the teacher's log p(x); a mixture of Gaussians, whose component is summed out."""
    x = np.random.default_rng(0).normal(size=(60, 2)).astype("float32") * [1.0, 3.0]
    teacher = ppdgm.fit(GaussianMixture(event_shape=(2,), components=2), x, backend="numpyro", steps=5, **FAST)
    program = FlowModel(event_shape=(2,), flow=ActNorm())
    fit = ppdgm.fit(program, engine=ReverseKL(target=teacher), backend=backend, steps=2, batch_size=64, **FAST)

    def weights(target):
        same = ppdgm.Fit(program=program, params=fit.params, backend=backend, engine=ReverseKL(target=target))
        return same.normaliser(100, seed=3).log_weights  # at the same draws, whatever the target

    none = weights(lambda P, x: 0.0 * x[..., 0])
    drawn = np.stack([weights(lambda P, x, i=i: x[..., i]) - none for i in range(2)], axis=1)
    right = teacher.log_likelihood(drawn.astype("float32")).values
    np.testing.assert_allclose(weights(teacher) - none, right, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(none, -fit.elbo(drawn.astype("float32")).values, rtol=1e-3, atol=1e-3)


@both
def test_a_condition_is_given_by_its_fields(backend):
    """q(x | y) for π(x | y) = N(y, ½): trained for rows of y, without x."""

    def target(P, x, y):
        return -P.xp.sum((x - y) ** 2, axis=-1)

    program = FlowModel(
        event_shape=(2,), covariates=(2,), flow=RealNVP(hidden=(8,), depth=2, context_size=4), context=MLP(hidden=())
    )
    y = np.random.default_rng(0).uniform(-1, 1, size=(200, 2)).astype("float32")
    fit = ppdgm.fit(
        program, {"y": y}, engine=ReverseKL(target=target), backend=backend, steps=300, batch_size=50,
        learning_rate=Cosine(peak=0.03, end=0.0, steps=300), **FAST,
    )  # fmt: skip
    report = fit.normaliser(1000, given={"y": [0.5, -0.5]})
    assert abs(report.log_z - np.log(np.pi)) < 4 * report.error + 0.01 and report.kl < 0.05
    np.testing.assert_allclose(fit.sample(2000, given={"y": np.full((2000, 2), 0.5)}).mean(0), 0.5, atol=0.1)


class Rounded(Program):
    """Draws whole numbers."""

    event_shape: tuple[int, ...] = (2,)

    def build(self, context):
        context.param("rate", (2,))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Poisson(P.xp.exp(P.param("rate"))).to_event(1), obs=x)


@both
def test_what_can_not_be_is_refused(backend, tmp_path):
    settings = {"backend": backend, "steps": 1, "batch_size": 4, **FAST}
    engine, x = ReverseKL(target=log_target), np.zeros((5, 2), "float32") + 0.5
    bits = VAE(event_shape=(2,), latent=1, encoder=MLP(hidden=()), decoder=MLP(hidden=()))
    latent = bits.replace(likelihood=Gaussian())
    pixels = AutoregressiveModel(event_shape=(2,), net=MADE(hidden=(3,)))
    refused = [
        (
            lambda: ppdgm.fit(AFFINE, x, engine=engine, **settings),
            DataError,
            "draws x from the program, and reads no data",
        ),
        (lambda: ppdgm.fit(AFFINE, **settings), DataError, r"got nothing \(None\)"),
        (
            lambda: ReverseKL(target=ppdgm.Fit(AR1(), AR1().initialise(0))).target.log_density(None, x),
            ProgramError,
            r"use fit.log_likelihood\(x\)",
        ),
        (
            lambda: ppdgm.fit(AFFINE, engine=[Stage(engine=SVI(), steps=1), engine], **{**settings, "steps": 2}),
            DataError,
            r"got nothing \(None\)",
        ),
        (lambda: ppdgm.fit(latent, engine=engine, **settings), ProgramError, "'z' is latent, so the density"),
        (
            lambda: ppdgm.fit(bits, engine=engine, **settings),
            ProgramError,
            "only real numbers have, but VAE draws x that",
        ),
        (lambda: ppdgm.fit(pixels, engine=engine, **settings), ProgramError, "only real numbers have"),
        (lambda: ppdgm.fit(AFFINE, engine=engine, validation=x, **settings), TrainingError, "ReverseKL"),
        (lambda: ReverseKL(target=3.0), SpecError, "target"),
        (lambda: ReverseKL(), SpecError, "target"),
    ]
    for call, kind, words in refused:
        with pytest.raises(kind, match=words):
            call()
    with pytest.raises(ProgramError, match="no gradient passes through the draw of site 'x'"):
        ppdgm.fit(Rounded(), engine=engine, **settings)
    targets = [
        (lambda P, x: P.xp.sum(x), r"returned an array of shape \(\), expected a number of each"),
        (lambda P, x: x, r"returned an array of shape \(\d, 2\)"),
        (lambda P, x: 0.0, r"returned float"),
        (lambda P, x: P.random.normal((4,)), r"a target only computes"),
        (lambda P, x: P.sample("z", P.dist.Normal(0.0, 1.0)), r"a target only computes"),
        (ppdgm.Fit(program=latent, params=latent.initialise(0)), "draws .z., so only a bound"),
    ]
    for target, words in targets:
        with pytest.raises(ProgramError, match=words):
            ppdgm.fit(AFFINE, engine=ReverseKL(target=target), **settings)
    with pytest.raises(ProgramError, match=r"normaliser: is for a program that ReverseKL"):
        ppdgm.Fit(program=AFFINE, params=AFFINE.initialise(0), backend=backend, engine=SVI()).normaliser(100)
    ppdgm.fit(AFFINE, engine=engine, out=tmp_path / "run", **settings)
    loaded = ppdgm.load(tmp_path / "run")
    assert np.isfinite(loaded.sample(3)).all()
    for call in (loaded.normaliser, lambda: ppdgm.resume(tmp_path / "run", steps=3, progress=False)):
        with pytest.raises(TrainingError, match="log_target was given in Python, and is not saved"):
            call()


def test_stages_of_data_then_target():
    """First by likelihood, then towards the target: the second stage draws, and leaves the data out."""
    x = np.random.default_rng(0).normal(size=(100, 2)).astype("float32")
    fit = ppdgm.fit(
        AFFINE, x, engine=[Stage(engine=SVI(), steps=20), ReverseKL(target=log_target)], steps=200, batch_size=100,
        learning_rate=0.03, **FAST,
    )  # fmt: skip
    assert kl(*moments(AFFINE, fit.params), MEAN, COV) < 0.05
    assert abs(fit.normaliser(1000).log_z - LOG_Z) < 0.1
    assert multivariate_normal(MEAN, COV).logpdf(fit.sample(500)).mean() > -4


@pytest.mark.parametrize(("shape", "said"), [(0.2, ""), (0.6, "tails of w are heavy"), (0.9, "only a lower bound")])
def test_heavy_weights_are_told(shape, said):
    """Weights w = u^(−k) with u uniform have a Pareto tail of shape k: no variance from 0.5, no mean from 1."""
    found = normaliser_of(-shape * np.log(np.random.default_rng(0).random(20_000)))
    assert found.pareto_k == pytest.approx(shape, abs=0.08)
    assert said in str(found) and ("tails" in str(found)) == (shape == 0.6) and found.covered == (shape < 0.7)


def test_weights_of_nothing_and_of_no_number():
    """π has not 100 of 1,000 draws of q: log Z = log 0.9, and KL(q ‖ π) = ∞. NaN is no weight."""
    found = normaliser_of(np.r_[np.zeros(900), np.full(100, -np.inf)])
    assert found.log_z == pytest.approx(np.log(0.9), abs=1e-12) and found.kl == np.inf
    for odd in (np.nan, np.inf):
        with pytest.raises(ProgramError, match=r"at 100 of 1000 draws, .* is NaN or"):
            normaliser_of(np.r_[np.zeros(900), np.full(100, odd)])


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
@pytest.mark.parametrize("likelihood", [ContinuousBernoulli(), Bernoulli(), Categorical(levels=3)])
def test_a_teacher_of_other_numbers_than_real_ones_is_refused(likelihood, backend):
    """Outside of [0, 1] its formula grows without end, and log Z was 175 instead of 0."""
    teacher = AutoregressiveModel(event_shape=(1,), net=MADE(hidden=()), likelihood=likelihood)
    target = ppdgm.Fit(teacher, teacher.initialise(0), backend)
    with pytest.raises(ProgramError, match=r"target: AutoregressiveModel has a density of .* draws any real numbers"):
        ppdgm.fit(FlowModel(event_shape=(1,), flow=ActNorm()), engine=ReverseKL(target=target), steps=2,
                  backend=backend, progress=False)  # fmt: skip
