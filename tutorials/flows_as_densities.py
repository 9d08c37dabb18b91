# %% [markdown]
# # Flows as densities of data
#
# A flow draws x = f(u), u ~ N(0, I), with an invertible f. So the density of x is known exactly:
#
# log p(x) = log N(f⁻¹(x)) + log |det ∂f⁻¹/∂x|.
#
# There is no latent to infer and no bound; training maximises log p(x) itself.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import multivariate_normal

import ppdgm
from ppdgm.models import NICE, ActNorm, Chain, FlowModel, Glow, InvertibleLinear, RealNVP, RQSpline

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)


def two_moons(n, seed):
    rng = np.random.default_rng(seed)
    angle, side = rng.random(n) * np.pi, rng.random(n) < 0.5
    x = np.stack([np.cos(angle), np.sin(angle)], 1)
    x = np.where(side[:, None], x, [1.0, 0.4] - x)
    return (x + rng.normal(scale=0.08, size=(n, 2))).astype("float32")


train, test = two_moons(5000, 0), two_moons(2000, 1)
gaussian = multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test)

# %% [markdown]
# A coupling keeps one half of x and moves the other, by a function of the first half. NICE only shifts it, RealNVP
# shifts and scales it, a spline bends it. Between couplings, an invertible matrix mixes the coordinates, and a norm
# starts every layer at mean 0 and standard deviation 1 over the data.

# %%
FLOWS = {"NICE": NICE, "RealNVP": RealNVP, "RQSpline": RQSpline}
steps, net = (60 if SMALL else 2000), {"hidden": (64,), "depth": 2}
fits = {}
print("two moons         test log p(x)   gain over a Gaussian")
print(f"{'Gaussian':12s} {gaussian.mean():13.3f} nats")
for name, coupling in FLOWS.items():
    layers = [
        layer for i in range(1 if SMALL else 4) for layer in (coupling(**net), InvertibleLinear(seed=i), ActNorm())
    ]
    program = FlowModel(event_shape=(2,), flow=Chain(flows=tuple(layers)))
    fits[name] = ppdgm.fit(program, train, steps=steps, batch_size=500, learning_rate=2e-3, seed=0, progress=False)
    values = fits[name].log_likelihood(test).values
    gain = values - gaussian
    print(f"{name:12s} {values.mean():13.3f} nats   {gain.mean():6.3f} ± {gain.std() / len(gain) ** 0.5:.3f}")

# %% [markdown]
# ## Two directions of KL are one
#
# Fitting by likelihood minimises KL(π ‖ p), π the data's distribution. The flow's inverse sends π to a distribution of
# u, and p to N(0, I). An invertible map changes no KL, so
#
# KL(π ‖ p) = KL(f⁻¹ # π ‖ N(0, I)):
#
# the likelihood makes the data's noise normal. We can see it: push the test data through f⁻¹. With a flow that fits,
# the noise has the moments of a normal: 0 and 1, and a fourth moment of 3.

# %%
print("\nnoise f⁻¹(x) of test data    mean      sd     4th moment")
for name, fit in fits.items():
    noise, _ = fit.program.noise(fit.params, test)
    standard = (noise - noise.mean(0)) / noise.std(0)
    print(f"{name:24s} {np.abs(noise.mean(0)).max():8.3f} {noise.std(0).mean():8.3f} {(standard**4).mean():10.2f}")
print("(in units of the noise; log p(x) itself is in nats)")

# %% [markdown]
# ## Images
#
# Glow is a flow of images: it squeezes 2×2 pixels into channels, mixes channels by 1×1 convolutions, and lets half of
# the channels leave after each level. Digits have whole numbers from 0 to 16, and a density of real numbers has no
# upper bound on whole numbers. So we add uniform noise in [0, 1): the density of x + noise is then, on average over the
# noise, a lower bound on the log-probability of the whole numbers (Theis et al. 2016, arXiv:1511.01844).

# %%
digits = ppdgm.load_data("digits", binarise="none", scale="none")
rng = np.random.default_rng(0)
noisy = lambda x: (x + rng.random(x.shape)).astype("float32")
few = slice(0, 300) if SMALL else slice(None)
image_train, image_test = noisy(digits.train[few]), noisy(digits.test[few])
flat = image_train.reshape(len(image_train), -1)
covariance = np.cov(flat.T) + 1e-3 * np.eye(64)
of_gaussian = multivariate_normal(flat.mean(0), covariance).logpdf(image_test.reshape(len(image_test), -1))
glow = FlowModel(
    event_shape=(8, 8), flow=Glow(image=(8, 8), levels=2, depth=1 if SMALL else 4, hidden=8 if SMALL else 32)
)
fit = ppdgm.fit(
    glow, image_train, epochs=1 if SMALL else 60, batch_size=100, learning_rate=2e-3, seed=0, progress=False
)
of_glow = fit.log_likelihood(image_test).values
bits = lambda nats: -nats.mean() / 64 / np.log(2)
gain = of_glow - of_gaussian
print(f"\n8×8 digits, 17 levels   Gaussian {of_gaussian.mean():.2f} nats, {bits(of_gaussian):.3f} bits per pixel")
print(f"                        Glow     {of_glow.mean():.2f} nats, {bits(of_glow):.3f} bits per pixel")
print(f"gain {gain.mean():.2f} ± {gain.std() / len(gain) ** 0.5:.2f} nats per image")

# %%
side = np.linspace(-1.6, 2.6, 40 if SMALL else 160)
grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype("float32")
figure, axes = plt.subplots(1, 1 + len(fits), figsize=(13, 3.6))
axes[0].scatter(*train[:2000].T, s=2, alpha=0.4)
axes[0].set_title("data")
for panel, (name, found) in zip(axes[1:], fits.items(), strict=True):
    density = np.exp(found.elbo(grid, k=2).values).reshape(len(side), -1)
    panel.imshow(density, origin="lower", extent=[side[0], side[-1]] * 2, cmap="Blues", aspect="auto")
    panel.set_title(f"p(x) of {name}")
figure.suptitle("Two moons, and densities of flows")
figure.tight_layout()
figure.savefig(OUT / "flows_as_densities.png", dpi=120)
print(f"\nWritten: {OUT / 'flows_as_densities.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Why does NICE fit worse than RealNVP here? *Answer: it only shifts, so it changes no volumes; the density of its
#    noise has to do that.*
# 2. What does `bits` of whole numbers without noise show? *Answer: nothing. A density has no upper bound there.*
