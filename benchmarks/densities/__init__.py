"""Densities of data: two tables of `benchmarks.programs`.

    python -m benchmarks.programs density-steps density-draws

| table | | file |
|---|---|---|
| density-steps | seconds of a training step of a GatedPixelCNN and a Glow, beside the same loss by hand | `steps.py` |
| density-draws | drawing images from a GatedPixelCNN, beside a full pass for each pixel | `draws.py` |

`cases.py` has the programs, `losses.py` each written by hand.
"""
