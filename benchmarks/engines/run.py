"""Measure one pair of engine and program after another, into a table that is read back and continued."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import ppdgm
from benchmarks.covering.baselines import baseline
from benchmarks.covering.run import RESULTS, baselines
from benchmarks.engines.choices import (
    ENGINES,
    EXACT_STEPS,
    LINEAR_FACTOR,
    LONGER,
    PROGRAMS,
    STEPS,
    backends_of,
    data_of,
)
from ppdgm.errors import PpdgmError

NAMES = ("engine", "program", "backend")
MEASURED = ("outcome", "seconds", "log_likelihood", "margin", "error", "reason")
PATH = RESULTS / "engines.csv"
Row = tuple[str, str, str]
TRAINS, REFUSES = "trains", "refuses"


def rows() -> list[Row]:
    """All pairs, on each backend."""
    return [(e, p, b) for p in PROGRAMS for b in backends_of(p) for e in ENGINES]


def measure(row: Row) -> dict[str, Any]:
    """Whether it trains, and held-out log p(x) against independent pixels; or why it refuses, before any step."""
    name, program, backend = row
    make, kind = PROGRAMS[program]
    train, test = data_of(kind)
    engine, steps, started = ENGINES[name], LONGER.get(name, STEPS), []
    if program in ("ppca", "factor analysis"):
        steps *= LINEAR_FACTOR
    settings: dict[str, Any] = {"steps": steps, "learning_rate": 3e-3, "batch_size": 100}
    if not engine.phases():  # closed-form steps
        settings = {"steps": EXACT_STEPS}
    before = time.perf_counter()
    try:
        fit = ppdgm.fit(
            make(), train, engine=engine, backend=backend, device="cpu", progress=False, callbacks=[started.append],
            **settings,
        )  # fmt: skip
    except PpdgmError as error:
        if started:
            raise
        return {
            "outcome": REFUSES,
            "seconds": 0.0,
            "log_likelihood": 0.0,
            "margin": 0.0,
            "error": 0.0,
            "reason": str(error),
        }
    found = fit.log_likelihood(test, k=100).values
    margins = found - np.asarray(_baseline(kind, train["x"], test["x"]))
    return {
        "outcome": TRAINS,
        "seconds": time.perf_counter() - before,
        "log_likelihood": float(found.mean()),
        "margin": float(margins.mean()),
        "error": float(margins.std(ddof=1) / len(margins) ** 0.5),
        "reason": "",
    }


def _baseline(kind: str, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """log p of each held-out row under independent pixels."""
    return baseline("gaussian", train, test) if kind == "standardised" else baselines("bernoulli")


def tenth(all_rows: list[Row], seed: int) -> list[Row]:
    """A tenth of the rows, drawn with a seed."""
    chosen = np.random.default_rng(seed).choice(len(all_rows), -(-len(all_rows) // 10), replace=False)
    return [all_rows[i] for i in np.sort(chosen)]


def read(path: Path = PATH) -> dict[Row, dict[str, Any]]:
    """The rows that have been measured."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        found = {}
        for r in csv.DictReader(file):
            numbers = {m: float(r[m]) for m in ("seconds", "log_likelihood", "margin", "error")}
            found[(r["engine"], r["program"], r["backend"])] = {
                **numbers,
                "outcome": r["outcome"],
                "reason": r["reason"],
            }
    return found


def run(chosen: Iterable[Row], path: Path = PATH) -> dict[Row, dict[str, Any]]:
    """Measure the rows that the table does not have; write each as soon as it is measured."""
    done = read(path)
    for row in chosen:
        if row in done:
            continue
        found = done[row] = measure(row)
        fresh = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow([*NAMES, *MEASURED])
            shown = [f"{v:.4g}" if isinstance(v, float) else v for v in (found[m] for m in MEASURED)]
            writer.writerow([*row, *shown])
        print(" · ".join(row), *shown, flush=True)
    return done


def write_table(done: Mapping[Row, Mapping[str, Any]], path: Path) -> None:
    """Write the matrix in Markdown: margins above independent pixels, and what is refused."""
    lines = [
        "# Every engine on every program",
        "",
        f"8×8 digits, {STEPS} steps of 100 (Adam, 3e-3, seed 0; {', '.join(f'{n} {s}' for n, s in LONGER.items())}; em "
        f"{EXACT_STEPS} passes; PPCA and factor analysis {LINEAR_FACTOR} times as many): held-out log p(x) in nats "
        "(100 particles) above pixels by themselves, NumPyro / Pyro. “—”: refused before any work starts, with the "
        "reason below.",
        "",
        f"| | {' | '.join(ENGINES)} |",
        f"|---|{'---:|' * len(ENGINES)}",
    ]
    for program in PROGRAMS:
        cells = []
        for engine in ENGINES:
            seen = [done.get((engine, program, b)) for b in backends_of(program)]
            known = ["?" if s is None else "—" if s["outcome"] == REFUSES else f"{s['margin']:+.1f}" for s in seen]
            cells.append(known[0] if set(known) == {"—"} else " / ".join(known))
        lines.append(f"| {program} | {' | '.join(cells)} |")
    reasons: dict[str, list[str]] = {}
    for (engine, program, _), found in done.items():
        if found["outcome"] == REFUSES:
            reasons.setdefault(found["reason"], []).append(f"{engine} × {program}")
    lines += ["", "## Why", "", "| refused | because |", "|---|---|"]
    for reason, pairs in reasons.items():
        lines.append(f"| {'; '.join(dict.fromkeys(pairs))} | {reason.replace('|', '∣')} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
