"""Settings of an engine that would change nothing for a program: they are refused, with the reason.

Settings that only state what must hold (estimator="reparam", kl="analytic", kl="monte_carlo") are accepted if it holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from ppdgm.errors import ProgramError
from ppdgm.language.step import Step
from ppdgm.language.vocabulary import Trace


def has_kl(trace: Trace) -> bool:
    """Whether any latent has a KL: of each row, or of all rows together."""
    return bool(trace.log_q) or any(n in trace.values for n in trace.shared)


def check_latents(trace: Trace, engine: str, weighed: Mapping[str, bool]) -> None:
    """Refuse settings of draws, or of a KL, in a program without latents.

    Args:
        trace: a reading, as in training.
        engine: its name.
        weighed: such settings, and whether each differs from its default.

    Raises:
        ProgramError: with the first one.
    """
    if has_kl(trace):
        return
    if given := next((n for n, changed in weighed.items() if changed), None):
        raise ProgramError(
            f"{engine}: {given} would change nothing, because the guide draws no latent and there is no KL. Leave it "
            "out."
        )


def check_baseline(step: Step, baseline: str) -> None:
    """Refuse a baseline if no gradient uses the score function.

    Raises:
        ProgramError: every latent is reparameterised, relaxed or summed over.
    """
    if baseline != "auto" and not step.scored:
        raise ProgramError(
            f"baseline={baseline!r} is for score-function gradients, but no latent of this program has one: all are "
            "reparameterised, relaxed or summed over. Leave baseline out; or use discrete latents without a "
            "relaxation, with estimator='score'."
        )
