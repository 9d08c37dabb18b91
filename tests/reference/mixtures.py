"""Mixture priors, one-way flows (inverted by a root finder), and posteriors outside the diagonal Gaussian."""

from math import prod

import numpy as np
from scipy.optimize import root
from scipy.special import expit, logsumexp
from scipy.stats import laplace, logistic, multivariate_normal, norm, t

from reference.base import POSTERIORS, PRIORS, for_each_particle, kind, over, per_datum, scale_between, soft_scale
from reference.flows import INVERSES, SIZES
from reference.nets import forward


def scale_of(posterior, raw):
    return scale_between(raw, posterior["min_scale"], posterior["max_scale"])


# --- priors --------------------------------------------------------------------------------------------------------


def mixture(prior, params, log_terms):
    """log Σ_m w_m exp(terms) [K, B] of terms [M, K, B]."""
    weights = np.full(prior["components"], 1.0 / prior["components"])
    if prior["weights"] == "learned":
        weights = np.exp(params["prior.logits"]) / np.exp(params["prior.logits"]).sum()
    return logsumexp(log_terms, axis=0, b=weights[:, None, None])


def mixture_of_gaussians(program, params, z):
    scales = soft_scale(params["prior.raw_scale"], program["prior"]["min_scale"])
    terms = [per_datum(norm.logpdf(z, loc, scale)) for loc, scale in zip(params["prior.loc"], scales, strict=True)]
    return mixture(program["prior"], params, np.stack(terms))


def vamp_prior(program, params, z):
    """The posteriors' own references, at one pseudo-input after the other; of a flow posterior, of its base."""
    prior, posterior, k, b = program["prior"], program["posterior"], *z.shape[:2]
    inputs = params["prior.pseudo_inputs"]
    if prior["range"] == "unit":
        inputs = expit(4.0 * inputs)
    log_q = POSTERIORS[kind(posterior)]
    if kind(posterior) == "FlowPosterior":
        log_q = base_of_flow
    terms = [log_q(program, params, np.stack([u] * b), z) for u in inputs]
    assert terms[0].shape == (k, b)
    return mixture(prior, params, np.stack(terms))


def base_of_flow(program, params, x, z):
    posterior, d = program["posterior"], prod(z.shape[2:])
    outputs = (2 * d + SIZES[kind(posterior["flow"])](posterior["flow"], d),)
    head = for_each_particle(forward(program["encoder"], params, "encoder", x, outputs), len(z))
    flat = z.reshape(*z.shape[:2], d)
    scale = scale_of(posterior["initial"], head[:, :, d : 2 * d])
    return per_datum(norm.logpdf(flat, head[:, :, :d], scale))


# --- posteriors ----------------------------------------------------------------------------------------------------


def location_scale(density):
    def log_q(program, params, x, z):
        posterior, event = program["posterior"], z.shape[2:]
        head = for_each_particle(forward(program["encoder"], params, "encoder", x, (2, *event)), len(z))
        return per_datum(density(posterior)(z, loc=head[:, :, 0], scale=scale_of(posterior, head[:, :, 1])))

    return log_q


def full_covariance(program, params, x, z):
    posterior, d = program["posterior"], prod(z.shape[2:])
    head = for_each_particle(forward(program["encoder"], params, "encoder", x, (1 + d, d)), len(z))

    def log_q(z, head):
        out = []
        for value, (loc, *rows) in zip(z.reshape(len(z), d), head, strict=True):
            tril = np.tril(rows, -1) + np.diag(scale_of(posterior, np.diag(rows)))
            out.append(multivariate_normal(loc, tril @ tril.T).logpdf(value))
        return np.array(out)

    return over(log_q, z, head)


# --- one-way flows: steps z + A tanh(W z + b); z₀ is a root, and the Jacobian a dense matrix -----------------------


def planar_size(flow, width):
    return flow["depth"] * (2 * width + 1)


def planar_step(flow, numbers, width):
    """A, W and b, with A = û such that wᵀû = ELU(wᵀu)."""
    u, w, b = np.split(numbers, [width, 2 * width])
    a = w @ u
    bent = a if a > 0 else np.expm1(a)
    return (u + (bent - a) * w / (w @ w))[:, None], w[None], b


def sylvester_sizes(flow, width):
    householder = flow["basis"] == "householder"
    m = width if householder else flow["columns"]
    return m, [(flow["reflections"] if householder else m) * width, m * m, m, m]


def sylvester_step(flow, numbers, width):
    """A = Q R, W = R̃ Qᵀ and b. One square holds R above its diagonal, and R̃ᵀ below it."""
    m, sizes = sylvester_sizes(flow, width)
    basis, square, last, b = np.split(numbers, np.cumsum(sizes)[:-1])
    square, q = square.reshape(m, m), np.eye(width)
    if flow["basis"] == "householder":
        for v in basis.reshape(-1, width):
            q = q @ (np.eye(width) - 2 * np.outer(v, v) / (v @ v))
    else:  # Gram and Schmidt's: A = Q Lᵀ with AᵀA = L Lᵀ
        columns = basis.reshape(width, m) + np.eye(width, m)
        q = np.linalg.solve(np.linalg.cholesky(columns.T @ columns), columns.T).T
    upper = np.triu(square, 1) + np.diag(0.999 * np.tanh(np.diag(square)))
    lower = np.tril(square, -1) + np.diag(0.999 * np.tanh(last))
    return q @ upper, lower.T @ q.T, b


def one_way_inverse(step):
    def inverse(flow, params, name, y, context):
        numbers = np.stack([params[f"{name}.numbers"]] * len(y)) if context is None else context
        first, log_det = y.copy(), np.zeros(len(y))
        for n, row in enumerate(numbers.reshape(len(y), flow["depth"], -1)):
            for a, w, b in reversed([step(flow, one, y.shape[1]) for one in row]):
                first[n] = solve(a, w, b, first[n])
                slope = 1 - np.tanh(w @ first[n] + b) ** 2
                log_det[n] -= np.linalg.slogdet(np.eye(len(a)) + a @ (slope[:, None] * w))[1]
        return first, log_det

    return inverse


def solve(a, w, b, y):
    """z with z + A tanh(W z + b) = y, followed from 0 · A, of which z = y, to A."""
    z = y
    for share in np.linspace(0.1, 1.0, 10):
        residual = lambda z, share=share: z + share * a @ np.tanh(w @ z + b) - y
        slope = lambda z, share=share: np.eye(len(z)) + share * a @ ((1 - np.tanh(w @ z + b) ** 2)[:, None] * w)
        z = root(residual, z, jac=slope, tol=1e-14).x
    assert np.abs(residual(z)).max() < 1e-11
    return z


SIZES |= {"Planar": planar_size, "Sylvester": lambda flow, width: flow["depth"] * sum(sylvester_sizes(flow, width)[1])}
INVERSES |= {"Planar": one_way_inverse(planar_step), "Sylvester": one_way_inverse(sylvester_step)}
PRIORS |= {"MixtureOfGaussians": mixture_of_gaussians, "VampPrior": vamp_prior}
POSTERIORS |= {
    "FullCovarianceNormal": full_covariance,
    "DiagonalLaplace": location_scale(lambda posterior: laplace.logpdf),
    "DiagonalLogistic": location_scale(lambda posterior: logistic.logpdf),
    "DiagonalStudentT": location_scale(
        lambda posterior: lambda z, loc, scale: t.logpdf(z, posterior["df"], loc, scale)
    ),
}
