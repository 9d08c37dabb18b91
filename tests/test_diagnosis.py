"""`fit.diagnose` on programs whose diagnosis is known: each number against a closed form or quadrature."""

import numpy as np
import pytest
from planted import LATENT, WEIGHT, data, fit_of, log_likelihood
from readings import BACKENDS, precision
from scipy.special import logsumexp
from scipy.stats import norm

import ppdgm
from ppdgm.diagnostics import latent_use
from ppdgm.diagnostics.diagnosis import Diagnosis
from ppdgm.diagnostics.verdict import verdict
from ppdgm.errors import DataError, PpdgmError, SpecError
from ppdgm.inference import Fit
from ppdgm.inference.evaluation.joint import joint_of
from ppdgm.inference.evaluation.terms import aggregated_log_density
from ppdgm.models import MLP, PPCA, VAE, Gaussian, HierarchicalVAE

both = pytest.mark.parametrize("backend", BACKENDS)
statistical = pytest.mark.statistical
X = data()
QUICK = {"k": 200, "simulated": 200, "replicated": 20, "few": 8, "chains": 8, "temperatures": 60, "refit_steps": 150}


@both
@statistical
def test_an_exact_guide_is_told_to_be_exact(backend):
    found = fit_of("exact", backend=backend).diagnose(X, **QUICK)
    exact = log_likelihood(X)
    assert found.withheld == {}
    assert found.weights.exact.all() and (found.weights.pareto_k == -np.inf).all()
    assert np.abs(found.log_likelihood.values - exact).max() < 1e-4
    assert np.abs(found.curve.mean - exact.mean()).max() < 1e-4  # L_k is log p(x) for every k
    assert all(u.calibrated for u in found.calibration.values())
    inside = found.coverage["z"]
    assert (np.abs(inside.overall - inside.levels) < 4 * inside.overall_errors).all()
    assert abs(found.gaps.inference.value) < 1e-2 and abs(found.gaps.amortisation.value) < 2e-2
    assert str(found.use).startswith("2 of 2 dimensions carry information")
    assert {f.about: f.grade for f in found.verdict}["Guide"] == "good"
    assert "exact posterior" in str(found)


@both
@statistical
def test_surgery_adds_up_and_its_marginal_kl_is_that_of_quadrature(backend):
    """One latent: q(z) is a mixture of N normal densities, and the integral over a line is exact."""
    program = PPCA(event_shape=(2,), latent=1, posterior="linear")
    params = {
        "weight": np.array([[1.0], [0.5]]), "loc": np.zeros(2), "log_scale": np.log(0.7),
        "guide.weight": np.array([[0.9, 0.2]]), "guide.bias": np.array([0.4]), "guide.log_scale": np.array([-0.8]),
    }  # fmt: skip
    fit = Fit(program, {n: np.asarray(v, "float32") for n, v in params.items()}, backend)
    x = np.random.default_rng(3).normal(size=(150, 2)).astype("float32")
    found = fit.diagnose(x, parts="surgery", draws=100).surgery
    loc, scale = x @ params["guide.weight"][0] + 0.4, np.exp(-0.8)
    z = np.linspace(-9, 9, 20_001)
    each = norm.logpdf(z[:, None], loc, scale)
    log_q = logsumexp(each, axis=1) - np.log(len(x))
    marginal = np.trapezoid(np.exp(log_q) * (log_q - norm.logpdf(z)), z)
    kl = np.mean(0.5 * (scale**2 + loc**2 - 1) - np.log(scale))
    assert abs(found.marginal_kl.value - marginal) < 4 * found.marginal_kl.error
    assert abs(found.mutual_information.value - (kl - marginal)) < 4 * found.mutual_information.error
    assert max(found.marginal_kl.error, found.mutual_information.error) < 0.02
    assert found.elbo.value == pytest.approx(found.reconstruction.value - found.kl.value)
    assert found.kl.value == pytest.approx(found.mutual_information.value + found.marginal_kl.value)
    assert abs(marginal - kl) > 0.5  # neither is all of it
    draws = np.linspace(-2, 2, 300).reshape(2, 150, 1).astype("float32")
    exact = logsumexp(norm.logpdf(draws[..., 0][..., None], loc, scale), axis=-1) - np.log(len(x))
    assert np.abs(aggregated_log_density(fit._evaluator(x), {"z": draws}) - exact).max() < 1e-4
    small = fit._evaluator(x, memory=1)  # the smallest chunks, of which the last is not full
    assert np.abs(aggregated_log_density(small, {"z": draws}) - exact).max() < 1e-4


@both
@statistical
@pytest.mark.parametrize(("shrink", "low", "high"), [(0.9, -np.inf, 0.5), (0.3, 0.7, np.inf)])
def test_pareto_k_tells_how_narrow_a_guide_is(shrink, low, high, backend):
    found = fit_of(shrink=shrink, backend=backend).diagnose(X, parts="likelihood", k=2000)
    k = found.weights.pareto_k
    assert low < np.quantile(k, 0.25) and np.quantile(k, 0.95) < high  # k̂ itself is noisy: × 0.3 shows in 4 of 5 data
    if shrink == 0.3:
        assert found.verdict[0].about == "Guide" and found.verdict[0].grade == "bad"


@statistical
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"shift": 0.3}, "are shifted, and perhaps too narrow:"),
        ({"shrink": 1.5, "shift": 0.2}, "are shifted:"),
        ({"shrink": 0.7}, "are too narrow:"),
        ({"shrink": 1.5}, "are too wide:"),
    ],
)
def test_intervals_are_told_to_be_shifted_where_they_are(wrong, told):
    """A guide whose scale is right, beside the posterior, holds the truth too seldom: not for being narrow."""
    found = fit_of(**wrong, backend="pyro").diagnose(X, parts="calibration")
    assert told in str(found)
    rank = norm.cdf(wrong.get("shift", 0.0) / np.array([0.31623, 0.44721]) / np.hypot(1.0, wrong.get("shrink", 1.0)))
    assert np.abs(1 - found.pit["z"].mean(0) - rank).max() < 4 * 0.5 / np.sqrt(500)  # of a rank's mean, at most


@both
@statistical
def test_a_guide_that_is_too_narrow_is_not_calibrated(backend):
    found = fit_of(shrink=0.7, backend=backend).diagnose(X, parts="calibration")
    assert not found.calibration["z"].calibrated
    inside, expected = found.coverage["z"], 2 * norm.cdf(0.7 * norm.ppf(0.95)) - 1
    at = int(np.argmin(np.abs(inside.levels - 0.9)))
    assert abs(inside.overall[at] - expected) < 4 * inside.overall_errors[at] + 0.005  # 99 draws are no quantile
    assert "too narrow" in str(found)
    assert found.pit["z"].shape == (500, LATENT)
    table = found.to_arviz()["prior_sbc"]["z"]
    assert table.dims == ("chain", "draw", "z_dim") and np.array_equal(table.values[0], found.pit["z"])
    right = fit_of(backend=backend).diagnose(X, parts="calibration")  # the exact posterior, as a linear guide
    assert right.calibration["z"].calibrated


@both
@statistical
def test_the_annealed_bracket_holds_the_likelihood_and_the_gaps_are_those_of_closed_forms(backend):
    fit = fit_of(shrink=0.5, shift=0.3, backend=backend)
    found = fit.diagnose(X, parts=("gaps", "annealing"), **{**QUICK, "temperatures": 100})
    evaluator = fit._evaluator(X)
    _, fresh = evaluator.simulated(QUICK["few"], evaluator.stream("annealed"))
    exact, bracket = log_likelihood(fresh["x"]), found.bracket
    assert not bracket.crossed and -0.1 < bracket.gap < 0.5
    slack = 4 * np.array(bracket.monte_carlo_error)
    assert bracket.lower.mean() - slack[0] < exact.mean() < bracket.upper.mean() + slack[1]
    gaps = found.gaps
    covariance = np.linalg.inv(WEIGHT.T @ WEIGHT / 0.25 + np.eye(LATENT))
    gap = np.sum(0.5 * (0.25 + 0.3**2 / np.diag(covariance) - 1) - np.log(0.5))  # KL(q ‖ p(z|x)), alike for all data
    assert abs(gaps.inference.value - gap) < 0.1
    assert abs(gaps.approximation.value) < 0.03  # the posterior is diagonal here: a refitted one is exact
    assert abs(gaps.amortisation.value - gap) < 0.1


@both
def test_latents_that_the_decoder_ignores_are_named(backend):
    program = PPCA(event_shape=(6,), latent=4, posterior="linear")
    rng = np.random.default_rng(0)
    weight = np.concatenate([rng.normal(size=(6, 2)), np.zeros((6, 2))], axis=1)
    slope = np.concatenate([0.3 * rng.normal(size=(2, 6)), np.zeros((2, 6))])
    params = {
        "weight": weight, "loc": np.zeros(6), "log_scale": np.zeros(()), "guide.weight": slope,
        "guide.bias": np.zeros(4), "guide.log_scale": np.array([-1.0, -1.0, 0.0, 0.0]),
    }  # fmt: skip
    fit = Fit(program, {n: np.asarray(v, "float32") for n, v in params.items()}, backend)
    found = fit.diagnose(X, parts="latents")
    assert found.use.sites[0].used.tolist() == [True, True, False, False]
    assert "2 of 4 dimensions carry information" in str(found)
    params["guide.weight"], params["guide.log_scale"] = 0.0 * slope, np.zeros(4)
    gone = Fit(program, {n: np.asarray(v, "float32") for n, v in params.items()}, backend).diagnose(X, parts="latents")
    assert gone.use.collapsed == ("z",) and gone.verdict[0].grade == "bad" and "warm-up" in gone.verdict[0].advice


def test_data_that_the_model_would_never_draw_are_told():
    found = fit_of().diagnose(X + 50, parts="predictive")
    grades = {f.about: f.grade for f in found.verdict}
    assert grades["Posterior predictive"] == grades["Prior predictive"] == "warning"
    right = {f.about: f.grade for f in fit_of().diagnose(X, parts="predictive").verdict}
    assert right["Posterior predictive"] == right["Prior predictive"] == "good"


def test_a_full_covariance_has_dimensions_too():
    program = VAE(event_shape=(6,), latent=3, posterior=ppdgm.models.FullCovarianceNormal(),
                  encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))  # fmt: skip
    x = (X > 0).astype("float32")
    fit = ppdgm.fit(program, x, steps=300, progress=False, learning_rate=1e-2)
    found = fit.diagnose(x, parts="latents").use.sites[0]
    assert len(found.used) == 3 and found.variance.shape == (3,) and found.site_kl > 0


@both
@statistical
def test_draws_resampled_by_their_weights_are_of_the_posterior(backend):
    fit, x = fit_of(shrink=1.5, shift=0.2, backend=backend), X[:40]
    mean, covariance = fit_of("exact").program.exact_posterior(fit.params, x)
    draws = fit.posterior(x, draws=500, k=4000)
    error = np.sqrt(np.diag(covariance) * (1 / 500 + 4 / 4000))  # of which the weights' effective sample size is 1/4
    assert (np.abs(draws.mean(0) - mean) < 5 * error).all()
    assert draws.var(0).mean(0) == pytest.approx(np.diag(covariance), rel=0.05)
    guide = fit.posterior(x, draws=500, how="guide")  # a wrong twin: the guide's own
    assert (np.abs(guide.mean(0) - mean) > 5 * error).any() and guide.var(0).mean(0)[0] > 1.8 * covariance[0, 0]


@both
@statistical
def test_chains_of_the_backends_own_kernel_are_of_the_posterior(backend):
    fit, x = fit_of(shrink=0.5, shift=0.5, backend=backend), X[:1]
    mean, covariance = fit_of("exact").program.exact_posterior(fit.params, x)
    draws = fit.posterior(x, draws=200, warmup=100, chains=2, how="mcmc")
    assert draws.shape == (400, 1, LATENT)
    assert (np.abs(draws.mean((0, 1)) - mean[0]) < 5 * np.sqrt(np.diag(covariance) / 100)).all()  # of 400 draws
    assert draws.var((0, 1)) == pytest.approx(np.diag(covariance), rel=0.6)


@both
def test_joint_densities_and_slopes_at_given_latents(backend):
    program = HierarchicalVAE(event_shape=(5,), latent=(3, 2), levels=MLP(hidden=(4,)),
                              encoder=MLP(hidden=(6,)), decoder=MLP(hidden=(6,)))  # fmt: skip
    x = (np.random.default_rng(0).random((3, 5)) < 0.5).astype("float64")
    with precision("float64"):
        fit = Fit(program, {n: v.astype("float64") for n, v in program.initialise(0).items()}, backend)
        evaluator = fit._evaluator(x)
        joint, drawn = joint_of(evaluator)
        data, rows = evaluator.feed.rows(np.arange(3))
        few = {n: v[:4] for n, v in drawn.items()}
        z = joint.latents.flat(few)
        assert all(np.array_equal(few[n], v) for n, v in joint.latents.sites(z, "float64").items())
        prior, seen, slope = joint(z, 0.3)
        trace = fit._runtime.trace(fit._native, data, rows, 4, 0, few, False)
        assert np.abs(prior - sum(trace.log_p[n] for n in few)).max() < 1e-10
        assert np.abs(seen - trace.log_p["x"]).max() < 1e-10
        assert np.abs(fit._runtime.guide(fit._native, data, rows, few) - sum(trace.log_q.values())).max() < 1e-10
        for d in range(z.shape[2]):
            step = np.zeros(z.shape[2])
            step[d] = 1e-5
            value = lambda z: (lambda found: found[0] + 0.3 * found[1])(joint(z))
            rise = (value(z + step) - value(z - step)) / 2e-5
            assert np.abs(rise - slope[..., d]).max() < 1e-7


@both
def test_what_a_program_can_not_give_is_withheld_with_the_reason(backend):
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)),
                  prior=ppdgm.models.BernoulliPrior(), posterior=ppdgm.models.RelaxedBernoulli())  # fmt: skip
    fit = Fit(program, program.initialise(0), backend)
    x = (X > 0).astype("float32")
    found = fit.diagnose(x, **QUICK)
    assert set(found.withheld) == {"gaps", "annealing"} and "discrete" in found.withheld["gaps"]
    assert "Not available, gaps" in str(found)
    assert found.use is not None and found.surgery is not None and found.calibration
    single = ppdgm.models.Autoencoder(event_shape=(6,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
    told = Fit(single, single.initialise(0), backend).diagnose(x, **QUICK)
    assert {"latents", "surgery", "gaps"} <= set(told.withheld)


@both
def test_labels_that_a_model_conditions_on_are_kept(backend):
    program = ppdgm.models.ConditionalVAE(event_shape=(6,), latent=2, classes=3,
                                          encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))  # fmt: skip
    fit = Fit(program, program.initialise(0), backend)
    fields = {"x": (X > 0).astype("float32"), "label": np.arange(len(X)) % 3}
    found = fit.diagnose(fields, **QUICK)
    assert set(found.withheld) == {"annealing"} and "other fields besides x" in found.withheld["annealing"]
    assert (found.pictures.labels == fields["label"]).all()
    with pytest.raises(DataError, match="not asked for"):
        fit.diagnose(fields, parts="latents").to_arviz()


@both
def test_surgery_is_withheld_where_the_prior_depends_on_the_label(backend):
    """There is no one p(z): E log q(z) − log p(z|y) is no KL, and came out negative where classes lie apart."""
    program = ppdgm.models.ConditionalVAE(
        event_shape=(2,), latent=1, classes=2, conditional_prior=True, likelihood=Gaussian(), encoder=MLP(hidden=()),
        decoder=MLP(hidden=()),
    )  # fmt: skip
    labels = np.repeat([0, 1], 30)  # in order of class
    x = np.random.default_rng(5).normal(size=(60, 2)).astype("float32")
    params = {n: v * 0 for n, v in program.initialise(0).items()}
    loc, raw = np.array([[-4.0], [4.0]], "float32"), np.full((2, 1), 0.54, "float32")  # softplus⁻¹(1)
    weight = params["encoder.layers.0.weight"]  # of x, and of y one-hot, to μ and s
    weight[2:, 0], weight[0, 0], params["encoder.layers.0.bias"] = loc[:, 0], 0.5, np.array([0.0, 0.54], "float32")
    fit = Fit(
        program, {**params, "classes.loc": loc, "classes.raw_scale": raw, "encoder.layers.0.weight": weight}, backend
    )
    found = fit.diagnose({"x": x, "label": labels}, parts=("latents", "surgery"))
    assert found.surgery is None and "differs between rows" in found.withheld["surgery"]
    one = fit.diagnose(
        {"x": x[:30], "label": labels[:30]}, parts="surgery", draws=200
    ).surgery  # q(z|x) = N(−4 + x₀/2, 1)
    z = np.linspace(-14, 6, 4001)
    log_q = logsumexp(norm.logpdf(z[:, None], -4 + 0.5 * x[:30, 0], 1.0), axis=1) - np.log(30)
    marginal = np.trapezoid(np.exp(log_q) * (log_q - norm.logpdf(z, -4, 1.0)), z)
    assert abs(one.marginal_kl.value - marginal) < 4 * one.marginal_kl.error + 1e-2


def test_bad_settings_are_refused_at_once():
    fit = fit_of()
    for wrong, error, words in (
        ({"parts": "surgry"}, PpdgmError, "surgery"),
        ({"k": 0}, SpecError, "k"),
        ({"temperature": 3}, SpecError, "temperatures"),
        ({"labels": [1, 2]}, DataError, r"labels: got shape \(2,\)"),
        ({"seed": -1}, PpdgmError, "seed"),
    ):
        with pytest.raises(error, match=words):
            fit.diagnose(X, **wrong)
    with pytest.raises(PpdgmError, match=r"how: got 'mcm'.*mcmc"):
        fit.posterior(X, how="mcm")
    with pytest.raises(DataError, match=r"one row after another.*importance"):
        fit.posterior(np.tile(X, (6, 1)), how="mcmc")


def test_numbers_that_are_not_finite_are_told_first():
    program = PPCA(event_shape=(2,), latent=1)
    params = {"weight": np.zeros((2, 1)), "loc": np.zeros(2), "log_scale": np.array(-90.0)}
    fit = Fit(program, {n: np.asarray(v, "float32") for n, v in params.items()})
    found = fit.diagnose(np.ones((50, 2), "float32"), parts=("likelihood",), k=40)
    assert verdict(found)[0].grade == "bad" and "not finite" in str(found)


def test_a_verdict_names_the_cause():
    rng, about = np.random.default_rng(0), lambda found: {f.about: f for f in found.verdict}
    rising = Diagnosis("VAE", 10, history={"elbo": np.linspace(-40, -20, 100) + rng.normal(size=100)})
    assert about(rising)["Training"].grade == "warning" and "First train longer" in about(rising)["Training"].advice
    assert "Training" not in about(Diagnosis("VAE", 10, history={"elbo": -20 + rng.normal(size=100)}))
    held = {"elbo": np.linspace(-40, -20, 100), "validation_elbo": np.array([-30, -25, -24, -24, -24, -24.0])}
    assert "Training" not in about(Diagnosis("VAE", 10, history=held))  # the validation's is what counts
    use = latent_use({"z": 1e-4 * rng.normal(size=(50, 3))}, {"z": np.full((50, 3), 1e-4)})
    for beta, said in ((10.0, "β = 10"), (1.0, "warm-up")):
        collapsed = Diagnosis("VAE", 50, use=use, recipe=f"[engine]\nkind = 'SVI'\nbeta = {beta}\n")
        assert said in about(collapsed)["Latents"].advice and about(collapsed)["Latents"].grade == "bad"
    assert repr(rising) == "Diagnosis(VAE; N = 10; 0 bad, 1 warning, 0 good)"


def test_mistakes_are_told_before_the_work():
    fit = fit_of()
    for statistics in ({"c": lambda x: x.foo()}, {"c": lambda x: x}, ["mean"]):
        with pytest.raises(DataError, match="statistics"):
            fit.diagnose(X, statistics=statistics)
    with pytest.raises(PpdgmError, match=r"parts: got \(\), expected some of"):
        fit.diagnose(X, parts=())
    few = fit.diagnose(X[:5], parts="surgery")
    assert few.surgery is None and "5 rows shows little" in few.withheld["surgery"]


@both
@statistical
def test_noise_of_the_latents_is_not_that_of_the_data(backend):
    """As many latents as columns: with one seed for both, x = z + ε would have the same draws twice."""
    program = PPCA(event_shape=(2,), latent=2)
    params = {"weight": np.eye(2), "loc": np.zeros(2), "log_scale": np.zeros(())}
    fit = Fit(program, {n: np.asarray(v, "float32") for n, v in params.items()}, backend)
    x = np.zeros((500, 2), "float32")  # z|x ~ N(0, I/2), x_rep ~ N(0, 3/2 I)
    for check in fit.diagnose(x + 1e-9, parts="predictive", statistics={"square": lambda x: (x**2).mean()}).checks:
        error = check.replicated.std() / np.sqrt(len(check.replicated))
        assert abs(check.replicated.mean() - 1.5) < 4 * error and error < 0.01
