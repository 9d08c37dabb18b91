"""A seeded tenth of all pairs of engine and program: each trains on digits, or refuses before any work starts.

`python -m benchmarks.engines` runs all of them; `benchmarks/results/engines.md` has the matrix.
"""

import pytest

from benchmarks.engines.choices import ENGINES, PROGRAMS
from benchmarks.engines.run import REFUSES, TRAINS, measure, read, rows, tenth

SEED = 0
SCORED = {"svi, score", "svi, score, running", "svi, score, learned", "iwae, vimco"}
WEIGHTED = {"iwae", "iwae, dreg", "iwae, vimco", "miwae", "ciwae", "piwae", "renyi", "stages"}
ASLEEP = {"wake-sleep", "rws", "rws, sleep too"}
RESCORED = {"svi, stl", "iwae, dreg", *ASLEEP, "lagging"}
DRAWN = {*WEIGHTED, *ASLEEP, "monte carlo em", "svi, stl"}
CONTINUOUS = {*SCORED, "svi, enumerate", "em"}  # nothing to score, nothing to sum over, no closed form
REFUSED = {
    "vae": CONTINUOUS,
}


def outcome(row):
    return REFUSES if row[0] in REFUSED[row[1]] else TRAINS


def test_everything_was_measured_and_is_as_it_must_be():
    done = read()
    assert {*rows()} == {*done} and {*REFUSED} == {*PROGRAMS}
    assert all({*engines} <= {*ENGINES} for engines in REFUSED.values())
    assert [row for row in rows() if done[row]["outcome"] != outcome(row)] == []
    assert [row for row in rows() if outcome(row) == TRAINS and not done[row]["margin"] > 3 * done[row]["error"]] == []
    assert all(found["reason"] for found in done.values() if found["outcome"] == REFUSES)


@pytest.mark.parametrize("row", tenth(rows(), SEED), ids=" · ".join)
def test_trains_or_refuses(row):
    found = measure(row)
    assert found["outcome"] == outcome(row), found["reason"]
    assert found["outcome"] == REFUSES or found["margin"] > 3 * found["error"], found
