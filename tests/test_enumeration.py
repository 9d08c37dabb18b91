"""Enumerated sites: their bounds are the sums that one would write by hand, and nothing else sees their axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from enumerated import (
    ALL,
    SITES,
    After,
    Child,
    D,
    Discrete,
    Half,
    Summed,
    by_hand,
    make,
    probabilities,
)
from readings import BACKENDS, get_runtime, precision, run_trace, train
from scipy.special import log_softmax, softmax
from scipy.stats import norm

from ppdgm.inference.engines import bounds
from ppdgm.language.reader import Gradients
from ppdgm.models import MLP, SemiSupervisedVAE
from ppdgm.program import Program

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
every_kind = pytest.mark.parametrize("kind", SITES, ids=lambda kind: kind.__name__)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def read(kind, backend, k, dtype="float64", seed=2, **options):
    program, params, data = make(kind, dtype)
    with precision(dtype):
        return params, data, run_trace(get_runtime(backend, program), params, data, k, seed, **options)


# --- sums ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k, dtype", [(1, "float64"), (3, "float64"), (3, "float32")])
@every_backend
@every_kind
def test_bounds_equal_the_sums_by_hand(kind, backend, k, dtype):
    params, data, found = read(kind, backend, k, dtype)
    expected = by_hand(kind, params, data, found.values)
    for bound, by in zip((bounds.elbo, bounds.log_weights), expected, strict=True):
        got = bound(found, np)
        assert got.shape == (k, 4)
        np.testing.assert_allclose(got, np.broadcast_to(by, got.shape), rtol=TOLERANCE[dtype])
    assert all(t.shape == (k, 4) for terms in (found.log_p, found.log_q) for t in terms.values())
    assert set(found.values) == {*SITES[kind][0], *(("z",) if kind is not Discrete else ())}


@every_backend
def test_a_minibatch_has_the_terms_of_its_rows(backend):
    """Nothing is drawn, so rows can be compared."""
    program, params, data = make(Discrete, size=7)
    runtime = get_runtime(backend, program)
    with precision("float64"):
        native = runtime.put(params), runtime.put(data)
        whole, part = (runtime.trace(*native, i, 2, 0, None, False) for i in (np.arange(7), np.array([5, 0, 5])))
    np.testing.assert_allclose(part.marginal, whole.marginal[:, [5, 0, 5]], rtol=1e-14)
    assert np.ptp(whole.marginal, axis=1).min() > 0.1


@every_backend
def test_closed_forms_are_averaged_over_what_the_guide_enumerates(backend):
    """KL(q(z|x, y)‖p(z|y)) for each y, weighted with q(y|x); none where p depends on what q does not."""
    params, data, found = read(Child, backend, 2, kl=True)
    q = probabilities(params, data["x"])
    mean = data["x"][:, None] @ params["encode"] + params["shift"]  # [B, C, D]
    scale = np.exp(0.3 * params["shift"])
    each = 0.5 * (scale**2 + (mean - params["mean"]) ** 2 - 1) - np.log(scale)
    np.testing.assert_allclose(np.broadcast_to(found.kl["z"], (2, 4, D)), [np.einsum("bc,bcd->bd", q, each)] * 2)
    assert set(found.kl) == {"z"}
    for kind in (After, Summed, Half):
        assert not read(kind, backend, 2, kl=True)[2].kl


@every_backend
def test_more_particles_come_closer_to_the_likelihood(backend):
    """log p(x, w) is exact where nothing is drawn; with z it is approached from below."""
    _, _, found = read(Discrete, backend, 1)
    np.testing.assert_allclose(
        found.marginal, np.broadcast_to(by_hand(Discrete, *read(Discrete, backend, 1)[:2], {})[1], (1, 4))
    )
    params, data, found = read(Child, backend, 20_000)
    prior = softmax(params["prior"])
    covariance = params["decode"].T @ params["decode"] + np.eye(3)
    from scipy.stats import multivariate_normal as mvn

    means = params["mean"] @ params["decode"] + params["offset"]
    bit = np.where(data["w"][:, None] > 0, 1.0, -1.0) * params["bit"]
    each = [mvn(m, covariance).logpdf(data["x"]) for m in means]
    exact = np.log((prior * np.exp(np.transpose(each)) / (1 + np.exp(-bit))).sum(1))
    weights = np.exp(found.marginal - exact)
    assert (np.abs(weights.mean(0) - 1) < 4 * weights.std(0) / 20_000**0.5).all()


# --- gradients -----------------------------------------------------------------------------------------------------


def gradient(backend, kind, bound, seed=7, k=2):
    """params -> (the mean of a bound, its gradient by name), in float64."""
    program, _, data = make(kind)
    tracer = get_runtime(backend, program).tracer
    if backend == "numpyro":

        @jax.jit
        @jax.value_and_grad
        def value(params):
            key, index = jax.random.key(seed), jnp.arange(4)
            return bound(tracer.trace(params, key, data, index, k, None, True, gradients=Gradients()), jnp).mean()

        return lambda params: jax.tree.map(np.asarray, value(params))

    def run(params):
        leaves = {n: torch.tensor(v, requires_grad=True) for n, v in params.items()}
        batch = {n: torch.tensor(v) for n, v in data.items()}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            out = bound(
                tracer.trace(leaves, None, batch, torch.arange(4), k, None, True, gradients=Gradients()), torch
            ).mean()
        grads = torch.autograd.grad(out, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return out.item(), {n: g.numpy() for n, g in zip(leaves, grads, strict=True)}

    return run


@pytest.mark.parametrize("bound", [bounds.elbo, bounds.log_weights])
@every_backend
@every_kind
def test_gradients_equal_finite_differences(kind, backend, bound):
    params, rng, step = make(kind)[1], np.random.default_rng(3), 1e-5
    with precision("float64"):
        run = gradient(backend, kind, bound)
        _, grads = run(params)
        for name, value in params.items():
            direction = rng.normal(size=value.shape)
            up, down = (run(params | {name: value + s * step * direction})[0] for s in (1, -1))
            slope = (up - down) / (2 * step)
            assert abs((grads[name] * direction).sum() - slope) <= 1e-7 * max(1.0, abs(slope)), name
    assert (np.abs(grads["prior"]) > 1e-6).any()


@every_backend
def test_the_gradient_of_what_is_discrete_is_that_of_the_sum(backend):
    """No score function, no noise: of the ELBO that NumPy adds up, by finite differences."""
    _, params, data = make(Discrete)
    with precision("float64"):
        _, grads = gradient(backend, Discrete, bounds.elbo)(params)
    for name, at in (("guess", (1, 2)), ("offset", (0, 1)), ("prior", (1,))):
        ends = []
        for step in (1e-5, -1e-5):
            moved = {n: v.copy() for n, v in params.items()}
            moved[name][at] += step
            ends.append(by_hand(Discrete, moved, data, {})[0].mean())
        assert abs(grads[name][at] - (ends[0] - ends[1]) / 2e-5) < 1e-8


# --- a known label: a guide that is clamped --------------------------------------------------------------------------


def m2(**fields):
    net = MLP(hidden=(4,))
    return SemiSupervisedVAE(event_shape=(5,), classes=3, latent=2, classifier=net, encoder=net, decoder=net, **fields)


M2_DATA = {"x": (np.random.default_rng(0).random((4, 5)) < 0.5) * 1.0, "label": np.array([2, -1, 0, -1])}


def m2_terms(params, x, y, z):
    """(log p(x, y, z), log q(z|x, y)) of one datum, from the equations."""
    net = lambda name, h: (
        np.tanh(h @ params[f"{name}.layers.0.weight"] + params[f"{name}.layers.0.bias"])
        @ params[f"{name}.layers.1.weight"]
        + params[f"{name}.layers.1.bias"]
    )
    logits = net("decoder", np.concatenate([z, np.eye(3)[y]]))
    head = net("encoder", np.concatenate([x, np.eye(3)[y]])).reshape(2, 2)
    log_p = -np.log(3) + norm.logpdf(z).sum() + (x * logits - np.logaddexp(0, logits)).sum()
    return log_p, norm.logpdf(z, head[0], 1e-4 + np.logaddexp(0, head[1])).sum()


@every_backend
def test_a_known_label_leaves_the_other_classes_out(backend):
    """log w is that of log p(x, y) for a labelled datum, and of log p(x), the sum over y, for another."""
    program = m2()
    params = program.initialise(3, dtype="float64")
    params = {n: v + 0.3 * np.random.default_rng(8).normal(size=v.shape) for n, v in params.items()}
    with precision("float64"):
        found = run_trace(get_runtime(backend, program), params, M2_DATA, 2, seed=1)
    z, log_weights = found.values["z"], bounds.log_weights(found, np)
    assert z.shape == (3, 2, 4, 2)
    net = lambda h: np.tanh(h @ params["classifier.layers.0.weight"] + params["classifier.layers.0.bias"])
    q = log_softmax(net(M2_DATA["x"]) @ params["classifier.layers.1.weight"] + params["classifier.layers.1.bias"], -1)
    elbo = bounds.elbo(found, np)
    for k, b in np.ndindex(2, 4):
        terms = [np.subtract(*m2_terms(params, M2_DATA["x"][b], y, z[y, k, b])) for y in range(3)]
        known = M2_DATA["label"][b]
        if known >= 0:
            assert log_weights[k, b] == pytest.approx(terms[known], rel=1e-12)
            assert elbo[k, b] == pytest.approx(terms[known], rel=1e-12)
        else:
            assert log_weights[k, b] == pytest.approx(np.logaddexp.reduce(terms), rel=1e-12)
            assert elbo[k, b] == pytest.approx((np.exp(q[b]) * (terms - q[b])).sum(), rel=1e-12)
    (penalty,) = found.penalties.values()
    expected = [-50.0 * q[b, y] if y >= 0 else 0.0 for b, y in enumerate(M2_DATA["label"])]
    np.testing.assert_allclose(np.broadcast_to(penalty, (2, 4))[0], expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["", "extreme"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@every_backend
def test_clamping_leaves_every_gradient_finite(backend, dtype, scale):
    """Also where the classifier is as certain as float32 can tell."""
    params = {n: (v * scale if n.startswith("classifier") else v).astype(dtype) for n, v in m2().initialise(0).items()}
    data = {"x": M2_DATA["x"].astype(dtype), "label": M2_DATA["label"]}
    with precision(dtype):
        moved, history = train(backend, m2(), data, params, steps=2, rate=1e-3)
    assert np.isfinite(history["objective"]).all() and np.isfinite(history["elbo"]).all()
    assert all(np.isfinite(v).all() for v in moved.values())
    assert scale > 1 or all((moved[n] != params[n]).any() for n in params)


@every_backend
def test_labels_train_the_classifier_alone_where_only_they_speak(backend):
    """Of a fully labelled set the bound doesn't move q(y|x): the penalty does."""
    data = {"x": M2_DATA["x"].astype("float32"), "label": np.array([2, 1, 0, 1])}
    first = m2().initialise(0)
    for alpha, moves in ((0.0, False), (2.0, True)):
        moved, _ = train(backend, m2(alpha=alpha), data, dict(first), steps=1)
        changed = {n.partition(".")[0] for n in first if (moved[n] != first[n]).any()}
        assert ("classifier" in changed) == moves and {"encoder", "decoder"} <= changed


# --- masks ---------------------------------------------------------------------------------------------------------


class Masked(Program):
    """c ~ Cat, x|c ~ N, each under a mask for each row or number; c is summed out, or in the guide."""

    guided: bool

    def build(self, c):
        c.param("prior", (3,))
        c.param("mean", (3, 2))
        c.param("guess", (3,))

    def model(self, P, x, known, seen):
        with P.plate("data", x):
            c = P.sample("c", P.dist.Categorical(logits=self.rows(P, "prior", x)).mask(known > 0), infer=ALL)
            normal = P.dist.Normal(P.one_hot(c, 3) @ P.param("mean"), P.full((2,), 1.0))
            P.sample("x", normal.mask(seen > 0).to_event(1), obs=x)

    def guide(self, P, x, known, seen):
        with P.plate("data", x):
            if self.guided:
                P.sample("c", P.dist.Categorical(logits=self.rows(P, "guess", x)).mask(known > 0), infer=ALL)

    def rows(self, P, name, x):
        return P.param(name) + 0.0 * x[..., :1]


@pytest.mark.parametrize("guided", [True, False], ids=["in the guide", "summed out"])
@every_backend
def test_a_masked_site_that_is_enumerated_adds_nothing(backend, guided):
    """A row of which nothing is known has log p = 0, and not log S.

    If the masked c makes a difference, a guide has it at its first value, and else all its values have weight 1.
    """
    rng = np.random.default_rng(5)
    params = {n: rng.normal(size=s) for n, s in (("prior", 3), ("mean", (3, 2)), ("guess", 3))}
    known, seen = np.array([1.0, 1.0, 0.0, 0.0]), np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    data = {"x": rng.normal(size=(4, 2)), "known": known, "seen": seen}
    with precision("float64"):
        found = run_trace(get_runtime(backend, Masked(guided=guided)), params, data, 2)
    given = (norm.logpdf(data["x"][:, None], params["mean"]) * seen[:, None]).sum(-1)  # [4, 3]
    prior, q = log_softmax(params["prior"]), log_softmax(params["guess"])
    flat = np.append(np.logaddexp.reduce(given[:3], axis=1), 0.0)
    log_p = np.where(known > 0, np.logaddexp.reduce(given + prior, axis=1), given[:, 0] if guided else flat)
    np.testing.assert_allclose(bounds.log_weights(found, np), np.stack([log_p] * 2), atol=1e-12)
    elbo = np.where(known > 0, (np.exp(q) * (given + prior - q)).sum(1), given[:, 0]) if guided else log_p
    np.testing.assert_allclose(bounds.elbo(found, np), np.stack([elbo] * 2), atol=1e-12)
    single = {n: v.astype("float32") for n, v in params.items()}
    data32 = {n: v.astype("float32") for n, v in data.items()}
    moved, _ = train(backend, Masked(guided=guided), data32, dict(single), steps=1)
    assert all(np.isfinite(v).all() for v in moved.values()) and (moved["mean"] != single["mean"]).any()
