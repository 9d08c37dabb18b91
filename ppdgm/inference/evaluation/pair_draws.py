"""Data drawn from a plain pair's model: it runs on rows that stand in for the data, and may not read them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data.fields import check_finite
from ppdgm.errors import DataError, PpdgmError, ProgramError
from ppdgm.inference.inputs.stray_noise import check_quiet_model

if TYPE_CHECKING:
    from ppdgm.language.runtime import Runtime, Values
    from ppdgm.language.tracer import Params

Arrays = Mapping[str, np.ndarray]
Rows = Mapping[str, tuple[tuple[int, ...], str]]  #: by field: shape of a row, and type
STAND_INS = (0, 1, 5)  #: numbers in these rows: a model that does not read them draws the same with each
OTHER_DRAWS, ENOUGH = 4, 500  #: draws, and rows of each, to find a factor that depends on what is drawn, if rarely


def rows_of(fields: Arrays) -> dict[str, list[list[int] | str]]:
    """Shape and type of a row of each field, in the form that a run saves them."""
    return {n: [list(v.shape[1:]), str(v.dtype)] for n, v in fields.items()}


class PairDraws:
    """Draws from a plain pair's model.

    Args:
        runtime, params: of the pair, with its parameters.
        rows: of the data that it was trained with.
        data_size: number of these rows, N.
        given: fields that the model reads, [n, …].
        mean: observed sites at their means, given drawn latents.
    """

    def __init__(self, runtime: Runtime, params: Params, rows: Rows, data_size: int, given: Arrays, mean: bool):
        self.runtime, self.params, self.rows, self.data_size = runtime, params, rows, data_size
        self.given, self.mean = given, mean
        if unknown := [n for n in given if n not in rows]:
            raise DataError(f"given: got {unknown[0]!r}, expected a field of the data: {', '.join(rows)}.")
        check_finite(given)
        for name, value in given.items():
            _check_held(name, value, *rows[name])
        few = {n: v[:1] for n, v in self._stand_ins(dict.fromkeys(rows, 0), 1).items()}
        runtime.prepare({n: np.repeat(v, data_size, axis=0) for n, v in few.items()})

    def draw(self, n: int, seed: int) -> dict[str, np.ndarray]:
        """Observed sites, [n, *event]."""
        b = self.runtime.tracer.batch_size or n
        found: list[dict[str, np.ndarray]] = []
        shared: dict[str, np.ndarray] = {}
        for i, start in enumerate(range(0, n, b)):
            rows = slice(start, start + b)
            stream = seed if i == 0 else int(np.random.SeedSequence((seed, i)).generate_state(1)[0] >> 1)
            latents, observed, scores = self._run(dict.fromkeys(self.rows, STAND_INS[0]), rows, b, stream, shared)
            if i == 0:
                check_quiet_model(self.runtime, self.params, self._data(dict.fromkeys(self.rows, 0), rows, b), b)
                drawn = {n: v for n, v in scores.items() if n in latents or n in observed}
                self._check_unread(rows, b, stream, observed, drawn)
                self._warn_of_factors(rows, b, stream, {n: v for n, v in scores.items() if n not in drawn})
                shared = {n: v for n, v in latents.items() if v.shape[1] == 1 < b}
            found.append(observed)
        return {name: np.concatenate([f[name][0] for f in found])[:n] for name in found[0]}

    def _run(
        self, numbers: Mapping[str, int], rows: slice, b: int, seed: int, shared: Arrays
    ) -> tuple[Values, Values, Values]:
        data = self._data(numbers, rows, b)
        return self.runtime.conditioned(self.params, data, shared, b, seed, self.mean)

    def _data(self, numbers: Mapping[str, int], rows: slice, b: int) -> dict[str, np.ndarray]:
        """The given fields, and stand-ins for the rest."""
        data = self._stand_ins(numbers, self.data_size if self.runtime.tracer.subsamples else b)
        for name, value in self.given.items():
            if name in numbers and numbers[name] == STAND_INS[0]:
                part = np.asarray(value[rows])
                data[name][: len(part)] = part
        return data

    def _stand_ins(self, numbers: Mapping[str, int], size: int) -> dict[str, np.ndarray]:
        return {n: np.full((size, *shape), numbers[n], kind) for n, (shape, kind) in self.rows.items()}

    def _check_unread(self, rows: slice, b: int, seed: int, own: Arrays, scores: Arrays) -> None:
        """Refuse a model that reads a field which is not given, or does not read one that is given.

        Args:
            rows, b, seed: of a run.
            own: the observed sites that it drew.
            scores: log-densities of its sites: few draws of a class may be the same under other probabilities.

        Raises:
            ProgramError: it reads the only field.
            DataError: it reads another field, or does not read a given one.
        """
        for name in self.rows:
            read = any(self._moves(name, number, rows, b, seed, own, scores) for number in STAND_INS[1:])
            if name in self.given and not read:
                raise DataError(
                    f"given: the model does not read {name!r}, so the draws would not depend on it. Perhaps the "
                    "model only observes it. Leave it out; to get data for given rows, use fit.reconstruct(rows)."
                )
            if name not in self.given and read:
                if len(self.rows) == 1:
                    raise ProgramError(
                        f"The model uses the values of {name!r}, not only its shape, so ppdgm can't draw from it "
                        "without data. Use the library's own Predictive with the model and rows."
                    )
                raise DataError(
                    f"The model draws the other fields given {name!r}. Give its rows: fit.sample(n, "
                    f"given={{{name!r}: …}})."
                )

    def _warn_of_factors(self, rows: slice, b: int, seed: int, own: Arrays) -> None:
        """Warn of a factor that depends on what is drawn: a run of the model is not weighed by it."""
        if not own:
            return
        numbers = dict.fromkeys(self.rows, STAND_INS[0])
        many = b if self.runtime.tracer.batch_size else max(b, ENOUGH)
        first, *others = (self._run(numbers, rows, many, seed + i, {})[2] for i in range(1 + OTHER_DRAWS))
        moved = [n for n in own if not all(np.array_equal(first[n], o[n], equal_nan=True) for o in others)]
        if moved:
            warnings.warn(
                f"Site {moved[0]!r} is a factor that depends on what the model draws. A draw of the model ignores it, "
                "so these rows do not have the distribution that the bounds use. Weight or reject them by the factor, "
                "or write it as the distribution of a site.",
                stacklevel=4,
            )

    def _moves(self, name: str, number: int, rows: slice, b: int, seed: int, drawn: Arrays, scores: Arrays) -> bool:
        numbers = {n: number if n == name else STAND_INS[0] for n in self.rows}
        try:
            _, observed, found = self._run(numbers, rows, b, seed, {})
        except PpdgmError:  # for example, a number that is not an index
            return True
        own, other = ({f"{n}": v for n, v in sites.items()} for sites in (drawn, observed))
        own |= {f"log p of {n}": v for n, v in scores.items()}
        other |= {f"log p of {n}": found[n] for n in scores if n in found}
        same = lambda a, b: a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        return own.keys() != other.keys() or not all(same(own[n], other[n]) for n in own)


def _check_held(name: str, value: np.ndarray, shape: tuple[int, ...], kind: str) -> None:
    """Refuse rows of a given field that the data's own rows could not be.

    Raises:
        DataError: another shape; or numbers that are not whole, for a field of whole numbers.
    """
    if tuple(value.shape[1:]) != tuple(shape):
        raise DataError(
            f"given: got {name!r} of shape {value.shape}, expected {(len(value), *shape)}, as the field has in data."
        )
    if np.dtype(kind).kind in "biu" and (bad := value.astype(kind) != value).any():
        expected = "True or False" if np.dtype(kind).kind == "b" else "whole numbers"
        raise DataError(
            f"given: got {value[bad][0]} for {name!r}, which is {kind} in the data the pair was trained on: expected "
            f"{expected}."
        )
