# %% [markdown]
# # Latents that all data share, in ArviZ
#
# A regression has coefficients, not codes: its latents belong to all rows at once, as in most programs that are written
# for PyMC or Stan. `fit.to_arviz(data)` gives them to ArviZ without an axis of rows, and the usual plots work.
# This tutorial makes the tables that PyMC's and Stan's users know, a forest, a pair plot and a posterior predictive
# check, and compares them with the exact posterior, for which there is a formula here.

# %%
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ppdgm
from ppdgm import Program
from ppdgm.inference import SVI, Cosine
from ppdgm.program import constant, zeros

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # 0.23 tells of 1.0 when it is imported
    import arviz

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
FIRST = arviz.__version__.startswith("0.")  # the first generation
OUT = Path("runs")
OUT.mkdir(parents=True, exist_ok=True)
NAMES = ["intercept", "age", "dose"]
NOISE = 0.5

# %% [markdown]
# ## The program
#
# y ~ N(w·x, 0.5²) with w ~ N(0, I). `w` is sampled outside the plate, so all rows share it. The guide has independent
# coefficients: a mean field. Age and dose are correlated in these data, and in the posterior so are their coefficients.


# %%
class Regression(Program):
    event_shape: tuple[int, ...] = (3,)

    def build(self, c):
        c.param("loc", (3,), zeros, label="guide")
        c.param("log_scale", (3,), constant(-3.0), label="guide")

    def model(self, P, x, y):
        w = P.sample("w", P.dist.Normal(P.full((3,), 0.0), P.full((3,), 1.0)).to_event(1))
        with P.plate("data", x):
            mean = P.xp.sum(w * x, axis=-1)[..., None]
            P.sample("y", P.dist.Normal(mean, P.full((1,), NOISE)).to_event(1), obs=y)

    def guide(self, P, x, y):
        P.sample("w", P.dist.Normal(P.param("loc"), P.xp.exp(P.param("log_scale"))).to_event(1))


rng = np.random.default_rng(0)
age = rng.normal(size=60)
x = np.stack([np.ones(60), age, 0.8 * age + 0.6 * rng.normal(size=60)], axis=1)
y = x @ [0.5, 1.0, -0.7] + NOISE * rng.normal(size=60)
rows = {"x": x.astype("float32"), "y": y[:, None].astype("float32")}
steps = 300 if SMALL else 3000
rate = Cosine(peak=0.03, steps=steps)
fit = ppdgm.fit(
    Regression(), rows, engine=SVI(k=16), steps=steps, batch_size=60, learning_rate=rate, progress=False, out=None
)

# %% [markdown]
# ## Draws, with names
#
# `how="importance"` resamples draws of the guide by the weight of the whole data set, log p(X, w) − log q(w). They have
# the posterior's correlations, which the guide has not. `coords` gives names to the coefficients.

# %%
draws = 500 if SMALL else 4000
options = {"draws": draws, "coords": {"w_dim": NAMES}}
guide = fit.to_arviz(rows, **options)
found = fit.to_arviz(rows, how="importance", k=10 * draws, **options)
for group in ("posterior", "posterior_predictive", "log_likelihood", "observed_data", "constant_data"):
    print(f"{group:21s}", {n: dict(v.sizes) for n, v in found[group].data_vars.items()})
print("no prior:", found.posterior.attrs["left_out_prior"])

covariance = np.linalg.inv(np.eye(3) + x.T @ x / NOISE**2)
mean, sd = covariance @ x.T @ y / NOISE**2, np.sqrt(np.diag(covariance))

# %% [markdown]
# ## The tables of PyMC and of Stan
#
# `kind="stats"` is PyMC's table without its diagnostics of chains: the draws are independent, so there is no R̂ to look
# at (`ppdgm.diagnostics.withheld("r_hat")`). Stan's table has quantiles.

# %%
w = found.posterior["w"].values[0]  # [draws, 3]
print("\nas PyMC has it\n", arviz.summary(found, var_names=["w"], kind="stats"), sep="")
print("\nas Stan has it")
print(f"{'':12s} {'mean':>8s} {'sd':>8s} {'2.5%':>8s} {'50%':>8s} {'97.5%':>8s}    exact mean and sd")
for i, name in enumerate(NAMES):
    low, middle, high = np.quantile(w[:, i], [0.025, 0.5, 0.975])
    print(
        f"w[{name}]".ljust(13) + f"{w[:, i].mean():8.3f} {w[:, i].std():8.3f} {low:8.3f} {middle:8.3f} {high:8.3f}",
        end="",
    )
    print(f"    {mean[i]:8.3f} {sd[i]:8.3f}")
    assert abs(w[:, i].mean() - mean[i]) < 0.25 * sd[i]  # few draws of the guide have most of the weight
right = covariance[1, 2] / sd[1] / sd[2]
print(f"\ncorrelation of age and dose: {np.corrcoef(w[:, 1], w[:, 2])[0, 1]:.2f}, exact {right:.2f};", end=" ")
print(f"the guide's {np.corrcoef(guide.posterior['w'].values[0, :, 1:].T)[0, 1]:.2f}")
evidence = fit.log_evidence(rows, k=10 * draws)
print(evidence)

# %% [markdown]
# ## Forest, pairs, posterior predictive


# %%
def with_arviz(file, plot, **options):
    """Write one of ArviZ's plots as a PNG, with both generations."""
    name = plot if FIRST else {"plot_ppc": "plot_ppc_dist"}.get(plot, plot)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0.23 uses what newer matplotlib will drop
        drawn = getattr(arviz, name)(found, **options)
        if FIRST:
            np.ravel(drawn)[0].figure.savefig(OUT / file, dpi=110, bbox_inches="tight")
        else:
            drawn.savefig(OUT / file)
    plt.close("all")


with_arviz("shared_forest.png", "plot_forest", var_names=["w"])
with_arviz("shared_pairs.png", "plot_pair", var_names=["w"])
with_arviz("shared_predictive.png", "plot_ppc", var_names=["y"])
print(f"\nWritten: {', '.join(str(OUT / f'shared_{n}.png') for n in ('forest', 'pairs', 'predictive'))}")

# %% [markdown]
# ## Exercises
#
# 1. Why does the table have no R̂? *Answer: draws of the guide, resampled by their weights, are independent; R̂ compares
#    Markov chains.*
# 2. Which plot shows that two coefficients share one effect? *Answer: the pair plot: their draws lie along a line that
#    falls. The forest plot shows each alone, and both look uncertain.*
