"""Saving and loading: a fresh process, no data, either backend, nothing half-read."""

import subprocess
import sys
import textwrap
import tomllib

import numpy as np
import pytest

import ppdgm
from ppdgm import checkpoint
from ppdgm.errors import CheckpointError
from ppdgm.inference import SVI, Linear
from ppdgm.models import MLP, VAE

RNG = np.random.default_rng(0)
X = (RNG.random((20, 6)) < 0.5).astype("float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
    out = tmp_path_factory.mktemp("runs") / "vae"
    engine = SVI(k=2, beta=Linear(steps=5))
    return ppdgm.fit(program, X, engine=engine, steps=10, batch_size=7, progress=False, out=out), out


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_a_fresh_process_opens_a_run_on_either_backend(run, backend):
    """FIELD 20. No data are needed; the other backend's library is not loaded."""
    fit, out = run
    code = f"""
        import sys, numpy as np, ppdgm
        fit = ppdgm.load({str(out)!r}, backend={backend!r})
        z = np.linspace(-1, 1, 20 * 4 * 2, dtype="float32").reshape(4, 20, 2)
        x = (np.random.default_rng(0).random((20, 6)) < 0.5).astype("float32")
        terms = ppdgm.trace(fit.program, fit.params, x, k=4, backend={backend!r}, values={{"z": z}})
        print(float((terms.log_p["z"] + terms.log_p["x"] - terms.log_q["z"]).sum()), fit.sample(3).shape)
        assert ("torch" in sys.modules) == ({backend!r} == "pyro")
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    z = np.linspace(-1, 1, 20 * 4 * 2, dtype="float32").reshape(4, 20, 2)
    here = ppdgm.trace(fit.program, fit.params, X, k=4, backend="pyro", values={"z": z})
    total = float((here.log_p["z"] + here.log_p["x"] - here.log_q["z"]).sum())
    value, shape = out.stdout.split(" ", 1)
    assert float(value) == pytest.approx(total, rel=1e-5) and shape.strip() == "(3, 6)"


def test_everything_comes_back(run):
    fit, out = run
    again = ppdgm.load(out)
    assert again.program == fit.program and again.engine == fit.engine and again.backend == "numpyro"
    assert all(np.array_equal(again.params[n], fit.params[n]) for n in fit.params)
    assert all(np.array_equal(again.history[n], fit.history[n]) for n in fit.history)
    assert np.array_equal(again.elbo(X, k=3, seed=1).values, fit.elbo(X, k=3, seed=1).values)  # the same draws
    recipe = tomllib.loads((out / "recipe.toml").read_text())
    assert recipe["training"]["seed"] == 0 and {"numpy", "jax", "python"} <= set(recipe["versions"])


def test_a_run_is_not_overwritten_without_being_told(run):
    fit, out = run
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    with pytest.raises(CheckpointError, match="overwrite=True"):
        ppdgm.fit(fit.program, X, steps=3, progress=False, out=out)
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before
    fit.save(out, overwrite=True)


def test_other_peoples_folders_are_never_written_to(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(CheckpointError, match="not a run"):
        run[0].save(tmp_path, overwrite=True)


@pytest.mark.parametrize("name", ["weights.safetensors", "history.safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_found(run, tmp_path, name, damage):
    fit, _ = run
    path = fit.save(tmp_path / "run") / name
    content = path.read_bytes()
    for place in np.linspace(0, len(content) - 1, 12, dtype=int):
        if damage == "truncate":
            path.write_bytes(content[:place])
        elif damage == "flip":
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        else:
            path.unlink(missing_ok=True)
        with pytest.raises(CheckpointError, match=name):
            ppdgm.load(tmp_path / "run")


RECIPES = {
    "not toml": (lambda text: text.replace("=", "", 1), "damaged"),
    "newer": (lambda text: text.replace("format = 1", "format = 2"), "Update ppdgm"),
    "no backend": (lambda text: text.replace("backend = ", "back = "), "has no 'backend'"),
    "unknown class": (lambda text: text.replace('"VAE"', '"VEA"'), "Did you mean 'VAE'"),
    "wrong field": (lambda text: text.replace("latent = 2", "latent = -2"), "VAE.latent: got -2"),
    "other shape": (lambda text: text.replace("latent = 2", "latent = 3"), "got shape (2, 8), expected (3, 8)"),
}


@pytest.mark.parametrize("case", RECIPES)
def test_recipes_that_do_not_fit_are_refused(run, tmp_path, case):
    change, message = RECIPES[case]
    out = run[0].save(tmp_path / "run")
    text = (out / "recipe.toml").read_text()
    (out / "recipe.toml").write_text(change(text))
    with pytest.raises(CheckpointError) as error:
        ppdgm.load(out)
    assert message in str(error.value)
    with pytest.raises(CheckpointError, match="no run folder"):
        ppdgm.load(tmp_path)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    checkpoint.write_atomically(path, b"old")

    def crash(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="no space"):
        checkpoint.write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old" and [f.name for f in tmp_path.iterdir()] == ["file"]


MODULE = """
from ppdgm import Program
from ppdgm.models import MLP, StandardNormal


class Mine(Program):
    event_shape: tuple[int, ...]
    prior: StandardNormal = StandardNormal()

    def build(self, context):
        context.part(self.prior, (2,))
        context.net("decoder", MLP(hidden=(4,)), (2,), self.event_shape)
        context.net("encoder", MLP(hidden=(4,)), self.event_shape, (2,), label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            P.sample("x", P.dist.Bernoulli(logits=P.net("decoder")(z)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.net("encoder")(x), P.full((2,), 0.5)).to_event(1))
"""


def test_a_custom_class_loads_by_hand_or_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_models

    out = tmp_path / "run"
    fit = ppdgm.fit(my_models.Mine(event_shape=(6,)), X, steps=3, progress=False, out=out)
    assert ppdgm.load(out, classes=[my_models.Mine]).program == fit.program
    assert ppdgm.load(out, program=fit.program).program is fit.program
    start = f"import sys, ppdgm; sys.path.insert(0, {str(tmp_path)!r})"
    code = f"{start}; fit = ppdgm.load({str(out)!r}, {{}}); print(fit.program)"
    by_path = subprocess.run(
        [sys.executable, "-c", code.format("classes=['my_models:Mine']")], capture_output=True, text=True
    )
    assert by_path.returncode == 0 and "event_shape=(6,)" in by_path.stdout
    unasked = subprocess.run([sys.executable, "-c", code.format("backend='numpyro'")], capture_output=True, text=True)
    assert "Hand it in" in unasked.stderr and "CheckpointError" in unasked.stderr  # nothing is imported unasked
    with pytest.raises(CheckpointError, match=r"'decoder.layers.0.weight': got shape \(2, 4\), expected \(50, 200\)"):
        ppdgm.load(out, program=VAE(event_shape=(6,)))


def test_a_recipe_cannot_name_just_any_code(run, tmp_path):
    out = run[0].save(tmp_path / "run")
    text = (out / "recipe.toml").read_text()
    (out / "recipe.toml").write_text(text.replace('"VAE"', '"antigravity:fly"'))
    with pytest.raises(CheckpointError):
        ppdgm.load(out)
    assert "antigravity" not in sys.modules
    with pytest.raises(CheckpointError, match="not a spec"):
        ppdgm.load(out, classes=["os:system"])
