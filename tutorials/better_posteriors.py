# %% [markdown]
# # Better posteriors: flows, and their fast direction
#
# The bound of a VAE is lower than log p(x) by the error of its guide: ELBO = log p(x) − KL(q(z|x) ‖ p(z|x)). The usual
# guide is a normal with a diagonal covariance. How much does the bound lose, and how much do richer guides gain? We use
# a model whose posterior we can plot, with two latents and one observation:
#
# z ~ N(0, I), x ~ N(z₂ + z₁²/2, 0.3²).
#
# Given x, z is near a parabola. If x is low, the likely part of it is its tip: one curved mode. If x is high, the
# likely parts are the two places where its arms are closest to 0.
#
# Only the guide is trained; log p(x) is known from a sum over a grid.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

import ppdgm
from ppdgm import models
from ppdgm.inference import Cosine
from ppdgm.models import MLP, Net, Posterior, Program

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)


class Parabola(Program):
    """z ~ N(0, I), x ~ N(z₂ + z₁²/2, 0.3²); q(z|x) = posterior(encoder(x))."""

    posterior: Posterior = models.DiagonalNormal()
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


z, noise = np.split(np.random.default_rng(0).normal(size=(5500, 3)), [2], axis=1)
x_train, x_test = np.split((z[:, 1:] + 0.5 * z[:, :1] ** 2 + 0.3 * noise).astype("float32"), [5000])
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
# A *flow* is an invertible map f with a Jacobian determinant that is cheap to compute. Draw z₀ from a normal, and set z
# = f(z₀): then log q(z) = log N(z₀) − log |det ∂f/∂z₀|. All flows here are stacks of simple layers:
#
# * **Planar** and **Sylvester**: z + A tanh(Bz + b), a change of rank one or of rank M.
# * **IAF**: each coordinate is scaled and shifted by functions of the coordinates before it.
# * **Spline coupling** (RQSpline): one half stays; each coordinate of the other goes through a monotone spline.

# %%
small = {"depth": 2 if SMALL else 4, "hidden": (32,), "context_size": 16}
POSTERIORS = {
    "diagonal normal": models.DiagonalNormal(),
    "full covariance": models.FullCovarianceNormal(),
    "planar": models.FlowPosterior(flow=models.Planar(depth=8)),
    "Sylvester": models.FlowPosterior(flow=models.Sylvester(depth=8)),
    "IAF": models.FlowPosterior(flow=models.IAF(**small)),
    "spline coupling": models.FlowPosterior(flow=models.RQSpline(**small)),
}
steps = 100 if SMALL else 2000
fits = {}
for name, posterior in POSTERIORS.items():
    program = Parabola(posterior=posterior)
    options = {"steps": steps, "batch_size": 200, "learning_rate": Cosine(peak=3e-3, steps=steps), "seed": 0}
    fits[name] = ppdgm.fit(program, x_train, progress=False, **options)

print(f"exact log p(x), mean over the test set: {log_p.mean():.3f} nats")
print("posterior           test ELBO   KL(q‖p(z|x))   log p(x) by 500 draws")
losses = {}
for name, fit in fits.items():
    elbo, estimate = fit.elbo(x_test, k=200), fit.log_likelihood(x_test, k=50 if SMALL else 500)
    losses[name] = log_p - elbo.values
    print(f"{name:18s} {elbo.mean:10.3f} {losses[name].mean():14.3f} {estimate.mean:19.3f} nats")

# %% [markdown]
# With enough draws, importance sampling gives the right log p(x) with a poor guide, too; unless it misses a mode.
#
# ## Which direction is fast, and why
#
# f can run forwards, to draw, or backwards, to compute the density of a given z. The net of a layer computes numbers
# for coordinate d from the coordinates before d. In IAF, the nets read the *input* z₀ of the layer, so a draw takes one
# pass, and the density of a given z takes D. In MAF they read the *output*, and it is the other way round. Couplings
# read the half that does not change: one pass both ways. Planar and Sylvester have no known inverse.
#
# A training step draws from the posterior and needs only the density of that draw: a fast forward direction, IAF. A
# *prior* needs the density of draws from the posterior: MAF. What would take D passes in each step is refused:

# %%
try:
    models.FlowPosterior(flow=models.MAF())
except ValueError as refusal:
    print(refusal)

# %% [markdown]
# ## The guides and the posterior
#
# Blue: from the model, on a grid. Orange: draws of each trained guide. A normal is an ellipse: it covers a part of the
# curve, or one arm. A flow can be curved.

# %%
shown = np.array([[0.5], [2.0], [3.0]], "float32")
draws = 2000 if SMALL else 20_000
figure, panels = plt.subplots(3, 1 + len(fits), figsize=(15, 7.6), sharex=True, sharey=True, layout="constrained")
box = [-3.6, 3.6, -3.6, 3.6]
inside = np.abs(middles) < 3.6
for row, x in zip(panels, shown[:, 0], strict=True):
    density = np.exp(log_joint(x) - logsumexp(log_joint(x)))[np.ix_(inside, inside)]
    row[0].imshow(density.T, origin="lower", extent=box, cmap="Blues")
    row[0].set_ylabel(f"x = {x:.1f}")
panels[0, 0].set_title("exact p(z|x)")
for column, (name, fit) in enumerate(fits.items(), start=1):
    z = ppdgm.trace(fit.program, fit.params, shown, k=draws).values["z"]
    for row, points in zip(panels, np.moveaxis(z, 1, 0), strict=True):
        counts = np.histogram2d(*points.T, bins=72, range=(box[:2], box[2:]))[0]
        row[column].imshow(counts.T, origin="lower", extent=box, cmap="Oranges")
    panels[0, column].set_title(f"{name}\nKL {losses[name].mean():.2f} nats")
figure.savefig(OUT / "better_posteriors.png", dpi=120)
print(f"\nWritten: {OUT / 'better_posteriors.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Is the gain as large for a VAE on digits? *Answer: no. Its decoder learns to have posteriors that suit the guide.*
# 2. Would `MAF` do as a prior? *Answer: yes. A prior needs the density of given draws, which MAF has in one pass.*
