"""`ppdgm data`: the data sets, and the contents of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ppdgm.cli.options import Debug, FieldColumns, Header, Index, Json
from ppdgm.cli.output import emit, listing, paragraph, say

if TYPE_CHECKING:
    from ppdgm.specs import Table


def data(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME|PATH", help="A data set, or a file or folder of data.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="How to prepare it, such as scale=unit.", show_default=False),
    ] = None,
    fields: FieldColumns = None,
    header: Header = None,
    index: Index = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the data sets, or show what is in one and how it is prepared.

    Examples:
      ppdgm data
      ppdgm data digits
      ppdgm data table.csv --set scale=standardise
      ppdgm data arrays.npz --json

    Files can be .npy, .npz, idx, .csv, .tsv, .parquet or .h5ad. Folders contain
    images, .npy files, or a saved data set of Hugging Face.
    `ppdgm models Source` shows the fields for --set. In `ppdgm fit`, their
    paths begin with data, for example --set data.scale=standardise.
    """
    from dataclasses import asdict

    from ppdgm.cli.overrides import parse_fields
    from ppdgm.data import catalogue
    from ppdgm.errors import SpecError

    told: dict[str, object] = {n: v for n, v in {"header": header, "index": index}.items() if v is not None}
    told |= {"fields": parse_fields(fields)} if fields else {}
    if name is None:
        if settings or told:
            raise SpecError("--set, --fields, --header and --index need one data set. Name it: ppdgm data PATH …")
        sets = catalogue().values()
        if as_json:
            emit([asdict(entry) for entry in sets])
            return
        say(listing([(entry.name, f"{entry.meaning} ({entry.origin})") for entry in sets]))
        say("\nYou can also use a .npy, .npz, idx, .csv, .tsv, .parquet or .h5ad file, or a folder: ppdgm data PATH")
        return
    describe_set(name, settings or [], told, as_json)


def describe_set(name: str, settings: list[str], told: dict[str, object], as_json: bool) -> None:
    """The contents of one set, as `fit` would load it."""
    from ppdgm.cli.overrides import apply, parse
    from ppdgm.data import load_data
    from ppdgm.inference.runs.recipe import source_of

    given = [(f"data.{path.removeprefix('data.')}", value) for path, value in map(parse, settings)]
    table = apply({"data": {"name": name, **told}}, given, [])
    found: Table = load_data(source_of(table["data"])).describe()
    if as_json:
        emit(found)
        return
    for key, value in found.items():
        text = paragraph(_in_words(value), indent=14).lstrip()
        say(f"{key:<14}{text}")


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        nested = any(isinstance(v, dict) for v in value.values())
        return ("; " if nested else ", ").join(f"{k}: {_in_words(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        shape = all(isinstance(v, int) for v in value)
        return ("×" if shape else " to ").join(map(_in_words, value)) or "one number"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unknown"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
