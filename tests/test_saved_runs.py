"""Run folders of an earlier version still open, and go on to the same result. `saved_runs/` is never rewritten."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ppdgm

HOME = Path(__file__).parent / "saved_runs"
EXPECTED = json.loads((HOME / "expected.json").read_text())  # of undisturbed runs, by the code that wrote the folders


def data_of(facts):
    return np.load(HOME / facts["data"])


def check(fit, facts, x):
    assert fit.elbo(x, seed=5).mean == pytest.approx(facts["elbo"], abs=2e-4)
    for name, first in facts["params"].items():
        np.testing.assert_allclose(np.ravel(fit.params[name])[:3], first, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", EXPECTED)
def test_opens_and_goes_on(tmp_path, name):
    facts, folder = EXPECTED[name], tmp_path / name
    shutil.copytree(HOME / name, folder)
    x = data_of(facts)
    if not facts.get("done"):
        kept = ppdgm.load(folder)  # the best so far
        assert np.isfinite(kept.elbo(x).mean)
        ppdgm.resume(folder, x, validation=x[:8], progress=False)
    check(ppdgm.load(folder), facts, x)
