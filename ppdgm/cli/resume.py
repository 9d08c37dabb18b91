"""`ppdgm resume`: continue a run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ppdgm.cli.options import (
    Debug,
    DeviceCount,
    Epochs,
    Header,
    Index,
    Json,
    Program,
    Quiet,
    Run,
    Steps,
    TensorBoard,
    WandB,
    parsed,
    rate,
)


def resume(
    context: typer.Context,
    run: Run,
    epochs: Epochs = None,
    steps: Steps = None,
    learning_rate: Annotated[
        Any, parsed("From here on: a number, or a schedule that counts from here.", "NUMBER|SCHEDULE", rate)
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A checkpoint of the run. Default: the last one.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="The data, if the run got them in Python.", show_default=False),
    ] = None,
    devices: DeviceCount = None,
    own: Program = None,
    header: Header = None,
    index: Index = None,
    tensorboard: TensorBoard = False,
    wandb: WandB = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Continue a run that was stopped or killed, or train it for longer.

    Examples:
      ppdgm resume runs/vae
      ppdgm resume runs/vae --epochs 400
      ppdgm resume runs/vae --epochs 400 --learning-rate 1e-4
      ppdgm resume runs/vae --learning-rate "Cosine(peak=1e-3, steps=500)"
      ppdgm resume runs/vae --checkpoint runs/vae/checkpoints/FILE

    On a CPU, the result has the same bits as a run that was never stopped.
    --epochs and --steps set the length of the whole run, including the part
    that is already done. A new learning rate is written to the recipe, and
    early stopping counts again from here. Nothing else can change.
    """
    from pathlib import Path

    import ppdgm
    from ppdgm.cli.following import Flags, follow, loggers
    from ppdgm.cli.opening import open_run
    from ppdgm.data import load_data
    from ppdgm.errors import CheckpointError, SpecError
    from ppdgm.inference.runs.layout import CHECKPOINTS

    if epochs is not None and steps is not None:
        raise SpecError("Got --epochs and --steps: give one of them, for the length of the whole run.")
    if checkpoint is None and Path(run).is_file():  # a checkpoint of the run
        home = Path(run).parent
        run, checkpoint = str(home.parent if home.name == CHECKPOINTS else home), run
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise CheckpointError(f"--checkpoint: {checkpoint}: there is no such file. They are in {run}/checkpoints.")
    flags = Flags(run, False, tensorboard, wandb, quiet, as_json, context.obj)
    opened = open_run(run, own, flags.command, header=header, index=index)
    given = load_data(opened.source(data, flags.command))
    out = Path(run)

    def go_on() -> ppdgm.Fit:
        return ppdgm.resume(
            run,
            given,
            program=opened.program,
            classes=opened.classes,
            epochs=epochs,
            steps=steps,
            learning_rate=learning_rate,
            devices=devices,
            checkpoint=checkpoint,
            callbacks=loggers(flags, out),
            progress=flags.progress,
        )

    return follow(go_on, given, out, flags)
