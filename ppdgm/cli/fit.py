"""`ppdgm fit`: train a program."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ppdgm.cli.options import (
    OUTPUT,
    RUN,
    TRAINING,
    Debug,
    DeviceCount,
    Epochs,
    FieldColumns,
    Header,
    Index,
    Json,
    Own,
    Quiet,
    Settings,
    Steps,
    TensorBoard,
    TrainBackend,
    TrainData,
    WandB,
    finite_number,
    flag,
    parsed,
    text,
    whole_number,
)


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
    data: TrainData = None,
    engine: Annotated[str | None, text("How to train. Default: the recipe's, or SVI.", "NAME", RUN)] = None,
    backend: TrainBackend = None,
    settings: Settings = None,
    own: Own = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: Annotated[
        int | None, parsed("Number of rows per step. Default: 100.", "INTEGER", whole_number(1))
    ] = None,
    optimiser: Annotated[str | None, text("adam, adamw, adamax or sgd. Default: adam.", "NAME", TRAINING)] = None,
    learning_rate: Annotated[float | None, parsed("Default: 0.001.", "NUMBER", finite_number)] = None,
    early_stopping: Annotated[
        int | None,
        parsed("Stop after this number of validations without a better one.", "INTEGER", whole_number(1)),
    ] = None,
    binarise: Annotated[
        str | None, text("auto, none, threshold, static or dynamic (see: ppdgm models Source).", "HOW", TRAINING)
    ] = None,
    seed: Annotated[
        int | None, parsed("Seed of first values, order and draws. Default: 0.", "INTEGER", whole_number(0))
    ] = None,
    seeds: Annotated[
        str | None,
        text(
            "Several runs, one for each seed: 5 for 0..4, or 0,3,7. They are in numbered folders in --out.",
            "SEEDS",
            RUN,
        ),
    ] = None,
    device: Annotated[str | None, text("auto, cpu, cuda or cuda:1.", "NAME", TRAINING)] = None,
    devices: DeviceCount = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            metavar="",
            help="Use torch.compile, on the pyro backend. Default: if the run is long enough.",
            rich_help_panel=TRAINING,
            show_default=False,
        ),
    ] = None,
    fields: FieldColumns = None,
    header: Header = None,
    index: Index = None,
    out: Annotated[str | None, text("Folder of the run. Default: runs/PROGRAM-DATA-N.", "FOLDER", OUTPUT)] = None,
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
      ppdgm fit vae --seeds 5 --out runs/vae-seeds

    --set overrides flags, flags override the recipe, and the recipe overrides
    the defaults. --set takes each field that `ppdgm models` shows, by its path
    in the recipe. Write values as in TOML. The default is 100 epochs on the
    digits. The recipe in the run's folder repeats the run. Ctrl-C saves the
    progress; to continue, use `ppdgm resume`.

    --seeds trains one run after another, and shows the mean of their results
    and the standard deviation over seeds. If it was stopped or killed, give the
    same command again: finished runs are left, and others are resumed.
    """
    from ppdgm.cli.following import Flags
    from ppdgm.cli.overrides import parse_fields
    from ppdgm.cli.training import train

    flags: dict[str, Any] = {
        "data.name": data,
        "data.binarise": binarise,
        "data.fields": parse_fields(fields) if fields else None,
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
        "training.devices": devices,
        "training.compile": compile,
    }
    given = [(path, value) for path, value in flags.items() if value is not None]
    told = Flags(out, overwrite, tensorboard, wandb, quiet, as_json, context.obj)
    if seeds is not None:
        from ppdgm.cli.seeds import fit_seeds

        return fit_seeds(program, own, given, settings or [], seeds, told)
    return train(
        program,
        own,
        given,
        settings or [],
        told,
    )
