# %% [markdown]
# # Write your own: a net, and a whole program
#
# `write_your_own.py` shows a likelihood, a prior and a posterior. A net and a program are subclasses, too, and
# `ppdgm.testing.check` tests them in the same way.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ppdgm
from ppdgm.models import MLP, VAE, Net, Program
from ppdgm.nets.base import apply_dense, dense
from ppdgm.plots import grid
from ppdgm.program import constant, normal
from ppdgm.specs import PositiveInt, Shape
from ppdgm.testing import check

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
EPOCHS, BACKENDS = (2, ["pyro"]) if SMALL else (120, None)  # None: all that are installed
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A net
#
# `params` declares the arrays and their initial values (drawn by NumPy, so they are the same on both backends). `apply`
# applies the net. In this net, each layer sees the outputs of all layers before it.


# %%
class DenselyConnected(Net):
    """h ← [h, tanh(W h + b)] for each layer, then a linear map. Huang et al. 2017, arXiv:1608.06993.

    Args:
        width: what each layer adds.
        layers: how many there are.
    """

    width: PositiveInt = 100
    layers: PositiveInt = 2

    def params(self, inputs, outputs):
        start, shapes = int(np.prod(inputs)), {}
        for i in range(self.layers):
            shapes |= dense(f"layers.{i}", start + i * self.width, self.width)
        return shapes | dense("last", start + self.layers * self.width, int(np.prod(outputs)))

    def apply(self, P, x, inputs, outputs):
        lead = x.shape[: len(x.shape) - len(inputs)]
        h = P.xp.reshape(x, (*lead, int(np.prod(inputs))))
        for i in range(self.layers):
            h = P.concat([h, P.xp.tanh(apply_dense(P, f"layers.{i}", h))])
        return P.xp.reshape(apply_dense(P, "last", h), (*lead, *outputs))


print(check(DenselyConnected(width=3), inputs=(2, 2), shape=(3,), backends=BACKENDS))

# It stands where any net stands:
data, own = ppdgm.load_data("digits"), DenselyConnected()
vae = VAE(event_shape=(8, 8), latent=8, encoder=own, decoder=own)
fit = ppdgm.fit(vae, data, epochs=EPOCHS, learning_rate=3e-3, batch_size=100, seed=0, progress=False)
print(f"a VAE with this net    test ELBO {fit.elbo(data.test)}")

# %% [markdown]
# ## A whole program
#
# Sparse coding (Olshausen & Field 1996): an image is a sum of templates, z ~ Laplace(0, 1) is the amount of each
# template, and x ~ N(Wz + b, σ²). `build` declares parameters and nets; `model` and `guide` are the pair, with their
# sites inside the plate over the data. Parameters of the guide have the label "guide": engines that train model and
# guide separately use it.


# %%
class SparseCoding(Program):
    """z ~ Laplace(0, I), x ~ N(Wz + b, σ²); q(z|x) = Laplace(encoder(x)).

    Args:
        event_shape: of an image.
        templates: D.
    """

    event_shape: Shape
    templates: PositiveInt = 32

    def build(self, context):
        context.param("templates", (self.templates, *self.event_shape), normal(0.1))
        context.param("offset", self.event_shape)
        context.param("log_scale", (), constant(-1.0))
        context.net("encoder", MLP(hidden=(200,)), self.event_shape, (2, self.templates), label="guide")

    def model(self, P, x):
        zero, n = P.full((self.templates,), 0.0), len(self.event_shape)
        with P.plate("data", x):
            z = P.sample("z", P.dist.Laplace(zero, zero + 1.0).to_event(1))
            image = P.xp.tensordot(z, P.param("templates"), axes=1) + P.param("offset")
            P.sample("x", P.dist.Normal(image, P.xp.exp(P.param("log_scale"))).to_event(n), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            head = P.net("encoder")(x)
            P.sample("z", P.dist.Laplace(head[..., 0, :], 1e-3 + P.softplus(head[..., 1, :])).to_event(1))


print(check(SparseCoding(event_shape=(2, 2), templates=3), backends=BACKENDS))
grey = ppdgm.load_data("digits", binarise="none")  # in [0, 1]
coding = SparseCoding(event_shape=(8, 8))
sparse = ppdgm.fit(coding, grey.train, epochs=EPOCHS, learning_rate=3e-3, seed=0, progress=False)
print(f"sparse coding  test ELBO {sparse.elbo(grey.test)}, a density of grey levels")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
left.imshow(grid(fit.sample(36, seed=1, mean=True), 6), cmap="gray_r", vmin=0, vmax=1)
left.set_title("Drawn by the VAE with your net")
right.imshow(grid(np.asarray(sparse.params["templates"], float)[:36], 6), cmap="gray_r")
right.set_title("The templates of sparse coding: strokes")
for axes in (left, right):
    axes.axis("off")
figure.savefig(OUT / "write_your_own_program.png", dpi=120)
print(f"Figure: {OUT / 'write_your_own_program.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Index with `head[0]` instead of `head[..., 0, :]` in the guide. What happens? *Answer: `fit` refuses it; the first
#    axis is that of particles or rows, so the terms of a row would depend on other rows.*
# 2. Save the run with `out=`, and open it in a new process. What does `ppdgm.load` need? *Answer: the class,
#    `classes=[SparseCoding]`, because opening a run executes no code.*
