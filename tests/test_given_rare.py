"""`sample(given=…)` sees that a value held depends on a site before it, also if few rows would hardly show it."""

import numpy as np
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError


class Rare(Program):
    """A rare class c, z | c, and x; the rest of z's prior may not depend on c."""

    how: str
    follows: bool = True

    def build(self, c):
        c.param("a", (1,))

    def class_of(self, P):
        if self.how == "shared":
            return P.sample("c", P.dist.Bernoulli(probs=P.full((), 1e-4)))
        if self.how == "bits":
            return P.sample("c", P.dist.Bernoulli(probs=P.full((3,), 1e-4)).to_event(1))[..., 2]
        if self.how == "scan":

            def body(P, c, _):
                bit = P.sample("c", P.dist.Bernoulli(probs=P.full((), 1e-4)))
                return P.xp.maximum(c, P.xp.astype(bit, c.dtype)), None

            return P.scan(body, P.full((), 0.0), None, length=2)[0]
        c = P.sample("c", P.dist.Categorical(logits=P.constant([9.0, 0.0, 0.0])))
        return P.xp.astype(c == 2, P.full((), 0.0).dtype)

    def model(self, P, x):
        outside = self.how == "shared"
        shared = self.class_of(P) if outside else None
        with P.plate("data", x):
            c = shared if outside else self.class_of(P)
            z = P.sample("z", P.dist.Normal((5.0 * c if self.follows else 0.0 * c) + P.param("a")[0], 1.0))
            P.sample("x", P.dist.Normal((z + 10 * c)[..., None], P.full((1,), 1.0)).to_event(1), obs=x)


def fitted(program, backend):
    return ppdgm.Fit(program, program.initialise(0), backend, info={"fields": ["x"], "shapes": {"x": [1]}})


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
@pytest.mark.parametrize("how", ["bits", "categorical", "shared", "scan"])
def test_a_rare_class_before_a_value_that_is_held(how, backend):
    """Given z = 5, c = 1 has odds e^(12.5) 1e-4 to 1; it would have been drawn with probability 1e-4."""
    z = np.full(1, 5.0, np.float32)
    with pytest.raises(ProgramError, match="'z' is drawn after 'c'"):
        fitted(Rare(how=how), backend).sample(1, given={"z": z})
    x = fitted(Rare(how=how, follows=False), backend).sample(1, given={"z": z})
    assert abs(x[0, 0] - 5) < 5  # c is still drawn as the model does
