# ruff: noqa: E501 - coordinates of shapes read best on one line
"""Draws the pictures of docs/concepts.md: boxes and arrows, as small SVG files."""

from html import escape
from pathlib import Path

HERE = Path(__file__).parent
INK, BLUE, ORANGE, GREEN = "#1f2429", "#dbe7f5", "#fbe6d0", "#ddefd9"


def box(x, y, text, colour=BLUE, width=130, height=44):
    """A box around (x, y), with lines of text that | divides."""
    lines = text.split("|")
    words = "".join(
        f'<text x="{x}" y="{y + 5 + 16 * (i - (len(lines) - 1) / 2)}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    corner = f'x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}"'
    return f'<rect {corner} rx="7" fill="{colour}" stroke="{INK}" stroke-width="1"/>{words}'


def arrow(x1, y1, x2, y2, text=""):
    """A line with a head, and a word beside its middle."""
    word = f'<text x="{(x1 + x2) / 2}" y="{(y1 + y2) / 2 - 6}" class="small">{escape(text)}</text>' if text else ""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" stroke-width="1.3" marker-end="url(#head)"/>{word}'


def draw(name, width, height, *shapes):
    """Write NAME.svg."""
    head = '<marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
    head += f'<path d="M0,0 L9,4 L0,8 z" fill="{INK}"/></marker>'
    style = f"text {{ font: 13px sans-serif; fill: {INK}; text-anchor: middle }} .small {{ font-size: 11px }}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    svg += f'<style>{style}</style><defs>{head}</defs><rect width="{width}" height="{height}" fill="white"/>'
    (HERE / f"{name}.svg").write_text(svg + "".join(shapes) + "</svg>\n", encoding="utf-8")


draw(
    "program", 620, 230,
    box(110, 115, "one program|model + guide over P", GREEN, 170, 56),
    *(arrow(195, 115, 330, y) for y in (40, 90, 140, 190)),
    box(470, 40, "Pyro handlers: bind(“pyro”)", BLUE, 270, 36), box(470, 90, "NumPyro handlers: bind(“numpyro”)", BLUE, 270, 36),
    box(470, 140, "direct, on torch: fit(backend=“pyro”)", ORANGE, 270, 36),
    box(470, 190, "direct, on JAX: fit(backend=“numpyro”)", ORANGE, 270, 36),
)  # fmt: skip
draw(
    "parts", 660, 210,
    box(80, 60, "prior|p(z)", GREEN), arrow(145, 60, 210, 60, "z"), box(275, 60, "decoder|a net"),
    arrow(340, 60, 405, 60), box(475, 60, "likelihood|p(x | z)", GREEN, 140), arrow(545, 60, 590, 60), box(620, 60, "x", ORANGE, 50),
    box(620, 160, "x", ORANGE, 50), arrow(595, 160, 545, 160), box(475, 160, "encoder|a net", BLUE, 140),
    arrow(405, 160, 340, 160), box(275, 160, "posterior|q(z | x)", GREEN), arrow(210, 160, 145, 160, "z"), box(80, 160, "z", ORANGE, 50),
    '<text x="80" y="24" class="small">model</text><text x="80" y="124" class="small">guide</text>',
)  # fmt: skip
draw(
    "engines", 640, 200,
    box(80, 100, "minibatch|[B, …]", ORANGE), arrow(145, 100, 205, 100), box(275, 100, "step.trace(K)|log p, log q: [K, B]", GREEN, 140, 50),
    arrow(345, 100, 405, 100), box(470, 100, "objective|of a phase"), arrow(535, 100, 580, 100, "∇"),
    box(610, 100, "θ, φ", ORANGE, 56), '<path d="M610,124 L610,170 L275,170 L275,128" fill="none" stroke="#1f2429" '
    'stroke-width="1.3" marker-end="url(#head)"/>',
    '<text x="440" y="188" class="small">next step; the phase says which parameters move</text>',
    '<text x="470" y="60" class="small">SVI, IWAE, Renyi, EM, …</text>',
)  # fmt: skip
draw(
    "gaps", 620, 200,
    '<line x1="60" y1="15" x2="60" y2="190" stroke="#1f2429" stroke-width="1.3"/>',
    *(f'<line x1="55" y1="{y}" x2="330" y2="{y}" stroke="#1f2429" stroke-width="1" stroke-dasharray="4 3"/>'
      f'<text x="350" y="{y + 4}" style="text-anchor: start">{text}</text>' for y, text in (
          (30, "log p(x)"), (85, "bound with the best q of the family, row by row"), (165, "ELBO of the trained guide"))),
    arrow(110, 85, 110, 34), arrow(110, 165, 110, 89), '<text x="200" y="62" class="small">approximation gap</text>',
    '<text x="200" y="130" class="small">amortisation gap</text>',
)  # fmt: skip
