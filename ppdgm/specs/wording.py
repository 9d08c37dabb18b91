"""pydantic's errors as sentences: what was got, what was expected, and what to do."""

from __future__ import annotations

import inspect
import re
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ppdgm.errors import nearest, shown
from ppdgm.specs.kinds import Kind, is_a, is_family, known_specs

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


def explain_fields(cls: type[Kind], error: ValidationError) -> str:
    """The sentences for an error of a spec's fields."""
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


def _explain_one(cls: type[Kind], detail: ErrorDetails) -> str:
    owner, field = cls.__name__, str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        letter = " Names of fields start with a letter." if field.startswith("_") else ""
        return f"{owner} has no field {field!r}. {nearest(field, cls.model_fields)}{letter}"
    if detail["type"] == "missing":
        family = cls.model_fields[field].annotation
        some = f" Expected {members(family.__name__)}." if is_family(family) else ""
        return f"{owner}.{field} is missing: it has no default.{some} Its fields: {', '.join(cls.model_fields)}."
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    for pattern, words in _WORDING:
        expected = re.sub(pattern, words, expected)
    if not field and detail["type"] == "value_error":  # from a class's own check of several fields together
        return f"{owner}: {expected}"
    if detail["type"] == "model_type":
        expected = members(detail["ctx"]["class_name"])
    elif field in cls.model_fields and type(None) in get_args(cls.model_fields[field].annotation):
        expected += "" if " or None" in expected else " or None"
    if detail["type"] in ("list_type", "dict_type", "set_type"):
        expected = "a tuple. A spec can't change: annotate its field as a tuple, such as tuple[int, ...]"
    if detail["type"] == "tuple_type":
        expected = "a tuple, such as (64,)"
    got = detail["input"]
    choices = re.findall(r"'([^']+)'", expected)
    if isinstance(got, str) and choices and "Did you mean" in (hint := nearest(got, choices)):
        return f"{owner}.{field}: got {shown(got)}. {hint} Expected {expected}."
    return f"{owner}.{field}: got {shown(got)}; expected {expected}."


def members(family: str) -> str:
    """A family of specs with some of its members, in words."""
    concrete = {name: spec for name, spec in known_specs().items() if not inspect.isabstract(spec)}
    members = [name for name, spec in concrete.items() if is_a(spec, family) and name != family]
    known = [name for name in members if name.isalnum() and name != "ForeignNet"]  # ppdgm's own classes for users
    usual = lambda name: getattr(concrete[name], "usual", False)
    known.sort(key=lambda name: (not usual(name), len(concrete[name].model_fields)))  # the simplest first
    if not known:  # a class without others of its kind
        return f"{family}(…)"
    return f"{with_article(family)}, such as {', '.join(f'{name}()' for name in known[:4])}"


def with_article(name: str) -> str:
    """The name of a family of specs, with "a" or "an"."""
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
