"""Settings of a run that would change nothing beside its others: they are refused, with the reason.

Accepted are `keep_best` without validation data, a batch size above N, and compile=False if nothing would be compiled.
"""

from __future__ import annotations

from typing import Any

from ppdgm.errors import TrainingError
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.runs.settings import Training
from ppdgm.program import PlainPair

OF_RUNS_WITH_FOLDERS = ("checkpoint_steps", "checkpoint_minutes")


def check_folder(training: Training, out: Any, overwrite: bool) -> None:
    """Refuse settings of a run's folder if there is no folder, and minutes if checkpoints are counted in steps.

    Raises:
        TrainingError: with the setting.
    """
    default = Training()
    changed = [n for n in OF_RUNS_WITH_FOLDERS if getattr(training, n) != getattr(default, n)]
    if out is None and (given := [*changed, *(["overwrite"] if overwrite else [])]):
        raise TrainingError(
            f"{given[0]}: it is about the run's folder, and there is none. Give out=…, or leave it out."
        )
    if len(changed) == len(OF_RUNS_WITH_FOLDERS):
        raise TrainingError("checkpoint_minutes: checkpoint_steps says already when to save. Give one of the two.")


def check_rates(engine: Engine, training: Training, own: bool) -> None:
    """Refuse learning rates that no step would use.

    Args:
        engine: whose phases may have learning rates of their own.
        training: the run's settings.
        own: whether the optimiser is the user's own, which has its own learning rate.

    Raises:
        TrainingError: with the reason.
    """
    theirs = [phase.learning_rate is not None for phase in engine.phases()]
    if own and any(theirs):
        raise TrainingError(
            "Stage: learning_rate works with an optimiser by name; one of your own has its own. Leave it out."
        )
    if theirs and all(theirs) and training.learning_rate is not None:
        raise TrainingError(
            "learning_rate: every stage has a learning rate of its own, so that no step would take this one. Leave it "
            "out, or leave it out of a stage."
        )


def check_compile(training: Training, exact: bool, why_not: str) -> None:
    """Refuse compile=True if nothing can be compiled.

    Args:
        training: the run's settings.
        exact: whether steps are closed-form ones.
        why_not: why torch.compile can't compile the steps; "" if it can.

    Raises:
        TrainingError: with the reason.
    """
    if training.compile is not True:
        return
    if reason := "EM() takes closed-form steps in NumPy" if exact else why_not:
        raise TrainingError(f"compile: got True, but {reason}. Leave compile out.")


def check_nets(training: Training, program: Any) -> None:
    """Refuse mixed precision in a program that has no nets.

    Raises:
        TrainingError: it has none.
    """
    if training.mixed_precision and not isinstance(program, PlainPair) and not program.declarations().nets:
        raise TrainingError(
            "mixed_precision: it is for nets, and this program has none, so that it would change nothing. Leave it out."
        )
