"""A backend's trainer, made without a run around it."""

import numpy as np

from ppdgm.inference import Optimiser
from ppdgm.inference.engines.engine import hyperparameters_of, states_of
from ppdgm.inference.inputs.batches import Plan
from ppdgm.language.trainer import TrainerSettings
from ppdgm.registry import backend as load_backend


def make_trainer(runtime, engine, params, seed=0, data_size=None, optimiser=None, state=None, **settings):
    """A trainer of native parameters; the engine's state is given, or as if no draw were scored."""
    chosen = TrainerSettings(seed, data_size, optimiser or Optimiser(), **settings)
    state = states_of(engine, 1, ()) if state is None else state
    return load_backend(runtime.name).Trainer(runtime, engine, params, chosen, state)


def make_plan(engine, index, weight, rate, first, count, phase=None):
    """A plan of the steps from `first` on."""
    steps = np.arange(first, first + len(index))
    phase = engine.phase_of(steps) if phase is None else phase
    return Plan(index, weight, rate, hyperparameters_of(engine, steps), first, count, phase)
