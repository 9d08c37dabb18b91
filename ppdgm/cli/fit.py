"""`ppdgm fit`: train a program."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ppdgm.cli.options import (
    DATA,
    OUTPUT,
    RUN,
    TRAINING,
    Debug,
    Epochs,
    Header,
    Index,
    Json,
    Quiet,
    Steps,
    TensorBoard,
    WandB,
    flag,
    known_backend,
    number,
    whole,
)


def _text(help: str, metavar: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, show_default=False)


def _parsed(help: str, metavar: str, parser: Any, panel: str = TRAINING) -> Any:
    return typer.Option(help=help, metavar=metavar, parser=parser, rich_help_panel=panel, show_default=False)


def fit(
    context: typer.Context,
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM",
            help="A name (see: ppdgm models), a recipe.toml, a run's folder, FILE.py, FILE.py:NAME or MODULE:NAME.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        _text(f"A name (see: ppdgm data) or a path; the recipe's, or {DATA}.", "NAME|PATH", RUN),
    ] = None,
    engine: Annotated[str | None, _text("How to train; the recipe's, or SVI.", "NAME", RUN)] = None,
    backend: Annotated[
        str | None, _parsed("numpyro or pyro; the recipe's, or numpyro.", "NAME", known_backend, RUN)
    ] = None,
    settings: Annotated[
        list[str] | None,
        _text("Set any field of the recipe; may be repeated.", "PATH=VALUE", RUN, "--set"),
    ] = None,
    own: Annotated[
        str | None,
        _text("File with the classes, or the pair, that the recipe names.", "FILE[:NAME]", RUN, "--program"),
    ] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: Annotated[int | None, _parsed("Data per step; 100 by default.", "INTEGER", whole(1))] = None,
    optimiser: Annotated[str | None, _text("adam, adamw, adamax or sgd; adam by default.", "NAME", TRAINING)] = None,
    learning_rate: Annotated[float | None, _parsed("0.001 by default.", "NUMBER", number)] = None,
    early_stopping: Annotated[
        int | None, _parsed("Stop after so many validations without a better ELBO.", "INTEGER", whole(1))
    ] = None,
    binarise: Annotated[
        str | None, _text("auto, none, threshold, static or dynamic (see: ppdgm models Source).", "HOW", TRAINING)
    ] = None,
    seed: Annotated[int | None, _parsed("Of first values, order and draws; 0 by default.", "INTEGER", whole(0))] = None,
    device: Annotated[str | None, _text("auto, cpu, cuda or cuda:1.", "NAME", TRAINING)] = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            metavar="",
            help="torch.compile, on the pyro backend; where the run is long enough, by default.",
            rich_help_panel=TRAINING,
            show_default=False,
        ),
    ] = None,
    header: Header = None,
    index: Index = None,
    out: Annotated[str | None, _text("Folder of the run; runs/PROGRAM-DATA-N by default.", "FOLDER", OUTPUT)] = None,
    overwrite: Annotated[bool, flag("Replace a run in --out.", "--overwrite")] = False,
    tensorboard: TensorBoard = False,
    wandb: WandB = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Train a program, and write a run: recipe, checkpoints, history, log, pictures.

    Examples:
      ppdgm fit vae
      ppdgm fit vae --data digits --epochs 200 --seed 1 --out runs/vae
      ppdgm fit vae --set program.latent=16 --set program.encoder.hidden=[400]
      ppdgm fit vae --set program.likelihood=Gaussian --data table.csv
      ppdgm fit vae --set engine.beta=Linear --set engine.beta.steps=1000
      ppdgm fit runs/vae/recipe.toml --set engine.k=5 --out runs/vae-5
      ppdgm fit my_program.py:MyProgram --backend pyro

    Defaults come first, then the recipe, then flags, then --set, which takes
    every field that `ppdgm models` shows, by its path in the recipe; values
    are written as in TOML. Without --epochs or --steps a run has 100 epochs,
    and without --data it is trained on the digits. The recipe in the run's
    folder repeats it. Ctrl-C keeps what was reached: `ppdgm resume` goes on.
    """
    from ppdgm.cli.following import Flags
    from ppdgm.cli.training import train

    flags: dict[str, Any] = {
        "data.name": data,
        "data.binarise": binarise,
        "data.header": header,
        "data.index": index,
        "engine.kind": engine,
        "backend": backend,
        "training.epochs": epochs,
        "training.steps": steps,
        "training.batch_size": batch_size,
        "training.optimiser": optimiser,
        "training.learning_rate": learning_rate,
        "training.early_stopping": early_stopping,
        "training.seed": seed,
        "training.device": device,
        "training.compile": compile,
    }
    given = [(path, value) for path, value in flags.items() if value is not None]
    return train(
        program,
        own,
        given,
        settings or [],
        Flags(out, overwrite, tensorboard, wandb, quiet, as_json, context.obj),
    )
