"""Burda's single-layer VAE (784-200-200-50) on MNIST with dynamic binarisation, on both backends.

    PPDGM_DATA=… python benchmarks/mnist.py --epochs 200

Prints the time of training, and the ELBO and importance-sampled log-likelihood of the test set, binarised once.
Burda et al. 2016 (arXiv:1509.00519) report −86.76 nats for K = 1, after 3,280 epochs. PPDGM_DATA names a folder that
holds `mnist/` with the four gzipped idx files.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

import ppdgm
from ppdgm.data import binarise
from ppdgm.inference import Cosine
from ppdgm.models import VAE

VALIDATION, BATCH = 10_000, 128


def images(folder: Path, name: str) -> np.ndarray:
    """[N, 784] in [0, 1] from a gzipped idx file."""
    content = gzip.decompress((folder / "mnist" / f"{name}-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--backends", nargs="+", default=["numpyro", "pyro"])
    parser.add_argument("--k", type=int, default=5000, help="particles of the log-likelihood")
    parser.add_argument("--test", type=int, default=10_000, help="test images for the log-likelihood")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "PPDGM_DATA" not in os.environ:
        sys.exit("Set PPDGM_DATA to the folder that holds mnist/ with the four gzipped idx files.")
    folder = Path(os.environ["PPDGM_DATA"])
    order = np.random.default_rng(0).permutation(60_000)
    train = images(folder, "train")[order]
    held_out, train = binarise(train[:VALIDATION], seed=1), train[VALIDATION:]
    test = binarise(images(folder, "t10k"), seed=2)
    results = {}
    for backend in options.backends:
        steps = options.epochs * -(-len(train) // BATCH)
        started = time.perf_counter()
        fit = ppdgm.fit(
            VAE(event_shape=(784,)),
            train,
            validation=held_out,
            backend=backend,
            epochs=options.epochs,
            batch_size=BATCH,
            binarise="dynamic",
            learning_rate=Cosine(peak=1e-3, end=1e-5, steps=steps),
            device=options.device,
        )
        trained = time.perf_counter() - started
        elbo = fit.elbo(test)
        started = time.perf_counter()
        likelihood = fit.log_likelihood(test[: options.test], k=options.k)
        judged = time.perf_counter() - started
        print(f"{backend}: {options.epochs} epochs in {trained:.0f} s ({1e3 * trained / steps:.2f} ms a step)")
        print(f"  test ELBO            {elbo}")
        print(f"  test log-likelihood  {likelihood}, in {judged:.0f} s", flush=True)
        results[backend] = {
            "epochs": options.epochs,
            "seconds": trained,
            "elbo": elbo.mean,
            "log_likelihood": likelihood.mean,
            "standard_error": likelihood.standard_error,
            "monte_carlo_error": likelihood.monte_carlo_error,
            "seconds_judging": judged,
        }
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
