"""Norms of hidden layers: over the numbers of a row (layer, group), or over the rows of a minibatch (batch)."""

from __future__ import annotations

from ppdgm.errors import ProgramError
from ppdgm.language.vocabulary import Array, Vocabulary
from ppdgm.nets.base import Shapes, ones, zeros

NORM_EPSILON = 1e-5
MOMENTUM = 0.1  #: the share of a minibatch in the running mean and variance of batch norm


def norm(name: str, width: int) -> Shapes:
    """A norm's scale and shift, [width]."""
    return {f"{name}.scale": ((width,), ones), f"{name}.shift": ((width,), zeros)}


def layer_norm(P: Vocabulary, name: str, x: Array) -> Array:
    """(x − mean) / sd over the last axis, scaled and shifted. Ba et al. 2016, arXiv:1607.06450."""
    return _standardise(P, x, (-1,)) * P.param(f"{name}.scale") + P.param(f"{name}.shift")


def group_norm(P: Vocabulary, name: str, x: Array, groups: int) -> Array:
    """Layer norm over groups of channels of [B, C, H, W]. Wu & He 2018, arXiv:1803.08494."""
    b, c, h, w = x.shape
    grouped = P.xp.reshape(x, (b, groups, c // groups, h, w))
    normed = P.xp.reshape(_standardise(P, grouped, (2, 3, 4)), (b, c, h, w))
    per_channel = lambda p: P.xp.reshape(P.param(f"{name}.{p}"), (c, 1, 1))
    return normed * per_channel("scale") + per_channel("shift")


def running(shapes: Shapes) -> Shapes:
    """The states of batch norm, for each norm among these parameters: its running mean and variance, [width]."""
    found = [(name.removesuffix(".scale"), shape) for name, (shape, _) in shapes.items() if name.endswith(".scale")]
    return {
        f"{n}.{state}": (shape, init) for n, shape in found for state, init in (("mean", zeros), ("variance", ones))
    }


def batch_norm(
    P: Vocabulary,
    name: str,
    x: Array,
    rows: tuple[int, ...] | None = None,
    momentum: float = MOMENTUM,
    scaled: bool = True,
) -> Array:
    """(x − mean) / sd over the rows of the minibatch, scaled and shifted. Ioffe & Szegedy 2015, arXiv:1502.03167.

    A training step takes the mean and the variance (with 1/n) over rows, particles and pixels, and moves the running
    ones: r ← (1 − momentum) r + momentum · those of the minibatch. Everything else uses the running ones.

    Args:
        P: vocabulary.
        name: of the norm.
        x: [K, B, C] or [B, C]; or images [n, C, H, W].
        rows: of images, the dimensions that n was made of: (K, B) or (B,).
        momentum: of the running mean and variance.
        scaled: whether the norm has a scale and a shift.

    Raises:
        ProgramError: the first dimensions of x are not those of rows and particles.
    """
    if len(x.shape[:-1] if rows is None else rows) not in (1, 2):
        raise ProgramError(
            f"Batch norm {P.prefix}{name}: got an array of shape {tuple(x.shape)}, expected [B, …] or [K, B, …], with "
            "the rows of the minibatch. A latent that is summed out has further dimensions: use another norm."
        )
    of_rows = lambda v: v if rows is None else P.xp.reshape(P.xp.mean(v, axis=(2, 3)), (*rows, v.shape[1]))
    wide = lambda v: v if rows is None else P.xp.reshape(v, (-1, 1, 1))
    old = P.param(f"{name}.mean"), P.param(f"{name}.variance")
    mean = P.batch_mean(of_rows(x), 1, otherwise=old[0])
    centred = x - wide(mean)
    variance = P.batch_mean(of_rows(centred * centred), 1, otherwise=old[1])
    for state, before, now in zip(("mean", "variance"), old, (mean, variance), strict=True):
        P.update(f"{name}.{state}", before + momentum * (now - before))
    normed = centred / P.xp.sqrt(wide(variance) + NORM_EPSILON)
    return normed * wide(P.param(f"{name}.scale")) + wide(P.param(f"{name}.shift")) if scaled else normed


def vector_norm(P: Vocabulary, kind: str | None, name: str, x: Array) -> Array:
    """The norm "layer" or "batch" over the last axis; None for none."""
    return x if kind is None else {"layer": layer_norm, "batch": batch_norm}[kind](P, name, x)


def image_norm(P: Vocabulary, kind: str | None, name: str, x: Array, groups: int, rows: tuple[int, ...]) -> Array:
    """The norm "group" or "batch" of images [n, C, H, W], n being the product of `rows`; None for none."""
    if kind is None:
        return x
    return group_norm(P, name, x, groups) if kind == "group" else batch_norm(P, name, x, rows)


def _standardise(P: Vocabulary, x: Array, axes: tuple[int, ...]) -> Array:
    centred = x - P.xp.mean(x, axis=axes, keepdims=True)
    return centred / P.xp.sqrt(P.xp.mean(centred * centred, axis=axes, keepdims=True) + NORM_EPSILON)
