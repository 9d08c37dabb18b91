"""What training returns: the program with its parameters, to evaluate, to draw from, and to save."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ppdgm.data import (
    Classes,
    Source,
    Transform,
    as_fields,
    check_units,
    enter,
    opened,
    own_units,
    prepare_rows,
)
from ppdgm.data.column import Column
from ppdgm.errors import (
    DataError,
    ProgramError,
    UnsupportedByBackend,
    require,
)
from ppdgm.inference.engines.svi import SVI
from ppdgm.inference.evaluation import estimates
from ppdgm.inference.evaluation.conditioning import check_indices, check_possible, check_texts, conditions
from ppdgm.inference.evaluation.decoding import Decodable
from ppdgm.inference.evaluation.diagnosable import Diagnosable, Sites, single
from ppdgm.inference.evaluation.estimates import Estimate, check_fields, dtype_of, leave_labels, parse_memory
from ppdgm.inference.evaluation.evaluator import Evaluator, check_latents_drawn
from ppdgm.inference.evaluation.framed import as_frame, framed
from ppdgm.inference.evaluation.in_notebook import fit_as_html
from ppdgm.inference.evaluation.means import means_of_rows
from ppdgm.inference.evaluation.numbered import code_numbers, code_vectors
from ppdgm.inference.evaluation.own_units import drawn_by, in_units, left_over
from ppdgm.inference.evaluation.pair_draws import PairDraws
from ppdgm.inference.evaluation.pickled import packed, unpacked
from ppdgm.inference.evaluation.serving import Servable
from ppdgm.inference.evaluation.watched import check_of_each_row, watched
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.own_rows import check_own_rows, fingerprint
from ppdgm.inference.inputs.row_independence import check_apart
from ppdgm.inference.inputs.stray_noise import check_quiet, check_quiet_model
from ppdgm.inference.inputs.support import check_support, takes_total
from ppdgm.inference.runs.checkpoint import grouped
from ppdgm.inference.runs.codings import coding_arrays, coding_tables
from ppdgm.inference.runs.folder import Folder, versions
from ppdgm.inference.runs.layout import as_path, check_free
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.inference.runs.settings import Training
from ppdgm.language.pair_mistakes import NO_ROWS
from ppdgm.language.unseen import is_given
from ppdgm.program import AnyProgram, PlainPair, has_model, no_model
from ppdgm.registry import backend as load_backend
from ppdgm.specs import Spec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ppdgm.data.aliases import Codings, Data, Outward
    from ppdgm.inference.engines.criteria import Criterion
    from ppdgm.inference.engines.engine import Engine
    from ppdgm.language.runtime import Native, Runtime
    from ppdgm.language.vocabulary import Array


@dataclass
class Fit(Diagnosable, Decodable, Servable):
    """A program with its parameters.

    Attributes:
        program: the program that was trained.
        params: parameters and buffers by dotted name, NumPy arrays.
        backend, device: where evaluations run.
        engine: the engine that trained it, or None.
        history: arrays: "step", the engine's metrics per step in nats per row, "validation_step", "validation_elbo" (or
            another criterion of the engine's, such as "validation_loss").
        info: facts of the run: "steps" taken, "skipped" ones, "compile", "data_size", "fields", "shapes" of their rows,
            "dimensions": how many whole numbers a row has, or None.
        stopped: why training ended: "done", "early stopping", "interrupted", "callback", "not finite", "diverged" (the
            ELBO, or the only objective, ended far below where it began), "failed"; "running" for a checkpoint of a run
            that didn't end.
        training: the run's settings.
        data: where its data came from, if that is known.
        codings: how its data were prepared, by field: the `Transform` of x, the `Classes` of labels. Methods take and
            return rows in the user's own units and names, with the help of these.
        runtime: the backend's, if there is one already.
        devices: the number of devices that evaluations divide their rows among; see `over`.
    """

    program: AnyProgram
    params: dict[str, np.ndarray]
    backend: str = "numpyro"
    device: str = "auto"
    engine: Engine | None = None
    history: dict[str, np.ndarray] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    stopped: str = "done"
    training: Training = Training()
    data: Source | None = None
    codings: Codings = field(default_factory=dict)
    runtime: Runtime | None = field(default=None, repr=False, compare=False)
    devices: int | Literal["all"] | None = None
    _apart: bool = field(default=False, init=False, repr=False, compare=False)  # its rows' terms are known to be

    def __getstate__(self) -> dict[str, object]:
        """For `pickle`: the bytes of the run, not code; what belongs to this process is left out."""
        return packed({f.name: getattr(self, f.name) for f in fields(self)})

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(vars(Fit(**unpacked(state))))

    def __copy__(self) -> Fit:
        return replace(self, runtime=None)

    def __deepcopy__(self, memo: dict[int, object]) -> Fit:
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.init and f.name != "runtime"}
        return Fit(**deepcopy(own, memo))

    def __repr__(self) -> str:
        program = type(self.program).__name__ if isinstance(self.program, Spec) else repr(self.program)
        return f"Fit({program} on {self.backend}, {self.info.get('steps', 0)} steps, {self.stopped})"

    def _repr_html_(self) -> str:
        """For notebooks: what it is, the curve of its bound, its settings and its parameters."""
        return fit_as_html(self)

    @property
    def transform(self) -> Transform | None:
        """How raw numbers became x, if that is known."""
        return cast("Transform | None", self.codings.get("x"))  # that of x always is one

    @property
    def _columns(self) -> tuple[str, ...]:
        """The names of the numbers of x, if they are known."""
        return self.transform.columns if self.transform else ()

    @property
    def _row_names(self) -> str:
        """The column of a table that names the rows, if the run knows one."""
        return self.transform.index if self.transform else ""

    @property
    def _table(self) -> tuple[Column, ...]:
        """The meaning of the columns of x, if they are of different kinds."""
        return self.transform.table if self.transform else ()

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Names of the classes, by field."""
        return {n: c.names for n, c in self.codings.items() if isinstance(c, Classes)}

    def over(self, devices: int | Literal["all"]) -> Fit:
        """The same fit, whose evaluations divide their chunks of rows among several devices, with the same numbers.

        If these are in several processes, every process has to call the same methods with the same arguments, because
        they wait for each other, and every process gets the result. See docs/devices.md.

        Args:
            devices: the number of devices, or "all" that are found, as for `fit`.
        """
        return replace(self, devices=Training(devices=devices).devices, runtime=None)

    @property
    def process(self) -> int:
        """The number of this process among those that share the evaluations, from 0. Let one of them write files."""
        return self._runtime.share.process

    def elbo(
        self,
        data: Data,
        k: int = 10,
        seed: int = 0,
        memory: int | str = "auto",
        weights: ArrayLike | None = None,
    ) -> Estimate:
        """E_q[log p(x, z) − log q(z|x)] per row in nats, always with β = 1.

        Args:
            data: array [N, *event_shape], or named arrays: rows of `load_data`, or in the units and names of your own
                data, as for `prepare`.
            k: particles per row.
            seed: of the draws.
            memory: limit on a chunk's intermediate results: bytes, "512 MiB" or "auto".
            weights: of rows in the mean and its errors, [N], not negative; by default each counts once, also if the
                run was trained with weights.
        """
        evaluator = self._evaluator(data, seed, memory)
        return self._told(evaluator, estimates.with_weights(estimates.elbo_of_rows(evaluator, k), weights))

    def log_likelihood(
        self,
        data: Data,
        k: int = 5000,
        seed: int = 0,
        memory: int | str = "auto",
        weights: ArrayLike | None = None,
    ) -> Estimate:
        """log p(x) per row in nats by importance sampling from the guide: log (1/K) Σ p(x, z_k) / q(z_k|x).

        In expectation it is below log p(x), by at least `.bias`. Burda et al. 2016, arXiv:1509.00519. Arguments as for
        `elbo`.
        """
        evaluator = self._evaluator(data, seed, memory)
        return self._told(evaluator, estimates.with_weights(estimates.log_likelihood_of_rows(evaluator, k), weights))

    def criterion(self, data: Data, seed: int = 0, memory: int | str = "auto") -> np.ndarray:
        """The number of each row that validation watches, [N]: for most engines, an ELBO from one particle.

        Arguments as for `elbo`.

        Raises:
            ProgramError: the engine watches nothing, or there is none.
        """
        if (found := self._criterion) is None:
            kind = "This fit has no engine" if self.engine is None else f"{type(self.engine).__name__} has no criterion"
            raise ProgramError(f"{kind}, so validation watches nothing. Use elbo(data).")
        evaluator = self._evaluator(data, seed, memory, model=found.of is None)
        if found.of is not None:
            check_of_each_row(self._runtime, self._native, evaluator.feed, found)
        return watched(evaluator, found)

    def conditions(self, data: Data) -> tuple[str, ...]:
        """The fields of data that the model needs to draw the others: log p(x) is then log p(x | these)."""
        return self._evaluator(data).conditions

    def log_weights(self, data: Data, k: int = 1, seed: int = 0, memory: int | str = "auto") -> np.ndarray:
        """log p(x, z_k) − log q(z_k|x), [K, N]. Arguments as for `elbo`."""
        return estimates.log_weights_of_rows(self._evaluator(data, seed, memory), k)

    def encode(self, data: Data, k: int | None = None, seed: int = 0) -> Sites:
        """Latents of data: means [N, *latent], or, with k, draws [K, N, *latent].

        If a guide has several sites, each site gets the means of the sites before it. If such a site is discrete, the
        sites after it get its most probable value; for a class number, which has no mean, this value is also returned.
        If the mean of a latent is not known (a plain pair's flow, or a latent that is bounded on both sides), the means
        are those of 1,000 draws, and a warning shows their error. One latent site is returned as an array, several by
        name. A latent that all rows share has one mean [1, *latent], and K draws [K, 1, *latent] in all. The means of a
        table's rows (pandas, polars) are a table with its index.
        """
        evaluator = self._evaluator(data, seed)
        if k is None:
            found = check_latents_drawn(self.program, means_of_rows(evaluator, decode=False, numbers=True)[0])
            return framed(data, dict(sorted(found.items())), index=self._row_names)  # as JAX sorts them
        require("k", k, int, 1, "a whole number of draws, at least 1")
        drawn = evaluator.drawing(k)
        of_chunk = lambda native, index, i: code_numbers(self.program, drawn(native, index, seed + i * len(index)))
        return single(evaluator.over(of_chunk))

    def reconstruct(self, data: Data, given: Mapping[str, Array] | None = None) -> Sites:
        """Mean of the observed sites given the latents' means, [N, *event_shape], in the units of the data.

        Latents as for `encode`. If an observed site comes before another, the other's mean is the one given its data.

        Args:
            data: rows, as for `elbo`.
            given: fields that the model conditions on, instead of those of the data, from which the latents are:
                {"batch": 0} shows all rows as the batch 0 would have them.
        """
        evaluator = self._evaluator(data)
        found = self._under(evaluator, given) if given else means_of_rows(evaluator)[1]
        outward = dict(sorted(self._outward(data, evaluator)(found).items()))
        return framed(data, outward, self._columns, self._row_names, self._table)

    def prepare(self, data: Data, units: Literal["own", "prepared"] | None = None) -> Data:
        """Rows, prepared like this run's data: scaled, made 0 or 1 if those were, classes as whole numbers.

        The result is marked as prepared. Every method also takes rows in the units of your own data, and prepares them
        automatically, except if the run's data were binarised.

        Args:
            data: array [N, *event_shape], or named arrays.
            units: of rows that are not marked: "own": the units of the raw data; "prepared": they are scaled already.
                The default is "own", and rows that look scaled already are refused.
        """
        return prepare_rows(self.codings, opened(data, self.codings, before=self.data), units)

    def sample(
        self,
        n: int,
        seed: int = 0,
        mean: bool = False,
        given: Mapping[str, np.ndarray] | None = None,
        units: Literal["own", "prepared"] = "own",
    ) -> Sites:
        """Data drawn from the model, [n, *event_shape].

        Args:
            n: the number of rows.
            seed: of the draws.
            mean: return the likelihood's means for drawn latents, instead of draws from it. If an observed site comes
                before another, the other's mean is the one given a draw of it.
            given: fields that the model conditions on (labels, for example), or values of sites: n rows each, or one
                number or name for all rows. The rest is drawn given them, exactly. For a plain pair: only fields that
                its model reads.
            units: "own": the units of the raw data, with classes by their names; "prepared": those that the program was
                trained in. Data that were binarised are 0 or 1 in both.

        Raises:
            ProgramError: a given site depends on one that is drawn. For example, the latents of data have a posterior.
            DataError: `given` names neither a field nor a site, or the model does not read it; or the model reads a
                field that is not given.
        """
        check_units(units)
        require("n", n, int, 1, "a whole number of rows, at least 1")
        require("seed", seed, int, 0, "a whole number, at least 0")
        if not has_model(self.program):
            raise no_model(self.program)
        fields = self.info.get("fields", ["x"])
        if not isinstance(given, Mapping | None):
            raise DataError(
                f"given: got {type(given).__name__}, expected arrays by name, such as given={{'label': …}}."
            )
        require("mean", mean, bool, None, "True or False")
        rows = {
            name: np.repeat(v, n) if _is_one(v) else v for name, v in code_vectors(self.program, given or {}).items()
        }
        for name, value in rows.items():
            count = value.shape[0] if hasattr(value, "shape") else len(value)  # a sparse matrix has no len
            if count != n:
                raise DataError(f"given: got {count} rows of {name!r}, expected {n}, one for each row, or one number.")
        if isinstance(self.program, PlainPair):
            drawn = self._pair_draws(rows, mean).draw(n, seed)
            return single(in_units(self.codings, drawn, fields, units, lambda: (left_over(fields, drawn, rows), rows)))
        blank = self._blank(rows)
        if not rows:
            check_quiet_model(self._runtime, self._native, blank, 2)
            observed = self._runtime.prior(self._native, blank, n, seed, mean)[1]
            if not observed:
                raise ProgramError(
                    f"The model of {type(self.program).__name__} has no observed site, so it draws no data. Give one "
                    "of its sites obs=…."
                )
            alone = lambda: (drawn_by(self._runtime, self._native, blank, blank, {}), ())
            return self._drawn(
                in_units(self.codings, {name: v[0] for name, v in observed.items()}, fields, units, alone), units
            )
        check_texts(rows, fields, self.codings)
        known = as_fields(enter(self.codings, rows), dtype_of(self.params))
        with suppress(KeyError):  # fields that are to be drawn
            self.program.check({n: v for n, v in known.items() if n in blank})
        found = conditions(self.program, self._runtime, self._native, blank, known, n)
        check_indices(self._runtime, self._native, found, n)
        few = {name: v[[0, -1]] if is_given(v) else v for name, v in found.fields.items()}
        check_quiet_model(self._runtime, self._native, few, 2)
        _, observed, scores = self._runtime.conditioned(
            self._native, found.fields, found.sites, n, seed, mean, found.apart
        )
        check_possible(scores)
        ends = {name: v[:, [0, -1]] for name, v in found.sites.items()}
        beside = lambda: (drawn_by(self._runtime, self._native, few, blank, ends), rows)
        return self._drawn(
            in_units(self.codings, {name: v[0] for name, v in observed.items()}, fields, units, beside), units
        )

    def _drawn(self, sites: dict[str, np.ndarray], units: str) -> Sites:
        """Drawn rows as they are returned: as a table, if the run's data were one with columns of several kinds."""
        return as_frame(self.transform if units == "own" else None, single(sites))

    def _pair_draws(self, rows: Mapping[str, np.ndarray], mean: bool) -> PairDraws:
        if "rows" not in self.info:
            raise UnsupportedByBackend(NO_ROWS)
        known = as_fields(enter(self.codings, rows), dtype_of(self.params), typed=True) if rows else {}
        size = self.info.get("data_size", 1)
        return PairDraws(self._runtime, self._native, self.info["rows"], size, known, mean)

    @property
    def recipe(self) -> Recipe:
        """The recipe that repeats the run."""
        return Recipe(self.program, self.training, self.engine or SVI(), self.backend, self.data)

    def save(self, out: str | Path, overwrite: bool = False) -> Path:
        """Write recipe, parameters and history to the folder `out`; each file is whole or absent.

        Raises:
            CheckpointError: `out` holds something else, or holds a run and `overwrite` is not set.
        """
        check_free(as_path("out", out), overwrite)
        folder = Folder(Path(out))
        with folder.held():
            check_free(folder.path, overwrite, held=True)
            folder.clear()
            folder.write_recipe(self.recipe, [] if self.data else ["Its data were given in Python."])
            page = {
                **self.info,
                "recipe": self.recipe.table(),
                "versions": versions(),
                "step": self.info.get("steps", 0),
                "stopped": self.stopped,
                "skipped": [int(i) for i in self.history.get("skipped_step", ())],
                **coding_tables(self.codings),
            }
            arrays = grouped("history", self.history) | coding_arrays(self.codings)
            folder.write_weights({**self.params, **arrays}, page)
            if "step" in self.history:
                folder.write_history(self.history)
        return folder.path

    @cached_property
    def _runtime(self) -> Runtime:
        return self.runtime or load_backend(self.backend).Runtime(self.program, self.device, self.devices)

    @cached_property
    def _criterion(self) -> Criterion | None:
        """One object, because JAX compiles for it."""
        return None if self.engine is None else self.engine.criterion()

    @cached_property
    def _native(self) -> Native:
        return self._runtime.put(self.params)

    def _evaluator(self, data: Data, seed: int = 0, memory: int | str = "auto", model: bool = True) -> Evaluator:
        """The program at data, checked and on the device; with `model`, also for what its model says about them."""
        if model and not has_model(self.program):
            raise no_model(self.program)
        entered = enter(self.codings, leave_labels(self.program, opened(data, self.codings, before=self.data)))
        fields = as_fields(entered, dtype_of(self.params), "judge", isinstance(self.program, PlainPair))
        check_fields(self.program, fields)
        feed = Feed(self._runtime, fields)
        self._runtime.prepare(feed.sample)
        memory = parse_memory(memory, self._runtime.device)
        if not model:
            return Evaluator(self._runtime, self._native, feed, memory, seed)
        check_support(self.program, self._runtime, self.params, feed, False)
        check_quiet(self._runtime, self._native, feed)
        self._check_apart(feed)
        if size := self.info.get("data_size"):
            known = lambda: self.info.get("fingerprint") in (None, fingerprint(fields))
            check_own_rows(self._runtime, self.params, feed, size, known)
        return Evaluator(self._runtime, self._native, feed, memory, seed)

    def _check_apart(self, feed: Feed) -> None:
        """Refuse a model that mixes rows, if the engine did not read it in training; once, because it takes a while."""
        if self.engine is None or "elbo" in self.history or isinstance(self.program, PlainPair) or self._apart:
            return
        check_apart(self._runtime, self.params, feed)
        self._apart = True

    def _outward(self, data: Data, evaluator: Evaluator) -> Outward:
        """A function that converts observed sites to the units of the data."""
        units, roles = own_units(self.codings, data), lambda: (evaluator.drawn_as, evaluator.conditions)
        return lambda sites: in_units(self.codings, sites, evaluator.fields, units, roles)

    def _told(self, evaluator: Evaluator, found: Estimate) -> Estimate:
        """The estimate, with a note on which x it is of; a warning says why it is −∞."""
        estimates.warn_outside(evaluator, found)
        return self._named(evaluator, found)

    def _named(self, evaluator: Evaluator, found: Estimate) -> Estimate:
        words, at = self.transform.in_words() if self.transform else "", found.of.removeprefix("x")
        if words and not evaluator.may_draw("x"):
            return found  # x only conditions what is drawn
        if takes_total(self.program):
            at = " given its total" + at
        at = "".join(f" and {name}" for name in evaluator.fixing) + at
        real = bool(words) and found.dimensions is None
        scaled = self.transform.log_det(evaluator.feed.fields["x"].shape[1:]) if self.transform and real else 0.0
        return replace(found, of=(words or "x") + at if at else words, log_det=scaled)


def _is_one(value: object) -> bool:
    """Whether the value is one number or name, and not an array or a list, which may be ragged."""
    if hasattr(value, "shape"):
        return len(value.shape) == 0
    return isinstance(value, str) or not isinstance(value, Sized)
