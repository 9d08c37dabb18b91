"""What kind of data plate a plain Pyro model has."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyro
import torch
from pyro.distributions import constraints
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ppdgm.errors import PpdgmError, explain
from ppdgm.language import pair_mistakes
from ppdgm.language.calls import Call
from ppdgm.language.native import Message
from ppdgm.language.vocabulary import Batch

ROWS = 7  #: the number of rows with which a pair is first run


class Plate(NamedTuple):
    """The facts that the data plate shows when it is created.

    Attributes:
        size: its full size; None if it is given none, and takes any number of rows.
        drawn: the number of indices that it takes of these, if it says so.
        own: whether the indices are given to it.
    """

    size: int | None
    drawn: int | None
    own: bool


class _Found(Exception):
    """Leaves a function at its data plate."""


class _Probe(Messenger):
    def __init__(self, name: str):
        super().__init__()
        self.name, self.others = name, list[str]()
        self.plate: Plate | None = None

    def _pyro_sample(self, msg: Message) -> None:
        if not isinstance(msg["fn"], _Subsample):
            if any(f.name == self.name and f.size == -1 for f in msg["cond_indep_stack"]):
                self.plate = Plate(None, None, False)
                raise _Found
            return
        if msg["name"] != self.name:
            self.others.append(msg["name"])
            return
        own = msg["value"] is not None
        self.plate = Plate(int(msg["fn"].size), len(msg["value"]) if own else msg["fn"].subsample_size, own)
        raise _Found

    def _pyro_param(self, msg: Message) -> None:
        own_init(msg)


def own_init(msg: Message) -> None:
    """Let a new parameter start from a copy of its first value: training must not change a tensor of the user's.

    A module's parameter is kept itself; if it is not contiguous, Pyro would keep a copy.
    """
    store = pyro.get_param_store()
    if len(msg["args"]) < 2 or msg["name"] in store:
        return
    name, init, *rest = msg["args"]
    init = init() if callable(init) and not isinstance(init, torch.Tensor) else init
    if not isinstance(init, torch.nn.Parameter):
        init = init.detach().clone()
    elif msg["kwargs"].get("constraint") is constraints.real:
        store.set_state({"params": {name: init}, "constraints": {name: constraints.real}})
    msg["args"] = (name, init, *rest)


def find_plate(
    model: Call, guide: Call | None, rows: Callable[[int], Batch], size: int, name: str
) -> tuple[bool, int | None]:
    """Run model and guide up to their data plates, twice.

    Args:
        model, guide: functions of named data; no guide, if it can't be run with a few rows.
        rows: gives any number of rows of the data.
        size: of the data.
        name: of the plate.

    Returns:
        (whether it draws its minibatch by index from all data, B if the plate fixes it). A plate that follows the
        given rows, with any scale, gives (False, None); one of fixed size that does not subsample, (False, size).
        If only the guide subsamples, the model takes the guide's indices, as in Pyro.

    Raises:
        ProgramError: there is no such plate, or it has its own indices.
    """
    tried = few(size)
    plates = [_probe(model, rows(n), name) for n in tried]
    found = _kind(plates, tried, name)
    if guide is not None and not found[0]:
        drawn = [plate for n in tried if (plate := _look(guide, rows(n), name)[0].plate) is not None]
        if len(drawn) == len(tried) and not any(p.own for p in drawn) and _kind(drawn, tried, name)[0]:
            return _kind(drawn, tried, name)
    return found


def few(size: int) -> tuple[int, int]:
    """Two numbers of rows with which a pair is first run, for data with `size` rows."""
    many = min(size, ROWS)
    return many, max(1, many - 3)


def _kind(plates: list[Plate], tried: tuple[int, int], name: str) -> tuple[bool, int | None]:
    if all(n == (p.size if p.drawn is None else p.drawn) or p.size is None for n, p in zip(tried, plates, strict=True)):
        return False, None
    full, drawn, own = plates[0]
    if own:
        raise pair_mistakes.own_indices(name)
    return drawn is not None, full if drawn is None else drawn


def _look(function: Call, batch: Batch, name: str) -> tuple[_Probe, Exception | None]:
    """A run up to the data plate, and how it failed before that."""
    probe = _Probe(name)
    try:
        with pyro.get_param_store().scope(), probe:
            function(batch)
    except _Found:
        pass
    except PpdgmError:
        raise
    except Exception as error:
        return probe, error
    return probe, None


def _probe(model: Call, batch: Batch, name: str) -> Plate:
    probe, failure = _look(model, batch, name)
    if failure and not probe.others:  # otherwise the missing plate may be the reason
        raise explain(model.program, failure) from failure
    if probe.plate is None:
        raise pair_mistakes.missing_plate(name, probe.others) from failure
    return probe.plate
