"""Conditional, semi-supervised, clustering and linear programs, the autoencoder, and the collapse toy."""

import numpy as np
import pytest
from readings import BACKENDS, get_runtime, precision, run_trace
from reference.nets import forward
from scipy.special import log_softmax, logsumexp
from scipy.stats import bernoulli, multivariate_normal, norm
from sklearn import decomposition, mixture
from typer.testing import CliRunner

import ppdgm
from ppdgm.cli.app import app
from ppdgm.data import as_fields, catalogue, collapse, load_data
from ppdgm.errors import DataError, PpdgmError, ProgramError, SpecError
from ppdgm.inference.engines import bounds
from ppdgm.inference.evaluation.result import Fit
from ppdgm.models import (
    MLP,
    PPCA,
    Autoencoder,
    CategoricalPrior,
    ConditionalVAE,
    ConvDecoder,
    ConvEncoder,
    FactorAnalysis,
    Gaussian,
    GaussianMixture,
    GumbelSoftmax,
    MixtureVAE,
    SemiSupervisedVAE,
)

every_backend = pytest.mark.parametrize("backend", BACKENDS)
NET = MLP(hidden=(6,))
NETS = {"encoder": NET, "decoder": NET}
RNG = np.random.default_rng(3)
X = (RNG.random((40, 5)) < 0.4).astype(np.float32)


def table(rows=400, apart=2.0):
    """Three clusters in five dimensions, each with its own covariance."""
    rng = np.random.default_rng(11)
    roots, means = rng.normal(size=(3, 5, 5)), apart * rng.normal(size=(3, 5))
    which = rng.integers(3, size=rows)
    return np.einsum("nij,nj->ni", roots[which], rng.normal(size=(rows, 5))) + means[which]


# --- factor analysis -------------------------------------------------------------------------------------------------


def test_factor_analysis_equals_scikit_learns():
    x = table()
    theirs = decomposition.FactorAnalysis(n_components=2).fit(x)
    params = {
        "weight": theirs.components_.T,
        "loc": theirs.mean_,
        "log_scale": 0.5 * np.log(theirs.noise_variance_),
    }
    program = FactorAnalysis(event_shape=(5,), latent=2)
    np.testing.assert_allclose(program.exact_log_likelihood(params, x), theirs.score_samples(x), rtol=0, atol=1e-6)
    mean, covariance = program.exact_posterior(params, x)
    np.testing.assert_allclose(mean, theirs.transform(x), rtol=0, atol=1e-6)
    joint = np.linalg.inv(np.eye(2) + params["weight"].T @ np.diag(1 / theirs.noise_variance_) @ params["weight"])
    np.testing.assert_allclose(covariance, joint, rtol=0, atol=1e-9)


@every_backend
@pytest.mark.parametrize("kind", [FactorAnalysis, PPCA])
def test_the_exact_guide_makes_every_log_weight_the_likelihood(kind, backend):
    """Also of a datum with a shape of its own."""
    program = kind(event_shape=(2, 3), latent=2)
    rng = np.random.default_rng(1)
    params = {n: 0.5 * rng.normal(size=s.shape) for n, s in program.declarations().params.items()}
    data = {"x": rng.normal(size=(4, 2, 3))}
    with precision("float64"):
        found = run_trace(get_runtime(backend, program), params, data, 3)
    exact = program.exact_log_likelihood(params, data["x"])
    np.testing.assert_allclose(bounds.log_weights(found, np), [exact] * 3, rtol=1e-10)
    covariance = params["weight"] @ params["weight"].T + np.diag(np.exp(2 * params["log_scale"]) * np.ones(6))
    normal = multivariate_normal(params["loc"], covariance)
    np.testing.assert_allclose(exact, normal.logpdf(data["x"].reshape(4, 6)), rtol=1e-10)


# --- Gaussian mixtures -----------------------------------------------------------------------------------------------

TYPES = {"full": "full", "diagonal": "diag", "spherical": "spherical", "tied": "tied"}


def mixture_of(covariance, x, **options):
    """Ours, with the parameters of scikit-learn's, and theirs."""
    theirs = mixture.GaussianMixture(3, covariance_type=TYPES[covariance], reg_covar=0, random_state=0).fit(x)
    program = GaussianMixture(event_shape=(5,), components=3, covariance=covariance, **options)
    return program, program.parameters(theirs.weights_, theirs.means_, theirs.covariances_), theirs


@pytest.mark.parametrize("covariance", TYPES)
def test_the_mixture_equals_scikit_learns(covariance):
    x = table()
    program, params, theirs = mixture_of(covariance, x, min_scale=0.0)
    declared = program.declarations().params
    assert {n: v.shape for n, v in params.items()} == {n: s.shape for n, s in declared.items()}
    np.testing.assert_allclose(program.exact_log_likelihood(params, x), theirs.score_samples(x), rtol=0, atol=1e-6)
    np.testing.assert_allclose(program.exact_posterior(params, x), theirs.predict_proba(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("assignment", ["exact", "summed"])
@pytest.mark.parametrize("covariance", TYPES)
@every_backend
def test_the_mixtures_bound_is_its_likelihood(covariance, backend, assignment):
    """ELBO and log-weights alike, whatever stands above the diagonal of the regression."""
    x = table(20)
    program, params, theirs = mixture_of(covariance, table(), assignment=assignment)
    params |= {n: v + np.triu(np.ones_like(v)) for n, v in params.items() if n == "regression"}
    with precision("float64"):
        found = run_trace(get_runtime(backend, program), params, {"x": x}, 2)
    for bound in (bounds.elbo, bounds.log_weights):
        np.testing.assert_allclose(bound(found, np), [theirs.score_samples(x)] * 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("covariance", TYPES)
@every_backend
def test_draws_of_the_mixture_have_its_moments(covariance, backend):
    x, n = table(), 20_000
    program, params, theirs = mixture_of(covariance, x)
    fit = Fit(program, {k: v.astype(np.float32) for k, v in params.items()}, backend)
    drawn = fit.sample(n, seed=1)
    mean = theirs.weights_ @ theirs.means_
    second = np.cov(drawn.T)
    each = {
        "full": lambda: theirs.covariances_,
        "tied": lambda: np.stack([theirs.covariances_] * 3),
        "diagonal": lambda: np.stack([np.diag(c) for c in theirs.covariances_]),
        "spherical": lambda: np.stack([c * np.eye(5) for c in theirs.covariances_]),
    }[covariance]()
    off = theirs.means_ - mean
    expected = np.einsum("c,cij->ij", theirs.weights_, each + off[:, :, None] * off[:, None])
    assert (np.abs(drawn.mean(0) - mean) < 4.5 * np.sqrt(np.diag(expected) / n)).all()
    spread = (drawn - mean)[:, :, None] * (drawn - mean)[:, None]
    assert (np.abs(second - expected) < 4.5 * spread.std(0) / n**0.5).all()


@every_backend
def test_the_mixture_encodes_and_trains(backend):
    x = table(600, apart=6.0).astype(np.float32)
    train, test = x[:500], x[500:]
    fit = ppdgm.fit(
        GaussianMixture(event_shape=(5,), components=3), train, steps=400, learning_rate=0.03, backend=backend,
        progress=False,
    )  # fmt: skip
    best = mixture.GaussianMixture(3, random_state=0, n_init=3).fit(train).score_samples(test).mean()
    assert fit.elbo(test).mean > best - 0.15
    np.testing.assert_allclose(fit.encode(test), fit.program.exact_posterior(fit.params, test), atol=1e-4)
    np.testing.assert_allclose(fit.elbo(test).values, fit.program.exact_log_likelihood(fit.params, test), atol=1e-3)


def test_means_start_at_data_that_are_apart():
    x = np.repeat(np.eye(3), 10, axis=0) * 10.0
    first = GaussianMixture(event_shape=(3,), components=3).initialise(0, {"x": x})
    assert sorted(map(tuple, first["loc"])) == sorted(map(tuple, np.eye(3) * 10.0))
    same = GaussianMixture(event_shape=(3,), components=2).initialise(0, {"x": np.ones((4, 3))})
    assert np.isfinite(same["raw_scale"]).all() and (same["loc"] == 1).all()


# --- conditional VAE -------------------------------------------------------------------------------------------------


def conditional(**options):
    return ConditionalVAE(event_shape=(5,), classes=3, latent=2, **NETS, **options)


LABELLED = {"x": X, "label": np.arange(40) % 3}


@pytest.mark.parametrize("prior", [False, True])
@every_backend
def test_classes_are_drawn_as_asked(backend, prior, tmp_path):
    """A decoder that only knows the class: pixel c is on for class c."""
    program = conditional(conditional_prior=prior)
    params = {n: 0 * v for n, v in program.initialise(0).items()}
    params["decoder.layers.0.weight"][2:, :3] = 20 * np.eye(3)
    params["decoder.layers.1.weight"][:3, :3] = 40 * np.eye(3)
    params["decoder.layers.1.bias"] -= 20.0
    fit = Fit(program, params, backend, info={"fields": ["x", "label"]})
    label = np.array([2, 0, 1, 1])
    assert (fit.sample(4, given={"label": label}) == np.eye(5)[label]).all()
    assert (fit.sample(6, given={"label": 2}).argmax(1) == 2).all()
    with pytest.raises(ProgramError, match=r"conditional on 'label', which is not given.*given="):
        fit.sample(3)
    with pytest.raises(DataError, match=r"'label': got 3 .*classes from 0 to 2"):
        fit.sample(1, given={"label": [3]})
    fit.save(tmp_path / "run")
    out = str(tmp_path / "drawn.npz")
    ran = CliRunner().invoke(app, ["sample", str(tmp_path / "run"), "--given", "label=1", "--n", "3", "--out", out])
    assert ran.exit_code == 0, ran.output
    assert (np.load(out)["x"].argmax(1) == 1).all()


@every_backend
def test_labels_of_every_whole_type_are_the_same_labels(backend):
    """Both backends see them signed: torch has little arithmetic on other types, and takes bytes for a mask."""
    program, labels = conditional(), np.arange(6) % 3
    fit = Fit(program, program.initialise(0), backend, info={"fields": ["x", "label"]})
    found = {
        kind: fit.log_weights({"x": X[:6], "label": labels.astype(kind)}, k=2)
        for kind in ("int64", "uint8", "uint16", "uint64", "int8")
    }
    assert all(np.array_equal(f, found["int64"]) for f in found.values())
    fit.sample(6, given={"label": labels.astype("uint64")})


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "uint64"])
def test_unsigned_numbers_are_signed_where_programs_see_them(kind, tmp_path):
    values = np.array([0, np.iinfo(kind).max], kind)
    np.save(tmp_path / "y.npy", values)
    for given in (values, np.load(tmp_path / "y.npy", mmap_mode="r")):
        data = {"x": X[:2], "y": given}
        if kind == "uint64":
            with pytest.raises(DataError, match=r"'y': got 18446744073709551615 at index \(1,\), .*below 2⁶³"):
                as_fields(data)
        else:
            found = np.asarray(as_fields(data)["y"])
            assert found.dtype.kind == "i" and (found == values).all()


@pytest.mark.parametrize(
    "label, message",
    [
        (np.arange(40), r"got 3 at index \(3,\), expected classes from 0 to 2"),
        (-np.ones(40, int), "got -1 at index"),
        (np.full(40, 0.5), "got 0.5 at index"),
        (np.zeros((40, 3), int), r"got labels of shape \(3,\), expected one number"),
    ],
)
def test_what_are_no_classes_is_refused(label, message):
    with pytest.raises(DataError, match=f"'label': {message}"):
        ppdgm.fit(conditional(), {"x": X, "label": label}, steps=1, progress=False)


def test_a_conditional_prior_of_what_is_discrete_is_refused():
    discrete = {"posterior": GumbelSoftmax(classes=3), "prior": CategoricalPrior()}
    with pytest.raises(SpecError, match="conditional_prior: got True, which replaces the prior, but prior=Cat"):
        conditional(conditional_prior=True, **discrete).initialise(0)
    with pytest.raises(SpecError, match="conditional_prior: got True, which is for real latents"):
        conditional(conditional_prior=True, posterior=discrete["posterior"]).initialise(0)
    found = run_trace(get_runtime("pyro", conditional(**discrete)), *start(conditional(**discrete), LABELLED), 2)
    assert np.isfinite(bounds.log_weights(found, np)).all()


def start(program, data):
    return program.initialise(0, data), data


# --- semi-supervised -------------------------------------------------------------------------------------------------


def clusters(rows, rng):
    """Three patterns of twelve pixels with a tenth of the pixels flipped, and their numbers."""
    label = rng.integers(3, size=rows)
    pattern = np.repeat(np.eye(3), 4, axis=1)[label]
    return np.abs(pattern - (rng.random((rows, 12)) < 0.1)).astype(np.float32), label


@every_backend
def test_a_label_for_each_class_names_the_clusters(backend):
    """M2: what is without label finds the clusters, three labels say which is which."""
    rng = np.random.default_rng(0)
    (x, label), (test, truth) = clusters(600, rng), clusters(300, rng)
    seen = np.full(600, -1)
    seen[[int(np.argmax(label == c)) for c in range(3)]] = range(3)
    program = SemiSupervisedVAE(event_shape=(12,), classes=3, latent=2, classifier=NET, **NETS)
    data = {"x": x, "label": seen}
    fit = ppdgm.fit(program, data, steps=400, learning_rate=0.01, backend=backend, progress=False)
    probabilities = fit.encode(test)["y"]  # without the field
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)
    assert (probabilities.argmax(1) == truth).mean() > 0.9
    known = fit.encode({"x": test, "label": truth})["y"]
    assert (known == np.eye(3)[truth]).all()
    unlabelled, labelled = fit.log_likelihood(test, k=50), fit.log_likelihood({"x": test, "label": truth}, k=50)
    assert unlabelled.mean > labelled.mean  # log p(x) > log p(x, y)
    assert fit.sample(7).shape == (7, 12) and fit.reconstruct(test).shape == (300, 12)


@every_backend
def test_the_likelihood_is_the_sum_over_labels(backend):
    """p(x) = Σ_y p(x, y), each by importance sampling; a learned class prior is a part of it."""
    program = SemiSupervisedVAE(event_shape=(5,), classes=3, latent=2, classifier=NET, class_prior="learned", **NETS)
    params = program.initialise(0)
    params["class_logits"] += np.array([0.0, 1.0, -2.0], np.float32)
    fit = Fit(program, params, backend)
    each = [fit.log_likelihood({"x": X, "label": np.full(40, y)}, k=2000) for y in range(3)]
    total = fit.log_likelihood({"x": X, "label": np.full(40, -1)}, k=2000)
    expected = logsumexp([e.values for e in each], axis=0)
    error = np.sqrt(total.errors**2 + sum(e.errors**2 for e in each))
    assert (np.abs(total.values - expected) < 5 * error + 1e-5).all()
    apart = np.mean(each[1].values - each[2].values)
    assert apart == pytest.approx(3.0, abs=1.0)  # mostly the prior's


def test_labels_of_the_semi_supervised_are_checked():
    program = SemiSupervisedVAE(event_shape=(5,), classes=3, latent=2, classifier=NET, **NETS)
    with pytest.raises(DataError, match=r"'label': got -2 .*classes from 0 to 2, or -1 if missing"):
        ppdgm.fit(program, {"x": X, "label": np.full(40, -2)}, steps=1, progress=False)


@every_backend
def test_convolutions_see_labels_as_channels(backend):
    nets = {
        "encoder": ConvEncoder(channels=(2,), kernel=3),
        "classifier": ConvEncoder(channels=(2,), kernel=3),
        "decoder": ConvDecoder(channels=(2,), kernel=3),
    }
    program = SemiSupervisedVAE(event_shape=(6, 6), classes=3, latent=2, **nets)
    assert program.declarations().params["encoder.convs.0.weight"].shape == (2, 4, 3, 3)
    data = {"x": (np.random.default_rng(0).random((4, 6, 6)) < 0.5) * 1.0, "label": np.array([0, -1, 2, -1])}
    with precision("float64"):
        found = run_trace(get_runtime(backend, program), program.initialise(0, dtype="float64"), data, 2)
    assert found.marginal.shape == (2, 4) and np.isfinite(found.marginal).all()


# --- clusters of latents ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assignment", ["exact", "summed"])
@every_backend
def test_clusters_are_summed_out(backend, assignment):
    """log w = log Σ_c π_c N(z; μ_c, σ_c) + log p(x|z) − log q(z|x), and the ELBO is its mean, at every draw of z."""
    program = MixtureVAE(event_shape=(5,), components=3, latent=2, assignment=assignment, **NETS)
    rng = np.random.default_rng(2)
    params = {n: v + 0.5 * rng.normal(size=v.shape) for n, v in program.initialise(0, dtype="float64").items()}
    data = {"x": X[:4].astype(float)}
    with precision("float64"):
        found = run_trace(get_runtime(backend, program), params, data, 3, kl=True)
    assert not found.kl
    z = found.values["z"]
    scale = 1e-2 + np.logaddexp(0, params["clusters.raw_scale"])
    each = norm.logpdf(z[:, :, None], params["clusters.loc"], scale).sum(-1) + log_softmax(params["cluster_logits"])
    logits = forward({"kind": "MLP", "hidden": [6], "activation": "tanh"}, params, "decoder", z.reshape(12, 2), (5,))
    seen = bernoulli.logpmf(data["x"], 1 / (1 + np.exp(-logits.reshape(3, 4, 5)))).sum(-1)
    expected = logsumexp(each, -1) + seen - found.log_q["z"]
    for bound in (bounds.log_weights, bounds.elbo):
        np.testing.assert_allclose(bound(found, np), expected, rtol=1e-10)
    if assignment == "exact":
        fit = Fit(program, params, backend)
        with precision("float64"):
            means = fit.encode(data)
        at = norm.logpdf(means["z"][:, None], params["clusters.loc"], scale).sum(-1)
        np.testing.assert_allclose(means["c"], np.exp(log_softmax(at + log_softmax(params["cluster_logits"]), -1)))


def test_clusters_of_discrete_latents_are_refused():
    program = MixtureVAE(event_shape=(5,), posterior=GumbelSoftmax(classes=3), **NETS)
    with pytest.raises(SpecError, match="clusters need real latents"):
        program.initialise(0)


# --- autoencoder -----------------------------------------------------------------------------------------------------


@every_backend
def test_the_autoencoder_scores_its_reconstructions(backend):
    program = Autoencoder(event_shape=(5,), latent=2, likelihood=Gaussian(scale=0.5), **NETS)
    params = program.initialise(0)
    fit = Fit(program, params, backend)
    net = {"kind": "MLP", "hidden": [6], "activation": "tanh"}
    code = forward(net, params, "encoder", X, (2,))
    mean = forward(net, params, "decoder", code, (5,))
    np.testing.assert_allclose(fit.encode(X), code, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fit.reconstruct(X), mean, rtol=1e-4, atol=1e-5)
    expected = norm.logpdf(X, mean, 0.5).sum(-1)
    np.testing.assert_allclose(fit.elbo(X, k=2).values, expected, rtol=1e-4)
    np.testing.assert_allclose(fit.log_likelihood(X, k=3).values, expected, rtol=1e-4)
    with pytest.raises(ProgramError, match="has no prior over its codes"):
        fit.sample(3)
    with pytest.raises(PpdgmError, match="draws no latent"):
        fit.encode(X, k=3)
    trained = ppdgm.fit(program, X, steps=100, learning_rate=0.01, backend=backend, progress=False)
    assert trained.elbo(X).mean > expected.mean() + 1.0


# --- the collapse toy ------------------------------------------------------------------------------------------------


def test_the_collapse_toy_is_gaussian_with_and_without_covariance():
    full, diagonal = (load_data(f"collapse-{kind}") for kind in ("full", "diagonal"))
    again = load_data("collapse-full")
    assert (full.train == again.train).all() and (full.test == again.test).all()
    for kind, data in (("full", full), ("diagonal", diagonal)):
        assert [len(a) for a in (data.train, data.validation, data.test)] == [4500, 500, 1000]
        assert data.event_shape == catalogue()[data.name].shape == (10,)
        expected, x = collapse.covariance(kind), np.concatenate([data.train, data.validation]).astype(float)
        spread = x[:, :, None] * x[:, None]
        assert (np.abs(spread.mean(0) - expected) < 4.5 * spread.std(0) / 5000**0.5).all()  # seed fixed
    same = np.diag(collapse.covariance("full"))
    assert (collapse.covariance("diagonal") == np.diag(same)).all()
    assert (np.linalg.eigvalsh(collapse.covariance("full"))[-3:] > 4).all()


@pytest.mark.parametrize("kind, active", [("full", 3), ("diagonal", 0)])
def test_a_latent_explains_covariance_and_nothing_else(kind, active):
    """Of standardised data, factors are loaded by what is correlated: the likelihood that three of them add."""
    data = load_data(f"collapse-{kind}", scale="standardise")
    gains = []
    for latent in (1, 3):
        theirs = decomposition.FactorAnalysis(latent, max_iter=200).fit(data.train)
        gains.append(theirs.score(data.test) - norm.logpdf(data.test).sum(1).mean())
    assert (gains[1] > 1.5) == (active == 3) and (abs(gains[1]) < 0.02) == (active == 0)


def test_the_collapse_toy_is_listed():
    assert "collapse-diagonal" in CliRunner().invoke(app, ["data"]).output
