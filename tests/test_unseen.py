"""Programs that index their data also sample: a field that is not given has a shape, and can be indexed."""

import jax
import numpy as np
import pytest
import torch

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError
from ppdgm.inference import SVI
from ppdgm.inference.evaluation.result import Fit
from ppdgm.language.unseen import Unseen, is_given
from ppdgm.models import MLP
from ppdgm.specs import Shape

BACKENDS = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
SLOPE, NOISE = 0.8, 0.5
DATA = np.random.default_rng(0).normal(size=(40, 4, 2)).astype("float32")


class Chain(Program):
    """z ~ N(0, I), x₀ ~ N(z, s²), xₜ ~ N(a xₜ₋₁, s²): one observed site for each time."""

    event_shape: Shape
    field: str = "x"

    def build(self, c):
        c.net("encoder", MLP(hidden=(3,)), (2,), (2, 2), label="guide")

    def normal(self, P, loc):
        return P.dist.Normal(loc, P.full((2,), NOISE)).to_event(1)

    def model(self, P, x):
        assert x.ndim == 3 and tuple(x.shape[1:]) == self.event_shape
        with P.plate("data", x):
            at = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            for t in range(x.shape[1]):
                at = P.sample(f"x{t}", self.normal(P, SLOPE * at if t else at), obs=x[:, t])

    def guide(self, P, x):
        with P.plate("data", x):
            h = P.net("encoder")(x[:, 0])
            P.sample("z", P.dist.Normal(h[..., 0, :], P.softplus(h[..., 1, :])).to_event(1))


class Named(Chain):
    """The same with a field y, whose shape the program does not declare."""

    def model(self, P, y):
        super().model(P, y)

    def guide(self, P, y):
        super().guide(P, y)


def trained(program, data, backend):
    return ppdgm.fit(program, data, backend=backend, engine=SVI(), steps=2, progress=False, compile=False)


def check_moments(sites, n):
    """Var x₀ = 1 + s², Var xₜ = a² Var xₜ₋₁ + s²; four standard errors of a variance of 2n normal numbers."""
    variance = 1 + NOISE**2
    for t in range(4):
        assert sites[f"x{t}"].shape == (n, 2)
        assert abs(sites[f"x{t}"].var() - variance) < 4 * variance * np.sqrt(2 / (2 * n))
        variance = SLOPE**2 * variance + NOISE**2


@BACKENDS
def test_samples(backend, tmp_path):
    fit = trained(Chain(event_shape=(4, 2)), DATA, backend)
    check_moments(fit.sample(4000), 4000)
    fit.save(tmp_path / "run")
    again = ppdgm.load(tmp_path / "run", classes=[Chain])
    np.testing.assert_array_equal(again.sample(3)["x2"], fit.sample(3)["x2"])


@BACKENDS
def test_samples_given_a_latent(backend):
    fit = trained(Chain(event_shape=(4, 2)), DATA, backend)
    z = np.tile(np.float32([[3.0, -2.0]]), (4000, 1))
    found = fit.sample(4000, given={"z": z})
    for t in range(4):  # x_t has mean aᵗ z; its variance is below s² / (1 - a²)
        error = 4 * NOISE / np.sqrt((1 - SLOPE**2) * 4000)
        np.testing.assert_allclose(found[f"x{t}"].mean(0), SLOPE**t * z[0], atol=error)
    assert fit.sample(5, mean=True, given={"z": z[:5]})["x3"].shape == (5, 2)
    np.testing.assert_array_equal(fit.sample(5, mean=True, given={"z": z[:5]})["x0"], z[:5])


@BACKENDS
def test_the_shape_is_that_of_the_data(backend, tmp_path):
    fit = trained(Named(event_shape=(4, 2)), {"y": DATA}, backend)
    check_moments(fit.sample(4000), 4000)
    fit.save(tmp_path / "run")
    assert ppdgm.load(tmp_path / "run", classes=[Named]).sample(3)["x3"].shape == (3, 2)


@BACKENDS
def test_diagnosis_says_what_it_leaves_out(backend):
    fit = trained(Chain(event_shape=(4, 2)), DATA, backend)
    found = fit.diagnose(DATA, parts=("predictive", "calibration"), few=4, k=4)
    assert "site 'x0'" in found.withheld["calibration"]  # four sites draw one field: no row can be simulated
    assert "Give the site the name of its field" in found.withheld["predictive"]


@BACKENDS
@pytest.mark.parametrize(
    "compute",
    [
        lambda P, x: x + 1, lambda P, x: 1 - x[:, 0], lambda P, x: x == 0, lambda P, x: x > 0, lambda P, x: float(x),
        lambda P, x: P.constant(x), lambda P, x: P.xp.exp(x), lambda P, x: P.full((2,), 1.0) * x,
        lambda P, x: P.concat([x, x]), lambda P, x: P.net("encoder")(x[:, 0]), lambda P, x: bool(x),
        lambda P, x: P.one_hot(x, 3), lambda P, x: 0.5 in x, lambda P, x: P.xp.sum(x, axis=-1),
    ],
)  # fmt: skip
def test_arithmetic_is_refused(backend, compute):
    class Computes(Chain):
        def model(self, P, x):
            compute(P, x)
            super().model(P, x)

    program = Computes(event_shape=(4, 2))
    other = Fit(program, program.initialise(0), backend)
    with pytest.raises(ProgramError, match="computes with data that were not given"):
        other.sample(3)


@BACKENDS
def test_a_shape_that_is_not_known(backend):
    program = Named(event_shape=(4, 2))
    bare = Fit(program, program.initialise(0), backend, info={"fields": ["y"]})  # as of a run of an older version
    with pytest.raises(ProgramError, match=r"the shape is not known\. Declare event_shape"):
        bare.sample(3)
    bare = Fit(Chain(event_shape=(4, 2)), program.initialise(0), backend)
    assert bare.sample(3)["x3"].shape == (3, 2)


INDICES = [
    np.s_[:, 1], np.s_[..., 0], np.s_[0], np.s_[:, None], np.s_[:, 1:3], np.s_[:, ::-1], np.s_[:, [0, 2], 1],
    np.s_[..., -1, :], np.s_[:, np.array([1, 2])], np.s_[()], np.s_[2:, :1, 0],
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indices_are_numpys(index):
    array = np.zeros((5, 4, 2))
    found = Unseen((4, 2)).sized(5)[index]
    assert (found.shape, found.ndim) == (array[index].shape, array[index].ndim) and not is_given(found)


def test_indices_that_are_arrays_of_a_library():
    blank = Unseen((4, 2)).sized(5)
    for at in (torch.tensor([0, 2]), jax.numpy.array([0, 2])):
        assert blank[:, at].shape == (5, 2, 2)
        with pytest.raises(TypeError, match="true and false"):
            blank[:, at > 0]


def test_iteration_and_length():
    blank = Unseen((4, 2)).sized(5)
    assert len(blank) == 5 and [b.shape for b in blank[0]] == [(2,)] * 4
    with pytest.raises(IndexError):
        blank[5]
    with pytest.raises(TypeError, match="computes with"):
        list(blank[0, 0, 0])
    with pytest.raises(TypeError, match="not known"):
        list(Unseen())
