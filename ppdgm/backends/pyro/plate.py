"""What kind of data plate a plain Pyro model has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions import constraints
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ppdgm.backends.pyro.calls import Call
from ppdgm.errors import PpdgmError, ProgramError, closest, explain
from ppdgm.language import Batch

ROWS = 7  #: with which a pair is first run


class Plate(NamedTuple):
    """What the data plate says when it is made.

    Attributes:
        size: its full size.
        drawn: how many indices it takes of these, if it says so.
        own: whether the indices are given to it.
    """

    size: int
    drawn: int | None
    own: bool


class _Found(Exception):
    """Leaves a function at its data plate."""


class _Probe(Messenger):
    def __init__(self, name: str):
        super().__init__()
        self.name, self.others = name, list[str]()
        self.plate: Plate | None = None

    def _pyro_sample(self, msg: Any) -> None:
        if not isinstance(msg["fn"], _Subsample):
            return
        if msg["name"] != self.name:
            self.others.append(msg["name"])
            return
        own = msg["value"] is not None
        self.plate = Plate(int(msg["fn"].size), len(msg["value"]) if own else msg["fn"].subsample_size, own)
        raise _Found

    def _pyro_param(self, msg: Any) -> None:
        own_init(msg)


def own_init(msg: Any) -> None:
    """Let a new parameter start from a copy of its first value: training must not move a tensor of the user's.

    A module's parameter is held as it is; of one that is not contiguous, Pyro would hold a copy.
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


def find_plate(model: Call, rows: Callable[[int], Batch], size: int, name: str) -> tuple[bool, int | None]:
    """Run a model up to its data plate, twice.

    Args:
        model: over named data.
        rows: so many rows of the data.
        size: of the data.
        name: of the plate.

    Returns:
        (whether it draws its minibatch by index from all data, B where the plate fixes it). A plate that follows the
        rows handed over, with whatever scale, gives (False, None); one of fixed size that does not subsample, (False,
        size).

    Raises:
        ProgramError: no such plate, or one with indices of its own.
    """
    many = min(size, ROWS)
    tried = (many, max(1, many - 3))
    plates = [_probe(model, rows(n), name) for n in tried]
    if all(n == (p.size if p.drawn is None else p.drawn) for n, p in zip(tried, plates, strict=True)):
        return False, None
    full, drawn, own = plates[0]
    if own:
        raise ProgramError(
            f"Plate {name!r} has indices of its own (subsample=…), so it can't be told which data to take. Use "
            f"`with pyro.plate({name!r}, N, subsample_size=B) as i:` and these i."
        )
    return drawn is not None, full if drawn is None else drawn


def _probe(model: Call, batch: Batch, name: str) -> Plate:
    probe, failure = _Probe(name), None
    try:
        with pyro.get_param_store().scope(), probe:
            model(batch)
    except _Found:
        pass
    except PpdgmError:
        raise
    except Exception as error:
        if not probe.others:
            raise explain(model.program, error) from error
        failure = error  # as likely as not for want of the plate
    if probe.plate is None:
        close = closest(name, probe.others)
        raise ProgramError(
            f"The model makes no data plate {name!r} of a given size when it is called. "
            f"Its plates: {', '.join(probe.others) or 'none'}. {f'Did you mean {close!r}? ' if close else ''}"
            "Name it in Program.from_pyro(model, guide, data_plate=…), or put what is drawn per datum inside "
            f"`with pyro.plate({name!r}, x.shape[0]):`."
        ) from failure
    return probe.plate
