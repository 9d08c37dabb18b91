# %% [markdown]
# # Tighter bounds, and what they cost the encoder
#
# The ELBO is one lower bound on log p(x). With K draws from the guide and their weights w = p(x, z)/q(z|x), there are
# tighter bounds: the *Rényi* bounds 1/(1 − α) log 1/K Σ w^(1−α). With α = 0 this is the importance-weighted bound
# (IWAE), and with α = 1 the ELBO. A tighter bound is better to report. Whether it is better for *training* depends on
# its gradients. We look at both in probabilistic PCA, where log p(x) is known; then we train a VAE.

# %%
import os
from itertools import pairwise
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy.special import logsumexp
from sklearn.datasets import load_wine

import ppdgm
from ppdgm.inference import IWAE, SVI, Renyi, ReweightedWakeSleep, Stage
from ppdgm.inference.engines.bounds import renyi
from ppdgm.models import MLP, PPCA, VAE

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

x = load_wine().data
x = ((x - x.mean(0)) / x.std(0)).astype("float32")  # 178 wines, 13 columns
program = PPCA(event_shape=(13,), latent=2, posterior="linear")
best = program.maximum_likelihood(x)
posterior_mean, covariance = program.exact_posterior(best, x)  # the covariance is diagonal
variance, slope = np.diag(covariance), np.linalg.lstsq(x - best["loc"], posterior_mean, rcond=None)[0].T
guide = {  # 0.3 beside the posterior's mean, and 1.5 times as wide
    "guide.weight": slope,
    "guide.bias": 0.3 - slope @ best["loc"],
    "guide.log_scale": np.log(1.5 * np.sqrt(variance)),
}
params = {name: np.asarray(value, "float32") for name, value in (best | guide).items()}
log_p = program.exact_log_likelihood(params, x).mean()

# %% [markdown]
# ## Bounds against K and α
#
# For K → ∞ the Rényi bound is log p(x) − D_α(q ‖ posterior). Rényi's divergence D_α has a formula for normal
# distributions, so we know the limits, too. For α < 0 the limits are *upper* bounds; with few draws, the estimate can
# be on either side.


# %%
def limit(alpha):
    ratio = 1.5**2  # of variances
    mixed = alpha + (1 - alpha) * ratio
    volume = ratio - 1 if alpha == 1 else np.log(mixed) / (1 - alpha)
    return log_p - 0.5 * (alpha * 0.3**2 / variance / mixed + volume - np.log(ratio)).sum()


ks, draws = 2 ** np.arange(0, 10), 1024 if SMALL else 4096
alphas = np.array([-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0])
log_w, bound = ppdgm.log_weights(program, params, x, k=draws).astype(float), {}
for alpha in alphas:
    for k in ks:
        each = renyi(log_w.reshape(draws // k, k, len(x)).swapaxes(0, 1), alpha, logsumexp)  # [sets, wines]
        bound[alpha, k] = each.mean(), np.sqrt((each.var(0, ddof=1) / len(each)).sum()) / len(x)
print(f"log p(x) = {log_p:.3f} nats per wine. Below it:")
print("     K  " + "".join(f"   α = {alpha:5.2f}" for alpha in alphas) + "     largest Monte Carlo error")
for k in ks[::3]:
    row = "".join(f"{log_p - bound[alpha, k][0]:12.4f}" for alpha in alphas)
    print(f"{k:6d}  {row}     {max(bound[alpha, k][1] for alpha in alphas):.4f}")
print("     ∞  " + "".join(f"{log_p - limit(alpha):12.4f}" for alpha in alphas) + "     exact")

for alpha in alphas:
    assert abs(bound[alpha, 1][0] - bound[1.0, 1][0]) < 1e-9, "one draw: the ELBO, whatever α"
    if alpha < 1:  # sets within sets of the same draws: Jensen's inequality holds for them as they are
        assert all(bound[alpha, b][0] > bound[alpha, a][0] for a, b in pairwise(ks)), "more draws, a larger bound"
for k in ks[1:]:
    assert all(bound[b, k][0] < bound[a, k][0] for a, b in pairwise(alphas)), "the smaller α, the larger the bound"
assert abs(bound[1.0, 1][0] - limit(1.0)) < 5 * bound[1.0, 1][1], "the ELBO is what its formula says"

# %% [markdown]
# ## Gradients: a tighter bound gives the encoder less signal
#
# The quality of an estimated gradient is its *signal-to-noise ratio*: the length of its mean divided by its standard
# deviation. With a larger K, the bound depends less on the guide: the signal for the encoder falls as 1/K, but the
# noise only as 1/√K (Rainforth et al. 2018). Two estimators avoid the noisiest term, ∇ log q(z|x):
#
# * **DReG** rewrites this term: it has the same mean, and noise that falls faster (Tucker et al. 2019).
# * **STL** leaves this term out. For the ELBO the mean of the term is zero; for K > 1 it is not (Roeder et al. 2017).
#
# To see gradients, we give `fit` an optimiser that takes no step and records the gradients. Engines in a list are
# trained one after another; here all of them start at the same parameters.


# %%
def gradients(engines, steps, data):
    """For each engine, its gradients in each step, {name: [steps, ...]}, and its mean objective."""
    seen, found = [], {}

    def update(gradient, state, _):
        jax.debug.callback(seen.append, gradient, ordered=True)
        return jax.tree.map(lambda g: 0.0 * g, gradient), state

    stages = [Stage(engine=engine, steps=steps) for engine in engines.values()]
    optimiser = optax.GradientTransformation(lambda _: (), update)
    options = {"batch_size": len(data), "optimiser": optimiser, "params": params, "progress": False}
    fit = ppdgm.fit(program, data, engine=stages, steps=steps * len(stages), **options)
    jax.effects_barrier()
    for i, key in enumerate(engines):
        here = slice(i * steps, (i + 1) * steps)  # what is made small is −objective
        found[key] = {n: -np.stack([g[n] for g in seen[here]]) for n in params}, fit.history["objective"][here].mean()
    return found


def signal_to_noise(found, label):
    """‖mean‖ / √(total variance), minus the value that pure noise would give."""
    flat = np.concatenate([found[name].reshape(len(found[name]), -1) for name in PARTS[label]], axis=1).astype(float)
    noise = flat.var(0, ddof=1).sum()
    return np.sqrt(np.maximum((flat.mean(0) ** 2).sum() - noise / len(flat), 0.0) / noise)


PARTS = {"encoder": list(guide), "decoder": list(best)}
estimators, (most, m) = ("reparam", "dreg", "stl"), (8, 4) if SMALL else (64, 8)
sizes, steps, some = ((most,), 10, x[:8]) if SMALL else ((1, 4, 16, most), 600, x[:64])
scan = {(k, e): IWAE(k=k, estimator=e) for k in sizes for e in estimators}
settings = {
    f"ELBO: IWAE(k=1, groups={most})": IWAE(k=1, groups=most),
    f"MIWAE: IWAE(k={most // m}, groups={m})": IWAE(k=most // m, groups=m),
    f"CIWAE: IWAE(k={most}, elbo_share=0.5)": IWAE(k=most, elbo_share=0.5),
    f"PIWAE: IWAE(k={most}, guide_groups={m})": IWAE(k=most, guide_groups=m),
}
found = gradients(scan | settings | {"wake": ReweightedWakeSleep(k=most)}, steps, some)
snr = {(key, label): signal_to_noise(g, label) for key, (g, _) in found.items() for label in PARTS}
print(f"\nSignal-to-noise ratios of {steps} gradients, each of {len(some)} wines")
print("   K   encoder: reparameterised    DReG     STL    decoder: all three")
for k in sizes:
    encoder, decoder = ([snr[(k, e), label] for e in estimators] for label in PARTS)
    print(f"{k:4d} {encoder[0]:27.2f} {encoder[1]:7.2f} {encoder[2]:7.2f} {np.mean(decoder):20.2f}")

keys = (most, "stl"), (most, "dreg"), "wake"
stl, dreg, wake = (np.concatenate([found[key][0][n].mean(0).ravel() for n in guide]) for key in keys)
times, length = np.linalg.norm(stl) / np.linalg.norm(dreg), np.linalg.norm(stl) / np.linalg.norm(wake)
cosine = stl @ wake / np.linalg.norm(stl) / np.linalg.norm(wake)
print(f"With K = {most} the mean of STL is {times:.1f} times as long as the bound's own gradient. It is the guide's of")
print(f"reweighted wake-sleep: {length:.3f} times as long as that one, and of cosine {cosine:.6f} to it.")

# %% [markdown]
# The decoder's signal-to-noise ratio rises as √K: for the model, a tighter bound is better. The encoder's ratio falls
# as 1/√K with reparameterised gradients. With DReG it falls a little at first, and then rises as √K. STL has even more
# signal, but the signal of *another objective*: for many particles it is the guide's gradient in reweighted wake-sleep,
# which raises E[log q(z|x)] under the posterior and does not vanish with K. This objective is reasonable, but it is not
# the bound.
#
# ## A compromise: M bounds of K draws each
#
# Rainforth et al. (2018) combine the two: M groups of K draws (MIWAE), a mixture with the ELBO (CIWAE), or a tight
# bound for the decoder and groups for the encoder (PIWAE). All are settings of `IWAE`; here they have the same number
# of draws:

# %%
exact = program.exact_log_likelihood(params, some).mean()
print(f"\nlog p(x) of these wines              {exact:.3f} nats")
print(f"{most} draws per wine                     bound      signal-to-noise: encoder    decoder")
for name, key in {f"IWAE: IWAE(k={most})": (most, "reparam"), **{name: name for name in settings}}.items():
    print(f"{name:34s} {found[key][1]:8.3f} nats {snr[key, 'encoder']:21.2f} {snr[key, 'decoder']:10.2f}")

# %% [markdown]
# ## A VAE on digits
#
# All engines have ten particles and the same number of steps, and all are evaluated on the same test images.
# Differences from SVI are computed image by image, so their error is much smaller than the error of each mean.

# %%
data, net = ppdgm.load_data("digits"), MLP(hidden=(100,))
vae = VAE(event_shape=data.event_shape, latent=8, encoder=net, decoder=net)
engines = {"SVI": SVI(k=10), "IWAE": IWAE(k=10)}
if not SMALL:
    engines |= {"IWAE, DReG": IWAE(k=10, estimator="dreg"), "IWAE, STL": IWAE(k=10, estimator="stl")}
    engines |= {"Rényi, α = ½": Renyi(k=10, alpha=0.5)}
test, k, epochs, judged = (data.test[:50], 10, 1, {}) if SMALL else (data.test, 500, 100, {})
print("\nTest images, in nats    ELBO   log p(x)   log p(x) − SVI's   log p(x) − ELBO: what the encoder loses")
for name, engine in engines.items():
    fit = ppdgm.fit(vae, data.train, engine=engine, epochs=epochs, learning_rate=2e-3, progress=False)
    elbo, judged[name] = fit.elbo(test, k=k // 5).mean, fit.log_likelihood(test, k=k)
    better, mean = judged[name].values - judged["SVI"].values, judged[name].mean
    error = better.std(ddof=1) / np.sqrt(len(better))
    print(f"{name:18s} {elbo:9.2f} {mean:10.2f} {better.mean():10.2f} ± {error:.2f} {mean - elbo:17.2f}")

# %% [markdown]
# A tighter training bound gives a better model, but a worse ELBO, because the encoder gets worse: most with plain IWAE,
# less with DReG, least with STL. (With three seeds, the order of IWAE, DReG and STL in log p(x) changed; they were
# always better than SVI, by 0.2 to 0.4 nats, and Rényi was always between.)
#
# * To report log p(x), use `fit.log_likelihood`, the IWAE bound with a large K, for any training objective.
# * For a better decoder, use `IWAE(k=…, estimator="dreg")` with a large K.
# * If you need z itself, use SVI, PIWAE or DReG, and check log p(x) − ELBO.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.6))
blue, orange, green, grey = "#3465a4", "#d9730d", "#4e9a06", "0.35"
for alpha, color in ((0.0, blue), (0.5, green), (1.0, orange)):
    means, errors = np.array([bound[alpha, k] for k in ks]).T
    left.errorbar(ks, means, yerr=2 * errors, fmt="o-", ms=3, lw=1, color=color, label=f"α = {alpha:g}")
    left.axhline(limit(alpha), color=color, lw=1, ls="--")
left.set_xscale("log")
left.set_xticks(ks[::2], [str(k) for k in ks[::2]])
left.minorticks_off()
left.set(title="Rényi bounds against K (dashed: limits)", xlabel="K, draws per wine", ylabel="bound   [nats per wine]")
fine = np.linspace(-1, 1, 41)
middle.axhline(log_p, color=grey, lw=1, label="log p(x)")
middle.plot(fine, [limit(a) for a in fine], color="k", lw=1.5, ls="--", label="K → ∞, by the formula")
for k, color in ((1, orange), (8, green), (64, blue)):
    middle.plot(alphas, [bound[a, k][0] for a in alphas], "o-", ms=3, lw=1, color=color, label=f"K = {k}")
middle.set(title="Rényi bounds against α", xlabel="α", ylabel="bound   [nats per wine]")
for e, color, name in zip(estimators, (orange, blue, green), ("reparameterised", "DReG", "STL"), strict=True):
    right.loglog(sizes, [snr[(k, e), "encoder"] for k in sizes], "o-", ms=4, color=color, label=f"encoder, {name}")
right.loglog(sizes, [snr[(k, "dreg"), "decoder"] for k in sizes], "s--", ms=4, color=grey, label="decoder")
for power, start in ((0.5, 9.0), (-0.5, 1.5)):
    ends = start * np.array([1.0, sizes[-1]]) ** power
    right.loglog([1, sizes[-1]], ends, color="0.7", lw=0.8, ls=":", label="slopes ½ and −½" if power > 0 else None)
right.set_xticks(sizes, [str(k) for k in sizes])
right.minorticks_off()
right.set_ylim(top=400)
right.set(title="Signal-to-noise ratio of gradients", xlabel="K, draws per wine", ylabel="‖mean‖ / standard deviation")
for axes in (left, middle, right):
    axes.legend(fontsize=8.5, frameon=False)
figure.tight_layout()
figure.savefig(OUT / "tighter_bounds.png", dpi=150)
print(f"\nWritten: {OUT / 'tighter_bounds.png'}")
