"""What does not fit in a plain Pyro pair is refused, with the site, the shapes and the fix (FIELD 24)."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro_runs import B, K, N, X, draw, log_weights, quiet, start, train, trainer_of

from ppdgm import SVI
from ppdgm.errors import ProgramError

__all__ = ["quiet"]  # a fixture around every test

normal = dist.Normal(0.0, 1.0)


def pair_of(model_body, guide_body=None, plate=lambda x: pyro.plate("data", x.shape[0])):
    """A pair from what is inside its data plates."""

    def draw_z(x):
        pyro.sample("z", dist.Normal(x[:, 0], pyro.param("s", torch.tensor(1.0))))

    def model(x):
        with plate(x):
            model_body(x)

    def guide(x):
        with plate(x):
            (guide_body or draw_z)(x)

    return model, guide


def observe(x):
    pyro.sample("x", dist.Normal(torch.zeros(X), 1.0).to_event(1), obs=x)


def simple(x):
    pyro.sample("z", normal)
    observe(x)


def no_event(x):
    pyro.sample("z", normal)
    pyro.sample("x", dist.Normal(torch.zeros(x.shape[0], X), 1.0), obs=x)


def no_event_of_width_one(x):
    pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], 1), 1.0))
    observe(x)


def wrong_net(x):
    pyro.sample("z", normal)
    pyro.sample("x", dist.Normal(torch.zeros(1), 1.0).to_event(1), obs=x)


def one_short(x):
    pyro.sample("z", normal)
    pyro.sample("x", dist.Normal(torch.zeros(X), 1.0).to_event(1), obs=x[:-1])


def inner_subsample(x):
    pyro.sample("z", normal)
    with pyro.plate("pixels", X, subsample_size=2, dim=-2) as i:
        pyro.sample("x", normal, obs=x[:, i].T)


pixels = pyro.plate("pixels", X, subsample=torch.tensor([1, 4]), dim=-2)


def inner_subsample_made_before(x):
    pyro.sample("z", normal)
    with pixels as i:
        pyro.sample("x", normal, obs=x[:, i].T)


def own_scale(x):
    with poutine.scale(scale=0.5):
        pyro.sample("z", normal)
    observe(x)


def twice(x):
    pyro.sample("z", normal)
    observe(x)
    observe(x)


def other_name(x):
    pyro.sample("latent", normal)
    observe(x)


def extra(x):
    pyro.sample("z", normal)
    pyro.sample("extra", normal)


def outside_model(x):
    pyro.sample("z", dist.Normal(torch.zeros(x.shape[0]), 1.0))
    with pyro.plate("data", x.shape[0]):
        observe(x)


def outside_guide(x):
    pyro.sample("z", dist.Normal(torch.zeros(x.shape[0]), pyro.param("s", torch.tensor(1.0))))


def half_outside_guide(x):
    pyro.sample("z", dist.Normal(0.0, pyro.param("s", torch.tensor(1.0))))


def sequential(x):
    for i in pyro.plate("data", x.shape[0]):
        pyro.sample(f"z{i}", normal)


def five(x):
    return pyro.plate("data", N, subsample_size=5)


no_plate = ProgramError, r"no plate 'data'.*Its plates: batch.*data_plate=…"
REFUSED = {
    "no such plate": (pair_of(simple, plate=lambda x: pyro.plate("batch", x.shape[0])), no_plate[1]),
    "a plate with its own indices": (
        pair_of(simple, plate=lambda x: pyro.plate("data", 50, subsample=torch.arange(5))),
        r"'data' has its own indices .*subsample_size=B",
    ),
    "a plate one by one": ((sequential, sequential), "'data' goes row by row"),
    "two minibatch sizes": (
        (pair_of(simple, plate=five)[0], pair_of(simple, plate=lambda x: pyro.plate("data", N, subsample_size=4))[1]),
        "Plate 'data' takes 5 rows at a time in the model, but 4 in the guide",
    ),
    "an inner plate that subsamples": (pair_of(inner_subsample), "'pixels' subsamples, but only the data plate"),
    "an inner plate that was made before": (
        pair_of(inner_subsample_made_before),
        "'pixels' subsamples, but only the data plate",
    ),
    "a scale of the user's": (pair_of(own_scale), r"'z' is scaled by 0.5 .*by 1 in the guide.*SVI\(beta=…\)"),
    "no to_event": (pair_of(no_event), rf"'x': got a distribution of batch shape \({N}, 6\).*add .to_event\(1\)"),
    "no to_event, width one": (
        pair_of(no_event_of_width_one),
        rf"'z': got a distribution of batch shape \({N}, {N}\).*to_event",
    ),
    "more dimensions than plates": (
        pair_of(lambda x: pyro.sample("z", dist.Normal(torch.zeros(1, 1, 1), 1.0))),
        rf"'z': got a distribution of batch shape \(1, 1, {N}\)",
    ),
    "a net's width": (
        pair_of(wrong_net),
        rf"'x': got data of shape \({N}, 6\).*events of shape \(1,\).*expected \({N}, 1\)",
    ),
    "too few observations": (pair_of(one_short), rf"'x': got data of shape \({N - 1}, 6\).*expected \({N}, 6\)"),
    "one name for two sites": (pair_of(twice), "'x' is drawn twice"),
    "another name in the guide": (
        pair_of(other_name),
        "'latent' is latent in the model, but the guide does not draw it",
    ),
    "more in the guide": (
        pair_of(simple, extra),
        "'extra' is drawn in the guide, but is not a latent site of the model",
    ),
    "outside the plate": (
        (outside_model, outside_guide),
        rf"'z' is outside the data plate, but its distribution has batch shape \({N},\).*\.to_event\(1\)",
    ),
    "outside in the guide": (
        (pair_of(simple)[0], half_outside_guide),
        "'z' is inside the data plate in the model, but outside it in the guide",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_the_fix(name):
    pair, message = REFUSED[name]
    with pytest.raises(ProgramError, match=f"(?s){message}"):
        start(pair, draw())


def test_the_users_own_errors_come_with_their_line():
    def model(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ProgramError, match=r"refused\.py:\d+, `raise.*`: mine \(ZeroDivisionError\)") as raised:
        start((model, model), draw())
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_draw_without_a_gradient_is_refused_where_one_is_insisted_on():
    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), torch.ones(X)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample(
                "z", dist.Bernoulli(pyro.param("p", torch.tensor(0.4), constraint=dist.constraints.unit_interval))
            )

    runtime, params, data = started = start((model, guide), draw())
    assert log_weights(runtime, params, data, np.arange(B), K).shape == (K, B)
    with pytest.raises(ProgramError, match="'z': Bernoulli is not reparameterised"):
        train(trainer_of(started, SVI(estimator="reparam")), 1, B)
    assert np.isfinite(train(trainer_of(started, SVI(k=2)), 3, B)["objective"]).all()


def test_a_parameter_that_appears_later_is_refused():
    def model(x):
        with pyro.plate("data", x.shape[0]):
            loc = pyro.param("late", torch.tensor(0.0)) if x.shape[0] < 4 else 0.0
            pyro.sample("z", dist.Normal(loc, 1.0))
            observe(x)

    runtime, params, data = start((model, pair_of(simple)[1]), draw())
    with pytest.raises(ProgramError, match="'late' did not exist when the pair was first run"):
        log_weights(runtime, params, data, np.arange(2), 1)


def test_values_of_draws_that_are_rounded_are_refused():
    """A straight-through draw carries the number before it was rounded, of which its density is."""

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), probs=torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), torch.ones(X)).to_event(1), obs=x)

    def guide(x):
        logits = pyro.param("logits", torch.tensor(0.4))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.RelaxedBernoulliStraightThrough(torch.tensor(0.7), logits=logits))

    runtime, params, data = start((model, guide), draw())
    found = runtime.trace(params, data, np.arange(B), K, 0, None, False)
    with pytest.raises(ProgramError, match="'z': RelaxedBernoulliStraightThrough rounds its draws"):
        runtime.trace(params, data, np.arange(B), K, 0, found.values, False)
