"""The recipes of published tables: each opens as it stands, starts, and says only numbers that were measured."""

import re
from pathlib import Path

import numpy as np
import pytest

import ppdgm
from ppdgm.inference import Recipe
from ppdgm.inference.runs.recipe import read_recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
ROWS = {None: 50_000, 0: 60_000}  # MNIST's training images, by the recipe's `validation`


def told(path):
    """The lines of a recipe's head: Table, Published, Expected, Cost, Command."""
    return dict(re.findall(r"^# (\w+): (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE))


def opened(path):
    return Recipe.from_table(read_recipe(path), event_shape=(28, 28))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_opens_and_its_schedule_ends_with_it(path):
    recipe = opened(path)
    training, rows = recipe.training, ROWS[recipe.data.validation]
    assert training.learning_rate.steps == training.epochs * -(-rows // training.batch_size)
    assert recipe.data.name == "mnist" and training.seed == 0


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if p.stem in ("burda_iwae", "zoo_iaf", "zoo_vamp")], ids=lambda p: p.stem
)
def test_a_recipe_starts(path):
    recipe = opened(path)
    engine = recipe.engine.replace(beta=1.0) if hasattr(recipe.engine, "beta") else recipe.engine
    x = np.random.default_rng(0).random((600, 28, 28)).astype("float32")
    fit = ppdgm.fit(recipe.program, x, engine=engine, steps=1, batch_size=20, binarise="dynamic", progress=False)
    assert fit.info["steps"] == 1 and np.isfinite(fit.history["elbo"]).all()


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipes_numbers_were_measured(path):
    said = told(path)
    assert list(said) == ["Table", "Published", "Expected", "Cost", "Command"]
    assert said["Command"].startswith(
        f"ppdgm fit recipes/{path.name} --out runs/{path.stem} && ppdgm evaluate runs/{path.stem}"
    )
    measured = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").replace("−", "-")
    measured += (ROOT / "benchmarks" / "results" / "zoo_mnist.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\d+\.\d\d", said["Expected"])
    assert numbers and all(number in measured for number in numbers)


def test_the_page_of_recipes_says_the_same():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for path in RECIPES:
        said = told(path)
        assert f"| `{path.name}` | {said['Table'].rstrip('.')} | {said['Published']} | {said['Expected']} |" in page
