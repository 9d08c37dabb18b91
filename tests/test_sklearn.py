"""Estimators of scikit-learn: its own checks, and its own tools around them."""

import pickle
import re
from inspect import signature
from pathlib import Path

import joblib
import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import ppdgm
from ppdgm.inference import IWAE
from ppdgm.models import MLP, VAE, Bernoulli, FlowModel, Gaussian, HierarchicalVAE, RealNVP
from ppdgm.sklearn import DensityEstimator, Imputer, VAETransformer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)) @ RNG.normal(size=(3, 3)) + 1.0
BACKENDS = ("numpyro", "pyro")
SMALL = MLP(hidden=(4,))


def estimators():
    for backend in BACKENDS:
        how = {"epochs": 1, "backend": backend}
        yield VAETransformer(hidden=(4,), **how)
        yield DensityEstimator(**how)
        yield Imputer(k=10, **how)


@parametrize_with_checks(list(estimators()))
def test_the_checks_of_scikit_learn(estimator, check):
    """All of them; none is expected to fail."""
    check(estimator)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pipeline_says_what_the_fit_says(backend):
    made = make_pipeline(StandardScaler(), VAETransformer(latent=2, hidden=(4,), epochs=2, backend=backend)).fit(X)
    own, scaled = made[-1].fit_, StandardScaler().fit_transform(X)
    z = made.transform(X)
    np.testing.assert_allclose(z, own.encode(scaled), rtol=1e-4, atol=1e-5)
    back = made.inverse_transform(z)  # E[x | z], in the units before the scaler
    np.testing.assert_allclose((back - X.mean(0)) / X.std(0), own.decode(z.astype("float32")), rtol=1e-4, atol=1e-4)
    assert made.score(X) == pytest.approx(own.elbo(scaled).mean)
    assert list(made.get_feature_names_out()) == ["vaetransformer0", "vaetransformer1"]
    table = clone(made).set_output(transform="pandas").fit_transform(X)
    assert list(table.columns) == ["vaetransformer0", "vaetransformer1"] and table.shape == (60, 2)
    assert made[-1].sample(4, seed=1).shape == (4, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_density_is_that_of_the_flow(backend):
    program = FlowModel(event_shape=(3,), flow=RealNVP(depth=2, hidden=(4,)))
    made = DensityEstimator(program, epochs=2, backend=backend).fit(X)
    u, log_det = program.noise(made.fit_.params, X)  # in NumPy
    np.testing.assert_allclose(made.score_samples(X), stats.norm.logpdf(u).sum(-1) + log_det, rtol=1e-4, atol=1e-4)
    assert made.score(X) == pytest.approx(made.score_samples(X).mean())
    with_latents = DensityEstimator(VAE(event_shape=(3,), likelihood=Gaussian(), encoder=SMALL, decoder=SMALL), k=7)
    found = with_latents.set_params(epochs=1, backend=backend).fit(X)
    np.testing.assert_allclose(
        found.score(X), found.fit_.log_likelihood(X, k=7).mean, atol=1.0
    )  # of other draws, so only about the same


def test_a_row_does_not_depend_on_the_others():
    """The same bits, alone or among 300."""
    many = RNG.normal(size=(300, 3))
    made = VAETransformer(hidden=(4,), epochs=1).fit(many)
    assert np.array_equal(made.transform(many)[[0, 299]], made.transform(many[[0, 299]]))


def test_a_grid_search_in_two_processes():
    """Estimators, and the fits in them, travel between processes."""
    scaled = StandardScaler().fit_transform(X)
    made = VAETransformer(hidden=(4,), epochs=1, backend="pyro")
    search = GridSearchCV(made, {"latent": [1, 2]}, cv=2, n_jobs=2).fit(scaled)
    alone = GridSearchCV(made, {"latent": [1, 2]}, cv=2).fit(scaled)
    assert search.best_params_ == alone.best_params_
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"], rtol=1e-5)
    assert np.isfinite(cross_val_score(DensityEstimator(epochs=1, backend="pyro"), scaled, cv=2)).all()


def test_joblib_and_pickle(tmp_path):
    made = VAETransformer(hidden=(4,), epochs=1, engine=IWAE(k=2), backend="pyro").fit(X)
    joblib.dump(made, tmp_path / "made.joblib")
    for again in (joblib.load(tmp_path / "made.joblib"), pickle.loads(pickle.dumps(made))):
        assert np.array_equal(again.transform(X), made.transform(X))
        assert again.get_params() == made.get_params()


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_numbers(backend):
    """The second column is twice the first: filled in, it is much nearer to that than the column's mean is."""
    first = RNG.normal(5.0, 2.0, 120)
    whole = np.stack([first, 2.0 * first], axis=1)
    gaps = whole.copy()
    gaps[RNG.permutation(120)[:40], 1] = np.nan
    made = Imputer(epochs=60, learning_rate=0.01, k=100, backend=backend, batch_size=40).fit(gaps)
    found, missing = made.transform(gaps), np.isnan(gaps)
    assert np.array_equal(found[~missing], whole[~missing]) and not np.isnan(found).any()
    error = lambda x: np.sqrt(np.mean((x - whole[missing]) ** 2))
    assert error(found[missing]) < 0.5 * error(np.nanmean(gaps[:, 1]))
    one, other = (clone(made).set_params(mean=False, epochs=1, seed=s).fit(gaps).transform(gaps) for s in (0, 1))
    assert not np.array_equal(one[missing], other[missing])  # draws
    assert np.array_equal(made.transform(whole), whole)
    assert make_pipeline(made, StandardScaler()).fit(gaps).transform(gaps).shape == (120, 2)


def test_programs_of_other_shapes():
    """Rows of 4 numbers as 2 × 2 images; several latents are joined, in the order of their names."""
    bits = (RNG.random((40, 4)) < 0.5).astype(float)
    images = VAE(event_shape=(2, 2), latent=2, likelihood=Bernoulli(), encoder=SMALL, decoder=SMALL)
    made = VAETransformer(images, latent=3, epochs=1, backend="pyro").fit(bits)
    assert made.transform(bits).shape == (40, 3) and made.sample(2).shape == (2, 4)
    ladder = VAETransformer(HierarchicalVAE(event_shape=(4,), latent=(3, 2)), epochs=1, backend="pyro").fit(bits)
    z = ladder.fit_.encode(bits)
    np.testing.assert_allclose(ladder.transform(bits), np.hstack([z["z1"], z["z2"]]), rtol=1e-4, atol=1e-5)
    assert ladder.inverse_transform(ladder.transform(bits)).shape == (40, 4)


def test_refused():
    for estimator, told in (
        (VAETransformer(VAE(event_shape=(3,), latent=2), hidden=(4,)), "hidden: the program"),
        (VAETransformer(VAE(event_shape=(5,), latent=2)), "X has 3 features"),
        (VAETransformer("vae"), "program: got 'vae'"),
        (DensityEstimator(epochs=0), "epochs"),
        (DensityEstimator(backend="tensorflow"), "backend"),
    ):
        with pytest.raises(ppdgm.PpdgmError, match=told):
            estimator.fit(X)
    with pytest.raises(NotFittedError):
        VAETransformer().inverse_transform(X)
    made = VAETransformer(hidden=(4,), epochs=1, backend="pyro").fit(X)
    with pytest.raises(ValueError, match="got 3 columns, expected 2"):
        made.inverse_transform(np.zeros((2, 3)))


def test_a_warning_only_where_training_failed():
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        VAETransformer(hidden=(4,), epochs=30, learning_rate=300.0, batch_size=5, backend="pyro").fit(X)


def test_parameters_are_plain():
    made = DensityEstimator(k=3, seed=4)
    assert clone(made).get_params() == made.get_params()
    for kind in (VAETransformer, DensityEstimator, Imputer):
        assert {"program", "engine", "epochs", "learning_rate", "batch_size", "backend", "seed"} <= {
            *signature(kind).parameters
        }


def test_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "scikit_learn.md").read_text(encoding="utf-8")
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)), {})
