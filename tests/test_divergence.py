"""Closed-form KLs: each formula that is taken from the libraries, and what stands around their distributions.

The right value is the mean of log q − log p over draws of q, by the libraries' own densities, within 5 standard errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from torch.distributions.kl import _KL_REGISTRY

from ppdgm import Program
from ppdgm.backends import numpyro as numpyro_backend
from ppdgm.backends import pyro as pyro_backend
from ppdgm.backends.numpyro import vocabulary as numpyro_vocabulary
from ppdgm.backends.pyro import vocabulary as pyro_vocabulary
from ppdgm.language.divergence import closed_form
from ppdgm.models import FullCovarianceNormal, Posterior
from ppdgm.nets import MLP
from ppdgm.program import zeros

SIGMAS = 5.0
NORMALS = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]
COUNTS = [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]

# --- the libraries' formulas -----------------------------------------------------------------------------------------

PARAMETERS = {  # of q, of p; what is a list is one argument, an array
    "Bernoulli": ((0.3,), (0.8,)),
    "Beta": ((2.3, 1.7), (0.8, 1.6)),
    "Binomial": ((5, 0.3), (5, 0.8)),
    "Categorical": COUNTS,
    "CategoricalProbs": COUNTS,
    "Cauchy": ((0.3, 0.8), (-0.5, 1.4)),
    "CirculantNormal": ((), ([0.0] * 4, None, [1.0, 0.7, 0.5])),
    "ContinuousBernoulli": ((0.3,), (0.8,)),
    "Dirichlet": ([2.0, 3.0, 1.5], [1.0, 0.8, 1.5]),
    "Exponential": ((1.7,), (0.6,)),
    "Gamma": ((2.3, 1.7), (0.8, 0.6)),
    "Geometric": ((0.3,), (0.8,)),
    "Gumbel": ((0.3, 0.8), (-0.5, 1.4)),
    "HalfNormal": ((0.8,), (1.4,)),
    "Laplace": ((0.3, 0.8), (-0.5, 1.4)),
    "LowRankMultivariateNormal": (
        ([0.3, -0.2], [[0.3], [0.7]], [0.4, 0.5]),
        ([0.1, 0.2], [[1.3], [0.2]], [0.9, 0.5]),
    ),
    "MultivariateNormal": (([0.3, -0.2], [[1.4, 0.5], [0.5, 0.7]]), ([0.1, 0.2], [[2.0, 0.0], [0.0, 2.0]])),
    "Normal": ((0.3, 0.8), (-0.5, 1.4)),
    "Normals": (([0.3, -0.2], [0.8, 0.6]), ([0.1, 0.2], [1.8, 0.6])),
    "OneHotCategorical": COUNTS,
    "Pareto": ((1.2, 4.0), (0.8, 3.0)),
    "Poisson": ((1.3,), (2.8,)),
    "Uniform": ((0.2, 0.7), (0.0, 1.0)),
    "Weibull": ((0.8, 1.2), ()),
}
#: Left out: wrong where the support is the same, or right to a few digits only.
WRONG = {
    "pyro": {("ContinuousBernoulli", "Uniform"), ("Uniform", "ContinuousBernoulli")},
    "numpyro": {("Kumaraswamy", "Beta")},
}
AROUND = {"Delta", "Distribution", "Expanded", "ExpandedDistribution", "Independent", "MaskedDistribution"}
AROUND |= {"TransformedDistribution", "ExponentialFamily"}  # rules for others, not formulas of their own


def made(dist, array, name, arguments):
    """A distribution over scalars, or one vector."""
    arguments = (arguments,) if isinstance(arguments, list) else arguments
    arguments = [None if a is None else array(a) for a in arguments]
    if name == "Normals":
        return dist.Normal(*arguments).to_event(1)
    return getattr(dist, name, getattr(torch.distributions, name, None))(*arguments)


def compare(form, log_ratio, inside):
    """A form [1, 1, D] with log q − log p at draws [S]; `inside`: whether all are in p's support."""
    form, log_ratio = np.asarray(form, float).sum(), np.asarray(log_ratio, float)
    if not inside:
        assert form == np.inf
        return
    error = log_ratio.std() / len(log_ratio) ** 0.5
    assert abs(form - log_ratio.mean()) < SIGMAS * error + 1e-6, (form, log_ratio.mean(), error)


def test_each_formula_of_torchs():
    array = lambda a: torch.tensor(a, dtype=torch.float64)
    registered = {(q.__name__, p.__name__) for q, p in _KL_REGISTRY if not {q.__name__, p.__name__} & AROUND}
    taken = pyro_vocabulary.LIBRARY.formulas
    assert registered - taken == WRONG["pyro"]
    with torch.random.fork_rng(), pyro_vocabulary.unvalidated():
        torch.manual_seed(0)
        for a, b in sorted(taken):
            q = made(pyro_dist, array, a, PARAMETERS[a][0])
            p = made(pyro_dist, array, b, PARAMETERS[b][1])
            z = q.sample((20_000,))
            inside = bool(p.support.check(z).all())
            compare(closed_form(q, p, pyro_vocabulary.LIBRARY), q.log_prob(z) - p.log_prob(z), inside)


def test_each_formula_of_numpyros():
    taken = numpyro_vocabulary.LIBRARY.formulas
    signatures = {tuple(t.__name__ for t in s) for s in numpyro_dist.kl_divergence.funcs}
    assert {s for s in signatures if not set(s) & AROUND} - taken == WRONG["numpyro"]
    rng, size = np.random.default_rng(0), 20_000
    covariance = np.array(PARAMETERS["MultivariateNormal"][0][1])
    draws = {  # JAX compiles its own samplers for many seconds
        "Beta": rng.beta(2.3, 1.7, size),
        "CategoricalProbs": rng.choice(3, size, p=COUNTS[0]),
        "Dirichlet": rng.dirichlet(PARAMETERS["Dirichlet"][0], size),
        "Gamma": rng.gamma(2.3, 1 / 1.7, size),
        "MultivariateNormal": rng.multivariate_normal([0.3, -0.2], covariance, size),
        "Normal": rng.normal(0.3, 0.8, size),
        "Normals": rng.normal([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], (size, 4)),
        "Weibull": 0.8 * rng.weibull(1.2, size),
    }
    with jax.enable_x64(True):
        for a, b in sorted(taken):
            q = made(numpyro_dist, jnp.asarray, a, NORMALS if a == "Normals" else PARAMETERS[a][0])
            p = made(numpyro_dist, jnp.asarray, b, PARAMETERS[b][1])
            form, log_ratio = jax.jit(
                lambda z, q=q, p=p: (closed_form(q, p, numpyro_vocabulary.LIBRARY), q.log_prob(z) - p.log_prob(z))
            )(draws[a])
            compare(form, log_ratio, True)


# --- what stands around a distribution -------------------------------------------------------------------------------


def tilted(dist):
    """A normal whose author changed its density."""

    class Tilted(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value) + 0.5

    return Tilted


def mixture(dist, h):
    means = (
        h[..., None] + torch.tensor([-1.0, 1.0])
        if isinstance(h, torch.Tensor)
        else h[..., None] + jnp.array([-1.0, 1.0])
    )
    return dist.MixtureSameFamily(dist.Categorical(logits=0.0 * means), dist.Normal(means, 1.0))


#: name -> (q, p, whether there is a closed form) from (the library's distributions, a number for each datum)
AROUND_ONE = {
    "masked apart": (
        lambda d, h: d.Normal(h, 0.7).mask(h > 0.0),
        lambda d, h: d.Normal(0.0 * h, 1.0).mask(h > 0.5),
        False,
    ),
    "masked alike": (
        lambda d, h: d.Normal(h, 0.7).mask(h > 0.0),
        lambda d, h: d.Normal(0.0 * h, 1.0).mask(h > 0.0),
        False,
    ),
    "masked in the guide": (lambda d, h: d.Normal(h, 0.7).mask(h > 0.0), lambda d, h: d.Normal(0.0 * h, 1.0), False),
    "masked inside": (
        lambda d, h: d.Normal(_wide(h), 0.7).mask(_wide(h) > 0.0).to_event(1),
        lambda d, h: d.Normal(0.0 * _wide(h), 1.0).to_event(1),
        False,
    ),
    "masked off": (lambda d, h: d.Normal(h, 0.7).mask(False), lambda d, h: d.Normal(0.0 * h, 1.0).mask(False), False),
    "masked on": (lambda d, h: d.Normal(h, 0.7).mask(True), lambda d, h: d.Normal(0.0 * h, 1.0), True),
    "point": (lambda d, h: d.Delta(h), lambda d, h: d.Normal(0.0 * h, 1.0), True),
    "point with a density": (lambda d, h: d.Delta(h, log_density=0.3 * h), lambda d, h: d.Normal(0.0 * h, 1.0), True),
    "points with densities": (
        lambda d, h: d.Delta(_wide(h), log_density=0.3 * _wide(h)).to_event(1),
        lambda d, h: d.Normal(0.0 * _wide(h), 1.0).to_event(1),
        True,
    ),
    "transformed": (lambda d, h: d.LogNormal(h, 0.7), lambda d, h: d.LogNormal(0.0 * h, 1.0), True),
    "transformed otherwise": (
        lambda d, h: d.TransformedDistribution(d.Normal(h, 0.7), [d.transforms.AffineTransform(0.0, 2.0)]),
        lambda d, h: d.TransformedDistribution(d.Normal(0.0 * h, 1.0), [d.transforms.AffineTransform(0.0, 3.0)]),
        False,
    ),
    "expanded": (lambda d, h: d.Normal(h, 0.7), lambda d, h: d.Normal(0.0, 1.0).expand(h.shape), True),
    "independent": (
        lambda d, h: d.Normal(_wide(h), 0.7).to_event(1),
        lambda d, h: d.Normal(0.0, 1.0).expand((*h.shape, 2)).to_event(1),
        True,
    ),
    "mixture": (lambda d, h: d.Normal(h, 0.7), mixture, False),
    "a density of its own": (lambda d, h: tilted(d)(h, 0.7), lambda d, h: d.Normal(0.0 * h, 1.0), False),
}


def _wide(h):
    return torch.stack([h, 2.0 * h], -1) if isinstance(h, torch.Tensor) else jnp.stack([h, 2.0 * h], -1)


X = np.array([[-1.2], [0.3], [0.8], [2.0]], np.float32)


class Around(Program):
    """A site for each case."""

    event_shape: tuple[int, ...] = (1,)

    def build(self, context):
        context.param("unused", (1,), zeros)

    def model(self, P, x):
        with P.plate("data", x):
            for name, (_, p, _) in AROUND_ONE.items():
                P.sample(name, p(P.dist, x[:, 0]))
            P.sample("x", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            for name, (q, _, _) in AROUND_ONE.items():
                P.sample(name, q(P.dist, x[:, 0]))


def pair(backend):
    lib, dist, zeros = (pyro, pyro_dist, torch.zeros(1)) if backend == "pyro" else (numpyro, numpyro_dist, jnp.zeros(1))

    def model(x):
        lib.param("unused", zeros)
        with lib.plate("data", x.shape[0]):
            for name, (_, p, _) in AROUND_ONE.items():
                lib.sample(name, p(dist, x[:, 0]))
            lib.sample("x", dist.Normal(0.0 * x, 1.0).to_event(1), obs=x)

    def guide(x):
        with lib.plate("data", x.shape[0]):
            for name, (q, _, _) in AROUND_ONE.items():
                lib.sample(name, q(dist, x[:, 0]))

    return getattr(Program, f"from_{backend}")(model, guide)


@pytest.mark.parametrize("kind", ["pair", "program"])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_closed_form_is_the_mean_log_ratio_or_none(backend, kind):
    runtime = {"pyro": pyro_backend, "numpyro": numpyro_backend}[backend].Runtime(
        Around() if kind == "program" else pair(backend), "cpu"
    )
    params = runtime.put(runtime.initialise(0, {"x": X}, "float32"))
    found = runtime.trace(params, runtime.put({"x": X}), np.arange(len(X)), 2_000, 0, None, True)
    assert sorted(found.kl) == sorted(n for n, (_, _, form) in AROUND_ONE.items() if form)
    for name, form in found.kl.items():
        ratio = np.asarray(found.log_q[name] - found.log_p[name], float)
        form = np.broadcast_to(form.sum(-1), ratio.shape)  # a point's depends on its place alone
        error = ratio.std(0) / len(ratio) ** 0.5
        assert (abs((form - ratio).mean(0)) < SIGMAS * error + 1e-5).all(), name
    assert (found.log_q["masked off"] == 0.0).all() and (found.log_p["masked off"] == 0.0).all()


@pytest.mark.parametrize(("dist", "of"), [(pyro_dist, pyro_vocabulary), (numpyro_dist, numpyro_vocabulary)])
def test_a_folded_distribution_has_not_the_kl_of_what_was_folded(dist, of):
    q, p = (dist.FoldedDistribution(dist.Normal(loc, 1.0)) for loc in (1.0, -1.0))  # the same density twice
    assert closed_form(q, p, of.LIBRARY) is None


class Correlated(Program):
    """A full covariance against a normal whose scale is one number."""

    event_shape: tuple[int, ...] = (1,)
    posterior: Posterior = FullCovarianceNormal()

    def build(self, context):
        context.net("encoder", MLP(hidden=(4,)), (1,), context.part(self.posterior, (2,), label="guide"))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.full((2,), 0.0), 2.0).to_event(1))
            P.sample("x", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.posterior(P, P.net("encoder")(x)))


@pytest.mark.parametrize("backend", [pyro_backend, numpyro_backend])
def test_a_full_covariance_takes_a_prior_of_one_scale(backend):
    runtime = backend.Runtime(Correlated(), "cpu")
    params = runtime.put(runtime.initialise(0, {"x": X}, "float32"))
    found = runtime.trace(params, runtime.put({"x": X}), np.arange(len(X)), 2_000, 0, None, True)
    ratio = np.asarray(found.log_q["z"] - found.log_p["z"], float)
    assert (abs(found.kl["z"].sum(-1) - ratio.mean(0)) < SIGMAS * ratio.std(0) / 2_000**0.5).all()


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_the_elbo_of_an_autoguide_over_bounded_latents(backend):
    """z ~ Gamma(2, 1), x | z ~ Exponential(z), q(log z) = N(m, s²): E_q(3u − (1 + x) eᵘ) + ½ log(2πe s²)."""
    lib, dist = (pyro, pyro_dist) if backend == "pyro" else (numpyro, numpyro_dist)
    x, k = np.array([0.3, 0.9, 2.0], np.float32), 4_000

    def model(x):
        with lib.plate("data", x.shape[0]):
            z = lib.sample("z", dist.Gamma(2.0, 1.0))
            lib.sample("x", dist.Exponential(z), obs=x)

    guides = pyro.infer.autoguide if backend == "pyro" else numpyro.infer.autoguide
    program = getattr(Program, f"from_{backend}")(model, guides.AutoNormal(model))
    runtime = {"pyro": pyro_backend, "numpyro": numpyro_backend}[backend].Runtime(program, "cpu")
    values = runtime.initialise(0, {"x": x}, "float32")
    loc, raw = (next(v for n, v in values.items() if word in n) for word in ("loc", "scale"))
    loc[:], raw[:] = [0.1, -0.2, -0.5], 0.0
    s = np.log(2.0)  # softplus(0)
    params = runtime.put(values)
    found = runtime.trace(params, runtime.put({"x": x}), np.arange(3), k, 0, None, True)
    terms = np.asarray(
        found.log_p["x"]
        - sum(found.kl[n].sum(-1) if n in found.kl else found.log_q[n] - found.log_p[n] for n in found.log_q),
        float,
    )
    exact = 3 * loc - (1 + x) * np.exp(loc + s**2 / 2) + 0.5 * np.log(2 * np.pi * np.e * s**2)
    assert (abs(terms.mean(0) - exact) < SIGMAS * terms.std(0) / k**0.5).all()
