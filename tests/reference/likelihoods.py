"""The likelihoods beyond Bernoulli and Gaussian, by SciPy's distributions."""

import numpy as np
from scipy.special import gammaln, log_expit, log_softmax, logsumexp
from scipy.stats import laplace, logistic, nbinom, norm, poisson

from reference.base import ENCODED, LIKELIHOODS, OUTPUTS, kind, per_datum, soft_scale


def scale_and_rows(table, params, head, rows, field="scale", floor="min_scale"):
    """The head's rows, and a scale that may be one row more."""
    kind, least = table[field], table[floor]
    if kind == "network":
        *given, raw = (head[:, :, i] for i in range(rows + 1))
        return soft_scale(raw, least), given
    given = [head] if rows == 1 else [head[:, :, i] for i in range(rows)]
    return (soft_scale(params[f"likelihood.raw_{field}"], least) if isinstance(kind, str) else kind), given


def laplace_likelihood(table, params, x, head):
    scale, (loc,) = scale_and_rows(table, params, head, 1)
    return per_datum(laplace.logpdf(x, loc, scale))


def log_continuous_bernoulli(x, logit):
    """An exponential distribution cut at 1, of x or, where the logit is positive, of 1 − x."""
    rate, y = np.abs(logit), np.where(logit > 0, 1 - x, x)
    return np.log(rate) - rate * y - np.log(-np.expm1(-rate))


def categorical_likelihood(table, params, x, head):
    scores = log_softmax(head, axis=2)
    chosen = np.empty(scores.shape[:2] + scores.shape[3:])
    for at in np.ndindex(chosen.shape):
        k, b, *rest = at
        chosen[at] = scores[(k, b, int(x[(b, *rest)]), *rest)]
    return per_datum(chosen)


def log_discretised_logistic(x, loc, scale, levels):
    """The difference of CDFs, or in the upper tail of survival functions; both ends are open."""
    step = 2 / (levels - 1)
    low = np.where(x == 0, -np.inf, (x - 0.5) * step - 1)
    high = np.where(x == levels - 1, np.inf, (x + 0.5) * step - 1)
    d = logistic(loc, scale)
    with np.errstate(divide="ignore"):  # where both edges are beyond what a float holds
        return np.log(np.where(x * step - 1 > loc, d.sf(low) - d.sf(high), d.cdf(high) - d.cdf(low)))


def discretised_logistic_likelihood(table, params, x, head):
    scale, (loc,) = scale_and_rows(table, params, head, 1)
    return per_datum(log_discretised_logistic(x, loc, scale, table["levels"]))


class LaplaceTails:
    """log CDF and log survival function, which SciPy takes from the CDF, so that they are −∞ in the tails."""

    def __init__(self, loc, scale):
        self.loc, self.scale = loc, scale

    def median(self):
        return self.loc

    def logcdf(self, x):
        e = (x - self.loc) / self.scale
        return np.where(e < 0, e - np.log(2), np.log1p(-0.5 * np.exp(-np.abs(e))))

    def logsf(self, x):
        return LaplaceTails(-self.loc, self.scale).logcdf(-x)


def log_discretised(x, d, levels):
    """The same of any distribution of SciPy's with `logcdf` and `logsf`: the log of a difference, on the lower side."""
    step, middle = 2 / (levels - 1), d.median()
    low = np.where(x == 0, -np.inf, (x - 0.5) * step - 1)
    high = np.where(x == levels - 1, np.inf, (x + 0.5) * step - 1)
    upper = x * step - 1 > middle
    more = np.where(upper, d.logsf(low), d.logcdf(high))
    less = np.where(upper, d.logsf(high), d.logcdf(low))
    return more + np.log(-np.expm1(less - more))


def discretised_likelihood(table, params, x, head):
    inner = {n.replace("likelihood.of.", "likelihood."): v for n, v in params.items()}
    scale, (loc,) = scale_and_rows(table["of"], inner, head, 1)
    return per_datum(
        log_discretised(x, {"Gaussian": norm, "Laplace": LaplaceTails}[kind(table["of"])](loc, scale), table["levels"])
    )


def mixture_likelihood(table, params, x, head):
    logits, locs, raws = (head[:, :, i] for i in range(3))
    weights, scales = np.exp(logits - logsumexp(logits, 2, keepdims=True)), soft_scale(raws, table["min_scale"])
    each = (log_discretised_logistic(x, locs[:, :, c], scales[:, :, c], table["levels"]) for c in range(locs.shape[2]))
    return per_datum(np.log(sum(weights[:, :, c] * np.exp(log_p) for c, log_p in enumerate(each))))


def count_mean(table, h):
    return np.exp(np.minimum(h, 20.0)) if table["link"] == "exp" else np.logaddexp(0.0, h)


def poisson_likelihood(table, params, x, head):
    return per_datum(poisson.logpmf(x, count_mean(table, head)))


def negative_binomial_likelihood(table, params, x, head):
    theta, (h,) = scale_and_rows(table, params, head, 1, "inverse_dispersion", "min_inverse_dispersion")
    return per_datum(nbinom.logpmf(x, theta, theta / (theta + count_mean(table, h))))


def multinomial_likelihood(table, params, x, head):
    x, h = (np.asarray(a, float).reshape(*a.shape[:lead], -1) for a, lead in ((x, 1), (head, 2)))
    log_share = h - logsumexp(h, -1, keepdims=True)
    return gammaln(x.sum(-1) + 1) - gammaln(x + 1).sum(-1) + (x * log_share).sum(-1)


def zero_inflated_likelihood(table, params, x, head):
    theta, (h, logit) = scale_and_rows(table, params, head, 2, "inverse_dispersion", "min_inverse_dispersion")
    counted = log_expit(-logit) + nbinom.logpmf(x, theta, theta / (theta + count_mean(table, h)))
    return per_datum(np.where(x == 0, np.logaddexp(log_expit(logit), counted), counted))


LIKELIHOODS |= {
    "Laplace": laplace_likelihood,
    "ContinuousBernoulli": lambda table, params, x, head: per_datum(log_continuous_bernoulli(x, head)),
    "Categorical": categorical_likelihood,
    "DiscretisedLogistic": discretised_logistic_likelihood,
    "Discretised": discretised_likelihood,
    "MixtureOfDiscretisedLogistics": mixture_likelihood,
    "Multinomial": multinomial_likelihood,
    "Poisson": poisson_likelihood,
    "NegativeBinomial": negative_binomial_likelihood,
    "ZeroInflatedNegativeBinomial": zero_inflated_likelihood,
}


def rows_with(field, rows):
    """The shape of an output of `rows` arrays, and one more for what comes from the network."""

    def shape(table, event):
        count = rows + (table[field] == "network")
        return event if count == 1 else (count, *event)

    return shape


OUTPUTS |= {
    "Laplace": rows_with("scale", 1),
    "Categorical": lambda table, event: (table["levels"], *event),
    "DiscretisedLogistic": rows_with("scale", 1),
    "Discretised": lambda table, event: rows_with("scale", 1)(table["of"], event),
    "MixtureOfDiscretisedLogistics": lambda table, event: (3, table["components"], *event),
    "NegativeBinomial": rows_with("inverse_dispersion", 1),
    "ZeroInflatedNegativeBinomial": rows_with("inverse_dispersion", 2),
}

ENCODED |= dict.fromkeys(
    (
        "Categorical",
        "CoupledDiscretisedLogistics",
        "Discretised",
        "DiscretisedLogistic",
        "MixtureOfDiscretisedLogistics",
    ),
    lambda table, x: x / (table["levels"] - 1),
) | dict.fromkeys(
    ("Multinomial", "Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial"),
    lambda table, x: np.log(1 + x),
)
