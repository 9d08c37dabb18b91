"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ppdgm.errors import nearest
from ppdgm.registry import INSTALL


def whole_number(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or isinstance(text, float):
            raise typer.BadParameter(f"got {text!r}, expected a whole number, at least {least}.")
        return value

    return parse


def finite_number(text: str) -> float:
    """A parser of finite numbers."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise typer.BadParameter(f"got {text!r}, expected a number.")
    return value


def rate(text: str) -> object:
    """A parser of a number, or of a schedule as Python writes it: Cosine(peak=1e-3, steps=500)."""
    import tomllib

    from ppdgm.errors import SpecError
    from ppdgm.inference import Schedule

    kind, bracket, fields = text.strip().partition("(")
    if not bracket:
        return finite_number(text)
    try:
        table = tomllib.loads(f"value = {{kind = '{kind}', {fields.removesuffix(')')}}}")
        return Schedule.from_dict(table["value"])
    except (ValueError, SpecError) as error:
        why = str(error) if isinstance(error, SpecError) else "It can't be read."
        raise typer.BadParameter(
            f"got {text!r}, expected a number, or a schedule such as 'Cosine(peak=1e-3, steps=500)'. {why}"
        ) from None


def number_or_all(text: str) -> int | str:
    """A parser of a number of devices, or all."""
    return "all" if text == "all" else whole_number(1)(text)


def known_backend(text: str) -> str:
    """A parser of backends' names."""
    if text not in INSTALL:
        raise typer.BadParameter(f"got {text!r}. {nearest(text, INSTALL)}")
    return str(text)


DATA, EPOCHS = "digits", 100  # if neither the command line nor a recipe gives them
RUN, TRAINING, OUTPUT, TABLE = "The run", "Training", "Output", "A table as data"


def flag(help: str, *names: str) -> Any:
    """An option without a value."""
    return typer.Option(*names, help=help, metavar="", rich_help_panel=OUTPUT)


def text(help: str, metavar: str, panel: str, *names: str) -> Any:
    """An option of a run that is text."""
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, show_default=False)


def parsed(help: str, metavar: str, parser: Callable[[str], object], panel: str = TRAINING) -> Any:
    """An option of a run that a parser reads."""
    return typer.Option(help=help, metavar=metavar, parser=parser, rich_help_panel=panel, show_default=False)


Run = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
Debug = Annotated[bool, flag("Show the traceback of an error.", "--debug")]
Json = Annotated[bool, flag("Print the result as JSON, for scripts.", "--json")]
Quiet = Annotated[bool, flag("Show no progress. Print only the run's folder.", "--quiet", "-q")]
Last = Annotated[
    bool,
    typer.Option("--last", metavar="", help="Use the last parameters, not those with the best validation ELBO."),
]
Seed = Annotated[int, typer.Option(parser=whole_number(0), metavar="INTEGER", help="Seed of the random draws.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        parser=whole_number(1),
        metavar="INTEGER",
        help="Number of passes over the training data.",
        rich_help_panel=TRAINING,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        parser=whole_number(1), metavar="INTEGER", help="Number of steps, instead of epochs.", rich_help_panel=TRAINING
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        parser=known_backend,
        metavar="NAME",
        help="numpyro or pyro. Default: the one it was trained on.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:1.")]
DeviceCount = Annotated[Any, parsed("Number of devices that share each minibatch.", "INTEGER|all", number_or_all)]
EvaluationDevices = Annotated[
    Any,
    typer.Option(
        parser=number_or_all,
        metavar="INTEGER|all",
        help="Number of devices that share the rows. Default: one.",
        show_default=False,
    ),
]
TrainData = Annotated[
    str | None, text(f"A name (see: ppdgm data) or a path. Default: the recipe's, or {DATA}.", "NAME|PATH", RUN)
]
TrainBackend = Annotated[
    str | None, parsed("numpyro or pyro. Default: the recipe's, or numpyro.", "NAME", known_backend, RUN)
]
Settings = Annotated[
    list[str] | None, text("Set any field of the recipe. Repeat it for more fields.", "PATH=VALUE", RUN, "--set")
]
Own = Annotated[
    str | None,
    text("File with your own classes, or your pair, that the recipe uses.", "FILE[:NAME]", RUN, "--program"),
]
Program = Annotated[
    str | None,
    typer.Option(
        "--program",
        metavar="FILE[:NAME]",
        help="File with your own classes, or your pair, that the run uses.",
        show_default=False,
    ),
]
TensorBoard = Annotated[bool, flag("Write a TensorBoard log to the run's folder.", "--tensorboard")]
WandB = Annotated[
    str | None,
    typer.Option(metavar="PROJECT", help="Log to this Weights & Biases project.", rich_help_panel=OUTPUT),
]
OtherData = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="NAME|PATH", help="Use other data. They are prepared like the run's own.", show_default=False
    ),
]

Split = Annotated[
    str | None,
    typer.Option(
        metavar="PART",
        help="train, validation, test or all. Default: test; for a file given with --data, all.",
        show_default=False,
    ),
]
Particles = Annotated[
    int,
    typer.Option("--k", parser=whole_number(1), metavar="INTEGER", help="Number of particles per row, for log p(x)."),
]
Units = Annotated[
    str | None,
    typer.Option(
        metavar="own|prepared",
        help="Units of other data: own (raw data) or prepared (already scaled). Default: own.",
        show_default=False,
    ),
]


def _of_table(help: str, *names: str) -> Any:
    return typer.Option(*names, metavar="", help=help, rich_help_panel=TABLE, show_default=False)


FieldColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--fields",
        metavar="FIELD=COLUMNS",
        help="Columns of a field: a,b or 'gene_*' or a:d or '!id'. Repeat it for more fields.",
        rich_help_panel=TABLE,
        show_default=False,
    ),
]
Header = Annotated[
    bool | None,
    _of_table("Whether the first line has names. Default: detected if it is clear.", "--header/--no-header"),
]
Index = Annotated[
    bool | None, _of_table("Whether the first column has row names, and is left out.", "--index/--no-index")
]
