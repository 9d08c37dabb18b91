"""Seconds per step of one VAE, trained by ppdgm's two backends and by all that ppdgm is compared with.

    python -m benchmarks.seconds_per_step                                      # three sizes, every contestant
    python -m benchmarks.seconds_per_step --sizes 20x1 --only torch-eager jax-scan --rounds 15
    python -m benchmarks.seconds_per_step --json steps.json --markdown steps.md

Run from the root of the checkout, with both backends installed, on a machine that does nothing else. Exit
code 2 means that the machine was too busy for a report, 1 that the contestants do not train the same
objective.

How it is measured. The process is pinned to its cores before any numerical library is imported, so torch and
XLA have the same ones. Every contestant starts from the same weights, takes the same minibatches and is
compiled and warmed up first. The mean loss of its first steps must agree with that of all others. Then come
the rounds: in each, every contestant runs one stretch of steps, in shuffled order. The table gives the median
and the interquartile range of seconds per step, and the medians of the ratios within each round, because a
slow drift of the machine cancels in them.

Layout: `problem.py` is the VAE, its data and what a contestant is; `torch_loop.py`, `jax_loop.py`,
`pyro_svi.py`, `numpyro_svi.py` and `ppdgm_fit.py` are the contestants, listed in `contestants.py`; `stretches.py`
has the loops that they share with `benchmarks.programs`;
`machine.py` pins and watches the machine; `race.py` runs the rounds; `table.py` and `report.py` write them
down.
"""
