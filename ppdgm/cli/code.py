"""Programs in the user's own files: FILE.py, FILE.py:NAME and MODULE:NAME."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TypeGuard, TypeVar

from ppdgm.errors import ProgramError, SpecError, nearest
from ppdgm.program import AnyProgram, PlainPair, Program
from ppdgm.specs import Spec

_loaded: set[str] = set()  # modules that came from files
_added: list[str] = []  # to sys.path, for these modules
Loaded = TypeVar("Loaded")


def is_code(text: str) -> bool:
    """Whether text names a file or a module, and not a program, a recipe or a run."""
    return text.partition(":")[0].endswith(".py") or ":" in text


def load_code(text: str) -> tuple[ModuleType, str]:
    """The module of FILE.py, FILE.py:NAME or MODULE:NAME, and the name."""
    # Split at the last colon, so that C:\my_program.py is a file.
    file, _, name = (text, "", "") if text.endswith(".py") else text.rpartition(":")
    if not file or (not name and not file.endswith(".py")):
        raise SpecError(f"Got {text!r}, expected FILE.py, FILE.py:NAME or MODULE:NAME.")
    return (_from_file(Path(file)) if file.endswith(".py") else _imported(file)), name


def file_of(text: str) -> Path | None:
    """The file of code that was loaded, if it has one."""
    name = text if text.endswith(".py") else text.rpartition(":")[0]
    file = name if name.endswith(".py") else getattr(sys.modules.get(name), "__file__", None)
    return None if file is None else Path(file)


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
    """The module of a file, under the file's name, as recipes refer to it."""
    if not path.is_file():
        raise SpecError(f"{path}: there is no such file. To write an example program: ppdgm new {path}")
    name = re.sub(r"\W", "_", path.stem)
    check_name(name, path)
    _find_in(path.parent)  # the file may import from its own folder
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
    installed = PathFinder.find_spec(name, [p for p in sys.path if p not in ("", str(Path.cwd()), *_added)])
    here = installed is not None and installed.origin is not None and Path(installed.origin).resolve() == path.resolve()
    if not here and (installed or name in sys.modules or name in sys.stdlib_module_names):
        raise SpecError(f"{path} would hide the Python module {name!r}. Give it another name, such as my_{name}.py.")


def _running(where: str, load: Callable[[], Loaded]) -> Loaded:
    """Run a user's file; an error is reported with its line."""
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
    """The last line of the user's own code that ran."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_near(error.filename)}, line {error.lineno}"
    libraries = (str(Path(__file__).parent.parent), str(Path(re.__file__).parent.parent), "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(libraries) and "site-packages" not in f.filename]
    return f"{_near(own[-1].filename)}, line {own[-1].lineno}" if own else ""


def _near(file: str | None) -> str:
    return (file or "").removeprefix(f"{Path.cwd()}{os.sep}")


def named(module: ModuleType, name: str) -> AnyProgram | type[Program]:
    """The program of this name: a class, an object or a plain pair."""
    known = [n for n, v in vars(module).items() if _is_program(v) and v is not Program]
    found = getattr(module, name, None)
    if found is None:
        raise SpecError(f"{module.__name__} has no {name!r}. {nearest(name, known)}")
    if not _is_program(found):
        raise SpecError(f"{module.__name__}:{name} is not a program. {nearest(name, known)}")
    return found


def only(module: ModuleType) -> AnyProgram | type[Program]:
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
            + (f"Give one: {', '.join(f'{file}:{n}' for n in own)}." if own else "Expected a Program or a plain pair.")
        )
    return next(iter(own.values()))


def _is_program(value: object) -> TypeGuard[AnyProgram | type[Program]]:
    return isinstance(value, Program | PlainPair) or (isinstance(value, type) and issubclass(value, Program))


def own_specs(module: ModuleType) -> list[type[Spec]]:
    """The user's classes that a module has, its own and those it imports."""
    values = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Spec)]
    return [v for v in values if not v.__module__.startswith("ppdgm.")]
