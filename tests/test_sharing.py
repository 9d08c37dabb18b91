"""A shared run: a model card that a hub's own library reads, the same numbers, and nothing of this machine."""

import getpass
import json
import os
import platform
import re
import tomllib
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

import ppdgm
from ppdgm.cli.app import app
from ppdgm.errors import PpdgmError
from ppdgm.inference.evaluation.sharing import CARD, check_clean
from ppdgm.models import MLP, PPCA, VAE, AggregatedPosterior, Program

BACKENDS = ("numpyro", "pyro")
RAW = np.random.default_rng(0).normal(size=(60, 4)).astype("float32") * [1, 2, 3, 4] + 7
SMALL = ("--set", "program.latent=2", "--set", "program.encoder.hidden=6", "--set", "program.decoder.hidden=6")


def cli(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def every_byte(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def check_private(folder, *places):
    """No place, no name of this machine or its user, and none of the training rows, raw or prepared."""
    names = [str(Path.home()), str(Path.cwd()), platform.node(), *map(str, places)]
    for file, content in every_byte(folder).items():
        for text in names:
            assert len(text) < 5 or text.encode() not in content, (file, text)
        if file.endswith((".md", ".toml", ".csv")):
            assert not re.search(rf"(?<!\w){re.escape(getpass.getuser())}(?!\w)", content.decode()), file
            assert not re.search(r"(?<![\w.*/])/(?:home|tmp|work|usr|var|Users|root)/", content.decode()), file
    return {f.rpartition("/")[2] for f in every_byte(folder)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shared_run_is_the_run_and_says_what_it_is(backend, tmp_path):
    where = tmp_path / "secret place"
    where.mkdir()
    np.save(where / "flowers.npy", RAW.astype("float32"))
    data = ppdgm.load_data(str(where / "flowers.npy"), scale="standardise")
    program = PPCA(event_shape=(4,), latent=2, posterior="linear")
    fit = ppdgm.fit(program, data, backend=backend, epochs=4, batch_size=10, progress=False, out=where / "run")
    made = ppdgm.share(where / "run", tmp_path / "shared", licence="mit", name="Flowers *2*", data=data.test, k=50)
    files = check_private(made, where, tmp_path)
    assert files == {"README.md", "recipe.toml", "weights.safetensors", "history.csv", "history.png", "samples.png"}
    prepared = [np.asarray(row, "float32").tobytes() for row in data.train]
    for content in every_byte(made).values():
        assert not any(row in content for row in (*prepared, *(r.astype("float32").tobytes() for r in RAW)))
    same = ppdgm.load(made)
    assert all(np.array_equal(fit.params[n], same.params[n]) for n in fit.params)
    assert np.array_equal(fit.elbo(data.test).values, same.elbo(data.test).values)
    np.testing.assert_array_equal(same.prepare(RAW, "own"), fit.prepare(RAW, "own"))
    card = ModelCard.load(made / CARD)  # from its file alone
    assert (card.data.license, card.data.library_name) == ("mit", "ppdgm")
    assert set(card.data.tags) == {"generative-model", "probabilistic-programming", backend, "ppca"}
    text = card.text
    found = fit.log_likelihood(data.test, k=50)
    noise = f"{found.monte_carlo_error:.2g}"
    row = f"{found.mean:.3f} ± {found.standard_error:.3f} | {len(found.values)} | 50 | {noise} |"
    assert row in text and "of standardised x" in text and fit.info["fingerprint"] in text
    assert "# Flowers \\*2\\*" in text and "flowers.npy" in text and text.count("To be filled in") == 2
    recipe = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.S)[1])
    assert recipe == tomllib.loads((made / "recipe.toml").read_text()) and recipe["data"]["name"] == "flowers.npy"
    code = re.search(r"```python\n(.*?)```", text, re.S)[1].replace("FOLDER", str(made))
    names = {}
    exec(code, names)
    assert np.asarray(names["new"]).shape == (16, 4)


def test_what_would_share_too_much_is_refused(tmp_path, monkeypatch):
    x = (RAW > 7).astype("float32")[:20]
    options = {"steps": 2, "batch_size": 10, "progress": False}
    small = {"event_shape": (4,), "latent": 2, "encoder": MLP(hidden=(3,)), "decoder": MLP(hidden=(3,))}
    ppdgm.fit(VAE(**small, prior=AggregatedPosterior(components=20)), x, out=tmp_path / "rows", **options)
    with pytest.raises(PpdgmError, match=r"the state '.*rows' of VAE has a value for each of the 20 rows"):
        ppdgm.share(tmp_path / "rows", tmp_path / "a")
    run = tmp_path / "run"
    ppdgm.fit(VAE(**small), x, out=run, **options)
    for message, options in {
        "licence: got 'apache'. Did you mean 'apache-2.0'": {"licence": "apache"},
        "name: got ' ', expected a text": {"name": " "},
        "is a place on this machine": {"name": f"in {tmp_path}"},
        "k: got 0": {"k": 0},
    }.items():
        with pytest.raises(PpdgmError, match=re.escape(message)):
            ppdgm.share(run, tmp_path / "b", **options)
    assert not (tmp_path / "b").exists() and not list(tmp_path.glob(".b*"))
    with pytest.raises(PpdgmError, match="has files, expected a folder that is new or empty"):
        ppdgm.share(run, run)
    with pytest.raises(PpdgmError, match="does not exist"):
        ppdgm.share(tmp_path / "none", tmp_path / "b")
    monkeypatch.setattr(platform, "node", lambda: "history")  # a machine of this name: its name is found in a file
    with pytest.raises(PpdgmError, match=r"README\.md would have 'history'"):
        ppdgm.share(run, tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "f").write_bytes(b"\x00in/secret\xff")
    with pytest.raises(PpdgmError, match="f would have 'in/secret'"):
        check_clean(tmp_path / "c", ["in/secret"])


class Mine(Program):
    """A program of my own."""

    event_shape: tuple[int, ...] = (4,)

    def build(self, c):
        c.param("loc", (4,), lambda rng, shape, data: np.zeros(shape))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("loc"), P.full((4,), 1.0)).to_event(1), obs=x)


def test_own_classes_and_pairs_say_that_they_need_code(tmp_path):
    ppdgm.fit(Mine(), RAW.astype("float32"), steps=2, progress=False, out=tmp_path / "mine")
    made = ppdgm.share(tmp_path / "mine", tmp_path / "a", classes=[Mine])
    text = (made / CARD).read_text()
    assert "classes=[…]" in text and "No licence was chosen" in text and "given in Python" in text
    assert "No held-out rows were evaluated" in text and ModelCard.load(made / CARD).data.license == "unknown"
    assert ppdgm.load(made, classes=[Mine]).elbo(RAW.astype("float32")).exact

    def model(x):
        m = numpyro.sample("m", dist.Normal(0.0, 2.0))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", dist.Normal(m, 1.0), obs=x)

    def guide(x):
        numpyro.sample("m", dist.Normal(numpyro.param("loc", 0.0), 0.1))

    pair = ppdgm.Program.from_numpyro(model, guide)
    rows = RAW[:, 0].astype("float32")
    ppdgm.fit(pair, rows, steps=2, progress=False, out=tmp_path / "pair")
    made = ppdgm.share(tmp_path / "pair", tmp_path / "b", program=pair, data=rows, k=40)
    text = (made / CARD).read_text()
    assert "program=pair" in text and "| ELBO |" in text and "| log p(x)" not in text and "log\\_evidence" in text
    assert ppdgm.load(made, program=pair).params["loc"] == ppdgm.load(tmp_path / "pair", program=pair).params["loc"]


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("bits.npy", (RAW > 7).astype("float32"))
    path = tmp_path / "bits.npy"
    cli("fit", "vae", "--data", path, "--epochs", 2, *SMALL, "--out", "runs/a", "--quiet")
    said = cli("share", "runs/a", "--licence", "apache-2.0", "--k", 20).stdout
    assert "hf upload USER/NAME runs/a-shared" in said and "README.md" in said
    made = tmp_path / "runs" / "a-shared"
    check_private(made, tmp_path)
    first, second = (
        json.loads(cli("evaluate", run, "--data", path, "--k", 20, "--json").stdout) for run in ("runs/a", made)
    )
    assert first["log_likelihood"] == second["log_likelihood"] and first["elbo"] == second["elbo"]
    assert "the test rows of bits.npy" in (made / CARD).read_text()
    found = json.loads(cli("share", "runs/a", "--out", "b", "--no-evaluate", "--json").stdout)
    assert found["out"] == "b" and "weights.safetensors" in found["files"] and os.path.exists("b/README.md")
    assert "has files" in cli("share", "runs/a", "--out", "b", code=5).stderr
    assert "--no-evaluate" in cli("share", "runs/a", "--no-evaluate", "--split", "test", code=2).stderr
