"""Names of spec classes in text, and the classes that they name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard
from weakref import WeakValueDictionary

from pydantic import BaseModel

from ppdgm.errors import SpecError, closest, nearest

_known: WeakValueDictionary[str, type[Kind]] = WeakValueDictionary()

Table = Mapping[str, Any]  #: plain values as in JSON and TOML, also nested; whoever reads them checks what they are


class Kind(BaseModel):
    """A record whose class has a name in text."""

    @classmethod
    def kind(cls) -> str:
        """The name of this class in text: only the name for ppdgm's own classes, `module:Class` for others."""
        return cls.__qualname__ if cls.__module__.startswith("ppdgm.") else f"{cls.__module__}:{cls.__qualname__}"


def remember(cls: type[Kind]) -> None:
    """Let text name a class, for as long as it exists."""
    _known[cls.kind()] = cls


def import_class(path: str) -> type[Kind]:
    """The spec class at `module:Class`."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"No class at {path!r} ({error}). Expected 'module:Class' that Python can import.") from None
    if not (isinstance(found, type) and issubclass(found, Kind)):
        raise SpecError(f"{path!r} is not a spec: expected a subclass of ppdgm's Program, Part or Net.")
    return found


def own_classes(given: Iterable[type[Kind] | str] | type[Kind] | str) -> list[type[Kind]]:
    """The classes that a user passes, or names as `module:Class`; a single one needs no list.

    Raises:
        SpecError: something else was passed.
    """
    several = given if isinstance(given, Iterable) and not isinstance(given, str | type) else [given]
    found = [import_class(c) if isinstance(c, str) else c for c in several]
    for cls in found:
        if not (isinstance(cls, type) and issubclass(cls, Kind)):
            raise SpecError(f"classes: got {cls!r}, expected your own classes, or text such as 'my_module:MyClass'.")
    return found


def known_specs() -> dict[str, type[Kind]]:
    """Every spec class that exists at the moment, by its kind; whoever reads text imports the families first."""
    return dict(_known)


def find_kind(kind: str, classes: Iterable[type[Kind] | str] = ()) -> type[Kind]:
    """The class that `kind` names: one of ppdgm's own, or of `classes`, as in `Spec.from_dict`.

    Raises:
        SpecError: there is no such class; the message suggests the nearest name.
    """
    if not isinstance(kind, str):
        raise SpecError(f"kind: got {kind!r}, expected the name of a class.")
    own = own_classes(classes)
    given = {cls.kind(): cls for cls in own}
    known = {name: cls for name, cls in known_specs().items() if not inspect.isabstract(cls)}
    if kind in given:
        return given[kind]
    if kind in known and ":" not in kind:  # ppdgm's own, even if a user's own class has the same name
        return known[kind]
    for cls in own:  # the class is now in another module, or it was in a script
        if kind.rpartition(":")[2] == cls.__qualname__:
            return cls
    if kind in known:
        return known[kind]
    if ":" in kind:
        raise SpecError(
            f"{kind!r} is your own class. Give it: classes=[{kind.rpartition(':')[2]}], "
            f"or allow its import: classes=[{kind!r}]."
        )
    own_names = [name for name in known if ":" not in name]
    family = [name for name in own_names if is_a(known[name], kind)]
    if family or closest(kind, own_names):
        raise SpecError(f"Unknown kind {kind!r}. {nearest(kind, family or own_names)}")
    raise SpecError(
        f"Unknown kind {kind!r}. `ppdgm models` lists all kinds. Give your own class with --program FILE.py, "
        "or with classes=[…] in Python."
    )


def is_a(spec: type[Kind], family: str) -> bool:
    """Whether a class is in the family of this name."""
    return any(base.__name__ == family for base in spec.__mro__)


def is_family(expected: object) -> TypeGuard[type[Kind]]:
    """Whether the type of a field is a spec class, which text may name."""
    return isinstance(expected, type) and issubclass(expected, Kind)
