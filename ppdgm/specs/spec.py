"""Specs: immutable, validated records that describe programs, parts, nets and engines, and read back from text."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Self, TypeVar

import numpy as np
import tomli_w
from pydantic import ConfigDict, Field, PydanticUserError, ValidationError, model_validator

from ppdgm import markup
from ppdgm.errors import SpecError, shown
from ppdgm.specs.kinds import Kind, Table, find_kind, is_family, own_classes, remember
from ppdgm.specs.wording import explain_fields, members, with_article

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Shape = tuple[PositiveInt, ...]

_NONE = {"kind": "none"}  # TOML has no null
#: (class, its field's name in files of earlier versions) -> the name now
_OLD_FIELDS = {
    ("HMC", "leaps"): "num_leapfrog",
    ("Affine", "context"): "context_size",
    ("Coupling", "context"): "context_size",
}
_adopters: list[Callable[[object], Spec | None]] = []
SpecT = TypeVar("SpecT", bound="Spec")


class Spec(Kind):
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
        remember(cls)

    def __new__(cls, /, *positional: object, **fields: object) -> Self:
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(cls.__abstractmethods__))
            raise SpecError(f"{cls.__name__} is a base class: it has no {missing}. Write a subclass that defines it.")
        return super().__new__(cls)

    def __init__(self, /, *positional: object, **fields: object) -> None:
        if positional:
            names = ", ".join(f"{n}=…" for n in type(self).model_fields)
            raise SpecError(f"{type(self).__name__} takes its fields by name: {type(self).__name__}({names}).")
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(explain_fields(type(self), error)) from None
        except PydanticUserError as error:  # Python doesn't find the type of a field, in the user's own class
            raise SpecError(f"{type(self).__name__}: {str(error).partition(chr(10))[0]}") from None
        except TypeError as error:
            if family := re.search("abstract class ([A-Z][A-Za-z]*) ", str(error)):
                raise SpecError(f"{type(self).__name__}: got a dictionary, expected {members(family[1])}.") from None
            for name, value in fields.items():
                if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
                    keys = f"{type(self).__name__}.{name}: got {value!r}, a dictionary with keys that are not text."
                    raise SpecError(f"{keys} Expected names of fields.") from None
            raise
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, list | dict | set | np.ndarray):  # pydantic does not check defaults
                raise SpecError(
                    f"{type(self).__name__}.{name}: got {shown(value)} as the default, expected a value that can't "
                    "change. Annotate the field as a tuple, such as tuple[int, ...], with a tuple as the default."
                )

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        values = {n: getattr(self, n) for n in type(self).model_fields}
        return markup.box(type(self).__name__, markup.fields(values))

    def __setattr__(self, name: str, value: object) -> None:
        raise SpecError(f"{type(self).__name__} is immutable. Use .replace({name}=…) for a changed copy.")

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, fields: object) -> object:
        return {k: _plain(v) for k, v in fields.items()} if isinstance(fields, dict) else fields

    def replace(self, /, **changes: object) -> Self:
        """A copy with some fields changed. It is checked like a new spec."""
        return type(self)(**{**{n: getattr(self, n) for n in type(self).model_fields}, **changes})

    def to_dict(self) -> dict[str, object]:
        """Nested dictionaries of plain values, with the class under `kind`."""
        fields = type(self).model_fields
        values = {n: getattr(self, n) for n in fields}
        return {
            "kind": self.kind(),
            **{n: _dump(v) for n, v in values.items() if not (v is None and fields[n].default is None)},
        }

    @classmethod
    def from_dict(cls: type[SpecT], table: Table, classes: Iterable[type[Kind] | str] = ()) -> SpecT:
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
    def from_json(cls: type[SpecT], text: str, classes: Iterable[type[Kind] | str] = ()) -> SpecT:
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
    def from_toml(cls: type[SpecT], text: str, classes: Iterable[type[Kind] | str] = ()) -> SpecT:
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


def adopt(adopter: Callable[[object], Spec | None]) -> None:
    """Let `adopter` turn foreign objects in a field of a spec into specs (a torch module into a net)."""
    _adopters.append(adopter)


def _plain(value: object) -> object:
    """Lists as tuples, NumPy scalars as Python values, foreign modules as specs."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return tuple(_plain(v) for v in value)
    for adopter in _adopters:
        if (spec := adopter(value)) is not None:
            return spec
    return value


def _dump(value: object) -> object:
    if value is None:
        return _NONE
    if isinstance(value, Spec):
        return value.to_dict()
    return [_dump(v) for v in value] if isinstance(value, tuple) else value


def _build(value: object, classes: list[type[Kind]]) -> object:
    if isinstance(value, list):
        return tuple(_build(v, classes) for v in value)
    if not isinstance(value, Mapping):
        return value
    if value == _NONE:
        return None
    if "kind" not in value:
        raise SpecError(f'Got a table without a kind: {dict(value)!r}. Expected kind = "…", such as "MLP".')
    cls = find_kind(value["kind"], classes)
    value = _with_new_names(cls, value)
    return cls(**{k: _build_field(cls, k, v, classes) for k, v in value.items() if k != "kind"})


def _with_new_names(cls: type[Kind], table: Table) -> Table:
    """The table with old names of fields replaced. If it has the new name too, the old one stays, and is refused."""
    ours = {base.__name__ for base in cls.__mro__ if not _is_users(base)}
    new = {old: name for (owner, old), name in _OLD_FIELDS.items() if owner in ours and old not in cls.model_fields}
    return {field if new.get(field) in table else new.get(field, field): value for field, value in table.items()}


def _build_field(cls: type[Kind], field: str, value: object, classes: list[type[Kind]]) -> object:
    if not _is_name(cls, field, value):
        return _build(value, classes)
    try:
        return _build({"kind": value}, classes)
    except SpecError as error:
        raise SpecError(f"{cls.__name__}.{field}: {error}") from None


def _is_name(cls: type[Kind], field: str, value: object) -> bool:
    """Whether the value is text in a field that only takes specs: prior = "VampPrior"."""
    return isinstance(value, str) and field in cls.model_fields and is_family(cls.model_fields[field].annotation)
