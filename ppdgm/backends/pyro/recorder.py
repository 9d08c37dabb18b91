"""The messenger around a plain Pyro function: records its sites, and sets the values that the run is given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import pyro
import torch
from pyro.distributions import Unit, constraints
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import Distribution, Normal

from ppdgm.backends.pyro.distributions import mended
from ppdgm.backends.pyro.noise import GeneratorWatch
from ppdgm.backends.pyro.plate import own_init
from ppdgm.backends.pyro.vocabulary import has_pathwise, stamps
from ppdgm.errors import PpdgmError, ProgramError, explain
from ppdgm.language import enumeration, mistakes, pair_mistakes
from ppdgm.language.calls import Call, stopped_at
from ppdgm.language.native import Frame, Message
from ppdgm.language.pair_axes import Axes
from ppdgm.language.pair_sites import PARTICLES, Layout, Site, broadcasts, plate_misfit
from ppdgm.language.points import log_normal_mean, points
from ppdgm.language.reader import Gradients
from ppdgm.language.vocabulary import Array, Batch, Dist, PairLike
from ppdgm.language.wrapped import inner


class SiteRecorder(Messenger):
    """Records every site; sets the minibatch's indices, given and replayed values, or means.

    Args:
        layout: dimensions of the run.
        index: the indices that the data plate yields, for guide and model, if it subsamples.
        given: values [K, B, *inner, *event] of latent sites.
        replay: values of latent sites, as drawn by the guide; of observed ones, what comes after them sees.
        params: parameter -> the tensor that training changes.
        first: whether this run finds the parameters, and puts them into `params`.
        gradients: the ones that will be taken: draws without a gradient are refused, or noted.
        mean: put each latent at its mean.
        generate: "mean" reports each observed site at its mean, in `told`; "draw" draws it.
        watch: is notified of each site, to find draws between the sites.
        axes: sites that are already enumerated, with their number of values; None to enumerate nothing.
    """

    def __init__(
        self,
        layout: Layout,
        index: Array,
        given: Mapping[str, Array],
        replay: Mapping[str, Site],
        params: dict[str, Array],
        first: bool = False,
        gradients: Gradients | None = None,
        mean: bool = False,
        generate: str = "",
        watch: GeneratorWatch | None = None,
        axes: Mapping[str, int] | None = None,
    ):
        super().__init__()
        everything = gradients is not None and gradients.enumerate
        self.axes = Axes(layout.plate, layout.written, layout.width, dict(axes or {}), everything)
        self.enumerates, self.watch = axes is not None, watch
        self.layout, self.index, self.given, self.replay = layout, index, given, replay
        self.params: dict[str, Array] = params
        self.first, self.gradients, self.mean, self.generate = first, gradients, mean, generate
        self.sites: dict[str, Site] = {}
        self.told: dict[str, Array] = {}
        self.moved: set[str] = set()  # sites of a guide that are functions of auxiliary draws, and have a mean
        self.plates: set[str] = set()
        self.role = ""
        self.subsamples = False  #: whether the data plate draws its minibatch by index
        self.borrowed = 0  #: N, if only the guide subsamples, and the model is given its indices
        self.rows: int | None = None  #: N, if a parameter has one row for each row of the data

    def record(self, function: Call, batch: Batch) -> dict[str, Site]:
        """Run the function, with a plate of particles around it if the layout has one.

        Raises:
            ProgramError: a site has dimensions that no plate declares; or any error in the function, with its line.
        """
        self.role, before = function.role, stamps(batch)
        k, dim = self.layout.k, -1 - self.layout.nesting
        with self, pyro.plate(PARTICLES, k, dim=dim) if k else nullcontext():
            try:
                function(batch)
            except Exception as error:
                if (found := self._told(function.program, error)) is error:
                    raise
                raise found from error
        if stamps(batch) != before:
            raise mistakes.changed(self.role)
        return self.sites

    def _told(self, program: PairLike, error: Exception) -> PpdgmError:
        found = error if isinstance(error, PpdgmError) else explained(program, error)
        if self.borrowed:
            found = pair_mistakes.borrowed(self.layout.plate, self.borrowed, len(self.index), found)
        return found

    def _pyro_sample(self, msg: Message) -> None:
        if self.watch:
            self.watch.site()
        name, fn = msg["name"], msg["fn"]
        if isinstance(fn, _Subsample):
            self._set_plate(msg)
            return
        if not isinstance(fn, Distribution):
            raise mistakes.not_a_distribution(name, fn, Distribution, "dist")
        fn = msg["fn"] = self._sized(name, mended(fn), msg)
        if msg["is_observed"]:
            if self.generate and not _is_bookkeeping(msg):
                msg["is_observed"], msg["infer"]["_was_observed"] = False, True
                if self.generate == "mean":  # what comes after it sees its data, or its draw
                    self._point(name, fn, False)
                    _set(msg, self.replay[name].value if name in self.replay else msg["value"])
                else:
                    msg["value"] = None
        elif msg["done"] or msg["value"] is not None:
            return
        elif name in self.replay:
            self._check_replayed(msg, self.replay[name])
            _set(msg, self.replay[name].value)
        elif name in self.given:
            mistakes.check_rounded(name, fn)
            _set(msg, self.layout.spread(name, fn, self._frames(msg), self.given[name], len(self.axes.sizes)))
        elif self.mean and not (self.given and msg["infer"].get("is_auxiliary")):  # if given, nothing depends on it
            _set(msg, self._point(name, fn, True))
        elif (value := self._values(msg)) is not None:
            _set(msg, value)
        elif self.gradients:
            self.gradients.note(name, fn, self.layout.plate in self._frames(msg), has_pathwise(fn))

    def _values(self, msg: Message) -> Array | None:
        """All values of a site that is to be enumerated; None for any other."""
        if not self.enumerates:
            return None
        fn, inside = msg["fn"], self.layout.plate in self._frames(msg)
        return self.axes.values(msg["name"], fn, msg["infer"], inside, has_pathwise(fn), torch.reshape)

    def _point(self, name: str, fn: Dist, latent: bool) -> Array:
        """What other sites see of a site at its mean; what is reported of it is stored."""
        told, seen = points(name, fn, latent)
        if latent and (mean := self._log_normal(name, told)) is not None:
            told = seen = mean
            self.moved.add(name)
        self.told[name] = told.broadcast_to(fn.shape())
        return seen.broadcast_to(fn.shape())

    def _log_normal(self, name: str, told: Array) -> Array | None:
        """The mean of exp(u), where u is AutoNormal's normal auxiliary draw for a positive latent; else None."""
        under = self.sites.get(f"{name}_unconstrained")
        if under is None or not under.auxiliary or not isinstance(base := inner(under.fn), Normal):
            return None
        if under.value.shape != told.shape or not torch.equal(under.value.exp(), told):
            return None
        return log_normal_mean(torch.exp, base.loc, base.scale)

    def _pyro_post_sample(self, msg: Message) -> None:
        if self.watch:
            self.watch.drawn()
        name, fn, infer = msg["name"], msg["fn"], msg["infer"]
        if isinstance(fn, _Subsample) or infer.get("_deterministic") or infer.get("_do_not_trace"):
            return
        if name in self.sites:
            raise mistakes.twice(name)
        observed = msg["is_observed"] or infer.pop("_was_observed", False)
        auxiliary = bool(infer.get("is_auxiliary"))
        asks = not observed and enumeration.wanted(name, infer)
        site = Site(name, fn, msg["value"], self._frames(msg), observed, auxiliary, asks, msg["mask"], msg["scale"])
        self._check_frame(site)
        if observed:
            _check_observation(site, self.layout)
        self.sites[name] = site

    def _pyro_param(self, msg: Message) -> None:
        if self.first:
            own_init(msg)
        elif msg["name"] not in self.params:
            raise pair_mistakes.came_later(msg["name"], self.params)

    def _pyro_post_param(self, msg: Message) -> None:
        if not self.first:
            return
        name, value = msg["name"], msg["value"]
        leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
        init = msg["args"][1] if len(msg["args"]) > 1 else None
        real = msg["kwargs"].get("constraint") is constraints.real
        if isinstance(init, torch.nn.Parameter) and init is not leaf and real:
            raise pair_mistakes.taken_twice(name)
        self.params.setdefault(name, leaf)
        frame, events = _frames(msg).get(self.layout.plate), msg["kwargs"].get("event_dim")
        if frame is not None and frame.dim is not None and events is not None:
            shape, dim = tuple(leaf.shape), frame.dim - events
            if len(shape) >= -dim and shape[dim] == frame.full_size:
                self.rows = frame.full_size

    def _frames(self, msg: Message) -> dict[str, Frame]:
        """The plates around a statement; a data plate without a size has that of the minibatch."""
        frames, name = _frames(msg), self.layout.plate
        if name in frames and frames[name].size == -1:
            frames[name] = frames[name]._replace(size=self.layout.b, full_size=self.layout.b)
        return frames

    def _sized(self, name: str, fn: Dist, msg: Message) -> Dist:
        """A distribution in a data plate without a size, which Pyro does not change, expanded over the minibatch.

        Raises:
            ProgramError: the guide draws one value for all data there.
        """
        frame = _frames(msg).get(self.layout.plate)
        if frame is None or frame.size != -1:
            return fn
        self.plates.add(frame.name)
        b, shape = self.layout.b, list(fn.batch_shape)
        if len(shape) >= -frame.dim and shape[frame.dim] == b:
            return fn
        shape = [1] * (-frame.dim - len(shape)) + shape
        if self.role == "guide" or shape[frame.dim] != 1:
            raise pair_mistakes.unsized(name, fn, frame.name, b)
        shape[frame.dim] = b
        return fn.expand(torch.Size(shape))

    def _set_plate(self, msg: Message) -> None:
        name, size, part = msg["name"], msg["fn"].size, msg["fn"].subsample_size
        self.plates.add(name)
        if msg["value"] is not None:
            part = len(msg["value"])
        elif self.subsamples and self.role == "model" and name == self.layout.plate and part is None:
            part, self.borrowed = len(self.index), size  # those of the guide: only it subsamples
        if name == self.layout.plate:
            sizes = {"model": len(self.index), "guide": len(self.index), self.role: size if part is None else part}
            mistakes.check_sizes(name, sizes["model"], sizes["guide"])
        if msg["value"] is None and name == self.layout.plate and part == len(self.index):
            _set(msg, self.index)
            return
        if part is not None and part < size and name != self.layout.plate:
            raise pair_mistakes.subsampled(name, self.layout.plate)

    def _check_replayed(self, msg: Message, guide: Site) -> None:
        name, fn, plate, frames = msg["name"], msg["fn"], self.layout.plate, self._frames(msg)
        if (plate in frames) != (plate in guide.frames):
            inside, there = ("model", guide.frames) if plate in frames else ("guide", frames)
            named = plate in self.plates and any(plate in s.frames for s in self.replay.values())
            others = () if named else [n for n in there if n != PARTICLES]
            raise mistakes.apart(name, inside, self.layout.written, others)
        got, event, expected = tuple(guide.value.shape), tuple(fn.event_shape), tuple(fn.shape())
        if name in self.axes.sizes:
            got = got[max(0, len(got) - len(expected)) :]
        elif self.axes.sizes:  # the site may depend on it
            got = got[min(len(self.axes.sizes), max(0, len(got) - len(event) - self.layout.width)) :]
        if len(got) > len(expected) or got[len(got) - len(event) :] != event:
            raise ProgramError(
                f"Site {name!r}: got values of shape {got} from the guide, but the model's distribution is over events "
                f"of shape {event}, in a batch of shape {tuple(fn.batch_shape)}, so expected {expected}. Guide and "
                "model must agree: check .to_event(n) and the latent's width in both."
            )

    def _check_frame(self, site: Site) -> None:
        plate = self.layout.plate
        frame = site.frames.get(plate)
        if frame is None:
            return
        if frame.dim is None:
            raise pair_mistakes.row_by_row(plate)
        if plate not in self.plates:
            raise pair_mistakes.not_created(plate)


def _frames(msg: Message) -> dict[str, Frame]:
    return {f.name: f for f in msg["cond_indep_stack"]}


def _set(msg: Message, value: Array) -> None:
    msg["value"], msg["done"] = value, True


def _is_bookkeeping(msg: Message) -> bool:
    return bool(msg["infer"].get("_deterministic")) or isinstance(msg["fn"], Unit)


def explained(program: PairLike, error: Exception) -> PpdgmError:
    """An error from a user's function, in one line; for Pyro's own error about plates, with the site and what to do."""
    if str(error).startswith("Shape mismatch inside plate") and (msg := stopped_at(error)) is not None:
        return plate_misfit(msg["name"], msg["fn"], _frames(msg))
    found = explain(program, error)
    if str(error).startswith("inhomogeneous total_count"):
        return pair_mistakes.one_total(found)
    return found


def _check_observation(site: Site, layout: Layout) -> None:
    event, frame = tuple(site.fn.event_shape), site.frames.get(layout.plate)
    got, n = tuple(site.value.shape), len(event)
    lead, batch = got[: len(got) - n], tuple(site.fn.batch_shape)
    fits = broadcasts(lead, batch)
    if frame is not None and got and not isinstance(site.fn, Unit):  # else every row would get the same
        fits = fits and len(lead) >= -frame.dim and lead[frame.dim] == frame.size
    if got[len(got) - n :] != event or not fits:
        raise ProgramError(
            f"Site {site.name!r}: got data of shape {got}, but its distribution is over events of shape {event}, in a "
            f"batch of shape {batch}, so expected {(*batch, *event)}. Check .to_event(n) and the net's output."
        )
