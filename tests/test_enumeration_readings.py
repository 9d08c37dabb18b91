"""Enumerated sites in other readings, under the libraries' own enumeration, compiled, and where they are refused."""

import jax
import numpy as np
import numpyro
import pyro
import pytest
import torch
from enumerated import (
    ALL,
    CLASSES,
    After,
    Child,
    Discrete,
    Half,
    Summed,
    Tables,
    by_hand,
    make,
    probabilities,
    unit_normal,
)
from pyro.infer import TraceEnum_ELBO
from readings import BACKENDS, get_runtime, run_trace, train
from trainers import make_plan, make_trainer

import ppdgm
from ppdgm.errors import ProgramError, UnsupportedByBackend
from ppdgm.inference import SVI
from ppdgm.inference.engines.optimisers import Optimiser
from ppdgm.inference.evaluation.result import Fit
from ppdgm.language import enumeration
from ppdgm.models import MLP, VAE, BernoulliPrior, CategoricalPrior, GumbelSoftmax, RelaxedBernoulli
from ppdgm.models.classes import one_hot_categorical
from ppdgm.models.relaxed import log_softmax

every_backend = pytest.mark.parametrize("backend", BACKENDS)


class Hot(Child):
    """`Child` with a one-hot y, which has a mean."""

    def model(self, P, x, w):
        with P.plate("data", x):
            y = P.sample("y", one_hot_categorical(P, log_softmax(P, P.param("prior"))))
            z = P.sample("z", unit_normal(P, y @ P.param("mean")))
            P.sample("x", unit_normal(P, z @ P.param("decode") + y @ P.param("offset")), obs=x)
            P.sample("w", P.dist.Bernoulli(logits=y @ P.param("bit")), obs=w)

    def guide(self, P, x, w):
        with P.plate("data", x):
            y = P.sample("y", one_hot_categorical(P, log_softmax(P, x @ P.param("guess"))), infer=ALL)
            shift = y @ P.param("shift")
            P.sample("z", P.dist.Normal(x @ P.param("encode") + shift, P.xp.exp(0.3 * shift)).to_event(1))


def fitted(kind, backend, size=4):
    program, params, data = make(kind, "float32", size)
    return Fit(program, params, backend, info={"fields": ["x", "w"]}), params, data


# --- other readings ------------------------------------------------------------------------------------------------


@every_backend
def test_one_hots_are_the_same_program(backend):
    """Other values of y, the same numbers."""
    found = [run_trace(get_runtime(backend, make(k)[0]), *make(Child, "float32")[1:], 3, seed=4) for k in (Child, Hot)]
    for site in ("x", "w", "y", "z"):
        np.testing.assert_allclose(found[0].log_p[site], found[1].log_p[site], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0].marginal, found[1].marginal, rtol=1e-5)
    assert found[1].values["y"].shape == (3, 1, 1, 3)


@every_backend
def test_encode_gives_probabilities_and_draws(backend):
    fit, params, data = fitted(Hot, backend)
    q = probabilities(params, data["x"])
    means = fit.encode(data)
    np.testing.assert_allclose(means["y"], q, rtol=1e-5)
    mode = np.eye(CLASSES)[q.argmax(-1)]  # what z sees of y
    np.testing.assert_allclose(means["z"], data["x"] @ params["encode"] + mode @ params["shift"], rtol=1e-4, atol=1e-5)
    drawn = fit.encode(data, k=4000)
    assert drawn["y"].shape == (4000, 4, CLASSES) and drawn["z"].shape == (4000, 4, 2)
    assert (drawn["y"].sum(-1) == 1).all() and set(np.unique(drawn["y"])) == {0.0, 1.0}
    assert (np.abs(drawn["y"].mean(0) - q) < 4.5 * np.sqrt(q * (1 - q) / 4000)).all()  # 12 numbers, seed 0
    within = drawn["z"] - drawn["y"] @ params["shift"]  # z belongs to its own y
    error = np.exp(0.3 * np.abs(params["shift"]).max()) / 4000**0.5
    assert np.abs(within.mean(0) - data["x"] @ params["encode"]).max() < 4.5 * error


@every_backend
def test_reconstruct_and_sample_know_no_axes(backend):
    fit, params, data = fitted(Hot, backend)
    mode = np.eye(CLASSES)[probabilities(params, data["x"]).argmax(-1)]
    z = data["x"] @ params["encode"] + mode @ params["shift"]
    made = fit.reconstruct(data)
    np.testing.assert_allclose(made["x"], z @ params["decode"] + mode @ params["offset"], rtol=1e-4, atol=1e-5)
    drawn = fit.sample(4000, seed=1)
    assert drawn["x"].shape == (4000, 3) and drawn["w"].shape == (4000,)
    prior = np.exp(params["prior"]) / np.exp(params["prior"]).sum()
    expected = prior @ (params["mean"] @ params["decode"] + params["offset"])
    assert (np.abs(drawn["x"].mean(0) - expected) < 4.5 * drawn["x"].std(0) / 4000**0.5).all()
    assert abs(drawn["w"].mean() - prior @ (1 / (1 + np.exp(-params["bit"])))) < 4.5 * 0.5 / 4000**0.5
    assert fit.sample(5, mean=True)["x"].shape == (5, 3)


@every_backend
def test_what_is_summed_out_is_drawn_when_data_are(backend):
    fit, params, data = fitted(Summed, backend)
    assert set(fit.log_likelihood(data, k=5).values.shape) == {4}
    drawn = fit.sample(4000, seed=1)
    prior = np.exp(params["prior"]) / np.exp(params["prior"]).sum()
    expected = prior @ (params["mean"] @ params["decode"] + params["offset"])
    assert (np.abs(drawn["x"].mean(0) - expected) < 4.5 * drawn["x"].std(0) / 4000**0.5).all()
    assert fit.encode(data).shape == (4, 2) and fit.encode(data, k=3).shape == (3, 4, 2)


@every_backend
def test_a_class_number_stands_at_its_mode(backend):
    fit, params, data = fitted(Child, backend)
    q = probabilities(params, data["x"])
    assert (fit.encode(data)["y"] == q.argmax(-1)).all()
    means = data["x"] @ params["encode"] + params["shift"][q.argmax(-1)]
    np.testing.assert_allclose(fit.encode(data)["z"], means, rtol=1e-4, atol=1e-5)
    assert set(np.unique(fit.encode(data, k=50)["y"])) == {0, 1, 2}


@every_backend
def test_a_given_value_is_not_enumerated(backend):
    program, params, data = make(Child, "float32")
    given = {"y": np.full((2, 4), 1), "z": np.zeros((2, 4, 2), np.float32)}
    found = run_trace(get_runtime(backend, program), params, data, 2, latents=given)
    assert found.marginal is None and found.log_q["y"].shape == (2, 4)
    np.testing.assert_allclose(found.log_q["y"][0], np.log(probabilities(params, data["x"])[:, 1]), rtol=1e-5)


# --- the libraries' own enumeration ----------------------------------------------------------------------------------


def pyro_elbo(model, guide, data):
    with torch.no_grad(), torch.random.fork_rng():
        return -TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide, **{n: torch.tensor(v) for n, v in data.items()})


def test_pyros_own_enumeration_of_the_guide_agrees():
    program, params, data = make(Discrete, "float32")
    expected = by_hand(Discrete, params, data, {})[0].sum()
    assert pyro_elbo(*program.bind("pyro", params), data) == pytest.approx(expected, rel=1e-5)


def test_pyros_own_enumeration_of_the_model_agrees():
    """log p(x, w, z) at one z, with y summed out."""
    program, params, data = make(Summed, "float32")
    z = np.random.default_rng(5).normal(size=(4, 2)).astype(np.float32)
    found = run_trace(get_runtime("pyro", program), params, data, 1, latents={"z": z[None]})
    model, _ = program.bind("pyro", params)
    got = pyro_elbo(pyro.condition(model, {"z": torch.tensor(z)}), lambda **data: None, data)
    assert got == pytest.approx(sum(found.log_p.values()).sum(), rel=1e-5)


def numpyro_elbo(model, guide, data):
    elbo = numpyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
    return -elbo.loss(jax.random.key(0), {}, model, guide, **data)


def test_numpyros_own_enumeration_of_the_guide_agrees():
    program, params, data = make(Discrete, "float32")
    expected = by_hand(Discrete, params, data, {})[0].sum()
    assert numpyro_elbo(*program.bind("numpyro", params), data) == pytest.approx(expected, rel=1e-5)


def test_numpyros_own_enumeration_of_the_model_agrees():
    """log p(x, w, z) at one z, with y summed out."""
    program, params, data = make(Summed, "float32")
    z = np.random.default_rng(5).normal(size=(4, 2)).astype(np.float32)
    found = run_trace(get_runtime("numpyro", program), params, data, 1, latents={"z": z[None]})
    model, _ = program.bind("numpyro", params)
    got = numpyro_elbo(numpyro.handlers.condition(model, {"z": z}), lambda **data: None, data)
    assert got == pytest.approx(sum(found.log_p.values()).sum(), rel=1e-5)


def test_numpyros_own_enumeration_knows_no_one_hots():
    program, params, data = make(Hot, "float32")
    with pytest.raises(UnsupportedByBackend, match="gives class numbers, but the values of this site are vectors"):
        numpyro_elbo(*program.bind("numpyro", params), data)


@pytest.mark.parametrize("posterior", [GumbelSoftmax(classes=3, enumerate=True), RelaxedBernoulli(enumerate=True)])
def test_pyros_own_enumeration_of_the_zoos_latents_agrees(posterior):
    """The prior of a bound program is the discrete one, as the values are."""
    net = MLP(hidden=(4,))
    kind = CategoricalPrior(weights="learned") if posterior.family == "categorical" else BernoulliPrior(probs="learned")
    vae = VAE(event_shape=(6,), latent=2, prior=kind, posterior=posterior, encoder=net, decoder=net)
    rng = np.random.default_rng(0)
    params = {
        n: v + 0.5 * rng.normal(size=v.shape).astype("f4")
        for n, v in get_runtime("pyro", vae).initialise(0, None, "float32").items()
    }
    data = {"x": (rng.normal(size=(5, 6)) > 0).astype(np.float32)}
    expected = Fit(vae, params, "pyro", info={"fields": ["x"]}).elbo(data, k=1).values.sum()
    assert pyro_elbo(*vae.bind("pyro", params), data) == pytest.approx(expected, rel=1e-5)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Discrete, Hot, Half])
def test_a_compiled_step_is_an_eager_one(kind):
    """In one graph; the metrics of its first step are the eager one's where nothing is drawn."""
    program, params, data = make(kind, "float32")
    runtime, engine = get_runtime("pyro", program), SVI()
    native = runtime.put(data)
    index, weight = np.tile(np.arange(4, dtype=np.int32), (3, 1)), np.ones((3, 4), np.float32)
    plan = make_plan(engine, index, weight, np.full(3, 0.05, np.float32), 0, 3)
    run_trace(runtime, params, data, 1, kl=True)
    found = []
    for compile in (False, True):
        plain = Optimiser(name="sgd")
        trainer = make_trainer(runtime, engine, runtime.put(params), 0, 4, plain, compile=compile, insist=compile)
        found.append((trainer.run(plan, native), trainer.values()))
        assert trainer.compiled == compile
    (one, eager), (other, compiled) = found
    assert np.isfinite(other["elbo"]).all() and other["elbo"].shape == (3,)
    if kind is Discrete:  # draws differ between the two
        np.testing.assert_allclose(one["elbo"], other["elbo"], rtol=1e-5)
        for name, value in eager.items():
            np.testing.assert_allclose(compiled[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [Discrete, After])
def test_both_backends_train_alike(kind):
    """Where nothing is drawn, to rounding; else both rise."""
    program, params, data = make(kind, "float32")
    runs = [train(b, program, data, params, steps=30, rate=0.05) for b in BACKENDS]
    if kind is Discrete:
        for name in params:
            np.testing.assert_allclose(runs[0][0][name], runs[1][0][name], rtol=1e-4, atol=1e-5)
    assert all(h["elbo"][-5:].mean() > h["elbo"][:5].mean() for _, h in runs)


class Guessed(Discrete):
    """With a penalty on the probability of each class: once in the guide, once in the model."""

    def guide(self, P, x, w):
        super().guide(P, x, w)

    def model(self, P, x, w):
        with P.plate("data", x):
            y = P.one_hot(P.sample("y", P.dist.Categorical(logits=P.param("prior"))), CLASSES)
            P.penalty("class", y @ P.param("bit"))
            P.sample("x", unit_normal(P, y @ P.param("offset")), obs=x)
            P.sample("w", P.dist.Bernoulli(logits=y @ P.param("bit")), obs=w)


@every_backend
def test_penalties_are_averaged_too(backend):
    program, params, data = make(Guessed, "float32")
    found = run_trace(get_runtime(backend, program), params, data, 2)
    expected = probabilities(params, data["x"]) @ params["bit"]
    np.testing.assert_allclose(np.broadcast_to(found.penalties["class"], (2, 4)), [expected] * 2, rtol=1e-4)
    _, history = train(backend, program, data, params, steps=1)
    assert history["elbo"][0] - history["objective"][0] == pytest.approx(expected.mean(), rel=1e-3)


# --- what is refused -------------------------------------------------------------------------------------------------


class Site(Tables):
    """One latent site, by the name of its case."""

    case: str

    def model(self, P, x, w):
        with P.plate("data", x):
            P.sample("y", REFUSED[self.case][0](P, x))
            P.sample("x", unit_normal(P, x), obs=x)

    def guide(self, P, x, w):
        with P.plate("data", x):
            P.sample("y", REFUSED[self.case][0](P, x), infer=ALL)


def huge(P, x):
    """All vectors of 14 bits."""

    def values():
        raise AssertionError("the values were made")

    return P.distribution(lambda r, b: (None, None), lambda y: y, (14,), values=values, about={"count": 2**14})


REFUSED = {
    "too many": (huge, "Site 'y': enumeration would sum over 16384 joint values; at most 10000"),
    "not discrete": (lambda P, x: P.dist.Normal(x[:, 0], 1.0), "Site 'y': Normal can't be enumerated"),
    "counts": (lambda P, x: P.dist.Poisson(P.xp.exp(x[:, 0])), "Site 'y': Poisson can't be enumerated"),
    "a vector": (lambda P, x: P.dist.Bernoulli(logits=x).to_event(1), "Site 'y': Independent can't be enumerated"),
    "a large one-hot": (lambda P, x: P.dist.OneHotCategorical(logits=P.full((300_000,), 0.0)), "sum over 300000 joint"),
}


@pytest.mark.parametrize("case", REFUSED)
@every_backend
def test_what_can_not_be_enumerated_is_refused(backend, case):
    """Before it takes memory: 300,000² numbers would be 360 GB."""
    if case == "a large one-hot" and backend == "numpyro":
        return  # NumPyro has no such distribution
    with pytest.raises(ProgramError) as error:
        run_trace(get_runtime(backend, Site(case=case)), *make(Child, "float32")[1:], 1)
    assert REFUSED[case][1] in str(error.value) and "\n" not in str(error.value)


class Several(Tables):
    """Two sites of `count` values each, of which the second is `outside` the plate or not."""

    count: int = 100
    outside: bool = False

    def model(self, P, x, w):
        self._draw(P, x)
        with P.plate("data", x):
            P.sample("x", unit_normal(P, x), obs=x)

    def guide(self, P, x, w):
        self._draw(P, x)

    def _draw(self, P, x):
        flat = P.dist.Categorical(logits=P.full((self.count,), 0.0))
        if self.outside:
            P.sample("a", flat, infer=ALL)
            return
        with P.plate("data", x):
            P.sample("a", flat, infer=ALL)
            P.sample("b", flat, infer=ALL)


@every_backend
def test_the_limit_is_on_the_product(backend):
    _, params, data = make(Child, "float32")
    assert enumeration.LIMIT == 100 * 100
    found = run_trace(get_runtime(backend, Several()), params, data, 1)
    assert found.log_q["b"] == pytest.approx(-np.log(100), rel=1e-5)
    with pytest.raises(ProgramError, match="Site 'b': enumeration would sum over 10201 joint values"):
        run_trace(get_runtime(backend, Several(count=101)), params, data, 1)
    with pytest.raises(ProgramError, match=r"'a' is enumerated outside the data plate.*Draw it inside"):
        run_trace(get_runtime(backend, Several(outside=True)), params, data, 1)


class Wrong(Child):
    """`Child` with a mistake in the shapes of what follows y."""

    mistake: str = ""

    def guide(self, P, x, w):
        with P.plate("data", x):
            y = P.sample("y", P.dist.Categorical(logits=x @ P.param("guess")), infer=ALL)
            shift = P.one_hot(y, CLASSES) @ P.param("shift")
            z = P.dist.Normal(x @ P.param("encode") + shift, P.full((), 1.0))
            P.sample("z", z if self.mistake == "event" else z.to_event(1))
            if self.mistake == "penalty":
                P.penalty("size", shift)

    def model(self, P, x, w):
        if self.mistake != "values":
            return super().model(P, x, w)
        with P.plate("data", x):
            P.sample("y", one_hot_categorical(P, log_softmax(P, P.param("prior"))))
            P.sample("z", unit_normal(P, P.full((2,), 0.0)))
            P.sample("x", unit_normal(P, x), obs=x)


@pytest.mark.parametrize(
    "mistake, message",
    [
        ("event", "Site 'z': got a distribution of batch shape"),
        ("penalty", "Penalty 'size': got values of shape (3, 1, 1, 2)"),
        ("values", "Site 'y': got values of shape"),
    ],
)
@every_backend
def test_mistakes_in_shapes_are_told(backend, mistake, message):
    with pytest.raises(ProgramError) as error:
        run_trace(get_runtime(backend, Wrong(mistake=mistake)), *make(Child, "float32")[1:], 5)
    assert message in str(error.value) and "\n" not in str(error.value)


class Unseen(Summed):
    """A penalty on a site that is summed out."""

    def model(self, P, x, w):
        with P.plate("data", x):
            y = P.sample("y", P.dist.Categorical(logits=P.param("prior")), infer=ALL)
            P.penalty("class", P.one_hot(y, CLASSES) @ P.param("bit"))
            P.sample("z", unit_normal(P, P.full((2,), 0.0)))
            P.sample("x", unit_normal(P, x), obs=x)


@every_backend
def test_a_penalty_on_what_is_summed_out_is_refused(backend):
    with pytest.raises(ProgramError, match="Penalty 'class' depends on 'y', which is summed out"):
        run_trace(get_runtime(backend, Unseen()), *make(Child, "float32")[1:], 2)


@every_backend
def test_fit_trains_and_judges(backend):
    program, _, data = make(Child, "float32", size=30)
    fit = ppdgm.fit(program, data, steps=5, batch_size=7, engine=SVI(k=3), backend=backend, progress=False)
    assert np.isfinite(fit.history["elbo"]).all()
    likelihood, elbo = fit.log_likelihood(data, k=200), fit.elbo(data, k=50)
    assert likelihood.values.shape == (30,) and likelihood.mean > elbo.mean
