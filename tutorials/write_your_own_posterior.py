# %% [markdown]
# # Write your own: a posterior, and a mistake
#
# A posterior is a part of the guide: q(z|x), with a head from the encoder. This one is a skewed normal, z = μ + σ
# sinh(arsinh(ε) + a) with ε ~ N(0, 1). Its inverse is simple, and so is its density, by the change of variables.
# `random.normal` draws ε. `sample` is a differentiable function of the head, so gradients pass through the draws.
#
# The first version uses the skewness a directly from the encoder. `check` tests heads up to ±50, which an encoder can
# reach in a bad training step, and reports what fails.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ppdgm
from ppdgm.models import MLP, VAE, DiagonalNormal, Posterior
from ppdgm.specs import PositiveFloat
from ppdgm.testing import check

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
EPOCHS, BACKENDS = (2, ["pyro"]) if SMALL else (120, None)  # None: all that are installed
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)
data = ppdgm.load_data("digits")


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
# ## In a VAE, beside a normal

# %%
net, fits = MLP(hidden=(200,)), {}
for name, posterior in {"normal": DiagonalNormal(), "skewed": Skewed()}.items():
    program = VAE(event_shape=(8, 8), latent=8, posterior=posterior, encoder=net, decoder=net)
    fits[name] = ppdgm.fit(program, data, epochs=EPOCHS, learning_rate=3e-3, batch_size=100, seed=0, progress=False)
    print(f"{name:<8} test ELBO {fits[name].elbo(data.test)}")

# %%
several = fits["skewed"].encode(data.test[:60], k=2000)  # [draws, images, D]
standardised = (several - several.mean(0)) / several.std(0)
skewness = (standardised**3).mean(0)
image, dimension = np.unravel_index(np.argmax(np.abs(skewness)), skewness.shape)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.hist(several[:, image, dimension], 60, density=True, color="#f0cda8")
left.set(title="The most skewed posterior", xlabel=f"dimension {dimension}, draws from q(z|x)", ylabel="density")
right.hist(skewness.ravel(), 40, color="#c8d6e8")
right.set(title="Skewness of all posteriors", xlabel="third moment", ylabel="images × dimensions")
figure.savefig(OUT / "write_your_own_posterior.png", dpi=120)
print(f"Figure: {OUT / 'write_your_own_posterior.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Leave out `- xp.log(scale)`. Which check fails? *Answer: the density no longer integrates to 1.*
# 2. Why does the posterior need no `inverse`? *Answer: `log_prob` computes the noise ε of a given z by itself.*
