# %% [markdown]
# # Better posteriors: flows, and their fast direction
#
# The bound of a VAE is lower than log p(x) by the error of its guide: ELBO = log p(x) − KL(q(z|x) ‖ p(z|x)). The usual
# guide is a normal with a diagonal covariance. Real posteriors are curved and have several modes. How much does the
# bound lose, and how much do richer guides gain? We use a model whose posterior we can plot, with two latents and one
# observation:
#
# z ~ N(0, I), x ~ N(z₂ + z₁²/2, 0.3²).
#
# Given x, z is near a parabola. If x is low, the likely part of the parabola is its tip: one curved mode. If x is high,
# the likely parts are the two places where its arms are closest to 0: two modes, with a thin curve between them.
#
# The model has no parameters; only the guide is trained. So log p(x) is always the same. We know it from a sum over a
# grid, and a guide that gains one nat of ELBO has one nat of KL less.

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
# A *flow* is an invertible map f with a Jacobian determinant that is cheap to compute. Draw z₀ from a normal, and set
# z = f(z₀): then log q(z) = log N(z₀) − log |det ∂f/∂z₀|. All flows here are stacks of simple layers:
#
# * **Planar** and **Sylvester**: z + A tanh(Bz + b), a change of rank one or of rank M. A, B and b come from the
#   encoder. There is no formula for their inverse.
# * **IAF**: each coordinate is scaled and shifted by functions of the coordinates before it. A masked net computes
#   these functions for all coordinates at once.
# * **Spline coupling** (RQSpline): one half of the coordinates does not change. Each coordinate of the other half goes
#   through a monotone spline, whose knots are a function of the first half.

# %%
small = {"depth": 2 if SMALL else 4, "hidden": (32,), "context_size": 16}
POSTERIORS = {
    "diagonal normal": DiagonalNormal(),
    "full covariance": FullCovarianceNormal(),
    "planar": FlowPosterior(flow=Planar(depth=8)),
    "Sylvester": FlowPosterior(flow=Sylvester(depth=8)),
    "IAF": FlowPosterior(flow=IAF(**small)),
    "spline coupling": FlowPosterior(flow=RQSpline(**small)),
}
steps = 100 if SMALL else 2000
fits = {}
for name, posterior in POSTERIORS.items():
    program = Parabola(posterior=posterior)
    rate = Cosine(peak=3e-3, steps=steps)
    fits[name] = ppdgm.fit(program, x_train, steps=steps, batch_size=200, learning_rate=rate, seed=0, progress=False)

print(f"exact log p(x), mean over the test set: {log_p.mean():.3f} nats\n")
print("posterior           test ELBO   KL(q‖p(z|x))   log p(x) by 500 draws")
losses = {}
for name, fit in fits.items():
    elbo, estimate = fit.elbo(x_test, k=200), fit.log_likelihood(x_test, k=50 if SMALL else 500)
    losses[name] = log_p - elbo.values
    print(f"{name:18s} {elbo.mean:10.3f} {losses[name].mean():14.3f} {estimate.mean:19.3f} nats")

# %% [markdown]
# The third column shows the loss of each guide. Note two things:
#
# * A covariance between the latents helps little: the shape of a normal is wrong here.
# * With enough draws, importance sampling gives the right log p(x) with a poor guide, too. It does not with a guide
#   that misses a mode: if no draw is in that mode, its probability is not counted.
#
# ## Which direction is fast, and why
#
# f can run forwards, to draw, or backwards, to compute the density of a given z. The net of a layer computes numbers
# for coordinate d from the coordinates before d.
#
# * In IAF, the nets read the *input* z₀ of the layer. To draw, all of z₀ is known: one pass. Backwards, coordinate 1
#   must be computed before the net can compute coordinate 2, and so on: D passes.
# * In MAF, the nets read the *output*. So the density takes one pass, and a draw takes D passes.
# * Couplings (RealNVP, RQSpline) only read the half that does not change, so both directions take one pass. Planar and
#   Sylvester have no known inverse: they give the density of their own draws, and of nothing else.
#
# Each training step draws from the posterior and needs only the density of that draw, which comes with it. So a
# posterior needs a fast forward direction: IAF. A *prior* needs the density of draws from the posterior: MAF. A flow
# that would take D passes in each training step is refused, unless you ask for it:

# %%
try:
    FlowPosterior(flow=MAF())
except ValueError as refusal:
    print(refusal)

# %% [markdown]
# ## On images
#
# Here the decoder is trained, too, so the true log p(x) is not known. The decoder adapts to its guide: with a diagonal
# normal, it learns to have posteriors that are almost diagonal normals. So the gain is smaller than in the example
# above. It is largest with few latents that carry much information. We compare the two models image by image.

# %%
data = ppdgm.load_data("digits")
net = MLP(hidden=(100,))
found = {}
print("\n8×8 digits, 2 latents   test ELBO   log p(x) by importance sampling")
for name in ("diagonal normal", "IAF"):
    program = VAE(event_shape=data.event_shape, latent=2, posterior=POSTERIORS[name], encoder=net, decoder=net)
    epochs = 2 if SMALL else 120
    images = ppdgm.fit(program, data.train, epochs=epochs, batch_size=100, learning_rate=3e-3, seed=0, progress=False)
    elbo, found[name] = images.elbo(data.test, k=50), images.log_likelihood(data.test, k=20 if SMALL else 500)
    print(f"{name:22s} {elbo.mean:10.2f} {found[name].mean:12.2f} nats")
gain = found["IAF"].values - found["diagonal normal"].values
print(f"IAF's gain in log p(x), per image: {gain.mean():.2f} ± {gain.std() / len(gain) ** 0.5:.2f} nats")

# %% [markdown]
# ## The guides and the posterior

# %%
shown = np.array([[0.5], [2.0], [3.0]], "float32")
draws = 2000 if SMALL else 20_000
figure, panels = plt.subplots(3, 1 + len(fits), figsize=(15, 7.6), sharex=True, sharey=True)
box = [-3.6, 3.6, -3.6, 3.6]
inside = np.abs(middles) < 3.6
for row, x in zip(panels, shown[:, 0], strict=True):
    density = np.exp(log_joint(x) - logsumexp(log_joint(x)))[np.ix_(inside, inside)]
    row[0].imshow(density.T, origin="lower", extent=box, cmap="Blues")
    row[0].set_ylabel(f"x = {x:.1f}\n$z_2$")
panels[0, 0].set_title("exact p(z|x)")
for column, (name, fit) in enumerate(fits.items(), start=1):
    z = ppdgm.trace(fit.program, fit.params, shown, k=draws).values["z"]
    for row, points in zip(panels, np.moveaxis(z, 1, 0), strict=True):
        counts = np.histogram2d(*points.T, bins=72, range=(box[:2], box[2:]))[0]
        row[column].imshow(counts.T, origin="lower", extent=box, cmap="Oranges")
    panels[0, column].set_title(f"{name}\nKL {losses[name].mean():.2f} nats")
for axes in panels[-1]:
    axes.set_xlabel("$z_1$")
figure.suptitle("Posteriors of the parabola model, and what each guide makes of them", fontsize=13)
caption = (
    "Blue: from the model, on a grid. Orange: draws of each trained guide. The KL is the mean over test data of exact "
    "log p(x) minus ELBO.\nA normal is an ellipse: it covers a part of the curve, or one arm. A flow can be curved."
)
figure.text(0.5, 0.01, caption, ha="center", va="bottom", fontsize=9, color="0.35", linespacing=1.5)
figure.tight_layout(rect=(0, 0.06, 1, 1))
figure.savefig(OUT / "better_posteriors.png", dpi=120)
print(f"\nWritten: {OUT / 'better_posteriors.png'}")
