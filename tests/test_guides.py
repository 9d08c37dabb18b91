"""Every command in docs/ runs as it stands, with the exit code that it says and the output that is shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CACHED

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = sorted(p for p in DOCS.glob("*.md") if "```console" in p.read_text(encoding="utf-8"))
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
    return [re.sub(r"-?\d[\d.,]*", "0", " ".join(line.split())) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda p: p.stem)
def test_the_commands_of_a_guide_run(guide, tmp_path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, **CACHED, "PATH": path, "COLUMNS": "200"}
    count = 0
    for kind, block in BLOCK.findall(guide.read_text(encoding="utf-8")):
        if named := re.match(r"# (\w+\.\w+)", block):
            (tmp_path / named[1]).write_text(block, encoding="utf-8")
        for command, code, shown in commands(block) if kind == "console" else ():
            run = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
            assert run.returncode == code, f"{command}\n{run.stdout}{run.stderr}"
            assert plain(run.stderr if code else run.stdout) == plain(shown), command
            count += 1
    assert count >= 10


def test_a_wrong_guide_is_noticed():
    block = "$ ppdgm runs   # exits with 5\nppdgm: runs: 3 folders\n"
    assert list(commands(block)) == [("ppdgm runs", 5, "ppdgm: runs: 3 folders\n")]
    assert plain("ELBO  -1.5 nats, 2 min ago") == plain("ELBO -20.25 nats, now") != plain("KL -1.5 nats, now")
