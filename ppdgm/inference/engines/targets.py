"""Unnormalised densities to which a density is fitted: your own, or that of a trained program."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np

from ppdgm.errors import ProgramError, TrainingError
from ppdgm.language import enumeration
from ppdgm.language.interpreter import Ask, DirectInterpreter
from ppdgm.language.step import Step
from ppdgm.language.vocabulary import Array, Declarations, Vocabulary
from ppdgm.program import PlainPair, Program
from ppdgm.specs import Spec


class Target(Spec):
    """An unnormalised density π̃(x): a subclass defines `log_density`, which only computes."""

    @abstractmethod
    def log_density(self, P: Vocabulary, x: Array) -> Array:
        """log π̃(x) [B] of x [B, *event], with a gradient.

        Args:
            P: the vocabulary of the program, for `P.xp`, `P.dist` and `P.constant`.
            x: draws of the program's observed site; if it has several, and if it has a condition, all by name.
        """

    def of_run(self, step: Step, run: DirectInterpreter) -> Array:
        """log π̃ [B] at the draws of a run."""
        P = run.P.told_to(_Computes(type(self).__name__))
        drawn = {n: run.values[n][0] for n in run.observed}
        return self.log_density(P, **{**_conditions(step, run), **drawn})


class FunctionTarget(Target):
    """A Python function log π̃(P, x), which can't be read back from text.

    Args:
        function: of P and x.
    """

    function: Callable[..., Any] | str

    def log_density(self, P: Vocabulary, *x: Array, **named: Array) -> Array:
        if isinstance(self.function, str):
            raise _lost(self.function)
        return self.function(P, *x, **named)

    def to_dict(self) -> dict[str, object]:
        name = getattr(self.function, "__qualname__", None) or str(self.function)
        return {"kind": "FunctionTarget", "function": name}


@runtime_checkable
class Trained(Protocol):
    """A fit: a program with its parameters."""

    program: Any
    params: Mapping[str, np.ndarray]


class _Held:
    """A program's parameters and declarations, which are no text."""

    def __init__(self, params: Mapping[str, np.ndarray], declared: Declarations):
        self.params, self.declared = dict(params), declared


class ProgramTarget(Target):
    """The density log p(x) of a trained program without latents, whose parameters can't be read back from text.

    Args:
        program: the program.
        held: its parameters.
    """

    program: Program
    held: Any = None

    def log_density(self, P: Vocabulary, x: Array) -> NoReturn:
        raise ProgramError(
            f"log_density: got the trained program {type(self.program).__name__}, whose density is found by running it "
            "in a training step. Elsewhere, use fit.log_likelihood(x)."
        )

    def of_run(self, step: Step, run: DirectInterpreter) -> Array:
        if self.held is None:
            raise _lost(type(self.program).__name__)
        xp, own = run.P.xp, next(iter(run.values.values()))
        params = {n: xp.astype(run.P.constant(v), own.dtype) for n, v in self.held.params.items()}
        exact = step.gradients and replace(step.gradients, minibatch=None)  # no estimates, and no states
        ask = step.tracer.ask({}, step.fold("run", 1), {}, len(step.index), exact)
        data = {**step.rows(), **{n: run.values[n][0] for n in run.observed}}
        ask = Ask(self.program, self.held.declared, type(run.P), ask.reader, params, data, ask.size, ask.stop)
        found = ask.run("model")
        name, hidden = type(self.program).__name__, [n for n in found.dists if n not in (*found.observed, *found.axes)]
        if hidden:
            raise ProgramError(
                f"target: {name} draws {hidden[0]!r}, so only a bound on its log p(x) is known. Give a program "
                "whose density is exact, such as FlowModel."
            )
        terms = found.log_prob
        if found.axes:
            terms = enumeration.sum_out(terms, found.observed, list(found.axes), 0, xp, found.P.logsumexp)
        total: Array = sum(terms.values())
        return total[0]

    def to_dict(self) -> dict[str, object]:
        return {"kind": "ProgramTarget", "program": self.program.to_dict()}


def as_target(value: object) -> object:
    """A target, made of a function or a fit; other values as they are, to be refused.

    Raises:
        ProgramError: a fit of a plain pair.
    """
    if isinstance(value, Spec | str | type):
        return value
    if isinstance(value, Trained):
        if isinstance(value.program, PlainPair):
            raise ProgramError(
                "target: got a fit of a plain pair, expected one of a Program. Give its log-density as a function."
            )
        return ProgramTarget(program=value.program, held=_Held(value.params, value.program.declarations()))
    return FunctionTarget(function=value) if callable(value) else value


def _conditions(step: Step, run: DirectInterpreter) -> dict[str, Array]:
    return {n: v for n, v in step.rows().items() if n not in run.observed}


def _lost(name: str) -> TrainingError:
    return TrainingError(
        f"target: {name} was given in Python, and is not saved with the run. Give it again: "
        "fit(…, engine=ReverseKL(target=…), params=load(…).params). Or write a subclass of Target."
    )


class _Computes:
    """The interpreter of a target, which has no statements."""

    looping = False
    recomputes = False

    def __init__(self, name: str):
        self.name = name

    def param(self, name: str, value: Array) -> Array:
        return value

    def estimates(self, what: str) -> bool:
        return False

    def draws_terms(self) -> bool:
        return False

    def _refuse(self, *_: object) -> NoReturn:
        raise ProgramError(
            f"{self.name}.log_density: a target only computes, so it has no P.sample, P.plate, P.random or other "
            "statement. Return the number of each row: P.dist.….log_prob(x)."
        )

    plate = sample = penalty = deterministic = noise = drops = update = batch_mean = scan = _refuse
