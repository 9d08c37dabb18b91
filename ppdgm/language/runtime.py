"""A program on a device: the questions that training and evaluation ask, with NumPy arrays as answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

import numpy as np

from ppdgm.language import mistakes
from ppdgm.language.native import Tree
from ppdgm.language.phases import EngineLike, Hyperparameters, ObjectiveLike, OptimiserLike
from ppdgm.language.reader import Gradients
from ppdgm.language.shares import Share
from ppdgm.language.step import Step, check_found
from ppdgm.language.supports import Observed, Supports
from ppdgm.language.terms import split
from ppdgm.language.tracer import Params, Tracer
from ppdgm.language.turns import in_turn
from ppdgm.language.unseen import Unseen, is_given
from ppdgm.language.vocabulary import Array, Namespace, Noise, Trace

if TYPE_CHECKING:
    from ppdgm.language.native import Constraint, Device, OwnOptimiser

Arrays = Mapping[str, np.ndarray]
Values = dict[str, np.ndarray]
Native = dict[str, Array]
Fields = Mapping[str, np.ndarray | Unseen | None]  #: `Unseen` or None for a field that is not given
Name = TypeVar("Name")
Rest = TypeVar("Rest")
Question = Callable[..., Tree]  #: (runtime, params, noise, *native arrays, **what else) -> native arrays


class Rehearsal(NamedTuple):
    """What the objectives of an engine do.

    Attributes:
        scored: the sites whose draws carry no gradient.
        names: of the objectives' numbers.
        roles: the functions of the program that they run, except to generate data.
        whole: what needs the whole minibatch, in words.
        particles: the largest K of their traces.
    """

    scored: list[str]
    names: list[str]
    roles: list[str]
    whole: list[str]
    particles: int = 0


class Runtime(ABC):
    """Runs one program with one backend. A backend supplies `ask`, and where arrays live.

    Attributes:
        tracer: of the program.
        device: the library's own.
        facts: of the observed sites, once they are known.
        share: the part of this process, and the number of devices.
    """

    name: ClassVar[str]
    xp: ClassVar[Namespace]  #: array-API namespace
    supports: ClassVar[Supports]
    steps: ClassVar[type[Step]]  #: what an objective and a criterion see
    tracer: Tracer
    device: Device
    facts: list[Observed] | None = None
    share: Share = Share()

    @property
    @abstractmethod
    def place(self) -> str:
        """The device, or the number and kind of the devices, in words."""

    def check_trains(self) -> None:
        """Refuse to train a program whose steps can't be divided among the processes.

        Raises:
            UnsupportedByBackend: with the reason.
        """
        return None

    @in_turn
    def initialise(self, seed: int, data: Mapping[str, Array], dtype: str) -> Values:
        """First values of all parameters and buffers."""
        return self.tracer.initialise(seed, data, dtype)

    @in_turn
    def prepare(self, data: Mapping[str, Array]) -> None:
        """Let a plain pair be analysed with data; nothing for a program."""
        self.tracer.prepare(data)

    @abstractmethod
    def ask(self, question: Question, params: Params, seed: tuple[int, ...] | None, *at: Tree, **how: object) -> Tree:
        """The answer to `question(self, params, noise, *at, **how)`, as NumPy arrays.

        Args:
            question: a function of native arrays.
            seed: of the draws; None if there are none.
            at: native arrays.
            how: everything else, which JAX compiles for.
        """

    def misplaced(self, name: Hashable, function: Question, rows: Tree, data: Tree, params: Params) -> str | None:
        """What `function` takes outside an axis, where the library does not refuse it; None: it looks nothing up."""
        return None

    @abstractmethod
    def look(self, question: Question, params: Params, *at: Tree, **how: object) -> Tree:
        """The same as native arrays, of which only shapes, types and errors count: on JAX nothing is computed."""

    @abstractmethod
    def slopes(
        self, function: Callable[[dict[Name, Array]], tuple[Array, Rest]], z: dict[Name, Array]
    ) -> tuple[dict[Name, Array], Rest]:
        """The gradient of a function's value by each array of z; and what it returns besides the value."""

    @staticmethod
    @abstractmethod
    def nuts(
        log_density: Callable[[Mapping[str, Array]], Array], start: Native, noise: Noise, draws: int, warmup: int
    ) -> tuple[Native, Native]:
        """Draws by the library's No-U-Turn sampler, [chains, draws, …], and statistics.

        Hoffman & Gelman 2014, arXiv:1111.4246.

        Args:
            log_density: of latents by name, a scalar.
            start: latents [chains, …].
            noise: of the draws.
            draws: the number in each chain, after the warm-up.
            warmup: the number of draws that adapt step size and mass, and are left out.
        """

    def glance(self, params: Params, data: Native, index: np.ndarray, k: int, given: Arrays) -> Trace:
        """The terms of a few rows as in `trace`; nothing is compiled."""
        return self.trace(params, data, index, k, 0, given, False)

    @abstractmethod
    def validate(self, params: Params, data: Native, k: int, b: int) -> Trace:
        """One reading, step by step, with the library's checks of arguments and values on."""

    def sites(
        self, params: Params, fields: Fields, given: Arrays | None, size: int, apart: bool = False
    ) -> tuple[dict[str, tuple[tuple[int, ...], str]], list[str]]:
        """Shape and type of each site's draws in `conditioned`, and the held sites; without `given`, in `prior`."""
        how, held_at = {"size": size, "mean": False, "apart": apart}, None if given is None else self.put(given)
        latents, observed, held = self.look(from_prior, params, self.fields(fields), held_at, **how)
        kind = lambda v: (tuple(v.shape), str(v.dtype).removeprefix("torch."))
        return {n: kind(v) for n, v in (latents | observed).items()}, list(held)

    @abstractmethod
    def observed(self, params: Params, data: Native, index: np.ndarray, seed: int) -> list[Observed]:
        """What is known about each observed site."""

    @abstractmethod
    def noise(self, params: Params, data: Native, index: np.ndarray) -> str:
        """What to do about random numbers from outside the sample sites; "" if none count."""

    @abstractmethod
    def model_noise(self, params: Params, fields: Fields, size: int) -> str:
        """The same for draws from the model."""

    def batch_statistics(self, params: Params, data: Native, b: int) -> str | None:
        """What in the program's modules depends on the rows of a minibatch, in words; None if nothing does."""
        return None

    def noise_in_training(self, params: Params, data: Native, b: int) -> bool:
        """Whether modules, in the mode that they are trained in, draw random numbers that change a term."""
        return False

    @abstractmethod
    def bytes_written(self, params: Params, data: Native, k: int, b: int) -> int:
        """Bytes of all intermediate results of one reading with K particles and B rows.

        B is the pair's own if its data plate fixes it.
        """

    @abstractmethod
    def bytes_of_step(self, params: Params, data: Native, k: int, b: int, rematerialise: bool = False) -> int:
        """About the bytes that a reading with K particles and B rows, and its gradient, need at most; see `at_most`.

        With `rematerialise`, nets keep only their inputs.
        """

    @abstractmethod
    def free_bytes(self) -> int | None:
        """The memory of the device that is free; None if it is the host's, or not known."""

    @abstractmethod
    def why_not_compiled(self, engine: EngineLike, optimiser: OptimiserLike | OwnOptimiser) -> str:
        """Why torch.compile can't compile the steps of a run, in words; "" if it can."""

    def rehearse(
        self,
        engine: EngineLike,
        params: Params,
        data: Native,
        b: int,
        plan: Hyperparameters,
        data_size: int,
        chunk: int | None = None,
    ) -> Rehearsal:
        """The objective of each phase as in training, only to find its errors.

        Args:
            engine: with the phases.
            params: the program's, and the engine's own.
            data: on the device.
            b: number of rows.
            plan: hyperparameters of each phase, [S] each; the first are used.
            data_size: N.
            chunk: the number of particles that are read at a time.
        """
        index = self.index(np.arange(b) % len(next(iter(data.values()))))
        found, particles = Rehearsal([], [], [], []), [0]

        def run(runtime: Runtime, params: Params, noise: Noise, j: int, engine: ObjectiveLike) -> None:
            batch, now = self.select(data, index), self.put({n: v[0] for n, v in plan[j].items()})
            ones = self.xp.ones(b, device=self.device)
            step = self.steps(self.tracer, params, noise, batch, index, ones, now, data_size, chunk=chunk)
            found.names.extend(check_found(type(engine).__name__, engine.objective(step)))
            found.scored.extend(step.scored)
            found.roles.extend(step.scores)
            found.whole.extend(step.minibatch.whole)
            particles.append(step.particles)

        for j, phase in enumerate(engine.phases()):
            self.look(partial(run, j=j, engine=phase.engine), params)
        once = lambda names: list(dict.fromkeys(names))
        return found._replace(names=once(found.names), roles=once(found.roles), particles=max(particles))

    @abstractmethod
    def put(self, arrays: Mapping[str, Array], dtype: str | None = None) -> Native:
        """Arrays on the device; floating ones as `dtype`."""

    def send(self, arrays: Mapping[str, Array]) -> Callable[[], Native]:
        """Begin to put arrays on the device, perhaps in another thread than the steps'; the result waits for them."""
        native = self.put(arrays)
        return lambda: native

    def settings_here(self) -> AbstractContextManager[object]:
        """The library's settings of this thread, to be entered once in another one."""
        return nullcontext()

    @abstractmethod
    def fetch(self, arrays: Tree) -> Tree:
        """Device arrays as NumPy arrays."""

    @abstractmethod
    def index(self, rows: np.ndarray) -> Array:
        """Places of rows, on the device."""

    @abstractmethod
    def select(self, data: Native, index: Array) -> Native:
        """The minibatch as the tracer needs it: its rows, or all data if the program itself subsamples."""

    def trace(
        self, params: Params, data: Native, rows: np.ndarray, k: int, seed: int, given: Arrays | None, kl: bool
    ) -> Trace:
        """The terms of each site."""
        found: Trace = self.ask(traced, params, (seed,), data, self.index(rows), self.put(given or {}), k=k, kl=kl)
        return found

    def evaluate(
        self,
        function: Callable[[Trace, Namespace], Array],
        params: Params,
        data: Native,
        rows: np.ndarray,
        k: int,
        seed: tuple[int, ...],
        kl: bool,
    ) -> np.ndarray:
        """`function(trace, xp)` [K, B]."""
        found: np.ndarray = self.ask(_evaluated, params, seed, data, self.index(rows), function=function, k=k, kl=kl)
        return found

    def draws(
        self, params: Params, data: Native, rows: np.ndarray, k: int, seed: int, given: Arrays | None = None
    ) -> Values:
        """Latents drawn from the guide, [K, B, *event], except those that are given."""
        found: Values = self.ask(_drawn, params, (seed,), data, self.index(rows), self.put(given or {}), k=k)
        return found

    def means(self, params: Params, data: Native, rows: np.ndarray) -> tuple[Values, Values]:
        """Latent and observed sites at their means, [1, B, *event]."""
        found: tuple[Values, Values] = self.ask(_at_means, params, None, data, self.index(rows), {})
        return found

    def seen_at(self, params: Params, data: Native, rows: np.ndarray, latents: Arrays) -> Values:
        """Observed sites at their means given the data and all latents of the guide, [1, B, *event]."""
        found: Values = self.ask(_at_means, params, None, data, self.index(rows), self.put(latents))[1]
        return found

    def guide(self, params: Params, data: Native, rows: np.ndarray, given: Arrays) -> np.ndarray:
        """log q(z|x) at given latents [K, B or 1, *event], [K, B]."""
        found: np.ndarray = self.ask(_log_q, params, None, data, self.index(rows), self.put(given))
        return found

    def predictive(self, params: Params, data: Native, rows: np.ndarray, given: Arrays, seed: int) -> Values:
        """Observed sites drawn from the model at given latents, [K, B, *event]."""
        found: Values = self.ask(_predicted, params, (seed,), data, self.index(rows), self.put(given))
        return found

    def decoded(self, params: Params, data: Native, rows: np.ndarray, given: Arrays) -> Values:
        """Observed sites at their means given some latents, [1, B, *event]."""
        found: Values = self.ask(_decoded, params, None, data, self.index(rows), self.put(given))
        return found

    def prior(self, params: Params, fields: Fields, size: int, seed: int, mean: bool) -> tuple[Values, Values]:
        """Draws of latent and observed sites from the model, [1, size, *event], with the data `fields`."""
        native = self.fields(fields)
        found: tuple[Values, ...] = self.ask(
            from_prior, params, (seed,), native, None, size=size, mean=mean, apart=False
        )
        return found[0], found[1]

    def conditioned(
        self, params: Params, fields: Fields, given: Arrays, size: int, seed: int, mean: bool, apart: bool = False
    ) -> tuple[Values, Values, Values]:
        """The same with sites held at `given` [1, size, *event] and at data in `fields`; and the log p of those sites.

        If these are known to be `apart` from the sites drawn before them, they may come after those.
        """
        native, held = self.fields(fields), self.put(given)
        found: tuple[Values, Values, Values] = self.ask(
            from_prior, params, (seed,), native, held, size=size, mean=mean, apart=apart
        )
        return found

    def joint(
        self, params: Params, data: Native, rows: np.ndarray, given: Arrays, temperature: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Values]:
        """log p(z) and log p(x|z) at given latents, [K, B], and the gradient of log p(z) + τ · log p(x|z) by them.

        Args:
            given: latents [K, B, *event].
            temperature: τ, [K, B] or [].
        """
        kinds = (str(v.dtype).removeprefix("torch.") for v in params.values())
        heat = self.put({"": temperature}, next((kind for kind in kinds if "float" in kind), "float32"))[""]
        found: tuple[np.ndarray, np.ndarray, Values] = self.ask(
            _tempered, params, None, data, self.index(rows), self.put(given), heat
        )
        return found

    def refine(
        self, params: Params, data: Native, start: Arrays, draws: int, warmup: int, seed: int
    ) -> tuple[Values, Values]:
        """Draws of one row's latents from the posterior by the library's NUTS; `start` [chains, *event].

        Returns:
            Draws [chains, draws, *event] by site, and statistics [chains, draws].
        """
        index = self.index(np.zeros(1, int))
        found: tuple[Values, Values] = self.ask(
            _chains, params, (seed,), data, index, self.put(start), draws=draws, warmup=warmup
        )
        return found

    def check_walked(self, params: Params, data: Native, rows: np.ndarray) -> None:
        """Refuse latents that Hamiltonian Monte Carlo can't move."""
        mistakes.check_drawn(self.look(_walked, params, data, self.index(rows)))

    def inside(self, params: Params, data: Native, rows: np.ndarray, seed: int) -> Values:
        """Whether the value of each observed site is in its support, given a draw of the guide, [B]."""
        found: Values = self.ask(_inside, params, (seed,), data, self.index(rows))
        return found

    def within(self, support: Constraint, rows: np.ndarray) -> np.ndarray:
        """Whether all numbers of each row are in a support that has no arrays, [N]."""
        found: np.ndarray = np.asarray(self.supports.check(support, rows)).reshape(len(rows), -1)
        return np.all(found, axis=-1)

    def fields(self, fields: Fields) -> dict[str, Array | None]:
        """Data on the device; `Unseen` or None for fields that are not given."""
        native = self.put({n: v for n, v in fields.items() if is_given(v)})
        return {n: native.get(n, v) for n, v in fields.items()}


def at_most(kept: Collection[int]) -> int:
    """About the bytes of a step that keeps arrays of these sizes for its gradient.

    At most some three more of the largest are in use: its gradient, and what is computed on the way to it. (Peaks of
    a VAE 784-200-200-50 with 1,000 to 2,000 particles: 0.95 of this on JAX, 1.3 to 1.5 on torch.)
    """
    return sum(kept) + 3 * max(kept, default=0)


def traced(
    runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, given: Native, k: int, kl: bool
) -> Trace:
    """The terms of each site, as native arrays."""
    return runtime.tracer.trace(params, noise, runtime.select(data, index), index, k, given, kl)


def _evaluated(
    runtime: Runtime,
    params: Params,
    noise: Noise,
    data: Native,
    index: Array,
    function: Callable[[Trace, Namespace], Array],
    k: int,
    kl: bool,
) -> Array:
    return function(traced(runtime, params, noise, data, index, {}, k, kl), runtime.xp)


def _walked(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array) -> Trace:
    how = Gradients(relaxed=False, scored=[], walked=True)
    return runtime.tracer.trace(params, noise, runtime.select(data, index), index, 1, gradients=how)


def _tempered(
    runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, given: Native, temperature: Array
) -> tuple[Array, Array, Native]:
    batch, xp = runtime.select(data, index), runtime.xp
    moved = {n: v for n, v in given.items() if xp.isdtype(v.dtype, "real floating")}  # others have no slopes

    def total(z: Native) -> tuple[Array, tuple[Array, Array]]:
        every = {n: z.get(n, v) for n, v in given.items()}
        prior, seen = split(runtime.tracer.model(params, batch, index, every), every)
        return (prior + xp.astype(temperature, prior.dtype) * seen).sum(), (prior, seen)

    slopes, (prior, seen) = runtime.slopes(total, moved)
    return prior, seen, {n: slopes[n] if n in slopes else xp.zeros_like(v) for n, v in given.items()}


def _chains(
    runtime: Runtime,
    params: Params,
    noise: Noise,
    data: Native,
    index: Array,
    start: Native,
    draws: int,
    warmup: int,
) -> tuple[Native, Native]:
    batch = runtime.select(data, index)

    def log_density(z: Mapping[str, Array]) -> Array:
        given = {n: v[None, None] for n, v in z.items()}  # one particle of one row
        return sum(v.sum() for v in runtime.tracer.model(params, batch, index, given).values())

    return runtime.nuts(log_density, start, noise, draws, warmup)


def _drawn(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, given: Native, k: int) -> Native:
    return runtime.tracer.draws(params, noise, runtime.select(data, index), index, k, given)


def _at_means(
    runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, given: Native
) -> tuple[Native, Native]:
    return runtime.tracer.means(params, runtime.select(data, index), index, given)


def _log_q(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, given: Native) -> Array:
    k, b = len(next(iter(given.values()))), index.shape[0]
    given = {n: runtime.xp.broadcast_to(v, (k, b, *v.shape[2:])) for n, v in given.items()}
    terms: Array = sum(runtime.tracer.guide(params, runtime.select(data, index), index, given).values())
    return terms


def _predicted(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, given: Native) -> Native:
    return runtime.tracer.predictive(params, noise, runtime.select(data, index), index, given)


def _decoded(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array, given: Native) -> Native:
    return runtime.tracer.decoded(params, runtime.select(data, index), index, given)


def from_prior(
    runtime: Runtime,
    params: Params,
    noise: Noise,
    fields: Mapping[str, Array | None],
    given: Native | None,
    size: int,
    mean: bool,
    apart: bool,
) -> tuple[Native, Native, Native]:
    """Draws from the model, as native arrays; see `Tracer.prior`."""
    return runtime.tracer.prior(params, noise, fields, size, mean, given, apart)


def _inside(runtime: Runtime, params: Params, noise: Noise, data: Native, index: Array) -> Native:
    sites = runtime.tracer.observed(params, noise, runtime.select(data, index), index)
    return {s.name: runtime.supports.rows_inside(s) for s in sites}
