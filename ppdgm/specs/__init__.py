"""Specs: immutable, validated records that describe programs, parts, nets, engines and schedules."""

from ppdgm.specs.kinds import Kind, Table, find_kind, known_specs, own_classes
from ppdgm.specs.schedules import (
    Constant,
    Cosine,
    Cyclical,
    Exponential,
    Linear,
    Schedule,
    Sigmoid,
    Switch,
    as_schedule,
)
from ppdgm.specs.spec import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Shape,
    Spec,
    adopt,
)
from ppdgm.specs.wording import with_article

__all__ = [
    "Constant",
    "Cosine",
    "Cyclical",
    "Exponential",
    "Kind",
    "Linear",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "Schedule",
    "Shape",
    "Sigmoid",
    "Spec",
    "Switch",
    "Table",
    "adopt",
    "as_schedule",
    "find_kind",
    "known_specs",
    "own_classes",
    "with_article",
]
