"""The command line without training: help, catalogue, mistakes, exit codes, imports, streams."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from typer.testing import CliRunner

from ppdgm import catalogue
from ppdgm.cli.app import app
from ppdgm.specs import Spec

COMMANDS = (
    "fit",
    "sweep",
    "resume",
    "evaluate",
    "diagnose",
    "sample",
    "encode",
    "impute",
    "export",
    "runs",
    "compare",
    "share",
    "models",
    "data",
    "new",
)
PYTHON = [sys.executable, "-m", "ppdgm"]


def ppdgm(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output or "--debug" in arguments
    return result


def process(*arguments, **options):
    return subprocess.run([*PYTHON, *arguments], capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- help ----------------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_exit_code():
    text = ppdgm("--help").stdout
    assert all(f"│ {name} " in text for name in COMMANDS)
    assert all(f"\n {code}  " in text for code in (0, 1, 2, 3, 4, 5, 6, 130))
    assert "A first session" in text and text == ppdgm("-h").stdout


@pytest.mark.parametrize("command", [*COMMANDS, None])
def test_help_fits_80_columns_and_has_examples(command):
    text = ppdgm(*([command] if command else []), "--help").stdout
    assert all(len(line) <= 80 for line in text.splitlines())
    assert f"ppdgm {command or 'fit'} " in text and "\\b" not in text
    if command:
        assert "Examples:\n" in text.replace(" \n", "\n").replace("  ", "") or "Examples:" in text


def test_nothing_asked_shows_help_and_is_a_mistake():
    assert "Commands" in ppdgm(code=2).stdout


def test_version():
    from ppdgm import __version__

    assert ppdgm("--version").stdout == f"ppdgm {__version__}\n"
    assert process("--version").stdout == f"ppdgm {__version__}\n"  # python -m ppdgm


# --- imports: what is slow is imported by what needs it -------------------------------------------------------------

IMPORTS = """
    import sys
    from ppdgm.cli import main
    for line in {lines}:
        sys.argv = ["ppdgm", *line]
        try:
            main()
        except SystemExit as done:
            assert not done.code, line
    print("IMPORTED", *{heavy} & set(sys.modules))
"""


@pytest.mark.parametrize(
    ("lines", "heavy"),
    [
        ([["--help"], ["fit", "--help"]], {"torch", "jax", "numpy", "scipy", "sklearn", "matplotlib"}),
        ([["--version"]], {"torch", "jax", "numpy", "scipy", "sklearn", "matplotlib"}),
        ([["models"], ["models", "VAE"], ["data"], ["data", "digits"], ["runs", "."]], {"torch", "jax", "matplotlib"}),
    ],
)
def test_light_commands_import_nothing_heavy(lines, heavy):
    code = textwrap.dedent(IMPORTS.format(lines=lines, heavy=heavy))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "IMPORTED"


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_every_public_spec_is_in_the_catalogue_and_explained():
    """A new part without a one-line meaning, or with a field that no Args explains, fails here."""
    from ppdgm import inference, models

    named = {n for home in (models, inference) for n in home.__all__ if isinstance(vars(home)[n], type)}
    specs = {n for n in named if issubclass(getattr(models, n, None) or getattr(inference, n), Spec)}
    bases = {
        "Augmentation",
        "CausalNet",
        "Composite",
        "Engine",
        "Flow",
        "Likelihood",
        "Net",
        "Part",
        "Posterior",
        "Prior",
        "Program",
        "Sampler",
        "Schedule",
        "Target",
    }
    entries = [catalogue.describe_class(cls) for cls in catalogue.public_specs()]
    assert {e.name for e in entries} == (specs - bases) | {"Training", "Source"}
    for entry in entries:
        assert len(entry.meaning) > 10, entry.name
        assert entry.group and entry.place
        for field in entry.fields:
            assert field.meaning, f"{entry.name}.{field.name} is not explained in the Args of its docstring"
            assert field.type and field.type != "value", f"{entry.name}.{field.name}"


def test_the_catalogue_tells_types_ranges_defaults_and_papers():
    vae = {f.name: f for f in catalogue.find_class("vae").fields}
    assert vae["event_shape"].required and vae["event_shape"].type == "list of whole numbers > 0"
    assert (vae["latent"].type, vae["latent"].default) == ("whole number > 0 or list of whole numbers > 0", 50)
    assert vae["likelihood"].type.startswith("a Likelihood (Autoregressive, Bernoulli, Categorical")
    assert vae["posterior"].default == {"kind": "DiagonalNormal", "min_scale": 1e-4, "max_scale": 100.0}
    assert catalogue.find_class("VAE").papers == ("Kingma & Welling 2014, arXiv:1312.6114",)
    training = {f.name: f for f in catalogue.find_class("Training").fields}
    assert training["clip_norm"].type == "number > 0 or none"
    assert training["weight_average"].type == "number > 0 and < 1 or none"
    assert training["compile"].type == "true or false or 'auto' or 'cudagraphs'"
    conv = {f.name: f for f in catalogue.find_class("ConvDecoder").fields}  # explained where they are inherited from
    assert conv["stride"].meaning and conv["channels"].meaning != vae["latent"].meaning


def test_models():
    text = ppdgm("models").stdout
    for entry in map(catalogue.describe_class, catalogue.public_specs()):
        assert f"  {entry.name} " in text
    found = json.loads(ppdgm("models", "--json").stdout)
    assert {e["name"] for e in found} >= {"VAE", "PPCA", "MLP", "SVI", "Linear"}
    one = ppdgm("models", "ppca").stdout
    assert "Tipping & Bishop 1999" in one and "latent: whole number > 0; default 2" in one
    assert json.loads(ppdgm("models", "PPCA", "--json").stdout)["fields"][1]["default"] == 2


def test_data(here):
    assert all(name in ppdgm("data").stdout for name in ("digits", "mnist", "fashion-mnist"))
    assert json.loads(ppdgm("data", "--json").stdout)[0]["name"] == "digits"
    found = json.loads(ppdgm("data", "digits", "--json").stdout)
    assert found["rows"] == {"train": 1347, "validation": 150, "test": 300} and found["shape"] == [8, 8]
    np.save("x.npy", np.arange(60.0).reshape(20, 3))
    found = json.loads(ppdgm("data", "x.npy", "--set", "scale=standardise", "--set", "test=4", "--json").stdout)
    assert found["scale"] == "standardise" and found["rows"]["test"] == 4
    assert "8×8" in ppdgm("data", "digits").stdout


# --- mistakes: one line on stderr, and the exit code ---------------------------------------------------------------

TWO = """
from ppdgm import Program

class A(Program):
    def build(self, c):
        c.param("loc")

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("loc"), 1.0).to_event(2), obs=x)

class B(Program):
    n: int = 2
"""
FILES = {
    "broken.py": "x = 1\ny = x / 0\n",
    "syntax.py": "def f(:\n",
    "quits.py": "raise SystemExit(0)\n",
    "unknown.py": "import no_such_package\n",
    "empty.py": "x = 1\n",
    "two.py": TWO,
    "plain.py": "from ppdgm import Program\nclass A(Program):\n    latent = 3\n",
    "list.py": "A = [1]\n",
    "own.toml": '[program]\nkind = "never_imported:Mine"\n[data]\nname = "digits"\n',
    "pair.toml": '[program]\nkind = "plain:pyro"\n[data]\nname = "digits"\n',
    "no_data.toml": '[program]\nkind = "VAE"\n[versions]\n',
    "broken.toml": "x = [",
    "odd.toml": "program = 3\n",
    "optimiser.toml": '[program]\nkind = "VAE"\n[data]\nname = "digits"\n[training]\noptimiser = "own"\n',
    "empty.csv": "",
}
MISTAKES = {
    "a command": (["fti"], 2, ["No such command 'fti'", "Did you mean 'fit'?", "ppdgm --help"]),
    "no program": (["fit"], 2, ["Missing argument 'PROGRAM'", "ppdgm fit --help"]),
    "an option": (["fit", "vae", "--epoch", 3], 2, ["--epoch", "Did you mean '--epochs'?"]),
    "a field as an option": (["fit", "vae", "--latent", 3], 2, ["--set program.latent=VALUE"]),
    "a setting as an option": (["fit", "vae", "--clip-norm", 3], 2, ["--set training.clip_norm=VALUE"]),
    "an option elsewhere": (["sample", "run", "--epochs", 3], 2, ["--epochs", "ppdgm sample --help"]),
    "no value": (["fit", "vae", "--epochs"], 2, ["'--epochs' requires an argument"]),
    "a word for a number": (
        ["fit", "vae", "--epochs", "ten"],
        2,
        ["--epochs: got 'ten'", "a whole number, at least 1"],
    ),
    "too small": (["fit", "vae", "--batch-size", 0], 2, ["--batch-size: got '0'", "at least 1"]),
    "not finite": (["fit", "vae", "--learning-rate", "nan"], 2, ["--learning-rate: got 'nan'", "a number"]),
    "negative": (["fit", "vae", "--learning-rate=-1"], 2, ["learning_rate", "-1.0"]),
    "one too many": (["fit", "vae", "ppca"], 2, ["ppca"]),
    "both lengths": (["fit", "vae", "--epochs", 1, "--steps", 1], 2, ["give one of them"]),
    "a program": (["fit", "vea"], 2, ["'vea'", "Did you mean 'VAE'?", "ppdgm new"]),
    "an engine": (["fit", "vae", "--engine", "sv"], 2, ["--engine: got 'sv'", "'SVI'"]),
    "a backend": (["fit", "vae", "--backend", "torch"], 2, ["--backend: got 'torch'", "numpyro, pyro"]),
    "an optimiser": (["fit", "vae", "--optimiser", "adm"], 2, ["optimiser", "'adm'", "'adam'"]),
    "a device": (["fit", "vae", "--device", "tpu", "--steps", 1], 2, ["'tpu'"]),
    "a path": (["fit", "vae", "--set", "program.latnet=3"], 2, ["Did you mean 'latent'?"]),
    "data": (["fit", "vae", "--data", "dgits"], 3, ["'dgits'", "Did you mean 'digits'?"]),
    "no such file": (["fit", "vae", "--data", "none.csv"], 3, ["'none.csv'"]),
    "settings of no data": (
        ["data", "--set", "scale=unit"],
        2,
        ["--set, --fields, --header and --index", "ppdgm data PATH"],
    ),
    "a table of fields": (["data", "digits", "--fields", "{x = 1}"], 2, ["once for each field"]),
    "a header of no data": (["data", "--header"], 2, ["--set, --fields, --header and --index", "ppdgm data PATH"]),
    "an empty table": (["fit", "vae", "--data", "empty.csv"], 3, ["empty.csv"]),
    "data out of range": (["fit", "vae", "--data", "x.npy"], 3, ["index (0, 0)", "program.likelihood=Gaussian"]),
    "how to binarise": (["fit", "vae", "--binarise", "statc"], 2, ["binarise", "'statc'"]),
    "a warm-up too long": (
        ["fit", "vae", "--steps", 3, "--set", "engine.beta={kind='Linear', steps=9}"],
        2,
        ["beta", "9 steps"],
    ),
    "no recipe": (["fit", "none.toml"], 2, ["none.toml"]),
    "a broken recipe": (["fit", "broken.toml"], 2, ["broken.toml", "TOML"]),
    "an odd recipe": (["fit", "odd.toml"], 2, ["program: got 3"]),
    "no data in it": (["fit", "no_data.toml"], 2, ["no_data.toml has no data", "--data"]),
    "an optimiser of one's own": (["fit", "optimiser.toml"], 2, ["--optimiser adam"]),
    "a class of one's own": (["fit", "own.toml"], 2, ["ppdgm fit own.toml --program path/to/never_imported.py"]),
    "a pair": (["fit", "pair.toml"], 2, ["ppdgm fit pair.toml --program FILE.py:NAME"]),
    "no file": (["fit", "none.py"], 2, ["none.py", "ppdgm new none.py"]),
    "no module": (["fit", "no_such:Thing"], 2, ["no_such", "ModuleNotFoundError"]),
    "no name": (["fit", "two.py:C"], 2, ["'C'", "A, B"]),
    "not a program": (["fit", "list.py:A"], 2, ["list:A is not a program"]),
    "half a name": (["fit", "two:"], 2, ["FILE.py:NAME"]),
    "several": (["fit", "two.py"], 2, ["two.py:A, two.py:B"]),
    "none": (["fit", "empty.py"], 2, ["empty.py has no program"]),
    "an error in a file": (["fit", "broken.py"], 2, ["ZeroDivisionError", "broken.py, line 2"]),
    "not Python": (["fit", "syntax.py"], 2, ["SyntaxError", "syntax.py, line 1"]),
    "a file that exits": (["fit", "quits.py"], 2, ["quits.py can't be imported", "SystemExit"]),
    "a missing import": (["fit", "unknown.py"], 2, ["'no_such_package'", "unknown.py, line 1"]),
    "a field without a type": (["fit", "plain.py"], 2, ["latent", "annotation"]),
    "a shape the data don't have": (["fit", "two.py:A", "--steps", 1], 2, ["two.py:10", "reinterpreted_batch_ndims"]),
    "a program twice": (["fit", "two.py:A", "--program", "two.py"], 2, ["--program is only for a name, a recipe"]),
    "no program file": (["fit", "vae", "--program", "two"], 2, ["--program: got 'two'", "my_program.py"]),
    "a path to nowhere": (["fit", "no/where"], 2, ["no/where"]),
    "not from a run": (["fit", "./folder"], 2, ["no recipe.toml"]),
    "out is a file": (["fit", "vae", "--out", "x.npy", "--steps", 1], 5, ["x.npy is a file"]),
    "out is taken": (["fit", "vae", "--out", "folder", "--steps", 1], 5, ["folder has files"]),
    "out that can't be made": (["fit", "vae", "--out", "/proc/x", "--steps", 1], 5, ["/proc/x can't be made"]),
    "new that can't be written": (["new", "/proc/x.py"], 5, ["/proc/x.py: No such file"]),
    "no run": (["evaluate", "nowhere"], 5, ["nowhere", "no such run"]),
    "a folder that is none": (["evaluate", "folder"], 5, ["folder is not a run"]),
    "nothing to resume": (["resume", "folder"], 5, ["folder is not a run"]),
    "no checkpoint": (["resume", "nowhere", "--checkpoint", "none"], 5, ["--checkpoint", "none"]),
    "no k": (["evaluate", "run", "--k", 0], 2, ["--k: got '0'"]),
    "no samples": (["sample", "run", "--n", "-1"], 2, ["--n: got '-1'"]),
    "a picture of another kind": (["sample", "run", "--out", "x.gif"], 2, ["'x.gif'", ".png"]),
    "samples over a file": (["sample", "run", "--out", "x.npy"], 5, ["x.npy exists", "--overwrite"]),
    "an unknown part": (["models", "vaee"], 2, ["'vaee'", "Did you mean 'VAE'?"]),
    "an unknown set": (["data", "mnst"], 3, ["'mnst'", "Did you mean 'mnist'?"]),
    "an odd setting of data": (["data", "digits", "--set", "scal=unit"], 2, ["'scal'", "Did you mean 'scale'?"]),
    "new over a file": (["new", "two.py"], 5, ["two.py exists"]),
    "new without Python": (["new", "x.txt"], 2, ["x.txt", "my_program.py"]),
    "new that hides another": (["new", "torch.py"], 2, ["torch.py would hide"]),
    "new with a keyword": (["new", "x.py", "--name", "class"], 2, ["'class'"]),
    "runs of nowhere": (["runs", "nowhere"], 5, ["nowhere"]),
    "bytes that are no text": (["fit", "\udcff"], 2, ["UTF-8"]),
    "a name without end": (["fit", "a" * 5000], 2, ["No program"]),
    "data without end": (["fit", "vae", "--data", "a" * 5000], 3, ["aaa"]),
}


@pytest.fixture
def files(here):
    for name, text in FILES.items():
        (here / name).write_text(text)
    np.save("x.npy", np.arange(60.0).reshape(20, 3) + 2)
    (here / "folder").mkdir()
    (here / "folder" / "thesis.txt").write_text("important")


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_end_in_one_line_and_a_code(case, files):
    arguments, code, words = MISTAKES[case]
    result = ppdgm(*arguments, code=code)
    *rest, line = result.stderr.splitlines()
    assert line.startswith("ppdgm: ") and not rest and not result.stdout
    for word in words:
        assert word in line, line
    assert not os.path.exists("runs")  # nothing is left of a run that came to nothing


def test_json_tells_of_mistakes_too(files):
    for arguments, code, kind in (
        (["fit", "vae", "--data", "dgits"], 3, "DataError"),
        (["fit", "vae", "--epoch", "1"], 2, "UsageError"),
        (["evaluate", "nowhere"], 5, "CheckpointError"),
    ):
        result = ppdgm(*arguments, "--json", code=code)
        error = json.loads(result.stdout)["error"]
        assert error["type"] == kind and result.stderr == f"ppdgm: {error['message']}\n"


@pytest.mark.parametrize("arguments", [["--debug", "fit", "broken.py"], ["fit", "broken.py", "--debug"]])
def test_debug_shows_the_traceback(arguments, files):
    result = ppdgm(*arguments, code=2)
    assert "y = x / 0" in result.stderr and result.stderr.splitlines()[-1].startswith("ppdgm: broken.py")


def test_an_error_of_ours_says_how_to_report_it(monkeypatch):
    def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr("ppdgm.cli.programs.choose_program", broken)
    monkeypatch.setattr("ppdgm.cli.training.choose_program", broken)
    line = ppdgm("fit", "vae", code=1).stderr
    assert line.count("\n") == 1 and "KeyError" in line and "--debug" in line and "report" in line


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError("8 GiB"), 4, ["Out of memory"]),
        (PermissionError(13, "Permission denied", "runs/x"), 5, ["runs/x: Permission denied"]),
        (OSError(28, "No space left on device"), 5, ["No space left on device"]),
        (ModuleNotFoundError("No module named 'wandb'", name="wandb"), 6, ["pip install wandb"]),
        (RecursionError("maximum recursion depth exceeded"), 2, ["nested"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
    ],
)
def test_errors_of_the_machine(monkeypatch, error, code, words):
    def broken(*_):
        raise error

    monkeypatch.setattr("ppdgm.cli.training.choose_program", broken)
    line = ppdgm("fit", "vae", code=code).stderr
    assert line.count("\n") == 1 and all(word in line for word in words)


WITHOUT_TORCH = """
    import sys

    class Without:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("torch", "pyro"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Without())
    from ppdgm.cli import main
    sys.argv = ["ppdgm", "fit", "vae", "--backend", "pyro", "--steps", "1"]
    main()
"""


def test_a_missing_backend_says_how_to_install_it(here):
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(WITHOUT_TORCH)], capture_output=True, text=True)
    assert found.returncode == 6 and 'pip install "ppdgm[pyro]"' in found.stderr
    assert found.stderr.count("\n") == 1 and not (here / "runs").exists()


# --- streams -------------------------------------------------------------------------------------------------------


def test_a_reader_that_goes_is_no_error():
    read, write = os.pipe()
    os.close(read)
    found = subprocess.run([*PYTHON, "models"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert found.returncode == 141 and not found.stderr


def test_a_full_disk_is_said():
    with open("/dev/full", "w") as full:
        found = subprocess.run([*PYTHON, "models"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 5 and found.stderr == "ppdgm: No space left on device.\n"


@pytest.mark.parametrize(
    "extra", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"NO_COLOR": "1"}]
)
def test_any_encoding_will_do(extra):
    env = {**os.environ, "LANG": "C", "COLUMNS": "80", **extra}
    for arguments in (["models"], ["models", "PPCA"], ["evaluate", "--help"], ["fit", "µ"]):
        found = process(*arguments, env=env)
        assert found.returncode == (2 if "µ" in arguments else 0)
        assert "\x1b[" not in found.stdout and "Traceback" not in found.stderr


def test_a_table_fits_a_narrow_terminal(monkeypatch):
    from ppdgm.cli import output

    rows = [["a/very/long/name/of/a/run/in/a/deep/folder", "VAE", "1"], ["b", "PPCA", "22"]]
    whole = output.text_table(("run", "program", "n"), rows, right=(2,)).splitlines()
    assert whole[1].startswith(rows[0][0]) and whole[2].endswith(" 22") and whole[1].endswith("  1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    narrow = output.text_table(("run", "program", "n"), rows, right=(2,)).splitlines()
    assert all(len(line) <= 40 for line in narrow) and narrow[1].startswith("...") and "deep/folder  VAE" in narrow[1]


def test_shells_complete_commands():
    env = {**os.environ, "_PPDGM_COMPLETE": "complete_bash", "COMP_WORDS": "ppdgm ev", "COMP_CWORD": "1"}
    assert process(env=env).stdout.split() == ["evaluate"]
