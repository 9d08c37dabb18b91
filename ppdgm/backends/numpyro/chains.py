"""Markov chains over latents, by NumPyro's own kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from numpyro.infer import HMC, NUTS

from ppdgm.language.native import Tree
from ppdgm.language.questions import Sites
from ppdgm.language.runtime import Native
from ppdgm.language.step import Density, adapted
from ppdgm.language.vocabulary import Array


def walk(
    log_density: Density, start: Sites, noise: Array, step_size: Array, num_leapfrog: int, moves: int
) -> tuple[dict[str, Array], Array]:
    """Moves by NumPyro's kernel; the arguments are those of `Step.move`."""
    dtype = jnp.result_type(step_size)  # NumPyro returns it in its own
    kernel = HMC(
        potential_fn=lambda z: -log_density(z), step_size=step_size, num_steps=num_leapfrog, trajectory_length=None,
        adapt_step_size=False, adapt_mass_matrix=False,
    )  # fmt: skip
    state = kernel.init(noise, 0, dict(start), (), {})

    def move(_: Array, state: Tree) -> Tree:
        state = kernel.sample(state, (), {})
        step = state.adapt_state.step_size
        return state._replace(adapt_state=state.adapt_state._replace(step_size=step * adapted(state.accept_prob, jnp)))

    state = jax.lax.fori_loop(0, moves, move, state)
    return state.z, state.adapt_state.step_size.astype(dtype)


def nuts(
    log_density: Callable[[Mapping[str, Array]], Array], start: Native, noise: Array, draws: int, warmup: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Draws and statistics of NumPyro's sampler, of all chains at once; the arguments are those of `Runtime.nuts`."""
    kernel = NUTS(potential_fn=lambda z: -log_density(z))

    def chain(key: Array, z: dict[str, Array]) -> Tree:
        step = lambda state, _: (kernel.sample(state, (), {}),) * 2
        state = kernel.init(key, warmup, z, (), {})
        state = jax.lax.fori_loop(0, warmup, lambda _, s: step(s, None)[0], state)
        return jax.lax.scan(step, state, length=draws)[1]

    found = jax.vmap(chain)(jax.random.split(noise, len(next(iter(start.values())))), dict(start))
    about = {"diverging": found.diverging, "acceptance_rate": found.accept_prob, "n_steps": found.num_steps}
    return dict(found.z), {**about, "lp": -found.potential_energy}
