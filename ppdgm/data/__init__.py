"""Data sets, split once with a fixed seed."""

from ppdgm.data.datasets import Dataset, binarise, load_data

__all__ = ["Dataset", "binarise", "load_data"]
