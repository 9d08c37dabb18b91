"""Nets: their forward pass on both backends for any leading dimensions, their first values, their errors."""

from inspect import isabstract
from math import prod
from pathlib import Path
from typing import Literal, get_args, get_origin

import jax
import numpy as np
import pytest
import torch
from programs import ALL, make_program
from readings import BACKENDS, precision
from reference import forward

from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.backends.pyro.vocabulary import TorchVocabulary
from ppdgm.errors import ProgramError, SpecError
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import MLP, VAE, ConditionalVAE, ConvDecoder, ConvEncoder, GatedMLP, Gaussian, ResidualMLP
from ppdgm.nets import ACTIVATIONS
from ppdgm.program import Context, Program, normal
from ppdgm.specs import known_specs

LEADING = [(), (4,), (3, 2), (2, 1, 3)]

# name -> (net, event shape of its inputs, of its outputs)
NETS = {f"mlp {a}": (MLP(hidden=(4,), activation=a), (5,), (3,)) for a in ACTIVATIONS} | {
    "mlp deep": (MLP(hidden=(4, 3, 2)), (5,), (3,)),
    "mlp linear": (MLP(hidden=()), (5,), (3,)),
    "mlp layer norm": (MLP(hidden=(4, 3), norm="layer"), (5,), (3,)),
    "mlp of matrices": (MLP(hidden=(4,)), (2, 3), (2, 2, 1)),
    "gated": (GatedMLP(hidden=(4, 3)), (2, 3), (2, 2)),
    "gated elu": (GatedMLP(hidden=(4,), activation="elu"), (5,), (3,)),
    "residual": (ResidualMLP(width=4, blocks=2), (2, 3), (2, 2)),
    "residual plain": (ResidualMLP(width=4, blocks=1, activation="relu", norm=None), (5,), (3,)),
    "residual of no blocks": (ResidualMLP(width=4, blocks=0), (5,), (3,)),
    "encoder": (ConvEncoder(channels=(2, 3)), (8, 6), (2, 3)),
    "encoder odd": (ConvEncoder(channels=(2, 3), kernel=3, padding=0, activation="tanh"), (2, 11, 9), (3,)),
    "encoder unstrided": (ConvEncoder(channels=(2,), kernel=5, stride=1, padding=2), (3, 2, 4, 5), (3,)),
    "encoder normed": (ConvEncoder(channels=(4,), norm="group", groups=2, residual=2), (8, 8), (3,)),
    "encoder without convolutions": (ConvEncoder(channels=(), residual=1), (2, 3, 3), (3,)),
    "encoder gated": (ConvEncoder(channels=(2, 3), gated=True, activation="identity"), (2, 8, 6), (3,)),
    "encoder gated, normed": (
        ConvEncoder(channels=(4,), gated=True, norm="group", groups=2, residual=2, activation="elu"),
        (8, 8),
        (3,),
    ),
    "encoder gated without convolutions": (ConvEncoder(channels=(), residual=1, gated=True), (2, 3, 3), (3,)),
    "decoder": (ConvDecoder(channels=(3, 2)), (2,), (8, 6)),
    "decoder odd": (ConvDecoder(channels=(3, 2), kernel=3, padding=0, activation="tanh"), (2,), (2, 11, 10)),
    "decoder unstrided": (ConvDecoder(channels=(2,), kernel=5, stride=1, padding=2), (2, 2), (3, 2, 4, 5)),
    "decoder stride 3": (ConvDecoder(channels=(2,), kernel=4, stride=3), (2,), (2, 9, 10)),
    "decoder normed": (ConvDecoder(channels=(4, 2), norm="group", groups=2, residual=2), (2,), (8, 8)),
    "decoder gated": (ConvDecoder(channels=(3, 2), gated=True, activation="identity"), (2,), (2, 8, 6)),
    "decoder gated, normed": (
        ConvDecoder(channels=(4, 2), gated=True, norm="group", groups=2, residual=2, activation="elu"),
        (2,),
        (8, 8),
    ),
}


def declare(net, inputs, outputs):
    declared = Declarations()
    Context(declared).net("net", net, inputs, outputs)
    return declared


def draw_params(declared, dtype):
    rng = np.random.default_rng(8)
    return {n: rng.normal(size=s.shape, scale=0.5).astype(dtype) for n, s in declared.params.items()}


class Plain:
    """Parameters as they are."""

    recomputes = False

    def param(self, name, value):
        return value


def apply_over_torch(declared, params, inputs):
    with torch.no_grad():
        P = TorchVocabulary(Plain(), {n: torch.tensor(v) for n, v in params.items()}, declared)
        return [P.net("net")(torch.tensor(x)).numpy() for x in inputs]


def apply_over_jax(declared, params, inputs):
    @jax.jit
    def run(params, inputs):
        P = JaxVocabulary(Plain(), params, declared)
        return [P.net("net")(x) for x in inputs]

    return [np.asarray(out) for out in run(params, inputs)]


APPLY = dict(zip(BACKENDS, (apply_over_torch, apply_over_jax), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETS)
def test_forward_equals_the_reference_for_any_leading_dimensions(name, backend, dtype):
    net, inputs, outputs = NETS[name]
    declared, rng = declare(net, inputs, outputs), np.random.default_rng(9)
    params = draw_params(declared, dtype)
    arrays = [rng.normal(size=(*lead, *inputs)).astype(dtype) for lead in LEADING]
    with precision(dtype):
        results = APPLY[backend](declared, params, arrays)
    for x, got, lead in zip(arrays, results, LEADING, strict=True):
        expected = forward(net.to_dict(), params, "net", x.reshape(-1, *inputs), outputs)
        assert got.shape == (*lead, *outputs)
        assert got.dtype == dtype
        error = np.abs(got.reshape(-1, *outputs) - expected).max() / np.abs(expected).max()
        assert error <= {"float32": 1e-5, "float64": 1e-12}[dtype]


# --- the registry of tests/programs.py leaves nothing out ----------------------------------------------------------


def described(value):
    """Every table within a spec's dictionary."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from described(inner)


#: Whose terms are expectations over enumerated sites, or whose readings differ in training: they have their own files.
ELSEWHERE = dict.fromkeys(
    ("Autoencoder", "GaussianMixture", "MixtureVAE", "SemiSupervisedVAE"), "test_more_programs.py"
) | dict.fromkeys(("GumbelSoftmax", "RelaxedBernoulli"), "test_discrete.py")
ELSEWHERE["ProdLDA"] = "test_topics.py"
ELSEWHERE["VectorQuantised"] = "test_quantised.py"
ELSEWHERE |= dict.fromkeys(("VQVAE2", "CodePrior", "OneHot", "Transformer"), "test_codes.py")
ELSEWHERE["Table"] = "test_table.py"
ELSEWHERE["ContinuousFlow"] = "test_continuous_flow.py"
ELSEWHERE |= {"AutoregressiveModel": "test_autoregressive.py", "FlowModel": "test_flow_model.py"}  # no latents
ELSEWHERE |= dict.fromkeys(("GRU", "LSTM", "Windowed", "WaveNet"), "test_sequences.py")
ELSEWHERE |= {"OrderAgnosticMADE": "test_order_agnostic.py"}
ELSEWHERE |= dict.fromkeys(("Dequantised", "Dequantiser", "Rounding"), "test_dequantised.py")  # latents in cells


#: Whose readings differ in training, in test_norms.py; a net of one-hot vectors, in test_codes.py.
IN_OTHER_FILES = {("norm", "batch"), ("colours", "together")}


def test_the_registry_has_every_class_and_every_option_of_the_package():
    tables = [t for name in ALL for t in described(make_program(name).to_dict())]
    specs = known_specs()
    for name, cls in specs.items():
        if not cls.__module__.startswith(("ppdgm.nets", "ppdgm.models")) or name == "ForeignNet":
            continue
        if isabstract(cls):  # a family, such as Prior
            continue
        if name in ELSEWHERE:
            assert f"{name}(" in (Path(__file__).parent / ELSEWHERE[name]).read_text(encoding="utf-8")
            continue
        used = [t for t in tables if t["kind"] == name]
        assert used, f"no program with a {name}"
        for field, info in cls.model_fields.items():
            home = declaring(cls, field)
            sharing = [t for t in tables if field in t and issubclass(specs.get(t["kind"], object), home)]
            for option in options(info.annotation):
                if field != "activation" and (field, option) not in IN_OTHER_FILES:
                    assert any(t[field] == option for t in sharing), f"no program with {name}({field}={option!r})"
    assert {t["activation"] for t in tables if "activation" in t} == set(ACTIVATIONS)


def declaring(cls, field):
    """The class that declares a field first: those that inherit it share its reading."""
    return [base for base in cls.__mro__ if field in getattr(base, "model_fields", ())][-1]


def options(annotation):
    """The words in a field's type."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in options(part)]


# --- first values --------------------------------------------------------------------------------------------------

# net, event shapes, a weight of it, and the weight's fan in and fan out
FIRST_VALUES = [
    (MLP(hidden=(50,)), (40,), (30,), "layers.0.weight", 40, 50),
    (MLP(hidden=(50,)), (5, 8), (30,), "layers.1.weight", 50, 30),
    (GatedMLP(hidden=(50,)), (40,), (30,), "layers.0.weight", 40, 50),  # two layers of 50, side by side
    (ResidualMLP(width=50, blocks=1), (40,), (30,), "blocks.0.1.weight", 50, 50),
    (ConvEncoder(channels=(16, 20)), (12, 12), (3,), "convs.1.weight", 16 * 16, 20 * 16),
    (ConvDecoder(channels=(20, 16)), (4,), (12, 12), "convs.0.weight", 20 * 16, 16 * 16),
    (ConvDecoder(channels=(20,), residual=1), (4,), (12, 12), "blocks.0.1.weight", 20 * 9, 20 * 9),
    # With gates, two convolutions of the outputs' number lie side by side.
    (ConvEncoder(channels=(16, 20), gated=True), (12, 12), (3,), "convs.1.weight", 16 * 16, 20 * 16),
    (ConvDecoder(channels=(20, 16), gated=True), (4,), (12, 12), "convs.0.weight", 20 * 16, 16 * 16),
    (ConvDecoder(channels=(20, 16), gated=True), (4,), (12, 12), "convs.1.weight", 16 * 16, 16),
    (ConvDecoder(channels=(20,), gated=True), (4,), (12, 12), "input.weight", 4, 20 * 36),
    (ConvDecoder(channels=(20,), residual=1, gated=True), (4,), (12, 12), "blocks.0.1.weight", 20 * 9, 20 * 9),
]


@pytest.mark.statistical
@pytest.mark.parametrize("case", FIRST_VALUES, ids=lambda c: f"{type(c[0]).__name__} {c[3]}")
def test_first_weights_are_glorot_uniform_and_the_rest_neutral(case):
    """Uniform on ±√(6 / (fan in + fan out)): the variance within 4 standard errors, at seed 0."""
    net, inputs, outputs, name, fan_in, fan_out = case
    limit = (6 / (fan_in + fan_out)) ** 0.5
    values = first_values(declare(net, inputs, outputs))
    weight = values[f"net.{name}"].ravel() / limit  # uniform on ±1: the variance of its square is 4/45
    assert np.abs(weight).max() <= 1
    assert np.abs(weight).max() > 0.99
    assert abs((weight**2).mean() - 1 / 3) <= 4 * (4 / 45 / weight.size) ** 0.5
    neutral = {"bias": 0.0, "shift": 0.0, "scale": 1.0}
    for site, value in values.items():
        if (leaf := site.rpartition(".")[2]) in neutral:
            assert (value == neutral[leaf]).all()


def first_values(declared, seed=0):
    class Bare(Program):
        def declarations(self):
            return declared

    return Bare().initialise(seed)


class Small(Program):
    def build(self, context):
        context.param("a", (3,), normal(1.0))
        context.net("net", MLP(hidden=(4,)), (3,), (2,))


class Larger(Small):
    def build(self, context):
        context.param("another", (5,), normal(1.0))
        super().build(context)
        context.net("second", MLP(hidden=(4,)), (3,), (2,))


def test_another_parameter_changes_no_first_value():
    small, larger = Small().initialise(3), Larger().initialise(3)
    assert all(larger[n].tobytes() == v.tobytes() for n, v in small.items())
    assert len(larger) == len(small) + 5
    layers = [larger[f"{net}.layers.0.weight"] for net in ("net", "second")]
    assert (layers[0] != layers[1]).all()  # equal in shape, and yet with draws of their own


def test_first_values_have_the_asked_type_and_need_no_data():
    values = Small().initialise(3, dtype="float64")
    assert {v.dtype for v in values.values()} == {np.dtype("float64")}
    for n, v in Small().initialise(3).items():
        np.testing.assert_array_equal(v, values[n].astype("float32"))


# --- what can't be built -------------------------------------------------------------------------------------------

MISTAKES = {
    "a convolution over vectors": (
        lambda: declare(ConvEncoder(), (784,), (3,)),
        SpecError,
        ["(784,)", "expected [H, W] or [C, H, W]", "event_shape=(28, 28)"],
    ),
    "a transposed convolution to vectors": (lambda: declare(ConvDecoder(), (3,), (784,)), SpecError, ["[H, W]"]),
    "channels last": (
        lambda: declare(ConvEncoder(), (64, 64, 4), (3,)),
        SpecError,
        ["(64, 64, 4)", "expected [C, H, W]", "np.moveaxis(x, -1, 1)", "event_shape=(4, 64, 64)", "narrow=True"],
    ),
    "channels last, where convolutions are too many": (
        lambda: VAE(event_shape=(32, 32, 3), encoder=ConvEncoder()).initialise(0),
        SpecError,
        ["ConvEncoder", "(32, 32, 3)", "event_shape=(3, 32, 32)"],
    ),
    "channels last, decoded": (
        lambda: VAE(
            event_shape=(28, 28, 1), likelihood=Gaussian(scale="network"), decoder=ConvDecoder(channels=(2,))
        ).initialise(0),
        SpecError,
        ["ConvDecoder", "(2, 28, 28, 1)", "event_shape=(1, 28, 28)"],
    ),
    "channels last, beside a label": (
        lambda: ConditionalVAE(event_shape=(28, 28, 3), encoder=ConvEncoder(channels=(2,))).initialise(0),
        SpecError,
        ["ConvEncoder", "expected [C, H, W]"],
    ),
    "too many convolutions": (
        lambda: declare(ConvEncoder(channels=(2, 2, 2, 2)), (8, 6), (3,)),
        SpecError,
        ["ConvEncoder.channels", "4 strided convolutions", "8×6", "at most 2"],
    ),
    "groups that do not divide": (
        lambda: declare(ConvEncoder(channels=(6,), norm="group", groups=4), (8, 8), (3,)),
        SpecError,
        ["ConvEncoder.groups: got 4", "divisor of 6"],
    ),
    "a parameter declared twice": (
        lambda: [c := Context(Declarations()), c.param("a"), c.param("a")],
        ProgramError,
        ["'a'", "twice"],
    ),
    "a net declared twice": (
        lambda: [c := Context(Declarations()), *(c.net("n", MLP(), (2,), (2,)) for _ in "ab")],
        ProgramError,
        ["'n'", "twice"],
    ),
    "a net that is not declared": (
        lambda: TorchVocabulary(Plain(), {}, declare(MLP(), (2,), (2,))).net("nett"),
        ProgramError,
        ["'nett'", "Did you mean 'net'?"],
    ),
    "a parameter that is not declared": (
        lambda: TorchVocabulary(Plain(), {"scale": 1.0}, Declarations()).param("scales"),
        ProgramError,
        ["'scales'", "Did you mean 'scale'?"],
    ),
}


def test_narrow_images_of_many_channels_are_taken_where_they_are_meant():
    """And without a word, where nothing looks like channels at the end."""
    declared = declare(ConvEncoder(channels=(2,), kernel=3, narrow=True), (64, 64, 4), (3,))
    assert declared.params["net.convs.0.weight"].shape == (2, 64, 3, 3)
    for event in [(3, 64, 64), (64, 4), (2, 64, 4), (8, 8, 5), (4, 4, 4), (64, 4, 4)]:
        declare(ConvEncoder(channels=(2,), kernel=3), event, (3,))
        declare(ConvDecoder(channels=(2,), kernel=3), (3,), event)


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case):
    call, error, words = MISTAKES[case]
    with pytest.raises(error) as raised:
        call()
    for word in words:
        assert word in str(raised.value)


def test_an_image_is_cut_to_at_most_one_pixel():
    """As many convolutions as the error for one more allows."""
    declared = declare(ConvEncoder(channels=(2, 2)), (8, 6), (3,))
    assert declared.params["net.output.weight"].shape == (prod((2, 2, 1)), 3)
