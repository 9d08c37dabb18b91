"""Factor analysis: PPCA with a separate noise for each dimension."""

from __future__ import annotations

from ppdgm.models.linear_gaussian import LinearGaussian


class FactorAnalysis(LinearGaussian):
    """Factor analysis: z ~ N(0, I), x ~ N(Wz + μ, Ψ), Ψ diagonal, so that p(x) = N(μ, WWᵀ + Ψ). Rubin & Thayer 1982.

    The posterior is N(M⁻¹WᵀΨ⁻¹(x − μ), M⁻¹) with M = WᵀΨ⁻¹W + I. Parameters: `weight` W [X, D], `loc` μ [X],
    `log_scale` ½ log Ψ [X]; with the linear guide also `guide.weight` A [D, X], `guide.bias`, `guide.log_scale` [D].
    Closed forms on arrays: `exact_log_likelihood`, `exact_posterior`, `e_step`, `m_step`.

    Args:
        event_shape: (X,), the width of a row.
        latent: D.
        posterior: "exact" is the full-covariance posterior above, without its own parameters; "linear" is
            N(Ax + b, diag s²).
    """

    def _scale_shape(self) -> tuple[int, ...]:
        return (self._width,)
