"""Conditional VAEs and factor analysis: the VAE's and PPCA's references, with what they add."""

import numpy as np
from scipy.stats import multivariate_normal, norm

from reference.base import (
    CODES,
    ENCODED,
    OUTPUTS,
    POSTERIORS,
    PRIORS,
    PROGRAMS,
    for_each_particle,
    kind,
    over,
    per_datum,
    soft_scale,
    standard_normal,
)
from reference.nets import forward
from reference.programs import log_likelihood


def conditional_vae(program, params, data, latents):
    z, x, event = latents["z"], data["x"], tuple(program["event_shape"])
    likelihood, k = program["likelihood"], len(z)
    y = (data["label"][:, None] == np.arange(program["classes"])) * 1.0
    outputs = OUTPUTS.get(kind(likelihood), lambda likelihood, event: event)(likelihood, event)
    code = CODES.get(kind(program["posterior"]), lambda program, params, z: z)(program, params, z)
    given = np.concatenate([code.reshape(*z.shape[:2], -1), for_each_particle(y, k)], -1)
    head = over(lambda h: forward(program["decoder"], params, "decoder", h, outputs), given)
    seen = ENCODED.get(kind(likelihood), lambda likelihood, x: x)(likelihood, x)
    log_q = POSTERIORS[kind(program["posterior"])](program, params, beside(program["encoder"], seen, y), z)
    return prior(program, params, data["label"].astype(int), z) + log_likelihood(likelihood, params, x, head), log_q


def beside(net, x, y):
    """One vector for each datum, or, for convolutions, constant planes as further channels."""
    if net["kind"] != "ConvEncoder":
        return np.array([np.r_[row.ravel(), hot] for row, hot in zip(x, y, strict=True)])
    planes = [np.stack([np.full(x.shape[-2:], v) for v in hot]) for hot in y]
    return np.array([np.concatenate([image.reshape(-1, *x.shape[-2:]), p]) for image, p in zip(x, planes, strict=True)])


def prior(program, params, label, z):
    if not program["conditional_prior"]:
        return PRIORS[kind(program["prior"])](program, params, z)
    scale = soft_scale(params["classes.raw_scale"], 1e-3)
    return per_datum(norm.logpdf(z, params["classes.loc"][label], scale[label]))


def factor_analysis(program, params, data, latents):
    """The posterior by conditioning the joint normal of (z, x)."""
    z, x = latents["z"], data["x"].reshape(len(data["x"]), -1)
    weight, loc, scale = params["weight"], params["loc"], np.exp(params["log_scale"])
    log_p = standard_normal(z) + per_datum(norm.logpdf(x, loc + np.einsum("xd,kbd->kbx", weight, z), scale))
    if program["posterior"] == "linear":
        mean = x @ params["guide.weight"].T + params["guide.bias"]
        return log_p, per_datum(norm.logpdf(z, mean, np.exp(params["guide.log_scale"])))
    gain = weight.T @ np.linalg.inv(weight @ weight.T + np.diag(scale**2))
    density = multivariate_normal(cov=np.eye(z.shape[-1]) - gain @ weight)
    return log_p, density.logpdf(z - (x - loc) @ gain.T).reshape(z.shape[:2])


PROGRAMS |= {"ConditionalVAE": conditional_vae, "FactorAnalysis": factor_analysis}
