"""A tutorial's cells, as a notebook and as a page. Cells begin with `# %%`, those of text with `# %% [markdown]`."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TUTORIALS = Path(__file__).parents[2] / "tutorials"
PICTURES = Path(__file__).parents[1] / "pictures" / "tutorials"


def tutorials() -> list[Path]:
    """The scripts that have cells; `demo.py` has none."""
    return [p for p in sorted(TUTORIALS.glob("*.py")) if p.read_text(encoding="utf-8").startswith("# %%")]


def cells(text: str) -> list[tuple[str, str]]:
    """("markdown" or "code", source) of each cell that is not empty; text loses its comment signs."""
    parts = re.split(r"^# %%[ ]*(\[markdown\])?[ ]*\n", text, flags=re.MULTILINE)[1:]
    found = []
    for mark, source in zip(parts[::2], parts[1::2], strict=True):
        kind = "markdown" if mark else "code"
        body = re.sub(r"^# ?", "", source, flags=re.MULTILINE) if mark else source
        if body.strip():
            found.append((kind, body.strip("\n")))
    return found


def notebook(text: str) -> nbformat.NotebookNode:
    """The same cells as a notebook for Jupyter."""
    make = {"markdown": new_markdown_cell, "code": new_code_cell}
    made = [make[kind](source, id=f"cell-{i}") for i, (kind, source) in enumerate(cells(text))]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=made, metadata=kernel)


def page(path: Path) -> str:
    """The same cells as a page of the site, with the figure that the tutorial draws, if there is one."""
    lines = []
    for kind, source in cells(path.read_text(encoding="utf-8")):
        lines += [source if kind == "markdown" else f"```python\n{source}\n```", ""]
    title, _, rest = "\n".join(lines).partition("\n")
    told = f"*This page is `tutorials/{path.name}`. Run it with Python, or open it in Jupyter after `make notebooks`.*"
    picture = PICTURES / f"{path.stem}.png"
    drawn = f"\n\n![What the tutorial draws](../pictures/tutorials/{picture.name})" if picture.exists() else ""
    return f"{title}\n\n{told}{drawn}\n{rest}"


def pages() -> dict[str, str]:
    """Each tutorial's page, by its path below docs/."""
    return {f"tutorials/{path.stem}.md": page(path) for path in tutorials()}
