"""Data sets of torch and Hugging Face, loaders, iterables of minibatches: the arrays they hold, or a refusal."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from test_comparing import cli
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

import ppdgm
from ppdgm.data import load_data
from ppdgm.errors import DataError
from ppdgm.models import MLP, PPCA, VAE, ConditionalVAE

BACKENDS = ("numpyro", "pyro")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)).astype(np.float32), RNG.integers(0, 3, 40)
ALL = {"validation": 0, "test": 0}
PROGRAM = PPCA(event_shape=(3,), latent=1)
datasets.disable_progress_bars()


class Rows(Dataset):
    """Pairs, as people write them."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.tensor(X[i]), int(Y[i])


class Named(Rows):
    def __getitem__(self, i):
        return {"x": X[i], "mask": X[i] > 0}


class InOrder(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Minibatches:
    """No class of torch: it has a length, and gives minibatches again and again."""

    def __init__(self, length=4):
        self.length = length

    def __len__(self):
        return self.length

    def __iter__(self):
        return ((X[i : i + 10], Y[i : i + 10]) for i in range(0, 40, 10))


def joined(rows):
    return {"x": torch.stack([x for x, _ in rows]), "label": torch.tensor([y for _, y in rows])}


PAIRS = {
    "TensorDataset": lambda: TensorDataset(torch.tensor(X), torch.tensor(Y)),
    "Dataset": Rows,
    "Subset": lambda: Subset(Rows(), range(40)),
    "IterableDataset": InOrder,
    "loader": lambda: DataLoader(Rows(), batch_size=7),
    "shuffled loader": lambda: DataLoader(Rows(), batch_size=7, shuffle=True, drop_last=True),
    "loader with its own collate_fn": lambda: DataLoader(Rows(), batch_size=16, collate_fn=joined),
    "loader without minibatches": lambda: DataLoader(Rows(), batch_size=None),
    "loader of an IterableDataset": lambda: DataLoader(InOrder(), batch_size=9),
    "minibatches": Minibatches,
}


@pytest.mark.parametrize("kind", PAIRS)
def test_rows_are_those_of_the_data_set(kind):
    data = load_data(PAIRS[kind](), fields=["x", "label"], **ALL)
    np.testing.assert_array_equal(data.train["x"], X)
    np.testing.assert_array_equal(data.train["label"], Y)
    np.testing.assert_array_equal(load_data(PAIRS[kind](), **ALL).labels["train"], Y)  # it is no field, but there
    fit = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0))
    np.testing.assert_array_equal(fit.encode(PAIRS[kind]()), fit.encode(X))


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_on_a_loader_is_training_on_its_arrays(backend, tmp_path):
    """With its size of minibatches; labels go to a program that reads them; a run goes on when it is given again."""
    how = {"steps": 4, "progress": False, "backend": backend, "compile": False}
    make = lambda: DataLoader(Rows(), batch_size=8, shuffle=True)
    found = ppdgm.fit(PROGRAM, make(), validation=Rows(), out=tmp_path / "run", **how)
    plain = ppdgm.fit(PROGRAM, X, validation=X, batch_size=8, **how)
    for name, value in plain.params.items():
        np.testing.assert_array_equal(found.params[name], value)
    np.testing.assert_array_equal(found.history["validation_elbo"], plain.history["validation_elbo"])
    again = ppdgm.resume(tmp_path / "run", make(), validation=Rows(), steps=6, progress=False)
    whole = ppdgm.fit(PROGRAM, X, validation=X, batch_size=8, **{**how, "steps": 6})
    for name, value in whole.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    nets = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))}
    program = ConditionalVAE(event_shape=(3,), latent=1, classes=3, likelihood=ppdgm.models.Gaussian(), **nets)
    one, other = (ppdgm.fit(program, d, batch_size=8, **how) for d in (Rows(), {"x": X, "label": Y}))
    for name, value in one.params.items():
        np.testing.assert_array_equal(other.params[name], value)
    np.testing.assert_array_equal(one.elbo(Rows()).values, one.elbo({"x": X, "label": Y}).values)


def test_fields_have_the_names_of_the_rows():
    data = load_data(Named(), **ALL)
    np.testing.assert_array_equal(data.train["mask"], X > 0)
    pictures = type(
        "Pictures", (Rows,), {"__getitem__": lambda self, i: (Image.fromarray(np.full((4, 5), i, "u1")), i)}
    )
    assert load_data(pictures(), scale="none", **ALL).train[7, 2, 3] == 7


REFUSED = {
    "random rows": (type("R", (Rows,), {"__getitem__": lambda s, i: torch.rand(3)}), "another row 0 each time"),
    "weights": (lambda: DataLoader(Rows(), sampler=WeightedRandomSampler([1.0] * 40, 40)), "WeightedRandomSampler"),
    "some rows": (
        lambda: DataLoader(Rows(), sampler=torch.utils.data.SubsetRandomSampler(range(9))),
        "SubsetRandomSampler, but fit draws minibatches itself.*Subset",
    ),
    "three parts": (lambda: TensorDataset(*[torch.tensor(X)] * 3), "3 parts, expected x, or .* dictionary"),
    "other shapes": (type("S", (Rows,), {"__getitem__": lambda s, i: X[i, : 1 + i % 2]}), "got row 1 with"),
    "no rows": (lambda: Subset(Rows(), []), "got no rows"),
    "no length": (type("N", (Dataset,), {"__getitem__": lambda s, i: X[i]}), "without __len__"),
    "another length": (lambda: Minibatches(5), "got 4 minibatches, but its length is 5"),
    "rows in the place of minibatches": (
        type("W", (Minibatches,), {"__iter__": lambda s: iter(X[:4])}),
        r"got items of shapes \{'x': \(3,\)\}, expected minibatches.*np.stack",
    ),
    "text": (type("T", (Rows,), {"__getitem__": lambda s, i: {"x": {}}}), "a dictionary within a field"),
    "a generator": (lambda: (x for x in X), "gives its rows only once"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_run_could_not_repeat_is_refused(case):
    make, told = REFUSED[case]
    for call in (load_data, lambda d: ppdgm.fit(PROGRAM, d, steps=1, progress=False)):
        with pytest.raises(DataError, match=told):
            call(make())


def test_memory_has_a_limit():
    for source in (Rows(), DataLoader(Rows(), batch_size=4), Minibatches(), InOrder()):
        with pytest.raises(DataError, match=r"more than 300 bytes.*open_memmap.*memory=bytes"):
            load_data(source, memory=300)


# --- Hugging Face ----------------------------------------------------------------------------------------------------

FEATURES = datasets.Features(
    {
        "a": datasets.Value("float32"),
        "b": datasets.Value("int16"),
        "kind": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["no", "yes"]),
    }
)
COLUMNS = {"a": X[:, 0], "b": Y, "kind": ["u", "v"] * 20, "label": [0, 1, -1, 1] * 10}
TABLE = datasets.Dataset.from_dict(COLUMNS, features=FEATURES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    datasets.DatasetDict({"train": TABLE.select(range(30)), "test": TABLE.select(range(30, 40))}).save_to_disk(
        folder / "table"
    )
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.fromarray(np.full((4, 5), 20 * i, np.uint8)) for i in range(8)]
    pictures = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 4}, features=features)
    pictures.save_to_disk(folder / "images")
    return folder


def test_columns_are_those_of_a_table():
    shuffled = TABLE.shuffle(seed=1)  # which only keeps an order of rows
    fields = {"x": ["b", "a"], "label": "label", "kind": "kind"}
    for data, order in (
        (TABLE, np.arange(40)),
        (shuffled, np.array([COLUMNS["a"].tolist().index(a) for a in shuffled["a"]])),
    ):
        found = load_data(data, fields=fields, **ALL)
        np.testing.assert_array_equal(found.train["x"], np.stack([Y, X[:, 0]], 1)[order])
        np.testing.assert_array_equal(found.train["label"], np.array(COLUMNS["label"])[order])
        assert found.classes == {"label": ("no", "yes"), "kind": ("u", "v")} and found.transform.columns == ("b", "a")
    with pytest.raises(DataError, match="column kind: got 'u', expected numbers"):
        load_data(TABLE)
    fit = ppdgm.fit(PPCA(event_shape=(2,), latent=1), TABLE.select_columns(["a", "b"]), steps=2, progress=False)
    assert fit.transform.columns == ("a", "b")
    turned = fit.encode(TABLE.select_columns(["b", "label", "a"]))
    np.testing.assert_array_equal(turned, fit.encode(np.stack([X[:, 0], Y], 1)))


def test_splits_and_what_has_none(saved):
    loaded = datasets.load_from_disk(str(saved / "table"))
    for source in (loaded, saved / "table"):
        data = load_data(source, fields={"x": ["a", "b"], "kind": "kind"}, validation=0)
        np.testing.assert_array_equal(data.train["x"][:, 0], X[:30, 0])
        np.testing.assert_array_equal(data.test["x"][:, 0], X[30:, 0])
        np.testing.assert_array_equal(data.labels["test"], COLUMNS["label"][30:])
    with pytest.raises(DataError, match=r"splits 'train', 'test'. Choose one, data\['train'\]"):
        ppdgm.fit(PROGRAM, loaded, steps=1, progress=False)
    with pytest.raises(DataError, match="splits 'all', expected train"):
        load_data(datasets.DatasetDict({"all": TABLE}))
    with pytest.raises(DataError, match="a data set that is streamed"):
        load_data(TABLE.to_iterable_dataset())


def test_pictures_and_arrays(saved):
    pictures = datasets.load_from_disk(str(saved / "images"))
    for source in (pictures, saved / "images"):
        data = load_data(source, fields={"x": "image", "label": "label"}, **ALL)
        np.testing.assert_allclose(data.train["x"][:, 1, 2], 20 * np.arange(8) / 255, rtol=1e-6)
        assert data.classes == {"label": ("cat", "dog")} and data.transform.divisor == 255
    features = datasets.Features({"x": datasets.Array2D((2, 2), "float32"), "t": datasets.Value("float32")})
    values = RNG.normal(size=(6, 2, 2)).astype(np.float32)
    arrays = datasets.Dataset.from_dict({"x": values.tolist(), "t": np.arange(6.0)}, features=features)
    data = load_data(arrays, **ALL)
    np.testing.assert_array_equal(data.train["x"], values)
    np.testing.assert_array_equal(data.train["t"], np.arange(6))
    np.testing.assert_array_equal(load_data(arrays["x"], **ALL).train, values)  # a column is an array
    ragged = datasets.Dataset.from_dict({"x": [[1.0], [1.0, 2.0]]})
    with pytest.raises(DataError, match="rows of different lengths"):
        load_data(ragged)
    mixed = [Image.new("L", (3, 3)), Image.new("L", (4, 3))]
    sizes = datasets.Dataset.from_dict({"image": mixed}, features=datasets.Features({"image": datasets.Image()}))
    with pytest.raises(DataError, match=r"row 1: got a picture of shape \(3, 4\), expected \(3, 3\)"):
        load_data(sizes)


def test_a_saved_data_set_from_the_command_line(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "train: 6" in cli("data", saved / "images", "--set", "validation=1", "--set", "test=1").output
    cli("fit", "ppca", "--data", saved / "table", "--fields", "x=a,b", "--set", "program.latent=1", "--steps", 2,
        "--out", "run", "--quiet")  # fmt: skip
    assert ppdgm.load("run").transform.columns == ("a", "b")
    cli("evaluate", "run", "--k", 2)
    (tmp_path / "broken").mkdir()
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / "broken" / name).write_text("{")
    with pytest.raises(DataError, match="not a complete data set of Hugging Face"):
        load_data(tmp_path / "broken")


def test_a_vae_reads_pictures_as_they_are(saved):
    """`fit` takes them without load_data: whole numbers 0..255, which this likelihood refuses by name."""
    pictures = datasets.load_from_disk(str(saved / "images"))
    nets = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))}
    with pytest.raises(DataError, match="expected"):
        ppdgm.fit(VAE(event_shape=(4, 5), latent=1, **nets), pictures, steps=1, progress=False)
