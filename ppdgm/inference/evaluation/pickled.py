"""A fit in a pickle: the bytes of its run, as in its file, which only ppdgm's own reader opens."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppdgm.errors import CheckpointError, PpdgmError, ProgramError
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.engines.svi import SVI
from ppdgm.inference.runs.checkpoint import group, grouped, matching, pack, unpack
from ppdgm.inference.runs.codings import coding_arrays, coding_tables, read_codings
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.program import Program
from ppdgm.specs import Kind, Spec, known_specs

_WHERE = Path("the pickled fit")
_PLACE = ("device", "devices", "stopped")

Values = dict[str, Any]  # of the attributes of a fit, by name


def packed(values: Values) -> Values:
    """What a pickle holds of a fit: its run as bytes; own classes by name, and the objects that text can't have.

    Raises:
        ProgramError: an object or a class of the user's own can't be pickled.
        CheckpointError: `info` has other values than plain ones.
    """
    program, engine = values["program"], values["engine"]
    own = {n: v for n, v in (("program", program), ("engine", engine)) if v is not None and not _is_text(v)}
    recipe = Recipe(program, values["training"], engine or SVI(), values["backend"], values["data"]).table()
    for name in own:
        recipe = {**recipe, name: {"kind": "SVI" if name == "engine" else f"plain:{values['backend']}"}}
    classes = [*_classes(recipe)]
    for named in (*own.items(), *(("classes", c) for c in classes)):
        _check_pickles(*named)
    page = {
        "recipe": recipe,
        "engine": engine is not None,
        "info": values["info"],
        "place": {n: values[n] for n in _PLACE},
        **coding_tables(values["codings"]),
    }
    try:
        json.dumps(page)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"info: expected plain values that JSON can have ({error}).") from None
    arrays = grouped("history", values["history"]) | coding_arrays(values["codings"])
    return {"run": pack({**values["params"], **arrays}, page), "classes": classes, "own": own}


def unpacked(state: Mapping[str, Any]) -> Values:
    """The attributes of the fit that `packed` wrote.

    Raises:
        CheckpointError: the bytes are damaged, or not those of a fit.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("run"), bytes):
        raise CheckpointError(f"{_WHERE} holds no run: it is damaged, or of another version of ppdgm.")
    arrays, page = unpack(state["run"], _WHERE)
    own = state["own"]
    try:
        recipe = Recipe.from_table(page["recipe"], state["classes"], own.get("program"))
        engine: Engine | None = own.get("engine", recipe.engine) if page["engine"] else None
        values = {n: a for n, a in arrays.items() if not n.startswith("@")}
        if isinstance(recipe.program, Program):
            matching(recipe.program.initialise(), values, _WHERE)
        return {
            "program": recipe.program,
            "params": values,
            "backend": recipe.backend,
            "engine": engine,
            "history": group(arrays, "history"),
            "info": page["info"],
            "training": recipe.training,
            "data": recipe.data,
            "codings": read_codings(arrays, page),
            **{n: page["place"][n] for n in _PLACE},
        }
    except KeyError as error:
        raise CheckpointError(f"{_WHERE} is not a run of this version of ppdgm: it has no {error}.") from None


def _is_text(value: object) -> bool:
    """Whether a program or an engine can be read back from its description."""
    if not isinstance(value, Spec):
        return False
    try:
        table = value.to_dict()
        return bool(Spec.from_dict(table, [*_classes(table)]) == value)
    except (PpdgmError, TypeError, ValueError):
        return False


def _classes(table: object) -> Iterator[type[Kind]]:
    """The user's own classes that a table names; as in Python, they travel by name."""
    known = known_specs()
    kinds = dict.fromkeys(k for k in _kinds(table) if ":" in k)
    yield from (known[k] for k in kinds if k in known)


def _kinds(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (v for n, v in value.items() if n == "kind" and isinstance(v, str))
        for inner in value.values():
            yield from _kinds(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _kinds(inner)


def _check_pickles(name: str, value: object) -> None:
    """Refuse what Python can't pickle, with what to do.

    Raises:
        ProgramError: with Python's reason.
    """
    try:
        pickle.dumps(value)
    except Exception as error:  # whatever an object's own __reduce__ raises
        what = value.__qualname__ if isinstance(value, type) else f"the {name} {value!r}"
        raise ProgramError(
            f"A fit can't be pickled, because Python can't pickle {what} ({error}). Define classes and functions at "
            "the top level of a module. Or save the fit, and open it in the other process: fit.save(out), "
            "ppdgm.load(out, program=…)."
        ) from None
    if isinstance(value, type) and value.__module__ not in sys.modules:
        raise ProgramError(f"A fit can't be pickled: {value.__module__}, the module of {value.__qualname__}, is gone.")
