"""What is wrong with the Python, the words or the declarations of a user's own program is said in one line."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as numpyro_dist
import pyro.distributions as pyro_dist
import pytest
import torch
from mistakes import BOTH, Mistakes, Right, X

from ppdgm.models import MLP

MISTAKES = Mistakes()
says = MISTAKES.says


# --- Python, torch and JAX --------------------------------------------------------------------------------------------


@says(
    "'z': got Normal, expected a distribution", "It belongs to torch. Use the distribution from P.dist", on=("numpyro",)
)
def prior_from_pyro(self, P):
    return pyro_dist.Normal(torch.zeros(4), 1.0).to_event(1)


@says(
    "'z': got Normal, expected a distribution", "It belongs to numpyro. Use the distribution from P.dist", on=("pyro",)
)
def prior_from_numpyro(self, P):
    return numpyro_dist.Normal(jnp.zeros(4), 1.0).to_event(1)


@says("`return torch.tanh(x)`", "must be Tensor", "Use P.xp for mathematics", on=("numpyro",))
def guide_calls_torch(self, P, x):
    Right.guide(self, P, through_torch(x))


def through_torch(x):
    return torch.tanh(x)


@says("as an abstract array", "Use P.xp for mathematics", on=("pyro",))
def guide_calls_jax(self, P, x):
    Right.guide(self, P, jnp.tanh(x))


@says("`if x.sum() > 0:", "P.xp.where(…) instead of a Python `if`", on=("numpyro",))
def guide_asks_for_a_value(self, P, x):
    if x.sum() > 0:
        Right.guide(self, P, x)


@says("`x = x + 0.0 * float(x.mean())`", "instead of float()", on=("numpyro",))
def guide_takes_a_value_out(self, P, x):
    x = x + 0.0 * float(x.mean())
    Right.guide(self, P, x)


@says("numpy", "P.xp")
def likelihood_by_numpy(self, P, z):
    return P.dist.Bernoulli(logits=P.net("decoder")(P.constant(np.asarray(z)))).to_event(1)


@says("`h[..., 0] = 0.0`", "P.xp.where(…)", on=("numpyro",))
def guide_writes_into_an_array(self, P, x):
    h = x * 2.0
    h[..., 0] = 0.0
    Right.guide(self, P, h)


@says("The guide changes its data in place", "Write x = x + … instead of x += …", on=("pyro",))
def guide_writes_into_the_data(self, P, x):
    x *= 1.0
    Right.guide(self, P, x)


@says("in-place operation", "Write a = a + b instead of a += b", on=("pyro",))
def prior_writes_into_a_parameter(self, P):
    loc = P.param("loc")
    loc += 1.0
    return P.dist.Normal(loc, P.full((4,), 1.0)).to_event(1)


@says("has no attribute 'exp'", "Use P.xp", on=("numpyro",))
def guide_uses_a_method_of_torch(self, P, x):
    Right.guide(self, P, x.exp())


@says("Wrong is immutable", "seen")
def guide_keeps_something(self, P, x):
    self.seen = x


@says("`raise ZeroDivisionError(", "mine (ZeroDivisionError).")
def guide_raises(self, P, x):
    raise ZeroDivisionError("mine\nand more")


@says("maximum recursion depth")
def guide_calls_itself(self, P, x):
    self.guide(P, x)


# --- words and declarations -------------------------------------------------------------------------------------------


@says("P has no attribute 'ful'. Did you mean 'full'?")
def prior_slips_in_a_word(self, P):
    return P.ful((4,), 0.0)


@says("P has no attribute 'nn'. Mathematics on arrays is in P.xp, distributions are in P.dist")
def prior_takes_a_module_of_one_library(self, P):
    return P.nn.relu(P.full((2,), 1.0))


@says("P has no attribute 'zeros'. Use P.xp.zeros")
def prior_forgets_xp(self, P):
    return P.zeros(4)


@says("P has no attribute 'Normal'. Use P.dist.Normal")
def prior_forgets_dist(self, P):
    return P.Normal(0.0, 1.0)


@says("no attribute 'zeross'", "Did you mean 'zeros'?")
def prior_slips_in_xp(self, P):
    return P.xp.zeross(4)


@says("no attribute 'normal'", "Did you mean 'Normal'?")
def prior_slips_in_dist(self, P):
    return P.dist.normal(0.0, 1.0)


@says("unexpected keyword argument 'mean'", "`return P.dist.Normal(mean=0.0, scale=1.0)`")
def prior_with_a_wrong_argument(self, P):
    return P.dist.Normal(mean=0.0, scale=1.0)


@says("scale", "softplus")
def posterior_with_a_negative_scale(self, P, x):
    h = P.net("encoder")(x)
    return P.dist.Normal(h[..., 0, :], -P.xp.abs(h[..., 1, :]) - 0.1).to_event(1)


@says("Net 'encoder' is not declared in build(). Did you mean 'decoder'?")
def build_without_an_encoder(self, c):
    c.net("decoder", MLP(hidden=(8,)), (4,), (6,))


@says("Net 'decodr' is not declared in build(). Did you mean 'decoder'? Declared: decoder, encoder.")
def prior_with_a_misspelt_net(self, P):
    return P.dist.Normal(P.net("decodr")(P.full((4,), 0.0)), 1.0)


@says("Parameter 'lock' is not declared in build(). Did you mean 'loc'?")
def prior_slips_in_a_parameter(self, P):
    return P.param("lock")


@says("Net 'loc' is not declared in build(). It is a parameter: P.param('loc').")
def prior_takes_a_parameter_for_a_net(self, P):
    return P.net("loc")(P.full((4,), 0.0))


@says("Parameter 'encoder' is not declared in build(). It is a net: P.net('encoder')(x).")
def prior_takes_a_net_for_a_parameter(self, P):
    return P.param("encoder")


@says("P.param() takes 2 positional arguments but 3 were given", "Declare shape and first value in build()")
def prior_declares_a_parameter(self, P):
    return P.param("loc", P.full((4,), 0.0))


@says("context.param: got 3 instead of the name")
def build_without_names(self, c):
    c.param(3, (4,))


@says("'Context' object has no attribute 'sample'", "P is for model and guide")
def build_like_a_model(self, c):
    c.sample("z", 3)


@says("missing 1 required positional argument: 'outputs'", "the shapes of input and output")
def build_without_outputs(self, c):
    c.net("decoder", MLP(), (4,))


@says('`c.param("w", (self.event_shape[3],))`', "tuple index out of range")
def build_fails(self, c):
    c.param("w", (self.event_shape[3],))


@says("Wrong.build(self): expected build(self, context).")
def build_without_context(self):
    pass


# --- arguments and fields ---------------------------------------------------------------------------------------------


@says("Wrong.model(self, x): expected model(self, P, x), with P and each field of the data.")
def model_without_P(self, x):
    pass


@says("Wrong.guide(self, P): expected guide(self, P, x)")
def guide_without_x(self, P):
    pass


@says("missing 1 required positional argument: 'y'", "each field of the data by name")
def guide_with_a_field_more(self, P, x, y):
    pass


@says("unexpected keyword argument 'y'", "each field of the data by name", data={"x": X, "y": X[:, 0]})
def model_with_a_field_more(self, P, x, y):
    Right.model(self, P, x)


@says("got fields ['x', 'lable']", "['x', 'label']", data={"x": X, "lable": X[:, 0]})
def model_of_other_fields(self, P, x, label):
    pass


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_said_in_one_line(name, backend):
    MISTAKES.check(name, backend)
