"""The vocabulary P in which programs are written, what they declare, and the trace of a run.

A program sees `P` and nothing else of a backend. The same text is read in four ways: by Pyro's handlers, by NumPyro's
handlers, and directly over torch and over JAX by `ppdgm.language.interpreter`, which only does arithmetic.

Shapes: K particles, B rows in the minibatch. Terms of each row are [K, B].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np

from ppdgm.errors import ProgramError, listed, nearest
from ppdgm.language.declarations import Declarations as Declarations
from ppdgm.language.declarations import Init as Init
from ppdgm.language.declarations import NetUse as NetUse
from ppdgm.language.declarations import ParamSpec as ParamSpec
from ppdgm.language.declarations import Settler as Settler
from ppdgm.language.implicit import check_draw, refuse_density
from ppdgm.language.integrals import Integrals
from ppdgm.language.loops import Carry as Carry
from ppdgm.language.masks import masked
from ppdgm.language.native import Array as Array
from ppdgm.language.native import Batch as Batch
from ppdgm.language.native import Dist as Dist
from ppdgm.language.native import Module as Module
from ppdgm.language.native import Namespace as Namespace
from ppdgm.language.native import Noise as Noise
from ppdgm.language.native import Random as Random
from ppdgm.language.native import Tree
from ppdgm.language.operations import Operations
from ppdgm.language.pullback import pullback
from ppdgm.language.pure import InvertibleBlock, Map, blocks_of
from ppdgm.language.quiet import computed_again
from ppdgm.language.unseen import Unseen

Support = str | tuple[int, int]
_NAMESPACES = (("xp", "linalg"), ("xp", "fft"))


class ProgramLike(Protocol):
    """What is needed from a program; its other functions are run by name."""

    def declarations(self) -> Declarations: ...
    def initialise(
        self, seed: int = 0, data: Mapping[str, np.ndarray] | None = None, dtype: str = "float32"
    ) -> dict[str, np.ndarray]: ...
    def model(self, P: Vocabulary, *data: Array, **fields: Array) -> Array: ...
    def guide(self, P: Vocabulary, *data: Array, **fields: Array) -> Array: ...


class PairLike(Protocol):
    """What is needed from a plain pair: the library's own functions, and the name of the plate over data."""

    model: Callable[..., object]
    guide: Callable[..., object]
    data_plate: str


class Trace(NamedTuple):
    """The terms of each site, from one run of the guide and then the model.

    Attributes:
        values: site -> drawn value, [K, B, *event].
        log_p: site -> log p(site | its parents), [K, B]; latent and observed sites.
        log_q: site -> log q(site | its parents), [K, B]; latent sites.
        kl: site -> closed-form KL(q‖p), [K or 1, B, D], per dimension if p and q factorise (otherwise D = 1).
        shared: site -> log p − log q of a site outside the data plate (log p if it is observed), [K].
        marginal: log w with enumerated sites summed out, [K, B]; None if there are none. If there are some, all terms
            above are expectations over these sites under the guide, and values that depend on them have their axes to
            the left of K.
        penalties: name -> a term that training makes small in addition to the bound, [B] or [K, B]; None if there are
            none.
        points: latent -> its term, if the guide has a point mass and the model a density; None if there are none.
    """

    values: dict[str, Array]
    log_p: dict[str, Array]
    log_q: dict[str, Array]
    kl: dict[str, Array]
    shared: dict[str, Array]
    marginal: Array | None = None
    penalties: dict[str, Array] | None = None
    points: dict[str, Array] | None = None


class Interpreter(Protocol):
    """The object that gives meaning to the statements of a program.

    Attributes:
        looping: whether the body of `P.repeat` is running.
        recomputes: whether the layers of nets are computed again for the gradient, in place of being kept.
    """

    looping: bool
    recomputes: bool

    def plate(self, name: str, data: Array) -> AbstractContextManager[object]: ...
    def sample(self, name: str, dist: Dist, obs: Array | None, infer: Mapping[str, object] | None) -> Array: ...
    def penalty(self, name: str, value: Array) -> None: ...
    def param(self, name: str, value: Array) -> Array: ...
    def deterministic(self, name: str, value: Array) -> Array: ...
    def noise(self) -> Noise: ...
    def drops(self) -> bool: ...
    def draws_terms(self) -> bool: ...
    def estimates(self, what: str) -> bool: ...
    def update(self, name: str, value: Array, state: Array) -> None: ...
    def batch_mean(self, value: Array, event_ndim: int, otherwise: Array | None, xp: Namespace) -> Array: ...
    def scan(
        self,
        P: Any,
        body: Callable[..., tuple[Tree, Tree]],
        carry: Tree,
        xs: Tree,
        length: int | None,
        mask: Array | None,
    ) -> tuple[Tree, Tree]: ...


class Vocabulary(Operations, Integrals):
    """The words of a program, bound to a backend's arrays, parameters and interpreter.

    Subclasses (one per backend) add `xp`, `dist` and the operations that the array API lacks.
    """

    dist: ClassVar[Any]  #: native distributions
    density: ClassVar[Any]  #: class of a density written over `xp`, as a native distribution
    _like: Any  # the program's floating type, and device

    def __init__(self, interpreter: Interpreter, params: Mapping[str, Array], declared: Declarations, prefix: str = ""):
        self.interpreter = interpreter
        self.params = params
        self.declared = declared
        self.prefix = prefix

    def __getattr__(self, name: str) -> Any:
        for home in ("xp", "dist"):  # a module of one library, such as torch.random, would be no answer on the other
            if callable(getattr(getattr(type(self), home, None), name, None)) or (home, name) in _NAMESPACES:
                raise AttributeError(f"P has no attribute {name!r}. Use P.{home}.{name}")
        known = [n for n in dir(type(self)) if not n.startswith("_")]
        hint, rest = nearest(name, known), "Mathematics on arrays is in P.xp, distributions are in P.dist."
        first, then = (hint, rest) if "Did you mean" in hint else (rest, hint)  # a long list is cut at its end
        raise AttributeError(f"P has no attribute {name!r}. {first} {then}")

    def scope(self, name: str) -> Self:
        """The same vocabulary, with `name.` before the names of parameters and nets."""
        return type(self)(self.interpreter, self.params, self.declared, f"{self.prefix}{name}.")

    def told_to(self, interpreter: Interpreter) -> Self:
        """The same vocabulary, whose statements go to another interpreter."""
        return type(self)(interpreter, self.params, self.declared, self.prefix)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the variable of the part in scope (the part is a distribution over it)."""
        return self.declared.shapes[self.prefix[:-1]]

    def plate(self, name: str, data: Array) -> AbstractContextManager[object]:
        """The data plate: draws inside it are independent for each row. `data` is [B, …]."""
        return self.interpreter.plate(name, data)

    def sample(
        self,
        name: str,
        dist: Dist,
        obs: Array | None = None,
        infer: Mapping[str, object] | None = None,
        mask: Array | None = None,
    ) -> Array:
        """A random variable: latent, or observed with value `obs`.

        Rows of data where the `mask` [B] or [K, B] is False (or 0) are missing: their terms are 0, in training and in
        every report, whatever `obs` has there.

        A latent with `infer={"enumerate": "parallel"}` takes all its values at once, along its own axis to the left of
        K. If the guide draws it, terms are averaged over it with its probabilities; if only the model draws it, it is
        summed out.
        """
        self._check_outside_loop(f"P.sample({name!r}, …)")
        if mask is not None and not isinstance(mask, Unseen):  # without the field, all rows are drawn
            dist = masked(name, dist, obs, self.constant(mask) if isinstance(mask, np.ndarray) else mask, self.xp)
        return self.interpreter.sample(name, dist, obs, infer)

    @property
    def random(self) -> Random:
        """Noise outside a distribution, such as diffusion times or projections: `P.random.normal(shape)`, `uniform`,
        `gumbel`, `permutation(n)`, …

        Each call draws new numbers. Terms of the model and the guide may not depend on it in an evaluation.
        """
        self._check_outside_loop("P.random")
        return self._random(self.interpreter.noise())

    @property
    def training_random(self) -> Random | None:
        """`P.random` where a training step scores data; None in evaluations, draws and the libraries' own tools.

        So a term may be drawn in training, such as one of several orderings, that evaluations compute in full.
        """
        return self.random if self.interpreter.draws_terms() else None

    def _random(self, noise: Noise) -> Random:
        """Random numbers from what the interpreter gives: a key, or None for the library's own generator."""
        raise NotImplementedError

    def implicit(self, value: Array) -> Dist:
        """A draw without a density, as a distribution, such as a generator's output: `P.implicit(x).to_event(1)`.

        Whatever asks for its log-probability is refused. Mohamed & Lakshminarayanan 2016, arXiv:1610.03483.
        """
        check_draw(value)
        return self.distribution(
            lambda _, shape: (self.xp.broadcast_to(value, shape), None),
            refuse_density,
            (),
            tuple(value.shape),
            mean=lambda: value,
            about={"implicit": True},
        )

    def param(self, name: str) -> Array:
        """A declared parameter; or a state, which carries no gradient."""
        name = self.prefix + name
        if name in self.declared.states:
            return self.stop_gradient(self.params[name])
        if name not in self.params:
            remedy = f"It is a net: P.net({name!r})(x)." if name in self.declared.nets else nearest(name, self.params)
            raise ProgramError(f"Parameter {name!r} is not declared in build(). {remedy}")
        return self.interpreter.param(name, self.params[name])

    def update(self, name: str, value: Array) -> None:
        """The new value of a state, from the next step on; `P.param` returns the old one in all runs of this step.

        The first run of a training step that updates a state moves it. Evaluations move nothing.
        """
        full = self.prefix + name
        if full not in self.declared.states:
            raise ProgramError(f"P.update: state {full!r} is not declared in build(). {self._no_state(full)}")
        if self.interpreter.looping:
            raise ProgramError(
                f"P.update({full!r}, …) is in the body of P.repeat, which only computes. Return the value from "
                "the body, and update the state after the loop."
            )
        self.interpreter.update(full, value, self.params[full])

    def _no_state(self, name: str) -> str:
        if name in self.declared.schedules:
            return "It is a parameter that a schedule sets."
        if name in self.declared.params:
            return "It is a parameter, which an optimiser moves. Declare it with context.state(…) instead."
        if name in self.declared.nets:
            return "It is a net, whose parameters an optimiser moves."
        known = self.declared.states
        return nearest(name, known) if known else "Declare it there: context.state(name, shape)."

    def batch_mean(self, value: Array, event_ndim: int, otherwise: Array | None = None) -> Array:
        """The mean over particles and over the minibatch's rows, without those that only fill it, [*event].

        In evaluations, it is the mean over the rows that are evaluated together. `fit` refuses a program in which a
        density depends on that: then give `otherwise`.

        Args:
            value: [B, *event] or [K, B, *event].
            event_ndim: number of axes of an event: 0 for numbers, 1 for vectors.
            otherwise: what evaluations use instead, [*event], such as a state that is a running mean.
        """
        return self.interpreter.batch_mean(value, event_ndim, otherwise, self.xp)

    def net(self, name: str) -> Callable[[Array], Array]:
        """A declared net, as a function of [..., *inputs] to [..., *outputs]."""
        full = self.prefix + name
        if full not in self.declared.nets:
            known = self.declared.nets
            remedy = f"It is a parameter: P.param({full!r})." if full in self.params else nearest(full, known)
            if "Did you mean" in remedy and len(known) > 1:
                remedy += f" Declared: {listed(known)}."
            raise ProgramError(f"Net {full!r} is not declared in build(). {remedy}")
        use = self.declared.nets[full]

        def applied(x: Array) -> Array:
            again = self.interpreter.recomputes
            scoped = (self.told_to(computed_again(self.interpreter)) if again else self).scope(name)
            _check_events(f"Net {full!r}: got", x, use.inputs)
            layers = lambda x: use.spec.apply(scoped, x, use.inputs, use.outputs)
            out = self._recomputed(layers, x) if again else layers(x)
            _check_events(f"Net {full!r}: its outputs are", out, use.outputs)
            return out

        return applied

    def _recomputed(self, f: Callable[[Array], Array], x: Array) -> Array:
        """f(x), of which only x is kept for the gradient, which computes it again; f draws nothing."""
        raise NotImplementedError

    def deterministic(self, name: str, value: Array) -> Array:
        """A named function of other variables."""
        self._check_outside_loop(f"P.deterministic({name!r}, …)")
        return self.interpreter.deterministic(name, value)

    def penalty(self, name: str, value: Array) -> None:
        """A term [B], one for each row, that training makes small. It is in no density and in no reported bound."""
        self._check_outside_loop(f"P.penalty({name!r}, …)")
        self.interpreter.penalty(name, value)

    def _check_outside_loop(self, word: str) -> None:
        if self.interpreter.looping:
            raise ProgramError(
                f"{word} is in the body of P.repeat, which only computes: on JAX the body is read once for all "
                "repetitions. Write it before or after the loop, or use P.scan, which has statements at each time."
            )

    def distribution(
        self,
        sample: Callable[[Random, tuple[int, ...]], tuple[Array, Array | None]],
        log_prob: Callable[[Array], Array],
        event_shape: tuple[int, ...],
        batch_shape: tuple[int, ...] = (),
        *,
        support: Support = "real",
        mean: Callable[[], Array] | None = None,
        mode: Callable[[], Array] | None = None,
        pathwise: bool = True,
        kl: Callable[[Dist], Array | None] | None = None,
        about: Mapping[str, object] | None = None,
        values: Callable[[], Array] | None = None,
        discrete: Dist | None = None,
    ) -> Dist:
        """A density written once over `xp`, as a native distribution.

        Args:
            sample: (random, batch_shape) -> (value [*batch_shape, *event_shape], its log-density [*batch_shape], or
                None if `log_prob` should compute it); `random` draws noise, see `Random`.
            log_prob: value -> log-density, for values that `sample` did not draw.
            event_shape: shape of one draw.
            batch_shape: shape of independent, differently distributed draws.
            support: the range of each number of a draw: "real", "positive", "unit_interval", "boolean",
                "nonnegative_integer", or (low, high) for the whole numbers from low to high.
            mean: () -> its mean, or a point that is used in its place, [*batch_shape, *event_shape].
            mode: () -> the most probable value of a discrete variable. Other variables see it if this one is set to its
                mean.
            pathwise: whether a draw is a differentiable function of the distribution's parameters.
            kl: p -> closed-form KL(this‖p) [..., D], or None if there is none; p is the model's distribution.
            about: what the `kl` of another distribution may need to know about this one, as its attribute `about`.
            values: () -> all values of a discrete variable, [S, *event_shape], for enumeration.
            discrete: for a relaxation, the discrete distribution that it represents. Training draws and scores the
                relaxation, and everything else uses the discrete one.
        """
        facts = support, mean, mode, pathwise, kl, about, values, discrete
        return self.density(sample, log_prob, event_shape, batch_shape, self._like, *facts)

    def dropout(self, x: Array, rate: float) -> Array:
        """In a training step, x with each number set to 0 with probability `rate`, and else divided by 1 − rate.

        Everywhere else it is x: evaluations, draws and `bind` have no such noise. Srivastava et al. 2014.
        """
        if not 0 <= rate < 1:
            raise ProgramError(f"P.dropout: got the rate {rate!r}, expected a number from 0 to less than 1.")
        if not rate or not self.interpreter.drops():
            return x
        return self.xp.where(self.random.uniform(tuple(x.shape)) < rate, 0.0, x / (1.0 - rate))

    def vjp(self, f: Callable[[Array], Array], x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """f(x), and the function v ↦ vᵀ ∂f/∂x, v of the shape of f(x). Both can be differentiated again.

        If row i of f(x) depends only on row i of x, one call gives every row its own gradient: ∇ Σᵢ fᵢ for v = 1.
        """
        return pullback(self._vjp, f, x, self.xp)

    def _vjp(self, f: Callable[[Array], Array], x: Array) -> tuple[Array, Callable[[Array], Array]]:
        raise NotImplementedError

    def reversible(self, blocks: Sequence[tuple[str, Map, Map]], x: Array) -> Array:
        """f_n(… f_1(x)), of which only the result is kept for the gradient: each f⁻¹ gives the block's input again.

        Gomez et al. 2017, arXiv:1707.04585. So memory does not grow with the number of blocks.

        Args:
            blocks: (name, f, f⁻¹), functions of (P, array), with P in the scope `name.` of the block's own parameters.
                They have no statements and no noise, and use no other arrays.
            x: an array.
        """
        return self._reversible(blocks_of(self, blocks), x)

    def _reversible(self, blocks: Sequence[InvertibleBlock], x: Array) -> Array:
        raise NotImplementedError

    def repeat(self, count: int, body: Callable[[Carry], Carry], x: Carry, early: bool = False) -> Carry:
        """body(body(… body(x))), `count` times, x an array or a tuple of arrays.

        On JAX this is one loop, so that a long one compiles fast. The body has no sites and no noise. With `early`, the
        loop ends when the body changes no number, with the same result; then the result carries no gradient.
        """

        if early:
            return self._loop_early(count, lambda x: self._inside(body, x), x)
        return self._loop(count, lambda x: self._inside(body, x), x)

    def recur(self, body: Callable[[Carry, Array], Carry], first: Carry, xs: Array) -> Carry:
        """All states s_t = body(s_{t−1}, x_t), [T, …], such as those of a recurrent net, for xs [T, …] and s_0 = first.

        States are arrays or tuples of arrays. On JAX this is one loop. The body has no sites and no noise.
        """
        return self._recurrence(lambda state, x: self._inside(body, state, x), first, xs)

    def _inside(self, body: Callable[..., Carry], *given: Any) -> Carry:
        outside, self.interpreter.looping = self.interpreter.looping, True
        found = body(*given)
        self.interpreter.looping = outside
        return found

    def _loop(self, count: int, body: Callable[[Carry], Carry], x: Carry) -> Carry:
        raise NotImplementedError

    def _recurrence(self, body: Callable[[Carry, Array], Carry], first: Carry, xs: Array) -> Carry:
        raise NotImplementedError

    def _loop_early(self, count: int, body: Callable[[Carry], Carry], x: Carry) -> Carry:
        raise NotImplementedError

    def scan(
        self, body: Callable[..., Any], carry: Tree, xs: Tree = None, length: int | None = None, mask: Array = None
    ) -> tuple[Tree, Tree]:
        """body(P, carry, x) -> (carry, output) at each time; on JAX this is one loop, so that a long one compiles fast.

        A site of the body has values [K, B, T, *event], and its term is the sum over times. In the body values are
        [K, B, …], and x is [1, B, …]. Where the mask is False, the carry stays as it is, and all terms are 0: data
        there may be any finite number, and a latent there has a value without a meaning.

        Args:
            body: statements, with arithmetic.
            carry: of the first time: an array, or a tuple or dictionary of arrays.
            xs: the same of data or outputs, [B, T, …], or [1, 1, T, …] for all rows; None: then x is None.
            length: T; by default that of xs.
            mask: [B, T], booleans.

        Returns:
            The last carry, and all outputs, [K or 1, B, T, …].
        """
        self._check_outside_loop("P.scan")
        return self.interpreter.scan(self, body, carry, xs, length, mask)

    def foreign(self, module: Module, x: Array, event_ndim: int) -> Array:
        """A user's own module applied to [..., *event], with the parameters in scope instead of its own."""
        raise NotImplementedError


def _check_events(what: str, x: Array, event: tuple[int, ...]) -> None:
    """Refuse an array that is not [..., *event]."""
    shape = tuple(getattr(x, "shape", ()))
    if shape[len(shape) - len(event) :] != event:
        expected = ", ".join(map(str, ("…", *event)))
        raise ProgramError(f"{what} an array of shape {shape}, expected [{expected}] as declared in build().")
