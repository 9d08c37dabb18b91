"""The application: its commands, and the one place where every error is handled."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ppdgm.cli import failures
from ppdgm.cli.compare import compare
from ppdgm.cli.data import data
from ppdgm.cli.diagnose import diagnose
from ppdgm.cli.encode import encode
from ppdgm.cli.evaluate import evaluate
from ppdgm.cli.export import export
from ppdgm.cli.fit import fit
from ppdgm.cli.impute import impute
from ppdgm.cli.models import models
from ppdgm.cli.new import new
from ppdgm.cli.output import close_pipe, results_only, say, tell, tolerate_any_encoding, warnings_as_lines
from ppdgm.cli.resume import resume
from ppdgm.cli.runs import runs
from ppdgm.cli.sample import sample
from ppdgm.cli.share import share
from ppdgm.cli.sweep import sweep

if TYPE_CHECKING:
    from types import FrameType

HELP = """Deep generative models as probabilistic programs, on Pyro and NumPyro.

A first session:
  ppdgm fit vae --data digits --out runs/vae     train a VAE
  ppdgm evaluate runs/vae                        its ELBO and likelihood
  ppdgm diagnose runs/vae                        check it; write a report
  ppdgm sample runs/vae --out samples.png        draw new data from it
  ppdgm encode runs/vae --out codes.csv          codes and scores of rows
  ppdgm impute runs/table --data gaps.csv        fill in missing entries
  ppdgm export runs/vae --out decoder.onnx       a file for other tools
  ppdgm runs                                     list the runs
  ppdgm compare runs/vae runs/vamp               judge runs on the same rows
  ppdgm share runs/vae --licence mit             a folder to share, with a card
  ppdgm new my_program.py                        start your own program

The help of each command has examples: ppdgm fit --help"""


class Group(TyperGroup):
    """The commands, with our own errors and exit codes."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run a command line, and exit with its code."""
        if "_PPDGM_COMPLETE" in os.environ:  # the shell asks for completions
            return super().main(args, "ppdgm")
        sys.exit(self._run(list(sys.argv[1:] if args is None else args)))

    def _run(self, args: list[str]) -> int:
        tolerate_any_encoding()
        options = args[: args.index("--")] if "--" in args else args
        debug, as_json = "--debug" in options, "--json" in options
        args = [a for a in options if a != "--debug"] + args[len(options) :]  # before the command, or after it
        try:
            if not all(_is_text(a) for a in args):  # it would only fail when it is written to a recipe
                raise typer.BadParameter("got an argument that is not text, expected UTF-8.")
            with (
                results_only(as_json or bool({"-q", "--quiet"} & {*options})),
                warnings_as_lines(),
                _ends_at_once({*options}),
                self.make_context("ppdgm", args, obj=args) as context,
            ):
                code = self.invoke(context)
            sys.stdout.flush()
        except typer.Exit as done:
            code = done.exit_code
        except BrokenPipeError:
            close_pipe()
            code = failures.PIPE
        except (Exception, KeyboardInterrupt) as error:
            code = failures.report(error, as_json, debug)
        return code or 0


@contextmanager
def _ends_at_once(options: set[str]) -> Iterator[None]:
    """Ctrl-C ends a read-only command at once: an exception could be lost in a library's callback.

    `fit`, `resume` and `sweep` keep the progress so far; for them, a request to end is like Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        tell("ppdgm: interrupted.")
        os._exit(failures.INTERRUPTED)

    trains = bool({"fit", "resume", "sweep"} & options)
    number, handler = (signal.SIGTERM, signal.default_int_handler) if trains else (signal.SIGINT, leave)
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _is_text(argument: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in argument)


app = typer.Typer(
    cls=Group,
    name="ppdgm",
    help=HELP,
    epilog=failures.EXIT_CODES,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
COMMANDS = (
    fit,
    sweep,
    resume,
    evaluate,
    diagnose,
    sample,
    encode,
    impute,
    export,
    runs,
    compare,
    share,
    models,
    data,
    new,
)
for command in COMMANDS:
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from ppdgm import __version__

        say(f"ppdgm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True, metavar="")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", metavar="")] = False,
) -> None:
    if context.invoked_subcommand is None:
        say(context.get_help())
        raise typer.Exit(failures.USAGE)
