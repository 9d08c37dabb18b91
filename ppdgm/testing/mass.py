"""How much probability a density gives to cells, and how many draws fall into them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from ppdgm.errors import DataError, ProgramError
from ppdgm.models import Likelihood
from ppdgm.models.posteriors.base import CONTINUOUS
from ppdgm.testing.bench import Bench
from ppdgm.testing.broken import Broken, NotHere
from ppdgm.testing.grids import make_grid
from ppdgm.testing.part_case import DRAWS, HEADS, PartCase

MOST_WHOLE = 300  #: the largest number of whole numbers, from the lowest on, that a sum goes over
MOST_VALUES = 100_000  #: the largest number of values in a sum
MOST_WIDE = 3  #: the largest number of dimensions of a density
_ENDS = {"positive": (0.0, np.inf), "unit": (0.0, 1.0)}  # of latents
CENTRES, NEIGHBOURS, HALVES = 200, 200, 8


@dataclass(frozen=True)
class Mass:
    """For each head: the integral of the density, and its cells.

    Attributes:
        how: the way it was measured, in words.
        total: the integral or sum, [HEADS].
        error: Monte Carlo error of the total, [HEADS]; 0 for sums and integrals.
        expected: probabilities of cells, one array for each head.
        found: how many draws fell into them; None if draws were weighed: then see `scores`.
        scores: the deviation of each cell in Monte Carlo errors, if draws were weighed.
    """

    how: str
    total: np.ndarray
    error: np.ndarray
    expected: list[np.ndarray]
    found: list[np.ndarray] | None
    scores: np.ndarray | None = None


def measure(case: PartCase, backend: str) -> Mass:
    """The mass of a part's density, by sums or integrals if possible.

    Raises:
        NotHere: sums, integrals and Monte Carlo are all not possible.
    """
    assert case.alone is not None
    bench, width = case.bench(case.alone, backend), prod(case.alone.shape)
    z, log_q = case.draws(backend)
    if not np.isfinite(log_q).all():
        raise Broken(f"log-densities of draws: got {log_q[~np.isfinite(log_q)][0]}, expected finite numbers.")
    family = getattr(case.part, "family", "real")
    if family not in CONTINUOUS:
        return _enumerated(case, backend, z)
    if family == "simplex":
        raise NotHere("a density on a simplex, which is flat in one direction")
    if (z == np.rint(z)).all():
        return _whole(case, bench, z)
    if width > MOST_WIDE:
        raise NotHere(f"a density of {width} numbers: give a smaller shape=…, such as (2,)")
    if case.one_way or width > 2:
        return _weighed(z, log_q)
    return _integrated(case, bench, z)


def limits(case: PartCase, z: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest number that a likelihood accepts, around draws; infinite if there is no limit."""
    if not isinstance(case.spec, Likelihood):
        return _ENDS.get(getattr(case.part, "family", "real"), (-np.inf, np.inf))
    if not accepts(case, z[0, :1]):
        raise Broken(f"draws such as {z[0, 0].ravel()[0]:.4g} are refused by its own check(): make the two agree.")
    whole = bool((z == np.rint(z)).all())
    inside, ends = float(z.ravel()[0]), []
    for end in (-1e6, 1e6):
        good, bad = inside, end
        if accepts(case, np.full_like(z[0, :1], end)):
            ends.append(end * np.inf)
            continue
        for _ in range(60):
            middle = np.rint((good + bad) / 2) if whole else (good + bad) / 2
            good, bad = (middle, bad) if accepts(case, np.full_like(z[0, :1], middle)) else (good, middle)
        ends.append(good)
    return ends[0], ends[1]


def accepts(case: PartCase, x: np.ndarray) -> bool:
    """Whether a likelihood accepts the data."""
    try:
        case.spec.check("x", x)  # type: ignore[attr-defined]  # a likelihood
    except DataError:
        return False
    return True


def _integrated(case: PartCase, bench: Bench, z: np.ndarray) -> Mass:
    low, high = limits(case, z)
    shape = z.shape[2:]
    flat = z.reshape(*z.shape[:2], -1)
    grids = [make_grid(flat[: DRAWS // 2, h], low, high) for h in range(HEADS)]
    longest = max(len(g.nodes) for g in grids)
    nodes = np.stack([np.resize(g.nodes, (longest, flat.shape[-1])) for g in grids], axis=1)
    scores = bench.score({"x": case.heads}, nodes.reshape(longest, HEADS, *shape))
    if np.isnan(scores).any() or (scores == np.inf).any():
        worst = np.argwhere(~(scores < np.inf))[0]
        hint = " If data can't be so, refuse them in check(name, x)." if isinstance(case.spec, Likelihood) else ""
        raise Broken(f"log-density at {nodes[tuple(worst)]}: got {scores[tuple(worst)]}, expected a number.{hint}")
    mass = [g.weights * np.exp(scores[: len(g.nodes), h]) for h, g in enumerate(grids)]
    return Mass(
        how="integral",
        total=np.array([m.sum() for m in mass]),
        error=np.zeros(HEADS),
        expected=[np.bincount(g.cells, m, g.size) for g, m in zip(grids, mass, strict=True)],
        found=[np.bincount(g.cell_of(flat[DRAWS // 2 :, h]), minlength=g.size) for h, g in enumerate(grids)],
    )


def _whole(case: PartCase, bench: Bench, z: np.ndarray) -> Mass:
    """For a variable of whole numbers: the sum over them."""
    low, high = limits(case, z)
    low = float(z.min()) if low == -np.inf else low
    high = min(low + MOST_WHOLE - 1, 3 * float(z.max()) + 20) if high == np.inf else high
    if not isinstance(case.spec, Likelihood):
        high = float(z.max())
    width, numbers = prod(z.shape[2:]), np.arange(low, high + 1)
    if len(numbers) ** width > MOST_VALUES:
        raise NotHere(f"{len(numbers)}^{width} values are too many to sum over: give a smaller shape=…")
    mesh = np.meshgrid(*[numbers] * width, indexing="ij")
    values = np.stack([m.ravel() for m in mesh], axis=-1)
    given = np.repeat(values.reshape(-1, 1, *z.shape[2:]), HEADS, axis=1)
    mass = np.exp(bench.score({"x": case.heads}, given)).T
    place = np.zeros(z.shape[:2], int)
    for i in range(width):
        place = place * len(numbers) + (z.reshape(*z.shape[:2], -1)[..., i] - low).astype(int)
    inside: np.ndarray = np.all(((z >= low) & (z <= high)).reshape(*z.shape[:2], -1), axis=-1)
    found = [np.bincount(place[inside[:, h], h], minlength=len(values)) for h in range(HEADS)]
    return Mass(f"sum over {len(values)} values", mass.sum(1), np.zeros(HEADS), list(mass), found)


def _enumerated(case: PartCase, backend: str, z: np.ndarray) -> Mass:
    """For a discrete latent: the sum over the values that enumeration takes."""
    assert case.alone is not None
    changes = {"enumerate": True} | ({} if case.reads_no_head else {"standard": False})
    every = case.bench(case.alone.replace(**changes), backend)
    try:
        values = every.trace({"x": case.heads}, 1).values["z"].reshape(-1, *z.shape[2:])
    except ProgramError:
        return _whole(case, case.bench(case.alone, backend), z)
    given = np.repeat(values[:, None], HEADS, axis=1)
    mass = np.exp(case.bench(case.alone, backend).score({"x": case.heads}, given)).T
    near = np.stack([_nearest(z[:, h], values) for h in range(HEADS)])
    found = [np.bincount(n, minlength=len(values)) for n in near]
    return Mass(f"sum over {len(values)} values", mass.sum(1), np.zeros(HEADS), list(mass), found)


def _nearest(z: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The index of the value that each draw equals."""
    flat, known = z.reshape(len(z), -1), values.reshape(len(values), -1)
    codes = {tuple(np.round(v, 3)): i for i, v in enumerate(known)}
    try:
        return np.array([codes[tuple(v)] for v in np.round(flat, 3)])
    except KeyError as error:
        raise Broken(f"a draw, {error}, is none of the values that enumeration takes: make the two agree.") from None


def _weighed(z: np.ndarray, log_q: np.ndarray) -> Mass:
    """E_q[r/q] = 1 in total, and r's share of each half-space. This needs only draws and their log-densities."""
    flat = z.reshape(*z.shape[:2], -1)
    rng, total, error, scores = np.random.default_rng(0), [], [], []
    for h in range(HEADS):
        centres, covariances = _blobs(flat[: DRAWS // 2, h])
        rest, own = flat[DRAWS // 2 :, h], log_q[DRAWS // 2 :, h]
        near = [multivariate_normal(c, s).logpdf(rest) for c, s in zip(centres, covariances, strict=True)]
        ratio = np.exp(logsumexp(near, axis=0) - np.log(CENTRES) - own)
        total.append(ratio.mean())
        error.append(ratio.std(ddof=1) / len(ratio) ** 0.5)
        for direction in rng.normal(size=(HALVES, flat.shape[-1])):
            side, middle = rest @ direction, np.median(centres @ direction)
            spread = np.sqrt(np.einsum("i,cij,j->c", direction, covariances, direction))
            share = norm.cdf((middle - centres @ direction) / spread).mean()
            weighed = ratio * (side < middle)
            scores.append((weighed.mean() - share) / (weighed.std(ddof=1) / len(ratio) ** 0.5))
    return Mass("E_q[r/q]", np.array(total), np.array(error), [], None, np.abs(scores))


def _blobs(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and covariances of r, a mixture of normals that are as small as the neighbourhoods of some draws.

    Then r is large only where q is large, even if q lies on a thin sheet, and r/q has a small variance.
    """
    centres = draws[:CENTRES]
    _, near = cKDTree(draws[CENTRES:]).query(centres, NEIGHBOURS)
    around = draws[CENTRES:][near] - centres[:, None]
    floor = 1e-12 * draws.var(0).mean() * np.eye(draws.shape[1])
    return centres, 0.25 * np.einsum("cni,cnj->cij", around, around) / NEIGHBOURS + floor
