"""Published Pyro programs with latents that all data share: regressions, hierarchies, coins."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.transforms import ExpTransform
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal, init_to_mean
from pyro.nn import PyroModule, PyroSample
from torch import nn

from benchmarks.published.listing import Made, binary, choices, counts, normal, published

N = 40
CHAINS = "AutoNormal; published with NUTS"


def _ruggedness() -> dict:
    return {"is_cont_africa": binary(N), "ruggedness": normal(N), "log_gdp": normal(N) + 8.0}


def _gdp(is_cont_africa, ruggedness, log_gdp=None):
    a = pyro.sample("a", dist.Normal(0.0, 10.0))
    b_a = pyro.sample("bA", dist.Normal(0.0, 1.0))
    b_r = pyro.sample("bR", dist.Normal(0.0, 1.0))
    b_ar = pyro.sample("bAR", dist.Normal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
    mean = a + b_a * is_cont_africa + b_r * ruggedness + b_ar * is_cont_africa * ruggedness
    with pyro.plate("data", len(ruggedness)):
        return pyro.sample("obs", dist.Normal(mean, sigma), obs=log_gdp)


@published("pyro", "tutorial/source/bayesian_regression.ipynb", "data")
def bayesian_regression() -> Made:
    class Regression(PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = PyroModule[nn.Linear](3, 1)
            self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
            self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

        def forward(self, x, y=None):
            sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
            mean = self.linear(x).squeeze(-1)
            with pyro.plate("data", x.shape[0]):
                pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
            return mean

    model = Regression()
    return model, AutoDiagonalNormal(model), {"x": normal(N, 3), "y": normal(N)}


@published("pyro", "tutorial/source/bayesian_regression_ii.ipynb", "data")
def regression_with_a_guide() -> Made:
    def guide(is_cont_africa, ruggedness, log_gdp):
        positive = {"constraint": constraints.positive}
        a_loc, a_scale = pyro.param("a_loc", torch.tensor(0.0)), pyro.param("a_scale", torch.tensor(1.0), **positive)
        sigma_loc = pyro.param("sigma_loc", torch.tensor(1.0), **positive)
        loc = pyro.param("weights_loc", torch.randn(3))
        scale = pyro.param("weights_scale", torch.ones(3), **positive)
        pyro.sample("a", dist.Normal(a_loc, a_scale))
        for i, name in enumerate(("bA", "bR", "bAR")):
            pyro.sample(name, dist.Normal(loc[i], scale[i]))
        pyro.sample("sigma", dist.Normal(sigma_loc, torch.tensor(0.05)))

    return _gdp, guide, _ruggedness()


@published("pyro", "tutorial/source/bayesian_regression_ii.ipynb", "data")
def regression_auto_multivariate() -> Made:
    return _gdp, AutoMultivariateNormal(_gdp, init_loc_fn=init_to_mean), _ruggedness()


@published("pyro", "tutorial/source/intro_long.ipynb", "data")
def intro_without_latents() -> Made:
    def model(is_cont_africa, ruggedness, log_gdp=None):
        a, b_a, b_r, b_ar = (pyro.param(n, lambda: torch.randn(())) for n in ("a", "bA", "bR", "bAR"))
        sigma = pyro.param("sigma", lambda: torch.ones(()), constraint=constraints.positive)
        mean = a + b_a * is_cont_africa + b_r * ruggedness + b_ar * is_cont_africa * ruggedness
        with pyro.plate("data", len(ruggedness)):
            return pyro.sample("obs", dist.Normal(mean, sigma), obs=log_gdp)

    return model, (lambda is_cont_africa, ruggedness, log_gdp=None: None), _ruggedness()


@published("pyro", "tutorial/source/intro_long.ipynb", "data")
def intro_auto_normal() -> Made:
    return _gdp, AutoNormal(_gdp), _ruggedness()


@published("pyro", "tutorial/source/jit.ipynb", "data")
def jit() -> Made:
    def model(data):
        loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 3.0))
        with pyro.plate("data", data.size(0)):
            pyro.sample("obs", dist.Normal(loc, scale), obs=data)

    return model, AutoDiagonalNormal(model), {"data": normal(N)}


def _coin(prior):
    def model(data):
        f = pyro.sample("latent_fairness", prior())
        with pyro.plate("data", data.size(0)):
            pyro.sample("obs", dist.Bernoulli(f), obs=data)

    return model


@published("pyro", "tutorial/source/mle_map.ipynb", "data")
def coin_map() -> Made:
    model = _coin(lambda: dist.Beta(10.0, 10.0))
    return model, AutoDelta(model), {"data": binary(10)}


@published("pyro", "tutorial/source/mle_map.ipynb", "data")
def coin_mle_by_a_masked_prior() -> Made:
    model = _coin(lambda: dist.Beta(10.0, 10.0).mask(False))
    return model, AutoDelta(model), {"data": binary(10)}


@published("pyro", "tutorial/source/mle_map.ipynb", "data")
def coin_map_uniform_prior() -> Made:
    model = _coin(lambda: dist.Uniform(low=0.0, high=1.0))
    return model, AutoDelta(model), {"data": binary(10)}


@published("pyro", "tutorial/source/mle_map.ipynb", "data")
def coin_mle() -> Made:
    def model(data):
        f = pyro.param("latent_fairness", torch.tensor(0.5), constraint=constraints.unit_interval)
        with pyro.plate("data", data.size(0)):
            pyro.sample("obs", dist.Bernoulli(f), obs=data)

    def guide(data):
        pass

    return model, guide, {"data": binary(10)}


@published("pyro", "tutorial/source/svi_part_iii.ipynb", "data_plate", "the data are an argument")
def coin_in_a_plate_without_a_size() -> Made:
    def model(data):
        f = pyro.sample("latent_fairness", dist.Beta(10.0, 10.0))
        with pyro.plate("data_plate"):
            pyro.sample("obs", dist.Bernoulli(f), obs=data)

    def guide(data):
        alpha = pyro.param("alpha_q", torch.tensor(15.0), constraint=constraints.positive)
        beta = pyro.param("beta_q", torch.tensor(15.0), constraint=constraints.positive)
        pyro.sample("latent_fairness", dist.Beta(alpha, beta))

    return model, guide, {"data": binary(10)}


@published("pyro", "tutorial/source/svi_part_ii.ipynb", "observe_data")
def coin_subsampled() -> Made:
    def model(data):
        f = pyro.sample("latent_fairness", dist.Beta(10.0, 10.0))
        with pyro.plate("observe_data", size=10, subsample_size=5) as ind:
            pyro.sample("obs", dist.Bernoulli(f), obs=data.index_select(0, ind))

    def guide(data):
        alpha = pyro.param("alpha_q", torch.tensor(15.0), constraint=constraints.positive)
        beta = pyro.param("beta_q", torch.tensor(15.0), constraint=constraints.positive)
        pyro.sample("latent_fairness", dist.Beta(alpha, beta))

    return model, guide, {"data": binary(10)}


@published("pyro", "tutorial/source/prodlda.ipynb", "data", guide="AutoNormal; published with NUTS")
def dice() -> Made:
    def model(data):
        theta = pyro.sample("theta", dist.Dirichlet(torch.ones(6)))
        with pyro.plate("data", len(data)):
            pyro.sample("obs", dist.Categorical(theta), obs=data)

    return model, AutoNormal(model), {"data": choices(6, N)}


@published("pyro", "tutorial/source/boosting_bbvi.ipynb", "data")
def boosting_as_it_is() -> Made:
    return *_boosting(), {"data": normal(N, 1)}


@published(
    "pyro", "tutorial/source/boosting_bbvi.ipynb", "data", "data of shape [N]: in [N, 1] each x meets each plate index"
)
def boosting() -> Made:
    return *_boosting(), {"data": normal(N)}


def _boosting() -> tuple:
    def model(data):
        z = pyro.sample("z", dist.Normal(torch.tensor([0.0]), torch.tensor([5.0])))
        with pyro.plate("data", len(data)):
            pyro.sample("x", dist.Normal(z * z, torch.tensor([0.1])), obs=data)

    def guide(data):
        scale = pyro.param("scale_0", torch.tensor([1.0]), constraints.positive)
        pyro.sample("z", dist.Normal(pyro.param("loc_0", torch.tensor([0.0])), scale))

    return model, guide


@published("pyro", "examples/eight_schools/svi.py", "data")
def eight_schools() -> Made:
    import numpy as np

    schools = 8

    def model(data):
        y, sigma = data[:, 0], data[:, 1]
        with pyro.plate("data", schools):
            eta = pyro.sample("eta", dist.Normal(torch.zeros(schools), torch.ones(schools)))
            mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 10 * torch.ones(1)))
            tau = pyro.sample("tau", dist.HalfCauchy(scale=25 * torch.ones(1)))
            pyro.sample("obs", dist.Normal(mu + tau * eta, sigma), obs=y)

    def guide(data):
        positive = {"constraint": constraints.positive}
        m_eta = pyro.param("loc_eta", torch.randn(schools))
        s_eta = pyro.param("scale_eta", 0.1 * torch.rand(schools), **positive)
        m_mu, s_mu = pyro.param("loc_mu", torch.randn(1)), pyro.param("scale_mu", 0.1 * torch.rand(1), **positive)
        m_tau = pyro.param("loc_logtau", torch.randn(1))
        s_tau = pyro.param("scale_logtau", 0.1 * torch.rand(1), **positive)
        with pyro.plate("data", schools):
            pyro.sample("eta", dist.Normal(m_eta, s_eta))
            pyro.sample("mu", dist.Normal(m_mu, s_mu))
            pyro.sample("tau", dist.TransformedDistribution(dist.Normal(m_tau, s_tau), transforms=ExpTransform()))

    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12], "float32")
    sigma = np.array([15.0, 10, 16, 11, 9, 11, 10, 18], "float32")
    return model, guide, {"data": np.stack([y, sigma], 1)}


def _baseball() -> dict:
    import numpy as np

    at_bats = np.full(18, 45.0, "float32")
    return {"at_bats": at_bats, "hits": 8.0 + counts(18, rate=5.0)}


def _listed_baseball(name: str, model) -> None:
    def make() -> Made:
        return model, AutoNormal(model), _baseball()

    make.__name__ = name
    published("pyro", "examples/baseball.py", "num_players", guide=CHAINS)(make)


def _fully_pooled(at_bats, hits):
    phi = pyro.sample("phi", dist.Uniform(at_bats.new_zeros(()), at_bats.new_ones(())))
    with pyro.plate("num_players", at_bats.shape[0]):
        return pyro.sample("obs", dist.Binomial(at_bats, phi), obs=hits)


def _not_pooled(at_bats, hits):
    with pyro.plate("num_players", at_bats.shape[0]):
        phi = pyro.sample("phi", dist.Uniform(at_bats.new_zeros(()), at_bats.new_ones(())))
        return pyro.sample("obs", dist.Binomial(at_bats, phi), obs=hits)


def _partially_pooled(at_bats, hits):
    m = pyro.sample("m", dist.Uniform(at_bats.new_zeros(()), at_bats.new_ones(())))
    kappa = pyro.sample("kappa", dist.Pareto(at_bats.new_ones(()), at_bats.new_tensor(1.5)))
    with pyro.plate("num_players", at_bats.shape[0]):
        phi = pyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
        return pyro.sample("obs", dist.Binomial(at_bats, phi), obs=hits)


def _partially_pooled_with_logit(at_bats, hits):
    loc = pyro.sample("loc", dist.Normal(at_bats.new_tensor(-1.0), at_bats.new_ones(())))
    scale = pyro.sample("scale", dist.HalfCauchy(scale=at_bats.new_ones(())))
    with pyro.plate("num_players", at_bats.shape[0]):
        alpha = pyro.sample("alpha", dist.Normal(loc, scale))
        return pyro.sample("obs", dist.Binomial(at_bats, logits=alpha), obs=hits)


for _name, _model in (
    ("baseball_fully_pooled", _fully_pooled),
    ("baseball_not_pooled", _not_pooled),
    ("baseball_partially_pooled", _partially_pooled),
    ("baseball_partially_pooled_with_logit", _partially_pooled_with_logit),
):
    _listed_baseball(_name, _model)


@published("pyro", "examples/svi_torch.py", "data")
def svi_torch() -> Made:
    class Model(PyroModule):
        def __init__(self, size: int):
            super().__init__()
            self.size = size
            self.register_buffer("zero", torch.tensor(0.0))

        def forward(self, covariates, data=None):
            coeff = pyro.sample("coeff", dist.Normal(self.zero, 1))
            bias = pyro.sample("bias", dist.Normal(self.zero, 1))
            scale = pyro.sample("scale", dist.LogNormal(self.zero, 1))
            with pyro.plate("data", self.size, len(covariates)):
                return pyro.sample("obs", dist.Normal(bias + coeff * covariates, scale), obs=data)

    model = Model(N)
    return model, AutoNormal(model), {"covariates": normal(N), "data": normal(N)}


@published("pyro", "examples/lkj.py", "observations", guide=CHAINS)
def lkj() -> Made:
    d = 3

    def model(y):
        theta = pyro.sample("theta", dist.HalfCauchy(torch.ones(d)).to_event(1))
        corr = pyro.sample("L_omega", dist.LKJCholesky(d, torch.ones(())))
        scale = torch.mm(torch.diag(theta.sqrt()), corr)
        with pyro.plate("observations", len(y)):
            return pyro.sample("obs", dist.MultivariateNormal(torch.zeros(d), scale_tril=scale), obs=y)

    return model, AutoNormal(model), {"y": normal(N, d)}


@published("pyro", "tutorial/source/tensor_shapes.ipynb", "data", guide="a normal; none is published")
def tensor_shapes_subsampling() -> Made:
    def model(data):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(data), subsample_size=10) as ind:
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=data[ind])

    return model, AutoDelta(model), {"data": normal(N, 3)}


@published("pyro", "tutorial/source/enumeration.ipynb", "data", guide="AutoDelta; none is published")
def enumeration_gaussian_mixture() -> Made:
    from pyro import poutine

    components = 3

    def model(data):
        p = pyro.sample("p", dist.Dirichlet(0.5 * torch.ones(components)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("components", components):
            loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(data)):
            x = pyro.sample("x", dist.Categorical(p), infer={"enumerate": "parallel"})
            pyro.sample("obs", dist.Normal(loc[x], scale), obs=data)

    return model, AutoDelta(poutine.block(model, hide=["x", "obs"])), {"data": normal(N)}
