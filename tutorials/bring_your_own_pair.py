# %% [markdown]
# # Bring your own pair
#
# You have a model and a guide in plain Pyro or NumPyro. ppdgm takes them as they are and trains them. Its bounds are
# correct for each row, with any kind of plate: the scale N/B stays outside the log-sum-exp.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import torch

import ppdgm
from ppdgm import Program

SMALL = bool(os.environ.get("PPDGM_SMALL"))
EPOCHS, K = (3, 20) if SMALL else (150, 1000)
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
data = ppdgm.load_data("digits")
N = len(data.train)

# %% [markdown]
# ## A plain Pyro pair
#
# This is the style of Pyro's own VAE example: the pair is two methods of one `nn.Module`. The encoder has a BatchNorm
# layer, whose running means change only during training, and are saved with the parameters.


# %%
class PyroVAE(torch.nn.Module):
    def __init__(self, latent: int = 8):
        super().__init__()
        self.latent = latent
        first = (torch.nn.Linear(64, 100), torch.nn.BatchNorm1d(100), torch.nn.Tanh())
        self.encoder = torch.nn.Sequential(*first, torch.nn.Linear(100, 2 * latent))
        self.decoder = torch.nn.Sequential(torch.nn.Linear(latent, 100), torch.nn.Tanh(), torch.nn.Linear(100, 64))

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latent), 1.0).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x.reshape(-1, 64))

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = self.encoder(x.reshape(-1, 64)).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


torch.manual_seed(0)
vae = PyroVAE()
pyro_pair = Program.from_pyro(vae.model, vae.guide, data_plate="data")
pyro_fit = ppdgm.fit(pyro_pair, data.train, validation=data.validation, epochs=EPOCHS, batch_size=100, seed=0)
print("Pyro, test ELBO           ", pyro_fit.elbo(data.test))
print("Pyro, test log-likelihood ", pyro_fit.log_likelihood(data.test, k=K))

# %% [markdown]
# ## A plain NumPyro pair
#
# This pair subsamples inside the model: it gets all data, and its plate draws minibatches of 100. ppdgm draws the
# indices once per step, so guide and model get the same rows.


# %%
def layer(name, x, outputs):
    first = lambda key: jax.random.normal(key, (x.shape[-1], outputs)) / np.sqrt(x.shape[-1])
    weight = numpyro.param(f"{name}.weight", first)
    return x @ weight + numpyro.param(f"{name}.bias", jnp.zeros(outputs))


def numpyro_model(x):
    with numpyro.plate("data", N, subsample_size=100):
        batch = numpyro.subsample(x, event_dim=2)
        z = numpyro.sample("z", ndist.Normal(jnp.zeros(8), 1.0).to_event(1))
        logits = layer("out", jnp.tanh(layer("hidden", z, 100)), 64).reshape(*z.shape[:-1], 8, 8)
        numpyro.sample("obs", ndist.Bernoulli(logits=logits).to_event(2), obs=batch)


def numpyro_guide(x):
    with numpyro.plate("data", N, subsample_size=100):
        batch = numpyro.subsample(x, event_dim=2)
        h = layer("q", jnp.tanh(layer("q_hidden", batch.reshape(-1, 64), 100)), 16)
        numpyro.sample("z", ndist.Normal(h[:, :8], jnp.exp(h[:, 8:])).to_event(1))


numpyro_pair = Program.from_numpyro(numpyro_model, numpyro_guide, data_plate="data")
numpyro_fit = ppdgm.fit(numpyro_pair, data.train, validation=data.validation, epochs=EPOCHS, seed=0)
print("NumPyro, test ELBO           ", numpyro_fit.elbo(data.test))
print("NumPyro, test log-likelihood ", numpyro_fit.log_likelihood(data.test, k=K))

# %% [markdown]
# ## A mixture: an exact sum over a discrete latent
#
# A site with `infer={"enumerate": "parallel"}` is summed over all its values. Here only the model has this site, so the
# guide is empty, and the ELBO is exactly log p(x). `encode` gives p(c|x), the probability of each component.


# %%
def mixture(x):
    weights = pyro.param("weights", torch.ones(10) / 10, constraint=dist.constraints.simplex)
    logits = pyro.param("logits", torch.randn(10, 64, generator=torch.Generator().manual_seed(0)))
    with pyro.plate("data", x.shape[0]):
        c = pyro.sample("c", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("obs", dist.Bernoulli(logits=logits[c]).to_event(1), obs=x.reshape(-1, 64))


mixture_pair = Program.from_pyro(mixture, lambda x: None, data_plate="data")
mixture_fit = ppdgm.fit(mixture_pair, data.train, epochs=EPOCHS, batch_size=100, learning_rate=0.02, seed=0)
print("Mixture, test log-likelihood ", mixture_fit.elbo(data.test))
component, digit = mixture_fit.encode(data.test).argmax(-1), data.labels["test"]
pure = sum(np.bincount(digit[component == c]).max() for c in np.unique(component)) / len(digit)
print(f"{pure:.0%} of the test images show the most frequent digit of their component")

# %% [markdown]
# ## What each pair learned
#
# The figure shows the codes of the test images, in the two dimensions that vary most. Images of the same digit are
# close together, although no label was used.

# %%
figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
fits = {"Pyro pair": pyro_fit, "NumPyro pair": numpyro_fit}
for name, fit in fits.items():
    panels[0].plot(fit.history["validation_step"], fit.history["validation_elbo"], label=name)
panels[0].set(title="Both pairs train equally well", xlabel="step", ylabel="validation ELBO (nats)", ylim=(-35, None))
panels[0].legend()
for axes, (name, fit) in zip(panels[1:], fits.items(), strict=True):
    z = fit.encode(data.test)
    a, b = np.argsort(z.var(0))[-2:]
    axes.scatter(z[:, a], z[:, b], c=data.labels["test"], cmap="tab10", s=14)
    axes.set(title=f"{name}: q(z|x) at its mean", xlabel=f"latent {a}", ylabel=f"latent {b}")
figure.savefig(OUT / "bring_your_own_pair.png", dpi=120)
print(f"Figure: {OUT / 'bring_your_own_pair.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Leave out `pyro.module` of the decoder. What happens? *Answer: as in Pyro, its parameters are not trained; `fit`
#    sees only what the pair registers.*
# 2. Why has the mixture no Monte Carlo error? *Answer: its only latent is summed out, so there is nothing to draw.*
