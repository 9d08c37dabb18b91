"""Linear-Gaussian programs whose likelihoods, bounds and posteriors are known; the closed forms are NumPy alone."""

import numpy as np
from scipy.stats import multivariate_normal

import ppdgm
from ppdgm.models import PPCA
from ppdgm.program import Program, normal
from ppdgm.specs import PositiveFloat, Shape

# --- PPCA with the linear guide ------------------------------------------------------------------------------------


def ppca(rng, posterior="linear", shape=(5,), latent=2, size=24, dtype="float32"):
    """(program, params, data drawn from it). The linear guide is off the posterior, and wider than it."""
    width = int(np.prod(shape))
    weight, loc, log_scale = rng.normal(size=(width, latent)), rng.normal(size=width), rng.uniform(-0.7, 0.2)
    params = {"weight": weight, "loc": loc, "log_scale": np.asarray(log_scale)}
    if posterior == "linear":
        variance = np.exp(2 * log_scale)
        inverse = np.linalg.inv(weight.T @ weight + variance * np.eye(latent))
        tilted = inverse @ weight.T + 0.02 * rng.normal(size=(latent, width))
        params["guide.weight"], params["guide.bias"] = tilted, 0.1 - tilted @ loc
        params["guide.log_scale"] = 0.5 * np.log(3.0 * variance * np.diag(inverse))
    z = rng.normal(size=(size, latent))
    x = z @ weight.T + loc + np.exp(log_scale) * rng.normal(size=(size, width))
    program = PPCA(event_shape=shape, latent=latent, posterior=posterior)
    return program, {n: v.astype(dtype) for n, v in params.items()}, x.reshape(size, *shape).astype(dtype)


def ppca_log_likelihood(params, x):
    """log p(x) per datum, by SciPy."""
    p, x = _float64(params), np.asarray(x, float).reshape(len(x), -1)
    covariance = p["weight"] @ p["weight"].T + np.exp(2 * p["log_scale"]) * np.eye(x.shape[1])
    return multivariate_normal(p["loc"], covariance).logpdf(x).reshape(len(x))


def ppca_elbo(params, x):
    """The ELBO of the guide N(Ax + b, diag s²), per datum."""
    p, x = _float64(params), np.asarray(x, float)
    mean, s2 = x @ p["guide.weight"].T + p["guide.bias"], np.exp(2 * p["guide.log_scale"])
    variance, weight = np.exp(2 * p["log_scale"]), p["weight"]
    misfit = ((x - p["loc"] - mean @ weight.T) ** 2).sum(1) + (s2 * (weight**2).sum(0)).sum()
    seen = -0.5 * (x.shape[1] * np.log(2 * np.pi * variance) + misfit / variance)
    return seen + 0.5 * (1 + np.log(s2) - mean**2 - s2).sum(1)


def ppca_draws(params, x, k, seed, shape):
    """z = Ax + b + s ε from the linear guide, [K, N, D], with noise of a given (particles, data), repeated."""
    p = _float64(params)
    noise = np.random.default_rng(seed).normal(size=(*shape, len(p["guide.bias"])))
    z = np.asarray(x, float) @ p["guide.weight"].T + p["guide.bias"] + np.exp(p["guide.log_scale"]) * noise
    return np.broadcast_to(z, (k, *z.shape[1:])).astype(x.dtype)


def weigher(program, params, backend):
    """The package's log-weights as (x, k, seed) -> [K, N], compiled once for each shape."""
    fit = ppdgm.Fit(program=program, params=params, backend=backend, device="cpu")
    return lambda x, k, seed: fit.log_weights(x, k=k, seed=seed)


# --- two latents, and a guide that does not look at the data --------------------------------------------------------


class TwoLatents(Program):
    """z1, z2 ~ N(0, I), two numbers each, x ~ N(W₁z1 + W₂z2, scale² I); q(z1) q(z2), the same for every datum."""

    event_shape: Shape
    scale: PositiveFloat = 1.0

    def build(self, context):
        (x,) = self.event_shape
        for site in ("z1", "z2"):
            context.param(f"{site}.weight", (x, 2), normal(0.7))
            context.param(f"{site}.loc", (2,), label="guide")
            context.param(f"{site}.log_scale", (2,), label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            z1 = P.sample("z1", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            z2 = P.sample("z2", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            mean = z1 @ P.param("z1.weight").T + z2 @ P.param("z2.weight").T
            P.sample("x", P.dist.Normal(mean, P.full((1,), self.scale)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            for site in ("z1", "z2"):
                scale = P.xp.exp(P.param(f"{site}.log_scale"))
                P.sample(site, P.dist.Normal(P.param(f"{site}.loc"), scale).to_event(1))


def two_latents(rng, size=10):
    """(program, params, data, log p(x) per datum)."""
    program = TwoLatents(event_shape=(3,))
    params = program.initialise(int(rng.integers(1000)))
    params |= {n: v + 0.1 * rng.normal(size=v.shape).astype("float32") for n, v in params.items() if "weight" not in n}
    weight = np.concatenate([params["z1.weight"], params["z2.weight"]], axis=1).astype(float)
    marginal = multivariate_normal(np.zeros(3), weight @ weight.T + np.eye(3))
    x = marginal.rvs(size, random_state=rng).astype("float32")
    return program, params, x, marginal.logpdf(x)


# --- one latent for all data ----------------------------------------------------------------------------------------


class Shared(Program):
    """m ~ N(0, 2²) once for all data; z ~ N(m, 1), x ~ N(z, ½²) for each; q(m) Π q(z|x), q(z|x) = N(ax + b, t²)."""

    event_shape: Shape

    def build(self, context):
        for name in ("m.loc", "m.log_scale", "slope", "offset", "log_scale"):
            context.param(name, self.event_shape, normal(0.3), label="guide")

    def model(self, P, x):
        normal, full = P.dist.Normal, lambda value: P.full(self.event_shape, value)
        m = P.sample("m", normal(full(0.0), full(2.0)).to_event(1))
        with P.plate("data", x):
            z = P.sample("z", normal(m, full(1.0)).to_event(1))
            P.sample("x", normal(z, full(0.5)).to_event(1), obs=x)

    def guide(self, P, x):
        P.sample("m", P.dist.Normal(P.param("m.loc"), P.xp.exp(P.param("m.log_scale"))).to_event(1))
        with P.plate("data", x):
            mean = x * P.param("slope") + P.param("offset")
            P.sample("z", P.dist.Normal(mean, P.xp.exp(P.param("log_scale"))).to_event(1))


def shared_elbo(params, x):
    """The ELBO of all data over their number."""
    p, x = _float64(params), np.asarray(x, float)
    mean, t2, s2 = x * p["slope"] + p["offset"], np.exp(2 * p["log_scale"]), np.exp(2 * p["m.log_scale"])
    seen = -0.5 * (np.log(2 * np.pi * 0.25) + ((x - mean) ** 2 + t2) / 0.25)
    local = 0.5 * (1 + np.log(t2) - (mean - p["m.loc"]) ** 2 - s2 - t2)
    once = 0.5 * (1 + np.log(s2 / 4) - (p["m.loc"] ** 2 + s2) / 4)
    return (seen + local).sum(1).mean() + once.sum() / len(x)


def shared_posterior(x):
    """(E[m | all x], the standard deviation of the best factorised q(m)), each per dimension."""
    precision = 1 / 4 + len(x) / 1.25
    return x.sum(0) / 1.25 / precision, np.full(x.shape[1], (1 / 4 + len(x)) ** -0.5)


# --- tools ----------------------------------------------------------------------------------------------------------


def gradient(function, params, step=1e-5):
    """Central differences of a scalar function of named float64 arrays."""
    found = {}
    for name, value in params.items():
        found[name] = np.zeros(value.shape)
        for i in np.ndindex(value.shape):
            moved = [{**params, name: value.copy()} for _ in range(2)]
            moved[0][name][i] += step
            moved[1][name][i] -= step
            found[name][i] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found


def _float64(params):
    return {n: np.asarray(v, float) for n, v in params.items()}
