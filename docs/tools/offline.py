"""Checks a built site: every link leads to a page and an anchor, and nothing is loaded from the net."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
_NOT_LOADED = {"canonical", "prev", "next", "alternate", "edit"}  # `rel` of <link> that only name a page


class _Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        for name, value in given.items():
            if (tag, name) in _LOADED and not (tag == "link" and given.get("rel") in _NOT_LOADED):
                self.loads.append(value)


def problems(site: Path) -> list[str]:
    """One line for each link that leads nowhere, and each address that a page would load."""
    pages = {p.resolve(): _Page(p.read_text(encoding="utf-8")) for p in sorted(site.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        wrong += [f"{name}: {link} leads nowhere" for link in page.links if not _leads(link, path, pages, site)]
        for address in page.loads:
            if _elsewhere(address):
                wrong.append(f"{name}: {address} would be loaded from the net")
            elif not address.startswith("data:") and not _target(address, path, site).exists():
                wrong.append(f"{name}: {address} is no file")
    for style in sorted(site.rglob("*.css")):
        for address in re.findall(r"url\(\s*[\"']?([^\"')]+)", style.read_text(encoding="utf-8")):
            if _elsewhere(address):
                wrong.append(f"{style.relative_to(site)}: {address} would be loaded from the net")
    return wrong


def _elsewhere(address: str) -> bool:
    return address.startswith("//") or urlsplit(address).scheme in {"http", "https"}


def _target(link: str, page: Path, site: Path) -> Path:
    path = unquote(urlsplit(link).path)
    base = site if path.startswith("/") else page.parent
    target = (base / path.lstrip("/")).resolve() if path else page
    return target / "index.html" if target.is_dir() else target


def _leads(link: str, page: Path, pages: dict[Path, _Page], site: Path) -> bool:
    if _elsewhere(link) or urlsplit(link).scheme in {"mailto", "javascript"}:
        return True  # other sites are not asked
    target, anchor = _target(link, page, site), unquote(urlsplit(link).fragment)
    if target not in pages:
        return target.exists()
    return not anchor or anchor == "__skip" or anchor in pages[target].anchors
