"""Priors of codes, one-hot classes and the causal transformer: against sums over all codes and by hand."""

from itertools import product

import numpy as np
import numpyro
import pytest

import ppdgm
from ppdgm.errors import DataError, ProgramError, SpecError
from ppdgm.inference import IWAE, SVI, Stage
from ppdgm.models import (
    MLP,
    VAE,
    VQVAE2,
    AutoregressiveModel,
    CategoricalPrior,
    CodePrior,
    ConditionalVAE,
    GatedPixelCNN,
    Gaussian,
    GumbelSoftmax,
    OneHot,
    StandardNormal,
    Transformer,
    VectorQuantised,
)
from ppdgm.models.relaxed import CERTAIN

every_backend = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2)).astype("float32")
LABEL = np.arange(40) % 2
SMALL = Transformer(width=8, layers=2, heads=2)
PIXELS = GatedPixelCNN(channels=4, layers=2, first_kernel=3, hidden=4, colours="together")
NETS = {"encoder": MLP(hidden=()), "decoder": MLP(hidden=())}


def noisy(program, data):
    """First values plus noise, so that nothing is uniform."""
    found = program.initialise(0, data)
    return {n: v if n in program.declarations().states else v + 0.5 * RNG.normal(size=v.shape).astype("float32")
            for n, v in found.items()}  # fmt: skip


def vae(prior, latent=(2, 2), classes=2, **fields):
    posterior = VectorQuantised(classes=classes, embedding=2)
    return VAE(
        event_shape=(2,), latent=latent, prior=prior, posterior=posterior, likelihood=Gaussian(), **NETS, **fields
    )


def log_one_hot(codes, classes):
    return CERTAIN * ((codes[..., None] == np.arange(classes)) - 1.0).astype("float32")


# --- priors of codes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [SMALL, PIXELS], ids=["transformer", "pixels"])
@every_backend
def test_the_probabilities_of_all_codes_sum_to_one(backend, net):
    program = vae(CodePrior(net=net))
    params = noisy(program, {"x": X})
    every = np.array(list(product(range(2), repeat=4))).reshape(-1, 2, 2)
    found = log_p(program, params, {"x": X[:1]}, every, 2, backend)
    assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-5) and np.ptp(found) > 0.1


def log_p(program, params, data, codes, classes, backend):
    """log p of grids of codes [S, *grid], of the first row."""
    at = {"z": log_one_hot(codes, classes)[:, None]}
    return ppdgm.trace(program, params, data, k=len(codes), values=at, backend=backend).log_p["z"][:, 0]


@pytest.mark.parametrize("net", [SMALL, PIXELS], ids=["transformer", "pixels"])
def test_the_mean_of_a_prior_of_codes_is_a_grid_of_codes(net):
    """A chain of means has probabilities, whose logarithms are no codes."""
    program = vae(CodePrior(net=net))
    model, _ = program.bind("numpyro", noisy(program, {"x": X}), size=1, hold_states=True)
    with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as sites:
        model()
    mean = np.asarray(sites["z"]["fn"].mean)
    assert (mean.max(-1) == 0).all() and (np.sort(mean, -1)[..., :-1] == -CERTAIN).all()


@every_backend
def test_a_prior_sees_the_condition(backend):
    program = ConditionalVAE(
        event_shape=(2,), classes=2, latent=2, prior=CodePrior(net=SMALL), likelihood=Gaussian(),
        posterior=VectorQuantised(classes=3, embedding=2), **NETS,
    )  # fmt: skip
    params, data = noisy(program, {"x": X, "label": LABEL}), {"x": X[:2], "label": LABEL[:2]}
    every = np.array(list(product(range(3), repeat=2)))
    found = ppdgm.trace(
        program, params, data, k=len(every), values={"z": np.repeat(log_one_hot(every, 3)[:, None], 2, 1)},
        backend=backend,
    ).log_p["z"]  # fmt: skip
    np.testing.assert_allclose(np.exp(found).sum(0), 1.0, atol=1e-5)
    assert np.abs(found[:, 0] - found[:, 1]).max() > 0.05


@every_backend
def test_two_levels(backend):
    program = VQVAE2(
        event_shape=(2,), top=1, bottom=(2, 2), posterior=VectorQuantised(classes=3, embedding=2), channels=2,
        bottom_prior=CodePrior(net=PIXELS), **NETS,
    )  # fmt: skip
    first = Stage(engine=SVI(), steps=6, freeze=("*.prior.*",))
    second = Stage(engine=SVI(), steps=6, freeze=("*encoder*", "*posterior*", "decoder*", "bottom.between.*"))
    fit = ppdgm.fit(
        program, X, backend=backend, engine=[first, second], steps=12, batch_size=16, progress=False, compile=False
    )
    codes = fit.encode(X)
    assert {n: v.shape for n, v in codes.items()} == {"top": (40, 1), "bottom": (40, 2, 2)}
    np.testing.assert_allclose(fit.decode(codes), fit.reconstruct(X), atol=1e-6)
    parts = ppdgm.trace(program, fit.params, X, backend=backend)
    total = sum(parts.log_p[n][0] for n in ("top", "bottom", "x"))
    np.testing.assert_allclose(total, fit.elbo(X).values, rtol=1e-5)
    other = {"numpyro": "pyro", "pyro": "numpyro"}[backend]
    again = ppdgm.log_weights(program, fit.params, X, k=1, backend=other)[0]
    np.testing.assert_allclose(again, fit.elbo(X).values, rtol=1e-5)
    assert np.abs(fit.params["bottom.prior.net.outputs.1.weight"]).max() > 0  # it has learnt


@every_backend
def test_relaxed_codes_have_the_kl_of_the_discrete_ones(backend):
    """Under a uniform CodePrior, training's KL is the closed form under a uniform CategoricalPrior."""
    programs = [
        VAE(event_shape=(2,), latent=2, prior=prior, posterior=GumbelSoftmax(classes=3), likelihood=Gaussian(), **NETS)
        for prior in (CodePrior(net=SMALL), CategoricalPrior())
    ]
    how = {"backend": backend, "steps": 3, "batch_size": 40, "progress": False, "compile": False, "seed": 0}
    frozen = Stage(engine=SVI(), steps=3, freeze=("prior.*",))
    own = ppdgm.fit(programs[0], X, engine=[frozen], **how)
    other = ppdgm.fit(programs[1], X, **how)
    np.testing.assert_allclose(own.history["kl"], other.history["kl"], rtol=1e-4, atol=1e-5)
    name = "encoder.layers.0.weight"
    np.testing.assert_allclose(own.params[name], other.params[name], atol=1e-5)


def test_relaxations_that_are_weighed_under_a_prior_of_codes_are_refused():
    program = VAE(
        event_shape=(2,), latent=2, prior=CodePrior(net=SMALL), posterior=GumbelSoftmax(classes=3, kl="relaxed"),
        likelihood=Gaussian(), **NETS,
    )  # fmt: skip
    for engine in (SVI(), IWAE(k=3)):
        with pytest.raises(ProgramError, match="its prior has probabilities of codes"):
            ppdgm.fit(program, X, engine=engine, steps=1, backend="pyro", progress=False)


# --- one-hot classes, and the transformer ----------------------------------------------------------------------------


@every_backend
def test_one_hot_probabilities_and_draws(backend):
    program = AutoregressiveModel(event_shape=(2, 3), net=SMALL, likelihood=OneHot())
    params = noisy(program, None)
    every = np.eye(3, dtype="float32")[np.array(list(product(range(3), repeat=2)))]
    log_p = ppdgm.log_weights(program, params, every, k=1, backend=backend)[0]
    assert np.exp(log_p).sum() == pytest.approx(1.0, abs=1e-5)
    fit = ppdgm.fit(program, every, steps=1, learning_rate=1e-9, backend=backend, progress=False, compile=False)
    log_p = fit.elbo(every).values
    drawn = fit.sample(4000, seed=1)
    counts = np.array([(drawn == e).all((1, 2)).sum() for e in every])
    assert counts.sum() == 4000
    chi2 = ((counts - 4000 * np.exp(log_p)) ** 2 / (4000 * np.exp(log_p))).sum()
    assert chi2 < 8 + 4 * np.sqrt(16)  # 8 degrees of freedom, four standard deviations


def test_a_sequence_is_continued_from_its_first_token():
    rng, size = np.random.default_rng(1), 400
    first = rng.integers(2, size=size)
    tokens = np.stack([first, 2 + first, 2 + first], 1)  # the class, and then its token twice
    x = np.eye(4, dtype="float32")[tokens]
    program = AutoregressiveModel(event_shape=(3, 4), net=SMALL, likelihood=OneHot())
    fit = ppdgm.fit(program, x, steps=300, batch_size=100, learning_rate=0.02, seed=0, progress=False)
    missing = np.zeros((3, 4), bool)
    missing[1:] = True
    filled = fit.impute(x, missing).argmax(-1)
    assert (filled == tokens).mean() > 0.99


def test_the_transformer_by_hand():
    net, t, c = Transformer(width=4, layers=1, heads=2, activation="relu"), 3, 2
    program = AutoregressiveModel(event_shape=(t, c), net=net, likelihood=OneHot())
    p = {n.removeprefix("net."): np.asarray(v, float) for n, v in noisy(program, None).items()}
    x = np.eye(c)[RNG.integers(c, size=(5, t))]
    late = np.concatenate([np.zeros((5, 1, c)), x[:, :-1]], 1)
    dense = lambda n, a: a @ p[f"{n}.weight"] + p[f"{n}.bias"]

    def norm(n, a):
        centred = a - a.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[f"{n}.scale"] + p[f"{n}.shift"]

    angle = np.arange(t)[:, None] / 10000 ** (np.array([0, 2]) / 4)
    h = dense("first", late) + np.concatenate([np.sin(angle), np.cos(angle)], 1)
    q, k, v = np.split(dense("layers.0.inputs", norm("layers.0.before", h)), 3, -1)
    mixed = np.zeros_like(h)
    for head in (slice(0, 2), slice(2, 4)):
        for i in range(t):
            score = np.exp(np.einsum("nd,njd->nj", q[:, i, head], k[:, : i + 1, head]) / np.sqrt(2))
            mixed[:, i, head] = np.einsum("nj,njd->nd", score / score.sum(1, keepdims=True), v[:, : i + 1, head])
    h = h + dense("layers.0.mixed", mixed)
    h = h + dense("layers.0.narrow", np.maximum(dense("layers.0.wide", norm("layers.0.between", h)), 0))
    logits = dense("output", norm("last", h))
    right = (x * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum((1, 2))
    params = {f"net.{n}": v.astype("float32") for n, v in p.items()}
    for backend in ("numpyro", "pyro"):
        found = ppdgm.log_weights(program, params, x.astype("float32"), k=1, backend=backend)[0]
        np.testing.assert_allclose(found, right, rtol=1e-4)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(DataError, match="a sum of 1 over the last axis"):
        ppdgm.fit(AutoregressiveModel(event_shape=(2, 3), net=SMALL, likelihood=OneHot()), np.ones((4, 2, 3)), steps=1)
    with pytest.raises(SpecError, match="even multiple of heads"):
        AutoregressiveModel(event_shape=(2, 3), net=Transformer(width=6, heads=4), likelihood=OneHot()).declarations()
    with pytest.raises(SpecError, match="for real latents, but codes are"):
        VQVAE2(event_shape=(2,), prior=StandardNormal(), **NETS).declarations()
    with pytest.raises(SpecError, match="can't depend on another variable"):
        from ppdgm.language.vocabulary import Declarations
        from ppdgm.program import Context

        Context(Declarations()).part(CategoricalPrior(), (2,), condition=(3,))
