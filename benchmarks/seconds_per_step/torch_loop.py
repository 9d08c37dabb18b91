"""The loop that somebody who knows torch writes by hand, run eagerly."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .problem import LATENT, LEARNING_RATE, Contestant, Layer, Problem
from .stretches import of_torch

DenseLayers = list[tuple[Tensor, Tensor]]


def torch_eager(problem: Problem) -> Contestant:
    """Plain tensors, one fused Adam, noise and densities by hand; the loss is never read back within a
    stretch.
    """
    data = torch.from_numpy(problem.data)
    encoder, decoder = _parameters(problem.encoder), _parameters(problem.decoder)
    parameters = [tensor for layer in encoder + decoder for tensor in layer]
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    terms = problem.batch * problem.particles

    def negative_elbo(x: Tensor) -> Tensor:
        loc, log_scale = _mlp(encoder, x).split(LATENT, dim=-1)
        noise = torch.randn(problem.noise_shape)
        z = torch.addcmul(loc, log_scale.exp(), noise)
        logits = _mlp(decoder, z)
        # expand_as is a view, and free: the loss refuses to broadcast [B, 784] to the particles.
        negative_log_p_x = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="sum")
        # log q(z) - log p(z) at the draw. (z - loc) / scale is the noise itself, and the constants cancel.
        log_q_over_p = 0.5 * (z.square() - noise.square()) - log_scale
        return (negative_log_p_x + log_q_over_p.sum()) / terms

    return of_torch(negative_elbo, adam, data)


def _parameters(layers: tuple[Layer, ...]) -> DenseLayers:
    """Torch's own layout, weights `[out, in]`."""
    return [
        (
            torch.from_numpy(layer.weight.T.copy()).requires_grad_(),
            torch.tensor(layer.bias, requires_grad=True),
        )
        for layer in layers
    ]


def _mlp(layers: DenseLayers, x: Tensor) -> Tensor:
    *hidden, last = layers
    for weight, bias in hidden:
        x = F.linear(x, weight, bias).tanh()
    return F.linear(x, *last)
