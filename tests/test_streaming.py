"""Data larger than memory: memory-mapped arrays train, and are judged, to the same bits as arrays in memory."""

import numpy as np
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.errors import DataError
from ppdgm.inference import SVI
from ppdgm.inference.inputs import feed
from ppdgm.models import MLP, VAE

BACKENDS = ("numpyro", "pyro")
RNG = np.random.default_rng(0)
X = RNG.random((203, 6)).astype("float32")
PROGRAM = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
OPTIONS = {"steps": 60, "batch_size": 32, "progress": False, "compile": False, "seed": 1}


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """A function that puts an array on disk and maps it; chunks are a few minibatches."""
    monkeypatch.setattr(feed, "CHUNK_BYTES", 5 * 32 * 6 * 4)

    def put(array, name="x"):
        np.save(tmp_path / f"{name}.npy", array)
        return np.load(tmp_path / f"{name}.npy", mmap_mode="r")

    return put


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_from_disk_equals_training_from_memory(backend, on_disk):
    options = {**OPTIONS, "backend": backend, "binarise": "dynamic", "validation": np.round(X[:50])}
    memory = ppdgm.fit(PROGRAM, X, **options)
    disk = ppdgm.fit(PROGRAM, on_disk(X), **{**options, "validation": on_disk(np.round(X[:50]), "v")})
    assert all(np.array_equal(memory.params[n], disk.params[n]) for n in memory.params)
    assert all(np.array_equal(memory.history[n], disk.history[n]) for n in memory.history)


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_from_disk_equals_that_from_memory(backend, on_disk):
    fit = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), backend)
    x = np.round(X)
    mapped = on_disk(x)
    for judge in (
        lambda x: fit.elbo(x, k=3).values,
        lambda x: fit.log_likelihood(x, k=20, memory="60 kB").values,
        fit.encode,
        lambda x: fit.encode(x, k=2, seed=3),
        fit.reconstruct,
        lambda x: ppdgm.log_weights(PROGRAM, fit.params, x, k=2, backend=backend),
    ):
        assert np.array_equal(judge(x), judge(mapped))


def test_never_more_than_a_chunk_is_read(on_disk, monkeypatch):
    """Of 203 rows, training asks for at most the five minibatches that fit a chunk."""
    asked = []
    take = feed.take
    monkeypatch.setattr(feed, "take", lambda fields, index: asked.append(len(index)) or take(fields, index))
    ppdgm.fit(PROGRAM, on_disk(np.round(X)), **OPTIONS)
    assert sum(asked) >= 60 * 32 and max(asked) == 5 * 32


def test_bad_rows_are_found_wherever_they_are(on_disk):
    x = np.round(X)
    x[151, 4] = np.nan
    with pytest.raises(DataError, match=r"index \(151, 4\)"):
        ppdgm.fit(PROGRAM, on_disk(x), **OPTIONS)
    with pytest.raises(DataError, match=r"index \(0, "):
        ppdgm.fit(PROGRAM, on_disk(X, "probabilities"), **OPTIONS)


def test_a_program_that_subsamples_needs_all_data(on_disk):
    import numpyro
    import numpyro.distributions as dist

    def model(x):
        with numpyro.plate("data", x.shape[0], subsample_size=20) as index:
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z[..., None] + np.zeros(6), 1.0).to_event(1), obs=x[index])

    def guide(x):
        with numpyro.plate("data", x.shape[0], subsample_size=20):
            numpyro.sample("z", dist.Normal(numpyro.param("m", 0.0), 1.0))

    pair = Program.from_numpyro(model, guide)
    with pytest.raises(DataError, match="memory-mapped"):
        ppdgm.fit(pair, on_disk(X), steps=2, progress=False, engine=SVI())
    ppdgm.fit(pair, X, steps=2, progress=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_run_goes_on_from_disk(backend, on_disk, tmp_path):
    def crash(now):
        if now.step >= 20:
            raise ZeroDivisionError

    options = {**OPTIONS, "backend": backend, "binarise": "dynamic"}
    mapped = on_disk(X)
    with pytest.raises(ZeroDivisionError):
        ppdgm.fit(PROGRAM, mapped, out=tmp_path / "run", callbacks=[crash], **options)
    again, whole = ppdgm.resume(tmp_path / "run", mapped, progress=False), ppdgm.fit(PROGRAM, X, **options)
    assert all(np.array_equal(whole.params[n], again.params[n]) for n in whole.params)
