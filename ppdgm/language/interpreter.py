"""The direct interpreter: it runs one function of a program without handlers, over either backend's arrays.

It only draws and scores. Mistakes in a program's sites are found here, with messages in `mistakes`; any other error of
a program is reported with its line.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NoReturn

from ppdgm.errors import PpdgmError, ProgramError, explain
from ppdgm.language import enumeration, mistakes, states
from ppdgm.language.implicit import is_implicit, no_density
from ppdgm.language.points import points
from ppdgm.language.reader import Reader
from ppdgm.language.roles import no_function, wrong_fields
from ppdgm.language.scan import Body, Scan
from ppdgm.language.steps import Tree
from ppdgm.language.unseen import Unseen, is_given
from ppdgm.language.vocabulary import Array, Batch, Declarations, Dist, Namespace, Noise, ProgramLike, Vocabulary


class Ask:
    """Runs functions of a program at one set of parameters and data. Each run has draws of its own.

    Args:
        program: whose functions are run.
        declared: its declarations.
        words: the backend's vocabulary.
        reader: the backend's draws and densities.
        params: by name.
        data: the minibatch, [B, …].
        size: B.
        stop: x -> x without its gradient.
    """

    def __init__(
        self,
        program: ProgramLike,
        declared: Declarations,
        words: type[Vocabulary],
        reader: Reader,
        params: Mapping[str, Array],
        data: Batch,
        size: int,
        stop: Callable[[Array], Array],
    ):
        self.program, self.declared, self.words, self.reader = program, declared, words, reader
        self.params, self.data, self.size, self.stop = params, data, size, stop

    def run(
        self,
        role: str,
        k: int = 1,
        given: Mapping[str, Array] | None = None,
        data: Batch | None = None,
        stopped: bool = False,
        **how: Any,
    ) -> DirectInterpreter:
        """One run of the program's function `role`.

        Args:
            role: "model", "guide", or another function of the program.
            k: K, particles.
            given: values of latents, [K, B, *event], which are not drawn.
            data: in the place of the minibatch.
            stopped: whether the densities have no gradient to parameters, and only one to values.
            how: what else `DirectInterpreter` takes.

        Raises:
            ProgramError: the program has no such function; or any error that it raises, with the line that it comes
                from.
        """
        run = DirectInterpreter(self.reader, (k, self.size), given or {}, **how)
        params = {n: self.stop(v) for n, v in self.params.items()} if stopped else self.params
        run.P = self.words(run, params, self.declared)
        batch = self.data if data is None else data
        run.fields = tuple(batch.values())
        before = self.reader.stamps(batch)
        function = getattr(self.program, role, None)
        if not callable(function):
            raise no_function(self.program, role)
        try:
            run.returned = function(run.P, **batch)
        except PpdgmError:
            raise
        except Exception as error:
            own = isinstance(error, TypeError) and role not in ("model", "guide")
            wrong = wrong_fields(self.program, role, batch) if own else None
            raise wrong or explain(self.program, error) from error
        if self.reader.stamps(batch) != before:
            raise mistakes.changed(role)
        return run


class _InPlate:
    """Marks the statements inside the data plate. It is a plain class, because torch.compile traces those."""

    def __init__(self, interpreter: DirectInterpreter):
        self.interpreter = interpreter

    def __enter__(self) -> None:
        self.interpreter.inside = True

    def __exit__(self, *_: object) -> None:
        self.interpreter.inside = False

    def __iter__(self) -> Iterator[NoReturn]:
        raise ProgramError("A plate is not a loop. Write `with P.plate(name, x):`, and compute with all rows at once.")


class DirectInterpreter:
    """One run of one function of a program: it draws the sites that are not given, and scores everything.

    Args:
        reader: the backend's draws and densities.
        shape: (K, B).
        given: values of latent sites, [K, B, *event]; sites not in it are drawn.
        choose: `draw`, or `mean` to put each latent at its mean.
        generate: observed sites are drawn too; their data are ignored.
        axes: sites that are already enumerated, with their number of values; None to enumerate nothing.
        holds: data that are given, or None. With `generate`, sites that are observed at them stay there. A value that
            is held, of data or `given`, may have no site before it that is drawn, because it would say something about
            that site.
        apart: it is known that held values do not depend on sites drawn before them.
        follows: observed sites that are put at their means, while what comes after them sees the values in `given`.
        looks: whether a scan finds the rows that are in the supports of its observed sites.
        scattered: whether a discrete site is drawn with the same probability for each of its values, if it lists them.
        full: whether terms of which training draws a part are computed in full.

    Attributes:
        P: the vocabulary that the function was run with.
        returned: what the function returned.
        updates: state -> the new value that this run gave.
    """

    P: Vocabulary
    returned: Array = None

    def __init__(
        self,
        reader: Reader,
        shape: tuple[int, int],
        given: Mapping[str, Array],
        choose: str = "draw",
        generate: bool = False,
        axes: Mapping[str, int] | None = MappingProxyType({}),
        holds: tuple[Array, ...] | None = None,
        apart: bool = False,
        follows: Container[str] = (),
        looks: bool = False,
        scattered: bool = False,
        full: bool = False,
    ):
        self.reader, self.shape, self.given, self.holds = reader, shape, given, holds
        self.apart, self.follows, self.looks, self.scattered = apart, follows, looks, scattered
        self.axes, self.enumerates = dict(axes or {}), axes is not None and not generate
        self.choose, self.generate = choose, generate
        self.inside, self.looping = False, False
        self.recomputes = reader.gradients is not None and reader.gradients.rematerialise
        self.full = full
        self.values: dict[str, Array] = {}
        self.log_prob: dict[str, Array] = {}
        self.dists: dict[str, Dist] = {}
        self.observed: list[str] = []
        self.shared: list[str] = []
        self.penalties: dict[str, Array] = {}
        self.updates: dict[str, Array] = {}
        self.seen: dict[str, Array] = {}  # the values that other sites get of a site at its mean
        self.held: list[str] = []
        self.drawn: list[str] = []
        self.summed: list[str] = []  # with `generate`, latents that ask to be summed out
        self.fields: tuple[Array | Unseen, ...] = ()  # the data
        self.scanned: list[Array] = []  # outputs of scans
        self.scans = 0

    def plate(self, name: str, data: Array) -> AbstractContextManager[object]:
        if self.inside:
            raise ProgramError(
                f"Plate {name!r} is inside another plate. A program has only the data plate. Declare inner dimensions "
                "with .to_event(n)."
            )
        if not isinstance(data, Unseen) and not getattr(data, "shape", ()):
            raise ProgramError(
                f"Plate {name!r}: got {data!r}, expected the data themselves, [B, …]: P.plate({name!r}, x)."
            )
        if is_given(data) and data.shape[0] != self.shape[1]:
            raise ProgramError(
                f"Plate {name!r}: got data of {data.shape[0]} rows, expected {self.shape[1]}, the rows of the "
                "minibatch that model and guide receive."
            )
        return _InPlate(self)

    def sample(
        self, name: str, dist: Dist, obs: Array | None = None, infer: Mapping[str, object] | None = None
    ) -> Array:
        data = obs if not self.generate or self._is_given(obs, dist) else None
        mistakes.check_statement(name, dist, data, self.reader.native, self.reader.arrays)
        if name in self.dists or name in self.values:
            raise mistakes.twice(name)
        if getattr(dist, "discrete", None) is not None:
            dist = self._relaxed(name, dist)
        shape = self.shape if self.inside else (self.shape[0], 1)
        lead = self._lead(tuple(dist.batch_shape))
        mistakes.check_batch_shape(name, dist, shape, self.inside, obs is not None, lead)
        self.dists[name] = dist
        if not self.inside:
            self.shared.append(name)
        if obs is not None:
            self.observed.append(name)
        elif self.generate and name not in self.given and enumeration.wanted(name, infer):
            self.summed.append(name)
        held = self.holds is not None and self._is_held(name, data)
        if data is not None:
            mistakes.check_observation(name, tuple(data.shape), tuple(dist.event_shape), shape, self.inside)
            value, log_prob = self.reader.hold(dist, data, shape) if held else (data, self._score(name, dist, data))
        elif name in self.given and name not in self.follows:
            value = self.given[name]
            got, events = tuple(value.shape), len(dist.event_shape)
            if name in self.axes:  # [S, 1, …, 1, *event]
                got = (*shape, *got[3 + list(self.axes).index(name) :])
            elif self.axes:  # enumerated sites that the value depends on
                got = got[len(self._lead(got[: len(got) - events])) :]
            mistakes.check_given(name, got, tuple(dist.event_shape), shape, self.inside)
            value, log_prob = self.reader.hold(dist, value, shape) if held else (value, self._score(name, dist, value))
        elif self.choose == "mean":
            told, seen = points(name, dist, latent=obs is None)  # not scored: a mean may lie outside the support
            self.values[name] = self.reader.broadcast(told, (*shape, *dist.event_shape))
            seen = self._followed(name, obs, dist, told) if seen is told else self.reader.as_draw(dist, seen)
            self.seen[name] = self.reader.broadcast(seen, self.values[name].shape)
            return self.seen[name]
        elif self.enumerates and (enumeration.wanted(name, infer) or self._must_enumerate(dist)):
            if not self.inside:
                raise mistakes.enumerated_outside(name)
            value = enumeration.all_values(name, dist, self.axes, self.reader.reshape)
            self.axes[name] = len(value)
            log_prob = self._score(name, dist, value)
        elif is_implicit(dist):
            if seen := tuple(getattr(obs, "shape", ())):  # no density would show that it is another
                mistakes.check_observation(name, seen, tuple(dist.event_shape), shape, self.inside)
            self.values[name] = self.reader.broadcast(dist.mean, (*lead, *shape, *dist.event_shape))
            return self.values[name]
        else:
            self._check_pathwise(name, dist)
            value, log_prob = self.reader.draw(dist, (*lead, *shape))
            if self.scattered and (values := enumeration.values_listed(dist)) is not None:
                value = self._any_of(values, dist, (*lead, *shape))
        self.values[name] = value
        self.log_prob[name] = self.reader.broadcast(log_prob, (*self._lead(tuple(log_prob.shape)), *shape))
        return value

    def _any_of(self, values: Array, dist: Dist, shape: tuple[int, ...]) -> Array:
        """A draw [*shape, *event] in which each of the values [S, *event of one] has the same probability."""
        each = shape + tuple(dist.event_shape)[: len(dist.event_shape) + 1 - values.ndim]
        index, _ = self.reader.draw(self.P.dist.Categorical(logits=self.P.full((len(values),), 0.0)), each)
        return self.reader.as_draw(dist, values[index])

    def _followed(self, name: str, obs: Array | None, dist: Dist, mean: Array) -> Array:
        """What comes after a site at its mean sees of it: of an observed one its data, as in the density, or its draw.

        The mean of a class or of a bit is none of its values, and f(mean) is not the mean of f.
        """
        if name in self.follows:
            return self.given[name]
        if not is_given(obs) or self.holds is not None:
            return mean
        mistakes.check_observation(name, tuple(obs.shape), tuple(dist.event_shape), self.shape, self.inside)
        return obs

    def _is_given(self, obs: Array | None, dist: Dist) -> bool:
        """Whether a site is observed at given data or values computed from them: not at a constant or a draw."""
        if self.holds is None or obs is None or isinstance(obs, Unseen):
            return False
        return any(obs is data for data in self.holds) or obs.ndim > len(dist.event_shape)

    def _is_held(self, name: str, data: Array | None) -> bool:
        held = data is not None or name in self.given
        if held and self.drawn and not self.apart:
            raise mistakes.held_below(name, self.drawn, name in self.observed)
        (self.held if held else self.drawn).append(name)
        return held

    def _relaxed(self, name: str, dist: Dist) -> Dist:
        """A relaxation, only for draws in training, or the discrete distribution that it stands for."""
        how = self.reader.gradients
        if name in self.axes or how is None or not how.relaxed or how.enumerate:
            return dist.discrete
        if how.loose is not None:
            how.loose.append(name)
        return dist

    def _must_enumerate(self, dist: Dist) -> bool:
        how = self.reader.gradients
        return how is not None and how.enumerate and not self.reader.has_pathwise(dist)

    def _check_pathwise(self, name: str, dist: Dist) -> None:
        """Refuse, or record, a draw that carries no gradient."""
        if (how := self.reader.gradients) is not None:
            how.note(name, dist, self.inside, self.reader.has_pathwise(dist))

    def _lead(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The dimensions of enumerated sites before [K, B]."""
        return enumeration.leading(shape, self.axes)

    def penalty(self, name: str, value: Array) -> None:
        if not self.inside:
            raise mistakes.penalty_outside(name)
        mistakes.check_new_penalty(name, value, self.penalties)
        mistakes.check_penalty(name, tuple(value.shape)[len(self._lead(tuple(value.shape))) :], self.shape)
        self.penalties[name] = value

    def noise(self) -> Noise:
        return self.reader.noise()

    def drops(self) -> bool:
        """Whether dropout is on: in the runs of a training step."""
        if self._minibatch is None:
            return False
        self._minibatch.dropped[:] = ["the program takes P.dropout"]
        return True

    def draws_terms(self) -> bool:
        """Whether terms are drawn in part: where a training step scores data with noise."""
        if self._minibatch is None or self.generate or self.full:
            return False
        self._minibatch.dropped[:] = ["the program takes P.training_random"]
        return True

    def estimates(self, what: str) -> bool:
        if self._minibatch is not None:
            self._minibatch.estimated.append(what)
        return self._minibatch is not None

    def _score(self, name: str, dist: Dist, value: Array) -> Array:
        if is_implicit(dist):
            raise no_density(name)
        if name in self.observed:
            return self.reader.observe(dist, value)
        found = mistakes.scored(name, dist, lambda: self.reader.log_prob(dist, value))
        return found if self.reader.gradients else self.reader.confine(dist, value, found)

    def sibling(self, reader: Reader, given: Mapping[str, Array]) -> DirectInterpreter:
        """A run like this one for one time of a scan; it enumerates nothing."""
        how = self.choose, self.generate, None, self.holds, self.apart, self.follows
        return DirectInterpreter(reader, self.shape, given, *how, scattered=self.scattered, full=self.full)

    def scan(
        self, P: Vocabulary, body: Body, carry: Tree, xs: Tree, length: int | None, mask: Array | None
    ) -> tuple[Tree, Tree]:
        return Scan(self, P, body, carry, xs, length, mask).result()

    def param(self, name: str, value: Array) -> Array:
        return value

    @property
    def _minibatch(self) -> states.Minibatch | None:
        return None if self.reader.gradients is None else self.reader.gradients.minibatch

    def update(self, name: str, value: Array, state: Array) -> None:
        states.check_update(name, value, state, self.updates, self.reader.arrays)
        self.updates[name] = self.P.stop_gradient(value)
        if self._minibatch is not None:
            self._minibatch.update(name, self.updates[name])

    def batch_mean(self, value: Array, event_ndim: int, otherwise: Array | None, xp: Namespace) -> Array:
        lead = states.axes_before(value, event_ndim, otherwise, self.shape, self.reader.arrays, xp)
        if self._minibatch is None:
            return states.mean_of_rows(value, lead, None, xp) if otherwise is None else otherwise
        self._minibatch.whole.append("the program takes P.batch_mean")
        return self._minibatch.joined(states.mean_of_rows(value, lead, self._minibatch.weights, xp))

    def deterministic(self, name: str, value: Array) -> Array:
        if name in self.values:
            raise mistakes.twice(name)
        self.values[name] = value
        return value
