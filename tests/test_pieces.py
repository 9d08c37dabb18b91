"""A minibatch that is worked on in pieces: the step of the whole, for every engine, or a refusal.

Programs take their noise from the data, so that a datum has the same draws in whatever piece it stands.
"""

from functools import partial

import jax
import numpy as np
import pytest
import torch
from readings import BACKENDS, precision

import ppdgm
from ppdgm.errors import ProgramError, TrainingError
from ppdgm.inference import (
    HMC,
    IWAE,
    SVI,
    MonteCarloEM,
    Optimiser,
    Renyi,
    Resampled,
    ReweightedWakeSleep,
    VariationalEM,
)
from ppdgm.inference.batches import Plan
from ppdgm.inference.engine import knobs_of_phases
from ppdgm.models import VAE, FullCovarianceNormal, Program
from ppdgm.program import normal
from ppdgm.registry import backend as load_backend

both = pytest.mark.parametrize("backend", BACKENDS)
K, B = 4, 6
RNG = np.random.default_rng(0)
DATA = {"x": RNG.normal(size=(B, 3)), "noise": RNG.normal(size=(B, 2 * K + 3)), "same": RNG.normal(size=(B, 5))}
WEIGHT = np.array([[1, 1, 1, 0, 0, 0]], float)  # pieces of 2: a whole one, a half, and padding alone


def gaussian(P, loc, scale, noise, pathwise=True):
    """N(loc, scale²) over one number, drawn as its data say."""
    log_prob = lambda z: P.dist.Normal(loc, scale).to_event(1).log_prob(z)
    draw = lambda random, batch: (loc + scale * noise(batch), None)
    kl = lambda p: 0.5 * (scale**2 + loc**2 - 1.0) - P.xp.log(scale)  # to N(0, I)
    return P.distribution(draw, log_prob, (2,), tuple(loc.shape[:-1]), mean=lambda: loc, pathwise=pathwise, kl=kl)


class Given(Program):
    """z ~ N(0, I), x ~ N(z W, I), q(z|x) = N(x A, S²), and a penalty; noise from the data."""

    field: str = "noise"
    pathwise: bool = True
    shared: bool = False

    def build(self, context):
        context.param("w", (2, 3), normal(1.0))
        context.param("a", (3, 2), normal(1.0), label="guide")
        context.param("s", (2,), normal(0.3), label="guide")
        if self.shared:
            context.param("m", (2,), normal(1.0), label="guide")

    def noise(self, P, fields):
        def of(batch):  # [K, B, 2]
            flat = fields[self.field]
            k, first = batch[-2], 0 if self.field == "noise" else slice(None)
            flat = flat[:, : 2 * k] if first == 0 else P.xp.concat([flat[:, :2]] * k, axis=1)
            return P.xp.permute_dims(P.xp.reshape(flat, (-1, k, 2)), (1, 0, 2))

        return of

    def model(self, P, x, noise, same):
        of = self.noise(P, {"noise": noise, "same": same})
        shift = 0.0
        if self.shared:
            shift = P.sample("g", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
        with P.plate("data", noise):
            z = P.sample("z", gaussian(P, P.full((2,), 0.0), P.full((2,), 1.0), of))
            mean = (z + shift) @ P.param("w")
            like = P.dist.Normal(mean, P.full((3,), 1.0)).to_event(1)
            draw = lambda random, batch: (mean + noise[:, -3:], None)
            P.sample("x", P.distribution(draw, like.log_prob, (3,), tuple(mean.shape[:-1])), obs=x)

    def guide(self, P, x, noise, same):
        of, scale = self.noise(P, {"noise": noise, "same": same}), P.xp.exp(P.param("s"))
        if self.shared:
            still = lambda random, batch: (P.param("m") + P.full((*batch, 2), 0.3), None)
            own = P.dist.Normal(P.param("m"), P.full((2,), 1.0)).to_event(1)
            P.sample("g", P.distribution(still, own.log_prob, (2,)))
        with P.plate("data", x):
            P.sample("z", gaussian(P, x @ P.param("a"), scale + 0.0 * x[:, :2], of, self.pathwise))
            P.penalty("size", P.xp.sum((x @ P.param("a")) ** 2, axis=-1))


SCORED, GLOBAL, SAME = Given(pathwise=False), Given(shared=True), Given(field="same")
ENGINES = {
    "elbo": SVI(k=2),
    "monte carlo kl": SVI(kl="monte_carlo"),
    "stl": SVI(estimator="stl"),
    "capacity": SVI(capacity=2.0),
    "free bits": SVI(free_bits=1.0),
    "free bits, dimension": SVI(free_bits=0.5, free_bits_per="dimension", beta=0.7),
    "free bits, datum": SVI(free_bits=1.0, free_bits_of="datum"),
    "free bits, drawn": SVI(free_bits=1.0, kl="monte_carlo", k=2),
    "global, capacity": (GLOBAL, SVI(capacity=1.0, gamma=3.0)),
    "global, free bits": (GLOBAL, SVI(free_bits=1.0)),
    "iwae": IWAE(k=4),
    "dreg": IWAE(k=2, groups=2, estimator="dreg"),
    "piwae": IWAE(k=4, guide_groups=2, elbo_share=0.3),
    "renyi": Renyi(k=2, alpha=0.5),
    "wake": ReweightedWakeSleep(k=3, sleep_phi=0.5),
    "score, running": (SCORED, SVI(baseline="running")),
    "score, others": (SCORED, SVI(k=3)),
    "score, learned": (SCORED, SVI(baseline="learned")),
    "score, capacity": (SCORED, SVI(capacity=1.0)),
    "vimco": (SCORED, IWAE(k=3)),
    "variational em": VariationalEM(engine=SVI(capacity=1.0)),
    "monte carlo em": (SAME, MonteCarloEM(e_steps=1, sampler=Resampled(k=3))),  # equal draws: no matter which
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def compile_fast():
    """Small programs are compiled here, and run once."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def step_of(program, engine, backend, pieces, phase=0, **options):
    """Metrics of one step of plain gradient ascent at rate 1, and how far it went."""
    params = {n: v.astype(float) for n, v in program.initialise(1).items()}
    scored = [] if getattr(program, "pathwise", True) else ["z"]
    own = {n: v.astype(float) + 0.1 for n, v in engine.own(3, scored).items()}
    with precision("float64"):
        runtime = load_backend(backend).Runtime(program, "cpu")
        plan = Plan(
            np.arange(B, dtype=np.int32)[None], WEIGHT, np.ones(1), knobs_of_phases(engine, np.zeros(1)), 0, 1,
            np.full(1, phase, np.int32),
        )  # fmt: skip
        trainer = load_backend(backend).Trainer(
            runtime, engine, Optimiser(name="sgd"), runtime.put(params), 0, 50, own=own, pieces=pieces, **options
        )
        metrics = trainer.run(plan, runtime.put(DATA))
        moved = {n: np.asarray(runtime.fetch(dict(trainer.params))[n]) - v for n, v in {**params, **own}.items()}
    return {n: v[0] for n, v in metrics.items()}, moved


@both
@pytest.mark.parametrize("name", ENGINES)
def test_pieces_make_the_step_of_the_whole(name, backend):
    found = ENGINES[name]
    program, engine = found if isinstance(found, tuple) else (Given(), found)
    for phase in range(len(engine.phases())):
        whole, cut = (step_of(program, engine, backend, n, phase) for n in (1, 3))
        assert max(np.abs(v).max() for v in whole[1].values()) > 1e-2
        for n, v in whole[1].items():
            np.testing.assert_allclose(cut[1][n], v, rtol=1e-9, atol=1e-9, err_msg=n)
        for n, v in whole[0].items():
            np.testing.assert_allclose(cut[0][n], v, rtol=1e-5, err_msg=n)  # told in float32
