"""The site's checks find what is wrong; public names are documented; the pages of zoo and engines are complete."""

import importlib
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml

from ppdgm import Program

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "tools"))
cells, offline, public_names = map(importlib.import_module, ("cells", "offline", "public_names"))


def test_every_public_name_is_documented_and_on_a_page():
    names = public_names.public_names()
    assert public_names.undocumented(names) == []
    text = "\n".join(public_names.pages().values())
    assert all(re.search(rf"^::: {re.escape(n.path)}$", text, re.MULTILINE) for n in names)
    assert {"ppdgm.fit", "ppdgm.models.VAE", "ppdgm.inference.IWAE", "ppdgm.diagnostics.pareto_k"} <= {
        n.path for n in names
    }


def test_names_without_a_docstring_are_found():
    class Bare:
        def method(self): ...

        def _own(self): ...

    class Described(Bare):
        """A line."""

        def method(self):
            """Another."""

    found = public_names.undocumented([public_names.Name("m", n, "", v) for n, v in (("Bare", Bare), ("D", Described))])
    assert found == ["m.Bare", "m.Bare.method"]


def test_a_name_that_no_page_shows_is_found(tmp_path):
    (tmp_path / "api").mkdir()
    ids = "".join(f'<h3 id="{n.path}">' for n in public_names.public_names()[1:])
    (tmp_path / "api" / "all.html").write_text(ids, encoding="utf-8")
    assert public_names.not_shown(tmp_path) == [f"{public_names.public_names()[0].path} is not on a page of the API"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('<a href="b.html#there">', None),
        ('<a href="https://example.org">', None),
        ('<a href="#here"><p id="here">', None),
        ('<img src="b.html">', None),
        ('<a href="c.html">', "a.html: c.html leads nowhere"),
        ('<a href="b.html#not">', "a.html: b.html#not leads nowhere"),
        ('<a href="#not">', "a.html: #not leads nowhere"),
        ('<img src="x.png">', "a.html: x.png is no file"),
        ('<script src="https://example.org/x.js">', "a.html: https://example.org/x.js would be loaded from the net"),
        (
            '<link rel="stylesheet" href="//example.org/x.css">',
            "a.html: //example.org/x.css would be loaded from the net",
        ),
        ('<link rel="canonical" href="https://example.org">', None),
    ],
)
def test_links_and_loads_of_a_site(line, problem, tmp_path):
    (tmp_path / "a.html").write_text(line, encoding="utf-8")
    (tmp_path / "b.html").write_text('<h1 id="there">', encoding="utf-8")
    assert offline.problems(tmp_path) == ([problem] if problem else [])


def test_styles_load_nothing_from_the_net(tmp_path):
    (tmp_path / "a.css").write_text('p { background: url("https://example.org/x.png") }', encoding="utf-8")
    assert offline.problems(tmp_path) == ["a.css: https://example.org/x.png would be loaded from the net"]


def test_the_contents_name_pages():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False
    named = re.findall(r"[\w/]+\.md", str(settings["nav"]))
    assert named and all((DOCS / page).exists() for page in named)


def test_the_pages_of_zoo_and_engines_name_every_class():
    zoo, engines = (
        set(re.findall(r"\w+", (DOCS / f"{page}.md").read_text(encoding="utf-8"))) for page in ("zoo", "engines")
    )
    groups = {n.name: n.group for n in public_names.public_names()}
    parts = {"Programs", "Priors", "Posteriors", "Likelihoods", "Flows", "Nets"}
    assert {n for n, group in groups.items() if group in parts} - zoo == set()
    assert {n for n, group in groups.items() if group in {"Engines", "Samplers", "Stages"}} - engines == set()


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


#: Pages whose examples run in one session, without output to compare; what they cost is a second or two.
LIGHT = [
    *sorted((DOCS / "course").glob("*.md")),
    *(DOCS / f"{name}.md" for name in ("coming_from", "concepts", "how_to", "using_a_fit")),
]


@pytest.mark.parametrize("page", LIGHT, ids=lambda p: p.stem)
def test_the_examples_of_a_light_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    exec("\n".join(blocks(page)), names)
    found = [v for value in names.values() for v in (value if isinstance(value, list) else [value])]
    for program in (v for v in found if isinstance(v, Program)):
        assert program.initialise(0, data_of(program)), program


def data_of(program):
    """A few rows that first values may read: zeros and ones, or levels."""
    return {"x": np.random.default_rng(0).integers(0, 2, (600, *program.event_shape)).astype("float32")}


def test_cells_of_a_tutorial_become_a_notebook_and_a_page(tmp_path):
    text = "# %% [markdown]\n# # Title\n#\n# Words.\n\n# %%\nx = 1\n\n# %%\n\n# %% [markdown]\n# End.\n"
    assert cells.cells(text) == [("markdown", "# Title\n\nWords."), ("code", "x = 1"), ("markdown", "End.")]
    made = cells.notebook(text)
    nbformat.validate(made)
    assert [c.source for c in made.cells] == ["# Title\n\nWords.", "x = 1", "End."]
    path = tmp_path / "told.py"
    path.write_text(text, encoding="utf-8")
    assert cells.page(path).startswith("# Title\n") and "```python\nx = 1\n```" in cells.page(path)


def test_every_tutorial_is_in_the_index_and_no_cell_is_lost():
    index = (DOCS / "tutorials.md").read_text(encoding="utf-8")
    for path in cells.tutorials():
        assert f"(tutorials/{path.stem}.md)" in index, path
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 150 and "\n# ## Exercises\n" in text and "*Answer:" in text, path
        code = "\n".join(source for kind, source in cells.cells(text) if kind == "code")
        marked = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert [line for line in code.splitlines() if line and not line.startswith("#")] == marked
    assert len(cells.tutorials()) == index.count("](tutorials/")
