"""Draws, data and densities in the form that ArviZ takes, for both ArviZ 0.x and 1.x."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ppdgm.diagnostics.arrays import as_array
from ppdgm.diagnostics.psis import arviz, is_first_generation
from ppdgm.diagnostics.tables import tables
from ppdgm.errors import DataError, require, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def to_arviz(
    groups: Mapping[str, Mapping[str, ArrayLike | Iterator[ArrayLike]]],
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    attrs: Mapping[str, object] | None = None,
    inference_library: str | None = None,
    chains: int = 1,
) -> Any:
    """Draws, data and densities with named axes: `InferenceData` with ArviZ 0.23, `xarray.DataTree` with 1.x.

    Arrays are not copied. Independent draws are one chain. Each group has its first axes; further axes are named after
    the variable, z_dim or z_dim_0, z_dim_1, …. Those of `x` are named as for images: x_row and x_column if there are
    two, and x_channel, x_row and x_column if there are three.

    Args:
        groups: arrays by group and variable. For posterior, posterior_predictive, log_likelihood and sample_stats:
            [S, N, …], or [S]; for prior, prior_predictive and prior_sbc: [S, …]; for observed_data and constant_data:
            [N, …]. An iterator of chunks of rows, [S, n, …] or [n, …], is accepted too. It is filled into one array if
            N is known from coords or from another array.
        dims: for a variable, its axes after chain and draw. For latents that all rows share, leave out "datum".
        coords: for an axis, its labels; "datum" is the axis of the rows, with labels 0, 1, … by default.
        attrs: further attributes of all groups.
        inference_library: such as "numpyro".
        chains: how many Markov chains, one after another, the draws of posterior, log_likelihood and sample_stats are.

    Raises:
        DataError: a group is unknown, an array has no numbers, or sizes don't agree.
        PackageMissing: ArviZ is not installed.
    """
    import xarray

    for name, value in (("dims", dims), ("coords", coords), ("attrs", attrs)):
        if value is not None and not isinstance(value, Mapping):
            raise DataError(f"{name}: got {shown(value)}, expected a mapping of names.")
    labels = {axis: as_array(f"coords[{axis!r}]", v) for axis, v in (coords or {}).items()}
    for axis, array in labels.items():
        if array.ndim != 1:
            raise DataError(f"coords[{axis!r}]: got {shown(array)}, expected a label for each position, [{axis}].")
    require("chains", chains, int, 1, "a positive whole number")
    found = tables(groups, dims or {}, labels, chains)
    notes = _notes(attrs or {}, inference_library)
    sets = {name: xarray.Dataset(table, coords=own, attrs=notes) for name, (table, own) in found.items()}
    if is_first_generation():
        return arviz().InferenceData(attrs=notes, **sets)
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=notes), **sets})


def _notes(more: Mapping[str, object], inference_library: str | None) -> dict[str, str | int | float]:
    """Attributes with the names of ArviZ's schema, as text and numbers, which every file format can store."""
    notes: dict[str, str | int | float] = {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "ppdgm",
        "creation_library_version": sys.modules["ppdgm"].__version__,
        "creation_library_language": "Python",
        "arviz_version": arviz().__version__,
        "sampling": "independent draws of a guide; one chain",
    }
    if inference_library is not None:
        notes["inference_library"] = inference_library
    plain = (str, int, float)
    return notes | {str(k): v if isinstance(v, plain) and not isinstance(v, bool) else str(v) for k, v in more.items()}
