"""What stands for data that the model generates: they have a shape, if it is known, and can be indexed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn, Self, TypeGuard

import numpy as np

from ppdgm.language.native import Array, Index

Shape = tuple[int, ...]


class Unseen:
    """A field that is not given. `plate` and `obs=` take it, also indexed; anything that computes with it fails.

    Args:
        event: shape of one row of the field, or of what is left of it after indexing; None if it is not known.
        size: B; None before it is known.
    """

    def __init__(self, event: Shape | None = None, size: int | None = None):
        self.event = None if event is None else tuple(int(n) for n in event)
        self.size = size

    def __repr__(self) -> str:
        return "a field that is not given"

    def sized(self, size: int) -> Unseen:
        """The same for B rows."""
        return Unseen(self.event, size)

    @property
    def shape(self) -> Shape:
        """[B, *event].

        Raises:
            TypeError: it is not known.
        """
        if self.event is None:
            raise TypeError(
                "the program needs the shape of a field that is not given, and the shape is not known. Declare "
                "event_shape in the program, which is the shape of x, or use a fit to data that have the field"
            )
        return self.event if self.size is None else (self.size, *self.event)

    @property
    def ndim(self) -> int:
        """The number of its dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            self._refuse()  # torch takes it for a nested sequence
        return self.shape[0]

    def __getitem__(self, index: Index) -> Self:
        parts = tuple(_plain(i) for i in index) if isinstance(index, tuple) else _plain(index)
        found = np.broadcast_to(np.empty((), bool), self.shape)[parts]  # one byte in all
        return type(self)(found.shape)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the program computes with a field that is not given")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _refuse  # without this, Python would answer
    __float__ = __int__ = __index__ = __contains__ = __array__ = _refuse
    __hash__ = None  # type: ignore[assignment]  # an object without equality has no hash


def is_given(value: object) -> TypeGuard[Array]:
    """Whether a field has data: it is neither None nor `Unseen`."""
    return value is not None and not isinstance(value, Unseen)


def blanks(shapes: Mapping[str, Shape | None]) -> dict[str, Unseen]:
    """Fields that are not given, with the shapes of their rows."""
    return {name: Unseen(shape) for name, shape in shapes.items()}


def shapes_known(program: object, fields: Mapping[str, Shape | None]) -> dict[str, Shape | None]:
    """The shape of each field's rows, if it is known: that of x is the program's `event_shape`.

    Args:
        program: whose data they are.
        fields: by name, the shape of a row; None if it is not known.
    """
    own = {"x": getattr(program, "event_shape", None)}
    return {n: own.get(n) if shape is None else tuple(shape) for n, shape in fields.items()}


def _plain(index: Index) -> Index:
    """An index as NumPy takes it; of a library's array only the shape counts."""
    if not hasattr(index, "shape") or isinstance(index, np.ndarray | np.generic):
        return index
    if "bool" in str(index.dtype):
        raise TypeError("a field that is not given can't be indexed with true and false: their number is not known")
    return np.zeros(tuple(index.shape), int)
