"""Particles in chunks: the step of all particles at once, at the same draws, for every engine, or a refusal."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import pytest
import torch
from readings import BACKENDS, precision
from test_pieces import DATA, WEIGHT, B, Given

import ppdgm
from ppdgm.errors import TrainingError
from ppdgm.inference import (
    HMC,
    IWAE,
    SVI,
    Minimise,
    MonteCarloEM,
    Renyi,
    Resampled,
    ReweightedWakeSleep,
)
from ppdgm.inference.engines.engine import states_of
from ppdgm.language.vocabulary import Trace
from ppdgm.models import MLP, VAE, Program
from ppdgm.program import normal
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


X = np.random.default_rng(0).integers(0, 2, (20, 6)).astype("float32")
NET = MLP(hidden=(4,))
VAES = VAE(event_shape=(6,), latent=2, encoder=NET, decoder=NET)


def train(program=VAES, data=X, **settings):
    given = {"engine": IWAE(k=5), "particle_chunk": 2, "steps": 4, "batch_size": 8, "compile": False, "progress": False}
    return ppdgm.fit(program, data, **{**given, **settings})


def in_a_loop(self, read, noise, given, chunk):
    """The same draws as in chunks, by the libraries' own gradients: all chunks are kept."""
    params, parts = self.params, []
    for i, start in enumerate(range(0, self.k, chunk)):
        n = min(chunk, self.k - start)
        key = None if noise is None else jax.random.fold_in(noise, i)
        parts.append(read(params, key, n, {m: v[start : start + n] for m, v in (given or {}).items()} or None))
    join = lambda each: each[0] if each[0].shape[0] == 1 < chunk else self.xp.concat(each, axis=0)
    values, log_p, log_q, kl, shared = ({n: join([t[j][n] for t in parts]) for n in parts[0][j]} for j in range(5))
    return Trace(values, log_p, log_q, kl, shared)


@both
def test_a_run_in_chunks(backend, monkeypatch, tmp_path):
    """Padding, pieces, averages, bfloat16; resumed with the same bits. Its chunks may also be kept until the end."""
    how = {"backend": backend, "accumulate": 2, "weight_average": 0.9, "mixed_precision": True, "steps": 3}
    found = train(**how)
    train(**{**how, "steps": 1}, out=tmp_path / "run")
    again = ppdgm.resume(tmp_path / "run", X, steps=3, progress=False)
    assert again.training.particle_chunk == 2 and found.info["compile"] == (backend == "numpyro")
    assert all(np.array_equal(found.params[n], v) for n, v in again.params.items())
    monkeypatch.setattr(load_backend(backend).Runtime.steps, "in_chunks", in_a_loop)
    kept = train(**how)
    for n, v in kept.params.items():
        np.testing.assert_allclose(found.params[n], v, rtol=1e-4, atol=1e-6, err_msg=n)  # in bfloat16


def pair_of(backend):
    """z ~ N(loc, 1), x ~ N(z, 1), q(z|x) = N(x/2 + bias, 0.7²), in the library's own words."""
    library, zeros = (numpyro, jnp.zeros) if backend == "numpyro" else (pyro, torch.zeros)
    Normal = library.distributions.Normal

    def model(x):
        loc = library.param("loc", zeros(()))
        with library.plate("data", len(x)):
            z = library.sample("z", Normal(loc, 1.0))
            library.sample("x", Normal(z, 1.0), obs=x)

    def guide(x):
        bias = library.param("bias", zeros(()))
        with library.plate("data", len(x)):
            library.sample("z", Normal(x / 2 + bias, 0.7))

    return (Program.from_numpyro if backend == "numpyro" else Program.from_pyro)(model, guide)


@both
def test_a_pair_in_chunks(backend, monkeypatch):
    x = np.random.default_rng(1).normal(3.0, 1.5, 20).astype("float32")
    found = train(pair_of(backend), x, learning_rate=0.1, optimiser="sgd")
    monkeypatch.setattr(load_backend(backend).Runtime.steps, "in_chunks", in_a_loop)
    kept = train(pair_of(backend), x, learning_rate=0.1, optimiser="sgd")
    assert kept.params["loc"] > 0.1
    for n, v in kept.params.items():
        np.testing.assert_allclose(found.params[n], v, rtol=1e-5, err_msg=n)


class Mean(Program):
    """x ~ N(z + μ, 1), z ~ N(0, 1), and what is named."""

    adds: str = ""

    def build(self, context):
        context.param("mu", (1,), normal(1.0))
        context.param("scale", (1,), normal(0.1), label="guide")
        if self.adds == "update":
            context.state("moving", (1,), normal(1.0))

    def model(self, P, x):
        shift = P.random.normal(x.shape) if self.adds == "random" else 0.0
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            if self.adds == "update":
                P.update("moving", P.xp.mean(z, axis=(0, 1)))
            if self.adds == "batch_mean":
                shift = P.batch_mean(z, 1, otherwise=P.full((1,), 0.0))
            P.sample("x", P.dist.Normal(z + P.param("mu") + shift, P.full((1,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            if self.adds == "enumerate":
                P.sample("c", P.dist.Bernoulli(P.full((), 0.5)), infer={"enumerate": "parallel"})
            P.sample("z", P.dist.Normal(x, P.xp.exp(P.param("scale"))).to_event(1))

    def critic(self, P, x):
        return x[:, 0]


class Summed(Mean):
    """With a coin that the guide sums over."""

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("c", P.dist.Bernoulli(P.full((), 0.5)), infer={"enumerate": "parallel"})
        super().model(P, x)


class Runs(IWAE):
    """That also runs a function for all particles."""

    def objective(self, step):
        found = super().objective(step)
        step.run("critic")
        return found


REFUSED = {
    "P.update": (Mean(adds="update"), {}, "particle_chunk: the program updates the state 'moving', which needs all p"),
    "P.batch_mean": (Mean(adds="batch_mean"), {}, "particle_chunk: the program takes P.batch_mean, which needs all"),
    "P.random": (Mean(adds="random"), {}, "particle_chunk: the program draws random numbers outside its sample sites"),
    "summed": (Summed(adds="enumerate"), {"engine": SVI(k=5)}, "particle_chunk: the guide sums over all values"),
    "run": (Mean(), {"engine": Runs(k=5)}, "particle_chunk: the engine runs 'critic' for 5 particles at once"),
    "hmc": (Mean(), {"engine": MonteCarloEM(sampler=HMC(chains=3))}, "Monte Carlo moves 3 particles at once"),
    "one": (Mean(), {"engine": SVI(), "particle_chunk": 1}, "number of particles is 1, so it would change nothing. L"),
    "all": (Mean(), {"particle_chunk": 5}, "got 5, but the engine's number of particles is 5, .* Give at most 4"),
    "none": (Mean(), {"engine": Minimise(role="critic")}, "is for draws of the guide, and this engine takes none"),
}  # fmt: skip


@both
@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_cut_is_refused(case, backend):
    program, settings, told = REFUSED[case]
    with pytest.raises(TrainingError, match=told):
        train(program, X[:, :1], backend=backend, **settings)


@pytest.mark.parametrize(
    ("layer", "told"),
    [(torch.nn.Dropout(0.5), "draws random numbers outside its"), (torch.nn.BatchNorm1d(4), "BatchNorm1d computes")],
)
def test_modules_that_chunks_would_change_are_refused(layer, told):
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), layer, torch.nn.Linear(4, 6))
    with pytest.raises(TrainingError, match=told):
        train(VAE(event_shape=(6,), latent=2, encoder=NET, decoder=net), backend="pyro")


def test_memory_does_not_grow_with_the_chunks():
    """What torch keeps of a trace of 80 particles is some numbers of each, and not the layers' results."""
    kept = {}
    for chunk in (None, 1):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=sizes: to.append(t.nbytes) or t, lambda t: t):
            train(engine=IWAE(k=80), particle_chunk=chunk, backend="pyro", steps=1)
        kept[chunk] = max(sizes)
    number = 80 * 8 * 4  # of each particle and row
    assert kept[1] <= number and kept[None] >= 6 * number
