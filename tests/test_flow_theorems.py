"""Theorems about flows, as equalities of numbers: duality of KL, Dirac encoders, inverse priors, couplings as masks."""

import numpy as np
import pytest
from flow_tools import apply, declare
from numpy.polynomial.hermite_e import hermegauss
from readings import BACKENDS, precision
from scipy.integrate import trapezoid
from scipy.stats import norm

import ppdgm
from ppdgm import Program
from ppdgm.models import (
    IAF,
    MAF,
    MLP,
    VAE,
    ActNorm,
    ContinuousFlow,
    Flow,
    FlowModel,
    FlowPosterior,
    FlowPrior,
    Gaussian,
    RealNVP,
)

both = pytest.mark.parametrize("backend", BACKENDS)
WIDE = {"dtype": "float64"}


def gaussian_kl(m, s, other_m, other_s):
    return np.log(other_s / s) + (s**2 + (m - other_m) ** 2) / (2 * other_s**2) - 0.5


def moved(program, seed=0, scale=0.3):
    """Parameters of a program, float64, moved by noise."""
    rng = np.random.default_rng(seed)
    return {n: v + scale * rng.normal(size=v.shape) for n, v in program.initialise(0, dtype="float64").items()}


# --- KL(π ‖ p_θ) = KL(f⁻¹ # π ‖ N(0, 1)) -----------------------------------------------------------------------------


@both
def test_the_two_directions_of_kl_are_one_affine(backend):
    """π = N(m, s²), x = a u + b: both sides in closed form, and the package's own numbers."""
    m, s, a, b = 1.3, 0.7, 2.0, -0.4
    program = FlowModel(event_shape=(1,), flow=ActNorm())
    params = {"flow.shift": np.array([-b]), "flow.log_scale": np.array([-np.log(a)])}
    right = gaussian_kl(m, s, b, a)
    assert right == pytest.approx(gaussian_kl((m - b) / a, s / a, 0.0, 1.0), rel=1e-12)
    nodes, weights = hermegauss(40)
    x, weights = (m + s * nodes)[:, None], weights / weights.sum()
    with precision("float64"):
        log_p = ppdgm.Fit(program=program, params=params, backend=backend).elbo(x).values
    assert (weights * (norm.logpdf(x[:, 0], m, s) - log_p)).sum() == pytest.approx(right, rel=1e-6)
    u, log_det = program.noise(params, x)  # the density of u = f⁻¹(x) is π(x) / |det ∂f⁻¹/∂x|
    pushed = norm.logpdf(x[:, 0], m, s) - log_det - norm.logpdf(u[:, 0])
    assert (weights * pushed).sum() == pytest.approx(right, rel=1e-9)


def test_the_two_directions_of_kl_are_one_for_a_curved_flow():
    """In 1-D, by quadrature: over x with p_θ(x), and over u with the density of f⁻¹(x), taken by differences."""
    program = FlowModel(event_shape=(1,), flow=ContinuousFlow(hidden=(6,), steps=30))
    params, m, s = moved(program, scale=0.8), 0.5, 0.8
    side = np.linspace(m - 9 * s, m + 9 * s, 8001)[:, None]
    u, log_det = program.noise(params, side)
    log_p = norm.logpdf(u[:, 0]) + log_det
    forward = trapezoid(norm.pdf(side[:, 0], m, s) * (norm.logpdf(side[:, 0], m, s) - log_p), side[:, 0])
    grid = np.linspace(u[0, 0], u[-1, 0], 20001)
    x = np.interp(grid, u[:, 0], side[:, 0])
    density = norm.pdf(x, m, s) * np.gradient(x, grid)
    inside = density > 1e-12
    ratio = np.where(inside, np.log(np.where(inside, density, 1.0)) - norm.logpdf(grid), 0.0)
    assert trapezoid(density * ratio, grid) == pytest.approx(forward, rel=1e-3)
    assert forward > 0.02 and np.abs(np.gradient(u[:, 0], side[:, 0])).std() > 0.05  # it is curved


# --- a flow is a VAE with a Dirac encoder and decoder ----------------------------------------------------------------


class Dirac(Program):
    """z = f⁻¹(x'), x' ~ N(x, σ²); x | z ~ N(f(z), σ²); z ~ N(0, I). For σ → 0, both are points."""

    flow: Flow
    sigma: float = 1e-3

    def build(self, context):
        self.flow.build(context.scope("flow"), 3, conditional=False)

    def near(self, P, at):
        return P.dist.Normal(at, P.full((3,), self.sigma)).to_event(1)

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((3,), 0.0), P.full((3,), 1.0)).to_event(1))
            P.sample("x", self.near(P, self.flow.forward(P.scope("flow"), z, None)[0]), obs=x)

    def guide(self, P, x):
        def sample(random, shape):
            there = x + self.sigma * random.normal((*shape, 3))
            z, log_det = self.flow.inverse(P.scope("flow"), there, None)
            return z, self.near(P, x).log_prob(there) - log_det

        def log_prob(z):
            there, log_det = self.flow.forward(P.scope("flow"), z, None)
            return self.near(P, x).log_prob(there) + log_det

        with P.plate("data", x):
            P.sample("z", P.distribution(sample, log_prob, (3,), (len(x),)))


@both
@pytest.mark.parametrize("flow", [RealNVP(depth=2, hidden=(6,), activation="tanh"), MAF(depth=1, hidden=(6,))])
def test_a_flow_is_a_vae_whose_encoder_and_decoder_are_points(flow, backend):
    """log w = log p(x'), whatever σ is; so the ELBO is log p(x) for σ → 0."""
    x = np.random.default_rng(1).normal(size=(5, 3))
    vae, model = Dirac(flow=flow), FlowModel(event_shape=(3,), flow=flow)
    params = moved(model)
    with precision("float64"):
        trace = ppdgm.trace(vae, params, x, k=4, backend=backend)
        log_w = trace.log_p["z"] + trace.log_p["x"] - trace.log_q["z"]
        exact = ppdgm.Fit(program=model, params=params, backend=backend).elbo(x).values
        wide = Dirac(flow=flow, sigma=0.7)
        far = ppdgm.trace(wide, params, x, k=4, backend=backend)
    np.testing.assert_allclose(log_w, np.broadcast_to(exact, log_w.shape), atol=0.05)
    np.testing.assert_allclose(log_w.mean(0), exact, atol=0.02)
    for k in range(4):
        with precision("float64"):
            there = apply_flow(backend, flow, params, far.values["z"][k])
            log_p = ppdgm.Fit(program=model, params=params, backend=backend).elbo(there).values
        got = far.log_p["z"][k] + far.log_p["x"][k] - far.log_q["z"][k]
        np.testing.assert_allclose(got, log_p, rtol=1e-5, atol=1e-5)


def apply_flow(backend, flow, params, z):
    declared, _ = declare(flow, z.shape[-1], False)
    return apply(backend, flow, "forward", params, declared, np.asarray(z, float))[0]


# --- a flow posterior is a Gaussian posterior with the inverse flow as prior -----------------------------------------


class Inverse(Flow):
    """f⁻¹ as a flow."""

    of: Flow

    def build(self, scope, width, conditional):
        return self.of.build(scope, width, conditional)

    def forward(self, P, x, context):
        return self.of.inverse(P, x, context)

    def inverse(self, P, y, context):
        return self.of.forward(P, y, context)


class Decoded(Program):
    """A flow after a Gaussian posterior: with N(0, I) as prior of z = f(z₀), or the inverse flow as prior of z₀."""

    flow: Flow
    in_prior: bool

    def build(self, context):
        context.part(FlowPrior(flow=Inverse(of=self.flow)), (2,)) if self.in_prior else None
        if not self.in_prior:
            self.flow.build(context.scope("prior.flow"), 2, conditional=False)
        context.net("decoder", MLP(hidden=(5,)), (2,), (3,))
        context.net("encoder", MLP(hidden=(5,)), (3,), (4,), label="guide")

    def initial(self, P, x):
        out = P.net("encoder")(x)
        return P.dist.Normal(out[..., :2], P.softplus(out[..., 2:])).to_event(1)

    def pushed(self, P, z):
        return self.flow.forward(P.scope("prior.flow"), z, None)

    def model(self, P, x):
        with P.plate("data", x):
            if self.in_prior:
                z = P.sample("z", FlowPrior(flow=Inverse(of=self.flow))(P))
                z = self.pushed(P, z)[0]
            else:
                z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(P.net("decoder")(z), P.full((3,), 0.5)).to_event(1), obs=x)

    def guide(self, P, x):
        first = self.initial(P, x)
        with P.plate("data", x):
            if self.in_prior:
                P.sample("z", first)
                return

            def sample(random, shape):
                z0, log_q = random.draw(first, shape)
                z, log_det = self.pushed(P, z0)
                return z, log_q - log_det

            def log_prob(z):
                z0, log_det = self.flow.inverse(P.scope("prior.flow"), z, None)
                return first.log_prob(z0) + log_det

            P.sample("z", P.distribution(sample, log_prob, (2,), (len(x),)))


@both
def test_a_flow_posterior_is_a_gaussian_posterior_with_the_inverse_flow_as_prior(backend):
    """The weights p(x, z) / q(z|x) are equal at z = f(z₀), so all bounds are."""
    flow = RealNVP(depth=2, hidden=(6,), activation="tanh")
    ours, other = Decoded(flow=flow, in_prior=False), Decoded(flow=flow, in_prior=True)
    params, x = moved(ours), np.random.default_rng(1).normal(size=(4, 3))
    with precision("float64"):
        first = ppdgm.trace(other, params, x, k=3, backend=backend)
        z0 = first.values["z"]
        z = np.stack([of_prior(backend, flow, params, each) for each in z0])
        second = ppdgm.trace(ours, params, x, k=3, backend=backend, values={"z": z})
    weights = [t.log_p["z"] + t.log_p["x"] - t.log_q["z"] for t in (first, second)]
    np.testing.assert_allclose(*weights, rtol=1e-5, atol=1e-5)
    assert np.abs(first.log_p["z"] - second.log_p["z"]).max() > 0.1  # though each term is another


def of_prior(backend, flow, params, z):
    declared, _ = declare(flow, z.shape[-1], False)
    own = {n.removeprefix("prior."): v for n, v in params.items() if n.startswith("prior.flow")}
    return apply(backend, flow, "forward", own, declared, np.asarray(z, float))[0]


@both
def test_the_same_with_the_packages_parts(backend):
    """FlowPosterior without a context, whose ELBO is that of the program above."""
    flow, net = RealNVP(depth=2, hidden=(6,), activation="tanh", context_size=0), MLP(hidden=(5,))
    vae = VAE(
        event_shape=(3,),
        latent=2,
        posterior=FlowPosterior(flow=flow),
        likelihood=Gaussian(scale=0.5),
        encoder=net,
        decoder=net,
    )
    prior = VAE(
        event_shape=(3,),
        latent=2,
        prior=FlowPrior(flow=Inverse(of=flow)),
        likelihood=Gaussian(scale=0.5),
        encoder=net,
        decoder=net,
    )
    params, x = moved(vae), np.random.default_rng(1).normal(size=(4, 3))
    with precision("float64"):
        first = ppdgm.trace(vae, params, x, k=3, backend=backend)
        own = {n.removeprefix("posterior."): v for n, v in params.items() if n.startswith("posterior.flow")}
        declared, _ = declare(flow, 2, False)
        z0 = np.stack([apply(backend, flow, "inverse", own, declared, z)[0] for z in first.values["z"]])
        swapped = {n.replace("posterior.flow", "prior.flow"): v for n, v in params.items()}
        second = ppdgm.trace(prior, swapped, x, k=3, backend=backend, values={"z": z0})
    np.testing.assert_allclose(
        first.log_p["z"] - first.log_q["z"], second.log_p["z"] - second.log_q["z"], rtol=1e-5, atol=1e-5
    )


# --- a coupling is a masked flow, with zeros in its masks ------------------------------------------------------------

WIDTH, KEPT, UNITS = 4, 2, 6


def coupling(constant_scale=False):
    """A RealNVP of one layer, and parameters; with a constant scale below 1, also an IAF can be it."""
    flow = RealNVP(depth=1, hidden=(UNITS,), activation="tanh", max_log_scale=2.0)
    declared, _ = declare(flow, WIDTH, False)
    rng = np.random.default_rng(3)
    params = {n: rng.normal(size=s.shape) for n, s in declared.params.items()}
    if constant_scale:
        last = params["flow.nets.0.layers.1.weight"].reshape(UNITS, 2, WIDTH - KEPT)
        last[:, 1] = 0.0
        params["flow.nets.0.layers.1.bias"].reshape(2, -1)[1] = -np.abs(rng.normal(size=WIDTH - KEPT)) - 0.1
    return flow, declared, params


def as_masks(flow, params):
    """A masked flow's parameters: of its hidden units, those that may see exactly the kept half are the coupling's."""
    declared, _ = declare(flow, WIDTH, False)
    found = {n: np.zeros(s.shape) for n, s in declared.params.items()}
    units = flow.hidden[0]
    degrees = np.array([1 + k * (WIDTH - 1) // units for k in range(units)])  # as MADE spreads them
    own = np.flatnonzero(degrees == KEPT)[:UNITS]
    assert len(own) == UNITS
    found["flow.nets.0.layers.0.weight"][:KEPT, own] = params["flow.nets.0.layers.0.weight"]
    found["flow.nets.0.layers.0.bias"][own] = params["flow.nets.0.layers.0.bias"]
    weight = found["flow.nets.0.layers.1.weight"].reshape(units, 2, WIDTH)
    weight[own, :, KEPT:] = params["flow.nets.0.layers.1.weight"].reshape(UNITS, 2, WIDTH - KEPT)
    found["flow.nets.0.layers.1.bias"].reshape(2, WIDTH)[:, KEPT:] = params["flow.nets.0.layers.1.bias"].reshape(2, -1)
    return declared, found


@both
def test_a_coupling_is_a_masked_autoregressive_flow(backend):
    """The MAF's layer maps data to noise, so it is the coupling's inverse; the same density of the same values."""
    coupled, declared, params = coupling()
    masked = MAF(depth=1, hidden=(24,), activation="tanh", max_log_scale=2.0)
    of_mask, same = as_masks(masked, params)
    x = np.random.default_rng(0).normal(size=(6, WIDTH))
    with precision("float64"):
        y, log_det = apply(backend, coupled, "forward", params, declared, x)
        z, log_mask = apply(backend, masked, "inverse", same, of_mask, x)
        back, back_det = apply(backend, masked, "forward", same, of_mask, y)
    np.testing.assert_allclose(y, z, rtol=1e-10)
    np.testing.assert_allclose(log_det, log_mask, rtol=1e-10)
    np.testing.assert_allclose(back, x, rtol=1e-10)
    np.testing.assert_allclose(back_det, -log_det, rtol=1e-10)
    assert np.abs(log_det).min() > 0.01


@both
def test_a_coupling_with_a_constant_scale_is_an_inverse_autoregressive_flow(backend):
    """z ← σ z + (1 − σ) m: σ = exp(s), m = t / (1 − σ) in the moved half, and σ = 1 in the kept one."""
    coupled, declared, params = coupling(constant_scale=True)
    masked = IAF(depth=1, hidden=(24,), activation="tanh", min_scale=1e-9)
    of_mask, same = as_masks(masked, params)
    bias = same["flow.nets.0.layers.1.bias"].reshape(2, WIDTH)
    scale = np.exp(2.0 * np.tanh(bias[1, KEPT:] / 2.0))
    weight = same["flow.nets.0.layers.1.weight"].reshape(24, 2, WIDTH)
    weight[:, 0, KEPT:] /= 1 - scale
    bias[0, KEPT:] /= 1 - scale
    bias[1, KEPT:] = np.log(scale / (1 - scale)) - 2.0  # σ = sigmoid(2 + s)
    bias[1, :KEPT] = 50.0
    x = np.random.default_rng(0).normal(size=(6, WIDTH))
    with precision("float64"):
        y, log_det = apply(backend, coupled, "forward", params, declared, x)
        z, log_mask = apply(backend, masked, "forward", same, of_mask, x)
    np.testing.assert_allclose(y, z, rtol=1e-6)
    np.testing.assert_allclose(log_det, log_mask, rtol=1e-6)
