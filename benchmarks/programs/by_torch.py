"""Loops written by hand in torch, and Pyro's own inference, on a case."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.seconds_per_step.problem import LEARNING_RATE, Contestant, Floats, Unavailable
from benchmarks.seconds_per_step.stretches import of_svi, of_torch

from .cases import Case
from .losses import log_weights
from .ops_torch import TorchOps


def by_hand(case: Case, compile: bool = False) -> Contestant:
    """A Python loop with one fused Adam; with `compile`, the loss is compiled."""
    data = torch.from_numpy(case.data).to(case.device)
    params = {n: torch.tensor(v, device=case.device, requires_grad=True) for n, v in case.first().items()}
    adam = torch.optim.Adam(params.values(), lr=LEARNING_RATE, fused=True)

    def loss_of(params: dict[str, Any], x: Any) -> Any:
        return case.by_hand(TorchOps(case.device), params, x)

    before = torch.distributions.Distribution._validate_args
    loss_of = torch.compile(loss_of, dynamic=False) if compile else loss_of
    torch.distributions.Distribution.set_default_validate_args(before)

    return of_torch(partial(loss_of, params), adam, data)


def pyro_svi(case: Case) -> Contestant:
    """Pyro's own SVI and bound (for IWAE its RenyiELBO), on the plain callables of the same program."""
    import pyro
    from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

    several = {"num_particles": case.particles, "vectorize_particles": case.particles > 1, "max_plate_nesting": 1}
    kinds: dict[str, Callable[[], Any]] = {
        "analytic": TraceMeanField_ELBO,
        "monte_carlo": partial(Trace_ELBO, **several),
        "importance": partial(RenyiELBO, alpha=0, **several),
    }
    if case.elbo not in kinds:
        raise Unavailable(case.elbo)
    model, guide = (f.to(case.device) for f in case.program.bind("pyro", case.first()))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": LEARNING_RATE}), kinds[case.elbo]())
    return of_svi(svi, torch.from_numpy(case.data).to(case.device), case.batch)


def likelihood(case: Case, chunk: int) -> Callable[[Floats, int], Floats]:
    """log p(x) of each row by k importance samples, `chunk` of them at a time."""
    ops = TorchOps(case.device)
    params = {n: torch.tensor(v, device=case.device) for n, v in case.first().items()}

    def of_rows(x: Floats, k: int) -> Floats:
        with torch.inference_mode():
            there = torch.from_numpy(x).to(case.device)
            found = [torch.logsumexp(log_weights(ops, params, there, chunk), 0) for _ in range(k // chunk)]
            return (torch.logsumexp(torch.stack(found), 0) - np.log(k)).cpu().numpy()

    return of_rows


def images(case: Case) -> Callable[[int, int], Floats]:
    """(n, seed) -> n images."""
    if (draw := case.images) is None:
        raise Unavailable("its draws are not written by hand")
    ops = TorchOps(case.device)
    params = {n: torch.tensor(v, device=case.device) for n, v in case.first().items()}

    def drawn(n: int, seed: int) -> Floats:
        torch.manual_seed(seed)
        with torch.inference_mode():
            return draw(ops, params, n).cpu().numpy()

    return drawn
