"""A training step beside its matrix products alone: how much of its time is anything else.

    python -m benchmarks.programs.products [PROGRAM …] [--batch 128] [--rounds 9] [--json FILE]

The products (and convolutions) of the loss by hand and of its gradient are read from its JAX program, and computed
alone, by JAX and by torch, on random numbers of the same shapes. Beside them: the gradient by hand without an
optimiser, the whole step by hand, and ppdgm's. All take turns, in shuffled order; a ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.seconds_per_step.machine import BusyMachine, Watch, describe, pin, refuse_if_busy

STEPS = 20
NAMES = ("products, JAX", "gradient, JAX", "step by hand, JAX", "ppdgm, NumPyro")
TORCH = ("products, torch", "step by hand, torch", "ppdgm, Pyro")


def main() -> int:
    """Measure, print the table, and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.programs.products", description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    arguments = parser.parse_args()
    pin(2)
    watch = Watch()
    time.sleep(0.5)
    try:
        if not arguments.force:
            refuse_if_busy(watch.others(), "before the run")
    except BusyMachine as busy:
        print(busy, file=sys.stderr)
        return 2
    from .cases import CASES

    found = {}
    for name in arguments.programs or CASES:
        found[name] = measured(replace(CASES[name], batch=arguments.batch), arguments.rounds)
        print("\n".join(lines(name, found[name])), flush=True)
    if arguments.json:
        record = {"machine": describe(), "batch": arguments.batch, "seconds_per_step": found}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def lines(name: str, seconds: dict[str, list[float]]) -> Iterator[str]:
    """A line for each contestant: µs a step, and how often its library's products (or JAX's) fit into it."""
    import numpy as np

    for names in (NAMES, TORCH):
        alone = np.array(seconds.get(names[0], seconds[NAMES[0]]))
        for contestant in (n for n in names if n in seconds):
            took = np.array(seconds[contestant])
            yield f"{name:14} {contestant:20} {np.median(took) * 1e6:8.0f} µs  × {np.median(took / alone):.2f}"


def measured(case: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds per step of each, in every round."""
    import numpy as np

    from .loops import jax_by_hand, ppdgm_trainer, torch_by_hand

    rows, equations = case.rows(STEPS, 1), products_of(case)
    stretches: dict[str, Callable[[], object]] = {
        "products, JAX": over_jax(equations),
        "gradient, JAX": gradient(case, rows),
        "step by hand, JAX": jax_by_hand(case)(rows),
        "ppdgm, NumPyro": ppdgm_trainer(case, "numpyro")(rows),
        "step by hand, torch": torch_by_hand(case)(rows),
        "ppdgm, Pyro": ppdgm_trainer(case, "pyro")(rows),
    }
    if (alone := over_torch(equations)) is not None:
        stretches["products, torch"] = alone
    for stretch in stretches.values():
        stretch()
    taken: dict[str, list[float]] = {name: [] for name in stretches}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(stretches)):
            started = time.perf_counter()
            stretches[name]()
            taken[name].append((time.perf_counter() - started) / STEPS)
    return taken


def products_of(case: Any) -> list[Any]:
    """The equations of the gradient's JAX program that are products or convolutions."""
    import jax
    import jax.numpy as jnp

    from .ops import JaxOps

    params = {n: jnp.asarray(v) for n, v in case.first().items()}
    slope = jax.grad(lambda p, x: case.by_hand(JaxOps(jax.random.key(0)), p, x))

    def inside(jaxpr: Any) -> Iterator[Any]:
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("dot_general", "conv_general_dilated"):
                yield equation
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from inside(inner)

    return list(inside(jax.make_jaxpr(slope)(params, jnp.asarray(case.data[: case.batch])).jaxpr))


def over_jax(equations: list[Any]) -> Callable[[], object]:
    """All products of a step, `STEPS` times."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    made = [[rng.normal(size=v.aval.shape).astype(np.float32) for v in e.invars] for e in equations]
    inputs = jax.device_put(made)
    together = jax.jit(lambda each: [e.primitive.bind(*a, **e.params) for e, a in zip(equations, each, strict=True)])

    def stretch() -> object:
        for _ in range(STEPS):
            last = jax.block_until_ready(together(inputs))
        return last

    return stretch


def over_torch(equations: list[Any]) -> Callable[[], object] | None:
    """The same with torch, if all are plain matrix products."""
    import torch

    if any(e.primitive.name != "dot_general" or e.params["dimension_numbers"][1][0] for e in equations):
        return None
    calls = []
    for e in equations:
        a, b = (torch.randn(v.aval.shape) for v in e.invars)
        left, right = e.params["dimension_numbers"][0]
        calls.append(partial(torch.tensordot, a, b, dims=(list(left), list(right))))

    def stretch() -> object:
        with torch.no_grad():
            for _ in range(STEPS):
                last = [call() for call in calls]
        return last

    return stretch


def gradient(case: Any, rows: Any) -> Callable[[], object]:
    """The loss by hand and its gradient in a jitted scan, without an optimiser."""
    import jax
    import jax.numpy as jnp

    from .ops import JaxOps

    data, there = jnp.asarray(case.data), jnp.asarray(rows, jnp.int32)

    def step(state: Any, row: Any) -> Any:
        params, key = state
        key, own = jax.random.split(key)
        loss, slope = jax.value_and_grad(lambda p: case.by_hand(JaxOps(own), p, data[row]))(params)
        return ({n: v - 1e-6 * slope[n] for n, v in params.items()}, key), loss

    run = jax.jit(lambda state: jax.lax.scan(step, state, there))
    state = {n: jnp.array(v) for n, v in case.first().items()}, jax.random.key(0)
    return lambda: jax.block_until_ready(run(state))


if __name__ == "__main__":
    sys.exit(main())
