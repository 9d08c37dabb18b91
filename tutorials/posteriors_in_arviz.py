# %% [markdown]
# # Posteriors in ArviZ
#
# ArviZ is the usual toolbox for draws from a posterior. `fit.to_arviz(data)` gives it everything that is known of a
# trained program: `InferenceData` for ArviZ 0.23, `xarray.DataTree` for 1.x. This tutorial works with both.
#
# But a guide is not the posterior. So there are three kinds of draws: of the guide, the same resampled by their
# weights, and chains of the backend's own NUTS. We compare them with the exact posterior of probabilistic PCA.

# %%
import os
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

from ppdgm import Fit
from ppdgm.diagnostics import effective_sample_size, pareto_k, withheld
from ppdgm.models import PPCA

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # 0.23 tells of 1.0 when it is imported
    import arviz

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
FIRST = arviz.__version__.startswith("0.")  # the first generation
OUT = Path("runs")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A posterior that the guide can't match
#
# The data are 150 iris flowers with four measurements; there are two latents, which we rotate so that z1 and z2 are
# correlated in the posterior. The guide has independent z1 and z2, so the best one is too narrow.

# %%
iris = load_iris()
x = ((iris.data - iris.data.mean(0)) / iris.data.std(0)).astype("float32")
names = [f"{iris.target_names[kind]} {i}" for i, kind in enumerate(iris.target)]
program = PPCA(event_shape=(4,), latent=2, posterior="linear")
best = program.maximum_likelihood(x)
best["weight"] = best["weight"] @ np.array([[1, -1], [1, 1]]) / np.sqrt(2)
mean, covariance = program.exact_posterior(best, x)  # [150, 2], [2, 2]
slope = np.linalg.lstsq(x - best["loc"], mean, rcond=None)[0].T
scale = 1 / np.sqrt(np.diag(np.linalg.inv(covariance)))
guide = {"guide.weight": slope, "guide.bias": -slope @ best["loc"], "guide.log_scale": np.log(scale)}
fit = Fit(program, {name: np.asarray(value, "float32") for name, value in {**best, **guide}.items()})

sd, correlation = np.sqrt(covariance[0, 0]), covariance[0, 1] / covariance[0, 0]
print(f"exact posterior: standard deviation {sd:.3f}, correlation {correlation:.2f}; the guide: {scale[0]:.3f}, none")

# %% [markdown]
# ## What goes to ArviZ
#
# `coords` gives names to flowers and measurements. Pareto k̂ below 0.7 means that weights can correct the guide.

# %%
coords = {"datum": names, "z_dim": ["z1", "z2"], "x_dim": iris.feature_names}
draws = 200 if SMALL else 1000
found = fit.to_arviz(x, draws=draws, predictive=50, prior=2000, coords=coords)
print(f"\nArviZ {arviz.__version__}: {type(found).__name__}, with groups")
for group in found.groups() if FIRST else found.children:
    print(f"  {group:21s}", {name: dict(v.sizes) for name, v in found[group].data_vars.items()})
print(arviz.summary(found, var_names=["z"], coords={"datum": ["setosa 0", "virginica 100"]}, kind="stats"))
weights = found.sample_stats["log_weight"].values[0]  # log p(x, z) − log q(z|x), [draws, flowers]: from there, anything
k_hat, effective = pareto_k(weights), effective_sample_size(weights)
print(f"Pareto k̂: median {np.median(k_hat):.2f}; {np.median(effective):.0f} of {draws} draws are effective")

# %% [markdown]
# ## Three kinds of draws
#
# * `how="guide"`: draws of the guide. They cost nothing, and are as wrong as the guide is.
# * `how="importance"`: some of k draws, chosen by their weights. They cost little, and are right for a large k.
# * `how="mcmc"`: chains of NUTS for each row, for a few important rows, and to check the others.

# %%
chains, length, warmup = (2, 100, 50) if SMALL else (4, 1000, 300)
few, settings = 1 if SMALL else 2, {"chains": chains, "draws": length, "warmup": warmup}
many = {"draws": draws, "k": 1000 if SMALL else 20_000}
kinds = {"guide": (x, {"draws": draws}), "importance": (x, many), "mcmc": (x[:few], settings)}
drawn = {}
print("\n(nats)        flowers   seconds    error of means    standard deviation    correlation")
for how, (some, options) in kinds.items():
    labels = {**coords, "datum": names[: len(some)]}
    started = time.perf_counter()
    there = fit.to_arviz(some, how=how, coords=labels, predictive=0, prior=0, **options)
    seconds = time.perf_counter() - started
    z = drawn[how] = there.posterior["z"].values.reshape(-1, len(some), 2)  # all draws of all chains
    off = np.abs(z.mean(0) - mean[: len(some)]).mean()
    width = np.sqrt(z.var(0).mean(0))
    tilt = ((z - z.mean(0)).prod(-1)).mean() / width.prod()
    print(f"{how:12s} {len(some):8d} {seconds:9.1f} {off:17.3f} {width.mean():21.3f} {tilt:14.2f}")
print(f"{'exact':12s} {len(x):8d} {'':9s} {0.0:17.3f} {sd:21.3f} {correlation:14.2f}")

# %% [markdown]
# ## Convergence is a question for chains only
#
# Draws of a guide are independent by construction: R̂ would be 1 even for a very bad guide. So it is not reported.

# %%
print(f"\nr_hat: {withheld('r_hat')}\n")
z = drawn["mcmc"].reshape(chains, length, few, 2)
r_hat = np.array([[float(arviz.rhat(z[:, :, n, d])) for d in range(2)] for n in range(few)])
print(f"NUTS: R̂ {r_hat.round(3).tolist()} of {few} flowers, {chains * length} draws each")
fooled = float(arviz.rhat(drawn["guide"][: draws // 4 * 4, 0, 0].reshape(4, -1)))
print(f"The wrong guide's draws, cut into four chains: R̂ = {fooled:.3f}. R̂ does not see the error.")

# %% [markdown]
# ## ArviZ's own plots: 0.23 returns matplotlib axes, 1.x a collection that can save itself


# %%
def with_arviz(file, plot, **options):
    """Write one of ArviZ's plots as a PNG, with both versions."""
    name = plot if FIRST else {"plot_ppc": "plot_ppc_dist"}.get(plot, plot)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0.23 uses what newer matplotlib will drop
        drawn = getattr(arviz, name)(found, **options)
        if FIRST:
            np.ravel(drawn)[0].figure.savefig(OUT / file, dpi=110, bbox_inches="tight")
        else:
            drawn.savefig(OUT / file)
    plt.close("all")


with_arviz("arviz_forest.png", "plot_forest", var_names=["z"], coords={"datum": names[::15]}, combined=True)
with_arviz("arviz_predictive.png", "plot_ppc", var_names=["x"], coords={"x_dim": ["petal length (cm)"]})

# %%
figure, panels = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
angle = np.linspace(0, 2 * np.pi, 200)
circle = np.linalg.cholesky(covariance) @ np.stack([np.cos(angle), np.sin(angle)])
titles = {"guide": "The guide's draws", "importance": "Resampled by their weights", "mcmc": f"NUTS, {chains} chains"}
for axes, (how, title) in zip(panels, titles.items(), strict=True):
    axes.plot(*drawn[how][:: len(drawn[how]) // draws, 0].T, ".", ms=3, alpha=0.5, color="#3465a4")
    axes.plot(*(mean[0][:, None] + 2 * circle), color="k", lw=1.2)  # exact: 2 standard deviations
    axes.set(title=f"{title}: {names[0]}", xlabel="z1", ylabel="z2")
figure.savefig(OUT / "posteriors_in_arviz.png", dpi=110)
print(f"\nWritten: {OUT / 'posteriors_in_arviz.png'}, {OUT / 'arviz_forest.png'}, {OUT / 'arviz_predictive.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Give the guide three times its width. Is k̂ better or worse? *Answer: better. Draws then cover the posterior, and
#    the weights are bounded; fewer draws are effective.*
# 2. Why has R̂ of the guide's draws no meaning? *Answer: it tests whether chains agree, and not whether they are
#    right.*
