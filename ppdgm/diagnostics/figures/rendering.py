"""A figure as SVG in the page, or as a PNG file."""

from __future__ import annotations

import io
import re
import textwrap
from html import escape
from typing import TYPE_CHECKING

from ppdgm.diagnostics.figures.canvas import MUTED, SMALL, THEME, Drawing, style
from ppdgm.language.native import Array

if TYPE_CHECKING:
    pass

_DPI = 160  # resolution of PNGs


def svg(drawing: Drawing) -> str:
    """The figure as an `<svg>` with the colours and fonts of the page."""
    buffer = io.StringIO()
    with style():
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawing.figure.savefig(buffer, format="svg", transparent=True, dpi=216, metadata=nothing)
    text = buffer.getvalue()
    width, height = (72 * float(side) for side in drawing.figure.get_size_inches())
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'style="[^"]*"', _themed, body)
    body = re.sub(r' d="[^"]*"', _shortened, body).replace("base64,\n", "base64,").replace("xlink:href", "href")
    body = re.sub(r"<image (?![^>]*image-rendering)", '<image class="cloud" ', body)  # rasterised points, not images
    wanted = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{drawing.name}-{m[1]}"' if m[1] in wanted else "", body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{drawing.name}-", body)
    body = re.sub(r">\s+<", "><", body)
    label = escape(f"{drawing.title}. {drawing.caption}")
    return f'<svg viewBox="0 0 {width:.4g} {height:.4g}" role="img" aria-label="{label}">{body.strip()}'


def _themed(style: re.Match[str]) -> str:
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", style[0])
    for colour, name in THEME.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def _shortened(path: re.Match[str]) -> str:
    return re.sub(r"\d+\.\d+", lambda m: f"{float(m[0]):.2f}", re.sub(r"\s+", " ", path[0]))


def png(drawing: Drawing) -> bytes:
    """The figure as a PNG, with its title above and its caption below."""
    from matplotlib.figure import Figure

    picture, buffer = io.BytesIO(), io.BytesIO()
    lines = textwrap.wrap(drawing.caption, 60)
    top, bottom = 0.36, 0.18 * len(lines) + 0.2  # inches
    with style():
        drawing.figure.savefig(picture, format="png", dpi=_DPI)
        picture.seek(0)
        width, height = drawing.figure.get_size_inches()
        whole = Figure(figsize=(width + 0.2, height + top + bottom), dpi=_DPI)
        tall = height + top + bottom
        whole.text(0.02, 1 - 0.1 / tall, drawing.title, fontsize=11, fontweight="bold", va="top")
        whole.text(
            0.02, (bottom - 0.06) / tall, "\n".join(lines), fontsize=SMALL, color=MUTED, va="top", linespacing=1.3
        )
        whole.figimage(_read(picture), round(0.1 * _DPI), round(bottom * _DPI))
        whole.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _read(picture: io.BytesIO) -> Array:
    from matplotlib.image import imread

    return imread(picture, format="png")
