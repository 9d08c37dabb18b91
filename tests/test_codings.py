"""What preparation learns goes with a run: names of classes, columns, scales, on both backends and the command line."""

import inspect
import json

import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

import ppdgm
from ppdgm.cli.app import app
from ppdgm.data import load_data
from ppdgm.errors import DataError
from ppdgm.inference.runs.checkpoint import read_checkpoint
from ppdgm.models import SemiSupervisedVAE
from ppdgm.program import Program, zeros

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
LOC = {"a": -1.0, "b": 4.0, "c": 9.0}


class ClassMeans(Program):
    """x ~ N(μ_label, 1): log p(x | label) in closed form."""

    classes: int = 3

    def build(self, context):
        context.param("loc", (self.classes,), zeros)

    def model(self, P, x, label):
        hot = P.xp.where(label[..., None] == P.constant(range(self.classes)), P.full((), 1.0), P.full((), 0.0))
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(hot @ P.param("loc"), 1.0), obs=x)

    def guide(self, P, x, label):
        pass


MINE = "from ppdgm import Program\nfrom ppdgm.program import zeros\n\n" + inspect.getsource(ClassMeans)


def cli(*arguments, code=0):
    found = CliRunner().invoke(app, [str(a) for a in arguments])
    assert found.exit_code == code and "Traceback" not in found.output, found.output
    return found


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    """A table with every class, and one with b alone."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    kinds = [k for k in "abc" for _ in range(20)]
    rows = [(rng.normal(LOC[k]), k) for k in kinds]
    (tmp_path / "all.csv").write_text("size,kind\n" + "".join(f"{x},{k}\n" for x, k in rows))
    (tmp_path / "b.csv").write_text("kind,size\n" + "".join(f"{k},{x}\n" for x, k in rows if k == "b"))
    (tmp_path / "d.csv").write_text("size,kind\n1.5,b\n2.5,bb\n")
    (tmp_path / "mine.py").write_text(MINE)
    return np.array([x for x, k in rows if k == "b"])


FIELDS = {"x": "size", "label": "kind"}


@both
def test_classes_are_those_of_the_run(flowers, backend, tmp_path):
    data = load_data("all.csv", fields=FIELDS)
    trained = ppdgm.fit(ClassMeans(), data.train, backend=backend, steps=300, learning_rate=0.1, progress=False)
    trained.save("run")
    fit = ppdgm.load("run", classes=[ClassMeans])
    assert fit.classes == {"label": ("a", "b", "c")} == trained.classes
    exact = norm(fit.params["loc"][1], 1).logpdf(flowers)
    assert abs(fit.params["loc"] - list(LOC.values())).max() < 1
    alone = load_data("b.csv", fields=FIELDS)  # coded by itself, "b" is 0
    whole = load_data("b.csv", like=fit, fields=FIELDS, validation=0, test=0)
    order = np.concatenate([np.asarray(getattr(alone, s)["x"]) for s in ("train", "validation", "test")])
    right = {
        "by its names": (fit.elbo({"x": flowers, "label": ["b"] * 20}), exact),
        "by one array of names": (fit.elbo({"x": flowers, "label": np.array(["b"] * 20)}), exact),
        "by the run's codes": (fit.elbo({"x": flowers, "label": np.ones(20, int)}), exact),
        "a file prepared as the run's": (fit.elbo(whole.train), exact),
        "a file coded by itself": (fit.elbo(alone.train), norm(fit.params["loc"][1], 1).logpdf(order[:16])),
    }
    for name, (found, expected) in right.items():
        assert found.values == pytest.approx(expected, rel=1e-5), name
    with pytest.raises(DataError, match=r"got the class 'bb' at index \(1,\), .* a, b, c\. Did you mean 'b'\?"):
        load_data("d.csv", like=fit, fields=FIELDS)
    with pytest.raises(DataError, match="got the class 'd'"):
        fit.elbo({"x": flowers[:2], "label": ["b", "d"]})
    with pytest.raises(DataError, match="got the class 'd'"):
        fit.sample(3, given={"label": "d"})
    for given in ("b", ["b"] * 400):
        drawn = fit.sample(400, given={"label": given})
        assert abs(drawn.mean() - fit.params["loc"][1]) < 4 / 20  # four standard errors


def test_classes_are_those_of_the_run_on_the_command_line(flowers, tmp_path):
    fields = "data.fields={x = 'size', label = 'kind'}"
    cli(
        "fit",
        "mine.py",
        "--data",
        "all.csv",
        "--set",
        fields,
        "--steps",
        300,
        "--learning-rate",
        0.1,
        "--out",
        "a",
        "-q",
    )
    own = ("--program", "mine.py", "--json")
    found = json.loads(cli("evaluate", "a", "--data", "b.csv", "--k", 1, *own).stdout)
    loc = read_checkpoint(tmp_path / "a" / "weights.safetensors")[0]["loc"]
    assert found["elbo"]["mean"] == pytest.approx(norm(loc[1], 1).logpdf(flowers).mean(), rel=1e-5)
    assert "got the class 'bb'" in cli("evaluate", "a", "--data", "d.csv", *own, code=3).stderr
    cli("sample", "a", "--given", "label=c", "--n", 400, "--out", "c.npy", *own)
    assert abs(np.load("c.npy").mean() - loc[2]) < 4 / 20
    cli("sample", "a", "--given", "label=c,a", "--out", "ca.npy", *own)
    assert np.abs(np.load("ca.npy") - loc[[2, 0]]).max() < 5
    assert "got the class 'z'" in cli("sample", "a", "--given", "label=z", "--out", "z.npy", *own, code=3).stderr


MISSING = ["", "NA", "-1", "nan", "?", "N/A"]


@pytest.mark.parametrize("form", ["csv", "aside", "npz"])
def test_labels_that_are_missing_are_no_class(tmp_path, form):
    words, x = ["oak", *MISSING, "fir"], np.arange(8.0) ** 2
    options = {"fields": ["x", "label"]} if form != "aside" else {}
    if form == "npz":
        np.savez(tmp_path / "t.npz", x=x, label=np.array(words))
    else:
        (tmp_path / "t.csv").write_text("x,label\n" + "".join(f"{a},{w}\n" for a, w in zip(x, words, strict=True)))
    data = load_data(tmp_path / f"t.{form if form == 'npz' else 'csv'}", validation=0, test=0, **options)
    assert data.classes == {"label": ("fir", "oak")}
    assert data.labels["train"].tolist() == [1, *[-1] * 6, 0]
    assert data.describe()["labels"]["train"] == {"unlabelled": 6, "fir": 1, "oak": 1}
    if form != "aside":
        SemiSupervisedVAE(event_shape=(1,), classes=2).check({"x": np.zeros((8, 1)), "label": data.train["label"]})
    (tmp_path / "n.csv").write_text("x,label\n0.5,2\n1.5,\n2.5,0\n")  # whole numbers, of which one is missing
    assert load_data(tmp_path / "n.csv", validation=0, test=0).labels["train"].tolist() == [2, -1, 0]


def test_images_and_arrays_are_coded_as_before(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 5)).astype("u1")
    for i, place in enumerate(["one/ant", "one/cat", "two/cat", "three/dog"]):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(pixels[i]).save(tmp_path / place / "1.png")
    one = load_data(tmp_path / "one", fields=["x", "label"], validation=0, test=0)
    two = load_data(tmp_path / "two", like=one, validation=0, test=0)
    assert two.labels["train"].tolist() == two.train["label"].tolist() == [1]
    with pytest.raises(DataError, match=r"got the class 'dog' at index \(0,\)"):
        load_data(tmp_path / "three", like=one, validation=0, test=0)
    np.savez(tmp_path / "two.npz", x=pixels[:2], label=np.array(["cat", "ant"]))
    assert load_data(tmp_path / "two.npz", like=one, validation=0, test=0).train["label"].tolist() == [1, 0]
    for options in ({}, {"fields": ["x"]}):  # a field, and labels beside
        with pytest.raises(
            DataError, match=r"'label': got numbers, such as 1, expected names of classes, .*: ant, cat"
        ):
            np.savez(tmp_path / "n.npz", x=pixels[:2], label=np.array([1, 0]))
            load_data(tmp_path / "n.npz", like=one, validation=0, test=0, **options)
    np.savez(tmp_path / "n.npz", x=pixels[:2], label=np.array([-1, -1]))  # none is known
    assert load_data(tmp_path / "n.npz", like=one, validation=0, test=0).train["label"].tolist() == [-1, -1]
    with pytest.raises(DataError, match="expected numbers, as in the data prepared before"):
        np.savez(tmp_path / "n.npz", x=pixels, label=np.arange(4))
        numbers = load_data(tmp_path / "n.npz", fields=["x", "label"], validation=0, test=0)
        load_data(tmp_path / "two.npz", like=numbers)


def test_columns_go_by_the_names_they_had(tmp_path):
    (tmp_path / "a.csv").write_text("u,v,label\n1,20,p\n3,50,q\n5,90,p\n")
    (tmp_path / "b.csv").write_text("label,v,w,u\nq,20,7,1\n")
    (tmp_path / "c.csv").write_text("u,label\n1,q\n")
    (tmp_path / "d.csv").write_text("1,20\n")
    data = load_data(tmp_path / "a.csv", scale="standardise", validation=0, test=0)
    with pytest.warns(UserWarning, match="left out the columns 'w'"):
        found = load_data(tmp_path / "b.csv", like=data, validation=0, test=0)
    assert found.train.tolist() == data.train[:1].tolist() and found.labels["train"].tolist() == [1]
    with pytest.raises(DataError, match="no column 'v'"):
        load_data(tmp_path / "c.csv", like=data, validation=0, test=0)
    by_place = load_data(tmp_path / "d.csv", like=data, validation=0, test=0)  # without names, by their places
    assert by_place.train.tolist() == found.train.tolist()
    with pytest.raises(DataError, match="scale: got 'unit', but data with like"):
        load_data(tmp_path / "d.csv", like=data, scale="unit")
    with pytest.raises(DataError, match="like: got int, expected a Dataset or a Fit"):
        load_data(tmp_path / "d.csv", like=3)


def test_columns_by_number_go_by_the_names_they_had(tmp_path):
    """The same rows with the columns in another order: the numbers in the run's recipe are the first file's."""
    (tmp_path / "a.csv").write_text("u,v,kind\n1,20,p\n3,50,q\n5,90,p\n")
    (tmp_path / "b.csv").write_text("kind,v,u\np,20,1\nq,50,3\np,90,5\n")
    (tmp_path / "c.csv").write_text("s,t,kind\n1,20,p\n")
    fields, whole = {"x": [0, 1], "label": 2}, {"validation": 0, "test": 0}
    data = load_data(tmp_path / "a.csv", scale="standardise", fields=fields, **whole)
    with pytest.warns(UserWarning) as told:
        found = load_data(tmp_path / "b.csv", like=data, **whole)
    assert found.train["x"].tolist() == data.train["x"].tolist()
    assert found.train["label"].tolist() == data.train["label"].tolist() == [0, 1, 0]
    assert any("0 is 'kind', and was 'u'" in str(w.message) for w in told)
    with pytest.raises(DataError, match=r"0 is 's', and was 'u', 1 is 't', and was 'v'\. Give columns by name"):
        load_data(tmp_path / "c.csv", like=data, **whole)
    (tmp_path / "d.csv").write_text("1,20,p\n")  # without names, by their places
    assert load_data(tmp_path / "d.csv", like=data, **whole).train["x"].tolist() == data.train["x"][:1].tolist()


def test_rows_of_different_scales_or_classes_are_not_trained_on(tmp_path):
    for name, words in (("a", "pq"), ("b", "qp")):
        rows = "".join(f"{i + 100},{words[i % 2]}\n" for i in range(6))
        (tmp_path / f"{name}.csv").write_text(f"size,kind\n{rows}".replace("p\n", "r\n" if name == "b" else "p\n"))
    a, b = (load_data(tmp_path / f"{n}.csv", fields=FIELDS, scale="standardise").train for n in "ab")
    for name, joined in (
        ("x", {"x": np.concatenate([a["x"], np.full(4, 103.0)]), "label": np.tile(a["label"], 2)}),
        ("label", {"x": np.concatenate([a["x"]] * 2), "label": np.concatenate([a["label"], b["label"]])}),
    ):
        with pytest.raises(DataError, match=f"Data '{name}': got joined rows that were prepared in different ways"):
            ppdgm.fit(ClassMeans(), joined, steps=1, progress=False)
    bare = {n: np.asarray(np.concatenate([v, v])) for n, v in a.items()}
    assert ppdgm.fit(ClassMeans(), bare, steps=1, progress=False).codings == {}
