"""`ppdgm share`: a run as a folder to share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ppdgm.cli.options import Debug, Header, Index, Json, OtherData, Particles, Program, Run, Seed, Split, Units, flag
from ppdgm.cli.output import emit, say, tell


def share(
    context: typer.Context,
    run: Run,
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The folder to write. Default: RUN-shared.", show_default=False),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Such as apache-2.0, mit or other.", show_default=False)
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Name of the model. Default: the folder's.", show_default=False),
    ] = None,
    evaluate: Annotated[bool, flag("Evaluate it on held-out data, for the card.", "--evaluate/--no-evaluate")] = True,
    data: OtherData = None,
    split: Split = None,
    k: Particles = 1000,
    seed: Seed = 0,
    own: Program = None,
    units: Units = None,
    header: Header = None,
    index: Index = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a run as a folder to share: a model card, weights, recipe, history.

    Examples:
      ppdgm share runs/vae --licence apache-2.0
      ppdgm share runs/vae --out shared/vae --name "VAE of digits" --licence mit
      ppdgm share runs/vae --no-evaluate

    README.md is a model card: data, recipe, figures with their errors, how to
    load it. Fill in what it is for. The folder has no training data, no path
    and no name of this machine. `ppdgm evaluate FOLDER` gives the same numbers.
    """
    import ppdgm
    from ppdgm.cli.opening import load_part, open_run
    from ppdgm.errors import SpecError

    if not evaluate and (data is not None or split is not None):
        raise SpecError("Got --no-evaluate, and data to evaluate. Leave out --data and --split, or --no-evaluate.")
    opened = open_run(run, own, context.obj, header=header, index=index)
    code: dict[str, Any] = {"program": opened.program, "classes": opened.classes}
    folder = out or f"{run.rstrip('/')}-shared"
    part, words = None, ""
    if evaluate:
        fit = ppdgm.load(run, **code)
        part, given, which = load_part(opened, fit, data, split, context.obj, units)
        words = f"the {which} rows of {given.replace(chr(92), '/').rpartition('/')[2]}"
        if not as_json:
            tell(f"evaluating {words} with k = {k} …")
    made = ppdgm.share(run, folder, licence=licence, name=name, data=part, k=k, seed=seed, held_out=words, **code)
    files = sorted(str(f.relative_to(made)) for f in made.rglob("*") if f.is_file())
    if as_json:
        emit({"run": run, "out": str(made), "files": files, "licence": licence})
        return
    say(f"{made}: {', '.join(files)}")
    say("Fill in its intended use and limitations in README.md. To upload it with huggingface_hub:")
    say(f"  hf upload USER/NAME {made}")
