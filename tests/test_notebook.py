"""What notebooks show: well-formed HTML without scripts, with everyone's texts escaped; and progress as one output."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import ppdgm
from ppdgm import markup
from ppdgm.data import Dataset, Source
from ppdgm.data.classes import Classes
from ppdgm.inference import IWAE, Cosine, Estimate
from ppdgm.inference.runs.notebook import in_notebook
from ppdgm.models import IAF, MLP, PPCA, VAE, FlowPosterior

BACKENDS = ("numpyro", "pyro")
EVIL = '<script>alert("x")</script> & \x00\x1b[31m'
X = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
PROGRAM = PPCA(event_shape=(4,), latent=2, posterior="linear")
FITS = {
    b: ppdgm.fit(PROGRAM, X, validation=X[:9], backend=b, epochs=3, batch_size=10, clip_norm=9.0, progress=False)
    for b in BACKENDS
}


@pytest.fixture
def shell():
    """A notebook's shell: it publishes displays, and is no terminal."""
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def parsed(html):
    """The HTML as XML, without anything that runs or depends on the page's background."""
    found = ElementTree.fromstring(html)
    tags = {e.tag.rpartition("}")[2] for e in found.iter()}
    assert tags <= {"div", "b", "span", "table", "tr", "td", "th", "details", "summary", "svg", "polyline", "text"}
    names = {n for e in found.iter() for n in e.attrib}
    assert not any(n.startswith("on") or n in ("href", "src") for n in names)
    styles = " ".join(e.attrib.get("style", "") for e in found.iter())
    assert not re.search(r"(?<![-\w])color:|background:\s*(#fff|white|black)", styles)
    assert len(html) < 60_000
    return " ".join(found.itertext())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fit(backend):
    fit = FITS[backend]
    html = fit._repr_html_()
    text = parsed(html)
    assert f"PPCA on {backend}: 9 steps, done" in text and "validation elbo, best" in text and "clip_norm" in text
    best = fit.history["validation_elbo"].max()
    assert f"{best:,.4g}" in text
    count = sum(v.size for v in fit.params.values())
    assert f"{count:,} parameters in {len(fit.params)} arrays" in text and "(4, 2)" in text
    lines = [e for e in ElementTree.fromstring(html).iter() if e.tag.endswith("polyline")]
    points = [[tuple(map(float, p.split(","))) for p in e.attrib["points"].split()] for e in lines]
    assert [len(p) for p in points] == [9, 3]  # the ELBO of each step, and each validation
    assert points[0][0][0] == 0.0 and points[0][-1][0] == markup.WIDTH and points[1][-1][0] == markup.WIDTH
    high = max(fit.history["elbo"].max(), best)
    assert min(y for line in points for _, y in line) == 0.0 and f"{high:,.4g}" in text


def test_specs_and_programs():
    program = VAE(event_shape=(4,), latent=3, posterior=FlowPosterior(flow=IAF(depth=2)), encoder=MLP(hidden=(5, 6)))
    text = parsed(program._repr_html_())
    declared = program.declarations().params
    assert all(name in text for name in list(declared)[:3]) and "(5, 6)" in text and "IAF" in text
    assert f"{sum(int(np.prod(p.shape)) for p in declared.values()):,} parameters" in text
    assert "peak" in parsed(Cosine(peak=0.1, steps=3)._repr_html_()) and "IWAE" in parsed(IWAE(k=3)._repr_html_())
    assert "PPCA" in parsed(ppdgm.inference.Fit(PROGRAM, PROGRAM.initialise(0))._repr_html_())  # no history


def test_data_and_results():
    text = parsed(
        Dataset(EVIL, X, X[:5], None, {}, Source(name=EVIL), codes={EVIL: Classes((EVIL, "b"))})._repr_html_()
    )
    assert EVIL[:20] in text and "train rows 30" in " ".join(text.split()) and "(4,)" in text
    fit = FITS["numpyro"]
    found = fit.log_likelihood(X, k=20)
    text = parsed(found._repr_html_())
    assert f"{found.mean:.3f} ± {found.standard_error:.3f} nats" in text and "bias" in text
    assert "paired" in parsed((found - fit.elbo(X))._repr_html_())
    assert "unknown" not in parsed(Estimate(np.zeros(1), np.full(1, np.nan), 1)._repr_html_())
    comparison = ppdgm.compare({EVIL: fit, "b": FITS["pyro"]}, X, k=20)
    text = parsed(comparison._repr_html_())
    assert EVIL[:20] in text and "backend" in text and "2 fits on 30 rows" in text
    text = parsed(fit.diagnose(X, parts=("likelihood", "latents"), k=30)._repr_html_())
    assert "log p(x)" in text and "N 30" in " ".join(text.split())


def test_a_comparison_as_a_table_of_pandas():
    comparison = ppdgm.compare({"a": FITS["numpyro"], "b": FITS["pyro"]}, X, k=20)
    found, az = comparison.frame(), comparison.frame(arviz=True)
    assert list(found.index) == list(comparison.log_likelihood) and list(found["rank"]) == [0, 1]
    assert list(az.columns) == ["rank", "elpd", "elpd_diff", "se", "dse", "scale"]  # and no weight
    first, second = (comparison.log_likelihood[n].values for n in found.index)
    gap = first - second
    np.testing.assert_allclose(az.elpd, [first.sum(), second.sum()], rtol=1e-5)
    np.testing.assert_allclose(az.elpd_diff, [0.0, gap.sum()], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(az.dse, [0.0, gap.std(ddof=1) * 30**0.5], rtol=1e-4)
    np.testing.assert_allclose(az.se, [v.std(ddof=1) * 30**0.5 for v in (first, second)], rtol=1e-4)


def test_pieces():
    assert parsed(markup.line(EVIL)) == f"{EVIL[:-6]}  [31m"[: len(EVIL)]
    assert "cut" not in markup.escaped("x" * 400 + "cut") and "… and 5 more" in markup.rows_below(
        ["n"], [[i] for i in range(65)]
    )
    assert markup.lines_over_steps({"elbo": (np.arange(3), np.full(3, np.nan))}) == ""
    parsed(
        markup.lines_over_steps(
            {"a": (np.arange(900), np.sin(np.arange(900.0))), "b": (np.arange(2), np.array([0.0, np.inf]))}
        )
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_progress_is_one_output(shell, backend, capsys):
    assert in_notebook()
    with capture_output() as seen:
        ppdgm.fit(PROGRAM, X, validation=X[:9], backend=backend, epochs=3, batch_size=10)
    outputs = seen.outputs
    assert outputs and all(set(o.data) == {"text/html", "text/plain"} for o in outputs)
    ids = {o.metadata.get("display_id") or (o.transient or {}).get("display_id") for o in outputs}
    assert len(ids) == 1 and [bool(o.update) for o in outputs] == [False] + [True] * (len(outputs) - 1)
    last = outputs[-1].data
    assert "step 9/9" in parsed(last["text/html"]) and "step 9/9" in last["text/plain"]
    assert "\x1b" not in seen.stdout + seen.stderr + last["text/plain"] and "step" not in seen.stderr
    with capture_output() as seen:
        ppdgm.fit(PROGRAM, X, backend=backend, epochs=3, batch_size=10, progress=False)
    assert not seen.outputs


def test_a_terminal_is_no_notebook(shell, monkeypatch):
    class TerminalInteractiveShell(InteractiveShell):
        pass

    monkeypatch.setattr("IPython.get_ipython", lambda: TerminalInteractiveShell())
    assert not in_notebook()
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    assert not in_notebook()
