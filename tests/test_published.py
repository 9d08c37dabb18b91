"""The committed verdicts on published programs are of the list as it stands, and at least 40 come in unchanged."""

import json
from pathlib import Path

from benchmarks.published.__main__ import PROGRAMS

FOUND = Path(__file__).parents[1] / "benchmarks" / "results" / "published.json"


def test_published_programs_come_in():
    verdicts = json.loads(FOUND.read_text())
    assert {p.title for p in PROGRAMS} == verdicts.keys()
    outcomes = [v["outcome"] for v in verdicts.values()]
    assert "fault" not in outcomes
    assert outcomes.count("unchanged") >= 40
    assert all(v["reason"] for v in verdicts.values() if v["outcome"] == "refused")
