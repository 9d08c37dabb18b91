"""The point that replaces a distribution when a program is followed from point to point: its mean, or its mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ppdgm.errors import NoMean, ProgramError
from ppdgm.language.implicit import is_implicit
from ppdgm.language.vocabulary import Array, Dist
from ppdgm.language.wrapped import inner as inside

if TYPE_CHECKING:
    from ppdgm.language.native import Transform

#: class -> its most probable value, if the two libraries have no such formula, or break a tie in another way
_MODES: dict[str, Callable[[Dist], Array]] = {
    "Categorical": lambda d: d.probs.argmax(-1),
    "Bernoulli": lambda d: 0.0 * d.probs + (d.probs > 0.5),
    "Binomial": lambda d: _at_most((d.total_count + 1) * d.probs // 1, d.total_count),
    "Poisson": lambda d: d.rate // 1,
    "Geometric": lambda d: 0.0 * d.probs,
    "GammaPoisson": lambda d: (d.concentration > 1) * ((d.concentration - 1) / d.rate // 1),
    "DiscreteUniform": lambda d: d.low,
    "OneHotCategorical": lambda d: d.mode,
    "NegativeBinomial": lambda d: d.mode,
}


def points(name: str, dist: Dist, latent: bool) -> tuple[Array, Array]:
    """What is reported of a site, and what other sites see of it: its mean twice; for a discrete latent, mean and mode.

    A class number has no mean: its mode is reported too. Your own distribution can define its mode itself.

    A normal that is moved by x ↦ a + bx or exp has its mean: that of a log-normal is exp(μ + σ²/2), not exp(μ).

    Raises:
        NoMean: a latent has no known mean.
        ProgramError: an observed site has no known mean; or a discrete latent has no known mode.
    """
    if not latent:
        try:
            return (mean := _mean(name, dist)), mean
        except NoMean as error:
            raise ProgramError(str(error)) from None
    if is_implicit(dist):
        raise NoMean(f"Site {name!r} is a draw without a density (P.implicit), so its mean is not known.")
    mean, own = _mean(name, dist), getattr(inside(dist), "mode_of", None)
    if own is not None:
        return mean, own()
    return (mean, _mode(name, dist)) if is_discrete(dist) else (mean, mean)


def is_discrete(dist: Dist) -> bool:
    """Whether its values are whole numbers, or vectors of such."""
    try:
        return bool(dist.support.is_discrete)
    except NotImplementedError:
        return False


def point_masses(q: Mapping[str, Dist], p: Mapping[str, Dist]) -> list[str]:
    """The latents at which the guide has a point mass and the model a density: there log p − log q is not a log-weight.

    An autoguide's `Delta` that carries a draw of another site, which the model does not have, is not a point mass.
    Plain pairs, which can have those, take them out first.

    Args:
        q, p: site -> distribution, of the guide's draws and of the model.
    """
    is_point = lambda dist: type(inside(dist)).__name__ == "Delta"
    points = [n for n, d in q.items() if n in p and is_point(d)]
    return [n for n in points if not is_point(p[n]) and not is_discrete(p[n])]


def _mean(name: str, dist: Dist) -> Array:
    inner = inside(dist)
    if _kind(inner) == "Categorical":  # both libraries return NaN
        return _MODES["Categorical"](inner)
    try:
        return dist.mean
    except NotImplementedError:
        if (mean := _moved(name, inner)) is not None:
            return mean
        raise no_mean(name, type(inner).__name__) from None


def no_mean(name: str, what: str) -> NoMean:
    """The error for a site whose mean is not known."""
    return NoMean(f"Site {name!r}: {what} has no mean that is known.")


def _moved(name: str, dist: Dist) -> Array | None:
    """The mean of a base distribution that transforms move, if it is known."""
    if not hasattr(dist, "transforms"):
        return None
    base = inside(dist.base_dist)
    try:
        mean = _mean(name, base)
    except NoMean:
        return None
    scale = base.scale if type(base).__name__ == "Normal" else None
    for transform in _one_by_one(dist.transforms):
        kind = type(transform).__name__
        if kind == "AffineTransform":
            mean = transform.loc + transform.scale * mean
            scale = None if scale is None else transform.scale * scale
        elif kind == "ExpTransform" and scale is not None:
            mean, scale = log_normal_mean(transform, mean, scale), None
        elif kind != "IdentityTransform":
            return None
    return mean


def log_normal_mean(exp: Callable[[Array], Array], loc: Array, scale: Array) -> Array:
    """E[exp(z)] of z ~ N(μ, σ²): exp(μ + σ²/2)."""
    return exp(loc + 0.5 * scale * scale)


def _one_by_one(transforms: Iterable[Transform]) -> list[Transform]:
    """Transforms without those that hold others."""
    found = []
    for transform in transforms:
        if hasattr(transform, "parts"):
            found += _one_by_one(transform.parts)
        elif type(transform).__name__ == "IndependentTransform":
            found += _one_by_one([transform.base_transform])
        else:
            found.append(transform)
    return found


def _mode(name: str, dist: Dist) -> Array:
    inner = inside(dist)
    if hasattr(inner, "mode_of"):
        raise ProgramError(
            f"Site {name!r}: its values are whole numbers, and its mean is not one of them. Give its most probable "
            "value: P.distribution(…, mode=lambda: …)."
        )
    if (kind := _kind(inner)) is None:
        raise ProgramError(
            f"Site {name!r}: the most probable value of {type(inner).__name__} is not known, and its mean is not one "
            "of its values. Use draws instead: fit.encode(x, k=…), or fit.posterior(x)."
        )
    return _MODES[kind](inner)


def _kind(dist: Dist) -> str | None:
    """The name of its class in the table, whatever its library appends to the name or derives from the class."""
    names = (c.__name__.removesuffix("Probs").removesuffix("Logits") for c in type(dist).__mro__)
    return next((n for n in names if n in _MODES), None)


def _at_most(x: Array, most: Array) -> Array:
    return x - (x > most) * (x - most)
