"""Compiled programs are kept on disk: another process compiles nothing, has the same bits; the folder is bounded."""

import os
import subprocess
import sys
import time

import jax
import pytest

from ppdgm.backends.numpyro import cache
from ppdgm.errors import PpdgmError

CODE = """
import hashlib
import numpy as np
import ppdgm
from ppdgm.models import VAE, Gaussian
ppdgm.registry.backend("numpyro")
from jax import monitoring
seen = []
monitoring.register_event_listener(lambda name, **_: seen.append(name))
x = np.random.default_rng(0).random((20, 4)).astype("float32")
program = VAE(event_shape=(4,), latent=2, likelihood=Gaussian())
log_weights = ppdgm.log_weights(program, program.initialise(0), x, k=3, seed=0)
bits = hashlib.sha256(np.asarray(log_weights).tobytes()).hexdigest()
print(bits, seen.count("/jax/compilation_cache/cache_misses"), seen.count("/jax/compilation_cache/cache_hits"))
"""


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """A process without a folder for JAX; its settings come back."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {n: getattr(jax.config, n) for n in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(cache.SWITCH, raising=False)
    cache.keep_compiled.cache_clear()
    yield tmp_path
    cache.keep_compiled.cache_clear()
    for name, value in before.items():
        jax.config.update(name, value)


def judged(tmp_path):
    """(bits of log-weights, programs compiled, programs found) of a process of its own."""
    env = {
        n: v
        for n, v in os.environ.items()
        if not n.startswith(("JAX_", "TF_CPP")) or n == "JAX_DISABLE_MOST_OPTIMIZATIONS"
    }
    env |= {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", CODE], env=env, capture_output=True, text=True, check=True
    )
    assert "cpu_aot_loader" not in done.stderr  # XLA's error, on some processors, for each program that it finds
    bits, missed, hit = done.stdout.split()
    return bits, int(missed), int(hit)


def test_a_second_process_compiles_nothing_and_has_the_same_bits(tmp_path):
    first, again = judged(tmp_path), judged(tmp_path)
    assert first[1] > 0
    assert again == (first[0], 0, first[1] + first[2])


def test_one_setting_switches_it_off_or_names_a_folder(unset, monkeypatch):
    monkeypatch.setenv(cache.SWITCH, "off")
    cache.keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None
    cache.keep_compiled.cache_clear()
    monkeypatch.setenv(cache.SWITCH, str(unset / "mine"))
    cache.keep_compiled()
    assert jax.config.jax_compilation_cache_dir.startswith(str(unset / "mine"))


def test_the_users_own_choice_for_jax_stays(unset):
    jax.config.update("jax_compilation_cache_dir", str(unset / "users"))
    cache.keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(unset / "users")
    assert not (unset / "cache").exists()


def test_a_folder_that_can_not_be_written(unset, monkeypatch):
    (unset / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(unset / "file"))
    cache.keep_compiled()  # the default: nothing is kept
    assert jax.config.jax_compilation_cache_dir is None
    cache.keep_compiled.cache_clear()
    monkeypatch.setenv(cache.SWITCH, str(unset / "file"))
    with pytest.raises(PpdgmError, match=r"can't write to '.*file'"):
        cache.keep_compiled()


def test_what_was_not_used_for_longest_is_removed_once_a_day(tmp_path):
    now = time.time()
    for age, size in ((5, 10), (1, 10), (3, 10), (2, 0)):
        file = tmp_path / f"of_{age}_days-cache"
        file.write_bytes(b"x" * size)
        os.utime(file, (now - age * cache.DAY,) * 2)
    left = lambda: sorted(f.name for f in tmp_path.glob("*-cache"))
    cache._trim_daily(tmp_path, 25)
    assert left() == ["of_1_days-cache", "of_3_days-cache"]
    cache._trim_daily(tmp_path, 0)
    assert len(left()) == 2
    os.utime(tmp_path / "trimmed", (now - 2 * cache.DAY,) * 2)
    cache._trim_daily(tmp_path, 10)
    assert left() == ["of_1_days-cache"]


def test_a_damaged_file_is_replaced(tmp_path):
    first = judged(tmp_path)
    files = sorted((tmp_path / "ppdgm" / "jax").glob("*/*-cache"), key=lambda f: f.name)
    damages = (
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b[:50] + bytes([b[50] ^ 1]) + b[51:],
        lambda b: b"x",
    )
    for file, damage in zip(files, damages, strict=False):
        file.write_bytes(damage(file.read_bytes()))
    assert judged(tmp_path) == (first[0], 4, first[1] + first[2] - 4)  # and without JAX's warning
    assert all(map(cache._is_whole, files))


def test_a_file_that_was_looked_at_is_left_alone(tmp_path):
    (tmp_path / "old-cache").write_bytes(b"x")
    os.utime(tmp_path / "old-cache", (time.time() - 60,) * 2)
    (tmp_path / "checked").touch()
    cache._remove_damaged(tmp_path)
    assert (tmp_path / "old-cache").exists()
    (tmp_path / "old-cache").touch()
    cache._remove_damaged(tmp_path)
    assert not (tmp_path / "old-cache").exists()
