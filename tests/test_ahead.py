"""Streamed rows are read ahead of the steps, in a thread; order, draws, errors and interruptions are as without it."""

import os
import threading

import jax
import numpy as np
import pytest
from test_skipped import spoiled, train

import ppdgm
from ppdgm.errors import DataError, ProgramError
from ppdgm.inference.inputs import feed
from ppdgm.models import MLP, VAE
from ppdgm.registry import backend as load_backend

BACKENDS = ("numpyro", "pyro")
B = 16
X = (np.random.default_rng(0).random((203, 6)) < 0.5).astype("float32")
PROGRAM = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
OPTIONS = {"steps": 30, "batch_size": B, "progress": False, "compile": False, "seed": 1}


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """A function that puts an array on disk and maps it; a block has five steps."""

    def put(array, name="x"):
        monkeypatch.setattr(feed, "CHUNK_BYTES", 5 * B * array[0].nbytes)
        np.save(tmp_path / f"{name}.npy", array)
        return np.load(tmp_path / f"{name}.npy", mmap_mode="r")

    return put


def reading():
    """Threads that read rows."""
    return [t for t in threading.enumerate() if t.name == "ppdgm-rows"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_next_rows_are_read_while_steps_are_taken(backend, on_disk, monkeypatch):
    """Reading waits for the steps before it to begin, and they end when it has ended: neither is without the other."""
    take, trainer = feed.take, load_backend(backend).Trainer
    run, begun, done, threads = trainer.run, threading.Semaphore(0), threading.Semaphore(0), []

    def read(fields, index):
        if threading.current_thread().name == "ppdgm-rows":
            threads.append(len(index))
            assert begun.acquire(timeout=60)
        found = take(fields, index)
        if threading.current_thread().name == "ppdgm-rows":
            done.release()
        return found

    blocks = []

    def steps(self, plan, data):
        block = plan.first // 5
        if block not in blocks:
            blocks.append(block)
            begun.release()
            if block < 5:
                assert done.acquire(timeout=60)
        return run(self, plan, data)

    monkeypatch.setattr(feed, "take", read)
    monkeypatch.setattr(trainer, "run", steps)
    fit = ppdgm.fit(PROGRAM, on_disk(X), backend=backend, **OPTIONS)
    assert threads == [5 * B] * 5 and blocks == [0, 1, 2, 3, 4, 5]
    monkeypatch.undo()
    memory = ppdgm.fit(PROGRAM, X, backend=backend, **OPTIONS)
    assert all(np.array_equal(memory.params[n], fit.params[n]) for n in memory.params)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_rows_stay_so_in_the_thread(backend, on_disk):
    x, options = X.astype("float64"), {**OPTIONS, "steps": 12, "dtype": "float64", "backend": backend}
    with jax.enable_x64(True):
        disk, memory = ppdgm.fit(PROGRAM, on_disk(x), **options), ppdgm.fit(PROGRAM, x, **options)
    assert all(np.array_equal(memory.params[n], disk.params[n]) for n in memory.params)


def test_training_goes_back_to_rows_that_are_gone(on_disk):
    """The steps before one that is not finite are taken again, from the last good state."""
    data = spoiled("root")
    mapped = {n: on_disk(v, n) for n, v in data.items()}
    disk, memory = train(mapped, "pyro"), train(data, "pyro")
    assert disk.history["skipped_step"].tolist() == memory.history["skipped_step"].tolist() != []
    assert all(np.array_equal(memory.params[n], disk.params[n]) for n in memory.params)


def test_an_error_while_reading_is_raised_where_the_rows_are_used(on_disk, monkeypatch):
    take, seen = feed.take, []

    def fails(fields, index):
        if threading.current_thread().name == "ppdgm-rows" and len(seen) >= 2:
            raise OSError("the disk is on fire")
        return take(fields, index)

    monkeypatch.setattr(feed, "take", fails)
    with pytest.raises(ProgramError, match=r"the disk is on fire \(OSError\)\.$"):
        ppdgm.fit(PROGRAM, on_disk(X), backend="pyro", callbacks=[lambda now: seen.append(now.step)], **OPTIONS)
    assert seen and seen[-1] % 5 == 0  # all steps whose rows could be read were taken
    assert not reading()


def test_a_file_that_becomes_shorter_is_told(on_disk, tmp_path):
    mapped = on_disk(X)
    cut = lambda now: os.truncate(tmp_path / "x.npy", 300) if now.step >= 10 else None
    with pytest.raises(DataError, match="became shorter while it was read"):
        ppdgm.fit(PROGRAM, mapped, backend="pyro", callbacks=[cut], **OPTIONS)
    assert not reading()


def test_an_interruption_leaves_no_thread(on_disk):
    def interrupt(now):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ppdgm.fit(PROGRAM, on_disk(X), backend="pyro", callbacks=[interrupt], **OPTIONS)
    assert not reading()
    stopped = ppdgm.fit(PROGRAM, on_disk(X), backend="pyro", callbacks=[lambda now: now.step >= 7], **OPTIONS)
    assert stopped.stopped == "callback" and not reading()
