"""Which cases of the long tests run: those of `long.txt` in part, all with `--all`."""

from collections import defaultdict
from hashlib import sha256
from pathlib import Path

LIST = Path(__file__).with_name("long.txt")


def shares() -> dict[str, int]:
    """{file::test: N}: one in N of the test's cases runs, none if N = 0."""
    lines = (line.split() for line in LIST.read_text(encoding="utf-8").splitlines() if line and line[0] != "#")
    return {name: int(n) for n, name in lines}


def chosen(cases: list[str], n: int) -> set[str]:
    """One in n of the cases (at least one; none if n = 0). Names decide, so every process and machine chooses alike."""
    return set(sorted(cases, key=lambda name: sha256(name.encode()).digest())[: -(-len(cases) // n) if n else 0])


def left_out(cases: list[str], asked: list[str]) -> set[str]:
    """Of the node ids, those that do not run. Tests in `asked`, by file::test, do."""
    tests = defaultdict(list)
    for case in cases:
        tests[case.partition("[")[0].rpartition("/")[2]].append(case)
    named = [name.rpartition("/")[2] for name in asked if "::" in name]
    out = set()
    for name, n in shares().items():
        if not any(name == asked.partition("[")[0] for asked in named):
            out |= set(tests[name]) - chosen(tests[name], n)
    return out
