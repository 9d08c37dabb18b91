"""Engines, objectives, schedules and the training loop."""

from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.coordinates import CoordinateAscent
from ppdgm.inference.engines.criteria import Criterion
from ppdgm.inference.engines.em import EM, MonteCarloEM, VariationalEM
from ppdgm.inference.engines.engine import Composite, Engine, Phase
from ppdgm.inference.engines.importance import IWAE, Renyi
from ppdgm.inference.engines.lagging import LaggingInference
from ppdgm.inference.engines.minimise import Minimise
from ppdgm.inference.engines.optimisers import Optimiser
from ppdgm.inference.engines.samplers import HMC, Resampled, Sampler
from ppdgm.inference.engines.stages import Stage, Stages
from ppdgm.inference.engines.svi import SVI
from ppdgm.inference.engines.wake_sleep import ReweightedWakeSleep, WakeSleep
from ppdgm.inference.evaluation.estimates import Estimate
from ppdgm.inference.evaluation.result import Fit, load
from ppdgm.inference.evaluation.tools import log_weights, trace
from ppdgm.inference.runs.progress import Progress
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.inference.runs.settings import Training
from ppdgm.inference.training.fit import fit, resume
from ppdgm.specs.schedules import Constant, Cosine, Cyclical, Exponential, Linear, Schedule, Sigmoid

__all__ = [
    "EM",
    "HMC",
    "IWAE",
    "SVI",
    "Composite",
    "Constant",
    "CoordinateAscent",
    "Cosine",
    "Criterion",
    "Cyclical",
    "Engine",
    "Estimate",
    "Exponential",
    "Fit",
    "LaggingInference",
    "Linear",
    "Minimise",
    "MonteCarloEM",
    "Optimiser",
    "Phase",
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
    "bounds",
    "fit",
    "load",
    "log_weights",
    "resume",
    "trace",
]
