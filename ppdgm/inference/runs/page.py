"""The contents of a checkpoint besides its arrays, as a spec: a page that is not valid is refused when it is opened."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ppdgm.errors import CheckpointError, shown
from ppdgm.inference.runs.settings import MOST_STEPS

if TYPE_CHECKING:
    from ppdgm.specs import Table

Count = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Number = Annotated[float, Field(allow_inf_nan=True)]  # a bound may be −∞
Stopped = Literal["done", "running", "early stopping", "interrupted", "callback", "not finite", "diverged", "failed"]


def _table(value: dict[str, Any]) -> dict[str, Any]:
    """Tables that are read before the whole recipe; their contents are checked there."""
    for name in ("program", "training"):
        if not isinstance(value.get(name), dict):
            raise ValueError(f"a recipe with a table [{name}]")
    if not isinstance(value["program"].get("kind"), str):
        raise ValueError("a recipe whose program has a kind")
    return value


class _Record(BaseModel):
    """Other keys are facts of other versions, and nothing depends on them."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class ControllerPage(_Record):
    """State of the phase controller of an engine."""

    aggressive: bool
    turn: Annotated[int, Field(ge=0, le=2)]
    taken: Count
    window: list[Number]
    before: Number | None
    theta: Count
    information: list[Number]


class ValidationPage(_Record):
    """State of the validation."""

    steps: list[Count]
    values: list[Number]
    best: Number
    waited: Count
    name: str = "elbo"  # pages of runs that watch the ELBO may have neither
    smaller: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.steps) != len(self.values) or not _ascend(self.steps) or self.waited > len(self.steps):
            raise ValueError("a value for each step of a validation, in order")
        best, worst = (min, math.inf) if self.smaller else (max, -math.inf)
        if self.best != best((v for v in self.values if not math.isnan(v)), default=worst):
            raise ValueError("the best of its values")
        return self


class MonitorPage(_Record):
    """State of the measurements of latents."""

    steps: list[Count]
    values: dict[str, list[Number]]
    seconds: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not _ascend(self.steps) or any(len(v) > len(self.steps) for v in self.values.values()):
            raise ValueError("a value for each of its steps, in order")
        return self


class ColumnPage(_Record):
    """The meaning of a column of a mixed table."""

    name: str
    kind: str
    classes: list[str]
    text: bool
    origin: str
    whole: bool


class TransformPage(_Record):
    """How raw numbers were converted to x; its arrays are saved beside it."""

    kind: Literal["none", "unit", "levels", "standardise", "table"]
    divisor: Annotated[float, Field(gt=0)]
    columns: list[str] = []
    binarise: Literal["none", "threshold", "static", "dynamic"] = "none"
    seed: Count = 0
    whole: bool = False
    level: Annotated[float, Field(ge=0)] = 0.0
    table: list[ColumnPage] = []
    library: str = ""
    channels: Literal["first", "last"] = "first"


class ClassesPage(_Record):
    """Names of the classes of a field."""

    names: list[str]
    text: bool = True
    columns: list[str] = []


class Page(_Record):
    """The contents of a run's result and of each of its checkpoints."""

    recipe: Annotated[dict[str, Any], AfterValidator(_table)]
    step: Count
    stopped: Stopped
    skipped: list[Count]
    steps: Count | None = None
    data_size: Annotated[int, Field(ge=1, le=2**63)] | None = None
    fields: Annotated[list[str], Field(min_length=1)] | None = None
    shapes: dict[str, list[Count]] | None = None
    fingerprint: str | None = None
    held_out: str | None = None
    weights: str | None = None
    dimensions: Count | None = None
    compile: bool | None = None
    in_a_row: Count = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    versions: dict[str, str] | None = None
    # Files keep these three keys, which are older than the names of the classes.
    director: ControllerPage | None = None
    watch: ValidationPage | None = None
    live: MonitorPage | None = None
    transform: TransformPage | None = None
    classes: dict[str, ClassesPage] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not _ascend(self.skipped) or any(s >= self.step for s in self.skipped):
            raise ValueError("steps in 'skipped' that were taken, in order")
        if self.in_a_row > len(self.skipped):
            raise ValueError("an 'in_a_row' of at most the number of skipped steps")
        looked = [*(self.watch.steps if self.watch else []), *(self.live.steps if self.live else [])]
        if any(s > self.step for s in looked):
            raise ValueError("steps in 'watch' and 'live' that were taken")
        return self


class Resumable(Page):
    """What a checkpoint must contain so that training can go on from it."""

    data_size: Annotated[int, Field(ge=1, le=2**63)]
    fields: Annotated[list[str], Field(min_length=1)]
    fingerprint: str
    compile: bool
    in_a_row: Count
    seconds: Annotated[float, Field(ge=0)]
    director: ControllerPage | None
    watch: ValidationPage | None


def check_page(page: Table, file: object, resumable: bool = False) -> Table:
    """The page, if it is valid.

    Args:
        page: from JSON.
        file: where it comes from, for the message.
        resumable: whether training will go on from it.

    Raises:
        CheckpointError: with the name of the first field that is wrong.
    """
    try:
        (Resumable if resumable else Page).model_validate(page)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "missing":
            raise CheckpointError(f"{file} is not a checkpoint of a run: it has no {where!r}.") from None
        expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        got = f"{where}: got {shown(detail['input'])}, " if where else ""
        raise CheckpointError(f"{file} is not a checkpoint of a run: {got}expected {expected}.") from None
    return page


def _ascend(steps: list[int]) -> bool:
    return all(a < b for a, b in pairwise(steps))
