"""Judge the programs with one data plate that Pyro and NumPyro publish, each brought in unchanged.

    python -m benchmarks.published                 # all: a quarter of an hour on two idle cores
    python -m benchmarks.published vae baseball    # those with these words in library, path or name

Each is trained for three steps and evaluated. Its ELBO of all data must be within five standard errors of the library's
own Trace_ELBO at the same parameters. Programs are in our own words. Model and guide are as published, with small nets
and synthetic data of the published shapes. Verdicts are kept in benchmarks/results/published.json, and published.md is
written from them.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.published import numpyro_latents, numpyro_programs, pyro_mixtures, pyro_programs, pyro_regressions
from benchmarks.published.judge import Verdict, judge
from benchmarks.published.listing import PROGRAMS, Published

LISTS = (pyro_programs, pyro_mixtures, pyro_regressions, numpyro_latents, numpyro_programs)  # they fill PROGRAMS
RESULTS = Path(__file__).parents[1] / "results"
OUTCOMES = ("unchanged", "changed", "refused", "fault")


def main() -> None:
    import jax

    jax.config.update("jax_disable_most_optimizations", True)  # half the time, because nothing runs for long
    words, kept = sys.argv[1:], RESULTS / "published.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    known = {p.title: known[p.title] for p in PROGRAMS if p.title in known}
    for program in (p for p in PROGRAMS if not words or any(re.search(rf"\b{w}", p.title) for w in words)):
        start = time.perf_counter()
        verdict = judge(program)
        beside = "none" if verdict.library is None else f"{verdict.library[0]:.1f}"
        told = verdict.reason or f"{verdict.own[0]:.1f} nats, library {beside}"
        print(f"{verdict.outcome:10} {program.title}: {told} ({time.perf_counter() - start:.0f} s)", flush=True)
        now = json.loads(kept.read_text()) if kept.exists() else {}  # another process may judge others
        known = {**known, **now, program.title: asdict(verdict)}
        kept.write_text(json.dumps(known, indent=1) + "\n")
    found = [(p, Verdict(**known[p.title])) for p in PROGRAMS if p.title in known]
    if len(found) == len(PROGRAMS):
        (RESULTS / "published.md").write_text(_page(found))
    if any(v.outcome == "fault" for _, v in found):
        raise SystemExit("There are faults.")


def _page(found: list[tuple[Published, Verdict]]) -> str:
    number = {o: sum(v.outcome == o for _, v in found) for o in OUTCOMES}
    pyro, numpyro = (sum(p.backend == b for p, _ in found) for b in ("pyro", "numpyro"))
    lines = [
        "# Published programs",
        "",
        f"{len(found)} programs with one data plate from the examples and tutorials of Pyro ({pyro}) and NumPyro "
        f"({numpyro}). {number['unchanged']} come in unchanged, {number['changed']} with the change that is given, and "
        f"{number['refused']} are refused, with the reason. Each is trained for three steps. Its ELBO of all data, in "
        "nats, is then compared with that of the library's own Trace_ELBO (TraceEnum_ELBO where sites are enumerated) "
        "at the same parameters; the difference is in standard errors of both (NumPyro needs funsor to enumerate, and "
        "is left out there). Programs are in our own words, with small nets and synthetic data. "
        "`python -m benchmarks.published` writes this page.",
        "",
        "| program | verdict | what was changed, or why it is refused | guide that was added | ELBO | difference |",
        "|---|---|---|---|---:|---:|",
    ]
    return "\n".join([*lines, *(_row(p, v) for p, v in found)]) + "\n"


def _row(program: Published, verdict: Verdict) -> str:
    elbo = f"{verdict.own[0]:.1f}" if verdict.own else ""
    difference = ""
    if verdict.own and verdict.library:
        error = (verdict.own[1] ** 2 + verdict.library[1] ** 2) ** 0.5 + 1e-4 * abs(verdict.own[0])
        difference = f"{(verdict.own[0] - verdict.library[0]) / error:+.1f}"
    told = "; ".join(t for t in (program.change, verdict.reason) if t).replace("|", "\\|")
    name = f"{program.backend} [{program.path}]({program.address}), {program.name.replace('_', ' ')}"
    return f"| {name} | {verdict.outcome} | {told} | {program.guide} | {elbo} | {difference} |"


if __name__ == "__main__":
    main()
