"""`ppdgm models`: every program, part, net and engine, with its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from ppdgm.cli.options import Debug, Json
from ppdgm.cli.output import emit, listing, paragraph, say

if TYPE_CHECKING:
    from ppdgm.catalogue import Description
    from ppdgm.specs import Spec


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A name from the list, or FILE.py:NAME.", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List all programs, parts, nets, engines and schedules, or show one.

    Examples:
      ppdgm models
      ppdgm models VAE
      ppdgm models Training
      ppdgm models my_program.py:MyProgram
      ppdgm models --json

    With a name, the fields are shown. Use them in a recipe or with --set:
      ppdgm fit vae --set program.latent=16
    """
    from dataclasses import asdict

    from ppdgm import catalogue

    if name is None:
        entries = [catalogue.describe_class(cls) for cls in catalogue.public_specs()]
        if as_json:
            emit([asdict(entry) for entry in entries])
            return
        for group in dict.fromkeys(entry.group for entry in entries):
            say(f"{group}")
            say(listing([(e.name, e.meaning) for e in entries if e.group == group]))
            say()
        say("To see fields, defaults and papers: ppdgm models NAME")
        return
    entry = catalogue.describe_class(_own(name)) if ".py" in name or ":" in name else catalogue.find_class(name)
    if as_json:
        emit(asdict(entry))
    else:
        _show(entry)


def _show(entry: Description) -> None:
    say(paragraph(f"{entry.name}: {entry.meaning}"))
    for text in entry.details.split("\n\n") if entry.details else ():
        say(f"\n{paragraph(text)}")
    if entry.papers:
        say(f"\nPapers: {'; '.join(entry.papers)}")
    if not entry.fields:
        say(f'\nNo fields. In a recipe: {entry.place}.kind = "{entry.name}"')
        return
    say(f"\nFields. In a recipe or with --set, write {entry.place}.{entry.fields[0].name} and so on:")
    for field in entry.fields:
        default = "required" if field.required else f"default {_default(field.default)}"
        say(f"\n  {field.name}: {field.type}; {default}")
        if field.meaning:
            say(paragraph(field.meaning, indent=6))


def _default(value: object) -> str:
    if isinstance(value, dict):
        kind, *rest = value.items()
        inner = ", ".join(f"{n} = {_default(v)}" for n, v in rest)
        return f"{kind[1]} ({inner})" if inner else str(kind[1])
    if isinstance(value, list):
        return f"[{', '.join(map(_default, value))}]"
    return "none" if value is None else repr(value) if isinstance(value, str) else str(value).lower()


def _own(name: str) -> type[Spec]:
    from ppdgm.cli.programs import choose_program
    from ppdgm.errors import SpecError
    from ppdgm.specs import find_kind

    chosen = choose_program(name)
    if chosen.program is not None and not hasattr(chosen.program, "model_fields"):
        raise SpecError(f"{name} is a plain pair, which has no fields.")
    kind = chosen.table["program"]["kind"]
    found = find_kind(kind, chosen.classes) if chosen.program is None else type(chosen.program)
    return cast("type[Spec]", found)  # no pair, by now
