"""The case that a check runs on: a part with the small programs around it, their parameters, and data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from ppdgm.catalogue import public_specs
from ppdgm.errors import BackendMissing, PpdgmError, UnsupportedByBackend
from ppdgm.language.vocabulary import Array, Declarations
from ppdgm.models import MLP, VAE, Bernoulli, Flow, FlowPosterior, FlowPrior, Likelihood, Net, Posterior, Prior, Program
from ppdgm.nets import ForeignNet
from ppdgm.program import Context
from ppdgm.specs import Spec
from ppdgm.testing.bench import Bench
from ppdgm.testing.wrappers import Alone, AlonePrior, FlowMap, Mapped

HEADS, DATA, PARTICLES = 3, 5, 4  #: no two sizes are equal, so that no axis can be taken for another
DRAWS = 40_000  #: number of draws for each head
SMALL = MLP(hidden=(3,))
DataOf = Mapping[str, Array] | Callable[[np.random.Generator, int], Mapping[str, Array]] | None
Made = TypeVar("Made")
PartT = TypeVar("PartT")


@dataclass
class PartCase:
    """A part, and the programs in which its invariants are checked.

    Attributes:
        spec: a prior, posterior, likelihood, net, flow or program.
        shape: the shape of one draw; for a net, of its outputs.
        inputs: the shape of a net's inputs; for a prior, of the inputs of the posterior that it may be made of.
        given: data for a program: by name, or a function (rng, size) that gives them.
        still: parameters that training does not change, each with the reason.
        tolerance: relative tolerance of float32 numbers.
        seed: the seed of everything random.
        backends: the backends to run on.
    """

    spec: Spec
    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    given: DataOf
    still: Mapping[str, str]
    tolerance: float
    seed: int
    backends: tuple[str, ...]
    missing: dict[str, str] = field(default_factory=dict)
    _made: dict[Hashable, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Leave out the backends on which the program can't run."""
        for name in self.backends:
            try:
                self.bench(self.program, name)
            except (BackendMissing, UnsupportedByBackend) as error:
                self.missing[name] = str(error)
        self.backends = tuple(n for n in self.backends if n not in self.missing)
        if not self.backends:
            raise PpdgmError(f"No backend to check on. {' '.join(self.missing.values())}")

    def rng(self, *stream: int) -> np.random.Generator:
        """A separate generator for each use."""
        return np.random.default_rng([self.seed, *stream])

    # --- the programs -------------------------------------------------------------------------------------------------

    @property
    def part(self) -> Spec:
        """The part that has a density: the part itself, or the prior or posterior that is made of a flow."""
        if not isinstance(self.spec, Flow):
            return self.spec
        return FlowPrior(flow=self.spec) if self.spec.fast == "inverse" else FlowPosterior(flow=self.spec)

    @cached_property
    def program(self) -> Program:
        """The part in a small program, or the program itself."""
        part = self.part
        if isinstance(part, Program):
            return part
        if isinstance(part, Net):
            return Mapped(net=part, inputs=self.inputs, event_shape=self.shape)
        fields: dict[str, Any] = {"event_shape": (3,), "latent": self.shape, "encoder": SMALL, "decoder": SMALL}
        if isinstance(part, Likelihood):
            return VAE(**{**fields, "event_shape": self.shape, "latent": 2}, likelihood=part)
        fields["likelihood"] = Bernoulli()
        if isinstance(part, Posterior):
            return VAE(**fields, posterior=part, prior=partner(Prior, part.family))  # type: ignore[type-abstract]  # a concrete one
        if isinstance(part, Prior):
            guide = partner(Posterior, part.family)  # type: ignore[type-abstract]  # a concrete one
            return VAE(**{**fields, "event_shape": self.inputs}, prior=part, posterior=guide)
        raise PpdgmError(
            f"check: got {type(part).__name__}, expected a prior, posterior, likelihood, flow, net or program, such as "
            "MyPrior()."
        )

    @cached_property
    def alone(self) -> Alone | AlonePrior | None:
        """A program whose only distribution is the part; None if the part is not a distribution."""
        part = self.part
        if isinstance(part, Prior):
            posterior = partner(Posterior, part.family)  # type: ignore[type-abstract]  # a concrete one
            return AlonePrior(part=part, shape=posterior.variable(self.shape), posterior=posterior, inputs=self.inputs)
        if isinstance(part, Posterior):
            shape = part.variable(self.shape)
            return Alone(part=part, shape=shape, standard=part.family == "real")
        return Alone(part=part, shape=self.shape) if isinstance(part, Likelihood) else None

    @property
    def flow(self) -> FlowMap | None:
        """The flow as a function, if it is one."""
        return FlowMap(flow=self.spec, width=int(np.prod(self.shape))) if isinstance(self.spec, Flow) else None

    @property
    def context_width(self) -> int:
        """How many numbers of context the flow reads."""
        assert isinstance(self.spec, Flow)
        return self.spec.build(Context(Declarations(), "flow."), int(np.prod(self.shape)), True)

    @property
    def one_way(self) -> bool:
        """Whether some density is known only at its own draws."""
        return any(getattr(s, "one_way", False) for s in nested(self.spec))

    @property
    def by_rejection(self) -> bool:
        """Whether some draws of the program, of the same noise, jump as parameters move."""
        return any(getattr(s, "by_rejection", False) for s in nested(self.program))

    @property
    def as_text(self) -> bool:
        """Whether text can hold the whole spec; it can't hold modules of other libraries."""
        return not any(isinstance(s, ForeignNet) for s in nested(self.spec))

    @property
    def classes(self) -> list[type[Spec]]:
        """The user's own classes in the spec."""
        found = {type(s) for s in nested(self.program)}
        return [cls for cls in found if ":" in cls.kind()]

    @property
    def quick(self) -> str:
        """The backend for draws that any backend can make: Pyro if possible, because it compiles nothing."""
        return "pyro" if "pyro" in self.backends else self.backends[0]

    # --- their parameters, data and backends --------------------------------------------------------------------------

    def bench(self, program: Program, backend: str) -> Bench:
        """The program on a backend; equal programs get the same one, so that they share compiled functions."""
        found: Bench = self.once((program, backend), lambda: Bench(program, backend, self.params(program), self.seed))
        return found

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The result of `make`, which is called only once."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def params(self, program: Program) -> dict[str, np.ndarray]:
        """First values plus noise: none is 0 or 1, and no two are equal."""
        declared, first = program.declarations(), program.initialise(self.seed, None, "float64")
        rng = self.rng(1)
        noise = lambda v: 0.3 * rng.normal(size=v.shape) / max(1, np.prod(v.shape[:-1])) ** 0.5
        still = {*declared.schedules, *declared.states}  # a state may have values that only updates reach
        return {n: v if n in still else v + noise(v) for n, v in first.items()}

    @cached_property
    def heads(self) -> np.ndarray:
        """Heads for the program `alone`, [HEADS, *head]; for a prior, only HEADS matters, the number of draws."""
        return self.rng(2).normal(size=(HEADS, *self.head_shape))

    @property
    def reads_no_head(self) -> bool:
        """Whether the part is a prior."""
        return isinstance(self.alone, AlonePrior)

    @property
    def head_shape(self) -> tuple[int, ...]:
        """Shape of the head that the part reads."""
        if not isinstance(self.alone, Alone):
            return (1,)
        return Context(Declarations()).part(self.alone.part, self.alone.shape)

    @cached_property
    def data(self) -> dict[str, np.ndarray]:
        """DATA rows for the program: as given, or drawn from the program itself."""
        if callable(self.given):
            return _arrays(self.given(self.rng(3), DATA))
        if self.given is not None:
            return {n: np.resize(a, (DATA, *a.shape[1:])) for n, a in _arrays(self.given).items()}
        takes = list(inspect.signature(self.program.model).parameters.values())[1:]
        names = [p.name for p in takes if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        remedy = "Hand data over: check(part, data={name: array [N, …]})."
        try:
            found = self.bench(self.program, self.quick).generate(dict.fromkeys(names), DATA)
        except PpdgmError as error:
            raise PpdgmError(
                f"check: to draw data from the program failed: {error} If it needs data that are given: "
                "check(part, data={name: array [N, …]})."
            ) from error
        if set(found) != set(names):
            raise PpdgmError(
                f"check: the model takes {', '.join(names)}, but draws {', '.join(found) or 'nothing'} by itself. "
                f"{remedy}"
            )
        return found

    def draws(self, backend: str) -> tuple[np.ndarray, np.ndarray]:
        """Draws of the part at each head, and their log-densities: [DRAWS, HEADS, …], [DRAWS, HEADS]."""
        assert self.alone is not None
        bench = self.bench(self.alone, backend)
        found: tuple[np.ndarray, np.ndarray] = self.once(
            ("draws", backend), lambda: bench.draws({"x": self.heads}, DRAWS)
        )
        return found

    @property
    def elsewhere(self) -> np.ndarray:
        """Values for the part: draws at each head, and draws at the next head, [2 PARTICLES, HEADS, …]."""
        z = self.draws(self.quick)[0][:PARTICLES]
        return np.concatenate([z, np.roll(z, 1, axis=1)])


def _arrays(fields: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {n: np.asarray(a, np.float32) for n, a in fields.items()}


def partner(base: type[PartT], family: str) -> PartT:
    """A public prior or posterior over a family of latents.

    Raises:
        PpdgmError: there is no such part.
    """
    found: list[PartT] = []
    for cls in public_specs():
        required = any(f.is_required() for f in cls.model_fields.values())
        if issubclass(cls, base) and getattr(cls, "family", None) == family and not required:
            found.append(cls())
    if found:
        return min(found, key=lambda part: getattr(part, "by_rejection", False))  # the first one, else one that jumps
    raise PpdgmError(f"check: ppdgm has no {base.__name__.lower()} over {family} latents to put beside the part.")


def nested(spec: object) -> Iterator[Spec]:
    """A spec and all specs in its fields."""
    if isinstance(spec, tuple):
        for item in spec:
            yield from nested(item)
    elif isinstance(spec, Spec):
        yield spec
        for name in type(spec).model_fields:
            yield from nested(getattr(spec, name))
