"""Arrows between modules run down only, also those that a string makes: what the import rules can't see."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in (ROOT / "ppdgm").rglob("*.py")}
NAMES = {n.removesuffix(".__init__") for n in FILES}
RULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS = [
    {f"ppdgm.{name.strip(' ()')}" for name in layer.split(":")}
    for layer in next(r for r in RULES if r["id"] == "layers")["layers"]
]
# Who imports by a name that is known only when it runs, and what.
BY_NAME = {
    "ppdgm.__init__": "the public names, when they are first used",
    "ppdgm.registry": "a backend",
    "ppdgm.specs.kinds": "a class that a user names",
    "ppdgm.callbacks": "an optional library",
    "ppdgm.inference.evaluation.compare": "an optional library",
    "ppdgm.backends.numpyro.cache": "an optional library",
    "ppdgm.diagnostics.__init__": "its public names, when they are first used",
    "ppdgm.diagnostics.psis": "either generation of ArviZ",
}


def height(name):
    return next(
        (len(LAYERS) - i for i, layer in enumerate(LAYERS) for top in layer if f"{name}.".startswith(f"{top}.")), 0
    )


def texts(tree):
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs
    ]


def test_no_string_names_a_module_of_a_higher_layer():
    found = [
        (name, text)
        for name, path in FILES.items()
        for text in texts(ast.parse(path.read_text()))
        if text in NAMES and text != "ppdgm" and height(text) > height(name)
    ]
    assert not [f for f in found if f[0] not in BY_NAME], found
    assert height("ppdgm.inference.training.fit") > height("ppdgm.models.vae") > height("ppdgm.specs.spec") > 0


def test_who_imports_by_name():
    calls = {name for name, path in FILES.items() if "import_module" in path.read_text()}
    assert calls - {n for n in calls if n.startswith("ppdgm.cli.")} == set(BY_NAME)


def test_a_program_is_read_from_text_in_a_fresh_process():
    script = "import ppdgm; print(ppdgm.Program.from_json('''{}''').prior, 'torch' in __import__('sys').modules)"
    text = '{"kind": "VAE", "event_shape": [4], "prior": "VampPrior"}'
    out = subprocess.run([sys.executable, "-c", script.format(text)], capture_output=True, text=True, check=True)
    assert "VampPrior(" in out.stdout and "False" in out.stdout
