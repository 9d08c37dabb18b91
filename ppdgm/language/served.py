"""What is exported of a program: functions of arrays by name, for any number of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ppdgm.language import questions
from ppdgm.language.questions import Sites
from ppdgm.language.tracer import Params, ProgramTracer, sized
from ppdgm.language.unseen import Unseen
from ppdgm.language.vocabulary import Array, Namespace, Noise, Trace

WHAT = ("encoder", "decoder", "elbo")


@dataclass(frozen=True)
class Units:
    """x = (raw − shift) / scale, rounded or not."""

    shift: np.ndarray
    scale: np.ndarray
    rounds: bool = False

    def enter(self, raw: Array, xp: Namespace) -> Array:
        """Raw numbers as x."""
        x = (raw - _like(self.shift, raw, xp)) / _like(self.scale, raw, xp)
        return xp.round(x) if self.rounds else x

    def leave(self, x: Array, xp: Namespace) -> Array:
        """x as raw numbers."""
        return x * _like(self.scale, x, xp) + _like(self.shift, x, xp)


@dataclass(frozen=True)
class Served:
    """One function of a program.

    Attributes:
        what: "encoder": means of the latents given data; "decoder": means of the observed sites given latents; "elbo":
            the ELBO of each row, of K draws, and the draws.
        fields: the shape and the type of a row of each field or latent that it takes, by name.
        latents: which of these are latents.
        blank: the other fields.
        elbo: the terms [K, B] of a trace.
        k: K.
        units: of the field and the site x; None: those that the program was trained in.
    """

    what: str
    fields: Mapping[str, tuple[tuple[int, ...], str]]
    latents: tuple[str, ...] = ()
    blank: Mapping[str, Unseen] = field(default_factory=dict)
    elbo: Callable[[Trace, Namespace], Array] | None = None
    k: int = 1
    units: Units | None = None

    def __call__(self, tracer: ProgramTracer, params: Params, noise: Noise, arrays: Mapping[str, Array]) -> Sites:
        """Outputs by name, [B, *event]; the ELBO [B], and the latents that it was computed at, [K, B, *event]."""
        xp, size = tracer.words.xp, next(iter(arrays.values())).shape[0]
        data = {n: v for n, v in arrays.items() if n not in self.latents}
        if self.units is not None and "x" in data:
            data["x"] = self.units.enter(data["x"], xp)
        ask = tracer.ask(params, noise, sized({**self.blank, **data}, size), size)
        if self.what == "encoder":
            return {n: v[0] for n, v in questions.means(ask)[0].items()}
        if self.what == "elbo":
            assert self.elbo is not None
            trace = questions.trace(ask, self.k, kl=True)
            drawn = {n: v for n, v in trace.values.items() if n in trace.log_q and trace.marginal is None}
            return {"elbo": xp.mean(self.elbo(trace, xp), axis=0), **drawn}
        found = questions.decoded(ask, {n: arrays[n][None] for n in self.latents})
        return {n: self.units.leave(v[0], xp) if self.units and n == "x" else v[0] for n, v in found.items()}


@dataclass(frozen=True)
class Exported:
    """A file's content, and how it is called.

    Attributes:
        content: of the file.
        inputs, outputs: name, shape with "batch" for the number of rows, and type, in their order.
    """

    content: bytes
    inputs: list[dict[str, object]]
    outputs: list[dict[str, object]]


def _like(value: np.ndarray, x: Array, xp: Namespace) -> Array:
    return xp.asarray(value, dtype=x.dtype)
