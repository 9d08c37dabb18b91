"""Settings of the test process."""

import os
import tempfile

import jax
import torch

# Many tests compile the same small programs: keep what XLA made, for other tests and for the next run.
_CACHE = os.path.join(tempfile.gettempdir(), f"ppdgm-test-cache-{os.getuid()}")
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
torch.set_num_threads(1)
