"""Splits, scales and binarisation: against NumPy, and against what they promise."""

import json
import tomllib

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.datasets import load_digits

from ppdgm.data import Source, Transform, as_fields, binarise, catalogue, load_data
from ppdgm.data.split import split_rows
from ppdgm.errors import DataError, PpdgmError

RNG = np.random.default_rng(0)
TABLE = RNG.normal(3.0, 2.0, (50, 4)).astype(np.float32)


def saved(folder, x, name="x.npy"):
    np.save(folder / name, x)
    return folder / name


# --- digits, as ever -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("black_and_white", [True, False])
def test_digits(black_and_white):
    pixels, classes = load_digits(return_X_y=True)
    x = (pixels / 16).reshape(-1, 8, 8).astype("float32")
    x = (x >= 0.5).astype("float32") if black_and_white else x
    order = np.random.default_rng(0).permutation(1797)
    data = load_data("digits") if black_and_white else load_data("digits", binarise="none")
    for name, rows in {"train": order[:1347], "validation": order[1347:1497], "test": order[1497:]}.items():
        got = getattr(data, name)
        assert got.dtype == np.float32 and np.array_equal(got, x[rows])
        assert np.array_equal(data.labels[name], classes[rows])
    assert repr(data) == "Dataset('digits': train 1347, validation 150, test 300 rows of shape (8, 8))"


def test_digits_otherwise():
    pixels = load_digits().data.reshape(-1, 8, 8)
    assert np.array_equal(np.unique(load_data("digits", scale="levels").train), np.arange(17))
    raw = load_data("digits", scale="none", validation=0, test=0)
    assert np.array_equal(raw.train, pixels) and raw.validation is None and raw.test is None
    data = load_data("digits", fields=["x", "label"])
    assert set(data.train) == {"x", "label"} and np.array_equal(data.train["label"], data.labels["train"])
    assert set(as_fields(data.train)) == {"x", "label"} and as_fields(data.train)["label"].dtype.kind == "i"
    assert repr(data).endswith("rows of shape (8, 8), fields x, label)")


def test_the_resolved_source_repeats_the_data():
    for options in (
        {},
        {"binarise": "none"},
        {"binarise": "dynamic", "seed": 4},
        {"scale": "standardise", "test": 0.2},
    ):
        data = load_data("digits", **options)
        assert "auto" not in (data.source.scale, data.source.binarise)
        again = load_data(Source.from_toml(data.source.to_toml()))
        for name in ("train", "validation", "test"):
            assert np.array_equal(getattr(again, name), getattr(data, name))


def test_what_there_is_as_plain_values():
    found = json.loads(json.dumps(load_data("digits").describe()))
    assert found["rows"] == {"train": 1347, "validation": 150, "test": 300}
    assert (found["shape"], found["range"], found["scale"], found["binarise"]) == ([8, 8], [0, 1], "unit", "threshold")
    assert found["fields"] == {"x": {"shape": [8, 8], "dtype": "float32"}} and not found["streamed"]
    whole = np.bincount(load_digits().target)
    counts = [sum(found["labels"][s][str(c)] for s in found["labels"]) for c in range(10)]
    assert np.array_equal(counts, whole)


def test_the_catalogue_says_what_there_is():
    for name, entry in catalogue().items():
        assert entry.name == name and entry.meaning and entry.origin and entry.citation
        toy = name.startswith("collapse")
        assert (entry.classes == ()) == toy and sum(entry.rows.values()) in ((6000,) if toy else (1797, 70_000))
    catalogue().clear()
    assert catalogue()


# --- splits --------------------------------------------------------------------------------------------------------

amounts = st.none() | st.integers(0, 60) | st.floats(0, 1, exclude_min=True, exclude_max=True)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=3, max_size=3),
    own=st.sets(st.sampled_from([1, 2])),
    seed=st.integers(0, 9),
    asked=st.tuples(amounts, amounts),
    default=st.tuples(amounts, amounts),
)
@settings(max_examples=200)
def test_splits_are_disjoint_and_cover(sizes, own, seed, asked, default):
    names = ("train", "validation", "test")
    sizes = {n: s for i, (n, s) in enumerate(zip(names, sizes, strict=True)) if i in {0, *own}}
    asked, default = (dict(zip(names[1:], a, strict=True)) for a in (asked, default))
    try:
        found = split_rows(sizes, asked, default, seed)
    except DataError:
        return
    rows = {}
    for name, taken in found.items():
        if taken is not None:
            part, chosen = taken
            assert part == (name if name in sizes else "train")
            rows[name] = part, np.arange(sizes[part]) if chosen is None else chosen
            assert len(rows[name][1]) > 0
    assert "train" in rows
    for part in sizes:
        drawn = np.concatenate([r for p, r in rows.values() if p == part] or [np.empty(0, int)])
        assert len(np.unique(drawn)) == len(drawn) and set(drawn) <= set(range(sizes[part]))
        if part == "train":
            assert len(drawn) == sizes[part]  # nothing is lost of what there is to train on
    for name in names[1:]:
        if isinstance(asked[name], int):
            assert len(rows[name][1] if name in rows else ()) == asked[name]
        if isinstance(asked[name], float):
            assert abs(len(rows[name][1]) - asked[name] * sizes[rows[name][0]]) <= 0.5


def test_the_seed_chooses_the_split_and_nothing_else_does(tmp_path):
    path = saved(tmp_path, np.arange(40.0))
    first, same, other = (load_data(path, seed=s).train for s in (1, 1, 2))
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    whole = load_data(path, validation=0, test=0).train
    assert np.array_equal(whole, np.arange(40))


# --- scales --------------------------------------------------------------------------------------------------------

SCALES = {
    "bytes": (np.array([[0, 51, 255], [9, 3, 1]], np.uint8), "auto", 1 / 255, "unit"),
    "bytes of two values": (np.array([[0, 1], [1, 1]], np.uint8), "auto", 1, "none"),
    "images of int64": (np.array([[[0, 2], [204, 3]]]), "auto", 1 / 255, "unit"),
    "images of 16 bits": (np.array([[[0, 2], [65535, 3]]], np.uint16), "auto", 1 / 65535, "unit"),
    "counts": (np.array([[0, 2, 900]]), "auto", 1, "none"),
    "sequences with large numbers": (np.array([[[0, 2, 900]]]), "auto", 1, "none"),
    "floats": (np.array([[0.0, 0.5]]), "auto", 1, "none"),
    "floats to unit": (np.array([[0.0, 4.0], [2.0, 1.0]]), "unit", 1 / 4, "unit"),
    "zeros to unit": (np.zeros((2, 2)), "unit", 1, "unit"),
    "counts to unit": (np.array([[0, 2, 900]]), "unit", 1 / 900, "unit"),
    "bytes as levels": (np.array([[0, 7, 255]], np.uint8), "levels", 1, "levels"),
    "floats as levels": (np.array([[0.0, 0.2, 1.0]]), "levels", 255, "levels"),
    "every level": (np.arange(256).reshape(2, 128) / 255, "levels", 255, "levels"),
    "whole floats as levels": (np.array([[0.0, 3.0, 254.0]]), "levels", 1, "levels"),
    "booleans": (np.array([[True, False]]), "auto", 1, "none"),
    "as they are": (np.array([[0, 51, 255]], np.uint8), "none", 1, "none"),
}


@pytest.mark.parametrize("case", SCALES)
def test_scales(tmp_path, case):
    raw, scale, factor, kind = SCALES[case]
    data = load_data(saved(tmp_path, raw), scale=scale, validation=0, test=0)
    np.testing.assert_allclose(data.train, raw * factor, rtol=1e-6)
    assert (data.transform.kind, data.source.scale, data.train.dtype.kind) == (kind, kind, "f")
    np.testing.assert_allclose(data.transform.invert(data.train), raw, rtol=1e-6)
    assert kind != "levels" or np.array_equal(data.train, np.rint(data.train))


def test_levels_are_rounded(tmp_path):
    data = load_data(saved(tmp_path, np.array([[0.301, 0.299, 1.0]])), scale="levels", validation=0, test=0)
    assert data.train.tolist() == [[77, 76, 255]]


def test_standardised_by_the_training_data_alone(tmp_path):
    data = load_data(saved(tmp_path, TABLE), scale="standardise")
    np.testing.assert_allclose(data.train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train.std(0), 1, rtol=1e-6)
    order = np.random.default_rng(0).permutation(50)
    mean, scale = TABLE[order[:40]].astype(float).mean(0), TABLE[order[:40]].astype(float).std(0)
    np.testing.assert_allclose(data.test, (TABLE[order[45:]] - mean) / scale, rtol=1e-5)
    changed = TABLE.copy()
    changed[order[40:]] = 1e6
    assert load_data(saved(tmp_path, changed), scale="standardise").transform == data.transform


def test_a_constant_dimension_is_not_divided_by_zero(tmp_path):
    x = np.column_stack([np.full(50, 0.1), np.arange(50.0), np.full(50, 1e300)])
    data = load_data(saved(tmp_path, x), scale="standardise", validation=0, test=0)
    assert np.array_equal(data.train[:, [0, 2]], np.zeros((50, 2)))
    np.testing.assert_allclose(data.transform.scale, [1, np.arange(50).std(), 1])


def test_chunks_do_not_change_what_is_fitted(tmp_path, monkeypatch):
    path = saved(tmp_path, TABLE)
    whole = load_data(path, scale="standardise").transform
    monkeypatch.setattr("ppdgm.data.stream.CHUNK_BYTES", 8 * 4 * 7)
    parts = load_data(path, scale="standardise").transform
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(parts.scale, whole.scale, rtol=1e-13)


def test_new_data_are_prepared_as_the_old(tmp_path):
    old = load_data(saved(tmp_path, TABLE), scale="standardise")
    parts = tomllib.loads(tomli_w.dumps(old.transform.to_table())), old.transform.arrays()
    kept = Transform.from_parts(*parts)
    assert kept == old.transform and kept != Transform() and kept != 3
    new = load_data(saved(tmp_path, TABLE[:5] + 1, "new.npy"), transform=kept, validation=0, test=0)
    np.testing.assert_allclose(new.train, (TABLE[:5] + 1 - kept.mean) / kept.scale, rtol=1e-6)
    assert new.transform == kept
    digits = load_data("digits", transform=Transform("unit", 32.0), binarise="none")
    assert digits.train.max() == 0.5
    with pytest.raises(DataError, match=r"got data of shape \(3,\), expected \(4,\)"):
        load_data(saved(tmp_path, TABLE[:, :3]), transform=kept)
    with pytest.raises(DataError, match="scale: got 'unit', but the given transform has the scale 'standardise'"):
        load_data(saved(tmp_path, TABLE), transform=kept, scale="unit")  # it was standardised without a word
    with pytest.raises(DataError, match="transform: got one beside like="):
        load_data(saved(tmp_path, TABLE), transform=kept, like=digits)


floats = st.floats(-1e6, 1e6, width=32)


@given(raw=arrays.arrays(np.float64, (5, 3), elements=floats), kind=st.sampled_from(["none", "unit", "standardise"]))
def test_transforms_invert(raw, kind):
    arrays_ = {"mean": raw[0], "scale": np.abs(raw[1]) + 1e-3} if kind == "standardise" else {}
    transform = Transform.from_parts({"kind": kind, "divisor": 37.0}, arrays_)
    np.testing.assert_allclose(transform.invert(transform.apply(raw)), raw, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", ["standardise", "unit"])
def test_log_det_brings_densities_to_the_raw_numbers(tmp_path, scale):
    raw = np.abs(TABLE)
    transform = load_data(saved(tmp_path, raw), scale=scale, validation=0, test=0).transform
    low, high = transform.scaled(np.zeros(4)), transform.scaled(np.full(4, 7.0))  # of uniform numbers from 0 to 7
    np.testing.assert_allclose(transform.log_det((4,)) - np.log(high - low).sum(), -4 * np.log(7.0), rtol=1e-6)


def test_log_det_of_what_has_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="got x binarised"):
        load_data("digits").transform.log_det((8, 8))
    with pytest.raises(DataError, match=r"log_det: got event_shape \(3,\), expected \(4,\)"):
        load_data(saved(tmp_path, TABLE), scale="standardise").transform.log_det((3,))


@given(raw=arrays.arrays(np.uint8, (5, 3)), as_unit=st.booleans())
def test_levels_and_pixels_invert_exactly(raw, as_unit):
    transform = Transform("unit" if as_unit else "levels", 255.0 if as_unit else 1.0)
    assert np.array_equal(np.rint(transform.invert(transform.apply(raw))), raw)
    assert transform.apply(raw).dtype == np.float32


BAD_PARTS = {
    "kind": ({"kind": "unti"}, {}, "Did you mean 'unit'?"),
    "divisor": ({"kind": "unit", "divisor": 0}, {}, "got divisor 0, expected a positive number"),
    "no arrays": ({"kind": "standardise"}, {}, "got arrays [], expected a finite mean and a positive scale"),
    "no scale": ({"kind": "standardise"}, {"mean": np.zeros(2), "scale": np.array([1, 0])}, "a positive scale"),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_parts_that_are_no_transform(case):
    table, arrays_, message = BAD_PARTS[case]
    with pytest.raises(DataError) as error:
        Transform.from_parts(table, arrays_)
    assert message in str(error.value)


# --- binarisation --------------------------------------------------------------------------------------------------

GREY = RNG.random((60, 5)).astype(np.float32)


def test_static_is_drawn_once_with_the_seed(tmp_path):
    path = saved(tmp_path, GREY)
    first, same, other = (load_data(path, binarise="static", seed=s) for s in (3, 3, 4))
    order = np.random.default_rng(3).permutation(60)
    drawn = (np.random.default_rng((3, 0)).random(GREY.shape) < GREY).astype(np.float32)
    assert np.array_equal(first.train, drawn[order[:48]]) and np.array_equal(first.test, drawn[order[54:]])
    assert np.array_equal(first.train, same.train) and not np.array_equal(first.train, other.train)
    assert first.binarise == "none"


def test_dynamic_leaves_the_training_data_to_be_drawn(tmp_path):
    path = saved(tmp_path, GREY)
    data, static = load_data(path, binarise="dynamic"), load_data(path, binarise="static")
    assert data.binarise == "dynamic" and data.source.binarise == "dynamic"
    assert np.array_equal(data.train, GREY[np.random.default_rng(0).permutation(60)[:48]])
    for name in ("validation", "test"):
        assert np.array_equal(getattr(data, name), getattr(static, name))
        assert set(np.unique(getattr(data, name))) == {0, 1}


def test_threshold_is_at_half(tmp_path):
    data = load_data(saved(tmp_path, np.array([[0.0, 0.49, 0.5, 1.0]])), binarise="threshold", validation=0, test=0)
    assert data.train.tolist() == [[0, 0, 1, 1]]


def test_splits_that_a_set_comes_with_draw_by_themselves(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=GREY, x_test=GREY)
    data = load_data(tmp_path / "x.npz", binarise="static", validation=0)
    assert not np.array_equal(data.train, data.test)
    assert np.array_equal(data.test, np.random.default_rng((0, 2)).random(GREY.shape) < GREY)


@given(x=arrays.arrays(np.float32, (7, 2), elements=st.floats(0, 1, width=32)), seed=st.integers(0, 99))
def test_binarise(x, seed):
    assert np.array_equal(binarise(x, seed), np.random.default_rng(seed).random((7, 2)) < x)
    assert np.array_equal(binarise(np.round(x)), np.round(x))


@pytest.mark.parametrize("x", [[2.0], [np.nan], [-0.1], [], "a", 0.5])
def test_what_is_no_probability_is_not_binarised(x):
    with pytest.raises(PpdgmError):
        binarise(x)
