# %% [markdown]
# # Hierarchies: several levels of latents, and three kinds of guides
#
# A hierarchical VAE draws its code in levels, from the top down: z_L from a prior, each z_l given z_{l+1}, and the
# image given z_1. The training objective is still the ELBO. But there are several guides for L levels, given one image:
#
# * *factorised*: q(z_1|x) q(z_2|x). This is simple, but, given x, the levels do not depend on each other.
# * *bottom-up*: q(z_1|x) q(z_2|z_1). Each level depends on the level below.
# * *top-down*, the ladder: q(z_2|x) q(z_1|x, z_2). Each level corrects the model's own p(z_1|z_2).

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import multivariate_normal

import ppdgm
from ppdgm.inference import SVI, Cosine, Linear
from ppdgm.models import MLP, VAE, Gaussian, HierarchicalVAE
from ppdgm.plots import grid

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite

# %% [markdown]
# ## A case with a known answer
#
# If both levels and the decoder are linear, with fixed noise, then x is normal: z₂ ~ N(0, I), z₁ ~ N(A z₂ + a, s² I), x
# ~ N(W z₁ + b, t² I) gives x ~ N(W a + b, W (A Aᵀ + s² I) Wᵀ + t² I). We compare the estimates with this.

# %%
GUIDES = ("factorised", "bottom_up", "top_down")[2 if SMALL else 0 :]
S, T, linear, fitting = 0.5, 0.6, MLP(hidden=()), 150 if SMALL else 1500
rng = np.random.default_rng(0)
weight = rng.normal(size=(8, 2)) @ np.diag([1.5, 0.7])
x = (rng.normal(size=(400, 2)) @ weight.T + T * rng.normal(size=(400, 8))).astype(np.float32)


def exact(params):
    """log p(x) of each row, in nats."""
    values = {n: np.asarray(v, float) for n, v in params.items()}
    w, b = values["decoder.layers.0.weight"].T, values["decoder.layers.0.bias"]
    a, shift = values["z1.conditional.layers.0.weight"][:, :2].T, values["z1.conditional.layers.0.bias"][:2]
    covariance = w @ (a @ a.T + S**2 * np.eye(2)) @ w.T + T**2 * np.eye(8)
    return multivariate_normal(w @ shift + b, covariance).logpdf(x)


print("guide        exact log p(x)   importance sampling        off by, in errors   log p(x) − ELBO")
for guide in GUIDES:
    program = HierarchicalVAE(
        event_shape=(8,), latent=(2, 2), inference=guide, likelihood=Gaussian(scale=T), features=8,
        encoder=linear, decoder=linear, levels=linear, min_scale=S, max_scale=S + 1e-6,
    )  # fmt: skip
    rate = Cosine(peak=0.05, steps=fitting)
    fit = ppdgm.fit(program, x, steps=fitting, batch_size=100, learning_rate=rate, seed=0, progress=False)
    truth = exact(fit.params).mean()
    estimate, elbo = fit.log_likelihood(x, k=2000), fit.elbo(x, k=2000)
    off = (estimate.mean - truth) / estimate.monte_carlo_error
    told = f"{estimate.mean:9.4f} ± {estimate.monte_carlo_error:.4f} nats   {off:12.1f}"
    print(f"{guide:<12} {truth:9.4f} nats   {told}          {truth - elbo.mean:12.3f} nats")

# %% [markdown]
# The likelihoods agree within a few of their errors. The last column is KL(q(z₁, z₂|x) ‖ p(z₁, z₂|x)), the loss of the
# guide. The factorised guide always has a loss: given x, z₁ and z₂ are correlated, unless the model uses only one.
#
# ## Digits
#
# We compare one level of 24 numbers with two levels of 16 and 8, and with a ladder of five levels of 8. Early in
# training a level has a KL cost before the decoder has learned to use it, so it is switched off, and may stay off. The
# solution is a *warm-up*: the KL's weight β rises from 0 to 1. The ladder's decoder sees all levels (`skip="decoder"`).

# %%
data = ppdgm.load_data("digits")
steps, net = (40, MLP(hidden=(16,))) if SMALL else (2000, MLP(hidden=(100,)))
warm = SVI(beta=Linear(steps=steps // 2))
nets = {"event_shape": data.event_shape, "encoder": net, "decoder": net}
two = lambda **how: HierarchicalVAE(latent=(16, 8), levels=net, features=100, **nets, **how)
deep = HierarchicalVAE(latent=(8,) * (3 if SMALL else 5), skip="decoder", levels=net, features=100, **nets)
programs = {
    "one level": (VAE(latent=24, **nets), warm),
    **{f"two, {guide}": (two(inference=guide), warm) for guide in GUIDES},
    "five, top_down": (deep, warm),
    "five, no warm-up": (deep, SVI()),
}


def judge(fit):
    """The test ELBO, and the KL of each level, E_q[log q(z_l|·) − log p(z_l|·)], level 1 first; in nats."""
    terms = ppdgm.trace(fit.program, fit.params, data.test, k=20)
    cost = [float((terms.log_q[n] - terms.log_p[n]).mean()) for n in sorted(terms.log_q)]
    return float(terms.log_p["x"].mean()) - sum(cost), cost


fits, likelihoods, costs = {}, {}, {}
print("\ntest images, in nats   ELBO     log-likelihood    against one level     KL of levels 1, 2, …")
for name, (program, engine) in programs.items():
    fit = ppdgm.fit(program, data.train, engine=engine, steps=steps, batch_size=100, learning_rate=2e-3, seed=0)
    fits[name], likelihoods[name] = fit, fit.log_likelihood(data.test, k=20 if SMALL else 1000)
    elbo, costs[name] = judge(fit)
    gain = likelihoods[name].values - likelihoods["one level"].values
    error, each = gain.std(ddof=1) / len(gain) ** 0.5, "  ".join(f"{c:.2f}" for c in costs[name])
    found = f"{likelihoods[name].mean:.2f} ± {likelihoods[name].standard_error:.2f}"
    print(f"{name:<20} {elbo:7.2f}     {found}     {gain.mean():+.2f} ± {error:.2f}        {each}")

# %% [markdown]
# How to read this:
#
# * The KL of a level is its cost, and an upper limit for its information. A level with a KL of 0 is not used.
# * In the bottom-up guide, the number of a level depends on draws of the level above; only the sum over levels is a KL.
#
# ## One figure
#
# Left: z1 is closest to the image; a level without a bar is not used. Right: all levels are drawn, from the top down.

# %%
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.6), width_ratios=(1.5, 1, 1))
colours = ("#3465a4", "#d9730d", "#4e9a06", "#75507b", "#c4a000")
rows = np.arange(len(costs))[::-1]
for level, colour in enumerate(colours):
    cost = np.array([max(c[level], 0.0) if level < len(c) else 0.0 for c in costs.values()])
    start = np.array([sum(max(v, 0.0) for v in c[:level]) for c in costs.values()])
    left.barh(rows, cost, left=start, height=0.6, color=colour, label=f"z{level + 1}")
totals = [sum(max(v, 0.0) for v in c) for c in costs.values()]
for row, name, total in zip(rows, costs, totals, strict=True):
    left.text(total + 0.15, row, f"{likelihoods[name].mean:.2f}", va="center", fontsize=9)
left.set_yticks(rows, list(costs))
left.set(title="KL of each level; beside it log p(x)", xlabel="nats per test image")
left.set_xlim(0, 1.2 * max(totals))
left.legend(loc="lower right", ncols=2, fontsize=9, frameon=False)

for axes, name in ((middle, "two, top_down"), (right, "five, top_down")):
    images = fits[name].sample(64, seed=1, mean=True)
    axes.imshow(grid(images, 8), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(f"Drawn by: {name}", fontsize=11)
    axes.axis("off")
figure.tight_layout()
figure.savefig(OUT / "hierarchies.png", dpi=150)
print(f"\nWritten: {OUT / 'hierarchies.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Train the ladder of five levels without `skip="decoder"`. Which levels are used? *Answer: look at the bars; the
#    decoder then sees only z1, and upper levels are useful only through it.*
# 2. Can a level have a KL above 0 and not help? *Answer: yes. KL is a cost; only log p(x) shows what it buys.*
