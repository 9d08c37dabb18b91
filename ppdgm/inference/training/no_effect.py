"""Settings of a run that would change nothing beside its others: they are refused, with the reason.

Accepted are `keep_best` without validation data, a batch size above N, and compile=False if nothing would be compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppdgm.errors import TrainingError
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.runs.settings import Training
from ppdgm.nets import ForeignNet
from ppdgm.program import AnyProgram, PlainPair

if TYPE_CHECKING:
    from pathlib import Path

OF_RUNS_WITH_FOLDERS = ("checkpoint_steps", "checkpoint_minutes")


def check_folder(training: Training, out: str | Path | None, overwrite: bool) -> None:
    """Refuse settings of a run's folder if there is no folder, and minutes if checkpoints are counted in steps.

    Raises:
        TrainingError: with the setting.
    """
    default = Training()
    changed = [n for n in OF_RUNS_WITH_FOLDERS if getattr(training, n) != getattr(default, n)]
    if out is None and (given := [*changed, *(["overwrite"] if overwrite else [])]):
        raise TrainingError(
            f"{given[0]}: is a setting of the run's folder, but there is no folder. Give out=…, or leave {given[0]} "
            "out."
        )
    if len(changed) == len(OF_RUNS_WITH_FOLDERS):
        raise TrainingError("checkpoint_minutes: got checkpoint_steps too. Give only one of them.")


def check_rates(engine: Engine, training: Training, own: bool) -> None:
    """Refuse learning rates and optimisers that no step would use, and a phase whose rate is not known.

    Args:
        engine: whose phases may have learning rates of their own.
        training: the run's settings.
        own: whether the optimiser is the user's own, which has its own learning rate.

    Raises:
        TrainingError: with the reason.
    """
    phases = engine.phases()
    theirs = [phase.learning_rate is not None for phase in phases]
    if own and any(phase.learning_rate is not None and phase.optimiser is None for phase in phases):
        raise TrainingError(
            "Stage: learning_rate works only with an optimiser that is given by name; your own optimiser has its own "
            "rate. Leave it out."
        )
    if own and any(phase.optimiser is not None and phase.learning_rate is None for phase in phases):
        raise TrainingError(
            "Stage: an optimiser by name needs a learning rate, and the run has none beside your own optimiser. Give "
            "the stage a learning_rate."
        )
    if phases and all(phase.optimiser is not None for phase in phases):
        default = Training()
        if own or training.optimiser != default.optimiser or training.clip_norm is not None:
            name = "clip_norm" if training.clip_norm is not None else "optimiser"
            raise TrainingError(
                f"{name}: every stage has its own optimiser, so no step would use this setting. Leave it out here, or "
                "leave the optimiser out of a stage."
            )
    if theirs and all(theirs) and training.learning_rate is not None:
        raise TrainingError(
            "learning_rate: every stage has its own learning rate, so no step would use this one. Leave it out, here "
            "or in a stage."
        )


def check_compile(training: Training, exact: bool, why_not: str, place: str) -> None:
    """Refuse to insist on compiled steps if nothing can be compiled, and on CUDA graphs where there are none.

    Args:
        training: the run's settings.
        exact: whether steps are closed-form ones.
        why_not: why torch.compile can't compile the steps; "" if it can.
        place: the device, in words.

    Raises:
        TrainingError: with the reason.
    """
    if training.compile in (False, "auto"):
        return
    if not why_not and training.compile == "cudagraphs" and not place.startswith("cuda"):
        why_not = f"the device is {place}, and only NVIDIA GPUs have CUDA graphs"
    if reason := "the engine takes closed-form steps in NumPy" if exact else why_not:
        raise TrainingError(f"compile: got {training.compile!r}, but {reason}. Leave compile out.")


def check_nets(training: Training, program: AnyProgram) -> None:
    """Refuse settings of nets that would not do what they promise, or change nothing because there are no nets.

    Raises:
        TrainingError: with the reason.
    """
    if training.mixed_precision and training.dtype == "float64":
        raise TrainingError("mixed_precision: got True with dtype='float64'. Give only one of them.")
    own = {
        "mixed_precision": "which multiply in the types that you wrote. Leave it out, and use bfloat16 in your code",
        "rematerialise": "which may draw numbers in their layers. Leave it out, and use jax.checkpoint or "
        "torch.utils.checkpoint in your code",
    }
    for name, why in own.items():
        if not getattr(training, name):
            continue
        nets = None if isinstance(program, PlainPair) else program.declarations().nets.values()
        if nets is None or any(isinstance(u.spec, ForeignNet) for u in nets):
            raise TrainingError(f"{name}: does not change your own modules and plain pairs, {why}.")
        if not nets:
            raise TrainingError(
                f"{name}: is for nets, and this program has none, so it would change nothing. Leave it out."
            )


def check_tf32(training: Training, place: str) -> None:
    """Refuse TF32 where there is none.

    Raises:
        TrainingError: with the reason.
    """
    if training.tf32 and training.dtype == "float64":
        raise TrainingError("tf32: got True with dtype='float64', which it does not round. Give only one of them.")
    if training.tf32 and not place.startswith("cuda"):
        raise TrainingError(f"tf32: got True, but the device is {place}. Only NVIDIA GPUs have TF32. Leave it out.")
