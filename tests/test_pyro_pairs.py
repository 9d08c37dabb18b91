"""Plain Pyro pairs, as they are: found out, read per datum, trained, evaluated; what does not fit is refused."""

from contextlib import contextmanager

import numpy as np
import pyro
import pyro.distributions as dist
import pyro_pairs as pairs
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppdgm.backends.pyro import Runtime, Trainer
from ppdgm.errors import ProgramError, UnsupportedByBackend
from ppdgm.inference import bounds
from ppdgm.inference.batches import Batches, Plan
from ppdgm.inference.optimisers import Optimiser
from ppdgm.inference.svi import SVI
from ppdgm.program import Program

N, B, K, X, Z = 12, 4, 3, pairs.X, pairs.Z

FULL = {
    "functions": lambda: pairs.Functions().pair,
    "PyroModules": lambda: pairs.Modules().pair,
    "methods": lambda: pairs.VAE().pair,
    "nested, data left": lambda: pairs.nested(-2),
    "nested, data right": lambda: pairs.nested(-1),
    "mask, factor, auxiliary": pairs.everything,
    "global": pairs.with_global,
    "subsample_size = N": lambda: pairs.Functions(N, N).pair,
}
STYLES = {"functions": pairs.Functions, "PyroModules": pairs.Modules, "methods": pairs.VAE}


@pytest.fixture(autouse=True)
def quiet():
    """One thread, a fixed seed, and the global store as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
    assert not len(pyro.get_param_store())


def draw(n=N, width=X, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def start(pair, x, seed=0):
    """(runtime, parameters on the device, data on the device) of a pair over x, or over named fields."""
    data = x if isinstance(x, dict) else {"x": x}
    runtime = Runtime(Program.from_pyro(*pair), "cpu")
    return runtime, runtime.put(runtime.initialise(seed, data, "float32")), runtime.put(data)


def log_weights(runtime, params, data, index, k, seed=0):
    return runtime.evaluate(bounds.log_weights, params, data, np.asarray(index), k, (seed,), False)


def train(trainer, steps, b, n=N, first=0, rate=1e-2, seed=0):
    index, weight = Batches(n, b, seed).rows(first, steps, steps)
    knobs = trainer.objective.knobs(np.arange(first, first + steps))
    return trainer.run(Plan(index, weight, np.full(steps, rate, np.float32), knobs, first, steps))


def trainer_of(started, engine=None, seed=0, n=N):
    runtime, params, data = started
    return Trainer(runtime, engine or SVI(), Optimiser(), params, data, seed, n)


def by_hand(nets, x, z, scale=0.8):
    """log p(z) + log p(x | z) and log q(z | x), [K, B], of the pairs that share these nets."""
    encoder, decoder = nets
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + dist.Normal(decoder(z), scale).log_prob(x).sum(-1)
    loc, sd = encoder(x)
    return log_p, dist.Normal(loc, sd).log_prob(z).sum(-1)


# --- what is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, K])
@pytest.mark.parametrize("subsampled", [False, True], ids=["full", "subsampled"])
@pytest.mark.parametrize("style", STYLES)
def test_terms_are_those_by_hand(style, subsampled, k):
    made = STYLES[style](N, B) if subsampled else STYLES[style]()
    x, index = draw(), np.array([7, 2, 10, 5])
    runtime, params, data = start(made.pair, x)
    assert runtime.tracer.batch_size == (B if subsampled else None)
    assert runtime.tracer.subsamples == subsampled
    assert runtime.tracer.particles == "in a plate"
    found = runtime.trace(params, data, index, k, 0, None, True)
    z = torch.tensor(found.values["z"])
    assert z.shape == (k, B, Z)
    with torch.no_grad():
        log_p, log_q = by_hand(made.nets, torch.tensor(x[index]), z)
    np.testing.assert_allclose(found.log_p["z"] + found.log_p["x"], log_p, rtol=1e-5)
    np.testing.assert_allclose(found.log_q["z"], log_q, rtol=1e-5, atol=1e-5)
    assert found.kl["z"].shape in {(1, B, Z), (k, B, Z)}
    assert len(np.unique(z.numpy())) == k * B * Z  # drawn for each particle and datum


def test_the_parameters_of_every_style_are_found():
    names = {"encoder$$$fc1.weight", "decoder$$$fc2.bias", "scale"}
    for style in STYLES.values():
        runtime, params, _ = start(style().pair, draw())
        assert names <= set(params)
        assert len(params) == 6 + 4 + 1
        assert float(params["scale"]) == pytest.approx(np.log(0.8))  # unconstrained
        assert not runtime.tracer.state_names


@pytest.mark.parametrize("name", FULL)
def test_one_particle_is_pyros_own_elbo_and_gradient(name):
    runtime, params, data = start(FULL[name](), draw())
    tracer, index = runtime.tracer, torch.arange(N)
    live = tracer.adopt(params)
    with tracer.training(live):
        torch.manual_seed(1)
        trace = tracer.trace(live, data, index, 1)
        ours = bounds.elbo(trace, torch).sum() + N * bounds.shared(trace, torch) / N
        torch.manual_seed(1)
        theirs = -Trace_ELBO().differentiable_loss(tracer.program.model, tracer.program.guide, data["x"])
        grads = [torch.autograd.grad(v, list(live.values()), retain_graph=True) for v in (ours, theirs)]
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for mine, pyros in zip(*grads, strict=True):
        torch.testing.assert_close(mine, pyros, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("data_dim", [-1, -2])
def test_nested_plates(data_dim):
    model, guide = pairs.nested(data_dim)
    x = draw()
    runtime, params, data = start((model, guide), x)
    found = runtime.trace(params, data, np.arange(B), K, 0, None, True)
    assert {n: v.shape for n, v in found.values.items()} == {"z": (K, B), "w": (K, B, 3)}
    assert list(found.kl) == ["z"]
    encoder, decoder = (f.__closure__ for f in (guide, model))
    decoder = next(c.cell_contents for c in decoder if isinstance(c.cell_contents, nn.Linear))
    encoder = next(c.cell_contents for c in encoder if isinstance(c.cell_contents, nn.Linear))
    z, w = (torch.tensor(found.values[n]) for n in "zw")
    xs = torch.tensor(x[:B]).reshape(B, 3, 2)
    with torch.no_grad():
        h = encoder(xs)
        expected = {
            "z": dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(h[..., 0].mean(1), 0.9).log_prob(z),
            "w": (dist.Normal(z.unsqueeze(-1), 0.5).log_prob(w) - dist.Normal(h[..., 1], 0.6).log_prob(w)).sum(-1),
            "x": dist.Normal(decoder(w.unsqueeze(-1)), 0.7).log_prob(xs).sum((-1, -2)),
        }
    for n, value in expected.items():
        np.testing.assert_allclose(found.log_p[n] - found.log_q.get(n, 0.0), value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, K])
@pytest.mark.parametrize("name", ["functions", "PyroModules", "nested, data left", "nested, data right", "global"])
def test_given_values_are_read_as_they_were_drawn(name, k):
    runtime, params, data = start(FULL[name](), draw())
    first = runtime.trace(params, data, np.arange(B), k, 0, None, False)
    again = runtime.trace(params, data, np.arange(B), k, 1, first.values, False)
    for n, value in first.values.items():
        np.testing.assert_array_equal(again.values[n], value)
        for part in ("log_p", "log_q", "shared"):
            if n in getattr(first, part):
                np.testing.assert_allclose(getattr(again, part)[n], getattr(first, part)[n], rtol=1e-5, atol=1e-5)


def test_a_scaled_plate_over_minibatches():
    made, x = pairs.Scaled(), draw()
    runtime, params, data = start(made.pair, x)
    assert (runtime.tracer.batch_size, runtime.tracer.subsamples) == (None, False)
    found = runtime.trace(params, data, np.arange(5), K, 0, None, False)
    with torch.no_grad():
        log_p, _ = by_hand(made.nets, torch.tensor(x[:5]), torch.tensor(found.values["z"]))
    np.testing.assert_allclose(found.log_p["z"] + found.log_p["x"], log_p, rtol=1e-5)


def test_a_plate_of_fixed_size_takes_all_data_at_once():
    runtime, params, data = start(pairs.Functions(N).pair, draw())
    assert (runtime.tracer.batch_size, runtime.tracer.subsamples) == (N, False)
    assert log_weights(runtime, params, data, np.arange(N), K).shape == (K, N)
    with pytest.raises(ProgramError, match="takes 12 data at a time, got 5"):
        log_weights(runtime, params, data, np.arange(5), K)


@pytest.mark.parametrize(
    ("make", "width", "way"),
    [
        (pairs.convolutional, 16, "as more data"),
        (lambda: pairs.convolutional(N, B), 16, "one at a time"),
        (lambda: pairs.Normalised().pair, X, "one at a time"),
        (lambda: pairs.Labelled().pair, X, "as more data"),
    ],
    ids=["convolutions", "subsampled convolutions", "batch norm", "concatenation"],
)
def test_several_particles_where_networks_take_no_more_dimensions(make, width, way):
    x = draw(width=width)
    x = x.reshape(N, 1, 4, 4) if width == 16 else x
    x = {"x": x, "y": draw(width=1)[:, 0]} if way == "as more data" and width == X else x
    runtime, params, data = start(make(), x)
    assert runtime.tracer.particles == way
    several = runtime.trace(params, data, np.arange(B), K, 0, None, True)
    assert several.values["z"].shape[:2] == (K, B)
    for i in range(K):
        one = runtime.trace(
            params, data, np.arange(B), 1, 0, {n: v[i : i + 1] for n, v in several.values.items()}, True
        )
        for part in ("log_p", "log_q", "kl"):
            for n, value in getattr(one, part).items():
                np.testing.assert_allclose(getattr(several, part)[n][i], value[0], rtol=1e-5, atol=1e-5)


def test_dropout_does_not_hinder_particles_in_a_plate():
    made = pairs.Functions()
    made.nets[1].fc1 = nn.Sequential(nn.Dropout(0.5), made.nets[1].fc1)
    runtime, params, data = started = start(made.pair, draw())
    assert runtime.tracer.particles == "in a plate"
    assert made.nets[1].fc1[0].training
    assert np.isfinite(train(trainer_of(started, SVI(k=2)), 3, B)["elbo"]).all()
    a, b = (runtime.trace(params, data, np.arange(B), K, 0, None, False).log_p["x"] for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_named_fields_are_matched_to_arguments():
    data = {"x": draw(), "y": np.ones(N, np.float32)}
    runtime, params, native = start(pairs.Labelled().pair, data)
    assert log_weights(runtime, params, native, np.arange(5), K).shape == (K, 5)
    with pytest.raises(ProgramError, match=r"guide takes \(x, y, unused=None\), but the data have the fields x"):
        start(pairs.Labelled().pair, draw())
    with pytest.raises(ProgramError, match="'label' is taken by neither model nor guide, which take unused, x, y"):
        start(pairs.Labelled().pair, {**data, "unused": data["y"], "label": data["y"]})


def test_means_follow_one_another():
    made = pairs.Functions()
    x = draw()
    runtime, params, data = start(made.pair, x)
    latents, observed = runtime.means(params, data, np.arange(5))
    with torch.no_grad():
        loc, _ = made.nets[0](torch.tensor(x[:5]))
        np.testing.assert_allclose(latents["z"][0], loc, atol=1e-6)
        np.testing.assert_allclose(observed["x"][0], made.nets[1](loc), atol=1e-6)
    runtime, params, data = start(pairs.nested(-2), x)
    latents, observed = runtime.means(params, data, np.arange(5))
    assert {n: v.shape for n, v in (latents | observed).items()} == {"z": (1, 5), "w": (1, 5, 3), "x": (1, 5, 3, 2)}
    runtime, params, data = start(pairs.everything(), x)
    latents, observed = runtime.means(params, data, np.arange(5))
    assert set(latents) == {"z", "first_unobserved"}
    assert set(observed) == {"x", "first_observed"}
    with pytest.raises(UnsupportedByBackend, match="without data"):
        runtime.prior(params, {"x": None}, 3, 0, False)


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
    mean = lambda a: (np.mean(a), np.std(a) / np.sqrt(len(a)))  # noqa: E731

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
                trace = tracer.trace(live, batch, rows, 1, {"z": torch.tensor(z)[:, rows]})
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
    with pytest.raises(ProgramError, match="no log-weight per datum"):
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


# --- FIELD 5, 10: networks with state -------------------------------------------------------------------------


def snapshot(module):
    return {n: t.clone() for n, t in module.state_dict().items()} | {n: m.training for n, m in module.named_modules()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[n]) if torch.is_tensor(v) else v == b[n] for n, v in a.items())


@pytest.mark.parametrize("k", [1, 2])
def test_buffers_move_in_training_and_only_there(k):
    torch.manual_seed(3)
    vae, x = pairs.Normalised(), draw(13)
    vae.decoder.eval()  # a mode that the user chose
    before = snapshot(vae)
    runtime, params, data = started = start(vae.pair, x)
    assert same(snapshot(vae), before)
    moments = ("running_mean", "running_var", "num_batches_tracked")
    names = {f"{net}$$$1.{moment}" for net in ("encoder", "decoder") for moment in moments}
    assert runtime.tracer.state_names == names | {"counter.calls"} < set(params)

    trainer = trainer_of(started, SVI(k=k), n=13)
    train(trainer, 4, 4, n=13)  # 13 mod 4 = 1: the last minibatch has one datum
    values = trainer.values()
    assert values["encoder$$$1.num_batches_tracked"] == 4 * (k if runtime.tracer.particles == "one at a time" else 1)
    assert np.abs(values["encoder$$$1.running_mean"]).max() > 0
    assert values["decoder$$$1.num_batches_tracked"] == 0
    assert values["counter.calls"] == vae.counter.calls == 4 * (k if runtime.tracer.particles == "one at a time" else 1)
    assert trainer.params["counter.calls"] is vae.counter.calls
    for n in values:
        np.testing.assert_array_equal(values[n], trainer.params[n].detach())

    after = snapshot(vae)
    for given in (params, trainer.params, runtime.put(values)):
        log_weights(runtime, given, data, np.arange(5), K)
        runtime.means(given, data, np.arange(5))
        assert same(snapshot(vae), after)
    at_first, at_last = (log_weights(runtime, p, data, np.arange(5), K) for p in (params, trainer.params))
    assert not np.allclose(at_first, at_last)
    np.testing.assert_array_equal(at_last, log_weights(runtime, runtime.put(values), data, np.arange(5), K))


def test_evaluation_does_not_depend_on_what_else_is_in_the_minibatch():
    vae, x = pairs.Normalised(), draw()
    runtime, params, data = start(vae.pair, x)
    z = {"z": draw(N, Z, seed=4)[None]}
    whole = runtime.trace(params, data, np.arange(N), 1, 0, z, False)
    part = runtime.trace(params, data, np.arange(3), 1, 0, {"z": z["z"][:, :3]}, False)
    for n in ("x", "z"):
        np.testing.assert_allclose(part.log_p[n], whole.log_p[n][:, :3], rtol=1e-5)
    np.testing.assert_allclose(part.log_q["z"], whole.log_q["z"][:, :3], rtol=1e-5)


def test_subsampled_batch_norm_trains_with_a_last_batch_of_one():
    vae = pairs.Normalised(13, 4)
    trainer = trainer_of(start(vae.pair, draw(13)), n=13)
    history = train(trainer, 8, 4, n=13)
    assert np.isfinite(history["elbo"]).all()


# --- FIELD 6: parameters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_interleaved_training_equals_separate_training(style):
    def make(seed):
        torch.manual_seed(seed)
        return STYLES[style]()

    def steps(seed):
        return trainer_of(start(make(seed).pair, draw(seed=seed)), seed=seed)

    alone = [steps(seed) for seed in (1, 2)]
    for t in alone:
        for first in range(0, 9, 3):
            train(t, 3, B, first=first)
    together = [steps(seed) for seed in (1, 2)]
    for first in range(0, 9, 3):
        for t in together:
            train(t, 3, B, first=first)
    for one, other in zip(alone, together, strict=True):
        for n, value in one.values().items():
            np.testing.assert_array_equal(value, other.values()[n])


@contextmanager
def users_store():
    """A global store that the user filled, with the names that the pairs use."""
    with pyro.get_param_store().scope():
        store = pyro.get_param_store()
        pyro.param("scale", torch.tensor(3.0), constraint=dist.constraints.positive)
        pyro.module("decoder", pairs.Decoder())
        before = {n: (id(t), t.clone()) for n, t in store.named_parameters()}
        yield
        assert list(store.keys()) == list(before)
        for n, t in store.named_parameters():
            assert id(t) == before[n][0]
            assert torch.equal(t, before[n][1])
        assert not pyro.poutine.runtime._PYRO_STACK


@pytest.mark.parametrize("style", STYLES)
def test_the_users_store_is_left_alone(style):
    with users_store():
        made = STYLES[style](N, B)
        runtime, params, data = started = start(made.pair, draw())
        assert float(params["scale"]) == pytest.approx(np.log(0.8))  # not the store's 3
        train(trainer_of(started), 2, B)
        log_weights(runtime, params, data, np.arange(B), K)
        runtime.means(params, data, np.arange(B))


@pytest.mark.parametrize("when", ["plate", "guide", "model", "training", "evaluation"])
def test_the_users_store_and_modules_survive_an_exception(when):
    made, fail = pairs.VAE(), []

    def model(x):
        if "model" in fail or ("plate" in fail):
            raise KeyError(when)
        return made.model(x)

    def guide(x):
        if "guide" in fail:
            raise KeyError(when)
        return made.guide(x)

    with users_store():
        if when in ("plate", "guide"):
            fail.append(when)
            before = snapshot(made)
            with pytest.raises(KeyError):
                start((model, guide), draw())
            assert same(snapshot(made), before)
            return
        runtime, params, data = started = start((model, guide), draw())
        trainer = trainer_of(started)
        train(trainer, 2, B)
        fail.append("model")
        before = snapshot(made)
        with pytest.raises(KeyError):
            if when == "training":
                train(trainer, 2, B, first=2)
            else:
                log_weights(runtime, params, data, np.arange(B), K)
        assert same(snapshot(made), before)
        assert not vars(made.encoder.fc1.weight)  # none of Pyro's marks, which can't be pickled
        fail.clear()
        train(trainer, 2, B, first=2)


def test_the_same_seed_gives_the_same_bits():
    def run():
        torch.manual_seed(5)
        started = start(pairs.Modules(N, B).pair, draw())
        history = train(trainer_of(started, SVI(k=2), seed=1), 5, B)
        return history["elbo"], log_weights(*started, np.arange(B), K)

    for a, b in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_published_vae_learns():
    torch.manual_seed(0)
    made, x = pairs.LinearGaussian(), pairs.LinearGaussian().data(200, 0).numpy()
    vae = pairs.VAE()
    runtime, _, data = started = start(vae.pair, x)
    trainer = trainer_of(started, n=200)
    history = train(trainer, 600, 20, n=200)
    reached, best = history["elbo"][-50:].mean(), made.log_likelihood(torch.tensor(x)).mean().item()
    assert history["elbo"][:5].mean() < best - 3.0
    assert best - 1.0 < reached < best + 0.5
    assert runtime.trace(trainer.params, data, np.arange(5), 1, 0, None, False).log_p["x"].shape == (1, 5)


def test_parameters_are_the_modules_own():
    made = pairs.VAE()
    made.decoder.fc1.weight = nn.Parameter(torch.randn(Z, 8).T)  # not contiguous: Pyro's store would hold a copy
    own = dict(made.decoder.named_parameters())
    started = start(made.pair, draw())
    before = made.decoder.fc1.weight.clone()
    trainer = trainer_of(started)
    train(trainer, 2, B)
    assert all(p is own[n] for n, p in made.decoder.named_parameters())
    assert trainer.params["decoder$$$fc1.weight"] is made.decoder.fc1.weight
    assert not torch.equal(made.decoder.fc1.weight, before)


def test_modules_that_pyro_fills_from_its_store():
    """`update_module_params`, with a net of ours and with one that each call makes anew."""
    encoder = nn.Linear(X, Z)
    encoder.weight = nn.Parameter(torch.randn(X, Z).T)

    def model(x):
        decoder = pyro.module("decoder", nn.Linear(Z, X), update_module_params=True)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder, update_module_params=True)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    own = encoder.weight
    trainer = trainer_of(start((model, guide), draw()))
    before = trainer.values()
    train(trainer, 2, B)
    assert encoder.weight is own
    assert len(before) == 4
    assert not any(np.array_equal(v, before[n]) for n, v in trainer.values().items())


def test_training_moves_no_tensor_that_a_parameter_starts_from():
    loc = torch.zeros(X)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = pyro.param("loc", loc) + pyro.param("lazy", lambda: loc) + z.unsqueeze(-1)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(x.mean(-1), 1.0))

    trainer = trainer_of(start((model, guide), draw()))
    train(trainer, 2, B)
    assert np.abs(trainer.values()["loc"]).min() > 0
    assert not loc.any()
    assert not loc.requires_grad


def test_a_module_that_pyro_does_not_train_is_part_of_the_state():
    frozen, decoder = nn.Linear(X, Z).requires_grad_(False), pairs.Decoder()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(frozen(x), 1.0).to_event(1))

    runtime, params, data = started = start((model, guide), draw())
    assert len(runtime.tracer.state_names) == 2
    weight = next(n for n in runtime.tracer.state_names if n.endswith("weight"))
    zeros = {**params, weight: torch.zeros_like(params[weight])}
    a, b = (runtime.means(p, data, np.arange(3))[0]["z"] for p in (params, zeros))
    assert not np.allclose(a, b)
    np.testing.assert_allclose(runtime.means(params, data, np.arange(3))[0]["z"], a)
    train(trainer_of(started), 2, B)
    torch.testing.assert_close(frozen.weight, params[weight])


def test_modules_are_found_wherever_they_are_called():
    nets = {"encoder": nn.Sequential(nn.Linear(X, Z), nn.BatchNorm1d(Z)), "decoder": nn.Linear(Z, X)}

    def call(name, x):
        pyro.module(name, nets[name])
        return nets[name](x)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(call("decoder", z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(call("encoder", x), 1.0).to_event(1))

    before = snapshot(nets["encoder"])
    runtime, params, data = start((model, guide), draw())
    assert "encoder$$$1.running_var" in runtime.tracer.state_names
    log_weights(runtime, params, data, np.arange(5), K)
    assert same(snapshot(nets["encoder"]), before)


@pytest.mark.parametrize("guide", [AutoNormal, AutoDiagonalNormal])
def test_pyros_own_guides_for_a_latent_of_all_data(guide):
    def model(x):
        m = pyro.sample("m", dist.Normal(torch.zeros(X), 2.0).to_event(1))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("x", dist.Normal(m, 1.0).to_event(1), obs=x)

    trainer = trainer_of(start((model, guide(model)), draw()))
    before = trainer.values()
    assert len(before) == 2  # location and scale
    train(trainer, 3, B)
    assert not any(np.array_equal(v, before[n]) for n, v in trainer.values().items())


def test_one_name_for_two_parameters_is_refused_and_undone():
    class Half(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(X, Z)

        def forward(self, x):
            with pyro.plate("data", x.shape[0]):
                return pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))

    class Scaled(PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = PyroParam(torch.tensor(1.0), constraint=dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", x.shape[0]):
                return pyro.sample("z", dist.Normal(x, self.scale).to_event(1))

    with pytest.raises(ProgramError, match=r"'net\$\$\$weight' belongs to two modules"):
        start((Half(), Half()), draw())
    model, guide = Scaled(), Scaled()
    own = model.scale_unconstrained
    with pytest.raises(ProgramError, match="'scale' belongs to two modules"):
        start((model, guide), draw())
    assert model.scale_unconstrained is own


def test_parameters_of_another_pair_are_refused():
    runtime, params, data = start(pairs.Functions().pair, draw())
    with pytest.raises(ProgramError, match=r"'sclae' is not in the pair. Did you mean 'scale'"):
        log_weights(runtime, {**params, "sclae": params["scale"]}, data, np.arange(3), 1)
    del params["scale"]
    with pytest.raises(ProgramError, match="'scale' is not in the given values"):
        log_weights(runtime, params, data, np.arange(3), 1)


def test_a_fresh_runtime_finds_out_what_it_needs():
    made = pairs.Functions(N, B)
    runtime, params, data = start(made.pair, draw())
    later = {n: v + 0.1 for n, v in params.items()}
    expected = log_weights(runtime, later, data, np.arange(B), K)
    fresh, state = Runtime(Program.from_pyro(*made.pair), "cpu"), torch.get_rng_state()
    with pytest.raises(ProgramError, match="initialise"):
        log_weights(fresh, later, data, np.arange(B), K)
    fresh.prepare({"x": draw()})
    assert torch.equal(torch.get_rng_state(), state)
    assert fresh.tracer.batch_size == B
    np.testing.assert_array_equal(log_weights(fresh, later, data, np.arange(B), K), expected)


# --- FIELD 24: what does not fit ------------------------------------------------------------------------------

normal = dist.Normal(0.0, 1.0)


def pair_of(model_body, guide_body=None, plate=lambda x: pyro.plate("data", x.shape[0])):
    """A pair from what is inside its data plates."""

    def draw_z(x):
        pyro.sample("z", dist.Normal(x[:, 0], pyro.param("s", torch.tensor(1.0))))

    def model(x):
        with plate(x):
            model_body(x)

    def guide(x):
        with plate(x):
            (guide_body or draw_z)(x)

    return model, guide


def observe(x):
    pyro.sample("x", dist.Normal(torch.zeros(X), 1.0).to_event(1), obs=x)


def simple(x):
    pyro.sample("z", normal)
    observe(x)


def no_event(x):
    pyro.sample("z", normal)
    pyro.sample("x", dist.Normal(torch.zeros(x.shape[0], X), 1.0), obs=x)


def no_event_of_width_one(x):
    pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], 1), 1.0))
    observe(x)


def wrong_net(x):
    pyro.sample("z", normal)
    pyro.sample("x", dist.Normal(torch.zeros(1), 1.0).to_event(1), obs=x)


def one_short(x):
    pyro.sample("z", normal)
    pyro.sample("x", dist.Normal(torch.zeros(X), 1.0).to_event(1), obs=x[:-1])


def inner_subsample(x):
    pyro.sample("z", normal)
    with pyro.plate("pixels", X, subsample_size=2, dim=-2) as i:
        pyro.sample("x", normal, obs=x[:, i].T)


def own_scale(x):
    with poutine.scale(scale=0.5):
        pyro.sample("z", normal)
    observe(x)


def twice(x):
    pyro.sample("z", normal)
    observe(x)
    observe(x)


def other_name(x):
    pyro.sample("latent", normal)
    observe(x)


def extra(x):
    pyro.sample("z", normal)
    pyro.sample("extra", normal)


def outside_model(x):
    pyro.sample("z", dist.Normal(torch.zeros(x.shape[0]), 1.0))
    with pyro.plate("data", x.shape[0]):
        observe(x)


def outside_guide(x):
    pyro.sample("z", dist.Normal(torch.zeros(x.shape[0]), pyro.param("s", torch.tensor(1.0))))


def half_outside_guide(x):
    pyro.sample("z", dist.Normal(0.0, pyro.param("s", torch.tensor(1.0))))


def sequential(x):
    for i in pyro.plate("data", x.shape[0]):
        pyro.sample(f"z{i}", normal)


def five(x):
    return pyro.plate("data", N, subsample_size=5)


no_plate = ProgramError, r"no data plate 'data' .*Its plates: batch.*data_plate=…"
REFUSED = {
    "no such plate": (pair_of(simple, plate=lambda x: pyro.plate("batch", x.shape[0])), no_plate[1]),
    "a plate without a size": (
        pair_of(simple, plate=lambda x: pyro.plate("data")),
        "no data plate 'data' of a given size",
    ),
    "a plate with its own indices": (
        pair_of(simple, plate=lambda x: pyro.plate("data", 50, subsample=torch.arange(5))),
        r"'data' has indices of its own .*subsample_size=B",
    ),
    "a plate one by one": ((sequential, sequential), "'data' runs one datum at a time"),
    "two minibatch sizes": (
        (pair_of(simple, plate=five)[0], pair_of(simple, plate=lambda x: pyro.plate("data", N, subsample_size=4))[1]),
        "'data': got subsample_size=4 in one of model and guide, expected 5",
    ),
    "an inner plate that subsamples": (pair_of(inner_subsample), "'pixels' subsamples, but only the data plate"),
    "a scale of the user's": (pair_of(own_scale), r"'z': got a scale of 0.5, but its plates explain 1.*SVI\(beta=…\)"),
    "no to_event": (pair_of(no_event), r"site x dim -1, 7 vs 6.*add .to_event\(n\)"),
    "no to_event, width one": (
        pair_of(no_event_of_width_one),
        r"'z': got a distribution of batch shape \(7, 7\).*to_event",
    ),
    "more dimensions than plates": (
        pair_of(lambda x: pyro.sample("z", dist.Normal(torch.zeros(1, 1, 1), 1.0))),
        r"'z': got a distribution of batch shape \(1, 1, 7\)",
    ),
    "a net's width": (
        pair_of(wrong_net),
        r"'x': got data of shape \(7, 6\).*events of shape \(1,\).*expected \(7, 1\)",
    ),
    "too few observations": (pair_of(one_short), r"'x': got data of shape \(6, 6\).*expected \(7, 6\)"),
    "one name for two sites": (pair_of(twice), "'x' is drawn twice"),
    "another name in the guide": (
        pair_of(other_name),
        "'latent' is latent in the model, but the guide does not draw it",
    ),
    "more in the guide": (pair_of(simple, extra), "'extra' is drawn in the guide, but is no latent site of the model"),
    "outside the plate": (
        (outside_model, outside_guide),
        r"'z' is outside the data plate, but its distribution has batch shape \(7,\).*\.to_event\(1\)",
    ),
    "outside in the guide": (
        (pair_of(simple)[0], half_outside_guide),
        "'z' is inside the data plate in the model, but outside it in the guide",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_the_fix(name):
    pair, message = REFUSED[name]
    with pytest.raises(ProgramError, match=f"(?s){message}"):
        start(pair, draw())


def test_the_users_own_errors_come_through():
    def model(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        start((model, model), draw())


def test_a_draw_without_a_gradient_is_refused_in_training():
    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), torch.ones(X)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample(
                "z", dist.Bernoulli(pyro.param("p", torch.tensor(0.4), constraint=dist.constraints.unit_interval))
            )

    runtime, params, data = started = start((model, guide), draw())
    assert log_weights(runtime, params, data, np.arange(B), K).shape == (K, B)
    with pytest.raises(ProgramError, match="'z': Bernoulli is not reparameterised"):
        train(trainer_of(started), 1, B)


def test_a_parameter_that_appears_later_is_refused():
    def model(x):
        with pyro.plate("data", x.shape[0]):
            loc = pyro.param("late", torch.tensor(0.0)) if x.shape[0] < 4 else 0.0
            pyro.sample("z", dist.Normal(loc, 1.0))
            observe(x)

    runtime, params, data = start((model, pair_of(simple)[1]), draw())
    with pytest.raises(ProgramError, match="'late' appears only now"):
        log_weights(runtime, params, data, np.arange(2), 1)


def test_closed_forms_of_the_kl():
    made = pairs.Functions()
    x = draw()
    runtime, params, data = start(made.pair, x)
    found = runtime.trace(params, data, np.arange(B), K, 0, None, True)
    with torch.no_grad():
        loc, sd = made.nets[0](torch.tensor(x[:B]))
        expected = torch.distributions.kl_divergence(
            torch.distributions.Normal(loc, sd), torch.distributions.Normal(0.0, 1.0)
        )
    for kl in found.kl["z"]:
        np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-5)
    runtime, params, data = start(pairs.everything(), x)
    assert list(runtime.trace(params, data, np.arange(B), K, 0, None, True).kl) == ["z"]  # the other is masked
