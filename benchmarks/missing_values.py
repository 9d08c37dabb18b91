"""Imputation on tables of scikit-learn with 30 % of the entries missing at random, against its own imputers.

    python benchmarks/missing_values.py                    # some minutes on one core
    python benchmarks/missing_values.py --seeds 1 --epochs 200

The error of the imputed entries is the root mean squared error in standard deviations of the columns. Of the 80 %
intervals it counts how many missing entries are inside. Means over the seeds, each with its own gaps, and their
standard errors. Everything is fitted to the same rows with gaps, and sees nothing else.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # scikit-learn asks for it
from sklearn.impute import IterativeImputer, SimpleImputer

import ppdgm
from ppdgm.inference import IWAE
from ppdgm.models import MLP, VAE, Table

SETS = {"wine": load_wine, "breast cancer": load_breast_cancer}
SHARE, LEVEL = 0.3, 0.8


def miwae(x: np.ndarray, seed: int, epochs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means and interval ends of all entries."""
    nets = {"encoder": MLP(hidden=(64,)), "decoder": MLP(hidden=(64,))}
    program = VAE(event_shape=x.shape[1:], latent=8, likelihood=Table(columns=("real",) * x.shape[1]), **nets)
    fit = ppdgm.fit(
        program, x, engine=IWAE(k=20), epochs=epochs, batch_size=64, learning_rate=2e-3, weight_average=0.995,
        seed=seed, progress=False,
    )  # fmt: skip
    low, high = fit.impute(x, interval=LEVEL, k=2000)
    return fit.impute(x, mean=True, k=2000), low, high


def error(guess: np.ndarray, whole: np.ndarray, x: np.ndarray) -> float:
    """Root mean squared error of the missing entries of x, in standard deviations of its columns."""
    return float(np.sqrt(np.mean((((guess - whole) / np.nanstd(x, axis=0))[np.isnan(x)]) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300)
    asked = parser.parse_args()
    print(
        "| table | rows × columns | column means | IterativeImputer | ppdgm, IWAE | inside 80 % intervals | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, load in SETS.items():
        whole = np.asarray(load().data, np.float64)
        found, started = [], time.perf_counter()
        for seed in range(asked.seeds):
            gaps = np.random.default_rng(seed).random(whole.shape) < SHARE
            x = np.where(gaps, np.nan, whole)
            mean, low, high = miwae(x, seed, asked.epochs)
            inside = ((low <= whole) & (whole <= high))[gaps].mean()
            others = (SimpleImputer(), IterativeImputer(max_iter=20, random_state=seed))
            found.append([*(error(o.fit_transform(x), whole, x) for o in others), error(mean, whole, x), inside])
        values, spread = np.mean(found, 0), np.std(found, 0, ddof=min(1, asked.seeds - 1)) / np.sqrt(asked.seeds)
        several = asked.seeds > 1  # one seed has no standard error
        cells = [f"{v:.3f} ± {s:.3f}" if several else f"{v:.3f}" for v, s in zip(values, spread, strict=True)]
        seconds = (time.perf_counter() - started) / asked.seeds
        print(f"| {name} | {len(whole)} × {whole.shape[1]} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
