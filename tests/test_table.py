"""The likelihood of a table with columns of several kinds and missing entries."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

import ppdgm
from ppdgm.errors import DataError, SpecError
from ppdgm.inference import IWAE, SVI
from ppdgm.inference.evaluation.result import Fit
from ppdgm.models import (
    VAE,
    Autoencoder,
    ConditionalVAE,
    FullCovarianceNormal,
    Gaussian,
    HierarchicalVAE,
    MixtureVAE,
    SemiSupervisedVAE,
    Table,
    VampPrior,
)
from ppdgm.models.likelihoods.table_columns import read_kind
from ppdgm.nets import MLP

KINDS = ("real", "positive", "count", "binary", "ordinal(4)", "categorical(3)", "date", "poisson", "categorical(3)")
SMALL = {"encoder": MLP(hidden=(8,)), "decoder": MLP(hidden=(8,))}
BACKENDS = ("numpyro", "pyro")


def rows(n: int, seed: int = 0) -> np.ndarray:
    """Rows of the columns of `KINDS`, without gaps."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    columns = [
        5 + 2 * z + 0.3 * rng.normal(size=n),
        np.exp(1 + 0.5 * z),
        rng.poisson(np.exp(1 + 0.5 * z)),
        z + rng.normal(size=n) > 0,
        np.clip(np.rint(1.5 + z), 0, 3),
        rng.integers(0, 3, n),
        8000 + 30 * z + rng.normal(size=n),
        rng.poisson(2.0, n),
        np.clip(np.rint(1 + z), 0, 2),
    ]
    return np.stack(columns, 1).astype(np.float32)


def with_gaps(x: np.ndarray, share: float = 0.3, seed: int = 1) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x).astype(x.dtype)


PROGRAM = VAE(event_shape=(9,), latent=2, likelihood=Table(columns=KINDS), **SMALL)


@pytest.fixture(scope="module")
def trained() -> Fit:
    return ppdgm.fit(PROGRAM, with_gaps(rows(200)), epochs=3, seed=0, progress=False)


def by_scipy(head: np.ndarray, x: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
    """log p of each entry [N, 9], with the head [N, 13] in the order of the columns."""
    softplus = lambda v: np.logaddexp(0, v)
    p = {n.removeprefix("likelihood."): np.asarray(v, np.float64) for n, v in params.items()}
    m, s = p["loc"], p["scale"]
    blocks = {b.kind: (i, b) for i, b in enumerate(PROGRAM.likelihood.blocks)}
    spread = lambda kind: 1e-3 + softplus(p[f"blocks.{blocks[kind][0]}.raw_scale"])
    real, cuts = spread("real"), p[f"blocks.{blocks['ordinal'][0]}.cuts"][0]
    steps = np.concatenate([cuts[:1], 1e-4 + softplus(cuts[1:])]).cumsum()
    h, theta = head.T, spread("count")[0]
    found = np.empty(x.shape)
    found[:, 0] = stats.norm.logpdf(x[:, 0], m[0] + s[0] * h[0], s[0] * real[0])
    found[:, 1] = stats.lognorm.logpdf(x[:, 1], s[1] * spread("positive")[0], scale=np.exp(m[1] + s[1] * h[1]))
    mean = np.exp(m[2] + h[2])
    found[:, 2] = stats.nbinom.logpmf(x[:, 2], theta, theta / (theta + mean))
    found[:, 3] = stats.bernoulli.logpmf(x[:, 3], 1 / (1 + np.exp(-h[3])))
    below = 1 / (1 + np.exp(-(steps - h[4][:, None])))
    ends = np.concatenate([np.zeros((len(x), 1)), below, np.ones((len(x), 1))], 1)
    found[:, 4] = np.log(np.take_along_axis(np.diff(ends), x[:, 4:5].astype(int), 1)[:, 0])
    softmax = lambda v: v - np.logaddexp.reduce(v, 1, keepdims=True)
    found[:, 5] = np.take_along_axis(softmax(head[:, 5:8]), x[:, 5:6].astype(int), 1)[:, 0]
    found[:, 6] = stats.norm.logpdf(x[:, 6], m[6] + s[6] * h[8], s[6] * real[1])
    found[:, 7] = stats.poisson.logpmf(x[:, 7], np.exp(m[7] + h[9]))
    found[:, 8] = np.take_along_axis(softmax(head[:, 10:13]), x[:, 8:9].astype(int), 1)[:, 0]
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_log_p_is_that_of_scipy_and_missing_entries_have_none(trained: Fit, backend: str) -> None:
    fit = Fit(Autoencoder(event_shape=(9,), latent=2, likelihood=PROGRAM.likelihood, **SMALL), trained.params, backend)
    rng = np.random.default_rng(3)
    params = {n: v + 0.3 * rng.normal(size=v.shape).astype(v.dtype) for n, v in trained.params.items()}
    for name in ("likelihood.loc", "likelihood.scale"):
        params[name] = trained.params[name]
    params = {n: v for n, v in params.items() if n in fit.program.initialise()}
    params["encoder.layers.1.weight"] = np.zeros((8, 2), np.float32)  # the code does not depend on x
    params["encoder.layers.1.bias"] = np.array([0.4, -0.7], np.float32)
    fit = replace(fit, params=params, runtime=None)
    code = params["encoder.layers.1.bias"]
    hidden = np.tanh(code @ params["decoder.layers.0.weight"] + params["decoder.layers.0.bias"])
    head = hidden @ params["decoder.layers.1.weight"] + params["decoder.layers.1.bias"]
    x = with_gaps(rows(50, seed=5))
    each = by_scipy(
        np.repeat(head[None].astype(np.float64), 50, 0), np.nan_to_num(x, nan=1.0).astype(np.float64), params
    )
    expected = np.where(np.isnan(x), 0.0, each).sum(1)
    np.testing.assert_allclose(fit.elbo(x).values, expected, rtol=2e-5, atol=2e-4)
    nothing = np.full((1, 9), np.nan, np.float32)
    assert fit.elbo(nothing).values[0] == 0.0


def test_the_scale_is_that_of_the_observed_entries() -> None:
    x = with_gaps(rows(200))
    params = PROGRAM.initialise(0, {"x": x})
    loc, scale = params["likelihood.loc"], params["likelihood.scale"]
    seen = [column[~np.isnan(column)].astype(np.float64) for column in x.T]
    np.testing.assert_allclose(loc[[0, 6]], [seen[0].mean(), seen[6].mean()], rtol=1e-5)
    np.testing.assert_allclose(scale[[0, 6]], [seen[0].std(), seen[6].std()], rtol=1e-4)
    np.testing.assert_allclose([loc[1], scale[1]], [np.log(seen[1]).mean(), np.log(seen[1]).std()], rtol=1e-5)
    raw = params["likelihood.blocks.4.cuts"][0].astype(np.float64)  # at the start, the cuts give the levels' shares
    cuts = np.concatenate([raw[:1], 1e-4 + np.logaddexp(0, raw[1:])]).cumsum()
    shares = np.array([(seen[4] == level).sum() + 1 for level in range(4)])
    np.testing.assert_allclose(special.expit(cuts), np.cumsum(shares / shares.sum())[:3], rtol=1e-4)


def test_encoders_see_standardised_numbers_and_what_is_missing(trained: Fit) -> None:
    from ppdgm.language.arrays import NumpyVocabulary

    table, x = PROGRAM.likelihood, with_gaps(rows(40))
    params = {n: v.astype(np.float64) for n, v in trained.params.items()}
    seen = table.encoded(NumpyVocabulary.over(params, PROGRAM.declarations()), x.astype(np.float64))
    assert seen.shape == (40, *table.encoded_shape((9,))) == (40, 7 + 6 + 9)
    there = ~np.isnan(x)
    np.testing.assert_array_equal(seen[:, 13:], there)
    loc, scale = params["likelihood.loc"], params["likelihood.scale"]
    np.testing.assert_allclose(seen[:, 0], np.where(there[:, 0], (x[:, 0] - loc[0]) / scale[0], 0))
    start = sum(len(b.columns) * (b.levels if b.kind == "categorical" else 1) for b in table.blocks[:5])
    hot = seen[:, start : start + 3]
    np.testing.assert_array_equal(hot.sum(1), there[:, 5])
    np.testing.assert_array_equal(hot.argmax(1)[there[:, 5]], x[there[:, 5], 5])


def test_both_backends_agree(trained: Fit) -> None:
    other, x = replace(trained, backend="pyro", runtime=None), with_gaps(rows(30, seed=7))
    np.testing.assert_allclose(other.encode(x), trained.encode(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other.reconstruct(x), trained.reconstruct(x), rtol=1e-5, atol=1e-5)
    z = trained.encode(x)
    data = {"x": x}
    index = np.arange(30)
    scores = []
    for fit in (trained, other):
        native, params = fit._runtime.put(data), fit._runtime.put(fit.params)
        scores.append(fit._runtime.trace(params, native, index, 1, 0, {"z": z[None]}, False).log_p["x"])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_have_the_moments_of_the_columns(trained: Fit, backend: str) -> None:
    fit = replace(trained, backend=backend, runtime=None)
    x = np.asarray(fit.sample(4000, seed=2), np.float64)
    assert not np.isnan(x).any()
    PROGRAM.likelihood.check("x", x)
    z = np.zeros((4000, 2))
    drawn, mean = (np.asarray(fit.decode(z, mean=m, seed=3), np.float64) for m in (False, True))
    for d in (0, 2, 3, 4, 6, 7):  # the mean of a categorical column is its most probable class
        error = drawn[:, d].std() / np.sqrt(4000)
        assert abs(drawn[:, d].mean() - mean[0, d]) < 4 * error, KINDS[d]
    for d in (5, 8):
        counts = np.bincount(drawn[:, d].astype(int))
        assert counts[int(mean[0, d])] > counts.max() - 4 * np.sqrt(2000)


def linear_gaussian() -> tuple[Fit, np.ndarray, np.ndarray, np.ndarray]:
    """A fit whose x is Gaussian, N(m, C); m; C; rows with gaps."""
    program = VAE(
        event_shape=(4,), latent=2, likelihood=Table(columns=("real",) * 4), posterior=FullCovarianceNormal(),
        encoder=MLP(hidden=(16,)), decoder=MLP(hidden=()),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4)) * [1, 2, 3, 4] + [0, 10, 20, 30]
    x = with_gaps((x + 0.5 * rng.normal(size=x.shape)).astype(np.float32))
    fit = ppdgm.fit(program, x, epochs=30, seed=0, progress=False, learning_rate=1e-2)
    p = {n: v.astype(np.float64) for n, v in fit.params.items()}
    s = p["likelihood.scale"]
    w = p["decoder.layers.0.weight"] * s
    noise = s * (1e-3 + np.logaddexp(0, p["likelihood.blocks.0.raw_scale"]))
    return fit, p["likelihood.loc"] + s * p["decoder.layers.0.bias"], w.T @ w + np.diag(noise**2), x[:40]


@pytest.fixture(scope="module")
def gaussian() -> tuple[Fit, np.ndarray, np.ndarray, np.ndarray]:
    return linear_gaussian()


@pytest.mark.parametrize("backend", BACKENDS)
def test_log_p_of_the_observed_entries_is_that_of_the_marginal(gaussian, backend: str) -> None:
    fit, mean, covariance, x = gaussian
    found = replace(fit, backend=backend, runtime=None).log_likelihood(x, k=2000)
    for row, value, error in zip(x, found.values, found.errors, strict=True):
        o = ~np.isnan(row)
        exact = stats.multivariate_normal.logpdf(row[o], mean[o], covariance[np.ix_(o, o)]) if o.any() else 0.0
        assert abs(value - exact) < 5 * error + 1e-3
    assert fit.elbo(x, k=50).mean < found.mean


def test_imputed_means_and_intervals_are_those_of_the_conditional(gaussian) -> None:
    fit, mean, covariance, x = gaussian
    guess = fit.impute(x, mean=True, k=20_000)
    low, high = fit.impute(x, interval=0.8, k=20_000)
    np.testing.assert_array_equal(guess[~np.isnan(x)], x[~np.isnan(x)])
    for row, found, a, b in zip(x, guess, low, high, strict=True):
        o, m = ~np.isnan(row), np.isnan(row)
        if not m.any():
            continue
        gain = covariance[np.ix_(m, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
        exact = mean[m] + gain @ (row[o] - mean[o])
        spread = np.sqrt(np.diag(covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(o, m)]))
        np.testing.assert_array_less(np.abs(found[m] - exact) / spread, 0.15)
        ends = stats.norm.ppf([0.1, 0.9])
        assert np.abs((a[m] - exact) / spread - ends[0]).max() < 0.3
        assert np.abs((b[m] - exact) / spread - ends[1]).max() < 0.3


def test_imputed_entries_do_not_depend_on_what_stood_there(gaussian) -> None:
    fit, *_, x = gaussian
    where = np.isnan(x)
    other = np.where(where, 1e4, x)
    for how in ({}, {"mean": True}, {"draws": 2}):
        np.testing.assert_array_equal(fit.impute(other, where, seed=3, **how), fit.impute(x, seed=3, **how))
    assert fit.impute(x, draws=3).shape == (3, *x.shape)
    assert np.ptp(fit.impute(x, draws=3)[:, where], axis=0).min() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_kind_is_filled_with_values_of_its_support(trained: Fit, backend: str) -> None:
    fit, x = replace(trained, backend=backend, runtime=None), with_gaps(rows(30, seed=9))
    for filled in (fit.impute(x, k=50), *fit.impute(x, draws=2, k=50)):
        assert not np.isnan(filled).any()
        PROGRAM.likelihood.check("x", filled)
    guess = fit.impute(x, mean=True, k=50)
    assert (guess[:, 5] == np.rint(guess[:, 5])).all()
    low, high = fit.impute(x, interval=0.9, k=50)
    assert (low[:, 0] <= high[:, 0]).all()
    assert np.isnan(low[np.isnan(x[:, 5]), 5]).all()


def test_rows_do_not_depend_on_each_other(trained: Fit) -> None:
    x = with_gaps(rows(20, seed=4))
    nothing = x.copy()
    nothing[1::2] = np.nan
    for values in (lambda d: trained.reconstruct(d), lambda d: trained.encode(d)):
        np.testing.assert_allclose(values(x)[::2], values(nothing)[::2], rtol=1e-5)
    assert np.isfinite(trained.log_likelihood(nothing, k=10).values).all()


PROGRAMS = {
    "hierarchical": HierarchicalVAE(
        event_shape=(9,), latent=(2, 2), likelihood=PROGRAM.likelihood, levels=MLP(hidden=(4,)), **SMALL
    ),
    "conditional": ConditionalVAE(event_shape=(9,), classes=2, latent=2, likelihood=PROGRAM.likelihood, **SMALL),
    "clusters": MixtureVAE(event_shape=(9,), latent=2, components=2, likelihood=PROGRAM.likelihood, **SMALL),
    "vamp": PROGRAM.replace(prior=VampPrior(components=3, range="real")),
    "spreads": PROGRAM.replace(likelihood=PROGRAM.likelihood.replace(scale="network")),
    "semi-supervised": SemiSupervisedVAE(
        event_shape=(9,), classes=2, latent=2, likelihood=PROGRAM.likelihood, classifier=MLP(hidden=(4,)), **SMALL
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_train_and_fill_in(name: str, backend: str) -> None:
    program, x = PROGRAMS[name], with_gaps(rows(40))
    data = {"x": x, "label": np.arange(40) % 2} if hasattr(program, "classes") else x
    engine = SVI() if name in ("clusters", "semi-supervised") else IWAE(k=2)  # these sum over their classes
    fit = ppdgm.fit(program, data, engine=engine, steps=4, batch_size=20, backend=backend, progress=False)
    assert not fit.info.get("skipped") and np.isfinite(fit.history["objective"]).all()
    assert np.isfinite(fit.elbo(data, k=2).values).all()
    assert not np.isnan(fit.impute(data, k=20)).any()


def test_a_stopped_run_goes_on_with_the_same_bits(tmp_path) -> None:
    x, how = with_gaps(rows(40)), {"batch_size": 20, "progress": False, "seed": 0, "checkpoint_steps": 2}
    whole = ppdgm.fit(PROGRAM, x, steps=6, out=tmp_path / "whole", **how)
    ppdgm.fit(PROGRAM, x, steps=4, out=tmp_path / "part", **how)
    again = ppdgm.resume(tmp_path / "part", x, steps=6, progress=False)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(value, again.params[name])


def test_a_diagnosis_leaves_out_what_is_missing(trained: Fit, tmp_path) -> None:
    x = with_gaps(rows(60, seed=2))
    found = trained.diagnose(x, parts=["likelihood", "predictive", "pictures"], k=30, replicated=10, replicated_size=60)
    assert not {"predictive", "pictures", "likelihood", "baseline"} & set(found.withheld)
    mean = next(c for c in found.checks if c.name == "mean")
    assert np.isclose(mean.observed, x[~np.isnan(x)].astype(np.float64).mean())
    found.report(tmp_path / "report.html")
    assert "reconstruction_error" not in trained.scores(x, k=10)  # a sum of squared euros and numbers of classes


def test_the_baseline_is_that_of_the_observed_entries() -> None:
    from ppdgm.models.likelihoods.columns import columns

    x = with_gaps(rows(200)).astype(np.float64)
    found = columns(PROGRAM.likelihood, x)
    params = PROGRAM.initialise(0, {"x": x.astype(np.float32)})
    assert found is not None
    assert found.head.shape == (13,)
    each = found.log_prob(x)
    assert (each[np.isnan(x)] == 0).all()
    seen = x[~np.isnan(x[:, 0]), 0]
    np.testing.assert_allclose(each[~np.isnan(x[:, 0]), 0], stats.norm.logpdf(seen, seen.mean(), seen.std()), rtol=1e-6)
    shares = np.bincount(x[~np.isnan(x[:, 5]), 5].astype(int), minlength=3) + 0.5
    first = np.flatnonzero(x[:, 5] == 1)[0]
    np.testing.assert_allclose(each[first, 5], np.log(shares[1] / shares.sum()), rtol=1e-6)
    by_hand = by_scipy(np.repeat(found.head[None], 200, 0), np.nan_to_num(x, nan=1.0), params)
    for d in (3, 4, 5, 8):  # at this head, the likelihood itself is near them
        there = ~np.isnan(x[:, d])
        np.testing.assert_allclose(by_hand[there, d], each[there, d], atol=0.05)


REFUSED = {
    "positive": (1, -1.0, "expected positive numbers, because column 1 is positive"),
    "count": (2, 0.5, "whole numbers from 0"),
    "binary": (3, 2.0, "whole numbers from 0 to 1"),
    "ordinal": (4, 4.0, "whole numbers from 0 to 3"),
    "categorical": (5, -1.0, "whole numbers from 0 to 2"),
    "infinite": (0, np.inf, "finite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_entries_outside_their_column_are_refused(name: str) -> None:
    column, value, told = REFUSED[name]
    x = with_gaps(rows(30))
    x[3, column] = value
    with pytest.raises(DataError, match=told):
        ppdgm.fit(PROGRAM, x, steps=1, progress=False)


def test_columns_are_checked() -> None:
    for text in ("categorical", "real(3)", "cat(3)", "ordinal(1)"):
        with pytest.raises(SpecError, match=r"Table\.columns"):
            Table(columns=(text,))
    assert str(read_kind("age: count")) == "age: count"
    with pytest.raises(SpecError, match="expected a kind for each"):
        VAE(event_shape=(2,), likelihood=Table(columns=("real",))).declarations()
    empty = with_gaps(rows(30))
    empty[:, 6] = np.nan
    with pytest.raises(DataError, match="column 6 has no entries"):
        ppdgm.fit(PROGRAM, empty, steps=1, progress=False)


def test_programs_for_whole_rows_refuse_missing_entries() -> None:
    with pytest.raises(DataError, match=r"likelihood=Table\(\)"):
        ppdgm.fit(VAE(event_shape=(9,), likelihood=Gaussian()), with_gaps(rows(30)), steps=1)
