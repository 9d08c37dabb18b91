"""Bounds of plain Pyro pairs, over minibatches and against exact values (FIELD 1, 2, 3)."""

import numpy as np
import pyro
import pyro.distributions as dist
import pyro_pairs as pairs
import pytest
import torch
from pyro.infer import RenyiELBO
from pyro_runs import B, K, N, X, Z, draw, log_weights, quiet, start, train, trainer_of

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError
from ppdgm.inference import IWAE
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.svi import SVI
from ppdgm.inference.inputs.batches import Batches

__all__ = ["quiet"]  # a fixture around every test

# --- FIELD 1: bounds ------------------------------------------------------------------------------------------


def off(values, exact):
    """How many standard errors (over draws, particles first) a mean is from the exact value."""
    error = values.std(0).mean() / np.sqrt(values.size)
    assert error < 0.002 * abs(exact)
    return abs(values.mean() - exact) / error


def log_mean(w, exact):
    """How many standard errors log (1/K) Σ w, averaged over data, is from the exact value."""
    relative = np.exp(w - w.max(0))
    error = np.sqrt(((relative.std(0) / relative.mean(0)) ** 2 / len(w)).sum()) / w.shape[1]
    return abs((np.log(relative.mean(0)) + w.max(0)).mean() - exact) / max(error, 1e-9), error


@pytest.mark.statistical
@pytest.mark.parametrize("subsampled", [False, True], ids=["full", "subsampled"])
def test_bounds_on_a_linear_gaussian_pair(subsampled):
    """K = 1 is the ELBO, and many particles reach log p(x): within 4 standard errors, these ≤ 0.2 %.

    Wrong twins do not: without log q, with one draw for all particles, with N/B inside the log-sum-exp.
    """
    n, b, k = 40, 8, 4000
    made = pairs.LinearGaussian(n, b) if subsampled else pairs.LinearGaussian()
    x = made.data(n, 1)
    runtime, params, data = start(made.pair, x.numpy())

    def every(function):
        parts = [np.arange(i, i + b) for i in range(0, n, b)]
        found = [runtime.evaluate(function, params, data, i, k, (int(i[0]),), False) for i in parts]
        return np.concatenate(found, axis=1).astype(np.float64)

    w, exact = every(bounds.log_weights), made.log_likelihood(x).mean().item()
    assert off(w, made.elbo(x).mean().item()) < 4
    distance, error = log_mean(w, exact)
    assert distance < 4
    assert error < 0.002 * abs(exact)
    without_q = every(lambda trace, xp: sum(trace.log_p.values()))
    assert log_mean(without_q, exact)[0] > 20
    assert log_mean(np.repeat(w[:1], k, axis=0), exact)[0] > 20
    assert log_mean(n / b * w, exact * n / b)[0] > 20


@pytest.mark.statistical
def test_minibatches_give_the_importance_weighted_bound_of_all_data():
    """Ours agrees within 4 standard errors, these ≤ 0.2 %; Pyro's RenyiELBO, with N/B inside, is far off."""
    n, b, k, repeats = 40, 4, 5, 60
    x = pairs.LinearGaussian().data(n, 1)
    mean = lambda a: (np.mean(a), np.std(a) / np.sqrt(len(a)))

    def ours(runtime, params, data, index, seed):
        w = log_weights(runtime, params, data, index, k, seed).astype(np.float64)
        return n * (np.logaddexp.reduce(w, axis=0) - np.log(k)).mean()

    full, small = start(pairs.LinearGaussian().pair, x.numpy()), start(pairs.LinearGaussian(n, b).pair, x.numpy())
    orders = [np.random.default_rng(i).permutation(n).reshape(-1, b) for i in range(repeats)]
    every = [mean([ours(*small, index, 1000 * i + j) for j, index in enumerate(o)])[0] for i, o in enumerate(orders)]
    (all_data, e1), (minibatch, e2) = mean([ours(*full, np.arange(n), i) for i in range(repeats)]), mean(every)
    assert np.hypot(e1, e2) < 0.002 * abs(all_data)
    assert abs(all_data - minibatch) < 4 * np.hypot(e1, e2)

    renyi = RenyiELBO(alpha=0.0, num_particles=k, vectorize_particles=True, max_plate_nesting=1)
    with pyro.get_param_store().scope():
        theirs = {
            size: mean([-renyi.loss(*pairs.LinearGaussian(n, size).pair, x) for _ in range(800)]) for size in (n, b)
        }
    (all_data, e1), (minibatch, e2) = theirs[n], theirs[b]
    assert abs(all_data - minibatch) > 8 * np.hypot(e1, e2)


@pytest.mark.statistical
def test_training_maximises_the_bound_of_all_data():
    """The objective that `fit` climbs, at parameters that stay: the same from minibatches as from all data."""
    n, b = 40, 4
    x = pairs.LinearGaussian().data(n, 1)

    def objective(pair, steps):
        options = {"engine": IWAE(k=5), "learning_rate": 0.0, "batch_size": n, "progress": False}
        if pair is not whole:
            options.pop("batch_size")
        seen = ppdgm.fit(Program.from_pyro(*pair), x.numpy(), steps=steps, **options).history["objective"].astype(float)
        seen = seen.reshape(-1, max(1, len(seen) // 60)).mean(1)  # whole epochs
        return seen.mean(), seen.std(ddof=1) / np.sqrt(len(seen))

    whole = pairs.LinearGaussian().pair
    (all_data, e1), (minibatch, e2) = objective(whole, 60), objective(pairs.LinearGaussian(n, b).pair, 60 * n // b)
    assert np.hypot(e1, e2) < 0.003 * abs(all_data)
    assert abs(all_data - minibatch) < 4 * np.hypot(e1, e2)


# --- FIELD 2, 3: minibatches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampled", [False, True], ids=["full", "subsampled"])
def test_loss_and_gradient_do_not_depend_on_the_batch_size(subsampled):
    """The minibatches of an epoch, ragged last one included, add up to all data, for the same draws."""
    x, engine = draw(11), SVI(kl="monte_carlo")
    made = pairs.Functions(), *((pairs.Functions(11, 4),) if subsampled else ())
    for part in made[1:]:
        for net, other in zip(part.nets, made[0].nets, strict=True):
            net.load_state_dict(other.state_dict())
    z = draw(11, Z, seed=1)[None]

    def epoch(pair, b):
        runtime, params, data = start(pair, x)
        tracer, total = runtime.tracer, 0.0
        live = tracer.adopt(params)
        index, weight = Batches(11, b, 0).rows(0, -(-11 // b), -(-11 // b))
        with tracer.training(live):
            for rows, w in zip(torch.as_tensor(index, dtype=torch.int64), torch.as_tensor(weight), strict=True):
                batch = data if tracer.subsamples else {"x": data["x"][rows]}
                trace = tracer.trace(live, None, batch, rows, 1, {"z": torch.tensor(z)[:, rows]})
                total = total + engine(trace, torch, w, {"beta": 1.0}, 11)["objective"] * w.sum() / 11
            grads = torch.autograd.grad(total, list(live.values()))
        return total.item(), dict(zip(live, grads, strict=True))

    whole, gradient = epoch(made[0].pair, 11)
    value, grads = epoch(made[-1].pair, 4)
    assert value == pytest.approx(whole, rel=1e-5)
    for n, g in gradient.items():
        torch.testing.assert_close(grads[n], g, rtol=1e-4, atol=1e-5)


def test_a_latent_for_all_data_counts_once_in_n():
    x = draw()
    runtime, params, data = start(pairs.with_global(), x)
    trace = runtime.trace(params, data, np.arange(B), K, 0, None, False)
    assert trace.values["m"].shape == (K, 1, X)
    assert trace.shared["m"].shape == (K,)
    m = trace.values["m"][:, 0]
    expected = dist.Normal(0.0, 2.0).log_prob(torch.tensor(m)) - dist.Normal(0.0, 0.1).log_prob(torch.tensor(m))
    np.testing.assert_allclose(trace.shared["m"], expected.sum(-1), rtol=1e-4)
    knobs, weights = {"beta": 1.0}, np.ones(B)
    with pytest.raises(ProgramError, match=r"data_size=N"):
        SVI()(trace, np, weights, knobs, None)
    one, many = (SVI(kl="monte_carlo")(trace, np, weights, knobs, n)["elbo"] for n in (1, 1000))
    assert one - many == pytest.approx(trace.shared["m"].mean() * (1 - 1e-3), rel=1e-4)
    with pytest.raises(ProgramError, match="no log-weight per row"):
        log_weights(runtime, params, data, np.arange(B), K)


def test_guide_and_model_share_the_minibatch():
    seen = []

    def model(x):
        with pyro.plate("data", N, subsample_size=B) as i:
            seen.append(i)
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, pyro.param("s", torch.tensor(1.0))), obs=x[i, 0])

    def guide(x):
        with pyro.plate("data", N, subsample_size=B) as i:
            seen.append(i)
            pyro.sample("z", dist.Normal(x[i, 0], 1.0))

    trainer = trainer_of(start((model, guide), draw()), SVI(k=2))
    seen.clear()
    train(trainer, 3, B)
    index, _ = Batches(N, B, 0).rows(0, 3, 3)
    assert len(seen) == 6
    for step in range(3):
        np.testing.assert_array_equal(seen[2 * step], index[step])
        np.testing.assert_array_equal(seen[2 * step + 1], index[step])
