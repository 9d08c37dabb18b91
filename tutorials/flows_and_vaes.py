# %% [markdown]
# # A flow is a VAE whose encoder and decoder are points
#
# `flows_as_densities.py` shows flows as densities. A VAE seems to be something else: it has a latent, and a bound. But
# let its encoder be z = f⁻¹(x'), x' ~ N(x, σ²), and its decoder x ~ N(f(z), σ²). The two normals cancel, and the weight
# p(x, z) / q(z | x) of every draw is the flow's density at x'. For σ → 0 both are points, and the ELBO is log p(x).

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ppdgm
from ppdgm.models import ActNorm, Chain, FlowModel, InvertibleLinear, RealNVP

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
angle = 2 * np.pi * rng.random(3000)
ring = (np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(scale=0.1, size=(3000, 2))).astype("float32")
train, test = ring[:2800], ring[2800:]
layers = [layer for i in range(3) for layer in (RealNVP(hidden=(64,), depth=2), InvertibleLinear(seed=i), ActNorm())]
program = FlowModel(event_shape=(2,), flow=Chain(flows=tuple(layers)))
steps = 60 if SMALL else 1000
flow = ppdgm.fit(program, train, steps=steps, batch_size=500, learning_rate=2e-3, seed=0, progress=False)

# %% [markdown]
# The pair is a program of its own. Its guide is a density that we write ourselves, from the flow's inverse.


# %%
class PointVAE(ppdgm.Program):
    flow: Chain
    sigma: float

    def build(self, context):
        self.flow.build(context.scope("flow"), 2, conditional=False)

    def near(self, P, at):
        return P.dist.Normal(at, P.full((2,), self.sigma)).to_event(1)

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            P.sample("x", self.near(P, self.flow.forward(P.scope("flow"), z, None)[0]), obs=x)

    def guide(self, P, x):
        def sample(random, shape):
            there = x + self.sigma * random.normal((*shape, 2))
            z, log_det = self.flow.inverse(P.scope("flow"), there, None)
            return z, self.near(P, x).log_prob(there) - log_det

        def log_prob(z):
            there, log_det = self.flow.forward(P.scope("flow"), z, None)
            return self.near(P, x).log_prob(there) + log_det

        with P.plate("data", x):
            P.sample("z", P.distribution(sample, log_prob, (2,), (len(x),)))


exact = flow.log_likelihood(test).mean
print(f"the flow on {len(test)} test rows: log p(x) = {exact:.3f} nats")
sigmas, bounds = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001), []
for sigma in sigmas:
    vae = PointVAE(flow=program.flow, sigma=sigma)
    bounds.append(ppdgm.Fit(program=vae, params=flow.params).elbo(test, k=20).mean)
    print(f"as a VAE with σ = {sigma:5.3f}:     ELBO = {bounds[-1]:.3f} nats")

# %% [markdown]
# Two more views, which `tests/test_flow_theorems.py` shows as equalities of numbers:
#
# * A posterior z = f(z₀), z₀ ~ q₀(z₀ | x), with the prior N(0, I) has the same bounds as the posterior q₀ with the
#   inverse flow f⁻¹ as the prior of z₀. So a flow in the posterior and a flow in the prior are one choice, seen from
#   two sides; the decoder is D(z) on one side and D(f(z₀)) on the other.
# * A coupling is a masked autoregressive flow (MAF) in which the kept half stays as it is, and the moved half looks
#   only at the kept half. With a constant scale, it is also an IAF. MAF and IAF can do more, but each is slow in one
#   direction.

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.semilogx(sigmas, bounds, "o-", color="#3465a4", label="ELBO of the VAE")
axes.axhline(exact, color="#4e9a06", label="log p(x) of the flow")
axes.set(xlabel="σ of encoder and decoder", ylabel="nats per row", title="The bound becomes the density")
axes.legend()
figure.savefig(OUT / "flows_and_vaes.png", dpi=150)
print(f"\nWritten: {OUT / 'flows_and_vaes.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Is the ELBO above log p(x) for a large σ a contradiction? *Answer: no. The VAE with this σ has its own p(x), which
#    is another density.*
# 2. Which two terms cancel? *Answer: log N(x'; x, σ²) in the guide, and log N(x; x', σ²) in the model.*
