"""Pyro's own SVI, on the VAE as Pyro's examples write it."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from .problem import LATENT, LEARNING_RATE, Contestant, Layer, Problem
from .stretches import of_svi


def pyro_svi(problem: Problem) -> Contestant:
    """`svi.step` in a loop, particles vectorised, validation off while it runs.

    The gradient is that of the sum over the minibatch, as in Pyro. It makes no difference to Adam, and the
    loss is divided by the batch afterwards.
    """
    data = torch.from_numpy(problem.data)
    encoder, decoder = _network(problem.encoder), _network(problem.decoder)
    zeros, ones = torch.zeros(LATENT), torch.ones(LATENT)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zeros, ones).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).split(LATENT, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    vectorised = problem.particles > 1
    elbo = Trace_ELBO(problem.particles, vectorize_particles=vectorised, max_plate_nesting=1)
    # The store is global, and keeps a finished contestant's tensors under the same names.
    pyro.clear_param_store()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": LEARNING_RATE, "fused": True}), elbo)

    return of_svi(svi, data, problem.batch)


def _network(layers: tuple[Layer, ...]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(*weight.shape)
        linear.load_state_dict({"weight": torch.from_numpy(weight.T), "bias": torch.from_numpy(bias)})
        modules += [linear, nn.Tanh()]
    return nn.Sequential(*modules[:-1])
