"""Densities of data: a training step beside loops by hand, and draws beside full passes of the net.

    python -m benchmarks.densities                                  # both tables: some minutes
    python -m benchmarks.densities steps --only ppdgm-numpyro jax-by-hand --rounds 15
    python -m benchmarks.densities --json densities.json --markdown densities.md
    python -m benchmarks.densities --quick --force                  # does it run? also on a busy machine

| table | | file |
|---|---|---|
| steps | seconds of a training step of a GatedPixelCNN and a Glow, beside the same loss by hand | `steps.py` |
| draws | seconds of drawing images from a GatedPixelCNN, beside a full pass of the net for each pixel | `draws.py` |

It measures as `benchmarks.programs` does, whose loops by hand and operations it uses: same weights, same minibatches,
an objective that must agree, stretches in shuffled order, medians of the ratios within each round. `cases.py` has the
programs, `losses.py` each written by hand.
"""
