"""Two linear levels whose densities are all known: z2 ~ N(0, I), z1 ~ N(A z2 + a, s²I), x ~ N(W z1 + b, t²I).

A is diagonal and WᵀW = c²I, so that posteriors are diagonal too: each guide can be the best of its kind.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multivariate_normal

from ppdgm.models import MLP, Gaussian, HierarchicalVAE

S, T, C = 0.5, 0.6, 1.3
A, SHIFT = np.array([0.9, -1.4]), np.array([0.3, -0.2])
RNG = np.random.default_rng(0)
W, B = C * np.linalg.qr(RNG.normal(size=(4, 2)))[0], RNG.normal(size=4)

# The joint normal of (z1, z2, x), as a linear map of standard normals.
LIFT = np.block([
    [np.diag(A), S * np.eye(2), np.zeros((2, 4))],
    [np.eye(2), np.zeros((2, 6))],
    [W @ np.diag(A), S * W, T * np.eye(4)],
])  # fmt: skip
MEAN, COVARIANCE = np.concatenate([SHIFT, np.zeros(2), W @ SHIFT + B]), LIFT @ LIFT.T
X = RNG.multivariate_normal(MEAN[4:], COVARIANCE[4:, 4:], size=8).astype(np.float32)
EXACT = multivariate_normal(MEAN[4:], COVARIANCE[4:, 4:]).logpdf(X)


def conditional(of, given):
    """Matrix, shift and covariance of p(of|given) = N(matrix · given + shift, covariance), by indices of the joint."""
    gain = COVARIANCE[np.ix_(of, given)] @ np.linalg.inv(COVARIANCE[np.ix_(given, given)])
    return gain, MEAN[of] - gain @ MEAN[given], COVARIANCE[np.ix_(of, of)] - gain @ COVARIANCE[np.ix_(given, of)]


def raw(scale, low=1e-4, high=100.0):
    """What gives a scale between bounds: the root of low + softplus(r) − softplus(r − (high − low)) = scale."""
    soft = lambda r: np.logaddexp(0.0, r)
    return brentq(lambda r: low + soft(r) - soft(r - (high - low)) - scale, -60.0, 60.0, xtol=1e-14)


def net(name, matrix, shift, raw_scales=None):
    """Parameters of a linear net to matrix · z + shift, and beside it to constant raw scales."""
    if raw_scales is not None:
        matrix, shift = np.concatenate([matrix, 0 * matrix]), np.concatenate([shift, raw_scales])
    return {f"{name}.layers.0.weight": matrix.T, f"{name}.layers.0.bias": shift}


def posterior(name, of, given, widen):
    matrix, shift, covariance = conditional(of, given)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-12  # diagonal, as claimed
    return net(name, matrix, shift, np.array([raw(widen * v**0.5) for v in np.diag(covariance)]))


Z1, Z2, SEEN = [0, 1], [2, 3], [4, 5, 6, 7]


def ladder(widen):
    """Features h1 = h2 = silu(±x projected, 2 of 2), and what z1's normal given z2 lacks to be its posterior.

    A function of h is linear in x again by silu(v) − silu(−v) = v.
    """
    matrix, shift, covariance = conditional(Z1, [*Z2, *SEEN])
    climb, back = W.T / C**2, np.concatenate([W, -W], 1)  # v = climb x; what of x matters to z is W v = back h
    variance = widen**2 * np.diag(covariance)
    own = 1 / (1 / variance - 1 / S**2)  # as 1 / variance = 1 / S² + 1 / own
    scaled = np.concatenate([matrix[:, 2:] @ back, matrix[:, :2]], 1) * (own / variance)[:, None]
    scaled[:, 4:] -= np.diag(A * own / S**2)
    top, shift_top, covariance_top = conditional(Z2, SEEN)
    raw_top = np.array([raw(widen * v**0.5) for v in np.diag(covariance_top)])
    return {
        **net("encoder", np.concatenate([climb, -climb]), np.zeros(4)),
        **net("z2.features", np.zeros((4, 4)), np.zeros(4)),
        **net("z2.encoder", top @ back, shift_top, raw_top),
        **net("z1.encoder", scaled, shift * own / variance - SHIFT * own / S**2, np.array([raw(v**0.5) for v in own])),
    }


def linear(guide, widen=1.0, noise=0.0):
    """(program, parameters). The guide has the exact conditionals, for `factorised` each on its own given x.

    Args:
        widen: factor on the guide's scales.
        noise: standard deviation of what is added to the guide's parameters.
    """
    program = HierarchicalVAE(
        event_shape=(4,), latent=(2, 2), inference=guide, features=4, likelihood=Gaussian(scale=T),
        **{n: MLP(hidden=()) for n in ("encoder", "decoder", "levels")},
    )  # fmt: skip
    own = {
        "factorised": lambda: posterior("z1.encoder", Z1, SEEN, widen) | posterior("z2.encoder", Z2, SEEN, widen),
        "bottom_up": lambda: posterior("z1.encoder", Z1, SEEN, widen) | posterior("z2.encoder", Z2, Z1, widen),
        "top_down": lambda: ladder(widen),
    }[guide]()
    rng = np.random.default_rng(1)
    own = {n: v + noise * rng.normal(size=v.shape) for n, v in own.items()}
    params = own | net("decoder", W, B) | net("z1.conditional", np.diag(A), SHIFT, np.full(2, raw(S, 0.01, 10.0)))
    return program, {n: v.astype(np.float32) for n, v in params.items()}


def elbo_of_factors():
    """The ELBO per datum of the factorised guide: log p(x) less the KL of two normals, the same for all x."""
    _, _, joint = conditional([*Z1, *Z2], SEEN)
    factors = np.diag(np.diag(joint))
    log_ratio = np.linalg.slogdet(joint)[1] - np.linalg.slogdet(factors)[1]
    return EXACT - 0.5 * (np.trace(np.linalg.solve(joint, factors)) - 4 + log_ratio)
