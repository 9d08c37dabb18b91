"""What can be wrong with the sites of a program: each mistake in one line, with site, shapes and what to do."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TypeVar

from ppdgm.errors import NoMean, ProgramError, closest
from ppdgm.language.vocabulary import Dist, Trace
from ppdgm.language.wrapped import inner

Shape = tuple[int, ...]
INSIDE = "Draw it inside `with P.plate(…):`"

Result = TypeVar("Result")


def check_statement(name: object, dist: object, obs: object, native: type, arrays: tuple[type, ...]) -> None:
    """Refuse a site without a name, a distribution of another library, or an observation in another kind of array."""
    if not isinstance(name, str):
        raise ProgramError(
            f"P.sample: got {type(name).__name__} instead of the site's name. Give the name first: "
            'P.sample("z", distribution).'
        )
    if not isinstance(dist, native):
        raise not_a_distribution(name, dist, native)
    if obs is not None and not isinstance(obs, arrays):
        raise ProgramError(
            f"Site {name!r}: got {_kind(obs)} for obs, expected data from the model's arguments, or P.constant(…)."
        )


def not_a_distribution(name: str, got: object, native: type, dist: str = "P.dist") -> ProgramError:
    """The error for a site that is sampled from something other than a distribution of the backend.

    Args:
        name: of the site.
        got: what is sampled.
        native: of the backend's distributions.
        dist: how their library is written.
    """
    library = native.__module__.partition(".")[0]
    other = {"torch": "numpyro", "numpyro": "torch"}.get(library)
    if isinstance(got, type):
        remedy = f"Give it its parameters: {got.__name__}(…)."
    elif other and any(c.__module__.startswith(other) for c in type(got).__mro__) and hasattr(got, "batch_shape"):
        remedy = f"It belongs to {other}. Use the distribution from {dist}."
    elif callable(got) and dist == "P.dist":
        remedy = f"If it is a prior, posterior or likelihood, call it: {type(got).__name__}(…)(P, …)."
    else:
        remedy = f'Give a distribution: sample("{name}", {dist}.Normal(…)).'
    return ProgramError(f"Site {name!r}: got {_kind(inner(got))}, expected a distribution. {remedy}")


def _kind(got: object) -> str:
    if isinstance(got, type):
        return f"the class {got.__name__}"
    shape = getattr(got, "shape", None)
    return f"{type(got).__name__} of shape {tuple(shape)}" if isinstance(shape, tuple) else type(got).__name__


def check_sites(guide: list[str], model: list[str]) -> None:
    """Refuse a guide and a model that do not draw the same latent sites."""
    if missing := [n for n in model if n not in guide]:
        raise ProgramError(
            f"Site {missing[0]!r} is latent in the model, but the guide does not draw it. "
            f"{_others('The guide draws', missing[0], guide)} Draw it in the guide, or give it obs=… in the model. A "
            'discrete site can also be summed out: infer={"enumerate": "parallel"} in the model.'
        )
    if extra := [n for n in guide if n not in model]:
        raise ProgramError(
            f"Site {extra[0]!r} is drawn in the guide, but is not a latent site of the model. "
            f"{_others('The latents of the model', extra[0], model)} Draw it in the model too, or remove it from the "
            "guide."
        )


def _others(lead: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    if close := closest(name, known):
        return f"Did you mean {close!r}?"
    return f"{lead}: {', '.join(known) or 'none'}."


def check_unobserved(names: Iterable[str]) -> None:
    """Refuse a guide with observed sites."""
    for name in names:
        raise ProgramError(
            f"Site {name!r} has obs=… in the guide. A guide draws latents, and receives data as arguments. Remove "
            "obs=…, or observe the site in the model."
        )


def twice(name: str) -> ProgramError:
    """The error for one name of two sites."""
    return ProgramError(f"Site {name!r} is drawn twice, or two sites have this name. Give each site its own name.")


def apart(name: str, inside: str, plate: str = "P.plate(…)", others: Iterable[str] = ()) -> ProgramError:
    """The error for a latent that is inside the plate in one function, and outside it in the other.

    Args:
        name: of the site.
        inside: "guide" or "model".
        plate: how the plate is written.
        others: names of the plates that the other function has instead.
    """
    outside = "model" if inside == "guide" else "guide"
    named = ", ".join(map(repr, others))
    remedy = f"Draw it inside `with {plate}:`"
    if named:
        remedy = f"The plates there: {named}. Give the plate over data the same name"
    return ProgramError(
        f"Site {name!r} is inside the data plate in the {inside}, but outside it in the {outside}. {remedy} in both."
    )


def not_pathwise(name: str, dist: Dist) -> ProgramError:
    """The error for a latent through which no gradient flows."""
    return ProgramError(
        f"Site {name!r}: {type(inner(dist)).__name__} is not reparameterised, so the gradient of its parameters would "
        "be silently wrong. Use a reparameterised distribution in the guide, or estimator='score'. If the site has few "
        'values, enumerate it: infer={"enumerate": "parallel"}.'
    )


def scored_outside(name: str, dist: Dist) -> ProgramError:
    """The error for a latent shared by all data through which no gradient flows."""
    return ProgramError(
        f"Site {name!r}: {type(inner(dist)).__name__} is not reparameterised, and the site is outside the data plate, "
        "where ppdgm has no score-function estimator. Use a reparameterised distribution in the guide."
    )


def is_real(dist: Dist) -> bool:
    """Whether its support is all real numbers, or vectors of real numbers."""
    support = dist.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return type(support).__name__.lower().startswith(("_real", "realvector"))


def check_walked(name: str, dist: Dist, inside: bool) -> None:
    """Refuse a latent that Hamiltonian Monte Carlo can't move: not real-valued, or shared by all data."""
    if not (is_real(dist) and dist.has_rsample):  # a discrete latent may get here as its log-odds
        raise ProgramError(
            f"Site {name!r} is discrete or bounded. Hamiltonian Monte Carlo needs a density over all real numbers. Use "
            "weighted draws of the guide instead: MonteCarloEM(sampler=Resampled()) to train, how='importance' for "
            "draws."
        )
    if not inside:
        raise ProgramError(
            f"Site {name!r} is outside the data plate. Chains and refits work only with latents inside it, which "
            "belong to one row each. For draws of it use how='importance'."
        )


def check_drawn(trace: Trace) -> None:
    """Refuse chains when the guide enumerates a latent."""
    if trace.marginal is not None:
        raise ProgramError(
            "The guide sums over the values of a latent, but chains need draws of it. Use a guide that draws it."
        )


def held_below(name: str, drawn: list[str], observed: bool) -> ProgramError:
    """The error for a site that is given when a site before it, on which it may depend, is to be drawn.

    Args:
        name: of the site.
        drawn: sites before it.
        observed: whether it is observed, so not a latent.
    """
    before = ", ".join(map(repr, drawn))
    remedy = (
        "For data similar to those that you have, use fit.reconstruct(data), or draw latents with fit.posterior(data)"
        if observed
        else f"Give {before} too"
    )
    return ProgramError(
        f"given: site {name!r} is drawn after {before} in the model, and may depend on it. Then {before} must come "
        f"from the posterior given {name!r}, which sample can't do. {remedy}. If {name!r} does not depend on {before}, "
        f"draw {name!r} first in the model."
    )


def mixed(name: str, what: str) -> ProgramError:
    """The error for a program that mixes the rows of a minibatch, or the particles.

    Args:
        name: of the site whose terms show it.
        what: "row" or "particle".
    """
    lead = "the data's rows" if what == "row" else "particles"
    return ProgramError(
        f"Site {name!r}: the terms of one {what} change when the other {what}s change, so {lead} are mixed. Values are "
        "[K, B, …], with particles first; data are [B, …]. Index from the right (h[..., 0, :] instead of h[0]), and "
        "sum or average only within a row (x.mean(-1)). Statistics of a minibatch belong in P.penalty, or they need "
        "running statistics for evaluations: P.batch_mean(…, otherwise=P.param(…)), or a module such as BatchNorm."
    )


def no_field(name: str, fields: list[str]) -> ProgramError:
    """The error for an observed site that is not a field of the data, so that the guide can't be shown its draw."""
    return ProgramError(
        f"Site {name!r} is observed, but no field of the data has its name ({', '.join(fields)}), so the guide can't "
        "receive what the model draws there. Give the site the name of the field."
    )


def check_replayed(others: list[str]) -> None:
    """Refuse to score a guide again at its draws if it draws more than the latents: the rest would be drawn again."""
    if others:
        raise ProgramError(
            f"The guide draws {others[0]!r}, which is not a latent of the model, so the estimators 'stl' and 'dreg' "
            "can't score the guide again at the same draws. Use estimator='reparam', or a guide that draws each latent "
            "separately, such as AutoNormal."
        )


def weighs_draws(what: str, do: str = "Use SVI, which sums over them exactly") -> ProgramError:
    """The error for a method that weighs draws, when the guide enumerates a site instead of drawing it."""
    return ProgramError(
        f"{what} weighs draws of every latent, but the guide enumerates one: it sums over all values, and draws none. "
        f"{do}. Or let the guide draw it: remove infer={{'enumerate': 'parallel'}} from your own guide, or "
        "enumerate=True from GumbelSoftmax. SemiSupervisedVAE, MixtureVAE and GaussianMixture always enumerate their "
        "classes."
    )


def enumerated_outside(name: str, plate: str = "P.plate(…)") -> ProgramError:
    """The error for a latent shared by all data that is to be enumerated; `plate` is how the plate is written."""
    return ProgramError(
        f"Site {name!r} is enumerated outside the data plate. A sum over its values would be a sum over all data "
        f"together, not row by row. Draw it inside `with {plate}:`, or draw it in the guide without enumeration."
    )


def penalty_outside(name: str) -> ProgramError:
    """The error for a penalty that is not per row."""
    return ProgramError(
        f"Penalty {name!r} is outside the data plate; expected one number for each row. Add it inside `with "
        "P.plate(…)`."
    )


def check_new_penalty(name: str, value: object, known: Container[str]) -> None:
    """Refuse a penalty that is no array, or that would replace another one."""
    if name in known:
        raise ProgramError(f"Penalty {name!r} is added twice, or two penalties have this name. Give each its own name.")
    if not hasattr(value, "shape"):
        raise ProgramError(f"Penalty {name!r}: got {value!r}, expected an array with one number for each row, [B].")


def check_penalty(name: str, got: Shape, shape: tuple[int, int]) -> None:
    """Refuse a penalty that is not one number for each row (and particle), or one number for all."""
    if not _fits(got, shape):
        raise ProgramError(
            f"Penalty {name!r}: got values of shape {got}, expected one number for each of {shape[1]} rows, "
            f"{shape[1:]}. Sum or average over the other dimensions."
        )


def check_penalties(dimensions: Mapping[str, int], most: int, summed: Iterable[str]) -> None:
    """Refuse a penalty that depends on sites that only the model has, and that are summed out."""
    for name, n in dimensions.items():
        if n > most:
            raise ProgramError(
                f"Penalty {name!r} depends on {', '.join(map(repr, summed))}, which is summed out of the model. Draw "
                "it in the guide: then the penalty is averaged with the guide's probabilities."
            )


def check_relaxed(guide: Mapping[str, Dist]) -> None:
    """Refuse a relaxation whose KL is that of its discrete distributions if no closed form is asked for."""
    for name, q in guide.items():
        if getattr(q, "discrete", None) is not None and q.closed_form is not None:
            raise ProgramError(
                f"Site {name!r} is relaxed, with the closed-form KL of the discrete distributions, but the engine "
                'weighs draws. Use kl="relaxed" in the posterior, kl="auto" in SVI, or estimator="vimco" in IWAE.'
            )


def relaxed_codes(name: str) -> ProgramError:
    """The error for draws of a relaxation that are weighed under a prior of codes."""
    return ProgramError(
        f"Site {name!r} is relaxed, but its prior has probabilities of codes, and no density of relaxations. Use "
        'kl="categorical" in the posterior with SVI(kl="auto"), or an engine that does not relax: '
        'SVI(estimator="score"), ReweightedWakeSleep().'
    )


def check_moved(
    guide: Mapping[str, Dist], auxiliary: Iterable[str], model: Mapping[str, Dist], known: Container[str], auto: bool
) -> None:
    """Refuse to give a mean if a guide puts a latent at a function of an auxiliary draw: f(mean) is not its mean.

    The library's own guides put a latent over all real numbers at the auxiliary numbers themselves.

    Args:
        guide, model: distributions by site.
        auxiliary: the guide's auxiliary sites.
        model: of the latents.
        known: latents whose mean is known anyway.
        auto: whether the guide is the library's own.

    Raises:
        NoMean: with the site.
    """
    if not list(auxiliary):
        return
    for name, dist in model.items():
        if name in known or type(inner(guide[name])).__name__ != "Delta" or (auto and is_real(dist)):
            continue
        raise NoMean(f"Site {name!r} is a function of an auxiliary draw, so its mean is not known.")


def point_mass(name: str) -> ProgramError:
    """The error for log-weights when the guide has no density at a latent."""
    return ProgramError(
        f"Site {name!r}: the guide is a point mass there (Delta), but the model has a density. So there are no "
        "importance weights, and no bound on log p(x). elbo() gives the log-density at the point, which may exceed log "
        "p(x). Use a guide with a density, such as AutoNormal or DiagonalNormal."
    )


def changed(role: str) -> ProgramError:
    """The error for a function that overwrites its arguments."""
    return ProgramError(
        f"The {role} changes its data in place, so others receive changed data. Write x = x + … instead of x += …, and "
        "copy x before you assign to x[…]."
    )


def overwritten(name: str) -> ProgramError:
    """The error for a program that overwrites a parameter."""
    return ProgramError(
        f"The program changes the parameter {name!r} by an in-place operation, so each reading has a different value. "
        "Write a = a + b instead of a += b, and copy a before you assign to a[…]."
    )


def scored(name: str, dist: Dist, log_prob: Callable[[], Result]) -> Result:
    """The result of `log_prob` at a draw of the guide.

    Raises:
        ProgramError: the distribution can't have such a value, and its library says so.
    """
    try:
        return log_prob()
    except (ValueError, UserWarning) as error:
        if "support" not in str(error):
            raise
        alone = inner(dist)
        raise ProgramError(
            f"Site {name!r}: the guide draws values outside the support of {type(alone).__name__} ({alone.support}), "
            "its distribution in the model. Use distributions with the same support in both."
        ) from error


def check_batch_shape(
    name: str, dist: Dist, shape: tuple[int, int], inside: bool, observed: bool, lead: Shape = ()
) -> None:
    """Refuse a distribution that is not one for each of [K, B], after the axes `lead` of enumerated sites."""
    got, event = tuple(dist.batch_shape)[len(lead) :], tuple(dist.event_shape)
    if _fits(got, shape):
        return
    declared = getattr(dist, "reinterpreted_batch_ndims", 0)
    if not inside:
        remedy = "" if observed else f", or, if it is one latent for all data, add .to_event({len(got)})"
        raise ProgramError(
            f"Site {name!r} is outside the data plate, but its distribution has batch shape {got}. {INSIDE}{remedy}."
        )
    told = f"Site {name!r}: got a distribution of batch shape {got}, expected one that fits [K, B] = {shape}."
    if declared and len(got) < 2 and event and _fits((*got, event[0]), shape):
        fewer = f"make it .to_event({declared - 1})" if declared > 1 else "remove .to_event(1)"
        raise ProgramError(f"{told} Its events of shape {event} contain the dimension of the data: {fewer}.")
    n = next(n for n in range(1, len(got) + 1) if _fits(got[: len(got) - n], shape))
    more = f"make it .to_event({declared + n})" if declared else f"add .to_event({n})"
    if declared and n == len(got):
        more += f". If {got} is the dimension of the data, index from the right: h[..., 0, :]"
    raise ProgramError(f"{told} Dimensions within a row belong to the event: {more}.")


def _fits(got: Shape, shape: tuple[int, int]) -> bool:
    """Whether `got` broadcasts to [K, B]."""
    return len(got) <= 2 and all(g in (1, s) for g, s in zip(got[::-1], shape[::-1], strict=False))


def check_given(name: str, got: Shape, event: Shape, shape: tuple[int, int], inside: bool) -> None:
    """Refuse a value from the guide that can't be a draw of the model's distribution."""
    if got == (*shape, *event):
        return
    if got[2:] == event and len(got) == len(event) + 2 and got[0] == shape[0]:
        here, there = ("inside", "outside") if inside else ("outside", "inside")
        raise ProgramError(
            f"Site {name!r} is {here} the data plate, but its values, of shape {got}, were drawn {there} it; expected "
            f"{(*shape, *event)}. {INSIDE} in both guide and model."
        )
    remedy = "check .to_event(n) and the latent's width in both"
    if inside and got[2:] == (shape[1], *event):
        remedy = "the guide's events contain the dimension of the data, so use a smaller n (by 1) in its .to_event(n)"
    raise ProgramError(
        f"Site {name!r}: got values of shape {got} from the guide, but the model's distribution is over events of "
        f"shape {event}, so expected [K, B, *event] = {(*shape, *event)}. Guide and model must agree: {remedy}."
    )


def check_observation(name: str, got: Shape, event: Shape, shape: tuple[int, int], inside: bool) -> None:
    """Refuse data that are not one event for each row; a single number may be given for all rows."""
    n = len(got) - len(event)
    fits = n >= 0 and got[n:] == event and all(g in (1, s) for g, s in zip(got[:n][::-1], shape[::-1], strict=False))
    if fits and (not inside or got == () or (n > 0 and got[n - 1] == shape[1])):
        return
    lead = f"Site {name!r}: got data of shape {got}, but its distribution is over events of shape {event}"
    if not inside:
        raise ProgramError(
            f"{lead}, and the site is outside the data plate, so expected one event for all data. Observe it inside "
            "`with P.plate(…):`, or check .to_event(n)."
        )
    raise ProgramError(
        f"{lead}, one for each of {shape[1]} rows, so expected {(shape[1], *event)}. Check .to_event(n) and the shape "
        "of the net's output."
    )


# --- plain pairs ------------------------------------------------------------------------------------------------------

Frames = Mapping[str, tuple[int, int, int]]  # plate -> its dimension, the number of indices at a time, its size


def misfit(name: str, dist: Dist, plates: Frames) -> ProgramError:
    """The error for a distribution whose batch shape is not that of the plates around it."""
    got, declared = tuple(dist.batch_shape), getattr(dist, "reinterpreted_batch_ndims", 0)
    for plate, (dim, size, full) in plates.items():
        if size != full and len(got) >= -dim and got[dim] == full:
            return ProgramError(
                f"Site {name!r}: got a distribution of batch shape {got}, but plate {plate!r} takes {size} of {full} "
                f"rows at a time. Use only these rows of the data: `with plate({plate!r}, …) as i:` and x[i]."
            )
    around = ", ".join(f"{n!r} ({size} at dim {dim})" for n, (dim, size, _) in plates.items())
    n = declared + max(1, len(got) - max((-dim for dim, _, _ in plates.values()), default=0))
    return ProgramError(
        f"Site {name!r}: got a distribution of batch shape {got}, which does not fit its plates: {around or 'none'}. "
        f"Dimensions within a row belong to the event: {'make it' if declared else 'add'} .to_event({n})."
    )


def outside(name: str, got: Shape, plate: str, others: Iterable[str], observed: bool) -> ProgramError:
    """The error for a site outside the data plate that has batch dimensions.

    Args:
        name: of the site.
        got: its batch shape.
        plate: how the data plate is written.
        others: names of the plates around the site.
        observed: whether it is observed, so not a latent.
    """
    remedy = f"Draw it inside `with {plate}:`"
    if named := ", ".join(map(repr, others)):
        remedy = f"It is inside {named}: if that is the plate over data, give its name: data_plate=…"
    elif not observed:
        remedy += f", or, if it is one latent for all data, add .to_event({len(got)})"
    return ProgramError(
        f"Site {name!r} is outside the data plate, but its distribution has batch shape {got}. {remedy}."
    )


def check_sizes(plate: str, model: int, guide: int) -> None:
    """Refuse a model and a guide whose data plates take different numbers of rows."""
    if model != guide:
        raise ProgramError(
            f"Plate {plate!r} takes {model} rows at a time in the model, but {guide} in the guide. Give it the same "
            "size and the same subsample_size in both."
        )


def check_rounded(name: str, dist: Dist) -> None:
    """Refuse values for a distribution whose density is that of a draw before it was rounded."""
    kind = type(inner(dist)).__name__
    if kind.endswith("StraightThrough"):
        raise ProgramError(
            f"Site {name!r}: {kind} rounds its draws. Its density is that of the draws before rounding, which are not "
            f"known for given values. Use {kind.removesuffix('StraightThrough')}, or leave the values out."
        )


def in_one_vector(guide: str, plate: str) -> ProgramError:
    """The error for an autoguide that draws the latents of all data together."""
    return ProgramError(
        f"The guide, {guide}, draws the latents of all data as one vector, so it has no separate terms for the rows of "
        f"plate {plate!r}. Use AutoNormal, or a guide that computes each row's distribution from x."
    )
