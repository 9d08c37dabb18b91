"""The likelihood of a table: columns of different kinds, some of whose entries are missing."""

from __future__ import annotations

from functools import cached_property
from math import expm1, log
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods import table_families as families
from ppdgm.models.likelihoods.base import Likelihood, refuse
from ppdgm.models.likelihoods.table_columns import (
    CONTINUOUS,
    WITH_LEVELS,
    ColumnBlock,
    ColumnKind,
    column_blocks,
    outputs_of,
    read_kind,
    slices_of,
)
from ppdgm.models.likelihoods.table_start import cut_points, location_and_scale
from ppdgm.nets.base import lead
from ppdgm.program import Context, constant
from ppdgm.specs import PositiveFloat


class Table(Likelihood):
    """p(x|z) = Π_d p_d(x_d|z): a table, each of whose columns has its own kind; entries that are NaN are missing.

    A missing entry has the term 0, in training and in every report: log p(x) is that of the observed entries, whatever
    pattern they have. It is the density of the numbers in their own units: days for a date. Encoders see standardised
    numbers, one-hot categories, 0 for what is missing, and for each entry whether it is there. Nazabal et al. 2020,
    "HI-VAE", arXiv:1807.03653; Mattei & Frellsen 2019, "MIWAE", arXiv:1812.02633.

    Kinds, with outputs h of the decoder, and m and s the mean and the standard deviation of a column's observed entries
    when training began (states `loc` and `scale`, which are saved with the run):

    - "real" and "date" (days): N(m + s h, (s σ)²);
    - "positive": log x ~ N(m + s h, (s σ)²), with m and s those of log x;
    - "count" and "poisson": negative binomial with inverse dispersion θ, or Poisson, of mean exp(m + h), with m that of
      log(1 + x);
    - "binary": 0 or 1, Bernoulli with logit h;
    - "ordinal(K)": 0, …, K − 1, P(x ≤ k) = sigmoid(c_k − h), with learned cut points;
    - "categorical(K)": 0, …, K − 1, softmax of K outputs.

    `mean`, for reconstructions, is the mean; of a categorical column it is the most probable class.

    Args:
        columns: the kind of each column, in order. A name may come first: "age: count". `fit` finds the kinds of all
            columns, or of those that are not named, from the data; see `ppdgm.data.learn_columns` for the rules.
        scale: σ and θ: "per_dimension", a parameter for each column, or "network", from the decoder.
        min_scale: a floor under σ and θ: floor + softplus(s), 1 at the start.
    """

    mean_is_a_point: ClassVar[bool] = True
    missing: ClassVar[bool] = True

    columns: tuple[Annotated[str, AfterValidator(lambda text: str(read_kind(text)))], ...] = ()
    scale: Literal["per_dimension", "network"] = "per_dimension"
    min_scale: PositiveFloat = 1e-3

    @cached_property
    def kinds(self) -> tuple[ColumnKind, ...]:
        """The columns' kinds."""
        return tuple(map(read_kind, self.columns))

    @cached_property
    def blocks(self) -> list[ColumnBlock]:
        """The columns, by family."""
        return column_blocks(self.kinds, self.scale == "network")

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape != (len(self.columns),) or any(k.kind in WITH_LEVELS and not k.levels for k in self.kinds):
            raise SpecError(
                f"Table.columns: got {', '.join(self.columns) or 'nothing'}; expected a kind for each number of a row "
                f"of shape {shape}, with levels, such as columns=('real', 'count', 'categorical(3)'). "
                "fit(program, data) finds them in the data, if the program's event_shape is that of the data."
            )
        context.state("loc", shape, lambda *given: location_and_scale(self.kinds, given[-1])[0])
        context.state("scale", shape, lambda *given: location_and_scale(self.kinds, given[-1])[1])
        for i, block in enumerate(self.blocks):
            one = constant(log(expm1(max(1.0 - self.min_scale, 1e-3))))  # softplus⁻¹
            if self.scale == "per_dimension" and block.kind in (*CONTINUOUS, "count"):
                context.param(f"blocks.{i}.raw_scale", (len(block.columns),), one)
            if block.kind == "ordinal":
                cuts = (len(block.columns), block.levels - 1)
                context.param(f"blocks.{i}.cuts", cuts, lambda *given, block=block: cut_points(block, given[-1]))
        return (sum(outputs_of(k, self.scale == "network") for k in self.kinds),)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, event = P.xp, P.shape
        parts = [self._family(P, i, block, head[0]) for i, block in enumerate(self.blocks)]
        order = np.argsort([c for block in self.blocks for c in block.columns])

        def log_prob(x: Array) -> Array:
            there, total = ~xp.isnan(x), 0.0
            for block, family in zip(self.blocks, parts, strict=True):
                known = _take(P, there, block.columns)
                safe = xp.where(known, _take(P, x, block.columns), 1.0)  # which each family has: no NaN in gradients
                total = total + xp.sum(xp.where(known, family.log_prob(safe), 0.0), axis=-1)
            return total

        def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, None]:
            drawn = [f.sample(random, (*batch, len(b.columns))) for b, f in zip(self.blocks, parts, strict=True)]
            return _take(P, P.concat(drawn), order), None

        def mean() -> Array:
            return _take(P, P.concat([f.mean() for f in parts]), order)

        batch = lead(head[0], head[0].shape[-1:])
        return P.distribution(sample, log_prob, event, batch, support="real", mean=mean, pathwise=False)

    def _family(self, P: Vocabulary, i: int, block: ColumnBlock, head: Array) -> families.Family:
        """The distributions of a block's columns."""
        h = _take(P, head, block.outputs)
        h = P.xp.reshape(h, (*h.shape[:-1], len(block.columns), block.width))
        if block.kind == "categorical":
            return families.categories(P, h)
        first = h[..., 0]
        if block.kind == "binary":
            return families.binary(P, first)
        if block.kind == "ordinal":
            return families.ordered(P, first, _increasing(P, P.param(f"blocks.{i}.cuts")))
        loc, scale = (_take(P, P.param(name), block.columns) for name in ("loc", "scale"))
        if block.kind == "poisson":
            return families.counts(P, first, loc, None)
        raw = h[..., 1] if self.scale == "network" else P.param(f"blocks.{i}.raw_scale")
        spread = self.min_scale + P.softplus(raw)
        if block.kind == "count":
            return families.counts(P, first, loc, spread)
        return (families.log_normal if block.kind == "positive" else families.shifted_normal)(
            P, first, loc, scale, spread
        )

    def encoded(self, P: Vocabulary, x: Array) -> Array:
        """[..., W]: numbers, one-hot categories, and whether each entry is there; see `encoded_shape`."""
        xp, P = P.xp, P.scope(self.role)
        there, found = ~xp.isnan(x), []
        for block in self.blocks:
            known = _take(P, there, block.columns)
            value = xp.where(known, _take(P, x, block.columns), 1.0)
            if block.kind == "categorical":  # between two levels, for pseudo-inputs, it is partly each of them
                levels = P.constant(np.arange(block.levels))
                hot = xp.clip(1.0 - xp.abs(value[..., None] - levels), 0.0, None)
                hot = xp.where(known[..., None], hot, 0.0)
                found.append(xp.reshape(hot, (*hot.shape[:-2], -1)))
                continue
            if block.kind == "positive":
                value = xp.log(xp.clip(value, 1e-30, None))
            elif block.kind in ("count", "poisson"):
                value = xp.log1p(xp.clip(value, 0.0, None))
            loc, scale = (_take(P, P.param(name), block.columns) for name in ("loc", "scale"))
            found.append(xp.where(known, (value - loc) / scale, 0.0))
        return P.concat([*found, xp.astype(there, x.dtype)])

    def encoded_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        numbers = sum(k.levels if k.kind == "categorical" else 1 for k in self.kinds)
        return (numbers + len(self.kinds),)

    @property
    def expected_data(self) -> str:
        return "a table of numbers, with NaN for missing entries"

    def check(self, name: str, x: np.ndarray) -> None:
        """Refuse entries outside the support of their columns; NaN is missing."""
        refuse(name, x, np.isinf(x), "finite numbers, or NaN for missing ones")
        for column, kind in enumerate(self.kinds):
            values = np.where(np.isnan(x[:, column]), 1.0, x[:, column])
            bad = np.zeros(x.shape, bool)
            whole = values != np.rint(values)
            if kind.kind == "positive":
                bad[:, column], expected = values <= 0, "positive numbers"
            elif kind.kind in ("count", "poisson"):
                bad[:, column], expected = whole | (values < 0), "whole numbers from 0"
            elif kind.values:
                bad[:, column] = whole | (values < 0) | (values >= kind.values)
                expected = f"whole numbers from 0 to {kind.values - 1}"
            else:
                continue
            refuse(name, x, bad, f"{expected}, because column {kind.name or column} is {kind._replace(name='')}")


def _increasing(P: Vocabulary, raw: Array) -> Array:
    """Cut points: the first, and then each further by softplus; differences of at least 1e-4."""
    steps = P.concat([raw[..., :1], 1e-4 + P.softplus(raw[..., 1:])])
    width = raw.shape[-1]
    upper = P.constant(np.triu(np.ones((width, width))))
    return steps @ upper


def _take(P: Vocabulary, a: Array, places: tuple[int, ...] | np.ndarray) -> Array:
    """Places of the last axis; neighbours by slices, which every backend compiles well."""
    parts = [a[..., start:end] for start, end in slices_of([int(p) for p in places])]
    return parts[0] if len(parts) == 1 else P.xp.concat(parts, axis=-1)
