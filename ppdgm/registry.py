"""Backends by name, imported when first asked for."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ppdgm.errors import BackendMissing, PpdgmError, nearest, shown

if TYPE_CHECKING:
    from ppdgm.language.backend import Backend

INSTALL = {"numpyro": "pip install ppdgm", "pyro": 'pip install "ppdgm[pyro]"'}


def is_pair(kind: str) -> bool:
    """Whether a recipe's program is a plain pair: "plain:pyro". A file plain.py may have programs of its own."""
    return kind in {f"plain:{name}" for name in INSTALL}


def backend(name: str) -> Backend:
    """The backend module `ppdgm.backends.<name>`.

    Raises:
        PpdgmError: no backend has this name.
        BackendMissing: its packages are not installed.
    """
    if not isinstance(name, str) or name not in INSTALL:
        raise PpdgmError(f"Unknown backend {shown(name)}. {nearest(shown(name), INSTALL)}")
    if name == "numpyro" and "jaxlib" not in sys.modules and not Path("/dev/nvidiactl").exists():
        # On some processors XLA logs an error for each program that it loads from the disk cache, though all is well
        # (jax-ml/jax#38445). jaxlib reads this when it is imported; without a GPU its other errors are exceptions too.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return importlib.import_module(f"ppdgm.backends.{name}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("ppdgm"):
            raise
        raise BackendMissing(
            f"Backend {name!r} needs the package {error.name!r}, which is not installed: {INSTALL[name]}"
        ) from None
