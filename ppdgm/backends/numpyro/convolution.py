"""Convolutions in torch's layout that stay fast on CPU inside `lax.scan`, `lax.cond` and `lax.while_loop`.

XLA's CPU compiler passes a convolution to its fast library only in one form: images NHWC, kernels HWIO, kernel
not reversed. It changes other forms into this one in the entry computation, but not inside the body of a loop
or a branch; and the derivatives that JAX makes of a convolution have other forms. There they run on a naive
path, ten times slower or worse. So the value, the gradient of the input and the gradient of the kernel are
written out here, each as a convolution that already has the fast form.

A convolution and its transpose are each other's gradient with respect to the input, so three convolutions
are enough for both.

Inside this file images are [B, H, W, C] and kernels [kh, kw, C, D], where C is the number of channels of the
larger image (the one that `conv2d` reads and `conv_transpose2d` writes) and D that of the smaller one.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["conv2d", "conv_transpose2d"]

Size = tuple[int, int]
Pads = tuple[Size, Size]  # rows above and below, columns to the left and to the right
Residuals = tuple[jax.Array, jax.Array]


def conv2d(x: jax.Array, weight: jax.Array, stride: int, padding: int | Pads) -> jax.Array:
    """Convolution without bias, equal to `torch.nn.functional.conv2d`; a side may have a padding of its own.

    x [B, I, H, W], weight [O, I, kh, kw] -> [B, O, H', W'],
    H' = (H + 2 padding - kh) // stride + 1.
    Reverse-mode derivatives only (`jax.grad`, `jax.vjp`), like every function with a custom vjp.
    """
    pads = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
    _check(x, weight, stride, min(map(min, pads)), channels=weight.shape[1])
    if any(n + sum(p) < k for n, p, k in zip(x.shape[2:], pads, weight.shape[2:], strict=True)):
        raise ValueError(f"the kernel {weight.shape[2:]} is larger than the image {x.shape[2:]} with padding {padding}")
    kernel = jnp.transpose(weight, (2, 3, 1, 0))
    return _channels_first(_narrow(_channels_last(x), kernel, stride, pads))


def conv_transpose2d(
    x: jax.Array, weight: jax.Array, stride: int, padding: int, output_padding: int | Size
) -> jax.Array:
    """Transposed convolution without bias, equal to `torch.nn.functional.conv_transpose2d`.

    x [B, I, H, W], weight [I, O, kh, kw] -> [B, O, H', W'],
    H' = (H - 1) stride - 2 padding + kh + output_padding.
    Reverse-mode derivatives only (`jax.grad`, `jax.vjp`), like every function with a custom vjp.
    """
    _check(x, weight, stride, padding, channels=weight.shape[0])
    extra = (output_padding, output_padding) if isinstance(output_padding, int) else output_padding
    if not all(0 <= e < stride for e in extra):  # otherwise no convolution leads back to the size of x
        raise ValueError(f"output_padding must be at least 0 and less than stride {stride}, got {output_padding}")
    height, width = (
        (n - 1) * stride - 2 * padding + k + e for n, k, e in zip(x.shape[2:], weight.shape[2:], extra, strict=True)
    )
    if min(height, width) < 1:
        raise ValueError(f"padding {padding} leaves an image of size {(height, width)}")
    kernel = jnp.transpose(weight, (2, 3, 1, 0))
    pads = ((padding, padding), (padding, padding))
    return _channels_first(_widen(_channels_last(x), kernel, stride, pads, (height, width)))


def _check(x: jax.Array, weight: jax.Array, stride: int, padding: int, channels: int) -> None:
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"expected x and weight with four axes, got the shapes {x.shape} and {weight.shape}")
    if x.shape[1] != channels:
        raise ValueError(f"x {x.shape} has {x.shape[1]} channels, weight {weight.shape} expects {channels}")
    if stride < 1 or padding < 0:
        raise ValueError(f"stride must be positive and padding not negative, got {stride} and {padding}")


def _channels_last(x: jax.Array) -> jax.Array:
    return jnp.transpose(x, (0, 2, 3, 1))


def _channels_first(x: jax.Array) -> jax.Array:
    return jnp.transpose(x, (0, 3, 1, 2))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _narrow(large: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """The convolution: large [B, H, W, C], kernel [kh, kw, C, D] -> small [B, H', W', D]."""
    return _fast(large, kernel, pads, stride=stride)


def _narrow_forward(large: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> tuple[jax.Array, Residuals]:
    return _narrow(large, kernel, stride, pads), (large, kernel)


def _narrow_backward(stride: int, pads: Pads, residuals: Residuals, small_bar: jax.Array) -> Residuals:
    large, kernel = residuals
    large_bar = _widen(small_bar, kernel, stride, pads, large.shape[1:3])
    return large_bar, _kernel_gradient(large, small_bar, stride, pads, kernel.shape[:2])


_narrow.defvjp(_narrow_forward, _narrow_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _widen(small: jax.Array, kernel: jax.Array, stride: int, pads: Pads, size: Size) -> jax.Array:
    """The transpose: small [B, H', W', D], kernel [kh, kw, C, D] -> large [B, *size, C].

    The small image, with stride - 1 zeros between its pixels, is convolved with the kernel turned by 180 degrees. The
    array itself is turned: a convolution with an option to turn its kernel is not in the fast form.
    """
    turned = jnp.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
    around = []
    for k, (first, _), n_small, n_large in zip(kernel.shape[:2], pads, small.shape[1:3], size, strict=True):
        before = k - 1 - first
        spread = (n_small - 1) * stride + 1
        around.append((before, n_large + k - 1 - spread - before))
    return _fast(small, turned, around, spread=stride)


def _widen_forward(
    small: jax.Array, kernel: jax.Array, stride: int, pads: Pads, size: Size
) -> tuple[jax.Array, Residuals]:
    return _widen(small, kernel, stride, pads, size), (small, kernel)


def _widen_backward(stride: int, pads: Pads, size: Size, residuals: Residuals, large_bar: jax.Array) -> Residuals:
    small, kernel = residuals
    small_bar = _narrow(large_bar, kernel, stride, pads)
    return small_bar, _kernel_gradient(large_bar, small, stride, pads, kernel.shape[:2])


_widen.defvjp(_widen_forward, _widen_backward)


def _kernel_gradient(large: jax.Array, small: jax.Array, stride: int, pads: Pads, size: Size) -> jax.Array:
    """Gradient of sum(small * narrow(large, kernel)) with respect to the kernel.

    large [B, H, W, C], small [B, H', W', D] -> [*size, C, D]. Also a convolution: C takes the place of the
    batch, B that of the channels summed over, and the small image, with its pixels `stride` apart, is the kernel.
    """
    around = []
    for k, (first, _), n_small, n_large in zip(size, pads, small.shape[1:3], large.shape[1:3], strict=True):
        spread = (n_small - 1) * stride + 1
        around.append((first, k + spread - 1 - n_large - first))  # after: < 0 cuts pixels no window reached
    turned = jnp.transpose(large, (3, 1, 2, 0)), jnp.transpose(small, (1, 2, 0, 3))
    gradient = _fast(*turned, around, kernel_spread=stride)
    return jnp.transpose(gradient, (1, 2, 0, 3))


def _fast(
    x: jax.Array,
    kernel: jax.Array,
    pads: Sequence[Size],
    stride: int = 1,
    spread: int = 1,
    kernel_spread: int = 1,
) -> jax.Array:
    """The one form with a fast path: x [B, H, W, I], kernel [kh, kw, I, O]; negative pads cut pixels off.

    `spread` and `kernel_spread` are the distances between neighbouring pixels of x and of the kernel.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=pads,
        lhs_dilation=(spread, spread),
        rhs_dilation=(kernel_spread, kernel_spread),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
