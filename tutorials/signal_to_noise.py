# %% [markdown]
# # What a tighter bound costs the encoder
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
#
# We look at probabilistic PCA with a guide that is wrong on purpose.

# %%
import os
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_wine

import ppdgm
from ppdgm.inference import IWAE, ReweightedWakeSleep, Stage
from ppdgm.models import PPCA

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

# %%
figure, axes = plt.subplots(figsize=(7, 4.6))
blue, orange, green, grey = "#3465a4", "#d9730d", "#4e9a06", "0.35"
for e, color, name in zip(estimators, (orange, blue, green), ("reparameterised", "DReG", "STL"), strict=True):
    axes.loglog(sizes, [snr[(k, e), "encoder"] for k in sizes], "o-", ms=4, color=color, label=f"encoder, {name}")
axes.loglog(sizes, [snr[(k, "dreg"), "decoder"] for k in sizes], "s--", ms=4, color=grey, label="decoder")
for power, start in ((0.5, 9.0), (-0.5, 1.5)):
    ends = start * np.array([1.0, sizes[-1]]) ** power
    axes.loglog([1, sizes[-1]], ends, color="0.7", lw=0.8, ls=":", label="slopes ½ and −½" if power > 0 else None)
axes.set_xticks(sizes, [str(k) for k in sizes])
axes.minorticks_off()
axes.set_ylim(top=400)
axes.set(title="Signal-to-noise ratio of gradients", xlabel="K, draws per wine", ylabel="‖mean‖ / standard deviation")
axes.legend(fontsize=8.5, frameon=False)
figure.tight_layout()
figure.savefig(OUT / "signal_to_noise.png", dpi=150)
print(f"\nWritten: {OUT / 'signal_to_noise.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Why does the decoder's ratio not depend on the estimator? *Answer: estimators differ only in ∇ log q(z|x), and the
#    decoder is not in it.*
# 2. Would 16 times as many particles halve the encoder's ratio? *Answer: with reparameterised gradients it falls as
#    1/√K, to a quarter.*
