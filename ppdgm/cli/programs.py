"""PROGRAM on the command line: a name, a recipe, a run, a file of one's own, or module:Class."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from ppdgm.errors import ProgramError, SpecError, nearest
from ppdgm.program import PlainPair, Program
from ppdgm.spec import Spec, known_specs

RECIPE = "recipe.toml"
_loaded: set[str] = set()  # modules that came from files
_added: list[str] = []  # to sys.path, for them


@dataclass
class Chosen:
    """What PROGRAM says.

    Attributes:
        table: of a recipe, or {"program": {"kind": …}}.
        classes: of the user's own, that the table may name.
        program: the program itself, where text can't tell it.
        recipe: the file that the table came from.
    """

    table: dict[str, Any] = field(default_factory=dict)
    classes: list[type[Spec]] = field(default_factory=list)
    program: Any = None
    recipe: Path | None = None


def choose(text: str, own: str | None = None) -> Chosen:
    """What a command line asks to be trained.

    Args:
        text: PROGRAM.
        own: --program, where a recipe's classes are.

    Raises:
        SpecError, ProgramError: there is none, or it can't be read.
    """
    from ppdgm.catalogue import public_specs
    from ppdgm.inference.recipe import check_format, read_table

    names = {c.__name__.lower(): c.__name__ for c in public_specs() if issubclass(c, Program)}
    if text.lower() in names and not own:  # a run's folder of that name is ./vae
        return Chosen({"program": {"kind": names[text.lower()]}})
    if recipe := _recipe(Path(text), text):
        table = read_table(recipe)
        check_format(table)
        classes, program = own_code(own, table)
        return Chosen(table, classes, program, recipe)
    if own:
        raise SpecError(f"--program goes with a recipe or a run; {text!r} is a program already.")
    if _is_code(text):
        return _from_code(text)
    raise SpecError(
        f"No program is called {text!r}. {nearest(text, names.values())} Or give a recipe.toml, a run's folder, or a "
        "file of your own (ppdgm new my_program.py writes one)."
    )


def own_code(own: str | None, table: Mapping[str, Any]) -> tuple[list[type[Spec]], Any]:
    """The classes, and the program where text can't tell it, of --program FILE[:NAME] for a recipe."""
    if not own:
        return [], None
    if not _is_code(own):
        raise SpecError(f"--program: got {own!r}, expected a file such as my_program.py, or my_program.py:NAME.")
    module, name = _module(own)
    if name or not _text_tells(table):
        found = _named(module, name) if name else _only(module)
        if not isinstance(found, type):
            return _specs(module), found
    return _specs(module), None


def names_own_code(table: Mapping[str, Any], classes: list[type[Spec]]) -> str | None:
    """The first class, or pair, that a recipe names and that has to be handed in, or None."""
    if not _text_tells(table):
        return next(k for k in _kinds(table["program"]) if _untold(k))
    have = {c.__qualname__ for c in classes}
    known = known_specs()  # what a file that was named has imported in turn
    return next((k for k in _kinds(table) if ":" in k and k.rpartition(":")[2] not in have and k not in known), None)


def own_code_missing(kind: str, command: list[str]) -> SpecError:
    """The error for a recipe that names a class or a pair of the user's, with the command line that works."""
    plain = _untold(kind)
    what = "a pair or a module of your own, which text can't tell" if plain else f"{kind}, a class of your own"
    file = "FILE.py:NAME" if plain else f"{kind.rpartition(':')[0].replace('.', '/')}.py"
    again = shlex.join(["ppdgm", *command]) + f" --program {file}"
    return SpecError(f"The recipe names {what}, and code is run only from files that you name: {again}")


def _text_tells(table: Mapping[str, Any]) -> bool:
    return not any(map(_untold, _kinds(table.get("program", {}))))


def _untold(kind: str) -> bool:
    return kind == "ForeignNet" or kind.startswith("plain:")


def _kinds(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        own = [value["kind"]] if isinstance(value.get("kind"), str) else []
        return own + [k for v in value.values() for k in _kinds(v)]
    return [k for v in value for k in _kinds(v)] if isinstance(value, list) else []


def _recipe(path: Path, text: str) -> Path | None:
    """The recipe that PROGRAM points to, if it does."""
    if path.suffix == ".toml":
        return path
    looks_like_a_path = "/" in text or "\\" in text
    try:
        is_run, is_folder = (path / RECIPE).is_file(), path.is_dir()
    except OSError:  # too long a name
        is_run = is_folder = False
    if is_run:
        return path / RECIPE
    if is_folder and looks_like_a_path:
        raise SpecError(f"{text} is no run folder: it has no {RECIPE}.")
    if looks_like_a_path and not _is_code(text):
        raise SpecError(f"{text}: there is no such recipe, run or program file.")
    return None


def _is_code(text: str) -> bool:
    return text.partition(":")[0].endswith(".py") or ":" in text


def _from_code(text: str) -> Chosen:
    module, name = _module(text)
    found = _named(module, name) if name else _only(module)
    classes = _specs(module)
    if isinstance(found, type) and issubclass(found, Program):
        return Chosen({"program": {"kind": found.kind()}}, [*classes, found])
    if isinstance(found, PlainPair):
        return Chosen({"backend": found.backend, "program": {"kind": f"plain:{found.backend}"}}, classes, found)
    return Chosen({"program": found.to_dict()}, classes, found)


def _module(text: str) -> tuple[ModuleType, str]:
    """The module of FILE.py, FILE.py:NAME or MODULE:NAME, and the name."""
    # The last colon, so that C:\my_program.py is a file.
    file, _, name = (text, "", "") if text.endswith(".py") else text.rpartition(":")
    if not file or (not name and not file.endswith(".py")):
        raise SpecError(f"Got {text!r}, expected FILE.py, FILE.py:NAME or MODULE:NAME.")
    return (_from_file(Path(file)) if file.endswith(".py") else _imported(file)), name


def _imported(name: str) -> ModuleType:
    _find_in(Path.cwd())
    return _running(name, lambda: importlib.import_module(name))


def _find_in(folder: Path) -> None:
    """Let Python find modules in a folder, after all others."""
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.append(place)
        _added.append(place)


def _from_file(path: Path) -> ModuleType:
    """The module that a file makes, under the file's name, as recipes refer to it."""
    if not path.is_file():
        raise SpecError(f"{path}: there is no such file. ppdgm new {path} writes a program to start from.")
    name = re.sub(r"\W", "_", path.stem)
    check_name(name, path)
    _find_in(path.parent)  # what it imports from beside it
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SpecError(f"{path} can't be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _loaded.add(name)
    load = spec.loader.exec_module
    try:
        _running(str(path), lambda: load(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def check_name(name: str, path: Path) -> None:
    """Refuse a file whose module would hide another one."""
    if name in _loaded:
        return
    known = PathFinder.find_spec(name, [p for p in sys.path if p not in _added])
    here = known is not None and known.origin is not None and Path(known.origin).resolve() == path.resolve()
    if not here and (known or name in sys.modules or name in sys.stdlib_module_names):
        raise SpecError(f"{path} would hide the Python module {name!r}. Give it another name, such as my_{name}.py.")


def _running(where: str, load: Any) -> Any:
    """Run a user's file; what it raises is told with its line."""
    try:
        return load()
    except (Exception, SystemExit) as error:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        text = next((line.strip() for line in text.splitlines() if line.strip()), "")
        at = _line(error)
        raise ProgramError(
            f"{where} can't be imported: {type(error).__name__}: {text}{f' ({at})' if at else ''}."
        ) from error


def _line(error: BaseException) -> str:
    """The last line of the user's own that ran."""
    if isinstance(error, SyntaxError):
        return f"{_near(error.filename)}, line {error.lineno}"
    libraries = (str(Path(__file__).parent.parent), str(Path(re.__file__).parent.parent), "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(libraries) and "site-packages" not in f.filename]
    return f"{_near(own[-1].filename)}, line {own[-1].lineno}" if own else ""


def _near(file: str | None) -> str:
    return (file or "").removeprefix(f"{Path.cwd()}{os.sep}")


def _named(module: ModuleType, name: str) -> Any:
    known = [n for n, v in vars(module).items() if _is_program(v) and v is not Program]
    found = getattr(module, name, None)
    if found is None:
        raise SpecError(f"{module.__name__} has no {name!r}. {nearest(name, known)}")
    if not _is_program(found):
        raise SpecError(f"{module.__name__}:{name} is no program. {nearest(name, known)}")
    return found


def _only(module: ModuleType) -> Any:
    """The one program of a file; what it imports from elsewhere doesn't count."""
    own = {
        n: v
        for n, v in vars(module).items()
        if _is_program(v) and (not isinstance(v, type) or v.__module__ == module.__name__)
    }
    if len(own) != 1:
        file = Path(module.__file__ or module.__name__).name
        raise SpecError(
            f"{file} has {'no program' if not own else 'several programs'}. "
            + (f"Say which: {', '.join(f'{file}:{n}' for n in own)}." if own else "Expected a Program or a plain pair.")
        )
    return next(iter(own.values()))


def _is_program(value: Any) -> bool:
    return isinstance(value, Program | PlainPair) or (isinstance(value, type) and issubclass(value, Program))


def _specs(module: ModuleType) -> list[type[Spec]]:
    """The user's classes that a module has, its own and those it imports."""
    values = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Spec)]
    return [v for v in values if not v.__module__.startswith("ppdgm.")]
