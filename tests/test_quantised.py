"""Vector quantisation: Lloyd's algorithm, its gradients, the bound, dead codes, resuming, reports."""

from itertools import pairwise
from math import log

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.cluster import KMeans

import ppdgm
from ppdgm import Program
from ppdgm.diagnostics import code_use
from ppdgm.errors import DataError, SpecError
from ppdgm.inference import SVI, Stage
from ppdgm.models import (
    GRU,
    MLP,
    VAE,
    CategoricalPrior,
    CodePrior,
    GatedPixelCNN,
    Gaussian,
    PixelSNAIL,
    Transformer,
    VectorQuantised,
    WaveNet,
)
from ppdgm.program import constant

every_backend = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
RNG = np.random.default_rng(0)
K, N, SLOPE = 5, 60, 1.5
CENTRES = 3 * RNG.normal(size=(K, 2))
X = CENTRES[RNG.integers(K, size=N)] + 0.5 * RNG.normal(size=(N, 2))
START = X[[3, 14, 25, 36, 47]]
SAVED = {"decay": 0.0, "epsilon": 0.0, "revive": 0.0}


class Quantiser(Program):
    """h = x + shift, c the nearest code; x ~ N(SLOPE e_c, 1)."""

    posterior: VectorQuantised
    start: tuple[tuple[float, ...], ...]
    count: float = 1 / K

    def build(self, c):
        c.part(CategoricalPrior(), (K,))
        c.part(self.posterior, (K,), label="guide")
        c.param("shift", (2,), constant(0.1), label="guide")
        c.settle(self.first)

    def first(self, P, data):
        P, book = P.scope("posterior"), np.array(self.start)
        if self.posterior.codebook == "gradient":
            P.set(codebook=book)
        else:
            count = np.full(K, 1 / K)
            count[0] = self.count
            P.set(count=count, total=book * count[:, None])

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.posterior.counterpart(P, CategoricalPrior()(P)))
            P.sample("x", P.dist.Normal(SLOPE * self.posterior.code(P, z), 1.0).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.posterior(P, x + P.param("shift")))


def quantiser(start=START, count=1 / K, **fields):
    posterior = VectorQuantised(classes=K, embedding=2, **fields)
    return Quantiser(posterior=posterior, start=tuple(map(tuple, start.tolist())), count=count)


def train(program, backend, steps=1, x=X, **options):
    how = {"batch_size": len(x), "optimiser": "sgd", "learning_rate": 1e-14, "dtype": "float64", **options}
    return ppdgm.fit(program, x, backend=backend, steps=steps, seed=1, progress=False, compile=False, **how)


@pytest.fixture
def precise():
    with jax.enable_x64(True):
        yield


def codebook(fit):
    return fit.params["posterior.total"] / fit.params["posterior.count"][:, None]


# --- training --------------------------------------------------------------------------------------------------------


@every_backend
def test_one_step_without_a_memory_is_one_of_lloyd(backend, precise):
    h = X + 0.1
    fit = train(quantiser(**SAVED), backend)
    right = KMeans(K, init=START, n_init=1, max_iter=1).fit(h)
    np.testing.assert_allclose(codebook(fit), right.cluster_centers_, atol=1e-12)
    distances = [distortion(h, codebook(train(quantiser(**SAVED), backend, steps))) for steps in (1, 2, 3)]
    assert all(b <= a + 1e-9 for a, b in pairwise(distances)), distances


def distortion(h, book):
    return ((h[:, None] - book) ** 2).sum(-1).min(1).mean()


@every_backend
def test_gradients_go_straight_through_and_to_the_right_sides(backend, precise):
    h, rate, beta = X + 0.1, 0.01, 0.7
    nearest = ((h[:, None] - START) ** 2).sum(-1).argmin(1)
    e = START[nearest]
    slopes = -SLOPE * (X - SLOPE * e) + 2 * beta * (h - e)  # at the code, straight to h; and commitment
    for way in ("moving_average", "gradient"):
        fit = train(quantiser(codebook=way, commitment=beta), backend, learning_rate=rate)
        np.testing.assert_allclose(fit.params["shift"], 0.1 - rate * slopes.mean(0), atol=1e-10, err_msg=way)
    ones = np.eye(K)[nearest]
    moved = START - rate * 2 * (ones.sum(0)[:, None] * START - ones.T @ h) / N
    np.testing.assert_allclose(fit.params["posterior.codebook"], moved, atol=1e-10)


@every_backend
def test_moving_averages_over_minibatches_with_padding(backend, precise):
    fit = train(quantiser(decay=0.9, revive=0.0), backend, steps=4, batch_size=25)  # two full ones, and one of 10
    from ppdgm.inference.inputs.batches import Batches

    count, total = np.full(K, 1 / K), START / K
    for index, weight in zip(*Batches(N, 25, 1).rows(0, 4, 4), strict=True):
        h = X[index[weight > 0]] + 0.1
        smooth = (count + 1e-5) * count.sum() / (count.sum() + K * 1e-5)
        ones = np.eye(K)[((h[:, None] - total / smooth[:, None]) ** 2).sum(-1).argmin(1)]
        count, total = 0.9 * count + 0.1 * ones.mean(0), 0.9 * total + 0.1 * ones.T @ h / len(h)
    np.testing.assert_allclose(fit.params["posterior.count"], count, atol=1e-7)
    np.testing.assert_allclose(fit.params["posterior.total"], total, atol=1e-7)


@every_backend
def test_a_dead_code_moves_to_an_output_and_stays(backend, precise):
    start = START.copy()
    start[0] = 1e3
    program = quantiser(start, count=1e-9)
    fit = train(program, backend)
    book = codebook(fit)
    assert np.abs(book[0] - (X + 0.1)).sum(1).min() < 1e-2  # the smoothing ε
    assert fit.params["posterior.count"][0] == pytest.approx(fit.params["posterior.count"][1:].sum() / (K - 1), rel=0.3)
    later = train(program, backend, steps=6)
    assert np.abs(codebook(later)[0] - book[0]).max() < 1.0
    assert later.params["posterior.count"][0] > 0.5 / K


# --- the bound -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fits():
    program = VAE(
        event_shape=(2,), latent=2, likelihood=Gaussian(scale=1.0), prior=CategoricalPrior(weights="learned"),
        posterior=VectorQuantised(classes=4, embedding=3, decay=0.9),
        encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)),
    )  # fmt: skip
    first = Stage(engine=SVI(), steps=60, freeze=("prior.*",))
    how = {"engine": [first], "steps": 60, "batch_size": 20, "learning_rate": 0.02, "diagnose_epochs": 5}
    how |= {"progress": False, "compile": False}
    return {b: ppdgm.fit(program, X.astype("float32"), backend=b, **how) for b in ("numpyro", "pyro")}


@every_backend
def test_the_bound_is_below_the_sum_over_all_codes(fits, backend):
    fit, x = fits[backend], X.astype("float32")
    codes = fit.encode(x)
    assert codes.shape == (N, 2) and codes.dtype.kind == "i"
    of = lambda z: norm.logpdf(x, fit.decode(z)).sum(-1)
    bound = fit.elbo(x)
    np.testing.assert_allclose(bound.values, of(codes) - 2 * log(4), rtol=1e-4)
    every = np.stack(np.meshgrid(*[np.arange(4)] * 2), -1).reshape(-1, 2)
    joint = [of(np.tile(c, (N, 1))) - 2 * log(4) for c in every]
    assert (logsumexp(joint, axis=0) >= bound.values - 1e-4).all()
    np.testing.assert_allclose(fit.reconstruct(x), fit.decode(codes), atol=1e-5)


def test_backends_agree(fits):
    one, other = fits["numpyro"], fits["pyro"]
    x = X.astype("float32")
    for fit in (one, other):
        weights = [ppdgm.log_weights(fit.program, fit.params, x, k=1, backend=b) for b in fits]
        np.testing.assert_allclose(*weights, rtol=1e-5)


def test_a_learned_prior_of_single_codes_gains_their_entropy(fits):
    fit, x = fits["numpyro"], X.astype("float32")
    codes = fit.encode(x)
    shares = np.stack([np.bincount(codes[:, j], minlength=4) / N for j in range(2)])
    logits = np.log(np.maximum(shares, 1e-30))
    learned = ppdgm.log_weights(fit.program, {**fit.params, "prior.logits": logits.astype("float32")}, x, k=1)
    entropy = -sum(p * log(p) for p in shares.ravel() if p)
    assert learned.mean() - fit.elbo(x).mean == pytest.approx(2 * log(4) - entropy, rel=1e-4)


NETS = [
    Transformer(width=8, layers=1, heads=2),
    WaveNet(channels=4, layers=2, hidden=4),
    GRU(width=4),
    GatedPixelCNN(channels=4, layers=2, first_kernel=3, hidden=4, colours="together"),
    PixelSNAIL(channels=4, layers=1, blocks=1),
]


@pytest.mark.parametrize("net", NETS, ids=lambda net: type(net).__name__)
def test_a_prior_of_codes_starts_uniform(net):
    program = VAE(
        event_shape=(2,), latent=(2, 2), likelihood=Gaussian(), prior=CodePrior(net=net),
        posterior=VectorQuantised(classes=3, embedding=2), encoder=MLP(hidden=()), decoder=MLP(hidden=()),
    )  # fmt: skip
    x = X[:3].astype("float32")
    found = ppdgm.trace(program, program.initialise(0, {"x": x}), x, backend="pyro")
    np.testing.assert_allclose(found.log_p["z"], -4 * log(3), rtol=1e-6)


# --- runs and reports ------------------------------------------------------------------------------------------------


@every_backend
def test_resumed_in_the_middle_of_an_epoch_it_has_the_same_bits(backend, tmp_path, precise):
    how = {"batch_size": 25, "learning_rate": 0.01, "optimiser": "adam"}
    whole = train(quantiser(revive=0.5), backend, steps=11, **how)
    train(quantiser(revive=0.5), backend, steps=5, out=tmp_path / "run", **how)
    again = ppdgm.resume(tmp_path / "run", steps=11, classes=[Quantiser], progress=False, data=X)
    for name, value in whole.params.items():
        assert (again.params[name] == value).all(), name


def test_reports_tell_the_use_of_codes_and_not_that_a_point_is_exact(fits):
    fit, x = fits["pyro"], X.astype("float32")
    assert {"live_codes_z", "live_perplexity_z"} <= set(fit.history)
    found = fit.diagnose(x, parts=["likelihood", "latents", "calibration", "gaps"])
    use = found.codes["z"]
    assert use.counts.sum() == 2 * N and f"{use.used} of 4 codes are used" in str(found)
    assert "exact" not in str(found) and {"calibration", "gaps"} <= set(found.withheld)


def test_the_use_of_codes():
    use = code_use(np.array([[0, 1], [1, 3]]), 5)
    assert use.used == 3 and use.perplexity == pytest.approx(2**1.5)
    with pytest.raises(DataError, match="whole numbers from 0 to 1"):
        code_use(np.array([2]), 2)


def test_what_makes_no_sense_is_refused(fits):
    with pytest.raises(SpecError, match="K codes span no more"):
        VectorQuantised(classes=4, embedding=5)
    with pytest.raises(SpecError, match="would have no effect"):
        VectorQuantised(codebook="gradient", revive=0.1)
    with pytest.raises(DataError, match="got the code 7, expected whole numbers from 0 to 3"):
        fits["pyro"].decode(np.array([[7, 0]]))
