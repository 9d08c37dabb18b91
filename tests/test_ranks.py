"""Two torch processes train together, and divide what a fit computes of data, with the numbers of one process."""

from pathlib import Path

import numpy as np
from programs_over_devices import DATA, HOW, PROGRAM
from test_devices import free_port, start
from two_ranks import answers, pair_draws, trained

from ppdgm import Fit, fit


def test_two_processes_have_the_numbers_of_one(tmp_path):
    script = str(Path(__file__).parent / "two_ranks.py")
    process = start(script, str(tmp_path), MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port(), OMP_NUM_THREADS="1")
    told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    one = fit(PROGRAM, DATA, **{**HOW, "steps": 4, "validation": DATA[:20]})
    first, second = (dict(np.load(tmp_path / f"found-{rank}.npz")) for rank in range(2))
    for name, value in trained(one).items():
        np.testing.assert_allclose(first[name], value, rtol=1e-12, atol=1e-12, err_msg=name)
    params = {n.removeprefix("params/"): v for n, v in first.items() if n.startswith("params/")}
    expected = {**trained(one), **answers(Fit(PROGRAM, params, "pyro", "cpu")), "pair": pair_draws(None)}
    for name in expected:
        assert np.array_equal(first[name], second[name], equal_nan=True), name
        assert name in trained(one) or np.array_equal(first[name], expected[name], equal_nan=True), name
