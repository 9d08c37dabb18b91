# %% [markdown]
# # Gradients for discrete latents: a comparison of estimators
#
# A draw of a class or a bit has no derivative with respect to its probabilities. This compares the estimators:
#
# * **Score function** (REINFORCE): E[(f(z) − b) ∇ log q(z)], for any baseline b that does not depend on the draw: a
#   running mean, a net of x, or the mean of the other draws. If b is close to f, there is less noise.
# * **VIMCO** does the same for the importance-weighted bound; **reweighted wake-sleep** fits the guide to weighted
#   draws.
# * **Relaxation** and **straight-through** use the gradient through a continuous draw: little noise, but a bias.
#
# In a small program we can sum over all values, so we know the exact gradient. (Next: `twenty_bits.py`.)

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ppdgm
from ppdgm.inference import IWAE, SVI, ReweightedWakeSleep, Stage
from ppdgm.models import MLP, VAE, CategoricalPrior, GumbelSoftmax

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

data = ppdgm.load_data("digits")
pixels = data.train.reshape(-1, 64)[:, [18, 21, 26, 29, 34, 37]]  # six of them, and two latents of three classes


def tiny(**posterior):
    options = {"encoder": MLP(hidden=()), "decoder": MLP(hidden=()), "prior": CategoricalPrior(weights="learned")}
    return VAE(event_shape=(6,), latent=2, posterior=GumbelSoftmax(classes=3, **posterior), **options)


options = {"steps": 20 if SMALL else 500, "learning_rate": 0.02, "progress": False}
start = ppdgm.fit(tiny(), pixels, engine=SVI(estimator="enumerate"), **options).params
start |= {n: v for n, v in tiny().initialise(1).items() if n.startswith("encoder")}  # the encoder has all to learn
x = np.repeat(pixels[:8], 8, axis=0)  # eight data, each eight times

# %% [markdown]
# Here is the program again in JAX, for all 3² values of z. An expectation over K draws is a sum with 9^K terms.

# %%
K, VALUES = 2 if SMALL else 4, jnp.array([(i, j) for i in range(3) for j in range(3)])


def log_terms(p, x):
    """log p(x, z) and log q(z|x) for each value, [9, N]."""
    encoder = x @ p["encoder.layers.0.weight"] + p["encoder.layers.0.bias"]
    log_q = jax.nn.log_softmax(encoder.reshape(-1, 2, 3))
    code = jnp.swapaxes(jnp.eye(3)[VALUES], 1, 2).reshape(9, 6)  # [values, classes · latents]
    h = code @ p["decoder.layers.0.weight"] + p["decoder.layers.0.bias"]
    seen = h @ x.T - jax.nn.softplus(h).sum(1)[:, None]
    chosen = lambda log: log[..., 0, VALUES[:, 0]] + log[..., 1, VALUES[:, 1]]
    return chosen(jax.nn.log_softmax(p["prior.logits"]))[:, None] + seen, chosen(log_q).T


def expected(p, what):
    """The exact ELBO, K-sample bound, or objective of wake-sleep's guide (with fixed weights)."""
    log_p, log_q = log_terms(p, x[::8])
    if what == "ELBO":
        return (jnp.exp(log_q) * (log_p - log_q)).sum(0).mean()
    drawn = jnp.stack(jnp.meshgrid(*[jnp.arange(9)] * K)).reshape(K, -1)
    chance, log_w = jnp.exp(log_q[drawn].sum(0)), (log_p - log_q)[drawn]
    if what == "K draws":
        return (chance * (jax.nn.logsumexp(log_w, axis=0) - jnp.log(K))).sum(0).mean()
    chance, shares = jax.lax.stop_gradient((chance, jax.nn.softmax(log_w, axis=0)))
    return (chance * (shares * log_q[drawn]).sum(0)).sum(0).mean()


ENCODER = "encoder.layers.0.weight", "encoder.layers.0.bias"
flat = lambda gradient: np.concatenate([np.asarray(gradient[n], float).ravel() for n in ENCODER])
exact = {what: flat(jax.jit(jax.grad(expected), static_argnums=1)(start, what)) for what in ("ELBO", "K draws", "wake")}

# %% [markdown]
# ## Bias and variance of each estimator
#
# To see gradients, we give `fit` an optimiser that takes no step and records the gradients. It only updates the
# parameters of a learned baseline. Engines in a list are trained one after another.


# %%
def gradients(program, engines):
    """The encoder's gradients from each engine, [steps, parameters], without the first `warm` steps."""
    seen, most = [], warm + steps

    def update(gradient, state, _):
        jax.debug.callback(lambda g: seen.append(-flat(g)), gradient, ordered=True)  # `fit` makes −objective small
        return {name: (0.0 if name in start else -0.05) * g for name, g in gradient.items()}, state

    stages = [Stage(engine=engine, steps=most) for engine in engines]
    optimiser = optax.GradientTransformation(lambda _: (), update)
    options = {"batch_size": len(x), "optimiser": optimiser, "params": start, "progress": False}
    ppdgm.fit(program, x, engine=stages, steps=most * len(stages), **options)
    jax.effects_barrier()
    return np.array(seen).reshape(len(stages), most, -1)[:, warm:]


baselines = {"score, none": "none", "score, running mean": "running", "score, net of x": "learned"}
score = {name: SVI(k=K, estimator="score", baseline=baseline) for name, baseline in baselines.items()}
loo = {"score, leave one out": SVI(k=K, estimator="score", baseline="leave_one_out")}
tight = {"IWAE: VIMCO": IWAE(k=K, estimator="vimco")}
wake = {"wake-sleep, reweighted": ReweightedWakeSleep(k=K)}
soft = {"relaxed, τ = 1": {"temperature": 1.0}}
if not SMALL:
    soft["straight-through, τ = 1"] = {"temperature": 1.0, "straight_through": True}
engines = loo | ({} if SMALL else score) | tight | wake | {"enumeration": SVI(estimator="enumerate")}
steps, warm = (10, 0) if SMALL else (2000, 100)
found = dict(zip(engines, gradients(tiny(), engines.values()), strict=True))
for name, posterior in soft.items():
    found[name] = gradients(tiny(**posterior), [SVI(k=K, estimator="relaxed")])[0]

table = {}
print(f"\nThe ELBO at the start is {float(expected(start, 'ELBO')):.2f} nats.")
print(f"The encoder's gradient, {K} draws for each of {len(x)} data; lengths are shares of the exact gradient's")
print(f"({steps} gradients)           of which        bias ± error       spread   its square ÷ leave one out's")
for name, each in found.items():
    what = "K draws" if name.startswith("IWAE") else "wake" if name in wake else "ELBO"
    off, noise = np.linalg.norm(each.mean(0) - exact[what]), np.sqrt(each.var(0, ddof=1).sum())
    bias, spread = np.array([off, noise]) / np.linalg.norm(exact[what])
    table[name] = bias, spread / np.sqrt(len(each)), spread
    ratio = (spread / table["score, leave one out"][2]) ** 2
    print(f"{name:24s} {what:>10s} {bias:15.4f} ± {table[name][1]:.4f} {spread:9.2f} {ratio:14.3f}")

# %% [markdown]
# The score function, VIMCO and wake-sleep have no bias; what is shown is chance. Any baseline is worth five times the
# number of draws. Relaxation has the least noise, and a bias that stays; straight-through has twice that bias.

# %%
figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
names = [n for n in table if n != "enumeration"]
at, (bias, error, spread) = np.arange(len(names)), np.array([table[n] for n in names]).T
axes.plot(spread, at, "s", color="#3465a4", label="spread of one gradient")
axes.errorbar(bias, at, xerr=2 * error, fmt="o", capsize=3, color="#d9730d", label="bias ± 2 errors")
axes.set(yticks=at, yticklabels=names, xlabel="share of the exact gradient's length", xscale="log")
axes.legend()
figure.savefig(OUT / "gradients_for_discrete_latents.png", dpi=150)
print(f"\nWritten: {OUT / 'gradients_for_discrete_latents.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Why may a baseline depend on x and on the other draws, but not on the draw itself? *Answer: E[b ∇ log q(z)] is 0
#    only if b does not depend on z.*
