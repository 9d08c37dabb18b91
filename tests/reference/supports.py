"""Priors and posteriors over latents that are positive, in (0, 1) or on the simplex; and the aggregated posterior."""

import numpy as np
from scipy.special import logsumexp
from scipy.stats import beta, dirichlet, gamma, gumbel_r, lognorm, weibull_min

from reference.base import POSTERIORS, PRIORS, for_each_particle, kind, over, per_datum, scale_between, soft_scale
from reference.mixtures import location_scale
from reference.nets import forward


def of_two(log_density):
    """log q(z|x) from the two numbers of each latent."""

    def log_q(program, params, x, z):
        head = for_each_particle(forward(program["encoder"], params, "encoder", x, (2, *z.shape[2:])), len(z))
        return per_datum(log_density(program["posterior"], z, head[:, :, 0], head[:, :, 1]))

    return log_q


def log_normal(posterior, z, loc, raw):
    return lognorm.logpdf(z, scale_between(raw, posterior["min_scale"], posterior["max_scale"]), scale=np.exp(loc))


def weibull(posterior, z, loc, raw):
    return weibull_min.logpdf(
        z, 1.0 / scale_between(raw, posterior["min_scale"], posterior["max_scale"]), scale=np.exp(loc)
    )


def gamma_posterior(posterior, z, a, raw):
    rate = soft_scale(raw, posterior["min_rate"])
    return gamma.logpdf(z, soft_scale(a, posterior["min_concentration"]), scale=1.0 / rate)


def beta_posterior(posterior, z, a, b):
    least = posterior["min_concentration"]
    return beta.logpdf(z, soft_scale(a, least), soft_scale(b, least))


def kumaraswamy(posterior, z, a, b):
    """z = y^(1/a) with y ~ Beta(1, b)."""
    a, b = (soft_scale(raw, posterior["min_concentration"]) for raw in (a, b))
    return beta.logpdf(z**a, 1.0, b) + np.log(a) + (a - 1.0) * np.log(z)


def on_simplex(z, concentrations):
    """Σ log Dirichlet over all but the last axis of [K, B, …, C]."""

    def log_p(z, c):
        z = z / z.sum(-1, keepdims=True)  # SciPy asks for a sum of 1 to 1e-9
        rows = [
            dirichlet.logpdf(p, a) for p, a in zip(z.reshape(-1, z.shape[-1]), c.reshape(-1, z.shape[-1]), strict=True)
        ]
        return np.array(rows).reshape(len(z), -1).sum(1)

    return over(log_p, z, np.broadcast_to(concentrations, z.shape))


def dirichlet_posterior(program, params, x, z):
    head = for_each_particle(forward(program["encoder"], params, "encoder", x, z.shape[2:]), len(z))
    return on_simplex(z, soft_scale(head, program["posterior"]["min_concentration"]))


def aggregated(program, params, z):
    """The posterior's own reference, at one row after the other."""
    log_q = POSTERIORS[kind(program["posterior"])]
    rows = params["prior.rows"]
    return logsumexp([log_q(program, params, np.stack([u] * z.shape[1]), z) for u in rows], axis=0) - np.log(len(rows))


def prior(log_density):
    return lambda program, params, z: per_datum(log_density(program["prior"], z))


POSTERIORS |= {
    "DiagonalGumbel": location_scale(lambda posterior: gumbel_r.logpdf),
    "DiagonalLogNormal": of_two(log_normal),
    "DiagonalWeibull": of_two(weibull),
    "DiagonalGamma": of_two(gamma_posterior),
    "DiagonalBeta": of_two(beta_posterior),
    "DiagonalKumaraswamy": of_two(kumaraswamy),
    "DirichletPosterior": dirichlet_posterior,
}
PRIORS |= {
    "AggregatedPosterior": aggregated,
    "GammaPrior": prior(lambda p, z: gamma.logpdf(z, p["concentration"], scale=1.0 / p["rate"])),
    "LogNormalPrior": prior(lambda p, z: lognorm.logpdf(z, p["scale"], scale=np.exp(p["loc"]))),
    "BetaPrior": prior(lambda p, z: beta.logpdf(z, p["a"], p["b"])),
    "DirichletPrior": lambda program, params, z: on_simplex(z, program["prior"]["concentration"]),
}
