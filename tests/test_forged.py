"""Checkpoints that are whole and wrong: each field of their page, and each array, is refused by name when opened."""

import copy
import json

import numpy as np
import pytest

import ppdgm
from ppdgm.errors import CheckpointError, PpdgmError
from ppdgm.inference import SVI, LaggingInference
from ppdgm.inference.runs import checkpoint
from ppdgm.models import MLP, VAE

X = np.round(np.random.default_rng(0).random((20, 6))).astype("float32")
SMALL = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
JUNK = (None, True, False, -1, 10**40, 2.5, float("nan"), float("inf"), "", "x", [], [1], [None], {}, {"a": 1})
MISSING = object()
FREE = (
    "versions",
    "transform",
    "steps",
    "live",
    "seconds",
    "fingerprint",
)  # only their type can be known


@pytest.fixture(scope="module", params=["pyro", "numpyro"])
def run(request, tmp_path_factory):
    """A checkpoint: folder, file, arrays, page. On pyro it is of a run that has all that a page can tell of."""
    out = tmp_path_factory.mktemp("forged") / "run"
    whole = request.param == "pyro"
    engine = LaggingInference(window=2, most=4, every=1) if whole else SVI()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ppdgm.inference.runs.recorder.Recorder.draw", lambda *_: None
        )  # pictures are slow, and no part of this
        ppdgm.fit(
            SMALL, X, engine=engine, validation=X[:5], steps=8, batch_size=10, backend=request.param, compile=False,
            progress=False, out=out, checkpoint_steps=8, diagnose_epochs=1 if whole else None,
        )  # fmt: skip
    (out / "weights.safetensors").unlink()
    (file,) = (out / "checkpoints").iterdir()
    return (out, file, *checkpoint.read_checkpoint(file))


def places(value, path=()):
    """Paths of all fields of a page, but for those of the recipe, which are checked as a recipe's are."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield (*path, name)
        if name != "recipe":
            yield from places(inner, (*path, name))


def forged(page, path, value):
    page = copy.deepcopy(page)
    *above, last = path
    table = page
    for name in above:
        table = table[name]
    if value is MISSING:
        del table[last]
    else:
        table[last] = value
    return page


def opened(out, resumable):
    try:
        return ppdgm.resume(out, X, validation=X[:5], progress=False) if resumable else ppdgm.load(out)
    except CheckpointError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 600
        return str(error)


@pytest.mark.parametrize("run", ["pyro"], indirect=True)  # what reads it stands above the backends
def test_every_field_of_a_page(run, monkeypatch):
    """Resumed, it is refused with the field's name, or is a page that a run could have written."""
    out, file, arrays, page = run
    arrived = []
    monkeypatch.setattr("ppdgm.inference.training.job.Job.run", lambda job, *_, **__: arrived.append(job))
    for path in places(page):
        for value in (*JUNK, MISSING):
            file.write_bytes(checkpoint.pack(arrays, forged(page, path, value)))
            arrived.clear()
            for resumable in (False, True):
                try:
                    found = opened(out, resumable)
                except PpdgmError as error:  # data, steps and recipes that don't fit are told as such
                    found = str(error)
                if isinstance(found, str):
                    assert any(str(part) in found for part in path), (path, value, found)
            like = page
            for name in path:
                like = like[name]
            if arrived and path[0] not in FREE and value is not MISSING:
                assert type(value) is type(like) or value is None or isinstance(like, float), (path, value)
    file.write_bytes(checkpoint.pack(arrays, page))


WRONG = {
    "single": lambda a: a.reshape(-1)[:1],
    "shorter": lambda a: a[:-1],
    "larger": lambda a: np.concatenate([a, a]),
    "with an axis": lambda a: a[..., None],
    "of other numbers": lambda a: a.astype("int8" if a.dtype != np.int8 else "int16"),
    "of no numbers": lambda a: np.full(a.shape, np.nan, a.dtype),
}


@pytest.mark.parametrize("what", [*WRONG, "left out"])
def test_every_array_of_a_checkpoint(what, run, monkeypatch):
    """Nothing is trained from arrays of other names, shapes or types, which libraries write past the ends of."""
    out, file, arrays, page = run
    monkeypatch.setattr("ppdgm.inference.training.loop.Run.go", lambda *_: pytest.fail("training went on"))

    def refused(changed, word):
        file.write_bytes(checkpoint.pack(changed, page))
        with pytest.raises(CheckpointError, match=word):
            ppdgm.resume(out, X, validation=X[:5], progress=False)

    seen = set()
    for name, array in arrays.items():
        kind = name.rpartition("/")[0] if name.startswith("@trainer") else name
        if kind in seen or not array.ndim or not name.startswith(("@trainer/", "@best/", "@history/")):
            continue
        seen.add(kind)
        others, word = {n: a for n, a in arrays.items() if n != name}, name.split("/", 1)[1]
        if what == "left out":
            optional = kind.endswith(tuple(f"state/{i}" for i in range(99)))  # of a parameter that had no gradient yet
            if not (name.startswith("@history/live_") or optional):
                refused(others, word)
        elif what == "of no numbers":
            if name.startswith("@trainer") and array.dtype.kind == "f":
                refused(others | {name: WRONG[what](array)}, "not finite")
        elif name.startswith("@trainer") or what == "shorter":
            refused(others | {name: WRONG[what](array)}, word)
    assert len(seen) > 5
    refused({**arrays, "@trainer/params/another": np.zeros(3, "f4")}, "'params/another' does not belong to this run")
    file.write_bytes(checkpoint.pack(arrays, page))


@pytest.mark.parametrize("run", ["pyro"], indirect=True)
def test_deeply_nested_and_untyped_files_are_damaged(run, tmp_path):
    out, file, arrays, page = run
    whole = file.read_bytes()
    for text in ("[" * 100_000, json.dumps(["step"]), json.dumps("step"), "null", "{}"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint.json, "dumps", lambda *_, text=text, **__: text)
            file.write_bytes(checkpoint.pack(arrays, page))
        with pytest.raises(CheckpointError):
            ppdgm.load(out)
    header = b'{"__metadata__":{"format":2,"page":[1],"sha256":null}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="not a ppdgm checkpoint"):
        ppdgm.load(out)
    file.write_bytes(whole)
