# %% [markdown]
# # Better posteriors: flows, and which way they are fast
#
# A VAE's bound falls short of log p(x) by how wrong its guide is: ELBO = log p(x) − KL(q(z|x) ‖ p(z|x)). The usual
# guide is a normal with a diagonal covariance. Real posteriors bend, and have several modes. To see what that costs,
# and what richer guides win back, take a model whose posterior we can draw: two latents, one observation,
#
# z ~ N(0, I), x ~ N(z₂ + z₁²/2, 0.3²).
#
# An x says that z lies near a parabola. Of a low x, the likely part of the parabola is its tip: one bent mode. Of a
# high x, it is the two places where its arms pass nearest to 0: two modes, joined by a thin bow.
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
# * **Planar** and **Sylvester**: z + A tanh(Bz + b), a bump of rank one, or of rank M. Their numbers come from the
#   encoder. No formula inverts them.
# * **IAF**: each coordinate is scaled and shifted by functions of the coordinates before it. The net that computes
#   these functions is masked, so that it computes them for all coordinates at once.
# * **Spline coupling** (RQSpline): one half of the coordinates stays; the other half goes, coordinate by coordinate,
#   through a monotone spline whose knots are a function of the first half.

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
# Read the third column: it is what the guide costs. Two things to see.
#
# * A covariance between the latents helps little: what is wrong with a normal here is its shape.
# * With enough draws, importance sampling gets log p(x) right from a poor guide too, but not from a guide that leaves
#   out a mode: draws that never land there can't count what is there.
#
# ## Which direction is fast, and why
#
# f can be run forwards, to draw, or backwards, to score a z that comes from elsewhere. A layer's net computes numbers
# for coordinate d from the coordinates before d.
#
# * IAF feeds its nets the *input* z₀ of the layer. Drawing, the whole of z₀ is there: one pass. Backwards, coordinate 1
#   must be solved before the net can say what happened to coordinate 2, and so on: D passes.
# * MAF feeds them the *output*. So it scores in one pass, and draws in D.
# * Couplings (RealNVP, RQSpline) need only the half that does not move, which is the same before and after: one pass
#   each way. Planar and Sylvester have no known inverse at all: they score their own draws, and no others.
#
# Each step of training draws from the posterior, and scores only that draw, whose log q comes with it. So a posterior
# wants a fast forward direction: IAF. A *prior* has to score draws that the posterior made: it wants MAF. What would
# take D passes in each training step is refused, unless you ask for it:

# %%
try:
    FlowPosterior(flow=MAF())
except ValueError as refusal:
    print(refusal)

# %% [markdown]
# ## On images
#
# Here decoder and prior are learned, so the truth is not known, and the decoder adapts to its guide: trained with a
# diagonal normal, it learns to have posteriors that look like one. The gain is smaller than on the toy. It is largest
# where the latents are few and have much to tell. The two models are compared image by image.

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
# ## The guides beside the posterior

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
    "Blue: from the model, on a grid. Orange: draws of each trained guide. The KL is the mean over test data of "
    "exact log p(x) less ELBO.\nA normal can only be an ellipse: it covers part of the bow, or one arm. A flow bends."
)
figure.text(0.5, 0.01, caption, ha="center", va="bottom", fontsize=9, color="0.35", linespacing=1.5)
figure.tight_layout(rect=(0, 0.06, 1, 1))
figure.savefig(OUT / "better_posteriors.png", dpi=120)
print(f"\nWritten: {OUT / 'better_posteriors.png'}")
