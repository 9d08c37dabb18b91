"""Runs of a user's NumPyro function: its statements get answers, and its sites are read per row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from traceback import walk_tb
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro.distributions import Unit
from numpyro.primitives import _PYRO_STACK, Messenger

from ppdgm.backends.numpyro.distributions import mended
from ppdgm.backends.numpyro.support import confine, observe
from ppdgm.errors import PpdgmError, ProgramError, UnsupportedByBackend
from ppdgm.language import enumeration, mistakes
from ppdgm.language.elimination import escapes
from ppdgm.language.native import Message as Message
from ppdgm.language.scales import scale_of
from ppdgm.language.vocabulary import Array, Dist

Messages = dict[str, Message]
Sizes = Mapping[str, tuple[int, int | None]]
_STATE = (
    "Site {!r} has state in addition to the parameters (running statistics, or a generator for dropout). The numpyro "
    "backend runs plain pairs as pure functions of parameters and data. Use layer norm or group norm, and nets without "
    "dropout."
)
_LOOP = (
    "The pair uses numpyro's own control flow (scan or cond). Its sites have axes that belong to no plate, so they "
    "have no separate terms for each row. Use a Python loop, or jax.lax.scan only around code without sites."
)


@dataclass
class Axes:
    """The dimensions of enumerated sites, left of those of plates.

    Attributes:
        plate: name of the data plate.
        width: dimensions of plates.
        sizes: the sites so far, with their number of values.
        everything: whether sites are enumerated that don't ask for it, if their draws carry no gradient.
        outside: sites outside the data plate, with their batch shapes.
    """

    plate: str
    width: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    everything: bool = False
    outside: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def lead(self, batch: tuple[int, ...]) -> int:
        """The number of dimensions of a batch shape that are those of enumerated sites."""
        lead = batch[: max(0, len(batch) - self.width)] if self.sizes else ()
        fits = len(lead) <= len(self.sizes) and all(
            n in (1, s) for n, s in zip(lead[::-1], self.sizes.values(), strict=False)
        )
        return len(lead) if fits else 0

    def check_outside(self, name: str, batch: tuple[int, ...]) -> None:
        """Refuse a site outside the data plate that depends on an enumerated one, and has its dimension."""
        if self.outside.get(name, batch) != batch:
            raise escapes(name, next(reversed(self.sizes)), "the data plate")

    def not_inside(self, name: str) -> ProgramError:
        """The error for a site outside the data plate that is to be enumerated."""
        return mistakes.enumerated_outside(name, written(self.plate))

    def values(self, msg: Message) -> Array | None:
        """All values of a site that is to be enumerated; None for any other."""
        name, fn = msg["name"], msg["fn"]
        if not enumeration.wanted(name, msg["infer"]) and (not self.everything or fn.has_rsample):
            return None
        if all(f.name != self.plate for f in msg["cond_indep_stack"]):
            raise self.not_inside(name)
        found = enumeration.all_values(name, fn, self.sizes, jnp.reshape, self.width)
        self.sizes[name] = len(found)
        return found


class Supply(Messenger):
    """Answers the statements of a user's function, and refuses those that a bound per row can't have.

    Args:
        fn: the function.
        plate: name of the data plate.
        index: (size, subsample_size) -> indices for the data plate, or None to leave it to NumPyro.
        param: message -> value of the parameter, or None.
        choose: message -> value of the sample site, or None.
        guide: size and subsample_size of the plate in the guide, if this is the model.
        generate: also draw observed sites, if `choose` gives them no value.
        noise: a key for each that the function asks for outside its sites; None to leave it to NumPyro.
        axes: of the enumerated sites.
    """

    def __init__(
        self,
        fn: Callable[..., object],
        plate: str,
        index: Callable[[int, int | None], Array | None],
        param: Callable[[Message], object],
        choose: Callable[[Message], Array | None],
        guide: tuple[int, int | None] | None = None,
        noise: Callable[[], Array] | None = None,
        generate: bool = False,
        axes: Axes | None = None,
    ):
        super().__init__(fn)
        self.axes = axes or Axes(plate)
        self.noise, self.keys = noise, 0  # the number of keys asked for
        self.generate, self.generated = generate, set[str]()
        self.plate, self.param, self.choose, self._index_of = plate, param, choose, index
        self.index: Array | None = None
        self.guide = guide
        self.sizes: dict[str, tuple[int, int | None]] = {}
        self.borrowed = 0  #: N, if only the guide subsamples, and the model is given its indices

    def process_message(self, msg: Message) -> None:
        kind = msg["type"]
        if kind == "mutable":
            raise UnsupportedByBackend(_STATE.format(msg["name"]))
        if kind == "control_flow":
            raise UnsupportedByBackend(_LOOP)
        if kind == "prng_key":
            self.keys += 1
            msg["value"] = self.noise() if self.noise else msg["value"]
        elif kind == "plate":
            self._plate(msg)
        elif kind == "subsample":
            self._subsample(msg)
        elif kind in ("param", "sample"):
            if kind == "sample":
                msg["fn"] = mended(msg["fn"])
                if self.generate and msg["is_observed"] and not isinstance(msg["fn"], Unit):
                    msg["is_observed"], msg["value"] = False, None
                    self.generated.add(msg["name"])
            value = self.param(msg) if kind == "param" else self.choose(msg)
            msg["value"] = msg["value"] if value is None else value

    def _plate(self, msg: Message) -> None:
        name, (size, part) = msg["name"], msg["args"]
        there, drawn = self.guide or (size, part)
        if name == self.plate and part is None and drawn not in (None, there):
            part, self.borrowed = drawn, size  # only the guide subsamples: the model is given its indices
        self.sizes[name] = size, part
        if name == self.plate:
            mistakes.check_sizes(name, part or size, drawn or there)
            self.index = self._index_of(size, part)
            msg["value"] = msg["value"] if self.index is None else self.index
        elif part not in (None, size):
            raise ProgramError(
                f"Plate {name!r}: got subsample_size={part} of {size}. The bound of a row needs all terms of the row, "
                f"so only the data plate ({self.plate!r}) can subsample. Leave subsample_size out."
            )

    def _subsample(self, msg: Message) -> None:
        """Take the rows that `numpyro.subsample` asks for.

        NumPyro takes them only from as many rows as the plate's size. Here the data may be another set than the one
        whose size is written in the program.
        """
        plate = next((h for h in _PYRO_STACK if isinstance(h, numpyro.plate) and h.name == self.plate), None)
        if plate is None or self.index is None:
            return
        axis = plate.dim - msg["kwargs"]["event_dim"]
        if jnp.ndim(msg["value"]) >= -axis and msg["value"].shape[axis] != 1:
            msg["value"] = jnp.take(msg["value"], self.index, axis)
        msg["type"] = "subsampled"  # so the plate does not change it


def run(supply: Supply, key: Array, args: tuple[Array, ...], kwargs: Mapping[str, Array]) -> Messages:
    """The messages of one run, by name.

    Raises:
        ProgramError: a distribution does not fit its plates, or two sites have one name.
    """
    traced = numpyro.handlers.trace(numpyro.handlers.seed(supply, key))
    try:
        return dict(traced.get_trace(*args, **kwargs))
    except PpdgmError:
        raise
    except (ValueError, AssertionError) as error:
        messages = [f.f_locals["msg"] for f, _ in walk_tb(error.__traceback__) if f.f_code.co_name == "apply_stack"]
        if not messages or messages[-1]["type"] != "sample":
            raise
        if isinstance(error, AssertionError):
            raise mistakes.twice(messages[-1]["name"]) from error
        raise _misfit(messages[-1], supply.sizes) from error


@dataclass
class Site:
    """A random variable, with its place among the plates.

    Attributes:
        axis: the data plate's axis among those of plates, or None for a site outside it.
        inner: sizes of the other plates around it.
        plates: the plates around it, with their dimensions.
        lead: number of batch axes before these; they are those of enumerated sites.
        asks: whether it asks to be enumerated.
        scale: the user's own, in training.
    """

    name: str
    fn: Dist
    value: Array
    intermediates: Any  # NumPyro's own
    observed: bool
    auxiliary: bool
    axis: int | None
    inner: tuple[int, ...]
    plates: Mapping[str, int]
    lead: int = 0
    asks: bool = False
    scale: float = 1.0

    @property
    def data_dim(self) -> int | None:
        """The data plate's dimension, negative."""
        return None if self.axis is None else self.axis - len(self.batch_shape)

    @property
    def size(self) -> int:
        """B; 1 for a site outside the data plate."""
        return 1 if self.axis is None else int(self.batch_shape[self.axis])

    @property
    def inner_dims(self) -> list[int]:
        """The dimensions of the other plates."""
        return sorted(dim for dim in self.plates.values() if dim != self.data_dim)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch shape, only of plates."""
        return tuple(self.fn.batch_shape[self.lead :])

    def log_prob(self, judged: bool = False) -> Array:
        """[B], summed over inner plates; [] for a site outside the data plate.

        With `judged`, the log p of a latent is −∞ outside its support.
        """
        log_prob = self.each(judged)
        return jnp.sum(log_prob, [a for a in range(log_prob.ndim) if a != self.axis])

    def each(self, judged: bool = False) -> Array:
        """log p as the distribution returns it, [*enumerated, *plates]; `judged` as for `log_prob`."""
        given = (self.value, self.intermediates) if self.intermediates else (self.value,)
        score = lambda: self.fn.log_prob(*given)
        if self.observed:
            log_prob = observe(self.fn, self.value, score)
        else:
            log_prob = mistakes.scored(self.name, self.fn, score)
            log_prob = confine(self.fn, self.value, log_prob) if judged else log_prob
        return log_prob

    def rows(self, axes: Axes | None = None) -> Array:
        """The value in the layout [B, *enumerated, *inner, *event]; [1, *event] for a site outside the data plate."""
        if axes and axes.sizes:
            return self.laid_out(self.value, axes, len(self.fn.event_shape))
        value = jnp.broadcast_to(self.value, self.fn.batch_shape + self.fn.event_shape)
        rows = value[None] if self.axis is None else jnp.moveaxis(value, self.axis, 0)
        return jnp.reshape(rows, (rows.shape[0], *self.inner, *self.fn.event_shape))

    def rows_at(self, told: Mapping[str, Array]) -> Array:
        """The same; or what is `told` of the site."""
        return replace(self, value=told.get(self.name, self.value)).rows()

    def laid_out(self, x: Array, axes: Axes, events: int) -> Array:
        """x [*enumerated, *plates, *event] as [B, *enumerated, *inner, *event]."""
        shape, count = jnp.shape(x), len(axes.sizes)
        if self.axis is None:
            return jnp.reshape(x, (1, *(1,) * count, *self.inner, *self.fn.event_shape))
        batch, event = shape[: len(shape) - events], shape[len(shape) - events :]
        front, last = max(0, len(batch) - axes.width), count + axes.width
        plates = (1,) * (axes.width - len(batch) + front) + batch[front:]
        x = jnp.reshape(x, ((1,) * (count - front) + batch[:front] + plates + event))
        inner = [x.shape[last + dim] for dim in self.inner_dims]
        if self.data_dim is not None:
            x = jnp.moveaxis(x, last + self.data_dim, 0)
        return jnp.reshape(x, (-1, *((1,) * (count - front) + batch[:front]), *inner, *event))

    def native(self, rows: Array) -> Array:
        """The inverse of `rows`, for a value that is the same for all enumerated values."""
        if self.axis is None:
            return rows[0]
        rest = [n for a, n in enumerate(self.batch_shape) if a != self.axis]
        return jnp.moveaxis(jnp.reshape(rows, (rows.shape[0], *rest, *self.fn.event_shape)), 0, self.axis)


def is_local(site: Site) -> bool:
    """Whether a site is inside the data plate."""
    return site.axis is not None


def written(plate: str) -> str:
    """How a program creates the data plate."""
    return f"numpyro.plate({plate!r}, x.shape[0])"


def place(msg: Message, plate: str, sizes: Sizes, axes: Axes | None = None) -> Site:
    """The site of a message, before it has a value.

    Args:
        msg: of the site.
        plate: the data plate.
        sizes: plate -> its size and subsample_size.
        axes: of the enumerated sites.

    Raises:
        ProgramError: an axis of its distribution belongs to no plate.
    """
    fn, frames = msg["fn"], {f.dim: f for f in msg["cond_indep_stack"]}
    data = next((d for d, f in frames.items() if f.name == plate), None)
    lead = axes.lead(tuple(fn.batch_shape)) if axes and data is not None else 0
    if axes and axes.sizes and data is None:
        axes.check_outside(msg["name"], tuple(fn.batch_shape))
    batch = fn.batch_shape[lead:]
    dims = range(-len(batch), 0)
    auxiliary = bool(msg["infer"].get("is_auxiliary"))
    fits = all(n == (frames[d].size if d in frames else 1) for d, n in zip(dims, batch, strict=True))
    if data is None and not fits and msg["is_observed"]:
        raise without_plate(msg["name"], tuple(fn.batch_shape), plate, [f.name for f in frames.values()], True)
    if data is not None and not fits:
        raise _misfit(msg, sizes)
    axis = None if data is None else data + len(batch)
    inner = tuple(frames[d].size for d in dims if d in frames and d != data)
    inner = inner if fits else tuple(batch)  # a latent of this shape, shared by all data
    plates, observed = {f.name: d for d, f in frames.items()}, msg["is_observed"]
    asks = not observed and enumeration.wanted(msg["name"], msg["infer"])
    given = msg["value"], msg["intermediates"]
    return Site(msg["name"], fn, *given, observed, auxiliary, axis, inner, plates, lead, asks)


@dataclass
class PairRun:
    """The sample sites of one run, in order, and the messages of its parameters."""

    sites: dict[str, Site] = field(default_factory=dict)
    params: Messages = field(default_factory=dict)
    axes: Axes = field(default_factory=lambda: Axes(""))
    summed: list[str] = field(default_factory=list)  # out of the model: sites that the guide does not draw

    def drawn(self) -> list[str]:
        """The sites that are neither observed nor summed out."""
        return [n for n, s in self.sites.items() if not s.observed and n not in self.summed]


def read(supply: Supply, key: Array, args: tuple[Array, ...], kwargs: Mapping[str, Array]) -> PairRun:
    """One run, with its sites checked: plates, shapes, values and scales."""
    messages, pair_run = run(supply, key, args, kwargs), PairRun(axes=supply.axes)
    for name, msg in messages.items():
        if msg["type"] == "param":
            pair_run.params[name] = msg
        elif msg["type"] == "sample":
            site = pair_run.sites[name] = place(msg, supply.plate, supply.sizes, supply.axes)
            site.observed = site.observed or name in supply.generated
            _check_value(site, supply.axes)
            site.scale = _own_scale(site, msg["scale"], *supply.sizes.get(supply.plate, (1, None)))
    return pair_run


def without_plate(
    name: str, batch: tuple[int, ...], plate: str, others: Iterable[str] = (), observed: bool = False
) -> ProgramError:
    """The error for a site outside the data plate that has one value for each row."""
    return mistakes.outside(name, batch, written(plate), others, observed)


def no_plate(plate: str, known: Iterable[str]) -> ProgramError:
    """The error for a pair whose data plate is missing, or has another name."""
    found = ", ".join(map(repr, known)) or "none"
    return ProgramError(
        f"The pair has no plate {plate!r}. Its plates: {found}. Give the name of the plate over data: "
        "Program.from_numpyro(model, guide, data_plate=…)."
    )


def _misfit(msg: Message, sizes: Sizes) -> ProgramError:
    plates = {f.name: (f.dim, f.size, sizes.get(f.name, (f.size, None))[0]) for f in msg["cond_indep_stack"]}
    return mistakes.misfit(msg["name"], msg["fn"], plates)


def _check_value(site: Site, axes: Axes) -> None:
    got, batch, event = tuple(jnp.shape(site.value)), site.batch_shape, tuple(site.fn.event_shape)
    if axes.sizes:
        got = got[axes.lead(got[: len(got) - len(event)]) :]
        got = got[max(0, len(got) - len(event) - len(batch)) if site.name in axes.sizes else 0 :]
    lead = got[: len(got) - len(event)]
    fits = got[len(lead) :] == event and len(lead) <= len(batch)
    fits = fits and all(g in (1, b) for g, b in zip(reversed(lead), reversed(batch), strict=False))
    if fits and site.axis is not None and event and not site.auxiliary and len(lead) < len(batch) - site.axis:
        fits = False  # an event without the data's axis: every row would get the same
    if not fits:
        raise ProgramError(
            f"Site {site.name!r}: got {'data' if site.observed else 'a value from the guide'} of shape {got}, but its "
            f"distribution has batch shape {batch} and events of shape {event}, so expected {batch + event}. "
            "Check .to_event(n), the data's shape and the shape of the net's output."
        )


def _own_scale(site: Site, scale: Array | float | None, size: int, part: int | None) -> float:
    """The user's own scale around a site, without the data plate's N/B."""
    expected = size / part if part and site.axis is not None else 1.0
    if scale is None or (isinstance(scale, int | float) and math.isclose(scale, expected)):
        return 1.0
    if isinstance(scale, jax.core.Tracer) or jnp.ndim(scale):
        told = "an array" if jnp.ndim(scale) == 0 else f"numbers of shape {jnp.shape(scale)}"
        raise scale_of(site.name, told, "but only a Python number is a constant")
    return float(f"{float(scale) / expected:.6g}")
