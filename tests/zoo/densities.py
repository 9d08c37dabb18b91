"""Decoders whose numbers depend on each other: autoregressive likelihoods and flows."""

from instances import Instance, binary, normal_latents, real

from ppdgm.models import (
    MADE,
    MAF,
    MLP,
    NICE,
    VAE,
    ActNorm,
    Autoregressive,
    Categorical,
    Chain,
    CoupledDiscretisedLogistics,
    DiscretisedLogistic,
    FlowLikelihood,
    GatedPixelCNN,
    Glow,
    InvertibleLinear,
    PixelCNNPlusPlus,
    PixelSNAIL,
    RealNVP,
)
from zoo.likelihoods import levels

_SMALL = {"encoder": MLP(hidden=(4,)), "decoder": MLP(hidden=(4,))}
_PIXELS = GatedPixelCNN(channels=4, layers=2, first_kernel=3, hidden=4)
_NOWHERE = _PIXELS.replace(position=False)
_PLUS = PixelCNNPlusPlus(channels=2, levels=2, blocks=1)
_SNAIL = PixelSNAIL(channels=2, layers=2, blocks=1, key=2, value=2)
_COUPLED = CoupledDiscretisedLogistics(levels=4, components=2, min_log_scale=-3.0)
_FLOW = {"depth": 2, "hidden": (4,), "context_size": 2, "activation": "tanh"}
_NICE, _FULL = NICE(**_FLOW), InvertibleLinear(form="full", seed=1)


def _decoded(likelihood, event, data):
    program = VAE(event_shape=event, latent=2, likelihood=likelihood, **_SMALL)
    return Instance(lambda: program, data=data, latents=normal_latents(z=(2,)), closed_forms=("z",))


ZOO = {
    "made decoder": _decoded(Autoregressive(net=MADE(hidden=(6,), ordering="random"), condition=(2,)), (5,), binary),
    "pixel cnn decoder": _decoded(
        Autoregressive(net=_PIXELS, each=DiscretisedLogistic(levels=4), condition=(2,)), (2, 2, 2), levels(4)
    ),
    "pixel cnn decoder with a map": _decoded(
        Autoregressive(net=_PIXELS.replace(position=False), each=Categorical(levels=3), condition=(2, 2, 3)),
        (2, 3),
        levels(3),
    ),
    "coupled colours": _decoded(CoupledDiscretisedLogistics(levels=4, components=2), (3, 2, 2), levels(4)),
    "coupled colours of two": _decoded(CoupledDiscretisedLogistics(levels=4, components=2), (2, 1, 2), levels(4)),
    "pixel cnn++ decoder": _decoded(Autoregressive(net=_PLUS, each=_COUPLED, condition=(2,)), (3, 4, 2), levels(4)),
    "pixel cnn++ decoder with a map": _decoded(
        Autoregressive(net=_PLUS, each=DiscretisedLogistic(levels=4), condition=(1, 4, 2)), (4, 2), levels(4)
    ),
    "pixel snail decoder": _decoded(Autoregressive(net=_SNAIL, each=_COUPLED, condition=(2,)), (3, 2, 3), levels(4)),
    "flow decoder": _decoded(FlowLikelihood(flow=RealNVP(**_FLOW)), (3,), real),
    "chain decoder": _decoded(
        FlowLikelihood(flow=Chain(flows=(_NICE, InvertibleLinear(), ActNorm(), RealNVP(**_FLOW), _FULL))), (2, 2), real
    ),
    "glow decoder": _decoded(
        FlowLikelihood(flow=Glow(image=(4, 4), levels=2, depth=1, hidden=3, context_size=2)), (4, 4), real
    ),
    "inverse flow decoder": _decoded(FlowLikelihood(flow=MAF(**_FLOW)), (3,), real),
}
