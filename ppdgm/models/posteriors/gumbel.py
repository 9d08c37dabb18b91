"""Categorical latents: Gumbel-softmax, or exact enumeration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.posteriors.base import Family, Posterior
from ppdgm.models.relaxed import (
    Temperature,
    categorical,
    check_enumerated,
    declare_temperature,
    hardened,
    relaxed_categorical,
    temperature_of,
)
from ppdgm.program import Context, normal
from ppdgm.specs import PositiveFloat, PositiveInt


class GumbelSoftmax(Posterior):
    """q(c|x) = Π Cat(π(x)), in training relaxed to softmax((log π + g)/τ), g Gumbel.

    Jang et al. 2016, arXiv:1611.01144. The latent is the log-simplex y, [*latent, C]: in training
    log softmax((log π + g)/τ), with the density of Maddison et al. 2016, arXiv:1611.00712; in every evaluation a log
    one-hot vector. Parameters: `codebook` [C, E], `temperature` (scheduled) or `raw_temperature` (learned).

    Args:
        classes: C, the number of classes of each latent.
        embedding: E. The decoder sees Σ_k c_k e_k of each latent, [E, *latent] like an image's channels, from one
            codebook for all latents. None: it sees the vectors c themselves, [C, *latent].
        straight_through: if true, the decoder sees the one-hot vector of the largest c_k, with the gradient of c.
        temperature: τ. A number (fixed), a schedule in steps (annealed), or "learned". With the discrete KL a learned τ
            tends to rise, because draws then have less noise in training, but not in evaluation.
        min_temperature: a floor under a τ that is annealed, max(τ, floor), or learned, floor + softplus(s), 1 at the
            start.
        kl: in training, "categorical" uses the closed-form KL(Cat(q)‖Cat(p)) of each latent (Jang et al.). "relaxed"
            uses draws for the KL of the relaxations (Maddison et al.), which is larger. Evaluations always use the
            categorical.
        enumerate: sum over all C^L joint values of L latents, exactly, also in training: no relaxation, no τ.
    """

    family: ClassVar[Family] = "categorical"

    classes: Annotated[int, Field(ge=2)] = 10
    embedding: PositiveInt | None = None
    straight_through: bool = False
    temperature: Annotated[Temperature, Field()] = 0.5
    min_temperature: PositiveFloat = 0.05
    kl: Literal["categorical", "relaxed"] = "categorical"
    enumerate: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        check_enumerated(self)
        return self

    @property
    def infer(self) -> Mapping[str, object] | None:
        return {"enumerate": "parallel"} if self.enumerate else None

    def variable(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        return (*latent, self.classes)

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.embedding is not None:
            context.param("codebook", (self.classes, self.embedding), normal(1.0), label="model")
        if not self.enumerate:
            declare_temperature(context, self.temperature, self.min_temperature)
        return shape

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        if self.enumerate:
            return categorical(P, head[0])
        temperature = temperature_of(P, self.temperature, self.min_temperature)
        return relaxed_categorical(P, head[0], temperature, closed_form=self.kl == "categorical")

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.embedding or self.classes, *shape[:-1])

    def code(self, P: Vocabulary, z: Array) -> Array:
        P, chosen = P.scope(self.role), P.xp.exp(z)
        if self.straight_through:
            chosen = hardened(P, P.one_hot(P.xp.argmax(z, axis=-1), self.classes), chosen)
        if self.embedding is not None:
            chosen = chosen @ P.param("codebook")
        return P.xp.moveaxis(chosen, -1, -len(P.shape))
