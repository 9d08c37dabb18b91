"""Exact gradients of what engines maximise, by NumPy alone: differences of expectations, enumerated or sampled."""

from itertools import product

import numpy as np
from reference import log_joint_and_guide
from scipy.special import softmax
from scipy.stats import norm, qmc

HALF_LOG_2_PI = 0.5 * np.log(2 * np.pi)


def bound(log_w, groups=1, alpha=0.0, beta=0.0):
    """β mean log w + (1 − β) mean over groups of 1/(1 − α) log mean w^(1−α), of exchangeable draws [K, …]."""
    if alpha == 1:
        return log_w.mean(0)
    split = log_w.reshape(-1, groups, *log_w.shape[1:])
    top = split.max(0)
    each = top + np.log(np.exp((1 - alpha) * (split - top)).mean(0)) / (1 - alpha)
    return beta * log_w.mean(0) + (1 - beta) * each.mean(0)


def slopes(function, params, step=1e-5):
    """Central differences {name: [*output, *shape]} of a function of named float64 arrays."""
    found = {}
    for name, value in params.items():
        each = []
        for i in np.ndindex(value.shape):
            nudge = np.zeros(value.shape)
            nudge[i] = step
            up, down = (function(params | {name: value + s * nudge}) for s in (1, -1))
            each.append((up - down) / (2 * step))
        each = np.moveaxis(np.array(each), 0, -1)
        found[name] = each.reshape(*each.shape[:-1], *value.shape)
    return found


# --- PPCA with one latent, and the guide N(A(x − μ) + b, s²): the same noise on both sides of a difference ------------


def ppca_terms(p, x, noise=None, z=None):
    """(z, log p(x, z), log q(z|x)), each [K, n, B], for noise [K, n, 1] or given z."""
    weight, residual, scale = p["weight"][:, 0], x - p["loc"], np.exp(p["guide.log_scale"])
    mean = residual @ p["guide.weight"][0] + p["guide.bias"]
    z = mean + scale * noise if z is None else z
    misfit = (residual**2).sum(1) - 2 * z * (residual @ weight) + z**2 * (weight**2).sum()
    seen = -0.5 * misfit * np.exp(-2 * p["log_scale"]) - x.shape[1] * (p["log_scale"] + HALF_LOG_2_PI)
    return z, seen - 0.5 * z**2 - HALF_LOG_2_PI, -0.5 * ((z - mean) / scale) ** 2 - np.log(scale) - HALF_LOG_2_PI


def ppca_gradients(params, x, k, kinds, scrambles=16, log2_size=10):
    """(gradient, standard error) for each kind: arguments of `bound`, or "wake p" and "wake q", Σ w̃ log p, of fixed z.

    From 16 scrambled Sobol sequences of 1024 points in K dimensions, whose spread is the error.
    """
    points = [qmc.Sobol(k, seed=seed).random_base2(log2_size) for seed in range(scrambles)]
    noise = norm.ppf(np.concatenate(points)).T[:, :, None]
    held, log_p, log_q = ppca_terms(params, x, noise)
    shares = softmax(log_p - log_q, axis=0)

    def values(p):
        _, log_p, log_q = ppca_terms(p, x, noise)
        _, held_p, held_q = ppca_terms(p, x, z=held)
        wake = {"wake p": (shares * held_p).sum(0), "wake q": (shares * held_q).sum(0)}
        each = [wake[kind] if isinstance(kind, str) else bound(log_p - log_q, *kind) for kind in kinds]
        return np.stack([e.mean(1).reshape(scrambles, -1).mean(1) for e in each])

    found = slopes(values, params)
    summary = lambda j: ({n: g[j].mean(0) for n, g in found.items()}, {n: _error(g[j]) for n, g in found.items()})
    return [summary(j) for j in range(len(kinds))]


def _error(samples):
    return samples.std(0, ddof=1) / np.sqrt(len(samples))


# --- VAEs with one categorical latent: sums over all draws ------------------------------------------------------------


def categorical_terms(program, params, x):
    """(log p(x, z), log q(z|x)), each [C, N]."""
    codes = 1000.0 * (np.eye(program.posterior.classes) - 1.0)
    z = np.broadcast_to(codes[:, None, None], (len(codes), len(x), 1, len(codes)))
    return log_joint_and_guide(program.to_dict(), params, {"x": x}, {"z": z})


def all_draws(log_q, k):
    """(indices of classes [K, S], probabilities [S, N]) of all S = C^K joint draws."""
    chosen = np.array(list(product(range(len(log_q)), repeat=k))).T
    return chosen, np.exp(log_q[chosen].sum(0))


def expected_bound(program, params, x, k, *kind):
    """The mean over data of the expectation of a K-sample bound."""
    log_p, log_q = categorical_terms(program, params, x)
    chosen, probability = all_draws(log_q, k)
    return (probability * bound((log_p - log_q)[chosen], *kind)).sum(0).mean()


def wake_sleep_gradient(program, params, x, k, reweighted, wake, sleep):
    """θ: E Σ w̃ ∇ log p(x, z); φ: wake E Σ w̃ ∇ log q(z|x) + sleep E_p(x', z') ∇ log q(z'|x'), for binary pixels."""
    pixels = np.array(list(product((0.0, 1.0), repeat=x.shape[1])))
    log_p, log_q = categorical_terms(program, params, x)
    dreamt = np.exp(categorical_terms(program, params, pixels)[0])
    assert abs(dreamt.sum() - 1) < 1e-12
    chosen, probability = all_draws(log_q, k)
    shares = softmax((log_p - log_q)[chosen], axis=0) if reweighted else np.full((k, 1, 1), 1 / k)

    def value(p):
        log_p, log_q = categorical_terms(program, p, x)
        awake = (probability * (shares * (log_p + wake * log_q)[chosen]).sum(0)).sum(0).mean()
        return awake + sleep * (dreamt * categorical_terms(program, p, pixels)[1]).sum()

    return slopes(value, params)
