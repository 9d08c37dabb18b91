"""The NumPyro backend: the one place that imports JAX and NumPyro."""

from ppdgm.backends.numpyro.augmenting import augment_rows
from ppdgm.backends.numpyro.bind import bind
from ppdgm.backends.numpyro.exporting import FORMATS, exported
from ppdgm.backends.numpyro.foreign import module_params, module_states
from ppdgm.backends.numpyro.loop import Trainer
from ppdgm.backends.numpyro.runtime import Runtime, precision
from ppdgm.language.gradients import differentiable

__all__ = [
    "FORMATS",
    "Runtime",
    "Trainer",
    "augment_rows",
    "bind",
    "differentiable",
    "exported",
    "module_params",
    "module_states",
    "precision",
]
