"""P.scan with other sites and other data, in the libraries' handlers, and what it refuses."""

import jax
import numpy as np
import numpyro
import pyro
import pytest
import torch
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import logsumexp

import ppdgm
from ppdgm import Program
from ppdgm.errors import DataError, PpdgmError, ProgramError
from ppdgm.inference import SVI, MonteCarloEM
from ppdgm.inference.engines.samplers import HMC
from ppdgm.inference.evaluation.result import Fit
from ppdgm.language.gradients import differentiable
from ppdgm.program import constant
from ppdgm.registry import backend as load_backend
from ppdgm.specs import Shape

BACKENDS = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
T, N = 5, 4
LENGTHS = np.array([5, 1, 3, 2], "int32")
THERE = np.arange(T) < LENGTHS[:, None]
RNG = np.random.default_rng(0)


class Base(Program):
    """z_t ~ N(a z_{t-1}, 1), x_t ~ `emit`; q(z_t) = N(m, 1): a subclass changes one thing."""

    event_shape: Shape = (T,)

    def build(self, c):
        c.param("a", (), constant(0.5))
        c.param("m", (), constant(0.2), label="guide")

    def there(self, P, x, length):
        return None if length is None else P.constant(np.arange(T)) < length[:, None]

    def emit(self, P, z):
        return P.dist.Normal(z, 0.5)

    def step(self, P, z, x):
        z = P.sample("z", P.dist.Normal(P.param("a") * z, 1.0))
        P.sample("x", self.emit(P, z), obs=x)
        return z, None

    def draw(self, P, z, x):
        return P.sample("z", P.dist.Normal(P.param("m"), 1.0)), None

    def model(self, P, x, length=None):
        with P.plate("data", x):
            P.scan(self.step, 0.0, x, T, self.there(P, x, length))

    def guide(self, P, x, length=None):
        with P.plate("data", x):
            P.scan(self.draw, 0.0, None, T, self.there(P, x, length))


X = RNG.normal(size=(N, T)).astype("float32")


def parameters(program):
    return program.initialise(0)


def trace(program, data, backend, k=2, **how):
    return ppdgm.trace(program, parameters(program), data, k=k, backend=backend, **how)


def close(a, b, atol=1e-5):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


# --- data that are missing --------------------------------------------------------------------------------------------

EMISSIONS = {
    "gamma": (lambda P, z: P.dist.Gamma(P.softplus(z), 1.0), lambda x: np.abs(x) + 0.1, -3.0),
    "beta": (lambda P, z: P.dist.Beta(P.softplus(z), P.softplus(-z)), lambda x: 1 / (1 + np.exp(-x)), 7.0),
    "poisson": (lambda P, z: P.dist.Poisson(P.softplus(z)), lambda x: np.round(np.abs(x)), -5.0),
    "bernoulli": (lambda P, z: P.dist.Bernoulli(logits=z), lambda x: (x > 0) * 1.0, 9.0),
    "normal": (lambda P, z: P.dist.Normal(z, 0.5), lambda x: x, 1e30),
    "lognormal": (lambda P, z: P.dist.LogNormal(z, 1.0), lambda x: np.exp(x), -1.0),
    "uniform": (lambda P, z: P.dist.Uniform(-3.0, 3.0 + 0.0 * z), lambda x: np.clip(x, -1, 1), 30.0),
}


@BACKENDS
@pytest.mark.parametrize("name", EMISSIONS)
def test_data_outside_the_support_do_not_matter_where_they_are_masked(backend, name):
    emit, prepare, fill = EMISSIONS[name]
    program = type("Emits", (Base,), {"emit": lambda self, P, z: emit(P, z), "__module__": __name__})()
    clean = prepare(X).astype("float32")
    filled = np.where(THERE, clean, fill).astype("float32")
    runtime = load_backend(backend).Runtime(program, "cpu")
    total = lambda trace, xp: xp.sum(trace.log_p["x"]) + xp.sum(trace.log_p["z"]) - xp.sum(trace.log_q["z"])
    z = {"z": trace(program, {"x": clean, "length": LENGTHS}, backend).values["z"]}
    run = differentiable(runtime, total, 2, 0, False)
    (one, slopes), (other, dirty) = (run(parameters(program), {"x": x, "length": LENGTHS}, z) for x in (clean, filled))
    assert np.isfinite(one) and one == pytest.approx(other, rel=1e-6)
    for group in ("params", "given"):
        for n, slope in slopes[group].items():
            close(dirty[group][n], slope)
            assert np.isfinite(slope).all()
    Fit(program, parameters(program), backend).elbo({"x": filled, "length": LENGTHS})  # the check of data accepts them
    outside = np.where(THERE, fill, clean).astype("float32")
    if name != "normal":
        with pytest.raises(DataError, match=r"Site 'x': got data outside the support"):
            Fit(program, parameters(program), backend).elbo({"x": outside, "length": LENGTHS})


@BACKENDS
def test_different_masks_are_refused(backend):
    class Without(Base):
        def guide(self, P, x, length=None):
            super().guide(P, x)

    class Other(Base):
        def guide(self, P, x, length=None):
            super().guide(P, x, length - 1)

    for program, what in ((Without(), "only the model has a mask"), (Other(), "the masks differ")):
        with pytest.raises(ProgramError, match=f"Site 'z': guide and model leave out different times: {what}"):
            ppdgm.fit(program, {"x": X, "length": LENGTHS}, backend=backend, steps=1, progress=False, compile=False)


# --- discrete latents, noise, structure -------------------------------------------------------------------------------

MOVES = np.array([[0.8, 0.2], [0.3, 0.7]])
MEANS = np.array([-1.0, 1.0])


class Hidden(Base):
    """A hidden Markov chain of two states, which begins in state 0; q(c_t = 1) is one parameter."""

    def step(self, P, c, x):
        probs = P.xp.sum(c[..., None] * P.constant(MOVES), axis=-2)
        at = P.sample("z", P.dist.Categorical(probs=probs))
        P.sample("x", P.dist.Normal(P.constant(MEANS)[at], 1.0), obs=x)
        return P.one_hot(at, 2), None

    def draw(self, P, c, x):
        return P.sample("z", P.dist.Bernoulli(probs=0.5 * P.xp.ones_like(x)).to_event(0)), None

    def model(self, P, x, length=None):
        with P.plate("data", x):
            P.scan(self.step, P.constant(np.array([1.0, 0.0])), x, T, self.there(P, x, length))

    def guide(self, P, x, length=None):
        def draw(P, carry, x):
            logits = P.xp.stack([0.0 * x, P.param("m") + x], axis=-1)
            P.sample("z", P.dist.Categorical(logits=logits))
            return carry, None

        with P.plate("data", x):
            P.scan(draw, 0.0, x, T, self.there(P, x, length) if length is not None else None)


class Still(Hidden):
    """The same without a mask, because a carry without rows has none."""


def forward(x):
    """log p(x) of the hidden Markov chain by the forward algorithm, [N]."""
    state = np.log(np.array([1.0, 1e-300]))
    found = np.tile(state, (len(x), 1))
    for t in range(x.shape[1]):
        found = logsumexp(found[:, :, None] + np.log(MOVES), axis=1) + stats.norm.logpdf(x[:, t, None], MEANS)
    return logsumexp(found, axis=1)


@BACKENDS
def test_a_hidden_markov_chain(backend):
    fit = Fit(Hidden(), parameters(Hidden()), backend)
    found = fit.log_likelihood(X, k=4000)
    assert abs(found.mean - forward(X.astype(float)).mean()) < 3 * found.monte_carlo_error < 0.1
    trained = ppdgm.fit(
        Hidden(), X, engine=SVI(k=4, kl="monte_carlo"), backend=backend, steps=2, progress=False, compile=False
    )
    assert trained.encode(X).shape == (N, T) and trained.sample(3).shape == (3, T)


@BACKENDS
def test_penalties_and_named_values_and_noise(backend):
    class More(Base):
        def step(self, P, z, x):
            z, _ = super().step(P, z, x)
            P.penalty("size", z**2)
            P.deterministic("twice", 2 * z)
            return z, None

    program = More()
    found = trace(program, {"x": X, "length": LENGTHS}, backend)
    close(found.penalties["size"], (found.values["z"] ** 2 * THERE).sum(-1))

    class Noisy(Base):
        def step(self, P, z, x):
            e = P.random.normal(())
            P.penalty("one", e + 0 * x)
            P.penalty("two", e**2 + 0 * x)
            return super().step(P, z, x)

    runtime = load_backend(backend).Runtime(Noisy(), "cpu")
    native = runtime.put(parameters(Base())), runtime.put({"x": X})
    found = runtime.trace(*native, np.arange(N), 1, 0, None, False).penalties
    assert (T * found["two"] > 1.1 * found["one"] ** 2).all()  # they are equal if the noise is the same at each time
    ppdgm.fit(Noisy(), X, backend=backend, steps=2, progress=False, compile=False).elbo(X)  # no term depends on it

    class Louder(Base):
        def draw(self, P, z, x):
            return P.sample("z", P.dist.Normal(P.param("m") + P.random.normal(()), 1.0)), None

    with pytest.raises(ProgramError, match="draws random numbers outside its sample sites"):
        trace(Louder(), X, backend)


@BACKENDS
def test_outputs_are_data_of_another_scan(backend):
    """A guide that reads the data backwards before it draws; trees as carry, xs and output; sums by hand."""

    class Smoother(Base):
        def guide(self, P, x, length=None):
            def back(P, carry, at):
                total = carry["total"] + at[0]
                return {"total": total}, {"total": total, "number": at[1]}

            def draw(P, z, at):
                h, same = at
                return P.sample("z", P.dist.Normal(P.param("m") * h["total"] + 0 * same, 1.0)), h["number"]

            with P.plate("data", x):
                times = P.constant(np.arange(T))[None, None]
                last, found = P.scan(back, {"total": 0.0}, (P.xp.flip(x, axis=1), times))
                assert tuple(found["total"].shape) == (1, x.shape[0], T)
                found = {n: P.xp.flip(v, axis=-1) for n, v in found.items()}
                P.scan(draw, 0.0, (found, x), T)
                P.deterministic("last", last["total"])

    found = trace(Smoother(), X, backend)
    loc = 0.2 * np.cumsum(X[:, ::-1], axis=1)[:, ::-1]
    close(found.log_q["z"], stats.norm.logpdf(found.values["z"], loc, 1).sum(-1))
    # with as many particles as rows and times, nothing is mistaken
    found = trace(Smoother(), RNG.normal(size=(T, T)).astype("float32"), backend, k=T)
    assert found.values["z"].shape == (T, T, T)


@BACKENDS
def test_one_site_of_all_times_in_the_guide(backend):
    class Joint(Base):
        def guide(self, P, x, length=None):
            with P.plate("data", x):
                P.sample("z", P.dist.Normal(P.param("m") + P.full((T,), 0.0), 1.0).to_event(1))

    found = trace(Joint(), X, backend, kl=True)
    z, last = found.values["z"], np.concatenate([np.zeros((2, N, 1)), 0.5 * found.values["z"][..., :-1]], -1)
    close(found.log_p["z"], stats.norm.logpdf(z, last, 1).sum(-1))
    assert not found.kl  # one distribution of all times, and one of each


@BACKENDS
def test_closed_forms_only_if_the_guide_draws_in_the_same_order(backend):
    """Two latents in one scan of the model; a guide with two scans draws b after all a: KL(a) is not valid then."""

    class Two(Base):
        apart: bool = False

        def one(self, P, b, x):
            a = P.sample("a", P.dist.Normal(b, 1.0))
            b = P.sample("b", P.dist.Normal(a, 1.0))
            P.sample("x", P.dist.Normal(b, 1.0), obs=x)
            return b, None

        def model(self, P, x):
            with P.plate("data", x):
                P.scan(self.one, 0.0, x)

        def guide(self, P, x):
            q = lambda P: P.dist.Normal(P.param("m"), 1.0)
            first = lambda P, c, x: (c, P.sample("a", q(P)))
            second = lambda P, c, x: (c, P.sample("b", q(P)))
            both = lambda P, c, x: (c, first(P, c, x) and second(P, c, x)[1])
            with P.plate("data", x):
                for body in (first, second) if self.apart else (both,):
                    P.scan(body, 0.0, None, T)

    assert set(trace(Two(), X, backend, kl=True).kl) == {"a", "b"}
    assert set(trace(Two(apart=True), X, backend, kl=True).kl) == {"b"}


@BACKENDS
def test_samples_given_latents_but_not_given_data(backend):
    fit = Fit(Base(), parameters(Base()), backend)
    z = np.tile(np.linspace(-2, 2, T).astype("float32"), (2000, 1))
    x = fit.sample(2000, given={"z": z})
    assert (np.abs(x.mean(0) - z[0]) < 4 * 0.5 / np.sqrt(2000)).all()
    close(fit.sample(3, mean=True, given={"z": z[:3]}), z[:3])
    with pytest.raises(ProgramError, match="site 'x' is drawn after 'z' in the model"):
        fit.sample(N, given={"x": X})


@BACKENDS
def test_diagnoses(backend):
    fit = Fit(Base(), parameters(Base()), backend)
    found = fit.diagnose(np.tile(X, (5, 1)), k=20, few=4, parts=("likelihood", "latents", "predictive", "calibration"))
    assert not {"likelihood", "latents", "predictive", "calibration"} & set(found.withheld), found.withheld
    draws = fit.posterior(X, draws=20, how="importance")
    assert draws.shape == (20, N, T)


# --- handlers ---------------------------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("data", [{"x": X}, {"x": X, "length": LENGTHS}], ids=["whole", "ragged"])
def test_handlers_give_the_same_terms(backend, data):
    program = Base()
    found = trace(program, data, backend, k=1)
    z = {f"z_{t}": found.values["z"][0, :, t] for t in range(T)}
    model, guide = program.bind(backend, parameters(program))
    for run, terms in ((model, found.log_p), (guide, found.log_q)):
        ours = sum(v.sum() for v in terms.values())
        if backend == "numpyro":
            native = {n: jax.numpy.asarray(v) for n, v in data.items()}
            close(float(log_density(run, (), native, z)[0]), ours)
        else:
            native = {n: torch.tensor(v) for n, v in data.items()}
            held = pyro.poutine.condition(run, {n: torch.tensor(v) for n, v in z.items()})
            close(pyro.poutine.trace(held).get_trace(**native).log_prob_sum().item(), ours)


def test_the_libraries_own_svi_and_predictive_run():
    program, native = Base(), {"x": torch.tensor(X), "length": torch.tensor(LENGTHS)}
    native["x"][~torch.tensor(THERE)] = 1e9
    model, guide = program.bind("pyro", parameters(program))
    for how in ({}, {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 1}):
        assert np.isfinite(pyro.infer.Trace_ELBO(**how).loss(model, guide, **native))
    model, guide = program.bind("numpyro", parameters(program), size=7)
    drawn = numpyro.infer.Predictive(model, num_samples=3)(jax.random.key(0))
    assert drawn["x_4"].shape == (3, 7) and drawn["z_0"].shape == (3, 7)


# --- refusals ---------------------------------------------------------------------------------------------------------


def bad(message, **change):
    return pytest.param(change, message, id=message[:30])


def scanning(call):
    def model(self, P, x, length=None):
        with P.plate("data", x):
            call(self, P, x)

    return model


def outside(self, P, x, length=None):
    P.scan(self.step, 0.0, x)


def nests(self, P, z, x):
    return P.scan(lambda P, z, x: (z, None), z, length=2)[0], None


def enumerates(self, P, z, x):
    return P.sample("z", P.dist.Bernoulli(probs=0.5), infer={"enumerate": "parallel"}), None


REFUSED = [
    bad("P.scan is outside the data plate", model=outside),
    bad("P.scan is inside the body of another", step=nests),
    bad("Site 'z' is enumerated in P.scan", step=enumerates),
    bad("Plate 'more' is in the body of P.scan", step=lambda self, P, z, x: P.plate("more", x)),
    bad("the body returned NoneType, expected a pair", step=lambda self, P, z, x: None),
    bad("Return a carry of the same structure", step=lambda self, P, z, x: ((z, z), None)),
    bad("rows and T = 4 times", model=scanning(lambda self, P, x: P.scan(self.step, 0.0, x, 4))),
    bad("got neither xs nor length", model=scanning(lambda self, P, x: P.scan(self.step, 0.0))),
    bad("got length=0", model=scanning(lambda self, P, x: P.scan(self.step, 0.0, x, 0))),
    bad("got a mask of type", model=scanning(lambda self, P, x: P.scan(self.step, 0.0, x, T, x))),
    bad("got a mask of shape", model=scanning(lambda self, P, x: P.scan(self.step, 0.0, x, T, x[:, 1:] > 0))),
    bad("without an axis of", model=scanning(lambda s, P, x: P.scan(lambda P, n, x: (n + 1, None), 0.0, x, T, x > 0))),
    bad("the body got a carry of shape", step=lambda self, P, z, x: (z[..., None], None)),
]  # fmt: skip


@BACKENDS
@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refuses(backend, change, message):
    program = type("Wrong", (Base,), {**change, "__module__": __name__})()
    with pytest.raises(ProgramError) as error:
        trace(program, X, backend)
    assert message in str(error.value)
    model, _ = program.bind(backend, parameters(program))
    with pytest.raises(PpdgmError) as error:
        if backend == "numpyro":
            numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(jax.numpy.asarray(X))
        else:
            model(torch.tensor(X))
    assert message in str(error.value)


@BACKENDS
def test_refuses_other_uses(backend):
    class Twice(Base):
        def model(self, P, x, length=None):
            super().model(P, x, length)
            with P.plate("data", x):
                P.sample("z", P.dist.Normal(0.0, 1.0))

    with pytest.raises(ProgramError, match="Site 'z' is drawn twice"):
        trace(Twice(), X, backend)

    class Single(Base):
        def guide(self, P, x, length=None):
            with P.plate("data", x):
                P.sample("z", P.dist.Normal(P.param("m"), 1.0))

    with pytest.raises(ProgramError, match=r"Site 'z': got values of shape .* but the site is in P.scan"):
        trace(Single(), X, backend)
    how = {"backend": backend, "steps": 1, "progress": False, "compile": False}
    with pytest.raises(ProgramError, match=r"Site 'z' is in P.scan with a mask.*no density"):
        ppdgm.fit(Base(), {"x": X, "length": LENGTHS}, engine=MonteCarloEM(sampler=HMC()), **how)
    fit = ppdgm.fit(Base(), {"x": X, "length": LENGTHS}, **how)
    with pytest.raises(ProgramError, match="computes with data that were not given"):
        fit.sample(3)
