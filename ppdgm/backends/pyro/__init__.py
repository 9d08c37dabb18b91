"""The Pyro backend: the one place that imports torch and Pyro."""

from ppdgm.backends.pyro.augmenting import augment_rows
from ppdgm.backends.pyro.bind import bind
from ppdgm.backends.pyro.exporting import FORMATS, exported
from ppdgm.backends.pyro.loop import Trainer
from ppdgm.backends.pyro.runtime import Runtime, precision
from ppdgm.backends.pyro.tracer import module_params, module_states
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
