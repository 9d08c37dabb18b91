"""The VampPrior: a mixture of the posterior at learned inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from scipy.special import expit, logit

from ppdgm.errors import ProgramError, SpecError
from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.priors.mixture import MixturePrior
from ppdgm.program import Context
from ppdgm.specs import PositiveInt

_SLOPE = 4.0  # u = σ(4r) rises by 1 per unit of r in the middle, like a hard-tanh
_END = 0.01  # how near to 0 and 1 pseudo-inputs start: at 0 and 1 themselves a sigmoid has no gradient
_NOISE = 0.01  # noise on rows that pseudo-inputs start from, so that no two are equal; in standard deviations of rows


class VampPrior(MixturePrior):
    """p(z) = Σ_m w_m q(z|u_m), the posterior at M learned pseudo-inputs u_m. Tomczak & Welling 2018, arXiv:1705.07120.

    Training also changes the encoder through the prior; the encoder keeps its label. The prior moves with the codes, so
    that an encoder that ignores x has a KL of 0. Therefore a decoder's output starts at the means of the data's
    columns: otherwise all codes move far away together to produce these means, and stay there. With a flow posterior it
    mixes the base distributions q₀(z|u_m): the flow's own density is not needed, or not known, at a z that it did not
    draw.

    Args:
        components: M.
        weights: "uniform", w_m = 1/M, or "learned", w = softmax(logits), all 1/M at the start.
        initial: pseudo-inputs start from "data", M rows of the training set with a little noise, or "random".
        range: the range of the data. "unit": u = sigmoid(4r) in (0, 1); a start from data is clipped to 0.01 … 0.99.
            "real": u = r, without bounds.
    """

    follows: ClassVar[bool] = True

    components: PositiveInt = 500
    weights: Literal["learned", "uniform"] = "uniform"
    initial: Literal["data", "random"] = "data"
    range: Literal["unit", "real"] = "unit"

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        if context.inputs is None:
            raise ProgramError(
                "VampPrior mixes q(z|u) at pseudo-inputs u, but here the guide does not draw this z from x only. Use "
                "MixtureOfGaussians() or StandardNormal(), or a guide that draws this z first, from x."
            )
        self.declare_weights(context)
        context.param("pseudo_inputs", (self.components, *context.inputs), self._first)
        return ()

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        posterior, raw = head[0], P.param("pseudo_inputs")
        inputs = P.activation("sigmoid", _SLOPE * raw) if self.range == "unit" else raw

        def draw(random: Random, m: Array) -> Array:
            return random.draw(posterior(inputs[m]), tuple(m.shape))[0]

        return self.mixture(P, posterior(inputs[:, None]), draw)

    def pseudo_inputs(self, params: Mapping[str, np.ndarray], name: str = "prior.pseudo_inputs") -> np.ndarray:
        """The pseudo-inputs u [M, *inputs] among a program's parameters, in the data's range."""
        return self._squashed(np.asarray(params[name]))

    def _squashed(self, raw: np.ndarray) -> np.ndarray:
        return expit(_SLOPE * raw) if self.range == "unit" else raw

    def _first(
        self, rng: np.random.Generator, shape: tuple[int, ...], data: Mapping[str, np.ndarray] | None
    ) -> np.ndarray:
        x = None if data is None else data.get("x")
        if x is not None:
            x = _filled(np.asarray(x))
            self._check(x, shape)
        if x is None or self.initial == "random":
            return rng.normal(size=shape) / (_SLOPE if self.range == "unit" else 1.0)
        chosen = x[np.sort(rng.choice(len(x), shape[0], replace=len(x) < shape[0]))].astype(np.float64)
        chosen = chosen + _NOISE * chosen.std() * rng.normal(size=shape)
        return logit(np.clip(chosen, _END, 1.0 - _END)) / _SLOPE if self.range == "unit" else chosen

    def _check(self, x: np.ndarray, shape: tuple[int, ...]) -> None:
        low, high = float(x.min()), float(x.max())
        if self.range == "unit" and not 0.0 <= low <= high <= 1.0:
            raise SpecError(
                f"VampPrior.range: got 'unit', but the data lie between {low:g} and {high:g}. Use range='real'."
            )
        if x.shape[1:] != shape[1:]:
            raise SpecError(
                f"VampPrior: got data of shape {x.shape[1:]}, expected {shape[1:]}, the shape in the program."
            )


def _filled(x: np.ndarray) -> np.ndarray:
    """x with the median of a column's entries in place of its missing ones: a pseudo-input has no gaps."""
    if not np.isnan(x).any():
        return x
    return np.where(np.isnan(x), np.nanquantile(x, 0.5, axis=0, method="nearest"), x)
