"""Programs that Pyro and NumPyro publish, with one data plate, each brought in as it is.

    python -m benchmarks.published                 # all: some minutes on two idle cores
    python -m benchmarks.published vae baseball    # those with these words in path or name

Each is trained for three steps and evaluated; its ELBO of all data must be that of the library's own Trace_ELBO at the
same parameters, within five standard errors. Programs are in our own words, with model and guide as they are published,
small nets, and synthetic data of the published shapes. Writes benchmarks/results/published.md, where all are run.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.published import numpyro_programs, pyro_programs, pyro_regressions  # noqa: F401  they list programs
from benchmarks.published.judge import Verdict, judge
from benchmarks.published.listing import PROGRAMS, Published

RESULTS = Path(__file__).parents[1] / "results" / "published.md"
OUTCOMES = ("unchanged", "changed", "refused", "fault")


def main() -> None:
    import jax

    jax.config.update("jax_disable_most_optimizations", True)  # half the time: nothing runs for long
    words = sys.argv[1:]
    chosen = [p for p in PROGRAMS if not words or any(w in p.title for w in words)]
    found = []
    for program in chosen:
        start = time.perf_counter()
        verdict = judge(program)
        found.append((program, verdict))
        told = verdict.reason or f"{verdict.own[0]:.1f} nats, library {verdict.library[0]:.1f}"
        print(f"{verdict.outcome:10} {program.title}: {told} ({time.perf_counter() - start:.0f} s)", flush=True)
    if not words:
        RESULTS.write_text(_page(found))
    if any(v.outcome == "fault" for _, v in found):
        raise SystemExit("There are faults.")


def _page(found: list[tuple[Published, Verdict]]) -> str:
    number = {o: sum(v.outcome == o for _, v in found) for o in OUTCOMES}
    libraries = {b: sum(p.backend == b for p, _ in found) for b in ("pyro", "numpyro")}
    lines = [
        "# Published programs",
        "",
        f"{len(found)} programs with one data plate from the examples and tutorials of Pyro ({libraries['pyro']}) and "
        f"NumPyro ({libraries['numpyro']}): {number['unchanged']} come in unchanged, {number['changed']} with the change "
        f"that is told, {number['refused']} are refused with the reason that is told. Each is trained for three steps; "
        "its ELBO of all data is then compared with the library's own Trace_ELBO (TraceEnum_ELBO where sites are "
        "enumerated) at the same parameters: the difference is told in standard errors of the two. Programs are in our "
        "own words, with small nets and synthetic data. `python -m benchmarks.published` writes this page.",
        "",
        "| program | verdict | what was changed, or why it is refused | guide that was added | ELBO, nats | difference |",
        "|---|---|---|---|---:|---:|",
    ]
    return "\n".join([*lines, *(_row(p, v) for p, v in found)]) + "\n"


def _row(program: Published, verdict: Verdict) -> str:
    elbo = difference = ""
    if verdict.own and verdict.library:
        error = (verdict.own[1] ** 2 + verdict.library[1] ** 2) ** 0.5 + 1e-4 * abs(verdict.own[0])
        elbo, difference = f"{verdict.own[0]:.1f}", f"{(verdict.own[0] - verdict.library[0]) / error:+.1f}"
    told = "; ".join(t for t in (program.change, verdict.reason) if t).replace("|", "\\|")
    name = f"{program.backend} [{program.path}]({program.address}), {program.name.replace('_', ' ')}"
    return f"| {name} | {verdict.outcome} | {told} | {program.guide} | {elbo} | {difference} |"


if __name__ == "__main__":
    main()
