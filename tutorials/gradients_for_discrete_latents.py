# %% [markdown]
# # Gradients for discrete latents: a comparison of estimators
#
# A draw of a class or a bit has no derivative with respect to its probabilities. `discrete_latents.py` shows two
# solutions: a sum over all values, and relaxation. This tutorial compares all estimators of the engines:
#
# * **Score function** (REINFORCE): the gradient of E[f(z)] is E[(f(z) − b) ∇ log q(z)], for any baseline b that does
#   not depend on the draw. If b is close to f, there is less noise. b can be a running mean, a net of x, or the mean of
#   the other draws.
# * **VIMCO** does the same for the importance-weighted bound. The baseline of each draw comes from the other draws.
# * **Reweighted wake-sleep** needs no derivative of a draw: the guide is fitted to the draws, with weights p(x,
#   z)/q(z|x).
# * **Relaxation** and **straight-through** use the gradient through a continuous draw: little noise, but a bias.
#
# We start with a small program, where we can sum over all values. So we know the exact gradient.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ppdgm
from ppdgm.inference import IWAE, SVI, Linear, ReweightedWakeSleep, Stage
from ppdgm.models import MLP, VAE, BernoulliPrior, CategoricalPrior, GumbelSoftmax, RelaxedBernoulli

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
# Here is the program again in JAX: log p(x, z) and log q(z|x) for all 3² values of z. An expectation over K draws is a
# sum with 9^K terms.

# %%
K, VALUES = 2 if SMALL else 4, jnp.array([(i, j) for i in range(3) for j in range(3)])


def log_terms(p, x):
    """log p(x, z) and log q(z|x) for each value, [9, N]."""
    encoder = x @ p["encoder.layers.0.weight"] + p["encoder.layers.0.bias"]
    log_q = jax.nn.log_softmax(encoder.reshape(-1, 2, 3))
    log_prior = jax.nn.log_softmax(p["prior.logits"])
    code = jnp.swapaxes(jnp.eye(3)[VALUES], 1, 2).reshape(9, 6)  # [values, classes · latents]
    h = code @ p["decoder.layers.0.weight"] + p["decoder.layers.0.bias"]
    seen = h @ x.T - jax.nn.softplus(h).sum(1)[:, None]
    chosen = lambda log: log[..., 0, VALUES[:, 0]] + log[..., 1, VALUES[:, 1]]
    return chosen(log_prior)[:, None] + seen, chosen(log_q).T


def expected(p, what, held=None):
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


values = np.log(np.eye(3) + 1e-30)[np.asarray(VALUES)][:, None] + np.zeros((1, 8, 1, 1))  # classes as log one-hot
trace = ppdgm.trace(tiny(), start, x[::8], k=9, values={"z": values.astype("float32")})
for ours, theirs in zip(log_terms(start, x[::8]), (sum(trace.log_p.values()), trace.log_q["z"]), strict=True):
    assert abs(ours - theirs).max() < 1e-5, "the same program"
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


score = {
    "score, none": SVI(k=K, estimator="score", baseline="none"),
    "score, running mean": SVI(k=K, estimator="score", baseline="running"),
    "score, net of x": SVI(k=K, estimator="score", baseline="learned"),
}
loo = {"score, leave one out": SVI(k=K, estimator="score", baseline="leave_one_out")}
tight = {"IWAE: VIMCO": IWAE(k=K, estimator="vimco")}
wake = {"wake-sleep, reweighted": ReweightedWakeSleep(k=K)}
soft = {"relaxed, τ = 1": {"temperature": 1.0}}
if not SMALL:
    tight = {"IWAE: score, none": IWAE(k=K, estimator="score", baseline="none")} | tight
    soft |= {"relaxed, τ = 0.3": {"temperature": 0.3}}
    soft |= {"straight-through, τ = 1": {"temperature": 1.0, "straight_through": True}}
engines = loo | ({} if SMALL else score) | tight | wake | {"enumeration": SVI(estimator="enumerate")}
steps, warm = (10, 0) if SMALL else (2000, 100)
found = dict(zip(engines, gradients(tiny(), engines.values()), strict=True))
for name, posterior in soft.items():
    found[name] = gradients(tiny(**posterior), [SVI(k=K, estimator="relaxed")])[0]

table = {}
print(f"\nThe encoder's gradient, {K} draws for each of {len(x)} data; lengths are shares of the exact gradient's")
print(f"({steps} gradients)           of which        bias ± error       spread   its square ÷ leave one out's")
for name, each in found.items():
    what = "K draws" if name.startswith("IWAE") else "wake" if name in wake else "ELBO"
    length = np.linalg.norm(exact[what])
    bias, spread = np.linalg.norm(each.mean(0) - exact[what]) / length, np.sqrt(each.var(0, ddof=1).sum()) / length
    table[name] = bias, spread / np.sqrt(len(each)), spread
    ratio = (spread / table["score, leave one out"][2]) ** 2
    print(f"{name:24s} {what:>10s} {bias:15.4f} ± {table[name][1]:.4f} {spread:9.2f} {ratio:14.3f}")
assert table["enumeration"][0] < 1e-4, "the sum over all values is the exact gradient"

# %% [markdown]
# The score function, VIMCO and wake-sleep have no bias; what is shown is chance. (Up to twice the error is not
# significant: it lies in few directions.) Any baseline is worth five times the number of draws. Relaxation has the
# least noise, and a bias that stays with any number of draws; straight-through has twice that bias. Enumeration has no
# noise and no bias, if it is possible.
#
# ## Twenty bits on digits
#
# There are 2²⁰ values, too many for a sum. All estimators have the same number of steps and draws. All are evaluated
# with the same model, with true bits: `elbo` and `log_likelihood` never use a relaxation.


# %%
def bits(**posterior):
    options = {"prior": BernoulliPrior(), "encoder": MLP(hidden=(100,)), "decoder": MLP(hidden=(100,))}
    return VAE(event_shape=data.event_shape, latent=20, posterior=RelaxedBernoulli(**posterior), **options)


K, steps, test, most = (2, 10, data.test[:50], 20) if SMALL else (5, 1500, data.test, 500)
runs = {}
if not SMALL:
    runs["relaxed, τ from 1 to 0.2"] = bits(temperature=Linear(start=1.0, end=0.2, steps=steps // 2)), SVI(k=K)
    runs["relaxed, τ = 1"] = bits(temperature=1.0), SVI(k=K)
    runs["score, none"] = bits(), SVI(k=K, estimator="score", baseline="none")
runs["score, leave one out"] = bits(), SVI(k=K, estimator="score")
runs["VIMCO"] = bits(), IWAE(k=K, estimator="vimco")
if not SMALL:
    runs["wake-sleep, reweighted"] = bits(), ReweightedWakeSleep(k=K)
judged = {}
print("\nTwenty bits, in nats     training objective    test: ELBO    log p(x)")
for name, (program, engine) in runs.items():
    fit = ppdgm.fit(program, data.train, engine=engine, steps=steps, learning_rate=3e-3, progress=False)
    judged[name] = fit.elbo(test, k=20), fit.log_likelihood(test, k=most)
    seen = fit.history["objective"][-50:].mean()
    print(f"{name:26s} {seen:16.2f} {judged[name][0].mean:13.2f} {judged[name][1].mean:11.2f}")

# %% [markdown]
# ## When to use which
#
# * **Few values** (up to some hundreds in all): `SVI(estimator="enumerate")`, or `enumerate=True` in the posterior.
# * **A good model of the data**: `IWAE(estimator="vimco")` or `ReweightedWakeSleep`, with a large K. The ELBO of their
#   guide is worse, but log p(x) is better.
# * **A good ELBO, or the bits themselves**: `SVI(k=…, estimator="score")`. Its leave-one-out baseline costs nothing;
#   for K = 1 use a learned baseline. It is unbiased, so more steps and draws help.
# * **Relaxation** learns fast and works with K = 1. Let τ decrease, and use `fit.elbo`, not the training objective,
#   which is several nats too high at τ = 1. Use straight-through if the decoder must see true bits in training.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.8))
blue, orange = "#3465a4", "#d9730d"
names = [n for n in table if n != "enumeration"]
at, (bias, error, spread) = np.arange(len(names)), np.array([table[n] for n in names]).T
left.plot(spread, at, "s", color=blue, label="spread of one gradient")
left.errorbar(bias, at, xerr=2 * error, fmt="o", capsize=3, color=orange, label="bias ± 2 errors")
left.set_yticks(at, names)
left.set_xscale("log")
left.set(title="The encoder's gradient, tiny program", xlabel="share of the exact gradient's length")
at = np.arange(len(judged))
for which, marker, color, label in ((1, "s", blue, "log p(x)"), (0, "o", orange, "ELBO")):
    right.plot([pair[which].mean for pair in judged.values()], at, marker, color=color, label=label)
right.set_yticks(at, list(judged))
right.set(title="Digits with twenty bits, test images", xlabel="nats per image (more is better)")
for axes, count in ((left, len(names)), (right, len(judged))):
    axes.set_ylim(count - 0.5, -0.5)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.3), ncols=2, fontsize=9, frameon=False)
figure.tight_layout()
figure.savefig(OUT / "gradients_for_discrete_latents.png", dpi=150)
print(f"\nWritten: {OUT / 'gradients_for_discrete_latents.png'}")
