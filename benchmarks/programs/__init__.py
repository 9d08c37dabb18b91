"""ppdgm beside loops written by hand, the libraries' own inference, and pythae: one command, table by table.

    python -m benchmarks.programs                                   # every table: an hour
    python -m benchmarks.programs steps --programs vae iaf --only ppdgm-numpyro jax-by-hand --rounds 15
    python -m benchmarks.programs --json programs.json --markdown programs.md
    python -m benchmarks.programs --quick --force                   # does it run? minutes, also on a busy machine

| table | | file |
|---|---|---|
| steps | seconds of a training step of eight programs, two of them at two sizes | `steps.py` |
| epoch | an epoch of MNIST, beside pythae's trainer | `epoch.py` |
| likelihood | test log-likelihood, beside pythae's `get_nll`; memory by k | `likelihood.py` |
| sampling | images per second | `sampling.py` |
| process | start-up, compilation, and memory of a training step | `process.py` |
| growth | time and memory by K, B, N, depth, size of images | `growth.py` |
| whole | whole processes: 5 epochs of MNIST and the test ELBO | `whole.py` |
| products | a step beside its matrix products alone | `products.py` |
| density-steps | a training step of a GatedPixelCNN and a Glow | `../densities/steps.py` |
| density-draws | images from a GatedPixelCNN, beside full passes | `../densities/draws.py` |

Run it from the root of the checkout, with both backends installed, on a machine that does nothing else: it ends with
exit code 2 on a busy one. PPDGM_DATA names a folder that holds `mnist/`: `whole` needs it, `epoch` uses noise without
it. pythae is left out if it is not installed: pip install --no-deps pythae==0.1.2 imageio cloudpickle tqdm.

How it measures is told in `benchmarks/seconds_per_step`, whose machine watch and rounds it uses: same weights, same
minibatches, an objective that must agree, stretches in shuffled order, medians of the ratios within each round.

`cases.py` has the programs; `losses.py` each written by hand over `ops_jax.py` and `ops_torch.py`, the few operations
that JAX and torch name differently; `by_ppdgm.py`, `by_jax.py`, `by_torch.py` and `by_pythae.py` the contestants,
listed in `contestants.py`; `probe.py` is the process of one of them; `common.py` has what tables share.
"""
