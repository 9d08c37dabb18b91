"""`P.reversible`, RevNet and IRevNet: the gradient of plain backpropagation, in memory that depth does not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flow_tools import draw_params, speak
from readings import BACKENDS, precision

import ppdgm
from ppdgm import Program
from ppdgm.errors import ContractError, ProgramError, SpecError
from ppdgm.inference import Minimise
from ppdgm.language.vocabulary import Declarations, Vocabulary
from ppdgm.models import VAE, IRevNet, Net, RevNet
from ppdgm.program import Context, zeros
from ppdgm.testing import INVARIANTS, check

every_backend = pytest.mark.parametrize("backend", BACKENDS)
RNG = np.random.default_rng(0)
NETS = {
    "vectors": (RevNet(width=6, blocks=4), (3,), (2,)),
    "no norm": (RevNet(width=4, blocks=3, norm=None, activation="tanh"), (2, 2), (2, 3)),
    "images": (IRevNet(levels=2, blocks=1, hidden=2), (1, 4, 8), (3,)),
    "no blocks": (RevNet(width=4, blocks=0), (3,), (2,)),
}


def declare(net, inputs, outputs):
    declared = Declarations()
    Context(declared).net("net", net, inputs, outputs)
    return declared


def kept(self, blocks, x):
    """What `P.reversible` computes, by plain backpropagation."""
    for name, forward, _ in blocks:
        x = forward(self.scope(name), x)
    return x


def slopes(backend, declared, params, x, dtype):
    """The gradient of Σ net(x)² by parameters and x."""
    loss = lambda P, x: (P.net("net")(x) ** 2).sum()
    with precision(dtype):
        if backend == "numpyro":
            found = jax.jit(jax.grad(lambda params, x: loss(speak(backend, params, declared), x), argnums=(0, 1)))
            by_params, by_x = found(params, x)
            return {n: np.asarray(v) for n, v in {**by_params, "x": by_x}.items()}
        leaves = {n: torch.tensor(v, requires_grad=True) for n, v in {**params, "x": x}.items()}
        value = loss(speak(backend, {n: leaves[n] for n in params}, declared), leaves["x"])
        found = torch.autograd.grad(value, list(leaves.values()))
        return {n: g.numpy() for n, g in zip(leaves, found, strict=True)}


@every_backend
@pytest.mark.parametrize(
    ("case", "dtype", "tolerance"), [*((case, "float64", 1e-11) for case in NETS), ("vectors", "float32", 1e-5)]
)
def test_the_gradient_is_that_of_plain_backpropagation(case, dtype, tolerance, backend, monkeypatch):
    net, inputs, outputs = NETS[case]
    declared = declare(net, inputs, outputs)
    params = draw_params(declared, dtype=dtype)
    x = RNG.normal(size=(2, 5, *inputs)).astype(dtype)
    found = slopes(backend, declared, params, x, dtype)
    monkeypatch.setattr(Vocabulary, "reversible", kept)
    for name, right in slopes(backend, declared, params, x, dtype).items():
        np.testing.assert_allclose(found[name], right, rtol=0, atol=tolerance * np.abs(right).max())
        assert np.abs(right).max() > 0


# --- memory --------------------------------------------------------------------------------------------------------

ROWS = 500


def bytes_of_jax(net, inputs):
    """What XLA needs beside the arguments and results of a gradient."""
    declared = declare(net, inputs, (1,))
    params, x = draw_params(declared, dtype="float32"), np.ones((ROWS, *inputs), np.float32)
    loss = lambda params, x: jnp.sum(speak("numpyro", params, declared).net("net")(x) ** 2)
    return jax.jit(jax.grad(loss)).lower(params, x).compile().memory_analysis().temp_size_in_bytes


def bytes_of_torch(net, inputs):
    """What a forward pass keeps for its backward pass, without parameters."""
    declared, sizes = declare(net, inputs, (1,)), {}
    params = {n: torch.tensor(v, requires_grad=True) for n, v in draw_params(declared, dtype="float32").items()}
    weights = {v.data_ptr() for v in params.values()}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.ones((ROWS, *inputs))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = (speak("pyro", params, declared).net("net")(x) ** 2).sum()
    value.backward()
    return sum(sizes.values())


MEASURES = {"numpyro": bytes_of_jax, "pyro": bytes_of_torch}


@every_backend
@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_memory_does_not_grow_with_depth(kind, backend, monkeypatch):
    """4 and 16 blocks: the same but for the parameters' own gradients; by plain backpropagation, several times more."""
    make = {
        "vectors": lambda blocks: (RevNet(width=20, blocks=blocks), (8,)),
        "images": lambda blocks: (IRevNet(levels=1, blocks=blocks // 2, hidden=4), (1, 8, 8)),
    }[kind]
    measure = MEASURES[backend]
    few, many = (measure(*make(blocks)) for blocks in (4, 16))
    assert many < 1.35 * few
    monkeypatch.setattr(Vocabulary, "reversible", kept)
    assert measure(*make(16)) > 2 * many


# --- in programs ---------------------------------------------------------------------------------------------------


class Slopes(Program):
    """loss = |∇ₓ f(x)|²: the gradient of a gradient."""

    def build(self, context):
        context.net("f", RevNet(width=6, blocks=3, norm=None, activation="tanh"), (3,), (1,))

    def loss(self, P, x):
        value, pull = P.vjp(P.net("f"), x)
        return P.xp.sum(pull(P.xp.ones_like(value)) ** 2, axis=-1)


@every_backend
@pytest.mark.parametrize("rematerialise", [False, True])
def test_it_can_be_differentiated_twice(backend, rematerialise, monkeypatch):
    x = RNG.normal(size=(12, 3)).astype("float32")
    how = {"engine": Minimise(), "optimiser": "sgd", "learning_rate": 0.01, "steps": 3, "dtype": "float64"}

    def trained():
        with precision("float64"):
            return ppdgm.fit(
                Slopes(), x, backend=backend, compile=False, progress=False, rematerialise=rematerialise, **how
            )

    found = trained()
    monkeypatch.setattr(Vocabulary, "reversible", kept)
    right = trained()
    first = Slopes().initialise(0, {"x": x}, "float64")
    for name, value in right.params.items():
        np.testing.assert_allclose(found.params[name], value, atol=1e-10)
    assert any((v != first[n]).any() for n, v in right.params.items())


@pytest.mark.parametrize(("backend", "compiled"), [("numpyro", None), ("pyro", None)])
def test_a_vae_of_reversible_nets_trains(backend, compiled):
    x = (RNG.random(size=(40, 4, 4)) < 0.5).astype("float32")
    program = VAE(
        event_shape=(4, 4), latent=2, encoder=IRevNet(levels=1, blocks=1, hidden=2), decoder=RevNet(width=6, blocks=2)
    )
    how = {} if compiled is None else {"compile": compiled}
    fit = ppdgm.fit(program, x, backend=backend, steps=3, progress=False, **how)
    assert np.isfinite(fit.history["elbo"]).all() and np.isfinite(fit.elbo(x).mean)


class Shears(Net):
    """x₁ ← x₁ + tanh(w x₂), x₂ ← x₂ + x₁, a few times; with another sign, its inverse is wrong."""

    sign: float = 1.0

    def params(self, inputs, outputs):
        return {f"{i}.w": ((1,), zeros) for i in range(3)}

    def apply(self, P, x, inputs, outputs):
        def forward(P, x):
            first = x[..., :1] + P.xp.tanh(P.param("w") * x[..., 1:])
            return P.concat([first, x[..., 1:] + first])

        def inverse(P, y):
            second = y[..., 1:] - self.sign * y[..., :1]
            return P.concat([y[..., :1] - P.xp.tanh(P.param("w") * second), second])

        return P.reversible([(str(i), forward, inverse) for i in range(3)], x)


def test_a_wrong_inverse_is_found_by_the_contract():
    skip = [n for n in INVARIANTS if n not in ("slopes", "parity")]
    check(Shears(), inputs=(2,), shape=(2,), skip=skip)
    with pytest.raises(ContractError, match="Something cuts it, or counts it twice"):
        check(Shears(sign=-1.0), inputs=(2,), shape=(2,), skip=skip)


class Noisy(Program):
    """Wrong: a block that draws."""

    def build(self, context):
        context.param("b.scale")

    def loss(self, P, x):
        noisy = lambda P, x: x + P.random.normal(tuple(x.shape))
        return P.xp.sum(P.reversible([("b", noisy, noisy)], x), axis=-1)


def test_what_can_not_be_is_refused():
    with pytest.raises(SpecError, match=r"RevNet.width: got 5; expected an even number"):
        RevNet(width=5)
    with pytest.raises(SpecError, match=r"IRevNet works on images: got an event of shape .4,."):
        declare(IRevNet(), (4,), (1,))
    with pytest.raises(SpecError, match=r"IRevNet.levels: got 2 for images of 6×8, expected multiples of 4"):
        declare(IRevNet(), (6, 8), (1,))
    x = RNG.normal(size=(12, 3)).astype("float32")
    for backend in BACKENDS:
        with pytest.raises(ProgramError, match=r"where only arrays are computed, such as in a block of P.reversible"):
            ppdgm.fit(Noisy(), x, backend=backend, engine=Minimise(), steps=1, compile=False, progress=False)
