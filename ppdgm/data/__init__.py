"""Data sets: read, checked, split, scaled and binarised, with fixed seeds."""

from ppdgm.data.classes import Classes
from ppdgm.data.dataset import Dataset
from ppdgm.data.entry import check_units, codings_of, enter, enter_beside, leave, own_units, prepare_rows
from ppdgm.data.fields import as_fields, check_finite, check_rows, take
from ppdgm.data.given import is_collection, is_raw, opened
from ppdgm.data.loading import binarise, load_data
from ppdgm.data.mixed import learn_columns
from ppdgm.data.mu_law import mu_law_decode, mu_law_encode
from ppdgm.data.prepared import Prepared
from ppdgm.data.sets import KnownDataset, catalogue
from ppdgm.data.source import Source
from ppdgm.data.stream import Stream
from ppdgm.data.transform import Transform

__all__ = [
    "Classes",
    "Dataset",
    "KnownDataset",
    "Prepared",
    "Source",
    "Stream",
    "Transform",
    "as_fields",
    "binarise",
    "catalogue",
    "check_finite",
    "check_rows",
    "check_units",
    "codings_of",
    "enter",
    "enter_beside",
    "is_collection",
    "is_raw",
    "learn_columns",
    "leave",
    "load_data",
    "mu_law_decode",
    "mu_law_encode",
    "opened",
    "own_units",
    "prepare_rows",
    "take",
]
