"""What validation watches: a number of each row of data that training does not see."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ppdgm.errors import ProgramError, SpecError, shown
from ppdgm.language.runtime import Runtime
from ppdgm.language.step import Step
from ppdgm.language.tracer import Params
from ppdgm.language.vocabulary import Array, Batch, Noise


@dataclass(frozen=True, eq=False)
class Criterion:
    """A number of each row; its mean over the validation data says which parameters are best, and when to stop.

    Attributes:
        name: its name in the history, after "validation_". "elbo" is only for the ELBO itself.
        of: step -> [B]. The step sees a chunk of rows, at most 512; `step.run("critic")` and `step.trace()` draw with
            the same noise at each validation. No gradient is taken, and a relaxed latent is the discrete one that it
            stands for. The step has the program's parameters, without the engine's own, and no hyperparameters. None
            only for the ELBO, which is computed as `fit.elbo` computes it.
        smaller: whether a smaller number is better.

    Raises:
        SpecError: a name that can't be in a history.
    """

    name: str
    of: Callable[[Step], Array] | None
    smaller: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()) or self.name == "step":
            raise SpecError(
                f"Criterion: got the name {shown(self.name)}, expected a name for the history, such as 'loss'."
            )
        if (self.name == "elbo") is not (self.of is None) or not (self.of is None or callable(self.of)):
            raise SpecError(
                f"Criterion {self.name!r}: got of={shown(self.of)}, expected a function of a step, such as "
                "lambda step: step.run('loss').returned. Only the ELBO has none; another criterion needs another name."
            )

    @property
    def words(self) -> str:
        """Its name in a line of text."""
        return "ELBO" if self.of is None else self.name

    @property
    def key(self) -> str:
        """Its name in the history."""
        return f"validation_{self.name}"

    @property
    def worst(self) -> float:
        """A value that every number is better than."""
        return math.inf if self.smaller else -math.inf

    def better(self, value: float, than: float) -> bool:
        """Whether one value is better than another."""
        return value < than if self.smaller else value > than


ELBO = Criterion("elbo", None)


def of_rows(runtime: Runtime, params: Params, noise: Noise, data: Batch, index: Array, criterion: Criterion) -> Array:
    """A question to a runtime: the criterion of each row, [B].

    Raises:
        ProgramError: the criterion returned something else.
    """
    xp, batch = runtime.xp, runtime.select(dict(data), index)
    ones = xp.ones_like(index, dtype=xp.float32)
    step = runtime.steps(runtime.tracer, params, noise, batch, index, ones, {}, None)
    step.gradients = None
    found: Array = None if criterion.of is None else criterion.of(step)
    shape = getattr(found, "shape", None)
    if shape is None or tuple(shape) != tuple(index.shape):
        got = type(found).__name__ if shape is None else f"an array of shape {tuple(shape)}"
        raise ProgramError(
            f"Criterion {criterion.name!r}: got {got}, expected one number for each row, {tuple(index.shape)}. Take no "
            "mean over rows; sum over the axes of an event, and take the mean over particles."
        )
    return found
