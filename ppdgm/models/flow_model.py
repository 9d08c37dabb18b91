"""A flow as a density of data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import prod

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.conditions import DataDensity
from ppdgm.models.flows import Flow, RealNVP
from ppdgm.models.flows.densities import flow_density
from ppdgm.models.flows.direction import check_direction
from ppdgm.models.likelihoods import Gaussian, Likelihood, refuse
from ppdgm.models.likelihoods.base import FEW
from ppdgm.nets import MLP, Net
from ppdgm.program import Context

SETTLED = 1_000  #: the largest number of rows from which norms start


class FlowModel(DataDensity):
    """Flow as a density of real data: x = f(u), u ~ N(0, I), log p(x) = log N(f⁻¹(x)) + log|det ∂f⁻¹/∂x|, exactly.

    Dinh et al. 2017, arXiv:1605.08803; Papamakarios et al. 2021, arXiv:1912.02762. With `classes` or `covariates`, it
    is p(x | label, y): the net `context` makes the flow's context of them. `noise` gives f⁻¹(x), on arrays.

    Args:
        event_shape: shape of one row of the data.
        flow: f, over a row as one vector.
        context: the net from the one-hot label and the covariates to the flow's context.
        allow_slow: permits a flow that takes D passes for the density of given data, in every training step; then it
            only warns.
        classes: for p(x | label): the number of classes of the field `label`, whole numbers from 0.
        covariates: for p(x | y): the shape of one row of the field `y`, real numbers.
    """

    flow: Flow = RealNVP()
    context: Net = MLP(hidden=(64,))
    allow_slow: bool = False

    def __init__(self, *positional: object, **fields: object) -> None:
        super().__init__(*positional, **fields)  # type: ignore[arg-type]  # pydantic checks them
        check_direction(self, self.flow, "inverse", self.allow_slow)

    def independent(self) -> Likelihood:
        return Gaussian(scale="per_dimension")

    def build(self, context: Context) -> None:
        seen = self.condition_width
        needed = self.flow.build(context.scope("flow"), prod(self.event_shape), conditional=bool(seen))
        if seen and not needed:
            raise SpecError(
                f"FlowModel.flow: {type(self.flow).__name__} reads no context, so p(x) would not depend on the label "
                "or the covariates. Use a flow that reads one, such as RealNVP(context_size=64), also in a Chain; or "
                "leave classes and covariates out."
            )
        if seen:
            context.net("context", self.context, (seen,), (needed,))

        context.settle(self._settle)

    def _settle(self, P: NumpyVocabulary, data: Batch) -> None:
        """First values of norms, from the data; couplings see a context of zeros, which hardly moves them at first."""
        if "x" not in data:
            return
        x = np.asarray(data["x"], np.float64)
        rows = x[np.sort(np.random.default_rng(0).permutation(len(x))[:SETTLED])]
        seen = P.full((1, *P.declared.nets["context"].outputs), 0.0) if self.condition_width else None
        self.flow.settle(P.scope("flow"), rows.reshape(len(rows), -1), seen)

    def model(self, P: Vocabulary, x: Array, **given: Array) -> None:
        seen = self.condition(P, given)
        known = None if seen is None else P.net("context")(seen)
        batch = () if known is None else tuple(known.shape[:-1])
        with P.plate("data", x):
            P.sample("x", flow_density(P.scope("flow"), self.flow, self.event_shape, known, batch), obs=x)

    def noise(self, params: Mapping[str, np.ndarray], data: Batch) -> tuple[np.ndarray, np.ndarray]:
        """f⁻¹(x) [N, D] and log|det ∂f⁻¹/∂x| [N], in float64 NumPy: log p(x) = log N(f⁻¹(x)) + log|det|.

        Args:
            params: of a fit, `fit.params`.
            data: x [N, *event_shape], or a dictionary with x and the fields of the condition.
        """
        fields = data if isinstance(data, Mapping) else {"x": data}
        P = NumpyVocabulary.over({n: np.asarray(v, np.float64) for n, v in params.items()}, self.declarations())
        seen = self.condition(P, {n: v for n, v in fields.items() if n != "x"})
        x = np.asarray(fields["x"], np.float64)
        known = None if seen is None else P.net("context")(seen)
        u, log_det = self.flow.inverse(P.scope("flow"), x.reshape(len(x), -1), known)
        return u, np.broadcast_to(log_det, (len(x),))

    def check(self, data: Batch) -> None:
        self.check_condition(data)
        x = np.asarray(data["x"])
        refuse("x", x, ~np.isfinite(x), "finite numbers")
        if len(x) >= FEW and (x == np.rint(x)).all():
            warnings.warn(
                "Data 'x' are whole numbers, and a density of real numbers can be as high as it likes there: log p has "
                "no upper bound. Use Dequantised(levels=…, prior=FlowPrior(flow=…)), which adds noise in [0, 1) to "
                "them, or another model of whole numbers, such as AutoregressiveModel.",
                stacklevel=2,
            )
