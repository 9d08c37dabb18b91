"""A loss that the program itself computes: a score matching loss, a classifier's, a regression's."""

from __future__ import annotations

from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.criteria import Criterion
from ppdgm.inference.engines.engine import Engine
from ppdgm.language.interpreter import DirectInterpreter
from ppdgm.language.step import Objective, Step
from ppdgm.language.vocabulary import Array


class Minimise(Engine):
    """Minimise the mean over rows of the program's own function, such as `loss(self, P, x)`, plus its penalties.

    The function returns a loss of each row, [B], or of each particle and row, [K, B]. It uses parameters, nets and
    data; the model and the guide are not used, and need not be there. The history has the "loss", and the "objective":
    −loss − penalties. Validation watches the loss of held-out rows, without penalties: "validation_loss", of which
    smaller is better.

    Args:
        role: the name of the function.

    Raises:
        ProgramError: in training, if the program has no such function, or it does not return a loss of each row.
    """

    role: str = "loss"

    def objective(self, step: Step) -> Objective:
        run = step.run(self.role)
        if step.scored:
            raise ProgramError(
                f"{type(step.tracer.program).__name__}.{self.role}: no gradient passes through the draw of site "
                f"{step.scored[0]!r}, so that of the loss would be wrong. Use a reparameterised distribution; for "
                "noise that depends on no parameter, compare a uniform draw with its probability."
            )
        mean = lambda terms: bounds.mean(terms, step.weights, step.xp)
        loss = mean(self._of_rows(run, step))
        objective = -loss
        if run.penalties:
            objective = objective - mean(sum(run.penalties.values()) + 0.0 * step.weights[None])
        return {"objective": objective, "loss": loss}

    def criterion(self) -> Criterion:
        return Criterion("loss", self._held_out, smaller=True)

    def _held_out(self, step: Step) -> Array:
        return step.xp.mean(self._of_rows(step.run(self.role), step), axis=0)

    def _of_rows(self, run: DirectInterpreter, step: Step) -> Array:
        """What the function returned, as [K, B].

        Raises:
            ProgramError: it is no loss of each row, or a log-density is not in it.
        """
        name = f"{type(step.tracer.program).__name__}.{self.role}"
        if run.observed:
            raise ProgramError(
                f"{name}: observes site {run.observed[0]!r}, but Minimise() adds no log p to the loss. Return it as "
                "the loss: −distribution.log_prob(x); or use SVI() with a model."
            )
        loss, size = run.returned, step.index.shape[0]
        shape = getattr(loss, "shape", None)
        if shape is None:
            raise ProgramError(f"{name}: got {type(loss).__name__}, expected a loss of each row, [B]. Return an array.")
        if len(shape) not in (1, 2) or shape[-1] != size:
            remedy = (
                "Return the loss of each row, and take no mean: padding rows of a minibatch must not count."
                if len(shape) == 0
                else "Sum over the axes of an event: P.xp.sum(…, axis=-1)."
            )
            raise ProgramError(
                f"{name}: got an array of shape {tuple(shape)}, expected a loss of each of the {size} rows, [{size}] "
                f"or [K, {size}]. {remedy}"
            )
        if not step.xp.isdtype(loss.dtype, "real floating"):
            raise ProgramError(f"{name}: got numbers of type {loss.dtype}, expected floating numbers, with a gradient.")
        return loss if len(shape) == 2 else loss[None]
