"""A run as text: one TOML file with data, program, engine, backend and training; the run can be repeated from it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import tomli_w

from ppdgm.data import Source
from ppdgm.errors import SpecError, nearest, shown
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.engines.svi import SVI
from ppdgm.inference.runs.settings import Training
from ppdgm.models import Program  # with all that a recipe may name
from ppdgm.registry import INSTALL, is_pair
from ppdgm.specs import Kind, Spec, Table, find_kind, own_classes, with_article

if TYPE_CHECKING:
    from ppdgm.program import AnyProgram
    from ppdgm.specs.spec import SpecT

FORMAT = 2
_IMPLIED = {"data": "Source", "engine": "SVI", "training": "Training"}  # kinds that may be left out
_KEYS = ("format", "backend", "data", "program", "engine", "training", "versions")


@dataclass(frozen=True)
class Recipe:
    """Everything that a run consists of.

    Attributes:
        program: a Program, or a plain pair, which can't be written as text.
        training, engine, backend: how it is trained.
        data: where its data come from; None if arrays were given.
    """

    program: AnyProgram
    training: Training
    engine: Engine = SVI()
    backend: str = "numpyro"
    data: Source | None = None

    def table(self) -> Table:
        """Nested dictionaries of plain values."""
        bare = lambda spec: {n: v for n, v in spec.to_dict().items() if n != "kind"}
        plain = {"kind": f"plain:{self.backend}"}
        return {
            "format": FORMAT,
            "backend": self.backend,
            **({"data": bare(self.data)} if self.data else {}),
            "program": self.program.to_dict() if isinstance(self.program, Spec) else plain,
            "engine": self.engine.to_dict(),
            "training": bare(self.training),
        }

    def to_toml(self) -> str:
        """The recipe as TOML text."""
        return tomli_w.dumps(self.table())

    @classmethod
    def from_table(
        cls,
        table: Table,
        classes: Iterable[type[Kind] | str] = (),
        program: AnyProgram | None = None,
        event_shape: tuple[int, ...] | None = None,
    ) -> Recipe:
        """The recipe that `table` describes.

        Args:
            table: as `Recipe.table` gives it; tables and fields with defaults may be absent.
            classes: your own classes that it may name, as for `Spec.from_dict`.
            program: the program itself, if it can't be written as text (plain pairs).
            event_shape: of the data, for a program whose table doesn't give its own.

        Raises:
            SpecError: a key or a value is not known.
        """
        check_format(table)
        backend = table.get("backend", "numpyro")
        if not isinstance(backend, str) or backend not in INSTALL:
            raise SpecError(f"backend: got {backend!r}. {nearest(str(backend), INSTALL)}")
        classes = own_classes(classes)
        found = {n: _spec(n, table[n], classes) for n in _IMPLIED if n in table}
        if program is None:
            program = _program(table.get("program"), classes, event_shape)
        return cls(
            program=program,
            training=_expect(found.get("training", Training()), Training),
            engine=_expect(found.get("engine", SVI()), Engine),  # type: ignore[type-abstract]  # it is not made
            backend=backend,
            data=_expect(found["data"], Source) if "data" in found else None,
        )


def check_same_program(table: Table, program: object) -> None:
    """Refuse a program whose fields differ from those of the run's, which would be evaluated or trained instead.

    Fields that only one of them has are not compared, as a class may have grown; nor are modules and other classes.

    Args:
        table: of the recipe.
        program: that was given for it; nothing is known of a plain pair.

    Raises:
        SpecError: with the field, and both values.
    """
    then = table.get("program")
    if isinstance(program, Spec) and isinstance(then, Mapping):
        now = program.to_dict()
        if _name(then.get("kind")) == _name(now["kind"]):
            _check_fields(then, now, "program")


def _name(kind: object) -> str:
    return str(kind).rpartition(":")[2]


def _plain(value: object) -> object:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _check_fields(then: object, now: object, path: str) -> None:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted(then.keys() & now.keys() - {"module"}):
            _check_fields(then[name], now[name], f"{path}.{name}")
        return
    alike = _name(then) == _name(now) if path.endswith(".kind") else _plain(then) == _plain(now)
    if not alike:
        raise SpecError(
            f"{path}: got {shown(now)}, but the run has {shown(then)}. Give the run's own program; or start a new run "
            "from its parameters: fit(…, params=load(…).params)."
        )


def read_recipe(path: str | Path) -> Table:
    """The tables of a recipe file.

    Raises:
        SpecError: it can't be read, or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path} can't be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, numbers of a thousand digits
        raise SpecError(f"{path} is not a recipe in TOML: {error}.") from None


def check_format(table: Table) -> None:
    """Refuse a recipe of another version, or with keys that no recipe has."""
    if (got := table.get("format", FORMAT)) != FORMAT:
        older = isinstance(got, int) and got < FORMAT
        remedy = "It is from an older version. Write the recipe again." if older else "Update ppdgm."
        raise SpecError(f"The recipe has format {got!r}, but this version of ppdgm reads format {FORMAT}. {remedy}")
    for key, value in table.items():
        if key not in _KEYS:
            raise SpecError(f"A recipe has no {key!r}. {nearest(key, _KEYS)}")
        if key not in ("format", "backend") and not isinstance(value, Mapping):
            raise SpecError(f"{key}: got {value!r}, expected a table [{key}].")
        _check_kinds(value, key)


def _check_kinds(value: object, path: str) -> None:
    """Refuse a kind that is not text, anywhere in a table."""
    if isinstance(value, Mapping) and path != "data.fields":  # there the names are the user's
        if not isinstance(value.get("kind", ""), str):
            raise SpecError(f"{path}.kind: got {value['kind']!r}, expected the name of a class.")
        for name, inner in value.items():
            _check_kinds(inner, f"{path}.{name if str(name).isprintable() else repr(name)}")
    elif isinstance(value, list):
        for inner in value:
            _check_kinds(inner, path)


def source_of(table: Table) -> Source:
    """The source that a [data] table describes."""
    source: Source = _expect(_spec("data", table, []), Source)
    return source


def _spec(name: str, table: Table, classes: list[type[Kind]]) -> Spec:
    table = {"kind": _IMPLIED[name], **table}
    if name == "data" and isinstance(table.get("fields"), Mapping):  # a table of names, rather than a spec
        table["fields"] = list(table["fields"].items())
    return Spec.from_dict(_with_kinds(table, classes), classes)


def _program(table: object, classes: list[type[Kind]], event_shape: tuple[int, ...] | None) -> Program:
    if not isinstance(table, Mapping) or not isinstance(table.get("kind"), str):
        raise SpecError('The recipe has no [program] table with a kind, such as kind = "VAE".')
    kind = table["kind"]
    if is_pair(kind):
        raise SpecError("The recipe is for a plain pair, which can't be written as text. Give the pair: program=pair.")
    if event_shape is not None and "event_shape" in find_kind(kind, classes).model_fields:
        table = {"event_shape": list(event_shape), **table}
    return _expect(Spec.from_dict(_with_kinds(table, classes), classes), Program)


def _with_kinds(table: Table, classes: list[type[Kind]]) -> Table:
    """A spec's table, in which inner tables without a kind get the kind of their field's default."""
    fields = find_kind(table["kind"], classes).model_fields
    found = dict(table)
    for name, value in table.items():
        if isinstance(value, Mapping) and name in fields:
            default = fields[name].default
            value = {"kind": default.kind(), **value} if isinstance(default, Spec) else value
            found[name] = _with_kinds(value, classes) if value.get("kind", "none") != "none" else value
        elif isinstance(value, list) and name in fields:  # of specs of one class, such as stages
            inner = [a for a in get_args(fields[name].annotation) if isinstance(a, type) and issubclass(a, Spec)]
            own = {"kind": inner[0].kind()} if inner else {}
            tables = [{**own, **v} if isinstance(v, Mapping) else v for v in value]
            known = lambda v: isinstance(v, Mapping) and isinstance(v.get("kind"), str)
            found[name] = [_with_kinds(v, classes) if known(v) else v for v in tables]
    return found


def _expect(value: object, cls: type[SpecT]) -> SpecT:
    if not isinstance(value, cls):
        raise SpecError(f"Got a {type(value).__name__}, expected {with_article(cls.__name__)}.")
    return value
