"""`--set a.b=c`: values, paths and precedence, on tables; and the recipe that they make."""

import tomllib

import pytest

from ppdgm.cli.following import Flags
from ppdgm.cli.overrides import apply, parse
from ppdgm.cli.programs import Chosen, choose_program
from ppdgm.cli.training import complete, prepare_run
from ppdgm.errors import SpecError
from ppdgm.inference import SVI, Cosine, Linear, Optimiser
from ppdgm.inference.runs.recipe import Recipe
from ppdgm.models import IAF, MLP, PPCA, VAE, FlowPosterior, GatedMLP, Gaussian, VampPrior

VAE_TABLE = {"program": {"kind": "VAE", "event_shape": [3]}}
FLAGS = Flags(None, False, False, None, True, False, ["fit", "vae"])


def recipe_of(*settings, table=VAE_TABLE, given=()):
    chosen = Chosen(table)
    found = complete(chosen, list(given), [parse(s) for s in settings])
    return Recipe.from_table(found, chosen.classes, chosen.program, (3,))


# --- values --------------------------------------------------------------------------------------------------------

VALUES = {
    "a whole number": ("program.latent=16", lambda r: r.program.latent, 16),
    "spaces": (" program.latent = 16 ", lambda r: r.program.latent, 16),
    "a list": ("program.encoder.hidden=[400, 300]", lambda r: r.program.encoder.hidden, (400, 300)),
    "a tuple, as in Python": ("program.encoder.hidden=(400,)", lambda r: r.program.encoder.hidden, (400,)),
    "a list without brackets": ("program.encoder.hidden=400,300", lambda r: r.program.encoder.hidden, (400, 300)),
    "a list of one": ("program.encoder.hidden=400", lambda r: r.program.encoder.hidden, (400,)),
    "no layers": ("program.encoder.hidden=[]", lambda r: r.program.encoder.hidden, ()),
    "a bare word": ("program.encoder.activation=relu", lambda r: r.program.encoder.activation, "relu"),
    "a word in quotes": ('program.encoder.activation="relu"', lambda r: r.program.encoder.activation, "relu"),
    "a number": ("training.learning_rate=1e-4", lambda r: r.training.learning_rate, 1e-4),
    "a number, as in Python": ("training.learning_rate=.5", lambda r: r.training.learning_rate, 0.5),
    "a whole number for a number": ("training.learning_rate=1", lambda r: r.training.learning_rate, 1.0),
    "true": ("training.compile=true", lambda r: r.training.compile, True),
    "True": ("training.compile=True", lambda r: r.training.compile, True),
    "a word beside true and false": ("training.compile=auto", lambda r: r.training.compile, "auto"),
    "none where it is a value": ("training.clip_norm=none", lambda r: r.training.clip_norm, None),
    "none where it is a word": ("training.binarise=none", lambda r: r.training.binarise, "none"),
    "a name that looks like a number": ("data.name=2024", lambda r: r.data.name, "2024"),
    "a name with an equals sign": ("data.name=a=b.csv", lambda r: r.data.name, "a=b.csv"),
    "a table": (
        'engine.beta={kind="Linear", steps=100}',
        lambda r: r.engine.beta,
        Linear(steps=100),
    ),
    "a kind by its name": ("program.likelihood=Gaussian", lambda r: r.program.likelihood, Gaussian()),
    "an optimiser's name": ("training.optimiser=sgd", lambda r: r.training.optimiser, "sgd"),
    "a field of an optimiser": (
        "training.optimiser.kind=Optimiser",
        lambda r: r.training.optimiser,
        Optimiser(),
    ),
    "fields of data": (
        'data.fields={x=["a", "b"], label="c"}',
        lambda r: r.data.fields,
        (("x", ("a", "b")), ("label", "c")),
    ),
    "names of fields": ("data.fields=x,label", lambda r: r.data.fields, (("x", "x"), ("label", "label"))),
    "a backend": ("backend=pyro", lambda r: r.backend, "pyro"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values(case):
    setting, get, expected = VALUES[case]
    found = get(recipe_of(setting))
    assert found == expected and type(found) is type(expected)


# --- paths ---------------------------------------------------------------------------------------------------------


def test_a_field_of_a_default_makes_its_table():
    program = recipe_of("program.encoder.activation=relu").program
    assert program == VAE(event_shape=(3,), encoder=MLP(activation="relu"))  # the default's other fields stay


def test_a_field_of_what_the_recipe_has():
    table = {"program": {**VAE_TABLE["program"], "encoder": {"kind": "GatedMLP", "hidden": [7]}}}
    assert recipe_of("program.encoder.activation=relu", table=table).program.encoder == GatedMLP(
        hidden=(7,), activation="relu"
    )
    assert table["program"]["encoder"] == {"kind": "GatedMLP", "hidden": [7]}  # the recipe itself stays


def test_another_kind_starts_with_its_own_defaults():
    table = {"program": {**VAE_TABLE["program"], "encoder": {"kind": "MLP", "hidden": [7], "activation": "relu"}}}
    assert recipe_of("program.encoder.kind=GatedMLP", table=table).program.encoder == GatedMLP()
    assert recipe_of("program.encoder.kind=MLP", table=table).program.encoder == MLP(hidden=(7,), activation="relu")


def test_the_kind_comes_first_whatever_the_order():
    settings = (
        "training.learning_rate.peak=0.01",
        "training.learning_rate.steps=9",
        "training.learning_rate.kind=Cosine",
    )
    assert recipe_of(*settings).training.learning_rate == Cosine(peak=0.01, steps=9)
    assert recipe_of("program.posterior=exact", "program.kind=PPCA").program.posterior == "exact"


def test_a_part_comes_before_its_fields_whatever_the_order():
    settings = ("program.posterior.flow.depth=3", "program.posterior.flow=IAF", "program.posterior=FlowPosterior")
    assert recipe_of(*settings).program.posterior == FlowPosterior(flow=IAF(depth=3))


def test_text_in_a_table_is_the_name_of_a_part():
    table = {"program": {**VAE_TABLE["program"], "prior": "VampPrior"}}
    assert recipe_of(table=table).program.prior == VampPrior()
    with pytest.raises(SpecError, match=r"Unknown kind 'VampPrio'\. Did you mean 'VampPrior'"):
        recipe_of(table={"program": {**VAE_TABLE["program"], "prior": "VampPrio"}})


def test_a_table_by_hand_needs_no_kind_where_its_field_has_a_default():
    table = tomllib.loads("""
        [program]
        kind = "VAE"
        event_shape = [3]
        encoder = {hidden = [5]}
        [engine]
        k = 3
        [data]
        name = "digits"
        [data.fields]
        x = "x"
        [training]
        steps = 5
    """)
    recipe = Recipe.from_table(table)
    assert recipe.program == VAE(event_shape=(3,), encoder=MLP(hidden=(5,)))
    assert recipe.engine == SVI(k=3) and recipe.data.fields == (("x", "x"),)
    assert Recipe.from_table(recipe.table()) == recipe


WRONG = {
    "no value": ("program.latent", ["expected PATH=VALUE"]),
    "no path": ("=3", ["expected PATH=VALUE"]),
    "no such table": ("prog.latent=3", ["Did you mean 'program'?"]),
    "a whole table": ("program=3", ["expected the field of a table"]),
    "a field of the backend": ("backend.x=3", ["expected the field of a table"]),
    "no such field": ("program.latnet=3", ["program.latnet: VAE has no field 'latnet'", "Did you mean 'latent'?"]),
    "a field of another table": ("scale=unit", ["a recipe has no 'scale'. There is data.scale=…"]),
    "a field of another": ("training.scale=unit", ["Training has no field 'scale'", "There is data.scale=…"]),
    "a field of a part": ("program.hidden=[3]", ["program.encoder.hidden=… or program.decoder.hidden=…."]),
    "a field of the program": ("training.latent=3", ["There is program.latent=…."]),
    "no such inner field": ("program.encoder.hiden=[3]", ["MLP has no field 'hiden'", "Did you mean 'hidden'?"]),
    "no such kind": ("program.encoder.kind=MPL", ["'MPL'", "Did you mean 'MLP'?"]),
    "below a plain value": ("program.latent.x=3", ["program.latent is a plain value", "--set program.latent=VALUE"]),
    "below a number": ("engine.beta.steps=5", ["engine.beta is 1.0", "--set engine.beta.kind=NAME", "Linear"]),
    "below nothing": ("training.learning_rate.peak=1", ["not given", "training.learning_rate.kind=NAME", "Cosine"]),
    "an empty kind": ("program.encoder.kind=", ["the name of a class"]),
    "a wrong value": ("program.latent=many", ["VAE.latent", "'many'"]),
    "another family": ("program.prior.kind=Bernoulli", ["VAE.prior", "a Prior"]),
    "dates": ("program.latent=2024-01-01", ["VAE.latent", "'2024-01-01'"]),
    "not finite": ("training.learning_rate=nan", ["learning_rate"]),
    "two values in one": ("program.latent=3\ntraining.seed=4", ["VAE.latent"]),
    "nested without end": ("program.latent=" + "[" * 5000, ["VAE.latent"]),
    "an empty path": ("program..latent=3", ["VAE has no field ''"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(case):
    setting, words = WRONG[case]
    with pytest.raises(SpecError) as raised:
        recipe_of(setting)
    for word in words:
        assert word in str(raised.value)


# --- precedence ----------------------------------------------------------------------------------------------------


def test_defaults_then_recipe_then_flags_then_set():
    table = {**VAE_TABLE, "training": {"seed": 1, "batch_size": 2, "epochs": 3}}
    flags = [("training.seed", 10), ("training.batch_size", 20)]
    training = recipe_of("training.seed=100", table=table, given=flags).training
    assert (training.seed, training.batch_size, training.epochs, training.max_skipped) == (100, 20, 3, 10)


def test_steps_take_the_place_of_epochs():
    table = {**VAE_TABLE, "training": {"epochs": 3}}
    for found in (
        recipe_of("training.steps=5", table=table),
        recipe_of(table=table, given=[("training.steps", 5)]),
        recipe_of("training.steps=5", table=table, given=[("training.epochs", 7)]),
    ):
        assert (found.training.steps, found.training.epochs) == (5, None)
    with pytest.raises(SpecError, match="--epochs and --steps"):
        recipe_of(given=[("training.steps", 5), ("training.epochs", 5)])
    assert recipe_of().training.epochs == 100 and recipe_of().data.name == "digits"


def test_other_data_leave_what_was_found_from_those_before():
    table = {
        **VAE_TABLE,
        "data": {"name": "digits", "scale": "unit", "binarise": "dynamic", "seed": 5},
        "training": {"binarise": "dynamic"},
    }
    other = complete(Chosen(table), [("data.name", "mnist")], [])
    assert other["data"] == {"name": "mnist", "seed": 5}  # scale and binarisation are the set's own again
    assert "event_shape" not in other["program"] and "binarise" not in other["training"]
    kept = complete(Chosen(table), [], [("program.latent", "3")])
    assert kept["data"] == table["data"] and kept["program"]["event_shape"] == [3]
    said = complete(Chosen(table), [("data.name", "mnist")], [("data.scale", "levels"), ("program.event_shape", "[4]")])
    assert said["data"]["scale"] == "levels" and said["program"]["event_shape"] == [4]
    files = {**VAE_TABLE, "data": {"name": "a.csv", "scale": "standardise"}}
    assert complete(Chosen(files), [("data.name", "b.csv")], [])["data"]["scale"] == "standardise"


def test_draws_that_the_recipe_asks_for_stay_unless_the_data_brought_them():
    table = {**VAE_TABLE, "data": {"name": "a.npy"}, "training": {"binarise": "dynamic"}}
    for given in ([("data.seed", 3)], [("data.name", "b.npy")], [("data.scale", "unit")]):
        assert complete(Chosen(table), given, [])["training"]["binarise"] == "dynamic"
    for given in ([("data.binarise", "static")], [("data.binarise", "dynamic")]):
        assert "binarise" not in complete(Chosen(table), given, [])["training"]


def test_the_shape_comes_from_the_data():
    chosen = choose_program("PPCA")
    recipe, data = prepare_run(chosen, complete(chosen, [], []))
    assert recipe.program == PPCA(event_shape=(8, 8)) and data.event_shape == (8, 8)


RECIPES = {
    "not a table": ({"program": 3}, ["program: got 3, expected a table [program]"]),
    "no program": ({"training": {"epochs": 3}}, ["kind"]),
    "another key": ({**VAE_TABLE, "trainig": {}}, ["'trainig'", "Did you mean 'training'?"]),
    "a newer format": ({**VAE_TABLE, "format": 99}, ["format 99", "Update ppdgm"]),
    "an older format": ({**VAE_TABLE, "format": 1}, ["format 1", "older"]),
    "no backend": ({**VAE_TABLE, "backend": ["pyro"]}, ["backend: got ['pyro']"]),
    "a kind that is no text": ({"program": {"kind": "VAE", "prior": {"kind": 3}}}, ["program.prior.kind: got 3"]),
    "a kind deep within": ({**VAE_TABLE, "training": {"optimiser": [{"kind": []}]}}, ["optimiser.kind: got []"]),
    "not a program": ({"program": {"kind": "MLP"}}, ["Got a MLP, expected a Program"]),
    "a wrong inner field": ({"program": {**VAE_TABLE["program"], "encoder": {"x": 1}}}, ["MLP has no field 'x'"]),
    "a pair": ({"program": {"kind": "plain:pyro"}}, ["plain pair"]),
}


@pytest.mark.parametrize("case", RECIPES)
def test_recipes_that_can_not_be_read(case):
    table, words = RECIPES[case]
    with pytest.raises(SpecError) as raised:
        Recipe.from_table(table)
    for word in words:
        assert word in str(raised.value)


def test_tables_are_copied():
    table = {"program": {"kind": "VAE", "encoder": {"kind": "MLP", "hidden": [3]}}}
    changed = apply(table, [("program.encoder.hidden", "[4]")], [])
    assert table["program"]["encoder"]["hidden"] == [3] and changed["program"]["encoder"]["hidden"] == [4]
