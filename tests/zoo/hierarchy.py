"""Hierarchical VAEs: each guide, two and three levels, skips, other parts."""

from instances import Instance, binary, normal_latents, real

from ppdgm.models import (
    MLP,
    Categorical,
    ConvDecoder,
    ConvEncoder,
    DiagonalNormal,
    FlowPosterior,
    FullCovarianceNormal,
    Gaussian,
    HierarchicalVAE,
    MixtureOfGaussians,
    Planar,
    ResidualMLP,
    VampPrior,
)


def grey(rng, size, shape):
    return {"x": rng.integers(0, 3, size=(size, *shape))}


def _instance(inference, latent=(3, 2), closed_forms=None, data=binary, event=(5,), given=True, **fields):
    """By default with the closed forms of normal levels under a standard normal."""
    names = [f"z{level + 1}" for level in range(len(latent))]
    upwards = inference == "bottom_up"
    small = {n: MLP(hidden=(4,)) for n in ("encoder", "decoder", "levels")} | {"features": 4}
    return Instance(
        lambda: HierarchicalVAE(event_shape=event, latent=latent, inference=inference, **small | fields),
        data=data,
        latents=normal_latents(**{n: (d,) for n, d in zip(names, latent, strict=True)}) if given else None,
        sites=tuple(names if upwards else names[::-1]),
        closed_forms=tuple((names[-1:] if upwards else names) if closed_forms is None else closed_forms),
    )


_VAMP = {"prior": VampPrior(components=3, range="real")}

ZOO = {
    "hvae factorised": _instance("factorised"),
    "hvae bottom up": _instance("bottom_up"),
    "hvae top down": _instance("top_down", event=(12,)),
    "hvae three levels factorised": _instance(
        "factorised", (3, 1, 2), posterior=FullCovarianceNormal(), skip="decoder", min_scale=0.2, max_scale=1.5
    ),
    "hvae three levels bottom up": _instance(
        "bottom_up",
        (2, 1, 2),
        event=(6, 6),
        skip="all",
        encoder=ConvEncoder(channels=(2, 3)),
        decoder=ConvDecoder(channels=(3, 2)),
        levels=ResidualMLP(width=3, blocks=1),
        posterior=DiagonalNormal(min_scale=0.1, max_scale=2.0),
        prior=MixtureOfGaussians(components=3),
        closed_forms=(),
    ),
    "hvae three levels top down": _instance(
        "top_down", (2, 1, 2), event=(3, 4), skip="all", likelihood=Gaussian(), data=real
    ),
    "hvae vamp factorised": _instance(
        "factorised", posterior=FlowPosterior(flow=Planar(depth=1)), given=False, **_VAMP, closed_forms=()
    ),
    "hvae vamp top down": _instance(
        "top_down", likelihood=Categorical(levels=3), data=grey, **_VAMP, closed_forms=("z1",)
    ),
}
