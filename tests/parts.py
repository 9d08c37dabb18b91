"""Small instances of the public parts, for `ppdgm.testing.check`. A part that is not here is checked as it is."""

import numpy as np

from ppdgm.catalogue import public_specs
from ppdgm.models import (
    GRU,
    IAF,
    LSTM,
    MADE,
    MAF,
    MLP,
    NAF,
    NICE,
    PPCA,
    VAE,
    VQVAE2,
    ActNorm,
    AggregatedPosterior,
    Autoencoder,
    Autoregressive,
    AutoregressiveModel,
    AutoregressivePrior,
    BernoulliPrior,
    Categorical,
    CategoricalPrior,
    CDFFlow,
    Chain,
    CodePrior,
    ConditionalVAE,
    ContinuousFlow,
    ConvDecoder,
    ConvEncoder,
    CoupledDiscretisedLogistics,
    Dequantised,
    DiagonalGamma,
    DiagonalLogNormal,
    DiagonalNormal,
    DiagonalWeibull,
    DirichletPosterior,
    DirichletPrior,
    Discretised,
    DiscretisedLogistic,
    FactorAnalysis,
    Flow,
    FlowLikelihood,
    FlowModel,
    FlowPosterior,
    FlowPrior,
    FullCovarianceNormal,
    GatedMLP,
    GatedPixelCNN,
    Gaussian,
    GaussianMixture,
    Glow,
    GumbelSoftmax,
    HierarchicalVAE,
    InvertibleLinear,
    IRevNet,
    Laplace,
    Likelihood,
    MixtureOfDiscretisedLogistics,
    MixtureOfGaussians,
    MixtureVAE,
    NegativeBinomial,
    Net,
    OneHot,
    PixelCNNPlusPlus,
    PixelSNAIL,
    Planar,
    Posterior,
    Prior,
    ProdLDA,
    Program,
    RealNVP,
    RelaxedBernoulli,
    ResidualMLP,
    RevNet,
    RQSpline,
    SemiSupervisedVAE,
    Sylvester,
    Table,
    Transformer,
    VampPrior,
    VectorQuantised,
    WaveNet,
    Windowed,
    ZeroInflatedNegativeBinomial,
)

#: One backend only; no plain net; draws need totals; its penalty can't be both the model's and the guide's.
NOT_ALONE = ("ForeignNet", "OrderAgnosticMADE", "Multinomial", "VectorQuantised")
FAMILIES = (Prior, Posterior, Likelihood, Flow, Net, Program)
NET = MLP(hidden=(4,))
VAES = {"event_shape": (3,), "latent": 2, "encoder": NET, "decoder": NET}
PIXELS = GatedPixelCNN(channels=4, layers=2, first_kernel=3, hidden=4)
FEW_PIXELS = GatedPixelCNN(channels=2, layers=1, first_kernel=3, hidden=2)
CONV = {"channels": (2,), "kernel": 3, "activation": "silu"}
FLOW = {"depth": 2, "hidden": (4,), "context_size": 2, "activation": "tanh"}


def binary(rng, size):
    return {"x": rng.normal(size=(size, 3)) > 0}


def real(rng, size):
    return {"x": rng.normal(size=(size, 3)), "y": rng.normal(size=(size, 2))}


def levels(rng, size):
    return {"x": rng.integers(3, size=(size, 2, 2, 2)), "label": rng.integers(3, size=size)}


def counted(rng, size):
    return {"x": rng.integers(5, size=(size, 3))}


def quarters(rng, size):
    return {"x": rng.integers(4, size=(size, 3))}


def labelled(missing):
    return lambda rng, size: {**binary(rng, size), "label": np.arange(size) % 3 - missing}


# class -> [(instance, options of check)]
INSTANCES = {
    MixtureOfGaussians: [(MixtureOfGaussians(components=3), {})],
    VampPrior: [(VampPrior(components=3, weights="learned"), {})],
    AggregatedPosterior: [(AggregatedPosterior(components=5), {})],
    DiagonalLogNormal: [(DiagonalLogNormal(max_scale=0.7), {})],  # a small one: the mean of few draws is near E z
    DiagonalWeibull: [(DiagonalWeibull(max_scale=0.9), {})],
    DiagonalGamma: [(DiagonalGamma(min_concentration=1.5, min_rate=0.1), {})],
    DirichletPosterior: [(DirichletPosterior(), {"shape": (3,)})],
    DirichletPrior: [(DirichletPrior(concentration=2.0), {"shape": (3,)})],
    FlowPrior: [(FlowPrior(flow=RealNVP(**FLOW)), {})],
    AutoregressivePrior: [(AutoregressivePrior(hidden=(4,), components=2), {})],
    CategoricalPrior: [(CategoricalPrior(weights="learned"), {"shape": (1,)})],
    CodePrior: [
        (CodePrior(net=Transformer(width=4, layers=1, heads=2)), {"shape": (2,), "skip": ["slopes", "mode"]}),
    ],
    BernoulliPrior: [(BernoulliPrior(probs="learned"), {})],
    FlowPosterior: [(FlowPosterior(flow=RealNVP(**FLOW), initial=FullCovarianceNormal()), {"still": ["head"]})],
    FullCovarianceNormal: [
        (FullCovarianceNormal(), {"still": {"head": "the Cholesky factor's head is square; half of it is unread"}})
    ],
    GumbelSoftmax: [
        (GumbelSoftmax(classes=3, embedding=2, kl="relaxed"), {}),
        (GumbelSoftmax(classes=3, straight_through=True), {"skip": ["slopes"]}),  # the gradient is another's by design
        (GumbelSoftmax(classes=3, enumerate=True), {}),
    ],
    RelaxedBernoulli: [(RelaxedBernoulli(), {}), (RelaxedBernoulli(enumerate=True), {})],
    Categorical: [(Categorical(levels=4), {})],
    OneHot: [(OneHot(), {"shape": (2, 3), "skip": ["density", "samples"]})],  # whose sums are in test_codes.py
    Gaussian: [(Gaussian(scale="network", min_scale=0.1), {}), (Gaussian(scale=0.5), {})],
    Discretised: [
        (Discretised(levels=8), {}),
        (Discretised(levels=5, of=Laplace(scale="per_dimension")), {}),
    ],
    DiscretisedLogistic: [(DiscretisedLogistic(levels=8), {})],
    MixtureOfDiscretisedLogistics: [(MixtureOfDiscretisedLogistics(levels=8, components=2), {})],
    CoupledDiscretisedLogistics: [
        (CoupledDiscretisedLogistics(levels=3, components=2), {"shape": (3, 1, 2)}),
        (CoupledDiscretisedLogistics(levels=8, components=2), {}),
    ],
    Autoregressive: [
        (Autoregressive(net=MADE(hidden=(5,)), condition=(2,)), {}),
        (Autoregressive(net=FEW_PIXELS, each=Categorical(levels=2), condition=(2, 2, 1)), {"shape": (2, 2, 1)}),
    ],
    FlowLikelihood: [(FlowLikelihood(flow=RealNVP(**FLOW)), {})],
    Table: [(Table(columns=("real", "date", "real")), {})],
    NegativeBinomial: [(NegativeBinomial(inverse_dispersion="network"), {})],
    ZeroInflatedNegativeBinomial: [(ZeroInflatedNegativeBinomial(), {})],
    IAF: [(IAF(**FLOW), {})],
    MAF: [(MAF(**FLOW), {})],
    NAF: [
        (NAF(units=2, **FLOW | {"depth": 1}), {"skip": ["density", "samples"]}),  # many bisections: see the other one
        (NAF(units=3, one_pass="inverse", **FLOW), {}),
    ],
    CDFFlow: [(CDFFlow(components=2), {})],
    RealNVP: [(RealNVP(**FLOW), {})],
    NICE: [(NICE(**FLOW), {})],
    ActNorm: [(ActNorm(), {})],
    InvertibleLinear: [(InvertibleLinear(), {}), (InvertibleLinear(form="full"), {})],
    Chain: [(Chain(flows=(ActNorm(), RealNVP(**FLOW), InvertibleLinear(), RealNVP(**FLOW))), {})],
    ContinuousFlow: [(ContinuousFlow(hidden=(4,), steps=12, context_size=2), {})],
    Glow: [(Glow(image=(2, 4), levels=1, depth=2, hidden=3, context_size=2), {"shape": (2, 4)})],
    RQSpline: [(RQSpline(bins=3, **FLOW), {})],
    Planar: [(Planar(depth=3), {})],
    Sylvester: [(Sylvester(depth=2), {})],
    MLP: [(MLP(hidden=(4,), norm="layer"), {})],
    GatedMLP: [(GatedMLP(hidden=(4,)), {})],
    ResidualMLP: [(ResidualMLP(width=4, blocks=1), {})],
    RevNet: [(RevNet(width=4, blocks=2), {})],
    IRevNet: [(IRevNet(levels=1, blocks=1, hidden=2), {"inputs": (1, 4, 4), "shape": (2,)})],
    MADE: [(MADE(hidden=(4,)), {"inputs": (3,), "shape": (2, 3)})],
    GRU: [(GRU(width=3), {"inputs": (4,), "shape": (2, 4)})],
    LSTM: [(LSTM(width=3, position=True), {"inputs": (3, 2), "shape": (2, 3, 2)})],
    Windowed: [(Windowed(window=2, net=NET), {"inputs": (4,), "shape": (2, 4)})],
    WaveNet: [(WaveNet(channels=3, layers=2, hidden=8), {"inputs": (4,), "shape": (2, 4)})],
    GatedPixelCNN: [
        (PIXELS, {"inputs": (2, 3, 3), "shape": (2, 2, 3, 3)}),
        (PIXELS.replace(colours="together"), {"inputs": (2, 3, 3), "shape": (2, 2, 3, 3)}),
    ],
    Transformer: [(Transformer(width=4, layers=1, heads=2), {"inputs": (4,), "shape": (2, 4)})],
    PixelCNNPlusPlus: [
        (PixelCNNPlusPlus(channels=2, levels=2, blocks=1), {"inputs": (2, 2, 4), "shape": (2, 2, 2, 4)})
    ],
    PixelSNAIL: [
        (
            PixelSNAIL(channels=2, layers=1, blocks=1, key=2, value=2, dropout=0.2),
            {"inputs": (2, 3, 3), "shape": (2, 2, 3, 3)},
        )
    ],
    ConvEncoder: [(ConvEncoder(**CONV), {"inputs": (1, 6, 6), "shape": (2,)})],
    ConvDecoder: [(ConvDecoder(**CONV), {"inputs": (2,), "shape": (1, 6, 6)})],
    VAE: [(VAE(**VAES), {})],
    PPCA: [(PPCA(event_shape=(4,)), {})],
    FactorAnalysis: [(FactorAnalysis(event_shape=(4,)), {})],
    GaussianMixture: [(GaussianMixture(event_shape=(2,), components=3), {})],
    AutoregressiveModel: [
        (AutoregressiveModel(event_shape=(3,), net=MADE(hidden=(5,))), {"data": binary}),
        (
            AutoregressiveModel(event_shape=(2, 2, 2), net=PIXELS, likelihood=Categorical(levels=3), classes=3),
            {"data": levels},
        ),
    ],
    FlowModel: [
        (FlowModel(event_shape=(3,), flow=RealNVP(**FLOW), covariates=(2,), context=NET), {"data": real}),
    ],
    Dequantised: [
        (
            Dequantised(
                event_shape=(3,), levels=4, prior=FlowPrior(flow=RealNVP(**FLOW)), noise=DiagonalNormal(), net=NET
            ),
            {"data": quarters},
        ),
    ],
    ProdLDA: [
        (
            ProdLDA(event_shape=(3,), topics=2, decoder="mixture", encoder=NET),
            {"data": counted, "skip": ["density", "samples", "mean"]},
        ),
    ],
    VQVAE2: [
        (
            VQVAE2(
                event_shape=(3,),
                top=1,
                bottom=2,
                posterior=VectorQuantised(classes=3, embedding=2),
                encoder=NET,
                decoder=NET,
            ),
            {"skip": ["slopes"]},
        ),
    ],
    MixtureVAE: [(MixtureVAE(components=3, **VAES), {})],
    Autoencoder: [(Autoencoder(**VAES), {"data": binary})],
    ConditionalVAE: [(ConditionalVAE(classes=3, **VAES), {"data": labelled(missing=0)})],
    SemiSupervisedVAE: [(SemiSupervisedVAE(classes=3, classifier=NET, **VAES), {"data": labelled(missing=1)})],
    HierarchicalVAE: [
        (HierarchicalVAE(**{**VAES, "latent": (2, 2)}, levels=NET, features=4), {}),
    ],
}


def public_parts():
    """(name, instance, options) of every public concrete part and program."""
    for cls in public_specs():
        if issubclass(cls, FAMILIES) and cls.__name__ not in NOT_ALONE:
            for i, (part, options) in enumerate(INSTANCES.get(cls) or [(cls(), {})]):
                yield f"{cls.__name__}{f' {i + 1}' if i else ''}", part, options
