"""The convolutions of the NumPyro backend: torch's values and gradients, under JAX's transformations."""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from ppdgm.backends.numpyro.convolution import conv2d, conv_transpose2d

BATCH, IN, OUT = 3, 2, 5

# kernel, stride, padding, image
CONVOLUTIONS = [
    ((3, 3), 1, 1, (11, 11)),
    ((4, 4), 2, 1, (12, 12)),
    ((4, 4), 2, 1, (13, 10)),  # a last row that no window reaches
    ((5, 5), 2, 2, (11, 8)),
    ((3, 3), 3, 0, (10, 11)),
    ((2, 2), 5, 0, (11, 9)),  # windows with gaps between them
    ((1, 1), 1, 0, (5, 7)),
    ((1, 1), 2, 1, (5, 6)),  # padding beyond the kernel's reach
    ((3, 5), 2, 1, (9, 12)),
    ((7, 7), 1, 0, (7, 7)),  # one pixel remains
    ((3, 3), 2, 4, (1, 2)),
]

# kernel, stride, padding, output_padding, image
TRANSPOSED = [
    ((3, 3), 1, 1, 0, (11, 11)),
    ((4, 4), 2, 1, 0, (7, 7)),
    ((3, 3), 2, 1, 1, (7, 4)),
    ((5, 5), 2, 2, 1, (5, 6)),
    ((5, 5), 3, 0, 2, (4, 3)),
    ((2, 2), 5, 0, 4, (3, 2)),
    ((1, 1), 1, 0, 0, (5, 7)),
    ((1, 1), 2, 1, 1, (5, 6)),
    ((3, 5), 2, 1, 0, (4, 5)),
    ((7, 7), 1, 0, 0, (1, 1)),
]

CASES = [
    pytest.param(conv2d, functional.conv2d, (OUT, IN, *kernel), (stride, padding), image, id=f"conv-{index}")
    for index, (kernel, stride, padding, image) in enumerate(CONVOLUTIONS)
] + [
    pytest.param(
        conv_transpose2d,
        functional.conv_transpose2d,
        (IN, OUT, *kernel),
        options,
        image,
        id=f"transpose-{index}",
    )
    for index, (kernel, *options, image) in enumerate(TRANSPOSED)
]

# function, weight shape [.., .., 4, 3], options: one of each kind, with pixels left over or added
PAIR = [
    pytest.param(conv2d, (OUT, IN, 4, 3), (2, 1), id="conv"),
    pytest.param(conv_transpose2d, (IN, OUT, 4, 3), (2, 1, 1), id="transpose"),
]


@pytest.fixture(autouse=True)
def on_cpu():
    """A GPU would round convolutions to TF32, beyond these tolerances."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


def draw(seed, *shapes, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def assert_close(actual, expected, tolerance=3e-6):
    """Equal up to `tolerance` times the largest entry, with the same shape and dtype."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert np.abs(expected).max() > 0
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def value_and_gradients(function, x, weight, options, cotangent):
    value, pullback = jax.vjp(lambda x, weight: function(x, weight, *options), x, weight)
    return value, *pullback(cotangent)


@cache
def value_and_own_gradients(function, options):
    """One compiled function for all the vmap cases of an operation."""

    @jax.jit
    def evaluate(x, weight):
        cotangent = jnp.cos(function(x, weight, *options))
        return value_and_gradients(function, x, weight, options, cotangent)

    return evaluate


def check_against_torch(function, reference, weight_shape, options, image, dtype, tolerance):
    x, weight = draw(0, (BATCH, IN, *image), weight_shape, dtype=dtype)
    torch_x, torch_weight = (torch.tensor(array, requires_grad=True) for array in (x, weight))
    expected = reference(torch_x, torch_weight, None, *options)
    (cotangent,) = draw(1, expected.shape, dtype=dtype)
    expected.backward(torch.tensor(cotangent))
    compiled = jax.jit(lambda *arrays: value_and_gradients(function, *arrays[:2], options, arrays[2]))
    value, x_gradient, weight_gradient = compiled(x, weight, cotangent)
    assert_close(value, expected.detach().numpy(), tolerance)
    assert_close(x_gradient, torch_x.grad.numpy(), tolerance)
    assert_close(weight_gradient, torch_weight.grad.numpy(), tolerance)


@pytest.mark.parametrize(("function", "reference", "weight_shape", "options", "image"), CASES)
def test_equals_torch(function, reference, weight_shape, options, image):
    check_against_torch(function, reference, weight_shape, options, image, np.float32, 3e-6)


@pytest.mark.parametrize(("function", "reference", "weight_shape", "options", "image"), CASES[::6])
def test_equals_torch_in_float64(function, reference, weight_shape, options, image):
    with jax.enable_x64(True):
        check_against_torch(function, reference, weight_shape, options, image, np.float64, 1e-13)


def padded(x, weight, bias, stride, padding):
    (top, bottom), (left, right) = padding
    return functional.conv2d(functional.pad(x, (left, right, top, bottom)), weight, bias, stride)


@pytest.mark.parametrize("options", [(1, ((2, 0), (1, 1))), (2, ((0, 3), (2, 0))), (3, ((1, 2), (0, 1)))])
def test_a_padding_of_its_own_for_each_side(options):
    check_against_torch(conv2d, padded, (OUT, IN, 4, 3), options, (7, 6), np.float32, 3e-6)


@pytest.mark.parametrize(("function", "weight_shape", "options"), PAIR)
def test_gradients_equal_finite_differences(function, weight_shape, options):
    step = 1e-5
    x, weight, x_direction, weight_direction = draw(2, *[(BATCH, IN, 7, 6), weight_shape] * 2, dtype=np.float64)
    with jax.enable_x64(True):

        @jax.jit
        def loss(x, weight):
            return jnp.sin(function(x, weight, *options)).sum()

        x_gradient, weight_gradient = jax.grad(loss, argnums=(0, 1))(x, weight)
        for gradient, direction, at in (
            (x_gradient, x_direction, lambda t: loss(x + t * x_direction, weight)),
            (weight_gradient, weight_direction, lambda t: loss(x, weight + t * weight_direction)),
        ):
            assert gradient.dtype == np.float64
            slope = (at(step) - at(-step)) / (2 * step)
            np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-6)


@pytest.mark.parametrize(("function", "weight_shape", "options"), PAIR)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 2)], ids=str)
def test_vmap_equals_a_loop(function, weight_shape, options, axes):
    particles = 4
    shapes = [(BATCH, IN, 7, 6), weight_shape]
    x, weight = draw(
        3,
        *[
            shape if axis is None else (*shape[:axis], particles, *shape[axis:])
            for shape, axis in zip(shapes, axes, strict=True)
        ],
    )

    one = value_and_own_gradients(function, options)
    mapped = jax.jit(jax.vmap(one, in_axes=axes))(x, weight)
    pick = [
        lambda k, a=array, axis=axis: a if axis is None else a.take(k, axis)
        for array, axis in zip((x, weight), axes, strict=True)
    ]
    looped = [one(*(choose(k) for choose in pick)) for k in range(particles)]
    for actual, expected in zip(mapped, zip(*looped, strict=True), strict=True):
        assert_close(actual, np.stack(expected))


@pytest.mark.parametrize(("function", "weight_shape", "options"), PAIR)
def test_gradient_of_a_vmap_sums_over_a_shared_weight(function, weight_shape, options):
    x, weight = draw(4, (4, BATCH, IN, 7, 6), weight_shape)

    def loss(weight, x):
        return (function(x, weight, *options) ** 2).sum()

    mapped = jax.jit(jax.grad(lambda weight: jax.vmap(loss, in_axes=(None, 0))(weight, x).sum()))(weight)
    gradient = jax.jit(jax.grad(loss))
    assert_close(mapped, sum(gradient(weight, one) for one in x))


def small_net(weights, x):
    hidden = jnp.tanh(conv2d(x, weights["down"], 2, 1))
    return (conv_transpose2d(hidden, weights["up"], 2, 1, 1) ** 2).mean()


def net_inputs():
    x, down, up = draw(5, (BATCH, IN, 9, 9), (OUT, IN, 4, 4), (OUT, IN, 3, 3))
    return {"down": down, "up": up}, np.stack([x, 2 * x, x + 1])


def test_gradients_inside_scan_equal_those_outside():
    weights, images = net_inputs()
    gradient = jax.grad(small_net, argnums=(0, 1))
    _, inside = jax.jit(lambda w: jax.lax.scan(lambda _, x: (None, gradient(w, x)), None, images))(weights)
    alone = jax.jit(gradient)
    outside = jax.tree.map(lambda *each: np.stack(each), *(alone(weights, x) for x in images))
    jax.tree.map(assert_close, inside, outside)


def test_gradient_through_scan_equals_an_unrolled_one():
    weights, images = net_inputs()

    def scanned(w):
        return jax.lax.scan(lambda total, x: (total + small_net(w, x), None), jnp.float32(0), images)[0]

    unrolled = jax.jit(jax.grad(lambda w: sum(small_net(w, x) for x in images)))(weights)
    jax.tree.map(assert_close, jax.jit(jax.grad(scanned))(weights), unrolled)


def test_every_convolution_inside_scan_keeps_the_fast_form():
    weights, images = net_inputs()
    gradient = jax.grad(small_net, argnums=(0, 1))
    program = jax.jit(lambda w: jax.lax.scan(lambda _, x: (None, gradient(w, x)), None, images))
    text = program.lower(weights).compile().as_text()
    convolutions = re.findall(r"^.* convolution\(.*$", text, flags=re.MULTILINE)
    assert len(convolutions) == 6  # two values, two input gradients, two kernel gradients
    for line in convolutions:
        assert "dim_labels=b01f_01io->b01f" in line
        assert "rhs_reversal" not in line


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: conv2d(x[0], w, 1, 0), "four axes"),
        (lambda x, w: conv2d(x, w[:, :1], 1, 0), "channels"),
        (lambda x, w: conv2d(x[:, :, :2], w, 1, 0), "is larger than"),
        (lambda x, w: conv2d(x, w, 0, 0), "stride"),
        (lambda x, w: conv_transpose2d(x, w, 1, 0, 1), "output_padding"),
        (lambda x, w: conv_transpose2d(x[:, :, :1], w, 1, 2, 0), "leaves"),
    ],
)
def test_mistakes_are_named(call, message):
    x, weight = draw(6, (1, 2, 5, 5), (2, 2, 3, 3))
    with pytest.raises(ValueError, match=message):
        call(x, weight)
