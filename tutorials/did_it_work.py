# %% [markdown]
# # Did it work?
#
# The ELBO rose, and then it stopped. Is the model good? Is the guide close to the posterior? Are the latents used? One
# number can't answer these questions. `fit.diagnose` answers them one by one, with a summary in
# words:
#
# | question | method |
# |---|---|
# | how good is log p(x), and how certain is it? | L_k over k; annealed importance sampling, from both sides |
# | is the guide right? | Pareto k̂ of each row; calibration on simulated data; gaps |
# | are the latents used? | KL of each dimension, active units, ELBO surgery |
# | does the model draw such data? | prior and posterior predictive checks |
#
# We first test the method where we know the answers: in probabilistic PCA, every answer has a formula. Then we diagnose
# three VAEs of handwritten digits: a healthy one, and two with problems that we made.

# %%
import os
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from sklearn.datasets import load_wine

import ppdgm
from ppdgm import Fit
from ppdgm.inference import IWAE, SVI, Cosine, Linear, Stage
from ppdgm.models import MLP, PPCA, VAE
from ppdgm.plots import grid
from ppdgm.registry import backend

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A model where every answer is known
#
# The data are 178 wines with 13 columns. We use PPCA with two latents, at its maximum-likelihood parameters. Its
# posterior is normal with a diagonal covariance. So a linear guide q(z|x) = N(Ax + b, diag s²) can be exact. We can
# also make it wrong, with s equal to f times the right value. We can compute what a diagnosis should find:
#
# * **weights** p(x, z)/q(z|x) have a tail of shape 1 − f², for f < 1. Pareto k̂ estimates this number. Above 0.7,
#   averages over draws of the guide are not reliable. For f = 1 all weights are equal.
# * **intervals**: a 90 % interval of the guide contains the true z for a share 2 Φ(1.645 f) − 1 of the data.
# * the **gap** log p(x) − ELBO is KL(q ‖ posterior) = f² − 1 − 2 log f, for two latents.
#
# Calibration needs the true z, so it uses data that the model draws: z from the prior, and x given z. If q is the
# posterior, then the rank of the true z among draws of q is uniform.

# %%
x = load_wine().data
x = ((x - x.mean(0)) / x.std(0)).astype("float32")
ppca = PPCA(event_shape=(13,), latent=2, posterior="linear")
best = ppca.maximum_likelihood(x)
mean, covariance = ppca.exact_posterior(best, x)
slope = np.linalg.lstsq(x - best["loc"], mean, rcond=None)[0].T
log_p = ppca.exact_log_likelihood(best, x)
runtime = backend("numpyro").Runtime(ppca, "auto")  # one for all guides, so that nothing is compiled twice


def with_scale(f):
    """The posterior's mean, and f times its standard deviations."""
    scale = np.log(f * np.sqrt(np.diag(covariance)))
    guide = {"guide.weight": slope, "guide.bias": -slope @ best["loc"], "guide.log_scale": scale}
    params = {name: np.asarray(value, "float32") for name, value in {**best, **guide}.items()}
    return Fit(ppca, params, runtime=runtime)


depth = {"k": 100, "simulated": 200} if SMALL else {"k": 2000, "simulated": 1000}
parts = ("likelihood", "calibration") if SMALL else ("likelihood", "calibration", "gaps")
print("PPCA. The columns with two numbers show the diagnosis, then the formula.")
print("   f     Pareto k̂ (median)    in 90 % intervals      log p(x) − ELBO, nats    ranks uniform")
known, formula = {}, {}
for f in (1.0, 0.3) if SMALL else (1.0, 0.9, 0.7, 0.3):
    found = known[f] = with_scale(f).diagnose(x, parts=parts, **depth)
    formula[f] = 1 - f**2, 2 * norm.cdf(f * norm.ppf(0.95)) - 1, f**2 - 1 - 2 * np.log(f)
    shape, share, kl = np.median(found.weights.pareto_k), found.coverage["z"].overall[2], formula[f][2]
    gap = log_p.mean() - found.elbo.mean if SMALL else found.gaps.inference.value
    told = f"{share:11.1%} {formula[f][1]:7.1%} {gap:16.3f} {kl:7.3f} {found.calibration['z'].calibrated!s:>16}"
    print(f"  {f:.1f} {shape:13.2f} {formula[f][0]:7.2f} {told}")
    assert abs(share - formula[f][1]) < 4 * found.coverage["z"].overall_errors[2] + 0.01, "99 draws are no quantile"
assert known[1.0].weights.exact.all() and np.abs(known[1.0].log_likelihood.values - log_p).max() < 1e-3
for f in (1.0, 0.3):
    print(f"\nIn words, for f = {f}:\n{known[f]}")

# %% [markdown]
# Gaps can be wrong by a hundredth of a nat, because the ELBO is an average over draws. For f = 1 all log-weights are
# equal to log p(x), and the gap is 0. Now look at f = 0.7. Pareto k̂ is well below its threshold, and the gap is only a
# fifth of a nat, but a 90 % interval contains the true z in only 75 % of the data. So log p(x) is right, but the
# posterior is too narrow. Whether a guide is good enough depends on its use.
#
# ## Three VAEs
#
# * **healthy**: trained with a KL warm-up, so that all latents are used; then with the importance-weighted bound of
#   five draws, with a gradient (DReG) that also trains the encoder well.
# * **collapsed**: trained with β = 8, so that one nat of information costs eight nats. The decoder learns not to use z.
# * **narrow**: the healthy model, but with a guide that is too narrow: we add a number to the encoder's last layer.
#
# With `diagnose_epochs=2`, training computes KL, active units and information every second epoch, on validation images.
# It also warns that the KL of the collapsed model stays near 0.

# %%
data = ppdgm.load_data("digits")  # 8×8 images, 0 or 1
labels = ppdgm.load_data("digits", fields=["x", "label"]).test["label"]  # to colour the report's pictures
net, latent = MLP(hidden=(32,) if SMALL else (200, 200)), 8
program = VAE(event_shape=data.event_shape, latent=latent, encoder=net, decoder=net)
warm, rest = (14, 14) if SMALL else (700, 700)  # steps
options = {"validation": data.validation, "steps": warm + rest, "batch_size": 100, "keep_best": True, "seed": 0}
options |= {"weight_average": 0.99, "diagnose_epochs": 1 if SMALL else 2, "progress": False}
options |= {"learning_rate": Cosine(peak=3e-3, steps=warm + rest)}  # to 0, so that training ends where it has converged
warmup = Stage(engine=SVI(beta=Linear(steps=warm // 2)), steps=warm)
tight = IWAE() if SMALL else IWAE(k=5, estimator="dreg")
healthy = ppdgm.fit(program, data.train, engine=[warmup, tight], **options)
collapsed = ppdgm.fit(program, data.train, engine=SVI(beta=8.0), **options)
collapsed = replace(collapsed, runtime=healthy.runtime)

last = f"encoder.layers.{len(net.hidden)}.bias"  # first of means, then of what softplus makes standard deviations
bias = healthy.params[last].copy()
bias[latent:] -= 1.0
narrow = Fit(program, {**healthy.params, last: bias}, runtime=healthy.runtime)
width = [fit.encode(data.test, k=200).std(0).mean() for fit in (narrow, healthy)]

print("\nDuring training             healthy                         collapsed")
print("epoch           KL, active, information (nats)     KL, active, information (nats)")
looks = [fit.history for fit in (healthy, collapsed)]
steps_per_epoch = looks[0]["validation_step"][0]
epoch = looks[0]["live_step"] / steps_per_epoch
for i in range(0, len(epoch), 1 if SMALL else 7):
    row = [f"{h['live_kl_z'][i]:14.2f} {h['live_active_z'][i]:7.0f} {h['live_information'][i]:12.2f}" for h in looks]
    print(f"{epoch[i]:5.0f}" + "".join(row))
print(f"These diagnoses took {healthy.info['diagnose_share']:.1%} of the time.")
print(f"The narrow guide's standard deviations are {width[0] / width[1]:.2f} times the healthy one's, on average.")

# %% [markdown]
# ## The verdict in words
#
# `parts` selects parts of the diagnosis; the default is all parts. For predictive checks, a statistic is a function of
# a data set. The default statistics are about single pixels; `edges` is how often neighbouring pixels differ. (With S
# drawn data sets, the p-value is at least 2/(S + 1), so draw enough of them.)


# %%
def edges(images):
    """The share of pixels that differ from the one below."""
    return np.abs(np.diff(images, axis=1)).mean()


depth = {"statistics": {"black pixels": np.mean, "edges": edges}, "replicated": 300, "temperatures": 150}
if SMALL:
    depth |= {"k": 50, "simulated": 60, "replicated": 10, "few": 4, "refit_steps": 10, "chains": 2, "temperatures": 5}
test = data.test[:60] if SMALL else data.test
guide = ("likelihood", "calibration", "gaps")
found = {
    "healthy": healthy.diagnose(test, labels=labels[: len(test)], **depth),
    "collapsed": collapsed.diagnose(test, parts=(*guide, "latents", "surgery", "predictive", "annealing"), **depth),
    "narrow": narrow.diagnose(test, parts=guide, **depth),
}
for name, diagnosis in found.items():
    print(f"\n=== {name} ===\n{diagnosis}")

# %% [markdown]
# A ✗ is a serious problem, a ! is something to improve. The healthy model has no ✗, but it is not perfect: its ! marks
# show that the encoder loses almost a nat, and that its images have too many edges. The two others have a ✗ each, in
# different places. The guide of the collapsed model is right: if x has no information about z, the posterior is the
# prior, which is easy to learn. So tight bounds, calibrated ranks and small k̂ do not show a good model; and a good
# model, such as the narrow one, can have a bad guide. Now we look at the numbers behind these words.
#
# ## How good is log p(x), and how certain is it?
#
# L_k, the bound of k draws, rises to log p(x). If it is flat well before the last k, it has reached log p(x).

# %%
print("\nL_k, nats per image")
print("        k" + "".join(f"{name:>12}" for name in found))
curves = {name: diagnosis.curve for name, diagnosis in found.items()}
for j, k in enumerate(curves["healthy"].k):
    print(f"{k:9d}" + "".join(f"{curve.mean[j]:12.2f}" for curve in curves.values()))
print("± draws  " + "".join(f"{curve.monte_carlo_error[-1]:12.3f}" for curve in curves.values()))
print("± images " + "".join(f"{curve.standard_error[-1]:12.2f}" for curve in curves.values()))
missing = found["healthy"].log_likelihood.mean - found["narrow"].log_likelihood.mean
times = missing / curves["narrow"].monte_carlo_error[-1]
print("Healthy and narrow are the same model with two guides.")
print(f"With the narrow guide, log p(x) is {missing:.2f} nats too low: {times:.0f} times its reported error.")

# %% [markdown]
# An error that is estimated from draws does not include what all draws miss. Pareto k̂ shows this image by image: it is
# large if a few weights are much larger than all others.

# %%
for name, diagnosis in found.items():
    print(f"{name:10s} {diagnosis.weights}")
quality = found["healthy"].weights
print(f"The healthy guide's worst images: {quality.worst(5)}, with k̂ of {quality.pareto_k[quality.worst(5)].round(2)}")

# %% [markdown]
# Another check does not need the guide: *annealed importance sampling* goes from the prior to the posterior in many
# small steps of Hamiltonian Monte Carlo. This gives a lower bound on log p(x). For data that the model has drawn, the
# true z is a draw from the posterior, so we can also go back: this gives an upper bound. If both agree, log p(x) is
# known.

# %%
for name in ("healthy", "collapsed"):
    print(f"{name:10s} {found[name].bracket}")

# %% [markdown]
# ## Is the guide right?
#
# Calibration tests the guide on simulated data, where z is known. Intervals show the size of an error: the healthy
# guide's 90 % intervals contain the true z for 88.9 ± 0.5 % of the data in our run, about one percentage point too few;
# the narrow guide's for 53 %. The gap log p(x) − ELBO has two parts. The approximation gap is the loss with the best
# diagonal normal for each image. The amortisation gap is the additional loss, because one encoder serves all images.

# %%
for name, diagnosis in found.items():
    print(f"\n{name}: {diagnosis.calibration['z']}\n{diagnosis.coverage['z']}\n{diagnosis.gaps}")

# %% [markdown]
# ## Are the latents used?
#
# A dimension with a KL of 0 carries no information. A dimension is *active* if its posterior mean varies over images.
# ELBO surgery splits the KL in two parts: the information about which image it is, I(n; z), and KL(q(z) ‖ p(z)), the
# difference between all codes together, q(z), and the prior. Only the second part is waste, which a better prior would
# remove. With N images the first part is at most log N.

# %%
for name in ("healthy", "collapsed"):
    (site,), surgery = found[name].use.sites, found[name].surgery
    print(f"\n{name}: KL of each dimension {np.sort(site.kl)[::-1].round(2)} nats, {found[name].use}")
    print(surgery)

# %% [markdown]
# ## Does the model draw such data?
#
# For posterior predictive checks, encode the images, draw z, and draw images again. For prior predictive checks, draw z
# from the prior.

# %%
for name in ("healthy", "collapsed"):
    for kind, checks in (("posterior", found[name].checks), ("prior", found[name].prior_checks)):
        for check in checks:
            print(f"{name:10s} {kind:10s} {check}")

# %% [markdown]
# The number of black pixels is right for both models, although the collapsed one does not draw digits: this statistic
# shows little. `edges` distinguishes the models. It also shows a problem of the healthy model: its images have too many
# edges. Given z, each pixel is drawn independently, so uncertain pixels become noise.
#
# ## All of this in one figure, and a report
#
# `found.report` writes pictures, curves, tables and the verdict to one HTML file. Here is our own figure.

# %%
found["healthy"].report(OUT / "did_it_work.html")
figure, panels = plt.subplots(3, 4, figsize=(18.5, 13))
tail, live, bound, khat, worst, use, parts, rank, cover, gap, both, check = panels.ravel()
blue, orange, green, grey = "#3465a4", "#d9730d", "#4e9a06", "0.35"
colors = {"healthy": blue, "collapsed": orange, "narrow": green}

bins = np.linspace(-0.6, 1.6, 45)
for (f, diagnosis), color in zip([*known.items()][1:], (green, orange, blue)[-len(known) + 1 :], strict=True):
    tail.hist(diagnosis.weights.pareto_k, bins, color=color, alpha=0.6, label=f"f = {f}")
    tail.axvline(formula[f][0], color=color, lw=1.5, ls="--")
tail.axvline(0.7, color="k", lw=1, ls=":")
tail.set(title="PPCA: k̂ (dashed: by the formula)", xlabel="Pareto k̂", ylabel="wines")

for (name, color), h in zip(colors.items(), looks, strict=False):
    live.plot(epoch, h["live_kl_z"], color=color, lw=1.5, label=f"{name}: KL")
    live.plot(epoch, h["live_information"], color=color, lw=1.5, ls="--", label=f"{name}: information")
live.set(title="During training", xlabel="epoch", ylabel="validation images   [nats]")

for name, curve in curves.items():
    bound.fill_between(
        curve.k, curve.mean - curve.standard_error, curve.mean + curve.standard_error, color=colors[name], alpha=0.15
    )
    bound.plot(curve.k, curve.mean, "o-", ms=4, color=colors[name], label=name)
bound.set_xscale("log")
bound.set(title="Bounds of k draws, up to log p(x)", xlabel="k, draws per image", ylabel="L_k   [nats per image]")

for name, diagnosis in found.items():
    khat.plot(np.sort(diagnosis.weights.pareto_k)[::-1], color=colors[name], lw=2, label=name)
khat.axhline(0.7, color="k", lw=1, ls=":", label="0.7: not reliable above")
khat.set(title="k̂ of each image", xlabel="image, the worst first", ylabel="Pareto k̂", ylim=(-1.3, None))

order = quality.worst(len(test))
pictures = np.concatenate([test[order[:24]], np.ones((8, 8, 8)) / 4, test[order[-24:]]])
worst.imshow(grid(pictures, 8), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
worst.set_title("Healthy: the 24 worst k̂ above, the best below")
worst.axis("off")

for shift, name in ((-0.2, "healthy"), (0.2, "collapsed")):
    kl = np.sort(found[name].use.sites[0].kl)[::-1]
    use.bar(np.arange(latent) + shift, kl, 0.4, color=colors[name], label=name)
use.set(title="KL of each dimension", xlabel="dimension of z, sorted", ylabel="KL(q ‖ prior)   [nats]")

for i, name in enumerate(("healthy", "collapsed")):
    s = found[name].surgery
    parts.bar(i, s.mutual_information.value, 0.6, color=colors[name])
    parts.bar(i, s.marginal_kl.value, 0.6, bottom=s.mutual_information.value, color=colors[name], alpha=0.4)
    parts.text(i, s.most + 0.15, f"{s.mutual_information.value:.2f} + {s.marginal_kl.value:.2f}", ha="center")
parts.axhline(s.most, color=grey, lw=1, ls="--", label="log N, the maximum")
parts.set_xticks([0, 1], ["healthy", "collapsed"])
parts.set(title="The KL: information (dark) + mismatch (light)", ylabel="nats per image", ylim=(0, 1.3 * s.most))

for name in ("narrow", "healthy"):
    u = found[name].calibration["z"]
    for d in range(latent):
        rank.plot(u.points, u.ecdf[:, d] - u.points, color=colors[name], lw=1, label=None if d else name)
rank.fill_between(u.points, u.lower - u.points, u.upper - u.points, color="0.8", label="99 %, if calibrated")
rank.set(title="Ranks of the true z, simulated data", xlabel="rank / (L + 1)", ylabel="ECDF − uniform")

cover.plot([0.4, 1], [0.4, 1], color=grey, lw=1, ls=":", label="correct intervals")
for name, diagnosis in found.items():
    c = diagnosis.coverage["z"]
    cover.errorbar(c.levels, c.overall, yerr=2 * c.overall_errors, fmt="o-", ms=4, color=colors[name], label=name)
cover.set(title="Intervals of the guide, simulated data", xlabel="nominal share", ylabel="share with the true z")

for i, (name, diagnosis) in enumerate(found.items()):
    first, second = diagnosis.gaps.approximation.value, diagnosis.gaps.amortisation.value
    gap.bar(i, first, 0.6, color=colors[name])
    gap.bar(i, second, 0.6, bottom=first, color=colors[name], alpha=0.4)
    gap.text(i, first + second + 0.05, f"{first:.2f} + {second:.2f}", ha="center")
gap.set_xticks(range(3), list(found))
gap.set(title="Gap: approximation (dark) + amortisation (light)", ylabel="log p(x) − ELBO   [nats per image]")
gap.margins(y=0.12)

for name in ("healthy", "collapsed"):
    b = found[name].bracket
    both.plot(b.lower, b.upper - b.lower, "o", ms=5, color=colors[name], alpha=0.7, label=name)
both.axhline(0.0, color=grey, lw=1, ls=":")
both.set(title="log p(x) from both sides", xlabel="lower bound, simulated images   [nats]")
both.set_ylabel("upper − lower bound   [nats]")

for name in ("healthy", "collapsed"):
    e = found[name].checks[1]
    check.hist(e.replicated, 20, color=colors[name], alpha=0.7, label=f"{name}: drawn again")
check.axvline(e.observed, color="k", lw=2, label="the test images")
check.set(title="Posterior predictive check", xlabel="edges: share of differing neighbours", ylabel="data sets")

for axes in panels.ravel():
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, frameon=False, loc={khat: "lower left", check: "upper center"}.get(axes, "best"))
caption = (
    "Top: for PPCA, k̂ agrees with the formula. The collapsed VAE stops using its latents in the first epochs. "
    "A bound that is flat at its end has reached log p(x). The narrow guide's bound has not, and its k̂ are large.\n"
    "Middle: images with the largest and the smallest k̂ of the healthy guide. All its dimensions carry information, "
    "together at most log N; those of the collapsed model carry none. Ranks should stay within the grey band.\n"
    "Bottom: intervals should be on the dotted line. In a gap, the dark part is due to the guide's family, the light "
    "part to the encoder. Upper minus lower bound: zero on average, if chains have mixed. Drawn images should be close "
    "to the black line."
)
figure.text(0.5, 0.012, caption, ha="center", va="bottom", fontsize=11, color=grey, linespacing=1.5)
figure.tight_layout(rect=(0, 0.1, 1, 1), h_pad=2.5)
figure.savefig(OUT / "did_it_work.png", dpi=110)
print(f"\nWritten: {OUT / 'did_it_work.png'}, {OUT / 'did_it_work.html'}")
