"""Plain NumPyro pairs, as their authors write them, through the readings and the training of the NumPyro backend."""

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import eqx_module, flax_module, nnx_module
from numpyro.distributions import constraints
from numpyro.infer.util import log_density
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from ppdgm.backends.numpyro import Runtime, Trainer
from ppdgm.errors import PpdgmError, ProgramError, UnsupportedByBackend
from ppdgm.inference import SVI, bounds
from ppdgm.inference.batches import Batches, Plan
from ppdgm.inference.optimisers import Optimiser
from ppdgm.program import Program

N, B, X, D = 25, 8, 5, 2  # N mod B = 1
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(N, X)).astype("float32")
EVENT = jnp.zeros(D)


# --- helpers ------------------------------------------------------------------------------------------------------


def open_pair(model, guide, data=DATA, params=None, dtype="float32", plate="data"):
    """Runtime, parameters and data on the device."""
    data = data if isinstance(data, dict) else {"x": data}
    runtime = Runtime(Program.from_numpyro(model, guide, data_plate=plate), "cpu")
    params = runtime.initialise(0, data, dtype) if params is None else params
    return runtime, runtime.put(params, dtype), runtime.put(data, dtype)


def log_weights(opened, index, k, seed=0):
    runtime, params, data = opened
    return runtime.evaluate(bounds.log_weights, params, data, np.asarray(index), k, (seed,), False)


def read(opened, index=range(B), k=2, given=None, kl=False):
    runtime, params, data = opened
    return runtime.trace(params, data, np.asarray(index), k, 0, given, kl)


class Training:
    """A trainer that is driven step by step."""

    def __init__(self, opened, engine=None, optimiser=None, batch_size=B, rate=1e-2, seed=0):
        runtime, params, data = opened
        size = len(data["x"])
        self.engine, self.rate = engine or SVI(), rate
        self.trainer = Trainer(runtime, self.engine, optimiser or Optimiser(), params, data, seed, size)
        self.batches = Batches(size, runtime.tracer.batch_size or batch_size, seed)
        self.step = 0

    def run(self, count):
        steps = np.arange(self.step, self.step + count)
        index, weight = self.batches.rows(self.step, count, count)
        rate = np.full(count, self.rate, np.float32)
        history = self.trainer.run(Plan(index, weight, rate, self.engine.knobs(steps), self.step, count))
        self.step += count
        return history


def plate(x, part):
    return numpyro.plate("data", x.shape[0], subsample_size=part)


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


# --- the ways in which parameters are written ------------------------------------------------------------------------


class Linen(linen.Module):
    out: int

    @linen.compact
    def __call__(self, x):
        return linen.Dense(self.out)(jnp.tanh(linen.Dense(6)(x)))


class Nnx(nnx.Module):
    def __init__(self, inputs, out, rngs):
        self.layers = nnx.List([nnx.Linear(inputs, 6, rngs=rngs), nnx.Linear(6, out, rngs=rngs)])

    def __call__(self, x):
        return self.layers[1](jnp.tanh(self.layers[0](x)))


def by_param(name, inputs, out):
    weight = numpyro.param(f"{name}.weight", lambda key: 0.3 * jax.random.normal(key, (inputs, out)))
    return lambda x: x @ weight + numpyro.param(f"{name}.bias", jnp.zeros(out))


NNX = {"encoder": Nnx(X, 2 * D, nnx.Rngs(0)), "decoder": Nnx(D, X, nnx.Rngs(1))}
EQX = {
    "encoder": eqx.nn.MLP(X, 2 * D, 6, 1, key=jax.random.key(0)),
    "decoder": eqx.nn.MLP(D, X, 6, 1, key=jax.random.key(1)),
}
NETS = {
    "param": by_param,
    "flax": lambda name, inputs, out: flax_module(name, Linen(out), input_shape=(1, inputs)),
    "nnx": lambda name, inputs, out: nnx_module(name, NNX[name]),
    "eqx": lambda name, inputs, out: jax.vmap(eqx_module(name, EQX[name])),
}
NAMES = {
    "param": "encoder.weight",
    "flax": "encoder.Dense_0.kernel",
    "nnx": "encoder.layers.0.kernel",
    "eqx": "encoder.layers.0.weight",
}


def vae(net, part=None):
    """A published-style VAE, its nets written by `net`; the data plate full, or subsampled in two ways."""

    def model(x):
        decoder = net("decoder", D, X)
        scale = numpyro.param("scale", 0.5, constraint=constraints.positive)
        with plate(x, part):
            batch = numpyro.subsample(x, event_dim=1)
            z = numpyro.sample("z", normal(EVENT))
            loc = numpyro.deterministic("loc", decoder(z))
            numpyro.sample("x", normal(loc, scale), obs=batch)

    def guide(x):
        encoder = net("encoder", X, 2 * D)
        with plate(x, part) as i:
            head = encoder(x[i])
            numpyro.sample("z", normal(head[:, :D], jnp.exp(head[:, D:])))

    return model, guide


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("part", [None, B])
def test_train_evaluate_and_encode(kind, part):
    opened = open_pair(*vae(NETS[kind], part))
    runtime, params, data = opened
    first = {n: np.array(v) for n, v in params.items()}
    assert NAMES[kind] in params and np.isclose(params["scale"], np.log(0.5))
    assert runtime.tracer.subsamples == bool(part) and runtime.tracer.batch_size == part

    training = Training(opened)
    assert training.run(60)["elbo"][-20:].mean() > training.run(60)["elbo"][:1] - 100  # finite
    history = training.run(60)["elbo"]
    assert training.trainer.compilations() == 1
    assert all(np.array_equal(v, params[n]) for n, v in first.items())  # the caller's arrays are as they were
    values = training.trainer.values()
    after = open_pair(*vae(NETS[kind], part), params=values)  # a tracer that has initialised nothing
    index = np.arange(B) + 3
    before, now = log_weights(opened, index, 50).mean(), log_weights(after, index, 50).mean()
    assert now > before + 1 and history.mean() > before + 1
    same = log_weights((runtime, runtime.put(values), data), index, 50)
    assert np.array_equal(log_weights(after, index, 50), same)

    latents, observed = after[0].means(*after[1:], index)
    assert latents["z"].shape == (1, B, D) and list(observed) == ["x"]
    _, decoder, encoder = values["scale"], *(NETS_BY_HAND[kind](values, n) for n in ("decoder", "encoder"))
    z = encoder(DATA[index])[:, :D]
    np.testing.assert_allclose(latents["z"][0], z, atol=1e-5)
    np.testing.assert_allclose(observed["x"][0], decoder(z), atol=1e-5)
    assert runtime.bytes_written(params, data, 2, B) > runtime.bytes_written(params, data, 1, B)


def _layers(first, second, transpose, bias="bias"):
    def by_hand(values, name):
        turn = np.transpose if transpose else np.asarray
        (w1, b1), (w2, b2) = (
            (turn(values[f"{name}.{layer}.{'weight' if transpose else 'kernel'}"]), values[f"{name}.{layer}.bias"])
            for layer in (first, second)
        )
        active = (lambda h: np.maximum(h, 0)) if transpose else np.tanh
        return lambda x: active(x @ w1 + b1) @ w2 + b2

    return by_hand


NETS_BY_HAND = {
    "param": lambda values, name: lambda x: x @ values[f"{name}.weight"] + values[f"{name}.bias"],
    "flax": _layers("Dense_0", "Dense_1", False),
    "nnx": _layers("layers.0", "layers.1", False),
    "eqx": _layers("layers.0", "layers.1", True),
}


def test_the_users_modules_stay_as_they_are():
    """NumPyro writes traced values into NNX modules' states; none may reach the user's own."""
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(NNX["encoder"])))
    Training(open_pair(*vae(NETS["nnx"]))).run(3)
    after = nnx.to_pure_dict(nnx.state(NNX["encoder"]))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), before, after))


# --- FIELD 1: a linear-Gaussian pair, whose log p(x) is known ---------------------------------------------------------

WEIGHT = RNG.normal(size=(D, X))
SCALE = 0.8
EXACT = multivariate_normal(np.zeros(X), WEIGHT.T @ WEIGHT + SCALE**2 * np.eye(X)).logpdf(DATA)
COVARIANCE = np.linalg.inv(np.eye(D) + WEIGHT @ WEIGHT.T / SCALE**2)


def linear(part=None, exact=False):
    """The guide has the posterior's mean, and its covariance, or a diagonal one that is too wide."""

    def model(x):
        with plate(x, part) as i:
            z = numpyro.sample("z", normal(EVENT))
            numpyro.sample("x", normal(z @ numpyro.param("weight", jnp.asarray(WEIGHT)), SCALE), obs=x[i])

    def guide(x):
        with plate(x, part) as i:
            loc = x[i] @ jnp.asarray(WEIGHT.T @ COVARIANCE / SCALE**2)
            wide = normal(loc, 1.3 * jnp.sqrt(jnp.diag(jnp.asarray(COVARIANCE))))
            numpyro.sample("z", dist.MultivariateNormal(loc, jnp.asarray(COVARIANCE)) if exact else wide)

    return model, guide


@pytest.mark.parametrize("part", [None, B])
def test_exact_guide_gives_log_p_for_every_draw(part):
    found = log_weights(open_pair(*linear(part, exact=True)), np.arange(B) + 9, 7)
    np.testing.assert_allclose(found, np.broadcast_to(EXACT[9 : 9 + B], (7, B)), rtol=1e-5)


def test_float64():
    with jax.enable_x64(True):
        opened = open_pair(*linear(B, exact=True), data=DATA.astype("float64"), dtype="float64")
        assert opened[1]["weight"].dtype == np.float64
        found = log_weights(opened, np.arange(B), 3)
    np.testing.assert_allclose(found, np.broadcast_to(EXACT[:B], (3, B)), rtol=1e-10)


def bound(terms):
    """log (1/K) Σ w over data, and its Monte Carlo error."""
    relative = np.exp(terms - logsumexp(terms, 0)) * len(terms)
    return logsumexp(terms, 0) - np.log(len(terms)), relative.std(0, ddof=1) / np.sqrt(len(terms))


def closed_elbo():
    """The exact ELBO of the wide guide: log p(x) − KL(q ‖ posterior)."""
    wide = 1.3**2 * np.diag(COVARIANCE)
    precision = np.linalg.inv(COVARIANCE)
    kl = 0.5 * (np.diag(precision) @ wide - D + np.linalg.slogdet(COVARIANCE)[1] - np.log(wide).sum())
    return EXACT - kl


@pytest.mark.statistical
@pytest.mark.parametrize("part", [None, B])
def test_linear_gaussian_bounds(part):
    """K = 1 is the ELBO, and large K reaches log p(x), within 4 Monte Carlo errors (below 0.2 % of the value)."""
    opened = open_pair(*linear(part))
    chunks = [np.arange(s, s + B) % N for s in range(0, N, B)]  # the last one is padded
    terms = np.concatenate([log_weights(opened, c, 20_000, s) for s, c in enumerate(chunks)], 1)[:, :N].astype(float)
    error = np.sqrt((terms.var(0) / len(terms)).sum())
    assert error < 2e-3 * abs(EXACT.sum())
    assert abs(terms.mean(0).sum() - closed_elbo().sum()) < 4 * error
    found, errors = bound(terms)
    total = np.sqrt((errors**2).sum())
    assert total < 2e-3 * abs(EXACT.sum())
    assert abs(found.sum() - EXACT.sum()) < 4 * total
    wrong, wrong_errors = bound(terms * N / B)  # the twin with N/B inside the log-sum-exp fails
    assert abs(wrong.sum() * B / N - EXACT.sum()) > 4 * np.sqrt((wrong_errors**2).sum())


@pytest.mark.statistical
def test_minibatches_estimate_the_full_bound():
    """Over 150 random minibatches, the mean 10-particle bound is that of all data, within 4 standard errors."""
    opened, rng, k = open_pair(*linear(B)), np.random.default_rng(1), 10
    full = bound(log_weights(open_pair(*linear()), np.arange(N), 20_000).reshape(-1, k, N).swapaxes(0, 1))[0].mean()
    found = [bound(log_weights(opened, rng.permutation(N)[:B], k, s))[0].mean() for s in range(150)]
    assert abs(np.mean(found) - full) < 4 * np.std(found) / np.sqrt(len(found))


# --- FIELD 2, 10: minibatches, ragged ones included -------------------------------------------------------------------


def point(part=None):
    """A guide of point masses: its bound and gradient have no noise."""

    def guide(x):
        with plate(x, part) as i:
            numpyro.sample("z", dist.Delta(x[i] @ numpyro.param("encoder", 0.1 * jnp.ones((X, D))), event_dim=1))

    return linear(part)[0], guide


def _epoch(part, batch_size):
    """Mean bound and mean gradient of one epoch; steps of plain gradient descent so small that nothing moves."""
    opened = open_pair(*point(part))
    training = Training(opened, SVI(kl="monte_carlo"), optax.sgd(1.0), batch_size, rate=0.0)
    counts = training.batches.rows(0, training.batches.per_epoch, training.batches.per_epoch)[1].sum(1)
    history = training.run(len(counts))
    gradients = []
    for step in range(len(counts)):
        one = Training(opened, SVI(kl="monte_carlo"), optax.sgd(1.0), batch_size, rate=1.0)
        one.step = step
        one.run(1)
        gradients.append(one.trainer.values()["encoder"] - np.asarray(opened[1]["encoder"]))
    weight = counts / counts.sum()
    return history["elbo"] @ weight, np.tensordot(weight, np.array(gradients), 1), counts


def test_loss_and_gradient_do_not_depend_on_the_batch_size():
    whole, gradient, _ = _epoch(None, N)
    for part, batch_size in ((None, B), (B, B)):
        found, found_gradient, counts = _epoch(part, batch_size)
        assert counts.tolist() == [8, 8, 8, 1]
        np.testing.assert_allclose(found, whole, rtol=1e-5)
        np.testing.assert_allclose(found_gradient, gradient, rtol=1e-4, atol=1e-4)


# --- FIELD 3, 6 -------------------------------------------------------------------------------------------------------


def test_guide_and_model_share_the_minibatch():
    """z is the guide's datum, x the model's: log p(x | z) is largest only if they are the same."""

    def model(x):
        with numpyro.plate("data", N, subsample_size=B) as i:
            z = numpyro.sample("z", normal(jnp.zeros(X)))
            numpyro.sample("x", normal(z, 1e-3), obs=x[i])

    def guide(x):
        numpyro.param("unused", 0.0)
        with numpyro.plate("data", N, subsample_size=B):
            numpyro.sample("z", dist.Delta(numpyro.subsample(x, event_dim=1), event_dim=1))

    opened = open_pair(model, guide)
    best = X * (-np.log(1e-3) - 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(read(opened, [3, 24, 1, 1, 0, 9, 17, 2]).log_p["x"], best, rtol=1e-5)
    history = Training(opened, SVI(kl="monte_carlo")).run(4)
    prior = -0.5 * (DATA**2).sum(1).mean() - X * 0.5 * np.log(2 * np.pi)
    assert abs(history["elbo"] @ [8, 8, 8, 1] / N - best - prior) < 1e-3


def test_interleaved_training_equals_separate_training():
    def alone(scale):
        training = Training(open_pair(*vae(by_param), data=scale * DATA))
        return [training.run(5) for _ in range(2)] and training.trainer.values()

    pair = [Training(open_pair(*vae(by_param), data=scale * DATA)) for scale in (1.0, 2.0)]
    for training in (*pair, *pair):
        training.run(5)
    for training, scale in zip(pair, (1.0, 2.0), strict=True):
        together, separate = training.trainer.values(), alone(scale)
        assert all(np.array_equal(together[n], separate[n]) for n in separate)


# --- where sites stand ------------------------------------------------------------------------------------------------


def nested(outer, inner):
    """A local latent, and one per pixel in a plate inside the data plate, or left of it."""

    def plates(x):
        return numpyro.plate("data", x.shape[0], dim=outer), numpyro.plate("pixels", X, dim=inner)

    def lay(z):  # [B, …] to where the data's axis is
        return z[:, None] if outer == -2 else z[None]

    def model(x):
        data, pixels = plates(x)
        with data:
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            with pixels:
                w = numpyro.sample("w", dist.Normal(z, 1.0))
                numpyro.sample("x", dist.Normal(w, 0.5), obs=x if outer == -2 else x.T)

    def guide(x):
        data, pixels = plates(x)
        with data:
            z = numpyro.sample("z", dist.Normal(lay(x.mean(1)), 0.7))
            with pixels:
                numpyro.sample("w", dist.Normal(0.5 * z, 1.1 + numpyro.param("s", 0.0)))

    return model, guide


@pytest.mark.parametrize("dims", [(-2, -1), (-1, -2)])
def test_nested_plates(dims):
    opened = open_pair(*nested(*dims))
    index, log = np.array([4, 1, 20]), lambda x, m, s: -0.5 * ((x - m) / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
    found = read(opened, index, k=4, kl=True)
    z, w, x = found.values["z"], found.values["w"], DATA[index]
    assert z.shape == (4, 3) and w.shape == (4, 3, X)
    np.testing.assert_allclose(found.log_p["w"], log(w, z[..., None], 1.0).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(found.log_p["x"], log(x, w, 0.5).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(found.log_q["z"], log(z, x.mean(1), 0.7), rtol=1e-4)
    np.testing.assert_allclose(found.log_q["w"], log(w, 0.5 * z[..., None], 1.1).sum(-1), rtol=1e-4)
    assert list(found.kl) == ["z"] and found.kl["z"].shape == (4, 3, 1)
    again = read(opened, index, k=4, given=found.values)
    for name in ("z", "w"):
        assert np.array_equal(again.values[name], found.values[name])
        np.testing.assert_allclose(again.log_q[name], found.log_q[name], rtol=1e-5)
    latents, observed = opened[0].means(*opened[1:], index)
    np.testing.assert_allclose(latents["w"][0], np.repeat(0.5 * x.mean(1)[:, None], X, 1), rtol=1e-5)
    assert observed["x"].shape == (1, 3, X)


def test_agrees_with_numpyros_own_densities():
    model, guide = vae(by_param)
    runtime, params, data = open_pair(model, guide)
    found = runtime.trace(params, data, np.arange(N), 1, 0, None, True)
    constrained = {**params, "scale": jnp.exp(params["scale"])}
    for own, terms in ((model, found.log_p), (guide, found.log_q)):
        theirs, _ = log_density(own, (DATA,), {}, {**constrained, "z": found.values["z"][0]})
        np.testing.assert_allclose(sum(v.sum() for v in terms.values()), theirs, rtol=1e-5)
    mean, scale = np.split(DATA @ params["encoder.weight"] + params["encoder.bias"], 2, 1)
    kl = 0.5 * (mean**2 + np.exp(2 * scale) - 1) - scale
    assert found.kl["z"].shape == (1, N, D)
    np.testing.assert_allclose(found.kl["z"][0], kl, atol=1e-5)


def test_particles_and_data_are_drawn_apart():
    z = read(open_pair(*linear()), [0, 0, 0], k=5).values["z"].reshape(15, D)
    assert len(np.unique(z, axis=0)) == 15


def test_masks_factors_auxiliary_sites_and_deterministics():
    seen = jnp.arange(N) % 3 > 0

    def model(x):
        with numpyro.plate("data", N, subsample_size=B) as i:
            z = numpyro.sample("z", normal(EVENT))
            numpyro.deterministic("twice", 2 * z)
            numpyro.factor("bonus", x[i, 0])
            with handlers.mask(mask=seen[i]):
                numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT), SCALE), obs=x[i])

    def guide(x):
        with numpyro.plate("data", N, subsample_size=B) as i:
            u = numpyro.sample("u", normal(EVENT), infer={"is_auxiliary": True})
            numpyro.sample("z", dist.Delta(u + x[i, :D] + numpyro.param("shift", 0.0), event_dim=1))

    index = np.array([3, 1, 24, 7, 6, 5, 10, 12])
    opened = open_pair(model, guide)
    found = read(opened, index, kl=True)
    z, x = found.values["z"], DATA[index]
    log = lambda v, s: (-0.5 * (v / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))).sum(-1)  # noqa: E731
    likelihood = np.where(seen[index], log(x - z @ WEIGHT, SCALE), 0.0)
    np.testing.assert_allclose(found.log_p["x"], likelihood, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.log_p["bonus"], np.broadcast_to(x[:, 0], (2, B)))
    assert list(found.values) == ["z"]
    expected = likelihood + x[:, 0] + log(z, 1.0) - log(z - x[:, :D], 1.0)
    np.testing.assert_allclose(log_weights(opened, index, 2), expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(Training(opened).run(3)["objective"]).all()
    latents, observed = opened[0].means(*opened[1:], index)
    assert list(latents) == ["z"] and list(observed) == ["x"]


def test_masked_latents_have_no_closed_form():
    def model(x):
        with plate(x, None), handlers.mask(mask=jnp.arange(len(x)) > 2):
            numpyro.sample("x", normal(numpyro.sample("z", normal(jnp.zeros(X)))), obs=x)

    def guide(x):
        with plate(x, None), handlers.mask(mask=jnp.arange(len(x)) > 2):
            numpyro.sample("z", normal(x * numpyro.param("a", 1.0)))

    found = read(open_pair(model, guide), kl=True)
    assert found.kl == {} and (found.log_q["z"][:, :3] == 0).all() and (found.log_q["z"][:, 3:] != 0).all()


def test_one_latent_for_all_data():
    """Outside the plate: a term per particle, right in SVI given N, and refused where there is none per datum."""

    def model(x):
        mu = numpyro.sample("mu", normal(jnp.zeros(X)))
        with plate(x, None):
            numpyro.sample("x", normal(mu), obs=x)

    def guide(x):
        loc = numpyro.param("loc", jnp.zeros(X))
        numpyro.sample("mu", normal(loc, numpyro.param("scale", 1.0, constraint=constraints.positive)))

    opened = open_pair(model, guide)
    found = read(opened, [1, 2, 3])
    assert found.shared["mu"].shape == (2,) and found.values["mu"].shape == (2, 1, X) and not found.log_q
    again = read(opened, [1, 2, 3], given=found.values)
    assert np.array_equal(again.values["mu"], found.values["mu"])
    with pytest.raises(ProgramError, match=r"'mu'.*no log-weight per datum"):
        log_weights(opened, [0], 1)
    training = Training(opened, SVI(k=20), rate=0.05)
    training.run(400)
    values = training.trainer.values()
    np.testing.assert_allclose(values["loc"], DATA.sum(0) / (N + 1), atol=0.06)
    np.testing.assert_allclose(np.exp(values["scale"]), (N + 1) ** -0.5, rtol=0.1)
    trainer = Trainer(*(opened[0], SVI(), Optimiser(), *opened[1:]), seed=0, data_size=None)
    with pytest.raises(ProgramError, match=r"'mu'.*data_size"):
        trainer.run(Plan(*training.batches.rows(0, 1, 1), np.ones(1, np.float32), SVI().knobs(np.arange(1)), 0, 1))


# --- the data plate ---------------------------------------------------------------------------------------------------


def test_a_subsampled_pair_reads_data_of_any_size():
    """More or fewer rows than the size that is written into the program, or than its minibatch."""

    def fixed(of):
        def model(x):
            with numpyro.plate("data", N, subsample_size=B):
                batch = numpyro.subsample(x, event_dim=1)
                numpyro.sample("x", normal(numpyro.sample("z", normal(EVENT)) @ jnp.asarray(WEIGHT)), obs=batch)

        def guide(x):
            with of(x) as i:
                numpyro.sample("z", normal(x[i, :D] + numpyro.param("a", 0.0)))

        return model, guide

    pairs = (fixed(lambda x: numpyro.plate("data", N, subsample_size=B)), vae(by_param, B))
    for pair in pairs:
        runtime, params, data = open_pair(*pair)
        index = np.array([0, 1, 2, 3, 0, 0, 1, 2])
        expected = log_weights((runtime, params, data), index, 3)
        for rows in (4, B, N + 7):
            other = {"x": np.concatenate([DATA[:4], RNG.normal(size=(rows - 4, X))]).astype("float32")}
            fresh = Runtime(runtime.tracer.program, "cpu")
            for again in (runtime, fresh):
                again.tracer.prepare(other)
                found = log_weights((again, params, again.put(other)), index, 3)
                np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_full_plate_of_fixed_size_keeps_the_order_of_the_data():
    """Such a program may keep parameters per datum: they must meet their own data in every order of a minibatch."""

    def model(x):
        with numpyro.plate("data", N):
            numpyro.sample("x", normal(numpyro.sample("z", normal(jnp.zeros(X))), 0.1), obs=x)

    def guide(x):
        with numpyro.plate("data", N):
            numpyro.sample("z", normal(numpyro.param("loc", jnp.asarray(DATA)), 0.1))

    opened = open_pair(model, guide)
    assert opened[0].tracer.batch_size == N
    order = np.random.default_rng(0).permutation(N)
    found = read(opened, order, kl=True)
    assert abs(found.values["z"] - DATA[order]).max() < 0.6
    assert found.log_p["x"].min() > -20
    again = read(opened, order, given=found.values)
    np.testing.assert_allclose(again.log_p["x"], found.log_p["x"], rtol=1e-5)
    history = Training(opened, rate=0.0).run(3)
    np.testing.assert_allclose(history["kl"], found.kl["z"][0].sum(-1).mean(), rtol=1e-5)
    with pytest.raises(ProgramError, match=r"'data' has size=25.*has 8 data"):
        read(opened, range(8))


def test_short_minibatch_is_refused():
    with pytest.raises(ProgramError, match=r"subsample_size=8, but the minibatch has 5 data.*pad"):
        read(open_pair(*linear(B)), range(5))


def test_parameters_per_datum_need_a_subsampled_plate():
    def model(x):
        with plate(x, None):
            numpyro.sample("x", normal(numpyro.sample("z", normal(jnp.zeros(X)))), obs=x)

    def guide(x, part=None):
        with plate(x, part):
            loc = numpyro.param("loc", jnp.zeros(x.shape), event_dim=1 if part else None)
            numpyro.sample("z", normal(loc))

    with pytest.raises(ProgramError, match=r"'loc' has a row for each datum.*subsample_size=B.*event_dim"):
        open_pair(model, guide)
    runtime, params, data = open_pair(linear(B)[0], lambda x: _local(x))
    assert params["loc"].shape == (N, D)
    index = np.array([24, 3, 3, 1, 0, 5, 6, 7])
    rows = {**params, "loc": jnp.arange(N * D, dtype=jnp.float32).reshape(N, D)}
    z = runtime.trace(rows, data, index, 3, 0, None, False).values["z"]
    np.testing.assert_allclose(z, np.broadcast_to(rows["loc"][index], z.shape), atol=0.1)


def _local(x):
    with plate(x, B):
        numpyro.sample("z", normal(numpyro.param("loc", jnp.zeros((x.shape[0], D)), event_dim=1), 0.01))


# --- parameters and fields --------------------------------------------------------------------------------------------


def test_constraints():
    def model(x):
        weights = numpyro.param("weights", jnp.array([0.2, 0.3, 0.5]), constraint=constraints.simplex)
        low = numpyro.param("low", 0.25, constraint=constraints.interval(0.0, jnp.ones(())))
        with plate(x, None):
            z = numpyro.sample("z", normal(EVENT))
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT) + weights[0], low), obs=x)

    runtime, params, data = open_pair(model, linear()[1])
    assert params["weights"].shape == (2,) and np.isclose(params["low"], np.log(0.25 / 0.75))
    z = runtime.trace(params, data, np.arange(B), 1, 0, None, False)
    log = -0.5 * ((DATA[:B] - z.values["z"][0] @ WEIGHT - 0.2) / 0.25) ** 2 - np.log(0.25 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(z.log_p["x"][0], log.sum(-1), rtol=1e-4)

    def outside(x):
        numpyro.param("s", -1.0, constraint=constraints.positive)
        model(x)

    with pytest.raises(ProgramError, match="'s': its first value is not finite, or outside its constraint"):
        open_pair(outside, linear()[1])
    with pytest.raises(ProgramError, match=r"'weights' has no value\. Did you mean 'weight'"):
        read((runtime, {"weight": params["weights"], "low": params["low"]}, data))


def test_named_fields():
    def model(x, label, mask=None):
        with plate(x, None):
            z = numpyro.sample("z", normal(EVENT))
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT)), obs=x)
            numpyro.sample("label", dist.Bernoulli(logits=z[:, 0]), obs=label)

    def guide(x):
        with plate(x, None):
            numpyro.sample("z", normal(x[:, :D] * numpyro.param("a", 1.0)))

    both = {"x": DATA, "label": (DATA[:, 0] > 0).astype("float32")}
    found = read(open_pair(model, guide, data=both))
    assert found.log_p["label"].shape == (2, B)
    with pytest.raises(ProgramError, match=r"model\(x, label, mask=None\).*fields x: missing.*'label'"):
        open_pair(model, guide)
    with pytest.raises(ProgramError, match=r"field 'labels'. Did you mean 'label'"):
        open_pair(model, guide, data={"x": DATA, "labels": both["label"]})


# --- FIELD 24 and what is refused -------------------------------------------------------------------------------------


def broken(change, where="model"):
    """A sound pair, but for a statement that is put into the plate of one of the two."""

    def model(x):
        with plate(x, None):
            if where == "model":
                change(x)
            z = numpyro.sample("z", normal(EVENT))
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT)), obs=x)

    def guide(x):
        with plate(x, None):
            if where == "guide":
                change(x)
            numpyro.sample("z", normal(x[:, :D] * numpyro.param("a", 1.0)))

    return model, guide


def _inner_subsample(x):
    with numpyro.plate("pixels", X, subsample_size=2, dim=-2):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)


def _scaled(x):
    with handlers.scale(scale=0.5):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=x[:, 0])


def _scan(x):
    with handlers.block():
        pass
    scan(lambda carry, _: (carry, numpyro.sample("y", dist.Normal(0.0, 1.0))), 0.0, None, length=3)


def _batch_norm(x):
    flax_module("net", linen.BatchNorm(use_running_average=False), mutable=["batch_stats"], input_shape=(1, X))(x)


def _nnx_dropout(x):
    nnx_module("net", nnx.Dropout(0.5, rngs=nnx.Rngs(0)))(x)


def _observe(fn, value):
    return lambda x: numpyro.sample("y", fn, obs=value(x))


WIDE = dist.Normal(jnp.zeros((1, 3)), 1.0)
REFUSED = {
    "no to_event": (_observe(WIDE, lambda x: x[:, :3]), "model", r"'y'.*batch shape \(1, 3\).*add \.to_event\(1\)"),
    "no to_event, square": (
        lambda x: numpyro.sample("y", dist.Normal(jnp.zeros((N, N)), 1.0), obs=jnp.zeros((N, N))),
        "model",
        r"'y'.*batch shape \(25, 25\).*'data' \(25 at dim -1\).*add \.to_event\(1\)",
    ),
    "data of another shape": (
        _observe(normal(jnp.zeros(3)), lambda x: x),
        "model",
        r"'y': got data of shape \(25, 5\).*events of shape \(3,\), so expected \(25, 3\)",
    ),
    "data without the plate's axis": (
        _observe(normal(jnp.zeros(X)), lambda x: x[0]),
        "model",
        r"'y': got data of shape",
    ),
    "latent that the guide lacks": (
        lambda x: numpyro.sample("y", dist.Normal(0.0, 1.0)),
        "model",
        "'y' is latent in the model, but the guide does not draw it",
    ),
    "latent that the model lacks": (
        lambda x: numpyro.sample("y", dist.Normal(0.0, 1.0)),
        "guide",
        "'y' is drawn in the guide, but is no latent site of the model",
    ),
    "drawn twice": (lambda x: numpyro.sample("z", normal(EVENT)), "guide", "'z' is drawn twice"),
    "inner plate subsamples": (_inner_subsample, "model", "'pixels' draws 2 of 5.*only the data plate"),
    "scale": (_scaled, "model", r"'y' is scaled by 0\.5.*SVI\(beta=…\)"),
    "batch norm": (_batch_norm, "model", r"'net\$state' keeps state.*layer or group norm"),
    "dropout": (_nnx_dropout, "guide", r"'net\$state' keeps state"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    change, where, message = REFUSED[case]
    error = UnsupportedByBackend if "state" in message else ProgramError
    with pytest.raises(error, match=message):
        open_pair(*broken(change, where))


def test_site_outside_the_plate():
    def model(x):
        z = numpyro.sample("z", normal(jnp.zeros((x.shape[0], D))))
        with plate(x, None):
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT)), obs=x)

    with pytest.raises(ProgramError, match=r"'z' is outside the data plate 'data'.*\(25,\).*with numpyro\.plate"):
        open_pair(model, linear()[1])

    def once(x):
        z = numpyro.sample("z", normal(EVENT))
        with plate(x, None):
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT)), obs=x)

    with pytest.raises(ProgramError, match=r"'z'.*value from the guide of shape \(25, 2\).*expected \(2,\)"):
        open_pair(once, linear()[1])


def test_missing_plate_names_those_there_are():
    with pytest.raises(ProgramError, match=r"no plate 'rows'; its plates: 'data'.*data_plate="):
        open_pair(*linear(), plate="rows")

    def model(x):
        numpyro.sample("x", normal(jnp.zeros(X)).to_event(1) if False else dist.Normal(x, 1.0).to_event(2), obs=x)

    with pytest.raises(ProgramError, match="no plate 'data'; its plates: none"):
        open_pair(model, lambda x: None)


def test_control_flow_is_refused():
    def model(x):
        scan(lambda carry, _: (carry, numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)), 0.0, None, length=3)
        linear()[0](x)

    with pytest.raises(UnsupportedByBackend, match="control flow"):
        open_pair(model, linear()[1])


def test_training_needs_pathwise_draws():
    """A discrete latent is refused in training only: its log-weights are what they are."""

    def model(x):
        with plate(x, None):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("x", normal(z[:, None] * jnp.ones(X)), obs=x)

    def guide(x):
        with plate(x, None):
            numpyro.sample("z", dist.Bernoulli(logits=x[:, 0] * numpyro.param("a", 1.0)))

    opened = open_pair(model, guide)
    assert log_weights(opened, range(B), 3).shape == (3, B)
    with pytest.raises(ProgramError, match=r"'z': Bernoulli\w* is not reparameterised"):
        Training(opened).run(1)


def test_no_prior_draws_and_no_missing_means():
    runtime, params, _ = open_pair(*linear())
    with pytest.raises(UnsupportedByBackend, match="size of its data plate only from data"):
        runtime.prior(params, {"x": None}, 3, 0, False)

    def model(x):
        with plate(x, None):
            numpyro.sample("x", normal(numpyro.sample("z", normal(EVENT)) @ jnp.asarray(WEIGHT)), obs=x)
            numpyro.sample("y", dist.Unit(jnp.zeros(len(x))), obs=jnp.zeros((len(x), 0)))

    opened = open_pair(model, linear()[1])
    with pytest.raises(ProgramError, match="'y': Unit has no mean"):
        opened[0].means(*opened[1:], np.arange(B))


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_one_compilation_with_the_users_own_optimiser():
    own = optax.chain(optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adam)(1e-2), optax.ema(0.9))
    training = Training(open_pair(*vae(by_param)), optimiser=own, rate=1.0)
    for _ in range(3):
        training.run(2)
    assert training.trainer.compilations() == 1


class Convolution(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2 * D)(linen.Conv(2, (3,))(x[..., None]).reshape(x.shape[0], -1))


def test_convolutions_of_the_users_own_leave_the_loop():
    """XLA runs them slowly inside a loop on a CPU; as single steps they give the same."""

    def guide(x):
        encoder = flax_module("encoder", Convolution(), input_shape=(1, X))
        with plate(x, None):
            head = encoder(x)
            numpyro.sample("z", normal(head[:, :D], jnp.exp(head[:, D:])))

    opened = open_pair(linear()[0], guide)
    singly, inside, other = Training(opened), Training(opened), Training(open_pair(*vae(by_param)))
    inside.trainer._singly = False
    found, expected = ([t.run(3)["elbo"] for _ in range(2)] for t in (singly, inside))
    other.run(1)
    assert (singly.trainer._singly, other.trainer._singly) == (True, False)
    assert singly.trainer.compilations() == inside.trainer.compilations() == 1
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    for name, value in inside.trainer.values().items():
        np.testing.assert_allclose(singly.trainer.values()[name], value, atol=1e-4)


def test_errors_are_ours():
    assert issubclass(ProgramError, PpdgmError)
