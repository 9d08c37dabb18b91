"""The messenger around a plain Pyro function: records its sites, and sets what the run is to take as given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro.distributions import Unit, constraints
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ppdgm.backends.pyro.plate import own_init
from ppdgm.backends.pyro.sites import PARTICLES, Layout, Site, subsampled
from ppdgm.errors import ProgramError, UnsupportedByBackend, nearest
from ppdgm.language import Array, Batch
from ppdgm.reading import not_pathwise


class Recorder(Messenger):
    """Records every site; sets the minibatch's indices, given and replayed values, or means.

    Args:
        layout: dimensions of the run.
        index: what the data plate yields, for guide and model alike, if it subsamples.
        given: values [K, B, *inner, *event] of latent sites.
        replay: values of latent sites as the guide drew them.
        params: parameter -> the tensor that training moves.
        first: whether this run finds the parameters, and puts them into `params`.
        pathwise: refuse draws through which no gradient flows.
        mean: put each latent at its mean.
        generate: put each observed site at its mean.
    """

    def __init__(
        self,
        layout: Layout,
        index: Array,
        given: Mapping[str, Array],
        replay: Mapping[str, Site],
        params: dict[str, Array],
        first: bool = False,
        pathwise: bool = False,
        mean: bool = False,
        generate: bool = False,
    ):
        super().__init__()
        self.layout, self.index, self.given, self.replay = layout, index, given, replay
        self.params: dict[str, Array] = params
        self.first, self.pathwise, self.mean, self.generate = first, pathwise, mean, generate
        self.sites: dict[str, Site] = {}
        self.plates: set[str] = set()

    def record(self, function: Callable[[Batch], Any], batch: Batch) -> dict[str, Site]:
        """Run the function, with a plate of particles around it if the layout has one.

        Raises:
            ProgramError: a site has dimensions that no plate declares.
        """
        k, dim = self.layout.k, -1 - self.layout.nesting
        with self, pyro.plate(PARTICLES, k, dim=dim) if k else nullcontext():
            try:
                function(batch)
            except ValueError as error:
                text = str(error)
                if not text.startswith("Shape mismatch inside plate"):
                    raise
                raise ProgramError(
                    f"{text.splitlines()[0]}. Dimensions of one datum belong to the event: add .to_event(n) to the "
                    "site's distribution, so that its batch shape is the plate's size."
                ) from error
        return self.sites

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        if isinstance(fn, _Subsample):
            self._set_plate(msg)
        elif msg["is_observed"]:
            if self.generate and not _is_bookkeeping(msg):
                _set(msg, _mean(name, fn))
                msg["is_observed"], msg["infer"]["_was_observed"] = False, True
        elif msg["done"] or msg["value"] is not None:
            return
        elif name in self.replay:
            _set(msg, self.replay[name].value)
        elif name in self.given:
            _set(msg, self.layout.spread(name, fn, _frames(msg), self.given[name]))
        elif self.mean:
            _set(msg, _mean(name, fn))
        elif self.pathwise and not fn.has_rsample:
            raise not_pathwise(name, fn)

    def _pyro_post_sample(self, msg: Any) -> None:
        name, fn, infer = msg["name"], msg["fn"], msg["infer"]
        if isinstance(fn, _Subsample) or infer.get("_deterministic") or infer.get("_do_not_trace"):
            return
        if name in self.sites:
            raise ProgramError(f"Site {name!r} is drawn twice. Give each site a name of its own.")
        observed = msg["is_observed"] or infer.pop("_was_observed", False)
        auxiliary = bool(infer.get("is_auxiliary"))
        site = Site(name, fn, msg["value"], msg["mask"], msg["scale"], observed, auxiliary, _frames(msg))
        self._check_frame(site)
        if observed:
            _check_observation(site, self.layout)
        self.sites[name] = site

    def _pyro_param(self, msg: Any) -> None:
        if self.first:
            own_init(msg)
        elif msg["name"] not in self.params:
            raise ProgramError(
                f"Parameter {msg['name']!r} appears only now: it was not there when the pair was first run. Make every "
                "parameter in every call. " + nearest(msg["name"], self.params)
            )

    def _pyro_post_param(self, msg: Any) -> None:
        if not self.first:
            return
        name, value = msg["name"], msg["value"]
        leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
        init = msg["args"][1] if len(msg["args"]) > 1 else None
        real = msg["kwargs"].get("constraint") is constraints.real
        if isinstance(init, torch.nn.Parameter) and init is not leaf and real:
            raise taken_twice(name)
        self.params.setdefault(name, leaf)

    def _set_plate(self, msg: Any) -> None:
        name, size, part = msg["name"], msg["fn"].size, msg["fn"].subsample_size
        self.plates.add(name)
        if msg["value"] is not None:
            part = len(msg["value"])
        elif name == self.layout.plate and part == len(self.index):
            _set(msg, self.index)
            return
        if part is not None and part < size and name != self.layout.plate:
            raise subsampled(name, self.layout.plate)
        if part is not None and part < size and part != len(self.index):
            raise ProgramError(
                f"Plate {name!r}: got subsample_size={part} in one of model and guide, expected {len(self.index)} as "
                "in the other."
            )

    def _check_frame(self, site: Site) -> None:
        plate = self.layout.plate
        frame = site.frames.get(plate)
        if frame is None:
            return
        if frame.dim is None:
            raise ProgramError(
                f"Plate {plate!r} runs one datum at a time (`for i in pyro.plate(…)`). Use it as a context: "
                f"`with pyro.plate({plate!r}, x.shape[0]):`."
            )
        if plate not in self.plates:
            raise ProgramError(
                f"Plate {plate!r} is not made in the call, or without a size. Write `with pyro.plate({plate!r}, "
                "x.shape[0]):` in model and guide, so that it can follow the minibatch."
            )


def taken_twice(name: str) -> ProgramError:
    """The error for one name of two parameters."""
    return ProgramError(
        f"Parameter {name!r} belongs to two modules, of which Pyro would train one at most. Name them apart: "
        "pyro.module('encoder', …), PyroModule(name='guide')."
    )


def _frames(msg: Any) -> dict[str, Any]:
    return {f.name: f for f in msg["cond_indep_stack"]}


def _set(msg: Any, value: Array) -> None:
    msg["value"], msg["done"] = value, True


def _is_bookkeeping(msg: Any) -> bool:
    return bool(msg["infer"].get("_deterministic")) or isinstance(msg["fn"], Unit)


def _mean(name: str, fn: Any) -> Array:
    try:
        return fn.mean.broadcast_to(fn.shape())
    except NotImplementedError:
        raise UnsupportedByBackend(f"Site {name!r}: {type(fn).__name__} has no mean in Pyro.") from None


def _check_observation(site: Site, layout: Layout) -> None:
    event = tuple(site.fn.event_shape)
    got, n = tuple(site.value.shape), len(event)
    lead, batch = got[: len(got) - n], tuple(site.fn.batch_shape)
    fits = len(lead) <= len(batch) and all(g in (1, b) for g, b in zip(lead[::-1], batch[::-1], strict=False))
    if got[len(got) - n :] != event or not fits:
        raise ProgramError(
            f"Site {site.name!r}: got data of shape {got}, but its distribution is over events of shape {event}, in a "
            f"batch of shape {batch}, so expected {(*batch, *event)}. Check .to_event(n) and the net's output."
        )
