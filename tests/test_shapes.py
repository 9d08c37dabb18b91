"""FIELD row 24: a shape mistake in a program raises an error that names the site, the shapes and the fix.

Each mistake is one changed method of a program that is otherwise right.
"""

import numpy as np
import pytest
from readings import BACKENDS, get_runtime, run_trace, train
from scipy.special import expit, rel_entr

from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.svi import SVI
from ppdgm.models import MLP, Program
from ppdgm.program import normal

K, B, D, X = 5, 3, 2, 4

DATA = {"x": np.random.default_rng(0).normal(size=(B, X)).astype(np.float32)}


class Right(Program):
    """z ~ N(0, I), x ~ N(decoder(z), I)."""

    def build(self, context):
        context.net("decoder", MLP(hidden=()), (D,), (X,))
        context.net("encoder", MLP(hidden=()), (X,), (2, D), label="guide")
        context.param("shared", (D,), normal(1.0), label="guide")

    def prior(self, P):
        return P.dist.Normal(P.full((D,), 0.0), P.full((D,), 1.0))

    def posterior(self, P, x):
        head = P.net("encoder")(x)
        return P.dist.Normal(head[..., 0, :], P.softplus(head[..., 1, :]))

    def likelihood(self, P, z):
        return P.dist.Normal(P.net("decoder")(z), P.full((X,), 1.0))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P).to_event(1))
            P.sample("x", self.likelihood(P, z).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.posterior(P, x).to_event(1))


class GuideWithoutPlate(Right):
    def guide(self, P, x):
        P.sample("z", self.posterior(P, x).to_event(1))


class GuideDrawsOnceForAll(Right):
    def guide(self, P, x):
        P.sample("z", P.dist.Normal(P.param("shared"), P.full((D,), 1.0)).to_event(1))


class ModelWithoutPlate(Right):
    def model(self, P, x):
        z = P.sample("z", self.prior(P).to_event(1))
        P.sample("x", self.likelihood(P, z).to_event(1), obs=x)


class ObservationOutsidePlate(Right):
    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P).to_event(1))
        P.sample("x", self.likelihood(P, z).to_event(1), obs=x)


class GuideWithoutEvent(Right):
    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.posterior(P, x))


class PriorWithoutEvent(Right):
    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            P.sample("x", self.likelihood(P, z).to_event(1), obs=x)


class LikelihoodWithoutEvent(Right):
    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P).to_event(1))
            P.sample("x", self.likelihood(P, z), obs=x)


class ImageWithoutEvent(Right):
    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P).to_event(1))
            image = P.xp.broadcast_to(z[..., None, None, 0], (*z.shape[:-1], 6, 7))
            P.sample("x", P.dist.Normal(image, P.full((6, 7), 1.0)), obs=image)


class ObservationTooNarrow(Right):
    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P).to_event(1))
            P.sample("x", self.likelihood(P, z).to_event(1), obs=x[:, :2])


class ObservationOfScalars(Right):
    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", self.prior(P).to_event(1))
            P.sample("x", P.dist.Normal(z[..., 0], P.full((), 1.0)), obs=x)


class OtherName(Right):
    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("zz", self.posterior(P, x).to_event(1))


class OneTooMany(Right):
    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.posterior(P, x).to_event(1))
            P.sample("w", self.posterior(P, x).to_event(1))


class EmptyGuide(Right):
    def guide(self, P, x):
        pass


class OtherWidth(Right):
    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(x[..., :3], P.full((3,), 1.0)).to_event(1))


class WidthThatWouldBroadcast(Right):
    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(x[..., :1], P.full((1,), 1.0)).to_event(1))


class DrawnTwice(Right):
    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.posterior(P, x).to_event(1))
            P.sample("z", self.posterior(P, x).to_event(1))


class PlateWithinPlate(Right):
    def guide(self, P, x):
        with P.plate("data", x), P.plate("pixels", x):
            P.sample("z", self.posterior(P, x).to_event(1))


class PlateOfOtherSize(Right):
    def guide(self, P, x):
        with P.plate("data", x[:2]):
            P.sample("z", self.posterior(P, x).to_event(1))


# program -> what its error says
MISTAKES = {
    GuideWithoutPlate: ["'z'", "outside the data plate", "batch shape (3,)", "with P.plate"],
    GuideDrawsOnceForAll: [
        "'z'",
        "inside the data plate",
        "(5, 1, 2)",
        "outside",
        "expected (5, 3, 2)",
        "with P.plate",
    ],
    ModelWithoutPlate: ["'z'", "outside the data plate", "(5, 3, 2)", "inside", "expected (5, 1, 2)", "with P.plate"],
    ObservationOutsidePlate: ["'x'", "outside the data plate", "batch shape (5, 3)", "with P.plate"],
    GuideWithoutEvent: ["'z'", "batch shape (3, 2)", "[K, B] = (5, 3)", ".to_event(1)"],
    PriorWithoutEvent: ["'z'", "batch shape (2,)", "[K, B] = (5, 3)", ".to_event(1)"],
    LikelihoodWithoutEvent: ["'x'", "batch shape (5, 3, 4)", "[K, B] = (5, 3)", ".to_event(1)"],
    ImageWithoutEvent: ["'x'", "batch shape (5, 3, 6, 7)", "[K, B] = (5, 3)", ".to_event(2)"],
    ObservationTooNarrow: ["'x'", "data of shape (3, 2)", "events of shape (4,)", "expected (3, 4)", ".to_event(n)"],
    ObservationOfScalars: ["'x'", "data of shape (3, 4)", "events of shape ()", "expected (3,)"],
    OtherName: ["'z' is latent in the model", "the guide does not draw it", "Did you mean 'zz'?", "obs="],
    OneTooMany: ["'w' is drawn in the guide", "not a latent site of the model"],
    EmptyGuide: ["'z' is latent in the model", "the guide does not draw it"],
    OtherWidth: ["'z'", "values of shape (5, 3, 3)", "events of shape (2,)", "(5, 3, 2)", "width"],
    WidthThatWouldBroadcast: ["'z'", "values of shape (5, 3, 1)", "events of shape (2,)", "(5, 3, 2)"],
    DrawnTwice: ["'z' is drawn twice"],
    PlateWithinPlate: ["'pixels' is inside another", ".to_event(n)"],
    PlateOfOtherSize: ["'data'", "2 rows, expected 3"],
}

every_backend = pytest.mark.parametrize("backend", BACKENDS)


def evaluate(backend, program, k=K, data=DATA, kl=False):
    return run_trace(get_runtime(backend, program), program.initialise(0), data, k, kl=kl)


@every_backend
def test_the_program_without_a_mistake_runs(backend):
    trace = evaluate(backend, Right())
    assert {n: v.shape for n, v in trace.values.items()} == {"z": (K, B, D)}
    assert {n: v.shape for n, v in trace.log_p.items()} == {"z": (K, B), "x": (K, B)}


@every_backend
@pytest.mark.parametrize("program", MISTAKES, ids=lambda p: p.__name__)
def test_shape_mistakes_name_site_shapes_and_fix(program, backend):
    with pytest.raises(ProgramError) as raised:
        evaluate(backend, program())
    for word in MISTAKES[program]:
        assert word in str(raised.value)


@every_backend
@pytest.mark.parametrize("k", [1, B, D, X])
@pytest.mark.parametrize("program", MISTAKES, ids=lambda p: p.__name__)
def test_no_number_of_particles_hides_a_mistake(program, k, backend):
    with pytest.raises(ProgramError):
        evaluate(backend, program(), k)


@every_backend
def test_one_datum_hides_no_missing_plate(backend):
    for program in (GuideWithoutPlate, GuideDrawsOnceForAll, ModelWithoutPlate):
        with pytest.raises(ProgramError, match="plate"):
            evaluate(backend, program(), data={"x": DATA["x"][:1]})


@every_backend
def test_training_names_the_mistake_too(backend):
    with pytest.raises(ProgramError, match=r"'z'.*add \.to_event\(1\)"):
        train(backend, GuideWithoutEvent(), DATA)


class Discrete(Right):
    """z ~ Bernoulli: right as a program, but no gradient flows through its draws."""

    def prior(self, P):
        return P.dist.Bernoulli(logits=P.full((D,), 0.0))

    def posterior(self, P, x):
        return P.dist.Bernoulli(logits=P.net("encoder")(x)[..., 0, :])


@every_backend
def test_a_discrete_site_is_judged_and_trained_by_its_score(backend):
    trace = evaluate(backend, Discrete(), kl=True)
    assert set(np.unique(trace.values["z"])) == {0.0, 1.0}
    np.testing.assert_allclose(trace.log_p["z"], D * np.log(0.5), rtol=1e-6)
    weights = {n: v.astype(float) for n, v in Discrete().initialise(0).items()}
    q = expit(DATA["x"] @ weights["encoder.layers.0.weight"][:, :D] + weights["encoder.layers.0.bias"][:D])
    kl = rel_entr(q, 0.5) + rel_entr(1 - q, 0.5)
    assert set(trace.kl) == ({"z"} if backend == "pyro" else set())  # NumPyro knows no such form
    for value in trace.kl.values():
        np.testing.assert_allclose(value, kl[None], rtol=1e-5, atol=1e-7)  # the smallest is 2e-7: float32
    with pytest.raises(
        ProgramError, match=r"'z'.*not reparameterised.*Use a reparameterised distribution in the guide"
    ):
        train(backend, Discrete(), DATA, engine=SVI(estimator="reparam"))
    assert np.isfinite(train(backend, Discrete(), DATA, engine=SVI(k=3))[1]["objective"]).all()


class Unobserved(Right):
    def model(self, P, x):
        with P.plate("data", x):
            P.sample("z", self.prior(P).to_event(1))


@every_backend
def test_a_model_without_observations_is_not_trained(backend):
    with pytest.raises(ProgramError, match=r"no observed site.*obs="):
        train(backend, Unobserved(), DATA)


@every_backend
def test_analytic_kl_names_the_site_without_one(backend):
    with pytest.raises(ProgramError, match=r"'z' has no closed-form KL.*kl='auto'"):
        train(backend, Mixed(), DATA, engine=SVI(kl="analytic"))
    assert np.isfinite(train(backend, Mixed(), DATA)[1]["elbo"]).all()


class Mixed(Right):
    """A prior against which neither library knows the KL of a normal."""

    def prior(self, P):
        return P.dist.StudentT(P.full((D,), 5.0), P.full((D,), 0.0), P.full((D,), 1.0))


# --- one latent for all data ---------------------------------------------------------------------------------------


class OneForAll(Right):
    """m ~ N(0, I) once; z ~ N(m, I), x ~ N(decoder(z), I) for each datum."""

    def model(self, P, x):
        m = P.sample("m", self.prior(P).to_event(1))
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(m, P.full((D,), 1.0)).to_event(1))
            P.sample("x", self.likelihood(P, z).to_event(1), obs=x)

    def guide(self, P, x):
        P.sample("m", P.dist.Normal(P.param("shared"), P.full((D,), 1.0)).to_event(1))
        super().guide(P, x)


@every_backend
def test_a_latent_outside_the_plate_is_kept_apart_and_refused_per_datum(backend):
    trace = evaluate(backend, OneForAll())
    assert trace.values["m"].shape == (K, 1, D)
    assert set(trace.log_q) == {"z"}
    shared = OneForAll().initialise(0)["shared"]
    m = trace.values["m"][:, 0].astype(float)
    expected = 0.5 * ((m - shared) ** 2 - m**2).sum(-1)
    np.testing.assert_allclose(trace.shared["m"], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ProgramError, match=r"'m' is one latent for all data.*SVI"):
        bounds.log_weights(trace, np)
