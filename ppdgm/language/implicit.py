"""Draws without a density: what a program can do with them, and what it can't."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn

from ppdgm.errors import ProgramError
from ppdgm.language.native import Dist
from ppdgm.language.wrapped import inner


def is_implicit(dist: Dist) -> bool:
    """Whether a distribution is a draw without a density, from `P.implicit`."""
    about = getattr(inner(dist), "about", None)
    return isinstance(about, Mapping) and "implicit" in about


def refuse_density(value: object) -> NoReturn:
    """The log-probability of such a draw."""
    raise no_density()


def check_draw(value: object) -> None:
    """Refuse a draw that is no array."""
    if not hasattr(value, "shape"):
        raise ProgramError(
            f"P.implicit: got {type(value).__name__}, expected a draw for each row, [B, …] or [K, B, …]. For a number, "
            "give P.full(shape, value)."
        )


def no_density(name: str | None = None) -> ProgramError:
    """The error for a density that is asked of such a draw."""
    site = "A site" if name is None else f"Site {name!r}"
    return ProgramError(
        f"{site} is a draw without a density (P.implicit), so there is no log-probability of it, no ELBO and no "
        "likelihood. Train with an engine that compares draws, and evaluate draws: fit.sample(n)."
    )


def check_densities(dists: Mapping[str, Dist], names: Iterable[str]) -> None:
    """Refuse sites that have no density."""
    for name in names:
        if is_implicit(dists[name]):
            raise no_density(name)
