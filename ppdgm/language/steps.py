"""What a scan has for each time: trees of arrays, where their rows are, and a site's distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.language.native import Array, Constraint, Dist, Namespace
from ppdgm.language.native import Tree as Tree  # arrays in tuples, lists and dictionaries; None and `Unseen` have none
from ppdgm.language.unseen import Unseen

Shape = tuple[int, ...]


class Steps:
    """The distributions of one site of a scan.

    Attributes:
        base_dist: that of one time; only for facts that do not depend on numbers, such as its class.
        kept: all of them, as the reader keeps them; None if it can't.
        mask: [T, 1, B], or None.
        scan: the number of the scan in the run.
        inside: whether each row is in the support, [B], if the run looked at this.
        bounds: arrays in the supports, [T, …], if the run looked at them.
    """

    discrete = None  #: a scan has no relaxations

    def __init__(
        self,
        base_dist: Dist,
        kept: object,
        mask: Array | None,
        scan: int,
        inside: Array | None = None,
        bounds: tuple[Array, ...] = (),
    ):
        self.base_dist, self.kept, self.mask, self.scan = base_dist, kept, mask, scan
        self.inside, self.bounds = inside, bounds

    @property
    def support(self) -> Constraint:
        """That of one time."""
        return self.base_dist.support


def mapped(function: Callable[..., object], tree: Tree, *others: Tree) -> Tree:
    """The function of all leaves of trees with the same structure; None stays."""
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        return {n: mapped(function, v, *(o[n] for o in others)) for n, v in tree.items()}
    if isinstance(tree, tuple | list):
        found = [mapped(function, *each) for each in zip(tree, *others, strict=True)]
        return type(tree)(*found) if hasattr(tree, "_fields") else type(tree)(found)
    return function(tree, *others)


def leaves(tree: Tree) -> list[Array]:
    """All leaves of a tree."""
    found: list[Array] = []
    mapped(found.append, tree)
    return found


def told(tree: Tree) -> str:
    """The structure of a tree, with shapes, for messages."""
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{n!r}: {told(v)}" for n, v in tree.items()) + "}"
    if isinstance(tree, tuple | list):
        return f"({', '.join(told(v) for v in tree)})"
    shape = getattr(tree, "shape", None)
    return f"{type(tree).__name__}" if shape is None or isinstance(tree, Unseen) else f"array {tuple(shape)}"


def alike(tree: Tree, other: Tree) -> bool:
    """Whether two trees have the same structure."""
    if isinstance(tree, Mapping):
        return isinstance(other, Mapping) and set(tree) == set(other) and all(alike(tree[n], other[n]) for n in tree)
    if isinstance(tree, tuple | list):
        same = type(tree) is type(other) and len(tree) == len(other)
        return same and all(alike(a, b) for a, b in zip(tree, other, strict=True))
    return not isinstance(other, Mapping | tuple | list) and (tree is None) == (other is None)


def row_axis(shape: Shape, k: int, b: int) -> int | None:
    """The axis of rows in [K, B, …], [1, B, …] or [1, 1, …], or in [B, …]; None if there is none."""
    if len(shape) >= 2 and ((shape[0] in (1, k) and shape[1] == b) or shape[:2] == (1, 1)):
        return 1
    return 0 if shape and shape[0] == b else None


def in_place(value: Array, k: int, b: int, xp: Namespace) -> Array:
    """[T, …] with the axis of times after that of rows; before all others if there is none."""
    axis = row_axis(tuple(value.shape[1:]), k, b)
    return value if axis is None else xp.moveaxis(value, 0, axis + 1)


def as_mask(mask: Array, shape: Shape, axis: int, xp: Namespace) -> Array:
    """A mask [B] for arrays of a shape whose rows are at an axis."""
    return xp.reshape(mask, (-1, *(1,) * (len(shape) - axis - 1)))


def valid_order(name: str, latent: list[str], q: Mapping[str, Dist], p: Mapping[str, Dist]) -> bool:
    """Whether every latent before this one in the model is before it in the guide, also in scans.

    At each time, all sites of a scan come after those at earlier times. So the guide must draw the other latents of the
    model's scan in one scan too, or before it.
    """
    of = lambda dists, n: dists[n].scan if isinstance(dists[n], Steps) else None
    drawn, here, there = list(q), of(p, name), of(q, name)
    if here is None and there is None:
        return all(n in drawn[: drawn.index(name)] for n in latent[: latent.index(name)])
    if here is None or there is None:
        return False  # one distribution of all times, and one of each
    together = [n for n in latent if of(p, n) == here]
    ahead = drawn[: next(i for i, n in enumerate(drawn) if of(q, n) == there)]
    before = lambda n: n in ahead or (of(q, n) == there and drawn.index(n) < drawn.index(name))
    earlier = lambda n: n in ahead or of(q, n) == there
    own = latent.index(name)
    first = all(n in ahead for n in latent[:own] if n not in together)
    return first and all(before(n) if latent.index(n) < own else earlier(n) for n in together if n != name)


def check_masks(q: Mapping[str, Dist], p: Mapping[str, Dist], same: Callable[[Array, Array], bool | None]) -> None:
    """Refuse a guide and a model whose scans draw a latent with different masks.

    Args:
        q, p: distributions by site.
        same: whether two arrays have the same numbers; None if it is not known.

    Raises:
        ProgramError: with the site.
    """
    for name in (n for n in q if n in p and (isinstance(q[n], Steps) or isinstance(p[n], Steps))):
        masks = [getattr(d[name], "mask", None) if isinstance(d[name], Steps) else None for d in (q, p)]
        if (masks[0] is None) == (masks[1] is None):
            if masks[0] is None or same(*masks) is not False:
                continue
            what = "the masks differ"
        else:
            what = f"only the {'model' if masks[0] is None else 'guide'} has a mask"
        raise ProgramError(
            f"Site {name!r}: guide and model leave out different times: {what}. Then the terms are no bound. Draw it "
            "in P.scan(…, mask=mask) with the same mask in both."
        )


def stacked(trees: Iterable[Tree], stack: Callable[[list[Array]], Array]) -> Tree:
    """Trees of one structure as one tree, with the arrays of each leaf stacked."""
    first, *others = list(trees)
    return mapped(lambda *arrays: stack(list(arrays)), first, *others)


def check_carry(before: Tree, after: Tree, first: bool) -> None:
    """Refuse a carry whose shape changes; only the first one may be broadcast.

    Raises:
        ProgramError: with both shapes.
    """
    for old, new in zip(leaves(before), leaves(after), strict=True):
        was, now = tuple(getattr(old, "shape", ())), tuple(new.shape)
        try:
            fits = was == now or (first and np.broadcast_shapes(was, now) == now)
        except ValueError:
            fits = False
        if not fits:
            raise ProgramError(
                f"P.scan: the body got a carry of shape {was}, and returned one of shape {now}. Return the shape that "
                "it got."
            )
