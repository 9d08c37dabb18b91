"""The vocabulary P in which programs are written, what they declare, and the trace of a run.

A program sees `P` and nothing else of a backend. The same text is read four ways: by Pyro's handlers, by NumPyro's
handlers, and directly over torch and over JAX by `ppdgm.reading`, which does only arithmetic.

Shapes: K particles, B data of the minibatch. Per-datum terms are [K, B].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np

from ppdgm.errors import ProgramError, nearest

Array = Any  # a NumPy, torch or JAX array: the vocabulary is the same over each
Batch = Mapping[str, Array]
UNSEEN: Any = type(
    "Unseen", (), {"__repr__": lambda self: "a field that is not given"}
)()  #: stands for data that are to be generated
Init = Callable[[np.random.Generator, tuple[int, ...], Mapping[str, np.ndarray] | None], np.ndarray]


@dataclass(frozen=True)
class ParamSpec:
    """A parameter's shape, its initial values `init(rng, shape, data)`, and the label that engines' phases name."""

    shape: tuple[int, ...]
    init: Init
    label: str


class NetLike(Protocol):
    """What the vocabulary asks of a net: one application, over P."""

    def apply(self, P: Vocabulary, x: Array, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array: ...


class NetUse(NamedTuple):
    """A net with the event shapes that it maps between."""

    spec: NetLike
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass
class Declarations:
    """Everything that a program declares before any data is seen, by dotted name."""

    params: dict[str, ParamSpec] = field(default_factory=dict)
    nets: dict[str, NetUse] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


class Trace(NamedTuple):
    """The per-site terms of one run of guide, then model.

    Attributes:
        values: site -> drawn value, [K, B, *event].
        log_p: site -> log p(site | its parents), [K, B]; latent and observed sites.
        log_q: site -> log q(site | its parents), [K, B]; latent sites.
        kl: site -> closed-form KL(q‖p), [K or 1, B, D], per dimension where p and q factorise (else D = 1).
        shared: site -> log p − log q of a site outside the data plate (log p of an observed one), [K].
    """

    values: dict[str, Array]
    log_p: dict[str, Array]
    log_q: dict[str, Array]
    kl: dict[str, Array]
    shared: dict[str, Array]


class Interpreter(Protocol):
    """What gives meaning to the statements of a program."""

    def plate(self, name: str, data: Array) -> AbstractContextManager[Any]: ...
    def sample(self, name: str, dist: Any, obs: Array | None) -> Array: ...
    def param(self, name: str, value: Array) -> Array: ...
    def deterministic(self, name: str, value: Array) -> Array: ...


class Vocabulary:
    """The words of a program, bound to a backend's arrays, parameters and interpreter.

    Subclasses (one per backend) add `xp`, `dist` and the operations that the array API lacks.
    """

    xp: ClassVar[Any]  #: array-API namespace
    dist: ClassVar[Any]  #: native distributions

    def __init__(self, interpreter: Interpreter, params: Mapping[str, Array], declared: Declarations, prefix: str = ""):
        self.interpreter = interpreter
        self.params = params
        self.declared = declared
        self.prefix = prefix

    def __getattr__(self, name: str) -> Any:
        for home in ("xp", "dist"):
            if hasattr(getattr(type(self), home, None), name):
                raise AttributeError(f"P has no word {name!r}, but P.{home} has: P.{home}.{name}")
        known = [n for n in dir(type(self)) if not n.startswith("_")]
        raise AttributeError(f"P has no word {name!r}. {nearest(name, known)} Mathematics on arrays is in P.xp")

    def scope(self, name: str) -> Self:
        """The same vocabulary, with names of parameters and nets under `name.`."""
        return type(self)(self.interpreter, self.params, self.declared, f"{self.prefix}{name}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the variable over which the part in scope is a distribution."""
        return self.declared.shapes[self.prefix[:-1]]

    def plate(self, name: str, data: Array) -> AbstractContextManager[Any]:
        """The data plate: what is drawn inside is independent per datum. `data` is [B, …]."""
        return self.interpreter.plate(name, data)

    def sample(self, name: str, dist: Any, obs: Array | None = None) -> Array:
        """A random variable: latent, or observed with value `obs`."""
        return self.interpreter.sample(name, dist, obs)

    def param(self, name: str) -> Array:
        """A declared parameter."""
        name = self.prefix + name
        if name not in self.params:
            remedy = f"It is a net: P.net({name!r})(x)." if name in self.declared.nets else nearest(name, self.params)
            raise ProgramError(f"Parameter {name!r} is not declared in build(). {remedy}")
        return self.interpreter.param(name, self.params[name])

    def net(self, name: str) -> Callable[[Array], Array]:
        """A declared net, as a function of [..., *inputs] to [..., *outputs]."""
        full = self.prefix + name
        if full not in self.declared.nets:
            known = self.declared.nets
            remedy = f"It is a parameter: P.param({full!r})." if full in self.params else nearest(full, known)
            raise ProgramError(f"Net {full!r} is not declared in build(). {remedy}")
        use = self.declared.nets[full]
        scoped = self.scope(name)

        def applied(x: Array) -> Array:
            _check_events(f"Net {full!r}: got", x, use.inputs)
            out = use.spec.apply(scoped, x, use.inputs, use.outputs)
            _check_events(f"Net {full!r}: its outputs are", out, use.outputs)
            return out

        return applied

    def deterministic(self, name: str, value: Array) -> Array:
        """A named function of other variables."""
        return self.interpreter.deterministic(name, value)

    def distribution(
        self,
        sample: Callable[[Any, tuple[int, ...]], tuple[Array, Array]],
        log_prob: Callable[[Array], Array],
        event_shape: tuple[int, ...],
        batch_shape: tuple[int, ...] = (),
    ) -> Any:
        """A density written once over `xp`, as a native reparameterised distribution.

        Args:
            sample: (normal, batch_shape) -> (value [*batch_shape, *event_shape], its log-density [*batch_shape]);
                `normal(shape)` draws standard normals.
            log_prob: value -> log-density, for values from elsewhere.
            event_shape: shape of one draw.
            batch_shape: shape of independent, differently distributed draws.
        """
        raise NotImplementedError

    def constant(self, value: Any) -> Array:
        """Numbers or a NumPy array, in the program's floating type and on its device."""
        raise NotImplementedError

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        """An array filled with one number, in the program's floating type and on its device."""
        raise NotImplementedError

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        """x [..., I] · weight [I, O] + bias [O]."""
        raise NotImplementedError

    def conv2d(self, x: Array, weight: Array, bias: Array, stride: int, padding: int) -> Array:
        """Cross-correlation of x [B, I, H, W] with weight [O, I, h, w]."""
        raise NotImplementedError

    def conv_transpose2d(
        self, x: Array, weight: Array, bias: Array, stride: int, padding: int, output_padding: tuple[int, int]
    ) -> Array:
        """The transpose of `conv2d`: x [B, I, H, W], weight [I, O, h, w]; `output_padding` adds rows and columns."""
        raise NotImplementedError

    def activation(self, name: str, x: Array) -> Array:
        """One of `nets.ACTIVATIONS`, elementwise."""
        raise NotImplementedError

    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)), elementwise."""
        return self.activation("softplus", x)

    def stop_gradient(self, x: Array) -> Array:
        """x, without its gradient."""
        raise NotImplementedError

    def foreign(self, module: Any, x: Array, event_ndim: int) -> Array:
        """A user's own module applied to [..., *event], with the parameters in scope in place of its own."""
        raise NotImplementedError


def _check_events(what: str, x: Array, event: tuple[int, ...]) -> None:
    """Refuse an array that is not [..., *event]."""
    shape = tuple(getattr(x, "shape", ()))
    if shape[len(shape) - len(event) :] != event:
        expected = ", ".join(map(str, ("…", *event)))
        raise ProgramError(f"{what} an array of shape {shape}, expected [{expected}] as declared in build().")
