# %% [markdown]
# # Did it work?
#
# The ELBO rose, and then it stopped. Is the model good? One number can't say. `fit.diagnose` answers one by one, in
# words:
#
# | question | method |
# |---|---|
# | how good is log p(x), and how certain is it? | L_k over k; annealed importance sampling |
# | is the guide right? | Pareto k̂ of each row; calibration on simulated data; gaps |
# | are the latents used? | KL of each dimension, active units, ELBO surgery |
# | does the model draw such data? | prior and posterior predictive checks |
#
# We diagnose three VAEs of handwritten digits: a healthy one, and two with problems that we made.
# `diagnosis_by_formula.py` tests the method where all answers are known.

# %%
import os
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ppdgm
from ppdgm.inference import IWAE, SVI, Cosine, Linear, Stage
from ppdgm.models import MLP, VAE

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Three VAEs
#
# * **healthy**: trained with a KL warm-up, so that all latents are used; then with IWAE and DReG.
# * **collapsed**: trained with β = 8. The decoder learns not to use z.
# * **narrow**: the healthy model, but with a guide that is too narrow: we add a number to the encoder's last layer.
#
# With `diagnose_epochs=2`, training computes KL, active units and information every second epoch.

# %%
data = ppdgm.load_data("digits")  # 8×8 images, 0 or 1
net, latent = MLP(hidden=(32,) if SMALL else (200, 200)), 8
program = VAE(event_shape=data.event_shape, latent=latent, encoder=net, decoder=net)
warm, rest = (14, 14) if SMALL else (700, 700)  # steps
options = {"steps": warm + rest, "batch_size": 100, "seed": 0, "weight_average": 0.99, "progress": False}
options |= {"diagnose_epochs": 1 if SMALL else 2, "learning_rate": Cosine(peak=3e-3, steps=warm + rest)}
warmup = Stage(engine=SVI(beta=Linear(steps=warm // 2)), steps=warm)
tight = IWAE() if SMALL else IWAE(k=5, estimator="dreg")
healthy = ppdgm.fit(program, data, engine=[warmup, tight], **options)
collapsed = ppdgm.fit(program, data, engine=SVI(beta=8.0), **options)
collapsed = replace(collapsed, runtime=healthy.runtime)

last = f"encoder.layers.{len(net.hidden)}.bias"  # first of means, then of what softplus makes standard deviations
bias = healthy.params[last].copy()
bias[latent:] -= 1.0
narrow = ppdgm.Fit(program, {**healthy.params, last: bias}, runtime=healthy.runtime)
for name, fit in (("healthy", healthy), ("collapsed", collapsed)):
    kl, active, information = (fit.history[key][-1] for key in ("live_kl_z", "live_active_z", "live_information"))
    print(f"{name:10s} KL {kl:.2f} nats, {active:.0f} active units, information {information:.2f} nats")

# %% [markdown]
# ## The verdict in words
#
# `parts` selects parts of the diagnosis; the default is all parts. For predictive checks, a statistic is a function of
# a data set: `edges` is the share of pixels that differ from the one below.

# %%
edges = lambda images: np.abs(np.diff(images, axis=1)).mean()
depth = {"statistics": {"black pixels": np.mean, "edges": edges}, "replicated": 300, "temperatures": 150}
if SMALL:
    depth |= {"k": 50, "simulated": 60, "replicated": 10, "few": 4, "refit_steps": 10, "chains": 2, "temperatures": 5}
test = data.test[:60] if SMALL else data.test
guide = ("likelihood", "calibration", "gaps")
found = {
    "healthy": healthy.diagnose(test, **depth),
    "collapsed": collapsed.diagnose(test, parts=(*guide, "latents", "surgery", "predictive", "annealing"), **depth),
    "narrow": narrow.diagnose(test, parts=guide, **depth),
}
for name, diagnosis in found.items():
    print(f"\n=== {name} ===\n{diagnosis}")

# %% [markdown]
# A ✗ is a serious problem, a ! is something to improve. The guide of the collapsed model is right: if x has no
# information about z, the posterior is the prior, which is easy to learn. So tight bounds, calibrated ranks and small
# k̂ do not show a good model; and a good model, such as the narrow one, can have a bad guide.
#
# ## How good is log p(x), and how certain is it?
#
# L_k, the bound of k draws, rises to log p(x). If it is flat well before the last k, it has reached log p(x). Healthy
# and narrow are the same model: compare what is missing with the reported error.

# %%
print("\nnats    k" + "".join(f"{name:>12}" for name in found))
curves = {name: diagnosis.curve for name, diagnosis in found.items()}
for j, k in enumerate(curves["healthy"].k):
    print(f"{k:9d}" + "".join(f"{curve.mean[j]:12.2f}" for curve in curves.values()))
print("± draws  " + "".join(f"{curve.monte_carlo_error[-1]:12.3f}" for curve in curves.values()))

# %% [markdown]
# An error that is estimated from draws does not include what all draws miss. Pareto k̂ shows it image by image.
#

# ## Is the guide right?
#
# Calibration tests the guide on simulated data, where z is known. The gap is split in approximation and amortisation.

# %%
for name, diagnosis in found.items():
    print(f"\n{name}: {diagnosis.weights}\n{diagnosis.calibration['z']}\n{diagnosis.coverage['z']}\n{diagnosis.gaps}")

# %% [markdown]
# ## Are the latents used? Does the model draw such data?
#
# ELBO surgery splits the KL in the information about which image it is, I(n; z), at most log N, and KL(q(z) ‖ p(z)),
# which a better prior would remove. For posterior predictive checks, encode the images, draw z, and draw images again.

# %%
for name in ("healthy", "collapsed"):
    (site,), checks = found[name].use.sites, found[name].checks
    print(f"\n{name}: KL {np.sort(site.kl)[::-1].round(2)} nats", found[name].surgery, *checks, sep="\n")

# %% [markdown]
# The number of black pixels is right for both models, but `edges` distinguishes them. `found.report` writes everything
# to one HTML file. Here is a small figure of our own.

# %%
found["healthy"].report(OUT / "did_it_work.html")
figure, (bound, use, cover) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
colors = {"healthy": "#3465a4", "collapsed": "#d9730d", "narrow": "#4e9a06"}
for name, curve in curves.items():
    bound.semilogx(curve.k, curve.mean, "o-", ms=4, color=colors[name], label=name)
    c = found[name].coverage["z"]
    cover.errorbar(c.levels, c.overall, yerr=2 * c.overall_errors, fmt="o-", ms=4, color=colors[name])
bound.set(title="Bounds of k draws, up to log p(x)", xlabel="k, draws per image", ylabel="L_k   [nats per image]")
cover.set(title="Intervals, simulated data", xlabel="nominal share", ylabel="share with the true z")
for shift, name in ((-0.2, "healthy"), (0.2, "collapsed")):
    use.bar(np.arange(latent) + shift, np.sort(found[name].use.sites[0].kl)[::-1], 0.4, color=colors[name])
use.set(title="KL of each dimension", xlabel="dimension of z, sorted", ylabel="KL(q ‖ prior)   [nats]")
bound.legend(fontsize=9, frameon=False)
figure.savefig(OUT / "did_it_work.png", dpi=110)
print(f"\nWritten: {OUT / 'did_it_work.png'}, {OUT / 'did_it_work.html'}")

# %% [markdown]
# ## Exercises
#
# 1. Make a guide that is too wide: `bias[latent:] += 1.0`. Which parts notice? *Answer: coverage and the gap do; k̂
#    stays small, because wide guides have bounded weights.*
# 2. Why is the collapsed model's k̂ small? *Answer: its posterior is the prior, and the guide has learned it.*
