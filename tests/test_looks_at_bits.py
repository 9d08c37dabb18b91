"""What a run measures in between under dynamic binarisation is measured at bits, which is all that its steps see."""

import numpy as np
import pytest
from readings import BACKENDS

import ppdgm
from ppdgm import Program
from ppdgm.inference import LaggingInference
from ppdgm.program import zeros

GREY = np.random.default_rng(0).uniform(0.2, 0.8, size=(40, 3)).astype("float32")
RUN = {"binarise": "dynamic", "batch_size": 10, "seed": 0, "progress": False}


class Apart(Program):
    """q(z|x) = N(40 x₀ (1 − x₀), 1): the prior if x₀ is 0 or 1, and far from it at every grey value."""

    def build(self, context):
        context.param("logits", (3,), zeros)
        context.param("shift", (1,), zeros, label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.dist.Bernoulli(logits=P.param("logits") + 0.0 * z).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            far = 40.0 * x[:, :1] * (1.0 - x[:, :1])
            P.sample("z", P.dist.Normal(far + P.param("shift"), P.full((1,), 1.0)).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_live_measurements_are_those_of_bits(backend):
    fit = ppdgm.fit(Apart(), GREY, steps=4, learning_rate=0.0, diagnose_epochs=1, backend=backend, **RUN)
    np.testing.assert_allclose(fit.history["kl"], 0.0, atol=1e-6)
    np.testing.assert_allclose(fit.history["live_kl_z"], 0.0, atol=1e-6)  # at grey values it is 39 nats on average
    np.testing.assert_allclose(fit.history["live_information"], 0.0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lagging_guide_is_judged_at_bits(backend, tmp_path):
    engine = LaggingInference(window=1, most=1, every=1)
    ppdgm.fit(Apart(), GREY, engine=engine, steps=4, learning_rate=0.0, backend=backend, out=tmp_path / "run", **RUN)
    assert "mutual information 0.000 nats" in (tmp_path / "run" / "log.txt").read_text()
