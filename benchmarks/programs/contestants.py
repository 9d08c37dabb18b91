"""The contestants by name. Each is imported when it is asked for: the process of one loads no other library."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from .cases import Case

Made = tuple[str, str, dict[str, Any]]  # module, function, arguments

STEPS: dict[str, Made] = {
    "ppdgm-numpyro": ("by_ppdgm", "trainer", {"name": "numpyro"}),
    "ppdgm-pyro": ("by_ppdgm", "trainer", {"name": "pyro"}),
    "jax-by-hand": ("by_jax", "by_hand", {}),
    "torch-by-hand": ("by_torch", "by_hand", {}),
    "torch-compiled": ("by_torch", "by_hand", {"compile": True}),
    "numpyro-svi": ("by_jax", "numpyro_svi", {}),
    "numpyro-svi.run": ("by_jax", "numpyro_svi", {"run": True}),
    "pyro-svi": ("by_torch", "pyro_svi", {}),
    "pythae": ("by_pythae", "trainer", {}),
}
"""Those that train."""
MORE: dict[str, Made] = {
    "ppdgm-pyro-eager": ("by_ppdgm", "trainer", {"name": "pyro", "compile": False}),
    "ppdgm-numpyro-chunked": ("by_ppdgm", "trainer", {"name": "numpyro", "chunk": 50}),
    "ppdgm-pyro-chunked": ("by_ppdgm", "trainer", {"name": "pyro", "compile": False, "chunk": 50}),
}
"""Further ones that train, for tables of whole processes."""
LIKELIHOODS: dict[str, Made] = {
    "ppdgm-numpyro": ("by_ppdgm", "likelihood", {"name": "numpyro"}),
    "ppdgm-pyro": ("by_ppdgm", "likelihood", {"name": "pyro"}),
    "jax-by-hand": ("by_jax", "likelihood", {"chunk": 50}),
    "torch-by-hand": ("by_torch", "likelihood", {"chunk": 50}),
    "pythae-100": ("by_pythae", "likelihood", {"chunk": 100}),
    "pythae-500": ("by_pythae", "likelihood", {"chunk": 500}),
    "pythae-5000": ("by_pythae", "likelihood", {"chunk": 5000}),
}
"""Test log-likelihoods; pythae's by its batch of particles."""
IMAGES: dict[str, Made] = {
    "ppdgm-numpyro": ("by_ppdgm", "images", {"name": "numpyro"}),
    "ppdgm-pyro": ("by_ppdgm", "images", {"name": "pyro"}),
    "jax-by-hand": ("by_jax", "images", {}),
    "torch-by-hand": ("by_torch", "images", {}),
    "pythae": ("by_pythae", "images", {}),
}
"""Those that draw images."""


def maker(made: Made) -> Callable[[Case], Any]:
    """The maker of a contestant; nothing is imported before it is called."""
    module, function, arguments = made
    return lambda case: getattr(load(module), function)(case, **arguments)


def load(module: str) -> Any:
    """One of the modules beside this one."""
    return import_module(f"{__package__}.{module}")
