"""Measure one row after another, into a table that is read back and continued."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

import ppdgm
from benchmarks.covering.baselines import baseline
from benchmarks.covering.choices import BATCH, ENGINES, FACTORS, RATE, STEPS, Row, data_for, make_program
from benchmarks.covering.design import cover, pairs_of, refused
from ppdgm.errors import PpdgmError
from ppdgm.inference.engines.engine import hyperparameters_of
from ppdgm.registry import backend as load_backend

RESULTS = Path(__file__).parents[1] / "results"
MEASURED = ("steps", "seconds", "elbo", "baseline", "margin", "error")
NAMES = {name: list(choices) for name, choices in FACTORS.items()}


@cache
def baselines(likelihood: str) -> np.ndarray:
    """log p of each held-out row under independent pixels."""
    return baseline(likelihood, *data_for(likelihood))


def measure(row: Row) -> dict[str, float]:
    """The held-out ELBO after training, against the baseline: means in nats, and the paired standard error."""
    train, test = data_for(row[2])
    started = time.perf_counter()
    fit = ppdgm.fit(
        make_program(row),
        train,
        engine=ENGINES[row[4]],
        backend=row[5],
        steps=STEPS,
        batch_size=BATCH,
        learning_rate=RATE,
        seed=0,
        device="cpu",
        progress=False,
    )
    elbo = fit.elbo(test, k=10).values
    seconds = time.perf_counter() - started
    margins = elbo - baselines(row[2])
    return {
        "steps": fit.info["steps"] - fit.info["skipped"],
        "seconds": seconds,
        "elbo": elbo.mean(),
        "baseline": baselines(row[2]).mean(),
        "margin": margins.mean(),
        "error": margins.std(ddof=1) / len(margins) ** 0.5,
    }


@cache
def _refusal(prior: str, posterior: str, engine: str) -> str | None:
    """Why these three can't be combined: the program is built, and read once as the engine would read it."""
    try:
        program = make_program((prior, posterior, "bernoulli", "mlp", engine, "pyro"))
        runtime, data = load_backend("pyro").Runtime(program, "cpu"), {"x": np.zeros((4, 8, 8), np.float32)}
        params = runtime.put(runtime.initialise(0, data, "float32"))
        spec = ENGINES[engine]
        runtime.rehearse(spec, params, runtime.put(data), 4, hyperparameters_of(spec, np.zeros(1)), 4)
    except PpdgmError as error:
        return f"{type(error).__name__}: {error}"
    return None


def refusal(row: Row) -> str | None:
    """Why a row is not possible, or None. Likelihoods and nets can be combined with everything."""
    return _refusal(row[0], row[1], row[4])


def covering_set() -> list[Row]:
    """Rows in which each allowed pair of choices occurs."""
    return cover(NAMES, refusal)


def tenth(rows: list[Row], seed: int) -> list[Row]:
    """A tenth of the rows, drawn with a seed."""
    chosen = np.random.default_rng(seed).choice(len(rows), -(-len(rows) // 10), replace=False)
    return [rows[i] for i in np.sort(chosen)]


def read(path: Path) -> dict[Row, dict[str, float]]:
    """The rows that have been measured."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(r[n] for n in NAMES): {m: float(r[m]) for m in MEASURED} for r in csv.DictReader(file)}


def run(rows: Iterable[Row], path: Path) -> dict[Row, dict[str, float]]:
    """Measure the rows that the table does not have; write each as soon as it is measured."""
    done = read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        if row in done:
            continue
        done[row] = measure(row)
        fresh = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow([*NAMES, *MEASURED])
            writer.writerow([*row, *(f"{done[row][m]:.4g}" if m != "steps" else int(done[row][m]) for m in MEASURED)])
        print(" · ".join(row), "  ".join(f"{m} {done[row][m]:.4g}" for m in MEASURED), flush=True)
    return done


def write_table(rows: list[Row], done: Mapping[Row, Mapping[str, float]], path: Path) -> None:
    """Write the table in Markdown: every measured row of the set, and what is refused by design."""
    known = [row for row in rows if row in done]
    pairs = {p for row in rows for p in pairs_of(row)}
    held = {p for row in known for p in pairs_of(row)}
    won = sum(done[row]["margin"] > 0 for row in known)
    names = list(NAMES)
    lines = [
        "# The covering set",
        "",
        f"{len(known)} of {len(rows)} rows, with {len(held)} of the {len(pairs)} pairs of choices that are allowed. "
        f"Each is a VAE on 8×8 digits, trained for {STEPS} steps of {BATCH} (Adam, {RATE:g}, seed 0). ELBO of 300 "
        "held-out images in nats (10 particles), against pixels by themselves under the same likelihood, fitted to the "
        f"training images; paired standard error. Above the baseline: {won} of {len(known)}.",
        "",
        f"| {' | '.join([*names, 'seconds', 'ELBO', 'baseline', 'margin'])} |",
        f"|{'---|' * len(names)}{'---:|' * 4}",
    ]
    for row in known:
        m = done[row]
        measured = [f"{m['seconds']:.1f}", f"{m['elbo']:.1f}", f"{m['baseline']:.1f}"]
        lines.append(f"| {' | '.join([*row, *measured])} | {m['margin']:+.1f} ± {m['error']:.1f} |")
    lines += ["", "## Refused by design", "", "| | | why |", "|---|---|---|"]
    for (_, a, _, b), reason in refused(NAMES, refusal, rows).items():
        lines.append(f"| {a} | {b} | {reason.replace('|', '∣')} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
