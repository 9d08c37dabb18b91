"""Programs and settings of test_devices.py, and of the processes that it starts."""

import numpy as np

from ppdgm.inference import IWAE
from ppdgm.models import MLP, VAE, Program
from ppdgm.program import normal

NET = MLP(hidden=(5,))
DATA = (np.random.default_rng(0).random((44, 6)) < 0.5).astype(np.float64)
PROGRAM = VAE(event_shape=(6,), latent=2, encoder=NET, decoder=NET)
HOW = {  # minibatches of 16, 16, and 12 with 4 rows of padding
    "backend": "pyro", "engine": IWAE(k=3), "steps": 7, "batch_size": 16, "dtype": "float64", "seed": 3,
    "compile": False, "learning_rate": 0.01, "weight_average": 0.9, "clip_norm": 1.0, "progress": False,
    "device": "cpu",
}  # fmt: skip


class Running(Program):
    """x ~ N(m, 1), where m moves towards the minibatch's mean, and a penalty of the latents' second moment."""

    def build(self, context):
        context.state("m", (6,))
        context.param("w", (2, 6), normal(0.3))
        context.param("a", (6, 2), normal(0.3), label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            P.update("m", 0.9 * P.param("m") + 0.1 * P.batch_mean(x, 1))
            moment = P.batch_mean(z**2, 1, otherwise=P.full((2,), 1.0))
            P.penalty("moment", P.full((), 1.0) * P.xp.sum((moment - 1.0) ** 2) + 0.0 * P.xp.sum(z, axis=-1))
            P.sample("x", P.dist.Normal(P.param("m") + z @ P.param("w"), P.full((6,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(x @ P.param("a"), P.full((2,), 1.0)).to_event(1))


class ByHand(Running):
    """The same with a mean of the process's own rows."""

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            P.penalty("moment", P.xp.sum((z - P.xp.mean(z, axis=1, keepdims=True)) ** 4, axis=-1))
            P.sample("x", P.dist.Normal(P.param("m") + z @ P.param("w"), P.full((6,), 1.0)).to_event(1), obs=x)
