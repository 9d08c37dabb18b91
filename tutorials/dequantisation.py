# %% [markdown]
# # Dequantisation: a flow for whole numbers
#
# A flow is a density of real numbers. Grey levels are whole numbers, 0 to 16 in the digits. On whole numbers a density
# can be as high as it likes: it puts a spike on each level, and log p(x) grows without end. So the data get a noise u
# in [0, 1): the flow models x + u, and the probability of a level is its integral, P(x) = ∫ p(x + u) du. Then
#
# log P(x) ≥ E_q[log p(x + u) − log q(u|x)],
#
# which is an ELBO with the latent u. Three ways to make it tight:
#
# * **uniform**: q(u) = 1 (Theis et al. 2016, arXiv:1511.01844). The flow has to be flat within each cell.
# * **variational**: q(u|x) is learned (Ho et al. 2019, arXiv:1902.00275). The noise follows the flow.
# * **importance weighting**: log 1/K Σ p/q, with K draws (Hoogeboom et al. 2020, arXiv:2001.11235).
#
# A model of whole numbers has a unit that does not depend on scales: bits per dimension, −log₂ P(x) / D.

# %%
import os
from pathlib import Path

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

# %%
from math import log

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import logistic

import ppdgm
from ppdgm.inference import IWAE, SVI
from ppdgm.models import MLP, ActNorm, Chain, Dequantised, DiagonalLogistic, FlowPrior, RealNVP

# %% [markdown]
# ## One number
#
# The density is a logistic with location 0.7 and scale 0.6. The cell of x = 2 is [2, 3): its probability is the
# integral over it, and the uniform bound is the mean of the logarithm, which is less (Jensen).

# %%
u = (np.arange(10_000) + 0.5) / 10_000
for x in (0, 2):
    exact = np.log(logistic.cdf(x + 1, 0.7, 0.6) - logistic.cdf(x, 0.7, 0.6))
    bound = logistic.logpdf(x + u, 0.7, 0.6).mean()
    print(f"x = {x}: log P(x) {exact:.4f} nats, uniform bound {bound:.4f}")

# %% [markdown]
# ## Digits with 17 grey levels
#
# A flow of this size learns a small set by heart: each run keeps the parameters that were best on 150 other rows.

# %%
data = ppdgm.load_data("digits", scale="none", binarise="none", validation=150)
block = (RealNVP(depth=2, hidden=(16,) if SMALL else (64,)), ActNorm())
prior = FlowPrior(flow=Chain(flows=block * (1 if SMALL else 3)))
steps = 30 if SMALL else 500
found, fits = {}, {}
for name, noise, engine in (
    ("uniform", None, SVI()),
    ("variational", DiagonalLogistic(), SVI()),
    ("variational, IWAE", DiagonalLogistic(), IWAE(k=8)),
):
    program = Dequantised(event_shape=(8, 8), levels=17, prior=prior, noise=noise, net=MLP(hidden=(64,)))
    fits[name] = ppdgm.fit(
        program, data.train, validation=data.validation, engine=engine, steps=steps, batch_size=100, seed=0,
        learning_rate=2e-3, weight_average=0.98, progress=False,
    )  # fmt: skip
    weights = fits[name].log_weights(data.test, k=8 * 10).reshape(10, 8, -1)
    k = engine.k
    found[name] = (np.logaddexp.reduce(weights[:, :k], axis=1) - log(k)).mean(0)  # the bound that was trained
bits = lambda nats: -nats / (64 * log(2))
print("\nnoise                 bound on log P(x)        bits per dimension   less than uniform")
for name, values in found.items():
    gain = bits(found["uniform"]) - bits(values)
    error = gain.std() / len(gain) ** 0.5
    print(f"{name:20s} {values.mean():9.2f} nats {bits(values).mean():22.4f}   {gain.mean():15.4f} ± {error:.4f}")
print(f"\nEvery estimate shows both units: {fits['variational'].elbo(data.test)}")

# %% [markdown]
# What the noise has learned: where a pixel is always 0 there is nothing to follow; elsewhere the mean of u moves away
# from ½, towards the levels next to it that are more probable. Draws are whole numbers.

# %%
z = fits["variational"].encode(data.test[:8], k=200)
noise = 17 * z - data.test[:8]
figure, rows = plt.subplots(3, 8, figsize=(9, 3.8))
drawn = fits["variational, IWAE"].sample(8, seed=1)
for row, images, (low, high) in zip(
    rows, (data.test[:8], noise.mean(0), drawn), ((0, 16), (0.2, 0.8), (0, 16)), strict=True
):
    for axes, image in zip(row, images, strict=True):
        axes.imshow(image, cmap="gray_r" if high == 16 else "RdBu", vmin=low, vmax=high)
        axes.set(xticks=[], yticks=[])
for row, title in zip(rows, ("test rows", "mean of u", "draws"), strict=True):
    row[0].set_ylabel(title)
figure.suptitle("Digits of 17 grey levels: data, what the noise has learned, draws")
figure.tight_layout()
figure.savefig(OUT / "dequantisation.png", dpi=120)
print(f"\nWritten: {OUT / 'dequantisation.png'}")

# %% [markdown]
# ## Exercises
#
# 1. What happens without any noise? *Answer: the flow puts a narrow spike on each level, and log p(x) grows without
#    end.*
# 2. Why may a bound with 64 draws be compared only with others of 64 draws? *Answer: the bound rises with the number of
#    draws. The same model has a higher number with more draws.*
