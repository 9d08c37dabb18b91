"""Every program, part, net, engine and schedule, as its class and its docstring describe it."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ppdgm import inference, models
from ppdgm.data import Source
from ppdgm.errors import SpecError, nearest
from ppdgm.inference.runs.settings import Training
from ppdgm.models import Flow, Likelihood, Net, Part, Posterior, Prior, Program
from ppdgm.nets.causal import CausalNet
from ppdgm.specs import Kind, Spec

#: Title, base class, the method that makes a class concrete, and the place of such a class in a recipe.
GROUPS: tuple[tuple[str, type[Spec], str, str], ...] = (
    ("Programs", Program, "model", "program"),
    ("Priors", Prior, "distribution", "program.prior"),
    ("Posteriors", Posterior, "distribution", "program.posterior"),
    ("Likelihoods", Likelihood, "distribution", "program.likelihood"),
    ("Flows", Flow, "forward", "program.posterior.flow"),
    ("Other parts", Part, "distribution", "program.PART"),
    ("Nets", Net, "apply", "program.encoder"),
    ("Samplers", inference.Sampler, "objective", "engine.sampler"),
    ("Engines", inference.Engine, "phases", "engine"),
    ("Stages", inference.Stage, "__init__", "engine.stages"),
    ("Schedules", inference.Schedule, "__call__", "training.learning_rate"),
    ("Optimisers", inference.Optimiser, "__init__", "training.optimiser"),
    ("Augmentations", inference.Augmentation, "__call__", "training.augment"),
    ("Training", Training, "__init__", "training"),
    ("Data", Source, "__init__", "data"),
)
_PAPER = re.compile(
    r"[A-Z][\w’'-]+(?:, [A-Z][\w’'-]+)*(?: and | & [A-Z][\w’'-]+| et al\.)? (?:19|20)\d\d(?:, arXiv:\d{4}\.\d{4,5})?"
)


@dataclass(frozen=True)
class FieldEntry:
    """A field: `type` in words; `default` as plain values, or None with `required`; what it means."""

    name: str
    type: str
    required: bool
    default: object
    meaning: str


@dataclass(frozen=True)
class Description:
    """A spec class: its group, one-line meaning, the rest of its text, papers, fields, and its place in a recipe."""

    name: str
    group: str
    place: str
    meaning: str
    details: str
    papers: tuple[str, ...]
    fields: tuple[FieldEntry, ...]


def public_specs() -> list[type[Spec]]:
    """Every class that users compose, in the order of `GROUPS`."""
    named = [getattr(home, name) for home in (models, inference) for name in home.__all__]
    found = [c for c in dict.fromkeys([*named, Training, Source]) if isinstance(c, type) and issubclass(c, Spec)]
    place = lambda cls: next(i for i, (_, base, _, _) in enumerate(GROUPS) if issubclass(cls, base))
    return sorted(filter(is_concrete, found), key=place)


def is_concrete(cls: type[Spec]) -> bool:
    """Whether a class does what its family does, and is not only a base class of the family."""
    if inspect.isabstract(cls):
        return False
    for _, base, method, _ in GROUPS:
        if issubclass(cls, base):
            return method in ("__init__", "phases") or getattr(cls, method) is not getattr(base, method)
    return False


def public_names(families: Iterable[type[Kind]]) -> list[str]:
    """The names of the public classes of some families."""
    families = tuple(families)
    return [c.kind() for c in public_specs() if families and issubclass(c, families)]


def find_class(name: str) -> Description:
    """The entry of a class, found by its name; upper and lower case don't matter.

    Raises:
        SpecError: there is no such class; the message gives the nearest name.
    """
    known = {c.__name__: c for c in public_specs()}
    for own, cls in known.items():
        if own.lower() == name.lower():
            return describe_class(cls)
    raise SpecError(f"No program, part, net or engine is called {name!r}. {nearest(name, known)}")


def describe_class(cls: type[Spec]) -> Description:
    """What a class and its docstring say."""
    text = _text(cls)
    head, _, _ = _split(text)
    paragraphs = [" ".join(p.split()) for p in head.split("\n\n") if p.strip()]
    papers = tuple(dict.fromkeys(_PAPER.findall(" ".join(paragraphs) + " " + " ".join(_meanings(cls).values()))))
    meaning = _without(paragraphs[0], papers) if paragraphs else ""
    details = "\n\n".join(p for p in (_without(p, papers) for p in paragraphs[1:]) if p)
    _, _, _, place = next((g for g in GROUPS if issubclass(cls, g[1])), ("", cls, "", ""))
    group = next((g[0] for g in GROUPS if issubclass(cls, g[1])), "")
    explained = _meanings(cls)
    fields = tuple(
        FieldEntry(n, in_words(f.annotation, f.metadata), f.is_required(), _plain(f), explained.get(n, ""))
        for n, f in cls.model_fields.items()
    )
    place = "program.net" if issubclass(cls, CausalNet) else place  # of an AutoregressiveModel
    return Description(cls.__name__, group, place, meaning, details, papers, fields)


def _text(cls: type) -> str:
    return inspect.cleandoc(vars(cls).get("__doc__") or "")


def _split(text: str) -> tuple[str, str, str]:
    """The text before the Args of a docstring, the Args, and the text after them."""
    head, _, rest = re.sub(r"^(Raises|Returns|Attributes):$", r"\n\1:", text).partition("\nArgs:\n")
    lines = rest.splitlines()
    end = next((i for i, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    return re.split(r"\n(?:Raises|Returns):\n", head)[0], "\n".join(lines[:end]), "\n".join(lines[end:])


def _meanings(cls: type) -> dict[str, str]:
    """What the Args of a class and of its base classes say about each field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, args, _ = _split(_text(base))
        for names, meaning in re.findall(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", args, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found


def _without(text: str, papers: Iterable[str]) -> str:
    """A paragraph without sentences that only name a paper."""
    for paper in papers:
        text = re.sub(rf"(?:^|(?<=\. ))(?:The net of )?{re.escape(paper)}\.\s*", "", text)
    return text.strip()


def _plain(field: FieldInfo) -> object:
    value = field.default
    if field.is_required():
        return None
    if isinstance(value, Spec):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def in_words(annotation: Any, metadata: Iterable[object] = ()) -> str:
    """A field's type and range, in words."""
    if hasattr(annotation, "__metadata__"):
        inner = [m for extra in annotation.__metadata__ for m in getattr(extra, "metadata", [extra])]
        return in_words(annotation.__origin__, inner)
    inside = [a for a in get_args(annotation) if a is not Ellipsis]
    if is_union(annotation):
        return _or(map(in_words, inside))
    if get_origin(annotation) is Literal:
        return _or(map(repr, inside))
    if get_origin(annotation) is tuple:
        return "list of " + re.sub(r"\b(number|list)\b", r"\1s", _or(map(in_words, inside)))
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return _family(annotation)
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "none"}
    return f"{words.get(annotation, getattr(annotation, '__name__', 'value'))}{_range(metadata)}"


def _or(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _family(cls: type[Spec]) -> str:
    """For a class of which a field takes any member: the class, with its members."""
    article = "an" if cls.__name__[0] in "AEIOU" else "a"
    found = [name for name in public_names([cls]) if name != cls.__name__]
    return f"{article} {cls.__name__} ({', '.join(found)})" if found else f"{article} {cls.__name__}"


def _range(metadata: Iterable[object]) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = [(s, getattr(m, n)) for m in metadata for n, s in signs.items() if getattr(m, n, None) is not None]
    return " and".join(f" {sign} {limit}" for sign, limit in limits)


def is_union(annotation: Any) -> bool:
    """Whether a type is "this or that"."""
    return isinstance(annotation, types.UnionType) or get_origin(annotation) is Union


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union, or the type itself, without their metadata."""
    if hasattr(annotation, "__metadata__"):
        return alternatives(annotation.__origin__)
    if not is_union(annotation):
        return [annotation]
    return [a for member in get_args(annotation) for a in alternatives(member)]
