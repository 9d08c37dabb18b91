"""ppdgm's two backends: the stretch of steps inside `ppdgm.fit`."""

from collections.abc import Callable

from benchmarks.seconds_per_step.problem import Contestant, Floats
from benchmarks.seconds_per_step.stretches import of_trainer
from ppdgm.inference import Fit, Optimiser
from ppdgm.inference.engines.engine import states_of
from ppdgm.language.trainer import TrainerSettings
from ppdgm.registry import backend as load_backend

from .cases import Case


def trainer(case: Case, name: str, compile: bool = True, chunk: int | None = None) -> Contestant:
    """The stretch on a backend; `compile` is for torch, and `chunk` the number of particles read at a time."""
    backend, engine = load_backend(name), case.engine
    runtime = backend.Runtime(case.program, case.device)
    data = {"x": case.data}
    settings = TrainerSettings(
        seed=0, data_size=len(data["x"]), optimiser=Optimiser(name="adam"), metrics=("objective",), compile=compile,
        insist=compile, chunk=chunk,
    )  # fmt: skip  # insist: never in silence the eager step in place of the compiled one
    params, native = runtime.put(case.first()), runtime.put(data)
    runtime.validate(params, native, 1, 3)  # as `fit` does; torch.compile can't trace how torch first finds a KL
    made = backend.Trainer(runtime, engine, params, settings, states_of(engine, 1, ()))
    return of_trainer(made, engine, native)


def untrained(case: Case, name: str) -> Fit:
    """A result of `fit` with the first values, for evaluations and draws."""
    return Fit(case.program, case.first(), name, device=case.device)


def likelihood(case: Case, name: str) -> Callable[[Floats, int], Floats]:
    """`fit.log_likelihood`, of each row."""
    fit = untrained(case, name)
    return lambda x, k: fit.log_likelihood(x, k=k).values


def images(case: Case, name: str) -> Callable[[int, int], Floats]:
    """`fit.sample`: (n, seed) -> n images."""
    fit = untrained(case, name)
    return lambda n, seed: fit.sample(n, seed=seed)
