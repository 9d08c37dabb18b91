"""A program that is right, and what tests need to change one of its methods and ask for the error."""

import numpy as np
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.errors import PpdgmError
from ppdgm.models import MLP

BOTH = ("numpyro", "pyro")
X = (np.random.default_rng(0).random((20, 6)) < 0.4).astype("float32")


class Right(Program):
    event_shape: tuple[int, ...] = (6,)

    def build(self, c):
        c.net("decoder", MLP(hidden=(8,)), (4,), self.event_shape)
        c.net("encoder", MLP(hidden=(8,)), self.event_shape, (2, 4), label="guide")
        c.param("loc", (4,))

    def prior(self, P):
        return P.dist.Normal(P.full((4,), 0.0), P.full((4,), 1.0)).to_event(1)

    def likelihood(self, P, z):
        return P.dist.Bernoulli(logits=P.net("decoder")(z)).to_event(1)

    def posterior(self, P, x):
        return normal(P, P.net("encoder")(x)).to_event(1)

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            P.sample("x", self.likelihood(P, z), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.posterior(P, x))


def normal(P, h):
    return P.dist.Normal(h[..., 0, :], P.softplus(h[..., 1, :]))


class Mistakes(dict):
    """Changed methods of `Right` by name, which starts with the method's; with what the error says, and where."""

    def says(self, *words, on=BOTH, data=None):
        """In the place of `Right`'s, the method gives an error with all these words; other backends train it."""

        def register(method):
            name, role = method.__name__, method.__name__.split("_")[0]
            method.__name__, method.__qualname__ = role, f"Wrong.{role}"
            self[name] = role, method, words, on, {"x": X} if data is None else data
            return method

        return register

    def check(self, name, backend):
        role, method, words, on, data = self[name]

        def train():
            program = type("Wrong", (Right,), {role: method, "__module__": __name__})()
            return ppdgm.fit(program, data, steps=1, backend=backend, progress=False)

        if backend not in on:
            assert np.isfinite(train().history["elbo"]).all()
            return
        with pytest.raises(PpdgmError) as raised:
            train()
        assert "\n" not in str(raised.value)
        for word in words:
            assert word in str(raised.value)
