"""`ppdgm export`: a part of a run as a file that other tools run without ppdgm."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import typer

from ppdgm.cli.options import Backend, Debug, Device, Json, Last, Program, Run, flag, whole_number
from ppdgm.cli.output import emit, say


def export(
    context: typer.Context,
    run: Run,
    what: Annotated[str, typer.Option(metavar="PART", help="encoder, decoder or elbo.")] = "decoder",
    out: Annotated[str, typer.Option(metavar="FILE", help="The file to write: .onnx, .pt2 or .jax.")] = "model.onnx",
    k: Annotated[
        int, typer.Option("--k", parser=whole_number(1), metavar="INTEGER", help="Draws per row, for --what elbo.")
    ] = 1,
    units: Annotated[
        str, typer.Option(metavar="own|prepared", help="Units of x: own (raw data) or prepared (scaled).")
    ] = "own",
    overwrite: Annotated[bool, flag("Replace FILE.", "--overwrite")] = False,
    backend: Backend = None,
    device: Device = "auto",
    last: Last = False,
    own: Program = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a part of a run to a file for ONNX, torch or JAX.

    Examples:
      ppdgm export runs/vae --what decoder --out decoder.onnx
      ppdgm export runs/vae --what encoder --out encoder.pt2
      ppdgm export runs/vae --what elbo --k 10 --out elbo.jax

    The ending of the name is the format, and says on which backend the run
    is opened: .onnx and .pt2 (torch.export) on pyro, .jax (jax.export) on
    numpyro. FILE.json says what goes in and comes out. x is in the units of
    the raw data; with --units prepared, as it was trained on. Data that were
    binarised are 0 or 1 in both.
    """
    from pathlib import Path

    import ppdgm
    from ppdgm.cli.opening import open_run
    from ppdgm.errors import SpecError
    from ppdgm.inference.evaluation.serving import HOMES

    format = Path(out).suffix.lower().removeprefix(".")
    if format not in HOMES:
        raise SpecError(f"--out: got {out!r}, expected a name that ends with .onnx, .pt2 or .jax.")
    opened = open_run(run, own, context.obj)
    home = backend or HOMES[format]
    fit = ppdgm.load(run, home, program=opened.program, classes=opened.classes, device=device, last=last)
    own_or_prepared = cast("Literal['own', 'prepared']", units)  # checked there
    fit.export(out, cast("Literal['encoder']", what), units=own_or_prepared, k=k, overwrite=overwrite)
    if as_json:
        emit({"run": run, "what": what, "out": out, "format": format, "described": f"{out}.json"})
    else:
        say(f"The {what} of {run} is in {out}. Its inputs and outputs: {out}.json")
