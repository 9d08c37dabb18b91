"""Words of P used wrongly: the same error on both backends, and nothing is lost in silence."""

import numpy as np
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError
from ppdgm.inference import Composite, Engine, Minimise, Phase, bounds

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
QUICK = {"steps": 1, "progress": False, "compile": False}


class Base(Program):
    def build(self, context):
        context.param("a", (3,))

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.param("a"), P.full((3,), 1.0)).to_event(1), obs=x, **self.about(P, x))

    def about(self, P, x):
        return {}


def of_loss(function):
    """A program whose loss is a function of (P, x)."""
    return type("Mine", (Base,), {"__module__": __name__, "loss": lambda self, P, x: function(P, x)})()


VJP = {
    "got float for f, expected a function": lambda P, x: P.vjp(1.0, x)[1](x),
    r"got tuple for x, expected an array of floating numbers.*outside": lambda P, x: P.vjp(lambda y: y, (x, x))[1](x),
    r"got numbers of type \S*bool for x": lambda P, x: P.vjp(lambda y: y * 1.0, x > 0)[1](x),
    r"the function returned tuple, expected an array.*P\.concat": lambda P, x: P.vjp(lambda y: (y, y), x)[1](x),
    r"got a NumPy array for v\. Give P\.constant": lambda P, x: P.vjp(lambda y: y, x)[1](np.ones(3)),
    r"got v of shape \(\d+, 2\), expected that of f\(x\), \(\d+, 3\)": lambda P, x: P.vjp(lambda y: y, x)[1](x[:, :2]),
}


@both
@pytest.mark.parametrize("match", VJP)
def test_gradients_of_something_else_are_refused(match, backend):
    loss = lambda P, x: VJP[match](P, x + P.param("a")).sum(-1)
    with pytest.raises(ProgramError, match=rf"P\.vjp: {match}"):
        ppdgm.fit(of_loss(loss), X, engine=Minimise(), backend=backend, **QUICK)


@both
@pytest.mark.parametrize("v", [2.0, np.float64(2.0)])
def test_a_number_stands_for_an_array_of_it(v, backend):
    """Σ vᵀ ∂(y³)/∂y = Σ 6 y²."""
    program = of_loss(lambda P, x: P.vjp(lambda y: y**3, x + P.param("a"))[1](v).sum(-1))
    fit = ppdgm.fit(program, X, engine=Minimise(), backend=backend, **QUICK, learning_rate=0.0)
    np.testing.assert_allclose(fit.criterion(X), (6 * X.astype(float) ** 2).sum(-1), rtol=1e-5)


class Twice(Base):
    guided: bool = False

    def model(self, P, x):
        super().model(P, x)
        with P.plate("data", x):
            P.penalty("p", x[:, 0])
            if not self.guided:
                P.penalty("p", x[:, 1])

    def guide(self, P, x):
        with P.plate("data", x):
            P.penalty("p" if self.guided else "q", x[:, 1])


@both
@pytest.mark.parametrize("guided", [True, False])
def test_two_penalties_of_one_name(guided, backend):
    """The first would be lost."""
    with pytest.raises(ProgramError, match="Penalty 'p' is added twice"):
        ppdgm.fit(Twice(guided=guided), X, backend=backend, **QUICK)


class OfANumber(Base):
    word: str

    def model(self, P, x):
        super().model(P, x)
        with P.plate("data", x):
            P.penalty("p", 1.0) if self.word == "penalty" else P.sample("y", P.implicit(1.0))


@both
@pytest.mark.parametrize(("word", "match"), [("penalty", "'p': got 1.0"), ("implicit", r"P\.implicit: got float")])
def test_numbers_instead_of_rows(word, match, backend):
    with pytest.raises(ProgramError, match=match):
        ppdgm.fit(OfANumber(word=word), X, backend=backend, **QUICK)


class Wrong(Base):
    """A generator whose event is not that of the data: the rows would all be alike, or have rows in them."""

    events: int = 1
    part: bool = True

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((3,), 0.0), P.full((3,), 1.0)).to_event(1))
            made = z[..., 0] if self.part else z
            P.sample("x", P.implicit(made).to_event(self.events), obs=x)

    def loss(self, P, x):
        return ((x - P.param("a")) ** 2).sum(-1)

    def distance(self, P, x):
        return (x - P.param("a")).sum(-1)


class Draws(Engine):
    """The mean distance of draws."""

    def objective(self, step):
        made = step.run("model", generate=True).values["x"][0]
        found = step.run("distance", data={"x": made}).returned
        return {"objective": bounds.mean(found[None], step.weights, step.xp)}

    def criterion(self):
        return None


class Turns(Composite):
    def phases(self):
        return (Phase(Draws()),)


@both
@pytest.mark.parametrize(("events", "part"), [(1, True), (2, False)])
def test_draws_of_another_shape_than_the_data(events, part, backend):
    program = Wrong(events=events, part=part)
    fit = ppdgm.fit(program, X, engine=Minimise(), backend=backend, **QUICK)
    with pytest.raises(ProgramError, match=r"Site 'x': got data of shape \(\d+, 3\), but its distribution is over"):
        fit.sample(5)
    with pytest.raises(ProgramError, match=r"Site 'x': got data of shape \(\d+, 3\), but its distribution is over"):
        ppdgm.fit(program, X, engine=Turns(), backend=backend, batch_size=4, **QUICK)
    right = ppdgm.fit(Wrong(part=False), X, engine=Turns(), backend=backend, batch_size=4, **QUICK)
    assert right.sample(5).shape == (5, 3)


class Masked(Base):
    def about(self, P, x):
        return {"mask": np.ones(1, bool)}


@both
def test_a_mask_of_numpy(backend):
    one, other = (ppdgm.fit(c(), X, backend=backend, **QUICK).elbo(X).values for c in (Masked, Base))
    np.testing.assert_array_equal(one, other)


class Noise(Base):
    def model(self, P, x):
        super().model(P, x)
        P.random.normal()


@both
def test_noise_without_a_shape(backend):
    with pytest.raises(ProgramError, match=r"P\.random\.normal\(\) missing"):
        ppdgm.fit(Noise(), X, backend=backend, **QUICK)


class Walk(Program):
    """x_t ~ N(x_{t−1}, 1) over rows of different lengths, without a latent."""

    event_shape: tuple[int, ...] = (7, 1)

    def build(self, context):
        context.param("a", (1,), lambda rng, shape, data: np.ones(shape))

    def model(self, P, x, length):
        def body(P, last, x):
            return P.sample("x", P.dist.Normal(P.param("a") * last, P.full((1,), 1.0)).to_event(1), obs=x), None

        with P.plate("data", x):
            mask = P.constant(range(self.event_shape[0])) < length[:, None]
            P.scan(body, P.full((1,), 0.0), x, mask=mask)


@both
def test_a_sum_over_times_is_exact_too(backend):
    """Rounding differs between particles; by hand: Σ_(t < length) log N(x_t; x_{t−1}, 1)."""
    rng = np.random.default_rng(1)
    x, length = (3 * rng.normal(size=(40, 7, 1))).astype("float32"), rng.integers(1, 8, 40)
    fit = ppdgm.fit(Walk(), {"x": x, "length": length}, backend=backend, **QUICK, learning_rate=0.0)
    steps = np.diff(x[..., 0].astype(float), axis=1, prepend=0.0)
    terms = -0.5 * steps**2 - 0.5 * np.log(2 * np.pi)
    by_hand = np.where(np.arange(7) < length[:, None], terms, 0.0).sum(1)
    for found in (fit.elbo({"x": x, "length": length}), fit.log_likelihood({"x": x, "length": length}, k=20)):
        np.testing.assert_allclose(found.values, by_hand, rtol=1e-5)
        assert found.exact
