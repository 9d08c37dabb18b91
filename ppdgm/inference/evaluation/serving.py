"""A part of a trained program as a file that other tools run without ppdgm, and a description of it beside it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppdgm.data import Transform, check_units
from ppdgm.errors import (
    CheckpointError,
    PpdgmError,
    ProgramError,
    SpecError,
    UnsupportedByBackend,
    nearest,
    one_of,
    require,
)
from ppdgm.files import write_atomically
from ppdgm.inference.evaluation.estimates import Elbo, dtype_of
from ppdgm.inference.runs.folder import versions
from ppdgm.inference.runs.layout import as_path
from ppdgm.language.served import WHAT, Exported, Served, Units
from ppdgm.language.unseen import blanks, shapes_known
from ppdgm.program import AnyProgram, PlainPair, has_model, no_model
from ppdgm.registry import backend as load_backend

if TYPE_CHECKING:
    from ppdgm.data.aliases import Codings
    from ppdgm.inference.runs.recipe import Recipe
    from ppdgm.language.runtime import Native, Runtime

HOMES = {"pt2": "pyro", "onnx": "pyro", "jax": "numpyro"}  # the backend that writes a format
_PAIR = (
    "export: a plain pair runs in its library's own handlers, so it is not a function of arrays. Write it as a "
    "Program, or export its modules with torch.export or jax.export."
)


class Servable(ABC):
    """The part of `Fit` that exports."""

    program: AnyProgram
    params: dict[str, np.ndarray]
    backend: str
    info: dict[str, Any]
    codings: Codings

    @property
    @abstractmethod
    def _runtime(self) -> Runtime:
        """The program on its device; `Fit` has it."""

    @property
    @abstractmethod
    def _native(self) -> Native:
        """The parameters there; `Fit` has them."""

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """The recipe that repeats the run; `Fit` has it."""

    @abstractmethod
    def _latents(self, given: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """The shapes of the latents of the model; `Decodable` has them."""

    def export(
        self,
        path: str | Path,
        what: Literal["encoder", "decoder", "elbo"] = "decoder",
        *,
        units: Literal["own", "prepared"] = "own",
        k: int = 1,
        types: Mapping[str, str] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a part of the program to a file that other tools run, for any number of rows, without ppdgm.

        The name's ending is the format: `.pt2` (torch.export) and `.onnx` on the pyro backend, `.jax` (jax.export,
        StableHLO) on the numpyro backend. A fit of the other backend can be opened there: `load(out, backend="pyro")`.
        Beside it, `path.json` says what goes in and what comes out, by name, shape and type; inputs go in that order.

        Args:
            path: the file.
            what: "encoder": means of the latents given data, as `encode`; "decoder": means of the data given latents,
                as `decode`; "elbo": the ELBO of each row from K draws, in nats of x as it was prepared, as `elbo`.
            units: of x: "own": those of the raw data, whose scaling is then a part of the file; "prepared". Data that
                were binarised are 0 or 1 in both.
            k: K, for "elbo". Its noise is an input: arrays of N(0, 1) or uniform numbers, or for JAX a key.
            types: of fields other than x, such as {"label": "int64"}. By default, a field with one number for each row
                has whole numbers; others, and exposures, have real ones.
            overwrite: replace a file.

        Returns:
            The path.

        Raises:
            UnsupportedByBackend: the format belongs to the other backend; or the program can't be exported, with the
                reason.
            ProgramError: the program has no such part.
        """
        file = as_path("path", path)
        format = file.suffix.lower().removeprefix(".")
        if format not in HOMES:
            raise SpecError(f"path: got {str(path)!r}, expected a name that ends with .pt2, .onnx or .jax.")
        one_of("what", what, WHAT)
        check_units(units)
        require("k", k, int, 1, "a whole number of draws, at least 1")
        require("overwrite", overwrite, bool, None, "True or False")
        if file.exists() and not overwrite:
            raise CheckpointError(f"path: {path} exists. Choose another name, or replace it with overwrite=True.")
        if isinstance(self.program, PlainPair):
            raise UnsupportedByBackend(_PAIR)
        if not has_model(self.program):
            raise no_model(self.program)
        if HOMES[format] != self.backend:
            raise UnsupportedByBackend(
                f"path: .{format} files are written on the {HOMES[format]} backend, but this fit is on {self.backend}. "
                f"Open the run there: ppdgm.load(out, backend={HOMES[format]!r}); or choose another ending."
            )
        if k != 1 and what != "elbo":
            raise SpecError(f"k: got {k}, but the {what} draws nothing. Leave k out.")
        served = self._served(what, units, k, types or {})
        found = load_backend(self.backend).exported(self._runtime, self._native, served, format)
        if not found.outputs:
            raise ProgramError(f"export: {type(self.program).__name__} has no latents, so it has no {what}.")
        page = self._page(found, served, format, units)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, found.content)
        write_atomically(file.with_name(f"{file.name}.json"), json.dumps(page, indent=2).encode())
        return file

    def _served(self, what: str, units: str, k: int, types: Mapping[str, str]) -> Served:
        kind, names = str(np.dtype(dtype_of(self.params))), list(self.info.get("fields", ["x"]))
        shapes = shapes_known(self.program, {**dict.fromkeys(names), **self.info.get("shapes", {})})
        if unknown := [n for n in types if n not in names]:
            raise SpecError(f"types: got a field {unknown[0]!r}. {nearest(unknown[0], names)}")
        if missing := [n for n in names if shapes[n] is None]:
            raise ProgramError(f"export: the shape of the field {missing[0]!r} is not known. Use a fit to data.")
        whole = "int64" if self.backend == "pyro" else "int32"
        typed = {n: types.get(n, whole if shapes[n] == () and n != "exposure" else kind) for n in names}
        fields = {n: (tuple(shapes[n] or ()), typed[n]) for n in names}
        scaling = self._units() if units == "own" else None
        if what != "decoder":
            return Served(what, fields, elbo=Elbo(1) if what == "elbo" else None, k=k, units=scaling)
        others = {n: v for n, v in fields.items() if n != "x"}
        try:
            latents, others = self._latents({}), {}
        except PpdgmError:  # the model computes with its other fields
            latents = self._latents({n: np.zeros((2, *s), t) for n, (s, t) in others.items()})
        if not latents:
            raise ProgramError(f"export: {type(self.program).__name__} has no latents, so it has no decoder.")
        inputs = {n: (s, kind) for n, s in latents.items()}
        return Served(what, {**inputs, **others}, tuple(inputs), blanks(shapes), units=scaling)

    def _units(self) -> Units | None:
        """The scaling of x as arithmetic; None for x that was made 0 or 1, which is so in both units."""
        known = self.codings.get("x")
        if not isinstance(known, Transform) or known.binary:
            return None
        if known.mean is not None and known.scale is not None:
            return Units(known.mean, known.scale)
        unscaled = known.divisor == 1.0 and known.kind in ("none", "unit")
        return None if unscaled else Units(np.zeros(()), np.asarray(known.divisor), known.kind == "levels")

    def _page(self, found: Exported, served: Served, format: str, units: str) -> dict[str, object]:
        x = self.codings.get("x")
        return {
            "format": format,
            "what": served.what,
            "units": units,
            "binarised": isinstance(x, Transform) and x.binary,
            **({"k": served.k} if served.what == "elbo" else {}),
            "inputs": found.inputs,
            "outputs": found.outputs,
            "program": self.recipe.table()["program"],
            "backend": self.backend,
            "versions": versions(),
        }
