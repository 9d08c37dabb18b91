"""Enumerated sites of plain pairs against sums over all values by hand, on both backends."""

from functools import cache

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions
import pyro
import pyro.distributions
import pytest
import torch
from enumerated_pairs import ALL, KINDS, TABLES, After, Before, Chain, GuidedWords, Mixture, Words, by_hand, posterior
from numpyro import handlers
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta
from scipy.stats import norm

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError
from ppdgm.inference import SVI
from ppdgm.inference.engines import bounds
from ppdgm.registry import backend as load_backend

DATA = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
LIBRARIES = {
    "pyro": (pyro, pyro.distributions, torch.tensor),
    "numpyro": (numpyro, numpyro.distributions, jnp.asarray),
}
NUMBERS = {n: np.array(v) for n, v in TABLES.items()}
both = pytest.mark.parametrize("backend", LIBRARIES)


def of(backend, model, guide):
    return getattr(Program, f"from_{backend}")(model, guide, data_plate="data")


def opened(backend, model, guide, data=DATA):
    runtime = load_backend(backend).Runtime(of(backend, model, guide), "cpu")
    params = runtime.initialise(0, {"x": data}, "float32")
    return runtime, runtime.put(params), runtime.put({"x": data})


@cache
def open_pair(kind, backend, **options):
    return opened(backend, *kind(*LIBRARIES[backend], **options).pair)


def trace(pair, k=1, index=range(5), kl=False, seed=0):
    runtime, params, data = pair
    return runtime.trace(params, data, np.asarray(index), k, seed, None, kl)


@both
@pytest.mark.parametrize("name", KINDS)
def test_terms_are_sums_by_hand(name, backend):
    kind, k = KINDS[name], 2
    found = trace(open_pair(kind, backend), k)
    log_w, elbo = (np.broadcast_to(f(found, np), (k, 5)) for f in (bounds.log_weights, bounds.elbo))
    for i in range(k):
        z = found.values["z"][..., i, :] if "z" in found.values else None
        expected = by_hand(kind, NUMBERS, DATA, z)
        np.testing.assert_allclose(elbo[i], expected[0], rtol=0, atol=3e-6)
        np.testing.assert_allclose(log_w[i], expected[1], rtol=0, atol=3e-6)


@both
def test_words_may_lie_on_either_side_of_the_data_plate(backend):
    for kind in (Words, GuidedWords):
        found = trace(open_pair(kind, backend, outer=-2))
        np.testing.assert_allclose(bounds.elbo(found, np)[0], by_hand(kind, NUMBERS, DATA)[0], rtol=0, atol=3e-6)


@both
def test_a_closed_form_is_averaged_over_the_guides_values(backend):
    found = trace(open_pair(After, backend), 1, kl=True)
    loc, p = NUMBERS["loc"], NUMBERS["guess"][1]
    each = 0.5 * (0.49 + (DATA[:, :1] - 2 * loc) ** 2 - 1) - np.log(0.7)
    np.testing.assert_allclose(found.kl["z"][0, :, 0], each @ p, rtol=1e-5)


@both
@pytest.mark.parametrize("kind", [Mixture, Chain, Words], ids=lambda kind: kind.__name__)
def test_encodings_of_summed_sites_are_their_posteriors(kind, backend):
    runtime, params, data = open_pair(kind, backend)
    latents, seen = runtime.means(params, data, np.arange(5))
    expected = posterior(kind, NUMBERS, DATA)  # of each site, [B, S]
    found = np.concatenate([np.reshape(v, (5, -1, 3)) for v in latents.values()], 1)
    np.testing.assert_allclose(found, np.stack(expected, 1), atol=2e-6)
    best = NUMBERS["loc"][np.argmax(expected[0], -1)]
    np.testing.assert_allclose(np.ravel(seen["x"]), best, rtol=1e-6)


@both
def test_a_posterior_is_given_the_other_latents_at_their_means(backend):
    runtime, params, data = open_pair(Before, backend)
    latents, _ = runtime.means(params, data, np.arange(5))
    expected = posterior(Before, NUMBERS, DATA, 0.5 * DATA[:, 0])[0]
    np.testing.assert_allclose(latents["c"][0], expected, atol=2e-6)


@pytest.mark.parametrize("name", ["mixture", "words", "guided", "guided words"])
def test_pyros_own_elbo_is_the_same(name):
    model, guide = KINDS[name](*LIBRARIES["pyro"]).pair
    with pyro.get_param_store().scope():
        loss = TraceEnum_ELBO(max_plate_nesting=2).loss(model, guide, torch.tensor(DATA))
    assert abs(loss + bounds.elbo(trace(open_pair(KINDS[name], "pyro")), np).sum()) < 3e-5


@both
def test_minibatches_of_a_subsampled_plate(backend):
    """The terms are a row's own, and a step's objective is the mean: N/B times it is what Pyro's own loss takes."""
    lib = LIBRARIES[backend][0]
    pair = open_pair(Mixture, backend, plate=lambda x: lib.plate("data", 5, subsample_size=2))
    found = trace(pair, 1, [3, 1])
    np.testing.assert_allclose(bounds.elbo(found, np)[0], by_hand(Mixture, NUMBERS, DATA)[0][[3, 1]], rtol=0, atol=3e-6)


@both
def test_draws_of_what_the_guide_enumerates(backend):
    """Only where draws are asked for: 400 draws, five standard errors."""
    runtime, params, data = open_pair(After, backend)
    drawn = runtime.draws(params, data, np.arange(5), 400, 0)
    assert drawn["y"].shape == drawn["z"].shape == (400, 5)
    p = NUMBERS["guess"][1]
    shares = np.stack([(drawn["y"] == v).mean() for v in range(3)])
    assert (np.abs(shares - p) < 5 * np.sqrt(p * (1 - p) / 2000)).all()
    mean = DATA[:, 0] - NUMBERS["loc"][drawn["y"]]
    assert abs((drawn["z"] - mean).mean()) < 5 * 0.7 / np.sqrt(2000)


@both
def test_samples_draw_what_the_model_sums_out(backend):
    """1000 rows; the mean of x to five standard errors."""
    runtime, params, _ = open_pair(Mixture, backend)
    latents, seen = runtime.prior(params, {"x": np.zeros((1000, 3), "float32")}, 1000, 0, False)
    weights, loc = NUMBERS["first"], NUMBERS["loc"]
    mean = weights @ loc
    error = np.sqrt((weights @ (loc**2 + 0.64) - mean**2) / 1000)
    assert abs(seen["x"].mean() - mean) < 5 * error
    assert set(np.unique(latents["c"])) == {0, 1, 2}


# --- written here, as they are published ------------------------------------------------------------------------------


@both
def test_a_decorated_guide_trains_without_noise(backend):
    """config_enumerate on a guide, or an estimator that enumerates: the exact ELBO, and its gradient."""
    lib, dist, new = LIBRARIES[backend]

    def model(x):
        with lib.plate("data", x.shape[0]):
            y = lib.sample("y", dist.Bernoulli(new(0.3)))
            lib.sample("x", dist.Normal(2.0 * y, 1.0), obs=x[:, 0])

    def guide(x):
        logit = lib.param("logit", new(0.5))
        with lib.plate("data", x.shape[0]):
            lib.sample("y", dist.Bernoulli(logits=logit))

    asks = handlers.infer_config(guide, lambda site: ALL) if backend == "numpyro" else config_enumerate(guide)
    found = [bounds.elbo(trace(opened(backend, model, asks), seed=seed), np).mean() for seed in (0, 1)]
    engine = SVI(estimator="enumerate")
    fit = ppdgm.fit(of(backend, model, guide), DATA, epochs=1, batch_size=5, engine=engine, progress=False)

    def elbo(logit):
        q = 1 / (1 + np.exp(-logit))
        at = lambda y, p: p * (np.log(0.3 if y else 0.7) - 0.5 * (DATA[:, 0] - 2 * y) ** 2 - np.log(p))
        return (at(1, q) + at(0, 1 - q)).mean() - 0.5 * np.log(2 * np.pi)

    np.testing.assert_allclose([*found, fit.history["elbo"][0]], elbo(0.5), rtol=0, atol=3e-6)
    assert np.sign(fit.params["logit"] - 0.5) == np.sign(elbo(0.6) - elbo(0.5))


@both
def test_labels_that_are_partly_known(backend):
    """obs_mask= splits a site: known labels count as they are, and unknown ones are summed over."""
    lib, dist, new = LIBRARIES[backend]
    known = np.array([True, False, True, False, False])
    labels = np.array([2, 0, 1, 0, 0])

    def model(x):
        loc = lib.param("loc", new([-1.0, 0.5, 2.0]))
        with lib.plate("data", x.shape[0]):
            which, mask = x[:, 1] * 1, x[:, 2] > 0
            which = which.astype(int) if backend == "numpyro" else which.long()
            y = lib.sample("y", dist.Categorical(new([0.2, 0.5, 0.3])), obs=which, obs_mask=mask, infer=ALL)
            lib.sample("x", dist.Normal(loc[y], 0.8), obs=x[:, 0])

    model = config_enumerate(model) if backend == "pyro" else model  # Pyro's obs_mask loses infer=
    data = np.stack([DATA[:, 0], labels, known], 1).astype("float32")
    found = bounds.elbo(trace(opened(backend, model, lambda x: None, data)), np)[0]
    joint = np.stack([[Mixture.log_joint(NUMBERS, row, y) for y in range(3)] for row in DATA])
    expected = np.where(known, joint[np.arange(5), labels], np.logaddexp.reduce(joint, 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)


@both
def test_a_masked_site_with_a_factor_in_place_of_its_prior(backend):
    """NumPyro's tutorial on imputation: a factor holds the known values, and all values of the others count."""
    lib, dist, new = LIBRARIES[backend]
    xp = jnp if backend == "numpyro" else torch
    seen = np.array([0.0, 1.0, -1.0, 0.0, -1.0])

    def model(x):
        with lib.plate("data", x.shape[0]):
            at, y = x[:, 0], x[:, 1]
            flat = dist.Bernoulli(new(0.5)).mask(False)
            a = lib.sample("a", flat, infer=ALL)
            log_p = dist.Bernoulli(logits=at).log_prob(a + 0.0 * at)
            lib.factor("known", xp.where((y >= 0) & (a != y), new(-np.inf), log_p))
            lib.sample("x", dist.Normal(lib.param("slope", new(1.5)) * a, 0.8), obs=at)

    data = np.stack([DATA[:, 0], seen], 1).astype("float32")
    found = trace(opened(backend, model, lambda x: None, data))
    log_q = np.stack([-np.logaddexp(0, data[:, 0]), -np.logaddexp(0, -data[:, 0])], 1)
    joint = log_q + norm.logpdf(data[:, :1], 1.5 * np.arange(2), 0.8)
    joint[(seen[:, None] >= 0) & (seen[:, None] != np.arange(2))] = -np.inf
    np.testing.assert_allclose(bounds.elbo(found, np)[0], np.logaddexp.reduce(joint, 1), rtol=0, atol=3e-6)
    fit = ppdgm.fit(of(backend, model, lambda x: None), data, steps=5, batch_size=5, progress=False)
    assert np.isfinite(fit.history["elbo"]).all() and fit.params["slope"] != 1.5


def test_an_autoguide_over_what_all_data_share():
    """Pyro's tutorial on mixtures: its own loss, at the same parameters."""

    @config_enumerate
    def model(x):
        weights = pyro.sample("weights", pyro.distributions.Dirichlet(0.5 * torch.ones(2)))
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", pyro.distributions.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", pyro.distributions.Categorical(weights))
            pyro.sample("x", pyro.distributions.Normal(locs[c], 1.0), obs=x)

    x, guide = DATA[:, 0], AutoDelta(pyro.poutine.block(model, expose=["weights", "locs"]))
    fit = ppdgm.fit(of("pyro", model, guide), x, epochs=1, batch_size=5, progress=False)
    with pyro.get_param_store().scope():
        loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide, torch.tensor(x))
    assert abs(fit.elbo(x).mean + loss / 5) < 3e-6
    assert fit.encode(x)["c"].shape == (5, 2)


# --- what can't be done -----------------------------------------------------------------------------------------------

REFUSED = {}


def says(*words):
    def keep(write):
        REFUSED[write.__name__] = write, words
        return write

    return keep


@says("'c' is enumerated outside the data plate", "a sum over all data together")
def a_global(lib, dist, new, x):
    c = lib.sample("c", dist.Categorical(new([0.5, 0.5])), infer=ALL)
    with lib.plate("data", x.shape[0]):
        lib.sample("x", dist.Normal(lib.param("m", new([0.0, 1.0]))[c], 1.0), obs=x[:, 0])


@says('\'c\': got infer={"enumerate": \'all\'}, expected "parallel" or "sequential"')
def another_word(lib, dist, new, x, infer=None):
    with lib.plate("data", x.shape[0]):
        c = lib.sample("c", dist.Categorical(new([0.5, 0.5])), infer=infer or {"enumerate": "all"})
        lib.sample("x", dist.Normal(lib.param("m", new([0.0, 1.0]))[c], 1.0), obs=x[:, 0])


@says("'c'", "num_samples")
def some_values(lib, dist, new, x):
    another_word(lib, dist, new, x, {"enumerate": "parallel", "num_samples": 2})


@says("'c': Normal can't be enumerated")
def a_real_number(lib, dist, new, x):
    with lib.plate("data", x.shape[0]):
        c = lib.sample("c", dist.Normal(lib.param("m", new(0.0)), 1.0), infer=ALL)
        lib.sample("x", dist.Normal(c, 1.0), obs=x[:, 0])


@says("enumeration would sum over 16384 joint values; at most 10000")
def too_many(lib, dist, new, x):
    with lib.plate("data", x.shape[0]):
        total = sum(lib.sample(f"c{i}", dist.Bernoulli(new(0.5)), infer=ALL) for i in range(14))
        lib.sample("x", dist.Normal(total * lib.param("m", new(0.0)), 1.0), obs=x[:, 0])


@says("'x': its term at an enumerated value differs from its term when", "Count dimensions from the right")
def from_the_left(lib, dist, new, x):
    with lib.plate("data", x.shape[0], dim=-1):
        with lib.plate("words", 3, dim=-2):
            c = lib.sample("c", dist.Bernoulli(new(0.5)), infer=ALL)
        lib.sample("x", dist.Normal(c.sum(0) * lib.param("m", new(1.0)), 1.0), obs=x[:, 0])


@says("'x' is outside plate 'words', but depends on 'c', which is enumerated inside it")
def outside_of_its_plate(lib, dist, new, x):
    with lib.plate("data", x.shape[0], dim=-1):
        with lib.plate("words", 3, dim=-2):
            c = lib.sample("c", dist.Bernoulli(new(0.5)), infer=ALL)
        loc = c[..., :1, :] * lib.param("m", new(0.0)) if c.shape[0] == 3 else c * lib.param("m", new(0.0))
        lib.sample("x", dist.Normal(loc, 1.0), obs=x[:, 0])


@both
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, backend):
    write, words = REFUSED[case]
    lib, dist, new = LIBRARIES[backend]
    with pytest.raises(ProgramError) as caught:
        trace(opened(backend, lambda x: write(lib, dist, new, x), lambda x: None))
    for word in words:
        assert word in str(caught.value)


@both
def test_a_guide_that_enumerates_what_the_model_sums_over_words_is_refused(backend):
    """log Σ_a p(a) Π_w p(b_w|a) is no sum over words, so neither is its mean over q(b)."""
    lib, dist, new = LIBRARIES[backend]
    model = Words(lib, dist, new).pair[0]

    def guide(x):
        with lib.plate("data", x.shape[0], dim=-1), lib.plate("words", 2, dim=-2):
            lib.sample("b", dist.Categorical(new([0.2, 0.5, 0.3])), infer=ALL)

    with pytest.raises(ProgramError, match="'b' can't be summed over first"):
        trace(opened(backend, model, guide))
