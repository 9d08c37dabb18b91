"""`ppdgm diagnose`: a report on what works in a run, what does not, and what to try next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from ppdgm.cli.options import (
    OUTPUT,
    Backend,
    Debug,
    Device,
    EvaluationDevices,
    Header,
    Index,
    Json,
    Last,
    OtherData,
    Program,
    Run,
    Seed,
    Units,
    flag,
    whole_number,
)
from ppdgm.cli.output import emit, say, width

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from ppdgm.cli.opening import Opened
    from ppdgm.diagnostics.diagnosis import Diagnosis
    from ppdgm.inference import Fit


def diagnose(
    context: typer.Context,
    run: Run,
    data: OtherData = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="train, validation, test or all. Default: test; for a file given with --data, all.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[
        int,
        typer.Option("--k", parser=whole_number(1), metavar="INTEGER", help="Number of draws from the guide per row."),
    ] = 1000,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            metavar="NAME",
            help="likelihood, latents, surgery, calibration, predictive, gaps, annealing or pictures. Repeat it "
            "for more parts. Default: all.",
            show_default=False,
        ),
    ] = None,
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
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.html",
            help="The report. Default: report.html in the run's folder.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[bool, flag("Also write the figures as PNG files, next to the report.", "--pictures")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, flag("Show no progress. Print only the report's path.", "--quiet", "-q")] = False,
    debug: Debug = False,
) -> None:
    """Diagnose a run: a verdict in words, and a report in one HTML file.

    Examples:
      ppdgm diagnose runs/vae
      ppdgm diagnose runs/vae --split validation --out report.html --pictures
      ppdgm diagnose runs/vae --part likelihood --part latents --json
      ppdgm diagnose runs/vae --k 5000 --backend pyro

    Are the latents used? Is the guide right? Does the model draw such data?
    Each part takes seconds to minutes. If a part is not available for the
    program, the report shows the reason. An existing report is replaced.
    """
    import ppdgm
    from ppdgm.cli.opening import load_part, open_run
    from ppdgm.inference.evaluation.diagnose import check_parts

    target = _report_path(run, out)
    chosen = check_parts(parts or None)
    opened = open_run(run, own, context.obj, header=header, index=index)
    how = {"program": opened.program, "classes": opened.classes, "device": device, "devices": devices, "last": last}
    fit = ppdgm.load(run, backend, **how)
    part, name, which = load_part(opened, fit, data, split, context.obj, units)
    labels = _labels(opened, fit, data, which, split is None, context.obj, units) if "pictures" in chosen else None
    show = not (as_json or quiet or fit.process)
    found = fit.diagnose(part, parts=chosen, labels=labels, seed=seed, memory=memory, progress=show, k=k)
    if fit.process:  # of several processes, the first reports
        return
    report = found.report(target, pictures)
    if as_json:
        emit({"run": run, "data": name, "split": which, "seed": seed, "report": str(report), **found.table()})
    elif quiet:
        say(str(report))
    else:
        _say(found, f"{run} on {found.size} rows of {name} ({which}, {fit.backend} backend)", report, pictures)


def _report_path(run: str, out: str | None) -> Path:
    """The path of the report, checked before the work begins.

    Raises:
        CheckpointError: nothing can be written there, or there is a file that is not a report.
    """
    from pathlib import Path

    from ppdgm.diagnostics.page import check_path
    from ppdgm.errors import CheckpointError

    home = Path(run)
    if not home.exists():
        raise CheckpointError(f"{run}: there is no such run. Expected a folder of a run. To list runs: ppdgm runs DIR")
    target = check_path(out if out is not None else (home if home.is_dir() else home.parent) / "report.html")
    if target.exists() and b'name="generator" content="ppdgm"' not in target.read_bytes()[:2000]:
        raise CheckpointError(f"--out: {target} exists, and is not a ppdgm report. Choose another file.")
    return target


def _labels(
    opened: Opened,
    fit: Fit,
    name: str | None,
    split: str,
    whole: bool,
    command: list[str],
    units: str | None,
) -> np.ndarray | None:
    """The labels of the data that `load_part` returned, if there are any; programs need not use them.

    Args:
        opened, fit, name, command, units: the same as for `load_part`.
        split: the one that it returned.
        whole: whether no split was asked for, so that a file was not split.
    """
    import numpy as np

    from ppdgm.data import load_data

    source = opened.source(name, command)
    if whole and split == "all":
        source = source.replace(validation=0, test=0)
    data = (
        load_data(source, like=fit, units=cast("Literal['own', 'prepared'] | None", units))
        if name is not None
        else load_data(source)
    )
    wanted = [s for s in ("train", "validation", "test") if getattr(data, s) is not None and split in (s, "all")]
    if any(s not in data.labels for s in wanted):
        return None
    labels, names = np.concatenate([np.asarray(data.labels[s]) for s in wanted]), data.classes.get("label", ())
    if labels.ndim != 1:
        return None
    known = labels.dtype.kind in "iu" and labels.min() >= -1 and labels.max() < len(names)
    return np.array([*names, "unlabelled"])[labels] if known else labels


def _say(found: Diagnosis, head: str, report: Path, pictures: bool) -> None:
    import textwrap

    say(head)
    lines = [str(finding) for finding in found.verdict]
    lines += [f"- {name} is not available: {why}" for name, why in found.withheld.items()]
    for line in lines:
        say(textwrap.fill(line, width(), initial_indent="  ", subsequent_indent="    "))
    beside = f", and figures in {report.with_name(f'{report.stem}_figures')}" if pictures else ""
    say(f"The report is in {report}{beside}.")
