# %% [markdown]
# # Flows in continuous time
#
# A flow can be the solution of a differential equation (Chen et al. 2018, arXiv:1806.07366; FFJORD: Grathwohl et al.
# 2019, arXiv:1810.01367). Noise u is z at time 0, and x is z at time 1:
#
# dz/dt = v(z, t),  d log p(z)/dt = −tr ∂v/∂z.
#
# v is any smooth net: nothing has to be triangular, and no half of z has to stay. The inverse is the same equation,
# backwards in time.

# %%
import os
from pathlib import Path

SMALL = bool(os.environ.get("PPDGM_SMALL"))  # a quick pass, as in the test suite
OUT = Path("runs/tutorials")
OUT.mkdir(parents=True, exist_ok=True)

# %%
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import multivariate_normal

import ppdgm
from ppdgm.inference import Cosine, ReverseKL
from ppdgm.models import ContinuousFlow, FlowModel


def two_moons(n, seed):
    rng = np.random.default_rng(seed)
    angle, side = rng.random(n) * np.pi, rng.random(n) < 0.5
    x = np.stack([np.cos(angle), np.sin(angle)], 1)
    x = np.where(side[:, None], x, [1.0, 0.4] - x)
    return (x + rng.normal(scale=0.1, size=(n, 2))).astype("float32")


train, test = two_moons(4000, 0), two_moons(1000, 1)
steps = 30 if SMALL else 600

# %% [markdown]
# Training needs the trace at every step of the solver. D products with the Jacobian give it exactly; Hutchinson's
# estimate εᵀ (∂v/∂z) ε needs one, whatever D is. It is unbiased for log p(x), so it is for training; every reported
# number has the exact trace. In two dimensions we can afford both.

# %%
flow = ContinuousFlow(hidden=(64,), steps=5)
gaussian = multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test)
print(f"two moons: a Gaussian with the data's covariance has {gaussian.mean():.3f} nats on test data")
fits = {}
for name in ("hutchinson", "exact"):
    program = FlowModel(event_shape=(2,), flow=flow.replace(trace=name))
    rate = Cosine(peak=0.02, end=1e-4, steps=steps)
    fits[name] = ppdgm.fit(program, train, steps=steps, batch_size=200, learning_rate=rate, seed=0, progress=False)
    gain = fits[name].log_likelihood(test).values - gaussian
    print(f"trained with the trace {name:10s}: gain {gain.mean():.3f} ± {gain.std() / len(gain) ** 0.5:.3f} nats")

# %% [markdown]
# ## How many steps?
#
# The classical method of Runge and Kutta has an error of the order steps⁻⁴. More steps should not change log p(x); if
# they do, the solver was too coarse. `solver="dopri5"` chooses its steps by a tolerance (pip install 'ppdgm[ode]').

# %%
fit = fits["hutchinson"]
few = test[:200]
fine = ppdgm.Fit(program=FlowModel(event_shape=(2,), flow=flow.replace(steps=64)), params=fit.params).elbo(few).values
for n in (2, 4, 8, 16):
    coarse = ppdgm.Fit(program=FlowModel(event_shape=(2,), flow=flow.replace(steps=n)), params=fit.params)
    print(f"{n:3d} steps: log p(x) is off by {np.abs(coarse.elbo(few).values - fine).mean():.1e} nats")

# %% [markdown]
# ## A density without data
#
# Here is the other direction of KL. We know a density up to its constant Z, and want draws and log Z: `ReverseKL`
# maximises E_q[log π̃(x) − log q(x)] = log Z − KL(q ‖ π). Importance sampling from q then estimates log Z; the
# effective sample size and k̂ say whether q covers π. The exact trace is needed for the weights, and `fit.normaliser`
# has it.


# %%
def banana(P, x):
    """x₁ ~ N(0, 1), x₂ | x₁ ~ N(x₁², ¼), without its constant: Z = 2π · ½."""
    return -0.5 * x[..., 0] ** 2 - 2.0 * (x[..., 1] - x[..., 0] ** 2) ** 2


rate = Cosine(peak=0.02, end=1e-4, steps=steps)
bent = FlowModel(event_shape=(2,), flow=ContinuousFlow(hidden=(32,), steps=6))
curved = ppdgm.fit(
    bent, engine=ReverseKL(target=banana), steps=steps, batch_size=200, learning_rate=rate, seed=0, progress=False
)
print(f"\nbanana: log Z is {np.log(np.pi):.4f} nats")
print(curved.normaliser(1000 if SMALL else 10_000))
# Reverse KL leaves out what q hardly draws, here the tips of the banana. Then w has a heavy tail, and log Z is too low
# by more than its error: k̂ tells.

# %%
side = np.linspace(-1.8, 2.8, 40 if SMALL else 150)
grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype("float32")
figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
axes[0].scatter(*train[:2000].T, s=2, alpha=0.4)
axes[0].set_title("data")
axes[1].imshow(
    np.exp(fit.elbo(grid).values).reshape(len(side), -1), origin="lower", extent=[side[0], side[-1]] * 2, cmap="Blues"
)
axes[1].set_title("density of the flow")
axes[2].scatter(*curved.sample(2000).T, s=2, alpha=0.4)
axes[2].set_title("draws of the flow fitted to the banana")
figure.tight_layout()
figure.savefig(OUT / "continuous_flows.png", dpi=120)
print(f"\nWritten: {OUT / 'continuous_flows.png'}")

# %% [markdown]
# ## Exercises
#
# 1. Use `steps=2` of the solver. What changes? *Answer: the solver's errors grow, so forward and inverse agree less
#    well, and log p(x) is that of another map.*
# 2. Why is `relu` refused? *Answer: the trace of ∂v/∂z then jumps, and the solver assumes that it is smooth.*
