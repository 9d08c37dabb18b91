"""What a diagnosis looks at: data chosen at random and not the first ones, simulations of all that the model draws."""

import numpy as np
import pytest
from planted import data, fit_of
from readings import BACKENDS

import ppdgm
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.inference import Fit
from ppdgm.inference.evaluation.information import mutual_information
from ppdgm.inference.inputs.feed import SAMPLED, Feed
from ppdgm.inference.training.monitor import Monitor
from ppdgm.models import (
    MLP,
    VAE,
    BernoulliPrior,
    CategoricalPrior,
    ConditionalVAE,
    Gaussian,
    GumbelSoftmax,
    Program,
    RelaxedBernoulli,
    SemiSupervisedVAE,
    VampPrior,
)

both = pytest.mark.parametrize("backend", BACKENDS)
statistical = pytest.mark.statistical
NETS = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))}
IN_ORDER = (lambda x: x[np.argsort(x[:, 0])])(data(2000))  # as data in order of class are


def test_random_rows_are_of_all_the_data():
    index = some_rows(1000, 100, 3)
    assert len(set(index.tolist())) == 100 and (np.diff(index) > 0).all()
    assert abs(index.mean() - 499.5) < 4 * 1000 / np.sqrt(12 * 100)
    assert not np.array_equal(index, some_rows(1000, 100, 4)) and some_rows(5, 9).tolist() == [0, 1, 2, 3, 4]


@both
@statistical
def test_data_in_order_are_no_wrong_family(backend):
    """An exact model of the data, whatever their order; the 200 first alone would be far from what it draws."""
    fit = fit_of("exact", backend=backend)
    found = fit.diagnose(IN_ORDER, parts="predictive", replicated=99, replicated_size=200)
    assert {f.about: f.grade for f in found.verdict} == {"Posterior predictive": "good", "Prior predictive": "good"}
    assert "of 200 of the 2,000 rows, chosen at random" in str(found) and found.sizes["predictive checks"] == 200
    first = fit.diagnose(IN_ORDER[:200], parts="predictive", replicated=99, replicated_size=200)  # a wrong twin
    assert {f.grade for f in first.verdict} == {"warning"}


@both
def test_gaps_pictures_and_looks_are_of_a_random_choice(backend):
    fit = fit_of("exact", backend=backend)
    found = fit.diagnose(IN_ORDER, parts=("gaps", "pictures"), few=16, refit_steps=5, k=50)
    assert found.gaps.index.max() > 500 and len(found.gaps.index) == found.sizes["gaps"] == 16
    x = IN_ORDER[found.gaps.index]
    assert np.abs(fit.elbo(x, k=1).values - found.gaps.guide).max() < 1e-3  # an exact guide: log p(x), of these data
    assert (found.pictures.data == IN_ORDER[found.pictures.shown]).all() and found.pictures.shown.max() > 1000
    again = fit.reconstruct(IN_ORDER[found.pictures.shown])
    assert np.abs(found.pictures.reconstructions - again).max() < 1e-5
    assert found.table()["sizes"] == {"gaps": 16}
    live = Monitor(fit._runtime, Feed(fit._runtime, {"x": IN_ORDER}), 1).measure(fit._native)
    kl = found_kl(fit, IN_ORDER)
    assert abs(live["live_kl_z"] - kl.mean()) < 4 * kl.std() / np.sqrt(500) < 4 * abs(kl[:500].mean() - kl.mean())
    whole = mutual_information(fit._runtime, fit._native, Feed(fit._runtime, {"x": IN_ORDER}), rows=100)
    first = mutual_information(fit._runtime, fit._native, Feed(fit._runtime, {"x": IN_ORDER[:100]}), rows=100)
    assert whole > first + 0.2  # data that are alike tell less


def found_kl(fit, x):
    """KL(p(z|x) ‖ N(0, I)) of each datum."""
    mean, covariance = fit.program.exact_posterior(fit.params, x)
    rest = np.trace(covariance) - len(covariance) - np.linalg.slogdet(covariance)[1]
    return 0.5 * ((mean**2).sum(1) + rest)


def test_first_values_of_streamed_data_are_of_all_of_them(tmp_path):
    x = np.repeat([0.1, 0.9], 5000)[:, None] * np.ones(6)  # in order of class
    np.save(tmp_path / "x.npy", x.astype("float32"))
    program = VAE(
        event_shape=(6,), latent=2, prior=VampPrior(components=20, range="real"), likelihood=Gaussian(), **NETS
    )
    stream = np.load(tmp_path / "x.npy", mmap_mode="r")
    fit = ppdgm.fit(program, stream, steps=1, learning_rate=0.0, progress=False)
    started = fit.params["prior.pseudo_inputs"].mean(1)
    assert len(x) > SAMPLED and 0 < (started > 0.5).sum() < 20


# --- what is simulated ------------------------------------------------------------------------------------------------


def semi_supervised(backend):
    """z ~ N(0, 1), x = W z + V y + ε: of a datum with its label, the posterior of z is a linear guide's."""
    weight, shift, noise = np.array([[1.0, -0.5, 0.8]]), 2.0 * np.array([[1.0, 0, 0], [0, 1.0, -1.0]]), 0.5
    program = SemiSupervisedVAE(event_shape=(3,), classes=2, latent=1, likelihood=Gaussian(scale=noise),
                                classifier=MLP(hidden=()), encoder=MLP(hidden=()), decoder=MLP(hidden=()))  # fmt: skip
    variance = 1 / (1 + (weight**2).sum() / noise**2)
    slope = variance * weight.T / noise**2
    scale = np.log(np.expm1(np.sqrt(variance) - program.posterior.min_scale))
    params = program.initialise(0) | {
        "decoder.layers.0.weight": np.concatenate([weight, shift]),
        "encoder.layers.0.weight": np.concatenate(
            [np.concatenate([slope, -shift @ slope]), np.zeros((5, 1))], axis=1
        ),
        "encoder.layers.0.bias": np.array([0.0, scale]),
    }  # fmt: skip
    return Fit(program, {n: np.asarray(v, "float32") for n, v in params.items()}, backend)


@both
@statistical
def test_an_exact_guide_of_labelled_data_is_calibrated(backend):
    fit = semi_supervised(backend)
    drawn = fit.sample(300, seed=3)
    for label in (np.arange(300) % 2, np.where(np.arange(300) < 150, -1, 0)):  # labels that are not those of x
        found = fit.diagnose({"x": drawn, "label": label}, parts="calibration")
        assert found.withheld == {}
        if label.min() == 0:
            assert found.calibration["z"].calibrated and found.sizes["calibration"] == 500
    evaluator = fit._evaluator({"x": drawn, "label": np.where(np.arange(300) < 150, -1, 0)})
    latents, fresh = evaluator.simulated_data(200, 1)
    known = fresh["label"] >= 0
    assert 60 < known.sum() < 140 and (fresh["label"] == latents["y"].argmax(1))[known].all()


@both
def test_what_a_model_conditions_on_is_of_the_data_and_nothing_else(backend):
    program = ConditionalVAE(event_shape=(6,), latent=2, classes=3, **NETS)
    fit = Fit(program, program.initialise(0), backend)
    x, label = (data(90) > 0).astype("float32"), np.repeat([0, 1, 2], 30)
    evaluator = fit._evaluator({"x": x, "label": label})
    _, fresh = evaluator.simulated_data(60, 1)
    assert evaluator.conditions == ("label",) and set(fresh["label"].tolist()) == {0, 1, 2}
    assert not any((row == x).all(1).any() for row in fresh["x"]) or not np.array_equal(fresh["x"], x[:60])


class Named(Program):
    """A site that isn't named as its field, and a field that the guide alone reads."""

    def build(self, context):
        context.param("slope", ())

    def model(self, P, x, w):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((), 0.0), P.full((), 1.0)))
            P.sample("seen", P.dist.Normal(3.0 + z, P.full((), 1.0)), obs=x)

    def guide(self, P, x, w):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("slope") * (x - 3.0) + 0.0 * w, P.full((), 0.5**0.5)))


class Alone(Named):
    def model(self, P, x):
        Named.model(self, P, x, None)

    def guide(self, P, x):
        Named.guide(self, P, x, 0.0)


class Told(Named):
    def simulated(self, latents, data):
        return {"w": latents["z"]}


@both
@statistical
def test_a_site_of_another_name_is_its_field_and_what_no_simulation_has_is_refused(backend):
    x = (3 + np.random.default_rng(0).normal(size=300) * 2**0.5).astype("float32")
    exact = {"slope": np.float32(0.5)}
    found = Fit(Alone(), exact, backend).diagnose(x + 50, parts=("calibration", "predictive"), replicated=99, seed=1)
    assert found.calibration["z"].calibrated  # of simulated data: these x would never be
    assert {f.about: f.grade for f in found.verdict}["Prior predictive"] == "warning" and not found.withheld
    fields = {"x": x, "w": np.zeros(300, "float32")}
    refused = Fit(Named(), exact, backend).diagnose(fields, parts="calibration")
    assert "field 'w' is neither drawn" in refused.withheld["calibration"]
    assert Fit(Told(), exact, backend).diagnose(fields, parts="calibration", seed=1).calibration["z"].calibrated


# --- how many latents -------------------------------------------------------------------------------------------------

DISCRETE = {
    "two of ten classes": ({"latent": 2, "prior": CategoricalPrior(), "posterior": GumbelSoftmax(classes=10)}, 2),
    "one of ten classes": ({"latent": 1, "prior": CategoricalPrior(), "posterior": GumbelSoftmax(classes=10)}, 1),
    "a grid of classes": ({"latent": (2, 3), "prior": CategoricalPrior(), "posterior": GumbelSoftmax(classes=4)}, 6),
    "bits": ({"latent": 5, "prior": BernoulliPrior(), "posterior": RelaxedBernoulli()}, 5),
    "a grid": ({"latent": (2, 3)}, 6),
}


@both
@pytest.mark.parametrize(("parts", "number"), DISCRETE.values(), ids=DISCRETE)
def test_latents_are_counted_by_latent_and_not_by_class(parts, number, backend):
    """Every latent follows x: with weights this large, each is certain, and differs between data."""
    program = VAE(event_shape=(6,), **parts, encoder=MLP(hidden=()), decoder=MLP(hidden=(4,)))
    params = program.initialise(0)
    params["encoder.layers.0.weight"] *= 20.0
    x = (data(200) > 0).astype("float32")
    params["encoder.layers.0.bias"] = -x.mean(0) @ params["encoder.layers.0.weight"]
    fit = Fit(program, params, backend)
    use = fit.diagnose(x, parts="latents").use
    live = Monitor(fit._runtime, Feed(fit._runtime, {"x": x}), 1).measure(fit._native)
    assert len(use.sites[0].used) == number and live["live_active_z"] == use.sites[0].used.sum() == number


class Logged(Alone):
    """An exact guide again, with the site observed at what is computed of the field."""

    def model(self, P, x):
        Named.model(self, P, P.xp.log(x), None)

    def guide(self, P, x):
        Named.guide(self, P, P.xp.log(x), 0.0)


class Censored(Program):
    """Times x with an event or without: both sites' fields are in the mask or the probability of the other."""

    def build(self, context):
        context.param("loc", ())

    def model(self, P, x, event):
        with P.plate("data", x):
            rate = P.xp.exp(P.sample("z", P.dist.Normal(P.full((), 0.0), 1.0)))
            P.sample("x", P.dist.Exponential(rate).mask(event > 0.5), obs=x)
            P.sample("event", P.dist.Bernoulli(probs=1 - P.xp.exp(-rate * x)).mask(event < 0.5), obs=event)

    def guide(self, P, x, event):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("loc"), P.full((), 1.0)))


@both
def test_no_calibration_where_simulated_data_would_not_go_with_their_latents(backend):
    x = np.exp(3 + np.random.default_rng(0).normal(size=60) * 2**0.5).astype("float32")
    data = {"x": x, "event": (x > 20).astype("float32")}
    for fit, rows in (
        (Fit(Logged(), {"slope": np.float32(0.5)}, backend), x),
        (Fit(Censored(), {"loc": np.float32(0.0)}, backend), data),
    ):
        found = fit.diagnose(rows, parts=("calibration", "annealing"), few=2)
        assert "the model can't simulate such data" in found.withheld["calibration"] and not found.calibration
        assert "annealing" in found.withheld
