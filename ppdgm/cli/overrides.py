"""`--set a.b=c`: values set in the tables of a recipe, by dotted path."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

from ppdgm.catalogue import alternatives, public_names
from ppdgm.errors import SpecError, nearest
from ppdgm.specs import Kind, Spec, Table, find_kind

Classes = Sequence[type[Kind]]
_NONE = {"kind": "none"}  # as in Spec.to_dict
_IMPLIED = {"data": "Source", "engine": "SVI", "training": "Training"}  # kinds that need not be written
_TOP = ("backend", "data", "engine", "program", "training")
_OTHER = {"epochs": "steps", "steps": "epochs"}  # a run has only one of them


def parse(text: str) -> tuple[str, str]:
    """The path and the value of "path=value".

    Raises:
        SpecError: it has no "=", or no path.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise SpecError(f"--set: got {text!r}, expected PATH=VALUE, such as program.latent=16.")
    return path.strip(), value.strip()


def parse_fields(texts: Iterable[str]) -> list[object]:
    """The fields of `--fields x=a,b --fields label`, as `Source` takes them: a name alone is an array or a column.

    Raises:
        SpecError: a field has no name, or no columns.
    """
    found: list[object] = []
    for text in texts:
        name, equals, columns = (part.strip() for part in text.partition("="))
        parts = [_column(part) for part in columns.split(",")] if equals else []
        if not name or (equals and "" in parts) or name.startswith("{"):
            raise SpecError(
                f"--fields: got {text!r}, expected FIELD=COLUMNS, such as x=a,b or 'x=gene_*' or label. Give --fields "
                "once for each field."
            )
        found.append(name if not equals else [name, parts[0] if len(parts) == 1 else parts])
    return found


def _column(text: str) -> str | int:
    text = text.strip()
    return int(text) if text.isdecimal() else text.strip("\"'")


def apply(table: dict[str, Any], settings: Iterable[tuple[str, Any]], classes: Classes) -> dict[str, Any]:
    """A copy of a recipe's table with values set.

    Args:
        table: as `Recipe.table` gives it, or parts of it.
        settings: paths, and values: text, or any value of TOML.
        classes: the user's own classes that the table may name.

    Raises:
        SpecError: a path that doesn't exist; the message gives the nearest name.
    """
    table = _copy(table)
    parts_first = sorted(settings, key=lambda s: s[0].removesuffix(".kind").count("."))
    for path, value in parts_first:
        first, *rest = path.split(".")
        if first not in _TOP:
            hint = nearest(first, _TOP)
            hint = hint if "Did you mean" in hint else _elsewhere(table, path, classes) or hint
            raise SpecError(f"{path}: a recipe has no {first!r}. {hint}")
        if (first == "backend") == bool(rest):
            raise SpecError(f"{path}: expected the field of a table, such as program.latent or training.epochs.")
        if first == "backend":
            table["backend"] = value
        else:
            _descend(table, first, rest, value, path, classes)
    return table


def _descend(table: dict[str, Any], first: str, rest: list[str], value: object, path: str, classes: Classes) -> None:
    here, implied, done = table.setdefault(first, {}), _IMPLIED.get(first), first
    for name in rest[:-1]:
        here = _inner(here, _class(here, implied, done, classes), name, done, path)
        done, implied = f"{done}.{name}", None
    last = rest[-1]
    if last == "kind":
        _set_kind(here, value, implied, path)
        return
    cls = _class(here, implied, done, classes)
    try:
        _check_field(cls, last, path)
    except SpecError as error:
        if hint := _elsewhere(table, path, classes):
            raise SpecError(f"{error} {hint}") from None
        raise
    here[last] = read_value(value, cls.model_fields[last].annotation) if isinstance(value, str) else value
    if done == "training" and last in _OTHER:
        here.pop(_OTHER[last], None)


def _elsewhere(table: Table, path: str, classes: Classes) -> str:
    """The settings of that name in other tables of the recipe, in a sentence; "" if there are none."""
    name = path.rpartition(".")[2]
    found: list[str] = []
    for top in _TOP:
        here = table.get(top, {})
        kind = here.get("kind", _IMPLIED.get(top)) if isinstance(here, Mapping) else None
        if isinstance(kind, str):
            with suppress(SpecError):  # a kind that is refused elsewhere
                found += _named(top, here, find_kind(kind, classes), name)
    there = " or ".join(f"{setting}=…" for setting in found if setting != path)
    return f"There is {there}." if there else ""


def _named(at: str, here: Table, cls: type[Kind], name: str) -> list[str]:
    """A field of that name in a class, or in a part of it."""
    found = [f"{at}.{name}"] if name in cls.model_fields else []
    for part, field in cls.model_fields.items():
        inner = here.get(part)
        if isinstance(inner, Mapping) and isinstance(kind := inner.get("kind"), str):
            with suppress(SpecError):
                found += [f"{at}.{part}.{name}"] if name in find_kind(kind, ()).model_fields else []
        elif inner is None and isinstance(field.default, Spec) and name in type(field.default).model_fields:
            found.append(f"{at}.{part}.{name}")
    return found


def _set_kind(here: dict[str, Any], value: object, implied: str | None, path: str) -> None:
    """Another class starts with its own defaults."""
    if not isinstance(value, str) or not value:
        raise SpecError(f"{path}: got {value!r}, expected the name of a class, such as MLP.")
    if here.get("kind", implied) != value.strip("\"'"):
        here.clear()
    here["kind"] = value.strip("\"'")


def _class(here: Table, implied: str | None, path: str, classes: Classes) -> type[Kind]:
    kind = here.get("kind", implied)
    if not isinstance(kind, str):
        raise SpecError(f"{path} has no kind. Set it first: --set {path}.kind=NAME.")
    return find_kind(kind, classes)


def _check_field(cls: type[Kind], name: str, path: str) -> None:
    if name not in cls.model_fields:
        raise SpecError(f"{path}: {cls.__name__} has no field {name!r}. {nearest(name, cls.model_fields)}")


def _inner(here: dict[str, Any], cls: type[Kind], name: str, done: str, path: str) -> dict[str, Any]:
    """The table at `name`; if there is none, it is made from the field's default."""
    _check_field(cls, name, path)
    field = cls.model_fields[name]
    inner = here.get(name, None if field.is_required() else field.default)
    if isinstance(inner, Spec):
        inner = inner.to_dict()
    if isinstance(inner, dict) and inner != _NONE:
        here[name] = inner
        if "kind" not in inner and isinstance(field.default, Spec):
            inner["kind"] = field.default.kind()
        return inner
    families = _families(field.annotation)
    if not families:
        raise SpecError(f"{path}: {done}.{name} is a plain value, not a table. Set it as --set {done}.{name}=VALUE.")
    if not path.endswith(f"{name}.kind"):
        raise SpecError(
            f"{path}: {done}.{name} is {'not given' if inner in (None, _NONE) else repr(inner)}, which has no fields. "
            f"Set its kind first: --set {done}.{name}.kind=NAME, one of {', '.join(public_names(families))}."
        )
    here[name] = {}
    return here[name]


def read_value(text: str, annotation: Any = Any) -> object:
    """A value as TOML writes it, or as Python does; else the text itself. A list needs no brackets."""
    allowed = alternatives(annotation)
    if allowed == [str] or text in _literals(annotation):
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
    value = _plain(text)
    if value in (None, "none") and type(None) in allowed:
        return _NONE
    if isinstance(value, str) and value in public_names(_families(annotation)):
        return {"kind": value}
    if "," not in text and any(a in (int, float) for a in allowed):
        return value
    tuples = [a for a in allowed if get_origin(a) is tuple]
    if not isinstance(value, list | dict) and tuples:
        named = public_names([f for a in tuples for item in get_args(a) for f in _families(item)])
        items = [_plain(part.strip()) for part in text.split(",")]
        return [{"kind": item} if isinstance(item, str) and item in named else item for item in items]
    return value


def _plain(text: str) -> object:
    value = _toml(text)
    return _python(text) if value is text else value


def _toml(text: str) -> object:
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = found.get("value")
    simple = isinstance(value, str | int | float | list | dict)
    return value if len(found) == 1 and simple else text


def _python(text: str) -> object:
    """Tuples, True, None, .5: as people who know Python write them."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    if isinstance(value, tuple | list):
        return list(value)
    return value if value is None or isinstance(value, str | int | float) else text


def _literals(annotation: Any) -> list[Any]:
    return [v for a in alternatives(annotation) if get_origin(a) is Literal for v in get_args(a)]


def _families(annotation: Any) -> list[type[Kind]]:
    """The spec classes that a field takes."""
    return [a for a in alternatives(annotation) if isinstance(a, type) and issubclass(a, Spec)]


def _copy(value: object) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list | tuple) else value
