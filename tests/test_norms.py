"""Batch norm and dropout in nets: against NumPy and torch's own layers, in training and outside it."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError, SpecError, TrainingError
from ppdgm.inference import IWAE, SVI, Minimise
from ppdgm.inference.inputs.batches import Batches
from ppdgm.models import (
    MLP,
    VAE,
    ConvDecoder,
    ConvEncoder,
    GatedMLP,
    Gaussian,
    HierarchicalVAE,
    Net,
    ResidualMLP,
    SemiSupervisedVAE,
    VampPrior,
    Windowed,
)
from ppdgm.specs import Shape

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
RNG = np.random.default_rng(0)
N, B, STEPS = 23, 5, 12  # the fifth minibatch of an epoch has two padding rows
QUIET = {"progress": False, "compile": False}
X = RNG.normal(size=(N, 2)).astype("float32")


class Regression(Program):
    """x ~ N(net(y), 1), without latents."""

    net: Net
    inputs: Shape

    def build(self, context):
        context.net("net", self.net, self.inputs, (2,))

    def model(self, P, x, y):
        out = P.net("net")(y)
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(out, 1.0).to_event(1), obs=x)


def vectors(own, y):
    return torch.tensor(y @ own["layers.0.weight"] + own["layers.0.bias"])


def images(own, y):
    weight, bias = (torch.tensor(own[f"convs.0.{n}"]) for n in ("weight", "bias"))
    return torch.nn.functional.conv2d(torch.tensor(y[:, None]), weight, bias, stride=2, padding=1)


CASES = {  # net, inputs, what is normalised, its torch layer, the name of the norm and of the layer after it
    "vectors": (MLP(hidden=(3,), norm="batch"), (4,), vectors, torch.nn.BatchNorm1d, "norms.0", "layers.1"),
    "images": (
        ConvEncoder(channels=(3,), norm="batch", activation="tanh"), (4, 4), images, torch.nn.BatchNorm2d,
        "convs.0.norm", "output",
    ),
}  # fmt: skip


@both
@pytest.mark.parametrize("case", CASES)
def test_batch_norm_equals_torchs_in_training_and_in_evaluation(case, backend):
    """The bound of each step, the running means after all of them, and log p of an evaluation."""
    net, inputs, before, layer, name, last = CASES[case]
    y = RNG.normal(size=(N, *inputs), scale=2.0).astype("float32") + 1.0
    fit = ppdgm.fit(
        Regression(net=net, inputs=inputs), {"x": X, "y": y}, backend=backend, steps=STEPS, batch_size=B, seed=3,
        learning_rate=0.0, **QUIET,
    )  # fmt: skip
    own = {n.removeprefix("net."): v for n, v in fit.params.items()}
    mine = layer(3, momentum=0.1, dtype=torch.float32).train()

    def log_p(index):
        h = torch.tanh(mine(before(own, y[index]))).detach().numpy().reshape(len(index), -1)
        return norm.logpdf(X[index], h @ own[f"{last}.weight"] + own[f"{last}.bias"]).sum(-1)

    index, weight = Batches(N, B, 3).rows(0, STEPS, STEPS)
    variance = np.ones(3)
    for i, w, elbo in zip(index, weight, fit.history["elbo"], strict=True):
        rows = i[w > 0]
        np.testing.assert_allclose(elbo, log_p(rows).mean(), rtol=1e-5)
        h = before(own, y[rows]).transpose(0, 1).reshape(3, -1).numpy()
        variance = 0.9 * variance + 0.1 * h.var(1)  # torch has n / (n − 1) times that
    np.testing.assert_allclose(own[f"{name}.mean"], mine.running_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own[f"{name}.variance"], variance, rtol=1e-5)
    mine.eval().running_var[:] = torch.tensor(variance)
    right = log_p(np.arange(N))
    np.testing.assert_allclose(fit.elbo({"x": X, "y": y}).values, right, rtol=1e-5)
    other = {"numpyro": "pyro", "pyro": "numpyro"}[backend]
    np.testing.assert_allclose(
        ppdgm.Fit(fit.program, fit.params, backend=other).elbo({"x": X, "y": y}).values, right, rtol=1e-5
    )


class Dropped(Program):
    """net(1) of D ones, and its distance from their sum; an identity before the dropout, a sum after it."""

    squared: bool
    net: Net = MLP(hidden=(10,), activation="identity", dropout=0.3)

    def build(self, context):
        context.net("net", self.net, (10,), (1,))

    def initialise(self, seed=0, data=None, dtype="float32"):
        values = super().initialise(seed, data, dtype)
        weights = {"net.layers.0.weight": np.eye(10), "net.layers.1.weight": np.arange(10.0)[:, None]}
        return values | {n: v.astype(dtype) for n, v in weights.items()}

    def loss(self, P, x):
        out = P.net("net")(x)[..., 0]
        return (out - 45.0) ** 2 if self.squared else out


@both
@pytest.mark.statistical
def test_dropout_has_its_mean_and_its_variance_in_training_only(backend):
    """Σ w_j d_j / (1 − p), d_j ~ Bernoulli(1 − p): mean Σ w_j, variance Σ w_j² p / (1 − p); 20,000 draws, 4 errors."""
    x, steps = np.ones((4000, 10), "float32"), 5
    variance = float((np.arange(10) ** 2).sum() * 0.3 / 0.7)
    options = {"engine": Minimise(), "steps": steps, "batch_size": 4000, "learning_rate": 0.0, "seed": 0, **QUIET}
    for squared, right in ((False, 45.0), (True, variance)):
        fit = ppdgm.fit(Dropped(squared=squared), x, backend=backend, **options)
        spread = variance**0.5 if not squared else 2**0.5 * variance  # of a normal; the sum is flatter than one
        assert abs(np.mean(fit.history["loss"]) - right) < 4 * spread / (len(x) * steps) ** 0.5
        assert len(set(fit.history["loss"])) == steps
        np.testing.assert_allclose(fit.criterion(x), 0.0 if squared else 45.0, atol=1e-4)


NETS = {
    "mlp": (MLP(hidden=(4,), norm="batch"), MLP(hidden=(4,), norm="layer")),
    "gated": (GatedMLP(hidden=(4,), norm="batch"), GatedMLP(hidden=(4,))),
    "residual": (ResidualMLP(width=4, blocks=1, norm="batch"), ResidualMLP(width=4, blocks=1)),
    "convolutions": (
        ConvEncoder(channels=(2,), norm="batch", residual=1, gated=True),
        ConvDecoder(channels=(2,), norm="batch", residual=1),
    ),
}
BITS = (RNG.random((N, 4, 4)) < 0.4).astype("float32")


@both
@pytest.mark.parametrize("name", NETS)
def test_every_net_trains_with_both_and_evaluates_without(name, backend, tmp_path):
    """A run that is resumed within an epoch has the bits of one that was not interrupted."""
    encoder, decoder = (net.replace(dropout=0.2) for net in NETS[name])
    program = VAE(event_shape=(4, 4), latent=2, encoder=encoder, decoder=decoder)
    options = {"backend": backend, "batch_size": B, "seed": 1, "engine": SVI(k=2), **QUIET}
    fit = ppdgm.fit(program, BITS, steps=9, **options)
    ppdgm.fit(program, BITS, steps=7, out=tmp_path / "run", **options)
    resumed = ppdgm.resume(tmp_path / "run", BITS, steps=9, progress=False)
    assert {n: v.tobytes() for n, v in resumed.params.items()} == {n: v.tobytes() for n, v in fit.params.items()}
    moved = [n for n in fit.params if n.endswith((".mean", ".variance"))]
    first = program.initialise(1)
    assert moved and all((fit.params[n] != first[n]).any() for n in moved)
    plain = program.replace(encoder=encoder.replace(dropout=0.0), decoder=decoder.replace(dropout=0.0))
    undropped = ppdgm.Fit(plain, fit.params, backend=backend)
    np.testing.assert_array_equal(fit.elbo(BITS, k=3).values, undropped.elbo(BITS, k=3).values)
    one = fit.elbo(BITS[:1], k=200, seed=1).mean  # alone, a row has no batch to be normalised with
    few = fit.elbo(BITS[:9], k=200, seed=1)
    assert abs(one - few.values[0]) < 1.0


VAES = {"event_shape": (4, 4), "latent": 2}
REFUSED = {
    "a prior of posteriors": (
        VAE(**VAES, encoder=MLP(norm="batch"), prior=VampPrior(components=5)), {}, SpecError, "VampPrior.*norm='layer'",
    ),
    "a prior of posteriors, over levels": (
        HierarchicalVAE(event_shape=(4, 4), latent=(2, 2), levels=MLP(norm="batch"), prior=VampPrior(components=5)),
        {}, SpecError, "VampPrior.*norm='layer'",
    ),
    "values of a class": (
        SemiSupervisedVAE(**VAES, decoder=MLP(norm="batch")), {}, ProgramError, "decoder.norms.0.*summed out",
    ),
    "pieces": (VAE(**VAES, encoder=MLP(norm="batch")), {"accumulate": 2}, TrainingError, "accumulate"),
    "layers again": (
        VAE(**VAES, encoder=MLP(norm="batch")), {"rematerialise": True}, ProgramError, "moves a state.*rematerialise",
    ),
    "particles": (
        VAE(**VAES, decoder=MLP(norm="batch")), {"engine": IWAE(k=4), "particle_chunk": 2}, TrainingError,
        "particle_chunk",
    ),
}  # fmt: skip


@both
@pytest.mark.parametrize("case", REFUSED)
def test_where_batch_norm_would_be_wrong_is_refused(case, backend):
    program, options, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        ppdgm.fit(program, BITS, backend=backend, steps=2, batch_size=6, **options, **QUIET)


def test_windows_of_a_sequence_are_no_rows():
    with pytest.raises(SpecError, match=r"Windowed\.net.*norm='layer'"):
        Windowed(net=MLP(norm="batch")).params((5,), (5,))


@both
def test_bound_programs_hold_their_running_means(backend):
    program = VAE(**VAES, likelihood=Gaussian(), decoder=MLP(hidden=(4,), norm="batch"))
    with pytest.raises(ProgramError, match="hold_states=True"):
        model, _ = program.bind(backend)
        run_model(model, backend)
    model, _ = program.bind(backend, program.initialise(0), hold_states=True)
    run_model(model, backend)


def run_model(model, backend):
    import numpyro
    import pyro

    if backend == "pyro":
        pyro.poutine.trace(model).get_trace(torch.zeros(3, 4, 4))
    else:
        numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(np.zeros((3, 4, 4), "float32"))
