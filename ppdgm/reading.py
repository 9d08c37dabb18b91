"""The direct reading of a program: no handlers, only draws and log-probabilities, over either backend's arrays.

A guide is read, then the model at the guide's values; the two readings make a `Trace`. Mistakes in a program's shapes
and sites are found here, and told with the site, the shapes and the fix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ppdgm.errors import ProgramError, nearest
from ppdgm.language import UNSEEN, Array, Batch, Trace, Vocabulary


class Reader(Protocol):
    """The operations on native distributions that a direct reading needs; one object per run."""

    pathwise: bool  #: gradients will be taken through the draws

    def has_pathwise(self, dist: Any) -> bool:
        """Whether a draw is a differentiable function of the distribution's parameters."""
        ...

    def draw(self, dist: Any, shape: tuple[int, int]) -> tuple[Array, Array]:
        """A fresh draw for each of [K, B], and its log-density."""
        ...

    def log_prob(self, dist: Any, value: Array) -> Array: ...
    def kl(self, q: Any, p: Any) -> Array | None:
        """Closed-form KL [..., B, D], or None where there is none."""
        ...

    def broadcast(self, x: Array, shape: tuple[int, ...]) -> Array: ...


class PairLike(Protocol):
    """What a reading asks of a program."""

    def model(self, P: Any, **data: Array) -> Any: ...
    def guide(self, P: Any, **data: Array) -> Any: ...


class _InPlate:
    """Marks the statements inside the data plate. A plain class, as torch.compile traces those."""

    def __init__(self, reading: Reading):
        self.reading = reading

    def __enter__(self) -> None:
        self.reading.inside = True

    def __exit__(self, *_: object) -> None:
        self.reading.inside = False


class Reading:
    """One direct reading of a guide or a model: draws what is not given, and scores everything.

    Args:
        reader: the backend's draws and densities.
        shape: (K, B).
        given: values of latent sites, [K, B, *event]; sites not in it are drawn.
        choose: `draw`, or `mean` to put each latent at its mean.
        generate: observed sites are drawn too; their data are ignored.
    """

    def __init__(
        self,
        reader: Reader,
        shape: tuple[int, int],
        given: Mapping[str, Array],
        choose: str = "draw",
        generate: bool = False,
    ):
        self.reader, self.shape, self.given = reader, shape, given
        self.choose, self.generate = choose, generate
        self.inside = False
        self.values: dict[str, Array] = {}
        self.log_prob: dict[str, Array] = {}
        self.dists: dict[str, Any] = {}
        self.observed: list[str] = []
        self.shared: list[str] = []

    def plate(self, name: str, data: Array) -> AbstractContextManager[Any]:
        if self.inside:
            raise ProgramError(
                f"Plate {name!r} is inside another. A program has one data plate: declare inner dimensions with "
                ".to_event(n)."
            )
        if data is not UNSEEN and not getattr(data, "shape", ()):
            raise ProgramError(
                f"Plate {name!r}: got {data!r}, expected the data themselves, [B, …]: P.plate({name!r}, x)."
            )
        if data is not UNSEEN and data.shape[0] != self.shape[1]:
            raise ProgramError(f"Plate {name!r}: got data of {data.shape[0]} rows, expected {self.shape[1]}.")
        return _InPlate(self)

    def sample(self, name: str, dist: Any, obs: Array | None) -> Array:
        if name in self.dists:
            raise ProgramError(f"Site {name!r} is drawn twice. Give each site a name of its own.")
        shape = self.shape if self.inside else (self.shape[0], 1)
        _check_batch_shape(name, tuple(dist.batch_shape), shape, self.inside)
        self.dists[name] = dist
        if not self.inside:
            self.shared.append(name)
        if obs is not None:
            self.observed.append(name)
        if obs is not None and not self.generate:
            _check_observation(name, tuple(obs.shape), tuple(dist.event_shape), shape)
            value, log_prob = obs, self.reader.log_prob(dist, obs)
        elif name in self.given:
            value = self.given[name]
            _check_given(name, tuple(value.shape), tuple(dist.event_shape), shape, self.inside)
            log_prob = self.reader.log_prob(dist, value)
        elif self.choose == "mean":
            self.values[name] = self.reader.broadcast(dist.mean, (*shape, *dist.event_shape))
            return self.values[name]  # not scored: a mean need not lie in the support
        else:
            if self.reader.pathwise and not self.reader.has_pathwise(dist):
                raise not_pathwise(name, dist)
            value, log_prob = self.reader.draw(dist, shape)
        self.values[name] = value
        self.log_prob[name] = self.reader.broadcast(log_prob, shape)
        return value

    def param(self, name: str, value: Array) -> Array:
        return value

    def deterministic(self, name: str, value: Array) -> Array:
        self.values[name] = value
        return value


def trace(guide: Reading, model: Reading, reader: Reader, kl: bool) -> Trace:
    """The terms of a guide that was read, and then a model that was read with the guide's values.

    Raises:
        ProgramError: the two do not draw the same latent sites.
    """
    latent = [n for n in model.dists if n not in model.observed]
    check_sites(list(guide.dists), latent)
    local = [n for n in latent if n not in model.shared]
    for name in latent:  # with one datum their shapes say nothing
        if (name in guide.shared) != (name in model.shared):
            inner, outer = ("guide", "model") if name in model.shared else ("model", "guide")
            raise ProgramError(
                f"Site {name!r} is inside the data plate in the {inner}, but outside it in the {outer}. "
                "Draw it inside `with P.plate(…):` in both."
            )
    return Trace(
        values={n: guide.values[n] for n in latent},
        log_p={n: v for n, v in model.log_prob.items() if n not in model.shared},
        log_q={n: guide.log_prob[n] for n in local},
        kl=closed_forms(guide.dists, model.dists, local, reader.kl) if kl else {},
        shared={n: _shared_term(n, guide, model) for n in model.shared},
    )


def read_pair(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    shape: tuple[int, int],
    given: Mapping[str, Array],
    kl: bool,
) -> Trace:
    """Read the guide, then the model at the guide's values; `speak` makes the vocabulary for a reading."""
    guide = Reading(reader, shape, given)
    program.guide(speak(guide), **batch)
    model = Reading(reader, shape, guide.values)
    program.model(speak(model), **batch)
    return trace(guide, model, reader, kl)


def read_means(
    program: PairLike, speak: Callable[[Reading], Vocabulary], reader: Reader, batch: Batch, size: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Each latent at its mean given the means before it, and each observed site's mean given those; [1, B, *event]."""
    guide = Reading(reader, (1, size), {}, choose="mean")
    program.guide(speak(guide), **batch)
    model = Reading(reader, (1, size), guide.values, choose="mean", generate=True)
    program.model(speak(model), **batch)
    return {n: guide.values[n] for n in guide.dists}, {n: model.values[n] for n in model.observed}


def read_prior(
    program: PairLike,
    speak: Callable[[Reading], Vocabulary],
    reader: Reader,
    batch: Batch,
    size: int,
    mean: bool,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Latents drawn from the model, and the observed sites drawn (or at their mean) given them; [1, B, *event]."""
    model = Reading(reader, (1, size), {}, generate=True)
    program.model(speak(model), **batch)
    latents = {n: v for n, v in model.values.items() if n in model.dists and n not in model.observed}
    if mean:
        model = Reading(reader, (1, size), latents, choose="mean", generate=True)
        program.model(speak(model), **batch)
    return latents, {n: model.values[n] for n in model.observed}


def _shared_term(name: str, guide: Reading, model: Reading) -> Array:
    return (model.log_prob[name] - guide.log_prob.get(name, 0.0))[:, 0]


def closed_forms(
    q: Mapping[str, Any], p: Mapping[str, Any], latent: list[str], kl: Callable[[Any, Any], Array | None]
) -> dict[str, Array]:
    """The closed-form KL of each latent site where it is valid.

    KL(q(z_i|·) ‖ p(z_i|·)) may stand for log q − log p only if every latent that precedes z_i in the model precedes
    it in the guide: otherwise p's parents depend on the draw of z_i.
    """
    drawn, forms = list(q), {}
    for i, name in enumerate(latent):
        earlier = drawn[: drawn.index(name)]
        if all(parent in earlier for parent in latent[:i]):
            form = kl(q[name], p[name])
            if form is not None:
                forms[name] = form
    return forms


def check_sites(guide: list[str], model: list[str]) -> None:
    """Refuse a guide and a model that do not draw the same latent sites."""
    if missing := [n for n in model if n not in guide]:
        raise ProgramError(
            f"Site {missing[0]!r} is latent in the model, but the guide does not draw it. "
            f"{nearest(missing[0], guide)} Draw it in the guide, or give it obs=… in the model."
        )
    if extra := [n for n in guide if n not in model]:
        raise ProgramError(
            f"Site {extra[0]!r} is drawn in the guide, but is no latent site of the model. {nearest(extra[0], model)}"
        )


def not_pathwise(name: str, dist: Any) -> ProgramError:
    """The error for a latent through which no gradient flows."""
    return ProgramError(
        f"Site {name!r}: {type(dist).__name__} is not reparameterised, so the gradient of its parameters would be "
        "silently wrong. Use a reparameterised distribution in the guide."
    )


def _check_batch_shape(name: str, got: tuple[int, ...], shape: tuple[int, int], inside: bool) -> None:
    if _fits(got, shape):
        return
    if inside:
        event = next(n for n in range(1, len(got) + 1) if _fits(got[: len(got) - n], shape))
        raise ProgramError(
            f"Site {name!r}: got a distribution of batch shape {got}, expected one that fits [K, B] = {shape}. "
            f"Dimensions of one datum belong to the event: add .to_event({event})."
        )
    raise ProgramError(
        f"Site {name!r} is outside the data plate, but its distribution has batch shape {got}. "
        f"Draw it inside `with P.plate(…):`, or, if it is one latent for all data, add .to_event({len(got)})."
    )


def _fits(got: tuple[int, ...], shape: tuple[int, int]) -> bool:
    """Whether `got` broadcasts to [K, B]."""
    return len(got) <= 2 and all(g in (1, s) for g, s in zip(got[::-1], shape[::-1], strict=False))


def _check_given(name: str, got: tuple[int, ...], event: tuple[int, ...], shape: tuple[int, int], inside: bool) -> None:
    if got == (*shape, *event):
        return
    if got[2:] == event and len(got) == len(event) + 2 and got[0] == shape[0]:
        here, there = ("inside", "outside") if inside else ("outside", "inside")
        raise ProgramError(
            f"Site {name!r} is {here} the data plate, but its values, of shape {got}, were drawn {there} it; expected "
            f"{(*shape, *event)}. Draw it inside `with P.plate(…):` in both guide and model."
        )
    raise ProgramError(
        f"Site {name!r}: got values of shape {got}, but here its distribution is over events of shape {event}, so "
        f"expected [K, B, *event] = {(*shape, *event)}. Guide and model must agree: check .to_event(n) and the "
        "latent's width in both."
    )


def _check_observation(name: str, got: tuple[int, ...], event: tuple[int, ...], shape: tuple[int, int]) -> None:
    n = len(event)
    if got[len(got) - n :] == event and all(g in (1, s) for g, s in zip(got[::-1][n:], shape[::-1], strict=False)):
        return
    raise ProgramError(
        f"Site {name!r}: got data of shape {got}, but its distribution is over events of shape {event}, one for each "
        f"of {shape[1]} data, so expected {(shape[1], *event)}. Check .to_event(n) and the shape of the net's output."
    )
