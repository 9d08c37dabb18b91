"""The masked net: what each output sees, its forward pass on both backends, its errors."""

import jax
import numpy as np
import pytest
from flow_tools import Plain, draw_params, run
from readings import BACKENDS, precision
from reference import forward

from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Declarations
from ppdgm.models import MADE
from ppdgm.program import Context

ORDERINGS = {"natural": [0, 1, 2, 3], "reversed": [3, 2, 1, 0], (2, 0, 3, 1): [2, 0, 3, 1]}


def declare(net, inputs, outputs):
    declared = Declarations()
    Context(declared).net("net", net, inputs, outputs)
    return declared, draw_params(declared, scale=0.5)


def jacobian(net, inputs, outputs):
    declared, params = declare(net, (inputs,), outputs)
    with precision("float64"):
        P = JaxVocabulary(Plain(), params, declared)
        return np.asarray(jax.jit(jax.jacfwd(P.net("net")))(np.linspace(-1, 1, inputs)))


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("hidden", [(), (5,), (9, 5, 6)])
def test_each_output_depends_on_all_inputs_before_it_and_on_no_other(hidden, ordering, context):
    slopes = jacobian(MADE(hidden=hidden, ordering=ordering), 4 + context, (2, 4))
    order = ORDERINGS[ordering]
    for row, d, j in np.ndindex(2, 4, 4 + context):
        sees = j >= 4 or order.index(j) < order.index(d)
        assert (abs(slopes[row, d, j]) > 1e-6) == sees, (row, d, j)


def test_a_narrow_net_misses_inputs_but_sees_no_other():
    slopes = jacobian(MADE(hidden=(2,)), 6, (6,))
    assert (slopes[np.triu_indices(6)] == 0).all()
    assert (slopes != 0).any()


def test_one_input_alone_gives_a_constant():
    assert (jacobian(MADE(hidden=(3,)), 1, (2, 1)) == 0).all()
    assert (jacobian(MADE(hidden=(3,)), 2, (2, 1))[:, 0] != [[0.0, 0.0]]).tolist() == [[False, True]] * 2


def test_random_orderings_are_permutations_that_the_seed_picks():
    orders = [MADE(ordering="random", seed=seed).ranks(9) for seed in range(20)]
    assert all(sorted(order) == list(range(9)) for order in orders)
    assert len({tuple(order) for order in orders}) == 20
    assert orders[3] == MADE(ordering="random", seed=3).ranks(9)
    first = np.array([MADE(ordering="random", seed=seed).ranks(4)[0] for seed in range(400)])
    assert np.bincount(first).min() > 70  # 100 each, with a standard deviation of 9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("context", [0, 2])
def test_forward_equals_the_reference_for_any_leading_dimensions(context, backend, dtype):
    net, rng = MADE(hidden=(5, 4), activation="silu", ordering="random", seed=2), np.random.default_rng(9)
    inputs, outputs = (3 + context,), (2, 2, 3)
    declared, params = declare(net, inputs, outputs)
    params = {n: v.astype(dtype) for n, v in params.items()}
    leading = [(), (4,), (3, 2), (2, 1, 3)]
    arrays = [rng.normal(size=(*lead, *inputs)).astype(dtype) for lead in leading]
    with precision(dtype):
        results = run(backend, lambda P, *arrays: tuple(P.net("net")(x) for x in arrays), params, declared, *arrays)
    for x, got, lead in zip(arrays, results, leading, strict=True):
        expected = forward(net.to_dict(), params, "net", x.reshape(-1, *inputs), outputs)
        assert got.shape == (*lead, *outputs)
        assert got.dtype == dtype
        error = np.abs(got.reshape(-1, *outputs) - expected).max() / np.abs(expected).max()
        assert error <= {"float32": 1e-5, "float64": 1e-12}[dtype]


MISTAKES = {
    "fewer inputs than outputs": (
        lambda: MADE().params((3,), (2, 4)),
        r"MADE: got inputs of shape \(3,\) for outputs \(2, 4\); expected one vector of at least 4 numbers",
    ),
    "an image": (lambda: MADE().params((2, 2), (4,)), r"inputs of shape \(2, 2\)"),
    "no permutation": (lambda: MADE(ordering=(0, 2)), r"MADE.ordering: got \(0, 2\); expected each of 0, 1, … once"),
    "an unknown order": (lambda: MADE(ordering="backwards"), "MADE.ordering: got 'backwards'; expected 'natural'"),
    "a short permutation": (
        lambda: MADE(ordering=(1, 0)).params((3,), (3,)),
        "MADE.ordering: got 2 numbers; expected one for each of 3 inputs",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case):
    call, words = MISTAKES[case]
    with pytest.raises(SpecError, match=words):
        call()


@pytest.mark.parametrize("ordering", ["reversed", (2, 0, 1)])
def test_the_spec_survives_text(ordering):
    net = MADE(hidden=(4,), ordering=ordering)
    assert MADE.from_toml(net.to_toml()) == MADE.from_json(net.to_json()) == net
