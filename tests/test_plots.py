"""Pictures: what is drawn is what was measured."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from ppdgm import plots
from ppdgm.errors import DataError

RNG = np.random.default_rng(0)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a picture; its figure, whose PNG was written too, comes back."""
    figures, write = [], plots._write
    monkeypatch.setattr(plots, "_write", lambda figure, path: figures.append(figure) or write(figure, path))

    def draw(function, *args, **named):
        path = function(tmp_path / "picture.png", *args, **named)
        assert imread(path).shape[2] == 4
        return figures[-1]

    return draw


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8), True),
        ((28, 28), True),
        ((1, 28, 28), True),
        ((3, 16, 24), True),
        ((), False),
        ((6,), False),
        ((2, 3), False),
        ((64, 2), False),
        ((2, 28, 28), False),
        ((1, 3, 28, 28), False),
    ],
)
def test_what_is_an_image(shape, expected):
    assert plots.is_image(shape) is expected


def test_a_grid_has_each_image_in_its_place():
    images = RNG.random((5, 3, 4)).astype("float32")
    tiles = plots.grid(images, 2)
    assert tiles.shape == (3 * 4, 2 * 5)
    for i, image in enumerate(images):
        row, column = divmod(i, 2)
        np.testing.assert_array_equal(tiles[4 * row : 4 * row + 3, 5 * column : 5 * column + 4], image)
    assert not tiles[8:, 5:].any() and not tiles[3::4].any()  # no sixth image; gaps
    np.testing.assert_array_equal(plots.grid(images[:, None], 2), tiles)
    colours = RNG.random((5, 3, 6, 4)).astype("float32")
    tiles = plots.grid(colours, 2)
    assert tiles.shape == (3 * 7, 2 * 5, 3)
    np.testing.assert_array_equal(tiles[7:13, 5:9], colours[3].transpose(1, 2, 0))
    assert (tiles[6::7] == 1).all()
    with pytest.raises(DataError, match=r"shape \(5, 6\), expected images"):
        plots.grid(np.zeros((5, 6)), 2)


@pytest.mark.parametrize(("count", "shape"), [(1, (8, 8)), (50, (1, 8, 8)), (7, (3, 6, 20)), (200, (5, 9))])
def test_any_number_of_images(count, shape, drawn):
    samples = RNG.normal(size=(count, *shape))
    samples[0].flat[0] = np.nan
    (axes,) = drawn(plots.samples_picture, samples).axes
    shown = np.asarray(axes.images[0].get_array())
    height, width = shape[-2:]
    columns = (shown.shape[1] + 1) // (width + 1)
    assert shown.min() >= 0 and shown.max() <= 1
    last = divmod(count - 1, columns)
    place = [slice(i * (n + 1), i * (n + 1) + n) for i, n in zip(last, (height, width), strict=True)]
    image = samples[-1] if samples.ndim == 3 else np.moveaxis(samples[-1], 0, -1).squeeze()
    if count > 1:
        np.testing.assert_allclose(shown[tuple(place)], np.clip(image, 0, 1), rtol=1e-6)
    assert axes.get_title() == f"{count} sample{'s' if count > 1 else ''} of the model"


def test_tables_are_drawn_column_by_column(drawn):
    samples, data = RNG.normal(size=(500, 20)), RNG.normal(size=(2000, 20)) * 1.5
    samples[:, 1], data[:, 1] = RNG.integers(0, 3, 500), RNG.integers(0, 3, 2000)
    figure = drawn(plots.samples_picture, samples, data)
    assert len(figure.axes) == 16
    assert figure.get_suptitle() == "500 samples of the model, and 2,000 rows of data, columns 0 to 15 of 20"
    bars = [bar.get_height() for bar in figure.axes[1].patches[:3]]
    np.testing.assert_allclose(bars, np.bincount(samples[:, 1].astype(int)) / 500)
    x, y = figure.axes[0].patches[0].get_xy().T  # the outline of all bars
    assert abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2) == pytest.approx(1.0)
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["samples", "data"]


def test_columns_have_the_names_they_came_with(drawn):
    samples, names = RNG.normal(size=(50, 3)), ("height", "price in $ of $", "a name that is longer than a title")
    figure = drawn(plots.samples_picture, samples, names=names)
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["height", r"price in \$ of \$", "a name that is longer t…"]
    figure = drawn(plots.samples_picture, samples, names=names[:2])  # of other data
    assert [a.get_title("left") for a in figure.axes if a.get_visible()] == ["column 0", "column 1", "column 2"]


@pytest.mark.parametrize(
    "samples", [RNG.normal(size=30), np.zeros((9, 2)), np.full((5, 1), np.nan), RNG.normal(size=(4, 2, 3, 2))]
)
def test_other_data_are_drawn_too(samples, drawn):
    drawn(plots.samples_picture, samples)


def test_no_samples_are_refused(tmp_path):
    with pytest.raises(DataError, match="samples: got float64 of shape"):
        plots.samples_picture(tmp_path / "x.png", np.zeros((0, 8, 8)))


def history(steps):
    step = np.arange(1, steps + 1)
    return {
        "objective": -step[::-1] / steps,
        "elbo": -20.0 - 60.0 * np.exp(-step / 10.0) + RNG.normal(size=steps),
        "kl": 5.0 + RNG.normal(size=steps),
        "step": step,
    }


def test_the_bound_is_drawn_as_means_over_windows(drawn):
    found = history(1234)  # windows of 7 steps, the last one of 2
    found["validation_step"], found["validation_elbo"] = np.arange(100, 1201, 100), -22.0 + 0.1 * np.arange(12)
    found["skipped_step"] = np.array([40, 41])
    figure = drawn(plots.history_picture, found)
    elbo, kl = figure.axes
    for axes, name in ((elbo, "elbo"), (kl, "kl")):
        x, y = axes.lines[0].get_data()
        starts = range(0, 1234, 7)
        np.testing.assert_allclose(y, [found[name][i : i + 7].mean() for i in starts])
        np.testing.assert_allclose(x, [found["step"][i : i + 7].mean() for i in starts])
        assert axes.get_ylabel() == "nats per row"
        assert [line.get_xdata()[0] for line in axes.lines[-2:]] == [41, 42]
    np.testing.assert_array_equal(elbo.lines[1].get_data(), [found["validation_step"], found["validation_elbo"]])
    low, high = elbo.get_ylim()
    shown = [found["elbo"][i : i + 7] for i in range(70, 1234, 7)]
    assert -60 < low < min(np.quantile(part, 0.1) for part in shown)  # the first steps are left out
    assert high > max(np.quantile(part, 0.9) for part in shown)
    caption = figure.get_supxlabel()
    for words in ("the mean of 7 steps", "80 %", "2 steps that were skipped", "ELBO starts outside the picture, at −6"):
        assert words in caption


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_short_runs_are_drawn(steps, drawn):
    figure = drawn(plots.history_picture, history(steps))
    assert "Each point is one step." in figure.get_supxlabel()
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), np.arange(1, steps + 1))


def test_runs_with_other_or_no_metrics(drawn, tmp_path):
    figure = drawn(plots.history_picture, {"objective": np.full(300, np.nan), "step": np.arange(300)})
    assert len(figure.axes) == 1
    broken = history(500) | {"validation_step": np.array([500]), "validation_elbo": np.array([np.nan])}
    broken["elbo"][100:200] = np.nan
    broken["kl"][7] = np.inf
    x, y = drawn(plots.history_picture, broken).axes[0].lines[0].get_data()
    assert np.isfinite(y).all() and not ((x > 103) & (x < 198)).any()
    for empty in ({}, {"elbo": np.zeros(0), "step": np.zeros(0)}):
        with pytest.raises(DataError, match="expected metrics over steps"):
            plots.history_picture(tmp_path / "x.png", empty)


def test_samples_beside_reconstructions(drawn):
    images = RNG.random((64, 8, 8))
    figure = drawn(plots.picture, images, images[:32], images[32:])
    shown = np.asarray(figure.axes[1].images[0].get_array())
    np.testing.assert_allclose(shown[:8, :8], images[0], rtol=1e-6)
    np.testing.assert_allclose(shown[9:17, :8], images[32], rtol=1e-6)


def test_drawing_leaves_matplotlib_as_it_is(tmp_path):
    code = (
        "import sys, numpy as np; from ppdgm import plots; "
        f"plots.history_picture({str(tmp_path / 'a.png')!r}, {{'elbo': np.zeros(9)}}); "
        f"plots.samples_picture({str(tmp_path / 'b.png')!r}, np.zeros((9, 8, 8))); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
