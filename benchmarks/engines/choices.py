"""The engines, and the programs with their data."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import ppdgm
from benchmarks.covering.choices import data_for
from ppdgm import Program
from ppdgm.inference import (
    EM,
    HMC,
    IWAE,
    SVI,
    LaggingInference,
    Linear,
    MonteCarloEM,
    Renyi,
    Resampled,
    ReweightedWakeSleep,
    Stage,
    Stages,
    VariationalEM,
    WakeSleep,
)
from ppdgm.models import (
    IAF,
    MLP,
    PPCA,
    VAE,
    Autoencoder,
    CategoricalPrior,
    ConditionalVAE,
    FactorAnalysis,
    FlowPosterior,
    GaussianMixture,
    GumbelSoftmax,
    HierarchicalVAE,
    MixtureVAE,
    Planar,
    SemiSupervisedVAE,
    VampPrior,
)

STEPS = 200
WARM = SVI(beta=Linear(steps=STEPS // 4))
LONGER = {
    "wake-sleep": 600,
    "variational em": 450,
    "monte carlo em": 450,
    "markov chain em": 450,
    "lagging": 1500,
}  # steps: the model moves less often
EXACT_STEPS = 30
LINEAR_FACTOR = 5  # times as many steps for PPCA and factor analysis: they have few parameters, which have far to go

ENGINES: dict[str, Any] = {
    "svi": WARM,
    "svi, k = 4": SVI(k=4),
    "svi, free bits": SVI(free_bits=0.5),
    "svi, capacity": SVI(k=4, capacity=Linear(end=4.0, steps=STEPS // 4), gamma=1.0),
    "svi, stl": SVI(estimator="stl", beta=Linear(steps=STEPS // 4)),
    "svi, score": SVI(k=4, estimator="score"),
    "svi, score, running": SVI(estimator="score", baseline="running"),
    "svi, score, learned": SVI(estimator="score", baseline="learned"),
    "svi, enumerate": SVI(estimator="enumerate"),
    "iwae": IWAE(k=5),
    "iwae, dreg": IWAE(k=5, estimator="dreg"),
    "iwae, vimco": IWAE(k=5, estimator="vimco"),
    "miwae": IWAE(k=4, groups=2),
    "ciwae": IWAE(k=5, elbo_share=0.5),
    "piwae": IWAE(k=8, guide_groups=4),
    "renyi": Renyi(alpha=0.5, k=5),
    "wake-sleep": WakeSleep(),
    "rws": ReweightedWakeSleep(k=10),
    "rws, sleep too": ReweightedWakeSleep(k=10, sleep_phi=0.5),
    "em": EM(),
    "variational em": VariationalEM(e_steps=2, m_steps=1),
    "markov chain em": MonteCarloEM(e_steps=2, sampler=HMC()),
    "monte carlo em": MonteCarloEM(e_steps=2, sampler=Resampled(k=10)),
    "lagging": LaggingInference(window=5, most=10, every=20),
    "stages": Stages(stages=(Stage(engine=WARM, steps=STEPS // 2), Stage(engine=IWAE(k=5)))),
}

NETS: dict[str, Any] = {"encoder": MLP(hidden=(100,)), "decoder": MLP(hidden=(100,))}
IMAGE: dict[str, Any] = {"event_shape": (8, 8), **NETS}
LEVELS: dict[str, Any] = {**IMAGE, "latent": (8, 4), "levels": MLP(hidden=(32,)), "features": 64}
GUMBEL: dict[str, Any] = {**IMAGE, "latent": 8, "prior": CategoricalPrior(weights="learned")}


def pyro_pair() -> Any:
    import pyro
    import pyro.distributions as dist
    import torch

    torch.manual_seed(0)
    encoder = torch.nn.Sequential(
        torch.nn.Flatten(1), torch.nn.Linear(64, 100), torch.nn.Tanh(), torch.nn.Linear(100, 16)
    )
    decoder = torch.nn.Sequential(torch.nn.Linear(8, 100), torch.nn.Tanh(), torch.nn.Linear(100, 64))

    def model(x: Any) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x.flatten(1))

    def guide(x: Any) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", x.shape[0]):
            loc, raw = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, 1e-3 + torch.nn.functional.softplus(raw)).to_event(1))

    return Program.from_pyro(model, guide)


def numpyro_pair() -> Any:
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def net(name: str, x: Any, widths: tuple[int, ...]) -> Any:
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            weight = numpyro.param(f"{name}.{i}.weight", jax.random.normal(jax.random.key(i), (a, b)) * a**-0.5)
            x = x @ weight + numpyro.param(f"{name}.{i}.bias", jnp.zeros(b))
            x = jnp.tanh(x) if i + 2 < len(widths) else x
        return x

    def model(x: Any) -> None:
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(8), 1.0).to_event(1))
            logits = net("decoder", z, (8, 100, 64))
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x.reshape(-1, 64))

    def guide(x: Any) -> None:
        with numpyro.plate("data", x.shape[0]):
            loc, raw = jnp.split(net("encoder", x.reshape(-1, 64), (64, 100, 16)), 2, -1)
            numpyro.sample("z", dist.Normal(loc, 1e-3 + jax.nn.softplus(raw)).to_event(1))

    return Program.from_numpyro(model, guide)


PROGRAMS: dict[str, tuple[Callable[[], Any], str]] = {  # name: (program, likelihood of the data)
    "vae": (lambda: VAE(latent=8, **IMAGE), "bernoulli"),
    "vae, iaf": (lambda: VAE(latent=8, posterior=FlowPosterior(flow=IAF(hidden=(32,))), **IMAGE), "bernoulli"),
    "vae, planar": (lambda: VAE(latent=8, posterior=FlowPosterior(flow=Planar(depth=4)), **IMAGE), "bernoulli"),
    "vae, vamp": (lambda: VAE(latent=8, prior=VampPrior(components=30), **IMAGE), "bernoulli"),
    "vae, categorical": (lambda: VAE(posterior=GumbelSoftmax(classes=4), **GUMBEL), "bernoulli"),
    "vae, relaxed": (lambda: VAE(posterior=GumbelSoftmax(classes=4, kl="relaxed"), **GUMBEL), "bernoulli"),
    "vae, enumerated": (
        lambda: VAE(posterior=GumbelSoftmax(classes=4, enumerate=True), **{**GUMBEL, "latent": 4}),
        "bernoulli",
    ),
    "conditional": (lambda: ConditionalVAE(latent=8, classes=10, **IMAGE), "labels"),
    "semi-supervised": (lambda: SemiSupervisedVAE(latent=8, classes=10, **IMAGE), "labels"),
    "factorised levels": (lambda: HierarchicalVAE(inference="factorised", **LEVELS), "bernoulli"),
    "bottom-up levels": (lambda: HierarchicalVAE(inference="bottom_up", **LEVELS), "bernoulli"),
    "ladder": (lambda: HierarchicalVAE(inference="top_down", **LEVELS), "bernoulli"),
    "mixture vae": (lambda: MixtureVAE(latent=8, components=10, **IMAGE), "bernoulli"),
    "autoencoder": (lambda: Autoencoder(latent=8, **IMAGE), "bernoulli"),
    "ppca": (lambda: PPCA(event_shape=(8, 8), latent=8, posterior="linear"), "standardised"),
    "factor analysis": (lambda: FactorAnalysis(event_shape=(8, 8), latent=8), "standardised"),
    "gaussian mixture": (lambda: GaussianMixture(event_shape=(8, 8), components=5), "standardised"),
    "pyro pair": (pyro_pair, "bernoulli"),
    "numpyro pair": (numpyro_pair, "bernoulli"),
}


def backends_of(program: str) -> list[str]:
    return [program.removesuffix(" pair")] if program.endswith(" pair") else ["numpyro", "pyro"]


def data_of(kind: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and held-out fields."""
    source = {"labels": "bernoulli", "standardised": "gaussian"}.get(kind, kind)
    train, test = data_for(source)
    if kind == "standardised":  # each pixel has the same variance, because PPCA has one noise for all
        middle, scale = train.mean(0), train.std(0)
        return {"x": (train - middle) / scale}, {"x": (test - middle) / scale}
    if kind != "labels":
        return {"x": train}, {"x": test}
    data = ppdgm.load_data("digits", scale="none", binarise="none", fields=["x", "label"])
    labels = [np.asarray(part["label"]) for part in (data.train, data.test)]
    return {"x": train, "label": labels[0]}, {"x": test, "label": labels[1]}
