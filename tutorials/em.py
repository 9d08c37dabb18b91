# %% [markdown]
# # EM, and the order of its steps
#
# log p(x) ≥ ELBO = log p(x) − KL(q(z|x) ‖ p(z|x)). All methods here maximise the ELBO. They differ in the order in
# which they update model and guide. In probabilistic PCA all three terms have formulas, so that we can check every
# claim:
#
# * **EM** sets q to the exact posterior, then θ to its best value given q, and repeats. log p(x) never falls.
# * **Variational EM** does the same with a guide with parameters φ, by gradients: some steps of φ, then one step of θ.
# * **SVI** updates both at once. This is the usual way to train a VAE.
#
# `lagging_inference.py` goes on from here: what happens if the guide is behind the model for long.

# %%
import os
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_wine

import ppdgm
from ppdgm.inference import EM, SVI, Stage, VariationalEM
from ppdgm.models import PPCA

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

x = load_wine().data  # 178 wines, 13 columns
x = ((x - x.mean(0)) / x.std(0)).astype("float32")
linear = PPCA(event_shape=(13,), latent=2, posterior="linear")  # q(z|x) = N(Ax + b, diag s²)
exact = PPCA(event_shape=(13,), latent=2, posterior="exact")
best = exact.maximum_likelihood(x)  # by the formula
top = exact.exact_log_likelihood(best, x).mean()

# %% [markdown]
# An optimiser sees the parameters after every step. This one is Adam, and it also records them.


# %%
def train(engine, steps, params):
    """The parameters before and after each step."""
    path, adam = [params], optax.adam(0.01)

    def update(gradient, state, moving):
        updates, state = adam.update(gradient, state, moving)
        moved = optax.apply_updates(moving, updates)  # of a step of φ, say, φ alone
        jax.debug.callback(lambda moved: path.append({**path[-1], **moved}), moved, ordered=True)
        return updates, state

    options = {"optimiser": optax.GradientTransformation(adam.init, update), "batch_size": len(x), "progress": False}
    ppdgm.fit(linear, x, engine=engine, steps=steps, params=params, **options)
    jax.effects_barrier()
    return path


def values(path):
    """log p(x) and the ELBO of a linear guide, mean over wines, both from formulas: no draws, no noise."""
    log_p, elbo = [], []
    for p in path:
        p = {name: np.asarray(value, float) for name, value in p.items()}
        mean, variance = x @ p["guide.weight"].T + p["guide.bias"], np.exp(2 * p["guide.log_scale"])
        noise, miss = np.exp(2 * p["log_scale"]), x - p["loc"] - mean @ p["weight"].T
        squared = (miss**2).sum(1) + variance @ (p["weight"] ** 2).sum(0)  # E_q[(x − μ − Wz)²]
        kl = 0.5 * (variance + mean**2 - 1 - np.log(variance)).sum(1)
        elbo.append((-0.5 * squared / noise - 6.5 * np.log(2 * np.pi * noise) - kl).mean())
        log_p.append(linear.exact_log_likelihood(p, x).mean())
    return np.array(log_p), np.array(elbo)


# %% [markdown]
# ## Three methods from the same random start

# %%
steps = 24 if SMALL else 3000
first = linear.initialise(0, x)
start = {name: first[name] for name in best}
em = ppdgm.fit(exact, x, engine=EM(), steps=100 if SMALL else 300, params=start, progress=False)
climbed = em.history["elbo"]  # q is the posterior: the bound is log p(x)
assert np.diff(climbed).min() > -1e-12, "EM never goes down"
assert abs(climbed[-1] - top) < 1e-9, "and ends at the closed form's maximum"
near = np.argmax(climbed > top - 1e-3)
print(f"maximum likelihood, by the formula  {top:.6f} nats per wine")
print(f"EM, after {len(climbed)} steps               {climbed[-1]:.6f}; within a thousandth after {near}")

engines = {"variational EM": VariationalEM(e_steps=5, engine=SVI(k=16)), "SVI": SVI(k=16)}
found = {name: values(train(engine, steps, first)) for name, engine in engines.items()}
for name, (log_p, elbo) in found.items():
    assert (elbo <= log_p).all(), "a bound"
    print(f"{name:14s} {steps} steps: log p(x) {top - log_p[-1]:.4f} below the maximum, ELBO {top - elbo[-1]:.4f}")
assert (np.diff(found["variational EM"][0])[np.arange(steps) % 6 < 5] == 0).all(), (
    "an E-step moves φ alone: log p(x) stays, KL falls"
)

# %% [markdown]
# ## The ELBO rises, and log p(x) falls
#
# θ maximises the ELBO, which is log p(x) *minus the error of q*. So θ can improve it in two ways: it can explain the
# data better, or it can move the posterior towards the guide. To see only the second, we start θ at the maximum of log
# p(x):
#
# * **A guide that lags**: q(z|x) starts as N(0, 1) for every x. In the end it will be exact; until then θ moves to it.
# * **A guide that is too simple**: its width is always 1. The posterior is narrower; θ makes it wider, permanently.

# %%
turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)  # as likely as without it, but the latents' posteriors are correlated
at_best = {**best, "weight": best["weight"] @ turn}
at_best |= {name: 0 * value for name, value in first.items() if name.startswith("guide")}
at_best = {name: np.asarray(value, "float32") for name, value in at_best.items()}
guides = {"a guide that lags": SVI(k=16)}
if not SMALL:
    guides["a guide of width 1"] = [Stage(engine=SVI(k=16), freeze=("guide.log_scale",))]
apart = {name: values(train(engine, steps, at_best)) for name, engine in guides.items()}
print("\nFrom the maximum on, by SVI         ELBO: start, end       log p(x) − maximum: start, lowest, end")
for name, (log_p, elbo) in apart.items():
    low = log_p.min() - top
    print(f"{name:32s} {elbo[0]:9.3f} {elbo[-1]:9.3f} {log_p[0] - top:20.3f} {low:7.3f} {log_p[-1] - top:7.3f}")

# %% [markdown]
# The encoder of a VAE has both problems. So a better ELBO need not mean a better model: estimate log p(x), too.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
blue, orange, green = "#3465a4", "#d9730d", "#4e9a06"
left.loglog(1 + np.arange(len(climbed)), np.maximum(top - climbed, 1e-12), color=green, lw=2, label="EM: log p(x)")
for (name, (log_p, elbo)), color in zip(found.items(), (blue, orange), strict=True):
    left.loglog(1 + np.arange(len(elbo)), top - elbo, color=color, lw=1, label=f"{name}: ELBO")
    left.loglog(1 + np.arange(len(elbo)), top - log_p, color=color, lw=1.5, ls="--", label=f"{name}: log p(x)")
left.set(title="Three ways up", xlabel="1 + steps taken", ylim=(1e-4, 3e3))
left.set_ylabel("below the maximum of log p(x)   [nats per wine]")
for (name, (log_p, elbo)), color in zip(apart.items(), (orange, blue), strict=False):
    right.semilogx(1 + np.arange(len(elbo)), elbo - top, color=color, lw=1, label=f"{name}: ELBO")
    right.semilogx(1 + np.arange(len(elbo)), log_p - top, color=color, lw=1.5, ls="--", label=f"{name}: log p(x)")
right.set(title="From the maximum of log p(x), by SVI", xlabel="1 + steps taken", ylim=(-2.5, 0.15))
right.set_ylabel("value − maximum of log p(x)   [nats per wine]")
left.legend(loc="upper right", fontsize=8.5, frameon=False)
right.legend(loc="lower right", fontsize=8.5, frameon=False)
figure.savefig(OUT / "em.png", dpi=150)
print(f"\nWritten: {OUT / 'em.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Start EM at W = 0. What happens, and why? *Answer: nothing. The posterior of z is then the prior, the M-step finds
#    W = 0 again: a saddle point.*
# 2. How many E-steps does variational EM need? Try `e_steps=1` and 50. *Answer: with few, it behaves as SVI does; with
#    many, each M-step begins at an almost exact guide, and most steps are spent on φ.*
