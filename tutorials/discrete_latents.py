# %% [markdown]
# # Discrete latents: sum over them, or relax them
#
# Some latents take one of C values: a class, a word of a codebook, a switch. A value can't change in small steps, so
# there is no gradient through the draw of the latent, which usually trains a VAE. There are two solutions:
#
# * **Enumerate**: compute the term of every value, and average the terms with their probabilities. This is exact and
#   has no noise, but it needs a small number of values.
# * **Relax**: draw a point *near* a corner of the simplex, softmax((log π + g)/τ) with Gumbel noise g, and use the
#   gradient through this point. This works for any number of latents, but it is biased: training sees a slightly
#   different model.
#
# `relaxed_gradients.py` measures this bias. We start with enumeration, on 1,797 binarised digits: one latent of 10
# classes, so that each image has one class.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax

import ppdgm
from ppdgm.inference import Linear
from ppdgm.models import MLP, VAE, CategoricalPrior, GumbelSoftmax
from ppdgm.plots import grid

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
data = ppdgm.load_data("digits")
net = MLP(hidden=(100,))


def train(latent, prior, posterior, epochs):
    program = VAE(
        event_shape=data.event_shape, latent=latent, prior=prior, posterior=posterior, encoder=net, decoder=net
    )
    return ppdgm.fit(program, data.train, epochs=epochs, batch_size=100, learning_rate=3e-3, seed=0, progress=False)


ten = train(1, CategoricalPrior(weights="learned"), GumbelSoftmax(classes=10, enumerate=True), 3 if SMALL else 150)
elbo, log_likelihood = ten.elbo(data.test, k=1), ten.log_likelihood(data.test, k=1)
print("10 classes, enumerated. Both are sums of ten terms: one particle, no Monte Carlo error.")
print(f"  test ELBO             {elbo.mean:8.3f} nats")
print(f"  test log-likelihood   {log_likelihood.mean:8.3f} nats, exactly log p(x)")
gap = log_likelihood.values - elbo.values
print(f"  their difference is KL(q(c|x) ‖ p(c|x)): {gap.mean():.3f} nats, the error of the encoder")

# %% [markdown]
# ## A grid of words: 16 latents of 8 classes
#
# There are 8¹⁶ joint values, too many for a sum. `latent=(4, 4)` is a grid of latents. Each latent is a word of one
# codebook with 8 vectors, and the decoder sees the vectors. Training uses relaxed latents. `elbo` and `log_likelihood`
# always use the model itself, with one word at each place. So there are two numbers, and only the second is a bound on
# log p(x):

# %%
epochs = 3 if SMALL else 120
steps = epochs * -(-len(data.train) // 100)
words, uniform = {"classes": 8, "embedding": 16}, CategoricalPrior()
posteriors = {
    "τ = 2": GumbelSoftmax(temperature=2.0, **words),
    "τ from 1 to 0.3": GumbelSoftmax(temperature=Linear(start=1.0, end=0.3, steps=steps), **words),
}
if not SMALL:
    posteriors["straight-through, τ = 1"] = GumbelSoftmax(temperature=1.0, straight_through=True, **words)
grids = {name: train((4, 4), uniform, posterior, epochs) for name, posterior in posteriors.items()}
trained = {name: fit.history["elbo"][-50:].mean() for name, fit in grids.items()}
judged = {name: fit.elbo(data.train, k=5).mean for name, fit in grids.items()}
print("\n16 words of 8, in nats      relaxed, in training   the model's ELBO on the same   test log-likelihood")
for name, fit in grids.items():
    test = fit.log_likelihood(data.test, k=20 if SMALL else 500)
    print(f"  {name:25s} {trained[name]:20.2f} {judged[name]:30.2f} {test.mean:21.2f}")
print(f"  {'one latent of 10 classes':25s} {'':20s} {ten.elbo(data.train, k=1).mean:30.2f} {log_likelihood.mean:21.2f}")

# %% [markdown]
# With a large τ a latent is a mixture of words, which carries much more information than one word. The training
# objective is high, but the model depends on information that it does not have later. A small τ, or a τ that decreases,
# closes the gap. (A learned τ, `temperature="learned"`, has the same problem: it rises.)
#
# ## One figure

# %%
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
figure, panels = plt.subplot_mosaic([["classes", "bars"], ["digits", "bars"]], figsize=(12, 4.6), width_ratios=(1.9, 1),
                                    height_ratios=(1, 2.2))  # fmt: skip
weights = softmax(ten.params["prior.logits"][0])
order = np.argsort(-weights)
codes = np.log(np.eye(10) + 1e-6)[:, None].astype("float32")  # log-probabilities: one class each
prototypes = ten.decode(codes)[order]
shown = data.test[:12].reshape(12, 8, 8)
rows = [shown, ten.reconstruct(data.test[:12]), grids["τ from 1 to 0.3"].reconstruct(data.test[:12])]
remade = np.concatenate([np.reshape(r, (12, 8, 8)) for r in rows])
shares = ", ".join(f"{w:.0%}" for w in weights[order])
for name, images, across, title in (
    ("classes", prototypes, 10, f"The ten classes, and how often they come: {shares}"),
    ("digits", remade, 12, "Test images; what is left of them in one class of ten; in 16 words of 8"),
):
    panels[name].imshow(grid(images, across), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    panels[name].set_title(title, fontsize=10)
    panels[name].axis("off")
bars, at = panels["bars"], np.arange(len(grids))
bars.bar(at - 0.2, [-trained[n] for n in grids], 0.4, color="#d9730d", label="relaxed, in training")
bars.bar(at + 0.2, [-judged[n] for n in grids], 0.4, color="#3465a4", label="the model's own")
bars.set_xticks(at, [n.replace(", ", ",\n") for n in grids], fontsize=9)
bars.set_title("−ELBO of the training images, nats", fontsize=10)
bars.legend(frameon=False, fontsize=9)
figure.tight_layout()
figure.savefig(OUT / "discrete_latents.png", dpi=150)
print(f"\nWritten: {OUT / 'discrete_latents.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Train the ten classes without `enumerate=True`. Is the ELBO of the model lower? *Answer: compare the two test
#    ELBOs; relaxed training sees a slightly different model.*
# 2. How many values would a sum over the grid have? *Answer: 8¹⁶, about 3 · 10¹⁴.*
