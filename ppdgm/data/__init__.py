"""Data sets: read, checked, split, scaled and binarised, with fixed seeds."""

from ppdgm.data.dataset import Dataset
from ppdgm.data.fields import as_fields, check_finite, check_rows, take
from ppdgm.data.loading import binarise, load_data
from ppdgm.data.sets import Entry, catalogue
from ppdgm.data.source import Source
from ppdgm.data.stream import Stream
from ppdgm.data.transform import Transform

__all__ = [
    "Dataset",
    "Entry",
    "Source",
    "Stream",
    "Transform",
    "as_fields",
    "binarise",
    "catalogue",
    "check_finite",
    "check_rows",
    "load_data",
    "take",
]
