"""A search by Optuna: which values the next run of a sweep has."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ppdgm.cli.children import SweptRun
from ppdgm.cli.over import Over, Span, as_text
from ppdgm.errors import PackageMissing

STORAGE = "optuna.log"


def optuna() -> Any:
    """The library.

    Raises:
        PackageMissing: it is not installed.
    """
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise PackageMissing(
            "--trials needs optuna, which is not installed: pip install 'ppdgm[sweep]'. Without it, give lists of "
            "values, and leave --trials out."
        ) from error


class Trials:
    """Optuna's study of a sweep, by its TPE sampler.

    Bergstra et al. 2011, "Algorithms for hyper-parameter optimization".

    Runs of a sweep that was killed come first, with the values that they had. A run that fails counts as a trial.

    Args:
        folder: of the sweep; the study's file is in it.
        overs: fields and their values.
        count: of trials in all.
        smaller: whether a smaller number is better.
        several: whether runs are trained at the same time: then those without a result count as bad ones.
        make: values -> the run.
        score: run -> what is optimised; None if it has no such number.
        report: called when a run has ended.
    """

    def __init__(
        self,
        folder: Path,
        overs: Sequence[Over],
        count: int,
        smaller: bool,
        several: bool,
        make: Callable[[Mapping[str, str]], SweptRun],
        score: Callable[[SweptRun], float | None],
        report: Callable[[SweptRun], None],
    ):
        library = optuna()
        journal = importlib.import_module("optuna.storages.journal")
        library.logging.set_verbosity(library.logging.WARNING)
        self.states = library.trial.TrialState
        self.overs = {over.path: over for over in overs}
        self.space = {over.path: self._distribution(library.distributions, over) for over in overs}
        self.study = library.create_study(
            storage=library.storages.JournalStorage(journal.JournalFileBackend(str(folder / STORAGE))),
            study_name="sweep",
            direction="minimize" if smaller else "maximize",
            load_if_exists=True,
        )
        known = self.study.get_trials(deepcopy=False)
        self.study.sampler = library.samplers.TPESampler(seed=len(known), constant_liar=several)  # no draw comes again
        self.left = [t for t in known if t.state == self.states.RUNNING]
        self.to_ask = count - len(known)
        self.numbers: dict[str, list[int]] = {}
        self.make, self.score, self.report = make, score, report

    @staticmethod
    def _distribution(kinds: Any, over: Over) -> Any:
        if not isinstance(span := over.values, Span):
            return kinds.CategoricalDistribution(over.values)
        if span.whole:
            return kinds.IntDistribution(int(span.low), int(span.high))
        return kinds.FloatDistribution(span.low, span.high, log=span.log)

    def take(self) -> SweptRun | None:
        """The next run; None if there are no more."""
        while self.left or self.to_ask > 0:
            if self.left:
                trial = self.left.pop(0)
            else:
                self.to_ask -= 1
                trial = self.study.ask(self.space)
            run = self.make({path: self._text(path, value) for path, value in trial.params.items()})
            numbers = self.numbers.setdefault(run.name, [])
            numbers.append(trial.number)
            if len(numbers) == 1:  # else a run with these values is being trained
                return run
        return None

    def _text(self, path: str, value: object) -> str:
        span = self.overs[path].values
        return as_text(float(str(value)), span.whole) if isinstance(span, Span) else str(value)

    def ended(self, run: SweptRun) -> None:
        """The study gets the result of a run."""
        score = None if run.code else self.score(run)
        for number in self.numbers.pop(run.name):
            if score is None:
                self.study.tell(number, state=self.states.FAIL)
            else:
                self.study.tell(number, score)
        self.report(run)
