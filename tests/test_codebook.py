"""A codebook of moving averages as one `Posterior`: against k-means of scikit-learn, and NumPy by hand."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

import ppdgm
from ppdgm.inference.inputs.batches import Batches
from ppdgm.models import MLP, VAE, Gaussian, Net, Posterior, Prior
from ppdgm.nets.base import ones
from ppdgm.program import constant, normal
from ppdgm.registry import backend as load_backend

BACKENDS = ("numpyro", "pyro")
RNG = np.random.default_rng(0)
STEPS = 12


def train(program, backend, x, **options):
    defaults = {"steps": STEPS, "batch_size": 10, "seed": 3, "progress": False, "compile": False, "learning_rate": 0.05}
    return ppdgm.fit(program, x, backend=backend, **{**defaults, **options})


class VQ(Posterior):
    """A codebook of moving averages, and the gradient past it. van den Oord et al. 2017, arXiv:1711.00937."""

    codes: int = 4
    decay: float = 0.9

    def build(self, context, shape):
        context.state("total", (self.codes, *shape), normal(1.0))
        context.state("count", (self.codes,), ones)
        return shape

    def distribution(self, P, *head):
        xp, h, total, count = P.xp, head[0], P.param("total"), P.param("count")
        book = total / count[:, None]
        nearest = xp.argmin(xp.sum((h[..., None, :] - book) ** 2, axis=-1), axis=-1)
        code = P.one_hot(nearest, self.codes)
        new = P.batch_mean(code, 1), P.batch_mean(code[..., None] * h[..., None, :], 2)
        P.update("count", self.decay * count + (1 - self.decay) * new[0])
        P.update("total", self.decay * total + (1 - self.decay) * new[1])
        e = code @ book
        P.penalty("commitment", 0.25 * xp.sum((h - e) ** 2, axis=-1))
        z, zero = h + P.stop_gradient(e - h), lambda z: 0.0 * xp.sum(z, axis=-1)
        draw = lambda random, batch: (xp.broadcast_to(z, (*batch, z.shape[-1])), None)
        return P.distribution(draw, zero, P.shape, tuple(h.shape[:-1]), mean=lambda: z)


class Flat(Prior):
    """Mass 1/codes at each code."""

    def distribution(self, P, *head):
        draw = lambda random, batch: (P.full((*batch, *P.shape), 0.0), None)
        return P.distribution(draw, lambda z: 0.0 * P.xp.sum(z, axis=-1) - float(np.log(4)), P.shape)


class Identity(Net):
    def params(self, inputs, outputs):
        return {"shift": (outputs, constant(0.0))}

    def apply(self, P, x, inputs, outputs):
        return x + P.param("shift")


CENTRES = np.array([[0, 0], [4, 0], [0, 4], [4, 4]], "float32")
POINTS = (CENTRES[RNG.integers(4, size=46)] + RNG.normal(size=(46, 2))).astype("float32")


def vq(**fields):
    nets = {"encoder": Identity(), "decoder": MLP(hidden=(4,))}
    return VAE(event_shape=(2,), latent=2, posterior=VQ(**fields), prior=Flat(), likelihood=Gaussian(), **nets)


def started(program):
    return {**program.initialise(0), "posterior.total": CENTRES + 0.7}


def lloyd(total, count, rows, decay):
    distance = ((rows[:, None] - (total / count[:, None])[None]) ** 2).sum(-1)
    code = np.eye(len(count))[distance.argmin(-1)]
    return decay * total + (1 - decay) * code.T @ rows / len(rows), decay * count + (1 - decay) * code.mean(0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_codebook_without_decay_takes_a_step_of_k_means(backend):
    program = vq(decay=0.0)
    settings = {"params": started(program), "batch_size": 46, "steps": 1, "learning_rate": 0.0}
    fit = train(program, backend, POINTS, **settings)
    means = KMeans(4, init=CENTRES + 0.7, n_init=1, max_iter=1, algorithm="lloyd").fit(POINTS.astype(float))
    book = fit.params["posterior.total"] / fit.params["posterior.count"][:, None]
    np.testing.assert_allclose(book, means.cluster_centers_, rtol=1e-5, atol=1e-5)
    assert np.abs(book - CENTRES - 0.7).max() > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_codebook_counts_no_padding(backend):
    program = vq()
    total, count = started(program)["posterior.total"].astype(float), np.ones(4)
    fit = train(program, backend, POINTS, params=started(program), learning_rate=0.0)
    index, weight = Batches(46, 10, 3).rows(0, STEPS, STEPS)  # the fifth minibatch has four padding rows
    for rows, w in zip(index, weight, strict=True):
        total, count = lloyd(total, count, POINTS[rows[w > 0]].astype(float), 0.9)
    np.testing.assert_allclose(fit.params["posterior.count"], count, rtol=1e-5)
    np.testing.assert_allclose(fit.params["posterior.total"], total, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fit.params["posterior.count"].sum(), 1.0 + 3.0 * 0.9**STEPS, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_moves_no_state(backend):
    fit = train(vq(), backend, POINTS)
    before = {n: v.copy() for n, v in fit.params.items()}
    elbo = fit.elbo(POINTS)
    fit.encode(POINTS), fit.log_likelihood(POINTS, k=3), fit.sample(4), fit.reconstruct(POINTS)
    assert all(np.array_equal(before[n], v) for n, v in fit.params.items())
    np.testing.assert_array_equal(elbo.values, fit.elbo(POINTS).values)
    runtime = load_backend(backend).Runtime(fit.program, "cpu")  # and the arrays on the device
    native = runtime.put(fit.params)
    runtime.trace(native, runtime.put({"x": POINTS}), np.arange(46), 2, 0, None, False)
    runtime.means(native, runtime.put({"x": POINTS}), np.arange(46))
    assert all(np.array_equal(before[n], v) for n, v in runtime.fetch(native).items())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_resumed_run_has_the_same_bits(backend, tmp_path):
    settings = {"weight_average": 0.9}
    whole = train(vq(), backend, POINTS, steps=20, **settings)
    train(vq(), backend, POINTS, steps=14, out=tmp_path / "run", **settings)
    found = ppdgm.resume(tmp_path / "run", POINTS, program=vq(), steps=20, progress=False)
    assert all(np.array_equal(found.params[n], v) for n, v in whole.params.items())
    assert np.array_equal(found.history["objective"], whole.history["objective"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_are_saved_and_opened_on_the_other_backend(backend, tmp_path):
    fit = train(vq(), backend, POINTS, out=tmp_path / "run")
    other = ppdgm.load(tmp_path / "run", BACKENDS[1 - BACKENDS.index(backend)], program=vq())
    assert all(np.array_equal(other.params[n], v) for n, v in fit.params.items())
    np.testing.assert_allclose(other.elbo(POINTS).values, fit.elbo(POINTS).values, rtol=1e-4, atol=1e-4)
    with pytest.raises(ppdgm.PpdgmError, match=r"'posterior\.count' is missing"):
        train(vq(), backend, POINTS, params={n: v for n, v in fit.params.items() if n != "posterior.count"})
