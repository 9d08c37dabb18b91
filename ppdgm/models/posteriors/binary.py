"""Binary latents: a relaxed Bernoulli, or exact enumeration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.posteriors.base import Family, Posterior
from ppdgm.models.relaxed import (
    Temperature,
    bernoulli,
    check_enumerated,
    declare_temperature,
    hardened,
    relaxed_bernoulli,
    temperature_of,
)
from ppdgm.program import Context
from ppdgm.specs import PositiveFloat


class RelaxedBernoulli(Posterior):
    """q(b|x) = Π Bern(σ(a(x))), in training relaxed to σ((a + l)/τ), l logistic.

    Maddison et al. 2016, arXiv:1611.00712. The latent is the log-odds y: in training (a + l)/τ; in every evaluation
    ±1000, which is used for ±∞. Parameters: `temperature` (scheduled) or `raw_temperature` (learned).

    Args:
        straight_through: if true, the decoder sees the bit y > 0, with the gradient of σ(y); otherwise it sees σ(y).
        temperature: τ. A number (fixed), a schedule in steps (annealed), or "learned". With the discrete KL a learned τ
            tends to rise, because draws then have less noise in training, but not in evaluation.
        min_temperature: a floor under a τ that is annealed, max(τ, floor), or learned, floor + softplus(s), 1 at the
            start.
        kl: in training, "bernoulli" uses the closed-form KL(Bern(q)‖Bern(p)) of each latent. "relaxed" uses draws for
            the KL of the relaxations, which is larger. Evaluations always use the Bernoulli.
        enumerate: sum over all 2^L joint values of L latents, exactly, also in training: no relaxation, no τ.
    """

    family: ClassVar[Family] = "binary"

    straight_through: bool = False
    temperature: Annotated[Temperature, Field()] = 0.5
    min_temperature: PositiveFloat = 0.05
    kl: Literal["bernoulli", "relaxed"] = "bernoulli"
    enumerate: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        check_enumerated(self)
        return self

    @property
    def infer(self) -> Mapping[str, object] | None:
        return {"enumerate": "parallel"} if self.enumerate else None

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not self.enumerate:
            declare_temperature(context, self.temperature, self.min_temperature)
        return shape

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        if self.enumerate:
            return bernoulli(P, head[0])
        temperature = temperature_of(P, self.temperature, self.min_temperature)
        return relaxed_bernoulli(P, head[0], temperature, closed_form=self.kl == "bernoulli")

    def code(self, P: Vocabulary, z: Array) -> Array:
        soft = P.activation("sigmoid", z)
        if not self.straight_through:
            return soft
        return hardened(P, P.xp.where(z > 0.0, P.full((), 1.0), P.full((), 0.0)), soft)
