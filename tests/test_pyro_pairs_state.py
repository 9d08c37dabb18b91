"""Parameters, buffers and the global store of plain Pyro pairs, in training and evaluation (FIELD 5, 6, 10)."""

from contextlib import contextmanager

import numpy as np
import pyro
import pyro.distributions as dist
import pyro_pairs as pairs
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from pyro_runs import STYLES, B, K, N, X, Z, draw, log_weights, quiet, same, snapshot, start, train, trainer_of
from torch import nn

from ppdgm.backends.pyro import Runtime
from ppdgm.errors import ProgramError
from ppdgm.inference.engines.svi import SVI
from ppdgm.program import Program

__all__ = ["quiet"]  # a fixture around every test

# --- FIELD 5, 10: networks with state -------------------------------------------------------------------------


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
            with pytest.raises(ProgramError, match=f"{when}.*KeyError"):
                start((model, guide), draw())
            assert same(snapshot(made), before)
            return
        runtime, params, data = started = start((model, guide), draw())
        trainer = trainer_of(started)
        train(trainer, 2, B)
        fail.append("model")
        before = snapshot(made)
        with pytest.raises(ProgramError, match=f"{when}.*KeyError"):
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


def test_a_trace_reads_no_other_parameters_than_it_was_handed():
    runtime, params, data = start(pairs.Functions().pair, draw())
    with pytest.raises(ProgramError, match=r"adopt\(params\), or use `with evaluating\(params\):`"):
        runtime.tracer.trace(params, None, data, torch.arange(N), 1)


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
