"""Each of the benchmark's mutations still fits the code: its line is there, once, and is changed."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from mutations import MUTATIONS  # noqa: E402  # benchmarks are no package


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_fits_the_code(name):
    mutation = MUTATIONS[name]
    assert (ROOT / mutation.file).read_text().count(mutation.before) == 1
    assert mutation.after != mutation.before
    tests = [word for word in mutation.tests.split() if word.endswith(".py")]
    assert tests and all((ROOT / test).exists() for test in tests)
