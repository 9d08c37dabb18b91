"""The view that an objective has of one training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ppdgm.errors import ProgramError, listed
from ppdgm.language.interpreter import Gradients
from ppdgm.language.scales import scaled
from ppdgm.language.vocabulary import Array, Trace

ACCEPT, GAIN = 0.8, 0.1  #: the acceptance that a step size is adapted to, and how fast its logarithm moves
OWN = "engine/"  #: the prefix of names of an engine's own parameters and numbers


@dataclass
class Tracing:
    """Readings of a minibatch, and the arithmetic that the array API lacks.

    Attributes:
        xp: array namespace.
        stop_gradient: x -> x without its gradient.
        logsumexp: (x, axis) -> log Σ exp x.
        gumbel: shape -> Gumbel noise.
        trace: (gradients, given, kl, stopped) -> a reading's terms; `dream` likewise.
        models: (gradients, given) -> log p of the model's sites.
        walks: (start, step_size, leaps, moves) -> latents after moves of HMC on p(z|x), and the new ε.
        rows: () -> the minibatch's fields, [B, …].
        params: the program's, and the engine's own.
        gradients: how they pass through draws.
        scales: of a plain pair's sites, in training; see `constant_scales`.
    """

    xp: Any
    stop_gradient: Callable[[Array], Array]
    logsumexp: Callable[..., Array]
    gumbel: Callable[[tuple[int, ...]], Array]
    trace: Callable[..., Trace]
    dreams: Callable[[Gradients], dict[str, Array]]
    models: Callable[[Gradients, Mapping[str, Array]], dict[str, Array]]
    walks: Callable[..., tuple[dict[str, Array], Array]]
    rows: Callable[[], Mapping[str, Array]]
    params: Mapping[str, Array]
    gradients: Gradients
    scales: Mapping[str, float] = field(default_factory=dict)

    def read(
        self,
        given: Mapping[str, Array] | None = None,
        kl: bool = False,
        stopped: bool = False,
        weighed: bool = False,
    ) -> Trace:
        """Guide, then model, at fresh draws.

        Args:
            given: values of the latents, [K, B, *event], instead of draws.
            kl: whether to add closed forms.
            stopped: whether the guide's densities carry gradients only to values, and not to parameters.
            weighed: whether the objective takes the scales of sites into account.

        Raises:
            ProgramError: there are scales, and the objective ignores them.
        """
        if self.scales and not weighed:
            raise scaled("this engine", next(iter(self.scales)))
        return self.trace(self.gradients, given, kl, stopped)

    def dream(self) -> dict[str, Array]:
        """log q of the guide's sites at latents and data drawn from the model, [1, B]; the draws carry no gradient."""
        return self.dreams(self.gradients)

    def model(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """log p of the model's sites at given latents [K, B, *event], [K, B]."""
        return self.models(self.gradients, given)

    def walk(
        self, start: Mapping[str, Array], step_size: Array, leaps: int, moves: int
    ) -> tuple[dict[str, Array], Array]:
        """Latents moved by Hamiltonian Monte Carlo on log p(x, z), which is the backend's own kernel; no gradient.

        Args:
            start: latents [K, B, *event], which move together.
            step_size: ε at first.
            leaps: leapfrog steps of a move.
            moves: number of moves.

        Returns:
            The latents, and the step size, adapted move by move to an acceptance of 0.8.
        """
        return self.walks(start, step_size, leaps, moves)

    @property
    def scored(self) -> list[str]:
        """The sites of the last reading whose draws carry no gradient, each once."""
        return list(dict.fromkeys(self.gradients.scored or ()))


def at_whole(found: dict[str, Any], whole: Mapping[str, Array], stop: Callable[[Array], Array]) -> dict[str, Any]:
    """A piece's objective at the means of the whole minibatch, which move with the piece's: f(M), and f'(M) ∇ m.

    Summed over pieces, by their shares of the data, it has the value and the gradient of the whole minibatch's.

    Args:
        found: what an engine's objective returned.
        whole: the minibatch's means, by name.
        stop: x -> x without its gradient.
    """
    if "at" not in found:
        return found
    moved: dict[str, Any] = found["at"]({n: m + stop(whole[n] - m) for n, m in found["means"].items()})
    return moved


def adapted(accepted: Array, xp: Any) -> Array:
    """The factor for a step size after a move that was accepted with this probability."""
    return xp.exp(GAIN * (accepted - ACCEPT))


def knobs_of(knobs: Mapping[str, Array], phase: int) -> dict[str, Array]:
    """The numbers of one phase, from those of all phases: `name` for the first phase, `name@i` for the others."""
    split = {n: n.partition("@") for n in knobs}
    return {split[n][0]: v for n, v in knobs.items() if (split[n][2] or "0") == str(phase)}


def groups_of(engine: Any, labels: Mapping[str, str]) -> list[tuple[Any, list[list[str]]]]:
    """Each phase's engine, with the parameters that each of its players moves."""
    found = []
    for phase in engine.phases():
        moving = phase.moving(labels)
        players = phase.engine.players
        found.append((phase.engine, [[n for n in moving if labels[n] == p] for p in players] or [moving]))
    return found


def check_told(engine: Any, metrics: tuple[str, ...], found: Any) -> None:
    """Refuse what an engine's objective returns, unless it has all its metrics, each a single number.

    Args:
        engine: the engine with the objective.
        metrics: the metrics that the run keeps.
        found: what the objective returned.

    Raises:
        ProgramError: what was got, and what was expected.
    """
    name = f"{type(engine).__name__}.objective"
    wanted = dict.fromkeys(("objective", *metrics))
    if not isinstance(found, Mapping):
        raise ProgramError(
            f"{name}: got {type(found).__name__}, expected a dictionary with {listed(map(repr, wanted))}. Return one."
        )
    if "objective" not in metrics:
        raise ProgramError(f"{name}: got metrics={metrics!r}, without 'objective'. Add it to the metrics.")
    if missing := [n for n in wanted if n not in found]:
        raise ProgramError(
            f"{name}: got {listed(map(repr, found))}, expected {missing[0]!r} too. Return it; or, if the engine does "
            "not compute it, leave it out of the engine's metrics: metrics: ClassVar[tuple[str, ...]] = ('objective',)."
        )
    for n in wanted:
        shape = getattr(found[n], "shape", None)
        if shape is None or tuple(shape) != ():
            got = f"{type(found[n]).__name__}" if shape is None else f"an array of shape {tuple(shape)}"
            raise ProgramError(
                f"{name}: got {got} for {n!r}, expected one number as an array without axes. Take a mean over the "
                "minibatch with tracing.xp, which keeps its gradient."
            )
