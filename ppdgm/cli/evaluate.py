"""`ppdgm evaluate`: bound and likelihood of data under a trained program."""

from __future__ import annotations

from typing import Annotated

import typer

from ppdgm.cli.options import (
    Backend,
    Debug,
    Device,
    EvaluationDevices,
    Header,
    Index,
    Json,
    Last,
    OtherData,
    Particles,
    Program,
    Run,
    Seed,
    Split,
    Units,
)
from ppdgm.cli.output import emit, say, tell

ELBO_PARTICLES = 10  # for the ELBO: its mean over the data needs few


def evaluate(
    context: typer.Context,
    run: Run,
    data: OtherData = None,
    split: Split = None,
    k: Particles = 5000,
    seed: Seed = 0,
    backend: Backend = None,
    device: Device = "auto",
    devices: EvaluationDevices = None,
    memory: Annotated[
        str, typer.Option(metavar="BYTES", help="Memory limit for intermediate results, such as 512MiB.")
    ] = "auto",
    last: Last = False,
    own: Program = None,
    units: Units = None,
    header: Header = None,
    index: Index = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Evaluate a run: its ELBO, and its log p(x) by importance sampling.

    Examples:
      ppdgm evaluate runs/vae
      ppdgm evaluate runs/vae --k 5000 --backend pyro --json
      ppdgm evaluate runs/vae --split validation
      ppdgm evaluate runs/vae --data other.npz

    Both are means over the rows of the data, in nats per row. The number
    after ± is the standard error over the rows. The Monte Carlo error comes
    from the random draws. The ELBO has β = 1, even if training used another β.
    Other data are scaled and binarised like the run's own data.
    """
    import ppdgm
    from ppdgm.cli.following import as_plain
    from ppdgm.cli.opening import load_part, open_run
    from ppdgm.errors import ProgramError

    opened = open_run(run, own, context.obj, header=header, index=index)
    how = {"program": opened.program, "classes": opened.classes, "device": device, "devices": devices, "last": last}
    fit = ppdgm.load(run, backend, **how)
    part, name, split = load_part(opened, fit, data, split, context.obj, units)
    result: dict[str, object] = {"run": run, "data": name, "split": split}
    found = fit.elbo(part, k=min(k, ELBO_PARTICLES), seed=seed, memory=memory)
    result |= {
        "n": len(found.values),
        "k": k,
        "seed": seed,
        "backend": fit.backend,
        "of": found.of,
        "elbo": as_plain(found),
    }
    show = not as_json and not fit.process  # of several processes, the first reports
    if show:
        which = f"all {result['n']}" if split == "all" else f"{result['n']} {split}"
        say(f"{run} on {which} rows of {name} ({fit.backend} backend)")
        if fit.data is not None and fit.data.weights is not None:
            say("  Each row counts once here: the weights of rows are those of training.")
        say(f"  ELBO           {found}")
        tell(f"  log-likelihood with k = {k} …")
    try:
        likelihood = fit.log_likelihood(part, k=k, seed=seed, memory=memory)
    except ProgramError as error:  # one latent shared by all data: a row has no log p(x)
        result |= {"log_likelihood": None, "note": str(error)}
        if show:
            say(f"  log-likelihood  not available: {error}")
    else:
        result["log_likelihood"] = as_plain(likelihood)
        if show:
            say(f"  log-likelihood {likelihood}")
    if as_json and not fit.process:
        emit(result)
