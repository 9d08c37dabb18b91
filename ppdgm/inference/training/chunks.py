"""Whether a step's particles can be read in chunks: the step must be the one of all particles at once."""

from __future__ import annotations

from ppdgm.errors import TrainingError
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.stray_noise import noise_of
from ppdgm.inference.runs.settings import Training
from ppdgm.language.chunks import refuse_chunks
from ppdgm.language.runtime import Native, Runtime


def why_not_again(training: Training) -> str:
    """Why torch.compile can't compile the steps of a run that computes something again; "" if it does not."""
    if training.particle_chunk:
        return "torch.compile can't compile particles that are read in chunks"
    return "torch.compile would keep what rematerialise=True computes again" if training.rematerialise else ""


def check_chunk(chunk: int, particles: int) -> None:
    """Refuse a chunk that no step would divide its particles into.

    Args:
        chunk: the number of particles that are read at a time.
        particles: the largest K of the engine's phases; 0 if none runs the guide and the model.

    Raises:
        TrainingError: with the number of particles.
    """
    if not particles:
        raise TrainingError(
            "particle_chunk: is for draws of the guide, and this engine takes none, so it would change nothing. Leave "
            "it out."
        )
    if chunk >= particles:
        remedy = "Leave it out" if particles == 1 else f"Give at most {particles - 1}, or leave it out"
        raise TrainingError(
            f"particle_chunk: got {chunk}, but the engine's number of particles is {particles}, so it would change "
            f"nothing. {remedy}."
        )


def check_reading(runtime: Runtime, params: Native, stirred: Native, feed: Feed, data: Native, rows: int) -> None:
    """Refuse chunks if what is read of one chunk depends on the others.

    Args:
        runtime: of the program.
        params: first values.
        stirred: first values without zeros.
        feed: of the data.
        data: on the device, of at least `rows` rows.
        rows: the number of rows to read.

    Raises:
        TrainingError: with what depends on them.
    """
    if (statistics := runtime.batch_statistics(params, data, rows)) is not None:
        refuse_chunks(f"{statistics}, and would see one chunk of the particles at a time")
    noise = noise_of(runtime, stirred, feed) or runtime.noise_in_training(params, data, rows)
    if noise:
        refuse_chunks(
            "the program draws random numbers outside its sample sites, which all particles may share, and each chunk "
            "would draw its own"
        )
