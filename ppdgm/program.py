"""Programs: a spec with a model and a guide, written once over the vocabulary P."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ppdgm import markup
from ppdgm.errors import PpdgmError, ProgramError, SpecError, explain, require
from ppdgm.language.first_values import STATE, first_value, settled
from ppdgm.language.vocabulary import Array, Declarations, Dist, Init, NetUse, ParamSpec, Settler, Vocabulary
from ppdgm.nets import Net
from ppdgm.nets.base import zeros as zeros  # an initial value of programs too
from ppdgm.registry import backend as load_backend
from ppdgm.specs import Spec
from ppdgm.specs.schedules import Schedule

if TYPE_CHECKING:
    from ppdgm.language.vocabulary import Batch


def constant(value: float) -> Init:
    """Initial values that are all the same number."""

    def init(
        rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        return np.full(shape, value)

    return init


def normal(scale: float) -> Init:
    """Initial values from N(0, scale²)."""

    def init(
        rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        return rng.normal(scale=scale, size=shape)

    return init


class Context:
    """Collects what a program declares in `build`: parameters, nets and parts, with every shape."""

    def __init__(
        self,
        declared: Declarations,
        prefix: str = "",
        label: str = "model",
        inputs: tuple[int, ...] | None = None,
        condition: tuple[int, ...] = (),
    ):
        self.declared, self.prefix, self.label = declared, prefix, label
        self.condition = condition  #: shape of what a part's distribution depends on beside its head; () for nothing
        self.inputs = inputs  #: shape of the posterior's input, for a prior's latent; None if it depends on more than x

    def scope(self, name: str, label: str | None = None) -> Context:
        """The same context, with `name.` before every name."""
        return Context(self.declared, f"{self.prefix}{name}.", label or self.label, self.inputs)

    def param(self, name: str, shape: tuple[int, ...] = (), init: Init = zeros, label: str | None = None) -> None:
        """Declare a parameter; `init(rng, shape, data)` returns its first value as a NumPy array."""
        self._declare("param", name, shape, init, label or self.label)

    def state(self, name: str, shape: tuple[int, ...] = (), init: Init = zeros) -> None:
        """Declare numbers that training moves and no optimiser does, such as a running mean.

        `P.param(name)` reads them, and `P.update(name, value)` moves them. They are saved as parameters are.
        """
        self.declared.states.add(self._declare("state", name, shape, init, STATE))

    def _declare(self, word: str, name: str, shape: tuple[int, ...], init: Init, label: str) -> str:
        """Its whole name."""
        name, what = self.prefix + _checked_name(word, name), {"param": "Parameter", "state": "State"}[word]
        if name in self.declared.params:
            kind = "parameter" if word == "param" else "parameter and each state"
            raise ProgramError(f"{what} {name!r} is declared twice in build(). Give each {kind} its own name.")
        _check_shape(f"{what} {name!r}", shape)
        if not callable(init):
            raise ProgramError(
                f"{what} {name!r}: got init={init!r}, expected a function init(rng, shape, data), such as "
                "ppdgm.program.constant(0.0), normal(0.1) or zeros."
            )
        self.declared.params[name] = ParamSpec(tuple(shape), init, label)
        return name

    def schedule(self, name: str, schedule: Schedule) -> None:
        """Declare a number that changes with the training step: `P.param(name)`, which no optimiser changes."""
        self.param(name, (), constant(float(schedule(np.zeros(1))[0])), label="schedule")
        self.declared.schedules[self.prefix + name] = schedule

    def settle(self, settler: Settler) -> None:
        """Set first values by a run on the data: `settler(P, data)`, over NumPy, calls `P.scope(…).set(name=value)`.

        It runs once, when all parameters have first values and there are data.
        """
        self.declared.settlers.append(settler)

    def net(
        self,
        name: str,
        net: Net,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        label: str | None = None,
        start: Callable[[Mapping[str, np.ndarray]], np.ndarray | None] | None = None,
    ) -> None:
        """Declare a net from events of shape `inputs` to events of shape `outputs`.

        Args:
            name: the name of the net.
            net: the net.
            inputs, outputs: shapes of events.
            label: the label of its parameters.
            start: a function of the data. It returns the array of shape `outputs` that is added to the output at the
                start, or None for nothing.
        """
        _checked_name("net", name)
        if not isinstance(net, Net):
            raise ProgramError(f"Net {name!r}: got {net!r}, expected a Net, such as MLP().")
        _check_shape(f"Net {name!r}: inputs", inputs)
        _check_shape(f"Net {name!r}: outputs", outputs)
        inputs, outputs = tuple(inputs), tuple(outputs)
        if self.prefix + name in self.declared.nets:
            raise ProgramError(f"Net {self.prefix + name!r} is declared twice in build(). Give each net its own name.")
        self.declared.nets[self.prefix + name] = NetUse(net, inputs, outputs)
        inner = self.scope(name, label)
        for param, (shape, init) in net.params(inputs, outputs).items():
            inner.param(param, shape, started(init, start) if start and param == net.last_bias else init)
        for state, (shape, init) in net.states(inputs, outputs).items():
            inner.state(state, shape, init)

    def part(
        self,
        part: Part,
        shape: tuple[int, ...],
        label: str | None = None,
        name: str | None = None,
        inputs: tuple[int, ...] | None = None,
        condition: tuple[int, ...] = (),
    ) -> tuple[int, ...]:
        """Declare a part over variables of `shape`.

        Args:
            part: a prior, posterior or likelihood.
            shape: the shape of one draw.
            label: the label of its parameters.
            name: its scope, by default its role.
            inputs: for a prior, the shape of the input of its variable's posterior, if there is one. Priors that are
                made of posteriors, such as VampPrior, need it.
            condition: for a prior that depends on an array, such as a label or the codes above: its shape.

        Returns:
            The shape of the net output (the head) that the part reads; () if it reads none.
        """
        if not isinstance(part, Part):
            raise ProgramError(f"part(): got {part!r}, expected a prior, posterior or likelihood.")
        _check_shape(f"Part {type(part).__name__}", shape)
        inner = self.scope(name or part.role, label)
        inner.inputs = None if inputs is None else tuple(inputs)
        if condition and not part.conditional:
            raise SpecError(
                f"{part.role}: got {type(part).__name__}, whose distribution can't depend on another variable. Choose "
                "one that can, such as CodePrior()."
            )
        inner.condition = tuple(condition)
        self.declared.shapes[inner.prefix[:-1]] = tuple(shape)
        return part.build(inner, tuple(shape))


def started(init: Init, start: Callable[[Mapping[str, np.ndarray]], np.ndarray | None]) -> Init:
    """First values of an output's bias, [outputs] or one for each channel, plus what `start` gives for the data."""

    def moved(rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None) -> np.ndarray:
        value = np.asarray(init(rng, shape, data), np.float64)
        output = None if data is None else start(data)
        return value if output is None else value + np.reshape(output, (*shape, -1)).mean(-1)

    return moved


def _checked_name(word: str, name: object) -> str:
    if not isinstance(name, str):
        raise ProgramError(f"context.{word}: got {name!r} instead of the name. Give the name first, as text.")
    return name


def _check_shape(what: str, shape: object) -> None:
    if not isinstance(shape, tuple | list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ProgramError(f"{what}: got shape {shape!r}, expected a tuple of positive whole numbers, such as (4,).")


class Part(Spec):
    """A distribution over a variable of a given shape: a prior, a posterior or a likelihood.

    A subclass declares its parameters in `build`, and returns a native distribution in `distribution`.
    """

    role: ClassVar[str]
    mean_is_a_point: ClassVar[bool] = False  #: whether its `mean` may be a point other than the mean, as for a flow
    conditional: ClassVar[bool] = False  #: whether it can depend on a condition, as `context.condition` says
    by_rejection: ClassVar[bool] = False  #: whether draws, of the same noise, jump as parameters move: as of gammas

    @classmethod
    def __pydantic_init_subclass__(cls, **options: object) -> None:
        super().__pydantic_init_subclass__(**options)
        for role, example in (("build", "self, context, shape"), ("distribution", "self, P, *head")):
            function = vars(cls).get(role)
            if inspect.isfunction(function):
                _check_arguments(cls, role, function, example)

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Declare parameters for a variable of `shape`; return the shape of the head that is needed."""
        return ()

    @abstractmethod
    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        """The distribution, given the net's output."""

    def __call__(self, P: Vocabulary, *head: Array) -> Dist:
        """The distribution, with the part's own parameters in scope.

        Raises:
            ProgramError: the part is not declared in `build`.
        """
        if f"{P.prefix}{self.role}" not in P.declared.shapes:
            raise ProgramError(
                f"The {self.role} {type(self).__name__} is not declared in build(). Declare it: "
                f"context.part({type(self).__name__}(…), shape)."
            )
        return self.distribution(P.scope(self.role), *head)


class Program(Spec):
    """A generative model and its guide, written once over the vocabulary P.

    A subclass has fields and three methods. `build` declares parameters, nets and parts; `model(P, x, …)` and
    `guide(P, x, …)` are the pair. Data are named arrays, passed by name; a single array is `x`. A program whose latents
    are all summed out, or that has none, needs no guide. Other functions (`critic(P, x)`, `loss(P, x)`) are run by
    engines; a program that is trained only by these needs no model.
    """

    @classmethod
    def __pydantic_init_subclass__(cls, **options: object) -> None:
        super().__pydantic_init_subclass__(**options)
        for role, example in (("build", "self, context"), ("model", "self, P, x"), ("guide", "self, P, x")):
            function = vars(cls).get(role)
            if inspect.isfunction(function):
                _check_arguments(cls, role, function, example)

    def build(self, context: Context) -> None:
        """Declare every parameter, net and part, with its shape."""

    def model(self, P: Vocabulary, *data: Array, **fields: Array) -> Array:
        """The generative model: `model(self, P, x)`, with an argument for each field of the data."""
        raise no_model(self)

    def guide(self, P: Vocabulary, *data: Array, **fields: Array) -> Array:
        """The approximate posterior, with the same arguments; without latents, none is needed: the ELBO is log p."""

    def check(self, data: Batch) -> None:
        """Refuse data that the model can't generate, before any work starts."""

    @property
    def may_miss(self) -> tuple[str, ...]:
        """Fields whose entries may be NaN, which means missing: x, if the likelihood takes it."""
        return ("x",) if getattr(getattr(self, "likelihood", None), "missing", False) else ()

    def independent(self) -> Part | None:
        """The likelihood whose independent columns the model has to beat; None if it is not known."""
        return getattr(self, "likelihood", None)

    def numbered(self) -> Mapping[str, int]:
        """Latents of log one-hot vectors that `encode` returns, and `decode` takes, as numbers of codes: site -> K."""
        return {}

    def simulated(self, latents: Batch, data: Batch) -> dict[str, np.ndarray]:
        """Fields of simulated data that are not a site of the model but give the value of a latent, such as a label.

        Args:
            latents: draws from the model, [N, *event] by site.
            data: rows of real data, [N, *event] by field. They can show, for example, which values are missing.
        """
        return {}

    def declarations(self) -> Declarations:
        """Every parameter, net and part of the program."""
        context = Context(Declarations())
        try:
            self.build(context)
        except PpdgmError:
            raise
        except Exception as error:
            raise explain(self, error) from error
        return context.declared

    def _repr_html_(self) -> str:
        """For notebooks: its fields, and its parameters with their shapes."""
        values = {n: getattr(self, n) for n in type(self).model_fields}
        try:
            params = self.declarations().params
        except PpdgmError as error:
            return markup.box(type(self).__name__, markup.fields(values), markup.line(error))
        shapes = markup.parameters({n: p.shape for n, p in params.items()}, {n: p.label for n, p in params.items()})
        return markup.box(type(self).__name__, markup.fields(values), shapes)

    def initialise(
        self, seed: int = 0, data: Mapping[str, np.ndarray] | None = None, dtype: str = "float32"
    ) -> dict[str, np.ndarray]:
        """First values of all parameters, the same on every backend.

        Each parameter has its own stream of random numbers, set by seed and name. So a new parameter changes no other.

        Args:
            seed: non-negative.
            data: may set values (never shapes), for example of pseudo-inputs.
            dtype: "float32" or "float64".
        """
        require("seed", seed, int, 0, "a whole number, at least 0")
        declared = self.declarations()
        values = {n: first_value(n, s, seed, data, dtype) for n, s in declared.params.items()}
        return settled(declared, values, data) if data is not None and declared.settlers else values

    def fixes(self, data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Latents that fields of the data fix, by site, [N, *event], such as a known class. `sample` keeps them fixed.

        Use it only for fields that only the guide reads; the model conditions on other fields automatically.
        """
        return {}

    def bind(
        self,
        backend: str,
        params: Mapping[str, np.ndarray] | None = None,
        *,
        seed: int = 0,
        size: int | None = None,
        data_size: int | None = None,
        hold_states: bool = False,
    ) -> tuple[Callable[..., Array], Callable[..., Array]]:
        """Plain `model` and `guide` callables for Pyro's or NumPyro's own tools.

        Args:
            backend: "pyro" or "numpyro".
            params: values of the parameters; by default `initialise(seed)`.
            seed: for the initial values.
            size: B of the plate if the callable is called without data (prior predictive).
            data_size: N, if a minibatch of B represents a larger set: the plate scales by N/B.
            hold_states: whether states keep their values; otherwise `P.update` is refused, because these tools have no
                training step that could move them.

        Returns:
            (model, guide). On Pyro both are `torch.nn.Module`s over the same parameters, and the global parameter
            store does not change. On NumPyro they are functions with `numpyro.param` sites.
        """
        values = self.initialise(seed) if params is None else self._checked(seed, params)
        require("hold_states", hold_states, bool, None, "True or False")
        if hold_states and not self.declarations().states:
            raise ProgramError("hold_states: got True, but the program declares no states. Leave hold_states out.")
        pair: tuple[Callable[..., Array], Callable[..., Array]] = load_backend(backend).bind(
            self, values, size=size, data_size=data_size, hold_states=hold_states
        )
        return pair

    def _checked(self, seed: int, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not isinstance(params, Mapping):
            raise ProgramError(f"params: got {type(params).__name__}, expected arrays by name, such as fit.params.")
        for name, value in self.initialise(seed).items():
            if name not in params or np.shape(params[name]) != value.shape:
                got = f"shape {np.shape(params[name])}" if name in params else "nothing"
                raise ProgramError(f"params: got {got} for {name!r}, expected an array of shape {value.shape}.")
        return dict(params)

    @staticmethod
    def from_pyro(
        model: Callable[..., object], guide: Callable[..., object] | None = None, data_plate: str = "data"
    ) -> PlainPair:
        """A plain Pyro pair, unchanged, for every engine and evaluation that makes sense for it.

        A model whose latents are all summed out, or that has none, needs no guide.
        """
        return PlainPair(model, guide, data_plate, "pyro")

    @staticmethod
    def from_numpyro(
        model: Callable[..., object], guide: Callable[..., object] | None = None, data_plate: str = "data"
    ) -> PlainPair:
        """A plain NumPyro pair, unchanged, for every engine and evaluation that makes sense for it.

        A model whose latents are all summed out, or that has none, needs no guide.
        """
        return PlainPair(model, guide, data_plate, "numpyro")


def _check_arguments(program: type, role: str, function: Callable[..., object], example: str) -> None:
    """Refuse a method that takes fewer arguments than the example."""
    signature = inspect.signature(function)
    kinds = [p.kind for p in signature.parameters.values()]
    if len(kinds) < len(example.split()) and not {*kinds} & {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }:
        end = ", with P and each field of the data" if example == "self, P, x" else ""
        raise ProgramError(f"{program.__name__}.{role}{signature}: expected {role}({example}){end}.")


def has_model(program: object) -> bool:
    """Whether a program has a model, and not only functions that an engine of its own runs."""
    return not isinstance(program, Program) or type(program).model is not Program.model


def no_model(program: object) -> ProgramError:
    """The error for something that needs the model of a program that has none."""
    return ProgramError(
        f"{type(program).__name__} has no model(self, P, x), so it has no likelihood, ELBO, latents or draws. "
        "Define a model; to train only its loss(self, P, x), use Minimise()."
    )


def check_program(program: object) -> None:
    """Refuse anything that is neither a Program nor a plain pair."""
    if not isinstance(program, Program | PlainPair):
        raise ProgramError(
            f"program: got {_shown(program)}, expected a Program such as VAE(…), or a plain pair from "
            "Program.from_pyro(…) or Program.from_numpyro(…)."
        )


def _shown(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _draws_nothing(model: Callable[..., object]) -> Callable[..., None]:
    """A guide without latents, for the same data."""

    def guide(*data: Array, **fields: Array) -> None: ...

    with suppress(TypeError, ValueError):  # a callable without a signature
        guide.__signature__ = inspect.signature(getattr(model, "forward", model))  # type: ignore[attr-defined]  # PEP 362
    return guide


class PlainPair:
    """A user's own Pyro or NumPyro model and guide. Its parameters are found by running it once.

    The parameters of a NumPyro pair are drawn again for each `fit`. Those of a Pyro pair live in the user's modules,
    and training changes them: a second `fit` starts from there. What `fit` returns has its own copy of the values.

    Args:
        model, guide: functions of the data: `model(x)` for a single array, keywords for named fields. None: no guide.
        data_plate: name of the plate over data, full or subsampled.
        backend: "pyro" or "numpyro".
    """

    def __init__(
        self, model: Callable[..., object], guide: Callable[..., object] | None, data_plate: str, backend: str
    ):
        if guide is None and callable(model):
            guide = _draws_nothing(model)
        for role, function in (("model", model), ("guide", guide)):
            if not callable(function):
                raise SpecError(f"{role}: got {type(function).__name__}, expected a function of the data.")
        self.model, self.guide, self.data_plate, self.backend = model, guide, data_plate, backend

    may_miss: ClassVar[tuple[str, ...]] = ()

    def independent(self) -> None:
        """The likelihood of a plain pair is not known."""

    def check(self, data: Batch) -> None:
        """Plain pairs do not declare the range of their data, so nothing is refused."""

    def __repr__(self) -> str:
        name = lambda f: getattr(f, "__qualname__", type(f).__name__)
        return f"PlainPair({name(self.model)}, {name(self.guide)}, {self.data_plate!r}, {self.backend!r})"


AnyProgram = Program | PlainPair
