"""Statistical checks, as functions of what they check: the tests hand in the package's, the wrong twins a wrong one.

`weigh(x, k, seed)` gives log-weights [K, N] in nats. Everything random is held to SIGMAS standard errors.
"""

import numpy as np
from scipy.special import logsumexp

SIGMAS = 4.0
SMALL = 2e-3  # a Monte Carlo error against which exactness is claimed, relative to the value
PRECISE = 0.02  # SIGMAS errors of a gradient, relative to it
ROUNDING = 1e-5  # of a gradient that is read off as a difference of parameters, which move


def check_every_draw(log_weights, exact, magnitude, tolerance):
    """With the exact posterior as guide each log-weight [K, N] is log p(x) [N], to rounding."""
    worst = np.max(np.abs(log_weights - exact) / magnitude)
    assert worst <= tolerance, f"relative error {worst:.1e} > {tolerance:.0e}"


def check_single_particle(weigh, x, elbo, seed, k=20_000):
    """One-particle bounds average to the ELBO, elbo [N]."""
    terms = weigh(x, k, seed)
    errors = terms.std(0, ddof=1) / np.sqrt(k)
    assert_within(terms.mean(), elbo.mean(), np.sqrt((errors**2).sum()) / len(errors), small=True)


def check_bound_rises(weigh, x, exact, seed, ks=(1, 2, 8, 64, 512), draws=2**16):
    """L_K rises with K, stays below log p(x), exact [N], and comes near it."""
    means, errors = np.array([_bound(weigh, x, k, draws // k, seed + i) for i, k in enumerate(ks)]).T
    rises, noise = np.diff(means), np.hypot(errors[1:], errors[:-1])
    assert (rises > SIGMAS * noise).all(), f"rises {rises} against errors {noise}"
    assert (means <= exact.mean() + SIGMAS * errors).all(), f"bounds {means} above {exact.mean()}"
    assert abs(means[-1] - exact.mean()) <= 0.1 * (exact.mean() - means[0]), f"{means[-1]} far from {exact.mean()}"


def check_reaches_exact(estimate, exact):
    """An importance-sampled log-likelihood with many particles is log p(x), exact [N], in the mean and per datum."""
    assert_within(estimate.mean, exact.mean(), estimate.monte_carlo_error, small=True)
    squares = ((estimate.values - exact) / estimate.errors) ** 2
    assert squares.mean() <= 1 + SIGMAS * np.sqrt(2 / len(squares)), f"mean square of z-scores {squares.mean():.2f}"


def check_error_is_right(estimates):
    """The spread of (mean, Monte Carlo error) over many seeds is what they themselves report."""
    means, errors = np.array(estimates).T
    reported, noise = np.sqrt((errors**2).mean()), 1 / np.sqrt(2 * (len(means) - 1))
    ratio = means.std(ddof=1) / max(reported, 1e-12)
    assert abs(ratio - 1) <= SIGMAS * noise, f"spread / reported error = {ratio:.2f}, expected 1 ± {noise:.2f}"


def check_independent(noise):
    """Standardised draws [K, N, D] of a guide's site are as independent over particles and over data as normals are."""
    for axis, over in ((0, "particles"), (1, "data")):
        squares = noise.shape[axis] * noise.mean(axis) ** 2
        error = np.sqrt(2 / squares.size)
        found = f"variance of the means over {over}: {squares.mean():.2f}, expected 1 ± {error:.2f}"
        assert abs(squares.mean() - 1) <= SIGMAS * error, found


def check_minibatches(weigh, x, batch_size, seed, k=4, replications=2**12, epochs=12):
    """The K-sample bound of random minibatches is that of all data in expectation (FIELD 1)."""
    full, full_error = _bound(weigh, x, k, replications, seed)
    rng, found = np.random.default_rng(seed), []
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        batches = [order[i : i + batch_size] for i in range(0, len(x), batch_size)]
        bounds = [_bound(weigh, x[b], k, replications // 8, seed + 1 + epoch)[0] * len(b) for b in batches]
        found.append(sum(bounds) / len(x))
    error = np.std(found, ddof=1) / np.sqrt(epochs)
    assert_within(np.mean(found), full, np.hypot(error, full_error), small=True)


def check_expected_step(measure, batch_size, objective, gradient):
    """Objective and gradient of random minibatches average to those of all data (FIELD 2).

    `measure(batch_size)` gives independent averages over epochs: objectives [S] and gradients {name: [S, *shape]}.
    """
    objectives, gradients = measure(batch_size)
    sizes = np.sqrt(len(objectives))
    assert_within(objectives.mean(), objective, objectives.std(ddof=1) / sizes)
    for name, found in gradients.items():
        assert_within(found.mean(0), gradient[name], found.std(0, ddof=1) / sizes, name)


def check_padding(objective, trace, padded, weights, knobs, size):
    """A ragged minibatch's metrics are those of its own data: the trace `padded` has rows of weight 0 beside them."""
    own = objective(trace, np, np.ones(int(weights.sum())), knobs, size)
    found = objective(padded, np, weights, knobs, size)
    for name, value in own.items():
        assert abs(found[name] - value) <= 1e-6 * abs(value), f"{name}: {found[name]} with padding, {value} without"


def check_mean_gradient(samples, exact, labels, errors=None, name=""):
    """The mean of samples {name: [S, *shape]} is the exact gradient, for the parameters of each label.

    All errors of a label together, SIGMAS of them, are at most PRECISE times the norm of its gradient.
    """
    for label in sorted(set(labels.values())):
        flat = lambda parts, label=label: np.concatenate([np.ravel(parts[n]) for n in labels if labels[n] == label])
        error = flat({n: g.std(0, ddof=1) / np.sqrt(len(g)) for n, g in samples.items()})
        error = error if errors is None else np.hypot(error, flat(errors))
        error = np.hypot(error, ROUNDING * np.linalg.norm(flat(exact)))
        assert_within(flat({n: g.mean(0) for n, g in samples.items()}), flat(exact), error, f"{name}, {label}:")
        share = SIGMAS * np.linalg.norm(error) / np.linalg.norm(flat(exact))
        assert share <= PRECISE, f"{name}, {label}: {SIGMAS:g} errors are {share:.3f} of the gradient"


def assert_within(value, expected, error, name="", small=False):
    """Within SIGMAS errors, which are small themselves if asked for."""
    off = np.max(np.abs(value - expected) / np.maximum(error, 1e-12))
    assert off <= SIGMAS, f"{name} {value} is {off:.1f} errors of {error} from {expected}"
    if small:
        assert error <= SMALL * abs(expected), f"error {error} is not small against {expected}"


def importance_estimate(log_weights):
    """(log-likelihoods [N], their Monte Carlo errors [N]) from log-weights [K, N], by NumPy alone."""
    k = len(log_weights)
    top = log_weights.max(0)
    weights = np.exp(log_weights - top)
    return top + np.log(weights.mean(0)), weights.std(0, ddof=1) / weights.mean(0) / np.sqrt(k)


def _bound(weigh, x, k, replications, seed):
    """Mean over data of the K-sample bound, and its Monte Carlo error."""
    log_weights = weigh(x, k * replications, seed).astype(float)
    each = logsumexp(log_weights.reshape(replications, k, len(x)), axis=1) - np.log(k)
    return each.mean(), np.sqrt((each.var(0, ddof=1) / replications).sum()) / len(x)
