"""ppdgm: deep generative models as probabilistic programs, on Pyro and NumPyro."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppdgm.data import load_data
    from ppdgm.errors import PpdgmError, UnsupportedByBackend
    from ppdgm.inference import SVI, Estimate, Fit, compare, fit, load, log_weights, resume, share, trace
    from ppdgm.language.vocabulary import Trace, Vocabulary
    from ppdgm.models import Part, Program
    from ppdgm.program import PlainPair

__version__ = "0.1.0"

# A program that is read from text may name any model and part, so that `Program` comes with all of them.
_HOMES = {
    "SVI": "inference",
    "Estimate": "inference",
    "Fit": "inference",
    "Part": "models",
    "PlainPair": "program",
    "PpdgmError": "errors",
    "Program": "models",
    "Trace": "language.vocabulary",
    "UnsupportedByBackend": "errors",
    "Vocabulary": "language.vocabulary",
    "compare": "inference",
    "fit": "inference",
    "load": "inference",
    "load_data": "data",
    "log_weights": "inference",
    "resume": "inference",
    "share": "inference",
    "trace": "inference",
}

__all__ = [
    "SVI",
    "Estimate",
    "Fit",
    "Part",
    "PlainPair",
    "PpdgmError",
    "Program",
    "Trace",
    "UnsupportedByBackend",
    "Vocabulary",
    "compare",
    "fit",
    "load",
    "load_data",
    "log_weights",
    "resume",
    "share",
    "trace",
]


def __getattr__(name: str) -> Any:
    """Public names, imported when they are first used: `import ppdgm` itself loads neither torch nor jax."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ppdgm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ppdgm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
