"""Data plates as the libraries' own examples write them: without a size, drawn by the guide alone, and with parameters
for each datum.

x ~ N(z, σ²), z ~ N(0, 1), q(z) = N(m, s²): log p and log q are SciPy's, and the best m is x / (1 + σ²), row by row.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import numpyro.infer.autoguide as numpyro_guides
import pyro
import pyro.distributions as pyro_dist
import pyro.infer.autoguide as pyro_guides
import pytest
import torch
from pyro.contrib.easyguide import EasyGuide
from scipy.stats import norm

import ppdgm
from ppdgm import Program
from ppdgm.errors import PpdgmError, ProgramError
from ppdgm.registry import backend as load_backend

N, D, PART, SCALE, WIDTH = 40, 3, 8, 0.5, 0.4
X = np.random.default_rng(0).normal(size=(N, D)).astype("float32") * 2.0
LIBRARIES = {
    "numpyro": (numpyro, numpyro_dist, numpyro_guides, jnp, lambda init: lambda key: init()),
    "pyro": (pyro, pyro_dist, pyro_guides, torch, lambda init: init),
}


def weight(lib, xp, lazy, x):
    """What the guide multiplies x by: one number for each of D."""
    return lib.param("w", 0.5 * xp.ones(D))


def loc(lib, xp, lazy, x):
    """A parameter for each datum, as many as there are data."""
    return lib.param("loc", lazy(lambda: 0.5 * xp.ones((len(x), D))))


def written(lib, xp, lazy, x):
    """A parameter for each datum, of a number that is written down."""
    return lib.param("loc", 0.5 * xp.ones((N, D)))


def pair_of(backend, model_plate, guide_plate, mean, param):
    """A pair from its plates, and from what its guide's mean is, of x, parameter and indices."""
    lib, dist, _, xp, lazy = LIBRARIES[backend]

    def model(x):
        with lib.plate("data", *model_plate(x)) as i:
            x = x if i is None or len(i) == len(x) else x[i]
            z = lib.sample("z", dist.Normal(xp.zeros((len(x), D)), 1.0).to_event(1))
            lib.sample("x", dist.Normal(z, SCALE).to_event(1), obs=x)

    def guide(x):
        p = param(lib, xp, lazy, x)
        with lib.plate("data", *guide_plate(x)) as i:
            lib.sample("z", dist.Normal(mean(x, p, slice(None) if i is None else i), WIDTH).to_event(1))

    return getattr(Program, f"from_{backend}")(model, guide)


full, none, part = (lambda x: (len(x),)), (lambda x: ()), (lambda x: (len(x), PART))
amortised, own = (lambda x, w, i: x[i] * w), (lambda x, m, i: m[i])
KINDS = {
    "no size": (none, none, amortised, weight),
    "no size in the model alone": (none, full, amortised, weight),
    "drawn by the guide alone": (full, part, amortised, weight),
    "a parameter for each datum": (full, full, own, loc),
    "a parameter for each of 40": (full, full, lambda x, m, i: m, written),
    "a parameter for each datum, drawn by the guide alone": (full, part, own, loc),
}
CASES = [(b, k) for b in LIBRARIES for k in KINDS if b == "pyro" or "no size" not in k]


@pytest.mark.parametrize(("backend", "kind"), CASES)
def test_terms_are_those_of_each_row(backend, kind):
    pair = pair_of(backend, *KINDS[kind])
    runtime = load_backend(backend).Runtime(pair, "cpu")
    params = runtime.put(runtime.initialise(0, {"x": X}, "float32"))
    order = np.random.default_rng(1).permutation(N)[: runtime.tracer.batch_size or 5]
    found = runtime.trace(params, runtime.put({"x": X}), order, 2, 0, None, False)
    z = found.values["z"]
    m = 0.5 * X[order] if "w" in params else 0.5
    np.testing.assert_allclose(found.log_q["z"], norm(m, WIDTH).logpdf(z).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(found.log_p["z"], norm(0.0, 1.0).logpdf(z).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(found.log_p["x"], norm(z, SCALE).logpdf(X[order]).sum(-1), rtol=1e-4)


def easy(backend):
    """Pyro's EasyGuide, which keeps a point for each datum."""

    class Guide(EasyGuide):
        def guide(self, x):
            with self.plate("data", len(x)):
                self.map_estimate("z")

    model = pair_of(backend, *KINDS["drawn by the guide alone"]).model
    return Program.from_pyro(model, Guide(model))


def drawn_by_an_autoguide(backend):
    """The libraries' AutoNormal with `create_plates`, under a model whose plate is full."""
    lib, _, guides, _, _ = LIBRARIES[backend]
    model = pair_of(backend, *KINDS["drawn by the guide alone"]).model
    guide = guides.AutoNormal(model, create_plates=lambda x: lib.plate("data", len(x), subsample_size=PART))
    return getattr(Program, f"from_{backend}")(model, guide)


def drawn_by_both(backend):
    """The same where the model subsamples too."""
    lib, dist, guides, xp, _ = LIBRARIES[backend]

    def model(x):
        with lib.plate("data", len(x), subsample_size=PART):
            z = lib.sample("z", dist.Normal(xp.zeros(D), 1.0).to_event(1))
            lib.sample("x", dist.Normal(z, SCALE).to_event(1), obs=lib.subsample(x, event_dim=1))

    guide = guides.AutoNormal(model, create_plates=lambda x: lib.plate("data", len(x), subsample_size=PART))
    return getattr(Program, f"from_{backend}")(model, guide)


def of_each_datum(kind):
    return lambda backend: pair_of(backend, *KINDS[kind])


OWN = {
    "a parameter for each datum": of_each_datum("a parameter for each datum"),
    "a parameter for each of 40": of_each_datum("a parameter for each of 40"),
    "easy guide": easy,
    "autoguide": drawn_by_an_autoguide,
    "autoguide of both": drawn_by_both,
}


FOUND = [("pyro", k) for k in OWN if k != "autoguide of both"] + [("numpyro", k) for k in OWN if k != "easy guide"]


@pytest.mark.parametrize(("backend", "kind"), FOUND)
def test_each_row_finds_its_own_posterior_and_other_rows_have_none(backend, kind):
    fit = ppdgm.fit(OWN[kind](backend), X, steps=150, learning_rate=0.1, progress=False)
    found = next(v for v in fit.params.values() if v.shape == (N, D))
    # Adam's steps under the pathwise gradient's noise leave about sqrt(rate) posterior deviations (0.45) around it.
    assert np.sqrt(np.mean((found - X / (1 + SCALE**2)) ** 2)) < 0.3  # 2.1 for other rows
    np.testing.assert_allclose(fit.encode(X), found, rtol=1e-5)
    with pytest.raises(ProgramError, match=r"Got 39 rows, expected 40\. The pair has something for each row "):
        fit.elbo(X[1:])


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_pair_of_each_row_takes_all_of_them(backend):
    with pytest.raises(ProgramError, match=r"Got 7 rows, expected 40\. The pair has something for each row "):
        ppdgm.fit(OWN["autoguide"](backend), X, validation=X[:7], steps=5, progress=False)
    with pytest.raises(PpdgmError, match=r"batch_size: got 10, but the pair needs all its 40 rows"):
        ppdgm.fit(OWN["a parameter for each datum"](backend), X, batch_size=10, steps=5, progress=False)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_parameter_that_is_taken_by_place_is_refused(backend):
    """In a plate of any rows, the indices are those of the minibatch, and not of the data."""
    with pytest.raises(ProgramError, match=r"'z'.*change with its place in the minibatch\. A parameter with 40 rows"):
        ppdgm.fit(pair_of(backend, full, full, own, written), X, batch_size=10, steps=5, progress=False)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_mistakes_are_told_of_all_rows(backend):
    """Not of the few, or one more, with which a pair is looked at."""
    wrong = lambda x, m, i: m[: len(x) // 2]
    with pytest.raises(ProgramError, match=r"'z'.*batch shape \(20,\).*'data' \(40 at dim -1\)"):
        ppdgm.fit(pair_of(backend, full, full, wrong, loc), X, progress=False)


def test_one_draw_for_all_rows_in_a_plate_without_a_size_is_refused():
    """Pyro does not expand there: its own ELBO would take one draw, and count it once."""
    model = pair_of("pyro", *KINDS["no size"]).model

    def guide(x):
        w = pyro.param("w", torch.zeros(D))
        with pyro.plate("data"):
            pyro.sample("z", pyro_dist.Normal(w, 1.0).to_event(1))

    with pytest.raises(ProgramError, match=r"'z'.*batch shape \(\) inside plate 'data', which has no size"):
        ppdgm.fit(Program.from_pyro(model, guide), X, progress=False)


def test_an_autoguide_is_set_up_with_the_librarys_arrays():
    def model(x):
        m = numpyro.sample("m", numpyro_dist.Normal(jnp.zeros(D), 1.0).to_event(1))
        x = x.at[:, 0].set(1.0)
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", numpyro_dist.Normal(m, SCALE).to_event(1), obs=x)

    pair = Program.from_numpyro(model, numpyro_guides.AutoNormal(model))
    z = np.full(D, 0.3, np.float32)
    params = {"m_auto_loc": z, "m_auto_scale": z}
    terms = ppdgm.trace(pair, params, X, values={"m": z[None, None]}).log_p["x"]
    changed = np.concatenate([np.ones((N, 1)), X[:, 1:]], 1)
    np.testing.assert_allclose(terms[0], norm(z, SCALE).logpdf(changed).sum(-1), rtol=1e-4)


@pytest.mark.parametrize("family", ["AutoNormal", "AutoDiagonalNormal", "guide"])
def test_weights_of_all_data_have_a_batch_shape(family):
    """NumPyro takes a latent outside plates as it is: y = x W + ε, with W [D, 2] of N(0, 1), has a closed form."""
    y = (X @ np.arange(2 * D).reshape(D, 2) / 4.0).astype("float32")

    def model(x, y):
        w = numpyro.sample("w", numpyro_dist.Normal(jnp.zeros((D, 2)), jnp.ones((D, 2))))
        with numpyro.plate("data", len(x)):
            numpyro.sample("y", numpyro_dist.Normal(x @ w, SCALE).to_event(1), obs=y)

    def guide(x, y):
        loc = numpyro.param("loc", jnp.zeros((D, 2)))
        numpyro.sample("w", numpyro_dist.Normal(loc, 0.05))

    guide = guide if family == "guide" else getattr(numpyro_guides, family)(model)
    pair, data = Program.from_numpyro(model, guide), {"x": X, "y": y}
    fit = ppdgm.fit(pair, data, steps=300, learning_rate=0.03, batch_size=20, progress=False)
    found = fit.encode(data)
    right = np.linalg.solve(X.T @ X + SCALE**2 * np.eye(D), X.T @ y)
    np.testing.assert_allclose(found.reshape(D, 2), right, atol=0.1)
    w = right.astype("float32")[None, None]
    terms = ppdgm.trace(pair, fit.params, data, values={"w": w})
    np.testing.assert_allclose(terms.log_p["y"][0], norm(X @ right, SCALE).logpdf(y).sum(-1), rtol=1e-4)
    if family == "guide":
        log_q = norm(found.reshape(D, 2), 0.05).logpdf(right).sum()
        np.testing.assert_allclose(terms.shared["w"][0], norm(0, 1).logpdf(right).sum() - log_q, rtol=1e-3)


def test_a_latent_for_each_row_that_is_outside_the_plate_is_told():
    def model(x):
        z = numpyro.sample("z", numpyro_dist.Normal(jnp.zeros(len(x)), 1.0))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", numpyro_dist.Normal(z[:, None], jnp.ones(D)).to_event(1), obs=x)

    def guide(x):
        numpyro.sample("z", numpyro_dist.Normal(x @ numpyro.param("w", jnp.zeros(D)), 1.0))

    with pytest.raises(ProgramError, match=r"'z' is outside the data plate.*batch shape \(40,\).*Draw it inside"):
        ppdgm.fit(Program.from_numpyro(model, guide), X, steps=1, progress=False)
