# %% [markdown]
# # A first VAE: ten lines, and what the numbers mean
#
# A variational autoencoder draws a code z ~ N(0, I). From the code, a network (the *decoder*) computes a probability
# for each pixel, and the image x is drawn pixel by pixel. To train the decoder, we need to know which codes an image
# may come from. The distribution of these codes is p(z|x). There is no formula for p(z|x), so a second network (the
# *encoder*) approximates it by q(z|x). Both networks are trained together.
#
# The data are 1,797 handwritten digits of 8×8 pixels, black or white. Here are the ten lines:

# %%
import os

import ppdgm
from ppdgm.models import MLP, VAE

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
data = ppdgm.load_data("digits")  # data.train, data.validation, data.test
net = MLP(hidden=(200, 200))
program = VAE(event_shape=data.event_shape, latent=16, encoder=net, decoder=net)
epochs = 5 if SMALL else 200
fit = ppdgm.fit(program, data.train, validation=data.validation, epochs=epochs, batch_size=100, seed=0)
elbo = fit.elbo(data.test, k=100)
log_likelihood = fit.log_likelihood(data.test, k=20 if SMALL else 5000)
print(f"test ELBO             {elbo}")
print(f"test log-likelihood   {log_likelihood}")

# %% [markdown]
# ## Nats: how good is that?
#
# log p(x) is the logarithm of the probability of one test image among all 2⁶⁴ possible images. With the natural
# logarithm, its unit is the nat. Larger (closer to 0) is better. One number alone means little, so we compare it with
# two simple models that need no training. The first tosses a fair coin for every pixel. The second has a separate coin
# for each pixel. This coin shows black as often as the pixel is black in the training images.

# %%
import numpy as np

x = data.test.reshape(len(data.test), -1)
black = (data.train.reshape(len(data.train), -1).sum(0) + 1) / (len(data.train) + 2)
coins = (x * np.log(black) + (1 - x) * np.log(1 - black)).sum(1)
print(f"\nfair coins            {-64 * np.log(2):.1f} nats per image")
print(f"a coin per pixel      {coins.mean():.1f}")
print(f"this VAE              {log_likelihood.mean:.1f}")
gain = log_likelihood.mean - coins.mean()
print(f"A test image is e^{gain:.1f} times as probable under the VAE as under the coins, which ignore other pixels.")

# %% [markdown]
# ## The ELBO: what training raises
#
# log p(x) itself is an integral over all codes, which we can't compute. But we can compute a lower bound, the *evidence
# lower bound*:
#
# ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) = log p(x) − KL(q(z|x) ‖ p(z|x)).
#
# On the left, the first term measures how well the codes from q explain the image; the second is the cost of a code,
# its KL from the prior. The right side shows that the ELBO is lower than log p(x), by the error of q.
#
# ## The log-likelihood: the number that we want
#
# Draw K codes from q, and average their weights p(x, z)/q(z|x) *inside* the logarithm. For K → ∞ this is log p(x). So
# the difference between this number and the ELBO shows how good the encoder is: the smaller, the better.

# %%
elbo_now, kl_now = (fit.history[name][-20:].mean() for name in ("elbo", "kl"))  # the last 20 steps
print(f"\nE_q[log p(x|z)], training images     {elbo_now + kl_now:7.2f} nats   how well codes explain images")
print(f"−KL(q(z|x) ‖ p(z)), training images  {-kl_now:7.2f}        the cost of the codes")
print(f"their sum, the training ELBO         {elbo_now:7.2f}")
print(f"validation ELBO, the best            {fit.history['validation_elbo'].max():7.2f}        lower: unseen images")
loss = log_likelihood.mean - elbo.mean
print(f"test log-likelihood − test ELBO      {loss:7.2f}        KL(q(z|x) ‖ p(z|x)), roughly")

# %% [markdown]
# ## Two errors, for two questions
#
# * `standard_error`: how much would the mean change with *other test images*? It is the spread over images, divided by
#   √N. Use it to say how good the model is for digits in general.
# * `monte_carlo_error`: how much would it change with *other draws of z*? It gets smaller with K. If it isn't small
#   compared with the differences that you report, use more draws.
#
# We can check the second error: we repeat an estimate that has few draws, with other seeds, and look at the spread. A
# spread of 20 values has an error of about 16 %, 1/√(2 · 19), so the two should agree up to that.

# %%
few = [fit.log_likelihood(data.test, k=20, seed=seed) for seed in range(4 if SMALL else 20)]
spread = np.std([e.mean for e in few], ddof=1)
error = np.mean([e.monte_carlo_error for e in few])
known = spread / (2 * (len(few) - 1)) ** 0.5
print(f"\nwith 20 draws: spread over {len(few)} seeds {spread:.3f} ± {known:.3f}, reported error {error:.3f} nats")
print(f"Their mean, {np.mean([e.mean for e in few]):.2f}, is lower than with more draws: each is a lower bound.")

# %% [markdown]
# ## Which coordinates of the code are used?
#
# The KL is a sum over the latent's 16 coordinates. A coordinate with a KL of 0 carries no information.

# %%
kl = ppdgm.trace(program, fit.params, data.test, kl=True).kl["z"].mean((0, 1))  # [particles, images, coordinates]
print("\nKL of each coordinate, in nats:", " ".join(f"{v:.1f}" for v in np.sort(kl)[::-1]))
print(f"{(kl > 0.05).sum()} of {len(kl)} coordinates are in use, and carry {kl.sum():.1f} nats together.")

# %% [markdown]
# ## One figure
#
# Left: when the bound on new images stops rising, the model starts to memorise its training images. Middle: z is drawn
# from the prior. Right: what the decoder makes of an image's code, 16 numbers.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

from ppdgm.plots import grid

OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 5.0), width_ratios=(1.25, 1, 1))
steps_per_epoch = fit.history["validation_step"][0]
epoch_elbo = fit.history["elbo"].reshape(-1, steps_per_epoch).mean(1)
at = fit.history["validation_step"]
left.plot(at, epoch_elbo, color="#d9730d", lw=1.5, label="training ELBO, mean of an epoch")
left.plot(at, fit.history["validation_elbo"], color="#3465a4", lw=1.5, label="validation ELBO")
left.axhline(coins.mean(), color="0.5", lw=1, ls="--", label="a coin per pixel")
left.axhline(log_likelihood.mean, color="#4e9a06", lw=1.5, label="test log-likelihood")
left.set(title="Training", xlabel="training step", ylabel="nats per image", ylim=(coins.mean() - 12, None))
left.legend(loc="lower right", fontsize=9, frameon=False)
shown = data.test[:32].reshape(4, 8, 8, 8)
remade = fit.reconstruct(data.test[:32]).reshape(4, 8, 8, 8)
pairs = np.stack([shown, remade], axis=1).reshape(64, 8, 8)
for axes, images, title in (
    (middle, fit.sample(64, seed=1, mean=True), "Drawn by the model"),
    (right, pairs, "Test images, and below each its reconstruction"),
):
    axes.imshow(grid(images, 8), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=11)
    axes.axis("off")

figure.tight_layout()
figure.savefig(OUT / "first_vae.png", dpi=150)
print(f"\nWritten: {OUT / 'first_vae.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Train with `latent=2`. What happens to the KL, and to log p(x)? *Answer: both coordinates are in use, the KL is
#    lower, and log p(x) is lower: two numbers can't say enough about an image.*
# 2. Is `log_likelihood` with k = 1 the ELBO? *Answer: its mean is, up to the noise of the draws: log of one weight.*
# 3. Which error falls if you evaluate with k = 50,000? *Answer: the Monte Carlo error. The standard error comes from
#    the 300 images.*
