"""Runs of a user's NumPyro function: its statements get answers, and its sites are read per row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Unit
from numpyro.primitives import _PYRO_STACK, Messenger

from ppdgm.backends.numpyro.distributions import mended
from ppdgm.backends.numpyro.indices import NativeDraws
from ppdgm.backends.numpyro.support import confine, observe
from ppdgm.backends.numpyro.vocabulary import LIBRARY
from ppdgm.errors import PpdgmError, ProgramError, UnsupportedByBackend
from ppdgm.language import enumeration, mistakes, pair_mistakes
from ppdgm.language.calls import Call, stopped_at
from ppdgm.language.divergence import Library
from ppdgm.language.elimination import Term
from ppdgm.language.native import Message as Message
from ppdgm.language.pair_axes import Axes
from ppdgm.language.pair_sites import Frames, Layout, Site, Slopes, broadcasts
from ppdgm.language.scales import scale_of
from ppdgm.language.vocabulary import Array, Batch, Dist, Namespace

Messages = dict[str, Message]
Sizes = Mapping[str, tuple[int, int | None]]


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
        self.axes = axes or Axes(plate, written(plate))
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
            raise UnsupportedByBackend(pair_mistakes.HAS_STATE.format(msg["name"]))
        if kind == "control_flow":
            raise UnsupportedByBackend(pair_mistakes.CONTROL_FLOW)
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
            raise pair_mistakes.takes_part(name, part, size, self.plate)

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


def run(supply: Supply, key: Array, call: Call, batch: Batch) -> Messages:
    """The messages of one run, by name.

    Raises:
        ProgramError: a distribution does not fit its plates, or two sites have one name.
    """
    traced = numpyro.handlers.trace(NativeDraws(numpyro.handlers.seed(supply, key)))
    try:
        messages: Messages = call.of(traced.get_trace)(batch)
        return dict(messages)
    except PpdgmError:
        raise
    except (ValueError, AssertionError) as error:
        if (msg := stopped_at(error)) is None or msg["type"] != "sample":
            raise
        if isinstance(error, AssertionError):
            raise mistakes.twice(msg["name"]) from error
        raise _misfit(msg, supply.sizes) from error


@dataclass(frozen=True)
class JaxLayout(Layout):
    """Where the batch dimensions of a run of NumPyro's are; each run is of one particle."""

    xp: ClassVar[Namespace] = jnp
    library: ClassVar[Library] = LIBRARY
    logsumexp = staticmethod(jax.nn.logsumexp)

    @property
    def written(self) -> str:
        return written(self.plate)

    def log_prob(self, site: Site, judged: bool = False) -> Array:
        given = (site.value, site.intermediates) if site.intermediates else (site.value,)
        score = lambda: site.fn.log_prob(*given)
        if site.observed:
            return observe(site.fn, site.value, score)
        log_prob = mistakes.scored(site.name, site.fn, score)
        return confine(site.fn, site.value, log_prob) if judged else log_prob

    def term(self, site: Site, judged: bool = False) -> Array:
        return self.per_datum(Term(self.log_prob(site, judged), site.plates))

    def per_datum(self, term: Term) -> Array:
        x, data = term.log_prob, term.plates.get(self.plate)
        return jnp.sum(x, [a for a in range(x.ndim) if data is None or a != x.ndim + data]).reshape((1, -1))

    def in_run(self, site: Site, sizes: Mapping[str, int], judged: bool = False) -> Term:
        """Outside the data plate, a site depends on nothing that is enumerated."""
        return super().in_run(site, sizes, judged) if self.local(site) else Term(self.term(site, judged), {})

    def gather(self, site: Site, x: Array, events: int, axes: int = 0) -> Array:
        """Also if the batch of a latent that all data share is in no plate."""
        if self.local(site) or fits(tuple(site.fn.batch_shape), site.frames):
            return super().gather(site, x, events, axes)
        return x.reshape((1, 1, *(1,) * axes, *x.shape))

    def spread(self, name: str, fn: Dist, frames: Frames, x: Array, axes: int = 0) -> Array:
        """Also if the batch of a latent that all data share is in no plate."""
        if self.plate in frames or fits(tuple(fn.batch_shape), frames):
            return super().spread(name, fn, frames, x, axes)
        return x.reshape((*fn.batch_shape, *fn.event_shape))

    @staticmethod
    def slopes(function: Callable[[Slopes], Array], at: Slopes) -> Slopes:
        return dict(jax.grad(function)(at))

    @staticmethod
    def array(x: np.ndarray, like: Array) -> Array:
        return jnp.asarray(x, like.dtype if x.dtype.kind == "f" else None)

    @staticmethod
    def numbers(x: Array) -> np.ndarray:
        return np.asarray(x)


def written(plate: str) -> str:
    """How a program creates the data plate."""
    return f"numpyro.plate({plate!r}, x.shape[0])"


def fits(batch: tuple[int, ...], frames: Frames) -> bool:
    """Whether each dimension of a batch shape is that of a plate, or 1."""
    sizes = {f.dim: f.size for f in frames.values()}
    return all(n == sizes.get(dim, 1) for dim, n in zip(range(-len(batch), 0), batch, strict=True))


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
    name, fn, frames = msg["name"], msg["fn"], {f.name: f for f in msg["cond_indep_stack"]}
    batch, local, observed = tuple(fn.batch_shape), plate in frames, msg["is_observed"]
    lead = axes.lead(batch) if axes and local else 0
    if axes and axes.sizes and not local:
        axes.check_outside(name, batch)
    if not fits(batch[lead:], frames):
        if local:
            raise _misfit(msg, sizes)
        if observed:
            raise mistakes.outside(name, batch, written(plate), frames, True)
    asks = not observed and enumeration.wanted(name, msg["infer"])
    auxiliary, intermediates = bool(msg["infer"].get("is_auxiliary")), msg["intermediates"]
    return Site(name, fn, msg["value"], frames, observed, auxiliary, asks, intermediates=intermediates)


@dataclass
class PairRun:
    """The sample sites of one run, in order, and the messages of its parameters."""

    sites: dict[str, Site] = field(default_factory=dict)
    params: Messages = field(default_factory=dict)
    axes: Axes = field(default_factory=lambda: Axes("", ""))
    summed: list[str] = field(default_factory=list)  # out of the model: sites that the guide does not draw

    def drawn(self) -> list[str]:
        """The sites that are neither observed nor summed out."""
        return [n for n, s in self.sites.items() if not s.observed and n not in self.summed]


def read(supply: Supply, key: Array, call: Call, batch: Batch) -> PairRun:
    """One run, with its sites checked: plates, shapes, values and scales."""
    messages, pair_run = run(supply, key, call, batch), PairRun(axes=supply.axes)
    for name, msg in messages.items():
        if msg["type"] == "param":
            pair_run.params[name] = msg
        elif msg["type"] == "sample":
            site = place(msg, supply.plate, supply.sizes, supply.axes)
            site = replace(site, observed=site.observed or name in supply.generated)
            _check_value(site, supply.axes)
            scale = _own_scale(site, msg["scale"], *supply.sizes.get(supply.plate, (1, None)), supply.plate)
            pair_run.sites[name] = replace(site, scale=scale)
    return pair_run


def _misfit(msg: Message, sizes: Sizes) -> ProgramError:
    plates = {f.name: (f.dim, f.size, sizes.get(f.name, (f.size, None))[0]) for f in msg["cond_indep_stack"]}
    return mistakes.misfit(msg["name"], msg["fn"], plates)


def _check_value(site: Site, axes: Axes) -> None:
    got, batch, event = tuple(jnp.shape(site.value)), tuple(site.fn.batch_shape), tuple(site.fn.event_shape)
    data = site.plates.get(axes.plate)
    batch = batch[0 if data is None else axes.lead(batch) :]
    if axes.sizes:
        got = got[axes.lead(got[: len(got) - len(event)]) :]
        got = got[max(0, len(got) - len(event) - len(batch)) if site.name in axes.sizes else 0 :]
    lead = got[: len(got) - len(event)]
    right = got[len(lead) :] == event and broadcasts(lead, batch)
    if right and data is not None and event and not site.auxiliary and len(lead) < -data:
        right = False  # an event without the data's axis: every row would get the same
    if not right:
        raise ProgramError(
            f"Site {site.name!r}: got {'data' if site.observed else 'a value from the guide'} of shape {got}, but its "
            f"distribution has batch shape {batch} and events of shape {event}, so expected {batch + event}. "
            "Check .to_event(n), the data's shape and the shape of the net's output."
        )


def _own_scale(site: Site, scale: Array | float | None, size: int, part: int | None, plate: str) -> float:
    """The user's own scale around a site, without the data plate's N/B."""
    expected = size / part if part and plate in site.frames else 1.0
    if scale is None or (isinstance(scale, int | float) and math.isclose(scale, expected)):
        return 1.0
    if isinstance(scale, jax.core.Tracer) or jnp.ndim(scale):
        told = "an array" if jnp.ndim(scale) == 0 else f"numbers of shape {jnp.shape(scale)}"
        raise scale_of(site.name, told, "but only a Python number is a constant")
    return float(f"{float(scale) / expected:.6g}")
