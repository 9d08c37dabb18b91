"""Where data come from, and how they are prepared: a recipe's [data] table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from ppdgm.specs import NonNegativeInt, PositiveInt, Spec

Column = str | int
Columns = Column | tuple[Column, ...]


def _pairs(value: Any) -> tuple[tuple[str, Columns], ...] | None:
    """Fields as pairs, which can be hashed and written to TOML; a bare name is used for both."""
    if value is None:
        return None
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if isinstance(pairs, list | tuple):
        pairs = tuple((p, p) if isinstance(p, str) else _pair(p) for p in pairs)
        if pairs and None not in pairs and len({p[0] for p in pairs}) == len(pairs):
            return pairs
    raise ValueError('fields with their arrays or columns, such as {"x": ["a", "b"], "label": "species"}')


def _pair(pair: object) -> tuple[str, Columns] | None:
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
        return None
    name, columns = pair[0], tuple(pair[1]) if isinstance(pair[1], list) else pair[1]
    several = columns if isinstance(columns, tuple) else (columns,)
    right = several and all(isinstance(c, str | int) and not isinstance(c, bool) for c in several)
    return (name, columns) if right else None


def _amount(value: Any) -> float | int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if value is None or whole or (isinstance(value, float) and 0 < value < 1):
        return value
    one = isinstance(value, int | float) and value == 1
    every = "; to have all rows in one split, give validation=0, test=0 and use data.train" if one else ""
    raise ValueError(f"a fraction between 0 and 1, a number of rows or None{every}")


def _size(value: Any) -> tuple[int, int] | None:
    """Height and width; one number is both."""
    whole = lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0
    if value is None:
        return None
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if len(numbers) in (1, 2) and all(map(whole, numbers)):
        return (numbers[0], numbers[-1])
    raise ValueError("a whole number of pixels, or (height, width)")


class Source(Spec):
    """Where data come from, and how they are prepared.

    Args:
        name: of a set (`catalogue()` has them all), or a path: .npy, .npz, idx (also gzipped), .csv, .tsv, .parquet
            or .h5ad, a folder of images, of .npy files, of idx files named as MNIST's, or a saved data set of Hugging
            Face.
        given_in_python: whether the rows were given to `load_data` as an object; then `name` only says what it was.
        fields: which arrays or columns are which fields: {"x": ["a", "b"], "label": "species"}. Write columns by name,
            by number from 0, as a pattern ("gene_*"), a range with both ends ("a:d"), or all but ("!id"). A single
            column gives [N], the others give [N, columns]. Patterns, ranges and all but leave out the index, the label
            and columns that other fields name. By default only x, and for named arrays all but the label.
        header: whether a table's first line has column names. By default it has, if none of its cells is a number;
            if its numbers look like names, you are asked.
        index: whether a table's first column has names or numbers of rows, and is left out of x; or the name of the
            column that has them. By default the first one is kept; if it has a blank name or counts the rows, you are
            asked. The names are in `Dataset.index`.
        decimal: the sign in a table's numbers: "." or ",". By default it is found, if it is clear: a comma in a table
            with semicolons or tabs. If it may also be a sign for thousands, you are asked.
        missing: of x, and of other fields of numbers: "refuse" if a number is missing (an empty cell, NA, NaN), or read
            it as "nan", for a program that takes missing numbers.
        layer: of annotated data (.h5ad): the layer that is x, instead of X.
        validation, test: a fraction, or a number of rows. By default the set's own, otherwise a tenth. If a set comes
            with such a split, it is taken from there; otherwise from the training data.
        seed: of the split and of binarisation.
        scale: of x: "unit" to [0, 1]; "levels" to whole numbers 0..255; "standardise" to mean 0 and variance 1 per
            dimension of the training data; "table" for the likelihood `Table`: names and dates as numbers, and missing
            entries as NaN; "auto" to [0, 1] for images of whole numbers, otherwise "none".
        binarise: x in [0, 1]. "threshold" at half; "static" draws x ~ Bernoulli(x) once; "dynamic" draws the training
            data again for each minibatch, and the others once; "auto" is the set's own.
        weights: the column or array with the weight of each row in training, not negative. It is no field, and not part
            of x. By default each row counts once.
        memory: arrays that would need more bytes are streamed from .npy and unpacked idx files, instead of loaded; a
            folder of images is first written to the cache as .npy.
        size: of each image, as (height, width), or one number for both. By default, all must have the same size.
        crop: with `size`: "centre" keeps the image's proportions, and cuts off what is over at two sides; "none" keeps
            the whole image, and changes its proportions.
        colour: of images: "grey", [N, H, W]; "rgb", [N, 3, H, W]; "auto" as they are, if all are alike.
        background: of images: what is behind transparent pixels, "white", "black" or "grey". By default they are
            refused.
        channels: of x in arrays: "last" if images are [N, H, W, C]. They are moved to [N, C, H, W], as nets for images
            read them; results in your own units have them last again.
        frame: of images with several frames or pages, the one to take, from 0. By default such images are refused.
    """

    name: Annotated[str, Field(min_length=1)]
    given_in_python: bool = False
    fields: Annotated[tuple[tuple[str, Columns], ...] | None, PlainValidator(_pairs)] = None
    header: bool | None = None
    index: bool | str | None = None
    decimal: Literal[".", ","] | None = None
    missing: Literal["refuse", "nan"] = "refuse"
    layer: str | None = None
    validation: Annotated[float | int | None, PlainValidator(_amount)] = None
    test: Annotated[float | int | None, PlainValidator(_amount)] = None
    seed: NonNegativeInt = 0
    scale: Literal["auto", "none", "unit", "levels", "standardise", "table"] = "auto"
    binarise: Literal["auto", "none", "threshold", "static", "dynamic"] = "auto"
    weights: Column | None = None
    memory: PositiveInt = 2**30
    size: Annotated[tuple[int, int] | None, PlainValidator(_size)] = None
    crop: Literal["centre", "none"] = "centre"
    colour: Literal["auto", "grey", "rgb"] = "auto"
    background: Literal["white", "black", "grey"] | None = None
    frame: NonNegativeInt | None = None
    channels: Literal["first", "last"] = "first"

    def options(self) -> dict[str, Any]:
        """What `load_data` needs beside the data, to prepare the same data in the same way."""
        return {n: getattr(self, n) for n in type(self).model_fields if n not in ("name", "given_in_python")}
