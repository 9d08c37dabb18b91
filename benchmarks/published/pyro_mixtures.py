"""Published Pyro programs: mixtures, and the tutorial of easy guides."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.easyguide import easy_guide
from pyro.distributions import constraints
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta
from pyro.ops.indexing import Vindex
from torch import nn

from benchmarks.published.listing import Made, binary, counts, normal, published

N = 40


@published("pyro", "examples/contrib/autoname/scoping_mixture.py", "data")
def scoping_mixture() -> Made:
    from pyro.contrib.autoname import scope

    k = 2

    def model(data):
        weights = pyro.param("weights", torch.ones(k) / k, constraint=constraints.simplex)
        locs = pyro.param("locs", 10 * torch.randn(k))
        scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
        with pyro.plate("data"):
            return local_model(weights, locs, scale, data)

    @scope(prefix="local")
    def local_model(weights, locs, scale, data):
        assignment = pyro.sample("assignment", dist.Categorical(weights).expand_by([len(data)]))
        return pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    def guide(data):
        probs = pyro.param("assignment_probs", torch.ones(len(data), k) / k, constraint=constraints.unit_interval)
        with pyro.plate("data"):
            return local_guide(probs)

    @scope(prefix="local")
    def local_guide(probs):
        return pyro.sample("assignment", dist.Categorical(probs))

    return model, config_enumerate(guide), {"data": 10 * normal(N)}


def _gmm() -> object:
    k = 2

    @config_enumerate
    def model(data):
        weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(k)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyro.plate("components", k):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(data)):
            assignment = pyro.sample("assignment", dist.Categorical(weights))
            pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    return model


@published("pyro", "tutorial/source/gmm.ipynb", "data")
def gmm() -> Made:
    model = _gmm()
    return model, AutoDelta(poutine.block(model, expose=["weights", "locs", "scale"])), {"data": normal(N)}


@published("pyro", "tutorial/source/gmm.ipynb", "data")
def gmm_full_guide() -> Made:
    model, k = _gmm(), 2
    globals_of = AutoDelta(poutine.block(model, expose=["weights", "locs", "scale"]))

    @config_enumerate
    def guide(data):
        globals_of(data)
        with pyro.plate("data", len(data)):
            probs = pyro.param("assignment_probs", torch.ones(len(data), k) / k, constraint=constraints.simplex)
            pyro.sample("assignment", dist.Categorical(probs))

    return model, guide, {"data": normal(N)}


@published("pyro", "examples/toy_mixture_model_discrete_enumeration.py", "data_plate", "the dictionary obs is fields")
def toy_mixture() -> Made:
    prior = {"A": torch.tensor([1.0, 10.0]), "B": torch.tensor([[10.0, 1.0], [1.0, 10.0]])}

    @config_enumerate
    def model(A, C):
        p_a = pyro.sample("p_A", dist.Beta(1, 1))
        p_b = pyro.sample("p_B", dist.Beta(torch.ones(2), torch.ones(2)).to_event(1))
        p_c = pyro.sample("p_C", dist.Beta(torch.ones(2), torch.ones(2)).to_event(1))
        with pyro.plate("data_plate", len(A)):
            a = pyro.sample("A", dist.Bernoulli(p_a.expand(len(A))), obs=A)
            b = pyro.sample("B", dist.Bernoulli(Vindex(p_b)[a.long()]), infer={"enumerate": "parallel"})
            pyro.sample("C", dist.Bernoulli(Vindex(p_c)[b.long()]), obs=C)

    def guide(A, C):
        a = pyro.param("a", prior["A"], constraint=constraints.positive)
        pyro.sample("p_A", dist.Beta(a[0], a[1]))
        b = pyro.param("b", prior["B"], constraint=constraints.positive)
        pyro.sample("p_B", dist.Beta(b[:, 0], b[:, 1]).to_event(1))
        c = pyro.param("c", prior["B"], constraint=constraints.positive)
        pyro.sample("p_C", dist.Beta(c[:, 0], c[:, 1]).to_event(1))

    return model, guide, {"A": binary(N), "C": binary(N)}


def _dirichlet_process(counted: bool) -> Made:
    t, alpha = 4, 1.1

    def weights(beta):
        left = (1 - beta).cumprod(-1)
        return nn.functional.pad(beta, (0, 1), value=1) * nn.functional.pad(left, (1, 0), value=1)

    def model(data):
        with pyro.plate("beta_plate", t - 1):
            beta = pyro.sample("beta", dist.Beta(1, alpha))
        with pyro.plate("component_plate", t):
            prior = dist.Gamma(3, 0.5) if counted else dist.MultivariateNormal(torch.zeros(2), 5 * torch.eye(2))
            mu = pyro.sample("mu", prior)
        with pyro.plate("data", N):
            z = pyro.sample("z", dist.Categorical(weights(beta)))
            seen = dist.Poisson(mu[z]) if counted else dist.MultivariateNormal(mu[z], torch.eye(2))
            pyro.sample("obs", seen, obs=data)

    def guide(data):
        kappa = pyro.param("kappa", lambda: dist.Uniform(0, 2).sample([t - 1]), constraint=constraints.positive)
        phi = pyro.param("phi", lambda: dist.Dirichlet(torch.ones(t) / t).sample([N]), constraint=constraints.simplex)
        with pyro.plate("beta_plate", t - 1):
            pyro.sample("beta", dist.Beta(torch.ones(t - 1), kappa))
        with pyro.plate("component_plate", t):
            if counted:
                rate = pyro.param("tau", lambda: 1.0 + torch.rand(t), constraint=constraints.positive)
                pyro.sample("mu", dist.Gamma(2.0 * rate, rate))
            else:
                tau = pyro.param("tau", lambda: torch.randn(t, 2))
                pyro.sample("mu", dist.MultivariateNormal(tau, torch.eye(2)))
        with pyro.plate("data", N):
            pyro.sample("z", dist.Categorical(phi))

    return model, guide, {"data": counts(N, rate=6.0) if counted else normal(N, 2)}


@published("pyro", "tutorial/source/dirichlet_process_mixture.ipynb", "data")
def dirichlet_process_of_normals() -> Made:
    return _dirichlet_process(False)


@published("pyro", "tutorial/source/dirichlet_process_mixture.ipynb", "data")
def dirichlet_process_of_counts() -> Made:
    return _dirichlet_process(True)


def _states(batch: torch.Tensor, plate) -> None:
    drift, z = pyro.sample("drift", dist.LogNormal(-1, 0.5)), 0.0
    with plate as i:
        for t in range(batch.shape[1]):
            z = pyro.sample(f"state_{t}", dist.Normal(z, drift))
            pyro.sample(f"obs_{t}", dist.Bernoulli(logits=z), obs=batch[i, t])


_ROWS = "sequences are rows, and the plate draws the subsample, which the tutorial hands over"


@published("pyro", "tutorial/source/easyguide.ipynb", "data", _ROWS)
def easyguide_by_hand() -> Made:
    def model(batch):
        _states(batch, pyro.plate("data", len(batch), subsample_size=8))

    def guide(batch):
        steps = batch.shape[1]
        loc = pyro.param("drift_loc", lambda: torch.tensor(0.1), constraint=constraints.positive)
        pyro.sample("drift", dist.Delta(loc))
        diagonal = pyro.param("diag", lambda: torch.full((steps,), 0.01), constraint=constraints.positive)
        factor = pyro.param("factor", lambda: torch.randn(steps, 3) * 0.01)
        with pyro.plate("data", len(batch), subsample_size=8):
            loc = pyro.param("state_loc", lambda: torch.full((len(batch), steps), 0.5), event_dim=1)
            joint = dist.LowRankMultivariateNormal(loc, factor, diagonal)
            states = pyro.sample("states", joint, infer={"is_auxiliary": True})
            for t in range(steps):
                pyro.sample(f"state_{t}", dist.Delta(states[:, t]))

    return model, guide, {"batch": binary(N, 3)}


@published("pyro", "tutorial/source/easyguide.ipynb", "data", _ROWS + "; all of them")
def easyguide_with_parameters() -> Made:
    def model(batch):
        _states(batch, pyro.plate("data", len(batch)))

    @easy_guide(model)
    def guide(self, batch):
        self.map_estimate("drift")
        group = self.group(match="state_[0-9]*")
        size = group.event_shape
        diagonal = pyro.param("diag", lambda: torch.full(size, 0.01), constraint=constraints.positive)
        factor = pyro.param("factor", lambda: torch.randn((*size, 3)) * 0.01)
        with self.plate("data", len(batch)):
            loc = pyro.param("state_loc", lambda: torch.full((len(batch), *size), 0.5), event_dim=1)
            group.sample("states", dist.LowRankMultivariateNormal(loc, factor, diagonal))

    return model, guide, {"batch": binary(N, 3)}
