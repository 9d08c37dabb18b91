"""Shared by programs with classes: the one-hot distribution, labels as one-hot vectors, nets of x and a label."""

from __future__ import annotations

from math import prod

import numpy as np

from ppdgm.errors import DataError, ProgramError
from ppdgm.language.shapes import broadcast_shapes
from ppdgm.language.unseen import is_given
from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods import refuse
from ppdgm.nets import ConvEncoder, Net
from ppdgm.nets.base import flatten


def one_hot_categorical(P: Vocabulary, log_probs: Array) -> Dist:
    """Cat(exp(log_probs)) over unit vectors, for log-probabilities [..., C] that may be −∞."""
    size = log_probs.shape[-1]

    def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, None]:
        return P.one_hot(P.xp.argmax(log_probs + random.gumbel((*batch, size)), axis=-1), size), None

    return P.distribution(
        sample,
        lambda y: P.xp.sum(P.xp.where(y > 0.5, log_probs, P.full((), 0.0)), axis=-1),  # 0 · (−∞) is NaN
        (size,),
        tuple(log_probs.shape[:-1]),
        support="boolean",
        mean=lambda: P.xp.exp(log_probs),
        mode=lambda: P.one_hot(P.xp.argmax(log_probs, axis=-1), size),
        pathwise=False,
        values=lambda: P.constant(np.arange(size)[:, None] == np.arange(size)),  # torch.compile warns of np.eye
        about={"count": size},
    )


def as_one_hot(P: Vocabulary, label: Array | None, classes: int, name: str = "label") -> Array:
    """Labels [B] as unit vectors [B, C]; −1, which means a missing label, as zeros."""
    if not is_given(label):
        raise ProgramError(
            f"The program is conditional on {name!r}, which is not given. Give the classes: fit.sample({classes}, "
            f"given={{{name!r}: range({classes})}}); on the command line, ppdgm sample --given {name}=0, or a file."
        )
    return P.xp.where(label[..., None] == P.constant(np.arange(classes)), P.full((), 1.0), P.full((), 0.0))


def check_labels(label: np.ndarray, classes: int, missing: bool = False, name: str = "label") -> None:
    """Refuse labels that are not classes, or that are not one number for each row.

    Raises:
        DataError: with the index of the first bad label.
    """
    label, low = np.asarray(label), -1 if missing else 0
    if label.ndim != 1:
        raise DataError(f"Data {name!r}: got labels of shape {label.shape[1:]}, expected one number for each row.")
    bad = ~((label >= low) & (label < classes) & (label == np.rint(label)))
    unknown = "" if missing or not (label == -1).any() else " (−1, a missing label, is for SemiSupervisedVAE)"
    refuse(name, label, bad, f"classes from 0 to {classes - 1}{', or -1 if missing' if missing else unknown}")


def beside(net: Net, event: tuple[int, ...], width: int) -> tuple[int, ...]:
    """The input shape of a net of x [*event] and a vector: one longer vector, or more channels for a `ConvEncoder`."""
    if isinstance(net, ConvEncoder) and len(event) > 1:
        return (prod(event[:-2]) + width, *event[-2:])
    return (prod(event) + width,)


def put_beside(P: Vocabulary, net: Net, x: Array, y: Array, event: tuple[int, ...]) -> Array:
    """x [..., *event] and y [..., W] as one array, whose shape `beside` gives."""
    if not (isinstance(net, ConvEncoder) and len(event) > 1):
        return P.concat([flatten(P, x, event), y])
    image, planes = (prod(event[:-2]), *event[-2:]), y[..., None, None]
    x = P.xp.reshape(x, (*x.shape[: x.ndim - len(event)], *image))
    lead = broadcast_shapes(x.shape[:-3], planes.shape[:-3])
    wide = lambda a: P.xp.broadcast_to(a, (*lead, a.shape[-3], *event[-2:]))
    return P.xp.concat([wide(x), wide(planes)], axis=-3)
