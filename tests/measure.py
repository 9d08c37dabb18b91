"""What the training loop sees: objectives and gradients of minibatches, averaged over epochs at one point."""

import numpy as np
import optax
import torch
from readings import RUNTIMES
from trainers import make_plan, make_trainer

from ppdgm.inference import Optimiser
from ppdgm.inference.engines.engine import Composite, Engine, states_of
from ppdgm.inference.inputs.batches import Batches
from ppdgm.language.step import OWN

RATE = 1e-8  # steps so small that the parameters stay where they are, to 1e-4 (over thousands of steps)
BASELINE_RATE = 0.05


def measure_steps(program, params, x, engine, backend, batch_size, seed=0, epochs=20, repeats=25):
    """(objectives [S], gradients {name: [S, *shape]}): S averages, each over so many epochs of the loop's own steps.

    The gradient is read off as the way that plain gradient steps went. In float64.
    """
    runtime = RUNTIMES[backend](program, "cpu")
    data = runtime.put({"x": x})
    trainer = make_trainer(runtime, engine, runtime.put(params), seed, len(x), Optimiser(name="sgd"))
    batches = Batches(len(x), batch_size, seed)
    steps = epochs * batches.per_epoch
    objectives, gradients, before = [], {n: [] for n in params}, params
    for repeat in range(repeats):
        index, weight = batches.rows(repeat * steps, steps, steps)
        plan = make_plan(engine, index, weight, np.full(steps, RATE, np.float32), repeat * steps, steps)
        objectives.append(trainer.run(plan, data)["objective"].mean(dtype=float))
        after = trainer.values()
        for name, found in gradients.items():
            found.append((after[name] - before[name]) / (RATE * steps))
        before = after
    return np.array(objectives), {n: np.array(g) for n, g in gradients.items()}


class InTurn(Composite):
    """Several engines, each a phase of one trainer, so that JAX compiles them at once."""

    engines: tuple[Engine, ...]

    def phases(self):
        return tuple(phase for engine in self.engines for phase in engine.phases())


def sample_gradients(program, params, x, engines, backend, copies=1000, skip=0, scored=(), seed=0):
    """{key: {name: [S, *shape]}} for engines {key: (engine, S)}.

    A sample is the gradient that one step of the loop saw: the mean over so many copies of x. In float64. What an
    engine learns for itself (a baseline) moves at a rate of its own, for `skip` steps before its samples count.
    """
    turn = InTurn(engines=tuple(engine for engine, _ in engines.values()))
    runtime = RUNTIMES[backend](program, "cpu")
    data, state = runtime.put({"x": x}), states_of(turn, x[0].size, scored)
    optimiser = _optimiser(backend, sum(s.label is not None for s in state.values()))
    trainer = make_trainer(runtime, turn, runtime.put(params), seed, len(x), optimiser, state)
    index = np.resize(np.arange(len(x), dtype=np.int32), (1, copies * len(x)))
    first, before, found = 0, params, {}
    for phase, (key, (_, size)) in enumerate(engines.items()):
        found[key] = {n: [] for n in params}
        unseen = skip if turn.engines[phase].state(1, scored) else 0
        for i in range(unseen + size):
            ones, rate = np.ones(index.shape, np.float32), np.ones(1, np.float32)
            where = make_plan(turn, index, ones, rate, first, 1, np.array([phase]))
            trainer.run(where, data)
            after, first = trainer.values(), first + 1
            for name, samples in found[key].items() if i >= unseen else ():
                samples.append((after[name] - before[name]) / RATE)
            before = after
    return {key: {n: np.array(g) for n, g in samples.items()} for key, samples in found.items()}


def _optimiser(backend, learned):
    """Plain gradient steps at RATE, and at BASELINE_RATE for the engine's own parameters, which are the last ones."""
    if backend == "numpyro":
        rate = lambda name: BASELINE_RATE if name.startswith(OWN) else RATE
        return optax.stateless(lambda g, _: {n: -rate(n) * v for n, v in g.items()})
    parts = lambda p: [(p[: len(p) - learned], RATE), (p[len(p) - learned :], BASELINE_RATE)]
    return lambda params: torch.optim.SGD([{"params": p, "lr": rate} for p, rate in parts(params) if p])
