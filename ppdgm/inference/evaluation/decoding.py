"""From latents to data: decoded values, lines between rows, and walks along single dimensions."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppdgm.data import as_fields, enter, take
from ppdgm.data.frames import Frame, is_frame, sites_of
from ppdgm.errors import DataError, ProgramError, UnsupportedByBackend, nearest, require, shown
from ppdgm.inference.evaluation.codes import REACH, STEPS, Codes, codes_of, on_scale
from ppdgm.inference.evaluation.estimates import check_fields, dtype_of
from ppdgm.inference.evaluation.evaluator import Evaluator, Sites
from ppdgm.inference.evaluation.means import means_of_rows
from ppdgm.inference.evaluation.numbered import code_vectors
from ppdgm.language.pair_mistakes import NO_PREDICTIVE
from ppdgm.language.runtime import from_prior
from ppdgm.language.unseen import Unseen, blanks, shapes_known
from ppdgm.language.vocabulary import Array
from ppdgm.program import AnyProgram, PlainPair, has_model, no_model

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings, Data, Outward
    from ppdgm.language.runtime import Native, Runtime

DRAWS = 2000  # of the prior, for the mean and the standard deviation of each dimension


class Decodable(ABC):
    """The part of `Fit` that goes from latents to data."""

    program: AnyProgram
    params: dict[str, np.ndarray]
    codings: Codings
    info: dict[str, Any]

    @property
    @abstractmethod
    def _runtime(self) -> Runtime:
        """The program on its backend; `Fit` has it."""

    @property
    @abstractmethod
    def _native(self) -> Native:
        """The parameters on the device; `Fit` has them."""

    @abstractmethod
    def sample(
        self,
        n: int,
        seed: int = 0,
        mean: bool = False,
        given: Mapping[str, np.ndarray] | None = None,
        units: Literal["own", "prepared"] = "own",
    ) -> Sites | np.ndarray:
        """Data drawn from the model; `Fit` implements it."""

    @abstractmethod
    def _evaluator(self, data: Data, seed: int = 0, memory: int | str = "auto", model: bool = True) -> Evaluator:
        """The program at data, checked and on the device; `Fit` implements it."""

    @abstractmethod
    def _outward(self, data: Data, evaluator: Evaluator) -> Outward:
        """A function that converts observed sites to the units of the data; `Fit` implements it."""

    def decode(
        self,
        z: Array | Mapping[str, Array] | Frame,
        given: Mapping[str, Array] | None = None,
        *,
        mean: bool = True,
        seed: int = 0,
        units: Literal["own", "prepared"] = "own",
    ) -> Sites | np.ndarray:
        """Data at given latents, [N, *event_shape], or by site: E[x | z], or draws of x.

        `decode(encode(x))` is `reconstruct(x)`. Batch correction is `encode` under one condition, and `decode` under
        another.

        Args:
            z: latents [N, *latent], or by site, or draws [K, N, *latent], as `encode` returns them; or a table with
                columns such as "z[0]". A latent that is left out is drawn.
            given: fields that the model conditions on, such as labels: N rows each, or one number or name for all.
            mean: the likelihood's means, or draws from it.
            seed: of the draws.
            units: of the result, as for `sample`.

        Raises:
            ProgramError: a given latent depends on one that is left out.
            UnsupportedByBackend: the program is a plain pair.
            DataError: the model has several latents, and `z` is one array; or it has no such latent; or a shape is
                wrong.
        """
        self._check_held()
        fields = dict(given or {})
        known = self._latents(fields)
        if is_frame(z):
            z = sites_of(z)
        if not isinstance(z, Mapping):
            names = list(known)
            if len(names) != 1:
                raise DataError(
                    f"z: got one array, but the model of {type(self.program).__name__} has "
                    + (f"the latents {names}. Give them by name: z={{{names[0]!r}: …}}." if names else "no latents.")
                )
            z = {names[0]: z}
        if both := [n for n in z if n in fields]:
            raise DataError(f"{both[0]!r} is given twice: in z and in given. Give only one of them.")
        values = code_vectors(self.program, {n: np.asarray(v) for n, v in z.items()})
        if not values or any(v.ndim == 0 for v in values.values()):
            raise DataError(f"z: got {shown(dict(z))}, expected latents [N, *latent], as encode(x) returns them.")
        one, *others = {
            v.shape[:-axes] if (axes := len(known.get(n, v.shape[1:]))) else v.shape for n, v in values.items()
        }
        if len(one) == 1 or others:
            return self.sample(len(next(iter(values.values()))), seed, mean, {**values, **fields}, units)
        for name, value in fields.items():
            if np.ndim(value) and len(value) != one[-1]:
                raise DataError(f"given: got {len(value)} rows of {name!r}, expected {one[-1]}, or one value.")
        flat = {n: v.reshape(-1, *v.shape[len(one) :]) for n, v in values.items()}  # draws [K, N, *latent]
        each = {n: v if np.ndim(v) == 0 else np.resize(v, (np.prod(one), *np.shape(v)[1:])) for n, v in fields.items()}
        found = self.sample(int(np.prod(one)), seed, mean, {**flat, **each}, units)
        back = lambda v: np.reshape(v, (*one, *np.shape(v)[1:]))
        return {n: back(v) for n, v in found.items()} if isinstance(found, dict) else back(found)

    def _check_held(self) -> None:
        """Refuse a plain pair."""
        if isinstance(self.program, PlainPair):
            raise UnsupportedByBackend(NO_PREDICTIVE)

    def _latents(self, given: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """The shapes of the latents of the model, given two rows of these fields."""
        if not has_model(self.program):
            raise no_model(self.program)
        blank = self._blank(given)
        rows = {
            n: np.asarray([v, v] if np.ndim(v) == 0 else np.asarray(v)[[0, -1]]) for n, v in given.items() if n in blank
        }
        known = as_fields(enter(self.codings, rows), dtype_of(self.params)) if rows else {}
        fields = self._runtime.fields({**blank, **known})
        how = {"size": 2, "mean": False, "apart": False}
        found = self._runtime.look(from_prior, self._native, fields, None, **how)[0]
        return {n: tuple(v.shape[2:]) for n, v in found.items()}

    def _blank(self, given: Iterable[str]) -> dict[str, Unseen]:
        """The fields of the data that were trained on, without their data, and given ones that the model takes too."""
        shapes = dict.fromkeys(self.info.get("fields", ["x"])) | self.info.get("shapes", {})
        takes = inspect.signature(self.program.model).parameters
        return blanks(shapes_known(self.program, shapes | {n: None for n in given if n in takes and n not in shapes}))

    def _under(self, evaluator: Evaluator, given: Mapping[str, Array]) -> Sites:
        """Observed sites at the means of the latents, under other conditions than those of the data."""
        known, rows = list(evaluator.conditions), np.arange(evaluator.size)
        for name, value in given.items():
            if name not in known:
                told = f"It conditions on {known}" if known else "It conditions on none"
                raise DataError(f"given: the model does not condition on a field {name!r}. {told}.")
            if np.ndim(value) and len(value) != len(rows):
                raise DataError(
                    f"given: got {len(value)} rows of {name!r}, expected {len(rows)}, one for each row, or one value."
                )
        other = {n: np.repeat(v, len(rows)) if np.ndim(v) == 0 else v for n, v in given.items()}
        fields = take(evaluator.feed.fields, rows) | as_fields(enter(self.codings, other), dtype_of(self.params))
        check_fields(self.program, fields)
        return replace(_codes(evaluator), evaluator=evaluator.of(fields)).decoded()

    def interpolate(self, a: Data, b: Data, steps: int = STEPS) -> Sites | np.ndarray:
        """Data on straight lines between the codes of rows of a and of b, [N, steps, *event_shape].

        Means of the observed sites given the latents. Fields that the model conditions on, and classes, are those of
        the nearer row.

        Args:
            a, b: rows of data, as for `elbo`; the same number of each.
            steps: values on each line, with both ends.

        Raises:
            ProgramError: no latent has values between the codes of two rows.
            UnsupportedByBackend: the program is a plain pair.
        """
        self._check_held()
        require("steps", steps, int, 2, "a whole number of values, at least 2")
        one, other = self._evaluator(a), self._evaluator(b)
        n, m = one.size, other.size
        if n != m:
            raise DataError(f"interpolate: got {n} rows of a and {m} of b, expected the same number of both.")
        rows, of = np.arange(n), lambda e, name: take(e.feed.fields, rows)[name]
        both = one.of({name: np.concatenate([of(one, name), of(other, name)]) for name in one.feed.fields})
        codes, share = _codes(both), np.linspace(0.0, 1.0, steps)
        return _in_units(self._outward(a, one), [codes.between(i, n + i, share) for i in range(n)], (n, steps))

    def traverse(
        self,
        data: Data,
        dims: int | Iterable[int] | None = None,
        *,
        site: str | None = None,
        steps: int = STEPS,
        reach: float = REACH,
        seed: int = 0,
    ) -> Sites | np.ndarray:
        """Data decoded along single dimensions of a latent, [N, D, steps, *event_shape]; the others stay as they are.

        A dimension goes through the prior's mean ± `reach` of its standard deviations, from 2,000 draws of the prior
        under the row's own conditions, such as its label. The model's latents that depend on it are at their means
        given it.

        Args:
            data: rows, as for `elbo`.
            dims: numbers of a latent of one row, counted from 0; all by default.
            site: the latent, if there are several.
            steps: values along each dimension.
            reach: to each side, in standard deviations of the prior.
            seed: of the draws that show the prior's mean and standard deviation.

        Raises:
            DataError: the program has no such latent, or it has no such dimension.
        """
        self._check_held()
        require("steps", steps, int, 2, "a whole number of values, at least 2")
        if isinstance(reach, bool) or not isinstance(reach, int | float) or not 0 < reach < np.inf:
            raise DataError(f"reach: got {shown(reach)}, expected a positive number of standard deviations.")
        evaluator = self._evaluator(data, seed)
        codes = _codes(evaluator)
        name = _moved(codes, site)
        width = codes.values[name][0].size
        chosen = range(width) if dims is None else [dims] if isinstance(dims, int) else list(dims)
        for d in chosen:
            if isinstance(d, bool) or not isinstance(d, int | np.integer) or not 0 <= d < width:
                raise DataError(f"dims: got {shown(d)}, expected whole numbers from 0 to {width - 1}, of {name!r}.")
        line, found = np.linspace(-reach, reach, steps), list[Sites]()
        for j, draws in enumerate(self._prior_of_rows(evaluator, name)):
            found += [codes.along(j, name, int(d), on_scale(draws, int(d), line)) for d in chosen]
        return _in_units(self._outward(data, evaluator), found, (evaluator.size, len(chosen), steps))

    def _prior_of_rows(self, evaluator: Evaluator, name: str) -> Iterator[np.ndarray]:
        """Draws of a latent from its prior for each row, [S, *event], under the row's own conditions."""
        seed = evaluator.stream("prior codes")
        for j in range(evaluator.size):
            if j == 0 or evaluator.conditions:
                own = evaluator.of(take(evaluator.feed.fields, np.array([j]))) if evaluator.conditions else evaluator
                prior = own.simulated(DRAWS, seed)[0]
            if name not in prior:
                raise ProgramError(
                    f"The model of {type(self.program).__name__} does not draw {name!r} of one row alone."
                )
            yield prior[name]


def _codes(evaluator: Evaluator) -> Codes:
    return codes_of(evaluator, means_of_rows(evaluator, decode=False)[0], np.arange(evaluator.size))


def _moved(codes: Codes, site: str | None) -> str:
    """The latent that is moved."""
    names = sorted(n for n in codes.values if codes.movable(n))
    if site in names or (site is None and len(names) == 1):
        return site or names[0]
    if site is None and names:
        raise DataError(f"traverse: the program has the latents {names}. Choose one: site={names[0]!r}.")
    if site in codes.values:
        raise DataError(f"site: {site!r} is discrete, or all rows share it, so that no row's value can be moved.")
    raise DataError(
        f"site: got {shown(site)}. {nearest(str(site), names)}"
        if names
        else "traverse: the program has no latent of each row that could be moved."
    )


def _in_units(outward: Outward, parts: list[Sites], shape: tuple[int, ...]) -> Sites | np.ndarray:
    """Observed sites in the units of the data, [*shape, *event]; the array itself if there is one."""
    rows = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
    found = {n: np.asarray(v).reshape(*shape, *np.shape(v)[1:]) for n, v in outward(rows).items()}
    return next(iter(found.values())) if len(found) == 1 else dict(sorted(found.items()))
