"""The report's figures, each on planted arrays."""

import dataclasses
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from test_diagnosis_report import ALL, OF_PICTURES, N, Page, diagnosis, written

from ppdgm.diagnostics import bound_curve, latent_use, predictive_check, weight_quality
from ppdgm.diagnostics.diagnosis import Diagnosis, Pictures
from ppdgm.diagnostics.figures import draw_figures, svg
from ppdgm.inference.evaluation.estimates import Estimate

IMAGES = {
    "with labels": {"labels": np.arange(N) % 3},
    "with a number each": {"labels": np.linspace(0, 1, N)},
    "with named labels": {"labels": np.array(["cat", "dög"] * (N // 2))},
    "in colour": {"event": (3, 8, 7)},
    "with one channel": {"event": (1, 28, 28)},
    "one dimension": {"sites": {"z": 1}},
    "one dimension with labels": {"sites": {"z": 1}, "labels": np.arange(N) % 3},
    "two dimensions": {"sites": {"z": 2}, "labels": np.arange(N) % 12},
}
OTHERS = {"a table": (4,), "a wide table": (40,), "numbers": (), "series of several columns": (12, 2)}
SITES = {
    "many dimensions": {"z": 70},
    "two sites": {"z1": 2, "$z_2$": 3},
    "many sites": {f"a long name, the {i}th": i + 1 for i in range(9)},
}


def check_figures(drawn):
    """Titles, captions, room for everything; SVG that refers to its own parts only, in the page's colours."""
    for name, drawing in drawn.items():
        assert drawing.name == name and drawing.title and drawing.caption.endswith("."), name
        assert len(drawing.caption) < 440, name
        drawing.figure.draw_without_rendering()  # warns where there is no room
        text = svg(drawing)
        assert text.startswith("<svg viewBox=") and text.endswith("</svg>") and 'role="img"' in text
        ids = re.findall(r' id="([^"]+)"', text)
        assert len(ids) == len(set(ids)) and all(i.startswith(f"{name}-") for i in ids)
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) <= set(ids)
        assert "<style" not in text and "http" not in text and "DejaVu" not in text
        assert not re.search(r'style="[^"]*#(000000|1f2429|2468a4)', text), name


def of_pictures(**options):
    """What is drawn of the pictures alone."""
    whole = diagnosis(**options)
    drawn, failed = draw_figures(Diagnosis("a", N, use=whole.use, pictures=whole.pictures))
    assert not failed
    drawn.pop("kl")
    return drawn


def test_every_figure_is_drawn():
    drawn, failed = draw_figures(diagnosis())
    assert not failed and list(drawn) == ALL
    check_figures(drawn)


@pytest.mark.parametrize("case", IMAGES)
def test_images_are_drawn(case):
    drawn = of_pictures(**IMAGES[case])
    assert list(drawn) == OF_PICTURES
    check_figures(drawn)


@pytest.mark.parametrize("case", OTHERS)
def test_data_that_are_no_images_are_drawn(case):
    drawn = of_pictures(event=OTHERS[case])
    assert list(drawn) == [n for n in OF_PICTURES if n != "interpolations"]
    check_figures(drawn)


@pytest.mark.parametrize("case", SITES)
def test_latents_of_any_number_are_drawn(case):
    drawn, failed = draw_figures(diagnosis(sites=SITES[case]))
    assert not failed
    check_figures({n: drawn[n] for n in ("prior", "codes", "kl", "calibration", "coverage")})


def labels_of(drawing):
    """All words in a figure."""
    texts = [t.get_text() for t in drawing.figure.findobj(lambda a: hasattr(a, "get_text"))]
    return " ".join(t for t in texts if t)


def test_axes_have_units():
    drawn, _ = draw_figures(diagnosis())
    for name, words in {
        "bounds": ("particles k", "nats per row"),
        "kl": ("dimension", "nats"),
        "pareto-k": ("effective sample size of 100 draws", "Pareto k̂", "0.7"),
        "calibration": ("rank of the truth", "ECDF"),
        "coverage": ("nominal level", "points"),
        "surgery": ("nats per row", "mutual information", "marginal KL", "log N"),
        "gaps": ("nats below log p(x)",),
        "history": ("step", "nats per row", "validation"),
        "traversals": ("standard deviations of the prior", "z[0]", "1.25 nats"),
        "prior": ("density", "aggregated posterior", "z[0]"),
        "codes": ("component 1 (", "% of variance)"),
        "posterior-predictive": ("mean, p = ", "value of the statistic"),
    }.items():
        for word in words:
            assert word in labels_of(drawn[name]), (name, word)


@pytest.mark.parametrize(("classes", "sites"), [(4, {"z": 3}), (12, {"z": 3}), (6, {"z": 3, "w": 2})])
def test_names_of_classes_stay_in_their_panel_and_apart(classes, sites):
    """All classes have their middle at one place: the names have to go somewhere else, and not over the caption."""
    labels = np.array([f"no {i}" for i in range(classes)])[np.arange(N) % classes]
    figure = draw_figures(diagnosis(labels=labels, sites=sites))[0]["codes"].figure
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == classes and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    panel = axes.get_window_extent()
    assert all(panel.y0 <= b.y0 and b.y1 <= panel.y1 and panel.x0 <= b.x0 and b.x1 <= panel.x1 for b in boxes)


def test_columns_and_units_have_their_names():
    names = ("height", "price in $ of $", "c", "d")
    found = dataclasses.replace(diagnosis((4,)), columns=names, units="of standardised x")
    drawn, _ = draw_figures(found)
    for name in ("samples", "reconstructions", "traversals"):
        assert all(n in labels_of(drawn[name]) for n in names), name
    assert "value of the statistic, of standardised x" in labels_of(drawn["posterior-predictive"])
    drawn, _ = draw_figures(dataclasses.replace(found, columns=names[:3]))  # of other data
    assert "column 3" in labels_of(drawn["samples"]) and "height" not in labels_of(drawn["samples"])


def test_what_is_drawn_is_what_was_measured():
    found = diagnosis()
    drawn, _ = draw_figures(found)
    line = drawn["bounds"].figure.axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), found.curve.mean)
    np.testing.assert_array_equal(line.get_xdata(), found.curve.k)
    site = found.use.sites[0]
    heights = [bar.get_height() for bar in drawn["kl"].figure.axes[0].patches]
    np.testing.assert_allclose(heights, site.kl[site.by_kl])  # the dead dimension is last, and has the ring
    np.testing.assert_array_equal(drawn["kl"].figure.axes[0].lines[0].get_xdata(), [2])
    points = drawn["pareto-k"].figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(points, np.c_[found.weights.effective_sample_size, found.weights.pareto_k])
    worst = found.weights.worst(3)
    assert all(f"row {i}" in labels_of(drawn["pareto-k"]) for i in worst)
    u = found.calibration["z"]
    red = [line for line in drawn["calibration"].figure.axes[0].lines if line.get_linewidth() == 1.5]
    assert len(red) == len(u.failing) == 3 and "z: 3 of 3 fail" in labels_of(drawn["calibration"])
    bars = [b.get_width() for b in drawn["surgery"].figure.axes[0].patches]
    s = found.surgery
    np.testing.assert_allclose(bars, [s.mutual_information.value, max(0, s.marginal_kl.value)])


def test_images_are_in_their_places():
    found = diagnosis()
    drawn, _ = draw_figures(found)
    shown = np.asarray(drawn["samples"].figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(1 - shown[:6, :5, 0], found.pictures.samples[0], atol=1e-6)
    assert (shown[:6, :5, 3] == 1).all() and not shown[6, :, 3].any()  # the page shows through between images
    shown = np.asarray(drawn["reconstructions"].figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(1 - shown[7:13, :5, 0], found.pictures.reconstructions[0], atol=1e-6)
    shown = np.asarray(drawn["worst-data"].figure.axes[0].images[0].get_array())
    first = found.weights.worst(1)[0]
    np.testing.assert_allclose(1 - shown[:6, :5, 0], found.pictures.worst_data[0], atol=1e-6)
    assert f"{first}: {found.weights.pareto_k[first]:.2f}" in labels_of(drawn["worst-data"])


def test_shades_are_between_the_extremes_of_the_data():
    rng = np.random.default_rng(1)
    found = diagnosis(pictures=Pictures(samples=rng.normal(size=(9, 6, 6)) * 500, data=rng.uniform(0, 255, (9, 6, 6))))
    shown = np.asarray(draw_figures(found)[0]["samples"].figure.axes[0].images[0].get_array())
    assert shown.min() == 0 and shown.max() == 1 and np.median(shown[..., 0]) > 0.2


def test_principal_components():
    from ppdgm.diagnostics.figures.codes import principal

    rng = np.random.default_rng(0)
    for width in (5, 600):
        x = rng.normal(size=(80, 2)) @ np.diag([5.0, 2.0]) @ np.linalg.qr(rng.normal(size=(width, 2)))[0].T
        plane, shares = principal(x)
        np.testing.assert_allclose(shares.sum(), 1.0)
        np.testing.assert_allclose(plane @ plane.T, (x - x.mean(0)) @ (x - x.mean(0)).T, atol=1e-8)
    plane, shares = principal(np.ones((4, 3)))  # collapsed
    assert not plane.any() and not shares.any()


BROKEN = {
    "not finite": {
        "log_likelihood": Estimate(np.array([-np.inf, 1.0]), np.array([np.nan, np.nan]), 1),
        "curve": bound_curve(np.full((4, 3), -np.inf)),
        "history": {"elbo": np.full(30, np.nan), "objective": np.array([1.0, np.inf, 2.0])},
    },
    "constant": {
        "curve": bound_curve(np.zeros((4, 3))),
        "weights": weight_quality(np.zeros((100, N))),
        "checks": tuple(predictive_check(np.ones((5, 2)), [np.ones((5, 2))] * 3).values()),
        "history": {"elbo": np.zeros(3), "kl": np.zeros(3), "step": np.arange(3)},
        "pictures": Pictures(samples=np.zeros((3, 8, 8)), codes={"z": np.zeros((5, 4))}, prior={"z": np.zeros((5, 4))},
                             aggregated={"z": np.zeros((5, 4))}),
    },
    "one of each": {
        "curve": bound_curve(np.zeros((1, 1))),
        "weights": weight_quality(np.random.default_rng(0).normal(size=(50, 1)) * 5),
        "history": {"elbo": np.ones(1)},
        "pictures": Pictures(samples=np.zeros((1, 8, 8)), data=np.zeros((1, 8, 8)), reconstructions=np.ones((1, 8, 8)),
                             worst=np.zeros(1, int), worst_data=np.zeros((1, 8, 8)),
                             worst_reconstructions=np.ones((1, 8, 8))),
    },
    "only a KL of the site": {"use": latent_use({"z": np.eye(5)}, {"z": np.ones(5)})},
    "other images than data": {"pictures": Pictures(data=np.zeros((4, 8, 8)), reconstructions=np.zeros((4, 3)))},
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_odd_numbers_are_drawn_or_left_out(case, tmp_path):
    Page(written(tmp_path, Diagnosis("a", N, **BROKEN[case])))


def test_other_settings_of_matplotlib_change_nothing_and_stay():
    import matplotlib

    found = Diagnosis("a", N, use=diagnosis().use, curve=diagnosis().curve)
    expected = {n: svg(d) for n, d in draw_figures(found)[0].items()}
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30.0, "text.parse_math": True}):
        again = {n: svg(d) for n, d in draw_figures(found)[0].items()}
        assert matplotlib.rcParams["font.size"] == 30.0
    assert again == expected
