"""The hierarchical VAE: each level's density from the VAE's references, under the names that a level's nets have."""

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from reference.base import (
    ENCODED,
    OUTPUTS,
    POSTERIORS,
    PRIORS,
    PROGRAMS,
    for_each_particle,
    kind,
    over,
    per_datum,
    scale_between,
)
from reference.nets import forward
from reference.programs import log_likelihood

LINEAR = {"kind": "MLP", "hidden": [], "activation": "tanh", "norm": None}
silu = lambda h: h * expit(h)


def hierarchical_vae(program, params, data, latents):
    """(log p, log q) [K, B]: sums over levels, of which level 1 stands first."""
    x, k = data["x"], len(latents["z1"])
    z = [latents[f"z{level}"] for level in range(1, len(program["latent"]) + 1)]
    event, likelihood = tuple(program["event_shape"]), program["likelihood"]
    outputs = OUTPUTS.get(kind(likelihood), lambda likelihood, event: event)(likelihood, event)
    seen = z[0] if program["skip"] == "none" else np.concatenate(z, -1)
    decoded = over(lambda h: forward(program["decoder"], params, "decoder", h, outputs), seen)
    log_p = log_likelihood(likelihood, params, x, decoded) + top_prior(program, params, z[-1])
    for level in range(1, len(z)):
        log_p = log_p + per_datum(norm.logpdf(z[level - 1], *conditional(program, params, level, z)))
    log_q = {"factorised": factorised, "bottom_up": bottom_up, "top_down": top_down}[program["inference"]]
    return log_p, sum(log_q(program, params, encoded(program, x), z, k))


def encoded(program, x):
    likelihood = program["likelihood"]
    return ENCODED.get(kind(likelihood), lambda likelihood, x: x)(likelihood, x)


def conditional(program, params, level, z):
    """μ and σ [K, B, D] of p(z_l|z_{l+1}), or of p(z_l|z_{l+1}, …, z_L)."""
    above = np.concatenate(z[level:] if program["skip"] == "all" else [z[level]], -1)
    loc, raw = np.moveaxis(head(program, params, f"z{level}.conditional", above, z[level - 1].shape[-1]), 2, 0)
    return loc, scale_between(raw, program["min_scale"], program["max_scale"])


def head(program, params, name, given, width):
    """[K, B, 2, width] of a net between levels."""
    return over(lambda h: forward(program["levels"], params, name, h, (2, width)), given)


def top_prior(program, params, z):
    """p(z_L), where a mixture of posteriors sees the pseudo-inputs as q(z_L|x) does: in the ladder after the climb."""
    level, posterior = len(program["latent"]), program["posterior"]
    ladder, prior = program["inference"] == "top_down", program["prior"]
    own = {n: v for n, v in params.items() if n.startswith("prior.")} | of_level(params, level)
    if kind(prior) == "VampPrior":
        raw = params["prior.pseudo_inputs"]
        u = encoded(program, expit(4.0 * raw) if prior["range"] == "unit" else raw)
        own["prior.pseudo_inputs"] = climb(program, params, u)[-1] if ladder else u
        prior = prior | {"range": "real"}
    net = LINEAR if ladder else program["encoder"]
    return PRIORS[kind(prior)]({"prior": prior, "posterior": posterior, "encoder": net}, own, z)


def of_level(params, level):
    start = f"z{level}."
    return {n.removeprefix(start): v for n, v in params.items() if n.startswith(start)}


def log_posterior(program, params, level, net, given, z):
    """log q(z_l|given) [K, B], for something given per particle: [K, B, …]."""
    k, b = z.shape[:2]
    vae = {"posterior": program["posterior"], "encoder": net}
    flat = lambda a: a.reshape(k * b, *a.shape[2:])
    log_q = POSTERIORS[kind(program["posterior"])](vae, of_level(params, level), flat(given), flat(z)[None])
    return log_q.reshape(k, b)


def factorised(program, params, x, z, k):
    x = for_each_particle(x, k)
    return [log_posterior(program, params, i + 1, program["encoder"], x, value) for i, value in enumerate(z)]


def bottom_up(program, params, x, z, k):
    x = for_each_particle(x, k)
    terms = [log_posterior(program, params, 1, program["encoder"], x, z[0])]
    for level in range(2, len(z) + 1):
        given = z[level - 2]
        if program["skip"] != "none":
            given = np.concatenate([x.reshape(*x.shape[:2], -1), *z[: level - 1]], -1)
        terms.append(log_posterior(program, params, level, program["levels"], given, z[level - 1]))
    return terms


def top_down(program, params, x, z, k):
    h = [for_each_particle(one, k) for one in climb(program, params, x)]
    terms = [log_posterior(program, params, len(z), LINEAR, h[-1], z[-1])]
    for level in range(1, len(z)):
        loc, scale = conditional(program, params, level, z)
        above = np.concatenate(z[level:] if program["skip"] == "all" else [z[level]], -1)
        given = np.concatenate([h[level - 1], above], -1)
        out = over(
            lambda h, level=level, d=loc.shape[-1]: forward(LINEAR, params, f"z{level}.encoder", h, (2, d)), given
        )
        own = scale_between(out[:, :, 1], program["posterior"]["min_scale"], program["posterior"]["max_scale"])
        precision = 1 / scale**2 + 1 / own**2
        q = norm((loc / scale**2 + out[:, :, 0] / own**2) / precision, precision**-0.5)
        terms.append(per_datum(q.logpdf(z[level - 1])))
    return terms


def climb(program, params, x):
    """h_1, …, h_L, each [n, features]."""
    h = [silu(forward(program["encoder"], params, "encoder", x, (program["features"],)))]
    for level in range(2, len(program["latent"]) + 1):
        step = forward(program["levels"], params, f"z{level}.features", h[-1], (program["features"],))
        h.append(h[-1] + silu(step))
    return h


PROGRAMS |= {"HierarchicalVAE": hierarchical_vae}
