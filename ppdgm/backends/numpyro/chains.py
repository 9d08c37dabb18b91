"""Markov chains over latents, by NumPyro's own kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from numpyro.infer import HMC, NUTS

from ppdgm.language.native import Tree
from ppdgm.language.questions import Sites
from ppdgm.language.step import Density, adapted
from ppdgm.language.vocabulary import Array


def walk(
    log_density: Density,
    start: Sites,
    key: Array,
    step_size: Array,
    num_leapfrog: int,
    moves: int,
) -> tuple[dict[str, Array], Array]:
    """Moves of Hamiltonian Monte Carlo: where they end, and the adapted step size.

    Args:
        log_density: of all latents together, a scalar.
        start: latents by name.
        key: of the draws.
        step_size: the first ε of the leapfrog.
        num_leapfrog: leapfrog steps of a move.
        moves: the number of moves.
    """
    dtype = jnp.result_type(step_size)  # NumPyro returns it in its own
    kernel = HMC(
        potential_fn=lambda z: -log_density(z), step_size=step_size, num_steps=num_leapfrog, trajectory_length=None,
        adapt_step_size=False, adapt_mass_matrix=False,
    )  # fmt: skip
    state = kernel.init(key, 0, dict(start), (), {})

    def move(_: Array, state: Tree) -> Tree:
        state = kernel.sample(state, (), {})
        step = state.adapt_state.step_size
        return state._replace(adapt_state=state.adapt_state._replace(step_size=step * adapted(state.accept_prob, jnp)))

    state = jax.lax.fori_loop(0, moves, move, state)
    return state.z, state.adapt_state.step_size.astype(dtype)


def nuts(
    log_density: Callable[[Mapping[str, Array]], Array],
    start: Mapping[str, Array],
    key: Array,
    draws: int,
    warmup: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Draws by the No-U-Turn sampler, [chains, draws, …], and its statistics. Hoffman & Gelman 2014, arXiv:1111.4246.

    Args:
        log_density: of latents by name, a scalar.
        start: latents [chains, …].
        key: of the draws.
        draws: the number in each chain, after the warm-up.
        warmup: the number of draws that adapt step size and mass, and are left out.
    """
    kernel = NUTS(potential_fn=lambda z: -log_density(z))

    def chain(key: Array, z: dict[str, Array]) -> Tree:
        step = lambda state, _: (kernel.sample(state, (), {}),) * 2
        state = kernel.init(key, warmup, z, (), {})
        state = jax.lax.fori_loop(0, warmup, lambda _, s: step(s, None)[0], state)
        return jax.lax.scan(step, state, length=draws)[1]

    found = jax.vmap(chain)(jax.random.split(key, len(next(iter(start.values())))), dict(start))
    about = {"diverging": found.diverging, "acceptance_rate": found.accept_prob, "n_steps": found.num_steps}
    return dict(found.z), {**about, "lp": -found.potential_energy}
