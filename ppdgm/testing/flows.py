"""Invariants of a flow as a function: for its log-determinant and its inverse."""

from __future__ import annotations

import numpy as np

from ppdgm.testing.broken import Broken, NotHere
from ppdgm.testing.part_case import PartCase

POINTS, STEP = 16, 1e-5
REACH = 5.0  #: the inverse is checked for |x| up to this
ROUND_TRIP = 1e-4


def jacobian(case: PartCase, backend: str) -> str:
    """log |det J| agrees with numerical derivatives, in float64."""
    assert case.flow is not None
    bench, data = case.bench(case.flow, backend), flow_points(case)
    d = data["x"].shape[1]
    found = bench.means(data)
    steps = STEP * np.concatenate([np.eye(d), -np.eye(d)])
    moved = {
        "x": (data["x"][:, None] + steps).reshape(-1, d),
        "context": np.repeat(data["context"], 2 * d, axis=0),
    }
    y = bench.means(moved)["y"].reshape(POINTS, 2, d, d)
    slopes = (y[:, 0] - y[:, 1]) / (2 * STEP)  # [point, ∂x, y]
    expected = np.linalg.slogdet(slopes)[1]
    off = np.abs(found["log_det"] - expected).max()
    if not off <= 1e-5 * (1 + np.abs(expected).max()):
        raise Broken(
            f"log |det J| differs by {off:.1e} from numerical derivatives; expected rounding. Is its sign right, and "
            "are all dimensions counted?"
        )
    return f"log |det J| within {off:.0e} of numerical derivatives"


def inverse(case: PartCase, backend: str) -> str:
    """The inverse undoes the flow for |x| ≤ 5, in float32, and its log-determinant is minus that of the flow."""
    assert case.flow is not None
    if case.one_way:
        raise NotHere("no inverse is known")
    data = flow_points(case)
    there = case.bench(case.flow, backend).means(data, "float32")
    back = case.bench(case.flow.replace(inverse=True), backend).means(
        {"x": there["y"], "context": data["context"]}, "float32"
    )
    off, slope = np.abs(back["y"] - data["x"]).max(), np.abs(back["log_det"] + there["log_det"]).max()
    if not off <= ROUND_TRIP:
        raise Broken(f"f⁻¹(f(x)) differs from x by {off:.1e} for |x| ≤ 5; expected at most {ROUND_TRIP:.0e}.")
    if not slope <= 10 * ROUND_TRIP:
        raise Broken(f"log-determinants of f and f⁻¹ add up to {slope:.1e}; expected 0.")
    return f"x within {off:.0e}, log-determinants within {slope:.0e}"


def flow_points(case: PartCase) -> dict[str, np.ndarray]:
    """Points and contexts at which a flow is checked."""
    rng = case.rng(6)
    width = int(np.prod(case.shape))
    x = rng.uniform(-REACH, REACH, size=(POINTS, width))
    return {"x": x, "context": rng.normal(size=(POINTS, max(1, case.context_width)))}
