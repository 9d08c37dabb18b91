"""Any likelihood with a CDF, for ordered whole numbers."""

from __future__ import annotations

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods.base import Levels, Likelihood, independent
from ppdgm.models.likelihoods.gaussian import Gaussian
from ppdgm.models.likelihoods.logistic import nearest_level
from ppdgm.program import Context

_FAR = 1e10  # stands for infinity: at infinity itself, gradients are NaN


class Discretised(Levels):
    """p(x|z) = Π F(c + δ) − F(c − δ), with F the CDF of another likelihood and c = 2x / (levels − 1) − 1 in [−1, 1].

    δ = 1 / (levels − 1) is half a level; the lowest and the highest level also get the probability beyond them. The
    other likelihood is in units of c. `DiscretisedLogistic` is this for logistics. Salimans et al. 2017,
    arXiv:1701.05517.

    Args:
        of: a likelihood that has a `log_mass`: Gaussian, Laplace, or your own.
    """

    of: Likelihood = Gaussian(scale="network")

    def __init__(self, *positional: object, **fields: object) -> None:
        super().__init__(*positional, **fields)  # type: ignore[arg-type]  # pydantic checks them
        if type(self.of).log_mass is Likelihood.log_mass:
            raise SpecError(
                f"Discretised.of: got {type(self.of).__name__}, which has no log_mass(self, P, low, high, head). "
                "Expected a likelihood with a CDF, such as Gaussian or Laplace."
            )

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        return context.part(self.of, shape, name="of")

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        inner, xp, levels = P.scope("of"), P.xp, self.levels
        real = self.of.distribution(inner, head[0])
        leading = tuple(real.batch_shape)

        def log_prob(x: Array) -> Array:
            edge = lambda k: (2.0 * k - levels) / (levels - 1)  # below level k
            low = xp.where(x == 0, P.full((), -_FAR), edge(x))
            high = xp.where(x == levels - 1, P.full((), _FAR), edge(x + 1.0))
            return self.of.log_mass(inner, low, high, head[0])

        def mean() -> Array:
            """Σ_{k ≥ 1} P(x ≥ k), one level at a time."""
            far = P.full((*leading, *P.shape), _FAR)

            def add(state: tuple[Array, Array]) -> tuple[Array, Array]:
                k, total = state
                edge = 0.0 * far + (2.0 * k - levels) / (levels - 1)
                return k + 1.0, total + xp.exp(self.of.log_mass(inner, edge, far, head[0]))

            return P.repeat(levels - 1, add, (P.full((), 1.0), 0.0 * far))[1]

        sample = lambda random, shape: self.draw(P, random, shape, head[0])
        return independent(P, P.full((*leading, *P.shape), 0.0), log_prob, sample, mean, self.support)

    def draw(self, P: Vocabulary, random: Random, shape: tuple[int, ...], head: Array) -> Array:
        return nearest_level(P, self.of.draw(P.scope("of"), random, shape, head), self.levels)
