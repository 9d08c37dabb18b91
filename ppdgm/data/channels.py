"""Images with their channels last, [N, H, W, C], moved to [N, C, H, W], as nets for images read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ppdgm.data.dataset import Dataset, Split
from ppdgm.data.prepared import Prepared
from ppdgm.data.raw import Raw
from ppdgm.data.source import Source
from ppdgm.data.transform import Transform, to_first
from ppdgm.errors import DataError


def with_channels_first(raw: Raw, source: Source) -> Raw:
    """The same data, with the channels of x first, if the source says that they are last.

    Raises:
        DataError: x is no such array, or too large to be loaded.
    """
    if source.channels == "first":
        return raw
    if raw.colour:
        raise DataError("channels: got 'last', but a folder of images is read with channels first. Leave it out.")
    parts = {split: dict(fields) for split, fields in raw.parts.items()}
    for fields in parts.values():
        x = fields.get("x")
        if x is None or x.ndim != 4:
            got = "no field 'x'" if x is None else f"an array of shape {x.shape}"
            raise DataError(f"channels: got {got}, expected images [N, H, W, C] with channels='last'. Leave it out.")
        if isinstance(x, np.memmap):
            raise DataError(
                "channels: got an array that is larger than memory=…, and streamed. Save it with its channels first: "
                "np.save(path, np.moveaxis(x, -1, 1)); or give more memory."
            )
        fields["x"] = np.ascontiguousarray(to_first(x))
    return Raw(parts, raw.labels, raw.classes, raw.columns, raw.colour)


def marked(data: Dataset) -> Dataset:
    """The data set, whose transform says that the user's own rows have their channels last."""
    if data.source.channels == "first":
        return data
    transform = replace(data.transform, channels="last")
    train, validation, test = (_marked(s, transform) for s in (data.train, data.validation, data.test))
    return replace(data, train=train, validation=validation, test=test, transform=transform)


def _marked(split: Split, transform: Transform) -> Split:
    if isinstance(split, dict):
        return {n: Prepared(np.asarray(v), transform) if n == "x" else v for n, v in split.items()}
    return None if split is None else Prepared(np.asarray(split), transform)
