"""A training step beside its matrix products alone: how much of its time is anything else.

The products (and convolutions) of the loss by hand and of its gradient are read from its JAX program, and computed
alone, by JAX and by torch, on random numbers of the same shapes. Beside them: the gradient by hand without an
optimiser, the whole step by hand, and ppdgm's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.seconds_per_step.problem import Unavailable

from .cases import MAKERS, OTHER_SIZES, make
from .common import Found, Options, race, ranked, ratio, verdict, verdicts
from .contestants import STEPS, maker

TITLE = "A step beside its matrix products"
ROUNDS = 5
BATCH, STEPS_OF_TURN = 128, 20
PROGRAMS = tuple(n for n in MAKERS if n not in OTHER_SIZES)
OF_STEPS = ("jax-by-hand", "ppdgm-numpyro", "torch-by-hand", "ppdgm-pyro")
TARGETS = (("ppdgm-numpyro", "products, JAX"), ("ppdgm-pyro", "products, torch"))
Stretch = Callable[[], object]


def measure(options: Options) -> Iterator[Found]:
    """Race the products of each program with its steps."""
    programs: Found = {}
    for name in options.programs_of(PROGRAMS, ("vae",)):
        case = replace(make(name, device=options.device), batch=BATCH)
        equations, rows = products_of(case), case.rows(STEPS_OF_TURN, 1)
        alone: dict[str, Callable[[], Stretch]] = {
            "products, JAX": lambda e=equations: over_jax(e),  # type: ignore[misc]
            "products, torch": lambda e=equations: over_torch(e),  # type: ignore[misc]
            "gradient, JAX": lambda c=case, r=rows: gradient(c, r),  # type: ignore[misc]
        }
        steps = {n: (lambda n=n, c=case, r=rows: maker(STEPS[n])(c)(r)) for n in OF_STEPS}
        makers = {n: partial(_warm, make_it) for n, make_it in options.contestants_of({**alone, **steps}).items()}
        programs[name] = race(f"products {name}", makers, options.rounds_of(ROUNDS), options)
        yield {"programs": programs}


def _warm(make_it: Callable[[], Stretch]) -> tuple[Stretch, int]:
    stretch = make_it()
    stretch()
    return stretch, STEPS_OF_TURN


def page(found: Found) -> list[str]:
    """A table for each program."""
    lines = ["", f"B = {BATCH}; {STEPS_OF_TURN} steps a turn."]
    for name, program in found["programs"].items():
        lines += ["", f"### {name}: {len(program['others'])} rounds"]
        lines += ranked(program, ("products, JAX", "products, torch"), "µs/step", 1e6)
        lines += verdicts(
            line
            for mine, other in TARGETS
            for line in verdict(f"{mine} ÷ {other}", ratio(program["seconds"], mine, other), 1.5)
        )
    return lines


def products_of(case: Any) -> list[Any]:
    """The equations of the gradient's JAX program that are products or convolutions."""
    import jax
    import jax.numpy as jnp

    from .ops_jax import JaxOps

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
    """All products of a step, `STEPS_OF_TURN` times."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    made = [[rng.normal(size=v.aval.shape).astype(np.float32) for v in e.invars] for e in equations]
    inputs = jax.device_put(made)
    together = jax.jit(lambda each: [e.primitive.bind(*a, **e.params) for e, a in zip(equations, each, strict=True)])

    def stretch() -> object:
        for _ in range(STEPS_OF_TURN):
            last = jax.block_until_ready(together(inputs))
        return last

    return stretch


def over_torch(equations: list[Any]) -> Callable[[], object]:
    """The same with torch, if all are plain matrix products."""
    import torch

    if any(e.primitive.name != "dot_general" or e.params["dimension_numbers"][1][0] for e in equations):
        raise Unavailable("not all are plain matrix products")
    calls = []
    for e in equations:
        a, b = (torch.randn(v.aval.shape) for v in e.invars)
        left, right = e.params["dimension_numbers"][0]
        calls.append(partial(torch.tensordot, a, b, dims=(list(left), list(right))))

    def stretch() -> object:
        with torch.no_grad():
            for _ in range(STEPS_OF_TURN):
                last = [call() for call in calls]
        return last

    return stretch


def gradient(case: Any, rows: Any) -> Callable[[], object]:
    """The loss by hand and its gradient in a jitted scan, without an optimiser."""
    import jax
    import jax.numpy as jnp

    from .ops_jax import JaxOps

    data, there = jnp.asarray(case.data), jnp.asarray(rows, jnp.int32)

    def step(state: Any, row: Any) -> Any:
        params, key = state
        key, own = jax.random.split(key)
        loss, slope = jax.value_and_grad(lambda p: case.by_hand(JaxOps(own), p, data[row]))(params)
        return ({n: v - 1e-6 * slope[n] for n, v in params.items()}, key), loss

    run = jax.jit(lambda state: jax.lax.scan(step, state, there))
    state = {n: jnp.array(v) for n, v in case.first().items()}, jax.random.key(0)
    return lambda: jax.block_until_ready(run(state))
