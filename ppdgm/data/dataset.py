"""A data set: its splits, ready for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ppdgm import markup
from ppdgm.data.classes import Classes
from ppdgm.data.source import Source
from ppdgm.data.split import SPLITS
from ppdgm.data.stream import Stream, is_sparse
from ppdgm.data.transform import Transform

Split = np.ndarray | Stream | dict[str, np.ndarray | Stream] | None


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Data in rows: split, scaled, binarised.

    Attributes:
        name: of the set.
        train, validation, test: [N, *event_shape], or named arrays if there are fields beside x; `fit` takes each of
            them. Data that are too large for memory are a `Stream`. None if a split has no data.
        labels: the classes of each split, [N], by the split's name.
        weights: of the rows of each split, [N], if there are any: `fit` takes them, and `fit.elbo(…, weights=…)` can.
        source: what was loaded, with the scale and the binarisation that "auto" chose.
        transform: how raw numbers became x.
        binarise: "dynamic" if x ~ Bernoulli(x) is drawn in training: `fit(…, binarise=data.binarise)`.
        codes: the classes of fields, and the whole numbers used for them.
        index: the names of the rows of each split, [N], if the data have them.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    labels: Mapping[str, np.ndarray]
    source: Source
    transform: Transform = field(default_factory=Transform)
    binarise: str = "none"
    codes: Mapping[str, Classes] = field(default_factory=dict)
    index: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        fields = self._fields("train")
        sizes = ", ".join(f"{n} {len(next(iter(f.values())))}" for n in SPLITS if (f := self._fields(n)))
        extra = "" if set(fields) == {"x"} else f", fields {', '.join(fields)}"
        held = [a for a in fields.values() if isinstance(a, Stream)]
        streamed = "" if not held else ", sparse" if all(is_sparse(a.array) for a in held) else ", streamed"
        return f"Dataset({self.name!r}: {sizes} rows of shape {self.event_shape}{extra}{streamed})"

    def _repr_html_(self) -> str:
        """For notebooks: rows of each split, and shape and type of each field."""
        about = self.describe()
        splits = {n: len(next(iter(f.values()))) for n in SPLITS if (f := self._fields(n))}
        fields = [(n, tuple(a.shape[1:]), a.dtype) for n, a in self._fields("train").items()]
        facts = {
            **{f"{n} rows": f"{size:,}" for n, size in splits.items()},
            "range of x": about["range"],
            "scale": about["scale"],
            "binarise": about["binarise"],
            "streamed": True if about["streamed"] else None,
        }
        classes = [markup.details(f"classes of {n}", markup.line(", ".join(c))) for n, c in self.classes.items()]
        table = markup.rows_below(("field", "shape of a row", "type"), fields)
        return markup.box(f"Data set {self.name}", markup.facts(facts), table, *classes)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one row of x."""
        fields = self._fields("train")
        return tuple(fields["x" if "x" in fields else next(iter(fields))].shape[1:])

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Names of the classes, by field."""
        return {n: c.names for n, c in self.codes.items()}

    @property
    def codings(self) -> dict[str, Transform | Classes]:
        """All that was learned from these data: by field, how raw rows become numbers."""
        fields = self._fields("train")
        return {**({"x": self.transform} if "x" in fields else {}), **self.codes}

    def describe(self) -> dict[str, object]:
        """The contents, as plain values. The range is None if data are streamed, because they would have to be read."""
        fields = self._fields("train")
        x = fields.get("x")
        ends = [float(f.reduce(x, None)) for f in (np.fmin, np.fmax)] if isinstance(x, np.ndarray) else None
        return {
            "name": self.name,
            "rows": {n: len(next(iter(f.values()))) for n in SPLITS if (f := self._fields(n))},
            "shape": list(self.event_shape),
            "fields": {n: {"shape": list(a.shape[1:]), "dtype": str(a.dtype)} for n, a in fields.items()},
            "range": ends,
            "scale": self.transform.kind,
            "binarise": self.source.binarise,
            "streamed": self._streamed(),
            **({"weights": self.source.weights} if self.weights else {}),
            "labels": {n: self._counts(v) for n, v in self.labels.items()},
        }

    def _fields(self, split: str) -> dict[str, np.ndarray | Stream]:
        data = getattr(self, split)
        return {} if data is None else dict(data) if isinstance(data, Mapping) else {"x": data}

    def _streamed(self) -> bool:
        return any(isinstance(a, Stream) for a in self._fields("train").values())

    def _counts(self, labels: np.ndarray) -> dict[str, int]:
        names = self.classes.get("label", ())
        values, counts = np.unique(np.asarray(labels), return_counts=True)
        named = dict(enumerate(names)) | ({-1: "unlabelled"} if names else {})
        name = lambda v: named.get(v, str(v)) if labels.dtype.kind in "iu" else str(v)
        return {name(v): int(c) for v, c in zip(values, counts, strict=True)}
