"""The sets that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class KnownDataset:
    """A set that has a name.

    Attributes:
        name: of the set.
        meaning: what it is, in one line.
        rows: the number of rows in each of its original splits.
        shape: of a row.
        classes: names of its classes.
        origin: where it comes from.
        citation: whom to cite.
        mirror: the address of the folder from which its files are downloaded.
        sha256: of its files, unpacked.
        validation, test, scale, binarise: how it is prepared unless a `Source` sets something else.
    """

    name: str
    meaning: str
    rows: Mapping[str, int]
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    origin: str
    citation: str
    mirror: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)
    validation: int | None = None
    test: int | None = None
    scale: str = "unit"
    binarise: str = "static"


_DIGITS = KnownDataset(
    name="digits",
    meaning="handwritten digits, 8×8 pixels with 17 grey levels; black and white by default",
    rows={"train": 1797},
    shape=(8, 8),
    classes=tuple("0123456789"),
    origin="comes with scikit-learn",
    citation="Alpaydin & Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49",
    validation=150,
    test=300,
    binarise="threshold",
)

_MNIST = KnownDataset(
    name="mnist",
    meaning="handwritten digits, 28×28 pixels with 256 grey levels; by default drawn once as black and white",
    rows={"train": 60_000, "test": 10_000},
    shape=(28, 28),
    classes=tuple("0123456789"),
    origin="read from $PPDGM_DATA, or downloaded (11 MB)",
    citation="LeCun, Bottou, Bengio & Haffner 1998, doi:10.1109/5.726791",
    mirror="https://ossci-datasets.s3.amazonaws.com/mnist/",
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    validation=10_000,
)

_FASHION = KnownDataset(
    name="fashion-mnist",
    meaning="articles of clothing, 28×28 pixels with 256 grey levels; by default drawn once as black and white",
    rows={"train": 60_000, "test": 10_000},
    shape=(28, 28),
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    origin="read from $PPDGM_DATA, or downloaded (31 MB)",
    citation="Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747",
    mirror="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    validation=10_000,
)

_COLLAPSE = KnownDataset(
    name="collapse-full",
    meaning="toy data for collapse: Gaussian, 10 dimensions, full covariance; 3 latents explain them",
    rows={"train": 5000, "test": 1000},
    shape=(10,),
    classes=(),
    origin="drawn from a fixed seed",
    citation="after Lucas, Tucker, Grosse & Norouzi 2019, arXiv:1911.02469",
    validation=500,
    scale="none",
    binarise="none",
)

_COLLAPSE_DIAGONAL = replace(
    _COLLAPSE,
    name="collapse-diagonal",
    meaning="toy data for collapse: the same variances without covariance; latents can't explain them",
)

SETS = {entry.name: entry for entry in (_DIGITS, _MNIST, _FASHION, _COLLAPSE, _COLLAPSE_DIAGONAL)}


def catalogue() -> dict[str, KnownDataset]:
    """The sets that `load_data` knows by name; nothing is loaded."""
    return dict(SETS)
