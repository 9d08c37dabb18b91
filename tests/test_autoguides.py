"""The libraries' own guides over latents of each datum, and over one for all: parameters meet the data that are theirs.

x ~ N(z, σ²), z ~ N(0, 1): the posterior of z is N(x / (1 + σ²), σ² / (1 + σ²)), datum by datum.
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
from scipy import stats

import ppdgm
from ppdgm import Program
from ppdgm.backends.pyro import Runtime
from ppdgm.errors import DataError, ProgramError, UnsupportedByBackend
from ppdgm.inference import IWAE, SVI, Renyi, ReweightedWakeSleep

N, D, SCALE = 20, 3, 0.5
X = np.random.default_rng(0).normal(size=(N, D)).astype("float32") * 2.0
LIBRARIES = {
    "numpyro": (numpyro, numpyro_dist, numpyro_guides, jnp),
    "pyro": (pyro, pyro_dist, pyro_guides, torch),
}
PLATES = {"follows the data": {}, "of all data": {"size": N}, "subsamples": {"size": N, "part": 5}}


def make(backend, guide, size=None, part=None, shared=False):
    """A pair with an autoguide; the latent is in the plate, or one for all data."""
    lib, dist, guides, xp = LIBRARIES[backend]

    def model(x):
        latent = lambda: lib.sample("z", dist.Normal(xp.zeros(D), 1.0).to_event(1))
        z = latent() if shared else None
        with lib.plate("data", size or x.shape[0], subsample_size=part) as i:
            mean = z if shared else latent()
            lib.sample("x", dist.Normal(mean, SCALE).to_event(1), obs=x[i] if part else x)

    return getattr(Program, f"from_{backend}")(model, getattr(guides, guide)(model))


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("plate", PLATES)
def test_a_guide_for_each_datum_finds_its_posterior(plate, backend):
    fit = ppdgm.fit(make(backend, "AutoNormal", **PLATES[plate]), X, steps=400, learning_rate=0.05, progress=False)
    means = next(v for n, v in fit.params.items() if "loc" in n)
    # The pathwise gradient's noise leaves a spread of about sqrt(rate) posterior deviations (0.45) around the mean.
    assert np.sqrt(np.mean((means - X / (1 + SCALE**2)) ** 2)) < 0.25  # 2 for other rows
    np.testing.assert_allclose(fit.encode(X), means, rtol=1e-6)
    for other in (X[::-1].copy(), -X):  # whose rows would get the posteriors of X[0], X[1], …
        for ask in (fit.encode, fit.elbo, fit.log_likelihood, fit.reconstruct):
            with pytest.raises(DataError, match=r"other rows than the 20 that the pair was trained on"):
                ask(other)
    with pytest.raises(DataError, match=r"other rows than the .* that the pair was trained on"):
        ppdgm.fit(make(backend, "AutoNormal", **PLATES[plate]), X, validation=-X, steps=1, progress=False)


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("guide", ["AutoNormal", "AutoDiagonalNormal"])
def test_a_guide_for_one_latent_finds_its_posterior(guide, backend):
    pair = make(backend, guide, shared=True)
    fit = ppdgm.fit(pair, X, steps=1000, batch_size=N, learning_rate=0.02, progress=False)
    means = next(v for n, v in fit.params.items() if "loc" in n)
    np.testing.assert_allclose(means, X.sum(0) / (N + SCALE**2), atol=0.08)


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("role", ["guide", "model", "neither"])
def test_rows_do_not_meet_what_was_learned_of_others(role, backend):
    """A guide of x and of an offset for each row; a model with one; and a parameter that is as long by chance."""
    lib, dist, _, xp = LIBRARIES[backend]

    def model(x):
        known = lib.param("model offset", xp.zeros(N)) if role == "model" else 0.0
        with lib.plate("data", N):
            z = lib.sample("z", dist.Normal(0.0 * x, 1.0))
            lib.sample("x", dist.Normal(z + known, 1.0), obs=x)

    def guide(x):
        found = lib.param("offset", xp.zeros(N))
        with lib.plate("data", N):
            lib.sample("z", dist.Normal(0.5 * x + (found if role == "guide" else found.mean()), 0.7))

    x = X[:, 0]
    fit = ppdgm.fit(getattr(Program, f"from_{backend}")(model, guide), x, steps=5, learning_rate=0.1, progress=False)
    for ask in (fit.encode, fit.elbo):
        ask(x)
        if role == "neither":
            ask(-x)
            continue
        with pytest.raises(DataError, match=r"other rows than the 20 that the pair was trained on"):
            ask(-x)


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("kind", ["another axis", "one vector", "closed over", "nothing"])
def test_rows_that_are_not_the_first_axis_of_a_parameter_are_known_too(kind, backend):
    """Parameters [D, N] and [N * D]; an array of the program's own; and a plate of N that keeps nothing for a row."""
    lib, dist, guides, xp = LIBRARIES[backend]
    if (kind, backend) == ("one vector", "numpyro"):
        return  # NumPyro's autoguides of one vector are refused in a plate
    place = xp.linspace(-3.0, 3.0, N) if kind == "closed over" else xp.zeros(N)

    def model(x):
        scale = lib.param("scale", xp.ones(()))
        with lib.plate("columns", D, dim=-2), lib.plate("data", N, dim=-1):
            z = lib.sample("z", dist.Normal(place, 1.0))
            lib.sample("x", dist.Normal(z, 0.1 + scale**2), obs=x.T)

    def guide(x):
        with lib.plate("columns", D, dim=-2), lib.plate("data", N, dim=-1):
            loc = lib.param("loc", xp.zeros(2)).sum() + (x.T if kind == "closed over" else 0.0)
            lib.sample("z", dist.Normal(loc, 0.5))

    auto = {"another axis": "AutoNormal", "one vector": "AutoDiagonalNormal"}.get(kind)
    pair = getattr(Program, f"from_{backend}")(model, getattr(guides, auto)(model) if auto else guide)
    fit = ppdgm.fit(pair, X, steps=2, learning_rate=0.1, progress=False)
    for ask in (fit.encode, fit.elbo):
        ask(X)
        if kind == "nothing":
            ask(-X)
            continue
        with pytest.raises(DataError, match=r"other rows than the 20 that the pair was trained on"):
            ask(-X)


def test_parameters_of_a_pyro_pair_meet_their_own_data():
    """Minibatches come in any order: what is kept for each datum in the data's order must not meet another."""

    def model(x):
        with pyro.plate("data", N):
            z = pyro.sample("z", pyro_dist.Normal(torch.zeros(D), 3.0).to_event(1))
            pyro.sample("x", pyro_dist.Normal(z, 0.1).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", N):
            pyro.sample("z", pyro_dist.Normal(pyro.param("loc", torch.tensor(X)), 0.1).to_event(1))

    runtime = Runtime(Program.from_pyro(model, guide), "cpu")
    params = runtime.put(runtime.initialise(0, {"x": X}, "float32"))
    order = np.random.default_rng(0).permutation(N)
    found = runtime.trace(params, runtime.put({"x": X}), order, 3, 0, None, True)
    assert abs(found.values["z"] - X[order]).max() < 0.6
    assert found.log_p["x"].min() > -20.0
    latents, observed = runtime.means(params, runtime.put({"x": X}), order)
    np.testing.assert_allclose([latents["z"][0], observed["x"][0]], [X[order]] * 2, rtol=1e-6)
    kl = 0.5 * ((0.1**2 + X[order] ** 2) / 9.0 - 1.0) - np.log(0.1 / 3.0)
    np.testing.assert_allclose(found.kl["z"][0], kl, rtol=1e-4)


def test_a_guide_is_scored_again_at_its_own_draws_or_not_at_all():
    """With "stl" of NumPyro's guides: a variance of σ² / (N + σ²); one that draws another site has none to keep."""
    options = {"steps": 600, "batch_size": N, "learning_rate": 0.02, "progress": False}
    fit = ppdgm.fit(make("numpyro", "AutoNormal", shared=True), X, engine=SVI(estimator="stl"), **options)
    spread = np.log1p(np.exp(np.concatenate([v for n, v in fit.params.items() if "scale" in n])))
    np.testing.assert_allclose(spread, SCALE / np.sqrt(N + SCALE**2), rtol=0.05)  # exact at the optimum: no noise there
    for guide in ("AutoDiagonalNormal", "AutoMultivariateNormal"):
        with pytest.raises(ProgramError, match=r"draws '_auto_latent', which is not a latent of the model.*AutoNormal"):
            ppdgm.fit(make("numpyro", guide, shared=True), X, engine=SVI(estimator="stl"), **options)
    for shared, engine in ((True, SVI(estimator="stl")), (False, IWAE(k=2, estimator="dreg"))):
        with pytest.raises(
            UnsupportedByBackend, match=r"'stl' and 'dreg' do not work with plain Pyro pairs.*'reparam'"
        ):
            ppdgm.fit(make("pyro", "AutoNormal", shared=shared), X, engine=engine, **options)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_point_beside_a_draw_is_a_point(backend):
    """z at a point, y a Delta that carries the draw u ~ N(0, 1): y has a density, z has none, whatever u is."""
    lib, dist, _, xp = LIBRARIES[backend]
    x = np.array([0.1, -0.4, 1.0], "float32")
    loc = lambda: lib.param("loc", xp.zeros(1))

    def model(x):
        with lib.plate("data", x.shape[0]):
            z = lib.sample("z", dist.Normal(0.0 * x, 1.0))
            y = lib.sample("y", dist.Normal(z, 1.0))
            lib.sample("x", dist.Normal(y, 1.0), obs=x)

    def guide_of(z_is_a_point):
        def guide(x):
            with lib.plate("data", x.shape[0]):
                normal = dist.Normal(loc() + 0.5 * x, 0.7)
                lib.sample("z", dist.Delta(loc() + 0.5 * x) if z_is_a_point else normal)
                u = lib.sample("u", dist.Normal(0.0 * x, 1.0), infer={"is_auxiliary": True})
                lib.sample("y", dist.Delta(0.6 * x + 0.8 * u, log_density=-np.log(0.8)))

        return guide

    for z_is_a_point in (True, False):
        pair = getattr(Program, f"from_{backend}")(model, guide_of(z_is_a_point))
        fit = ppdgm.fit(pair, x, steps=1, progress=False)
        assert fit.elbo(x).of == ("x, with z at a point" if z_is_a_point else "")
        if z_is_a_point:
            for ask in (fit.log_likelihood, fit.log_weights):
                with pytest.raises(ProgramError, match="Site 'z': the guide is a point mass there"):
                    ask(x)
        else:  # x ~ N(0, 3)
            found = fit.log_likelihood(x, k=4000)
            assert abs(found.values - stats.norm(0, np.sqrt(3)).logpdf(x)).max() < 5 * found.errors.max()


@pytest.mark.parametrize("engine", [IWAE(k=3), IWAE(k=4, guide_groups=2), Renyi(k=2), ReweightedWakeSleep(k=2)])
@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_point_is_not_weighed_in_training(engine, backend):
    """K times one point have one weight: IWAE reported log p(x, ẑ) as its bound."""
    lib, dist, guides, _ = LIBRARIES[backend]

    def model(x):
        with lib.plate("data", x.shape[0]):
            lib.sample("x", dist.Normal(lib.sample("z", dist.Normal(0.0 * x, 1.0)), 1.0), obs=x)

    pair = getattr(Program, f"from_{backend}")(model, guides.AutoDelta(model))
    with pytest.raises(ProgramError, match="Site 'z': the guide is a point mass there"):
        ppdgm.fit(pair, np.zeros(3, "float32"), engine=engine, steps=1, progress=False)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_point_is_no_posterior(backend):
    """x ~ Poisson(z), z ~ Gamma(2, 1): log p(x, ẑ) at the point of AutoDelta is no bound on log p(x)."""
    lib, dist, guides, xp = LIBRARIES[backend]
    x = np.array([0, 1, 2, 5, 3, 1], "float32")

    def model(x):
        with lib.plate("data", x.shape[0]):
            z = lib.sample("z", dist.Gamma(2.0 * xp.ones(()), 1.0))
            lib.sample("x", dist.Poisson(z), obs=x)

    for guide, is_point in (("AutoDelta", True), ("AutoNormal", False)):
        pair = getattr(Program, f"from_{backend}")(model, getattr(guides, guide)(model))
        fit = ppdgm.fit(pair, x, steps=2, progress=False)
        if not is_point:
            assert np.isfinite(fit.log_likelihood(x, k=5).mean) and not fit.elbo(x).of
            continue
        for ask in (fit.log_likelihood, fit.log_weights, fit.posterior):
            with pytest.raises(ProgramError, match=r"Site 'z': the guide is a point mass there \(Delta\)"):
                ask(x)
        assert fit.elbo(x).of == "x, with z at a point"
        marked = ppdgm.data.Prepared(x, ppdgm.data.Transform())  # on the scale of the raw numbers
        assert ppdgm.fit(pair, marked, steps=1, progress=False).elbo(marked).of == "x, with z at a point"
        assert "likelihood" in fit.diagnose(x, k=30, parts=("likelihood",)).withheld


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_point_at_a_parameter_is_read_at_the_parameters_that_are_given(backend):
    """The point is the parameter itself: its value must not be another's once the reading is over."""
    lib, dist, _, xp = LIBRARIES[backend]
    x = np.array([1, 2, 3, 4], "float32")

    def model(x):
        z = lib.sample("z", dist.Normal(0.0, 1.0 * xp.ones(())))
        with lib.plate("data", x.shape[0]):
            lib.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        lib.sample("z", dist.Delta(lib.param("point", 0.7 * xp.ones(()))))

    pair = getattr(Program, f"from_{backend}")(model, guide)
    early = ppdgm.fit(pair, x, steps=1, progress=False)
    late = ppdgm.fit(pair, x, steps=200, learning_rate=0.05, progress=False)
    assert abs(late.params["point"] - early.params["point"]) > 0.5
    for fit in (early, late):
        z = ppdgm.trace(pair, fit.params, x, k=2).values["z"]
        np.testing.assert_array_equal(z, np.full((2, 1), fit.params["point"]))
        np.testing.assert_array_equal(fit.encode(x), fit.params["point"][None])


def test_a_flow_autoguide_has_the_same_names_in_each_runtime(tmp_path):
    """Its modules are seen in another order once it is set up; one tensor has two names, and is trained once."""

    def model(x):
        z = pyro.sample("z", pyro_dist.Normal(torch.zeros(D), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", pyro_dist.Normal(z, SCALE).to_event(1), obs=x)

    make = lambda: Program.from_pyro(model, pyro_guides.AutoIAFNormal(model))
    pair = make()
    fit = ppdgm.fit(pair, X, steps=2, progress=False)
    assert np.isfinite(ppdgm.trace(pair, fit.params, X).log_p["x"]).all()
    fit.save(tmp_path / "run")
    assert ppdgm.load(tmp_path / "run", program=make()).elbo(X, seed=1).mean == fit.elbo(X, seed=1).mean
    tracer = fit._runtime.tracer
    trained = [id(tracer._live[n]) for n in tracer.labels]
    assert len(set(trained)) == len(trained)
