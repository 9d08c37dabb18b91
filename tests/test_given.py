"""`sample(given=…)`: what is given is held, and the rest has the model's distribution given it; or it is refused.

The program: c ~ Cat(⅓), u ~ Bernoulli(0.3) observed, z ~ N(2u − 1 + 0.5 s, 0.1), y ~ N(3 z + c, 0.1) observed, with
an argument s that the model computes with, and t that only the guide reads.
"""

import numpy as np
import pytest
from readings import BACKENDS
from typer.testing import CliRunner

import ppdgm
from ppdgm import Program
from ppdgm.cli.app import app
from ppdgm.data import Classes
from ppdgm.errors import DataError, PpdgmError, ProgramError, UnsupportedByBackend
from ppdgm.models import MLP, VAE, HierarchicalVAE, SemiSupervisedVAE

N = 400
FIELDS = ["x", "u", "s", "t"]


class Told(Program):
    def build(self, c):
        c.param("zero", (), lambda rng, shape, data: np.zeros(shape))

    def model(self, P, x, u, s, t):
        with P.plate("data", x):
            c = P.sample("c", P.dist.Categorical(logits=P.full((3,), 0.0)))
            u = P.sample("u", P.dist.Bernoulli(probs=P.full((), 0.3)), obs=u)
            z = P.sample("z", P.dist.Normal(2 * u - 1 + 0.5 * s + P.param("zero"), 0.1))
            P.sample("y", P.dist.Normal(3 * z + c, 0.1), obs=x)

    def guide(self, P, x, u, s, t):
        raise AssertionError("sampling never reads the guide")


def told(backend):
    return ppdgm.Fit(Told(), {"zero": np.zeros((), np.float32)}, backend, info={"fields": FIELDS})


def near(values, mean, sd):
    """Within 5 standard errors, of independent draws."""
    return abs(np.mean(values) - mean) < 5 * sd / np.sqrt(len(values))


@pytest.fixture(scope="module", params=BACKENDS)
def fit(request):
    return told(request.param)


@pytest.mark.statistical
def test_what_is_given_is_held_and_the_rest_is_drawn_given_it(fit):
    """Means in closed form, at 5 standard errors, seed 1: y ~ N(3 (2u − 1 + s/2) + c, 0.9 + 0.01)."""
    s, c, u = np.linspace(-2, 2, N), np.resize([0, 2], N), np.resize([1.0, 1.0, 0.0], N)
    drawn = fit.sample(N, seed=1, given={"s": s, "c": c, "u": u})
    assert set(drawn) == {"u", "y"}
    np.testing.assert_array_equal(drawn["u"], u)
    assert near(drawn["y"] - (3 * (2 * u - 1 + s / 2) + c), 0.0, np.sqrt(0.1))
    free = fit.sample(N, seed=1, given={"s": 0.0, "c": 1})
    assert near(free["u"], 0.3, np.sqrt(0.21))
    assert near(free["y"], 3 * (2 * 0.3 - 1) + 1, np.sqrt(36 * 0.21 + 0.1))
    apart = fit.sample(N, seed=1, given={"s": s, "u": u})  # c is drawn before u, which does not depend on it
    assert near(apart["y"] - 3 * (2 * u - 1 + s / 2), 1.0, np.sqrt(0.1 + 2 / 3))
    assert near(fit.sample(N, seed=1, mean=True, given={"s": 0.0, "c": 1})["y"], -0.2, np.sqrt(36 * 0.21 + 0.09))
    means = fit.sample(N, seed=1, mean=True, given={"s": s, "c": c, "u": u, "z": np.full(N, 7.0)})
    np.testing.assert_allclose(means["y"], 21.0 + c, rtol=1e-6)
    np.testing.assert_array_equal(means["u"], u)


REFUSED = {
    "data with latents before them": ({"x": 1.0, "s": 0.0}, ProgramError, ["'y'", "'c', 'u', 'z'", "reconstruct"]),
    "a latent after others": ({"z": 1.0, "s": 0.0}, ProgramError, ["'z' is drawn after 'c', 'u'", "Give 'c', 'u' too"]),
    "text for a site": ({"c": "one", "s": 0.0}, DataError, ["got text for 'c', which is not a field"]),
    "an argument that the model does not read": ({"t": 1.0, "s": 0.0}, DataError, ["does not read the field 't'"]),
    "no name of the program's": ({"sz": 1.0, "s": 0.0}, DataError, ["no site 'sz'"]),
    "another shape": ({"c": np.zeros((3, 2)), "s": 0.0}, DataError, ["(3, 2)", "expected (3,)"]),
    "a ragged list": ({"c": [[0, 1], [2], [1]], "s": 0.0}, DataError, ["'c'", "rows of different lengths"]),
    "too few rows": ({"s": np.zeros(2)}, DataError, ["2 rows", "expected 3"]),
    "a value outside the support": ({"c": np.array([0, 1, 5]), "s": 0.0}, DataError, ["'c' in row 2", "support"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_held_is_refused(fit, case):
    given, error, words = REFUSED[case]
    with pytest.raises(error) as told:
        fit.sample(3, given=given)
    assert all(word in str(told.value) for word in words), told.value
    assert not isinstance(told.value.__cause__, TypeError)


# --- the zoo ---------------------------------------------------------------------------------------------------------


def small(cls, backend, fields=("x",), **more):
    program = cls(event_shape=(5,), encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)), **more)
    return ppdgm.Fit(program, program.initialise(0), backend, info={"fields": list(fields)})


@pytest.mark.parametrize("backend", BACKENDS)
def test_m2_draws_the_class_that_is_given(backend, tmp_path):
    """A decoder that only knows the class: pixel c is on for class c. By field, by site, on the command line."""
    fit = small(SemiSupervisedVAE, backend, ["x", "label"], classes=3, latent=2, classifier=MLP(hidden=(4,)))
    for name in fit.params:
        fit.params[name] = 0 * fit.params[name]
    fit.params["decoder.layers.0.weight"][2:, :3] = 20 * np.eye(3)
    fit.params["decoder.layers.1.weight"][:3, :3] = 40 * np.eye(3)
    fit.params["decoder.layers.1.bias"] -= 20.0
    label = np.array([2, 0, 1, 1, 2])
    assert (fit.sample(5, given={"label": label}) == np.eye(5)[label]).all()
    assert (fit.sample(5, given={"y": np.eye(3)[label]}) == np.eye(5)[label]).all()
    assert set(fit.sample(50).argmax(1)) == {0, 1, 2}
    z = np.tile(np.float32([1.0, -2.0]), (60, 1))  # is drawn after y, and does not depend on it
    assert set(fit.sample(60, given={"z": z}).argmax(1)) == {0, 1, 2}
    named = ppdgm.Fit(
        fit.program, fit.params, backend, info=fit.info, codings={"label": Classes(("cat", "collie", "fox"))}
    )
    assert (named.sample(5, given={"label": "collie"}).argmax(1) == 1).all()
    with pytest.raises(DataError, match=r"got text for 'y'.*through the field 'label': given="):
        named.sample(5, given={"y": "collie"})
    with pytest.raises(DataError, match="classes from 0 to 2"):
        fit.sample(2, given={"label": -1})
    with pytest.raises(DataError, match="'y' is given twice: directly, and through label"):
        fit.sample(5, given={"label": label, "y": np.eye(3)[label]})
    with pytest.raises(DataError, match="'y' in row 0 is outside its support"):
        fit.sample(1, given={"y": np.full((1, 3), 0.3)})
    fit.save(tmp_path / "run")
    out = str(tmp_path / "drawn.npz")
    ran = CliRunner().invoke(app, ["sample", str(tmp_path / "run"), "--given", "label=1", "--n", "3", "--out", out])
    assert ran.exit_code == 0, ran.output
    assert (np.load(out)["x"].argmax(1) == 1).all()
    z, both = tmp_path / "z.npz", ["sample", str(tmp_path / "run"), "--given", "label=2", "--given"]
    np.savez(z, z=np.ones((5, 2), np.float32))
    ran = CliRunner().invoke(app, [*both, str(z), "--out", str(tmp_path / "both.npz")])  # five, as the file has
    assert ran.exit_code == 0, ran.output
    assert np.load(tmp_path / "both.npz")["x"].argmax(1).tolist() == [2] * 5
    assert "got 'label' twice" in CliRunner().invoke(app, [*both, "label=1", "--out", str(tmp_path / "no.npz")]).output
    with pytest.raises(ProgramError, match="'x' is drawn after 'y', 'z'"):
        fit.sample(5, given={"x": np.eye(5)[label]})


@pytest.mark.parametrize("backend", BACKENDS)
def test_latents_at_the_top_are_held_and_data_are_refused(backend):
    fit = small(VAE, backend, latent=2)
    z = np.full((6, 2), 1.5)
    means = fit.sample(6, mean=True, given={"z": z})
    assert np.ptp(means, axis=0).max() < 1e-6
    assert np.ptp(fit.sample(6, mean=True), axis=0).max() > 1e-3
    with pytest.raises(ProgramError, match=r"'x' is drawn after 'z'.*reconstruct"):
        fit.sample(6, given={"x": np.zeros((6, 5))})
    ladder = small(HierarchicalVAE, backend, latent=(3, 2))
    assert ladder.sample(6, given={"z2": z}).shape == (6, 5)
    with pytest.raises(ProgramError, match="'z1' is drawn after 'z2'"):
        ladder.sample(6, given={"z1": np.zeros((6, 3))})


def test_a_plain_pair_is_refused_with_and_without():
    for make in (Program.from_pyro, Program.from_numpyro):
        pair = make(lambda x: None, lambda x: None)
        for given in (None, {"x": 1.0}):
            with pytest.raises(UnsupportedByBackend, match="did not save these shapes"):
                ppdgm.Fit(pair, {}, pair.backend).sample(2, given=given)
    assert issubclass(UnsupportedByBackend, PpdgmError)
