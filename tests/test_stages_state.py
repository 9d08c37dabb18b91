"""Stages of engines that have numbers of their own."""

import numpy as np
import pytest
from readings import BACKENDS

import ppdgm
from ppdgm.inference import SVI, Stage
from ppdgm.inference.engines.engine import Composite, Phase, State
from ppdgm.models import PPCA

X = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")


class Counting(SVI):
    def objective(self, step):
        now = step.params["engine/count"]
        return {**super().objective(step), "count": now, "state": {"engine/count": now + 1.0}}


class Counted(Composite):
    """The number is declared by the engine of the stage, and not by that of its phase."""

    def phases(self):
        return (Phase(Counting()),)

    def state(self, width, scored):
        return {"engine/count": State(np.zeros((), np.float32))}


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_engine_of_a_stage_declares_is_kept(backend):
    engine = [Stage(engine=Counted(), steps=3), SVI()]
    program = PPCA(event_shape=(3,), latent=1)
    fit = ppdgm.fit(program, X, engine=engine, steps=5, backend=backend, progress=False)
    np.testing.assert_array_equal(fit.history["count"], np.float32([0, 1, 2, np.nan, np.nan]))
