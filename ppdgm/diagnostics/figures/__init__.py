"""The figures of a report, in its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppdgm.diagnostics.figures import bounds, checks, codes, guide, images, latents
from ppdgm.diagnostics.figures.canvas import Drawing, style
from ppdgm.diagnostics.figures.rendering import png, svg

#: Each gives a figure of a `Diagnosis`, or None where it has nothing to draw.
FIGURES: tuple[Callable[[Any], Drawing | None], ...] = (
    images.samples,
    images.reconstructions,
    latents.aggregated,
    images.traversals,
    images.interpolations,
    codes.codes,
    bounds.curve,
    latents.divergence,
    guide.pareto,
    images.worst,
    guide.calibration,
    guide.coverage,
    checks.posterior,
    checks.prior,
    bounds.surgery,
    bounds.gaps,
    bounds.history,
)


def draw(diagnosis: Any) -> tuple[dict[str, Drawing], list[str]]:
    """All figures that a diagnosis has arrays for.

    Returns:
        The figures by name, and a line for each that could not be drawn: hours of work may lie behind a diagnosis, so
        one bad figure must not take the others along.
    """
    drawn: dict[str, Drawing] = {}
    failed: list[str] = []
    with style():
        for function in FIGURES:
            try:
                drawing = function(diagnosis)
            except Exception as error:
                failed.append(
                    f"{function.__name__} can't be drawn ({type(error).__name__}: {error}). Please report it."
                )
                continue
            if drawing is not None:
                drawn[drawing.name] = drawing
    return drawn, failed


__all__ = ["FIGURES", "Drawing", "draw", "png", "svg"]
