"""What a run shows while it trains, wherever its error stream leads; and its log."""

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from datetime import datetime
from fcntl import ioctl

import pytest

from ppdgm.inference.runs import progress, showing
from ppdgm.inference.runs.progress import Progress, RunLog, clock
from ppdgm.inference.runs.showing import make_display

SCRIPT = """
import time
from ppdgm.inference.runs import progress, showing
from ppdgm.inference.runs.progress import Progress
from ppdgm.inference.runs.showing import make_display
progress.FIRST_SECONDS = 0.0
with make_display({progress}) as shown:
    for i in range(1, 5):
        metrics = {{"elbo": -123.456, "kl": 23.45}}
        shown.update(Progress(12500 * i, 50000, 12.5 * i, 10.0 * i, 1250.0, metrics, -125.6 if i > 1 else None, i // 2))
        time.sleep(0.12)
    shown.note("checkpoint at step 1200 [K, B, \\u2026]")
    shown.warn("Step 7 was skipped: log q of site 'z' is nan")
print("after")
"""
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9]")


def now(step=300, **fields):
    values = {"step": step, "steps": 1000, "epoch": step / 100, "seconds": 12.0, "rate": 50.0} | fields
    return Progress(**{"metrics": {"elbo": -10.0, "kl": 2.0}, **values})


def run(columns=None, progress=None, stderr=None, **environ):
    """(exit code, output, error stream) of the script; in a terminal of so many columns, or through pipes."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT.format(progress=progress)]
    apart = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    env = {
        **{n: v for n, v in os.environ.items() if n not in apart},
        "TERM": "xterm-256color",
        "PYTHONIOENCODING": "utf-8",
        **environ,
    }
    if columns is None:
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=stderr or subprocess.PIPE, check=False)
        return done.returncode, done.stdout, done.stderr
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while part := _read(ours):
        shown += part
    out = process.communicate()[0]
    os.close(ours)
    return process.returncode, out, shown


def _read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""


def lines(shown):
    return [line for line in re.split(r"[\r\n]+", CONTROL.sub(b"", shown).decode()) if line]


# --- words ------------------------------------------------------------------------------------------------------------


def test_progress_in_words():
    assert now().bound == "ELBO -10.00  KL 2.00"
    assert now(validation=-11.0, skipped=1).bound == "ELBO -10.00  KL 2.00  validation -11.00  1 step skipped"
    assert now(metrics={"objective": 3.0}, skipped=1200).bound == "objective 3.00  1,200 steps skipped"
    assert now().place == "step 300/1,000  epoch 3.0/10"
    assert now(epochs=12).place == "step 300/1,000  epoch 3.0/12"
    assert now(0).place == "step 0/1,000  epoch 0.0/0"
    assert now().pace == "50/s  0:14 left"
    assert now(1000, seconds=3723.0).pace == "50/s  took 1:02:03"
    assert now(rate=0.25).pace == "0.25/s  46:40 left"
    assert now(rate=0.0).pace == now(rate=float("nan")).pace == now(rate=float("inf")).pace == "?/s"
    assert clock(2 * 86400 + 3661) == "2 d 1:01:01"


# --- a terminal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 40, 200])
def test_live_lines_fit_the_terminal(columns):
    code, out, shown = run(columns)
    assert code == 0 and out == b"after\n"
    drawn = [line for line in lines(shown) if not line.startswith("Step 7")]  # which the terminal wraps
    assert max(map(len, drawn)) <= columns
    assert shown.count(b"\x1b[1A") >= 3  # back up, to draw again
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h")  # the cursor comes back
    assert COLOUR.search(shown)
    if columns >= 80:
        text = "\n".join(lines(shown))
        for word in ("step 50,000/50,000", "epoch 50.0/50", "1,250/s", "took 0:40", "ELBO -123.46", "KL 23.45"):
            assert word in text
        for word in ("validation -125.60", "2 steps skipped", "checkpoint at step 1200 [K, B, …]", "0:30 left"):
            assert word in text


def test_live_lines_without_colour():
    code, _, shown = run(80, NO_COLOR="1")
    assert code == 0 and not COLOUR.search(shown) and b"50,000/50,000" in shown


def test_a_terminal_that_can_not_move_its_cursor():
    code, _, shown = run(80, TERM="dumb")
    assert code == 0 and not CONTROL.search(shown) and b"50,000/50,000" in shown


@pytest.mark.parametrize("columns", [80, None])
def test_an_encoding_without_most_characters(columns):
    code, out, shown = run(columns, LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii:strict")
    assert code == 0 and out == b"after\n"
    assert b"[K, B, ...]" in shown and CONTROL.sub(b"", shown).isascii()


# --- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environ", [{}, {"FORCE_COLOR": "1"}])
def test_plain_lines_through_a_pipe(environ):
    code, out, shown = run(**environ)
    assert code == 0 and out == b"after\n" and not CONTROL.search(shown) and b"\r" not in shown
    found = lines(shown)
    assert found[-1].startswith("step 50,000/50,000") and any("checkpoint" in line for line in found)


def test_nothing_when_told_so():
    code, _, shown = run(progress=False)
    assert code == 0 and lines(shown) == ["Step 7 was skipped: log q of site 'z' is nan"]


@pytest.mark.parametrize("ending", ["2>&-", "2>/dev/full", "2> >(exec 0<&-; sleep 0.2)"])
def test_an_error_stream_that_is_closed_full_or_broken_ends_no_run(ending, tmp_path):
    if "full" in ending and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    (tmp_path / "script.py").write_text(SCRIPT.format(progress=None), encoding="utf-8")
    command = f"{sys.executable} {tmp_path}/script.py {ending}"
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, check=False)
    assert done.stdout == b"after\n"


def test_plain_lines_come_seldom(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(showing, "_is_terminal", lambda: False)
    with make_display(None) as shown:
        for clock[0] in range(20):
            shown.update(now(step=1 + int(clock[0])))
    steps = re.findall(r"step (\d+)/", capsys.readouterr().err)
    assert steps == ["2", "7", "12", "17", "20"]  # after a second, every five, and the last


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_is_appended_to_line_by_line(tmp_path):
    path = tmp_path / "log.txt"
    RunLog(path).write("begins\nat step 0")
    with path.open("a", encoding="utf-8") as file:
        file.write("2026-01-01T00:00:00 half a li")  # a run that was killed
    log = RunLog(path)
    log.write("goes on at β = 1")
    log.write("again")
    first, torn, *rest = path.read_text(encoding="utf-8").splitlines()
    assert first.endswith(" begins at step 0") and torn.endswith("half a li")
    assert [line.split(" ", 1)[1] for line in rest] == ["goes on at β = 1", "again"]
    for line in (first, *rest):
        assert datetime.fromisoformat(line.split(" ")[0]).tzinfo is not None


def test_the_log_tells_of_progress_every_ten_seconds(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    log = RunLog(tmp_path / "log.txt")
    for seconds in range(25):
        clock[0] = 100.0 + seconds
        log.progress(now(step=1 + seconds, validation=-11.0))
    found = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [re.search(r"step (\d+)/", line)[1] for line in found] == ["1", "11", "21"]
    assert found[0].endswith("step 1/1,000  epoch 0.0/10  50/s  0:20 left  ELBO -10.00  KL 2.00  validation -11.00")


def test_a_log_that_can_not_be_written_ends_no_run(tmp_path):
    RunLog(tmp_path / "no" / "log.txt").write("lost")
    RunLog(tmp_path).write("a folder")
