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
# We start with enumeration, on 1,797 binarised digits: one latent of 10 classes, so that each image has one class.

# %%
import os

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite

# %%
import numpy as np

import ppdgm
from ppdgm.inference import Linear
from ppdgm.models import MLP, VAE, CategoricalPrior, GumbelSoftmax

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
# ## Bias and variance of the relaxed gradient
#
# With 10 classes we can compute both gradients, and compare them. We take the model after a few steps, when it is still
# uncertain about most images. We look at the gradient of E_q[log p(x|c)] with respect to the encoder's ten
# log-probabilities. The exact gradient is Σ_c ∂q(c)/∂l · log p(x|c). The decoder is a small net; here it is in JAX:

# %%
import jax
import jax.numpy as jnp


def decode(params, code):
    """The log-odds of the pixels, for any point of the simplex."""
    w1, b1, w2, b2 = (params[f"decoder.layers.{i}.{n}"] for i in (0, 1) for n in ("weight", "bias"))
    return jnp.tanh(code @ w1 + b1) @ w2 + b2


early = ppdgm.fit(ten.program, data.train, steps=60, batch_size=100, learning_rate=3e-3, seed=0, progress=False)
x = data.test[:40].reshape(-1, 64)
logits = early.encode(data.test[:40])[:, 0]  # log q(c|x), [40, 10]


def log_p(code, x):
    h = decode(early.params, code)
    return (x * h - jax.nn.softplus(h)).sum(-1)


def exact(logits, x):
    return jax.nn.softmax(logits) @ log_p(jnp.eye(10), x)


def relaxed(logits, x, tau, noise):
    return log_p(jax.nn.softmax((logits + noise) / tau), x)


def straight_through(logits, x, tau, noise):
    """The nearest corner, with the gradient of the point itself. Evaluations always use corners."""
    soft = jax.nn.softmax((logits + noise) / tau)
    return log_p(jax.lax.stop_gradient(jnp.eye(10)[soft.argmax(-1)] - soft) + soft, x)


@jax.jit
def bias_and_spread(tau, keys):
    """Of both estimators, over all images, as shares of the exact gradient's length; the spread is of one draw."""
    right = jax.vmap(jax.grad(exact))(logits, x)
    found = []
    for objective in (relaxed, straight_through):
        each = jax.vmap(jax.grad(objective), (0, 0, None, 0))
        draw = lambda key, each=each: each(logits, x, tau, jax.random.gumbel(key, logits.shape))
        draws = jax.lax.map(draw, keys)
        variance = draws.var(0).sum()
        squared = ((draws.mean(0) - right) ** 2).sum() - variance / len(keys)  # less what noise alone would show
        found += [jnp.sqrt(jnp.maximum(squared, 0.0)), jnp.sqrt(variance)]
    return jnp.stack(found) / jnp.linalg.norm(right)


taus = np.array([0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0])
draws = 2_000 if SMALL else 20_000
keys = jax.random.split(jax.random.key(0), draws)
measured = np.array([bias_and_spread(tau, keys) for tau in taus])  # [τ, 4]
print(f"\nThe gradient against enumeration, as shares of its length ({draws} draws)")
print("    τ     relaxed: bias  spread of a draw     straight-through: bias  spread of a draw")
for tau, row in zip(taus, measured, strict=True):
    print(f"  {tau:4.1f}  {row[0]:14.3f}  {row[1]:16.2f}  {row[2]:25.3f}  {row[3]:16.2f}")

# %% [markdown]
# For τ → 0 the relaxed gradient is right, but its noise grows without limit. With a large τ there is little noise, but
# more bias. Straight-through is not less biased: its decoder sees corners, but uses the gradient at a corner for the
# whole way to the next corner. If the decoder is not linear, some of this bias stays even for small τ.
#
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
# ## Two figures

# %%
from pathlib import Path

import matplotlib.pyplot as plt

from ppdgm.plots import grid

OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True)
for axes, column, title in ((panels[0], 0, "Bias"), (panels[1], 1, "Spread of one draw (standard deviation)")):
    axes.loglog(taus, measured[:, column], "o-", color="#3465a4", label="relaxed")
    axes.loglog(taus, measured[:, column + 2], "s-", color="#d9730d", label="straight-through")
    axes.set(title=title, xlabel="temperature τ", ylabel="share of the exact gradient's length")
    axes.set_xticks(taus, [f"{t:g}" for t in taus])
    ticks = [
        t for t in (0.01, 0.03, 0.1, 0.3, 1, 3) if measured[:, column].min() / 3 < t < measured[:, column].max() * 3
    ]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
panels[0].legend(frameon=False)
figure.suptitle("Gradients of Gumbel-softmax draws against exact enumeration")
figure.tight_layout()
figure.savefig(OUT / "discrete_gradients.png", dpi=150)

figure, panels = plt.subplot_mosaic([["classes", "bars"], ["digits", "bars"]], figsize=(12, 4.6), width_ratios=(1.9, 1),
                                    height_ratios=(1, 2.2))  # fmt: skip
weights = np.asarray(jax.nn.softmax(ten.params["prior.logits"][0]))
order = np.argsort(-weights)
prototypes = np.asarray(jax.nn.sigmoid(decode(ten.params, jnp.eye(10))))[order].reshape(10, 8, 8)
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
print(f"\nWritten: {OUT / 'discrete_gradients.png'} and {OUT / 'discrete_latents.png'}")
