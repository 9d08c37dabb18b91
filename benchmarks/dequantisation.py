"""Dequantisation on digits with 17 grey levels: uniform, variational and importance-weighted, one flow for all.

    python benchmarks/dequantisation.py                           # some minutes on one core
    python benchmarks/dequantisation.py --only uniform variational --seed 1

Bounds on log P(x) of 300 test rows, with the paired differences to uniform dequantisation. Each run keeps the
parameters that were best on 150 rows. IWAE trains and reports with 8 draws; the last column has 64 draws for all.
"""

from __future__ import annotations

import argparse
import time
from math import log

import numpy as np

import ppdgm
from ppdgm.inference import IWAE, SVI, Engine
from ppdgm.models import (
    MLP,
    ActNorm,
    Chain,
    Dequantised,
    DiagonalLogistic,
    FlowPosterior,
    FlowPrior,
    InvertibleLinear,
    Posterior,
    RealNVP,
)

LEVELS, K, MANY = 17, 8, 64
BLOCKS = 3
NOISES: dict[str, tuple[Posterior | None, Engine]] = {
    "uniform": (None, SVI()),
    "variational": (DiagonalLogistic(), SVI()),
    "uniform, IWAE": (None, IWAE(k=K)),
    "variational, IWAE": (DiagonalLogistic(), IWAE(k=K)),
    "flow": (FlowPosterior(flow=RealNVP(depth=2, hidden=(64,)), initial=DiagonalLogistic()), SVI()),
}


def bits(nats: np.ndarray) -> np.ndarray:
    return -nats / (64 * log(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(NOISES), choices=list(NOISES))
    parser.add_argument("--backend", default="numpyro")
    given = parser.parse_args()
    data = ppdgm.load_data("digits", scale="none", binarise="none", validation=150, test=300, seed=0)
    block = lambda i: (RealNVP(depth=2, hidden=(64,)), InvertibleLinear(seed=i), ActNorm())
    prior = FlowPrior(flow=Chain(flows=sum((block(i) for i in range(BLOCKS)), ())))
    first = None
    for name in given.only:
        noise, engine = NOISES[name]
        began = time.perf_counter()
        program = Dequantised(event_shape=(8, 8), levels=LEVELS, prior=prior, noise=noise, net=MLP(hidden=(64,)))
        fit = ppdgm.fit(
            program, data.train, validation=data.validation, engine=engine, steps=given.steps, batch_size=100,
            learning_rate=2e-3, weight_average=0.99, keep_best=True, seed=given.seed, backend=given.backend,
            progress=False,
        )  # fmt: skip
        weights = fit.log_weights(data.test, k=MANY)
        of = lambda k, w=weights: (np.logaddexp.reduce(w.reshape(MANY // k, k, -1), axis=1) - log(k)).mean(0)
        bound, tight = of(K if isinstance(engine, IWAE) else 1), of(MANY)
        first = bound if first is None else first
        gain = bits(bound) - bits(first)
        print(
            f"{name:18} {bits(bound).mean():.4f} bits/dim, {bound.mean():9.3f} nats; to the first {gain.mean():+.4f} ± "
            f"{gain.std(ddof=1) / len(gain) ** 0.5:.4f} bits/dim; {MANY} draws {bits(tight).mean():.4f}; train "
            f"{bits(fit.elbo(data.train[:300], k=4).values).mean():.4f}; {time.perf_counter() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
