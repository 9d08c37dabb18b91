"""Mixture priors, the VampPrior, and posteriors outside the diagonal Gaussian: densities, draws, pseudo-inputs."""

import numpy as np
import pytest
import torch
from readings import BACKENDS, get_runtime, run_trace, train
from scipy.special import logsumexp
from scipy.stats import ks_2samp, norm
from test_contract import LOSSES

import ppdgm
from ppdgm.backends.pyro.vocabulary import TorchVocabulary
from ppdgm.errors import ProgramError, SpecError
from ppdgm.models import (
    MLP,
    VAE,
    Bernoulli,
    DiagonalGumbel,
    DiagonalLaplace,
    DiagonalLogistic,
    DiagonalNormal,
    DiagonalStudentT,
    FlowPosterior,
    FullCovarianceNormal,
    Gaussian,
    MixtureOfGaussians,
    Planar,
    Program,
    Sylvester,
    VampPrior,
)
from ppdgm.models.priors.mixture import log_components

LEVEL = 1e-4  # of two-sample tests
POSTERIORS = {
    "full": FullCovarianceNormal(min_scale=0.1),
    "laplace": DiagonalLaplace(min_scale=0.1),
    "logistic": DiagonalLogistic(min_scale=0.1, max_scale=1.0),
    "student t": DiagonalStudentT(df=3.0, min_scale=0.1),
    "gumbel": DiagonalGumbel(min_scale=0.1),
}
PRIORS = {
    "gaussians": MixtureOfGaussians(components=4, spread=2.0, scale=0.5),
    "uniform": MixtureOfGaussians(components=3, weights="uniform"),
    "vamp": VampPrior(components=5, weights="learned", range="real"),
}
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_posterior = pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS)
every_prior = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


def vae(event=(3,), latent=2, **parts):
    parts = {"likelihood": Gaussian(), "encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))} | parts
    return VAE(event_shape=event, latent=latent, **parts)


def moved(program, data=None, seed=0):
    """First values of all parameters, moved by noise."""
    rng = np.random.default_rng(seed)
    return {
        n: (v + 0.5 * rng.normal(size=v.shape)).astype(np.float32) for n, v in program.initialise(seed, data).items()
    }


def densities(program, params, x, z, backend):
    """log p(z) and log q(z|x), [len(z), len(x)]."""
    given = np.repeat(z[:, None], len(x), 1).astype(np.float32)
    trace = run_trace(get_runtime(backend, program), params, {"x": x}, len(z), latents={"z": given})
    return trace.log_p["z"], trace.log_q["z"]


X = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)


def mass(log_density, nodes, spacing):
    """The integral over a grid in two dimensions, [B], from [nodes², B]."""
    weights = (spacing[:, None] * spacing).reshape(-1, 1)
    return (np.exp(log_density.astype(float)) * weights).sum(0)


@pytest.mark.parametrize("backend", BACKENDS[:1])
@pytest.mark.parametrize("name", [*POSTERIORS, *PRIORS])
def test_densities_integrate_to_one(name, backend):
    """By quadrature on a grid that grows as sinh: tails count."""
    program = vae(posterior=POSTERIORS.get(name, DiagonalNormal()), prior=PRIORS.get(name, PRIORS["uniform"]))
    step = 0.03
    t = np.arange(-7, 7, step)
    nodes, spacing = 0.1 * np.sinh(t), 0.1 * np.cosh(t) * step
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    log_p, log_q = densities(program, moved(program, {"x": X}), X, z, backend)
    np.testing.assert_allclose(mass(log_p if name in PRIORS else log_q, nodes, spacing), 1.0, atol=2e-3)


def check_same(draws, density, seed=5):
    """A two-sample test of draws [n, 2] against draws from the grid density `density(z)`, coordinates and their sum."""
    rng = np.random.default_rng(seed)
    low, high = np.quantile(draws, 0.0005, 0) - 1, np.quantile(draws, 0.9995, 0) + 1
    nodes = [np.linspace(a, b, 250) for a, b in zip(low, high, strict=True)]
    z = np.stack(np.meshgrid(*nodes, indexing="ij"), -1).reshape(-1, 2)
    probs = np.exp(density(z).astype(float))
    cell = np.array([n[1] - n[0] for n in nodes])
    other = z[rng.choice(len(z), len(draws), p=probs / probs.sum())] + cell * rng.uniform(-0.5, 0.5, draws.shape)
    lines = np.array([[1, 0], [0, 1], [1, 1], [1, -1]]).T
    inside = ((draws > low) & (draws < high)).all(1)
    return min(ks_2samp(a, b).pvalue for a, b in zip((draws[inside] @ lines).T, (other @ lines).T, strict=True))


@pytest.mark.statistical
@every_backend
@every_posterior
def test_posteriors_draw_what_they_score(posterior, backend):
    """A two-sample test at level 1e-4, seed 3, 8,000 draws; and wrong twins that fail it."""
    program = vae(posterior=posterior)
    params = moved(program)
    draws = run_trace(get_runtime(backend, program), params, {"x": X}, 8000, seed=3).values["z"][:, 0]
    score = lambda z: densities(program, params, X[:1], z, backend)[1][:, 0]
    assert check_same(draws, score) > LEVEL
    assert check_same(draws.mean(0) + 1.15 * (draws - draws.mean(0)), score) < LEVEL


@pytest.mark.statistical
@every_backend
@every_prior
def test_mixtures_draw_what_they_score(prior, backend):
    program = vae(prior=prior)
    params = moved(program, {"x": X})
    runtime = get_runtime(backend, program)
    latents, _ = runtime.prior(runtime.put(params), {"x": None}, 8000, 3, False)
    draws = np.asarray(latents["z"])[0]
    score = lambda z: densities(program, params, X[:1], z, backend)[0][:, 0]
    assert check_same(draws, score) > LEVEL
    assert check_same(draws + 0.15, score) < LEVEL


# --- mixtures of Gaussians -----------------------------------------------------------------------------------------


def test_means_start_spread_out_and_scales_as_asked():
    program = vae(latent=40, prior=MixtureOfGaussians(components=500, spread=3.0, scale=0.2))
    first = program.initialise(0)
    assert first["prior.loc"].std() == pytest.approx(3.0, rel=0.02)
    np.testing.assert_allclose(1e-3 + np.logaddexp(0, first["prior.raw_scale"]), 0.2, rtol=1e-5)
    assert (first["prior.logits"] == 0).all()
    assert "prior.logits" not in vae(prior=PRIORS["uniform"]).initialise(0)
    with pytest.raises(
        SpecError, match=r"MixtureOfGaussians.min_scale: got 1.0; expected a number less than scale, 0.5"
    ):
        MixtureOfGaussians(scale=0.5, min_scale=1.0)


def over_torch(program, params):
    """The vocabulary over torch, for reading a program's parts by themselves."""
    plain = type("Plain", (), {"param": lambda self, name, value: value, "recomputes": False})()
    return TorchVocabulary(plain, {n: torch.tensor(v) for n, v in params.items()}, program.declarations())


def prior_of(program, params):
    P = over_torch(program, params)
    return program.prior(P, lambda u: program.posterior.base(P, P.net("encoder")(u)))


@every_prior
def test_a_mixture_has_a_mean_and_takes_any_leading_dimensions(prior):
    program = vae(latent=(2, 2), prior=prior)
    params = moved(program, {"x": X})
    found = prior_of(program, params)
    draws = found.expand((4000, 5)).sample()
    error = draws.std((0, 1)) / 20_000**0.5
    assert (abs(draws.mean((0, 1)) - found.mean) < 5 * error).all()
    z = torch.tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 2, 2)), dtype=torch.float32)
    whole = found.log_prob(z)
    assert whole.shape == (2, 3, 4)
    torch.testing.assert_close(found.log_prob(z[1, 2, 3]), whole[1, 2, 3])
    torch.testing.assert_close(found.log_prob(z[1]), whole[1])


@pytest.mark.parametrize("scale", [1.0, 0.03, 1e-3])
def test_log_densities_are_precise_at_small_scales(scale):
    """To 1e-4 nats in float32, where an expansion of (z − μ)² into products loses 20 nats at σ = 0.001."""
    rng = np.random.default_rng(0)
    m, d = 50, 40
    loc, z = rng.normal(size=(2, m, d)).astype(np.float32)
    z = loc + np.float32(scale) * z
    P = over_torch(vae(latent=d), {})
    P.declared.shapes[""] = (d,)
    P.prefix = "."
    dists = P.dist.Normal(torch.tensor(loc[:, None]), torch.full((m, 1, d), scale)).to_event(1)
    found = np.diag(log_components(P, dists, torch.tensor(z)).numpy())
    exact = norm.logpdf(z.astype(float), loc.astype(float), float(np.float32(scale))).sum(1)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4)


# --- VampPrior -----------------------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("range", ["unit", "real"])
def test_a_vamp_prior_is_the_mixture_of_the_guide_at_its_pseudo_inputs(range, backend):
    """log p(z) from the guide's own log q(z|x), with the pseudo-inputs for data."""
    program = vae(prior=VampPrior(components=5, weights="learned", range=range))
    params = moved(program)
    u = program.prior.pseudo_inputs(params)
    z = np.random.default_rng(2).normal(size=(7, 2))
    log_p, _ = densities(program, params, X, z, backend)
    _, log_q = densities(program, params, u, z, backend)
    weights = np.exp(params["prior.logits"]) / np.exp(params["prior.logits"]).sum()
    np.testing.assert_allclose(log_p[:, 0], logsumexp(log_q, axis=1, b=weights), rtol=1e-5)


def test_pseudo_inputs_start_from_the_data():
    """With a little noise; those at the ends a little inside."""
    rng = np.random.default_rng(0)
    for range, x in (("unit", (rng.random((30, 4, 5)) > 0.5).astype(float)), ("real", rng.normal(2, 3, (30, 4, 5)))):
        program = vae(event=(4, 5), prior=VampPrior(components=20, range=range))
        first = program.initialise(0, {"x": x})
        assert first["prior.pseudo_inputs"].shape == (20, 4, 5)
        u = program.prior.pseudo_inputs(first)
        away = np.abs(u[:, None] - x).max((2, 3))
        assert (away.min(1) < 0.04 * (1 if range == "unit" else x.std() * 1.5)).all()
        assert len(set(away.argmin(1))) == 20  # each from a datum of its own
        assert u.min() > 0 or range == "real"
        other = program.prior.pseudo_inputs(program.initialise(1, {"x": x}))
        assert not np.allclose(u, other, atol=0.2)
        alone = program.prior.pseudo_inputs(program.initialise(0))
        assert alone.std() > 0.1
        drawn = program.replace(prior=program.prior.replace(initial="random")).initialise(0, {"x": x})
        np.testing.assert_array_equal(program.prior.pseudo_inputs(drawn), alone)
    many = vae(event=(4, 5), prior=VampPrior(components=50, range="real")).initialise(0, {"x": x})
    assert len(np.unique(many["prior.pseudo_inputs"], axis=0)) == 50  # more than there are data, and no two equal


def test_data_out_of_range_are_refused():
    with pytest.raises(SpecError, match=r"range: got 'unit', but the data lie between -1 and 2. Use range='real'"):
        vae(prior=VampPrior(components=2)).initialise(0, {"x": np.array([[-1.0, 0.0, 2.0]])})
    with pytest.raises(SpecError, match=r"got data of shape \(4,\), expected \(3,\)"):
        vae(prior=VampPrior(components=2)).initialise(0, {"x": np.ones((2, 4))})


class WithoutX(Program):
    """A guide that gives z from more than x."""

    def build(self, context):
        context.part(VampPrior(), (2,))


def test_a_latent_that_does_not_come_from_x_alone_is_refused():
    with pytest.raises(ProgramError, match=r"the guide does not draw this z from x only. Use MixtureOfGaussians"):
        WithoutX().declarations()


@every_backend
def test_pseudo_inputs_stay_in_range_whatever_the_steps(backend):
    """Steps of 50, uphill: far beyond the ends. They move, and stay finite and within [0, 1]."""
    x = (np.random.default_rng(0).random((20, 6)) > 0.5).astype(np.float32)
    program = vae(event=(6,), likelihood=Bernoulli(), prior=VampPrior(components=4))
    first = program.initialise(0, {"x": x})
    after, _ = train(backend, program, {"x": x}, first, steps=10, rate=50.0, optimiser="adam")
    u = program.prior.pseudo_inputs(after)
    assert ((u >= 0) & (u <= 1)).all()
    assert np.abs(u - program.prior.pseudo_inputs(first)).max() > 0.5


def test_labels_say_who_moves_what():
    declared = vae(posterior=FlowPosterior(flow=Planar(depth=1)), prior=VampPrior(weights="learned")).declarations()
    labels = {n: s.label for n, s in declared.params.items()}
    assert {labels["prior.pseudo_inputs"], labels["prior.logits"]} == {"model"}
    assert {v for n, v in labels.items() if n.startswith("encoder.")} == {"guide"}


# --- all of them ---------------------------------------------------------------------------------------------------

EXTREMES = {
    **{n: {"posterior": p} for n, p in POSTERIORS.items()},
    **{n: {"prior": p} for n, p in PRIORS.items()},
    "normal": {"posterior": DiagonalNormal()},
    "vamp over planar": {"prior": PRIORS["vamp"], "posterior": FlowPosterior(flow=Planar(depth=2))},
    "vamp over sylvester": {"prior": PRIORS["vamp"], "posterior": FlowPosterior(flow=Sylvester(depth=2))},
    "vamp over student t": {"prior": PRIORS["vamp"], "posterior": POSTERIORS["student t"]},
}


@every_backend
@pytest.mark.parametrize("parts", EXTREMES.values(), ids=EXTREMES)
def test_heads_and_data_of_50_keep_value_and_gradient_finite(parts, backend):
    """float32: an encoder that copies x = ±50 into its head, by a bias of ±50 where the head is wider."""
    program = vae(encoder=MLP(hidden=()), **parts)
    rng = np.random.default_rng(0)
    x = 50.0 * rng.choice([-1.0, 1.0], size=(6, 3))
    params = program.initialise(0, {"x": x})
    weight = params["encoder.layers.0.weight"]
    params["encoder.layers.0.weight"] = np.eye(*weight.shape, dtype=np.float32)
    params["encoder.layers.0.bias"] = np.float32(50.0) * rng.choice([-1, 1], size=weight.shape[1]).astype(np.float32)
    tracer = get_runtime(backend, program).tracer
    value, gradients = LOSSES[backend](tracer, {"x": x.astype(np.float32)}, None, 7)(params)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients.values())


def test_scales_keep_their_bounds():
    """Over all floats: between the bounds, rising, and softplus to the bit in the ordinary range."""
    raw = torch.cat([torch.linspace(-200, 80, 2001), torch.tensor([100.0, 1e3, 1e10, 1e30])])
    program = vae()
    scale = DiagonalNormal().scale(over_torch(program, {"a": np.zeros(1, np.float32)}), raw)
    assert torch.equal(scale[:2001], 1e-4 + torch.nn.functional.softplus(raw[:2001]))
    assert ((scale >= 1e-4) & (scale <= 100.0 * (1 + 1e-6))).all()
    assert (scale.diff() >= -1e-4).all()
    with pytest.raises(SpecError, match=r"DiagonalNormal.max_scale: got 0.1; expected a number greater than min_scale"):
        DiagonalNormal(min_scale=0.2, max_scale=0.1)
    with pytest.raises(SpecError, match=r"DiagonalStudentT.df: got 2.0; expected a number greater than 2"):
        DiagonalStudentT(df=2.0)


@every_backend
@pytest.mark.parametrize("posterior", [DiagonalNormal(), FlowPosterior(flow=Planar(depth=2))], ids=["normal", "planar"])
def test_a_vamp_prior_trains_on_digits(posterior, backend):
    """200 steps: finite, and a better bound on held-out digits than at the start, at the means of the columns."""
    data = ppdgm.load_data("digits")
    net = MLP(hidden=(50,))
    program = VAE(
        event_shape=data.event_shape,
        latent=8,
        posterior=posterior,
        prior=VampPrior(components=20),
        encoder=net,
        decoder=net,
    )
    fit = ppdgm.fit(program, data.train, backend=backend, steps=200, batch_size=50, progress=False, compile=False)
    start = ppdgm.Fit(program, program.initialise(0, {"x": data.train}), backend)
    assert np.isfinite(fit.history["elbo"]).all()
    assert fit.elbo(data.test).mean > start.elbo(data.test).mean + 3
    assert np.abs(fit.params["prior.pseudo_inputs"] - start.params["prior.pseudo_inputs"]).max() > 1e-3
