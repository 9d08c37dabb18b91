"""The values that `sample(given=…)` holds: exactly, or the call is refused.

A site at which values are held may not depend on a site before it that is drawn. Then the rest, drawn in the model's
order, has the model's distribution given these values. To check this, the sites before are drawn again several times,
discrete ones with the same probability for each value: log p of the held values must not change by a bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from ppdgm.data import Classes
from ppdgm.errors import DataError, PpdgmError, ProgramError, nearest
from ppdgm.language import questions
from ppdgm.language.runtime import from_prior
from ppdgm.language.tracer import ProgramTracer, sized
from ppdgm.language.unseen import Unseen, is_given
from ppdgm.language.vocabulary import Array, Noise

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings
    from ppdgm.language.runtime import Fields, Native, Runtime
    from ppdgm.language.tracer import Params
    from ppdgm.program import Program

Arrays = Mapping[str, np.ndarray]
OTHER_DRAWS = 4  # of the sites before one that is held, as the model draws them
SCATTERED, ROWS = 32, 64  # draws of each row, at values of equal probability; and rows, at least


@dataclass(frozen=True)
class Conditions:
    """The given values, in the form that a runtime takes.

    Attributes:
        fields: data of the model's arguments, [n, …], or `Unseen`.
        sites: values of sites, [1, n, *event].
        apart: whether there are sites before them that are drawn, and on which they do not depend.
    """

    fields: dict[str, np.ndarray | Unseen]
    sites: dict[str, np.ndarray]
    apart: bool = False


def conditions(
    program: Program, runtime: Runtime, params: Params, fields: Mapping[str, Unseen], given: Arrays, n: int
) -> Conditions:
    """Find out what each name in `given` is in the model: an argument or a site.

    Args:
        program: a Program.
        runtime, params: of the program, with its parameters.
        fields: the data's fields without their data.
        given: arrays [n, …] by name.
        n: number of rows to draw.

    Raises:
        DataError: the model does not know a name or does not read it, or its values have another shape.
        ProgramError: a site depends on one before it that is drawn.
    """
    fixing = [name for name in given if program.fixes({name: given[name]})]
    fixed = program.fixes({name: given[name] for name in fixing})
    if both := [site for site in fixed if site in given]:
        raise DataError(
            f"given: site {both[0]!r} is given twice: directly, and through {', '.join(fixing)}. Give only one of them."
        )
    arguments = {name: given.get(name, blank) if name not in fixing else blank for name, blank in fields.items()}
    values = {n: v for n, v in given.items() if n not in arguments and n not in fixing} | fixed
    known, _ = runtime.sites(params, _rows(arguments, 2), None, 2) if values else ({}, [])
    sites = {name: _as_site(name, value, known, arguments, n) for name, value in values.items()}
    found = Conditions(arguments, sites)
    try:
        held = _held(runtime, params, found)
    except ProgramError:
        found = replace(found, apart=True)
        if _depends(runtime, params, found, n):
            raise
        held = _held(runtime, params, found)
    for name in given:
        if is_given(arguments.get(name)):
            _check_read(runtime, params, replace(found, fields={**found.fields, name: fields[name]}), name, held)
    return found


def check_indices(runtime: Runtime, params: Params, found: Conditions, n: int) -> None:
    """Refuse given values by which the model would take numbers outside an axis.

    Raises:
        DataError: with the index.
    """
    name = "drawn", n, found.apart, *sorted(found.fields), *sorted(found.sites)
    given = runtime.fields(found.fields), runtime.put(found.sites)
    if told := runtime.misplaced(name, partial(_drawn, runtime, n, found.apart), (), given, params):
        raise DataError(f"given: {told}.")


def _drawn(
    runtime: Runtime,
    n: int,
    apart: bool,
    _: Native,
    moving: tuple[Noise, tuple[Mapping[str, Array | None], Native]],
    params: Params,
) -> Native:
    noise, (fields, sites) = moving
    return from_prior(runtime, params, noise, fields, sites, n, False, apart)[1]


def check_texts(given: Mapping[str, Array], fields: Iterable[str], codings: Codings) -> None:
    """Refuse names of classes that are given for a site: they must be given for its field."""
    named = [field for field, coding in codings.items() if isinstance(coding, Classes)]
    for name, value in given.items():
        if name not in fields and any(isinstance(v, str) for v in value):
            where = (
                f"through the field {named[0]!r}: given={{{named[0]!r}: …}}"
                if named
                else ("through a field that has names of classes")
            )
            raise DataError(f"given: got text for {name!r}, which is not a field. Give names of classes {where}.")


def _held(runtime: Runtime, params: Params, found: Conditions) -> list[str]:
    """The sites that are held; the first and the last row are enough to find them."""
    sites = {s: v[:, [0, -1]] for s, v in found.sites.items()}
    held: list[str] = runtime.sites(params, _rows(found.fields, 2), sites, 2, found.apart)[1]
    return held


def _depends(runtime: Runtime, params: Params, found: Conditions, n: int) -> bool:
    """Whether log p of the held values changes with the draws of other sites."""
    first, *others = (
        runtime.conditioned(params, found.fields, found.sites, n, seed, False, True)[2] for seed in range(OTHER_DRAWS)
    )
    if any(_differ(first, other) for other in others):
        return True
    index = np.linspace(0, n - 1, ROWS).astype(int)  # few rows may not meet a rare value
    fields = runtime.fields({name: v[index] if is_given(v) else v for name, v in found.fields.items()})
    held = runtime.put({s: v[:, index] for s, v in found.sites.items()})
    return _differ(*(runtime.ask(_scattered, params, (seed,), fields, held, size=ROWS, k=SCATTERED) for seed in (0, 1)))


def _differ(first: Arrays, other: Arrays) -> bool:
    return any(not np.array_equal(first[s], other[s], equal_nan=True) for s in first)


def _scattered(
    runtime: Runtime, params: Params, noise: Noise, fields: Mapping[str, Array | None], held: Native, size: int, k: int
) -> Native:
    tracer = cast(ProgramTracer, runtime.tracer)  # of a plain pair no sites are held
    return questions.scattered(tracer.ask(params, noise, sized(fields, size), size), k, held)


def check_possible(scores: Arrays) -> None:
    """Refuse values to which the model gives probability 0.

    Args:
        scores: log p of the sites that are held, [1, n].
    """
    for name, score in scores.items():
        bad = ~(score[0] > -np.inf)
        if bad.any():
            what = "has probability 0 in the model" if score[0][bad][0] == -np.inf else "is outside its support"
            raise DataError(f"given: the value of site {name!r} in row {int(np.argmax(bad))} {what}.")


def _rows(arguments: Fields, count: int) -> dict[str, np.ndarray | Unseen | None]:
    """The first and the last of the given rows."""
    at = lambda v: v[np.linspace(0, len(v) - 1, count).astype(int)]
    return {n: at(v) if is_given(v) else v for n, v in arguments.items()}


def _as_site(
    name: str, value: np.ndarray, known: Mapping[str, tuple[tuple[int, ...], str]], fields: Iterable[str], n: int
) -> np.ndarray:
    """[1, n, *event], in the type of the site's draws."""
    if name not in known:
        names = [*dict.fromkeys([*fields, *known])]
        raise DataError(f"given: the model has no field and no site {name!r}. {nearest(name, names)}")
    (_, rows, *event), dtype = known[name]
    if rows != 2:
        raise DataError(
            f"given: site {name!r} is one latent for all data, but given has one value for each row. Condition on it "
            "with the library's own tools: program.bind(…)."
        )
    if value.shape != (n, *event):
        raise DataError(
            f"given: got {name!r} of shape {value.shape}, expected {(n, *event)}, the shape that the model draws."
        )
    return np.asarray(value, dtype)[None]


def _check_read(runtime: Runtime, params: Params, without: Conditions, name: str, held: list[str]) -> None:
    """Refuse an argument that the model neither computes with nor observes; `without` does not have it."""
    try:
        still = _held(runtime, params, without)
    except PpdgmError:  # it computes with the field
        return
    if set(still) == set(held):
        raise DataError(
            f"given: the model does not read the field {name!r}, so its values would change nothing. Leave it out, "
            "or give the values of a site."
        )
