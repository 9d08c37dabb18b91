"""A minibatch that is worked on in pieces: the step of the whole, for every engine, or a refusal.

Programs take their noise from the data, so that a datum has the same draws in whatever piece it stands.
"""

import jax
import numpy as np
import pyro
import pytest
import torch
from readings import BACKENDS, precision
from trainers import make_plan, make_trainer

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
from ppdgm.inference.engines.engine import State, states_of
from ppdgm.language.vocabulary import Trace
from ppdgm.models import MLP, VAE, FullCovarianceNormal, Program
from ppdgm.program import normal
from ppdgm.registry import backend as load_backend

both = pytest.mark.parametrize("backend", BACKENDS)
K, B = 4, 6
NET = MLP(hidden=(4,))
RNG = np.random.default_rng(0)
SIZES = np.array([[0.1, 0.1, 4.0, 1.0, 1.0, 1.0]]).T  # so that the pieces' KLs lie on both sides of λ and C
DATA = {"x": SIZES * RNG.normal(size=(B, 3)), "noise": RNG.normal(size=(B, 2 * K + 3)), "same": RNG.normal(size=(B, 5))}
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
    "capacity": SVI(capacity=1.0),
    "free bits": SVI(free_bits=0.5),
    "free bits, dimension": SVI(free_bits=0.5, free_bits_per="dimension", beta=0.7),
    "free bits, datum": SVI(free_bits=0.5, free_bits_of="datum"),
    "free bits, drawn": SVI(free_bits=0.5, kl="monte_carlo", k=2),
    "global, capacity": (GLOBAL, SVI(capacity=1.0, gamma=3.0)),
    "global, free bits": (GLOBAL, SVI(free_bits=0.5)),
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
    state = {n: State(s.value.astype(float) + 0.1, s.label) for n, s in states_of(engine, 3, scored).items()}
    with precision("float64"):
        runtime = load_backend(backend).Runtime(program, "cpu")
        index = np.arange(B, dtype=np.int32)[None]
        plan = make_plan(engine, index, WEIGHT, np.ones(1), 0, 1, np.full(1, phase, np.int32))
        trainer = make_trainer(
            runtime, engine, runtime.put(params), 0, 50, Optimiser(name="sgd"), state, pieces=pieces, **options
        )
        metrics = trainer.run(plan, runtime.put(DATA))
        moved = {
            n: np.asarray(runtime.fetch(dict(trainer.params))[n]) - v
            for n, v in {**params, **{n: s.value for n, s in state.items()}}.items()
        }
    return {n: v[0] for n, v in metrics.items()}, moved


def log_normal(z, loc, scale):
    return torch.distributions.Normal(loc, scale).log_prob(z).sum(-1)


def bound_of(log_w, alpha=0.0):
    """Of particles along the first axis."""
    return (torch.logsumexp((1 - alpha) * log_w, 0) - np.log(len(log_w))) / (1 - alpha)


class Hand:
    """The terms of `Given` for the data that count, written down again: [K, B]; `fixed` draws carry no gradient."""

    def __init__(self, k, fixed=False, stop_q=False):
        self.params = {n: torch.tensor(v.astype(float), requires_grad=True) for n, v in Given().initialise(1).items()}
        w, a, s = (self.params[n] for n in ("w", "a", "s"))
        noise = torch.tensor(DATA["noise"][:3])
        x, eps = torch.tensor(DATA["x"][:3]), noise[:, : 2 * k].reshape(3, k, 2).permute(1, 0, 2)
        loc, scale = x @ a, torch.exp(s)
        z = loc + scale * eps
        self.z = z = z.detach() if fixed else z
        stop = (lambda v: v.detach()) if stop_q else (lambda v: v)
        self.log_q = log_normal(z, stop(loc), stop(scale))
        self.log_z, self.log_x = log_normal(z, 0.0 * z, torch.ones(2)), log_normal(x, z @ w, torch.ones(3))
        self.kl = 0.5 * (scale**2 + loc**2 - 1) - torch.log(scale)  # [B, D]
        self.size = (loc**2).sum(-1)
        self.log_w = self.log_x + self.log_z - self.log_q
        dreamt = noise[:, :2]
        self.dream = log_normal(dreamt, (dreamt @ w + noise[:, -3:]).detach() @ a, scale)

    def gradient(self, value, names=("w", "a", "s")):
        found = torch.autograd.grad(value, [self.params[n] for n in names], allow_unused=True, retain_graph=True)
        return {n: torch.zeros(()) if g is None else g for n, g in zip(names, found, strict=True)}


def hand_elbo(k, made_small):
    h = Hand(k)
    return h.gradient((h.log_x.mean(0) - h.size).mean() - made_small(h.kl))


def hand_drawn(stop_q):
    h = Hand(1, stop_q=stop_q)
    return h.gradient((h.log_w - h.size).mean())


def hand_scored(k, baseline, made_small, beta=1.0):
    h = Hand(k, fixed=True)
    f = (h.log_x - beta * h.kl.sum(-1) - h.size).detach()
    gain = ((f - baseline(f)) * h.log_q).mean()
    return h.gradient((h.log_x - h.size).mean() - made_small(h.kl) + gain)


def hand_vimco(k):
    """Each particle's signal: the bound, less that with the mean of the others' log-weights in its place."""
    h = Hand(k, fixed=True)
    log_w, signals = h.log_w.detach(), []
    for i in range(k):
        others = [log_w[j] for j in range(k) if j != i]
        signals.append(bound_of(log_w) - bound_of(torch.stack([*others, sum(others) / (k - 1)])))
    return h.gradient((bound_of(h.log_w) - h.size + (torch.stack(signals) * h.log_q).sum(0)).mean())


def hand_bound(k, bound, guide=None):
    """The guide's parameters may have another bound than the model's."""
    h = Hand(k)
    value = lambda bound: (bound(h.log_w) - h.size).mean()
    return h.gradient(value(bound)) | h.gradient(value(guide or bound), ("a", "s"))


def hand_dreg(k, groups):
    """Σ w̃² ∂log w/∂z ∂z/∂φ for the guide, Σ w̃ ∇ log p for the model."""
    h = Hand(k * groups, stop_q=True)
    share = torch.softmax(h.log_w.detach().reshape(k, groups, -1), 0).reshape(k * groups, -1)
    model = h.gradient((share * h.log_w).sum(0).mean() / groups, ("w",))
    return model | h.gradient((share**2 * h.log_w).sum(0).mean() / groups - h.size.mean(), ("a", "s"))


def hand_wake(k, sleep):
    h = Hand(k, fixed=True)
    share = torch.softmax(h.log_w.detach(), 0)
    model = h.gradient((share * (h.log_x + h.log_z)).sum(0).mean(), ("w",))
    return model | h.gradient(((share * h.log_q).sum(0) + sleep * h.dream - h.size).mean(), ("a", "s"))


at_least = lambda floor: lambda kl: torch.clamp(kl, min=floor)
capacity = lambda kl: 1000.0 * (kl.sum(-1).mean() - 1.0).abs()
plain = lambda kl: kl.sum(-1).mean()
in_two = lambda log_w: bound_of(log_w.reshape(2, 2, -1)).mean(0)
tilted = lambda bound: lambda log_w: 0.3 * log_w.mean(0) + 0.7 * bound(log_w)
BY_HAND = {
    "elbo": lambda: hand_elbo(2, plain),
    "monte carlo kl": lambda: hand_drawn(False),
    "stl": lambda: hand_drawn(True),
    "capacity": lambda: hand_elbo(1, capacity),
    "free bits": lambda: hand_elbo(1, lambda kl: at_least(0.5)(kl.sum(-1).mean())),
    "free bits, dimension": lambda: hand_elbo(1, lambda kl: 0.7 * at_least(0.5)(kl.mean(0)).sum()),
    "free bits, datum": lambda: hand_elbo(1, lambda kl: at_least(0.5)(kl.sum(-1)).mean()),
    "iwae": lambda: hand_bound(4, bound_of),
    "dreg": lambda: hand_dreg(2, 2),
    "piwae": lambda: hand_bound(4, tilted(bound_of), tilted(in_two)),
    "renyi": lambda: hand_bound(2, lambda log_w: bound_of(log_w, 0.5)),
    "wake": lambda: hand_wake(3, 0.5),
    "score, running": lambda: hand_scored(1, lambda f: 0.1, plain),
    "score, others": lambda: hand_scored(3, lambda f: (f.sum(0) - f) / 2, plain),
    "score, capacity": lambda: hand_scored(1, lambda f: 0.1, capacity, beta=0.0),
    "vimco": lambda: hand_vimco(3),
}


# Settings of one engine that share their code are compiled once less: torch has nothing to compile.
ON_PYRO = {
    "monte carlo kl", "free bits, drawn", "free bits, datum", "global, free bits", "score, capacity", "score, running",
}  # fmt: skip
CASES = [(n, b) for n in ENGINES for b in BACKENDS if b == "pyro" or n not in ON_PYRO]


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_pieces_make_the_step_of_the_whole(name, backend):
    """And the whole's is that of the estimator's definition, by torch's gradients of the terms written down again."""
    found = ENGINES[name]
    program, engine = found if isinstance(found, tuple) else (Given(), found)
    for phase in range(len(engine.phases())):
        whole, cut = (step_of(program, engine, backend, n, phase) for n in (1, 3))
        assert max(np.abs(v).max() for v in whole[1].values()) > 1e-2
        for n, v in whole[1].items():
            np.testing.assert_allclose(cut[1][n], v, rtol=1e-9, atol=1e-9, err_msg=n)
        for n, v in whole[0].items():
            np.testing.assert_allclose(cut[0][n], v, rtol=1e-5, err_msg=n)  # told in float32
    for n, v in (BY_HAND[name]() if name in BY_HAND else {}).items():
        np.testing.assert_allclose(whole[1][n], v.numpy(), rtol=1e-7, atol=1e-9, err_msg=n)  # β is in float32
    if name == "score, running":  # c ← c + 0.1 (f − c), from 0.1
        moved = 0.1 * (whole[0]["objective"] - 0.1)
        assert whole[1]["engine/baseline"] == pytest.approx(moved, rel=1e-5)


def kl_trace(kl, log_p=None, event=None):
    """A trace of one latent "z" with this closed form, [B, D], and K = 1."""
    b, d = kl.shape
    zero = np.zeros((1, b))
    z = np.zeros((1, b, *((d,) if event is None else event)))
    return Trace({"z": z}, {"z": zero, "x": zero if log_p is None else log_p}, {"z": zero}, {"z": kl[None]}, {})


@pytest.mark.parametrize(
    ("per", "of", "right"),
    [
        ("site", "datum", (3.0 + 2.0 + 9.0) / 3),  # Σ_n max(2, KL_n) / N, with KL_n = 3, 1, 9
        ("site", "batch", 13.0 / 3),
        ("dimension", "datum", (5.0 + 4.0 + 10.0) / 3),
        ("dimension", "batch", 2.0 + 11.0 / 3),  # means 2/3 and 11/3
    ],
)
def test_free_bits_are_worth_what_they_say(per, of, right):
    """Also with padding, which counts for nothing."""
    trace = kl_trace(np.array([[0.0, 3.0], [1.0, 0.0], [1.0, 8.0], [50.0, 70.0]]))
    weights = np.array([1.0, 1.0, 1.0, 0.0])
    engine = SVI(free_bits=2.0, free_bits_per=per, free_bits_of=of)
    found = engine(trace, np, weights, {"beta": 0.5}, None)
    assert found["objective"] == pytest.approx(-0.5 * right) and found["kl"] == pytest.approx(13.0 / 3)


@pytest.mark.parametrize(
    ("engine", "counted"),
    [
        (SVI(beta=0.25), lambda kl: 0.25 * kl),
        (SVI(capacity=5.0, gamma=3.0), lambda kl: 3.0 * abs(kl - 5.0)),
        (SVI(capacity=4.0, gamma=3.0), lambda kl: 3.0 * abs(kl - 4.0)),
        (SVI(free_bits=6.0), lambda kl: 0.25 * (6.0 + 0.07)),
        (SVI(free_bits=0.1, kl="monte_carlo"), lambda kl: 0.25 * kl),
    ],
)
def test_every_term_counts_once(engine, counted):
    """With a latent and a datum that all N = 20 data share, and a penalty: reconstruction, KL by β, penalty."""
    local, seen = np.array([[3.0, 5.5], [4.0, 7.5]]), np.array([[-1.0, -2.0], [-3.0, -4.0]])
    zero = np.zeros((2, 2))
    trace = Trace(
        {"z": np.zeros((2, 2, 1)), "m": np.zeros((2, 1))},
        {"z": -local, "x": seen},
        {"z": zero},
        {} if engine.kl == "monte_carlo" else {"z": local.mean(0)[None, :, None]},
        {"m": np.array([-1.0, -1.8]), "y": np.array([-6.0, -10.0])},
        penalties={"size": np.array([0.5, 1.5])},
    )
    knobs = {"beta": 0.25, "capacity": engine.capacity}
    found = engine(trace, np, np.ones(2), knobs, 20)
    kl, told = 5.0 + 1.4 / 20, -2.5 - 8.0 / 20
    assert found["kl"] == pytest.approx(kl) and found["elbo"] == pytest.approx(told - kl)
    assert found["objective"] == pytest.approx(told - counted(kl) - 1.0)


def test_free_bits_per_dimension_of_a_kl_that_does_not_split():
    """A full covariance's KL is one number for the site; a categorical latent's is one for each variable."""
    one = kl_trace(np.ones((2, 1)), event=(3,))
    engine = SVI(free_bits=2.0, free_bits_per="dimension")
    with pytest.raises(ProgramError, match=r"'z' has 3 dimensions that depend on each other.*free_bits_per='site'"):
        engine(one, np, np.ones(2), {"beta": 1.0}, None)
    for right in (kl_trace(np.ones((2, 1)), event=(1,)), kl_trace(np.ones((2, 2)), event=(2, 5))):
        assert engine(right, np, np.ones(2), {"beta": 1.0}, None)["objective"] == -2.0 * right.kl["z"].shape[-1]


@both
def test_free_bits_per_dimension_of_a_full_covariance_are_refused(backend):
    program = VAE(event_shape=(3,), latent=2, posterior=FullCovarianceNormal(), encoder=NET, decoder=NET)
    x = (RNG.random((8, 3)) < 0.5).astype("float32")
    engine = SVI(free_bits=0.5, free_bits_per="dimension")
    with pytest.raises(ProgramError, match="full covariance"):
        ppdgm.fit(program, x, engine=engine, steps=1, backend=backend, progress=False)


def torch_net(*layers):
    """A torch module as an encoder."""
    last = torch.nn.Unflatten(-1, (2, 2))
    first = [] if isinstance(layers[0], Counts) else [torch.nn.Linear(3, 4)]
    return torch.nn.Sequential(*first, *layers, last)


class Counts(torch.nn.Module):
    """Keeps a number that each forward pass moves, and one that stays."""

    def __init__(self, moves):
        super().__init__()
        self.layer, self.moves = torch.nn.Linear(3, 4), moves
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("fixed", torch.ones(4))

    def forward(self, x):
        if self.training and self.moves:
            self.seen += len(x)
        return self.layer(x) * self.fixed


def vae_with(encoder):
    return VAE(event_shape=(3,), latent=2, encoder=encoder, decoder=NET)


def fixed_plate(x):
    with pyro.plate("data", len(x), subsample_size=4) as i:
        z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        pyro.sample("x", pyro.distributions.Normal(z[:, None].expand(-1, 3), 1.0).to_event(1), obs=x[i])


def fixed_guide(x):
    loc = pyro.param("loc", torch.zeros(()))
    with pyro.plate("data", len(x), subsample_size=4):
        pyro.sample("z", pyro.distributions.Normal(loc, 1.0))


class Moments(Program):
    """x ~ N(0, 1), with a small penalty on the mean of a·x: of all rows of the minibatch, or of each row."""

    alone: bool = False

    def build(self, context):
        context.param("a", (), normal(1.0))

    def model(self, P, x):
        with P.plate("data", x):
            scaled = P.param("a") * x
            mean = P.xp.mean(scaled, axis=-1) if self.alone else P.xp.mean(scaled) + 0 * x[:, 0]
            P.penalty("moment", 1e-6 * mean**2)
            P.sample("x", P.dist.Normal(0.0 * x, P.full((), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        pass


REFUSED = {
    "a penalty": (Moments, SVI(), BACKENDS, "penalty 'moment' of a row depends on the other rows"),
    "hmc": (lambda: vae_with(NET), MonteCarloEM(sampler=HMC()), BACKENDS, "HMC moves the minibatch's latents together"),
    "batch norm": (lambda: vae_with(torch_net(torch.nn.BatchNorm1d(4))), SVI(), ["pyro"], "BatchNorm1d computes"),
    "a buffer that moves": (lambda: vae_with(torch_net(Counts(True))), SVI(), ["pyro"], "changes the buffer .*seen"),
    "a plate's own size": (
        lambda: Program.from_pyro(fixed_plate, fixed_guide, data_plate="data"), SVI(), ["pyro"],
        "fixes the minibatch at 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "backend"), [(n, b) for n, r in REFUSED.items() for b in r[2]])
def test_what_is_no_sum_over_data_is_refused(name, backend):
    make, engine, _, words = REFUSED[name]
    x = (RNG.random((8, 3)) < 0.5).astype("float32")
    batch = {} if "plate" in name else {"batch_size": 4}
    with pytest.raises(TrainingError, match=words):
        ppdgm.fit(make(), x, engine=engine, steps=1, accumulate=2, backend=backend, progress=False, **batch)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_norms_without_running_means_mix_the_rows(accumulate):
    program, x = vae_with(torch_net(torch.nn.BatchNorm1d(4, track_running_stats=False))), np.eye(8, 3, dtype="float32")
    with pytest.raises(ProgramError, match="the data's rows are mixed"):
        ppdgm.fit(program, x, steps=1, batch_size=4, accumulate=accumulate, backend="pyro", progress=False)


@both
def test_penalties_of_each_row_add_up(backend):
    x = RNG.random((8, 3)).astype("float32")
    whole, pieces = (
        ppdgm.fit(
            Moments(alone=True), x, steps=1, optimiser="sgd", learning_rate=1e5, accumulate=n, backend=backend,
            progress=False,
        ).params["a"]
        for n in (1, 2)
    )  # fmt: skip
    first = Moments().initialise(0)["a"]
    assert whole == pytest.approx(first * (1 - 0.2 * (x.mean(1) ** 2).mean()), rel=1e-5)
    assert pieces == pytest.approx(whole, rel=1e-5)


def test_buffers_that_stay_are_no_matter():
    x = (RNG.random((8, 3)) < 0.5).astype("float32")
    found = ppdgm.fit(
        vae_with(torch_net(Counts(False))), x, steps=2, accumulate=2, batch_size=8, backend="pyro", progress=False
    )
    assert found.info["steps"] == 2


def test_pieces_must_divide_the_minibatch():
    with pytest.raises(TrainingError, match="5, expected a divisor of batch_size=8"):
        ppdgm.fit(vae_with(NET), np.ones((8, 3), "float32"), steps=1, accumulate=5, progress=False)
