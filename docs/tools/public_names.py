"""The API reference: which names are public, where each is documented, and what has no docstring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ppdgm

#: Modules of ppdgm that users do not import; the classes of `nets` and `specs` are names of `models` and `inference`.
INTERNAL = {"__main__", "backends", "catalogue", "cli", "files", "language", "nets", "plots", "registry", "specs"}

#: Classes that are made of several, and shown as one.
WHOLE = {"Fit", "Vocabulary"}


@dataclass(frozen=True)
class Name:
    """A public name: where users import it from, its group on the page, and the object."""

    home: str
    name: str
    group: str
    value: object

    @property
    def path(self) -> str:
        return f"{self.home}.{self.name}"


def modules() -> list[str]:
    """ppdgm itself, and the modules that users import from; a new one is public unless it is listed as internal."""
    return ["ppdgm", *(f"ppdgm.{m.name}" for m in pkgutil.iter_modules(ppdgm.__path__) if m.name not in INTERNAL)]


def names_of(home: str) -> list[str]:
    """What a module offers: its `__all__`, or what is defined in it."""
    module = importlib.import_module(home)
    own = (n for n, v in vars(module).items() if getattr(v, "__module__", None) == home and not n.startswith("_"))
    return sorted(getattr(module, "__all__", own))


@cache
def public_names() -> list[Name]:
    """Every public name once, at the first module that has it."""
    seen: set[int] = set()
    found = []
    groups = _groups()
    for home in modules():
        for name in names_of(home):
            value = getattr(importlib.import_module(home), name)
            if id(value) not in seen:
                seen.add(id(value))
                found.append(Name(home, name, groups.get(value, "") if inspect.isclass(value) else "", value))
    return found


def undocumented(names: list[Name]) -> list[str]:
    """Public names without a docstring of their own, and their methods that neither they nor a base class describe."""
    return [path for entry in names for path in _undocumented(entry)]


def _undocumented(entry: Name) -> list[str]:
    value = entry.value
    if not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)):
        return []  # a constant, which its module describes
    text = (value.__doc__ or "").strip()
    by_dataclass = text.startswith(f"{entry.name}(")  # what dataclasses write if there is nothing
    missing = [] if text and not by_dataclass else [entry.path]
    if inspect.isclass(value):
        methods = (n for n, v in vars(value).items() if inspect.isfunction(v) or isinstance(v, property))
        public = (n for n in methods if not n.startswith("_"))
        missing += [f"{entry.path}.{n}" for n in public if not inspect.getdoc(getattr(value, n))]
    return missing


def page(home: str, names: list[Name]) -> str:
    """The Markdown page of a module, which mkdocstrings fills."""
    here = [n for n in names if n.home == home]
    about = (importlib.import_module(home).__doc__ or "").strip()
    lines = [f"# {home}", "", about, ""]
    order = list(dict.fromkeys(_groups().values()))
    for group in ["", *order]:
        block = [n for n in here if n.group == group]
        if not block:
            continue
        if group:
            lines += [f"## {group}", ""]
        for entry in block:
            whole = "\n    options:\n      inherited_members: true" if entry.name in WHOLE else ""
            lines += [f"::: {entry.path}{whole}", ""]
    return "\n".join(lines)


def not_shown(site: Path) -> list[str]:
    """Public names that no page of a built reference shows."""
    text = "".join(p.read_text(encoding="utf-8") for p in (site / "api").glob("*.html"))
    return [f"{n.path} is not on a page of the API" for n in public_names() if f'id="{n.path}"' not in text]


@cache
def pages() -> dict[str, str]:
    """Each page of the reference, by its path below docs/."""
    names = public_names()
    return {f"api/{home.removeprefix('ppdgm.')}.md": page(home, names) for home in modules()}


def _groups() -> dict[type, str]:
    """The group of each part, net and engine, as `ppdgm models` shows it."""
    from ppdgm import catalogue

    place = lambda cls: next((title for title, base, _, _ in catalogue.GROUPS if issubclass(cls, base)), "")
    return {cls: place(cls) for cls in catalogue.public_specs()}
