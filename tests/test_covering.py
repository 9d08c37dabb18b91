"""A seeded tenth of the covering set: each program learns more of digits than pixels by themselves tell.

`python -m benchmarks.covering` runs all of it; `benchmarks/results/covering.md` has the matrix.
"""

from itertools import combinations

import pytest

from benchmarks.covering.choices import FACTORS
from benchmarks.covering.design import pairs_of, refused
from benchmarks.covering.run import NAMES, RESULTS, covering_set, measure, read, refusal, tenth

SEED = 3
ROWS = covering_set()


def test_every_allowed_pair_is_covered():
    """A pair that no row has is refused whatever stands beside it: `refused` goes through all that could."""
    assert all(refusal(row) is None for row in ROWS)
    covered = {pair for row in ROWS for pair in pairs_of(row)}
    out = refused(NAMES, refusal, ROWS)
    sizes = [len(choices) for choices in FACTORS.values()]
    assert len(covered) + len(out) == sum(a * b for a, b in combinations(sizes, 2)) and not covered & {*out}
    with pytest.raises(AssertionError):  # its wrong twin: a row less
        refused(NAMES, refusal, ROWS[1:])


def test_all_of_it_was_measured_and_won():
    done = read(RESULTS / "covering.csv")
    assert {*ROWS} <= {*done}
    assert [row for row in ROWS if not done[row]["margin"] > 3 * done[row]["error"]] == []


@pytest.mark.parametrize("row", tenth(ROWS, SEED), ids=" · ".join)
def test_beats_pixels_by_themselves(row):
    found = measure(row)
    assert found["margin"] > 3 * found["error"], found
