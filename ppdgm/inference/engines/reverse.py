"""Reverse KL: a density is fitted to an unnormalised one, from which nothing is drawn."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.engines.targets import Target, as_target
from ppdgm.language.implicit import check_densities
from ppdgm.language.interpreter import DirectInterpreter
from ppdgm.language.step import Objective, Step
from ppdgm.language.vocabulary import Array


class ReverseKL(Engine):
    """Reverse KL: fit a density q(x) to an unnormalised π̃: maximise E_q[log π̃(x) − log q(x)] = log Z − KL(q ‖ π).

    Papamakarios et al. 2021, arXiv:1912.02762; as density distillation, van den Oord et al. 2018, arXiv:1711.10433. The
    program draws x with a gradient: a `FlowModel`, or another program without latents. No data are read: leave them
    out, or give only the fields of its condition. A step draws `batch_size` values. `fit.normaliser()` then estimates
    log Z with its error, the effective sample size, Pareto's k̂ and the KL. q may leave out modes of π.

    Args:
        target: log π̃: a function of P and draws x [B, *event] that returns [B]; your own subclass of `Target`, which a
            recipe can name; or a fit of a program whose log p(x) is exact.

    Raises:
        ProgramError: in training, if the program has latents, or draws without a gradient or a density; or if the
            target does not return a number of each row.
    """

    reads_data: ClassVar[bool] = False

    target: Target

    @model_validator(mode="before")
    @classmethod
    def _as_target(cls, fields: object) -> object:
        if isinstance(fields, dict) and "target" in fields:
            return {**fields, "target": as_target(fields["target"])}
        return fields

    def objective(self, step: Step) -> Objective:
        mean = lambda terms: bounds.mean(terms[None], step.weights, step.xp)
        run = self._draw(step)
        log_q = _log_density(run)
        objective = mean(self._log_target(step, run) - log_q)
        penalty = mean(sum(run.penalties.values()) + 0.0 * log_q) if run.penalties else 0.0
        return {"objective": objective - penalty, "entropy": -mean(log_q)}

    def criterion(self) -> None:
        return None

    def log_weights(self, step: Step) -> Array:
        """log π̃(x) − log q(x) [B] at draws of the program."""
        run = self._draw(step)
        found: Array = self._log_target(step, run) - _log_density(run)
        return found

    def _draw(self, step: Step) -> DirectInterpreter:
        run, name = step.run("model", generate=True, k=1), type(step.tracer.program).__name__
        check_densities(run.dists, run.observed)
        if hidden := [n for n in run.dists if n not in run.observed]:
            raise ProgramError(
                f"{name}: site {hidden[0]!r} is latent, so the density q(x) of its draws is not known, which "
                "ReverseKL() needs. Use a program without latents, such as FlowModel."
            )
        if step.scored:
            raise ProgramError(
                f"{name}: no gradient passes through the draw of site {step.scored[0]!r}, so ReverseKL() can't train "
                "it. Use a density whose draws are reparameterised, such as FlowModel."
            )
        return run

    def _log_target(self, step: Step, run: DirectInterpreter) -> Array:
        found, xp, size = self.target.of_run(step, run), step.xp, step.index.shape[0]
        shape = getattr(found, "shape", None)
        if shape is None or tuple(shape) != (size,):
            got = type(found).__name__ if shape is None else f"an array of shape {tuple(shape)}"
            raise ProgramError(
                f"target: the log-density returned {got}, expected a number of each of the {size} draws, [{size}]. "
                "Sum over the axes of an event, and over no rows: P.xp.sum(…, axis=-1)."
            )
        if not xp.isdtype(found.dtype, "real floating"):
            raise ProgramError(f"target: got numbers of type {found.dtype}, expected floating numbers.")
        return found


def _log_density(run: DirectInterpreter) -> Array:
    """log q [B] of a run's draws."""
    total: Array = sum(run.log_prob.values())
    return total[0]
