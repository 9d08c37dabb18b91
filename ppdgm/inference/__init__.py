"""Engines, objectives, schedules and the training loop."""

from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.augmentations import AddNoise, Augmentation, Flip, Shift
from ppdgm.inference.engines.coordinates import CoordinateAscent
from ppdgm.inference.engines.criteria import Criterion
from ppdgm.inference.engines.em import EM, MonteCarloEM, VariationalEM
from ppdgm.inference.engines.engine import Composite, Engine, Phase
from ppdgm.inference.engines.importance import IWAE, Renyi
from ppdgm.inference.engines.lagging import LaggingInference
from ppdgm.inference.engines.minimise import Minimise
from ppdgm.inference.engines.optimisers import Optimiser
from ppdgm.inference.engines.reverse import ReverseKL
from ppdgm.inference.engines.samplers import HMC, Resampled, Sampler
from ppdgm.inference.engines.stages import Stage, Stages
from ppdgm.inference.engines.svi import SVI
from ppdgm.inference.engines.targets import Target
from ppdgm.inference.engines.wake_sleep import ReweightedWakeSleep, WakeSleep
from ppdgm.inference.evaluation.compare import Comparison, compare
from ppdgm.inference.evaluation.difference import Difference
from ppdgm.inference.evaluation.estimates import Estimate
from ppdgm.inference.evaluation.normaliser import Normaliser
from ppdgm.inference.evaluation.opening import load
from ppdgm.inference.evaluation.result import Fit
from ppdgm.inference.evaluation.sharing import share
from ppdgm.inference.evaluation.tools import log_weights, trace
from ppdgm.inference.runs.progress import Progress
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.inference.runs.settings import Training
from ppdgm.inference.training.fit import fit
from ppdgm.inference.training.resuming import resume
from ppdgm.specs.schedules import Constant, Cosine, Cyclical, Exponential, Linear, Schedule, Sigmoid, Switch

__all__ = [
    "EM",
    "HMC",
    "IWAE",
    "SVI",
    "AddNoise",
    "Augmentation",
    "Comparison",
    "Composite",
    "Constant",
    "CoordinateAscent",
    "Cosine",
    "Criterion",
    "Cyclical",
    "Difference",
    "Engine",
    "Estimate",
    "Exponential",
    "Fit",
    "Flip",
    "LaggingInference",
    "Linear",
    "Minimise",
    "MonteCarloEM",
    "Normaliser",
    "Optimiser",
    "Phase",
    "Progress",
    "Recipe",
    "Renyi",
    "Resampled",
    "ReverseKL",
    "ReweightedWakeSleep",
    "Sampler",
    "Schedule",
    "Shift",
    "Sigmoid",
    "Stage",
    "Stages",
    "Switch",
    "Target",
    "Training",
    "VariationalEM",
    "WakeSleep",
    "bounds",
    "compare",
    "fit",
    "load",
    "log_weights",
    "resume",
    "share",
    "trace",
]
