"""A density written with `xp`: all but its draws; and densities at the ends of their supports."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ppdgm.language.vocabulary import Array, Dist, Namespace, Random, Support

if TYPE_CHECKING:
    from types import ModuleType

    from ppdgm.language.native import Constraint

_NAMED = ("real", "positive", "unit_interval", "boolean", "nonnegative_integer")


class WrittenDensity:
    """A density written with `xp`; its arguments are those of `P.distribution`. It comes before a library's base class.

    Attributes:
        xp: array-API namespace.
        constraints: the library's.
        shape_type: of shapes there.
    """

    xp: ClassVar[Namespace]
    constraints: ClassVar[ModuleType]
    shape_type: ClassVar[type] = tuple
    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    event_shape: tuple[int, ...]
    batch_shape: tuple[int, ...]

    def __init__(
        self,
        sample: Callable[[Random, tuple[int, ...]], tuple[Array, Array | None]],
        log_prob: Callable[[Array], Array],
        event_shape: tuple[int, ...],
        batch_shape: tuple[int, ...],
        like: Any,
        support: Support = "real",
        mean: Callable[[], Array] | None = None,
        mode: Callable[[], Array] | None = None,
        pathwise: bool = True,
        kl: Callable[[Dist], Array | None] | None = None,
        about: Mapping[str, object] | None = None,
        values: Callable[[], Array] | None = None,
        discrete: Dist | None = None,
    ):
        self._sample, self._log_prob, self._like = sample, log_prob, like
        self._rest: dict[str, Any] = {
            "support": support, "mean": mean, "mode": mode, "pathwise": pathwise, "kl": kl, "about": about,
            "values": values, "discrete": discrete,
        }  # fmt: skip
        self.about, self.closed_form, self.discrete, self.mode_of = about or {}, kl, discrete, mode
        shapes = self.shape_type(batch_shape), self.shape_type(event_shape)
        super().__init__(*shapes, validate_args=False)  # type: ignore[call-arg]  # the library's base class

    @property
    def support(self) -> Constraint:
        kind, constraints = self._rest["support"], self.constraints
        if isinstance(kind, str):
            known = {n: getattr(constraints, n) for n in _NAMED}[kind]
        else:
            known = constraints.integer_interval(*kind)
        return constraints.independent(known, len(self.event_shape))

    @property
    def has_rsample(self) -> bool:
        return bool(self._rest["pathwise"])

    @property
    def has_enumerate_support(self) -> bool:
        return self._rest["values"] is not None

    @property
    def mean(self) -> Array:
        if self._rest["mean"] is None:
            raise NotImplementedError  # the library's own sign for: the mean is not known
        return self._rest["mean"]()

    def expand(self, batch_shape: tuple[int, ...], _instance: Dist | None = None) -> Self:
        # Pyro's own wrapper reshapes draws, and so they would lose their remembered density.
        return type(self)(self._sample, self._log_prob, self.event_shape, batch_shape, self._like, **self._rest)

    def enumerate_support(self, expand: bool = True) -> Array:
        """All values, [S, 1, …, *event_shape]."""
        values, ones = self._rest["values"](), (1,) * len(self.batch_shape)
        values = self.xp.reshape(values, (len(values), *ones, *self.event_shape))
        wide = (len(values), *self.batch_shape, *self.event_shape)
        return self.xp.broadcast_to(values, wide) if expand else values


def power_of_zero(xp: Namespace, power: Array) -> Array:
    """log v^power at v = 0."""
    infinite = xp.full_like(power, float("inf"))
    return xp.where(power == 0, 0.0, xp.where(power > 0, -infinite, infinite))


def mend(d: Dist, kinds: Mapping[type, type], native: type) -> Dist:
    """A distribution of the user's; the library's classes, also inside it, are replaced by our own.

    Args:
        d: the distribution.
        kinds: the library's class -> ours.
        native: the class of all distributions.
    """
    inner = {n: mend(v, kinds, native) for n, v in vars(d).items() if isinstance(v, native)}
    kind = kinds.get(type(d), type(d))
    if kind is type(d) and all(vars(d)[n] is v for n, v in inner.items()):
        return d
    found = copy.copy(d)
    found.__class__ = kind
    found.__dict__.update(inner)
    return found


class WeibullEnds:
    """The library's, also at 0. Like the next class, it comes before the library's."""

    xp: ClassVar[Namespace]
    concentration: Array
    scale: Array

    def log_prob(self, value: Array) -> Array:
        """log c − c log s + (c − 1) log x − (x / s)ᶜ."""
        xp, score = self.xp, super().log_prob  # type: ignore[misc]  # the library's
        at_zero = xp.log(self.concentration) - self.concentration * xp.log(self.scale)
        inner = score(xp.where(value == 0, 1.0, value))
        return xp.where(value == 0, at_zero + power_of_zero(xp, self.concentration - 1.0), inner)


class KumaraswamyEnds:
    """The library's, also at 0 and 1: torch leaves them out, NumPyro clips 1 − xᵃ at 1."""

    xp: ClassVar[Namespace]
    concentration0: Array
    concentration1: Array

    def log_prob(self, value: Array) -> Array:
        """log a + log b + (a − 1) log x + (b − 1) log(1 − xᵃ)."""
        xp, a, b = self.xp, self.concentration1, self.concentration0
        end, score = (value == 0) | (value == 1), super().log_prob  # type: ignore[misc]  # the library's
        at_end = xp.log(a) + xp.log(b) + power_of_zero(xp, xp.where(value == 0, a, b) - 1.0)
        return xp.where(end, at_end, score(xp.where(end, 0.5, value)))


class OrderedLogits:
    """The library's ordered classes, also far from the cut points: it takes logarithms of differences of sigmoids.

    In float32, these lose all digits if η is 16 or more from a cut point: Pyro then has −15.9, NumPyro −∞.
    """

    xp: ClassVar[Namespace]
    predictor: Array
    cutpoints: Array

    @property
    def logits(self) -> Array:
        """log [σ(b) − σ(a)] = log σ(b) + log σ(−a) + log(1 − exp(a − b)) of neighbours a < b in c − η, [*batch, K]."""
        xp = self.xp
        at = self.cutpoints - self.predictor[..., None]
        zero = xp.zeros_like(at)
        below, above = -xp.logaddexp(zero, -at), -xp.logaddexp(zero, at)  # log σ and log (1 − σ)
        gaps = xp.log(-xp.expm1(at[..., :-1] - at[..., 1:]))
        inner = below[..., 1:] + above[..., :-1] + gaps
        return xp.concat((below[..., :1], inner, above[..., -1:]), axis=-1)

    @logits.setter
    def logits(self, value: Array) -> None:
        """Nothing: torch's Categorical would copy its own."""
