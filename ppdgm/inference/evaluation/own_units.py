"""Observed sites in the user's own units, also if a site has another name than the field that it draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data import Classes, leave
from ppdgm.errors import PpdgmError
from ppdgm.language.unseen import Unseen

if TYPE_CHECKING:
    from ppdgm.data.aliases import Coding, Codings
    from ppdgm.language.runtime import Runtime
    from ppdgm.language.tracer import Params

Arrays = Mapping[str, np.ndarray]
Roles = tuple[Mapping[str, str], Iterable[str]]  # the site that draws each field; the fields that nothing draws


def in_units(
    codings: Codings, sites: Arrays, fields: Iterable[str], units: str, roles: Callable[[], Roles]
) -> dict[str, np.ndarray]:
    """The values at observed sites, [n, …], in the user's own units and names, or as prepared rows.

    Args:
        codings: of the run, by field.
        sites: arrays by the sites' names.
        fields: names of the data's fields; if x is the only field, a single site draws it.
        units: "own" or "prepared".
        roles: finds the sites that draw fields of another name; it is called only if there are such sites.
    """
    names = list(fields)
    places = {"x": next(iter(sites))} if names == ["x"] and len(sites) == 1 else {n: n for n in sites if n in names}
    lost = [n for n, coding in codings.items() if n not in places and _changes(coding)]
    if lost and len(places) < len(sites):
        drawn, given = roles()
        places |= {n: s for n, s in drawn.items() if n in lost and s in sites and s not in places.values()}
        others = [s for s in sites if s not in places.values()]
        left = [n for n in lost if n not in places and n not in given]
        if others and left:
            warnings.warn(
                f"Site {others[0]!r}: ppdgm does not know whether it draws a field of the data ({', '.join(left)}), so "
                "its values are returned as the model draws them, and not in your own units or names. Give the site "
                f"the name of its field: sample({left[0]!r}, …).",
                stacklevel=4,
            )
    return leave(codings, sites, places, units)


def _changes(coding: Coding) -> bool:
    return coding.text if isinstance(coding, Classes) else coding.changes


def drawn_by(
    runtime: Runtime,
    params: Params,
    fields: Mapping[str, np.ndarray | Unseen],
    blank: Mapping[str, Unseen],
    sites: Arrays,
) -> dict[str, str]:
    """The site that draws each field, if it is one: it is held if the field has rows, of zeros perhaps.

    Args:
        runtime, params: of a program.
        fields: two rows of those that are given, and `Unseen`.
        blank: all of them, `Unseen`.
        sites: values of sites that are given, [1, 2, *event].
    """
    held = lambda rows: set(runtime.sites(params, rows, sites, 2, True)[1])
    found: dict[str, str] = {}
    for name, value in fields.items():
        event = blank[name].event
        if isinstance(value, Unseen) and event is not None:
            value = np.zeros((2, *event), np.float32)
        with suppress(PpdgmError):  # the model computes with it
            own = held({**fields, name: value}) - held({**fields, name: blank[name]})
            found |= {name: own.pop()} if len(own) == 1 else {}
    return found


def left_over(fields: Iterable[str], sites: Iterable[str], given: Iterable[str]) -> dict[str, str]:
    """The last site with the last field, if there is one of each that has no namesake and is not given."""
    names, others = set(fields) - set(given), set(sites)
    left, rest = names - others, others - names
    return {left.pop(): rest.pop()} if len(left) == len(rest) == 1 else {}
