"""What the training loop sees: objectives and gradients of minibatches, averaged over epochs at one point."""

import numpy as np
from readings import RUNTIMES

from ppdgm.inference import Optimiser
from ppdgm.inference.batches import Batches, Plan
from ppdgm.registry import backend as load_backend

RATE = 1e-8  # steps so small that the parameters stay where they are, to 1e-4


def measure_steps(program, params, x, engine, backend, batch_size, seed=0, epochs=20, repeats=25):
    """(objectives [S], gradients {name: [S, *shape]}): S averages, each over so many epochs of the loop's own steps.

    The gradient is read off as the way that plain gradient steps went. In float64.
    """
    runtime = RUNTIMES[backend](program, "cpu")
    data = runtime.put({"x": x})
    trainer = load_backend(backend).Trainer(runtime, engine, Optimiser(name="sgd"), runtime.put(params), seed, len(x))
    batches = Batches(len(x), batch_size, seed)
    steps = epochs * batches.per_epoch
    objectives, gradients, before = [], {n: [] for n in params}, params
    for repeat in range(repeats):
        index, weight = batches.rows(repeat * steps, steps, steps)
        knobs = engine.knobs(np.arange(steps))
        plan = Plan(index, weight, np.full(steps, RATE, np.float32), knobs, repeat * steps, steps)
        objectives.append(trainer.run(plan, data)["objective"].mean(dtype=float))
        after = trainer.values()
        for name, found in gradients.items():
            found.append((after[name] - before[name]) / (RATE * steps))
        before = after
    return np.array(objectives), {n: np.array(g) for n, g in gradients.items()}
