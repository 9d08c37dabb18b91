"""Saving and loading: a fresh process, no data, either backend, nothing half-read."""

import csv
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import tomllib

import numpy as np
import pytest
import tomli_w
from safetensors.numpy import save as save_arrays

import ppdgm
from ppdgm import files
from ppdgm.errors import CheckpointError, ProgramError
from ppdgm.inference import SVI, Linear
from ppdgm.inference.runs import checkpoint
from ppdgm.inference.runs.folder import as_csv
from ppdgm.inference.runs.layout import check_free, read_status
from ppdgm.models import MLP, PPCA, VAE, Laplace

RNG = np.random.default_rng(0)
X = (RNG.random((20, 6)) < 0.5).astype("float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
    out = tmp_path_factory.mktemp("runs") / "vae"
    engine = SVI(k=2, beta=Linear(steps=5))
    return ppdgm.fit(
        program, X, engine=engine, steps=10, batch_size=7, progress=False, out=out, checkpoint_steps=3
    ), out  # fmt: skip


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


def test_a_run_is_not_overwritten_without_being_told(run, tmp_path):
    fit, out = run
    content = lambda: {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    before = content()
    with pytest.raises(CheckpointError, match="overwrite=True"):
        ppdgm.fit(fit.program, X, steps=3, progress=False, out=out)
    assert content() == before
    copy = shutil.copytree(out, tmp_path / "run")
    with pytest.raises(CheckpointError, match="overwrite=True"):
        fit.save(copy)
    fit.save(copy, overwrite=True)


def test_other_peoples_folders_are_never_written_to(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(CheckpointError, match="not from a run"):
        run[0].save(tmp_path, overwrite=True)


BEGUN = (  # what a run has made when it is killed before its first checkpoint, earliest first
    {"checkpoints/": ""},
    {"checkpoints/": "", ".lock": ""},
    {"checkpoints/": "", ".lock": "", ".recipe.toml.x1": "ha"},
    {"checkpoints/": "", ".lock": "", "recipe.toml": "format = 2"},
    {"checkpoints/": "", ".lock": "", "recipe.toml": "format = 2", "log.txt": "", ".status.json.new": "{"},
    {"checkpoints/.step-0000000001.safetensors.x1": "ha", ".lock": "", "recipe.toml": "format = 2", "log.txt": ""},
)


@pytest.mark.parametrize("begun", BEGUN)
def test_a_run_that_was_killed_before_its_first_checkpoint_is_begun_anew(run, tmp_path, begun):
    for name, text in begun.items():
        path = tmp_path / "run" / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(text)
    for call in (ppdgm.load, lambda out: ppdgm.resume(out, X)):
        with pytest.raises(CheckpointError, match=r"has no checkpoint to continue from\. Start the run again: .*fit"):
            call(tmp_path / "run")
    run[0].save(tmp_path / "run")
    assert ppdgm.load(tmp_path / "run").info["steps"] == 10
    (tmp_path / "run/recipe.toml").unlink()  # its results are never lost unasked
    with pytest.raises(CheckpointError, match="already has a run"):
        run[0].save(tmp_path / "run")


def test_a_kill_at_any_moment_of_overwriting_leaves_a_run_or_a_folder_to_begin_in(run, tmp_path, monkeypatch):
    """The folder as it is before each change of a file: all states that a kill can leave."""
    out, left = shutil.copytree(run[1], tmp_path / "run"), []

    def noted(function):
        def noting(*args, **options):
            left.append(shutil.copytree(out, tmp_path / f"killed {len(left)}"))
            return function(*args, **options)

        return noting

    for owner, name in ((os, "replace"), (os, "fsync"), (pathlib.Path, "unlink"), (pathlib.Path, "write_text")):
        monkeypatch.setattr(owner, name, noted(getattr(owner, name)))
    program = run[0].program
    ppdgm.fit(program, X, steps=2, progress=False, out=out, overwrite=True, backend="pyro", compile=False)
    assert len(left) > 15
    for folder in left:
        check_free(folder, overwrite=True)
        try:
            assert ppdgm.load(folder).info["steps"] in (9, 10, 2), folder
        except CheckpointError as error:
            assert "Start the run again" in str(error)
            check_free(folder, overwrite=False)  # nothing is there to be lost


KINDS = ["recipe.toml", "weights.safetensors", "history.csv", "log.txt", "status.json", ".lock", "checkpoints",
         "pictures", "checkpoints/step-0000000010.safetensors"]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_in_the_place_of_a_file_is_told_and_left_alone(run, tmp_path, name):
    out = shutil.copytree(run[1], tmp_path / "run")
    shutil.rmtree(out / name, ignore_errors=True)
    (out / name).unlink(missing_ok=True)
    if name in ("checkpoints", "pictures"):
        (out / name).write_text("mine")
    else:
        (out / name).mkdir()
        (out / name / "mine.txt").write_text("mine")
    fit, options = run[0], {"steps": 2, "progress": False, "out": out, "overwrite": True}
    for call in (
        lambda: ppdgm.load(out),
        lambda: ppdgm.resume(out, X, progress=False),
        lambda: fit.save(out, overwrite=True),
        lambda: ppdgm.fit(fit.program, X, **options),
    ):
        with pytest.raises(CheckpointError, match=f"{name}"):
            call()
    assert isinstance(read_status(out), dict)
    assert (out / name if (out / name).is_file() else out / name / "mine.txt").read_text() == "mine"


def damaged(content, rng, count):
    """Every kind of truncation and of flipped bit, sampled; the first and last bytes always."""
    places = {0, 7, 8, 9, len(content) - 1, *rng.integers(0, len(content), count).tolist()}
    for place in sorted(places):
        yield f"truncated to {place} bytes", content[:place]
        yield (
            f"bit flipped in byte {place}",
            content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :],
        )
    yield "with a byte more", content + b" "


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_what_the_engine_objects_to_is_told_before_an_old_run_goes(run, tmp_path, backend):
    """An analytic KL that does not exist."""
    out = tmp_path / "run"
    shutil.copytree(run[1], out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(ProgramError, match="no closed-form KL"):
        ppdgm.fit(
            PPCA(event_shape=(6,)), X, engine=SVI(kl="analytic"), steps=2, backend=backend, progress=False, out=out,
            overwrite=True,
        )  # fmt: skip
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoints/step-0000000010.safetensors"])
def test_any_damage_is_found_and_the_checkpoint_before_is_offered(run, tmp_path, name):
    _, out = run
    copy = tmp_path / "run"
    shutil.copytree(out, copy)
    path, content = copy / name, (out / name).read_bytes()
    open_run = (lambda: ppdgm.load(copy)) if name.startswith("weights") else (lambda: ppdgm.resume(copy, X))
    for what, bad in damaged(content, np.random.default_rng(1), 150):
        path.write_bytes(bad)
        with pytest.raises(CheckpointError) as error:
            open_run()
        assert str(path) in str(error.value), what
        offered = "step-0000000009" if "step-" in name else "step-0000000010"
        assert f"{offered}.safetensors is complete" in str(error.value), what
    before = copy / "checkpoints" / "step-0000000009.safetensors"
    if "step-" in name:  # what is offered works: the same steps are taken again
        again = ppdgm.resume(copy, X, checkpoint=before, progress=False)
        assert all(np.array_equal(again.params[n], run[0].params[n]) for n in again.params)
        (a, _), (b, _) = checkpoint.read_checkpoint(path), checkpoint.unpack(content, path)
        assert a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)
    path.unlink()
    assert ppdgm.load(copy).info["steps"] == (9 if "step-" in name else 10) or name.startswith("check")


def test_foreign_and_newer_files_are_told_apart(run, tmp_path):
    _, out = run
    path = shutil.copytree(out, tmp_path / "run") / "weights.safetensors"
    path.write_bytes(save_arrays({"a": np.zeros(3)}))
    with pytest.raises(CheckpointError, match="not a ppdgm checkpoint"):
        ppdgm.load(tmp_path / "run")
    path.write_bytes(checkpoint.pack({"a": np.zeros(3)}, {"step": 3}))
    with pytest.raises(CheckpointError, match="not a checkpoint of a run: it has no 'recipe'"):
        ppdgm.load(tmp_path / "run")
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CheckpointError, match="damaged"):
        ppdgm.load(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 3)
        path.write_bytes(checkpoint.pack({"a": np.zeros(3)}, {}))
    with pytest.raises(CheckpointError, match="has format 3, this version of ppdgm reads 2"):
        ppdgm.load(tmp_path / "run")


RECIPES = {
    "not toml": (lambda text: text.replace("=", "", 1), "not a recipe in TOML"),
    "newer": (lambda text: text.replace("format = 2", "format = 3"), "Update ppdgm"),
    "no backend": (lambda text: text.replace("backend = ", "back = "), "recipe.toml is damaged"),
    "other class": (lambda text: text.replace('"VAE"', '"VEA"'), "program.kind was 'VAE', and is now 'VEA'"),
    "other field": (lambda text: text.replace("latent = 2", "latent = 3"), "program.latent was 2, and is now 3"),
    "not text": (lambda text: b"\xff\xfe" + text.encode(), "not a recipe in TOML"),
}


@pytest.mark.parametrize("case", RECIPES)
def test_recipes_that_do_not_fit_are_refused(run, tmp_path, case):
    change, message = RECIPES[case]
    out = run[0].save(tmp_path / "run")
    text = change((out / "recipe.toml").read_text())
    (out / "recipe.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError) as error:
        ppdgm.load(out)
    assert message in str(error.value) and str(out / "recipe.toml") in str(error.value)
    with pytest.raises(CheckpointError, match="not a run's folder"):
        ppdgm.load(tmp_path)


def test_comments_and_the_place_of_data_may_change(run, tmp_path):
    out = run[0].save(tmp_path / "run")
    text = (out / "recipe.toml").read_text()
    (out / "recipe.toml").write_text(f"# mine\n{text}\n[data]\nname = 'elsewhere.npy'\n")
    ppdgm.load(out)


def test_what_a_run_leaves(run):
    """FIELD 20, and the folder: recipe, checkpoints, history, log, status, pictures."""
    fit, out = run
    names = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    steps = {f"checkpoints/step-00000000{n}.safetensors" for n in ("09", "10")}
    plain = {"recipe.toml", "weights.safetensors", "history.csv", "log.txt", "status.json", ".lock"}
    assert names == plain | steps | {"pictures/history.png", "pictures/samples.png"}
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert [int(r["step"]) for r in rows] == list(range(1, 11))
    assert np.allclose([float(r["elbo"]) for r in rows], fit.history["elbo"], rtol=1e-6)
    said = read_status(out)
    assert said["state"] == "done" and said["step"] == said["steps"] == 10
    log = (out / "log.txt").read_text()
    digest = hashlib.sha256()
    content = (out / "checkpoints/step-0000000010.safetensors").read_bytes()
    stated = log.split("checkpoint at step 10, sha256 ")[1][:64]
    digest.update(content.replace(stated.encode(), b"0" * 64))
    assert digest.hexdigest() == stated and "ended at step 10 of 10: done" in log


def test_the_last_parameters_and_the_best_are_both_kept(tmp_path):
    """A learning rate that destroys the model late; the run as it would have been without keeping the best."""
    late = Linear(start=0.001, end=2.0, steps=60)
    options = {"steps": 60, "batch_size": 8, "validation": X[:9], "learning_rate": late, "progress": False}
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
    best = ppdgm.fit(program, X, out=tmp_path / "run", **options)
    last = ppdgm.fit(program, X, keep_best=False, **options)
    for expected, found in ((best, ppdgm.load(tmp_path / "run")), (last, ppdgm.load(tmp_path / "run", last=True))):
        assert found.stopped == "done" and all(np.array_equal(expected.params[n], found.params[n]) for n in last.params)
    assert best.elbo(X[:9], k=100).mean > last.elbo(X[:9], k=100).mean


def test_a_killed_runs_status_says_so(run, tmp_path):
    out = run[0].save(tmp_path / "run")
    (out / "status.json").write_text(json.dumps({"state": "running", "step": 3, "pid": 1}))
    assert read_status(out)["state"] == "killed"
    (out / "status.json").write_text("{")
    assert read_status(out) == {}


def test_long_histories_become_windows():
    history = {"step": np.arange(1, 30_002), "elbo": np.arange(30_001, dtype=float)}
    history |= {"validation_step": np.array([6, 30_001]), "validation_elbo": np.array([-2.0, -1.0])}
    rows = list(csv.DictReader(as_csv(history).splitlines()))
    assert len(rows) == 7501 and rows[0] == {"step": "4", "elbo": "1.5", "validation_elbo": ""}
    assert rows[1]["validation_elbo"] == "-2" and rows[-1]["elbo"] == "30000" and rows[-1]["validation_elbo"] == "-1"


def test_a_recipe_that_someone_wrote_is_not_taken_for_a_failed_run(run, tmp_path):
    """Only a folder that a run left without any result may be used again unasked."""
    out, program = tmp_path / "run", run[0].program
    out.mkdir()
    (out / "recipe.toml").write_text("# mine")
    with pytest.raises(CheckpointError, match="already has a run"):
        ppdgm.fit(program, X, steps=3, progress=False, out=out)
    assert (out / "recipe.toml").read_text() == "# mine"
    (out / "status.json").write_text(json.dumps({"state": "failed", "step": 0}))
    assert ppdgm.fit(program, X, steps=3, progress=False, out=out).info["steps"] == 3
    with pytest.raises(CheckpointError, match="already has a run"):
        ppdgm.fit(program, X, steps=3, progress=False, out=out)


def test_an_old_runs_files_do_not_outlive_it(run, tmp_path):
    """Overwriting a run leaves none of its checkpoints, from which a resumed one would go on."""
    out = tmp_path / "run"
    shutil.copytree(run[1], out)
    (out / "notes.txt").write_text("mine")
    again = ppdgm.fit(run[0].program, X, steps=3, progress=False, out=out, overwrite=True)
    assert [f.name for f in (out / "checkpoints").iterdir()] == ["step-0000000003.safetensors"]
    assert (out / "notes.txt").read_text() == "mine" and ppdgm.load(out).info["steps"] == again.info["steps"] == 3


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomically(path, b"old")

    def crash(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="no space"):
        files.write_atomically(path, b"new and longer")
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
    assert (
        "is your own class. Give it" in unasked.stderr and "CheckpointError" in unasked.stderr
    )  # nothing is imported unasked
    with pytest.raises(CheckpointError, match=r"'decoder.layers.0.weight': got shape \(2, 4\), expected \(50, 200\)"):
        ppdgm.load(out, program=VAE(event_shape=(6,)))


def test_a_run_folder_cannot_name_just_any_code(run, tmp_path):
    """A stranger's folder, whole and consistent in itself."""
    out = run[0].save(tmp_path / "run")
    arrays, page = checkpoint.read_checkpoint(out / "weights.safetensors")
    for program in ("antigravity:fly", "os:system"):
        page["recipe"]["program"] = {"kind": program}
        (out / "weights.safetensors").write_bytes(checkpoint.pack(arrays, page))
        (out / "recipe.toml").write_text(tomli_w.dumps(page["recipe"]))
        with pytest.raises(CheckpointError, match="your own class"):
            ppdgm.load(out)
    assert "antigravity" not in sys.modules
    with pytest.raises(CheckpointError, match="not a spec"):
        ppdgm.load(out, classes=["os:system"])


@pytest.mark.parametrize("keep_best", [True, False])
def test_the_status_has_the_validation_elbo_of_the_parameters_that_the_run_gives(tmp_path, keep_best):
    x = np.random.default_rng(0).normal(size=(60, 2)).astype("float32")
    fit = ppdgm.fit(PPCA(event_shape=(2,), latent=1), x[:40], validation=x[40:], batch_size=10, steps=24,
                    learning_rate=1.0, keep_best=keep_best, progress=False, out=tmp_path / "a")  # fmt: skip
    held = fit.history["validation_elbo"]
    assert held.max() > held[-1] + 0.01  # the best is not the last
    shown = read_status(tmp_path / "a")["validation_elbo"]
    assert shown == pytest.approx(held.max() if keep_best else held[-1])
    assert shown == pytest.approx(ppdgm.load(tmp_path / "a").elbo(x[40:], k=1).mean, abs=1e-4)


def test_a_program_with_other_fields_is_refused(tmp_path):
    """It was trained and evaluated instead of the run's own, without a word."""
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    other = VAE(event_shape=(3,), latent=2, likelihood=Laplace(), encoder=MLP(hidden=(4,)))
    ppdgm.fit(other, x, steps=2, out=tmp_path / "vae", progress=False)
    changed = other.replace(encoder=MLP(hidden=(4,), activation="relu"))  # parameters of the same shapes
    for call in (
        lambda **how: ppdgm.load(tmp_path / "vae", **how),
        lambda **how: ppdgm.resume(tmp_path / "vae", x, steps=3, progress=False, **how),
    ):
        with pytest.raises(CheckpointError, match=r"program\.encoder\.activation: got 'relu', but the run has"):
            call(program=changed)
        assert call(program=other).program == other
