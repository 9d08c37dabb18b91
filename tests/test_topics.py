"""Counts given their totals, and topic models: against SciPy, and planted topics are found again."""

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.optimize import linear_sum_assignment

import ppdgm
from ppdgm import Program
from ppdgm.errors import DataError, ProgramError
from ppdgm.models import MLP, VAE, Multinomial, ProdLDA

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
QUIET = {"progress": False, "compile": False}
RNG = np.random.default_rng(0)
FIELDS = {"fields": ["x", "exposure"]}


class Shares(Program):
    """x ~ Multinomial(n, softmax(head))."""

    event_shape: tuple[int, ...]

    def build(self, context):
        context.param("head", context.part(Multinomial(), self.event_shape))

    def model(self, P, x, exposure=None):
        with P.plate("data", x):
            P.sample("x", Multinomial()(P, P.param("head"), exposure=exposure), obs=x)

    def independent(self):
        return Multinomial()

    def check(self, data):
        Multinomial().check_rows(data)


@both
@pytest.mark.parametrize("shape", [(7,), (2, 3), (1,)])
def test_log_p_has_the_coefficient(shape, backend):
    """Totals from 0 to 100,000, in float32, against SciPy in float64."""
    head = RNG.normal(size=shape, scale=2.0)
    share = np.exp(head).ravel() / np.exp(head).sum()
    totals = np.array([0, 1, 2, 30, 1000, 100_000])
    x = np.stack([RNG.multinomial(n, share) for n in totals])
    x = np.concatenate([x, x[:, ::-1]])  # and counts that are not likely
    fit = ppdgm.Fit(Shares(event_shape=shape), {"head": head.astype("float32")}, backend=backend, info=FIELDS)
    right = stats.multinomial.logpmf(x, x.sum(1), share)
    found = fit.log_likelihood({"x": x.reshape(-1, *shape).astype("float32")}).values
    np.testing.assert_allclose(found, right, rtol=2e-5, atol=2e-5)


@both
@pytest.mark.statistical
def test_draws_have_the_given_totals(backend):
    """Counts of 8,000 draws: chi-square of each word's sum, and the covariance n (diag π − π πᵀ); 5 errors."""
    head = np.array([0.0, 1.0, -1.0, 2.0, 0.5])
    share = np.exp(head) / np.exp(head).sum()
    fit = ppdgm.Fit(Shares(event_shape=(5,)), {"head": head.astype("float32")}, backend=backend, info=FIELDS)
    drawn = fit.sample(8000, seed=1, given={"exposure": 30})
    assert (drawn.sum(1) == 30).all() and (drawn == np.rint(drawn)).all() and drawn.min() >= 0
    right = 30 * (np.diag(share) - np.outer(share, share))
    np.testing.assert_allclose(drawn.mean(0), 30 * share, atol=5 * (right.max() / 8000) ** 0.5)
    spread = np.sqrt(2 * np.outer(np.diag(right), np.diag(right)) / 8000)
    assert (np.abs(np.cov(drawn.T) - right) < 5 * spread).all()
    totals = 1 + np.arange(8000) * 5  # to 40,000
    np.testing.assert_array_equal(fit.sample(8000, given={"exposure": totals}).sum(1), totals)
    mean = fit.sample(2, given={"exposure": [10, 1000]}, mean=True)
    np.testing.assert_allclose(mean, np.outer([10, 1000], share), rtol=1e-5)


@both
def test_what_needs_totals_says_so(backend):
    x = RNG.multinomial(20, [0.2, 0.3, 0.5], 30).astype("float32")
    net = MLP(hidden=(4,))
    program = VAE(event_shape=(3,), latent=2, likelihood=Multinomial(), encoder=net, decoder=net)
    fit = ppdgm.fit(program, x, backend=backend, steps=3, **QUIET)
    for ask in (lambda: fit.sample(3), lambda: fit.reconstruct(x)):
        with pytest.raises(ProgramError, match=r"need the total of each row.*given=\{'exposure': 100\}"):
            ask()
    data = {"x": x, "exposure": x.sum(1)}
    np.testing.assert_array_equal(fit.elbo(data).values, fit.elbo(x).values)
    np.testing.assert_allclose(fit.reconstruct(data).sum(1), 20, rtol=1e-5)
    assert (fit.sample(3, given={"exposure": 7}).sum(1) == 7).all()
    with pytest.raises(DataError, match="got 21 for row 0, whose counts have the total 20"):
        fit.elbo({"x": x, "exposure": x.sum(1) + 1})
    with pytest.raises(DataError, match="not whole"):
        fit.sample(3, given={"exposure": 7.5})
    with pytest.raises(DataError, match="whole numbers from 0"):
        fit.elbo(x + 0.5)


# --- topic models --------------------------------------------------------------------------------------------------

K, V, N = 3, 24, 800


def corpus():
    """Three topics, each with eight words of its own and some of all others, and texts of one to three topics."""
    rng = np.random.default_rng(1)
    topics = np.full((K, V), 0.2) + np.kron(np.eye(K), np.ones(V // K)) * rng.uniform(2, 8, V)
    topics /= topics.sum(1, keepdims=True)
    shares = rng.dirichlet(np.full(K, 0.3), N)
    totals = rng.integers(40, 120, N)
    return topics, np.stack([rng.multinomial(n, p) for n, p in zip(totals, shares @ topics, strict=True)])


TOPICS, WORDS = corpus()


def cosines(found, right):
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)
    every = unit(found) @ unit(right).T
    return every[linear_sum_assignment(-every)]


@both
@pytest.mark.statistical
@pytest.mark.parametrize("decoder", ["product", "mixture"])
def test_planted_topics_are_found(decoder, backend):
    program = ProdLDA(event_shape=(V,), topics=K, alpha=0.3, decoder=decoder)
    x = sparse.csr_matrix(WORDS.astype("float32"))
    fit = ppdgm.fit(program, x, backend=backend, epochs=50, batch_size=100, learning_rate=0.02, seed=0, **QUIET)
    found = program.probabilities(fit.params)
    np.testing.assert_allclose(found.sum(1), 1.0)
    assert cosines(found, TOPICS).min() > 0.9
    right = np.exp(-(WORDS * np.log(WORDS.sum(0) / WORDS.sum())).sum() / WORDS.sum())  # of one topic for all texts
    perplexity = program.perplexity(fit.elbo(x).values, x)
    assert perplexity < 0.9 * right
    top = program.top_words(fit.params, [f"w{i}" for i in range(V)], n=5)
    assert sorted(len({int(w[1:]) // 8 for w in topic}) for topic in top) == [1] * K


def test_perplexity_and_words():
    program = ProdLDA(event_shape=(3,), topics=2, decoder="mixture")
    x = np.array([[2, 0, 1], [0, 4, 0]])
    uniform = stats.multinomial.logpmf(x, x.sum(1), np.full(3, 1 / 3))
    np.testing.assert_allclose(program.perplexity(uniform, x), 3.0)
    np.testing.assert_allclose(program.perplexity(uniform, sparse.csr_matrix(x)), 3.0)
    params = {"topics": np.log([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]), "background": np.zeros(3)}
    np.testing.assert_allclose(program.probabilities(params), np.exp(params["topics"]))
    assert program.top_words(params, ["a", "b", "c"], n=2) == [["a", "b"], ["c", "b"]]
    with pytest.raises(DataError, match="got 2 of them, expected 3"):
        program.top_words(params, ["a", "b"])
