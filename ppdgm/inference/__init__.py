"""Engines, objectives, schedules and the training loop."""

from ppdgm.inference.em import EM, MonteCarloEM, VariationalEM
from ppdgm.inference.engine import Engine
from ppdgm.inference.evaluate import Estimate
from ppdgm.inference.importance import IWAE, Renyi
from ppdgm.inference.lagging import LaggingInference
from ppdgm.inference.optimisers import Optimiser
from ppdgm.inference.recipe import Recipe
from ppdgm.inference.result import Fit, load
from ppdgm.inference.samplers import HMC, Resampled, Sampler
from ppdgm.inference.settings import Training
from ppdgm.inference.stages import Stage, Stages
from ppdgm.inference.svi import SVI
from ppdgm.inference.tools import log_weights, trace
from ppdgm.inference.training import fit, resume
from ppdgm.inference.wake_sleep import ReweightedWakeSleep, WakeSleep
from ppdgm.report import Progress
from ppdgm.schedules import Constant, Cosine, Cyclical, Exponential, Linear, Schedule, Sigmoid

__all__ = [
    "EM",
    "HMC",
    "IWAE",
    "SVI",
    "Constant",
    "Cosine",
    "Cyclical",
    "Engine",
    "Estimate",
    "Exponential",
    "Fit",
    "LaggingInference",
    "Linear",
    "MonteCarloEM",
    "Optimiser",
    "Progress",
    "Recipe",
    "Renyi",
    "Resampled",
    "ReweightedWakeSleep",
    "Sampler",
    "Schedule",
    "Sigmoid",
    "Stage",
    "Stages",
    "Training",
    "VariationalEM",
    "WakeSleep",
    "fit",
    "load",
    "log_weights",
    "resume",
    "trace",
]
