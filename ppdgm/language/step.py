"""The view that an objective has of one training step."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ppdgm.errors import ProgramError, listed
from ppdgm.language import chunks
from ppdgm.language.chunks import Read
from ppdgm.language.interpreter import DirectInterpreter
from ppdgm.language.questions import Given, Sites
from ppdgm.language.reader import Gradients
from ppdgm.language.scales import scaled
from ppdgm.language.states import Minibatch
from ppdgm.language.tracer import Tracer
from ppdgm.language.vocabulary import Array, Batch, Namespace, Noise, Trace

ACCEPT, GAIN = 0.8, 0.1  #: the acceptance that a step size is adapted to, and how fast its logarithm moves
MASS = "mass"  #: the mean weight of a minibatch's rows, if rows have weights; beside an engine's hyperparameters
RESERVED = ("players", "state", "means", "at", MASS)  #: what an objective returns beside its numbers
OF_HISTORY = re.compile(r"step|phase|skipped_step|(validation|live)_.*")  #: names of other columns of a history
Density = Callable[[Sites], Array]
ROLES = ("guide", "model")
OWN = "engine/"  #: the prefix of names of an engine's own parameters and numbers
#: what an engine's objective gives: numbers by name; and "players", "state", "means" and "at", see `Engine.objective`
Objective = Mapping[str, Any]


class Step(ABC):
    """One training step, as an objective sees it: runs of the program on a minibatch, and arithmetic.

    A criterion sees rows of validation data in the same way.

    Every run and every noise has draws of its own. A backend adds the operations that the array API lacks.

    Args:
        tracer: of the program.
        params: the program's, and the engine's own.
        noise: of this step.
        batch: the minibatch as the tracer needs it.
        index: its places in the data.
        weights: [B], 0 for padding, and otherwise the row's weight, 1 if none are given.
        hyperparameters: the scheduled numbers of the engine's fields, now.
        data_size: N; a latent outside the data plate counts once in N rows.
        mixed: whether nets multiply in bfloat16.
        chunk: the number of particles that a trace reads at a time, and again for its gradient; None: all.

    Attributes:
        gradients: how they pass through draws; set by `trace`, and kept for the runs that follow; None: no gradient
            is taken.
        first: the first trace of this step.
        minibatch: the weights of its rows, and what the runs of the program said of states.
        scores: the functions of the program that were run, except to generate data.
        returned: what each of them returned first, if it is an array.
        particles: the largest K of a trace.
    """

    xp: ClassVar[Namespace]  #: array namespace

    def __init__(
        self,
        tracer: Tracer,
        params: Mapping[str, Array],
        noise: Noise,
        batch: Batch,
        index: Array,
        weights: Array,
        hyperparameters: Mapping[str, Array],
        data_size: float | None,
        mixed: bool = False,
        chunk: int | None = None,
        rematerialise: bool = False,
    ):
        self.tracer, self.params, self.noise, self.batch, self.index = tracer, params, noise, batch, index
        self.weights, self.hyperparameters, self.data_size = weights, hyperparameters, data_size
        self.minibatch, self.chunk = Minibatch(weights), chunk
        self._own = Gradients(scored=[], mixed=mixed, rematerialise=rematerialise, minibatch=self.minibatch)
        self.k, self.particles = 1, 0
        self.gradients: Gradients | None = self._own
        self.first: Trace | None = None
        self.scores: list[str] = []
        self.returned: dict[str, Array] = {}
        self._taken: dict[str, int] = {}

    @staticmethod
    @abstractmethod
    def stop_gradient(x: Array) -> Array:
        """x without its gradient."""

    @staticmethod
    @abstractmethod
    def logsumexp(x: Array, axis: int) -> Array:
        """log Σ exp x over an axis."""

    @classmethod
    def scale_gradient(cls, x: Array, factor: Array) -> Array:
        """x, with its gradient times `factor`, through which no gradient flows."""
        still = cls.stop_gradient(x)
        return still + factor * (x - still)

    @abstractmethod
    def fold(self, stream: str, number: int) -> Noise:
        """The noise of the `number`-th use of a stream ("run", "sleep", "gumbel" or "hmc"); None on torch."""

    def fixed_params(self) -> Mapping[str, Array]:
        """The parameters, for a density whose gradient by them is not taken."""
        return {n: self.stop_gradient(v) for n, v in self.params.items()}

    @abstractmethod
    def draw_gumbel(self, noise: Noise, shape: tuple[int, ...]) -> Array: ...

    @staticmethod
    @abstractmethod
    def move(
        log_density: Density, start: Sites, noise: Noise, step_size: Array, num_leapfrog: int, moves: int
    ) -> tuple[Sites, Array]:
        """Latents after moves of Hamiltonian Monte Carlo, and the adapted step size.

        Args:
            log_density: of all latents together, a scalar.
            start: latents by name.
            noise: of the draws.
            step_size: the first ε of the leapfrog.
            num_leapfrog: leapfrog steps of a move.
            moves: the number of moves.
        """

    @abstractmethod
    def in_chunks(self, read: Read, noise: Noise, given: Given, chunk: int) -> Trace:
        """The trace of K particles, read a chunk at a time, and again in the backward pass.

        Args:
            read: a trace of some particles, at the step's parameters.
            noise: of all draws.
            given: values of latents, [K, B, *event].
            chunk: the number of particles of a chunk; the last may be smaller.
        """

    @staticmethod
    @abstractmethod
    def by_chunks(function: Callable[..., Array], arrays: tuple[Array, ...], chunk: int) -> Array:
        """function(*arrays), [K, …], of arrays [K, …], for `chunk` of their first axis at a time."""

    def _at_once(self, k: int, what: str) -> None:
        if self.chunk is not None and k > self.chunk:
            chunks.refuse_chunks(f"{what} {k} particles at once")

    def _fresh(self, stream: str) -> Noise:
        number = self._taken.get(stream, 0)
        self._taken[stream] = number + 1
        return self.fold(stream, number)

    @property
    def scales(self) -> Mapping[str, float]:
        """Constant scales of a plain pair's sites, in training; see `ppdgm.language.scales`."""
        return self.tracer.scales

    @property
    def scored(self) -> list[str]:
        """The sites of the last trace whose draws carry no gradient, each once."""
        return list(dict.fromkeys((self.gradients and self.gradients.scored) or ()))

    @property
    def updates(self) -> Mapping[str, Array]:
        """The new values of states so far: for each, the first one that a run gave."""
        return self.minibatch.updates

    def rows(self) -> Batch:
        """The minibatch's fields, [B, …]."""
        return {n: a[self.index] for n, a in self.batch.items()} if self.tracer.subsamples else self.batch

    def run(
        self,
        role: str,
        *,
        data: Batch | None = None,
        given: Mapping[str, Array] | None = None,
        generate: bool = False,
        choose: str = "draw",
        k: int | None = None,
        stopped: bool = False,
    ) -> DirectInterpreter:
        """One run of one function of the program, with draws of its own.

        Args:
            role: "model", "guide", or another function of the program.
            data: fields in the place of the minibatch's, [B, …].
            given: values of latents, [K, B, *event], which are not drawn.
            generate: whether observed sites are drawn too.
            choose: "draw", or "mean" to put each latent at its mean.
            k: K; by default that of the last trace, or 1.
            stopped: whether densities carry gradients only to values, and not to parameters.

        Returns:
            The run, with `returned`, and by name `values`, `log_prob`, `penalties` and `updates`.

        Raises:
            UnsupportedByBackend: the program is a plain pair.
        """
        k = self.k if k is None else k
        self._at_once(k, f"the engine runs {role!r} for")
        ask = self.tracer.ask(self.params, self._fresh("run"), self.rows(), self.index.shape[0], self.gradients)
        run = ask.run(role, k, given, data, stopped, generate=generate, choose=choose)
        if not generate:
            self.scores.append(role)
            if role not in self.returned and hasattr(run.returned, "shape"):
                self.returned[role] = run.returned
        return run

    def trace(
        self,
        k: int | None = None,
        *,
        given: Mapping[str, Array] | None = None,
        kl: bool = False,
        gradients: Gradients | None = None,
        stopped: bool = False,
        weighed: bool = False,
    ) -> Trace:
        """Guide, then model at the guide's values.

        Args:
            k: K, particles; by default those of the last trace, or 1.
            given: values of the latents, [K, B, *event], instead of draws.
            kl: whether to add closed forms.
            gradients: how they pass through draws; by default as in the last trace.
            stopped: whether the guide's densities carry gradients only to values, and not to parameters.
            weighed: whether the objective takes the scales of sites into account.

        Raises:
            ProgramError: there are scales, and the objective ignores them.
        """
        self.scores += ROLES
        if self.scales and not weighed and self.gradients is not None:
            raise scaled("this engine", next(iter(self.scales)))
        if k is not None:
            self.k = k
        if gradients is not None:
            mixed, again = self._own.mixed, self._own.rematerialise
            self.gradients = replace(gradients, mixed=mixed, rematerialise=again, minibatch=self.minibatch)
        noise, self.particles = self._fresh("run"), max(self.particles, self.k)

        def read(params: Mapping[str, Array], noise: Noise, n: int, given: Given) -> Trace:
            return self.tracer.trace(params, noise, self.batch, self.index, n, given, kl, self.gradients, stopped)

        def part(params: Mapping[str, Array], noise: Noise, n: int, given: Given) -> Trace:
            before = len(self.minibatch.whole)
            found = read(params, noise, n, given)
            return chunks.checked_chunk(found, [*self.minibatch.whole[before:], *self.minibatch.dropped])

        if self.chunk is None or self.k <= self.chunk:
            found = read(self.params, noise, self.k, given)
        else:
            found = self.in_chunks(part, noise, given, self.chunk)
        self.first = self.first or found
        return found

    def model(self, given: Mapping[str, Array]) -> Sites:
        """log p of the model's sites at given latents [K, B, *event], [K, B]."""
        self._at_once(len(next(iter(given.values()))), "the engine runs the model for")
        self.scores += ROLES  # a plain pair's guide is run too
        return self.tracer.model(self.params, self.batch, self.index, given, self.gradients)

    def sleep(self) -> Sites:
        """log q of the guide's sites at latents and data drawn from the model, [1, B]; the draws carry no gradient."""
        self.scores += ROLES
        how = self.gradients or Gradients(scored=[])
        return self.tracer.sleep(self.params, self._fresh("sleep"), self.batch, self.index, how)

    def gumbel(self, shape: tuple[int, ...]) -> Array:
        """Gumbel noise."""
        return self.draw_gumbel(self._fresh("gumbel"), shape)

    def hmc(self, start: Sites, step_size: Array, num_leapfrog: int, moves: int) -> tuple[Sites, Array]:
        """Latents moved by Hamiltonian Monte Carlo on log p(x, z), by the backend's own kernel; no gradient.

        Args:
            start: latents [K, B, *event], which move together.
            step_size: ε at first.
            num_leapfrog: leapfrog steps of a move.
            moves: number of moves.

        Returns:
            The latents, and the step size, adapted move by move to an acceptance of 0.8.
        """
        self._at_once(len(next(iter(start.values()))), "Hamiltonian Monte Carlo moves")
        stop, params = self.stop_gradient, self.fixed_params()

        def log_density(z: Sites) -> Array:
            return sum(v.sum() for v in self.tracer.model(params, self.batch, self.index, z).values())

        start = {n: stop(v) for n, v in start.items()}
        return self.move(log_density, start, self._fresh("hmc"), stop(step_size), num_leapfrog, moves)


def at_whole(found: Objective, whole: Mapping[str, Array], stop: Callable[[Array], Array]) -> Objective:
    """A piece's objective at the means of the whole minibatch, which move with the piece's: f(M), and f'(M) ∇ m.

    Summed over pieces, by their shares of the data, it has the value and the gradient of the whole minibatch's.

    Args:
        found: what an engine's objective returned.
        whole: the minibatch's means, by name.
        stop: x -> x without its gradient.
    """
    if "at" not in found:
        return found
    moved: Objective = found["at"]({n: m + stop(whole[n] - m) for n, m in found["means"].items()})
    return {**moved, MASS: found[MASS]} if MASS in found else moved


def adapted(accepted: Array, xp: Namespace) -> Array:
    """The factor for a step size after a move that was accepted with this probability."""
    return xp.exp(GAIN * (accepted - ACCEPT))


def check_found(engine: str, found: object) -> list[str]:
    """The names of the numbers that an objective returned.

    Args:
        engine: the name of its class.
        found: what it returned.

    Raises:
        ProgramError: what was got, and what was expected.
    """
    name = f"{engine}.objective"
    if not isinstance(found, Mapping):
        raise ProgramError(f"{name}: got {type(found).__name__}, expected a dictionary with 'objective'. Return one.")
    names = [n for n in found if n not in RESERVED]
    if "objective" not in names:
        raise ProgramError(
            f"{name}: got {listed(map(repr, names))}, expected 'objective' too, which is maximised. Return it."
        )
    for n in names:
        if not isinstance(n, str) or OF_HISTORY.fullmatch(n):
            raise ProgramError(f"{name}: got the name {n!r}, which the history uses otherwise. Give it another name.")
        shape = getattr(found[n], "shape", None)
        if shape is None or tuple(shape) != ():
            got = f"{type(found[n]).__name__}" if shape is None else f"an array of shape {tuple(shape)}"
            raise ProgramError(
                f"{name}: got {got} for {n!r}, expected one number as an array without axes. Take a mean over the "
                "minibatch with step.xp, which keeps its gradient."
            )
    return names
