"""Stochastic variational inference: the ELBO, maximised by pathwise gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ppdgm.errors import ProgramError
from ppdgm.inference import bounds
from ppdgm.inference.engine import Engine
from ppdgm.language import Array, Trace
from ppdgm.schedules import Schedule, as_schedule
from ppdgm.spec import NonNegativeFloat, PositiveInt


class SVI(Engine):
    """Maximise E_q[log p(x, z) − β (log q(z|x) − log p(z))], averaged over K particles and the minibatch.

    Kingma & Welling 2014, arXiv:1312.6114. What is reported as `elbo` has β = 1, whatever is trained.

    Args:
        k: K, particles per datum.
        kl: "auto" takes the closed form of a latent's KL where there is one and it is valid, "monte_carlo" never
            does, "analytic" refuses a program where it does not hold for every latent.
        beta: weight of the KL, a number or a schedule in steps (Higgins et al. 2017).

    Raises:
        ProgramError: in training, where kl="analytic" and a latent has no closed form that holds.
    """

    k: PositiveInt = 1
    kl: Literal["auto", "monte_carlo", "analytic"] = "auto"
    beta: NonNegativeFloat | Schedule = 1.0

    @property
    def particles(self) -> int:
        return self.k

    @property
    def wants_kl(self) -> bool:
        return self.kl != "monte_carlo"

    def knobs(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        return {"beta": as_schedule(self.beta)(steps).astype(np.float32)}

    def schedules(self) -> dict[str, Schedule]:
        return {"beta": as_schedule(self.beta)}

    def __call__(
        self, trace: Trace, xp: Any, weights: Array, knobs: Mapping[str, Array], data_size: int | None
    ) -> dict[str, Array]:
        if self.kl == "analytic" and (without := [n for n in trace.log_q if n not in trace.kl]):
            raise ProgramError(
                f"Site {without[0]!r} has no closed-form KL that holds here. Use SVI(kl='auto') or kl='monte_carlo'."
            )
        if trace.shared and not data_size:
            raise ProgramError(
                f"Site {next(iter(trace.shared))!r} is one latent for all data: its weight against the data's terms "
                "depends on N. Give data_size=N."
            )
        total = xp.sum(weights)
        per_datum = lambda terms: xp.sum(xp.mean(terms, axis=0) * weights) / total
        seen, kl = bounds.reconstruction(trace, xp), bounds.kl(trace, xp)
        once, size = bounds.shared_kl(trace, xp), data_size or 1
        seen = per_datum(seen) + (bounds.shared(trace, xp) + once) / size
        kl = per_datum(kl) + once / size
        objective = seen - knobs["beta"] * kl
        if trace.penalties:
            objective = objective - per_datum(bounds.penalties(trace, xp) + 0.0 * weights[None])
        return {"objective": objective, "elbo": seen - kl, "kl": kl}
