"""Seconds per training step of seven programs: ppdgm, loops written by hand, and the libraries' own inference.

    python -m benchmarks.programs                                  # every program and contestant
    python -m benchmarks.programs vae iaf --only ppdgm-numpyro jax-by-hand --rounds 15
    python -m benchmarks.programs --json programs.json --markdown programs.md

Run it from the root of the checkout, with both backends installed, on a machine that does nothing else: it ends with
exit code 2 on a busy one. How it measures is told in `benchmarks/seconds_per_step`, whose machine watch and rounds it
uses: same weights, same minibatches, an objective that must agree, stretches in shuffled order, medians of the ratios
within each round.

Layout: `cases.py` has the programs, and the loss of each written by hand over `ops.py`, the few operations that JAX and
torch name differently; `loops.py` the contestants. `products.py` is a script of its own: a step beside its matrix
products alone.
"""
