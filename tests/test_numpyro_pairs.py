"""Plain NumPyro pairs through the readings and the training of the NumPyro backend."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx
from numpyro.contrib.module import flax_module
from numpyro_pairs import (
    COVARIANCE,
    DATA,
    EXACT,
    NAMES,
    NETS,
    NETS_BY_HAND,
    NNX,
    B,
    D,
    N,
    Training,
    X,
    linear,
    log_weights,
    normal,
    open_pair,
    plate,
    read,
    standard,
    vae,
)
from scipy.special import logsumexp

from ppdgm.inference import SVI

# --- the ways in which parameters are written ------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "part"), [("param", B), ("flax", None), ("nnx", B), ("eqx", None)])
def test_train_evaluate_and_encode(kind, part):
    own = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(NNX["encoder"])))
    opened = open_pair(*vae(NETS[kind], part))
    runtime, params, data = opened
    first = {n: np.array(v) for n, v in params.items()}
    assert NAMES[kind] in params and np.isclose(params["scale"], np.log(0.5))
    assert runtime.tracer.subsamples == bool(part) and runtime.tracer.batch_size == part
    assert runtime.bytes_written(params, data, 2, B) > runtime.bytes_written(params, data, 1, B)

    training = Training(opened)
    histories = [training.run(60)["elbo"] for _ in range(3)]
    assert histories[2].mean() > histories[0].mean() + 0.5
    assert training.trainer.compilations() == 1
    assert all(np.array_equal(v, params[n]) for n, v in first.items())  # the caller's arrays are as they were

    # NumPyro writes traced values into the states of NNX modules; none may reach the user's own.
    assert jax.tree.all(jax.tree.map(np.array_equal, own, nnx.to_pure_dict(nnx.state(NNX["encoder"]))))

    values = training.trainer.values()
    fresh = open_pair(*vae(NETS[kind], part), params=values)  # as from a checkpoint: it has initialised nothing
    index = np.arange(B) + 3
    assert log_weights(fresh, index, 50).mean() > log_weights((fresh[0], params, data), index, 50).mean() + 1
    latents, observed = fresh[0].means(*fresh[1:], index)
    decoder, encoder = (NETS_BY_HAND[kind](values, n) for n in ("decoder", "encoder"))
    z = encoder(DATA[index])[:, :D]
    assert list(latents) == ["z"] and list(observed) == ["x"]
    np.testing.assert_allclose(latents["z"], z[None], atol=1e-5)
    np.testing.assert_allclose(observed["x"], decoder(z)[None], atol=1e-5)


# --- FIELD 1: a linear-Gaussian pair, whose log p(x) is known ---------------------------------------------------------


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
    """Mean bound and mean gradient over the minibatches of one epoch, each at the first parameters."""
    opened = open_pair(*point(part))
    training = Training(opened, SVI(kl="monte_carlo"), optax.sgd(1.0), batch_size, rate=1.0)
    counts = training.batches.rows(0, training.batches.per_epoch, training.batches.per_epoch)[1].sum(1)
    bounds, gradients = [], []
    for _ in counts:
        training.trainer.params = jax.tree.map(jnp.copy, opened[1])
        bounds += training.run(1)["elbo"].tolist()
        gradients.append(training.trainer.values()["encoder"] - np.asarray(opened[1]["encoder"]))
    weight = counts / counts.sum()
    return bounds @ weight, np.tensordot(weight, np.array(gradients), 1), counts


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
            z = numpyro.sample("z", standard(X))
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
    pair = [Training(open_pair(*linear(), data=scale * DATA)) for scale in (1.0, 2.0)]
    for training in (*pair, *pair):
        training.run(5)
    separate = Training(open_pair(*linear(), data=2.0 * DATA))
    separate.run(10)
    first, second, alone = (t.trainer.values()["weight"] for t in (*pair, separate))
    assert np.array_equal(second, alone) and not np.array_equal(first, second)


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_one_compilation_with_the_users_own_optimiser():
    own = optax.chain(optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adam)(1e-2), optax.ema(0.9))
    training = Training(open_pair(*point()), optimiser=own, rate=1.0)
    for _ in range(3):
        training.run(2)
    assert training.trainer.compilations() == 1 and not training.trainer._singly


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
    singly, inside = Training(opened), Training(opened)
    inside.trainer._singly = False
    found, expected = ([t.run(3)["elbo"] for _ in range(2)] for t in (singly, inside))
    assert singly.trainer._singly
    assert singly.trainer.compilations() == inside.trainer.compilations() == 1
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    for name, value in inside.trainer.values().items():
        np.testing.assert_allclose(singly.trainer.values()[name], value, atol=1e-4)
