# %% [markdown]
# # Posteriors in ArviZ
#
# ArviZ is the usual toolbox for draws from a posterior: summaries, plots, comparisons, files. `fit.to_arviz(data)`
# gives it everything that is known of a trained program: `InferenceData` for ArviZ 0.23, `xarray.DataTree` for 1.x.
# This tutorial works with both.
#
# But draws of a guide are not a Markov chain, and a guide is not the posterior. So there are three kinds of draws:
# draws of the guide, the same draws resampled by their importance weights, and chains of the backend's own NUTS. We
# compare all three with the exact posterior of probabilistic PCA.

# %%
import os
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from sklearn.datasets import load_iris

import ppdgm
from ppdgm import Fit, Program
from ppdgm.diagnostics import effective_sample_size, pareto_k, withheld
from ppdgm.errors import PpdgmError
from ppdgm.inference import SVI, Cosine
from ppdgm.models import PPCA
from ppdgm.program import constant, zeros

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
# The data are 150 iris flowers with four measurements; there are two latents. The likelihood of PPCA does not change
# when z is rotated; we rotate it so that z1 and z2 are correlated in the posterior. The guide has independent z1 and
# z2. The best such guide has the right mean. The variance of each z is its variance *given the other z*, so the guide
# is too narrow.

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
print(
    f"The exact posterior: standard deviation {sd:.3f}, correlation {correlation:.2f}; the guide: {scale[0]:.3f}, none"
)

# %% [markdown]
# ## What goes to ArviZ
#
# `coords` gives names to flowers and measurements, for xarray and for all functions of ArviZ.

# %%
coords = {"datum": names, "z_dim": ["z1", "z2"], "x_dim": iris.feature_names}
draws = 200 if SMALL else 1000
found = fit.to_arviz(x, draws=draws, predictive=50, prior=2000, coords=coords)
print(f"\nArviZ {arviz.__version__}: {type(found).__name__}, with groups")
for group in found.groups() if FIRST else found.children:
    print(f"  {group:21s}", {name: dict(v.sizes) for name, v in found[group].data_vars.items()})
print(
    "who made it:", {key: found.posterior.attrs[key] for key in ("creation_library", "inference_library", "sampling")}
)

chosen = ["setosa 0", "versicolor 50", "virginica 100"]
print("\n", arviz.summary(found, var_names=["z"], coords={"datum": chosen}, kind="stats"), sep="")
weights = found.sample_stats["log_weight"].values[0]  # log p(x, z) − log q(z|x), [draws, flowers]: from there, anything
k_hat, effective = pareto_k(weights), effective_sample_size(weights)
print(
    f"\nPareto k̂ of the guide: median {np.median(k_hat):.2f}; {np.median(effective):.0f} of {draws} draws are effective"
)

# %% [markdown]
# A k̂ below 0.7 means: the guide is not right, but it is close enough for its weights to correct it.
#
# ## Three kinds of draws
#
# * `how="guide"`: draws of the guide. They cost nothing, and are as wrong as the guide is.
# * `how="importance"`: some of k draws, chosen by their weights. They are draws of q_IW, which converges to the
#   posterior for large k, if k̂ allows it. They cost very little.
# * `how="mcmc"`: chains of NUTS for each row, which start at draws of the guide. They need seconds for each row: use
#   them for a few important rows, and to check the others.

# %%
chains, length, warmup = (2, 100, 50) if SMALL else (4, 1000, 300)
few, settings = 1 if SMALL else 2, {"chains": chains, "draws": length, "warmup": warmup}
kinds = {
    "guide": (x, {"draws": draws}),
    "importance": (x, {"draws": draws, "k": 1000 if SMALL else 20_000}),
    "mcmc": (x[:few], settings),
}
drawn, seconds = {}, {}
print("\n              flowers   seconds    error of means    standard deviation    correlation")
for how, (some, options) in kinds.items():
    labels = {**coords, "datum": names[: len(some)]}
    started = time.perf_counter()
    there = fit.to_arviz(some, how=how, coords=labels, predictive=0, prior=0, **options)
    seconds[how] = time.perf_counter() - started
    z = drawn[how] = there.posterior["z"].values.reshape(-1, len(some), 2)  # all draws of all chains
    off = np.abs(z.mean(0) - mean[: len(some)]).mean()
    inside = z - z.mean(0)
    width = np.sqrt((inside**2).mean((0, 1)))
    tilt = (inside[..., 0] * inside[..., 1]).mean() / width.prod()
    print(f"{how:12s} {len(some):8d} {seconds[how]:9.1f} {off:17.3f} {width.mean():21.3f} {tilt:14.2f}")
print(f"{'exact':12s} {len(x):8d} {'':9s} {0.0:17.3f} {sd:21.3f} {correlation:14.2f}")

# %% [markdown]
# ## Convergence is a question for chains only
#
# R̂ compares chains with different starts. Draws of a guide are independent by construction: they are one chain, and
# there is no convergence. R̂ would be 1 even for a very bad guide, and the effective sample size would be the number of
# draws. So these numbers are not reported for guides; `withheld` explains why, and what to use instead.

# %%
print(f"\nr_hat: {withheld('r_hat')}\n")
z = drawn["mcmc"].reshape(chains, length, few, 2)
r_hat = np.array([[float(arviz.rhat(z[:, :, n, d])) for d in range(2)] for n in range(few)])
ess = np.array([[float(arviz.ess(z[:, :, n, d])) for d in range(2)] for n in range(few)])
for n in range(few):
    print(f"NUTS, {names[n]}: R̂ {r_hat[n].round(3)}, effective sample size {ess[n].round()} of {chains * length}")
fooled = float(arviz.rhat(drawn["guide"][: draws // 4 * 4, 0, 0].reshape(4, -1)))
print(f"The wrong guide's draws, cut into four chains: R̂ = {fooled:.3f}. R̂ does not see the error.")

# %% [markdown]
# ## ArviZ's own plots
#
# Some plots have the same name in both versions, others do not. ArviZ 0.23 returns matplotlib axes; 1.x returns a
# collection of plots that can save itself.


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

# %% [markdown]
# ## Leave-one-out, for latents that all data share
#
# How well can we predict a flower from all the others? Leave-one-out reweights draws of the posterior by 1/p(x_n|z), as
# if row n were not in the data. With a latent for each row this makes no sense: without the row, nothing is known about
# its latent. So it is refused:

# %%
try:
    fit.loo(x)
except PpdgmError as error:
    print(f"\n{error}")

# %% [markdown]
# With a latent that *all* data share, it works. Here is a line through petals: their width t, given their length x, is
# N(w0 + w1 x, 0.25²), and w ~ N(0, I). `fit.loo` takes draws of the guide, weights them to the posterior without one
# row, and smooths the weights; k̂ shows for which flowers this fails. There are formulas for all of this here.

# %%
NOISE = 0.25


class Line(Program):
    event_shape: tuple[int, ...] = (1,)

    def build(self, c):
        c.param("loc", (2,), zeros, label="guide")
        c.param("log_scale", (2,), constant(-3.0), label="guide")

    def model(self, P, x, t):
        w = P.sample("w", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
        with P.plate("data", x):
            P.sample("t", P.dist.Normal(w[..., :1] + w[..., 1:] * x, P.full((1,), NOISE)).to_event(1), obs=t)

    def guide(self, P, x, t):
        P.sample("w", P.dist.Normal(P.param("loc"), P.xp.exp(P.param("log_scale"))).to_event(1))


flowers, steps = {"x": x[:, 2:3], "t": x[:, 3:]}, 300 if SMALL else 2000
options = {"batch_size": len(x), "learning_rate": Cosine(peak=0.02, steps=steps), "progress": False}
line = ppdgm.fit(Line(), flowers, engine=SVI(k=16), steps=steps, **options)
left_out = line.loo(flowers, draws=1000 if SMALL else 4000)
print(f"\nby draws of the guide: {left_out}")

design, t = np.hstack([np.ones_like(flowers["x"]), flowers["x"]]).astype(float), x[:, 3].astype(float)


def posterior_of(rows):
    """Mean and covariance of w, given some flowers."""
    covariance = np.linalg.inv(np.eye(2) + design[rows].T @ design[rows] / NOISE**2)
    return covariance @ design[rows].T @ t[rows] / NOISE**2, covariance


def log_density(n, rows):
    """log p(t_n | these flowers)."""
    centre, covariance = posterior_of(rows)
    return norm.logpdf(t[n], design[n] @ centre, np.sqrt(NOISE**2 + design[n] @ covariance @ design[n]))


everyone = np.arange(len(t))
exact = np.array([log_density(n, everyone != n) for n in everyone])
within = np.array([log_density(n, everyone) for n in everyone])
print(f"by the formula: elpd {exact.sum():.3f} nats. With the flower among the data: {within.sum():.3f}, too good.")
off = (left_out.elpd.value - exact.sum()) / left_out.elpd.error
furthest = np.abs(left_out.values - exact).max()
print(f"The estimate is {off:+.1f} Monte Carlo errors away from it; each flower's, {furthest:.3f} nats at most.")
worst = int(np.argmin(exact))
print(f"Worst predicted: {names[worst]}, log p(t | the others) = {exact[worst]:.2f} nats")
assert abs(off) < 4

# %% [markdown]
# ## All of it in one figure

# %%
figure, panels = plt.subplots(2, 4, figsize=(18.5, 9.6))
blue, orange, green, grey = "#3465a4", "#d9730d", "#4e9a06", "0.35"
angle = np.linspace(0, 2 * np.pi, 200)
circle = np.linalg.cholesky(covariance) @ np.stack([np.cos(angle), np.sin(angle)])
titles = {"guide": "The guide's draws", "importance": "Resampled by their weights", "mcmc": f"NUTS, {chains} chains"}
for axes, (how, title), color in zip(panels[0], titles.items(), (orange, blue, green), strict=False):
    axes.plot(*drawn[how][:: len(drawn[how]) // draws, 0].T, ".", ms=3, alpha=0.5, color=color)
    for level in (1.0, 2.0):
        edge = mean[0][:, None] + level * circle
        axes.plot(*edge, color="k", lw=1.2, label="exact: 1 and 2 standard deviations" if level == 1 else None)
    axes.set(title=f"{title}: {names[0]}", xlabel="z1", ylabel="z2")
    axes.set(xlim=mean[0, 0] + np.array([-1, 1.1]), ylim=mean[0, 1] + np.array([-1, 1.1]))

for c in range(chains):
    panels[0, 3].plot(z[c, :200, 0, 0], lw=0.7, label=f"chain {c}")
panels[0, 3].set(title=f"Chains: R̂ = {r_hat[0, 0]:.3f}", xlabel="draw", ylabel=f"z1 of {names[0]}")

for axes, column in ((panels[1, 0], "petal length (cm)"), (panels[1, 1], "sepal width (cm)")):
    again = found.posterior_predictive["x"].sel(x_dim=column).values[0]
    before = found.prior_predictive["x"].sel(x_dim=column).values.ravel()
    seen = found.observed_data["x"].sel(x_dim=column).values
    bins = np.linspace(-3, 3, 25)
    density = np.array([np.histogram(one, bins, density=True)[0] for one in again])
    middle = (bins[1:] + bins[:-1]) / 2
    low, high = np.quantile(density, [0.05, 0.95], axis=0)
    axes.fill_between(middle, low, high, color=blue, alpha=0.35, label="posterior predictive, 90 %")
    axes.hist(before, bins, density=True, histtype="step", color=orange, lw=1.5, label="prior predictive")
    axes.plot(middle, np.histogram(seen, bins, density=True)[0], "k.-", lw=1, label="the flowers")
    name = column.removesuffix(" (cm)")
    axes.set(title=f"Predictive: {name}", xlabel=f"{name}, standardised", ylabel="density")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])

grid = np.linspace(flowers["x"].min(), flowers["x"].max(), 2)
centre, _ = posterior_of(everyone)
dots = panels[1, 2].scatter(flowers["x"][:, 0], t, c=exact, s=22, cmap="viridis")
panels[1, 2].plot(grid, centre[0] + centre[1] * grid, color="k", lw=1, label="posterior mean of the line")
panels[1, 2].set(title="Each flower, predicted by the others", xlabel="petal length, standardised")
panels[1, 2].set_ylabel("petal width, standardised")
figure.colorbar(dots, ax=panels[1, 2], label="exact log p(t | others)   [nats]")

panels[1, 3].axhline(0.0, color="k", lw=1)
panels[1, 3].plot(exact, left_out.values - exact, ".", color=blue, label="fit.loo")
panels[1, 3].plot(exact, within - exact, ".", color=orange, label="nothing left out")
panels[1, 3].set(title="Leave-one-out against the formula", xlabel="exact log p(t | others)   [nats]")
panels[1, 3].set_ylabel("estimate − exact   [nats]")
panels[0, 3].set_ylim(top=mean[0, 0] + 1.2)
for axes in panels.ravel():
    place = "lower right" if axes is panels[1, 2] else "upper right"
    axes.legend(fontsize=9, frameon=False, loc=place, ncols=2 if axes is panels[0, 3] else 1)
caption = (
    "Top: the guide has the right position, but the wrong width and no correlation. Weights correct both, and so does "
    "NUTS. Chains that mix look alike.\n"
    "Bottom: data drawn from these flowers' latents have two peaks, but less sharp; the prior has one. "
    "Leave-one-out by weights agrees with the formula; if nothing is left out, unusual flowers are predicted too well."
)
figure.text(0.5, 0.012, caption, ha="center", va="bottom", fontsize=11, color=grey, linespacing=1.5)
figure.tight_layout(rect=(0, 0.08, 1, 1), h_pad=2)
figure.savefig(OUT / "posteriors_in_arviz.png", dpi=110)
print(f"\nWritten: {OUT / 'posteriors_in_arviz.png'}, {OUT / 'arviz_forest.png'}, {OUT / 'arviz_predictive.png'}")
