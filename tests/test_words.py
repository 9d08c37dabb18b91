"""The words P.vjp, P.random, P.implicit and sample(mask=): against closed forms, differences and SciPy."""

import numpy as np
import pytest
from scipy import stats

import ppdgm
from ppdgm import Program
from ppdgm.errors import PpdgmError, ProgramError
from ppdgm.inference import IWAE, SVI
from ppdgm.models import MLP, VAE, Flow, FlowPrior, Gaussian

BACKENDS = ["numpyro", "pyro"]
both = pytest.mark.parametrize("backend", BACKENDS)
QUICK = {"progress": False, "compile": False}


class Measured(Program):
    """A loss that keeps what P gave, for comparison: `of(P, x)` is returned."""

    of: str

    def build(self, context):
        context.net("net", MLP(hidden=(3,), activation="tanh"), (2,), (2,))

    def asked(self, P, x):
        return OF[self.of](P, x)

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.net("net")(0.0 * x), P.full((2,), 1.0)).to_event(1), obs=x)


OF = {}


def asked(of, backend, x, seed=0, **how):
    """What `of(P, x)` returns, of a run of a function of a program on a backend."""
    from ppdgm.registry import backend as load

    OF["of"] = of
    program = Measured(of="of")
    runtime = load(backend).Runtime(program, "cpu")
    params = runtime.put(program.initialise(0))
    data = runtime.put({"x": x})

    def question(runtime, params, noise, data):
        return runtime.tracer.ask(params, noise, data, len(x)).run("asked", **how).returned

    return runtime.ask(question, params, (seed,), data)


X = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")


def test_vjp_is_the_product_with_the_jacobian_by_differences():
    """And one that is nested: the gradient of a squared gradient's norm."""

    def of(P, x):
        value, pull = P.vjp(P.net("net"), x)
        slope = lambda x: P.xp.sum(P.vjp(P.net("net"), x)[1](P.constant(V)) ** 2, axis=-1)
        return value, pull(P.constant(V)), P.vjp(slope, x)[1](P.full((len(X),), 1.0))

    rng = np.random.default_rng(1)
    V = rng.normal(size=(4, 2)).astype("float32")
    params = Measured(of="of").initialise(0)
    W, c, U, d = (params[f"net.layers.{i}.{n}"].astype(float) for i in (0, 1) for n in ("weight", "bias"))
    f = lambda x: np.tanh(x @ W + c) @ U + d
    product = lambda x: ((1 - np.tanh(x @ W + c) ** 2) * (V @ U.T)) @ W.T
    squares = lambda x: (product(x) ** 2).sum(-1)
    h, eye = 1e-5, np.eye(2)
    second = np.stack([(squares(X + h * e) - squares(X - h * e)) / (2 * h) for e in eye], axis=-1)
    for backend in BACKENDS:
        value, first, nested = asked(of, backend, X)
        np.testing.assert_allclose(value, f(X.astype(float)), atol=1e-5)
        np.testing.assert_allclose(first, product(X.astype(float)), atol=1e-5)
        np.testing.assert_allclose(nested, second, atol=1e-4)


@both
def test_noise_has_its_distribution_and_each_use_its_own_numbers(backend):
    """Kolmogorov and Smirnov's test at 4,000 numbers; correlation of two uses within 4 standard errors of 0."""
    n = 4000
    of = lambda P, x: (
        *(P.random.normal((n,)) for _ in range(2)),
        P.random.uniform((n,)),
        P.random.gumbel((n,)),
        P.random.permutation(50),
        *(P.scope("other").random.normal((n,)) for _ in range(2)),
    )
    one, two, uniform, gumbel, order, three, four = asked(of, backend, X)
    for numbers, law in ((one, "norm"), (uniform, "uniform"), (gumbel, "gumbel_r"), (four, "norm")):
        assert stats.kstest(numbers, law).pvalue > 1e-3
    corr = np.corrcoef([one, two, three, four])
    assert np.abs(corr - np.eye(4)).max() < 4 / np.sqrt(n)
    assert sorted(order) == list(range(50)) and list(order) != list(range(50))
    again, other = asked(of, backend, X), asked(of, backend, X, seed=1)
    np.testing.assert_array_equal(again[0], one)
    assert np.abs(np.corrcoef(one, other[0])[0, 1]) < 4 / np.sqrt(n)


@both
def test_sites_keep_their_draws_if_noise_is_taken_after_them(backend):
    class With(Program):
        noisy: bool = False

        def build(self, context):
            context.param("loc", (1,))

        def model(self, P, x):
            with P.plate("data", x):
                z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
                P.sample("x", P.dist.Normal(z, P.full((1,), 1.0)).to_event(1), obs=x)

        def guide(self, P, x):
            with P.plate("data", x):
                P.sample("z", P.dist.Normal(P.param("loc") + x, P.full((1,), 1.0)).to_event(1))
                if self.noisy:
                    P.penalty("p", P.random.normal((x.shape[0],)))

    rows = X[:, :1]
    plain, noisy = (
        ppdgm.trace(With(noisy=n), {"loc": np.zeros(1, "float32")}, rows, k=2, backend=backend) for n in (False, True)
    )
    np.testing.assert_array_equal(plain.values["z"], noisy.values["z"])
    assert noisy.penalties["p"].std() > 0
    fit = ppdgm.fit(With(noisy=True), rows, backend=backend, steps=1, learning_rate=0.0, **QUICK)
    assert np.isfinite(fit.elbo(rows, k=100).mean)  # no term depends on it


class Noisy(Program):
    """A model whose mean has noise of its own."""

    def build(self, context):
        context.param("m", (2,))

    def model(self, P, x):
        with P.plate("data", x):
            mean = P.param("m") + P.random.normal((x.shape[0], 2))
            P.sample("x", P.dist.Normal(mean, P.full((2,), 1.0)).to_event(1), obs=x)


@both
def test_terms_that_depend_on_noise_are_not_evaluated(backend):
    fit = ppdgm.fit(Noisy(), X, backend=backend, steps=2, **QUICK)
    for evaluate in (fit.elbo, fit.log_likelihood):
        with pytest.raises(ProgramError, match=r"random numbers outside its sample sites.*P\.random"):
            evaluate(X)
    with pytest.raises(ProgramError, match=r"outside its sample sites.*P\.random"):
        ppdgm.fit(Noisy(), X, validation=X, backend=backend, steps=2, **QUICK)


@both
@pytest.mark.parametrize("word", ["noise", "site", "penalty", "deterministic", "scan"])
def test_the_body_of_repeat_only_computes(backend, word):
    def body(P):
        return {
            "noise": lambda z: z + P.random.normal((4, 2)),
            "site": lambda z: P.sample("z", P.dist.Normal(z, 1.0).to_event(1)),
            "penalty": lambda z: P.penalty("p", z[:, 0]) or z,
            "deterministic": lambda z: P.deterministic("d", z),
            "scan": lambda z: P.scan(lambda P, carry, x: (carry, x), z, length=2)[0],
        }[word]

    with pytest.raises(ProgramError, match=r"P\.\w+(\(.*\))? is in the body of P.repeat.*before or after the loop"):
        asked(lambda P, x: P.repeat(3, body(P), x), backend, X)


class Missing(Program):
    """Rows without data: m by maximum likelihood is the mean of the others."""

    law: str = "Gamma"

    def build(self, context):
        context.param("m", (1,))
        context.param("s", (1,))

    def model(self, P, x, there):
        with P.plate("data", x):
            rate = P.xp.exp(P.param("m"))
            law = {
                "Gamma": lambda: P.dist.Gamma(P.xp.exp(P.param("s")), rate),
                "Poisson": lambda: P.dist.Poisson(rate),
                "Normal": lambda: P.dist.Normal(P.param("m"), P.xp.exp(P.param("s"))),
                "own": lambda: P.distribution(
                    lambda random, shape: (random.uniform(shape), None),
                    lambda x: P.param("m") - P.xp.exp(P.param("m")) * x,
                    (),
                    (1,),
                    support="positive",
                ),
            }[self.law]()
            P.sample("x", law.to_event(1), obs=x, mask=there)


@both
@pytest.mark.parametrize(("law", "fill"), [("Gamma", -1.0), ("Poisson", -3.0), ("Normal", 1e30), ("own", -1.0)])
def test_rows_without_data_count_for_nothing(backend, law, fill):
    """Terms are 0 there, the others are SciPy's; after training, parameters are those of the rows that are there."""
    rng = np.random.default_rng(0)
    there = np.arange(12) % 3 > 0
    x = rng.poisson(3.0, size=(12, 1)) + (0.0 if law == "Poisson" else 0.5)
    data = {"x": np.where(there[:, None], x, fill).astype("float32"), "there": there}
    params = {"m": np.array([0.3], "float32"), "s": np.array([0.2], "float32")}
    terms = ppdgm.trace(Missing(law=law), params, data, k=2, backend=backend).log_p["x"]
    m, s = 0.3, np.exp(0.2)
    expected = {
        "Gamma": lambda: stats.gamma.logpdf(x, s, scale=np.exp(-m)),
        "Poisson": lambda: stats.poisson.logpmf(x, np.exp(m)),
        "Normal": lambda: stats.norm.logpdf(x, m, s),
        "own": lambda: stats.expon.logpdf(x, scale=np.exp(-m)),
    }[law]()
    np.testing.assert_allclose(terms, np.broadcast_to((expected * there[:, None])[:, 0], (2, 12)), rtol=1e-4)
    whole = ppdgm.fit(Missing(law=law), data, backend=backend, steps=3, learning_rate=0.1, **QUICK)
    rest = {n: v[there] for n, v in data.items()}
    few = ppdgm.fit(Missing(law=law), rest, backend=backend, steps=3, learning_rate=0.1, **QUICK)
    for name in params:  # adam's steps don't see the factor 8 / 12
        np.testing.assert_allclose(whole.params[name], few.params[name], rtol=1e-3)
    assert whole.elbo(data).mean == pytest.approx(whole.elbo(rest).mean * 8 / 12, rel=1e-4)
    assert whole.sample(3).shape == (3, 1) and np.isfinite(whole.sample(3)).all()


class Bounds(Program):
    """The support of x depends on a latent."""

    def build(self, context):
        context.param("m", (1,))

    def model(self, P, x, there):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.param("m"), P.full((1,), 1.0)).to_event(1))
            P.sample("x", P.dist.Uniform(-1.0 - z**2, 1.0 + z**2).to_event(1), obs=x, mask=there)

    def guide(self, P, x, there):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(0.0 * x, P.full((1,), 1.0)).to_event(1))


@both
def test_masked_supports_may_depend_on_latents(backend):
    there = np.arange(4) % 2
    data = {"x": np.where(there, 0.5, 99.0).astype("float32")[:, None], "there": there}
    params = {"m": np.zeros(1, "float32")}
    trace = ppdgm.trace(Bounds(), params, data, k=3, backend=backend)
    half = 1.0 + trace.values["z"][..., 0] ** 2
    np.testing.assert_allclose(trace.log_p["x"], stats.uniform.logpdf(0.5, -half, 2 * half) * there, rtol=1e-5)
    if backend == "numpyro":
        from numpyro import handlers

        model = handlers.substitute(Bounds().bind(backend, params)[0], {"z": trace.values["z"][0]})
        site = handlers.trace(model).get_trace(**data)["x"]
        np.testing.assert_allclose(site["fn"].log_prob(site["value"]), trace.log_p["x"][0], rtol=1e-5)


@both
def test_masks_are_of_rows_and_of_data(backend):
    def fit(statement):
        class Wrong(Program):
            def build(self, context):
                context.param("m", (2,))

            def model(self, P, x):
                with P.plate("data", x):
                    statement(P, P.dist.Normal(P.param("m"), P.full((2,), 1.0)).to_event(1), x)

        ppdgm.fit(Wrong(), X, backend=backend, steps=1, **QUICK)

    with pytest.raises(ProgramError, match=r"'z': mask= is for data .*no obs="):
        fit(lambda P, law, x: P.sample("z", law, mask=x[:, 0] > 0))
    with pytest.raises(ProgramError, match=r"a mask of shape \(3, 2, 1\), expected \[B\]"):
        fit(lambda P, law, x: P.sample("x", law, obs=x, mask=(x > 0)[..., None]))
    with pytest.raises(PpdgmError, match=r"shape|broadcast|batch"):
        fit(lambda P, law, x: P.sample("x", law, obs=x, mask=(x > 0)[:3, 0]))


@both
def test_masks_of_bound_programs_are_the_librarys(backend):
    rng = np.random.default_rng(0)
    x, there = rng.normal(size=(6, 1)).astype("float32"), np.arange(6) % 2
    program, params = Missing(law="Normal"), {"m": np.zeros(1, "float32"), "s": np.zeros(1, "float32")}
    model, _ = program.bind(backend, params)
    if backend == "pyro":
        import pyro
        import torch

        trace = pyro.poutine.trace(model).get_trace(x=torch.tensor(x), there=torch.tensor(there))
        total = float(trace.log_prob_sum().detach())
    else:
        from numpyro.infer.util import log_density

        total = float(log_density(model, (), {"x": x, "there": there}, params)[0])
    assert total == pytest.approx(stats.norm.logpdf(x[there == 1]).sum(), rel=1e-5)


@both
def test_draws_without_density_are_refused_where_it_is_needed(backend):
    class Implicit(Program):
        """The guide's draw has no density."""

        def build(self, context):
            context.net("net", MLP(hidden=(2,)), (1,), (1,), label="guide")

        def model(self, P, x):
            with P.plate("data", x):
                z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
                P.sample("x", P.dist.Normal(z, P.full((1,), 1.0)).to_event(1), obs=x)

        def guide(self, P, x):
            with P.plate("data", x):
                P.sample("z", P.implicit(P.net("net")(x + P.random.normal(tuple(x.shape)))).to_event(1))

    rows = X[:, :1]
    for engine in (SVI(), IWAE(k=3)):
        with pytest.raises(ProgramError, match="'z' is a draw without a density"):
            ppdgm.fit(Implicit(), rows, engine=engine, backend=backend, steps=1, **QUICK)
    for bound in Implicit().bind(backend)[1:]:
        with pytest.raises((ProgramError, ValueError), match="without a density"):  # Pyro puts its own around it
            _log_prob(bound, rows, backend)


def _log_prob(model, x, backend):
    if backend == "pyro":
        import pyro
        import torch

        pyro.poutine.trace(model).get_trace(torch.tensor(x)).log_prob_sum()
    else:
        import numpyro
        from numpyro.infer.util import log_density

        log_density(numpyro.handlers.seed(model, 0), (x,), {}, {})


class NeuralODE(Flow):
    """dz/dt = f(z, t), log|det| = ∫ tr ∂f/∂z dt, by Runge and Kutta. Chen et al. 2018, arXiv:1806.07366."""

    steps: int = 4

    def build(self, context, width, conditional):
        context.net("field", MLP(hidden=(8,), activation="tanh"), (width + 1,), (width,))
        return 0

    def _solve(self, P, x, sign):
        h, eye, field = sign / self.steps, np.eye(x.shape[-1]), P.net("field")

        def rate(z, t):
            v, pull = P.vjp(lambda z: field(P.concat([z, t + 0.0 * z[..., :1]])), z)
            return v, sum(pull(P.constant(e))[..., i] for i, e in enumerate(eye))

        def step(state):
            z, trace, t = state
            a, ta = rate(z, t)
            b, tb = rate(z + h / 2 * a, t + h / 2)
            c, tc = rate(z + h / 2 * b, t + h / 2)
            d, td = rate(z + h * c, t + h)
            return z + h / 6 * (a + 2 * b + 2 * c + d), trace + h / 6 * (ta + 2 * tb + 2 * tc + td), t + h

        return P.repeat(self.steps, step, (x, 0.0 * x[..., 0], P.full((), 0.0 if sign > 0 else 1.0)))[:2]

    def forward(self, P, x, context):
        return self._solve(P, x, 1.0)

    def inverse(self, P, y, context):
        return self._solve(P, y, -1.0)


@both
def test_a_neural_ode_is_a_density(backend):
    """It integrates to 1 on a grid within 1e-3, and log|det| is that of the map's Jacobian, by differences."""
    x = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
    net = MLP(hidden=(4,))
    program = VAE(
        event_shape=(2,), latent=2, prior=FlowPrior(flow=NeuralODE()), likelihood=Gaussian(), encoder=net, decoder=net
    )
    fit = ppdgm.fit(program, x, backend=backend, steps=20, batch_size=50, learning_rate=0.05, **QUICK)
    grid = np.stack(np.meshgrid(*[np.linspace(-6, 6, 81)] * 2), -1).reshape(-1, 2).astype("float32")
    log_p = ppdgm.trace(program, fit.params, x[:1], k=len(grid), backend=backend, values={"z": grid[:, None]}).log_p[
        "z"
    ]
    assert np.exp(log_p).sum() * (12 / 80) ** 2 == pytest.approx(1.0, abs=1e-3)
