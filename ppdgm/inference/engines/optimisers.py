"""Optimisers as specs; each backend implements them with its own library."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import model_validator

from ppdgm.errors import SpecError, nearest
from ppdgm.language.native import OwnOptimiser
from ppdgm.specs import NonNegativeFloat, PositiveFloat, Spec

OptimiserName = Literal["adam", "adamw", "adamax", "rmsprop", "sgd"]
_OF: dict[tuple[str, ...], tuple[str, ...]] = {  # optimisers that have these settings
    ("beta1", "beta2"): ("adam", "adamw", "adamax"),
    ("eps",): ("adam", "adamw", "adamax", "rmsprop"),
    ("decay",): ("rmsprop",),
    ("momentum",): ("sgd",),
    ("weight_decay",): ("adamw",),
}


class Optimiser(Spec):
    """A gradient step, by its name. The learning rate is set for the run.

    Args:
        name: "adam" (Kingma & Ba 2015, arXiv:1412.6980), "adamw", "adamax", "rmsprop" (Hinton 2012: g / (√v + ε)) or
            "sgd".
        beta1, beta2: of the Adam family.
        eps: of the Adam family and rmsprop.
        decay: of the running mean v of squares of the gradient, in rmsprop.
        momentum: of sgd.
        weight_decay: of adamw.
        clip_norm: largest norm of the whole gradient; None for no clipping.
    """

    name: OptimiserName = "adam"
    beta1: NonNegativeFloat = 0.9
    beta2: NonNegativeFloat = 0.999
    eps: PositiveFloat = 1e-8
    decay: NonNegativeFloat = 0.9
    momentum: NonNegativeFloat = 0.0
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: PositiveFloat | None = None

    @model_validator(mode="after")
    def _has_these(self) -> Self:
        fields = type(self).model_fields
        for names, of in _OF.items():
            for name in names:
                if self.name not in of and getattr(self, name) != fields[name].default:
                    raise ValueError(
                        f"{name}: is a setting of {' and '.join(of)}, but not of {self.name}. Leave it out."
                    )
        return self


def as_optimiser(value: str | Optimiser | OwnOptimiser, clip_norm: float | None) -> Optimiser | OwnOptimiser:
    """A name as an `Optimiser`; any other value is checked by the backend."""
    if isinstance(value, str):
        for name in get_args(OptimiserName):
            if name == value:
                return Optimiser(name=name, clip_norm=clip_norm)
        raise SpecError(f"optimiser: got {value!r}. {nearest(value, get_args(OptimiserName))}")
    if clip_norm is not None:
        raise SpecError(
            "clip_norm: works only with an optimiser that is given by name. Clip in your own optimiser "
            "(Optimiser(clip_norm=…), optax.clip_by_global_norm)."
        )
    return value
