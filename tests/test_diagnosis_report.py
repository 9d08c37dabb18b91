"""The report: every figure on planted arrays, the page, its PNGs, and the table of numbers."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from ppdgm.diagnostics import (
    bound_curve,
    bracket,
    coverage,
    elbo_surgery,
    latent_use,
    log_mean_exp,
    predictive_check,
    ranks,
    uniformity,
    weight_quality,
)
from ppdgm.diagnostics.diagnosis import Diagnosis, Gaps, Pictures
from ppdgm.diagnostics.figures import draw_figures
from ppdgm.errors import CheckpointError
from ppdgm.inference.evaluation.estimates import Estimate

N, S = 60, 9
OF_PICTURES = ["samples", "reconstructions", "prior", "traversals", "interpolations", "codes"]
OF_SITES = ["bounds", "kl", "pareto-k", "worst-data", "calibration", "coverage"]
ALL = [*OF_PICTURES, *OF_SITES, "posterior-predictive", "prior-predictive", "surgery", "gaps", "history"]
IMAGES_ONLY = {"interpolations", "worst-data"}
VOID = {"meta", "br", "image", "use", "path"}


def diagnosis(event=(6, 5), sites=None, labels=None, seed=0, **other):
    """A diagnosis of arrays that were drawn at random: a guide that is too narrow, with one dead dimension a site."""
    rng = np.random.default_rng(seed)
    sites = {"z": 3} if sites is None else sites
    n = rng.normal
    log_weights = n(size=(100, N)) * rng.uniform(0.1, 3, N)
    values, errors = log_mean_exp(log_weights)
    own, prior = n(size=(4, N)) + 3, n(size=(4, N))
    truth = {name: n(size=(200, d)) for name, d in sites.items()}
    drawn = {name: 0.6 * n(size=(19, 200, d)) for name, d in sites.items()}
    order = {name: ranks(drawn[name], truth[name]) for name in sites}
    alive = {name: np.where(np.arange(d) == d - 1, 1e-4, 1.0) if d > 1 else 1.0 for name, d in sites.items()}
    means = {name: n(size=(N, d)) * alive[name] for name, d in sites.items()}
    kl = {name: rng.uniform(0.5, 2, (N, d)) * alive[name] for name, d in sites.items()}
    data = rng.random((N, *event))
    checks = tuple(predictive_check(data, (rng.random((N, *event)) for _ in range(20))).values())
    weights = weight_quality(log_weights)
    worst = weights.worst(12)
    pictures = Pictures(
        worst=worst,
        worst_data=data[worst],
        worst_reconstructions=rng.random((12, *event)),
        samples=rng.random((64, *event)),
        data=data[:32],
        reconstructions=rng.random((32, *event)),
        traversals=rng.random((2, S, *event)),
        traversed=("z[0] (1.25 nats)", "z[1] (0.50 nats)"),
        steps=np.linspace(-2.5, 2.5, S),
        interpolations=rng.random((3, S, *event)),
        codes=means,
        labels=labels,
        aggregated={name: n(size=(N, d)) for name, d in sites.items()},
        prior={name: n(size=(300, d)) for name, d in sites.items()},
    )
    fields = {
        "title": "VAE on numpyro, 50 steps, done",
        "size": N,
        "log_likelihood": Estimate(values, errors, 100),
        "elbo": Estimate(log_weights.mean(0), np.full(N, np.nan), 1),
        "curve": bound_curve(log_weights),
        "weights": weights,
        "use": latent_use(means, kl),
        "surgery": elbo_surgery(prior, own, np.maximum(own - np.log(N), prior), prior),
        "calibration": {name: uniformity(r, 19) for name, r in order.items()},
        "coverage": {name: coverage(drawn[name], truth[name]) for name in sites},
        "checks": checks,
        "prior_checks": checks,
        "gaps": Gaps(np.arange(8), np.zeros(8), n(size=8) - 3, n(size=8) - 1, "diagonal"),
        "bracket": bracket(n(size=(5, 8)), n(size=(5, 8))),
        "withheld": {"leave-one-out": "each datum has a latent of its own."},
        "pictures": pictures,
        "history": {"elbo": n(size=400), "kl": rng.random(400), "validation_step": np.arange(4),
                    "validation_elbo": np.array([1.0, np.nan, 2.0, 3.0])},
        "recipe": 'backend = "numpyro"\n',
        "versions": {"python": "3.11"},
        "seconds": {"likelihood": 1.25},
    }  # fmt: skip
    return Diagnosis(**{**fields, **other})


class Page(HTMLParser):
    """What is in a page; that its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.ids, self.tags, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((tag, ""))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
        elif not {"style", "script"} & {*self.open}:
            self.text += data


def written(tmp_path, found, **options):
    path = found.report(tmp_path / "report.html", **options)
    text = path.read_text()
    assert "be drawn (" not in text
    return text


# --- the page ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A diagnosis with everything, and its page."""
    found = diagnosis(labels=np.arange(N) % 10)
    return found, written(tmp_path_factory.mktemp("whole"), found)


def test_the_page_has_everything_once_and_needs_nothing(whole):
    _, text = whole
    page = Page(text)
    headings = [words for _, words in page.headings]
    assert len(headings) == len(set(headings))
    for heading in ("VAE on numpyro, 50 steps, done", "Verdict", "Samples", "Data and reconstructions", "Latent space",
                    "Prior and aggregated posterior", "Latent traversals", "Interpolations", "Codes of the data",
                    "Bound over particles", "KL per dimension", "Pareto k̂ of each row", "Calibration",
                    "Coverage of intervals", "Posterior predictive checks", "Prior predictive checks", "ELBO surgery",
                    "Inference gap, row by row", "Training curve", "What is not available, and why",
                    "Recipe and versions"):  # fmt: skip
        assert headings.count(heading) == 1, heading
    assert [tag for tag, _ in page.headings][:2] == ["h1", "h2"]
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"https?:|//|<script|@import|url\((?!#)", re.sub(r'base64,[^"]*', "", text))
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">') and 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    for tag, attributes in page.tags:
        assert tag != "svg" or attributes["aria-label"], "a figure without words"
        assert tag != "img"
    targets = {a["href"][1:] for t, a in page.tags if t == "a"}
    assert targets <= set(page.ids) and len(targets) == sum(t == "h2" for t, _ in page.headings) - 1
    assert len(text) < 3_000_000


def test_the_verdict_is_at_the_top_with_marks_and_words(whole):
    found, text = whole[0], Page(whole[1]).text
    top = text[: text.index("Held-out data")]
    for finding in found.verdict:
        assert {"bad": "✗", "warning": "!", "good": "✓"}[finding.grade] in top
        assert finding.about in top and finding.advice in top
    assert "each datum has a latent of its own" in text and 'backend = "numpyro"' in text
    assert "Annealed importance sampling" in text and "1.2" in text


def test_names_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>&\"'"
    found = diagnosis(
        title=evil, sites={evil: 2, "$x$": 2}, recipe=evil, versions={evil: evil}, withheld={evil: evil},
        labels=np.array([evil, "b"] * (N // 2)),
    )  # fmt: skip
    page = Page(written(tmp_path, found))
    assert all(tag != "script" for tag, _ in page.tags)
    assert page.headings[0] == ("h1", evil)
    assert page.text.count(evil) >= 5


@pytest.mark.parametrize("keep", [(), ("log_likelihood",), ("pictures",), ("bracket",), ("use", "surgery")])
def test_what_is_not_there_is_left_out(keep, tmp_path):
    found = diagnosis()
    few = Diagnosis("Nothing", 5, **{name: getattr(found, name) for name in keep})
    page = Page(written(tmp_path, few, pictures=True))
    figures = sum(tag == "figure" for tag, _ in page.tags)
    assert figures == len(draw_figures(few)[0]) == len(list(tmp_path.glob("report_figures/*.png")))
    headings = [h for _, h in page.headings]
    assert "Recipe and versions" not in headings and "Training curve" not in headings
    assert json.loads(json.dumps(few.table()))["title"] == "Nothing"


def test_a_figure_that_fails_is_told_and_the_others_are_there(tmp_path, monkeypatch):
    from ppdgm.diagnostics import figures

    def broken(found):
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(figures, "FIGURES", (broken, *figures.FIGURES))
    text = Diagnosis("a", N, curve=diagnosis().curve).report(tmp_path / "a.html").read_text()
    assert "broken can&#x27;t be drawn (ZeroDivisionError: no such thing)" in text
    assert text.count("<figure") == 1


def test_pictures_are_written_beside_it(tmp_path):
    found = diagnosis()
    written(
        tmp_path, Diagnosis("a", N, curve=found.curve, surgery=found.surgery, pictures=found.pictures), pictures=True
    )
    shapes = {p.stem: imread(p).shape for p in (tmp_path / "report_figures").iterdir()}
    assert sorted(shapes) == sorted([*OF_PICTURES, "bounds", "surgery"])
    assert all(shape[1] == 832 and shape[0] > 200 for shape in shapes.values())


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report.txt", "report", "missing/report.html", "folder.html", 3])
def test_paths_that_can_not_be(name, tmp_path):
    (tmp_path / "folder.html").mkdir()
    path = tmp_path / name if isinstance(name, str) else name
    with pytest.raises(CheckpointError, match=r"html|missing") as raised:
        Diagnosis("a", 1).report(path)
    assert "\n" not in str(raised.value)


def test_the_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(CheckpointError, match="No space left"):
            Diagnosis("a", 1).report(path)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["report.html"]
    Diagnosis("a", 1).report(str(path))
    assert path.read_text().startswith("<!DOCTYPE html>")


def test_a_report_needs_no_backend(tmp_path):
    code = (
        "import sys; from ppdgm.diagnostics.diagnosis import Diagnosis; "
        f"Diagnosis('a', 1).report({str(tmp_path / 'a.html')!r}, True); Diagnosis('a', 1).table(); "
        "assert not {'torch', 'jax', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


# --- numbers -------------------------------------------------------------------------------------------------------


def test_the_table_is_json_without_nan():
    found = diagnosis()
    table = found.table()
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert table["log_likelihood"]["mean"] == found.log_likelihood.mean
    assert table["elbo"]["errors"] == [None] * N and table["elbo"]["monte_carlo_error"] is None
    assert table["curve"]["mean"] == found.curve.mean.tolist() and table["curve"]["k"] == found.curve.k.tolist()
    assert table["weights"]["pareto_k"] == found.weights.pareto_k.tolist()
    assert table["use"]["sites"][0]["used"] == [True, True, False]
    assert table["surgery"]["mutual_information"]["value"] == found.surgery.mutual_information.value
    assert table["calibration"]["z"]["failing"] == found.calibration["z"].failing.tolist()
    assert table["coverage"]["z"]["overall"] == found.coverage["z"].overall.tolist()
    assert table["checks"][0]["p"] == found.checks[0].p
    assert table["gaps"]["amortisation"]["value"] == found.gaps.amortisation.value
    assert table["bracket"]["gap"] == found.bracket.gap
    assert [f["about"] for f in table["verdict"]] == [f.about for f in found.verdict]
    assert table["withheld"] == found.withheld and table["seconds"] == found.seconds


def test_a_table_of_one_sided_bounds():
    table = diagnosis(bracket=bracket(np.zeros((1, 4)))).table()
    assert table["bracket"]["upper"] is None and table["bracket"]["gap"] is None
