"""Small pieces of HTML for notebooks: without scripts, without style sheets, in the colours of the page around them.

Every text is escaped, and each piece is well-formed XML. Colours are those of the page (currentColor, with opacity), so
that they can be read on light and on dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np

MOST_ROWS, MOST_LETTERS, POINTS = 60, 300, 200
WIDTH, HEIGHT = 360, 110
_CELL = "text-align:left;padding:1px 12px 1px 0;border:none;vertical-align:top"
_BLOCK = "border:1px solid rgba(128,128,128,0.4);border-radius:4px;padding:6px 10px;margin:4px 0;max-width:60em"


class Html(str):
    """A piece that is written already: it is not escaped again."""

    __slots__ = ()


def escaped(text: object) -> Html:
    """A text, escaped; a long one is cut, and characters that XML does not have are left out."""
    if isinstance(text, Html):
        return text
    told = "".join(c if c.isprintable() else " " for c in str(text))
    return Html(escape(told if len(told) <= MOST_LETTERS else told[: MOST_LETTERS - 1] + "…"))


def box(title: object, *parts: str) -> Html:
    """A titled box around pieces."""
    return Html(f'<div style="{_BLOCK}"><div><b>{escaped(title)}</b></div>{"".join(parts)}</div>')


def line(text: object) -> Html:
    """A paragraph."""
    return Html(f'<div style="opacity:0.8">{escaped(text)}</div>')


def details(title: object, *parts: str) -> Html:
    """Pieces that are shown after a click."""
    return Html(f"<details><summary>{escaped(title)}</summary>{''.join(parts)}</details>")


def facts(pairs: Mapping[str, object] | Iterable[tuple[str, object]]) -> Html:
    """Names and values; values that are None are left out."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return _table(
        "", [[Html(f'<span style="opacity:0.7">{escaped(n)}</span>'), escaped(v)] for n, v in items if v is not None]
    )


def rows_below(head: Sequence[object], rows: Sequence[Sequence[object]]) -> Html:
    """A table of texts; of a long one, the first rows, and how many there are."""
    cells = "".join(f'<th style="{_CELL}">{escaped(h)}</th>' for h in head)
    more = [line(f"… and {len(rows) - MOST_ROWS} more")] if len(rows) > MOST_ROWS else []
    return Html(_table(f"<tr>{cells}</tr>", [[escaped(c) for c in row] for row in rows[:MOST_ROWS]]) + "".join(more))


def _table(head: str, rows: Iterable[Sequence[str]]) -> Html:
    body = "".join("<tr>" + "".join(f'<td style="{_CELL}">{c}</td>' for c in row) + "</tr>" for row in rows)
    return Html(f'<table style="border-collapse:collapse;font-size:90%;background:transparent">{head}{body}</table>')


def bar(share: float) -> Html:
    """A progress bar, from 0 to 1."""
    done = f"{100 * min(max(share, 0.0), 1.0):.1f}%"
    outer = "background:rgba(128,128,128,0.25);border-radius:3px;height:8px;max-width:30em;margin:4px 0"
    inner = f"background:#2f6fbf;border-radius:3px;height:8px;width:{done}"
    return Html(f'<div style="{outer}"><div style="{inner}"></div></div>')


def lines_over_steps(lines: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Html:
    """Lines over steps, as SVG; "" if nothing finite is there.

    The vertical axis begins at the values' 5 % quantile: the first steps of a bound are far below the rest.

    Args:
        lines: by name, steps [S] and values [S]; the second line and later ones are dashed.
    """
    kept = {n: _thinned(np.asarray(x, float), np.asarray(y, float)) for n, (x, y) in lines.items()}
    kept = {n: (x, y) for n, (x, y) in kept.items() if len(x)}
    if not kept:
        return Html("")
    every = np.concatenate([y for _, y in kept.values()])
    low, high = float(np.quantile(every, 0.05)), float(every.max())
    left, right = (float(f(np.concatenate([x for x, _ in kept.values()]))) for f in (np.min, np.max))
    place = lambda v, a, b, size: (v - a) / max(b - a, 1e-12) * size
    drawn = []
    for i, (x, y) in enumerate(kept.values()):
        at = zip(place(x, left, right, WIDTH), HEIGHT - place(np.maximum(y, low), low, high, HEIGHT), strict=True)
        dash = ' stroke-dasharray="5 3"' if i else ""
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{("#2f6fbf", "#d9730d")[i % 2]}"{dash}/>')
    label = lambda x, y, text, end="start": (
        f'<text x="{x}" y="{y}" fill="currentColor" font-size="10" text-anchor="{end}">{escaped(text)}</text>'
    )
    ends = label(WIDTH + 4, 10, f"{high:,.4g}") + label(WIDTH + 4, HEIGHT, f"{low:,.4g}")
    steps = label(0, HEIGHT + 14, f"step {left:,.0f}") + label(WIDTH, HEIGHT + 14, f"{right:,.0f}", "end")
    names = label(WIDTH / 2, HEIGHT + 14, " / ".join(kept) + (" (dashed)" if len(kept) > 1 else ""), "middle")
    return Html(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH + 60}" height="{HEIGHT + 22}" '
        f'viewBox="-2 -4 {WIDTH + 62} {HEIGHT + 24}">{"".join(drawn)}{ends}{steps}{names}</svg>'
    )


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finite points; of many, the means of windows."""
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(x) <= POINTS:
        return x, y
    edges = np.linspace(0, len(x), POINTS + 1).astype(int)
    windows = list(pairwise(edges))
    return np.array([x[a:b].mean() for a, b in windows]), np.array([y[a:b].mean() for a, b in windows])


def fields(values: Mapping[str, object]) -> Html:
    """Fields of a record by name; those that are records themselves open after a click."""
    return facts((n, _folded(v)) for n, v in values.items())


def _folded(value: object) -> object:
    inner = getattr(type(value), "model_fields", None)
    if not inner:
        return value if isinstance(value, Html | str) else repr(value)
    return details(type(value).__name__, fields({n: getattr(value, n) for n in inner}))


def parameters(shapes: Mapping[str, tuple[int, ...]], labels: Mapping[str, str]) -> Html:
    """The number of parameters, and, after a click, the shape and the label of each."""
    size = lambda shape: int(np.prod(shape, dtype=np.int64))
    rows = [(n, shape, f"{size(shape):,}", labels.get(n, "")) for n, shape in shapes.items()]
    title = f"{sum(map(size, shapes.values())):,} parameters in {len(shapes)} arrays"
    return details(title, rows_below(("name", "shape", "numbers", "label"), rows))
