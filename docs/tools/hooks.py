"""What mkdocs does beside Markdown: the pages of the API, the contents, and the checks of the built site."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file alone
import cells
import offline
import public_names


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the contents: the tutorials, pages that mkdocs.yml does not list, and the API."""
    listed = re.findall(r"[\w/]+\.md", str(config.nav))
    docs = Path(config.docs_dir)
    others = [p.relative_to(docs).as_posix() for p in sorted(docs.rglob("*.md"))]
    others = [p for p in others if p not in [*listed, "tutorials.md"]]
    if others:
        config.nav.append({"More": others})
    config.nav.insert(2, {"Tutorials": ["tutorials.md", *cells.pages()]})
    config.nav.append({"API reference": list(public_names.pages())})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the API, which docstrings fill, and those of the tutorials."""
    if missing := public_names.undocumented(public_names.public_names()):
        raise PluginError(f"Public names without a docstring: {', '.join(missing)}. Write at least one line for each.")
    for path, text in {**public_names.pages(), **cells.pages()}.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Fail if a link leads nowhere, a page would load something from the net, or a public name is not shown."""
    site = Path(config.site_dir)
    if wrong := [*offline.problems(site), *public_names.not_shown(site)]:
        raise PluginError("The site is not in order:\n  " + "\n  ".join(wrong))
