"""ppdgm's two backends: the stretch of steps inside `ppdgm.fit`, on the same minibatches as all others.

`fit` itself draws its own minibatches and compiles once per call, so its loop is called directly.
"""

from typing import Any

from ppdgm.inference import SVI, Optimiser
from ppdgm.language.trainer import TrainerSettings
from ppdgm.models import VAE
from ppdgm.models.posteriors import DiagonalNormal, halves
from ppdgm.registry import backend as load_backend

from .problem import DATA, LATENT, PIXELS, Contestant, Floats, Problem
from .stretches import of_trainer


class ExpNormal(DiagonalNormal):
    """The same posterior as all others: σ = exp(s), where the package's own has σ = min_scale + softplus(s)."""

    def distribution(self, P: Any, *head: Any) -> Any:
        loc, log_scale = halves(head[0], P.shape)
        return P.dist.Normal(loc, P.xp.exp(log_scale)).to_event(len(P.shape))


def ppdgm_numpyro(problem: Problem) -> Contestant:
    """The same VAE as a ppdgm program on the NumPyro backend."""
    return _contestant(problem, "numpyro")


def ppdgm_pyro(problem: Problem) -> Contestant:
    """The same VAE as a ppdgm program on the Pyro backend, compiled as `compile="auto"` does in a long run."""
    return _contestant(problem, "pyro")


def _contestant(problem: Problem, name: str) -> Contestant:
    backend = load_backend(name)
    runtime = backend.Runtime(VAE(event_shape=(PIXELS,), latent=LATENT, posterior=ExpNormal()), "cpu")
    engine = SVI(k=problem.particles, kl="monte_carlo")  # the others draw their KL too
    settings = TrainerSettings(seed=0, data_size=DATA, optimiser=Optimiser(name="adam"), compile=True, insist=True)
    trainer = backend.Trainer(runtime, engine, runtime.put(_initial(problem)), settings)
    return of_trainer(trainer, engine, runtime.put({"x": problem.data}))


def _initial(problem: Problem) -> dict[str, Floats]:
    """The common initial values."""
    values = {}
    for net in ("encoder", "decoder"):
        for i, (weight, bias) in enumerate(getattr(problem, net)):
            values[f"{net}.layers.{i}.weight"] = weight
            values[f"{net}.layers.{i}.bias"] = bias
    return values
