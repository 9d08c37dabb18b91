"""Flows: invertible maps with a tractable Jacobian, of which flow posteriors and priors are made."""

from ppdgm.models.flows.base import Flow

__all__ = ["Flow"]
