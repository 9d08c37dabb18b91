"""Settings of the test process."""

import ctypes
import gc
import os
import tempfile
from pathlib import Path

import jax
import pytest
import torch

# Many tests compile the same small programs: keep what XLA made, for other tests and for the next run.
_CACHE = os.path.join(tempfile.gettempdir(), f"ppdgm-test-cache-{os.getuid()}")
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
torch.set_num_threads(1)
#: The same for processes that a test starts, where nothing is expected of their stderr: XLA tells of its cache there.
CACHED = {"JAX_COMPILATION_CACHE_DIR": _CACHE, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}

#: Compiled programs stay in memory as long as JAX keeps them: a test process grew past what small machines have.
MOST_MEMORY = 2 * 2**30

FULLY_OPTIMISED = {
    "test_many_rows",
    "test_covering",
    "test_loops",
    "test_hierarchy_training",
    "test_discrete_training",
    "test_estimators",
}


@pytest.fixture(autouse=True, scope="module")
def _compile_fast(request):
    """XLA compiles in half the time without most of its optimisations; where much is computed, they pay."""
    fast = request.module.__name__ not in FULLY_OPTIMISED
    jax.config.update("jax_disable_most_optimizations", fast)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(fast)))  # of processes that a test starts: the same bits
        yield
    jax.config.update("jax_disable_most_optimizations", False)
    if _resident() > MOST_MEMORY:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # only with this does glibc give the memory back


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system doesn't say (all but Linux)."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
