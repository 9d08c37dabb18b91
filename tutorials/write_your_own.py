# %% [markdown]
# # Write your own: a prior, a posterior, a likelihood, a net, a whole program
#
# Each of these is a subclass with fewer than 30 lines, in your own file. It works with every engine, on both backends,
# and its runs can be saved and opened again. `ppdgm.testing.check` tests it with the same contract as ppdgm's own
# parts: Does its density integrate to 1? Do its draws follow the density? Is every gradient right, everywhere, on both
# backends?

# %%
import os
from pathlib import Path

import matplotlib
import numpy as np

import ppdgm
from ppdgm.models import MLP, VAE, DiagonalNormal, Likelihood, Net, Posterior, Prior, Program, StandardNormal
from ppdgm.nets.base import apply_dense, dense
from ppdgm.program import constant, normal
from ppdgm.specs import PositiveFloat, PositiveInt, Shape
from ppdgm.testing import check

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ppdgm.plots import grid

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
EPOCHS, BACKENDS = (2, ["pyro"]) if SMALL else (120, None)  # None: all that are installed
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
data = ppdgm.load_data("digits", scale="none", binarise="none")  # each pixel counts the ink in 16 dots: 0 to 16

# %% [markdown]
# ## A likelihood
#
# A pixel of these digits is a count: the number of black dots in a square of 4×4. So x ~ Binomial(16, σ(h)), where h is
# the decoder's output. A part has fields, a `build` method and a `distribution` method. `build` returns the shape of
# the net's output that the part needs (the *head*). `P.dist` has the distributions of the backend in use, and `P.shape`
# is the shape of the variable.


# %%
class Binomial(Likelihood):
    """p(x|z) = Π Binomial(x; n, σ(h)), for counts x of up to n.

    Args:
        n: the largest count.
    """

    n: PositiveInt = 16

    def build(self, context, shape):
        return shape

    def distribution(self, P, *head):
        return P.dist.Binomial(self.n, logits=head[0]).to_event(len(P.shape))

    def encoded(self, P, x):  # what encoders see
        return x / self.n

    @property
    def support(self):  # other data are refused
        return 0, self.n


print(check(Binomial(n=3), backends=BACKENDS))

# %% [markdown]
# ## A prior
#
# This prior has two peaks in each dimension, p(z) = Π w N(z; m₁, s²) + (1 − w) N(z; m₂, s²), with learned w, m and s:
# each number of the code is near one peak or the other. No library has this distribution, so we write its density.
# `P.distribution` turns the functions `sample` and `log_prob` into a distribution of either backend. `P.xp` has the
# mathematics on arrays. Write it for any leading dimensions: z is [particles, rows, D] in training, and has other
# shapes elsewhere.


# %%
class TwoHumps(Prior):
    """p(z) = Π w N(z; m₁, s²) + (1 − w) N(z; m₂, s²), with w = σ(odds), m = loc, s = min_scale + softplus(raw_scale).

    Args:
        min_scale: a floor under s.
    """

    min_scale: PositiveFloat = 0.05

    def build(self, context, shape):
        context.param("odds", shape)
        context.param("loc", (2, *shape), normal(1.0))
        context.param("raw_scale", shape, constant(0.0))
        return ()  # a prior reads no head

    def distribution(self, P, *head):
        odds, m, s = P.param("odds"), P.param("loc"), self.min_scale + P.softplus(P.param("raw_scale"))
        w = P.activation("sigmoid", odds)

        def sample(random, batch):
            first = random.uniform((*batch, *P.shape)) < w
            return P.xp.where(first, m[0], m[1]) + s * random.normal((*batch, *P.shape)), None

        def log_prob(z):  # log(e^a + e^b), without overflow
            a = P.dist.Normal(m[0], s).log_prob(z) - P.softplus(-odds)
            b = P.dist.Normal(m[1], s).log_prob(z) - P.softplus(odds)
            return P.xp.sum(P.xp.maximum(a, b) + P.softplus(-P.xp.abs(a - b)), axis=-1)

        return P.distribution(sample, log_prob, P.shape, mean=lambda: w * m[0] + (1.0 - w) * m[1], pathwise=False)


print(check(TwoHumps(), backends=BACKENDS))

# %% [markdown]
# ## A posterior, and a mistake
#
# A posterior is a part of the guide: q(z|x), with a head from the encoder. This one is a skewed normal, z = μ + σ
# sinh(arsinh(ε) + a) with ε ~ N(0, 1). Its inverse is simple, and so is its density, by the change of variables.
# `random.normal` draws ε. `sample` is a differentiable function of the head, so gradients pass through the draws.
#
# The first version uses the skewness a directly from the encoder. `check` tests heads up to ±50, which an encoder can
# reach in a bad training step, and reports what fails.


# %%
class Skewed(Posterior):
    """q(z|x) = Π SinhArcsinh(μ, σ, a): z = μ + σ sinh(arsinh(ε) + a), ε ~ N(0, 1). Jones & Pewsey 2009.

    Args:
        most: bound on the skewness: a = most · tanh(raw).
    """

    most: PositiveFloat = 1.0

    def build(self, context, shape):
        return (3, *shape)

    def skewness(self, P, raw):
        return self.most * P.xp.tanh(raw)

    def distribution(self, P, *head):
        xp, (loc, raw, a) = P.xp, (head[0][..., i, :] for i in range(3))  # counted from the right
        scale, a = 1e-3 + P.softplus(raw), self.skewness(P, a)

        def sample(random, batch):
            return loc + scale * xp.sinh(xp.asinh(random.normal((*batch, *P.shape))) + a), None

        def log_prob(z):
            y = (z - loc) / scale
            t = xp.asinh(y) - a  # ε = sinh t
            log_slope = xp.log(xp.cosh(t)) - 0.5 * xp.log1p(y * y) - xp.log(scale)
            return xp.sum(-0.5 * xp.sinh(t) ** 2 - 0.5 * np.log(2 * np.pi) + log_slope, axis=-1)

        mean = lambda: loc + scale * 1.35453081 * xp.sinh(a)  # E sinh(arsinh(ε) + a) = sinh(a) E √(1 + ε²)
        return P.distribution(sample, log_prob, P.shape, loc.shape[:-1], mean=mean)


class FirstAttempt(Skewed):
    def skewness(self, P, raw):
        return raw


print("The first version:")
print(*check(FirstAttempt(), backends=BACKENDS, raises=False).failures, sep="\n")
print(check(Skewed(), backends=BACKENDS))

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

# %% [markdown]
# ## All four in a VAE
#
# compared with the standard parts, with the same likelihood.


# %%
def train(program):
    options = {"epochs": EPOCHS, "learning_rate": 3e-3, "batch_size": 100, "seed": 0, "progress": not SMALL}
    return ppdgm.fit(program, data.train, validation=data.validation, **options)


mlp, own = MLP(hidden=(200,)), DenselyConnected()
plain = {"prior": StandardNormal(), "posterior": DiagonalNormal(), "encoder": mlp, "decoder": mlp}
mine = {"prior": TwoHumps(), "posterior": Skewed(), "encoder": own, "decoder": own}
fits = {
    name: train(VAE(event_shape=(8, 8), latent=8, likelihood=Binomial(), **parts))
    for name, parts in {"plain parts": plain, "my parts": mine}.items()
}
for name, fit in fits.items():
    print(f"{name:<12} test ELBO {fit.elbo(data.test)}")

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
sparse = ppdgm.fit(
    SparseCoding(event_shape=(8, 8)), grey.train, epochs=EPOCHS, learning_rate=3e-3, seed=0, progress=not SMALL
)
print(f"sparse coding  test ELBO {sparse.elbo(grey.test)}, a density of grey levels")

# %% [markdown]
# ## What they learned

# %%
fit = fits["my parts"]
z = fit.encode(data.test, k=20)  # [draws, images, D]
m, s = fit.params["prior.loc"], 0.05 + np.logaddexp(0, fit.params["prior.raw_scale"])
w = 1 / (1 + np.exp(-fit.params["prior.odds"]))
used = int(np.argmax(np.abs(m[0] - m[1]) * np.minimum(w, 1 - w) / s))
line = np.linspace(-6, 6, 400)
hump = lambda i: np.exp(-0.5 * ((line - m[i, used]) / s[used]) ** 2) / s[used] / np.sqrt(2 * np.pi)
humps = w[used] * hump(0) + (1 - w[used]) * hump(1)
several = fit.encode(data.test[:60], k=2000)
standardised = (several - several.mean(0)) / several.std(0)
skewness = (standardised**3).mean(0)
lean = np.unravel_index(np.argmax(np.abs(skewness)), skewness.shape)

figure, panels = plt.subplots(1, 4, figsize=(15, 4.3), layout="constrained")
panels[0].hist(z[..., used].ravel(), 60, range=(-6, 6), density=True, color="#c8d6e8", label="q, over test images")
panels[0].plot(line, humps, color="#3465a4", label="the prior p(z)")
panels[0].set(title="A prior with two peaks", xlabel=f"dimension {used} of the code", ylabel="density")
panels[1].hist(several[:, lean[0], lean[1]], 60, density=True, color="#f0cda8")
panels[1].set(title="A skewed posterior", xlabel=f"dimension {lean[1]}, draws from q(z|x)", ylabel="density")
for axes, images, title, limit in (
    (panels[2], fit.sample(36, seed=1, mean=True), "Drawn: means of the binomial", 16),
    (panels[3], sparse.params["templates"], "The templates of sparse coding", None),
):
    low = None if limit is None else 0
    axes.imshow(grid(np.asarray(images, float)[:36], 6), cmap="gray_r", vmin=low, vmax=limit)
    axes.set_title(title)
    axes.axis("off")
panels[0].legend(fontsize=8, frameon=False)
figure.supxlabel(
    "Left to right: one dimension of the code, with its learned prior; the guide's draws for the test image with the "
    "largest skewness;\nimages drawn by the VAE with your four parts; the strokes that sparse coding adds to a digit.",
    fontsize=8,
)
figure.savefig(OUT / "write_your_own.png", dpi=120)
print(f"Figure: {OUT / 'write_your_own.png'}")
