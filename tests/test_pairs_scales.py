"""Constant scales of plain pairs: training takes them as the library does, and no report sees them.

x ~ N(z, 1), z ~ N(0, 1), q = N(m x, s²), by hand: E_q log p(x|z) = −½ log 2π − ½ ((x − m x)² + s²), and the KL's.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch

import ppdgm
from ppdgm import SVI, Program
from ppdgm.errors import PpdgmError, ProgramError
from ppdgm.inference import IWAE

N, M, S = 30, 0.3, 0.6
X = np.random.default_rng(0).normal(size=N).astype("float32") * 1.5
LIBRARIES = {
    "numpyro": (numpyro, numpyro_dist, jnp, numpyro.handlers.scale),
    "pyro": (pyro, pyro_dist, torch, pyro.poutine.scale),
}


def pair_of(backend, latent=1.0, seen=1.0, guide=None, part=None):
    lib, dist, xp, scale = LIBRARIES[backend]

    def model(x):
        with lib.plate("data", N, subsample_size=part) as i:
            x = x[i] if part else x
            with scale(scale=latent):
                z = lib.sample("z", dist.Normal(0.0 * x, 1.0))
            with scale(scale=seen):
                lib.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide_of(x):
        m = lib.param("m", xp.zeros(()) + M)
        with lib.plate("data", N, subsample_size=part) as i:
            x = x[i] if part else x
            with scale(scale=latent if guide is None else guide):
                lib.sample("z", dist.Normal(m * x, S))

    return getattr(Program, f"from_{backend}")(model, guide_of)


def by_hand(m):
    """Reconstruction and KL, means over the data."""
    seen = -0.5 * np.log(2 * np.pi) - 0.5 * ((X - m * X) ** 2 + S**2)
    kl = 0.5 * (S**2 + (m * X) ** 2 - 1.0) - np.log(S)
    return seen.mean(), kl.mean()


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("scales", [(0.2, 1.0), (0.2, 0.2)])
def test_the_objective_has_the_scales_and_reports_do_not(scales, backend):
    latent, seen = scales
    fit = ppdgm.fit(pair_of(backend, latent, seen), X, steps=1, engine=SVI(k=3000), learning_rate=1e-9, progress=False)
    right = by_hand(M)
    error = 5 * 2.0 / np.sqrt(3000 * N)
    assert fit.history["objective"][0] == pytest.approx(seen * right[0] - latent * right[1], abs=error)
    assert fit.history["elbo"][0] == pytest.approx(right[0] - right[1], abs=error)
    assert fit.elbo(X, k=1000).mean == pytest.approx(right[0] - right[1], abs=0.05)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_training_goes_where_beta_goes(backend):
    """The best m is 1 / (1 + β): annealing of latents is β's."""
    pair = pair_of(backend, 0.25, part=10)
    fit = ppdgm.fit(pair, X, steps=400, engine=SVI(k=5), learning_rate=0.01, progress=False)
    assert float(fit.params["m"]) == pytest.approx(1 / 1.25, abs=0.05)


OTHERS = {
    "the model's latent alone": ({"latent": 0.5, "guide": 1.0}, r"'z' is scaled by 0.5.*in the model, and by 1 in the"),
    "data alone": ({"seen": 3.0}, r"'x' is scaled by 3 .*and 'z' by 1\."),
    "a vector": ({"latent": "vector"}, r"'\w' is scaled by numbers of shape \(30,\)"),
}


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("case", OTHERS)
def test_what_is_no_constant_scale_is_refused(case, backend):
    options, message = OTHERS[case]
    vector = LIBRARIES[backend][2].ones(N) * 0.5
    options = {n: vector if isinstance(v, str) else v for n, v in options.items()}
    with pytest.raises(ProgramError, match=message):
        ppdgm.fit(pair_of(backend, **options), X, steps=1, progress=False)


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("engine", [IWAE(k=2), SVI(capacity=1.0)])
def test_engines_without_room_for_scales_say_so(engine, backend):
    with pytest.raises(ProgramError, match=r"'z' is scaled.*does not support scales"):
        ppdgm.fit(pair_of(backend, 0.5), X, engine=engine, steps=1, progress=False)


@pytest.mark.parametrize("backend", LIBRARIES)
def test_an_array_that_is_closed_over_knows_all_rows_alone(backend):
    lib, dist, xp, _ = LIBRARIES[backend]
    mask, handler = xp.arange(N) % 2 == 0, {"pyro": pyro.poutine.mask, "numpyro": numpyro.handlers.mask}[backend]

    def model(x):
        with lib.plate("data", len(x)):
            z = lib.sample("z", dist.Normal(0.0 * x, 1.0))
            with handler(mask=mask):
                lib.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with lib.plate("data", len(x)):
            lib.sample("z", dist.Normal(lib.param("m", xp.zeros(())) * x, 1.0))

    pair = getattr(Program, f"from_{backend}")(model, guide)
    fit = ppdgm.fit(pair, X, steps=1, learning_rate=1e-9, progress=False)
    masked = np.where(np.arange(N) % 2 == 0, -0.5 * np.log(2 * np.pi) - 0.5 * (X**2 + 1.0), 0.0)
    assert fit.elbo(X, k=2000).mean == pytest.approx(masked.mean(), abs=0.05)
    with pytest.raises(ProgramError, match=r"expected 30\. The pair has something for each row"):
        fit.elbo(X[:7])
    with pytest.raises(PpdgmError, match="batch_size: got 5, but the pair needs all its 30 rows"):
        ppdgm.fit(pair, X, steps=1, batch_size=5, progress=False)
