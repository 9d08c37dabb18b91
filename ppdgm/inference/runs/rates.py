"""A run's learning rate that was changed when the run was resumed."""

from __future__ import annotations

from collections.abc import Mapping

from ppdgm.specs.schedules import Schedule, Switch

Rate = float | Schedule | None


def with_change(rate: float | Schedule, at: int, then: float | Schedule) -> Switch:
    """The rate up to step `at`, then another one; changes that were planned for later steps are dropped."""
    while isinstance(rate, Switch) and rate.at >= at:
        rate = rate.first
    return Switch(first=rate, at=at, then=then)


def waits(rate: Rate) -> int:
    """The step from which early stopping counts: the first validation after the last change."""
    return rate.at + 1 if isinstance(rate, Switch) else 0


def news(rate: Rate, step: int) -> list[str]:
    """What a run that begins or goes on at this step reports of its rate."""
    while isinstance(rate, Switch) and rate.at > step:
        rate = rate.first
    return [f"learning rate from step {step} on: {rate.then}"] if isinstance(rate, Switch) and rate.at == step else []


def taken(rate: object, step: int) -> object:
    """The rate of a recipe's table, as far as the first `step` steps depend on it."""
    while isinstance(rate, Mapping) and rate.get("kind") == Switch.kind() and _is_late(rate.get("at"), step):
        rate = rate.get("first")
    return rate


def _is_late(at: object, step: int) -> bool:
    return isinstance(at, int) and at >= step
