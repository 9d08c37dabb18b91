# %% [markdown]
# # Every bound against the exact value
#
# Variational inference reports a *bound* on log p(x). For most models nobody knows how far below log p(x) the bound is.
# Probabilistic PCA is an exception: z ~ N(0, I), x ~ N(Wz + μ, σ²I). Everything is Gaussian, so there are formulas for
# log p(x), the posterior p(z|x) and the best parameters. Here we can check every bound and every optimiser exactly,
# before we trust them elsewhere.
#
# The data are chemical measurements of 178 wines: 13 columns, all standardised.

# %%
import os
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from sklearn.datasets import load_wine

import ppdgm
from ppdgm.inference import SVI, Cosine
from ppdgm.models import PPCA

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

x = load_wine().data
x = (x - x.mean(0)) / x.std(0)

# %% [markdown]
# ## The exact guide: no noise at all
#
# A *guide* q(z|x) replaces the posterior. Importance sampling draws z from the guide and computes
# log w = log p(x, z) − log q(z|x). If q is exactly the posterior, then log w = log p(x) for every z:
# p(x, z) = p(x) p(z|x), and the second factor cancels. So every draw gives the same, correct number.

# %%
exact = PPCA(event_shape=(13,), latent=2, posterior="exact")
best = exact.maximum_likelihood(x)  # the formula of Tipping & Bishop, no training
best = {name: value.astype("float32") for name, value in best.items()}
log_p = exact.exact_log_likelihood(best, x)  # per wine
log_w = ppdgm.log_weights(exact, best, x, k=100)  # [100 draws, 178 wines]
print(f"log p(x), averaged over wines          {log_p.mean():.4f} nats")
print(f"worst of 17,800 weights is off by      {abs(log_w - log_p).max():.1e} nats: rounding")

# %% [markdown]
# ## A guide that is wrong on purpose
#
# Now take a linear guide with the right mean, but twice as wide as the posterior. How much worse is it?
#
# * **The ELBO** is the average of log w. It is lower than log p(x) by KL(q‖posterior). For two latents of twice the
#   width, this is 2 (3/2 − log 2) = 1.61 nats, for any x.
# * **The K-sample bound** L_K is the average of log (w_1 + … + w_K)/K. L_1 is the ELBO. L_K rises with K, and its limit
#   is log p(x). So every guide that covers the posterior gives the right answer for a large K; a better guide needs
#   fewer draws.
#
# To estimate L_K, we need many sets of K draws. Their spread gives the Monte Carlo error. Only with this error can we
# say whether an estimate agrees with the exact value.

# %%
mean_map = np.linalg.solve(
    best["weight"].T @ best["weight"] + np.exp(2 * best["log_scale"]) * np.eye(2), best["weight"].T
)
width = np.sqrt(np.diag(exact.exact_posterior(best, x)[1]))
wide = best | {
    "guide.weight": mean_map.astype("float32"),
    "guide.bias": (-mean_map @ best["loc"]).astype("float32"),
    "guide.log_scale": np.log(2 * width).astype("float32"),
}
linear = PPCA(event_shape=(13,), latent=2, posterior="linear")

ks = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
draws = 1024 if SMALL else 8192
log_w_wide = ppdgm.log_weights(linear, wide, x, k=draws).astype(float)
bounds, errors = [], []
for k in ks:
    each = logsumexp(log_w_wide.reshape(draws // k, k, len(x)), axis=1) - np.log(k)  # [sets, wines]
    bounds.append(each.mean())
    errors.append(np.sqrt((each.var(0, ddof=1) / len(each)).sum()) / len(x))
bounds, errors = np.array(bounds), np.array(errors)

gap = 2 * (1.5 - np.log(2))
print("\n   K      L_K   ± Monte Carlo   below log p(x)")
for k, bound, error in zip(ks, bounds, errors, strict=True):
    print(f"{k:4d}  {bound:8.4f}   {error:.4f}        {log_p.mean() - bound:8.4f}")
off = (log_p.mean() - bounds[0] - gap) / errors[0]
print(f"L_1 should lie 2 (3/2 − log 2) = {gap:.4f} below log p(x): it is {off:+.1f} Monte Carlo errors off.")

# %% [markdown]
# In practice one asks for one large K:

# %%
wide_fit = ppdgm.Fit(program=linear, params=wide)
estimate = wide_fit.log_likelihood(x, k=1000 if SMALL else 5000)
print(f"\nlog-likelihood  {estimate}")
print(f"The exact value is {(log_p.mean() - estimate.mean) / estimate.monte_carlo_error:+.1f} Monte Carlo errors away.")
print(f"(± {estimate.standard_error:.2f} is the other error: how the mean would change with other wines.)")

# %% [markdown]
# ## Training: does SVI end at the maximum?
#
# From a random start, SVI raises the ELBO over model and guide together. Here a linear guide *can* be exact (choose W
# with orthogonal columns, and the posterior's covariance is diagonal), so the best ELBO is the largest log-likelihood
# that there is. We know that number, so we can watch how far below it training is.

# %%
steps = 800 if SMALL else 6000
fit = ppdgm.fit(
    linear,
    x,
    engine=SVI(k=4),
    steps=steps,
    batch_size=89,  # two minibatches an epoch
    learning_rate=Cosine(peak=0.02, steps=steps),
    seed=0,
    progress=False,
)
reached = fit.program.exact_log_likelihood(fit.params, x).mean()
bound = fit.elbo(x, k=200 if SMALL else 2000)
print(f"\nmaximum likelihood, by the formula      {log_p.mean():.4f} nats per wine")
print(f"log p(x) at the parameters SVI found    {reached:.4f}")
print(f"their ELBO                              {bound.mean:.4f} ± {bound.monte_carlo_error:.4f} (Monte Carlo)")
print(f"SVI ends {log_p.mean() - bound.mean:.4f} nats below the best possible value.")

# %% [markdown]
# ## The three claims in one figure

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 5.2))
figure.suptitle("Probabilistic PCA: every bound against the exact value", fontsize=13)
blue, orange, grey = "#3465a4", "#d9730d", "0.35"

off = (log_w_wide - log_p).ravel()
left.hist(off, bins=50, range=(-8, 2), color=orange, alpha=0.85, density=True, label="guide twice too wide")
left.axvline(0.0, color=blue, lw=2.5, label="exact guide: every draw")
left.axvline(-gap, color=grey, lw=1.2, ls="--", label="mean for the wide guide: −KL")
left.set(
    title="Weights of single draws",
    xlabel="log w − log p(x)   [nats]",
    ylabel="density   [1/nats]",
    xlim=(-8, 2),
    ylim=(0, 0.43),
)
left.legend(loc="upper left", fontsize=9, frameon=False)

inset = middle.inset_axes((0.47, 0.21, 0.5, 0.4))
for axes in (middle, inset):
    axes.axhline(log_p.mean(), color=blue, lw=2.5, label="exact log p(x)")
    bars = axes.errorbar(ks, bounds, yerr=2 * errors, fmt="o-", ms=4, lw=1, capsize=3, color=orange)
    axes.set_xscale("log", base=2)
bars.set_label("$L_K$ ± 2 Monte Carlo errors")
middle.axhline(log_p.mean() - gap, color=grey, lw=1.2, ls="--", label="exact ELBO: log p(x) − KL")
middle.set_xticks(ks[::2], [str(k) for k in ks[::2]])
middle.set(title="The K-sample bound", xlabel="K, draws per datum", ylabel="mean over data   [nats per row]")
middle.set_ylim(log_p.mean() - 1.25 * gap, log_p.mean() + 0.45 * gap)
inset.set(xlim=(28, 600), ylim=(log_p.mean() - 0.026, log_p.mean() + 0.008), xticks=[32, 128, 512])
inset.set_xticklabels(["32", "128", "512"], fontsize=8)
inset.tick_params(axis="y", labelsize=8)
inset.set_title("the same, enlarged", fontsize=8)
handles, labels = middle.get_legend_handles_labels()
middle.legend([*handles, bars], [*labels, bars.get_label()], loc="upper left", fontsize=9, frameon=False)

below = (log_p.mean() - fit.history["elbo"]).reshape(-1, 2).mean(1)  # an epoch is all wines once
edges = np.unique(np.geomspace(1, len(below), 24).astype(int))
windows = [below[a:b] for a, b in pairwise(edges)]
at = 2 * np.sqrt(edges[:-1] * edges[1:])
spread = [w.std(ddof=1) / np.sqrt(len(w)) if len(w) > 1 else 0.0 for w in windows]
right.axhline(0.0, color=blue, lw=2.5, label="maximum likelihood, by the formula")
right.errorbar(
    at, [w.mean() for w in windows], yerr=2 * np.array(spread), fmt="o-", ms=4, lw=1, capsize=3, color=orange
)
right.set_xscale("log")
right.set_yscale("symlog", linthresh=0.01)
right.set_ylim(-0.01, 100)
right.set(title="SVI from a random start", xlabel="training step", ylabel="maximum − ELBO   [nats per row]")
right.legend(loc="upper right", fontsize=9, frameon=False)

caption = (
    "Left: with a guide that is too wide, a weight is wrong by several nats, and too low on average. "
    "With the exact guide, every weight is right.\n"
    "Middle: an average of K weights inside the logarithm rises from the ELBO at K = 1 to log p(x). "
    "Orange must stay below blue, and reach it within its error bars.\n"
    "Right: means over whole epochs, ± 2 errors; the axis is linear below 0.01. Training must reach the blue line, and "
    "must not cross it by more than its error."
)
figure.text(0.5, 0.015, caption, ha="center", va="bottom", fontsize=9, color=grey, linespacing=1.5)
figure.tight_layout(rect=(0, 0.14, 1, 1))
figure.savefig(OUT / "exact_ppca.png", dpi=150)
print(f"\nWritten: {OUT / 'exact_ppca.png'}")
