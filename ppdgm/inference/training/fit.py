"""Training: `fit`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppdgm.data import Dataset
from ppdgm.data.rows import batch_size_of
from ppdgm.errors import TrainingError, nearest, require, shown
from ppdgm.inference.engines.augmentations import as_augmentations
from ppdgm.inference.engines.engine import Engine
from ppdgm.inference.engines.samplers import Sampler
from ppdgm.inference.engines.stages import Stage, as_engine
from ppdgm.inference.engines.svi import SVI
from ppdgm.inference.evaluation.result import Fit
from ppdgm.inference.inputs.no_data import rows_for
from ppdgm.inference.inputs.tables import with_columns
from ppdgm.inference.runs.layout import as_path, check_free
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.inference.runs.settings import Training
from ppdgm.inference.training.alone import trained_alone
from ppdgm.inference.training.job import Callback, Job
from ppdgm.inference.training.no_effect import check_folder
from ppdgm.inference.training.opened import opened_for
from ppdgm.language.native import OwnOptimiser
from ppdgm.program import AnyProgram, check_program
from ppdgm.specs import Spec
from ppdgm.specs.schedules import Schedule

if TYPE_CHECKING:
    from ppdgm.data.aliases import Data
    from ppdgm.inference.engines.optimisers import Optimiser, OptimiserName
    from ppdgm.inference.inputs.row_weights import Weights
    from ppdgm.language.augmenting import Augment


def fit(
    program: AnyProgram,
    data: Data | Dataset | None = None,
    *,
    validation: Data | None = None,
    weights: Weights | None = None,
    engine: Engine | list[Engine | Stage] | None = None,
    backend: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    optimiser: OptimiserName | Optimiser | OwnOptimiser = "adam",
    learning_rate: float | Schedule | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    particle_chunk: int | None = None,
    rematerialise: bool = False,
    weight_average: float | None = None,
    binarise: Literal["none", "dynamic"] | None = None,
    augment: Augment | Iterable[Augment] | None = None,
    early_stopping: int | None = None,
    keep_best: bool = True,
    max_skipped: int = 10,
    diagnose_epochs: int | None = None,
    callbacks: Iterable[Callback] = (),
    params: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    device: str = "auto",
    devices: int | Literal["all"] = 1,
    dtype: Literal["float32", "float64"] = "float32",
    mixed_precision: bool = False,
    tf32: bool = False,
    compile: bool | Literal["auto", "cudagraphs"] = "auto",
    progress: bool | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    checkpoint_steps: int | None = None,
    checkpoint_minutes: float = 5.0,
    **unknown: object,
) -> Fit:
    """Train a program.

    Args:
        program: a Program, or a plain pair from `Program.from_pyro` or `Program.from_numpyro`.
        data: array [N, *event_shape], or a mapping of named arrays with N rows each; memory-mapped ones are streamed.
            Or a `Dataset`, which has its own validation data, and is named in the run's recipe; or a data set of torch,
            Hugging Face or anndata, whose rows are read into memory. None for `ReverseKL`, which reads no data.
        validation: the same, for validation data; after each epoch, the number that the engine watches is computed:
            its ELBO, or for `Minimise` its loss. Refused for an engine without a criterion.
        weights: of the training rows, [N], finite and not negative: the objective is Σ w_i ELBO_i / Σ w_i. They are
            scaled to mean 1, so that a learning rate keeps its meaning. A whole number counts as so many copies of the
            row. {"train": …, "validation": …} also weights the number that the engine watches. A `Dataset` has them
            from `load_data(…, weights=…)`.
        engine: how to train, `SVI()` by default; or a list of engines and `Stage`s, one after another.
        backend: "numpyro" (default) or "pyro"; a plain pair has its own.
        epochs, steps: how long; give one of them.
        batch_size: B, 100 by default (that of a DataLoader, if it is the data), or N if that is less; a plain pair with
            a subsampled plate has its own.
        optimiser: "adam", "adamw", "adamax", "sgd", an `Optimiser`; or your own: an optax transformation, or a
            function of parameters that makes a torch optimiser (these have their own learning rate).
        learning_rate: a number (1e-3 by default), or a schedule in steps.
        clip_norm: largest norm of the gradient.
        accumulate: split each minibatch into this number of pieces, to save memory; the step is of all of them.
        particle_chunk: number of particles that a step reads at a time, and again for their gradient, so that memory
            does not grow with K; the last chunk may be smaller. By default all K are read at once.
        rematerialise: nets keep only their inputs for the gradient, and compute their layers again, to save memory.
        weight_average: d in (0, 1): judge and return the moving average θ̄ ← d θ̄ + (1 − d) θ of the parameters.
        binarise: "dynamic" draws x ~ Bernoulli(x) again for each minibatch; x are probabilities.
        augment: changes x of each minibatch at random, in training only: an `Augmentation` such as `Flip()`, a function
            (P, x [B, *event]) -> x, which draws with `P.random` and computes with `P.xp`, or a list, in turn. It comes
            before `binarise`.
        early_stopping: stop after this many validations without a better value, once warm-ups are over.
        keep_best: return the parameters with the best validation, rather than the last ones; without validation data,
            the last ones.
        max_skipped: a step that is not finite is reported and skipped; after this many in a row, training stops.
        diagnose_epochs: number of epochs between two measurements of the KL and the active units of each site and the
            mutual information of 500 rows; they go to the history, the progress line and the callbacks.
        callbacks: functions of a `Progress`, called after each stretch of steps (about half a second, or an epoch with
            validation); if one returns True, training ends.
        params: first values, by name, instead of `program.initialise(seed, data)`.
        seed: of first values, order of data, and draws. The same seed gives the same bits on the same machine's CPU.
        device: "auto", "cpu", "cuda", "cuda:1".
        devices: the number of devices, or "all" that are found; each minibatch is divided among them. On JAX, of this
            process, or of all processes that were started together; on the pyro backend, the number of processes that
            torchrun started. See docs/devices.md.
        dtype: of parameters and data.
        mixed_precision: nets multiply in bfloat16 in training: faster on a GPU.
        tf32: matrix products and convolutions round their inputs to TF32 in training: faster on an NVIDIA GPU.
        compile: torch.compile on the pyro backend; "auto" if the run is long enough to gain from it. True is refused
            if nothing can be compiled in this way, as on NumPyro, whose steps JAX compiles in any case; False changes
            nothing there. "cudagraphs" also launches each step as one CUDA graph: for small programs on an NVIDIA GPU.
        progress: show progress; by default, yes.
        out: folder for recipe, checkpoints, history, log, pictures and result; refused before training if it holds a
            run, unless `overwrite`. A run that was killed goes on with `ppdgm.resume(out)`.
        overwrite: replace a run in `out`.
        checkpoint_steps, checkpoint_minutes: how often to save a run with `out`, by one of the two; every five minutes
            by default.

    Returns:
        The trained program; after Ctrl-C, with the training so far. A request to end (SIGTERM) ends the process after
        the run is saved.

    Raises:
        PpdgmError: arguments, data or a program that can't be used for training, before any work starts.
    """
    if unknown:
        name = next(iter(unknown))
        known = [
            *Training.model_fields,
            "validation",
            "weights",
            "engine",
            "backend",
            "callbacks",
            "params",
            "progress",
            "out",
        ]
        raise TrainingError(f"fit() has no argument {name!r}. {nearest(name, known)}")
    own = None if isinstance(optimiser, str | Spec) else optimiser
    dataset = data if isinstance(data, Dataset) else None
    batch_size = batch_size_of(data) if batch_size is None else batch_size
    named, change = as_augmentations(augment)
    training = Training(
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        optimiser="own" if own is not None else optimiser,
        learning_rate=learning_rate,
        clip_norm=clip_norm,
        accumulate=accumulate,
        particle_chunk=particle_chunk,
        rematerialise=rematerialise,
        weight_average=weight_average,
        binarise=(dataset.binarise if dataset else "none") if binarise is None else binarise,  # type: ignore[arg-type]  # validated there
        augment=named,
        early_stopping=early_stopping,
        keep_best=keep_best,
        max_skipped=max_skipped,
        diagnose_epochs=diagnose_epochs,
        checkpoint_steps=checkpoint_steps,
        checkpoint_minutes=checkpoint_minutes,
        seed=seed,
        device=device,
        devices=devices,
        dtype=dtype,
        mixed_precision=mixed_precision,
        tf32=tf32,
        compile=compile,
    )
    engine = SVI() if engine is None else as_engine(engine)
    _check_arguments(program, engine, params)
    data = opened_for(program, data)
    validation = opened_for(program, validation, data)
    program, data = with_columns(program, rows_for(program, engine, data, batch_size))
    dataset = data if isinstance(data, Dataset) else None
    require("overwrite", overwrite, bool, None, "True or False")
    check_folder(training, out, overwrite)
    recipe = Recipe(program, training, engine, _choose_backend(program, backend), dataset.source if dataset else None)
    job = Job(recipe, data, validation, own, callbacks_of(callbacks), progress, params, weights, change)
    with trained_alone(program):
        if out is None:
            return job.run(None)
        if training.devices == 1:  # several processes may find the first one's folder: it looks again when it writes
            check_free(as_path("out", out), overwrite)
        job.prepare()  # nothing is removed or written before all checks have passed
        return job.run(Path(out), fresh=True, overwrite=overwrite)


def callbacks_of(given: Any) -> tuple[Callback, ...]:
    """The callbacks that were given: several, or a single one."""
    try:
        found = tuple(given)
    except TypeError:  # a single one
        found = (given,)
    if not all(callable(c) for c in found):
        raise TrainingError(f"callbacks: got {shown(found)}, expected functions of a Progress.")
    return found


def _check_arguments(program: object, engine: object, params: object) -> None:
    check_program(program)
    if not isinstance(engine, Engine):
        name = engine if isinstance(engine, str) else getattr(engine, "__name__", "")
        known = {c.__name__ for c in engines_below(Engine)}
        hint = f" Write {name}(…)." if name in known else f" {nearest(name, known)}" if name else ""
        raise TrainingError(f"engine: got {shown(engine)}, expected an engine such as SVI(), or a list.{hint}")
    if isinstance(engine, Sampler):
        kind = type(engine).__name__
        raise TrainingError(f"engine: {kind} is a sampler of MonteCarloEM: MonteCarloEM(sampler={kind}(…)).")
    if params is not None and not isinstance(params, Mapping):
        raise TrainingError(f"params: got {type(params).__name__}, expected arrays by name, such as fit.params.")


def engines_below(base: type) -> list[type]:
    """Public engines, which the user may have meant."""
    below: list[type] = base.__subclasses__()
    found = [c for s in below for c in (s, *engines_below(s))]
    return [c for c in found if not issubclass(c, Sampler) and not inspect.isabstract(c)]


def _choose_backend(program: AnyProgram, backend: str | None) -> str:
    own = getattr(program, "backend", None)
    if backend is not None and not isinstance(backend, str):
        raise TrainingError(f"backend: got {shown(backend)}, expected 'numpyro' or 'pyro'.")
    if own and backend and own != backend:
        raise TrainingError(f"backend: got {backend!r}, but a plain {own} pair runs only on {own!r}.")
    return own or backend or "numpyro"
