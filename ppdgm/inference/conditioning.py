"""What `sample(given=…)` holds: exactly, or not at all.

A site at which values are held may have no site before it that is drawn: then the rest, drawn in the model's order, has
the model's distribution given these values. Whether a site depends on an earlier one is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppdgm.errors import DataError, PpdgmError, nearest

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Conditions:
    """What is given, as a runtime takes it.

    Attributes:
        fields: data of the model's arguments, [n, …], or None.
        sites: values of sites, [1, n, *event].
    """

    fields: dict[str, np.ndarray | None]
    sites: dict[str, np.ndarray]


def conditions(program: Any, runtime: Any, params: Any, fields: Iterable[str], given: Arrays, n: int) -> Conditions:
    """Find out what each name in `given` is in the model: an argument, or a site.

    Args:
        program: a Program.
        runtime, params: of the program, with its parameters.
        fields: names of the data's.
        given: arrays [n, …] by name.
        n: how many data are drawn.

    Raises:
        DataError: a name that the model does not know or does not read, or values of another shape.
        ProgramError: a site with one before it that is drawn.
    """
    fixing = [name for name in given if program.fixes({name: given[name]})]
    fixed = program.fixes({name: given[name] for name in fixing})
    if both := [site for site in fixed if site in given]:
        raise DataError(f"given: site {both[0]!r} is given, and by {', '.join(fixing)} too. Give one of the two.")
    arguments = {name: given.get(name) if name not in fixing else None for name in fields}
    values = {n: v for n, v in given.items() if n not in arguments and n not in fixing} | fixed
    known, _ = runtime.sites(params, _rows(arguments, 2), None, 2) if values else ({}, [])
    sites = {name: _as_site(name, value, known, arguments, n) for name, value in values.items()}
    _, held = runtime.sites(params, _rows(arguments, 2), {s: v[:, [0, -1]] for s, v in sites.items()}, 2)
    for name in given:
        if arguments.get(name) is not None:
            _check_read(runtime, params, arguments, sites, name, held)
    return Conditions(arguments, sites)


def check_possible(scores: Arrays) -> None:
    """Refuse values to which the model gives no probability.

    Args:
        scores: log p of the sites that are held, [1, n].
    """
    for name, score in scores.items():
        bad = ~(score[0] > -np.inf)
        if bad.any():
            what = "has probability 0 in the model" if score[0][bad][0] == -np.inf else "is outside its support"
            raise DataError(f"given: the value of site {name!r} in row {int(np.argmax(bad))} {what}.")


def _rows(arguments: Mapping[str, np.ndarray | None], count: int) -> dict[str, np.ndarray | None]:
    """The first and the last of the given data."""
    return {n: v if v is None else v[np.linspace(0, len(v) - 1, count).astype(int)] for n, v in arguments.items()}


def _as_site(name: str, value: np.ndarray, known: Mapping[str, Any], fields: Iterable[str], n: int) -> np.ndarray:
    """[1, n, *event], in the type of the site's draws."""
    if name not in known:
        names = [*dict.fromkeys([*fields, *known])]
        raise DataError(f"given: the model has no field and no site {name!r}. {nearest(name, names)}")
    (_, rows, *event), dtype = known[name]
    if rows != 2:
        raise DataError(
            f"given: site {name!r} is one for all data, and given holds a row for each datum. Condition on it by the "
            "library's own tools: program.bind(…)."
        )
    if value.shape != (n, *event):
        raise DataError(f"given: got {name!r} of shape {value.shape}, expected {(n, *event)}, as the model draws it.")
    return np.asarray(value, dtype)[None]


def _check_read(
    runtime: Any, params: Any, arguments: dict[str, np.ndarray | None], sites: Arrays, name: str, held: list[str]
) -> None:
    """Refuse an argument that the model neither computes with nor observes."""
    without = _rows({**arguments, name: None}, 2)
    try:
        _, still = runtime.sites(params, without, {s: v[:, [0, -1]] for s, v in sites.items()}, 2)
    except PpdgmError:  # it computes with the field
        return
    if set(still) == set(held):
        raise DataError(
            f"given: the model does not read the field {name!r}, so that its values would change nothing. Draw without "
            "it, or give the values of a site."
        )
