"""A diagnosis in words: what is good, what is not, and what to try next."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from ppdgm.diagnostics.found import EstimateLike

if TYPE_CHECKING:
    from ppdgm.diagnostics.calibration import Coverage
    from ppdgm.diagnostics.found import Found

Grade = Literal["bad", "warning", "good"]
_ORDER = {"bad": 0, "warning": 1, "good": 2}
_MARK = {"bad": "✗", "warning": "!", "good": "✓"}

MOST_GAP = 1.0  #: nats; if an inference gap is larger, something should be done
ENOUGH = 0.9  #: share of effective draws; from this on a heavy tail of the weights is no problem
NO_KL = 0.1  #: nats; the parts of a smaller KL have no meaning
MANY = 0.05  #: if k̂ is too large for a larger share of rows, the guide is not reliable


@dataclass(frozen=True)
class Finding:
    """One result of a diagnosis, in words.

    Attributes:
        about: the topic, in a word or two.
        grade: "good", "warning" or "bad".
        text: what was found.
        advice: what to try next, or "".
    """

    about: str
    grade: Grade
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{_MARK[self.grade]} {self.about}: {self.text}" + (f" {self.advice}" if self.advice else "")


def verdict(found: Found) -> tuple[Finding, ...]:
    """The findings of a `Diagnosis`, the worst first."""
    parts = (_training, _progress, _use, _codes, _weights, _calibration, _gaps, _surgery, _checks, _bracket)
    each = [f for part in parts for f in part(found)]
    return tuple(sorted(each, key=lambda f: _ORDER[f.grade]))


def share_of(which: np.ndarray) -> str:
    """How many rows these are, as a number and a share: a share that is rounded to 0 % would hide a few rows."""
    n, size = int(np.sum(which)), len(which)
    return f"{n:,} of the {size:,} rows" + (f" ({n / size:.1%})" if n else "")


def _training(found: Found) -> Iterator[Finding]:
    for name, what in (("log_likelihood", "log p(x)"), ("elbo", "ELBO")):
        value = getattr(found, name)
        if value is not None and not np.isfinite(value.values).all():
            bad = int((~np.isfinite(value.values)).sum())
            yield Finding(
                "Numbers", "bad", f"the {what} of {bad} of {found.size} rows is not finite.",
                "Check these rows, and the likelihood's support and scales.",
            )  # fmt: skip
    if found.log_likelihood is not None and np.isfinite(found.log_likelihood.mean):
        error = found.log_likelihood.standard_error  # a single row has none
        text = f"log p(x) = {found.log_likelihood.mean:.2f}{'' if np.isnan(error) else f' ± {error:.2f}'} nats"
        text += f" of {found.log_likelihood.of}" if found.log_likelihood.of else ""
        if (bits := found.log_likelihood.bits_per_dimension) is not None:
            text += f", {bits:.4f} bits/dim"
        if found.log_likelihood.exact:  # the ELBO is the same number
            text += " (exact)"
        elif found.elbo is not None:
            text += f", ELBO {found.elbo.mean:.2f}"
        yield _fit(found, f"{text}, mean over {found.size:,} rows")


def _fit(found: Found, text: str) -> Finding:
    """The fit compared with a model without latents; its grade is not better than the other findings allow."""
    if found.baseline is not None:
        bound = cast(EstimateLike, found.log_likelihood)  # `_training` has looked at it
        gain, plain = found.baseline.gain(bound.values), float(found.baseline.values.mean())
        text += f"; a model of independent columns has {plain:.2f}"
        if _loses(found):
            advice = "The latents do not improve the model: see Latents, train longer, or use a richer decoder."
            if found.weights is None:  # the guide draws no latents
                advice = "Train longer, or use a richer model."
            return Finding("Fit", "bad", f"{text}, and this model is not clearly better (gain {gain} nats).", advice)
        text += f", and this model gains {gain} over it"
    elif found.use is not None and len(found.use.collapsed) == len(found.use.sites):
        return Finding("Fit", "warning", f"{text}. The model ignores its latents.")
    if any(f.grade == "bad" for f in _weights(found)):
        return Finding(
            "Fit",
            "warning",
            (f"{text}. This estimate is too low, because the guide's draws miss the posterior: see Guide."),
        )
    return Finding("Fit", "good", f"{text}.")


def _loses(found: Found) -> bool:
    """Whether the model is not better than one without latents by more than two standard errors."""
    if found.baseline is None or found.log_likelihood is None:
        return False
    gain = found.baseline.gain(found.log_likelihood.values)
    return not gain.value > 2 * np.nan_to_num(gain.error)


def _progress(found: Found) -> Iterator[Finding]:
    """Whether the bound was still rising when training ended."""
    history = found.history
    name = "validation_elbo" if len(history.get("validation_elbo", ())) >= 5 else "elbo"
    values = np.asarray(history.get(name, ()), float)
    values = values[np.isfinite(values)]
    if len(values) < 10 and name == "elbo":
        return
    fifth = max(1, len(values) // 5)
    rise = float(values[-fifth:].mean() - values[-2 * fifth : -fifth].mean())
    spread = float(np.hypot(values[-fifth:].std(), values[-2 * fifth : -fifth].std()) / np.sqrt(fifth))
    if rise > max(0.1, 3 * spread if name == "elbo" else 0.0):
        told = "the validation ELBO" if name == "validation_elbo" else "the ELBO"
        text = (
            f"{told} was still rising: in the last fifth of training it was {rise:.2f} nats higher than in the "
            "fifth before."
        )
        yield Finding("Training", "warning", text, "First train longer. This may also solve the other problems.")


def _beta(found: Found) -> float:
    """The fixed weight of the KL in training, if the recipe has one."""
    try:
        beta = tomllib.loads(found.recipe).get("engine", {}).get("beta", 1.0)
    except tomllib.TOMLDecodeError:
        return 1.0
    return float(beta) if isinstance(beta, int | float) else 1.0


def _use(found: Found) -> Iterator[Finding]:
    if found.use is None:
        return
    gone, sites = found.use.collapsed, found.use.sites
    used, all_of = sum(int(s.used.sum()) for s in sites), sum(len(s.used) for s in sites)
    advice = (
        "Try a KL warm-up (beta=Linear(steps=…)), free bits (free_bits=0.1), LaggingInference(), or a weaker decoder."
    )
    if (beta := _beta(found)) > 1.5 and used < all_of:
        advice = f"It was trained at β = {beta:g}, which makes the KL smaller: try beta=1."
    if len(gone) == len(sites):
        yield Finding("Latents", "bad", f"{found.use}: the model ignores its latents.", advice)
    elif gone:
        yield Finding("Latents", "bad", f"{found.use}.", advice)
    elif _loses(found):  # their information may come from the prior, the guide or the start
        text = f"{found.use}, but the model is no better than one without latents: see Fit."
        yield Finding("Latents", "warning", text)
    elif used < all_of:
        text = f"{found.use}; the others carry no information on the data."
        yield Finding(
            "Latents",
            "warning" if used <= all_of / 4 else "good",
            text,
            advice if beta > 1.5 else _smaller(used, all_of),
        )
    else:
        yield Finding("Latents", "good", f"{found.use}.")


def _smaller(used: int, all_of: int) -> str:
    if used >= all_of / 2:
        return ""
    return (
        f"About {max(2, used + used // 4)} dimensions would be enough. To use more of them, try a KL warm-up or "
        "free bits."
    )


def _codes(found: Found) -> Iterator[Finding]:
    for name, use in found.codes.items():
        few = use.used < len(use.counts) / 2
        advice = "Fewer classes are enough; or, with a codebook of moving averages, use a larger revive." if few else ""
        yield Finding("Codes", "warning" if few else "good", f"of {name}, {use}.", advice)


def _weights(found: Found) -> Iterator[Finding]:
    if (w := found.weights) is None:
        return
    if w.exact.all():
        yield Finding(
            "Guide", "good", (f"the guide is the exact posterior: all importance weights are equal (K = {w.k}).")
        )
        return
    known = w.pareto_k[~np.isnan(w.pareto_k)]
    share = float(np.median(w.effective_sample_size)) / w.k
    if not len(known):
        text = (
            f"the effective sample size is {share:.1%} of the draws (median); k̂ is not known, because too many "
            "weights are equal."
        )
        yield Finding("Guide", "good" if share > 0.1 else "warning", text)
        return
    heavy = np.nan_to_num(w.pareto_k, nan=0.0) > 0.7
    # If weights are nearly equal, a heavy tail does not matter.
    over = float((heavy & (w.effective_sample_size < ENOUGH * w.k)).mean())
    worst = ", ".join(str(i) for i in w.worst(3))
    text = f"Pareto k̂ is above 0.7 for {share_of(heavy)}, with a median of {np.median(known):.2f}; worst rows: {worst}."
    if heavy.mean() > over + 0.01:
        text += f" {f'For all but {over:.1%} that' if over else 'That'} is no trouble, as nearly all draws count."
    if over > MANY:
        advice = (
            "In these rows the guide is far from the posterior, and log p(x) is estimated too low. Use a larger "
            "encoder, a richer posterior (FlowPosterior, FullCovarianceNormal), or IWAE."
        )
        yield Finding("Guide", "bad" if over > 0.3 else "warning", text, advice)
    else:
        yield Finding("Guide", "good", text)


def _calibration(found: Found) -> Iterator[Finding]:
    if not found.calibration:
        return
    failed = [n for n, u in found.calibration.items() if not u.calibrated]
    said = []
    for name in failed:
        if name in found.coverage:
            c = found.coverage[name]
            j = int(np.argmin(np.abs(c.levels - 0.9)))
            said.append(
                f"{c.levels[j]:.0%} intervals of {name} contain the true value in {c.overall[j]:.1%} of the rows"
            )
    if failed:
        text = f"the posterior of {' and '.join(failed)} is not calibrated on data simulated from the model"
        text += f": {'; '.join(said)}." if said else "."
        narrow = any(
            found.coverage[n].overall[j] < found.coverage[n].levels[j] for n in failed if n in found.coverage
            for j in (int(np.argmin(np.abs(found.coverage[n].levels - 0.9))),)
        )  # fmt: skip
        kind = "too narrow" if narrow else "too wide"
        if any(_shifted(found.pit[n]) for n in failed if n in found.pit):
            kind = "shifted, and perhaps too narrow" if narrow else "shifted"  # a shift lowers coverage too
        advice = f"Its intervals are {kind}: "
        advice += "use a richer posterior, or resample draws by their weights (fit.posterior(…, how='importance'))."
        yield Finding("Calibration", "warning", text, advice)
        return
    for name, c in found.coverage.items():  # all dimensions together show what no single one shows
        off = (c.overall - c.levels) / _errors_if_right(c)
        j = int(np.argmax(np.abs(off)))
        if abs(off[j]) > 4 and abs(c.overall[j] - c.levels[j]) > 0.01:
            text = (
                f"no single dimension fails the test of ranks, but {c.levels[j]:.0%} intervals of {name} contain "
                "the true value "
            )
            narrow = c.overall[j] < c.levels[j]
            advice = f"The posterior is a little too {'narrow' if narrow else 'wide'}: a richer one may help."
            yield Finding("Calibration", "warning", f"{text}in {c.overall[j]:.1%} of the rows.", advice)
            return
    yield Finding("Calibration", "good", "on data simulated from the model, the posterior's ranks are uniform.")


def _errors_if_right(c: Coverage) -> np.ndarray:
    """Standard errors of `overall` that also hold if the nominal levels are right, [J].

    A share of 100 % has an error of 0, and shares near it one that is too small: 99 of 100 rows in 95 % intervals would
    be 4 errors away. So the variance of a share p̂ is scaled to that of the level, l (1 − l) / p̂ (1 − p̂).
    """
    variance = c.overall * (1.0 - c.overall)
    scaled = c.overall_errors * np.sqrt(c.levels * (1.0 - c.levels) / np.where(variance > 0, variance, 1.0))
    return np.maximum(c.overall_errors, np.where(variance > 0, scaled, c.standard_errors))


def _shifted(pit: np.ndarray) -> bool:
    """Whether the truth lies on one side of the draws in some dimension: its mean rank is far from the middle."""
    return bool((np.abs(pit.mean(0) - 0.5) > 4 * pit.std(0) / np.sqrt(len(pit))).any())


def _gaps(found: Found) -> Iterator[Finding]:
    if (g := found.gaps) is None:
        return
    if g.inference.value < 0.1 and not g.unknown:
        yield Finding("Gaps", "good", f"the bound is tight: {g}.")
        return
    large = g.inference.value > MOST_GAP
    if g.amortisation.value < -0.1:
        text = (
            f"the inference gap is {g.inference} nats. A Gaussian with {g.family} covariance, fitted to each row, is "
        )
        text += f"{-g.amortisation.value:.2f} nats worse than the guide, so the amortisation gap is not known."
        other = "Use family='full'." if g.family == "diagonal" else ""
        yield Finding("Gaps", "warning" if large else "good", text, other)
        return
    amortised = g.amortisation.value > g.approximation.value
    advice = (
        "Most of the gap comes from the encoder. Make it larger, or train it longer (VariationalEM, LaggingInference)."
        if amortised
        else (
            "Most of the gap comes from the guide's family. Use a richer posterior (FlowPosterior, "
            "FullCovarianceNormal)."
        )
    )
    yield Finding("Gaps", "warning" if large else "good", f"{g}.", advice if large else "")


def _surgery(found: Found) -> Iterator[Finding]:
    if (s := found.surgery) is None or abs(s.kl.value) < NO_KL:
        return  # there is no KL to divide; the finding on the latents reports it
    information, marginal = s.mutual_information.value, s.marginal_kl.value
    text = f"of a KL of {s.kl.value:.2f} nats, {information:.2f} are information on the data"
    text += f" (at most log N = {s.most:.2f})"
    text += f", and {marginal:.2f} are mismatch between prior and aggregated posterior"
    if s.saturated:
        yield Finding(
            "Prior", "good", (f"{text}. The information has reached its limit. More data would separate the two.")
        )
    elif marginal > max(1.0, 0.2 * s.kl.value) or (marginal > 0.5 * s.kl.value and s.kl.value > 0.1):
        yield Finding(
            "Prior",
            "warning",
            f"{text}.",
            (f"A better prior could gain up to {marginal:.1f} nats: VampPrior, FlowPrior."),
        )
    else:
        yield Finding("Prior", "good", f"{text}.")


def _checks(found: Found) -> Iterator[Finding]:
    size = found.sizes.get("predictive checks", found.size)
    some = f"{size:,} of the {found.size:,} rows, chosen at random" if size < found.size else ""
    told = "; ".join(t for t in (found.units, some and f"of {some}") if t)
    of = f" ({told})" if told else ""
    for checks, kind in ((found.checks, "posterior"), (found.prior_checks, "prior")):
        if not checks:
            continue
        odd = [c for c in checks if c.odd]
        if not checks[0].enough:
            text = (
                f"{len(checks[0].replicated)} new data sets are too few to distinguish a wrong model from a right one."
            )
            yield Finding(f"{kind.capitalize()} predictive", "warning", text, "Draw 99 or more: replicated=200.")
        elif odd:
            text = ", ".join(f"{c.name} {c.observed:.3g}, replicated {np.mean(c.replicated):.3g}" for c in odd) + of
            advice = "The likelihood may be of the wrong family or scale." if kind == "posterior" else (
                "What the model draws differs from the data. Use a better prior, or train longer."
            )  # fmt: skip
            yield Finding(f"{kind.capitalize()} predictive", "warning", f"{text}.", advice)
        else:
            names = ", ".join(c.name for c in checks)
            yield Finding(
                f"{kind.capitalize()} predictive",
                "good",
                (f"new data drawn from the model agree with the data in {names}{of}."),
            )


def _bracket(found: Found) -> Iterator[Finding]:
    if (b := found.bracket) is None:
        return
    if b.crossed:
        yield Finding("Annealing", "warning", f"the two bounds cross: {b}.", "Use more: temperatures=1000.")
    else:
        yield Finding("Annealing", "good", f"on simulated data, {b}.")
