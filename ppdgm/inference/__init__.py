"""Engines, objectives, schedules and the training loop."""

from ppdgm.inference.engine import Engine
from ppdgm.inference.evaluate import Estimate
from ppdgm.inference.optimisers import Optimiser
from ppdgm.inference.recipe import Recipe
from ppdgm.inference.result import Fit, load
from ppdgm.inference.settings import Training
from ppdgm.inference.svi import SVI
from ppdgm.inference.tools import log_weights, trace
from ppdgm.inference.training import fit, resume
from ppdgm.report import Progress
from ppdgm.schedules import Constant, Cosine, Exponential, Linear, Schedule

__all__ = [
    "SVI",
    "Constant",
    "Cosine",
    "Engine",
    "Estimate",
    "Exponential",
    "Fit",
    "Linear",
    "Optimiser",
    "Progress",
    "Recipe",
    "Schedule",
    "Training",
    "fit",
    "load",
    "log_weights",
    "resume",
    "trace",
]
