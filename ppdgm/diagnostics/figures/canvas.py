"""Shared by all figures of a report: size, colours, panels, legends."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.plots import BLUE as BLUE
from ppdgm.plots import GREY as GREY
from ppdgm.plots import ORANGE as ORANGE
from ppdgm.plots import Axes, Axis, Figure

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

INK, MUTED, RULE, PAPER, RED = "#1f2429", "#5f6a76", "#e2e5e9", "#fefefd", "#c4314b"
#: The page's name of each colour; on a dark background the page uses another colour for it.
THEME = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "card",
    BLUE: "blue",
    ORANGE: "orange",
    GREY: "grey",
    RED: "bad",
}
WIDTH, LARGE, SMALL = (
    5.0,
    10.5,
    9.5,
)  # inches (the figure is shown on about 340 (phone) to 490 (laptop) pixels); points
_SETTINGS: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": LARGE,
    "text.color": INK,
    "text.parse_math": False,  # users choose the names of sites
    "axes.formatter.useoffset": False,  # ticks show the full numbers
    "axes.titlesize": LARGE,
    "axes.titlelocation": "left",
    "axes.labelcolor": MUTED,
    "axes.labelsize": LARGE,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.color": GREY,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": SMALL,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "image.cmap": "gray_r",
    "image.interpolation": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "ppdgm",
}


@dataclass(frozen=True)
class Drawing:
    """A figure with its title and caption.

    Attributes:
        name: the name for files and links.
        title: what it shows.
        caption: how to read it.
        figure: the figure of matplotlib.
    """

    name: str
    title: str
    caption: str
    figure: Figure


@contextmanager
def style() -> Iterator[None]:
    """The style of figures, whatever the user's own settings are. Afterwards the user's settings are restored."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a user's name in another script
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)  # crowded, and still drawn
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def blank(height: float) -> Figure:
    """An empty figure of the common width and `height` inches."""
    from matplotlib import figure

    return figure.Figure(figsize=(WIDTH, height), layout="constrained")


def panels(
    count: int, across: int = 2, height: float = 1.45, extra: float = 0.3, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with `count` axes, row by row."""
    across = min(across, count)
    rows = -(-count // across)
    figure = blank(rows * height * (1.6 if count == 1 else 1.0) + extra)
    every = figure.subplots(rows, across, squeeze=False, **options).ravel()
    for axes in every[count:]:
        axes.set_visible(False)
    return figure, every[:count]


def short(name: str, most: int = 14) -> str:
    """A user's name, shortened for a place with little room."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[most // 2 + 1 - most :]}"


def cut(shown: int, there: int, what: str) -> str:
    """A sentence on what is left out; "" if nothing is."""
    return f" {shown} of {there} {what} are shown." if shown < there else ""


def outer_labels(figure: Figure, x: str = "", y: str = "") -> None:
    """Axis labels that all panels share."""
    if x:
        figure.supxlabel(x, fontsize=LARGE, color=MUTED)
    if y:
        figure.supylabel(y, fontsize=LARGE, color=MUTED)


def key(figure: Figure, axes: Axes, **options: Any) -> None:
    """One legend for all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        rows = -(-len(labels) // 4)
        figure.legend(handles, labels, **{"loc": "outside lower center", "ncols": -(-len(labels) // rows), **options})


def edges(values: np.ndarray, bins: int = 30) -> np.ndarray:
    """Edges of bins for a histogram of finite values; if they are a few whole numbers, one bin for each."""
    seen = np.unique(values)
    if len(seen) <= 12 and np.array_equal(seen, np.round(seen)) and np.ptp(seen) < 40:
        return np.arange(seen[0], seen[-1] + 2) - 0.5
    low, high = np.quantile(values, [0.001, 0.999])
    room = max(1e-6, 1e-6 * abs(low))
    return np.linspace(low, high, bins + 1) if high - low > room else low + np.linspace(-1, 1, bins + 1) * 10 * room


def finite(values: ArrayLike) -> np.ndarray:
    """The finite numbers of an array, flat, in float64."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return flat[np.isfinite(flat)]


def plain_logarithm(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis at 1, 10, 100, …, written out."""
    axis.set_major_locator(
        _fixed([10.0**i for i in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)])
    )
    axis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axis.set_minor_formatter(lambda value, _: "")


def _fixed(ticks: list[float]) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator(ticks)
