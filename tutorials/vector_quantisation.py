# %% [markdown]
# # Vector quantisation, and a second stage
#
# A VQ-VAE replaces the encoder's output by the nearest of K codes: its latents are whole numbers, few of them, and a
# decoder makes images from them. Training has two stages. First encoder, decoder and codebook are trained, with a prior
# in which all codes are equally probable. Then they are frozen, and a prior of the codes is trained, which is what new
# images are drawn from. A third part of this tutorial uses relaxed codes in place of nearest ones, and a transformer
# over a label and codes, which draws images for a label.

# %%
import os
from pathlib import Path

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

import ppdgm
from ppdgm.diagnostics import code_use
from ppdgm.inference import SVI, Linear, Stage
from ppdgm.models import (
    MLP,
    VAE,
    AutoregressiveModel,
    CategoricalPrior,
    CodePrior,
    Gaussian,
    GumbelSoftmax,
    OneHot,
    Transformer,
    VectorQuantised,
)

OUT = Path("runs")
OUT.mkdir(parents=True, exist_ok=True)
data = ppdgm.load_data("digits", fields=["x", "label"], binarise="none")
x, test, label = (np.asarray(a) for a in (data.train["x"], data.test["x"], data.train["label"]))
nets = {"encoder": MLP(hidden=(128,)), "decoder": MLP(hidden=(128,)), "likelihood": Gaussian(scale=0.1)}
few = 40 if SMALL else 1  # how many times shorter a quick pass is

# %% [markdown]
# ## Two stages of one program
#
# Four codes, each one of 16: every image is one of 16⁴ = 65,536. The codebook is made of moving averages of the
# encoder's outputs; a code that is hardly used moves to an output of the encoder. `CodePrior` starts uniform, and the
# first stage keeps it so. Its ELBO, log p(x|codes) − 4 log 16, is a bound on log p(x).

# %%
program = VAE(
    event_shape=(8, 8),
    latent=(2, 2),
    posterior=VectorQuantised(classes=16, embedding=8),
    prior=CodePrior(net=Transformer(width=64)),
    **nets,
)
first = Stage(engine=SVI(), steps=3000 // few, freeze=("prior.*",))
second = Stage(engine=SVI(), steps=1500 // few, freeze=("encoder.*", "decoder.*", "posterior.*"))
how = {"learning_rate": 1e-3, "batch_size": 100, "seed": 0, "progress": False}
uniform = ppdgm.fit(program, x, engine=[first], steps=first.steps, **how)
fit = ppdgm.fit(program, x, engine=[first, second], steps=first.steps + second.steps, **how)
codes, held = fit.encode(x), fit.encode(test)
print(f"codes of the first test image: {held[0].tolist()}; of the test images, {code_use(held, 16)}")
print(f"test ELBO with the uniform prior {uniform.elbo(test)}")
print(f"           with the trained one  {fit.elbo(test)}, better by {fit.elbo(test) - uniform.elbo(test)}")

# %% [markdown]
# Is that more than how often each code is used at its place? The independent prior knows that, and no more.

# %%
flat = lambda c: c.reshape(len(c), -1)
share = np.stack([np.bincount(flat(codes)[:, j], minlength=16) + 0.5 for j in range(4)])
independent = np.log(share / share.sum(1, keepdims=True))[np.arange(4), flat(held)].sum(1)
learnt = ppdgm.trace(program, fit.params, test).log_p["z"][0]
gain = learnt - independent
print(f"log p of held-out codes: {learnt.mean():.2f} nats; independent {independent.mean():.2f};", end=" ")
print(f"uniform {-4 * np.log(16):.2f}")
print(f"gain over the independent prior: {gain.mean():.2f} ± {gain.std() / len(gain) ** 0.5:.2f}")

# %% [markdown]
# Four codes of 16 against one of 16: k-means with 16 centres gives each image the mean of its cluster.

# %%
kmeans = KMeans(16, n_init=5, random_state=0).fit(x.reshape(len(x), -1))
nearest = kmeans.cluster_centers_[kmeans.predict(test.reshape(len(test), -1).astype(x.dtype))].reshape(-1, 8, 8)
error = lambda a: ((a - test) ** 2).mean()
print(f"mean squared error: {error(fit.reconstruct(test)):.4f}; k-means {error(nearest):.4f}")

# %% [markdown]
# ## A label as a token
#
# Here codes are relaxed: a Gumbel-softmax grid, with the temperature and the weight of the KL annealed. Then one
# transformer reads the label and the codes as seven tokens of one alphabet: ten labels, and then sixteen codes. To draw
# an image for a label, its first token is given, and the others are drawn.

# %%
steps = 4000 // few
relaxed = GumbelSoftmax(classes=16, embedding=8, temperature=Linear(start=1.0, end=1 / 16, steps=steps))
grid = VAE(event_shape=(8, 8), latent=(2, 3), posterior=relaxed, prior=CategoricalPrior(), **nets)
how["learning_rate"] = 2e-3
images = ppdgm.fit(grid, x, engine=SVI(beta=Linear(steps=steps // 3)), steps=steps, **how)
tokens = np.concatenate([label[:, None], 10 + flat(images.encode(x).argmax(-1))], 1)
sequence = AutoregressiveModel(event_shape=(7, 26), net=Transformer(width=64), likelihood=OneHot())
language = ppdgm.fit(sequence, np.eye(26, dtype="float32")[tokens], steps=2500 // few, **how)

wanted = np.repeat(np.arange(10), 30)
start, missing = np.zeros((300, 7), int), np.zeros((7, 26), bool)
start[:, 0], missing[1:] = wanted, True
drawn = language.impute(np.eye(26, dtype="float32")[start], missing).argmax(-1)[:, 1:] - 10
wrong = (drawn < 0).any(1)  # a label where a code should be
pictures = images.decode(1000 * (np.eye(16)[np.maximum(drawn, 0)].reshape(300, 2, 3, 16) - 1))
reader = LogisticRegression(max_iter=3000).fit(x.reshape(len(x), -1), label)
right = (reader.predict(pictures.reshape(300, -1)) == wanted) & ~wrong
print(f"a classifier of real digits reads {right.mean():.0%} of the images as their label")

# %%
figure, axes = plt.subplots(3, 1, figsize=(7, 5), layout="constrained")
rows = {
    "test images": test[:10],
    "reconstructed from four codes": fit.reconstruct(test[:10]),
    "drawn for 0–9": pictures[::30],
}
for axis, (title, shown) in zip(axes, rows.items(), strict=True):
    axis.imshow(np.hstack(list(shown)), cmap="gray_r", vmin=0, vmax=1)
    axis.set(title=title, xticks=[], yticks=[])
figure.savefig(OUT / "vector_quantisation.png", dpi=110)
print(f"\nWritten: {OUT / 'vector_quantisation.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Set `revive=0.0` and `classes=64`. How many codes are used? *Answer: fewer: a code that is never the nearest one
#    never moves, so it stays unused. The perplexity in the history (`diagnose_epochs`) shows it.*
# 2. Why is the KL of the first stage 4 log 16 for every image? *Answer: the guide has one code at each place, with
#    probability 1, and the prior gives each log 16.*
