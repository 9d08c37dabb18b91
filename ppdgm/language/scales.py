"""Constant scales that a plain pair puts on its sites (poutine.scale, handlers.scale): only in the objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ppdgm.errors import ProgramError


def constant_scales(
    guide: Mapping[str, float], model: Mapping[str, float], latent: Iterable[str], summed: Iterable[str] = ()
) -> dict[str, float]:
    """Scales of sites in training: one for everything, or scales of latents, the same in guide and model, as β is.

    Args:
        guide, model: the scale of each site, without the part that its plates explain.
        latent: sites that both have.
        summed: sites that are enumerated.

    Raises:
        ProgramError: other scales, with which the objective would not be a bound.
    """
    every, latent = {**guide, **model}, list(latent)
    if all(s == 1.0 for s in (*guide.values(), *model.values())):
        return {}
    if summed := list(summed):
        raise scale_of(summed[0], every.get(summed[0], 1.0), "but the site is enumerated")
    for name in latent:
        if guide[name] != model[name]:
            raise scale_of(name, model[name], f"in the model, and by {guide[name]:g} in the guide")
    seen = {n: s for n, s in model.items() if n not in latent}
    scaled_ones = [n for n, s in seen.items() if s != 1.0]
    one = seen[scaled_ones[0]] if scaled_ones else 1.0
    for name, scale in (every if scaled_ones else seen).items():
        if scale != one:
            raise scale_of(scaled_ones[0], one, f"and {name!r} by {scale:g}")
    of_latents = {every[n] for n in latent}
    for name, scale in guide.items():
        if name not in latent and one == 1.0 and {scale} != of_latents:
            raise scale_of(name, scale, "but only in the guide")
    return {n: s for n, s in every.items() if s != 1.0}


def scale_of(name: str, scale: float | str, where: str) -> ProgramError:
    """The error for a scale of the user's own that no objective supports."""
    told = scale if isinstance(scale, str) else f"{scale:g}"
    return ProgramError(
        f"Site {name!r} is scaled by {told} (poutine.scale, handlers.scale), {where}. A scale must be a constant "
        "number, the same around all sites of guide and model; or around latents only, the same in guide and model "
        "(like β). Remove it; to weigh the KL, use SVI(beta=…)."
    )


def scaled(engine: str, name: str) -> ProgramError:
    """The error for an engine, or a setting, that does not support scales."""
    return ProgramError(
        f"Site {name!r} is scaled (poutine.scale, handlers.scale), but {engine} does not support scales. Remove the "
        "scale, or use SVI, whose objective includes it."
    )
