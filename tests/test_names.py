"""No name of a class or public function of the package stands for two things."""

import ast
from collections import defaultdict
from pathlib import Path

import ppdgm

ROOT = Path(ppdgm.__file__).parent

# A module of one backend and the module of the same name of the other have the same functions and classes: a reader who
# knows one of them knows the other. These are twins too:
TWINS = {
    "Runtime": "each backend's, and the base class of both",
    "PairTracer": "each backend's, and the base class of both",
    "Trainer": "each backend's, and the base class of both",
    "module_params": "each backend's, beside its own kind of module",
    "module_states": "each backend's, beside its own kind of module",
    "Exponential": "a distribution with the name of NumPyro's, which it replaces, and a schedule",
    "trace": "the question, and the function of ppdgm that asks it for all rows",
    "log_weights": "of a trace, for an engine of one's own, and the function of ppdgm for all rows",
    "fit": "the command and the function that do the same",
    "resume": "the command and the function that do the same",
    "export": "the command, and the one to ArviZ",
    "compare": "the command and the function that do the same",
    "Table": "the likelihood of a table, and a table that is read from a file",
    "share": "the command and the function that do the same",
    "prior": "the figures of prior predictive checks, and the question",
}

# Figures and parts of a report have the name of the result of `diagnostics/` that they show.
SHOWING = ("diagnostics/figures/", "diagnostics/page_parts.py")


def places(root):
    """name -> the files that define it; the two backends' files of one name count as one."""
    found = defaultdict(set)
    for file in sorted(root.rglob("*.py")):
        where = file.relative_to(root).as_posix()
        for side in ("backends/pyro/", "backends/numpyro/"):
            where = where.replace(side, "backends/*/")
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            public = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
            if public or isinstance(node, ast.ClassDef):
                found[node.name].add(where)
    return found


def doubles(root):
    found = {name: files for name, files in places(root).items() if len(files) > 1 and name not in TWINS}
    others = {name: [f for f in files if not f.startswith(SHOWING)] for name, files in found.items()}
    shown = {name for name, rest in others.items() if len(rest) < 2 and all(f.startswith("diagnostics/") for f in rest)}
    return {name: files for name, files in found.items() if name not in shown}


def test_no_name_is_defined_twice():
    assert doubles(ROOT) == {}


def test_the_exceptions_are_needed():
    found = places(ROOT)
    assert {n for n in TWINS if len(found[n]) < 2} == set()


def test_a_second_definition_is_found(tmp_path):
    for name, text in (("a.py", "class Same:\n    pass\n"), ("b.py", "class Same:\n    pass\ndef _own():\n    pass\n")):
        (tmp_path / name).write_text(text)
    for side in ("pyro", "numpyro"):
        (tmp_path / "backends" / side).mkdir(parents=True)
        (tmp_path / "backends" / side / "bind.py").write_text("def bind():\n    pass\n")
    assert doubles(tmp_path) == {"Same": {"a.py", "b.py"}}
