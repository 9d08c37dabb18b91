# %% [markdown]
# # Relaxed gradients: bias and spread
#
# `discrete_latents.py` trains discrete latents by relaxation: a point *near* a corner of the simplex, softmax((log π +
# g)/τ) with Gumbel noise g. How wrong is its gradient, and how noisy? With 10 classes we can compute the exact one.
#
# With 10 classes we can compute both gradients, and compare them. We take the model after a few steps, when it is still
# uncertain about most images. We look at the gradient of E_q[log p(x|c)] with respect to the encoder's ten
# log-probabilities. The exact gradient is Σ_c ∂q(c)/∂l · log p(x|c). The decoder is a small net; here it is in JAX:

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ppdgm
from ppdgm.models import MLP, VAE, CategoricalPrior, GumbelSoftmax

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
data, net = ppdgm.load_data("digits"), MLP(hidden=(100,))
ten = VAE(
    event_shape=(8, 8), latent=1, prior=CategoricalPrior(weights="learned"), encoder=net, decoder=net,
    posterior=GumbelSoftmax(classes=10, enumerate=True),
)  # fmt: skip


def decode(params, code):
    """The log-odds of the pixels, for any point of the simplex."""
    w1, b1, w2, b2 = (params[f"decoder.layers.{i}.{n}"] for i in (0, 1) for n in ("weight", "bias"))
    return jnp.tanh(code @ w1 + b1) @ w2 + b2


early = ppdgm.fit(ten, data.train, steps=60, batch_size=100, learning_rate=3e-3, seed=0, progress=False)
print(f"after 60 steps: test ELBO {early.elbo(data.test, k=1).mean:.2f} nats")
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

# %%
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
figure.savefig(OUT / "relaxed_gradients.png", dpi=150)
print(f"\nWritten: {OUT / 'relaxed_gradients.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Make the decoder linear, `MLP(hidden=())`. What happens to the bias of straight-through? *Answer: log p(x|c) is
#    then closer to linear between corners, and its bias for small τ gets smaller.*
# 2. Which τ has the smallest mean squared error for one draw? And for the mean of 100? *Answer: more draws allow a
#    smaller τ, because only the spread is averaged away.*
