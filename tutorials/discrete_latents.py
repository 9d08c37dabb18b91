# %% [markdown]
# # Discrete latents: sum over them, or relax them
#
# A class, a word of a code book, a switch: some latents take one of C values. There is no path of small changes from
# one value to the next, so the gradient that trains a VAE, through the draw of its latent, does not exist. Two ways out:
#
# * **Enumerate**: compute every value's term, and weigh it with its probability. Exact, without noise, for few values.
# * **Relax**: draw a point *near* a corner of the simplex, softmax((log π + g)/τ) with Gumbel noise g, and push the
#   gradient through that. For any number of latents, but biased: what is trained is not quite the model.
#
# First the exact one, on 1,797 binarised digits: one latent of 10 classes, so that every image is of one class.

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


def train(latent, posterior, epochs, prior=CategoricalPrior()):
    program = VAE(
        event_shape=data.event_shape, latent=latent, prior=prior, posterior=posterior, encoder=net, decoder=net
    )
    epochs = 3 if SMALL else epochs
    return ppdgm.fit(program, data.train, epochs=epochs, batch_size=100, learning_rate=3e-3, seed=0, progress=False)


ten = train(1, GumbelSoftmax(classes=10, enumerate=True), 150, CategoricalPrior(weights="learned"))
elbo, log_likelihood = ten.elbo(data.test, k=1), ten.log_likelihood(data.test, k=1)
print("10 classes, enumerated. Both are sums of ten terms: one particle, and no Monte Carlo error.")
print(f"  test ELBO             {elbo.mean:8.3f} nats")
print(f"  test log-likelihood   {log_likelihood.mean:8.3f} nats, exactly log p(x)")
gap = log_likelihood.values - elbo.values
print(f"  their difference is KL(q(c|x) ‖ p(c|x)): {gap.mean():.3f} nats, which the encoder loses by not being exact")

# %% [markdown]
# ## What relaxing costs: bias and variance, against the exact gradient
#
# With 10 classes we can have both, and compare. Take the model after a few steps, while it is still unsure of most
# images, and look at the gradient of E_q[log p(x|c)] with respect to the encoder's ten log-probabilities. Exactly, it
# is Σ_c ∂q(c)/∂l · log p(x|c). The decoder is a small net, and here it is, written out over JAX:

# %%
import jax
import jax.numpy as jnp

early = ppdgm.fit(ten.program, data.train, steps=60, batch_size=100, learning_rate=3e-3, seed=0, progress=False)
x = data.test[:40].reshape(-1, 64)
logits = early.encode(data.test[:40])[:, 0]  # log q(c|x), [40, 10]
w1, b1, w2, b2 = (early.params[f"decoder.layers.{i}.{n}"] for i in (0, 1) for n in ("weight", "bias"))


def log_p(code, x):
    """log p(x|code), for any point of the simplex."""
    h = jnp.tanh(code @ w1 + b1) @ w2 + b2
    return (x * h - jax.nn.softplus(h)).sum(-1)


def exact(logits, x):
    return jax.nn.softmax(logits) @ log_p(jnp.eye(10), x)


def relaxed(logits, x, tau, noise):
    return log_p(jax.nn.softmax((logits + noise) / tau), x)


def straight_through(logits, x, tau, noise):
    """The corner that is nearest, with the gradient of the point itself. Evaluations always see corners."""
    soft = jax.nn.softmax((logits + noise) / tau)
    return log_p(jax.lax.stop_gradient(jnp.eye(10)[soft.argmax(-1)] - soft) + soft, x)


@jax.jit
def bias_and_spread(tau, keys):
    """Of both estimators, as shares of the exact gradient's length, over images; per draw."""
    right = jax.vmap(jax.grad(exact))(logits, x)
    found = []
    for objective in (relaxed, straight_through):
        over_images = jax.vmap(jax.grad(objective), (0, 0, None, 0))
        draws = jax.lax.map(lambda key: over_images(logits, x, tau, jax.random.gumbel(key, logits.shape)), keys)
        length = jnp.linalg.norm(right)
        found += [jnp.linalg.norm(draws.mean(0) - right) / length, jnp.sqrt(draws.var(0).sum()) / length]
    return jnp.stack(found)


taus = np.array([0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0])
draws = 2_000 if SMALL else 40_000
keys = jax.random.split(jax.random.key(0), draws)
measured = np.array([bias_and_spread(tau, keys) for tau in taus])  # [τ, 4]
print(f"\nThe gradient against enumeration, as shares of its length ({draws} draws)")
print("    τ    relaxed: bias  spread of a draw    straight-through: bias  spread")
for tau, row in zip(taus, measured, strict=True):
    print(f"  {tau:4.1f}  {row[0]:13.3f}  {row[1]:16.2f}  {row[2]:23.3f}  {row[3]:6.2f}")
