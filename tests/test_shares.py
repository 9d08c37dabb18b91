"""The list of long tests names tests, and the same cases are chosen everywhere."""

import re

from shares import LIST, chosen, left_out, shares


def test_each_line_names_a_test():
    for name in shares():
        file, _, function = name.partition("::")
        assert re.search(rf"^def {function}\(", (LIST.parent / file).read_text(encoding="utf-8"), re.MULTILINE), name


def test_a_part_does_not_depend_on_the_order_and_is_never_empty_by_chance():
    cases = [f"test_a.py::test_b[{i}]" for i in range(10)]
    assert len(chosen(cases, 4)) == 3
    assert chosen(cases, 4) == chosen(cases[::-1], 4)
    assert chosen(cases[:1], 7) == set(cases[:1])
    assert chosen(cases, 0) == set()
    assert chosen(cases, 1) == set(cases)


def test_what_is_asked_for_by_name_runs():
    name, n = next((name, n) for name, n in shares().items() if n > 1)
    cases = [f"tests/{name}[{i}]" for i in range(n)]
    assert len(left_out(cases, ["tests"])) == n - 1
    assert left_out(cases, [f"tests/{name}"]) == left_out(cases, [cases[-1]]) == set()
    assert left_out(["tests/test_a.py::test_b"], []) == set()
