"""A seeded tenth of the covering set: each program learns more of digits than pixels by themselves tell.

`python -m benchmarks.covering` runs all of it; `benchmarks/results/covering.md` has the matrix.
"""

import pytest

from benchmarks.covering.choices import FACTORS
from benchmarks.covering.design import cover, pairs_of
from benchmarks.covering.run import NAMES, RESULTS, covering_set, measure, read, refusal, tenth

SEED = 3
ROWS = covering_set()


def test_every_allowed_pair_is_covered():
    """By counting: a pair that no row has is refused whatever stands beside it."""
    covered = {pair for row in ROWS for pair in pairs_of(row)}
    assert all(refusal(row) is None for row in ROWS)
    names = list(NAMES)
    for i, factor in enumerate(names):
        for choice in FACTORS[factor]:
            assert any(row[i] == choice for row in ROWS), choice
    assert len(covered) == len({pair for row in cover(NAMES, refusal, seed=1) for pair in pairs_of(row)})


def test_all_of_it_was_measured_and_won():
    done = read(RESULTS / "covering.csv")
    assert {*ROWS} <= {*done}
    assert [row for row in ROWS if not done[row]["margin"] > 3 * done[row]["error"]] == []


@pytest.mark.parametrize("row", tenth(ROWS, SEED), ids=" · ".join)
def test_beats_pixels_by_themselves(row):
    found = measure(row)
    assert found["margin"] > 3 * found["error"], found
