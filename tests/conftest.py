"""Settings of the test process."""

import ctypes
import gc
import mmap
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

#: Without its fusion emitters XLA compiles in 60 % of the time; small programs are not worth several threads each.
FASTER = {"xla_cpu_use_fusion_emitters": "false", "xla_cpu_parallel_codegen_split_count": "1"}


def _known(flags: set[str]) -> set[str]:
    """Those that the installed jaxlib has: XLA ends the process at a flag that it doesn't know."""
    spec, found = find_spec("jaxlib"), set()
    homes = [] if spec is None else spec.submodule_search_locations or []
    for library in (file for home in homes for file in Path(home).rglob("*.so") if file.stat().st_size > 2**26):
        with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found |= {flag for flag in flags if content.find(flag.encode()) >= 0}
    return found


given = os.environ.get("XLA_FLAGS", "")
new = sorted(_known({flag for flag in FASTER if flag not in given}))
os.environ["XLA_FLAGS"] = " ".join([given, *(f"--{flag}={FASTER[flag]}" for flag in new)]).strip()

# Many tests compile the same small programs: keep what XLA made, for other tests, their processes and the next run.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), f"ppdgm-test-cache-{os.getuid()}")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Where each operation was written: nobody reads that here, and it is written down for each of them.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jax  # noqa: E402  # it reads these
import pytest  # noqa: E402
import torch  # noqa: E402
from shares import left_out  # noqa: E402

torch.set_num_threads(1)

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

#: Here a run draws its pictures when it ends; elsewhere nobody looks, and they take a quarter of a short run's time.
PICTURES = {"test_run_folders", "test_criterion", "test_sharing"}


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="every case of the tests in tests/long.txt, not a part of them")


def pytest_collection_modifyitems(config, items):
    out = set() if config.getoption("--all") else left_out([item.nodeid for item in items], config.args)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in out])
    items[:] = [item for item in items if item.nodeid not in out]


def pytest_collection_finish():
    """What is imported stays: Python's garbage collector need not look at it in each of its passes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 20, 20)


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


@pytest.fixture(autouse=True, scope="module")
def _few_pictures(request):
    if request.module.__name__ in PICTURES:
        yield
        return
    from ppdgm.inference.runs.recorder import PICTURES as name
    from ppdgm.inference.runs.recorder import Recorder

    def draw(self, fit):
        if self.folder:
            (self.folder.path / name).mkdir(exist_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "draw", draw)
        yield


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system doesn't say (all but Linux)."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
