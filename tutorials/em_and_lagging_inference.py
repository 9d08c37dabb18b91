# %% [markdown]
# # EM, variational EM, and a guide that lags behind
#
# log p(x) ≥ ELBO = log p(x) − KL(q(z|x) ‖ p(z|x)). All methods here maximise the ELBO. They differ in the order in
# which they update model and guide. In probabilistic PCA all three terms have formulas, so that we can check every
# claim:
#
# * **EM** sets q to the exact posterior, then θ to its best value given q, and repeats. log p(x) never falls.
# * **Variational EM** does the same with a guide with parameters φ, by gradients: some steps of φ, then one step of θ.
# * **SVI** updates both at once. This is the usual way to train a VAE.
# * **Lagging inference** updates φ first, as long as the guide is behind the model and would mislead θ.

# %%
import os
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy.stats import multivariate_normal
from sklearn.datasets import load_wine

import ppdgm
from ppdgm import Program
from ppdgm.inference import EM, SVI, LaggingInference, Stage, VariationalEM
from ppdgm.inference.evaluation.information import mutual_information
from ppdgm.inference.inputs.feed import Feed
from ppdgm.models import PPCA
from ppdgm.program import zeros
from ppdgm.registry import backend

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

x = load_wine().data
x = ((x - x.mean(0)) / x.std(0)).astype("float32")  # 178 wines, 13 columns
linear = PPCA(event_shape=(13,), latent=2, posterior="linear")  # q(z|x) = N(Ax + b, diag s²)
exact = PPCA(event_shape=(13,), latent=2, posterior="exact")
best = exact.maximum_likelihood(x)  # by the formula
top = exact.exact_log_likelihood(best, x).mean()

# %% [markdown]
# We need the parameters after every step, not only at the end. An optimiser sees them, and `fit` takes any optimiser of
# optax: this one is Adam, and it also records the parameters.


# %%
def train(program, data, engine, steps, rate, params, batch_size=None, seed=0):
    """The fit, and the parameters before and after each of its steps."""
    path, adam = [params], optax.adam(rate)

    def update(gradient, state, moving):
        updates, state = adam.update(gradient, state, moving)
        moved = optax.apply_updates(moving, updates)  # of a step of φ, say, φ alone
        jax.debug.callback(lambda moved: path.append({**path[-1], **moved}), moved, ordered=True)
        return updates, state

    optimiser, batch_size = optax.GradientTransformation(adam.init, update), batch_size or len(data)
    options = {"optimiser": optimiser, "params": params, "batch_size": batch_size, "seed": seed, "progress": False}
    fit = ppdgm.fit(program, data, engine=engine, steps=steps, **options)
    jax.effects_barrier()
    return fit, path


def values(path):
    """log p(x) and the ELBO of a linear guide, mean over wines, both from formulas: no draws, no noise."""
    log_p, elbo = [], []
    for p in path:
        p = {name: np.asarray(value, float) for name, value in p.items()}
        mean, variance = x @ p["guide.weight"].T + p["guide.bias"], np.exp(2 * p["guide.log_scale"])
        noise, miss = np.exp(2 * p["log_scale"]), x - p["loc"] - mean @ p["weight"].T
        squared = (miss**2).sum(1) + variance @ (p["weight"] ** 2).sum(0)  # E_q[(x − μ − Wz)²]
        kl = 0.5 * (variance + mean**2 - 1 - np.log(variance)).sum(1)
        elbo.append((-0.5 * squared / noise - 6.5 * np.log(2 * np.pi * noise) - kl).mean())
        log_p.append(linear.exact_log_likelihood(p, x).mean())
    return np.array(log_p), np.array(elbo)


# %% [markdown]
# ## Three methods from the same random start

# %%
steps = 24 if SMALL else 3000
first = linear.initialise(0, x)
start = {name: first[name] for name in best}
em = ppdgm.fit(exact, x, engine=EM(), steps=100 if SMALL else 300, params=start, progress=False)
climbed = em.history["elbo"]  # q is the posterior: the bound is log p(x)
assert np.diff(climbed).min() > -1e-12, "EM never goes down"
assert abs(climbed[-1] - top) < 1e-9, "and ends at the closed form's maximum"
near = np.argmax(climbed > top - 1e-3)
print(f"maximum likelihood, by the formula  {top:.6f} nats per wine")
print(f"EM, after {len(climbed)} steps               {climbed[-1]:.6f}; within a thousandth after {near}")

engines = {"variational EM": VariationalEM(e_steps=5, engine=SVI(k=16)), "SVI": SVI(k=16)}
found = {name: values(train(linear, x, engine, steps, 0.01, first)[1]) for name, engine in engines.items()}
for name, (log_p, elbo) in found.items():
    assert (elbo <= log_p).all(), "a bound"
    print(f"{name:14s} {steps} steps: log p(x) {top - log_p[-1]:.4f} below the maximum, ELBO {top - elbo[-1]:.4f}")
e_step = np.arange(steps) % 6 < 5
assert (np.diff(found["variational EM"][0])[e_step] == 0).all(), "an E-step moves φ alone: log p(x) stays, KL falls"

# %% [markdown]
# ## The ELBO rises, and log p(x) falls
#
# θ maximises the ELBO, which is log p(x) *minus the error of q*. So θ can improve it in two ways: it can explain the
# data better, or it can move the posterior towards the guide. To see only the second, we start θ at the maximum of log
# p(x):
#
# * **A guide that lags**: q(z|x) starts as N(0, 1) for every x. In the end it will be exact (W can be rotated so that a
#   linear guide is exact), but until then θ moves towards it.
# * **A guide that is too simple**: its width is always 1. The posterior is narrower; θ makes it wider, permanently.

# %%
turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)  # as likely as without it, but the latents' posteriors are correlated
at_best = {**best, "weight": best["weight"] @ turn}
at_best |= {name: 0 * value for name, value in first.items() if name.startswith("guide")}
at_best = {name: np.asarray(value, "float32") for name, value in at_best.items()}
guides = {"a guide that lags": SVI(k=16)}
if not SMALL:
    guides["a guide of width 1"] = [Stage(engine=SVI(k=16), freeze=("guide.log_scale",))]
apart = {name: values(train(linear, x, engine, steps, 0.01, at_best)[1]) for name, engine in guides.items()}
print("\nFrom the maximum on, by SVI         ELBO: start, end       log p(x) − maximum: start, lowest, end")
for name, (log_p, elbo) in apart.items():
    assert (elbo <= log_p).all()
    low = log_p.min() - top
    print(f"{name:32s} {elbo[0]:9.3f} {elbo[-1]:9.3f} {log_p[0] - top:20.3f} {low:7.3f} {log_p[-1] - top:7.3f}")

# %% [markdown]
# The encoder of a VAE has both problems. So a better ELBO need not mean a better model, and we should estimate log
# p(x).
#
# ## Permanent harm: a decoder that does not need z
#
# Let p(x|z) = N(wz + μ, Σ) with *any* covariance Σ and one latent. For every w (up to some size) there is a Σ with the
# same p(x). So log p(x) is the same if z carries the main direction of the data, or if z carries nothing. Training
# decides between them. A guide that lags prefers nothing, because q(z|x) = p(z) is exact for w = 0. This is posterior
# collapse.
#
# We start at PPCA's maximum, where z has 1.3 nats of information about x. Data with a standard deviation of 0.1 make
# the guide lag: its slopes have to change much, and the decoder's w only a little. We chose this setting to show the
# effect: with a standard deviation of 1 (`unit = 1.0`) SVI keeps 0.6 nats. But in a deep VAE nobody knows the right
# units of all layers.


# %%
class FullCovariance(Program):
    event_shape: tuple[int, ...]

    def build(self, c):
        (width,) = self.event_shape
        for name, shape in (("weight", (width,)), ("loc", (width,)), ("root", (width, width))):
            c.param(name, shape, zeros)
        for name, shape in (("slope", (width, 1)), ("log_scale", (1,))):
            c.param(f"guide.{name}", shape, zeros, label="guide")

    def model(self, P, x):
        root, (width,) = P.param("root"), self.event_shape
        root = root * P.constant(np.tri(width, k=-1)) + P.xp.exp(root) * P.constant(np.eye(width))  # Σ = root rootᵀ
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            mean = z * P.param("weight") + P.param("loc")
            P.sample("x", P.dist.MultivariateNormal(mean, scale_tril=root), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            scale = P.xp.exp(P.param("guide.log_scale"))
            P.sample("z", P.dist.Normal(x @ P.param("guide.slope"), scale).to_event(1))


unit, rng = 0.1, np.random.default_rng(0)
y = unit * (rng.normal(size=(1000, 1)) @ rng.normal(size=(1, 6)) + 0.5 * rng.normal(size=(1000, 6)))
y = (y - y.mean(0)).astype("float32")
covariance, program = np.cov(y.T, bias=True), FullCovariance(event_shape=(6,))
highest = multivariate_normal.logpdf(y, y.mean(0), covariance).mean()
ppca = PPCA(event_shape=(6,), latent=1).maximum_likelihood(y)
begin = program.initialise(0, y) | {"weight": ppca["weight"][:, 0], "root": ppca["log_scale"] * np.eye(6)}
begin = {name: np.asarray(value, "float32") for name, value in begin.items()}


def noise_of(p):
    root = np.tril(p["root"], -1) + np.diag(np.exp(np.diag(p["root"])))
    return root @ root.T


def informations(p):
    """I(x; z) of the model, if its posterior were exact, and under the guide, for normal data: by formulas."""
    w, slope = p["weight"], p["guide.slope"][:, 0] / np.exp(p["guide.log_scale"])
    return 0.5 * np.log1p(w @ np.linalg.solve(noise_of(p), w)), 0.5 * np.log1p(slope @ covariance @ slope)


runtime = backend("numpyro").Runtime(program, "cpu")
feed = Feed(runtime, {"x": y})
lagging = LaggingInference(window=20, most=20, every=30)  # 20 steps of φ, one of θ; after 30 of θ, look at I(x; z)
lengths = {"SVI": (SVI(), 20 if SMALL else 4000), "lagging": (lagging, 21 if SMALL else 9000)}
trails = {}
print("\nSeed  engine   steps of φ, θ, both   maximum − log p(x)   I(x; z) under the guide")
for seed in range(1 if SMALL else 3):
    for name, (engine, length) in lengths.items():
        fit, path = train(program, y, engine, length, 2e-3, begin, 200, seed)
        turns = np.bincount(fit.history.get("phase", np.full(length, 2)), minlength=3)
        told = mutual_information(runtime, runtime.put(fit.params), feed)  # from draws
        trails[name, seed] = np.array([informations(p) for p in path[:: max(1, length // 1000)]])
        w = fit.params["weight"]
        reached = multivariate_normal.logpdf(y, fit.params["loc"], np.outer(w, w) + noise_of(fit.params)).mean()
        gap, counts = highest - reached, f"{turns[0]:6d} {turns[1]:5d} {turns[2]:5d}"
        print(f"{seed:4d}  {name:8s} {counts}  {gap:13.3f} nats  {told:14.3f} nats")

# %% [markdown]
# Both engines end at the same log p(x), within a hundredth of a nat: SVI without the latent, lagging inference with it.
# Lagging inference takes 20 steps of φ for each step of θ, until I(x; z) stops growing (it checks every 30 steps of θ).
# After that it is SVI with a guide that follows the model, and z loses little.
#
# ## All of it in one figure

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 5.0))
blue, orange, green, grey = "#3465a4", "#d9730d", "#4e9a06", "0.35"
left.loglog(1 + np.arange(len(climbed)), np.maximum(top - climbed, 1e-12), color=green, lw=2, label="EM: log p(x)")
for (name, (log_p, elbo)), color in zip(found.items(), (blue, orange), strict=True):
    left.loglog(1 + np.arange(len(elbo)), top - elbo, color=color, lw=1, label=f"{name}: ELBO")
    left.loglog(1 + np.arange(len(elbo)), top - log_p, color=color, lw=1.5, ls="--", label=f"{name}: log p(x)")
left.set(title="Three ways up", xlabel="1 + steps taken", ylabel="below the maximum of log p(x)   [nats per wine]")
left.set_ylim(1e-4, 3e3)
for (name, (log_p, elbo)), color in zip(apart.items(), (orange, blue), strict=False):
    middle.semilogx(1 + np.arange(len(elbo)), elbo - top, color=color, lw=1, label=f"{name}: ELBO")
    middle.semilogx(1 + np.arange(len(elbo)), log_p - top, color=color, lw=1.5, ls="--", label=f"{name}: log p(x)")
middle.set(title="From the maximum of log p(x), by SVI", xlabel="1 + steps taken", ylim=(-2.5, 0.15))
middle.set_ylabel("value − maximum of log p(x)   [nats per wine]")
right.plot([0, 1.5], [0, 1.5], color=grey, lw=0.8, ls=":", label="an exact guide")
for (name, seed), trail in trails.items():
    color = orange if name == "SVI" else blue
    right.plot(*trail.T, color=color, lw=1, label=None if seed else name)
    right.plot(*trail[-1], "o", color=color, ms=5)
right.plot(*trails["SVI", 0][0], "k*", ms=11, label="start; dots are ends")
right.set(title="A decoder that can do without z", xlabel="I(x; z) of the model   [nats]")
right.set(ylabel="I(x; z) under the guide   [nats]", xlim=(-0.05, 1.6), ylim=(-0.05, 1.6))
for axes, place in ((left, "upper right"), (middle, "lower right"), (right, "upper left")):
    axes.legend(loc=place, fontsize=8.5, frameon=False)
caption = (
    "Left: with an exact E-step, one step does more than many gradient steps. Every ELBO is below its log p(x).\n"
    "Middle: the ELBO rises by nine nats, because θ moves the posterior to the guide. log p(x) falls, for some time or "
    "permanently.\n"
    "Right: with plain SVI the model stops using z before the guide has learned it. With the guide first, half is "
    "lost, and comes back."
)
figure.text(0.5, 0.015, caption, ha="center", va="bottom", fontsize=9, color=grey, linespacing=1.5)
figure.tight_layout(rect=(0, 0.13, 1, 1))
figure.savefig(OUT / "em_and_lagging_inference.png", dpi=150)
print(f"\nWritten: {OUT / 'em_and_lagging_inference.png'}")
