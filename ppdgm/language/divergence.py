"""When KL(q‖p) has a closed form. The formulas are the libraries' own; this file lists the pairs they are right for.

A formula belongs to the distributions as the library wrote them. First, what is around those (plates, masks, events,
transforms) is taken off, by rules that hold for any distribution. Whatever remains has no closed form, and is
estimated by log q − log p at the draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ppdgm.language.vocabulary import Array, Dist, Namespace

if TYPE_CHECKING:
    from ppdgm.language.native import DistClass, Transform


ALIKE = ("ExpTransform", "SigmoidTransform")  #: transforms without parameters, which are one to one


def pairs(table: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """(q, p) for each name of q, and each of the names beside it."""
    return frozenset((q, p) for q, names in table.items() for p in names.split())


@dataclass(frozen=True)
class Library:
    """A library's distributions.

    Attributes:
        xp: its array namespace.
        home: packages that contain its own classes.
        independent, expanded, masked, delta, transformed: its classes that wrap others, and the point mass.
        formulas: (name of q's class, of p's) for which `kl` is right; "Normals" are `Normal(…).to_event(1)`.
        kl: (q, p) -> KL(q‖p), [*batch].
        one_to_one: whether a transform is one to one.
        broadcast: (shape, shape) -> shape.
    """

    xp: Namespace
    home: tuple[str, ...]
    independent: DistClass
    expanded: DistClass
    masked: DistClass
    delta: DistClass
    transformed: DistClass
    formulas: frozenset[tuple[str, str]]
    kl: Callable[[Dist, Dist], Array]
    one_to_one: Callable[[Transform], bool]
    broadcast: Callable[..., tuple[int, ...]]


def closed_form(q: Dist, p: Dist, library: Library) -> Array | None:
    """KL(q‖p) [K or 1, B or 1, D], per dimension if both factorise; None if no closed form holds."""
    form = _closed_form(q, p, library)
    return None if form is None else library.xp.reshape(form, ((1,) * (3 - form.ndim) + tuple(form.shape)))


def _closed_form(q: Dist, p: Dist, library: Library) -> Array | None:
    """KL(q‖p), [*batch, D]: per dimension if both factorise, else D = 1; None if no closed form holds.

    Under a mask there is none: the masks of guide and model may differ, and then E(m log q − m' log p) is not a KL.
    """
    if (own := getattr(q, "closed_form", None)) is not None:
        form: Array | None = own(p)
        return form
    bare_q, bare_p = _bare(q, library), _bare(p, library)
    if bare_q is None or bare_p is None or tuple(q.event_shape) != tuple(p.event_shape):
        return None
    form = _form(bare_q, bare_p, library)
    if form is None:
        return None
    batch = library.broadcast(tuple(q.batch_shape), tuple(p.batch_shape))
    return library.xp.broadcast_to(form, (*batch, form.shape[-1]))


def _form(q: Dist, p: Dist, library: Library) -> Array | None:
    if isinstance(q, library.delta):  # log q − log p at the only value
        form: Array = (q.log_density - p.log_prob(q.v))[..., None]
        return form
    names = _names(p, library)
    if any((a, b) in library.formulas for a in _names(q, library) for b in names):
        try:
            return library.kl(q, p)[..., None]
        except NotImplementedError:  # for some values of the parameters
            return None
    if isinstance(q, library.independent) and isinstance(p, library.independent):
        return _factors(q, p, library)
    if _same_transforms(q, p, library):
        return _closed_form(q.base_dist, p.base_dist, library)
    return None


def _factors(q: Dist, p: Dist, library: Library) -> Array | None:
    """Σ KL of the factors; one by one if they are scalars."""
    n = min(q.reinterpreted_batch_ndims, p.reinterpreted_batch_ndims)
    q, p = (_peeled(d, n, library) for d in (q, p))
    form = _closed_form(q, p, library)
    if form is None:
        return None
    batch = form.shape[: form.ndim - n - 1]
    form = library.xp.reshape(form, (*batch, -1))
    return library.xp.sum(form, axis=-1, keepdims=True) if q.event_shape else form


def _peeled(d: Dist, n: int, library: Library) -> Dist:
    left = d.reinterpreted_batch_ndims - n
    return library.independent(d.base_dist, left) if left else d.base_dist


def _bare(d: Dist, library: Library) -> Dist:
    """Without the expansions around it; None under a mask."""
    while isinstance(d, library.expanded | library.masked):
        if isinstance(d, library.masked) and d._mask is not True:
            return None
        d = d.base_dist
    return d


def _names(d: Dist, library: Library) -> list[str]:
    """The library's classes that have this density; a subclass with its own density has none of them."""
    if isinstance(d, library.independent):
        return [f"{name}s" for name in _names(d.base_dist, library)] if d.reinterpreted_batch_ndims == 1 else []
    kind = getattr(type(d), "mends", type(d))  # one of our classes in place of the library's
    own = [c for c in kind.__mro__ if c.__module__.startswith(library.home)]
    return [c.__name__ for c in own if getattr(c, "log_prob", None) is kind.log_prob]


def _same_transforms(q: Dist, p: Dist, library: Library) -> bool:
    """Whether both are mapped by the same one-to-one transform, which does not change the KL."""
    if any(type(d).log_prob is not library.transformed.log_prob for d in (q, p)):
        return False
    if len(q.transforms) != len(p.transforms) or any(
        len(d.base_dist.event_shape) != len(d.event_shape) for d in (q, p)
    ):
        return False
    same = lambda a, b: library.one_to_one(a) if a is b else type(a) is type(b) and type(a).__name__ in ALIKE
    return all(same(a, b) for a, b in zip(q.transforms, p.transforms, strict=True))
