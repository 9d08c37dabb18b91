"""A sweep: its values, checked before the first run; its folder, in which it goes on; its report."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppdgm.cli import failures
from ppdgm.cli.children import Child, SweptRun, carry_out
from ppdgm.cli.output import emit, say, tell, text_table
from ppdgm.cli.over import Over, Values, combinations, name_of_values
from ppdgm.cli.programs import Chosen, choose_program
from ppdgm.cli.runs import read_run
from ppdgm.cli.spread import SEED, spread_of
from ppdgm.cli.sweep_checks import Asked, check_searchable, overs_of, recipes_of, why_apart
from ppdgm.cli.trials import Trials, optuna
from ppdgm.diagnostics.plus_minus import plus_minus
from ppdgm.errors import CheckpointError
from ppdgm.files import write_atomically
from ppdgm.inference.runs.layout import holds_results, lock
from ppdgm.inference.runs.progress import clock
from ppdgm.specs import Table

if TYPE_CHECKING:
    from ppdgm.inference.engines.criteria import Criterion

MANIFEST, LOCK = "sweep.json", ".sweep.lock"


def run_sweep(asked: Asked) -> int:
    """`ppdgm sweep`, after its command line is read; returns the exit code."""
    if asked.trials is not None:
        optuna()
    chosen = choose_program(asked.program, asked.own)
    overs = overs_of(asked)
    recipes, checksums = recipes_of(asked, chosen, overs)
    criteria = [recipe.engine.criterion() for recipe, _ in recipes]
    held = [there for _, there in recipes]
    apart = why_apart([recipe for recipe, _ in recipes], held)
    if asked.trials is not None:
        check_searchable(criteria, held, apart)
    sweep = Sweep(asked, overs, next((c for c in criteria if c is not None), None), apart, checksums)
    with sweep.folder(chosen):
        return sweep.run()


@dataclass
class Sweep:
    """The runs of a sweep.

    Args:
        asked: the command line.
        overs: fields and values.
        criterion: what validation watches.
        apart: why the runs' numbers can't be compared; "" if they can.
        checksums: of the data and of the user's code.
    """

    asked: Asked
    overs: Sequence[Over]
    criterion: Criterion | None
    apart: str = ""
    checksums: dict[str, str] = field(default_factory=dict)
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    found: dict[str, SweptRun] = field(default_factory=dict)
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    before: float = 0.0  # of the work, that was done when this command began
    line: int = 0

    @contextmanager
    def folder(self, chosen: Chosen) -> Iterator[None]:
        """The sweep's folder, locked, with the file that says what the sweep is.

        Raises:
            CheckpointError: it has another sweep, or a run; or another process is at it.
        """
        out, asked = self.asked.out, self.asked
        if holds_results(out):
            raise CheckpointError(f"--out: {out} has a run. Choose another folder for the sweep.")
        out.mkdir(parents=True, exist_ok=True)
        with (out / LOCK).open("a") as file:
            if not lock(file):
                raise CheckpointError(
                    f"--out: another process carries out the sweep in {out}. Wait until it has ended."
                )
            about = {
                "program": {n: v for n, v in chosen.table.items() if n != "versions"},
                "settings": [*(f"{p}={v}" for p, (_, v) in asked.given.items()), *asked.settings],
                "over": [o.path for o in self.overs] if asked.trials is None else asked.over,
                "search": asked.trials is not None,
            }
            known = _read_manifest(out)
            if known is not None and (differs := next((n for n, v in about.items() if known.get(n) != v), None)):
                raise CheckpointError(
                    f"--out: {out} has another sweep: its {differs} is {known.get(differs)}, not {about[differs]}. "
                    "Choose another folder."
                )
            before = {} if known is None else dict(known.get("checksums", {}))
            if changed := next((n for n, v in self.checksums.items() if before.get(n, v) != v), None):
                raise CheckpointError(
                    f"--out: {changed} has changed since the sweep in {out} began, so its runs could not be compared "
                    "with new ones. Choose another folder."
                )
            self.names = {} if known is None else known["runs"]
            self.about = {**about, "checksums": {**before, **self.checksums}}
            yield

    def run(self) -> int:
        """Carry it out, and report it."""
        asked = self.asked
        if asked.trials is None:
            wanted = [self.make(values) for values in combinations(self.overs)]
            self._write()
            source: Any = _Listed(wanted, self.ended)
            self.total = len(wanted)
        else:
            smaller = self.criterion is not None and self.criterion.smaller
            several, score = asked.jobs > 1, lambda run: self.number(run, "validation")
            source = Trials(asked.out, self.overs, asked.trials, smaller, several, self._tried, score, self.ended)
            self.total = len(source.left) + max(source.to_ask, 0)
        self.before = sum(run.share() for run in wanted) if asked.trials is None else 0.0
        self._tell(f"Sweep of {self.total} runs in {asked.out}.")
        try:
            carry_out(source, asked.jobs, self.watch, Child)
        except KeyboardInterrupt:
            self._wipe()
            tell(f"ppdgm: interrupted. Runs so far are in {asked.out}. To go on, give the same command again.")
            return failures.INTERRUPTED
        self._wipe()
        if asked.trials is not None:
            self._add_earlier()
        return self.report()

    def _add_earlier(self) -> None:
        """Runs of a search that an earlier command has carried out."""
        for name, values in list(self.names.items()):
            if name not in self.found:
                self.found[name] = run = self.make(values)
                if run.arguments() is not None:
                    run.code, run.message = failures.TRAINING, "it failed before."

    def make(self, values: Values) -> SweptRun:
        """The run with these values: the one that has them already, or a new one."""
        name = next((n for n, known in self.names.items() if known == dict(values)), None)
        if name is None:
            name = name_of_values(values, self.names)
            self.names[name] = dict(values)
        asked, folder = self.asked, self.asked.out / name
        sets = [word for s in (*asked.settings, *(f"{p}={v}" for p, v in values.items())) for word in ("--set", s)]
        flags = [word for flag, value in asked.given.values() for word in (flag, str(value))]
        own = ["--program", asked.own] if asked.own else []
        again = own or (["--program", asked.program] if _is_own(asked.program) else [])
        shown = ["--out", str(folder), "--quiet", "--json"]
        if (before := self.found.get(name)) and before.code:
            return before  # it would fail again
        return SweptRun(
            name,
            folder,
            values,
            ["fit", asked.program, *own, *flags, *sets, *shown],
            ["resume", str(folder), *again, "--quiet", "--json"],
        )

    def _tried(self, values: Values) -> SweptRun:
        """The run of a trial, whose name is written down before it begins."""
        run = self.make(values)
        self._write()
        return run

    def _write(self) -> None:
        write_atomically(self.asked.out / MANIFEST, json.dumps({**self.about, "runs": self.names}, indent=1).encode())

    # --- what is shown ----------------------------------------------------------------------------------------------

    def ended(self, run: SweptRun) -> None:
        """Report a run that has ended."""
        self.found[run.name] = run
        self.done += 1
        self._wipe()
        result = run.message if run.code else self._watched(run)
        self._tell(f"{self.done}/{self.total}  {run.name}  {result}{self._left(0.0)}")

    def watch(self, going: list[SweptRun]) -> None:
        """On a terminal, one line that changes: how far the runs are."""
        now = time.monotonic()
        if self.asked.quiet or self.asked.as_json or not sys.stderr.isatty() or now - self._shown < 1.0 or not going:
            return
        self._shown = now
        shares = [run.share() for run in going]
        text = "  ".join(f"{run.name} {share:.0%}" for run, share in zip(going, shares, strict=True))
        text = f"{self.done}/{self.total} done  {text}{self._left(sum(shares))}"
        print(f"\r\x1b[K{text[:150]}", end="", file=sys.stderr, flush=True)
        self.line = 1

    _shown = 0.0

    def _left(self, part: float) -> str:
        """The time left, from the work that this command has done."""
        done = self.done + part
        work = done - self.before
        if done >= self.total or work <= 0.01:
            return ""
        seconds = (time.monotonic() - self.began) / work * (self.total - done)
        return f"  about {clock(seconds)} left"

    def _wipe(self) -> None:
        if self.line:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self.line = 0

    def _tell(self, text: str) -> None:
        if not self.asked.quiet:
            tell(text)

    def _watched(self, run: SweptRun) -> str:
        value = self.number(run, "validation")
        if value is not None:
            name = read_run(run.folder, self.asked.out).get("criterion")
            return f"validation {'ELBO' if name == 'elbo' else name} {value:.4g}"
        value = self.number(run, "elbo")
        return "done" if value is None else f"ELBO {value:.4g}"

    def number(self, run: SweptRun, name: str) -> float | None:
        """A number of a run's status, if it is finite."""
        value = read_run(run.folder, self.asked.out).get(name)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def report(self) -> int:
        """The table of all runs, the best first if their numbers can be compared; returns the exit code."""
        runs = self.found.values()
        key = "validation" if any(self.number(run, "validation") is not None for run in runs) else "elbo"
        sign = 1.0 if key == "validation" and self.criterion is not None and self.criterion.smaller else -1.0

        def rank(run: SweptRun) -> tuple[bool, float]:
            value = self.number(run, key)
            return bool(run.code) or value is None, math.inf if value is None else sign * value

        ranked = sorted(runs, key=(lambda run: bool(run.code)) if self.apart else rank)
        best = None if self.apart else next((run for run in ranked if not rank(run)[0]), None)
        codes = {run.code or 0 for run in runs} - {0}
        code = 0 if not codes else codes.pop() if len(codes) == 1 else failures.TRAINING
        found = [self._page(run) for run in ranked]
        if self.asked.as_json:
            emit({
                "out": str(self.asked.out),
                "over": [o.path for o in self.overs],
                "sorted_by": self._sorted_by(key),
                "best": None if best is None else str(best.folder),
                "runs": found,
                **({"spread": spread_of(found)} if self._of_seeds else {}),
            })  # fmt: skip
        elif self.asked.quiet:
            say("" if best is None else str(best.folder))
        else:
            self._say_table(ranked, found, best)
        if self.apart:
            tell(f"ppdgm: no run is called the best: {self.apart}.")
        for run in ranked:
            if run.code:
                tell(f"ppdgm: {run.folder}: {run.message}")
        return code

    @property
    def _of_seeds(self) -> bool:
        return [o.path for o in self.overs] == [SEED]

    def _sorted_by(self, key: str) -> str | None:
        if self.apart:
            return None
        return key if key == "elbo" or self.criterion is None else self.criterion.key

    def _page(self, run: SweptRun) -> Table:
        status = read_run(run.folder, self.asked.out) if run.folder.is_dir() else {}
        names = ("criterion", "validation", "elbo", "bits_per_dimension", "step", "skipped")
        state = status.get("state", "failed") if not run.code or status.get("state") != "unknown" else "failed"
        page = {"run": str(run.folder), "name": run.name, "values": dict(run.values), "state": state}
        page |= {n: status.get(n) for n in names}
        return {**page, "error": run.message} if run.code else page

    def _say_table(self, ranked: list[SweptRun], found: list[Table], best: SweptRun | None) -> None:
        lasts = [o.path.rpartition(".")[2] for o in self.overs]
        fields = [o.path if lasts.count(last) > 1 else last for o, last in zip(self.overs, lasts, strict=True)]
        watched = "validation" if self.criterion is None or self.apart else f"validation {self.criterion.words}"
        shown = lambda value: f"{value:.4g}" if isinstance(value, int | float) else "-"
        named = lambda page: "" if page["criterion"] in (None, "elbo") or not self.apart else f"{page['criterion']} "
        rows = [
            [
                *(run.values[o.path] for o in self.overs),
                named(page) + shown(page["validation"]),
                shown(page["elbo"]),
                shown(page["bits_per_dimension"]),
                str(page["step"] if page["step"] is not None else "-"),
                str(page["state"]),
            ]
            for run, page in zip(ranked, found, strict=True)
        ]
        n = len(fields)
        say(text_table([*fields, watched, "ELBO", "bits/dim", "step", "state"], rows, right=range(n + 4)))
        if self._of_seeds:
            for name, told in spread_of(found).items():
                words = {"validation": watched, "elbo": "ELBO", "bits_per_dimension": "bits/dim"}[name]
                spread = plus_minus(told["mean"], told["sd"], 3)
                say(f"{words}: {spread} (mean and standard deviation over {told['runs']} seeds)")
        if best is not None:
            say(f"The best run is in {best.folder}. Next:")
            say(f"  ppdgm evaluate {shlex.quote(str(best.folder))}  estimate its likelihood")


class _Listed:
    """Runs that are known from the start."""

    def __init__(self, runs: Iterable[SweptRun], ended: Callable[[SweptRun], None]):
        self.runs, self.ended = iter(runs), ended

    def take(self) -> SweptRun | None:
        """The next run; None if there are no more."""
        return next(self.runs, None)


def _is_own(program: str) -> bool:
    from ppdgm.cli.code import is_code

    return is_code(program) and not Path(program).is_dir()


def _read_manifest(out: Path) -> Table | None:
    """What the sweep in a folder is; None if it is a new one."""
    try:
        found = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found["runs"], dict):
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, RecursionError):
        pass
    raise CheckpointError(f"{out / MANIFEST} can't be read. Choose another folder for the sweep: --out.")
