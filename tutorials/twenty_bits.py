# %% [markdown]
# # Twenty bits on digits: which estimator?
#
# `gradients_for_discrete_latents.py` compares the estimators in a program where the exact gradient is known. Here they
# train a VAE with twenty bits.
#
# There are 2²⁰ values, too many for a sum. All estimators have the same number of steps and draws. All are evaluated
# with the same model, with true bits: `elbo` and `log_likelihood` never use a relaxation.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt

import ppdgm
from ppdgm.inference import IWAE, SVI, Linear, ReweightedWakeSleep
from ppdgm.models import MLP, VAE, BernoulliPrior, RelaxedBernoulli

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
data = ppdgm.load_data("digits")


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
figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
for which, marker, color, label in ((1, "s", "#3465a4", "log p(x)"), (0, "o", "#d9730d", "ELBO")):
    axes.plot([pair[which].mean for pair in judged.values()], range(len(judged)), marker, color=color, label=label)
axes.set_yticks(range(len(judged)), list(judged))
axes.set(title="Digits with twenty bits, test images", xlabel="nats per image (more is better)")
axes.legend(fontsize=9, frameon=False)
figure.savefig(OUT / "twenty_bits.png", dpi=150)
print(f"\nWritten: {OUT / 'twenty_bits.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Why is the training objective of a relaxed run not a bound on log p(x)? *Answer: it is the bound of another model,
#    whose latents are points between the bits.*
# 2. Train with K = 20. Which estimators gain most? *Answer: compare; VIMCO's and wake-sleep's bounds get tighter with
#    K, while SVI only gets less noise.*
