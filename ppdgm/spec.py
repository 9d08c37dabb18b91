"""Specs: immutable, validated records that describe programs, parts, nets and engines, and read back from text."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Self, TypeGuard, TypeVar, get_args

import numpy as np
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ppdgm.errors import SpecError, closest, nearest, shown

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Shape = tuple[PositiveInt, ...]

_WORDING = (  # plain words for pydantic's messages
    (r"a valid dictionary or instance of ([AEIOU])", r"an \1"),
    (r"a valid dictionary or instance of ", "a "),
    (r"a valid integer", "a whole number"),
    (r"a valid number", "a number"),
    (r"a valid boolean", "true or false"),
    (r"a valid string", "text"),
    (r"String should have at least 1 character", "text that is not empty"),
    (r"(^|or )(greater|less) than", r"\1a number \2 than"),
)
_NONE = {"kind": "none"}  # TOML has no null
_adopters: list[Callable[[Any], Spec | None]] = []
SpecT = TypeVar("SpecT", bound="Spec")


class Spec(BaseModel):
    """A frozen record whose fields are checked when it is made.

    Two specs are equal if their classes and fields are equal. `to_json`/`from_json` and `to_toml`/`from_toml` give back
    an equal spec; a nested spec is a table with its class under `kind`.

    Raises:
        SpecError: a field is unknown, missing or has a value that is not allowed.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_names(cls)

    def __new__(cls, /, *positional: Any, **fields: Any) -> Self:
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(cls.__abstractmethods__))
            raise SpecError(f"{cls.__name__} is a base class: it has no {missing}. Write a subclass that has.")
        return super().__new__(cls)

    def __init__(self, /, *positional: Any, **fields: Any) -> None:
        if positional:
            names = ", ".join(f"{n}=…" for n in type(self).model_fields)
            raise SpecError(f"{type(self).__name__} takes its fields by name: {type(self).__name__}({names}).")
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(_explain(type(self), error)) from None
        except PydanticUserError as error:  # Python doesn't find the type of a field, in the user's own class
            raise SpecError(f"{type(self).__name__}: {str(error).partition(chr(10))[0]}") from None
        except TypeError as error:
            if family := re.search("abstract class ([A-Z][A-Za-z]*) ", str(error)):
                raise SpecError(f"{type(self).__name__}: got a dictionary, expected {_members(family[1])}.") from None
            for name, value in fields.items():
                if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
                    keys = f"{type(self).__name__}.{name}: got {value!r}, a dictionary whose keys aren't all text."
                    raise SpecError(f"{keys} Its keys are names of fields.") from None
            raise
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, list | dict | set | np.ndarray):  # pydantic does not check defaults
                raise SpecError(
                    f"{type(self).__name__}.{name}: got {shown(value)}, which can change. Specs do not: annotate the "
                    "field as a tuple, such as tuple[int, ...], and give it one by default."
                )

    def __str__(self) -> str:
        return repr(self)

    def __setattr__(self, name: str, value: Any) -> None:
        raise SpecError(f"{type(self).__name__} is immutable. Use .replace({name}=…) for a changed copy.")

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, fields: Any) -> Any:
        return {k: _plain(v) for k, v in fields.items()} if isinstance(fields, dict) else fields

    def replace(self, /, **changes: Any) -> Self:
        """A copy with some fields changed. It is checked like a new spec."""
        return type(self)(**{**{n: getattr(self, n) for n in type(self).model_fields}, **changes})

    @classmethod
    def kind(cls) -> str:
        """The name of this class in text: only the name for ppdgm's own classes, `module:Class` for others."""
        return cls.__qualname__ if cls.__module__.startswith("ppdgm.") else f"{cls.__module__}:{cls.__qualname__}"

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries of plain values, with the class under `kind`."""
        fields = type(self).model_fields
        values = {n: getattr(self, n) for n in fields}
        return {
            "kind": self.kind(),
            **{n: _dump(v) for n, v in values.items() if not (v is None and fields[n].default is None)},
        }

    @classmethod
    def from_dict(cls: type[SpecT], table: Mapping[str, Any], classes: Iterable[type[Spec] | str] = ()) -> SpecT:
        """The spec that `to_dict` wrote.

        Args:
            table: what `to_dict` returned.
            classes: your own classes that the table may name: the classes themselves, or `module:Class` paths, which
                are imported. No other module is ever imported.
        """
        spec = _build(table, own_classes(classes))
        if not isinstance(spec, cls):
            raise SpecError(f"Got a {type(spec).__name__}, expected {with_article(cls.__name__)}.")
        return spec

    def to_json(self) -> str:
        """The spec as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls: type[SpecT], text: str, classes: Iterable[type[Spec] | str] = ()) -> SpecT:
        """The spec that `to_json` wrote; `classes` as in `from_dict`."""
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"Got text that is not JSON: {error}.") from None
        return cls.from_dict(table, classes)

    def to_toml(self) -> str:
        """The spec as TOML text."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_toml(cls: type[SpecT], text: str, classes: Iterable[type[Spec] | str] = ()) -> SpecT:
        """The spec that `to_toml` wrote; `classes` as in `from_dict`."""
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"Got text that is not TOML: {error}.") from None
        return cls.from_dict(table, classes)


def _check_names(cls: type[Spec]) -> None:
    """Refuse a field that has the name of a method or attribute of ppdgm, because its value would replace that.

    Raises:
        SpecError: there is such a field.
    """
    with suppress(NameError):  # from an annotation; pydantic reports it
        for name, annotation in inspect.get_annotations(cls).items():
            home = next((base for base in cls.__mro__[1:] if name in vars(base) and not _is_users(base)), None)
            declared = any(name in base.__pydantic_fields__ for base in cls.__mro__[1:] if issubclass(base, Spec))
            if home is not None and not declared and "ClassVar" not in str(annotation):
                raise SpecError(
                    f"{cls.__name__}.{name}: got a field named {name!r}, but that name is taken by "
                    f"{home.__name__}.{name}. Give the field another name, such as {name}_value."
                )


def _is_users(base: type) -> bool:
    return base.__module__.partition(".")[0] not in ("ppdgm", "pydantic", "builtins")


def import_class(path: str) -> type[Spec]:
    """The spec class at `module:Class`."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"No class at {path!r} ({error}). Expected 'module:Class' that Python can import.") from None
    if not (isinstance(found, type) and issubclass(found, Spec)):
        raise SpecError(f"{path!r} is not a spec: expected a subclass of ppdgm's Program, Part or Net.")
    return found


def own_classes(given: Any) -> list[type[Spec]]:
    """The classes that a user passes, or names as `module:Class`; a single one needs no list.

    Raises:
        SpecError: something else was passed.
    """
    several = given if isinstance(given, Iterable) and not isinstance(given, str | type) else [given]
    found = [import_class(c) if isinstance(c, str) else c for c in several]
    for cls in found:
        if not (isinstance(cls, type) and issubclass(cls, Spec)):
            raise SpecError(f"classes: got {cls!r}, expected classes of your own, or text such as 'my_module:MyClass'.")
    return found


def adopt(adopter: Callable[[Any], Spec | None]) -> None:
    """Let `adopter` turn foreign objects in a field of a spec into specs (a torch module into a net)."""
    _adopters.append(adopter)


def known_specs() -> dict[str, type[Spec]]:
    """Every spec class that exists at the moment, by its kind."""
    importlib.import_module("ppdgm.models")
    importlib.import_module("ppdgm.inference")
    found: dict[str, type[Spec]] = {}
    todo: list[type[Spec]] = [Spec]
    while todo:
        for sub in todo.pop().__subclasses__():
            found[sub.kind()] = sub
            todo.append(sub)
    return found


def _plain(value: Any) -> Any:
    """Lists as tuples, NumPy scalars as Python values, foreign modules as specs."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return tuple(_plain(v) for v in value)
    for adopter in _adopters:
        if (spec := adopter(value)) is not None:
            return spec
    return value


def _dump(value: Any) -> Any:
    if value is None:
        return _NONE
    if isinstance(value, Spec):
        return value.to_dict()
    return [_dump(v) for v in value] if isinstance(value, tuple) else value


def _build(value: Any, classes: list[type[Spec]]) -> Any:
    if isinstance(value, list):
        return tuple(_build(v, classes) for v in value)
    if not isinstance(value, Mapping):
        return value
    if value == _NONE:
        return None
    if "kind" not in value:
        raise SpecError(f'Got a table without a kind: {dict(value)!r}. Expected kind = "…", such as "MLP".')
    cls = find_kind(value["kind"], classes)
    return cls(**{k: _build_field(cls, k, v, classes) for k, v in value.items() if k != "kind"})


def _build_field(cls: type[Spec], field: str, value: Any, classes: list[type[Spec]]) -> Any:
    if not _is_name(cls, field, value):
        return _build(value, classes)
    try:
        return _build({"kind": value}, classes)
    except SpecError as error:
        raise SpecError(f"{cls.__name__}.{field}: {error}") from None


def _is_name(cls: type[Spec], field: str, value: Any) -> bool:
    """Whether the value is text in a field that only takes specs: prior = "VampPrior"."""
    return isinstance(value, str) and field in cls.model_fields and _is_family(cls.model_fields[field].annotation)


def _is_family(expected: Any) -> TypeGuard[type[Spec]]:
    return isinstance(expected, type) and issubclass(expected, Spec)


def find_kind(kind: str, classes: Iterable[type[Spec] | str] = ()) -> type[Spec]:
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
            f"{kind!r} is a class of your own. Hand it in: classes=[{kind.rpartition(':')[2]}], "
            f"or allow its import: classes=[{kind!r}]."
        )
    own_names = [name for name in known if ":" not in name]
    family = [name for name in own_names if _is_a(known[name], kind)]
    if family or closest(kind, own_names):
        raise SpecError(f"Unknown kind {kind!r}. {nearest(kind, family or own_names)}")
    raise SpecError(
        f"Unknown kind {kind!r}. `ppdgm models` lists all there are; a class of your own comes with --program FILE.py, "
        "or with classes=[…] in Python."
    )


def _explain(cls: type[Spec], error: ValidationError) -> str:
    return " ".join(_explain_one(cls, detail) for detail in _merged(error.errors(include_url=False)))


def _merged(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """One entry for each field: the branches of a union are joined to 'expected this or that'."""
    fields: dict[str, ErrorDetails] = {}
    for detail in details:
        name = str(detail["loc"][0]) if detail["loc"] else ""
        if name in fields and detail["msg"] not in fields[name]["msg"]:
            fields[name]["msg"] += " or " + detail["msg"].replace("Input should be ", "")
        fields.setdefault(name, detail)
    return list(fields.values())


def _explain_one(cls: type[Spec], detail: ErrorDetails) -> str:
    owner, field = cls.__name__, str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        letter = " Names of fields start with a letter." if field.startswith("_") else ""
        return f"{owner} has no field {field!r}. {nearest(field, cls.model_fields)}{letter}"
    if detail["type"] == "missing":
        family = cls.model_fields[field].annotation
        members = f" Expected {_members(family.__name__)}." if _is_family(family) else ""
        return f"{owner}.{field} is missing: it has no default.{members} Its fields: {', '.join(cls.model_fields)}."
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    for pattern, words in _WORDING:
        expected = re.sub(pattern, words, expected)
    if not field and detail["type"] == "value_error":  # from a class's own check of several fields together
        return f"{owner}: {expected}"
    if detail["type"] == "model_type":
        expected = _members(detail["ctx"]["class_name"])
    elif field in cls.model_fields and type(None) in get_args(cls.model_fields[field].annotation):
        expected += "" if " or None" in expected else " or None"
    if detail["type"] in ("list_type", "dict_type", "set_type"):
        expected = "a tuple: a spec does not change, so that its field is to be annotated as tuple[int, ...], say"
    if detail["type"] == "tuple_type":
        expected = "a tuple, such as (64,)"
    got = detail["input"]
    choices = re.findall(r"'([^']+)'", expected)
    if isinstance(got, str) and choices and "Did you mean" in (hint := nearest(got, choices)):
        return f"{owner}.{field}: got {shown(got)}. {hint} Expected {expected}."
    return f"{owner}.{field}: got {shown(got)}; expected {expected}."


def _members(family: str) -> str:
    """A family of specs with some of its members, in words."""
    concrete = {name: spec for name, spec in known_specs().items() if not inspect.isabstract(spec)}
    members = [name for name, spec in concrete.items() if _is_a(spec, family) and name != family]
    known = [name for name in members if name.isalnum() and name != "ForeignNet"]  # ppdgm's own classes for users
    known.sort(key=lambda name: len(concrete[name].model_fields))  # the simplest first
    if not known:  # a class without others of its kind
        return f"{family}(…)"
    return f"{with_article(family)}, such as {', '.join(f'{name}()' for name in known[:4])}"


def with_article(name: str) -> str:
    """The name of a family of specs, with "a" or "an"."""
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _is_a(spec: type[Spec], family: str) -> bool:
    return any(base.__name__ == family for base in spec.__mro__)
