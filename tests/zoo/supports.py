"""VAEs with latents that are positive, in (0, 1) or on the simplex; aggregated posteriors; flows of sigmoids."""

from instances import Instance, binary, normal_latents

from ppdgm.models import (
    MLP,
    NAF,
    VAE,
    AggregatedPosterior,
    BetaPrior,
    CDFFlow,
    DiagonalBeta,
    DiagonalGamma,
    DiagonalGumbel,
    DiagonalKumaraswamy,
    DiagonalLogNormal,
    DiagonalNormal,
    DiagonalWeibull,
    DirichletPosterior,
    DirichletPrior,
    FlowPosterior,
    FlowPrior,
    GammaPrior,
    IRevNet,
    LogNormalPrior,
    RevNet,
)

_FLOW = {"depth": 2, "hidden": (4,), "activation": "tanh", "context_size": 2, "units": 3}


def positive(rng, k, b):
    return {"z": rng.gamma(2.0, size=(k, b, 3))}


def unit(rng, k, b):
    return {"z": rng.beta(2.0, 2.0, size=(k, b, 3))}


def simplex(rng, k, b):
    return {"z": rng.dirichlet([2.0, 3.0, 1.5], size=(k, b, 2))}


def _instance(latents, latent=3, event=(5,), closed=False, **parts):
    nets = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))}
    program = VAE(event_shape=event, latent=latent, **nets | parts)
    forms = ("z",) if closed else ()
    return Instance(
        lambda: program,
        data=binary,
        latents=latents,
        closed_forms=forms,
        by_rejection=program.posterior.by_rejection,
    )


_REAL = normal_latents(z=(3,))
ZOO = {
    "log-normal": _instance(positive, closed=True, posterior=DiagonalLogNormal(), prior=LogNormalPrior(loc=0.2)),
    "log-normal, gamma": _instance(
        positive, closed=True, posterior=DiagonalLogNormal(max_scale=0.6), prior=GammaPrior(concentration=1.5, rate=2.0)
    ),
    "weibull": _instance(
        positive, closed=True, posterior=DiagonalWeibull(max_scale=0.9), prior=GammaPrior(concentration=2.5, rate=0.7)
    ),
    "weibull, log-normal": _instance(
        positive, closed=True, posterior=DiagonalWeibull(min_scale=0.1), prior=LogNormalPrior(scale=1.3)
    ),
    "gamma": _instance(
        positive, closed=True, posterior=DiagonalGamma(min_rate=0.2), prior=GammaPrior(concentration=1.5, rate=2.0)
    ),
    "gamma, log-normal": _instance(positive, posterior=DiagonalGamma(), prior=LogNormalPrior()),
    "beta": _instance(unit, closed=True, posterior=DiagonalBeta(), prior=BetaPrior(a=1.5, b=0.8)),
    "kumaraswamy": _instance(unit, posterior=DiagonalKumaraswamy(min_concentration=1.2), prior=BetaPrior(a=1.5, b=1.2)),
    "dirichlet": _instance(
        simplex, (2, 3), closed=True, posterior=DirichletPosterior(), prior=DirichletPrior(concentration=1.7)
    ),
    "extreme values": _instance(_REAL, closed=True, posterior=DiagonalGumbel(max_scale=0.8)),
    "prior aggregated": _instance(
        _REAL, posterior=DiagonalNormal(min_scale=0.2), prior=AggregatedPosterior(components=4)
    ),
    "posterior naf": _instance(_REAL, posterior=FlowPosterior(flow=NAF(**_FLOW))),
    "prior naf": _instance(_REAL, prior=FlowPrior(flow=NAF(one_pass="inverse", **_FLOW))),
    "posterior cdf": _instance(_REAL, posterior=FlowPosterior(flow=CDFFlow(components=2))),
    "prior cdf": _instance(_REAL, prior=FlowPrior(flow=CDFFlow(components=3))),
    "reversible": _instance(
        _REAL, closed=True, encoder=RevNet(width=4, blocks=2), decoder=RevNet(width=6, blocks=1, norm=None)
    ),
    "reversible images": _instance(
        _REAL, event=(4, 4), closed=True, encoder=IRevNet(levels=2, blocks=1, hidden=2, activation="tanh")
    ),
}
