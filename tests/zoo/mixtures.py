"""VAEs with mixture priors, with one-way flows, and with posteriors outside the diagonal Gaussian."""

from instances import Instance, binary, normal_latents, real

from ppdgm.models import (
    MLP,
    VAE,
    DiagonalLaplace,
    DiagonalLogistic,
    DiagonalNormal,
    DiagonalStudentT,
    FlowPosterior,
    FullCovarianceNormal,
    Gaussian,
    MixtureOfGaussians,
    Planar,
    Sylvester,
    VampPrior,
)


def _instance(latent=(3,), data=binary, closed_forms=(), given=True, event=(5,), **parts):
    nets = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))}
    return Instance(
        lambda: VAE(event_shape=event, latent=latent, **nets, **parts),
        data=data,
        latents=normal_latents(z=latent) if given else None,
        closed_forms=closed_forms,
    )


def _closed(**parts):
    return _instance(closed_forms=("z",), **parts)


def _one_way(flow, latent=(3,), **parts):
    return _instance(latent, given=False, posterior=FlowPosterior(flow=flow), **parts)


ZOO = {
    "prior mixture": _instance(prior=MixtureOfGaussians(components=3)),
    "prior mixture uniform": _instance(
        (2, 2), prior=MixtureOfGaussians(components=2, weights="uniform", spread=2.0, scale=0.5, min_scale=0.1)
    ),
    "prior vamp": _instance(prior=VampPrior(components=4)),
    "prior vamp random": _instance(
        (2, 1), event=(2, 3), prior=VampPrior(components=3, weights="learned", initial="random")
    ),
    "prior vamp of real data": _instance(
        data=real, likelihood=Gaussian(), prior=VampPrior(components=4, weights="learned", range="real")
    ),
    "prior vamp of full covariances": _instance(
        (2,), posterior=FullCovarianceNormal(min_scale=0.1), prior=VampPrior(components=3)
    ),
    "posterior full covariance": _closed(posterior=FullCovarianceNormal()),
    "posterior full covariance of a matrix": _closed(latent=(2, 2), posterior=FullCovarianceNormal(min_scale=0.1)),
    "posterior normal below a ceiling": _closed(posterior=DiagonalNormal(min_scale=0.2, max_scale=1.2)),
    "posterior laplace": _closed(posterior=DiagonalLaplace(max_scale=0.8)),
    "posterior logistic": _closed(latent=(2, 2), posterior=DiagonalLogistic(min_scale=0.1, max_scale=0.7)),
    "posterior student t": _closed(posterior=DiagonalStudentT(df=4.5, min_scale=0.1, max_scale=2.0)),
    "posterior planar": _one_way(Planar(depth=2)),
    "posterior planar with vamp": _one_way(Planar(depth=1), latent=(2, 1), prior=VampPrior(components=3)),
    "posterior sylvester": _one_way(Sylvester(depth=2, columns=2)),
    "posterior sylvester householder": _one_way(Sylvester(depth=2, basis="householder", reflections=2)),
}
