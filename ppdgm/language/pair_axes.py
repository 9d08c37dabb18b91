"""The dimensions of a plain pair's enumerated sites, as its functions run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ppdgm.errors import ProgramError
from ppdgm.language import enumeration, mistakes
from ppdgm.language.elimination import escapes
from ppdgm.language.vocabulary import Array, Dist


@dataclass
class Axes:
    """The dimensions of enumerated sites, left of those of plates.

    Attributes:
        plate: name of the data plate.
        written: how a program creates it.
        width: dimensions of plates, and of particles.
        sizes: the sites so far, with their number of values.
        everything: whether sites are enumerated that don't ask for it, if their draws carry no gradient.
        outside: sites outside the data plate, with their batch shapes.
    """

    plate: str
    written: str
    width: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    everything: bool = False
    outside: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def lead(self, batch: tuple[int, ...]) -> int:
        """The number of dimensions of a batch shape that are those of enumerated sites."""
        return len(enumeration.leading(batch, self.sizes, self.width)) if self.sizes else 0

    def check_outside(self, name: str, batch: tuple[int, ...]) -> None:
        """Refuse a site outside the data plate that depends on an enumerated one, and has its dimension."""
        if self.outside.get(name, batch) != batch:
            raise escapes(name, next(reversed(self.sizes)), "the data plate")

    def not_inside(self, name: str) -> ProgramError:
        """The error for a site outside the data plate that is to be enumerated."""
        return mistakes.enumerated_outside(name, self.written)

    def values(
        self,
        name: str,
        fn: Dist,
        infer: Mapping[str, object],
        inside: bool,
        pathwise: bool,
        reshape: Callable[..., Array],
    ) -> Array | None:
        """All values of a site that is to be enumerated; None for any other.

        Args:
            name, fn, infer: of the site.
            inside: whether it is inside the data plate.
            pathwise: whether its draws carry gradients.
            reshape: of arrays.
        """
        if not enumeration.wanted(name, infer) and (not self.everything or pathwise):
            return None
        if not inside:
            raise self.not_inside(name)
        found = enumeration.all_values(name, fn, self.sizes, reshape, self.width)
        self.sizes[name] = len(found)
        return found
