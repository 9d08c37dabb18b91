"""A diagnosis as one HTML file that needs no other files."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ppdgm.diagnostics import page_parts as parts
from ppdgm.diagnostics.figures import Drawing, draw_figures, png, svg
from ppdgm.diagnostics.page_style import CSS
from ppdgm.errors import CheckpointError, shown
from ppdgm.files import write_atomically

if TYPE_CHECKING:
    from ppdgm.diagnostics.found import Found

#: Headings, and the figures below each.
_SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Samples and reconstructions", ("samples", "reconstructions")),
    ("Latent space", ("prior", "traversals", "interpolations", "codes")),
    ("Bound and information", ("bounds", "kl")),
    ("Is the guide right?", ("pareto-k", "worst-data", "calibration", "coverage")),
    ("Predictive checks", ("posterior-predictive", "prior-predictive")),
    ("What the bound loses", ("surgery", "gaps")),
    ("Training curve", ("history",)),
)
_TABLES = {"surgery": parts.surgery, "gaps": parts.gaps, "coverage": parts.coverage}  # next to these figures


def check_path(path: str | Path) -> Path:
    """The path of a report, if one can be written there.

    Raises:
        CheckpointError: the path doesn't end in .html, is a folder, or its folder is missing.
    """
    if not isinstance(path, str | Path):
        raise CheckpointError(f"path: got {shown(path)}, expected a path that ends in .html.")
    target = Path(path)
    if target.suffix.lower() != ".html":
        raise CheckpointError(f"{path}: got a report's path with {target.suffix or 'no ending'}, expected .html.")
    if target.is_dir():
        raise CheckpointError(f"{path} is a folder, expected a file to write the report to.")
    if not target.parent.is_dir():
        raise CheckpointError(f"{path}: the folder {target.parent} does not exist. Make it, or choose another.")
    if not os.access(target.parent, os.W_OK):
        raise CheckpointError(f"{path}: nothing can be written to the folder {target.parent}. Choose another.")
    return target


def write(diagnosis: Found, path: str | Path, pictures: bool = False) -> Path:
    """Write a diagnosis as one HTML file. If writing fails, an older file stays as it was.

    Args:
        diagnosis: a `Diagnosis`.
        path: the path of the file; it ends in .html.
        pictures: whether to write the figures as PNGs too, to a folder next to it, `<stem>_figures`.

    Returns:
        The path.

    Raises:
        CheckpointError: the file can't be written.
    """
    target = check_path(path)
    drawn, failed = draw_figures(diagnosis)
    try:
        write_atomically(target, page(diagnosis, drawn, failed).encode())
        if pictures:
            folder = target.with_name(f"{target.stem}_figures")
            folder.mkdir(exist_ok=True)
            for name, drawing in drawn.items():
                write_atomically(folder / f"{name}.png", png(drawing))
    except OSError as error:
        raise CheckpointError(f"{target} can't be written ({error.strerror or error}).") from error
    return target


def page(diagnosis: Found, drawn: dict[str, Drawing], failed: list[str]) -> str:
    """The page's HTML."""
    sections = [("Verdict", parts.verdict(diagnosis) + parts.key_numbers(diagnosis))]
    for heading, names in _SECTIONS:
        cards = [_card(drawn[n], diagnosis) for n in names if n in drawn]
        beside = parts.annealing(diagnosis) if heading == "Bound and information" else ""
        if cards or beside:
            note = f'<div class="note">{beside}</div>' if beside else ""
            sections.append((heading, f'<div class="figures">{"".join(cards)}</div>{note}' if cards else note))
    reasons = {**diagnosis.withheld, **{f"figure {i}": line for i, line in enumerate(failed, 1)}}
    if reasons:
        sections.append(("What is not available, and why", parts.withheld(reasons)))
    if last := parts.colophon(diagnosis):
        sections.append(("Recipe and versions", last))
    anchors = {heading: f"part-{i}" for i, (heading, _) in enumerate(sections)}
    links = "".join(f'<li><a href="#{anchors[h]}">{h}</a></li>' for h, _ in sections[1:])
    body = "".join(
        f'<section aria-labelledby="{anchors[h]}"><h2 id="{anchors[h]}">{h}</h2>{content}</section>'
        for h, content in sections
    )
    title, about = escape(diagnosis.title), f"Diagnosis on {diagnosis.size:,} rows of data. {diagnosis.taken}".strip()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="generator" content="ppdgm">'
        f"<title>{title}: diagnosis</title><style>{CSS}</style></head>\n"
        f'<body><header><h1>{title}</h1><p class="about">{escape(about)}</p>'
        f'<nav aria-label="Parts of this report"><ul>{links}</ul></nav></header>\n'
        f"<main>{body}</main>\n<footer>Written by ppdgm. All bounds and likelihoods are in nats per row.</footer>"
        "</body></html>\n"
    )


def _card(drawing: Drawing, diagnosis: Found) -> str:
    more = _TABLES[drawing.name](diagnosis) if drawing.name in _TABLES else ""
    return (
        f'<figure class="card"><h3>{escape(drawing.title)}</h3>{svg(drawing)}{more}'
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>"
    )
