"""What may change when a run goes on, and what may not, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ppdgm.errors import TrainingError, nearest
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.runs.rates import with_change
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.inference.runs.settings import Training
from ppdgm.inference.training.fit import engines_below
from ppdgm.specs.schedules import Schedule, as_schedule

MAY_CHANGE = ("epochs", "steps", "learning_rate", "device", "devices", "callbacks", "progress")
_OF_FIT = ("engine", "backend", "params", "out", "overwrite")
_WHY_NOT = {
    "engine": "the optimiser's state, the history and the criterion are those of the run's engine",
    "backend": "the optimiser's state is that of the run's backend. load(…, backend=…) evaluates on another one",
    "params": "its parameters are in the checkpoint",
    "out": "it goes on in its own folder",
    "overwrite": "it goes on in its own folder",
    "seed": "the order of the data and all draws so far come from it",
    "batch_size": "the order of the data and the number of steps in an epoch depend on it",
    "dtype": "the parameters and the optimiser's state have this type",
    "weight_average": "the average so far was made with the run's own",
    "binarise": "the run's data are drawn, or not drawn, from its first step on",
}


def check_allowed(unknown: Mapping[str, object]) -> None:
    """Refuse arguments that `resume` does not have.

    Raises:
        TrainingError: with the reason, and what to do instead.
    """
    if not unknown:
        return
    name = next(iter(unknown))
    engines = {n for c in engines_below(Engine) for n in getattr(c, "model_fields", ())}
    known = {*_OF_FIT, *Training.model_fields, *engines} - {*MAY_CHANGE}
    if name not in known:
        raise TrainingError(f"resume() has no argument {name!r}. {nearest(name, [*MAY_CHANGE, *known])}")
    ours = name in _OF_FIT or name in Training.model_fields
    why = _WHY_NOT.get(name, "it is a setting of the run" if ours else "it is a setting of the run's engine")
    instead = f"fit(…, {name}=…, params=load(…).params)" if name not in ("params", *_OF_FIT[3:]) else "fit(…)"
    raise TrainingError(
        f"{name}: a resumed run can't change it: {why}. Leave it out. Only {', '.join(MAY_CHANGE)} can change. To "
        f"change {name}, start a new run: {instead}."
    )


def with_rate(recipe: Recipe, step: int, total: int, rate: float | Schedule) -> Recipe:
    """The recipe with another learning rate from a step on.

    Args:
        recipe: of the run.
        step: the number of steps that were taken.
        total: that are planned.
        rate: a number, or a schedule counted from `step`.

    Raises:
        TrainingError: no step would use it, or the run ends before its schedule does.
    """
    rate = Training(learning_rate=rate).learning_rate or 0.0  # it is checked there
    if step == total:
        raise TrainingError(
            f"learning_rate: the run is already at its last step, {total}, so no step would use it. Give more steps "
            "or epochs too."
        )
    if (needs := as_schedule(rate).reached()) > total - step:
        raise TrainingError(
            f"learning_rate: the schedule needs {needs} steps, but only {total - step} are left. Train longer, or make "
            f"the schedule shorter: steps={total - step} or less."
        )
    if recipe.training.optimiser != "own":  # for which a later check has the message
        _check_used(recipe.engine, step, total)
    before = recipe.training.rate if recipe.training.learning_rate is None else recipe.training.learning_rate
    now = with_change(before, step, rate) if step else rate
    return replace(recipe, training=recipe.training.replace(learning_rate=now))


def _check_used(engine: Engine, step: int, total: int) -> None:
    """Refuse a rate if all steps that are left belong to phases with a rate of their own."""
    phases = engine.phases()
    if not phases:  # closed-form steps; a later check has the message
        return
    numbers = set(range(len(phases)))
    if engine.controller(1) is None:
        left = np.unique([*range(step, min(step + 1000, total)), *np.linspace(step, total - 1, 10_000).astype(int)])
        numbers = set(engine.phase_of(left).tolist())
    if all(phases[i].learning_rate is not None for i in numbers):
        raise TrainingError(
            "learning_rate: each stage that is left has its own learning rate, so no step would use this one. Leave it "
            "out; or start a new run with other stages: fit(…, engine=…, params=load(…).params)."
        )
