"""A user's own torch, Equinox or Flax NNX module in the place of a net; running state (FIELD row 5)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyro
import pytest
import torch
from flax import nnx
from numpyro import handlers
from programs import make_data
from readings import BACKENDS, RUNTIMES, precision, run_trace, train

import ppdgm
from ppdgm import Program
from ppdgm.errors import SpecError, TrainingError, UnsupportedByBackend
from ppdgm.inference import Minimise
from ppdgm.inference.engines.svi import SVI
from ppdgm.inference.inputs.batches import Batches
from ppdgm.models import MLP, VAE, Bernoulli, Net
from ppdgm.nets import ForeignNet

B, K = 8, 3


# --- modules that compute what an MLP does -------------------------------------------------------------------------


def torch_mlp(inputs, outputs):
    module = torch.nn.Sequential(torch.nn.Linear(inputs, 4), torch.nn.Tanh(), torch.nn.Linear(4, int(np.prod(outputs))))
    return torch.nn.Sequential(module, torch.nn.Unflatten(-1, outputs))


class EquinoxMLP(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    outputs: tuple[int, ...]

    def __init__(self, inputs, outputs):
        keys = jax.random.split(jax.random.key(0))
        self.first = eqx.nn.Linear(inputs, 4, key=keys[0])
        self.second = eqx.nn.Linear(4, int(np.prod(outputs)), key=keys[1])
        self.outputs = outputs

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x))).reshape(self.outputs)


class NnxMLP(nnx.Module):
    def __init__(self, inputs, outputs):
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(inputs, 4, rngs=rngs)
        self.second = nnx.Linear(4, int(np.prod(outputs)), rngs=rngs)
        self.outputs = outputs

    def __call__(self, x):
        out = self.second(jnp.tanh(self.first(x)))
        return out.reshape(*out.shape[:-1], *self.outputs)


# library -> (backend, module, MLP's parameter -> the module's and how it lies there)
LIBRARIES = {
    "torch": ("pyro", torch_mlp, lambda i, leaf: f"0.{2 * i}.{leaf}", lambda v: v.T),
    "equinox": ("numpyro", EquinoxMLP, lambda i, leaf: f"{('first', 'second')[i]}.{leaf}", lambda v: v.T),
    "nnx": (
        "numpyro",
        NnxMLP,
        lambda i, leaf: f"{('first', 'second')[i]}.{'kernel' if leaf == 'weight' else leaf}",
        lambda v: v,
    ),
}
every_library = pytest.mark.parametrize("library", LIBRARIES)


def spec_program():
    return VAE(event_shape=(5,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))


def own_program(library):
    make = LIBRARIES[library][1]
    return VAE(event_shape=(5,), latent=2, encoder=make(5, (2, 2)), decoder=make(2, (5,)))


def renamed(params, library):
    """An MLP program's parameters under the names of the module program."""
    _, _, name, lay = LIBRARIES[library]
    moved = {}
    for full, value in params.items():
        net, _, i, leaf = full.split(".")
        moved[f"{net}.{name(int(i), leaf)}"] = lay(value)
    return moved


@every_library
def test_a_module_reads_like_the_net_it_equals(library):
    backend = LIBRARIES[library][0]
    with precision("float64"):
        plain = spec_program()
        params = {n: v + 0.1 for n, v in plain.initialise(0, dtype="float64").items()}
        data = {"x": make_data("vae", B)["x"].astype(float)}
        expected = run_trace(RUNTIMES[backend](plain, "cpu"), params, data, K, kl=True)
        runtime = RUNTIMES[backend](own_program(library), "cpu")
        got = run_trace(runtime, renamed(params, library), data, K, latents=expected.values, kl=True)
    for terms, others in ((got.log_p, expected.log_p), (got.log_q, expected.log_q), (got.kl, expected.kl)):
        for site, value in others.items():
            np.testing.assert_allclose(terms[site], value, rtol=1e-12)


@every_library
def test_a_module_starts_at_its_own_values_and_all_of_it_is_trained(library):
    backend, program, data = LIBRARIES[library][0], own_program(library), make_data("vae", B)
    runtime = RUNTIMES[backend](program, "cpu")
    first = runtime.initialise(0, data, "float32")
    assert set(first) == set(renamed(spec_program().initialise(0), library))
    other = RUNTIMES[backend](program, "cpu").initialise(9, data, "float32")
    assert {n: v.tobytes() for n, v in first.items()} == {n: v.tobytes() for n, v in other.items()}
    weight = {
        "torch": lambda m: m[0][0].weight.detach().numpy(),
        "equinox": lambda m: np.asarray(m.first.weight),
        "nnx": lambda m: np.asarray(m.first.kernel[...]),
    }[library]
    inside = weight(program.encoder.module).copy()
    assert (first[renamed({"encoder.layers.0.weight": inside}, library).popitem()[0]] == inside).all()
    trained, history = train(backend, program, data)
    assert np.isfinite(history["elbo"]).all()
    assert all(np.abs(trained[n] - v).max() > 0 for n, v in first.items())
    assert (weight(program.encoder.module) == inside).all()  # the user's own object stays as it was


@every_library
def test_a_module_runs_under_the_handlers(library):
    backend, program = LIBRARIES[library][0], own_program(library)
    x = make_data("vae", B)["x"]
    model, guide = program.bind(backend)
    if backend == "pyro":
        pyro.clear_param_store()
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=pyro.infer.Trace_ELBO())
        before = {n: p.detach().clone() for n, p in guide.params.named_parameters()}
        assert np.isfinite([svi.step(torch.tensor(x)) for _ in range(2)]).all()
        assert all((p.detach() - before[n]).abs().max() > 0 for n, p in guide.params.named_parameters())
        assert len(before) == 8
        assert not pyro.get_param_store().keys()
    else:
        trace = handlers.trace(handlers.seed(guide, 0)).get_trace(x)
        assert {n for n, s in trace.items() if s["type"] == "param"} == {
            n for n in program.initialise(0) if n.startswith("encoder")
        }


@every_library
def test_a_wrong_output_is_named(library):
    backend, make = LIBRARIES[library][:2]
    program = VAE(event_shape=(5,), latent=2, encoder=make(5, (7,)))
    with pytest.raises(
        SpecError, match=r"output of shape \(8, 7\), expected \[\.\.\., 2, 2\] for inputs \[\.\.\., 5\]"
    ):
        run_trace(RUNTIMES[backend](program, "cpu"), program.initialise(0), make_data("vae", B), K)


@every_library
def test_the_other_backend_refuses_it(library):
    program, needed = own_program(library), LIBRARIES[library][0]
    (other,) = set(BACKENDS) - {needed}
    for call in (lambda: RUNTIMES[other](program, "cpu"), lambda: program.bind(other)):
        with pytest.raises(
            UnsupportedByBackend, match=rf"'(en|de)coder' is .* a module of {library}.*{needed}.*{other}"
        ):
            call()


def test_modules_become_nets_and_say_what_they_are():
    module = torch_mlp(5, (2, 2))
    program = VAE(event_shape=(5,), latent=2, encoder=module)
    assert program.encoder == ForeignNet(module=module, library="torch")
    assert program.encoder.module is module
    assert program.to_dict()["encoder"] == {"kind": "ForeignNet", "module": "Sequential", "library": "torch"}
    assert program == VAE(event_shape=(5,), latent=2, encoder=module) != program.replace(encoder=torch_mlp(5, (2, 2)))


def test_convolutions_of_ones_own_see_one_batch_dimension():
    """[K, B, …] reaches a torch module as [K·B, …]: its convolutions, and BatchNorm, know nothing of particles."""
    shapes = []

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.ConvTranspose2d(2, 1, 6)

        def forward(self, z):
            shapes.append(tuple(z.shape))
            return self.up(z[..., None, None])[:, 0]

    program = VAE(event_shape=(6, 6), latent=2, encoder=MLP(hidden=(4,)), decoder=Decoder())
    trace = run_trace(RUNTIMES["pyro"](program, "cpu"), program.initialise(0), make_data("vae convolutions", B), K)
    assert shapes == [(K * B, 2)]
    assert trace.log_p["x"].shape == (K, B)


# --- running state -------------------------------------------------------------------------------------------------


def with_batch_norm(dropout=0.0):
    encoder = torch.nn.Sequential(
        torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(dropout), torch.nn.Unflatten(-1, (2, 2))
    )
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 5))
    return VAE(event_shape=(5,), latent=2, likelihood=Bernoulli(), encoder=encoder, decoder=decoder)


def state_of(params):
    return {n: v for n, v in params.items() if "running" in n or "num_batches" in n}


def test_batch_statistics_move_in_training():
    """By PyTorch's rule: running ← 0.9 running + 0.1 of the batch's mean and unbiased variance."""
    program, data = with_batch_norm(), make_data("vae", B)
    first = RUNTIMES["pyro"](program, "cpu").initialise(0, data, "float32")
    trained, _ = train("pyro", program, data, steps=1, rate=0.0)
    assert len(state_of(trained)) == 6
    hidden = data["x"].astype(float) @ first["encoder.0.weight"].T + first["encoder.0.bias"]
    np.testing.assert_allclose(trained["encoder.1.running_mean"], 0.1 * hidden.mean(0), rtol=1e-5)
    np.testing.assert_allclose(trained["encoder.1.running_var"], 0.9 + 0.1 * hidden.var(0, ddof=1), rtol=1e-5)
    assert trained["encoder.1.num_batches_tracked"] == trained["decoder.1.num_batches_tracked"] == 1
    assert (trained["decoder.1.running_mean"] != 0).all()
    assert train("pyro", program, data, steps=5, rate=0.0)[0]["encoder.1.num_batches_tracked"] == 5


@pytest.mark.statistical
def test_batch_statistics_move_once_a_step_with_many_particles():
    """Over all [K·B] rows: of a latent that the guide draws from N(0, I) the mean is 0 within 4 standard errors."""
    program, data, k = with_batch_norm(), make_data("vae", B), 2000
    program.decoder.module[0].weight.data = torch.eye(2).repeat(2, 1)  # the decoder's statistics are those of z
    program.decoder.module[0].bias.data.zero_()
    first = dict.fromkeys(("encoder.1.weight", "encoder.1.bias"), np.zeros(4, np.float32))
    first["encoder.1.bias"] = np.array([0, 0, np.log(np.e - 1), np.log(np.e - 1)], np.float32)  # softplus⁻¹(1)
    trained, _ = train("pyro", program, data, params=first, steps=1, rate=0.0, engine=SVI(k=k))
    assert trained["decoder.1.num_batches_tracked"] == 1
    rows = k * B
    assert (np.abs(trained["decoder.1.running_mean"]) <= 0.1 * 4 / rows**0.5).all()
    assert (np.abs(trained["decoder.1.running_var"] - 1) <= 0.1 * 4 * (2 / rows) ** 0.5 + 1e-4).all()
    assert (trained["decoder.1.running_mean"] != 0).all()


def test_evaluation_leaves_all_state_bit_identical():
    program, data = with_batch_norm(dropout=0.5), make_data("vae", B)
    trained, _ = train("pyro", program, data)
    runtime = RUNTIMES["pyro"](program, "cpu")
    native, rows = runtime.put(trained), runtime.put(data)
    modules = [program.encoder.module, program.decoder.module]
    modules[0][2].eval()  # one layer of mixed mode
    modes = [m.training for module in modules for m in module.modules()]
    own = [{n: v.numpy().tobytes() for n, v in m.state_dict().items()} for m in modules]
    index = np.arange(B)
    runtime.trace(native, rows, index, K, 0, None, True)
    runtime.evaluate(lambda trace, xp: trace.log_p["x"], native, rows, index, K, (1, 2), False)
    runtime.means(native, rows, index)
    runtime.prior(native, {"x": None}, 3, 0, False)
    runtime.bytes_written(native, rows, K, B)
    assert {n: v.tobytes() for n, v in runtime.fetch(native).items()} == {n: v.tobytes() for n, v in trained.items()}
    assert [{n: v.numpy().tobytes() for n, v in m.state_dict().items()} for m in modules] == own
    assert [m.training for module in modules for m in module.modules()] == modes


def test_evaluation_uses_the_running_statistics_and_no_dropout():
    """A datum's log-weights at given latents do not depend on its neighbours, and are what the statistics say."""
    program, data = with_batch_norm(dropout=0.5), make_data("vae", B)
    trained, _ = train("pyro", program, data)
    runtime = RUNTIMES["pyro"](program, "cpu")
    z = np.random.default_rng(0).normal(size=(K, B, 2)).astype(np.float32)
    all_data = run_trace(runtime, trained, data, K, latents={"z": z})
    one = run_trace(runtime, trained, {"x": data["x"][2:3]}, K, latents={"z": z[:, 2:3]})
    for terms, alone in ((all_data.log_p, one.log_p), (all_data.log_q, one.log_q)):
        for site, value in alone.items():
            np.testing.assert_allclose(value[:, 0], terms[site][:, 2], rtol=1e-5)
    p = {n.removeprefix("encoder."): v.astype(float) for n, v in trained.items() if n.startswith("encoder.")}
    hidden = data["x"] @ p["0.weight"].T + p["0.bias"]
    normed = (hidden - p["1.running_mean"]) / np.sqrt(p["1.running_var"] + 1e-5) * p["1.weight"] + p["1.bias"]
    latents, _ = runtime.means(runtime.put(trained), runtime.put(data), np.arange(B))
    np.testing.assert_allclose(latents["z"][0], normed[:, :2], rtol=1e-4, atol=1e-6)


def test_training_does_not_touch_the_users_module():
    program, data = with_batch_norm(), make_data("vae", B)
    before = {n: v.clone() for n, v in program.encoder.module.state_dict().items()}
    train("pyro", program, data)
    assert all(torch.equal(v, before[n]) for n, v in program.encoder.module.state_dict().items())
    assert program.encoder.module.training


def test_a_module_left_in_evaluation_mode_keeps_its_statistics():
    program, data = with_batch_norm(), make_data("vae", B)
    program.encoder.module.eval()
    trained, _ = train("pyro", program, data)
    assert trained["encoder.1.num_batches_tracked"] == 0
    assert trained["decoder.1.num_batches_tracked"] == 3


class Stateful(nnx.Module):
    def __init__(self, layer):
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(5, 4, rngs=rngs)
        self.layer = nnx.BatchNorm(4, rngs=rngs) if layer == "BatchNorm" else nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.layer(self.linear(x)).reshape(*x.shape[:-1], 2, 2)


def equinox_with(layer):
    return eqx.nn.Sequential(
        [eqx.nn.Linear(5, 4, key=jax.random.key(0)), layer, eqx.nn.Lambda(lambda h: h.reshape(2, 2))]
    )


class Cached(nnx.Module):
    def __init__(self):
        self.linear, self.kept = nnx.Linear(5, 4, rngs=nnx.Rngs(0)), nnx.Cache(jnp.zeros(3))

    def __call__(self, x):
        return self.linear(x).reshape(*x.shape[:-1], 2, 2)


REFUSED = {
    "nnx cache": lambda: Cached(),
    "equinox batch norm": lambda: equinox_with(eqx.nn.BatchNorm(4, "batch", mode="batch")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_state_is_refused_on_numpyro_with_a_reason(name):
    program = VAE(event_shape=(5,), latent=2, encoder=REFUSED[name]())
    with pytest.raises(
        UnsupportedByBackend, match=r"state.*pure functions.*norm=\"batch\".*layer norm or group norm.*pyro"
    ):
        RUNTIMES["numpyro"](program, "cpu")


def test_dropout_that_is_switched_off_is_not_refused():
    program = VAE(event_shape=(5,), latent=2, encoder=equinox_with(eqx.nn.Dropout(0.5, inference=True)))
    trace = run_trace(RUNTIMES["numpyro"](program, "cpu"), program.initialise(0), make_data("vae", B), K)
    assert np.isfinite(trace.log_q["z"]).all()


DROPPED = {"nnx": lambda: Stateful("Dropout"), "equinox": lambda: equinox_with(eqx.nn.Dropout(0.5))}


@pytest.mark.parametrize("library", DROPPED)
def test_dropout_of_a_module_is_on_in_training_only(library):
    """Evaluations equal those of the module without it; in training, the loss changes from step to step."""
    module = DROPPED[library]()
    program = VAE(event_shape=(5,), latent=2, encoder=module, decoder=MLP(hidden=(4,)))
    if library == "nnx":
        off = Stateful("Dropout")
        off.eval()
    else:
        off = eqx.nn.inference_mode(module)
    x = (np.random.default_rng(0).random((12, 5)) < 0.5).astype("float32")
    quiet = {"progress": False, "backend": "numpyro", "batch_size": 12, "seed": 0}
    fit = ppdgm.fit(program, x, steps=4, **quiet)
    plain = ppdgm.Fit(program.replace(encoder=off), fit.params, backend="numpyro")
    np.testing.assert_array_equal(fit.encode(x), plain.encode(x))
    np.testing.assert_array_equal(fit.elbo(x, seed=1).values, plain.elbo(x, seed=1).values)
    np.testing.assert_allclose(fit.encode(x[:6]), fit.encode(x)[:6], rtol=1e-5)
    dropped, kept = (
        ppdgm.fit(program.replace(encoder=m), x, steps=1, learning_rate=0.0, **quiet).history["elbo"][0]
        for m in (module, off)
    )
    assert dropped != kept
    with pytest.raises(TrainingError, match=r"particle_chunk: the program takes P\.dropout"):
        ppdgm.fit(program, x, steps=1, engine=SVI(k=4), particle_chunk=2, **quiet)


def test_batch_norm_of_nnx_moves_its_running_means_once_a_step(tmp_path):
    """By hand, with the rows that fill the last minibatch; several particles; resumed; evaluated with running means."""
    module = Stateful("BatchNorm")
    program = VAE(event_shape=(5,), latent=2, encoder=module, decoder=MLP(hidden=(4,)))
    x = (np.random.default_rng(0).random((12, 5)) < 0.5).astype("float32")
    options = {"batch_size": 5, "seed": 3, "learning_rate": 0.0, "progress": False, "engine": SVI(k=3)}
    fit = ppdgm.fit(program, x, steps=7, **options)
    mean, variance = np.zeros(4), np.ones(4)
    for rows in Batches(12, 5, 3).rows(0, 7, 7)[0]:
        h = x[rows] @ fit.params["encoder.linear.kernel"] + fit.params["encoder.linear.bias"]
        mean, variance = 0.99 * mean + 0.01 * h.mean(0), 0.99 * variance + 0.01 * h.var(0)
    np.testing.assert_allclose(fit.params["encoder.layer.mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fit.params["encoder.layer.var"], variance, rtol=1e-5)
    np.testing.assert_array_equal(module.layer.mean.get_value(), 0.0)  # the user's own module stays
    ppdgm.fit(program, x, steps=4, out=tmp_path / "run", **options)
    resumed = ppdgm.resume(tmp_path / "run", x, program=program, steps=7, progress=False)
    assert all(v.tobytes() == resumed.params[n].tobytes() for n, v in fit.params.items())
    np.testing.assert_allclose(fit.encode(x[:3]), fit.encode(x)[:3], rtol=1e-5)
    with pytest.raises(TrainingError, match="accumulate"):
        ppdgm.fit(program, x, steps=1, accumulate=2, batch_size=4, progress=False)


class Halved(Program):
    """drop(1) of 50 ones, by a module."""

    net: Net

    def build(self, context):
        context.net("net", self.net, (50,), (50,))
        context.param("unused")

    def loss(self, P, x):
        out = P.net("net")(x)
        return P.xp.mean(out * out, axis=-1) + 0.0 * P.param("unused")


class Dropper(nnx.Module):
    def __init__(self):
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.drop(x)


@pytest.mark.statistical
@pytest.mark.parametrize("module", [Dropper, lambda: eqx.nn.Sequential([eqx.nn.Dropout(0.5)])], ids=["nnx", "equinox"])
def test_dropout_of_a_module_has_its_rate(module):
    """E (d / (1 − p))² = 2, of variance 4: 60,000 numbers, within 5 errors; each step has masks of its own."""
    x = np.ones((300, 50), "float32")
    fit = ppdgm.fit(
        Halved(net=module()), x, engine=Minimise(), steps=4, batch_size=300, backend="numpyro", progress=False
    )
    assert abs(np.mean(fit.history["loss"]) - 2) < 5 * (4 / (4 * 300 * 50)) ** 0.5
    assert len(set(fit.history["loss"])) == 4
    np.testing.assert_array_equal(fit.criterion(x), 1.0)
