"""Markov chains over latents, by Pyro's own kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pyro.infer.mcmc import HMC, NUTS

from ppdgm.language.questions import Sites
from ppdgm.language.runtime import Native
from ppdgm.language.step import Density, adapted
from ppdgm.language.vocabulary import Array


def walk(
    log_density: Density, start: Sites, noise: None, step_size: Array, num_leapfrog: int, moves: int
) -> tuple[dict[str, Array], Array]:
    """Moves by Pyro's kernel, drawn from torch's generator; the arguments are those of `Step.move`."""
    with torch.enable_grad():
        kernel = HMC(potential_fn=lambda z: -log_density(z), adapt_step_size=False, adapt_mass_matrix=False)
        z = {n: v.detach() for n, v in start.items()}
        kernel.initial_params = z
        kernel.setup(0)
        for _ in range(moves):
            kernel._adapter.step_size = float(step_size)
            kernel.trajectory_length = (num_leapfrog + 0.5) * kernel.step_size  # Pyro rounds their ratio down
            kernel._mean_accept_prob, kernel._t = 0.0, 0  # so that the mean is this move's
            z = kernel.sample(z)
            step_size = step_size * adapted(torch.as_tensor(kernel._mean_accept_prob), torch)
    return {n: v.detach() for n, v in z.items()}, step_size


def nuts(
    log_density: Callable[[Mapping[str, Array]], Array], start: Native, noise: None, draws: int, warmup: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Draws of Pyro's sampler and their log-density, chain after chain; the arguments are those of `Runtime.nuts`."""
    chains = []
    for i in range(len(next(iter(start.values())))):
        with torch.enable_grad():
            kernel = NUTS(potential_fn=lambda z: -log_density(z))
            z = {n: v[i].detach() for n, v in start.items()}
            kernel.initial_params = z
            kernel.setup(warmup)
            found = []
            for step in range(warmup + draws):
                z = kernel.sample(z)
                if step >= warmup:
                    found.append({n: v.detach() for n, v in z.items()} | {"lp": log_density(z).detach()})
        chains.append({n: torch.stack([f[n] for f in found]) for n in found[0]})
    whole = {n: torch.stack([c[n] for c in chains]) for n in chains[0]}
    return {n: v for n, v in whole.items() if n != "lp"}, {"lp": whole["lp"]}
