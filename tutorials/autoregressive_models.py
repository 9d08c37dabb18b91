# %% [markdown]
# # Autoregressive models: one number after the other
#
# The chain rule writes any density as a product, p(x) = Π_j p(x_j | x_<j). An autoregressive model gives each factor by
# a net that sees the numbers before x_j, and no other. There are no latents, so there is no bound: log p(x) is exact,
# and training maximises it.
#
# * **MADE** is a masked perceptron: one pass gives the parameters of all factors.
# * **GatedPixelCNN** is for images: convolutions that see the rows above a pixel, and what is to its left.
#
# We compare them with models that are not autoregressive, on binary images of 8×8 pixels: independent pixels, and a
# mixture of 20 products of Bernoullis.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ppdgm
from ppdgm.models import MADE, MLP, VAE, Autoregressive, AutoregressiveModel, GatedPixelCNN, OrderAgnosticMADE
from ppdgm.models.likelihoods import Bernoulli

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
data = ppdgm.load_data("digits", fields=["x", "label"])
train, test = data.train["x"], data.test["x"]


def bernoulli_mixture(train, test, components=20, steps=200, starts=5):
    """log p of the test set by the mixture with the best likelihood of the training set: EM from several starts."""
    x, new = train.reshape(len(train), -1), test.reshape(len(test), -1)
    joint = lambda x, p, w: x @ np.log(p).T + (1 - x) @ np.log1p(-p).T + np.log(w)
    best = (-np.inf, None)
    for seed in range(1 if SMALL else starts):
        rng = np.random.default_rng(seed)
        p, w = rng.uniform(0.25, 0.75, (components, x.shape[1])), np.full(components, 1 / components)
        for _ in range(20 if SMALL else steps):
            terms = joint(x, p, w)
            taken = np.exp(terms - np.logaddexp.reduce(terms, axis=1, keepdims=True))
            w = taken.mean(0) + 1e-12
            p = (taken.T @ x + 0.1) / (taken.sum(0)[:, None] + 0.2)
        fitted = np.logaddexp.reduce(joint(x, p, w), axis=1).mean()
        if fitted > best[0]:
            best = (fitted, np.logaddexp.reduce(joint(new, p, w), axis=1))
    return best[1]


# %% [markdown]
# The two autoregressive models. A small set of images is learned by heart after some time: early stopping on a part of
# the training images keeps the parameters that were best on it.

# %%
wide = {"channels": 32, "layers": 3, "first_kernel": 7, "kernel": 5}
PIXELS = GatedPixelCNN(channels=8, layers=2, first_kernel=3) if SMALL else GatedPixelCNN(**wide)
MODELS = {
    "MADE": AutoregressiveModel(event_shape=(8, 8), net=MADE(hidden=(64,) if SMALL else (300,))),
    "GatedPixelCNN": AutoregressiveModel(event_shape=(8, 8), net=PIXELS),
}
few, held = train[:-150], train[-150:]
p = (train.sum(0) + 0.5) / (len(train) + 1)
pixels = (test * np.log(p) + (1 - test) * np.log1p(-p)).sum((1, 2))
found = {"independent pixels": pixels, "20 Bernoulli products": bernoulli_mixture(train, test)}
fits = {}
for name, program in MODELS.items():
    fits[name] = ppdgm.fit(
        program, few, validation=held, epochs=2 if SMALL else 60, batch_size=50, early_stopping=20, seed=0,
        learning_rate=3e-3 if name == "MADE" else 2e-3, weight_average=0.99, progress=False,
    )  # fmt: skip
    found[name] = fits[name].log_likelihood(test).values
print("model                    test log p(x)   gain over the mixture")
for name, values in found.items():
    gain = values - found["20 Bernoulli products"]
    print(f"{name:24s} {values.mean():8.2f} nats   {gain.mean():6.2f} ± {gain.std() / len(gain) ** 0.5:.2f}")

# %% [markdown]
# ## Drawing, and completing
#
# A draw takes one pass of the net for each pixel: x_1, then x_2 given x_1, and so on. For 64 pixels that is nothing;
# for 784 it is what makes autoregressive models slow to sample. A class is a condition that every factor sees:

# %%
conditional = AutoregressiveModel(event_shape=(8, 8), classes=10, net=PIXELS)
options = {"epochs": 2 if SMALL else 40, "batch_size": 50, "learning_rate": 2e-3, "seed": 0, "progress": False}
of_class = ppdgm.fit(conditional, data.train, **options)
digits = of_class.sample(40, given={"label": np.arange(40) % 10})

# %% [markdown]
# An image can be completed only in the order in which it is drawn. `OrderAgnosticMADE` is trained on many orderings, so
# that any pixels can be missing: those that are known come first. Its likelihood is the mean over orderings.

# %%
net = OrderAgnosticMADE(hidden=(64,) if SMALL else (500,), orders=32, averaged=4)
any_order = ppdgm.fit(
    AutoregressiveModel(event_shape=(8, 8), net=net), train, epochs=2 if SMALL else 60, batch_size=50,
    learning_rate=2e-3, weight_average=0.99, seed=0, progress=False,
)  # fmt: skip
missing = np.zeros((8, 8), bool)
missing[:, 4:] = True
completed = any_order.impute(test, missing, seed=1)
print(f"\n32 orderings: {any_order.log_likelihood(test).mean:.2f} nats; missing pixels that are drawn as they were:")
print(f"right half {(completed == test)[:, missing].mean():.2f}, by independent draws", end=" ")
rate = train.mean(0)[missing]
print(f"{np.mean(test[:, missing] * rate + (1 - test[:, missing]) * (1 - rate)):.2f}")

# %% [markdown]
# ## As a decoder
#
# With `Autoregressive`, the pixels of a VAE's decoder depend on each other as well as on z. What a pixel can learn from
# the pixels before it, z need not say: the more they see, the lower the KL. With a net that sees everything, the latent
# may be ignored altogether; a net that sees only its neighbours leaves to z what is far away (Gulrajani et al. 2017,
# arXiv:1611.05013; Chen et al. 2017, arXiv:1611.02731).

# %%
print("\ndecoder's pixels see      KL(q(z|x)‖p(z))     test ELBO")
for name, likelihood in {
    "nothing": Bernoulli(),
    "their neighbours": Autoregressive(net=GatedPixelCNN(channels=8, layers=1, first_kernel=3), condition=(4, 8, 8)),
    "all pixels before": Autoregressive(net=PIXELS, condition=(32,)),
}.items():
    parts = {"encoder": MLP(hidden=(100,)), "decoder": MLP(hidden=(100,)), "likelihood": likelihood}
    vae = ppdgm.fit(VAE(event_shape=(8, 8), latent=4, **parts), train, **options)
    kl = ppdgm.trace(vae.program, vae.params, test, kl=True).kl["z"].sum(-1).mean()
    print(f"{name:22s} {kl:13.2f} nats   {vae.elbo(test, k=20).mean:11.2f} nats")

# %%
figure, rows = plt.subplots(4, 10, figsize=(9, 4.2))
for axes, image in zip(rows.ravel(), digits, strict=True):
    axes.imshow(image, cmap="gray_r")
    axes.set(xticks=[], yticks=[])
for number, axes in enumerate(rows[0]):
    axes.set_title(str(number))
figure.suptitle("Draws of a GatedPixelCNN, given the class")
figure.savefig(OUT / "autoregressive_models.png", dpi=120)
print(f"\nWritten: {OUT / 'autoregressive_models.png'}")

# %% [markdown]
# ## Exercises
#
# 1. How many passes does a draw of an 8×8 image take, and how many does log p(x) take? *Answer: 64, and one: the net
#    gives all factors of a known image at once.*
# 2. Why can MADE not complete a left half from the right? *Answer: its order is fixed, and what comes later is
#    unknown.*
