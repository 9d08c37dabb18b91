"""FIELD rows 23 and 24: what is wrong with a user's own program is said in one line, with site, shapes and remedy.

Each mistake is one changed method of a program that is right, met as users meet it: through `ppdgm.fit`.
"""

import numpy as np
import pytest
from mistakes import BOTH, Mistakes, Right, X, normal

import ppdgm
from ppdgm.models import MLP, StandardNormal

MISTAKES = Mistakes()
says = MISTAKES.says


# --- plates -----------------------------------------------------------------------------------------------------------


@says("'z' is outside the data plate", "batch shape (3,)", "Draw it inside `with P.plate(…):`", ".to_event(1)")
def guide_without_plate(self, P, x):
    P.sample("z", self.posterior(P, x))


@says("'z' is outside the data plate", "(2, 3, 4)", "inside", "expected (2, 1, 4)", "in both guide and model")
def model_without_plate(self, P, x):
    z = P.sample("z", self.prior(P))
    P.sample("x", self.likelihood(P, z), obs=x)


@says("'z' is outside the data plate", "drawn inside it", "in both guide and model")
def model_draws_outside(self, P, x):
    z = P.sample("z", self.prior(P))
    with P.plate("data", x):
        P.sample("x", self.likelihood(P, z), obs=x)


@says("'z' is inside the data plate", "(2, 1, 4)", "drawn outside it", "expected (2, 3, 4)")
def guide_draws_once_for_all(self, P, x):
    P.sample("z", P.dist.Normal(P.param("loc"), P.full((4,), 1.0)).to_event(1))


@says("'x' is outside the data plate", "batch shape (2, 3)", "Draw it inside `with P.plate(…):`.")
def model_observes_outside(self, P, x):
    with P.plate("data", x):
        z = P.sample("z", self.prior(P))
    P.sample("x", self.likelihood(P, z), obs=x)


@says("'first'", "data of shape (3,)", "one event for all data", "Observe it inside `with P.plate(…):`")
def model_observes_a_column_outside(self, P, x):
    P.sample("first", P.dist.Normal(P.full((), 0.0), P.full((), 1.0)), obs=x[:, 0])
    Right.model(self, P, x)


@says("'z' is outside the data plate")
def guide_does_not_enter_its_plate(self, P, x):
    P.plate("data", x)
    P.sample("z", self.posterior(P, x))


@says("Plate 'data': got 3, expected the data themselves", "P.plate('data', x)")
def guide_plate_of_a_size(self, P, x):
    with P.plate("data", x.shape[0]):
        P.sample("z", self.posterior(P, x))


@says("Plate 'data': got data of 6 rows, expected 3")
def model_plate_over_the_features(self, P, x):
    with P.plate("data", x[0]):
        P.sample("z", self.prior(P))


@says("Plate 'data': got data of 2 rows, expected 3")
def model_drops_a_row(self, P, x):
    with P.plate("data", x[:-1]):
        z = P.sample("z", self.prior(P))
        P.sample("x", self.likelihood(P, z), obs=x[:-1])


@says("P.plate() missing", "'data'", 'with P.plate("data", x):')
def guide_plate_without_data(self, P, x):
    with P.plate("data"):
        pass


@says("Plate 'pixels' is inside another", ".to_event(n)")
def model_plate_in_a_plate(self, P, x):
    with P.plate("data", x):
        z = P.sample("z", self.prior(P))
        with P.plate("pixels", x):
            P.sample("x", self.likelihood(P, z), obs=x)


@says("A plate is not a loop", "with P.plate(name, x):")
def guide_loops_over_a_plate(self, P, x):
    for _ in P.plate("data", x):
        pass


# --- shapes -----------------------------------------------------------------------------------------------------------


@says("'z'", "batch shape (3, 4)", "[K, B] = (2, 3)", "add .to_event(1)")
def posterior_without_event(self, P, x):
    return normal(P, P.net("encoder")(x))


@says("'z'", "batch shape (4,)", "[K, B] = (2, 3)", "add .to_event(1)")
def prior_without_event(self, P):
    return P.dist.Normal(P.full((4,), 0.0), P.full((4,), 1.0))


@says("'x'", "batch shape (2, 3, 6)", "[K, B] = (2, 3)", "add .to_event(1)")
def likelihood_without_event(self, P, z):
    return P.dist.Bernoulli(logits=P.net("decoder")(z))


@says("'x'", "batch shape (2,)", "events of shape (3, 6) contain the dimension of the data", "make it .to_event(1)")
def likelihood_with_an_event_too_many(self, P, z):
    return P.dist.Bernoulli(logits=P.net("decoder")(z)).to_event(2)


@says(
    "'z'",
    "(2, 3, 3, 4) from the guide",
    "expected [K, B, *event] = (2, 3, 4)",
    "use a smaller n (by 1) in its .to_event(n)",
)
def posterior_with_an_event_too_many(self, P, x):
    return normal(P, P.net("encoder")(x)).to_event(2)


@says("'z'", "batch shape (2,)", "index from the right: h[..., 0, :]")
def posterior_indexed_from_the_left(self, P, x):
    h = P.net("encoder")(x)
    return P.dist.Normal(h[0], P.softplus(h[1])).to_event(1)


@says("'z'", "(2, 3, 2) from the guide", "events of shape (4,)", "the latent's width in both")
def posterior_indexed_along_the_width(self, P, x):
    h = P.net("encoder")(x)
    return P.dist.Normal(h[..., 0], P.softplus(h[..., 1])).to_event(1)


@says("'z'", "(2, 3, 1) from the guide", "events of shape (4,)", "(2, 3, 4)")
def posterior_that_would_broadcast(self, P, x):
    return P.dist.Normal(x[..., :1], P.full((1,), 1.0)).to_event(1)


@says("'z'", "(2, 3, 4) from the guide", "events of shape (3,)", "expected [K, B, *event] = (2, 3, 3)")
def prior_of_another_width(self, P):
    return P.dist.Normal(P.full((3,), 0.0), P.full((3,), 1.0)).to_event(1)


@says("'x'", "data of shape (3, 6)", "events of shape (5,)", "expected (3, 5)", "the net's output")
def build_decoder_too_narrow(self, c):
    c.net("decoder", MLP(hidden=(8,)), (4,), (5,))
    c.net("encoder", MLP(hidden=(8,)), (6,), (2, 4), label="guide")


@says("Net 'decoder': got an array of shape (2, 3, 4), expected […, 3] as declared in build()")
def build_decoder_of_other_latents(self, c):
    c.net("decoder", MLP(hidden=(8,)), (3,), (6,))
    c.net("encoder", MLP(hidden=(8,)), (6,), (2, 4), label="guide")


@says("Net 'encoder': got an array of shape (3, 6), expected […, 2, 3]")
def build_encoder_of_images(self, c):
    c.net("decoder", MLP(hidden=(8,)), (4,), (6,))
    c.net("encoder", MLP(hidden=(8,)), (2, 3), (2, 4), label="guide")


@says("'x'", "data of shape (3, 2)", "events of shape (6,)", "expected (3, 6)")
def model_observes_two_columns(self, P, x):
    with P.plate("data", x):
        P.sample("x", self.likelihood(P, P.sample("z", self.prior(P))), obs=x[:, :2])


@says("'x'", "data of shape (6,)", "one for each of 3 rows", "expected (3, 6)")
def model_observes_one_datum_in_all(self, P, x):
    with P.plate("data", x):
        P.sample("x", self.likelihood(P, P.sample("z", self.prior(P))), obs=x[0])


# --- sites ------------------------------------------------------------------------------------------------------------


@says("'z' is latent in the model, but the guide does not draw it", "The guide draws: none", "obs=…")
def guide_is_empty(self, P, x):
    pass


@says("'z' is latent in the model", "Did you mean 'Z'?")
def guide_slips_in_a_name(self, P, x):
    with P.plate("data", x):
        P.sample("Z", self.posterior(P, x))


@says("'w' is drawn in the guide, but is not a latent site of the model", "The latents of the model: z")
def guide_draws_one_too_many(self, P, x):
    Right.guide(self, P, x)
    with P.plate("data", x):
        P.sample("w", self.posterior(P, x))


@says("'z' is drawn twice", "its own name")
def model_draws_twice(self, P, x):
    with P.plate("data", x):
        P.sample("z", self.prior(P))
        P.sample("z", self.prior(P))


@says("'z' is drawn twice")
def guide_names_a_function_like_its_latent(self, P, x):
    Right.guide(self, P, x)
    P.deterministic("z", x)


@says("'z' has obs=… in the guide", "Remove obs=…")
def guide_observes_its_latent(self, P, x):
    with P.plate("data", x):
        P.sample("z", self.posterior(P, x), obs=x[:, :4])


@says("'x' has obs=… in the guide", "in the model")
def guide_observes_the_data(self, P, x):
    Right.guide(self, P, x)
    with P.plate("data", x):
        P.sample("x", P.dist.Bernoulli(logits=x).to_event(1), obs=x)


@says("'x' is latent in the model", "give it obs=… in the model")
def model_without_obs(self, P, x):
    with P.plate("data", x):
        P.sample("x", self.likelihood(P, P.sample("z", self.prior(P))))


@says("no observed site", "obs=…")
def model_without_data(self, P, x):
    with P.plate("data", x):
        P.sample("z", self.prior(P))


@says("'x': got list for obs", "P.constant(…)")
def model_observes_a_list(self, P, x):
    with P.plate("data", x):
        P.sample("x", self.likelihood(P, P.sample("z", self.prior(P))), obs=[0.0] * 6)


@says("'x': got data outside the support of Bernoulli", "Boolean()", "Check the data")
def model_observes_what_can_not_be(self, P, x):
    with P.plate("data", x):
        P.sample("x", self.likelihood(P, P.sample("z", self.prior(P))), obs=x - 0.5)


@says("'z': the guide draws values outside the support of Bernoulli", "Boolean()", "the same support in both")
def prior_of_another_support(self, P):
    return P.dist.Bernoulli(logits=P.full((4,), 0.0)).to_event(1)


@says("P.sample: got Independent instead of the site's name", 'P.sample("z", distribution)')
def guide_without_a_name(self, P, x):
    P.sample(self.posterior(P, x), "z")


@says("P.sample() got an unexpected keyword argument 'observed'", "obs=x")
def model_slips_in_obs(self, P, x):
    P.sample("x", self.prior(P), observed=x)


@says("'z': got", "of shape (3, 4), expected a distribution", "P.dist.Normal(…)")
def posterior_that_is_an_array(self, P, x):
    return P.net("encoder")(x)[..., 0, :]


@says("'z': got the class Normal, expected a distribution", "Normal(…)")
def posterior_that_is_a_class(self, P, x):
    return P.dist.Normal


@says("'z': got StandardNormal, expected a distribution", "call it: StandardNormal(…)(P, …)")
def prior_that_is_a_part(self, P):
    return StandardNormal()


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_said_in_one_line(name, backend):
    MISTAKES.check(name, backend)


@pytest.mark.parametrize("backend", BOTH)
def test_without_a_mistake_it_trains(backend):
    assert np.isfinite(ppdgm.fit(Right(), X, steps=1, backend=backend, progress=False).history["elbo"]).all()
