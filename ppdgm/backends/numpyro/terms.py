"""How a pair takes its data; what its guide and model must share; and its sites at their means."""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp

from ppdgm.backends.numpyro.sites import Message, PairRun, written
from ppdgm.backends.numpyro.vocabulary import as_draw
from ppdgm.errors import nearest
from ppdgm.language import mistakes
from ppdgm.language.calls import Call, check_used
from ppdgm.language.pair_axes import Axes
from ppdgm.language.pair_sites import Site
from ppdgm.language.points import is_discrete, points
from ppdgm.language.reader import Gradients
from ppdgm.language.vocabulary import Array, Batch, PairLike


class JaxCall(Call):
    """A function of JAX arrays."""

    @property
    def told(self) -> str:
        return f"is {getattr(self.function, '__name__', self.role)}{self.signature}"


def check_field_names(program: PairLike, data: Batch) -> None:
    """Refuse a field that neither function takes."""
    guide, model = JaxCall(program, "guide", data), JaxCall(program, "model", data)
    known = {n for call in (model, guide) for n in call.signature.parameters}
    check_used(guide, model, lambda name: nearest(name, known))


def check_place(msg: Message, guide: Site, plate: str, others: list[str]) -> None:
    """Refuse a latent that is in one place in the model, and in another in the guide."""
    inside = any(f.name == plate for f in msg["cond_indep_stack"])
    if inside != (plate in guide.frames):
        raise mistakes.apart(msg["name"], "model" if inside else "guide", written(plate), others)
    there, here = tuple(guide.fn.batch_shape), tuple(msg["fn"].batch_shape)
    if not inside and there != here and len(there) > len(here):  # most likely without a plate
        raise mistakes.outside(msg["name"], there, written(plate), others, False)


def check_pathwise(guide: PairRun, given: Iterable[str], gradients: Gradients) -> None:
    """Refuse, or note, draws through which no gradient flows."""
    for name in guide.drawn():
        if name not in given:
            fn, inside = guide.sites[name].fn, guide.axes.plate in guide.sites[name].frames
            gradients.note(name, fn, inside, name in guide.axes.sizes or fn.has_rsample)


def enumerated(msg: Message, axes: Axes) -> Array | None:
    """All values of a site that is to be enumerated; None for any other."""
    inside = any(f.name == axes.plate for f in msg["cond_indep_stack"])
    return axes.values(msg["name"], msg["fn"], msg["infer"], inside, msg["fn"].has_rsample, jnp.reshape)


def points_of(msg: Message, latent: bool) -> tuple[Array, Array]:
    """What is reported of a site at its mean, and what other sites see of it, in the shape of a draw."""
    fn = msg["fn"]
    told, seen = points(msg["name"], fn, latent)
    shape = fn.batch_shape + fn.event_shape
    told = jnp.broadcast_to(told, shape)
    return told, jnp.broadcast_to(as_draw(fn, seen), shape) if latent and is_discrete(fn) else told
