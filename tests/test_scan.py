"""P.scan against computations by hand, the Kalman filter, and the other backend."""

import jax
import numpy as np
import pytest
from scipy import stats

import ppdgm
from ppdgm import Program
from ppdgm.inference import IWAE, SVI
from ppdgm.inference.evaluation.result import Fit
from ppdgm.language.gradients import differentiable
from ppdgm.program import constant
from ppdgm.registry import backend as load_backend
from ppdgm.specs import Shape

BACKENDS = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
A, Q, R = 0.8, 0.5, 0.3  # z_t = A z_{t-1} + N(0, Q), x_t = z_t + N(0, R)
V = 1 / (1 / Q + 1 / R)  # of z_t given z_{t-1} and x_t: N(V (A z_{t-1} / Q + x_t / R), V)
T, N = 6, 5
LENGTHS = np.array([6, 1, 4, 3, 2], "int32")


class Chain(Program):
    """A linear-Gaussian chain; the guide begins at the distribution of z_t given z_{t-1} and x_t."""

    event_shape: Shape

    def build(self, c):
        c.param("a", (), constant(A))
        for name, value in (("of_z", V * A / Q), ("of_x", V / R), ("log_scale", 0.5 * np.log(V))):
            c.param(name, (), constant(value), label="guide")

    def there(self, P, length):
        return None if length is None else P.constant(np.arange(self.event_shape[0])) < length[:, None]

    def model(self, P, x, length=None):
        def step(P, z, x):
            z = P.sample("z", P.dist.Normal(P.param("a") * z, P.full((1,), Q**0.5)).to_event(1))
            P.sample("x", P.dist.Normal(z, P.full((1,), R**0.5)).to_event(1), obs=x)
            return z, None

        with P.plate("data", x):
            P.scan(step, P.full((1,), 0.0), x, self.event_shape[0], self.there(P, length))

    def guide(self, P, x, length=None):
        def step(P, z, x):
            loc = P.param("of_z") * z + P.param("of_x") * x
            return P.sample("z", P.dist.Normal(loc, P.xp.exp(P.param("log_scale"))).to_event(1)), None

        with P.plate("data", x):
            P.scan(step, P.full((1,), 0.0), x, self.event_shape[0], self.there(P, length))


def simulated(n, times, seed=0):
    rng, z, x = np.random.default_rng(seed), np.zeros(n), []
    for _ in range(times):
        z = A * z + rng.normal(scale=Q**0.5, size=n)
        x.append(z + rng.normal(scale=R**0.5, size=n))
    return np.stack(x, 1)[..., None].astype("float32")


X = simulated(N, T)
PROGRAM = Chain(event_shape=(T, 1))
PARAMS = PROGRAM.initialise(0)
SHORT = {"x": X, "length": LENGTHS}


def before(z):
    """z_{t-1} at each time."""
    return np.concatenate([np.zeros_like(z[:, :, :1]), z[:, :, :-1]], 2)


def by_hand(z, x):
    """log p(z), log p(x|z) and log q(z|x) of each time, [K, B, T]."""
    normal = lambda v, loc, variance: stats.norm.logpdf(v, loc, variance**0.5)[..., 0]
    last = before(z)
    return normal(z, A * last, Q), normal(x, z, R), normal(z, V * (A * last / Q + x / R), V)


def close(a, b, atol=1e-5):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


# --- terms ------------------------------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("data", [{"x": X}, SHORT], ids=["whole", "ragged"])
def test_terms_are_those_by_hand(backend, data):
    found = ppdgm.trace(PROGRAM, PARAMS, data, k=3, backend=backend, kl=True)
    z, there = found.values["z"].astype(float), np.arange(T) < data.get("length", np.full(N, T))[:, None]
    assert z.shape == (3, N, T, 1) and len(np.unique(z[:, there])) == 3 * there.sum()
    log_p, log_x, log_q = ((v * there).sum(-1) for v in by_hand(z, X))
    close(found.log_p["z"], log_p)
    close(found.log_p["x"], log_x)
    close(found.log_q["z"], log_q)
    loc, prior = V * (A * before(z) / Q + X / R), A * before(z)
    kl = 0.5 * (V / Q + (loc - prior) ** 2 / Q - 1 - np.log(V / Q))
    assert found.kl["z"].shape == (3, N, T)  # T · D dimensions
    close(found.kl["z"], kl[..., 0] * there)


@BACKENDS
def test_a_ragged_row_is_the_row_alone(backend):
    found = ppdgm.trace(PROGRAM, PARAMS, SHORT, k=2, backend=backend)
    for i, length in enumerate(LENGTHS):
        z = found.values["z"][:, i : i + 1, :length]
        alone = Chain(event_shape=(int(length), 1))
        own = ppdgm.trace(alone, PARAMS, X[i : i + 1, :length], k=2, backend=backend, values={"z": z})
        close(own.log_p["z"][:, 0], found.log_p["z"][:, i])
        close(own.log_p["x"][:, 0], found.log_p["x"][:, i])
        close(own.log_q["z"][:, 0], found.log_q["z"][:, i])


@BACKENDS
def test_nothing_of_a_masked_time_counts(backend):
    """Other data and other latents there change no bit: the carry stays, too."""
    found = ppdgm.trace(PROGRAM, PARAMS, SHORT, k=2, backend=backend)
    gone = (np.arange(T) >= LENGTHS[:, None])[..., None]
    x, z = np.where(gone, 77.0, X).astype("float32"), np.where(gone, -5.0, found.values["z"]).astype("float32")
    other = ppdgm.trace(PROGRAM, PARAMS, {"x": x, "length": LENGTHS}, k=2, backend=backend, values={"z": z})
    for part in ("log_p", "log_q"):
        for name, value in getattr(found, part).items():
            np.testing.assert_allclose(getattr(other, part)[name], value, rtol=1e-6)


@BACKENDS
def test_a_gap_keeps_the_carry(backend):
    class Gaps(Chain):
        def there(self, P, length):
            return length > 0

    there = np.array(
        [[1, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
    )
    program, data = Gaps(event_shape=(T, 1)), {"x": X, "length": there.astype("float32")}
    found = ppdgm.trace(program, PARAMS, data, k=2, backend=backend, kl=True)
    for i in range(N):
        at = there[i] > 0
        log_p, log_x, log_q = (v.sum(-1)[:, 0] for v in by_hand(found.values["z"][:, i : i + 1, at], X[i : i + 1, at]))
        close(found.log_p["z"][:, i], log_p)
        close(found.log_p["x"][:, i], log_x)
        close(found.log_q["z"][:, i], log_q)
    assert (found.kl["z"] != 0).any(0)[2].all() and not found.kl["z"][:, 3].any()


def kalman(x):
    """log p(x), [N], by the filter."""
    m, v, total = np.zeros(len(x)), np.zeros(len(x)), np.zeros(len(x))
    for t in range(x.shape[1]):
        m, v = A * m, A * A * v + Q
        error, s = x[:, t, 0] - m, v + R
        total += stats.norm.logpdf(error, 0, s**0.5)
        m, v = m + v / s * error, (1 - v / s) * v
    return total


@BACKENDS
def test_log_likelihood_is_the_kalman_filters(backend):
    x = simulated(40, T, seed=3)
    found = Fit(PROGRAM, PARAMS, backend).log_likelihood(x, k=2000, seed=1)
    expected = kalman(x.astype(float))
    assert found.monte_carlo_error < 0.02
    assert abs(found.mean - expected.mean()) < 3 * found.monte_carlo_error
    assert abs(found.mean - kalman(0.7 * x).mean()) > 10 * found.monte_carlo_error  # a wrong twin


@BACKENDS
def test_samples_have_the_chains_covariance(backend):
    n = 20_000
    x = Fit(PROGRAM, PARAMS, backend).sample(n)
    assert x.shape == (n, T, 1)
    lag = np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
    var = Q * (1 - A ** (2 * np.arange(1, T + 1))) / (1 - A**2)
    expected = A**lag * np.minimum.outer(var, var) + R * np.eye(T)
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / n)  # of a covariance of normals
    assert (np.abs(np.cov(x[..., 0].T) - expected) < 4 * error).all()
    assert (np.abs(x[..., 0].mean(0)) < 4 * np.sqrt(np.diag(expected) / n)).all()


# --- gradients and compilation ----------------------------------------------------------------------------------------


def slopes(backend, program, data, function, kl=False, values=None, params=PARAMS):
    runtime = load_backend(backend).Runtime(program, "cpu")
    return differentiable(runtime, function, 2, 0, kl)(params, data, values or {})


@pytest.mark.parametrize("data", [{"x": X}, SHORT], ids=["whole", "ragged"])
@pytest.mark.parametrize("kl", [False, True])
def test_gradients_are_the_same_on_both_backends(data, kl):
    def bound(trace, xp):
        q = xp.sum(trace.kl["z"]) if kl else xp.sum(trace.log_q["z"] - trace.log_p["z"])
        return xp.sum(trace.log_p["x"]) - q

    z = {"z": ppdgm.trace(PROGRAM, PARAMS, data, k=2).values["z"]}
    one, other = (slopes(b, PROGRAM, data, bound, kl, z) for b in ("numpyro", "pyro"))
    close(one[0], other[0])
    for group in ("params", "given"):
        for name, slope in one[1][group].items():
            close(slope, other[1][group][name])
            assert np.abs(slope).max() > 0


def equations(jaxpr):
    """The number of equations, with those inside others."""
    inner = [getattr(v, "jaxpr", v) for e in jaxpr.eqns for v in e.params.values() if hasattr(v, "jaxpr")]
    return len(jaxpr.eqns) + sum(equations(j) for j in inner)


def test_a_longer_chain_is_no_longer_program():
    def size(times):
        program = Chain(event_shape=(times, 1))
        runtime = load_backend("numpyro").Runtime(program, "cpu")
        data = runtime.put({"x": simulated(3, times)})
        ask = lambda p, key: runtime.tracer.trace(p, key, data, runtime.index(np.arange(3)), 2, None, True)
        return equations(jax.make_jaxpr(ask)(runtime.put(PARAMS), jax.random.key(0)).jaxpr)

    assert size(200) == size(20)


@BACKENDS
def test_trains_saves_loads_and_evaluates(backend, tmp_path):
    data = {"x": simulated(30, T), "length": np.resize(LENGTHS, 30)}
    how = {"backend": backend, "progress": False, "compile": False, "learning_rate": 1e-2}
    start = {"params": PARAMS | {"of_x": np.float32(0.0), "a": np.float32(0.3)}}
    fit = ppdgm.fit(PROGRAM, data, engine=SVI(), epochs=20, batch_size=8, accumulate=2, validation=data, **how, **start)
    assert fit.history["validation_elbo"][-1] > fit.history["validation_elbo"][0] + 0.1
    ppdgm.fit(PROGRAM, data, engine=IWAE(k=4, estimator="dreg"), steps=2, **how)
    assert fit.encode(data).shape == (30, T, 1) and fit.encode(data, k=3).shape == (3, 30, T, 1)
    assert fit.reconstruct(data).shape == (30, T, 1)
    assert fit.sample(4, given={"length": LENGTHS[:4]}).shape == (4, T, 1)
    fit.save(tmp_path / "run")
    z = ppdgm.trace(fit.program, fit.params, data, k=2, backend=backend).values
    other = ppdgm.load(tmp_path / "run", backend="pyro" if backend == "numpyro" else "numpyro", classes=[Chain])
    one, two = (ppdgm.trace(f.program, f.params, data, k=2, backend=f.backend, values=z) for f in (fit, other))
    close(sum(one.log_p.values()) - one.log_q["z"], sum(two.log_p.values()) - two.log_q["z"])


@BACKENDS
def test_float64(backend):
    with load_backend(backend).precision("float64"):
        params = PROGRAM.initialise(0, dtype="float64")
        x = X.astype(float)
        found = ppdgm.trace(PROGRAM, params, x, k=2, backend=backend)
        np.testing.assert_allclose(found.log_q["z"], by_hand(found.values["z"], x)[2].sum(-1), rtol=1e-10)
