"""Whatever is handed in, it works, or one line says why not: never another error, never a warning."""

import contextlib
import io
import json
import sys
import tomllib
import warnings

import numpy as np
import pytest
from fuzz import KINDS, NAMES, attempt, damages, fuzzed, keys, values, words
from hypothesis import given
from hypothesis import strategies as st

import ppdgm
from ppdgm.cli import main
from ppdgm.cli.overrides import parse
from ppdgm.cli.programs import Chosen
from ppdgm.cli.training import complete
from ppdgm.data import Source
from ppdgm.errors import TrainingError
from ppdgm.inference import SVI, Cosine, Linear, Optimiser
from ppdgm.inference.runs.recipe import Recipe, read_recipe
from ppdgm.inference.runs.settings import Training
from ppdgm.models import MLP, VAE, ConvEncoder, Gaussian, Program
from ppdgm.specs import Spec, known_specs

# --- recipes ------------------------------------------------------------------------------------------------------

WHOLE = Recipe(
    VAE(event_shape=(8, 8), likelihood=Gaussian(scale="network"), encoder=ConvEncoder(norm="group", groups=2)),
    Training(steps=5, learning_rate=Cosine(peak=0.1, steps=5), optimiser=Optimiser(name="sgd"), weight_average=0.9),
    SVI(k=2, beta=Linear(steps=3)),
    "pyro",
    Source(name="digits", fields={"x": "x"}, validation=0.1, test=3),
).table()


def places(table, path=()):
    """The paths of everything in nested tables and lists."""
    inner = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    return [path for path in [path] if path] + [p for k, v in inner for p in places(v, (*path, k))]


@st.composite
def mutated(draw):
    """The whole recipe with one to three of its entries dropped, renamed, replaced, nested or doubled."""
    table = json.loads(json.dumps(WHOLE))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(table)))
        home = table
        for key in path:
            home = home[key]
        how = draw(st.sampled_from(["drop", "rename", "replace", "nest", "list", "swap"]))
        if how == "drop":
            del home[last]
        elif how == "rename" and isinstance(home, dict):
            home[draw(keys)] = home.pop(last)
        elif how == "nest":
            home[last] = {draw(keys): home[last]}
        elif how == "list":
            home[last] = [home[last], draw(values)]
        elif how == "swap":
            home[last] = draw(st.sampled_from([WHOLE["program"], WHOLE["engine"], WHOLE["training"], KINDS]))
            home[last] = json.loads(json.dumps(home[last]))
        else:
            home[last] = draw(values)
        if not table:
            break
    return table


def reads(table):
    """A recipe that can be read says the same when it is written and read again, and its program declares itself."""
    recipe = attempt(lambda: Recipe.from_table(table))
    if recipe is not None:
        assert Recipe.from_table(tomllib.loads(recipe.to_toml())) == recipe
        attempt(recipe.program.declarations)
    return recipe


@given(table=mutated())
@fuzzed(1500)
def test_changed_recipes(table):
    reads(table)


@given(table=st.dictionaries(keys, values, max_size=5))
@fuzzed(700)
def test_any_tables(table):
    reads(table)


@given(kind=st.sampled_from(KINDS), fields=st.dictionaries(keys, values, max_size=4))
@fuzzed(700)
def test_any_fields_of_any_kind(kind, fields):
    attempt(lambda: Spec.from_dict({"kind": kind, **fields}))
    cls = known_specs().get(kind)
    if cls is not None and not cls.__abstractmethods__:
        own = {name: fields.get(name, value) for name, value in zip(cls.model_fields, fields.values(), strict=False)}
        spec = attempt(lambda: cls(**own))
        if spec is not None and kind != "ForeignNet":
            assert Spec.from_json(spec.to_json()) == spec


TEXT = Recipe.from_table(WHOLE).to_toml().encode()


@given(changed=damages)
@fuzzed(300)
def test_any_bytes_in_a_recipe(changed, tmp_path):
    content = changed(TEXT)
    (tmp_path / "recipe.toml").write_bytes(content)
    table = attempt(lambda: read_recipe(tmp_path / "recipe.toml"))
    if table is not None:
        reads(table)
    attempt(lambda: Program.from_toml(content.decode(errors="replace")))
    attempt(lambda: Program.from_json(content.decode(errors="replace")))


# --- the command line ---------------------------------------------------------------------------------------------

one_line = lambda text: len(text.splitlines()) < 2  # others are joined where a message is shown
paths = st.lists(st.sampled_from([*NAMES, "", " ", "="]) | words, min_size=1, max_size=4).map(".".join).filter(one_line)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from([*KINDS, "true", "[1,", "{kind='Linear', steps=3}", "=", "'", '"', "[" * 3000, "9" * 5000]),
    values.map(repr),
    values.map(lambda value: json.dumps(value, default=str)),
)
assignments = st.builds("{}={}".format, paths, texts) | st.text(max_size=30).filter(one_line)


@given(settings=st.lists(assignments, min_size=1, max_size=3))
@fuzzed(800)
def test_any_settings(settings):
    chosen = Chosen({"program": {"kind": "VAE", "event_shape": [3]}})
    table = attempt(lambda: complete(chosen, [], [parse(s) for s in settings]))
    if table is not None:
        attempt(lambda: Recipe.from_table(table, chosen.classes, chosen.program, (3,)))


COMMANDS = ("fit", "resume", "evaluate", "sample", "runs", "models", "data", "new")
OPTIONS = (
    "--data", "--engine", "--backend", "--set", "--program", "--epochs", "--steps", "--batch-size", "--optimiser",
    "--learning-rate", "--binarise", "--early-stopping", "--seed", "--device", "--compile", "--no-compile", "--out",
    "--overwrite", "--tensorboard", "--wandb", "--quiet", "-q", "--json", "--help", "--version", "--split", "--k",
    "--n", "--memory", "--mean", "--name", "--checkpoint", "--", "--se", "-x", "---",
)  # fmt: skip
VALUES = (
    "vae", "ppca", "digits", "bits.npy", "run", "run/recipe.toml", "bits.npy:x", "x.npy", "x.py", "x.py:A", "x:A",
    "SVI", "pyro", "numpyro", "1", "0", "-1", "1.5", "nan", "1e400", "auto", "cpu", "cuda", "static", "test", "64MiB",
    "infMiB", "program.latent=3", "data.scale=unit", "training.steps=2", "engine.k=", "adam",
)  # fmt: skip
others = st.text(max_size=6).filter(lambda text: not set("/.~") & {*text})  # no other folders
tokens = st.sampled_from(VALUES) | st.sampled_from(OPTIONS) | others


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with data and a run; nothing is trained in it, drawn or downloaded."""
    folder = tmp_path_factory.mktemp("here")

    def stop(*_, **__):
        raise TrainingError("This far.")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        np.save("bits.npy", BITS)
        for name in ("history_picture", "samples_picture"):
            patch.setattr(f"ppdgm.plots.{name}", lambda *_: None)
        data = ppdgm.load_data("bits.npy", validation=0)
        ppdgm.fit(PROGRAM, data, **QUICK, checkpoint_steps=1, out="run")
        for name in ("fit", "resume", "load"):
            patch.setattr(ppdgm, name, stop)
        patch.setattr("urllib.request.urlopen", stop)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


BITS = (np.random.default_rng(0).random((20, 3)) < 0.5).astype("float32")
PROGRAM = VAE(event_shape=(3,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
QUICK = {"steps": 2, "backend": "pyro", "compile": False, "progress": False}


@given(command=st.sampled_from(COMMANDS), rest=st.lists(tokens, max_size=5))
@fuzzed(600)
def test_any_command_line(command, rest, here):
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["ppdgm", command, *rest])
        with pytest.raises(SystemExit) as done, warnings.catch_warnings():
            warnings.simplefilter("error")
            main()
    if done.value.code:
        assert done.value.code in (2, 3, 4, 5, 6), err.getvalue()
        *_, line = err.getvalue().splitlines()
        assert line.startswith("ppdgm: ") and "Traceback" not in err.getvalue()
        if "--json" in rest and "--" not in rest:
            assert json.loads(out.getvalue())["error"]["message"]
