"""What can be wrong with a plain pair and its rows: plates, parameters for each row, masks, each in one line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ppdgm.errors import ProgramError, closest, nearest
from ppdgm.language.vocabulary import Array, Dist

Shape = tuple[int, ...]

NO_SLEEP = (
    "The sleep phase of wake-sleep draws from the model without data, and a plain pair can't do this. Use "
    "ReweightedWakeSleep(wake_phi=1.0, sleep_phi=0.0), or write the program over P."
)

NO_PRIOR = (
    "The only way to draw from a plain pair is fit.sample(n). For other draws, use the library's own Predictive with "
    "the model (in Pyro, pyro.poutine.uncondition(model)(x)), or write the program over P."
)

NO_ROWS = (
    "To draw from a plain pair, its model runs on rows of the same shapes as the training data. This run did not save "
    "these shapes. Use the library's own Predictive with the model."
)

NO_FUNCTIONS = (
    "A plain pair has a model and a guide, and no other functions that an objective can run. Write the program over P."
)

NO_PREDICTIVE = (
    "A plain pair's observed sites can't be drawn at given latents. Use the library's own Predictive with the model, "
    "or write the program over P."
)

NOT_STOPPED = (
    "The estimators 'stl' and 'dreg' do not work with plain Pyro pairs. They score the guide without a gradient to its "
    "parameters, but the modules of a Pyro pair contain their own parameters. Use estimator='reparam', or write the "
    "pair in NumPyro or as a Program."
)

HAS_STATE = (
    "Site {!r} has state in addition to the parameters (running statistics, or a generator for dropout). The numpyro "
    "backend runs plain pairs as pure functions of parameters and data. Use layer norm or group norm, and nets without "
    "dropout."
)

CONTROL_FLOW = (
    "The pair uses numpyro's own control flow (scan or cond). Its sites have axes that belong to no plate, so they "
    "have no separate terms for each row. Use a Python loop, or jax.lax.scan only around code without sites."
)


def check_known(known: int | None, got: int) -> None:
    """Refuse data with another number of rows, if a pair keeps something for each row that it knows."""
    if known is not None and got != known:
        raise ProgramError(
            f"Got {got} rows, expected {known}. The pair has something for each row that it was made with, in their "
            "order (a parameter, or an array from outside its functions), and nothing for other rows. Give all "
            f"{known} rows; or use a guide that computes each row's distribution from x, and pass arrays as fields of "
            "the data."
        )


def check_shape(name: str, got: Shape, expected: Shape) -> None:
    """Refuse a parameter whose shape differs from the shape that a pair gives it with the data at hand."""
    if got != expected:
        raise ProgramError(
            f"Parameter {name!r}: got shape {got}, expected {expected}, the shape that the pair gives it with these "
            "data. A parameter with a row for each row of the data fits only the data that it was trained with."
        )


def check_alike(params: Mapping[str, Array], live: Mapping[str, Array]) -> None:
    """Refuse values of other parameters than the pair's, or of other shapes.

    Raises:
        ProgramError: with the parameter.
    """
    for n in params.keys() ^ live.keys():
        lacks, there = ("the given values", params) if n in live else ("the pair", live)
        raise ProgramError(f"Parameter {n!r} is not in {lacks}. {nearest(n, there)}")
    for n, value in params.items():
        check_shape(n, tuple(value.shape), tuple(live[n].shape))


def borrowed(plate: str, model: int, guide: int, error: Exception) -> ProgramError:
    """The error for a model that fails when only the guide subsamples, and the model is given its indices."""
    return ProgramError(
        f"Plate {plate!r} takes {model} rows at a time in the model, but {guide} in the guide. The model then receives "
        f"the guide's indices, and fails: {error} In the model, take the rows of these indices (`with plate(…) as i:` "
        "and x[i]); or give the plate the same size and the same subsample_size in both."
    )


def unsized(name: str, dist: Dist, plate: str, rows: int) -> ProgramError:
    """The error for a distribution that is not one for each row, in a data plate without a size."""
    return ProgramError(
        f"Site {name!r}: got a distribution of batch shape {tuple(dist.batch_shape)} inside plate {plate!r}, which has "
        f"no size, so Pyro does not expand the distribution. Expected one for each of {rows} rows. Give the plate its "
        f"size, pyro.plate({plate!r}, x.shape[0])."
    )


def misfit_mask(name: str, mask: Shape, shape: Shape) -> ProgramError:
    """The error for a mask that is not one for each row of the minibatch."""
    return ProgramError(
        f"Site {name!r}: got a mask of shape {mask}, but its densities have shape {shape}. A mask from outside the "
        "functions does not depend on the minibatch. Pass it as a field of the data, {'x': x, 'mask': mask}."
    )


def unmasked(name: str) -> ProgramError:
    """The error for a guide that scores missing data also in rows in which they are not missing."""
    return ProgramError(
        f"Site {name!r}: obs_mask= gives it no density in rows that have data, but the guide has one in every row, so "
        "that bounds would be too high there. Give the guide the opposite mask, dist.mask(~obs_mask); autoguides can't "
        "have it."
    )


def by_place(name: str, rows: int) -> ProgramError:
    """The error for a pair that finds what it has for each row by the row's place in the minibatch."""
    return ProgramError(
        f"Site {name!r}: the terms of a row change with its place in the minibatch. A parameter with {rows} rows, one "
        "for each row of the data, is used in the order of the minibatch. Use it without indices in a plate of all "
        "data; or subsample the plate in both functions, plate(…, N, subsample_size=B) as i, and take the parameter's "
        "rows i."
    )


def another_minibatch(
    plate: str, batch_size: int | None, got: int, whole: tuple[int, int | None] | None = None
) -> ProgramError:
    """The error for a minibatch that the pair's plate does not take; `whole` is the plate's size and subsample."""
    sizes = "" if whole is None else f" has size={whole[0]}, subsample_size={whole[1]}, and"
    return ProgramError(
        f"Plate {plate!r}{sizes} takes minibatches of {batch_size or 'any number of'} rows, got {got}. Fill the "
        "minibatch up with other rows."
    )


def not_known() -> ProgramError:
    """The error for parameters of a pair that has not run yet."""
    return ProgramError(
        "The parameters of a plain pair are not known before it has run once. Call initialise or prepare(data) first."
    )


def not_live() -> ProgramError:
    """The error for a run of a Pyro pair at other tensors than its own."""
    return ProgramError(
        "A plain pair can be read only at its own tensors. Call adopt(params), or use `with evaluating(params):`."
    )


def came_later(name: str, known: Iterable[str] | None = None) -> ProgramError:
    """The error for a parameter that a pair creates in some calls only."""
    told = f"Parameter {name!r} did not exist when the pair was first run. Create every parameter in every call."
    return ProgramError(told if known is None else f"{told} {nearest(name, known)}")


def wrong_start(name: str) -> ProgramError:
    """The error for a parameter whose first value can't be used."""
    return ProgramError(
        f"Parameter {name!r}: its first value is not finite, or outside its constraint. Give another first value."
    )


def no_plate(plate: str, known: Iterable[str]) -> ProgramError:
    """The error for a NumPyro pair whose data plate is missing, or has another name."""
    found = ", ".join(map(repr, known)) or "none"
    return ProgramError(
        f"The pair has no plate {plate!r}. Its plates: {found}. Give the name of the plate over data: "
        "Program.from_numpyro(model, guide, data_plate=…)."
    )


def takes_part(name: str, part: int, size: int, plate: str) -> ProgramError:
    """The error for a second plate of a NumPyro pair that subsamples."""
    return ProgramError(
        f"Plate {name!r}: got subsample_size={part} of {size}. The bound of a row needs all terms of the row, so only "
        f"the data plate ({plate!r}) can subsample. Leave subsample_size out."
    )


def subsampled(name: str, plate: str) -> ProgramError:
    """The same for a Pyro pair."""
    return ProgramError(
        f"Plate {name!r} subsamples, but only the data plate {plate!r} can. The bound of a row needs all terms of the "
        f"row. Use plate {name!r} without subsampling."
    )


def row_by_row(plate: str) -> ProgramError:
    """The error for a data plate that is a loop."""
    return ProgramError(
        f"Plate {plate!r} goes row by row (`for i in pyro.plate(…)`). Use it as a context instead: `with "
        f"pyro.plate({plate!r}, x.shape[0]):`."
    )


def not_created(plate: str) -> ProgramError:
    """The error for a data plate from outside the functions."""
    return ProgramError(
        f"Plate {plate!r} is not created in the call. Write `with pyro.plate({plate!r}, x.shape[0]):` in model and "
        "guide, so that it has the size of the minibatch."
    )


def taken_twice(name: str) -> ProgramError:
    """The error for one name of two parameters."""
    return ProgramError(
        f"Parameter {name!r} belongs to two modules, and Pyro would train at most one of them. Give the modules "
        "different names: pyro.module('encoder', …), PyroModule(name='guide')."
    )


def no_parameters() -> ProgramError:
    """The error for a Pyro pair that can't be trained."""
    return ProgramError(
        "The pair has no parameters, so there is nothing to train. In model or guide, call pyro.module(name, net) for "
        "nets, and pyro.param(name, tensor) for tensors."
    )


def own_indices(plate: str) -> ProgramError:
    """The error for a Pyro plate whose rows ppdgm can't choose."""
    return ProgramError(
        f"Plate {plate!r} has its own indices (subsample=…), so ppdgm can't choose its rows. Use `with "
        f"pyro.plate({plate!r}, N, subsample_size=B) as i:`, and take the rows i of the data."
    )


def missing_plate(plate: str, others: Collection[str]) -> ProgramError:
    """The error for a Pyro model whose data plate is missing, or has another name."""
    close = closest(plate, others)
    return ProgramError(
        f"The model has no plate {plate!r}. Its plates: {', '.join(others) or 'none'}. "
        f"{f'Did you mean {close!r}? ' if close else ''}Give the name of the plate over data, "
        "Program.from_pyro(model, guide, data_plate=…), or draw what belongs to one row inside `with "
        f"pyro.plate({plate!r}, x.shape[0]):`."
    )


def one_total(found: Exception) -> ProgramError:
    """The error for Pyro's Multinomial with a total for each row."""
    return ProgramError(
        f"{found} Pyro's Multinomial takes one total_count for all rows. Give the largest, "
        "total_count=int(x.sum(-1).max()): the density uses each row's own total, the sum of its counts. In a program "
        "over P, P.dist.Multinomial takes a total for each row."
    )
