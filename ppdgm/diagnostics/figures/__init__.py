"""The figures of a report, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ppdgm.diagnostics.figures import bounds, checks, codes, guide, images, latents
from ppdgm.diagnostics.figures.canvas import Drawing, style
from ppdgm.diagnostics.figures.rendering import png, svg

if TYPE_CHECKING:
    from ppdgm.diagnostics.found import Found

#: Each gives a figure of a `Diagnosis`, or None if there is nothing to draw.
FIGURES: tuple[Callable[[Found], Drawing | None], ...] = (
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


def draw_figures(diagnosis: Found) -> tuple[dict[str, Drawing], list[str]]:
    """All figures that a diagnosis has arrays for.

    Returns:
        The figures by name, and a line for each figure that could not be drawn. A diagnosis may have taken hours, so
        one bad figure must not stop the others.
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


__all__ = ["FIGURES", "Drawing", "draw_figures", "png", "svg"]
