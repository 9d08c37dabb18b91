"""Columns whose spread float32 can't hold: refused to train on, warned of to judge; and right where they are let in."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import ppdgm
from ppdgm.backends.numpyro import Runtime
from ppdgm.data import Stream, as_fields
from ppdgm.errors import DataError, UnsupportedByBackend
from ppdgm.inference import EM
from ppdgm.models import PPCA

RNG = np.random.default_rng(0)
SHAPE = RNG.normal(size=(300, 1)) @ [[1.0, 0.8, -0.5]] + 0.1 * RNG.normal(size=(300, 3))
JULIAN = 2_460_000.0 + 0.01 * SHAPE
METRES = [500_000.0, 5_400_000.0, 120.0] + 3.0 * SHAPE
EPOCH = (1_700_000_000 + 1000 * SHAPE).astype(np.int64)


def exact(x):
    """The largest mean log p(x) of PPCA with one latent. Tipping & Bishop 1999, doi:10.1111/1467-9868.00196."""
    values, vectors = np.linalg.eigh(np.cov(x.T, ddof=0))
    noise = values[:2].mean()
    covariance = noise * np.eye(3) + (values[2] - noise) * np.outer(vectors[:, 2], vectors[:, 2])
    return multivariate_normal(x.mean(0), covariance).logpdf(x).mean()


def trained(x, **options):
    program, scale = PPCA(event_shape=(3,), latent=1), x[:, 0].std()
    first = {"weight": scale * np.ones((3, 1)), "loc": x.mean(0), "log_scale": np.log(scale)}  # else EM has far to go
    first = {n: v.astype(options.get("dtype", "float32")) for n, v in first.items()}
    return ppdgm.fit(program, x, engine=EM(), backend="pyro", epochs=500, params=first, progress=False, **options)


@pytest.mark.parametrize("x", [JULIAN, METRES, EPOCH], ids=["Julian days", "metres", "epoch seconds"])
def test_what_float32_blurs_is_refused_and_right_by_either_remedy(x):
    with pytest.raises(DataError, match=r"scale='standardise'.*dtype='float64'"):
        trained(x)
    expected = exact(x.astype(float))
    assert trained(x, dtype="float64").elbo(x, k=1).mean == pytest.approx(expected, abs=1e-3)
    scale = x[:, 0].std()
    scaled = (x - x.mean(0)) / scale
    assert trained(scaled).elbo(scaled, k=1).mean - 3 * np.log(scale) == pytest.approx(expected, abs=1e-3)


def test_what_is_let_in_is_right():
    x = 2_460_000.0 + 101 * 0.25 * SHAPE / SHAPE.std(0).min()  # just above the limit
    assert trained(x).elbo(x, k=1).mean == pytest.approx(exact(x), abs=0.01)


@pytest.mark.parametrize(
    "fields",
    [
        {"x": JULIAN},
        {"x": EPOCH},
        {"x": SHAPE, "when": EPOCH[:, 0]},  # whole numbers beside x stay whole, and programs compute with them
        {"x": SHAPE, "when": JULIAN[:, 0]},
        {"x": Stream(JULIAN)},
        {"x": np.stack([SHAPE, JULIAN], 1)},
    ],
)
def test_every_field_is_looked_at(fields):
    with pytest.raises(DataError, match="standard deviation"):
        as_fields(fields, use="train")
    with pytest.warns(UserWarning, match="standard deviation"):
        as_fields(fields, use="judge")
    as_fields(fields, "float64", "train")


@pytest.mark.parametrize(
    "x", [np.full((9, 2), 1 / 3), SHAPE, np.arange(2**24, 2**24 + 9**4), JULIAN[:1], JULIAN.astype(np.float32)]
)
def test_others_are_not(x):
    as_fields(x, use="train")


def test_what_is_judged_is_warned_of():
    fit = trained(SHAPE)
    with pytest.warns(UserWarning, match="column 0"):
        fit.elbo(JULIAN, k=1)
    with pytest.warns(UserWarning, match="column 0"):
        ppdgm.log_weights(fit.program, fit.params, JULIAN, backend="pyro")


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**40 + 3])
def test_whole_numbers_that_jax_would_cut_are_refused(number):
    runtime = Runtime(PPCA(event_shape=(3,), latent=1), "cpu")
    with pytest.raises(UnsupportedByBackend, match=f"{number}, but JAX is in 32-bit mode"):
        runtime.put({"when": np.array([1, number])})
    runtime.put({"when": np.array([2**31 - 1, -(2**31)])})
