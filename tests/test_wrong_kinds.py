"""Every argument of every public function, given what it isn't for: it works, or one line of ours says why not."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

import ppdgm
from ppdgm import data as data_functions
from ppdgm import diagnostics, plots
from ppdgm.data import Transform
from ppdgm.errors import PpdgmError
from ppdgm.models import MLP, VAE

RNG = np.random.default_rng(0)
X = (RNG.random((12, 3)) < 0.5).astype("float32")
W, D, S = RNG.normal(size=(30, 8)), RNG.normal(size=(20, 8)), RNG.normal(size=(20, 8, 3))
RAGGED, NESTED = [[1], [1, 2]], [[[]]]
for _ in range(60):
    NESTED = [NESTED]
KINDS = {
    "nothing": None, "true": True, "ragged": RAGGED, "nested": NESTED, "huge": 10**400, "-huge": -(10**400),
    "negative": -1, "none of it": 0, "half": 0.5, "nan": math.nan, "inf": math.inf, "complex": 1j, "text": "x",
    "control": "\0\x1b[2J", "surrogate": "\ud800", "bytes": b"x", "object": object(), "type": object,
    "function": lambda *_: 1 / 0, "list": [], "tuple": (), "table": {}, "odd keys": {1: 2, (): None, "a": RAGGED},
    "array": np.arange(4.0), "empty": np.empty((0, 3)), "objects": np.array([None, {}, "x"], object),
    "words": np.array(["a", "b"]), "complex array": np.ones((2, 2)) * 1j, "bools": np.array([True, False]),
    "not finite": np.array([[math.nan, math.inf]]), "negatives": np.full((20, 8), -1), "dates": np.array([0], "M8[D]"),
    "record": np.zeros(2, [("a", "f4")]), "zero-d": np.array(2), "large ints": np.array([2**63], np.uint64),
    "list of arrays": [np.ones(2), np.ones(3)], "set": {1, 2}, "range": range(3), "generator": (i for i in range(2)),
    "path": Path("none"), "column": np.ones((8, 1)),
}  # fmt: skip
FUNCTIONS = {  # by name: what works
    "active_units": {"means": D, "threshold": 0.01},
    "bound_curve": {"log_weights": W, "ks": (1, 5)},
    "bracket": {"forward": W, "reverse": W},
    "coverage": {"draws": S, "truth": S[0], "levels": (0.5,), "seed": 0},
    "effective_sample_size": {"log_weights": W},
    "elbo_surgery": dict.fromkeys(("reconstruction", "own", "aggregated", "prior"), D) | {"saturation": 0.95},
    "gaussian_kl": {"loc": D, "scale": np.exp(D)},
    "latent_use": {"means": {"z": D}, "kl": {"z": np.abs(D)}, "nats": 0.01, "threshold": 0.01},
    "log_aggregated": {"draws": D, "loc": D, "scale": np.exp(D), "chunk": 4},
    "log_aggregated_of": {"log_density": lambda d, rows: np.zeros((len(d), rows.stop - rows.start)), "draws": D, "n": 5,
                          "chunk": 2},
    "log_mean_exp": {"log_weights": W},
    "loo": {"log_likelihood": W, "log_p": W[:, 0], "log_q": W[:, 1]},
    "pareto_k": {"log_weights": W, "tolerance": None},
    "pit": {"ranks": np.arange(9)[:, None], "draws": 9, "seed": 0},
    "predictive_check": {"observed": S[0], "replicated": S, "statistics": {"mean": lambda x: x.mean()}},
    "ranks": {"draws": S, "truth": S[0], "seed": 0},
    "resample": {"log_weights": W, "n": 3, "seed": 0, "first": 0},
    "to_arviz": {"groups": {"posterior": {"z": S}}, "dims": {"z": ["b", "a"]}, "coords": {"a": [0, 1, 2]}, "attrs": {},
                 "inference_library": "x", "chains": 1},
    "uniformity": {"ranks": np.arange(60)[:, None] % 10, "draws": 9, "level": 0.01, "bins": 5, "seed": 0},
    "weight_quality": {"log_weights": W, "tolerance": None},
    "code_use": {"codes": [[0, 1], [1, 3]], "size": 4},
    "withheld": {"name": "ess"},
}  # fmt: skip


def of_ours(call, told):
    """Whether the call ends well, or in an error of ours with one line of bounded length and no address."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            call()
        except PpdgmError as error:
            text = str(error)
            if not (text.isprintable() and len(text) < 1_600 and " at 0x" not in text):
                return f"{told}: {text!r}"
        except Exception as error:
            return f"{told}: {type(error).__name__}: {str(error)[:150]!r}"
    return ""


def swept(function, right, name, kinds=KINDS):
    """What is wrong with one of the arguments, and with none given."""
    function(**right)
    found = [
        of_ours(lambda a=argument, v=value: function(**{**right, a: v}), f"{name}({argument}={kind})")
        for argument in right
        for kind, value in kinds.items()
    ]
    return [f for f in found if f]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_diagnostics_of_arrays(name):
    assert swept(getattr(diagnostics, name), FUNCTIONS[name], name) == []


def test_every_diagnostic_is_swept():
    functions = {n for n in diagnostics.__all__ if not isinstance(getattr(diagnostics, n), type)}
    assert functions == FUNCTIONS.keys()


@pytest.fixture(scope="module")
def fit():
    program = VAE(event_shape=(3,), latent=2, encoder=MLP(hidden=(3,)), decoder=MLP(hidden=(3,)))
    return ppdgm.fit(program, X, steps=2, backend="pyro", compile=False, progress=False)


@dataclass(frozen=True)
class Found:
    """A diagnosis without bounds."""

    elbo: None = None
    log_likelihood: None = None


QUICK = {"parts": ("predictive",), "k": 10}
METHODS = {
    "elbo": {"data": X, "k": 2, "seed": 0, "memory": "auto"},
    "log_likelihood": {"data": X, "k": 3, "seed": 0, "memory": "auto"},
    "log_weights": {"data": X, "k": 3, "seed": 0, "memory": "auto"},
    "encode": {"data": X, "k": 2, "seed": 0},
    "reconstruct": {"data": X},
    "sample": {"n": 2, "seed": 0, "mean": False, "given": None},
    "posterior": {"data": X, "draws": 2, "how": "importance", "k": 5, "warmup": 2, "chains": 1, "seed": 0,
                  "memory": "auto"},
    "to_arviz": {"data": X, "draws": 2, "how": "guide", "predictive": 2, "prior": 3, "k": 5, "coords": None, "seed": 0},
    "diagnose": {"data": X,
                 "parts": ("predictive",), "labels": np.arange(12) % 2, "statistics": {"m": lambda x: x.mean()},
                 "seed": 0, "memory": "auto", "progress": False},
    "loo": {"data": X, "draws": 10, "seed": 0},
}  # fmt: skip
SKIPPED = ("loo",)  # refused for a latent of each datum, whatever else is given


@pytest.mark.parametrize("name", [n for n in METHODS if n not in SKIPPED])
def test_what_a_fit_can_do(name, fit, monkeypatch):
    work = MagicMock()  # what is asked has been checked by then
    work.return_value.run.return_value = Found()
    monkeypatch.setattr("ppdgm.inference.evaluation.diagnosable.Diagnosing", work)
    assert swept(getattr(fit, name), METHODS[name], name) == []


DATA = {
    "as_fields": {"data": X, "dtype": "float32"},
    "binarise": {"x": X, "seed": 0},
    "check_finite": None,
    "load_data": {"name": "digits", "transform": None, "fields": None, "validation": 0.1, "test": 0.1, "seed": 0,
                  "scale": "auto", "binarise": "auto", "memory": 2**20},
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n, right in DATA.items() if right])
def test_functions_of_data(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert swept(getattr(data_functions, name), DATA[name], name) == []


def test_a_transform():
    one = Transform("standardise", 1.0, np.zeros(3), np.ones(3))
    assert swept(one.apply, {"raw": X}, "apply") + swept(one.invert, {"x": X}, "invert") == []
    assert swept(Transform("unit", 2.0).apply, {"raw": X}, "apply") == []


def test_log_weights_and_trace(fit):
    kinds = {n: v for n, v in KINDS.items() if n != "nothing"}  # by default the other backend, which takes a while
    right = {"program": fit.program, "params": fit.params, "x": X, "k": 2, "backend": "pyro", "seed": 0}
    found = swept(ppdgm.log_weights, right, "log_weights", kinds)
    assert found + swept(ppdgm.trace, {**right, "values": None}, "trace", kinds) == []


def test_pictures(tmp_path, fit):
    path = tmp_path / "x.png"
    fine = ("text", "path", "nothing", "array", "bools", "column", "range", "large ints")  # drawing takes a while
    kinds = {n: v for n, v in KINDS.items() if n not in fine}
    found = swept(plots.history_picture, {"path": path, "history": fit.history}, "history_picture", kinds)
    assert found + swept(plots.samples_picture, {"path": path, "samples": S[0], "data": S[1]}, "samples", kinds) == []
