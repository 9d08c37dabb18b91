"""What is combined: parts, nets, engines and backends, and the program and data that they make."""

from __future__ import annotations

import numpy as np

import ppdgm
from ppdgm.inference import SVI, Linear
from ppdgm.models import (
    IAF,
    MAF,
    MLP,
    VAE,
    AutoregressivePrior,
    Bernoulli,
    BernoulliPrior,
    Categorical,
    CategoricalPrior,
    ContinuousBernoulli,
    ConvDecoder,
    ConvEncoder,
    DiagonalLaplace,
    DiagonalLogistic,
    DiagonalNormal,
    DiagonalStudentT,
    DiscretisedLogistic,
    FlowPosterior,
    FlowPrior,
    FullCovarianceNormal,
    GatedMLP,
    Gaussian,
    GumbelSoftmax,
    Laplace,
    MixtureOfDiscretisedLogistics,
    MixtureOfGaussians,
    NegativeBinomial,
    Planar,
    Poisson,
    RealNVP,
    RelaxedBernoulli,
    ResidualMLP,
    RQSpline,
    StandardNormal,
    Sylvester,
    VampPrior,
    ZeroInflatedNegativeBinomial,
)

LEVELS = 9
STEPS, BATCH, RATE = 200, 100, 3e-3
FLOW = {"hidden": (32,), "depth": 2}
MLPS = MLP(hidden=(100,))
CONV = {"activation": "silu", "norm": "group", "groups": 4}

PRIORS = {
    "standard": StandardNormal(),
    "mog": MixtureOfGaussians(components=20),
    "vamp": VampPrior(components=30),
    "realnvp prior": FlowPrior(flow=RealNVP(**FLOW)),
    "maf prior": FlowPrior(flow=MAF(**FLOW)),
    "spline prior": FlowPrior(flow=RQSpline(**FLOW)),
    "autoregressive": AutoregressivePrior(hidden=(32,), components=3),
    "categorical prior": CategoricalPrior(weights="learned"),
    "bernoulli prior": BernoulliPrior(probs="learned"),
}
POSTERIORS = {
    "normal": DiagonalNormal(),
    "full covariance": FullCovarianceNormal(),
    "laplace": DiagonalLaplace(),
    "logistic": DiagonalLogistic(),
    "student": DiagonalStudentT(),
    "planar": FlowPosterior(flow=Planar(depth=4)),
    "sylvester": FlowPosterior(flow=Sylvester(depth=2)),
    "iaf": FlowPosterior(flow=IAF(**FLOW)),
    "realnvp": FlowPosterior(flow=RealNVP(**FLOW)),
    "spline": FlowPosterior(flow=RQSpline(**FLOW)),
    "gumbel": GumbelSoftmax(classes=4, embedding=8),
    "gumbel relaxed": GumbelSoftmax(classes=4, kl="relaxed", temperature=Linear(start=1.0, end=0.5, steps=STEPS)),
    "straight-through": GumbelSoftmax(classes=4, straight_through=True),
    "enumerated": GumbelSoftmax(classes=4, enumerate=True),
    "relaxed bernoulli": RelaxedBernoulli(),
    "relaxed bernoulli, relaxed kl": RelaxedBernoulli(kl="relaxed", temperature="learned"),
    "enumerated bits": RelaxedBernoulli(enumerate=True),
}
LIKELIHOODS = {
    "bernoulli": Bernoulli(),
    "continuous bernoulli": ContinuousBernoulli(),
    "gaussian": Gaussian(scale="network"),
    "laplace": Laplace(scale="network"),
    "categorical": Categorical(levels=LEVELS),
    "discretised logistic": DiscretisedLogistic(levels=LEVELS),
    "logistics": MixtureOfDiscretisedLogistics(levels=LEVELS, components=3),
    "poisson": Poisson(),
    "negative binomial": NegativeBinomial(inverse_dispersion="network"),
    "zero-inflated": ZeroInflatedNegativeBinomial(inverse_dispersion="network"),
}
NETS = {
    "mlp": (MLPS, MLPS),
    "gated": (GatedMLP(hidden=(100,)), GatedMLP(hidden=(100,))),
    "residual": (ResidualMLP(width=64, blocks=1), ResidualMLP(width=64, blocks=1)),
    "convolutions": (ConvEncoder(channels=(16, 32), **CONV), ConvDecoder(channels=(32, 16), **CONV)),
}
# A short KL warm-up: without one a VampPrior's encoder may ignore x for more than 200 steps, because its KL is then 0.
SHORT = Linear(start=0.0, end=1.0, steps=STEPS // 4)
ENGINES = {
    "svi": SVI(beta=SHORT),
    "svi, k = 4": SVI(k=4, beta=SHORT),
    "monte carlo": SVI(kl="monte_carlo", beta=SHORT),
    "long warm-up": SVI(beta=Linear(start=0.0, end=1.0, steps=STEPS // 2)),
}
BACKENDS = {"numpyro": "numpyro", "pyro": "pyro"}
FACTORS = {
    "prior": PRIORS,
    "posterior": POSTERIORS,
    "likelihood": LIKELIHOODS,
    "net": NETS,
    "engine": ENGINES,
    "backend": BACKENDS,
}

REAL = ("gaussian", "laplace")
COUNTS = ("poisson", "negative binomial", "zero-inflated")

Row = tuple[str, ...]  # a choice for each of FACTORS, in their order


def make_program(row: Row) -> VAE:
    """The VAE of a row. Raises PpdgmError if its parts are refused."""
    prior, posterior, likelihood, net = (FACTORS[f][c] for f, c in zip(FACTORS, row[:4], strict=False))
    if row[0] == "vamp" and row[2] not in ("bernoulli", "continuous bernoulli"):
        prior = prior.replace(range="real")  # pseudo-inputs among data that are not in [0, 1]
    latent = 8
    if posterior.family == "categorical" and posterior.enumerate:
        latent = 4  # 256 joint values
    if posterior.family == "binary" and not posterior.enumerate:
        latent = 32  # a bit carries less information than a number
    encoder, decoder = net
    return VAE(
        event_shape=(8, 8),
        latent=latent,
        prior=prior,
        posterior=posterior,
        likelihood=likelihood,
        encoder=encoder,
        decoder=decoder,
    )


def data_for(likelihood: str) -> tuple[np.ndarray, np.ndarray]:
    """Digits for training and held-out digits, in the form that the likelihood takes.

    Bits, 9 levels, or counts up to 4. Densities get noise, because pixels that are always 0 have no density to fit.
    """
    data = ppdgm.load_data("digits", scale="none", binarise="none")
    rng = np.random.default_rng(0)

    def prepared(x: np.ndarray) -> np.ndarray:
        if likelihood == "bernoulli":
            return x > 8
        if likelihood == "continuous bernoulli":
            return 0.8 * np.clip(x / 8 - 0.5, 0, 1) + 0.2 * rng.uniform(size=x.shape)
        if likelihood in REAL:
            return x / 8 - 1 + 0.25 * rng.normal(size=x.shape)
        return x // 4 if likelihood in COUNTS else x // 2

    return prepared(np.asarray(data.train)).astype(np.float32), prepared(np.asarray(data.test)).astype(np.float32)
