"""Every command and every example in docs/ runs as it stands, with the exit code and the output that are shown."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppdgm.cli.app import app
from ppdgm.errors import PpdgmError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GUIDES = sorted(p for p in DOCS.glob("*.md") if "```console" in p.read_text(encoding="utf-8"))
PAGES = sorted(p for p in DOCS.glob("*.md") if "```text" in p.read_text(encoding="utf-8"))
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def commands(block):
    """(command, exit code, output that is shown) of a console block."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        command, _, remark = line.partition("   # exits with ")
        yield command, int(remark or 0), shown


def plain(output):
    """Output without what differs from machine to machine: numbers, widths of columns, and how long ago."""
    text = re.sub(r"\b(now|\d+ \w+ ago)\b", "now", output)
    text = re.sub(r"(?<=\[) +| +(?=\])", "", text)  # NumPy's columns
    return [re.sub(r"-?\d[\d.,]*", "0", " ".join(line.split())) for line in text.splitlines() if line.strip()]


def carried_out(command):
    """(exit code, stdout, stderr) of a command; ppdgm alone runs in this process, which has imported the libraries."""
    if command.startswith("ppdgm ") and not set("|&") & set(command):
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        return done.exit_code, done.stdout, done.stderr
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.stem)
def test_the_commands_of_a_guide_run(guide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("COLUMNS", "200")
    count = 0
    for kind, block in BLOCK.findall(guide.read_text(encoding="utf-8")):
        if named := re.match(r"# (\w+\.\w+)", block):
            (tmp_path / named[1]).write_text(block, encoding="utf-8")
        for command, code, shown in commands(block) if kind == "console" else ():
            got, out, err = carried_out(command)
            assert got == code, f"{command}\n{out}{err}"
            assert plain(err if code else out) == plain(shown), command
            count += 1
    assert count >= 10


def test_a_wrong_guide_is_noticed():
    block = "$ ppdgm runs   # exits with 5\nppdgm: runs: 3 folders\n"
    assert list(commands(block)) == [("ppdgm runs", 5, "ppdgm: runs: 3 folders\n")]
    assert plain("ELBO  -1.5 nats, 2 min ago") == plain("ELBO -20.25 nats, now") != plain("KL -1.5 nats, now")


def examples(page):
    """(Python, output that is shown) of a page; an example without output prints nothing."""
    blocks = BLOCK.findall(page)
    for (kind, block), (after, shown) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "python":
            yield block, shown if after == "text" else ""


def printed(code, names):
    """What an example prints; if ppdgm refuses something, the error is the last line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(code, names)
        except PpdgmError as error:
            print(f"{type(error).__name__}: {error}")
    return out.getvalue()


def agrees(output, shown):
    """Whether an output is the one that is shown, where … stands for any text within a line."""
    found, expected = plain(output), plain(shown)
    fits = lambda line, pattern: re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), line)
    return len(found) == len(expected) and all(map(fits, found, expected))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, count = {"__name__": page.stem}, 0
    for code, shown in examples(page.read_text(encoding="utf-8")):
        output = printed(code, names)
        assert agrees(output, shown), f"{code}\n{output}"
        count += 1
    assert count >= 5


def test_a_wrong_page_is_noticed():
    page = "```python\nprint(1.5, 'rows')\n```\n\n```text\n2.5 rows\n```\n```python\na = 1\n```\n"
    assert list(examples(page)) == [("print(1.5, 'rows')\n", "2.5 rows\n"), ("a = 1\n", "")]
    assert agrees(printed("print(1.5, 'rows')", {}), "2.5 rows")
    assert agrees("DataError: got 3 rows. Give 4.", "DataError: got 5 …")
    assert not agrees("DataError: got 3 columns", "DataError: got 3 rows …")
    assert not agrees("1.5 rows\n2.5 rows\n", "1.5 rows") and not agrees("", "1.5 rows")


def test_links_lead_to_files():
    tutorials = {DOCS / "tutorials" / f"{p.stem}.md" for p in (ROOT / "tutorials").glob("*.py")}  # pages of the site
    for page in (ROOT / "README.md", *DOCS.rglob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            assert link.startswith("http") or target.exists() or target in tutorials, f"{page.name}: {link}"
