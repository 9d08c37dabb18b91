"""Linear-Gaussian programs with guides that are right, or wrong by a known amount."""

import numpy as np
from scipy.stats import multivariate_normal

from ppdgm.inference import Fit
from ppdgm.models import PPCA

WIDTH, LATENT, SIGMA = 6, 2, 0.5
WEIGHT = np.linalg.qr(np.random.default_rng(5).normal(size=(WIDTH, LATENT)))[0] * [1.5, 1.0]  # a diagonal posterior
LOC = np.linspace(-1.0, 1.0, WIDTH)


def fit_of(posterior="linear", shrink=1.0, backend="numpyro", dtype="float32", shift=0.0):
    """PPCA at known parameters, with the exact guide, or one whose scale is `shrink` times the exact one's."""
    program = PPCA(event_shape=(WIDTH,), latent=LATENT, posterior=posterior)
    params = {"weight": WEIGHT, "loc": LOC, "log_scale": np.log(SIGMA)}
    if posterior == "linear":
        covariance = np.linalg.inv(WEIGHT.T @ WEIGHT / SIGMA**2 + np.eye(LATENT))
        slope = covariance @ WEIGHT.T / SIGMA**2
        scale = np.log(shrink * np.sqrt(np.diag(covariance)))
        params |= {"guide.weight": slope, "guide.bias": shift - slope @ LOC, "guide.log_scale": scale}
    return Fit(program, {n: np.asarray(v, dtype) for n, v in params.items()}, backend)


def data(size=200, seed=0, dtype="float32"):
    """Draws of the program."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(size, LATENT))
    return (z @ WEIGHT.T + LOC + SIGMA * rng.normal(size=(size, WIDTH))).astype(dtype)


def log_likelihood(x):
    """log p(x), [N]."""
    return multivariate_normal(LOC, WEIGHT @ WEIGHT.T + SIGMA**2 * np.eye(WIDTH)).logpdf(x)
