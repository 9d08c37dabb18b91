"""A seeded tenth of all pairs of engine and program: each trains on digits, or refuses before any work starts.

`python -m benchmarks.engines` runs all of them; `benchmarks/results/engines.md` has the matrix.
"""

import pytest

from benchmarks.engines.choices import ENGINES, PROGRAMS
from benchmarks.engines.run import REFUSES, TRAINS, measure, read, rows, tenth

SEED = 39  # the shortest of 0 to 39
SCORED = {"svi, score", "svi, score, running", "svi, score, learned", "iwae, vimco"}
WEIGHTED = {"iwae", "iwae, dreg", "miwae", "ciwae", "piwae", "renyi", "stages"}
ASLEEP = {"wake-sleep", "rws", "rws, sleep too"}
CHAINS = "markov chain em"
MOVING = {"variational em", "monte carlo em", CHAINS, "lagging"}  # the guide's parameters apart
GAUSSIAN = {*SCORED, "svi, enumerate", "em"}  # nothing to score or to sum over, and no closed form
SUMMED = {*SCORED, *WEIGHTED, *ASLEEP, "svi, stl", "monte carlo em", CHAINS}  # engines that weigh or score draws
REFUSED = {  # program: the engines that refuse it; every other one must train
    "vae": GAUSSIAN,
    "vae, iaf": GAUSSIAN,
    "vae, planar": {*GAUSSIAN, *ASLEEP, "svi, stl", "iwae, dreg", "lagging"},  # q is known only at its own draws
    "vae, vamp": GAUSSIAN,
    "vae, categorical": {*WEIGHTED, CHAINS, "svi, stl", "svi, enumerate", "em"},  # relaxed, with the KL of the discrete
    "vae, relaxed": {"svi, enumerate", "em", CHAINS},  # 4⁸ joint values are too many
    "vae, enumerated": {*SUMMED, "em"},
    "conditional": GAUSSIAN,
    "semi-supervised": {*SUMMED, "em"},
    "factorised levels": GAUSSIAN,
    "bottom-up levels": GAUSSIAN,
    "ladder": GAUSSIAN,
    "mixture vae": {*SUMMED, "em"},
    "autoencoder": {*ENGINES} - {"svi, k = 4"},  # without latents, there is nothing to weigh
    "ppca": GAUSSIAN,
    "factor analysis": {*SCORED, "svi, enumerate", *MOVING},  # its guide is exact, without parameters
    "gaussian mixture": {*SUMMED, *MOVING},
    "pyro pair": {*GAUSSIAN, "svi, stl", "iwae, dreg", "wake-sleep", "rws, sleep too"},
    "numpyro pair": {*GAUSSIAN, "wake-sleep", "rws, sleep too"},
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
