"""VAEs with each flow as posterior and as prior, the autoregressive prior, and masked nets."""

from instances import Instance, normal_latents

from ppdgm.models import (
    IAF,
    MADE,
    MAF,
    MLP,
    VAE,
    AutoregressivePrior,
    DiagonalNormal,
    FlowPosterior,
    FlowPrior,
    RealNVP,
    RQSpline,
)

_SMALL = {"depth": 2, "hidden": (4,), "activation": "tanh", "context_size": 2}


_NET = MLP(hidden=(4,))


def _instance(latent=3, event=5, closed_forms=(), **parts):
    shape = (latent,) if isinstance(latent, int) else latent
    nets = {"encoder": _NET, "decoder": _NET}
    return Instance(
        lambda: VAE(event_shape=(event,), latent=latent, **nets | parts),
        latents=normal_latents(z=shape),
        closed_forms=closed_forms,
    )


ZOO = {
    "posterior iaf": _instance(posterior=FlowPosterior(flow=IAF(**_SMALL), initial=DiagonalNormal(min_scale=0.1))),
    "posterior realnvp": _instance(posterior=FlowPosterior(flow=RealNVP(**_SMALL, max_log_scale=1.0))),
    "posterior spline": _instance(latent=2, posterior=FlowPosterior(flow=RQSpline(**_SMALL, bins=3, bound=2.0))),
    "prior maf": _instance(prior=FlowPrior(flow=MAF(**_SMALL, max_log_scale=1.0))),
    "prior realnvp": _instance(latent=2, prior=FlowPrior(flow=RealNVP(**_SMALL))),
    "prior spline": _instance(prior=FlowPrior(flow=RQSpline(**_SMALL, bins=4))),
    "prior autoregressive": _instance(prior=AutoregressivePrior(hidden=(4,))),
    "prior autoregressive mixtures": _instance(
        latent=2, prior=AutoregressivePrior(hidden=(4,), components=3, min_scale=0.2)
    ),
    "flow over matrices": _instance(
        latent=(2, 1),
        posterior=FlowPosterior(flow=IAF(**_SMALL | {"context_size": 0}, min_scale=0.2)),
        prior=FlowPrior(flow=MAF(**_SMALL)),
    ),
    "autoregressive over matrices": _instance(
        latent=(1, 2), posterior=FlowPosterior(flow=RealNVP(**_SMALL)), prior=AutoregressivePrior(hidden=(4,))
    ),
    "made natural": _instance(latent=2, encoder=MADE(hidden=(4,)), closed_forms=("z",)),
    "made reversed": _instance(latent=2, encoder=MADE(hidden=(4, 3), ordering="reversed"), closed_forms=("z",)),
    "made random": _instance(
        latent=4, event=3, decoder=MADE(hidden=(6,), ordering="random", seed=3), closed_forms=("z",)
    ),
}
