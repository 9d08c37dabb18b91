"""All parts of a diagnosis: a trained program's results are passed as arrays to `ppdgm.diagnostics`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ppdgm.diagnostics import (
    bound_curve,
    bracket,
    coverage,
    elbo_surgery,
    latent_use,
    pit,
    predictive_check,
    ranks,
    uniformity,
    weight_quality,
)
from ppdgm.diagnostics.codebook import code_use
from ppdgm.diagnostics.diagnosis import Diagnosis
from ppdgm.diagnostics.log_mean import log_mean
from ppdgm.errors import PpdgmError, ProgramError, items, one_of, out_of_memory, shown
from ppdgm.inference.evaluation.annealing import anneal, inverse_temperatures
from ppdgm.inference.evaluation.baseline import baseline_log_likelihood
from ppdgm.inference.evaluation.drawing import pictures
from ppdgm.inference.evaluation.estimates import (
    as_likelihood,
    elbo_of_rows,
    log_weights_of_rows,
)
from ppdgm.inference.evaluation.evaluator import Evaluator, flat
from ppdgm.inference.evaluation.gaps import measure_gaps
from ppdgm.inference.evaluation.joint import joint_of
from ppdgm.inference.evaluation.latents import by_latent, per_latent
from ppdgm.inference.evaluation.means import plain_means
from ppdgm.inference.evaluation.numbered import POINTS, check_not_points, numbered
from ppdgm.inference.evaluation.terms import Terms, aggregated_log_density, prior_moves, read_terms
from ppdgm.specs import PositiveFloat, PositiveInt, Spec

if TYPE_CHECKING:
    from ppdgm.diagnostics.predictive import Statistic
    from ppdgm.language.runtime import Native

Part = Literal["likelihood", "latents", "surgery", "calibration", "predictive", "gaps", "annealing", "pictures"]
FEW = 20  # rows: with fewer, their aggregated posterior is not useful
PARTS: tuple[str, ...] = get_args(Part)


_ODD = "site {!r} is under a mask: where the mask is off, the latent has no meaning, and may have any value."


class Depth(Spec):
    """How much work a diagnosis does.

    Args:
        k: K, draws of the guide per row for log p(x), k̂ and the bounds.
        draws: S, draws of the guide per row for surgery.
        simulated: rows simulated from the model, for calibration.
        ranks: L, draws of the guide for each of them.
        replicated: data sets drawn for predictive checks.
        replicated_size: rows of each.
        few: rows for which the posterior is refitted, and chains are annealed.
        family: of the refitted Gaussian posteriors: "diagonal" or "full".
        refit_steps: of Adam.
        chains: C, of annealed importance sampling for each row.
        temperatures: T, the number of its temperatures.
        num_leapfrog: leapfrog steps at each.
        nats: a dimension with a KL below this carries nothing.
        active: a dimension is active if the variance of its means is above this.
    """

    k: PositiveInt = 1000
    draws: PositiveInt = 1
    simulated: PositiveInt = 500
    ranks: PositiveInt = 99
    replicated: PositiveInt = 200
    replicated_size: PositiveInt = 500
    few: PositiveInt = 32
    family: Literal["diagonal", "full"] = "diagonal"
    refit_steps: PositiveInt = 400
    chains: PositiveInt = 10
    temperatures: PositiveInt = 200
    num_leapfrog: PositiveInt = 10
    nats: PositiveFloat = 0.01
    active: PositiveFloat = 0.01


class Diagnosing:
    """The work on one evaluator. Parts are independent: if one fails, this is reported, and the others go on."""

    def __init__(
        self,
        evaluator: Evaluator,
        depth: Depth,
        labels: np.ndarray | None,
        statistics: Mapping[str, Statistic] | None,
        told: Callable[[str], None],
    ):
        self.evaluator, self.depth, self.labels, self.statistics, self.told = evaluator, depth, labels, statistics, told
        self.found: dict[str, Any] = {}
        self.withheld: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.sizes: dict[str, int] = {}  # of the parts that use only some rows, or simulated ones
        self._terms: Terms | None = None

    def run(self, parts: tuple[str, ...], **about: Any) -> Diagnosis:
        """Run the parts, one after another."""
        for name in PARTS:
            if name not in parts:
                continue
            self.told(name)
            started = time.perf_counter()
            try:
                getattr(self, f"_{name}")()
            except PpdgmError as error:
                self.withheld[name] = str(error)
            except NotImplementedError as error:  # a distribution without a mean, a density at given values, …
                self.withheld[name] = str(error) or "the program's distributions do not support it."
            except Exception as error:
                if (told := out_of_memory(error)) is None:
                    raise
                self.withheld[name] = str(told)
            self.seconds[name] = time.perf_counter() - started
        return Diagnosis(
            size=self.evaluator.size,
            withheld=self.withheld,
            seconds=self.seconds,
            sizes=self.sizes,
            **self.found,
            **about,
        )

    @property
    def terms(self) -> Terms:
        """Draws of the guide with their densities, made once."""
        if self._terms is None:
            self._terms = read_terms(self.evaluator, self.depth.draws)
        return self._terms

    def _likelihood(self) -> None:
        k = self.depth.k
        self.found["elbo"] = elbo_of_rows(self.evaluator, min(k, 10))
        weights = log_weights_of_rows(self.evaluator, k)
        self._baseline()
        self.found["log_likelihood"] = as_likelihood(self.evaluator, log_mean(weights), k)
        if not self._draws():
            self.withheld["Pareto k̂"] = "the guide draws no latent, so there are no weights."
            return
        if points := numbered(self.evaluator.program):
            self.withheld["Pareto k̂"] = POINTS.format(next(iter(points)))
            return
        if k >= 2:
            self.found["curve"] = bound_curve(weights)
        if k < 30:
            self.withheld["Pareto k̂"] = f"it needs at least 30 draws per row, got k = {k}. Give k=30 or more."
        else:
            self.found["weights"] = weight_quality(weights)

    def _baseline(self) -> None:
        try:
            self.found["baseline"] = baseline_log_likelihood(self.evaluator)
        except (PpdgmError, NotImplementedError) as error:  # a likelihood that can't be fitted to columns
            self.withheld["baseline"] = str(error)

    def _draws(self) -> bool:
        """Whether the guide has any latents."""
        return bool(self.evaluator.one.log_q) or self.evaluator.one.marginal is not None

    def _latents(self) -> None:
        terms, means = self.terms, plain_means(self.evaluator)[0]
        codes = {n: by_latent(v, terms.latents.get(n)) for n, v in means.items() if n in terms.kl}
        kl = {n: per_latent(v, codes[n]) if n in codes else v for n, v in terms.kl.items()}
        odd = self.evaluator.without_meaning
        known = {n: v for n, v in codes.items() if kl[n] is not None and n not in odd}
        told = {n: terms.kl[n] if v is None else v for n, v in kl.items()}
        told = {n: v for n, v in told.items() if n in known or v.ndim == 2}
        if odd and not told:
            raise PpdgmError(_ODD.format(odd[0]))
        for name, size in numbered(self.evaluator.program).items():
            if name in means:
                self.found.setdefault("codes", {})[name] = code_use(means[name].argmax(-1), size)
        self.found["use"] = latent_use(known, told, self.depth.nats, self.depth.active)

    def _surgery(self) -> None:
        if self.evaluator.size < FEW:
            raise PpdgmError(
                f"the aggregated posterior of {self.evaluator.size} rows shows little. Give {FEW} rows or more."
            )
        t = self.terms
        if prior_moves(self.evaluator, t):
            raise PpdgmError(
                "the prior of its latents differs between rows (for example by label), so there is no single p(z) to "
                "compare with the aggregated posterior. Diagnose the rows of one label separately."
            )
        self.found["surgery"] = elbo_surgery(
            t.seen, t.log_q, aggregated_log_density(self.evaluator, t.latents), t.log_p
        )

    def _calibration(self) -> None:
        evaluator, depth = self.evaluator, self.depth
        check_not_points(evaluator.program)
        truth, fresh = evaluator.simulated_data(depth.simulated, evaluator.stream("truth"))
        other = evaluator.of(fresh)
        self.sizes["calibration"] = depth.simulated

        draws = evaluator.drawing(depth.ranks)

        def draw(data: Native, index: np.ndarray, i: int) -> dict[str, np.ndarray]:
            return draws(data, index, evaluator.stream("ranks", i))

        drawn, true = flat(other.over(draw, 128), 2), flat(truth)
        alike = [n for n in true if n in drawn and drawn[n].shape[1:] == true[n].shape and len(true[n]) > 1]
        if not alike:
            raise PpdgmError(
                "all rows share its latents, so a simulated data set has only one true value, not one for each row."
            )
        odd = [n for n in alike if n in evaluator.without_meaning]
        if odd:
            if len(odd) == len(alike):
                raise PpdgmError(_ODD.format(odd[0]))
            self.withheld["calibration"] = _ODD.format(odd[0])
        for name in (n for n in alike if n not in odd):
            order = ranks(drawn[name], true[name], evaluator.seed)
            self.found.setdefault("calibration", {})[name] = uniformity(order, depth.ranks)
            self.found.setdefault("pit", {})[name] = pit(order, depth.ranks, evaluator.seed + 1)
            self.found.setdefault("coverage", {})[name] = coverage(drawn[name], true[name])

    def _predictive(self) -> None:
        evaluator, depth = self.evaluator, self.depth
        few, _ = evaluator.some(depth.replicated_size, "replicated")
        size = few.size
        self.sizes["predictive checks"] = size

        draws = evaluator.drawing(depth.replicated)

        def draw(data: Native, index: np.ndarray, i: int) -> dict[str, np.ndarray]:
            z = draws(data, index, evaluator.stream("latents", i))
            seed = evaluator.stream("predictive", i)
            found: dict[str, np.ndarray] = evaluator.runtime.predictive(evaluator.params, data, index, z, seed)
            return found

        again = few.over(draw, max(1, min(128, 12_800 // depth.replicated)))
        field, name = evaluator.shown(again)
        if name in evaluator.masked:
            raise ProgramError(f"site {name!r} is masked: numbers that are only filled in would count as data.")
        observed = np.asarray(few.feed.fields[field])
        seen = observed_numbers(observed, self.statistics is not None)
        replicated = map(seen, again[name])
        self.found["checks"] = tuple(predictive_check(seen(observed), replicated, self.statistics).values())
        whole = (few.simulated(size, evaluator.stream("prior", s))[1][name] for s in range(depth.replicated))
        self.found["prior_checks"] = tuple(predictive_check(seen(observed), map(seen, whole), self.statistics).values())

    def _gaps(self) -> None:
        depth = self.depth
        few, index = self.evaluator.some(depth.few, "refitted")
        self.sizes["gaps"] = few.size
        annealing = depth.temperatures, depth.num_leapfrog
        self.found["gaps"] = measure_gaps(few, index, depth.family, depth.refit_steps, *annealing)

    def _annealing(self) -> None:
        depth, seed = self.depth, self.evaluator.seed
        if set(self.evaluator.fields) != {"x"}:
            raise PpdgmError(
                "annealing starts at the prior, and this program has other fields besides x, on which the prior "
                "may depend."
            )
        truth, fresh = self.evaluator.simulated_data(depth.few, self.evaluator.stream("annealed"))
        self.sizes["annealing"] = depth.few
        joint, _ = joint_of(self.evaluator.of(fresh))
        start, _ = self.evaluator.simulated(depth.few * depth.chains, self.evaluator.stream("chains"))
        chains = {n: v.reshape(depth.chains, depth.few, *v.shape[1:]) for n, v in start.items()}
        first = joint.latents.flat(chains)
        exact = np.repeat(joint.latents.flat({n: v[None] for n, v in truth.items()}), depth.chains, axis=0)
        beta = inverse_temperatures(depth.temperatures)
        _, steps = anneal(joint, first, beta, depth.num_leapfrog, seed)  # a pilot run, for the step sizes
        forward, _ = anneal(joint, first, beta, depth.num_leapfrog, seed + 1, steps)
        back, _ = anneal(joint, exact, beta, depth.num_leapfrog, seed + 2, steps, reverse=True)
        self.found["bracket"] = bracket(forward, back)

    def _pictures(self) -> None:
        use, weights = self.found.get("use"), self.found.get("weights")
        self.found["pictures"] = pictures(self.evaluator, self._terms, use, weights, self.labels)


def observed_numbers(observed: np.ndarray, own: bool) -> Callable[[np.ndarray], np.ndarray]:
    """A function that leaves out what is missing in the data from a data set drawn like them, and from the data.

    Args:
        observed: the data, with NaN for what is missing.
        own: whether statistics are the user's own, which see rows.

    Raises:
        ProgramError: they are, and something is missing.
    """
    there = ~np.isnan(observed)
    if there.all():
        return lambda x: x
    if own:
        raise ProgramError(
            f"{int((~there).sum())} entries of the data are missing, and your own statistics see whole rows. Leave "
            "statistics= out, or give rows without missing entries."
        )
    return lambda x: np.asarray(x)[there]


def check_parts(parts: object) -> tuple[str, ...]:
    """The names of parts, or all of them.

    Raises:
        PpdgmError: an unknown one.
    """
    if parts is None:
        return PARTS
    chosen = [parts] if isinstance(parts, str) else items(parts)
    if not chosen:
        raise PpdgmError(f"parts: got {shown(parts)}, expected some of {', '.join(PARTS)}.")
    for name in chosen:
        one_of("parts", name, PARTS)
    return tuple(chosen)
