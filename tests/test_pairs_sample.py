"""`sample` of plain pairs: n rows from the model alone, whatever its plate, unless it reads the data.

w ~ N(3, 0), z ~ N(0, 1), x ~ N(w z + b, σ²) with b = 1 or b[label]: x has mean b and variance 9 + σ², row by row.
"""

import warnings

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch

import ppdgm
from ppdgm import Program
from ppdgm.errors import DataError, ProgramError

N, D, PART, SCALE = 20, 2, 4, 0.5
X = np.random.default_rng(0).normal(size=(N, D)).astype("float32")
LABEL = np.arange(N) % 2
LIBRARIES = {"numpyro": (numpyro, numpyro_dist, jnp), "pyro": (pyro, pyro_dist, torch)}


def pair_of(backend, plate=lambda x: (len(x),), guide_plate=None, reads=False, labelled=False):
    lib, dist, xp = LIBRARIES[backend]

    def model(x, label=None):
        w = lib.sample("w", dist.Normal(xp.zeros(()), 1.0))
        b = 1.0 if label is None else lib.param("b", xp.arange(2) * 10.0)[label][..., None]
        with lib.plate("data", *plate(x)) as i:
            x = x[i] if guide_plate else x
            z = lib.sample("z", dist.Normal(xp.zeros(()), 3.0))
            loc = z[..., None] + b + xp.zeros(D) + (x[:, :1] if reads else 0.0)
            lib.sample("x", dist.Normal(loc + 0.0 * w, SCALE).to_event(1), obs=x)
            lib.sample("shared", dist.Normal(w + 0.0 * z, 1e-3), obs=0.0 * x[:, 0])

    def guide(x, label=None):
        m = lib.param("m", xp.zeros(()))
        lib.sample("w", dist.Normal(m, 0.1))
        with lib.plate("data", *(guide_plate or plate)(x)):
            lib.sample("z", dist.Normal(m, 1.0))

    return getattr(Program, f"from_{backend}")(model, guide)


def trained(pair, data=X):
    return ppdgm.fit(pair, data, steps=1, learning_rate=1e-9, progress=False)


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("kind", ["full", "drawn by the guide alone"])
def test_rows_are_the_models(kind, backend):
    part = None if kind == "full" else (lambda x: (len(x), PART))
    fit = trained(pair_of(backend, guide_plate=part))
    n = 2000 if part is None else 402
    found = fit.sample(n, seed=1)
    x, variance = found["x"], 9 + SCALE**2
    assert x.shape == (n, D)
    assert found["shared"].std() < 3e-3  # one draw of w for all rows, chunk by chunk too
    assert abs(x.mean(0) - 1.0).max() < 5 * np.sqrt(variance / n)
    assert abs(x.var(0) / variance - 1.0).max() < 5 * np.sqrt(2 / n)
    means = fit.sample(n, seed=1, mean=True)["x"]
    assert abs(means.var(0) / 9.0 - 1.0).max() < 5 * np.sqrt(2 / n)
    assert (means[:, 0] == means[:, 1]).all()
    assert not np.array_equal(x, fit.sample(n, seed=2)["x"])


@pytest.mark.parametrize("backend", LIBRARIES)
def test_what_the_model_reads_is_given(backend):
    fit = trained(pair_of(backend, labelled=True), {"x": X, "label": LABEL})
    found = fit.sample(400, given={"label": np.arange(400) % 2}, mean=True)["x"][:, 0]
    assert abs(found[1::2].mean() - found[::2].mean() - 10.0) < 5 * 3 * np.sqrt(2 / 200)
    with pytest.raises(DataError, match=r"draws the other fields given 'label'.*given=\{'label': …\}"):
        fit.sample(8)
    with pytest.raises(DataError, match="does not read 'x'"):
        fit.sample(8, given={"label": 1, "x": X[:8]})
    with pytest.raises(DataError, match="got 'z', expected a field of the data"):
        fit.sample(8, given={"label": 1, "z": X[:8, 0]})
    with pytest.raises(ProgramError, match="The model uses the values of 'x', not only its shape"):
        trained(pair_of(backend, reads=True)).sample(3)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_given_field_holds_what_the_data_hold(backend):
    """A field of whole numbers would cut 2.5 to 2, and a row of the wrong shape would go to each row of the data."""
    lib, dist, xp = LIBRARIES[backend]

    def model(x, dose, place):
        slope = lib.param("slope", 2.0 * xp.ones(()))
        with lib.plate("data", x.shape[0]):
            lib.sample("x", dist.Normal(slope * dose + place.sum(-1), 1e-3), obs=x)

    pair = getattr(Program, f"from_{backend}")(model, lambda x, dose, place: None)
    place = np.zeros((N, 3), "float32")
    fit = trained(pair, {"x": 2.0 * LABEL.astype("float32"), "dose": LABEL, "place": place})
    rows = np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2]])
    found = fit.sample(3, given={"dose": np.array([2.0, 0.0, 5.0]), "place": rows})
    np.testing.assert_allclose(found, [4.0, 3.0, 16.0], atol=0.01)
    for dose, where, told in (
        (2.5, rows, r"given: got 2.5 for 'dose', which is int64 in the data .*expected whole numbers"),
        (2, np.arange(3), r"given: got 'place' of shape \(3,\), expected \(3, 3\)"),
        (2, rows + np.nan, "Data 'place': got nan"),
    ):
        with pytest.raises(DataError, match=told):
            fit.sample(3, given={"dose": dose, "place": where})


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_factor_that_draws_ignore_is_reported(backend):
    """p(z) ∝ N(0, 1) for z > −2.5: a run of the model draws z < −2.5 too, in 6 of 1,000 rows."""
    lib, dist, xp = LIBRARIES[backend]

    def model(x, of):
        with lib.plate("data", x.shape[0]):
            z = lib.sample("z", dist.Normal(xp.zeros(()), 1.0))
            lib.factor("positive", xp.where(z > -2.5, 0.0, -xp.inf) if of == "z" else 0.0 * x - 2.0)
            lib.sample("x", dist.Normal(z, 0.1), obs=x)

    def guide(x):
        with lib.plate("data", x.shape[0]):
            lib.sample("z", dist.LogNormal(lib.param("m", xp.zeros(())), 0.1))

    for of, told in (("z", True), ("x", False)):
        pair = getattr(Program, f"from_{backend}")(lambda x, of=of: model(x, of), guide)
        fit = trained(pair, np.abs(X[:, 0]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit.sample(1)
        assert (
            any("'positive' is a factor that depends on what the model draws" in str(w.message) for w in caught) == told
        )


def bits_of(backend, reads):
    """x ~ Bernoulli(σ(−6 + 3y)), or σ(−6), for the rows that are there: at y = 0 and 1, few draws differ."""
    lib, dist, xp = LIBRARIES[backend]

    def model(x, y, there):
        w = lib.param("w", xp.ones(()) * 3.0)
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(xp.zeros(()), 1.0))
            logits = -6.0 + 0.0 * z + w * (y if reads else 0.0)
            lib.sample("x", dist.Bernoulli(logits=logits).mask(there), obs=x)

    def guide(x, y, there):
        with lib.plate("data", len(x)):
            lib.sample("z", dist.Normal(xp.zeros(()), 1.0))

    return getattr(Program, f"from_{backend}")(model, guide)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_field_that_few_draws_depend_on_is_given(backend):
    data = {"x": LABEL.astype("float32"), "y": X[:, 0], "there": LABEL > 0}
    fit = trained(bits_of(backend, True), data)
    with pytest.raises(DataError, match="draws the other fields given 'y'"):
        fit.sample(1)
    assert fit.sample(2, given={"y": np.float32([-9, 9])}).tolist() == [0, 1]
    assert trained(bits_of(backend, False), data).sample(2).tolist() == [0, 0]  # a mask moves no draw
