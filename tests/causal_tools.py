"""What tests of causal nets share."""

from itertools import product

import jax
import numpy as np
from flow_tools import Plain, draw_params
from readings import precision

from ppdgm.backends.numpyro.vocabulary import JaxVocabulary
from ppdgm.language.vocabulary import Declarations
from ppdgm.models.likelihoods.autoregressive import declare_autoregressive
from ppdgm.program import Context


def declared(net, each, event, condition=()):
    found = Declarations()
    declare_autoregressive(Context(found), net, each, event, condition)
    return found, draw_params(found, 0.7)


def all_values(event, levels):
    return np.array(list(product(range(levels), repeat=int(np.prod(event)))), float).reshape(-1, *event)


def seen_by(net, event, scale=0.4, condition=(3,), rows=2):
    """Which numbers [J, I] the outputs at each number depend on, over several draws; all depend on the condition.

    Parameters are drawn with this scale.
    """
    found = Declarations()
    inner = Context(found).scope("net")
    for name, (shape, init) in net.causal_params(event, condition, (rows, *event)).items():
        inner.param(name, shape, init)
    rng = np.random.default_rng(3)
    with precision("float64"):

        def slopes(params, x, c):
            P = JaxVocabulary(Plain(), params, found)
            call = lambda x, c: net.causal(P.scope("net"), x[None], c[None], event, (rows, *event))[0]
            return jax.jacrev(call, argnums=(0, 1))(x, c)

        slopes = jax.jit(slopes)
        several = [
            slopes(draw_params(found, scale, seed=i), rng.normal(size=event), rng.normal(size=condition))
            for i in range(3)
        ]
    of_x, of_c = (np.max([np.abs(a) for a in each], axis=0) for each in zip(*several, strict=True))
    assert (of_c > 1e-12).all()
    size = int(np.prod(event))
    sees = of_x.reshape(rows, size, size) > 1e-13
    assert (sees[0] == sees[1]).all()
    return sees[0]
