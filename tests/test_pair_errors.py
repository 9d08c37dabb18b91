"""What is wrong with a user's own Pyro or NumPyro pair is said in one line; one text for both libraries."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import numpyro.infer.autoguide as numpyro_guides
import pyro
import pyro.distributions as pyro_dist
import pyro.infer.autoguide as pyro_guides
import pytest
import torch

import ppdgm
from ppdgm import Program
from ppdgm.errors import PpdgmError

N, B = 20, 5
X = (np.random.default_rng(0).random((N, 6)) < 0.4).astype("float32")
WEIGHT = np.random.default_rng(1).normal(size=(2, 6)).astype("float32")


def library(module, dist, xp, array, guides):
    def param(name, value):
        return module.param(name, array(value))

    return SimpleNamespace(
        name=module.__name__, plate=module.plate, sample=module.sample, dist=dist, xp=xp, array=array, param=param,
        guides=guides, from_pair=getattr(Program, f"from_{module.__name__}"),
    )  # fmt: skip


LIBRARIES = {
    "numpyro": library(numpyro, numpyro_dist, jnp, jnp.asarray, numpyro_guides),
    "pyro": library(pyro, pyro_dist, torch, lambda v: torch.tensor(v), pyro_guides),
}
MISTAKES = {}


def says(*words, on=tuple(LIBRARIES)):
    """The pair that the function makes gives an error with all these words; other libraries train it."""

    def register(make):
        MISTAKES[make.__name__] = make, words, on
        return make

    return register


def prior(lib):
    return lib.dist.Normal(lib.xp.zeros(2), 1.0).to_event(1)


def likelihood(lib, z):
    return lib.dist.Bernoulli(logits=z @ lib.array(WEIGHT)).to_event(1)


def posterior(lib, x):
    return lib.dist.Normal(x @ lib.param("a", WEIGHT.T.copy()), 0.5).to_event(1)


def in_plate(lib, statements, name="data", size=None, part=None):
    def function(x):
        with lib.plate(name, size or x.shape[0], subsample_size=part) as i:
            statements(lib, x[i] if part else x)

    return function


def draw(lib, x):
    lib.sample("x", likelihood(lib, lib.sample("z", prior(lib))), obs=x)


def guess(lib, x):
    lib.sample("z", posterior(lib, x))


def pair(lib, model=draw, guide=guess, **plate):
    return in_plate(lib, model, **plate), in_plate(lib, guide, **plate)


# --- plates -----------------------------------------------------------------------------------------------------------


@says("'z'", "outside", "plate('data', x.shape[0])")
def guide_without_plate(lib):
    return pair(lib)[0], lambda x: guess(lib, x)


@says("plate", "'data'")
def no_plates(lib):
    return lambda x: draw(lib, x), lambda x: guess(lib, x)


@says("'z' is inside the data plate in the model, but outside it in the guide", "plate('data', x.shape[0])", "in both")
def guide_draws_once_for_all(lib):
    once = lambda x: lib.sample("z", lib.dist.Normal(lib.param("a", np.zeros(2, "float32")), 1.0).to_event(1))
    return pair(lib)[0], once


@says("'z' is inside the data plate in the guide, but outside it in the model", "plate('data', x.shape[0])", "in both")
def model_draws_once_for_all(lib):
    def model(x):
        z = lib.sample("z", prior(lib))
        with lib.plate("data", x.shape[0]):
            lib.sample("x", likelihood(lib, z), obs=x)

    return model, pair(lib)[1]


@says("lates: ", "batch", "data_plate=…")
def other_plate(lib):
    return pair(lib, name="batch")


@says("'z' is inside the data plate in the model, but outside it in the guide", "The plates there: 'batch'")
def other_plate_in_the_guide(lib):
    return pair(lib)[0], pair(lib, name="batch")[1]


@says("Plate 'data' takes 5 rows at a time in the model, but 20 in the guide", "the same subsample_size in both")
def guide_takes_all_data(lib):
    return pair(lib, size=N, part=B)[0], pair(lib, size=N)[1]


@says("Plate 'data' takes 20 rows at a time in the model, but 5 in the guide")
def model_takes_all_data(lib):
    return pair(lib, size=N)[0], pair(lib, size=N, part=B)[1]


@says("Plate 'data' takes 5 rows at a time in the model, but 4 in the guide")
def two_minibatch_sizes(lib):
    return pair(lib, size=N, part=B)[0], pair(lib, size=N, part=4)[1]


@says("'z': got a distribution of batch shape (20,)", "plate 'data' takes 5 of 20", "as i:` and x[i]")
def guide_forgets_the_indices(lib):
    def guide(x):
        with lib.plate("data", N, subsample_size=B):
            guess(lib, x)

    return pair(lib, size=N, part=B)[0], guide


@says("minibatches of 50", "20 rows")
def minibatch_larger_than_the_data(lib):
    return pair(lib, size=N, part=50)


# --- shapes -----------------------------------------------------------------------------------------------------------


@says("'z': got a distribution of batch shape (2,)", "plates: 'data' (", "at dim -1)", "add .to_event(1)")
def prior_without_event(lib):
    def model(lib, x):
        lib.sample("x", likelihood(lib, lib.sample("z", lib.dist.Normal(lib.xp.zeros(2), 1.0))), obs=x)

    return pair(lib, model)


@says("'z': got a distribution of batch shape (", ", 2)", "add .to_event(1)")
def guide_without_event(lib):
    return pair(lib, guide=lambda lib, x: lib.sample("z", lib.dist.Normal(x @ lib.param("a", WEIGHT.T.copy()), 0.5)))


@says("'x': got data of shape (", ", 6)", "Check .to_event(n)")
def likelihood_with_an_event_too_many(lib):
    def model(lib, x):
        logits = lib.sample("z", prior(lib)) @ lib.array(WEIGHT)
        lib.sample("x", lib.dist.Bernoulli(logits=logits).to_event(2), obs=x)

    return pair(lib, model)


@says("'z': got", "from the guide", "events of shape (2,)", "heck .to_event(n)")
def guide_with_an_event_too_many(lib):
    wide = lambda lib, x: lib.sample("z", lib.dist.Normal(x @ lib.param("a", WEIGHT.T.copy()), 0.5).to_event(2))
    return pair(lib, guide=wide)


@says("'x': got data of shape (", "events of shape (5,)", "expected (")
def decoder_too_narrow(lib):
    def model(lib, x):
        logits = lib.sample("z", prior(lib)) @ lib.array(WEIGHT[:, :5])
        lib.sample("x", lib.dist.Bernoulli(logits=logits).to_event(1), obs=x)

    return pair(lib, model)


@says("test_pair_errors.py:", "@ lib.array(WEIGHT.T)`", "shape")
def decoder_of_other_latents(lib):
    def model(lib, x):
        logits = lib.sample("z", prior(lib)) @ lib.array(WEIGHT.T)
        lib.sample("x", lib.dist.Bernoulli(logits=logits).to_event(1), obs=x)

    return pair(lib, model)


@says("'x': got data of shape (6,)", "expected (")
def one_datum_for_all(lib):
    return pair(lib, lambda lib, x: lib.sample("x", likelihood(lib, lib.sample("z", prior(lib))), obs=x[0]))


# --- sites ------------------------------------------------------------------------------------------------------------


@says("'z' has obs=… in the guide", "Remove obs=…")
def guide_observes_its_latent(lib):
    return pair(lib, guide=lambda lib, x: lib.sample("z", posterior(lib, x), obs=x[:, :2]))


@says("'x' has obs=… in the guide")
def guide_observes_the_data(lib):
    def guide(lib, x):
        lib.sample("x", likelihood(lib, lib.sample("z", posterior(lib, x))), obs=x)

    return pair(lib, guide=guide)


@says("'z' is drawn twice")
def model_draws_twice(lib):
    return pair(lib, lambda lib, x: (lib.sample("z", prior(lib)), draw(lib, x)))


@says("'z' is latent in the model, but the guide does not draw it", "Did you mean 'Z'?")
def guide_slips_in_a_name(lib):
    return pair(lib, guide=lambda lib, x: lib.sample("Z", posterior(lib, x)))


@says("'z': the guide draws values outside the support of Bernoulli", "the same support in both")
def prior_of_another_support(lib):
    def model(lib, x):
        z = lib.sample("z", lib.dist.Bernoulli(probs=lib.xp.full((2,), 0.5)).to_event(1))
        lib.sample("x", likelihood(lib, z), obs=x)

    return pair(lib, model)


@says("xpected a", "istribution")
def guide_that_samples_an_array(lib):
    return pair(lib, guide=lambda lib, x: lib.sample("z", x @ lib.param("a", WEIGHT.T.copy())))


# --- Python, and what is in no program --------------------------------------------------------------------------------


@says("`if x.sum() > 0:`", "jax.numpy.where(…) instead of a Python `if`", on=("numpyro",))
def guide_asks_for_a_value(lib):
    def guide(lib, x):
        if x.sum() > 0:
            guess(lib, x)

    return pair(lib, guide=guide)


@says("The guide changes its data in place", on=("pyro",))
def guide_writes_into_the_data(lib):
    def guide(lib, x):
        x *= 1.0
        guess(lib, x)

    return pair(lib, guide=guide)


@says("`raise ZeroDivisionError(", "mine (ZeroDivisionError).")
def guide_raises(lib):
    def guide(lib, x):
        raise ZeroDivisionError("mine\nand more")

    return pair(lib, guide=guide)


@says("The guide ", "missing a required argument: 'y'", "ame")
def guide_of_other_fields(lib):
    return pair(lib)[0], lambda x, y: None


@says("no parameters", "pyro.param")
def nothing_to_train(lib):
    return pair(lib, guide=lambda lib, x: lib.sample("z", lib.dist.Normal(x[:, :2], 1.0).to_event(1)))


@says("from_numpyro(model, guide)", on=("pyro",))
def pair_of_numpyro(lib):
    return pair(LIBRARIES["numpyro"])


@says("AutoDiagonalNormal, draws the latents of all data as one vector", "Use AutoNormal")
def autoguide_in_one_vector(lib):
    model = pair(lib, size=N, part=B)[0]
    return model, lib.guides.AutoDiagonalNormal(model)


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_said_in_one_line(name, backend):
    (make, words, on), lib = MISTAKES[name], LIBRARIES[backend]
    train = lambda: ppdgm.fit(lib.from_pair(*make(lib)), X, steps=1, progress=False)
    if backend not in on:
        assert np.isfinite(train().history["elbo"]).all()
        return
    with pytest.raises(PpdgmError) as raised:
        train()
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)
