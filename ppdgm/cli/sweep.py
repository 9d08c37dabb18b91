"""`ppdgm sweep`: train a program with different values of its fields."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ppdgm.cli.options import (
    OUTPUT,
    RUN,
    Debug,
    Epochs,
    Json,
    Own,
    Settings,
    Steps,
    TrainBackend,
    TrainData,
    flag,
    parsed,
    text,
    whole_number,
)


def sweep(
    context: typer.Context,
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM",
            help="As for ppdgm fit: a name, a recipe.toml, a run's folder, FILE.py or FILE.py:NAME.",
            show_default=False,
        ),
    ],
    over: Annotated[
        list[str] | None,
        text("Values of a field: 8,16,32 or 0..4. Repeat it for more fields.", "PATH=VALUES", RUN),
    ] = None,
    data: TrainData = None,
    backend: TrainBackend = None,
    settings: Settings = None,
    own: Own = None,
    epochs: Epochs = None,
    steps: Steps = None,
    trials: Annotated[
        int | None,
        parsed(
            "Let Optuna choose the values of this number of runs, instead of all combinations.",
            "INTEGER",
            whole_number(1),
            RUN,
        ),
    ] = None,
    jobs: Annotated[
        int | None, parsed("Number of runs at the same time. Default: 1.", "INTEGER", whole_number(1), RUN)
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="FOLDER", help="Folder of the sweep.", rich_help_panel=OUTPUT)
    ] = "runs/sweep",
    quiet: Annotated[bool, flag("Show no progress. Print only the folder of the best run.", "--quiet", "-q")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Train a program with different values of its fields, each in its own run.

    Examples:
      ppdgm sweep vae --over program.latent=8,16,32 --over seed=0..4
      ppdgm sweep recipe.toml --over engine=SVI,IWAE --over learning_rate=1e-3,1e-4
      ppdgm sweep vae --over program.prior=StandardNormal,VampPrior --jobs 2
      ppdgm sweep vae --over program.latent=8..64 --over learning_rate=1e-4..1e-2 --trials 30

    --over takes a field's path as --set does; training.… and ….kind may be left
    out. All values are checked before the first run. Each run is a ppdgm fit in
    its own process and folder; the folder's name says the values. A sweep that
    was stopped or killed goes on if you give the same command again: finished
    runs are left, and others are resumed. A run that fails does not stop the
    others. The table at the end is sorted by what validation watches.

    With --trials, Optuna's TPE sampler chooses values from lists and ranges;
    numbers that are not whole are on a logarithmic scale if the range spans a
    factor of 10. This needs: pip install 'ppdgm[sweep]'
    """
    from pathlib import Path

    from ppdgm.cli.sweep_checks import Asked
    from ppdgm.cli.sweeping import run_sweep

    flags: dict[str, tuple[str, Any]] = {
        "data.name": ("--data", data),
        "backend": ("--backend", backend),
        "training.epochs": ("--epochs", epochs),
        "training.steps": ("--steps", steps),
    }
    given = {path: found for path, found in flags.items() if found[1] is not None}
    return run_sweep(
        Asked(
            program, own, given, settings or [], over or [], trials, jobs or 1, Path(out), quiet, as_json, context.obj
        )
    )
