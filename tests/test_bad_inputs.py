"""Whatever is wrong, the command line says so in one line, with its own exit code, and leaves everything as it was."""

import json
import shlex
import shutil
import subprocess
import sys
import urllib.error

import bad_inputs
import pytest
from bad_lines import BITS, TABLE

from ppdgm.cli import main
from ppdgm.cli.failures import EXIT_CODES


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    here = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        bad_inputs.build(here)
    return here, contents(here)


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """The world, without a network, and with no set in a folder of the user's; and its content before."""
    here, before = world
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PPDGM_DATA", str(tmp_path / "mine"))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    yield here, before
    if contents(here) != before:  # training, or a test that failed
        restore(here, before)


def no_network(*_, **__):
    raise urllib.error.URLError("no network")


def hide(package, patch):
    """As if a package were not installed."""
    for name in list(sys.modules):
        if name.startswith("ppdgm.backends."):
            patch.delitem(sys.modules, name)
    patch.setitem(sys.modules, package, None)


def contents(folder):
    """Every file with its bytes, every folder with nothing."""
    return {p.relative_to(folder): None if p.is_dir() else p.read_bytes() for p in folder.rglob("*")}


def restore(folder, before):
    shutil.rmtree(folder)
    folder.mkdir()
    for path, content in sorted(before.items()):
        (folder / path).mkdir() if content is None else (folder / path).write_bytes(content)


def run(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ppdgm", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code, *capsys.readouterr()


@pytest.mark.parametrize("case", TABLE)
def test_bad_inputs(case, here, monkeypatch, capsys):
    """One line on stderr, that names what was got and what to do; an exit code of the table's; nothing else at all."""
    arguments, expected, words = TABLE[case]
    if case.startswith("missing: "):
        hide(case.removeprefix("missing: "), monkeypatch)
    folder, before = here
    code, out, err = run(arguments, monkeypatch, capsys)
    line = err.removesuffix("\n")
    assert code == expected and f"\n{code}  " in EXIT_CODES, err
    assert line.startswith("ppdgm: ") and "\n" not in line and "Traceback" not in line and len(line) < 600, err
    for word in words:
        assert word in line
    if "--json" not in arguments and arguments[0] != "new":  # which writes nothing for machines
        assert not out
        code, out, err = run([arguments[0], "--json", *arguments[1:]], monkeypatch, capsys)
        assert code == expected and err.replace(" --json", "") == f"{line}\n"  # a message may repeat the command
    if arguments[0] != "new":
        found = json.loads(out)
        assert list(found) == ["error"] and set(found["error"]) == {"type", "message"}
        assert f"ppdgm: {found['error']['message']}\n" == err
    assert contents(folder) == before


def is_fit(case):
    arguments = TABLE[case][0]
    return case.startswith(("data: ", "program: ")) and arguments[0] == "fit" and "--backend" not in arguments


@pytest.mark.parametrize("case", [c for c in TABLE if is_fit(c)])
def test_pyro_refuses_the_same_data_and_programs(case, here, monkeypatch, capsys):
    arguments, expected, words = TABLE[case]
    code, out, err = run([*arguments, "--backend", "pyro"], monkeypatch, capsys)
    assert code == expected and err.startswith("ppdgm: ") and "Traceback" not in err and not out, err
    for word in words:
        assert word in err


def test_training_that_is_not_finite_ends_with_a_code_of_its_own(here, monkeypatch, capsys):
    """The run is kept, with the parameters before."""
    rate = ("--set", "training.learning_rate=1e30", "--set", "training.max_skipped=2", "--backend", "pyro")
    arguments = (*shlex.split(f"{BITS} --steps 9 --no-compile --out new"), *rate)
    code, out, err = run([*arguments, "--json"], monkeypatch, capsys)
    *_, line = err.splitlines()
    assert (
        code == 4
        and line.startswith("ppdgm: Training stopped, because numbers were not finite")
        and "new/log.txt" in line
    )
    assert json.loads(out)["error"]["message"] in line and "Traceback" not in err
    assert (here[0] / "new" / "weights.safetensors").is_file()


TRUE = (  # also as processes of their own
    "arguments: a flag",
    "recipe: not TOML",
    "data: NaN",
    "program: guide and model disagree",
    "run: a damaged checkpoint",
)


@pytest.mark.parametrize("case", TRUE)
def test_a_true_process_says_the_same(case, here, monkeypatch, capsys):
    arguments, *_ = TABLE[case]
    code, out, err = run(arguments, monkeypatch, capsys)
    found = subprocess.run([sys.executable, "-m", "ppdgm", *arguments], capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout, found.stderr) == (code, out, err)
