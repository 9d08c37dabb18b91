"""What a run does with its validation data: the criterion, the parameters with its best value, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.errors import CheckpointError
from ppdgm.inference.engines.criteria import Criterion
from ppdgm.inference.evaluation.evaluator import Evaluator, quiet
from ppdgm.inference.evaluation.watched import watched
from ppdgm.inference.evaluation.weighted import weighted_mean

if TYPE_CHECKING:
    from ppdgm.language.trainer import Trainer
    from ppdgm.specs import Table


@dataclass
class Validation:
    """The criterion so far.

    Args:
        criterion: what is watched.
        evaluator: of the validation data; its parameters are replaced at each validation.
        patience: number of validations without a better value before training stops, or None.
        warm: the step from which these are counted.
        weights: of the rows, [N]; None if each counts once.
    """

    criterion: Criterion
    evaluator: Evaluator
    patience: int | None
    warm: int
    weights: np.ndarray | None = None
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    best: float = field(init=False)
    best_params: dict[str, np.ndarray] | None = None
    waited: int = 0

    def __post_init__(self) -> None:
        self.best = self.criterion.worst

    def look(self, trainer: Trainer, step: int) -> bool:
        """Compute the criterion; True if it has not improved for long enough."""
        rows = watched(replace(self.evaluator, params=trainer.judged), self.criterion)
        with quiet():
            value = weighted_mean(rows, self.weights)
        self.steps.append(step)
        self.values.append(value)
        if self.criterion.better(value, self.best):
            self.best, self.best_params, self.waited = value, trainer.values(), 0
        elif step >= self.warm:
            self.waited += 1
        return self.done

    @property
    def done(self) -> bool:
        """Whether the criterion has not improved for long enough."""
        return self.patience is not None and self.waited >= self.patience

    def history(self) -> dict[str, np.ndarray]:
        """All values, as arrays: "validation_step", and "validation_NAME"."""
        return {"validation_step": np.array(self.steps, int), self.criterion.key: np.array(self.values, float)}

    def page(self) -> dict[str, object]:
        """Its state as plain values; `best_params` are saved as arrays."""
        own = {"steps": self.steps, "values": self.values, "best": self.best, "waited": self.waited}
        return {**own, "name": self.criterion.name, "smaller": self.criterion.smaller}

    def restore(self, page: Table, best_params: dict[str, np.ndarray], step: int) -> None:
        """Continue from what `page` gave at a step.

        Raises:
            CheckpointError: it watched another criterion.
        """
        then, now = (
            (page.get("name", "elbo"), page.get("smaller", False)),
            (self.criterion.name, self.criterion.smaller),
        )
        if then != now:
            raise CheckpointError(f"it watched {then[0]!r}, and the engine's criterion is now {now[0]!r}.")
        self.steps, self.values = list(page["steps"]), list(page["values"])
        self.best, self.waited = page["best"], page["waited"] if step >= self.warm else 0
        self.best_params = best_params or None
