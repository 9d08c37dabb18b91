"""Break the package on purpose, a line at a time, and see a test go red.

    python benchmarks/mutations.py [NAME …] [--list]

Each mutation is made in a copy of the checkout, and the tests named with it are run there. A mutation that no test
kills is printed as SURVIVED, and the exit status is 1. The unmutated copy must pass the same tests first.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("ppdgm", "tests", "tutorials", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Mutation:
    """One line of one file, and the tests (pytest's own selection) that must notice."""

    file: str
    before: str
    after: str
    tests: str


MUTATIONS: dict[str, Mutation] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="some of them; all by default")
    parser.add_argument("--list", action="store_true", help="only name them")
    options = parser.parse_args()
    chosen = {n: m for n, m in MUTATIONS.items() if not options.names or n in options.names}
    if unknown := set(options.names) - set(MUTATIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if options.list:
        print("\n".join(f"{n}: {m.file}: {m.before.strip()} -> {m.after.strip()}" for n, m in chosen.items()))
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        tests = sorted({m.tests for m in chosen.values()})
        print(f"unmutated, {len(tests)} selections …", flush=True)
        if failed := [t for t in tests if not passes(copy, t)]:
            sys.exit(f"These fail without any mutation: {failed}")
        survived = [name for name, mutation in chosen.items() if not killed(copy, name, mutation)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutations were killed.")
    sys.exit(1 if survived else 0)


def killed(copy: Path, name: str, mutation: Mutation) -> bool:
    """Whether the mutation's tests fail with it."""
    path = copy / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.before) != 1:
        sys.exit(f"{name}: its line stands {text.count(mutation.before)} times in {mutation.file}, expected once.")
    path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
    started = time.perf_counter()
    try:
        dead = not passes(copy, mutation.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    print(f"{'killed  ' if dead else 'SURVIVED'}  {name}  ({time.perf_counter() - started:.0f} s)", flush=True)
    return dead


def passes(copy: Path, tests: str) -> bool:
    """Whether the selected tests pass in the copy; an empty selection is an error."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split(" ", 1)[:1]]
    if " -k " in tests:
        command += ["-k", tests.split(" -k ", 1)[1]]
    done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"pytest could not run {tests!r}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def environment(copy: Path) -> dict[str, str]:
    """This process's, with the copy of the package in front of the installed one."""
    import os

    return {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    main()
