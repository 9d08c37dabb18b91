"""Every contestant by name."""

from collections.abc import Callable
from functools import partial

from .jax_loop import jax_scan
from .numpyro_svi import numpyro_run, numpyro_run_plate, numpyro_update
from .ppdgm_fit import ppdgm_numpyro, ppdgm_pyro
from .problem import Contestant, Problem
from .pyro_svi import pyro_svi
from .torch_loop import torch_eager

CONTESTANTS: dict[str, Callable[[Problem], Contestant]] = {
    "ppdgm-numpyro": ppdgm_numpyro,
    "ppdgm-pyro": ppdgm_pyro,
    "jax-scan": jax_scan,
    "numpyro-svi.run": numpyro_run,
    "numpyro-svi.update": numpyro_update,
    "numpyro-svi.run-plate": numpyro_run_plate,
    "torch-eager": torch_eager,
    "pyro-svi": pyro_svi,
}

VARIANTS: dict[str, Callable[[Problem], Contestant]] = {
    "jax-scan-out-in": partial(jax_scan, out_in=True),
    "jax-scan-unroll2": partial(jax_scan, unroll=2),
}
"""Run only when named: choices in the hand-written scan that the package has to make as well."""
