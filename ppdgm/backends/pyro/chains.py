"""Markov chains over latents, by Pyro's own kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pyro.infer.mcmc import HMC

from ppdgm.language import Array
from ppdgm.tracing import adapted


def walk(
    log_density: Callable[[Mapping[str, Array]], Array],
    start: Mapping[str, Array],
    step_size: Array,
    leaps: int,
    moves: int,
) -> tuple[dict[str, Array], Array]:
    """Moves of Hamiltonian Monte Carlo, drawn from torch's generator: where they end, and the adapted step size.

    Args:
        log_density: of all latents together, a scalar.
        start: latents by name.
        step_size: ε of the leapfrog at first.
        leaps: of a move.
        moves: how many.
    """
    with torch.enable_grad():
        kernel = HMC(potential_fn=lambda z: -log_density(z), adapt_step_size=False, adapt_mass_matrix=False)
        z = {n: v.detach() for n, v in start.items()}
        kernel.initial_params = z
        kernel.setup(0)
        for _ in range(moves):
            kernel._adapter.step_size = float(step_size)
            kernel.trajectory_length = (leaps + 0.5) * kernel.step_size  # Pyro rounds their ratio down
            kernel._mean_accept_prob, kernel._t = 0.0, 0  # so that the mean is this move's
            z = kernel.sample(z)
            step_size = step_size * adapted(torch.as_tensor(kernel._mean_accept_prob), torch)
    return {n: v.detach() for n, v in z.items()}, step_size
