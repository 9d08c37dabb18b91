"""The export to ArviZ: draws of the posterior and the prior, predictions, densities and data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppdgm.diagnostics import Loo, loo, to_arviz
from ppdgm.errors import PpdgmError, ProgramError, listed
from ppdgm.inference.evaluation.estimates import check_density
from ppdgm.inference.evaluation.evaluator import Evaluator, Sites
from ppdgm.inference.evaluation.posterior import PosteriorDraws
from ppdgm.language.vocabulary import Array

if TYPE_CHECKING:
    from ppdgm.data.aliases import Outward
    from ppdgm.language.runtime import Native

_FILLED = (
    "{} is observed under a mask, so some of its numbers are only filled in, and plots would compare them with "
    "predictions. It is in constant_data."
)
_NO_LOO = (
    "Each row has its own latent, so log p(x|z) is not a leave-one-out density, but az.loo, az.waic and az.compare "
    "would use it as one: a guide that is too narrow would get the best score. It is in sample_stats, as log_p_x. "
    "Compare models by fit.log_likelihood() of held-out data."
)
_NO_PRIOR = (
    "All rows share {}: a simulation of rows has one draw of it, so many draws of the prior are as many simulations of "
    "all rows. Draw them with fit.sample(n, seed=…), a seed for each."
)


def export(
    evaluator: Evaluator,
    posterior: PosteriorDraws,
    predictive: int,
    prior: int,
    coords: Mapping[str, Array] | None,
    library: str,
    outward: Outward,
) -> Any:
    """ArviZ's InferenceData, or DataTree; groups that a program can't give are left out, and named in `attrs`.

    Args:
        evaluator: program and data.
        posterior: draws.
        predictive: number of draws of the posterior for which data are drawn, evenly spaced.
        prior: number of draws of the prior and of data from it.
        coords: labels of axes.
        library: the backend's name.
        outward: converts observed sites to the user's units.
    """
    shown = lambda sites: {n: np.asarray(v) for n, v in outward(sites).items()}
    observed = shown({n: np.asarray(v) for n, v in evaluator.feed.fields.items()})
    drawn_from = {n: v[:, 0] if n in posterior.shared else v for n, v in posterior.latents.items()}
    groups: dict[str, Mapping[str, np.ndarray]] = {"posterior": drawn_from}
    groups |= {"sample_stats": posterior.statistics} if posterior.statistics else {}
    of_each = any(n not in posterior.shared for n in posterior.latents)
    left_out: dict[str, str] = {"log_likelihood": _NO_LOO} if of_each else {}

    def add(names: tuple[str, ...], make: Callable[[], Mapping[str, Mapping[str, np.ndarray]]]) -> None:
        try:
            found = make()
        except (PpdgmError, NotImplementedError) as error:  # the libraries' sign for what a distribution does not have
            left_out.update(dict.fromkeys(names, str(error)))
        else:
            groups.update({n: found[n] for n in names if found.get(n)})

    drawn = (set(evaluator.one.log_p) | set(evaluator.drawn_as)) & set(observed)  # others are given: a label, a mask
    seen = lambda: _seen(evaluator, posterior.latents) if posterior.seen is None else posterior.seen
    if of_each:
        add(("sample_stats",), lambda: {"sample_stats": {**posterior.statistics, "log_p_x": seen()}})
    else:
        add(("log_likelihood",), lambda: {"log_likelihood": {_name_of(drawn or set(observed)): seen()}})
    if predictive:
        # Evenly spaced, so that each of several chains, one after another, has its share.
        taken = np.linspace(0, (size := len(next(iter(posterior.latents.values())))) - 1, min(predictive, size))
        few = {n: v[np.rint(taken).astype(int)] for n, v in posterior.latents.items()}
        add(("posterior_predictive",), lambda: {"posterior_predictive": _of_each(_predicted(evaluator, few), shown)})
    if prior and posterior.shared:
        left_out |= dict.fromkeys(("prior", "prior_predictive"), _NO_PRIOR.format(listed(posterior.shared)))
    elif prior:
        add(("prior", "prior_predictive"), lambda: _prior(evaluator, prior, shown))
    masked = evaluator.filled
    if there := {n: v for n, v in observed.items() if n in drawn and n not in masked} or ({} if masked else observed):
        groups["observed_data"] = there
    if masked:
        left_out["observed_data"] = _FILLED.format(listed(masked))
    if given := {n: v for n, v in observed.items() if n not in there}:
        groups["constant_data"] = given
    attrs = {f"left_out_{n}": why for n, why in left_out.items()}
    if posterior.chains > 1:
        attrs["sampling"] = f"{posterior.chains} Markov chains for each row, one after another"
    dims = {n: _own_axes(n, drawn_from[n].ndim - 1) for n in posterior.shared}
    dims |= dict.fromkeys(posterior.statistics, ()) if posterior.shared else {}
    return to_arviz(groups, dims, coords=coords, attrs=attrs, inference_library=library, chains=posterior.chains)


def _name_of(drawn: set[str]) -> str:
    """The variable of log p(x|z): the observed one, or "joint" if it is that of several."""
    return next(iter(drawn)) if len(drawn) == 1 else "joint"


def _own_axes(name: str, rank: int) -> tuple[str, ...]:
    """Axes of a latent that all rows share."""
    return (f"{name}_dim",) if rank == 1 else tuple(f"{name}_dim_{i}" for i in range(rank))


def _given(latents: Sites, index: np.ndarray, start: int) -> Sites:
    """Draws for these rows, in one shape for all chunks."""
    rows = start + np.arange(len(index))
    size = max(v.shape[1] for v in latents.values())  # 1 if all rows share it
    return {n: v if v.shape[1] == 1 < size or size == 1 else v[:, rows % size] for n, v in latents.items()}


def _seen(evaluator: Evaluator, latents: Sites) -> np.ndarray:
    """log p(x|z), [S, N]."""
    rows = max(1, min(512, 20_000 // len(next(iter(latents.values())))))

    def each(data: Native, index: np.ndarray, i: int) -> Sites:
        given = _given(latents, index, i * len(index))
        return {"x": evaluator.runtime.joint(evaluator.params, data, index, given, np.zeros((), evaluator.dtype))[1]}

    return evaluator.over(each, rows)["x"]


def _predicted(evaluator: Evaluator, latents: Sites) -> Sites:
    rows = max(1, min(512, 20_000 // len(next(iter(latents.values())))))

    def each(data: Native, index: np.ndarray, i: int) -> Sites:
        given, seed = _given(latents, index, i * len(index)), evaluator.stream("predicted", i)
        found: Sites = evaluator.runtime.predictive(evaluator.params, data, index, given, seed)
        return found

    return evaluator.over(each, rows)


def _of_each(sites: Sites, shown: Callable[[Sites], Sites]) -> Sites:
    """Sites [S, N, …] in the user's units, draw by draw: names of classes are for arrays [N]."""
    draws = [shown({n: v[s] for n, v in sites.items()}) for s in range(len(next(iter(sites.values()))))]
    return {n: np.stack([d[n] for d in draws]) for n in sites}


def _prior(evaluator: Evaluator, draws: int, shown: Callable[[Sites], Sites]) -> dict[str, Sites]:
    latents, observed = evaluator.simulated(draws, evaluator.stream("prior"))
    return {"prior": latents, "prior_predictive": shown(observed)}


def leave_one_out(evaluator: Evaluator, draws: int) -> Loo:
    """PSIS-LOO with the guide's draws, for a program whose latents are shared by all rows.

    Raises:
        ProgramError: each row has its own latent, or there are no latents.
    """
    seen: list[np.ndarray] = []
    correction = np.zeros(draws)
    given: Sites = {}
    for _, data, index, keep in evaluator.chunks(256):
        trace = evaluator.runtime.trace(evaluator.params, data, index, draws, evaluator.seed, given, False)
        if trace.log_q or not trace.shared:
            raise ProgramError(
                "Leave-one-out needs latents that all rows share"
                + (
                    f", but each row has its own latent {next(iter(trace.log_q))!r}"
                    if trace.log_q
                    else ", but there are none"
                )
                + (
                    ". If a row is left out, the posterior of its latent is the prior, and weights of posterior "
                    "draws can't show that. Use log_likelihood() of held-out data."
                )
            )
        check_density(trace)
        seen.append(np.asarray(sum(trace.log_p.values()), np.float64)[:, :keep])
        if not given:  # later the guide draws u of an autoguide's θ = f(u) again, which has no density at this θ
            correction = np.asarray(sum(trace.shared.values()), np.float64)  # log p(θ) − log q(θ)
            given = {n: trace.values[n] for n in trace.shared if n in trace.values}
    every = np.concatenate(seen, axis=1)
    return loo(every, correction + every.sum(1), np.zeros(draws))
