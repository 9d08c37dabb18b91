# %% [markdown]
# # Better posteriors: flows, and which way they are fast
#
# A VAE's bound falls short of log p(x) by how wrong its guide is: ELBO = log p(x) − KL(q(z|x) ‖ p(z|x)). The usual
# guide is a normal with a diagonal covariance. Real posteriors bend, and have several modes. To see what that costs, and
# what richer guides win back, take a model whose posterior we can draw: two latents, one observation,
#
# z ~ N(0, I), x ~ N(z₂ + z₁²/2, 0.3²).
#
# An x says that z lies near a parabola. Of a low x, the likely part of the parabola is its tip: one bent mode. Of a high
# x, it is the two places where its arms pass nearest to 0: two modes, joined by a thin bow.
#
# The model has nothing to learn, only the guide has. So log p(x) is the same throughout, we know it from a sum over a
# grid, and each nat of ELBO that a guide wins is a nat of KL.

# %%
import os
from pathlib import Path

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

# %%
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

import ppdgm
from ppdgm.inference import Cosine
from ppdgm.models import (
    IAF,
    MAF,
    MLP,
    VAE,
    DiagonalNormal,
    FlowPosterior,
    FullCovarianceNormal,
    Net,
    Planar,
    Posterior,
    Program,
    RQSpline,
    Sylvester,
)


class Parabola(Program):
    """z ~ N(0, I), x ~ N(z₂ + z₁²/2, 0.3²); q(z|x) = posterior(encoder(x))."""

    posterior: Posterior = DiagonalNormal()
    encoder: Net = MLP(hidden=(64, 64))

    def build(self, context):
        head = context.part(self.posterior, (2,), label="guide")
        context.net("encoder", self.encoder, (1,), head, label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            mean = z[..., 1:] + 0.5 * z[..., :1] ** 2
            P.sample("x", P.dist.Normal(mean, P.full((1,), 0.3)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.posterior(P, P.net("encoder")(x)))


def draw_data(size, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(size, 2))
    return (z[:, 1:] + 0.5 * z[:, :1] ** 2 + 0.3 * rng.normal(size=(size, 1))).astype("float32")


x_train, x_test = draw_data(5000, seed=0), draw_data(500, seed=1)

# The exact log p(x), and posteriors: sums over a fine grid of z.
EDGE, CELLS = 4.5, 300
middles = (np.arange(CELLS) + 0.5) / CELLS * 2 * EDGE - EDGE
z1, z2 = np.meshgrid(middles, middles, indexing="ij")
log_prior = norm.logpdf(z1) + norm.logpdf(z2)
log_joint = lambda x: log_prior + norm.logpdf(x, z2 + 0.5 * z1**2, 0.3)
log_cell = 2 * np.log(2 * EDGE / CELLS)
log_p = np.array([logsumexp(log_joint(x)) + log_cell for x in x_test[:, 0]])

# %% [markdown]
# ## Flows
#
# A *flow* is an invertible map f with a Jacobian determinant that is cheap to compute. Draw z₀ from a normal, put
# z = f(z₀): then log q(z) = log N(z₀) − log |det ∂f/∂z₀|. Each of these is a stack of simple layers:
#
# * **Planar** and **Sylvester**: z + A tanh(Bz + b), a bump of rank one, or of rank M. Their numbers come from the encoder.
#   No formula inverts them.
# * **IAF**: each coordinate is scaled and shifted by functions of the coordinates before it. The net that computes these
#   functions is masked, so that it computes them for all coordinates at once.
# * **Spline coupling** (RQSpline): one half of the coordinates stays; the other half goes, coordinate by coordinate, through
#   a monotone spline whose knots are a function of the first half.

# %%
small = {"depth": 4, "hidden": (32,), "context": 16}
POSTERIORS = {
    "diagonal normal": DiagonalNormal(),
    "full covariance": FullCovarianceNormal(),
    "planar": FlowPosterior(flow=Planar(depth=8)),
    "Sylvester": FlowPosterior(flow=Sylvester(depth=8)),
    "IAF": FlowPosterior(flow=IAF(**small)),
    "spline coupling": FlowPosterior(flow=RQSpline(**small)),
}
steps = 100 if SMALL else 3000
fits = {}
for name, posterior in POSTERIORS.items():
    program = Parabola(posterior=posterior)
    rate = Cosine(peak=3e-3, steps=steps)
    fits[name] = ppdgm.fit(
        program, x_train, steps=steps, batch_size=200, learning_rate=rate, seed=0, progress=False
    )

print(f"exact log p(x), mean over the test set: {log_p.mean():.3f} nats\n")
print("posterior           test ELBO   KL(q‖p(z|x))   log p(x) by 500 draws")
losses = {}
for name, fit in fits.items():
    elbo, estimate = fit.elbo(x_test, k=200), fit.log_likelihood(x_test, k=50 if SMALL else 500)
    losses[name] = log_p - elbo.values
    print(f"{name:18s} {elbo.mean:10.3f} {losses[name].mean():14.3f} {estimate.mean:19.3f} nats")
