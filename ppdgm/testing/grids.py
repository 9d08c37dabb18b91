"""Grids over a distribution: they lie where its draws are, fine in the middle and far into the tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIDDLE, CELLS, GROWTH, FAR = 40, 8, 1.5, 1e3
NODES, WEIGHTS = np.polynomial.legendre.leggauss(3)


@dataclass(frozen=True)
class Grid:
    """Nodes of a product rule over one or two numbers, with the cells in which draws are counted.

    Attributes:
        edges: the inner edges of the cells, for each number.
        nodes: [n, D].
        weights: [n], so that Σ w f(node) is the integral of f.
        cells: the cell of each node, [n].
    """

    edges: list[np.ndarray]
    nodes: np.ndarray
    weights: np.ndarray
    cells: np.ndarray

    def cell_of(self, z: np.ndarray) -> np.ndarray:
        """The cells of values [n, D]."""
        return np.ravel_multi_index(
            [np.searchsorted(e, z[:, i]) for i, e in enumerate(self.edges)], [len(e) + 1 for e in self.edges]
        )

    @property
    def size(self) -> int:
        """The number of cells."""
        return int(np.prod([len(e) + 1 for e in self.edges]))


def make_grid(draws: np.ndarray, low: float = -np.inf, high: float = np.inf) -> Grid:
    """A grid over the distribution of draws [n, D], with D at most 2 and each number in [low, high]."""
    axes = [_axis(x, low, high) for x in draws.T]
    mesh = lambda part: np.stack([m.ravel() for m in np.meshgrid(*(a[part] for a in axes), indexing="ij")], -1)
    nodes = mesh(0)
    edges = [a[2] for a in axes]
    empty = Grid(edges, nodes, mesh(1).prod(-1), np.empty(0, int))
    return Grid(edges, nodes, empty.weights, empty.cell_of(nodes))


def _axis(x: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes, weights and the inner edges of cells for one number."""
    quantiles = np.unique(np.quantile(x, np.linspace(0.005, 0.995, MIDDLE + 1)))
    first, last = quantiles[0], quantiles[-1]
    steps = (last - first) * 0.1 * GROWTH ** np.arange(1 + np.log(10 * FAR) / np.log(GROWTH))
    reach = np.cumsum(steps)
    bounds = np.concatenate([(first - reach)[::-1], quantiles, last + reach])
    bounds = np.unique(np.clip(bounds, low, high))
    half = np.diff(bounds)[:, None] / 2
    nodes = (bounds[:-1, None] + half) + half * NODES
    cells = quantiles[MIDDLE // CELLS : -1 : MIDDLE // CELLS] if len(quantiles) > MIDDLE else quantiles[1:-1]
    return nodes.ravel(), (half * WEIGHTS).ravel(), cells
