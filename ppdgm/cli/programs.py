"""PROGRAM on the command line: a name, a recipe, a run, the user's own file, or module:Class."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ppdgm.cli.code import is_code, load_code, named, only, own_specs
from ppdgm.errors import SpecError, nearest
from ppdgm.models import Program  # with all that text may name
from ppdgm.program import AnyProgram, PlainPair
from ppdgm.registry import is_pair
from ppdgm.specs import Spec, Table, known_specs

RECIPE = "recipe.toml"


@dataclass
class Chosen:
    """The meaning of PROGRAM.

    Attributes:
        table: of a recipe, or {"program": {"kind": …}}.
        classes: the user's own classes that the table may name.
        program: the program itself, if text can't describe it.
        recipe: the file that the table came from.
    """

    table: Table = field(default_factory=dict)
    classes: list[type[Spec]] = field(default_factory=list)
    program: AnyProgram | None = None
    recipe: Path | None = None


def choose_program(text: str, own: str | None = None) -> Chosen:
    """The program that a command line asks to train.

    Args:
        text: PROGRAM.
        own: --program, the file with a recipe's classes.

    Raises:
        SpecError, ProgramError: there is no such program, or it can't be read.
    """
    from ppdgm.catalogue import public_specs
    from ppdgm.inference.runs.recipe import check_format, read_recipe

    names = {c.__name__.lower(): c.__name__ for c in public_specs() if issubclass(c, Program)}
    if text.lower() in names:  # write ./vae for a run's folder of that name
        table: Table = {"program": {"kind": names[text.lower()]}}
        return Chosen(table, own_code(own, table)[0])
    if recipe := _recipe(Path(text), text):
        table = read_recipe(recipe)
        check_format(table)
        classes, program = own_code(own, table)
        return Chosen(table, classes, program, recipe)
    if own:
        raise SpecError(f"--program is only for a name, a recipe or a run; {text!r} is your own code. Leave it out.")
    if is_code(text):
        return _from_code(text)
    raise SpecError(
        f"No program is called {text!r}. {nearest(text, names.values())} Or give a recipe.toml, a run's folder, or "
        "your own file (ppdgm new my_program.py writes one)."
    )


def own_code(own: str | None, table: Table) -> tuple[list[type[Spec]], AnyProgram | None]:
    """The classes in --program FILE[:NAME] for a recipe, and the program if text can't describe it."""
    if not own:
        return [], None
    if not is_code(own):
        raise SpecError(f"--program: got {own!r}, expected a file such as my_program.py, or my_program.py:NAME.")
    module, name = load_code(own)
    if name or not _text_tells(table):
        found = named(module, name) if name else only(module)
        if not isinstance(found, type):
            return own_specs(module), found
    return own_specs(module), None


def names_own_code(table: Table, classes: list[type[Spec]]) -> str | None:
    """The first class, or pair, in a recipe that the user must give, or None."""
    if not _text_tells(table):
        return next(k for k in _kinds(table["program"]) if _untold(k))
    have = {c.__qualname__ for c in classes}
    known = known_specs()  # also what a named file has imported
    return next((k for k in _kinds(table) if ":" in k and k.rpartition(":")[2] not in have and k not in known), None)


def own_code_missing(kind: str, command: list[str]) -> SpecError:
    """The error for a recipe that names a class or a pair of the user's, with a command line that works."""
    plain = _untold(kind)
    what = "your own pair or module, which a recipe can't contain" if plain else f"your own class {kind}"
    file = "FILE.py:NAME" if plain else f"{kind.rpartition(':')[0].replace('.', '/')}.py"
    file = file if plain or Path(file).exists() else f"path/to/{file}"
    again = shlex.join(["ppdgm", *_without_program(command)]) + f" --program {file}"
    return SpecError(f"The recipe uses {what}. Code is run only from files that you name: {again}")


def _without_program(command: list[str]) -> list[str]:
    """A command line without a wrong --program."""
    after = [i + 1 for i, word in enumerate(command) if word == "--program"]
    return [w for i, w in enumerate(command) if i not in after and w.partition("=")[0] != "--program"]


def _text_tells(table: Table) -> bool:
    return not any(map(_untold, _kinds(table.get("program", {}))))


def _untold(kind: str) -> bool:
    return kind == "ForeignNet" or is_pair(kind)


def _kinds(value: object) -> list[str]:
    if isinstance(value, Mapping):
        own = [value["kind"]] if isinstance(value.get("kind"), str) else []
        return own + [k for v in value.values() for k in _kinds(v)]
    return [k for v in value for k in _kinds(v)] if isinstance(value, list) else []


def _recipe(path: Path, text: str) -> Path | None:
    """The recipe that PROGRAM points to, if there is one."""
    if path.suffix == ".toml":
        return path
    looks_like_a_path = "/" in text or "\\" in text
    try:
        is_run, is_folder = (path / RECIPE).is_file(), path.is_dir()
    except OSError:  # the name is too long
        is_run = is_folder = False
    if is_run:
        return path / RECIPE
    if is_folder and looks_like_a_path:
        raise SpecError(f"{text} is not a run's folder: it has no {RECIPE}.")
    if looks_like_a_path and not is_code(text):
        raise SpecError(f"{text}: there is no such recipe, run or program file.")
    return None


def _from_code(text: str) -> Chosen:
    module, name = load_code(text)
    found = named(module, name) if name else only(module)
    classes = own_specs(module)
    if isinstance(found, type) and issubclass(found, Program):
        return Chosen({"program": {"kind": found.kind()}}, [*classes, found])
    if isinstance(found, PlainPair):
        return Chosen({"backend": found.backend, "program": {"kind": f"plain:{found.backend}"}}, classes, found)
    return Chosen({"program": found.to_dict()}, classes, found)
