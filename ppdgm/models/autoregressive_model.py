"""The autoregressive density of data."""

from __future__ import annotations

import numpy as np

from ppdgm.errors import DataError
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.conditions import DataDensity
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.likelihoods.autoregressive import Factors, autoregressive, declare_autoregressive
from ppdgm.models.likelihoods.columns import first_output
from ppdgm.nets import MADE
from ppdgm.nets.causal import CausalNet
from ppdgm.program import Context


class AutoregressiveModel(DataDensity):
    """Autoregressive density: p(x) = Π_j p(x_j | x_<j), each given by a causal net. No latents: log p(x) is exact.

    Germain et al. 2015, arXiv:1502.03509; van den Oord et al. 2016, arXiv:1606.05328. With `classes` or `covariates`,
    it is p(x | label, y), and every conditional sees them. Training and log p(x) take one pass of the net; for a draw,
    see `CausalNet.ancestral`.

    Args:
        event_shape: shape of one row of the data.
        net: the causal net: MADE or OrderAgnosticMADE for vectors; GatedPixelCNN, PixelCNNPlusPlus or PixelSNAIL for
            images; GRU, LSTM, Windowed or WaveNet for sequences.
        likelihood: the distribution of each number, given the net's output.
        classes: for p(x | label): the number of classes of the field `label`, whole numbers from 0.
        covariates: for p(x | y): the shape of one row of the field `y`, real numbers. For nets of sequences, (T, C) is
            a row for each of the T times, of which the distribution of x_t sees none after t.
    """

    net: CausalNet = MADE()
    likelihood: Likelihood = Bernoulli()

    def build(self, context: Context) -> None:
        declare_autoregressive(context, self.net, self.likelihood, self.event_shape, self._seen, start=self._columns)

    @property
    def _local(self) -> bool:
        """Whether the covariates have a row for each time of x."""
        return self.covariates is not None and self.net.is_local(self.event_shape, self.covariates)

    @property
    def _seen(self) -> tuple[int, ...]:
        """The shape of the condition."""
        if self._local:
            return self.event_shape[0], self.covariates[1] + sum(self.class_fields.values())  # type: ignore[index]  # there are some
        return (self.condition_width,) if self.condition_width else ()

    def _columns(self, data: Batch) -> np.ndarray | None:
        return first_output(self.likelihood, data["x"]) if "x" in data else None

    def condition(self, P: Vocabulary, given: Batch) -> Array | None:
        flat = super().condition(P, given)
        if flat is None or not self._local:
            return flat
        first = sum(self.class_fields.values())
        rows = P.xp.reshape(flat[..., first:], (*flat.shape[:-1], *self.covariates))  # type: ignore[misc]  # as above
        return P.concat([flat[..., None, :first], rows]) if first else rows

    def model(self, P: Vocabulary, x: Array, **given: Array) -> None:
        seen = self.condition(P, given)
        batch = () if seen is None else tuple(seen.shape[: -len(self._seen)])
        with P.plate("data", x):
            P.sample("x", autoregressive(P, self.net, self.likelihood, self.event_shape, seen, batch), obs=x)

    def impute(self, P: Vocabulary, x: Array, missing: Array, **given: Array) -> Array:
        """x with its missing numbers drawn given the others, in an order in which these come first.

        Args:
            P: the vocabulary.
            x: [B, *event_shape].
            missing: which numbers are drawn, [*event_shape], booleans.
            given: the classes and covariates, as for the model.
        """
        factors = Factors(P, self.net, self.likelihood, self.event_shape, self.condition(P, given))
        first, net = factors.at(P.full((), 0.0)), P.scope("net")
        order = self.net.with_known_first(net, first, missing) or first
        leading = tuple(x.shape[: x.ndim - len(self.event_shape)])
        start = P.xp.where(missing, 0.0, x)
        return factors.ancestral(factors.drawn(P.random, leading), order, leading, start, missing)

    def check_missing(self, missing: np.ndarray) -> None:
        """Refuse numbers [*event_shape] that can't be drawn given the others.

        Raises:
            DataError: the net's order is fixed, and a missing number comes before a known one; or the likelihood draws
                it together with a known one.
        """
        groups = self.likelihood.drawn_together(self.event_shape)
        if groups is not None and np.intersect1d(groups[missing], groups[~missing]).size:
            raise DataError(
                f"missing: {type(self.likelihood).__name__} draws the colours of a pixel together, so they can only be "
                "missing together. Leave out whole pixels."
            )
        if self.net.counts[0] > 1 or not missing.any() or missing.all():
            return
        order = self.net.order(self.event_shape)
        late = ~missing & (order > order[missing].min())
        if late.any():
            name, index = type(self.net).__name__, [tuple(map(int, np.argwhere(a)[0])) for a in (missing, late)]
            raise DataError(
                f"missing: {name} has a fixed order, in which the missing number at {index[0]} comes before the known "
                f"one at {index[1]}, so it can't be drawn given that. Train a net of many orders, OrderAgnosticMADE("
                "orders=…), or leave out only what comes last."
            )

    def check(self, data: Batch) -> None:
        self.check_condition(data)
        self.likelihood.check("x", data["x"])
