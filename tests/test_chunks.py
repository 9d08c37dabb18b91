"""Particles in chunks: the step of all particles at once, at the same draws, for every engine, or a refusal."""

import jax
import numpy as np
import pytest
import torch
from readings import BACKENDS, precision
from test_pieces import DATA, WEIGHT, B, Given

from ppdgm.inference import (
    IWAE,
    SVI,
    Renyi,
    Resampled,
    ReweightedWakeSleep,
)
from ppdgm.inference.engines.engine import states_of
from ppdgm.registry import backend as load_backend

both = pytest.mark.parametrize("backend", BACKENDS)


class Drawn(Given):
    """The same program with draws of its own, which `Given` can be given as its data."""

    def noise(self, P, fields):
        return lambda batch: P.random.normal((*batch, 2))


ENGINES = {
    "elbo": (SVI(k=5), {}),
    "monte carlo kl": (SVI(k=5, kl="monte_carlo"), {}),
    "stl": (SVI(k=5, estimator="stl"), {}),
    "capacity": (SVI(k=5, capacity=1.0), {}),
    "free bits": (SVI(k=5, free_bits=0.5), {}),
    "free bits, drawn": (SVI(k=5, free_bits=0.5, kl="monte_carlo", free_bits_of="datum"), {}),
    "global": (SVI(k=5), {"shared": True}),
    "iwae": (IWAE(k=5), {}),
    "iwae, stl": (IWAE(k=5, estimator="stl"), {}),
    "iwae, dreg": (IWAE(k=3, groups=2, estimator="dreg"), {}),
    "piwae": (IWAE(k=4, guide_groups=2, elbo_share=0.3), {}),
    "renyi": (Renyi(k=5, alpha=0.3), {}),
    "wake": (ReweightedWakeSleep(k=5), {}),
    "score": (SVI(k=5), {"pathwise": False}),
    "vimco": (IWAE(k=5), {"pathwise": False}),
    "resampled": (Resampled(k=5), {}),
}
# On torch, the noise of "resampled" comes after that of the draws, which are given here.
CASES = [(n, b) for n in ENGINES for b in BACKENDS if (n, b) != ("resampled", "pyro")]


def step_of(program, engine, backend, data, phase=0, chunk=None):
    """An engine's numbers for a step, the gradient of its objective and players, and the first draws of the guide."""
    params = {n: v.astype(float) for n, v in program.initialise(1).items()}
    state = {n: s.value.astype(float) + 0.1 for n, s in states_of(engine, 3, []).items()}
    engine = engine.phases()[phase].engine
    with precision("float64"):
        runtime = load_backend(backend).Runtime(program, "cpu")
        start, native = runtime.put(params), runtime.put({**data, "w": WEIGHT[0]})
        index, weights, own = runtime.index(np.arange(B)), native.pop("w"), runtime.put(state)
        now = runtime.put({"beta": np.array(0.7), "capacity": np.array(1.0)})

        def value(moving, key=None):
            step = runtime.steps(runtime.tracer, {**moving, **own}, key, native, index, weights, now, 50, chunk=chunk)
            found = engine.objective(step)
            numbers = {n: found[n] for n in ("objective", "elbo", "kl")} | dict(found.get("players", {}))
            return sum((i + 1) * v for i, v in enumerate(numbers.values())), (numbers, step.first.values["z"])

        if backend == "numpyro":
            key = jax.random.key(0)
            slopes, (numbers, drawn) = jax.jit(jax.grad(value, has_aux=True))(start, key)
        else:
            torch.manual_seed(0)
            slopes, (numbers, drawn) = runtime.slopes(value, start)
        return runtime.fetch(numbers), runtime.fetch(slopes), runtime.fetch(drawn)


def as_data(drawn):
    """The noise of these draws [K, B, 2] in `Given`'s data, whose last three numbers draw x."""
    p = Given().initialise(1)
    eps = (drawn - DATA["x"] @ p["a"].astype(float)) / np.exp(p["s"].astype(float))
    return {**DATA, "noise": np.concatenate([eps.transpose(1, 0, 2).reshape(B, -1), DATA["noise"][:, -3:]], axis=1)}


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_chunks_make_the_step_of_all_particles(name, backend):
    """Two particles at a time: the last chunk of five has one. The draws are given to a step of all at once."""
    engine, settings = ENGINES[name]
    for phase in range(len(engine.phases())):
        cut = step_of(Drawn(**settings), engine, backend, DATA, phase, chunk=2)
        eps = as_data(cut[2])["noise"]
        assert len(np.unique(eps[:, :-3].round(6))) == eps[:, :-3].size  # each has its own
        whole = step_of(Given(**settings), engine, backend, as_data(cut[2]), phase)
        assert max(np.abs(v).max() for v in whole[1].values()) > 1e-2
        for found, right in zip(cut[:2], whole[:2], strict=True):
            for n, v in right.items():
                np.testing.assert_allclose(found[n], v, rtol=1e-9, atol=1e-9, err_msg=n)
