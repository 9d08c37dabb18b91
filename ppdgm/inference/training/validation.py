"""What a run does with its validation data: the ELBO, the parameters with the best ELBO, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ppdgm.inference.evaluation.estimates import elbo_of_rows
from ppdgm.inference.evaluation.evaluator import Evaluator


@dataclass
class Validation:
    """The validation ELBO so far.

    Args:
        evaluator: of the validation data; its parameters are replaced at each validation.
        patience: number of validations without a better ELBO before training stops, or None.
        warm: the step from which these are counted.
    """

    evaluator: Evaluator
    patience: int | None
    warm: int
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    best: float = -np.inf
    best_params: dict[str, np.ndarray] | None = None
    waited: int = 0

    def look(self, trainer: Any, step: int) -> bool:
        """Compute the validation ELBO; True if it has not improved for long enough."""
        value = elbo_of_rows(replace(self.evaluator, params=trainer.judged), 1).mean
        self.steps.append(step)
        self.values.append(value)
        if value > self.best:
            self.best, self.best_params, self.waited = value, trainer.values(), 0
        elif step >= self.warm:
            self.waited += 1
        return self.done

    @property
    def done(self) -> bool:
        """Whether the ELBO has not improved for long enough."""
        return self.patience is not None and self.waited >= self.patience

    def page(self) -> dict[str, Any]:
        """Its state as plain values; `best_params` are saved as arrays."""
        return {"steps": self.steps, "values": self.values, "best": self.best, "waited": self.waited}

    def restore(self, page: Mapping[str, Any], best_params: dict[str, np.ndarray]) -> None:
        """Continue from what `page` gave."""
        self.steps, self.values = list(page["steps"]), list(page["values"])
        self.best, self.waited = page["best"], page["waited"]
        self.best_params = best_params or None
