"""The settings of a training run, as a spec: the arguments of `fit`, and a recipe's [training] table."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ppdgm.errors import TrainingError
from ppdgm.inference.engines.augmentations import Augmentation
from ppdgm.inference.engines.optimisers import Optimiser, OptimiserName
from ppdgm.specs import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Spec
from ppdgm.specs.schedules import Schedule, as_schedule

MOST_STEPS = 2**31 - 1  # they are counted in 32 bits
Decay = Annotated[float, Field(gt=0, lt=1)]


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


class Training(Spec):
    """How long, how fast, from which seed, and what is saved.

    Args:
        epochs, steps: how long; one of them.
        batch_size: B; 100 by default, or the size of a plain pair's subsampled plate.
        optimiser: its name, an `Optimiser`, or "own" for one that can't be written as text.
        learning_rate: a number, or a schedule in steps; 1e-3 by default.
        clip_norm: largest norm of the gradient.
        accumulate: number of pieces that a minibatch is split into, to save memory; the step is of all of them.
        particle_chunk: number of particles that a step reads at a time, and again for their gradient, so that memory
            does not grow with K; the last chunk may be smaller. None: all K at once.
        rematerialise: nets keep only their inputs for the gradient, and compute their layers again, to save memory: in
            deep ladders, or nets with wide layers. The draws and the gradient are the same, up to rounding.
        weight_average: d of the exponential moving average θ̄ ← d θ̄ + (1 − d) θ over steps. The average is then judged
            and returned.
        binarise: "dynamic" draws x ~ Bernoulli(x) again for each minibatch.
        augment: augmentations such as Flip, which change x of each minibatch at random, in training only; "own" for a
            function that can't be written as text.
        early_stopping: stop after this many validations without a better value of what the engine watches (for most,
            the ELBO), once warm-ups are over.
        keep_best: return the parameters with the best validation, rather than the last ones.
        max_skipped: a step that is not finite is skipped; after this many in a row training stops.
        diagnose_epochs: number of epochs between two measurements of the KL and the active units of each site and the
            mutual information of 500 rows; they go to the history.
        checkpoint_steps, checkpoint_minutes: how often a run with a folder is saved, by one of the two.
        seed: of first values, order of data, and draws.
        device: "auto", "cpu", "cuda", "cuda:1".
        devices: the number of devices, or "all" that are found; each minibatch is divided among them. On JAX, of this
            process, or of all processes that were started together; on the pyro backend, the number of processes that
            torchrun started.
        dtype: of parameters and data.
        mixed_precision: nets multiply in bfloat16 in training; everything else, and every evaluation, is in `dtype`.
            Faster on a GPU, not on a CPU.
        tf32: matrix products and convolutions of float32 numbers round their inputs to TF32 in training, to 10 of their
            23 bits: faster on an NVIDIA GPU since Ampere. Evaluations never do.
        compile: torch.compile on the pyro backend; "auto" if the run is long enough to gain from it; True is refused
            if it can't be done, as on NumPyro, and False changes nothing there. "cudagraphs" also launches each step as
            one CUDA graph, for small programs on an NVIDIA GPU.
    """

    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    optimiser: OptimiserName | Literal["own"] | Optimiser = "adam"
    learning_rate: NonNegativeFloat | Schedule | None = None
    clip_norm: PositiveFloat | None = None
    accumulate: PositiveInt = 1
    particle_chunk: PositiveInt | None = None
    rematerialise: bool = False
    weight_average: Decay | None = None
    binarise: Literal["none", "dynamic"] = "none"
    augment: Annotated[tuple[Augmentation, ...], BeforeValidator(_several)] | Literal["own"] = ()
    early_stopping: PositiveInt | None = None
    keep_best: bool = True
    max_skipped: PositiveInt = 10
    diagnose_epochs: PositiveInt | None = None
    checkpoint_steps: PositiveInt | None = None
    checkpoint_minutes: PositiveFloat = 5.0
    seed: NonNegativeInt = 0
    device: str = "auto"
    devices: PositiveInt | Literal["all"] = 1
    dtype: Literal["float32", "float64"] = "float32"
    mixed_precision: bool = False
    tf32: bool = False
    compile: bool | Literal["auto", "cudagraphs"] = "auto"

    @property
    def rate(self) -> Schedule:
        """The learning rate as a schedule."""
        return as_schedule(1e-3 if self.learning_rate is None else self.learning_rate)

    def length(self, steps_per_epoch: int) -> int:
        """The planned number of steps.

        Raises:
            TrainingError: neither or both of epochs and steps are given, or there are too many.
        """
        if (self.epochs is None) == (self.steps is None):
            raise TrainingError("Give one of epochs=… and steps=…, for the length of training.")
        steps = self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch
        if steps > MOST_STEPS:
            raise TrainingError(f"steps: got {steps}, expected at most {MOST_STEPS}. Give fewer steps or epochs.")
        return steps
