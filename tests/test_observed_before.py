"""Programs with several fields: an observed site before another, sites with other names than their fields, classes.

z ~ N(0.3 t, 1), c ~ Cat(.2, .5, .3) observed, b ~ Bernoulli(0.9) observed, x ~ N(w z + m_c + 10·[b = 1], 0.4) observed.
"""

import warnings

import numpy as np
import pytest
from readings import BACKENDS

import ppdgm
from ppdgm import Program
from ppdgm.data import Classes, Transform
from ppdgm.errors import DataError

W, M, N = np.array([0.5, -0.6]), np.array([-1.0, 0.0, 2.0]), 40
CODINGS = {
    "x": Transform("standardise", mean=np.array([1000.0, -3.0]), scale=np.array([50.0, 0.1])),
    "label": Classes(("ant", "bee", "cat")),
    "bit": Classes(("no", "yes")),
}


class Fields(Program):
    x: str = "x"
    label: str = "label"

    def build(self, c):
        c.param("one", (), lambda rng, shape, data: np.ones(shape))

    def model(self, P, x, label, bit, t):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(0.3 * t * P.param("one"), 1.0))
            c = P.sample(self.label, P.dist.Categorical(probs=P.constant(np.array([0.2, 0.5, 0.3]))), obs=label)
            b = P.sample("bit", P.dist.Bernoulli(probs=P.full((), 0.9)), obs=bit)
            mean = z[..., None] * P.constant(W) + (P.constant(M)[c] + 10.0 * (b == 1))[..., None]
            P.sample(self.x, P.dist.Normal(mean, 0.4).to_event(1), obs=x)

    def guide(self, P, x, label, bit, t):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(x.sum(-1) + t, 1.0))


def rows(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 2)).astype("float32")
    return {"x": x, "label": rng.integers(0, 3, N), "bit": np.float32(rng.random(N) < 0.5), "t": rng.normal(size=N)}


def fitted(backend, codings=None, **names):
    info = {"fields": ["x", "label", "bit", "t"], "shapes": {"x": [2], "label": [], "bit": [], "t": []}}
    return ppdgm.Fit(Fields(**names), {"one": np.float32(1)}, backend, info=info, codings=codings or {})


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_comes_after_an_observed_site_sees_its_data(backend):
    """`reconstruct`: E[x | z, c, b] at the row's own c and b, as in the density; not at their mean or mode."""
    data = rows()
    found = fitted(backend).reconstruct(data)
    z = data["x"].sum(1) + data["t"]
    expected = z[:, None] * W + (M[data["label"]] + 10 * data["bit"])[:, None]
    np.testing.assert_allclose(found["x"], expected, atol=1e-5)
    assert (found["label"] == 1).all()
    np.testing.assert_allclose(found["bit"], 0.9, rtol=1e-6)


@pytest.mark.statistical
@pytest.mark.parametrize("backend", BACKENDS)
def test_means_of_samples_are_those_given_draws_of_what_comes_before(backend):
    """E[x] = 0.3 t w + E m_c + 9, at 5 standard errors, seed 1; each row's b is 0 or 1."""
    drawn = fitted(backend).sample(2000, seed=1, mean=True, given={"t": 2.0})
    var = 0.2 * 1 + 0.3 * 4 - (0.3 * 2 - 0.2) ** 2 + 9.0  # of m_c, and of 10 b
    error = np.sqrt((W**2 + var) / 2000)
    assert (abs(drawn["x"].mean(0) - (0.6 * W + 0.4 + 9)) < 5 * error).all()
    without_z = drawn["x"] @ np.array([0.6, 0.5]) / 1.1
    assert set(np.round(without_z)) == {m + b for m in M for b in (0, 10)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("names", [{}, {"x": "seen", "label": "kind"}])
def test_sites_leave_in_own_units_whatever_their_names_are(backend, names):
    """The same numbers as in prepared units, scaled; classes by name, a mean by the nearest class."""
    fit, data = fitted(backend, CODINGS, **names), rows()
    x, label = names.get("x", "x"), names.get("label", "label")
    T, words = CODINGS["x"], np.array(["ant", "bee", "cat"])
    own = {**data, "x": T.invert(data["x"]), "label": words[data["label"]]}
    own["bit"] = np.array(["no", "yes"])[data["bit"].astype(int)] if backend == "numpyro" else data["bit"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mean in (False, True):
            inner, outer = (fit.sample(30, mean=mean, given={"t": 0.5}, units=u) for u in ("prepared", "own"))
            np.testing.assert_allclose(outer[x], np.asarray(inner[x]) * T.scale + T.mean, rtol=1e-5)
            np.testing.assert_array_equal(outer[label], words[np.asarray(inner[label])])
        assert (outer["bit"] == "yes").all()
        held = fit.sample(3, given={"t": 0.5, "label": "cat"})
        assert held[label].tolist() == ["cat"] * 3 and (held[x][:, 0] > 500).all()
        made = fit.reconstruct(own)
        told = fit.to_arviz(own, draws=4, predictive=3, prior=5)
    np.testing.assert_allclose(made[x].mean(), (fitted(backend).reconstruct(data)["x"] * T.scale + T.mean).mean(), 1e-5)
    assert (made["bit"] == "yes").all() and (made[label] == "bee").all()
    for group, lead in (("posterior_predictive", (1, 3, N)), ("prior_predictive", (1, 5))):
        assert told[group][label].shape == lead and set(np.unique(told[group][label].values)) <= set(words)
        assert told[group][x].shape == (*lead, 2) and (told[group][x].values[..., 0] > 500).all()
    assert set(told["observed_data"]) == {"x", "label", "bit"} and set(told["constant_data"]) == {"t"}
    np.testing.assert_array_equal(told["observed_data"]["label"].values, own["label"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_see_the_field_that_is_checked(backend):
    """Also if it is not the first field, and in own units."""
    seen = []
    fit, data = fitted(backend, CODINGS, x="seen"), rows()
    own = {"t": data["t"], "label": np.array(["ant", "bee", "cat"])[data["label"]], "bit": data["bit"]}
    own["x"] = CODINGS["x"].invert(data["x"])
    statistics = {"first": lambda x: seen.append(x[:, 0].mean()) or x[:, 1].std()}
    found = fit.diagnose(own, parts=("likelihood", "predictive"), k=5, replicated=2, statistics=statistics)
    assert (np.array(seen) > 500).all()
    assert found.log_likelihood.of == "standardised x" and " nats of standardised x" in str(found)
    assert found.table()["log_likelihood"]["of"] == "standardised x"


def pair(backend):
    """The same as a plain pair, without t and the classes."""
    if backend == "numpyro":
        import jax.numpy as np_
        import numpyro as library
        from numpyro import distributions as dist
    else:
        import pyro as library
        import torch as np_
        from pyro import distributions as dist

    def model(x, bit):
        one = library.param("one", np_.ones(()))
        with library.plate("data", x.shape[0]):
            z = library.sample("z", dist.Normal(np_.zeros(()), one))
            b = library.sample("bit", dist.Bernoulli(0.9 * np_.ones(())), obs=bit)
            library.sample("seen", dist.Normal(z + 10 * (b == 1), 0.4), obs=x)

    def guide(x, bit):
        with library.plate("data", x.shape[0]):
            library.sample("z", dist.Normal(2 * x, 1.0))

    return (Program.from_numpyro if backend == "numpyro" else Program.from_pyro)(model, guide)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pairs_see_data_and_draws_too(backend):
    """As in the first two tests; the site of x has another name, and x is standardised."""
    data, T = rows(), Transform("standardise", mean=np.array(1000.0), scale=np.array(50.0))
    x, bit = data["x"][:, 0], data["bit"]
    fit = ppdgm.fit(pair(backend), {"x": x, "bit": bit}, epochs=1, learning_rate=1e-9, progress=False, compile=False)
    made = fit.reconstruct({"x": x, "bit": bit})
    np.testing.assert_allclose(made["seen"], 2 * x + 10 * bit, atol=1e-5)
    np.testing.assert_allclose(made["bit"], 0.9, rtol=1e-6)
    drawn = fit.sample(500, seed=1, mean=True)["seen"]
    assert abs(drawn.mean() - 9.0) < 5 * np.sqrt(10 / 500)
    fit.codings["x"] = T
    np.testing.assert_allclose(fit.sample(500, seed=1, mean=True)["seen"], 50 * drawn + 1000, rtol=1e-5)
    np.testing.assert_allclose(fit.reconstruct({"x": T.invert(x), "bit": bit})["seen"], 50 * made["seen"] + 1000, 1e-4)
    assert fit.elbo({"x": T.invert(x), "bit": bit}).of == "standardised x"


class Regression(Program):
    """y | x, z: nothing draws x."""

    def build(self, c):
        c.param("one", (), lambda rng, shape, data: np.ones(shape))

    def model(self, P, x, y):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((), 0.0), P.param("one")))
            P.sample("y", P.dist.Normal(x[..., 0] + z, 1.0), obs=y)

    def guide(self, P, x, y):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(0.5 * (y - x[..., 0]), 1.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_density_of_other_fields_is_not_one_of_standardised_x(backend):
    codings = {"x": CODINGS["x"]}
    fit = ppdgm.Fit(Regression(), {"one": np.float32(1)}, backend, info={"fields": ["x", "y"]}, codings=codings)
    data = {"x": CODINGS["x"].invert(rows()["x"]), "y": rows()["t"]}
    assert fit.elbo(data).of == "" and " nats (N = 40" in str(fit.log_likelihood(data, k=10))
    found = fit.diagnose(data, parts=("likelihood", "predictive"), k=5, replicated=2)
    assert found.units == "" and " nats, " in str(found.verdict[0])


def test_a_class_without_a_name_is_refused():
    with pytest.raises(DataError, match="got class 2, but the data have only the 2 classes no, yes"):
        CODINGS["bit"].decode(np.array([0, 2]))
    assert CODINGS["bit"].decode(np.array([-1, 0.9, 0.2])).tolist() == ["", "yes", "no"]
