# %% [markdown]
# # Write your own: a likelihood, and a prior
#
# Each of these is a subclass with fewer than 30 lines, in your own file. It works with every engine, on both backends,
# and its runs can be saved and opened again. `ppdgm.testing.check` tests it with the same contract as ppdgm's own
# parts: Does its density integrate to 1? Do its draws follow the density? Is every gradient right, everywhere, on both
# backends? (`write_your_own_posterior.py` and `write_your_own_program.py` go on.)

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ppdgm
from ppdgm.models import MLP, VAE, Likelihood, Prior, StandardNormal
from ppdgm.plots import grid
from ppdgm.program import constant, normal
from ppdgm.specs import PositiveFloat, PositiveInt
from ppdgm.testing import check

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
# ## Both in a VAE, beside the standard parts

# %%
net, fits = MLP(hidden=(200,)), {}
for name, prior in {"N(0, I)": StandardNormal(), "two humps": TwoHumps()}.items():
    program = VAE(event_shape=(8, 8), latent=8, likelihood=Binomial(), prior=prior, encoder=net, decoder=net)
    fits[name] = ppdgm.fit(program, data, epochs=EPOCHS, learning_rate=3e-3, batch_size=100, seed=0, progress=False)
    print(f"{name:<12} test ELBO {fits[name].elbo(data.test)}")

# %%
fit = fits["two humps"]
m, s = fit.params["prior.loc"], 0.05 + np.logaddexp(0, fit.params["prior.raw_scale"])
w = 1 / (1 + np.exp(-fit.params["prior.odds"]))
used = int(np.argmax(np.abs(m[0] - m[1]) * np.minimum(w, 1 - w) / s))  # the dimension with the clearest humps
line = np.linspace(-6, 6, 400)
hump = lambda i: np.exp(-0.5 * ((line - m[i, used]) / s[used]) ** 2) / s[used] / np.sqrt(2 * np.pi)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
codes = fit.encode(data.test, k=20)[..., used].ravel()
left.hist(codes, 60, range=(-6, 6), density=True, color="#c8d6e8", label="q, over test images")
left.plot(line, w[used] * hump(0) + (1 - w[used]) * hump(1), color="#3465a4", label="the prior p(z)")
left.set(title="A prior with two peaks", xlabel=f"dimension {used} of the code", ylabel="density")
left.legend(fontsize=8, frameon=False)
right.imshow(grid(fit.sample(36, seed=1, mean=True), 6), cmap="gray_r", vmin=0, vmax=16)
right.set_title("Drawn: means of the binomial")
right.axis("off")
figure.savefig(OUT / "write_your_own.png", dpi=120)
print(f"Figure: {OUT / 'write_your_own.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Leave out the `+ P.softplus(-P.xp.abs(a - b))` in the prior. Which check fails? *Answer: the density no longer
#    integrates to 1: log(e^a + e^b) is not max(a, b).*
# 2. What does `support` do? *Answer: data outside it, such as −1 or 2.5, are refused before training.*
