"""log p(x, z) and log q(z|x) of each program, [K, B], given data [B, *event] and latents [K, B, *event]."""

import numpy as np
from scipy.special import expit
from scipy.stats import bernoulli, multivariate_normal, norm

from reference.base import (
    CODES,
    ENCODED,
    LIKELIHOODS,
    OUTPUTS,
    POSTERIORS,
    PRIORS,
    PROGRAMS,
    for_each_particle,
    kind,
    over,
    per_datum,
    scale_between,
    soft_scale,
    standard_normal,
)
from reference.nets import forward


def log_joint_and_guide(program, params, data, latents):
    """(log p(x, z), log q(z|x)) [K, B] of the program that the dictionary describes."""
    params, data, latents = ({n: np.asarray(v, float) for n, v in d.items()} for d in (params, data, latents))
    return PROGRAMS[kind(program)](program, params, data, latents)


# --- VAE -----------------------------------------------------------------------------------------------------------


def vae(program, params, data, latents):
    z, event = latents["z"], tuple(program["event_shape"])
    likelihood = program["likelihood"]
    outputs = OUTPUTS.get(kind(likelihood), lambda likelihood, event: event)(likelihood, event)
    code = CODES.get(kind(program["posterior"]), lambda program, params, z: z)(program, params, z)
    head = over(lambda h: forward(program["decoder"], params, "decoder", h, outputs), code)
    log_p = PRIORS[kind(program["prior"])](program, params, z) + log_likelihood(likelihood, params, data["x"], head)
    seen = ENCODED.get(kind(likelihood), lambda likelihood, x: x)(likelihood, data["x"])
    return log_p, POSTERIORS[kind(program["posterior"])](program, params, seen, z)


def log_likelihood(likelihood, params, x, head):
    """log p(x|z) [K, B] of a head [K, B, …]."""
    return LIKELIHOODS[kind(likelihood)](likelihood, params, x, head)


def bernoulli_likelihood(likelihood, params, x, head):
    return per_datum(bernoulli.logpmf(x, expit(head)))


def gaussian_likelihood(likelihood, params, x, head):
    scale, floor = likelihood["scale"], likelihood["min_scale"]
    if scale == "network":
        return per_datum(norm.logpdf(x, head[:, :, 0], soft_scale(head[:, :, 1], floor)))
    if scale in ("learned", "per_dimension"):
        scale = soft_scale(params["likelihood.raw_scale"], floor)
    return per_datum(norm.logpdf(x, head, scale))


def log_posterior(program, params, x, z):
    name, event = kind(program["posterior"]), z.shape[2:]
    rows = {"DiagonalNormal": 2, "Coupling": 4}[name]
    head = for_each_particle(forward(program["encoder"], params, "encoder", x, (rows, *event)), len(z))
    if name == "DiagonalNormal":
        scale = scale_between(head[:, :, 1], program["posterior"]["min_scale"], program["posterior"]["max_scale"])
        return per_datum(norm.logpdf(z, head[:, :, 0], scale))
    loc, scale = head[:, :, 0], soft_scale(head[:, :, 1], 0.1)
    # The first coordinate is normal; given it the others are, with a mean and a scale that it moves.
    lever = np.tanh(params["posterior.strength"] * z[:, :, :1])
    first = norm.logpdf(z[:, :, 0], loc[:, :, 0], scale[:, :, 0])
    means, scales = loc + head[:, :, 2] * lever, scale * np.exp(head[:, :, 3] * lever)
    return first + per_datum(norm.logpdf(z, means, scales)[:, :, 1:])


# --- PPCA: the posterior by conditioning the joint normal of (z, x), not by the textbook's formula -----------------


def ppca(program, params, data, latents):
    z, x = latents["z"], data["x"].reshape(len(data["x"]), -1)
    weight, loc, scale = params["weight"], params["loc"], np.exp(params["log_scale"])
    means = loc + np.einsum("xd,kbd->kbx", weight, z)
    log_p = standard_normal(z) + per_datum(norm.logpdf(x, means, scale))
    if program["posterior"] == "linear":
        q_mean = x @ params["guide.weight"].T + params["guide.bias"]
        return log_p, per_datum(norm.logpdf(z, q_mean, np.exp(params["guide.log_scale"])))
    d = z.shape[-1]
    lift = np.concatenate([np.eye(d), weight])  # (z, x) = lift z + noise
    joint = lift @ lift.T + np.diag([0.0] * d + [scale**2] * len(loc))
    zz, zx, xx = joint[:d, :d], joint[:d, d:], joint[d:, d:]
    gain = zx @ np.linalg.inv(xx)
    density = multivariate_normal(cov=zz - gain @ zx.T)
    return log_p, density.logpdf(z - (x - loc) @ gain.T).reshape(z.shape[:2])


def exact_log_likelihood(params, x):
    """log p(x) [B] of PPCA."""
    weight, variance = np.asarray(params["weight"], float), np.exp(2 * float(params["log_scale"]))
    covariance = weight @ weight.T + variance * np.eye(len(weight))
    return multivariate_normal(np.asarray(params["loc"], float), covariance).logpdf(x.reshape(len(x), -1))


# --- the programs of tests/programs.py -----------------------------------------------------------------------------


def hierarchical(program, params, data, latents):
    z1, z2, event = latents["z1"], latents["z2"], tuple(program["event_shape"])
    d, x = z1.shape[-1], for_each_particle(data["x"], len(z1))
    net = {"kind": "MLP", "hidden": [3], "activation": "tanh"}

    def conditional(name, value, *given):
        joined = np.concatenate(given, -1)
        head = over(lambda h: forward(net, params, name, h, (2, d)), joined)
        return per_datum(norm.logpdf(value, head[:, :, 0], soft_scale(head[:, :, 1], 0.0)))

    logits = over(lambda h: forward(program["decoder"], params, "decoder", h, event), np.concatenate([z1, z2], -1))
    log_p = standard_normal(z1) + conditional("prior", z2, z1) + per_datum(bernoulli.logpmf(x, expit(logits)))
    if program["kind"].endswith("Reversed"):
        return log_p, conditional("first", z2, x) + conditional("second", z1, x, z2)
    return log_p, conditional("first", z1, x) + conditional("second", z2, x, z1)


def labelled(program, params, data, latents):
    z, event = latents["z"], tuple(program["event_shape"])
    net = {"kind": "MLP", "hidden": [4], "activation": "tanh"}
    mean = over(lambda h: forward(net, params, "decoder", h, event), z)
    logit = np.einsum("d,kbd->kb", params["slope"], z) + params["offset"]
    log_p = standard_normal(z) + per_datum(norm.logpdf(data["x"], mean)) + bernoulli.logpmf(data["label"], expit(logit))
    both = np.concatenate([data["x"], data["label"][:, None]], -1)
    head = for_each_particle(forward(net, params, "encoder", both, (2, z.shape[-1])), len(z))
    return log_p, per_datum(norm.logpdf(z, head[:, :, 0], soft_scale(head[:, :, 1], 0.0)))


PROGRAMS |= {"VAE": vae, "PPCA": ppca, "Hierarchical": hierarchical, "Reversed": hierarchical, "Labelled": labelled}
PRIORS |= {"StandardNormal": lambda program, params, z: standard_normal(z)}
POSTERIORS |= {"DiagonalNormal": log_posterior, "Coupling": log_posterior}
LIKELIHOODS |= {"Bernoulli": bernoulli_likelihood, "Gaussian": gaussian_likelihood}
OUTPUTS |= {"Gaussian": lambda likelihood, event: (2, *event) if likelihood["scale"] == "network" else event}
