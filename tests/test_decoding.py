"""From latents to data: `decode`, `interpolate` and `traverse`, against closed forms of linear programs."""

import numpy as np
import numpyro
import numpyro.distributions as npd
import pytest
from planted import LATENT, LOC, WEIGHT, data, fit_of

import ppdgm
from ppdgm import Program
from ppdgm.data import Classes
from ppdgm.errors import DataError, PpdgmError, ProgramError, UnsupportedByBackend

BACKENDS = ("numpyro", "pyro")
BOTH = pytest.mark.parametrize("backend", BACKENDS)
X = data(5)
OFFSETS = np.array([[0.0, 0.0, 0.0], [10.0, -20.0, 30.0]], np.float32)
SLOPE = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]], np.float32)


class Batches(Program):
    """z ~ N(2, 3²), x ~ N(z SLOPE + OFFSETS[label], 1): the label is a batch whose effect is known."""

    def build(self, c):
        c.param("zero", (), lambda rng, shape, data: np.zeros(shape))

    def model(self, P, x, label):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 2.0), P.full((2,), 3.0)).to_event(1))
            mean = self.mean(P, z, label)
            P.sample("x", P.dist.Normal(mean, 1.0).to_event(1), obs=x)

    def mean(self, P, z, label):
        shift = P.xp.sum(P.one_hot(label, 2)[..., None] * P.constant(OFFSETS), axis=-2)
        return z @ P.constant(SLOPE) + shift + P.param("zero")

    def guide(self, P, x, label):
        shift = P.xp.sum(P.one_hot(label, 2)[..., None] * P.constant(OFFSETS), axis=-2)
        with P.plate("data", x):
            loc = (x - shift) @ P.constant(np.linalg.pinv(SLOPE).astype("float32"))
            P.sample("z", P.dist.Normal(loc, 0.1).to_event(1))


class Ladder(Program):
    """z2 ~ N(0, 1), z1 ~ N(2 z2, 0.1), c ~ Cat(3), x ~ N(z1 + z2 + 10 c, 1)."""

    def build(self, c):
        c.param("zero", (), lambda rng, shape, data: np.zeros(shape))

    def model(self, P, x):
        with P.plate("data", x):
            z2 = P.sample("z2", P.dist.Normal(P.full((1,), 0.0), 1.0).to_event(1))
            z1 = P.sample("z1", P.dist.Normal(2 * z2 + P.param("zero"), 0.1).to_event(1))
            c = P.sample("c", P.dist.Categorical(logits=P.full((3,), 0.0)))
            P.sample("x", P.dist.Normal(z1 + z2 + 10.0 * c[..., None], 1.0).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            z2 = P.sample("z2", P.dist.Normal(x / 3, 0.1).to_event(1))
            P.sample("z1", P.dist.Normal(2 * z2, 0.1).to_event(1))
            P.sample("c", P.dist.Categorical(logits=P.constant(np.array([0.0, 3.0, 0.0], np.float32)) + 0 * x))


def batches(backend, **codings):
    fit = ppdgm.Fit(Batches(), Batches().initialise(0), backend, codings=codings)
    fit.info.update(fields=["x", "label"], shapes={"x": [3], "label": []})
    return fit


@BOTH
def test_means_at_latents_are_those_of_the_decoder(backend):
    fit, z = fit_of("exact", backend=backend), np.random.default_rng(1).normal(size=(7, LATENT))
    np.testing.assert_allclose(fit.decode(z), z @ WEIGHT.T + LOC, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(fit.decode({"z": z}), z @ WEIGHT.T + LOC, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(fit.decode(fit.encode(X)), fit.reconstruct(X), rtol=1e-5, atol=1e-5)
    draws = fit.encode(X, k=3)
    np.testing.assert_allclose(fit.decode(draws), draws @ WEIGHT.T + LOC, rtol=2e-5, atol=1e-5)
    drawn = fit.decode(np.repeat(z[:1], 4000, axis=0), mean=False, seed=3)
    error = 0.5 / 4000**0.5
    assert (np.abs(drawn.mean(0) - z[0] @ WEIGHT.T - LOC) < 5 * error).all() and abs(drawn.std() / 0.5 - 1) < 2


@BOTH
def test_codes_under_one_condition_are_decoded_under_another(backend):
    """The shift between two batches, as known; by number or by name, for each row or for all."""
    z = np.random.default_rng(1).normal(size=(4, 2)).astype("float32")
    labels = np.array([0, 1, 1, 0])
    fit = batches(backend)
    np.testing.assert_allclose(fit.decode(z, {"label": labels}), z @ SLOPE + OFFSETS[labels], rtol=1e-5, atol=1e-5)
    each = np.stack([z, z + 1])  # draws [K, N, 2], with labels of the rows
    exact = each @ SLOPE + OFFSETS[labels]
    np.testing.assert_allclose(fit.decode(each, {"label": labels}), exact, rtol=1e-5, atol=1e-5)
    with pytest.raises(DataError, match="given: got 2 rows of 'label', expected 4"):
        fit.decode(each, {"label": labels[:2]})
    x = z @ SLOPE + OFFSETS[labels]
    corrected = fit.decode(fit.encode({"x": x, "label": labels}), given={"label": 0})
    np.testing.assert_allclose(corrected, z @ SLOPE, rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(fit.reconstruct({"x": x, "label": labels}, given={"label": 0}), z @ SLOPE, atol=2e-4)
    other = fit.reconstruct({"x": x, "label": labels}, given={"label": 1 - labels})
    np.testing.assert_allclose(other, z @ SLOPE + OFFSETS[1 - labels], rtol=1e-4, atol=2e-4)
    named = batches(backend, label=Classes(("first", "second")))
    np.testing.assert_allclose(named.decode(z, {"label": "second"}), z @ SLOPE + OFFSETS[1], rtol=1e-5, atol=1e-5)


@BOTH
def test_lines_between_rows_are_lines_and_conditions_are_those_of_the_nearer(backend):
    fit, z = batches(backend), np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
    a, b = z[:3], z[3:]
    of = lambda z, label: {"x": z @ SLOPE + OFFSETS[label], "label": np.full(3, label)}
    found = fit.interpolate(of(a, 0), of(b, 1), steps=5)
    share = np.linspace(0, 1, 5)[:, None, None]
    exact = ((1 - share) * a + share * b) @ SLOPE + OFFSETS[[0, 0, 0, 1, 1]][:, None]
    assert found.shape == (3, 5, 3)
    np.testing.assert_allclose(found, exact.swapaxes(0, 1), rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(found[:, -1], fit.reconstruct(of(b, 1)), rtol=1e-5, atol=1e-4)


@BOTH
def test_walks_along_a_dimension_move_it_alone(backend):
    """From −2 to 2 standard deviations of the prior, whose mean and deviation are of 2,000 draws."""
    fit, z = batches(backend), np.array([[0.5, -1.0], [4.0, 0.0]], np.float32)
    rows = {"x": z @ SLOPE + OFFSETS[1], "label": np.ones(2, int)}
    found = fit.traverse(rows, steps=3, reach=2)
    assert found.shape == (2, 2, 3, 3)
    for j in range(2):
        for d in range(2):
            along = z[j] + 0 * np.zeros((3, 1))
            along[:, d] = [2 - 6, 2, 2 + 6]
            error = 3 * (1 / 2000 + 4 / 4000) ** 0.5 * np.abs(SLOPE[d])
            assert (np.abs(found[j, d] - along @ SLOPE - OFFSETS[1]) < 5 * error + 1e-3).all()
    np.testing.assert_array_equal(fit.traverse(rows, dims=1, steps=3, reach=2), found[:, 1:])


class Shifted(Batches):
    """The same with z ~ N(5 label, 3²)."""

    def model(self, P, x, label):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(5.0 * label[..., None] + P.full((2,), 0.0), 3.0).to_event(1))
            P.sample("x", P.dist.Normal(self.mean(P, z, label), 1.0).to_event(1), obs=x)


@BOTH
def test_walks_go_through_the_prior_of_the_row(backend):
    """Each row has its own prior, so that its walk does not depend on the rows beside it."""
    fit = ppdgm.Fit(Shifted(), Shifted().initialise(0), backend=backend)
    rows = {"x": np.zeros((2, 3), np.float32), "label": np.array([0, 1])}
    found = fit.traverse(rows, dims=0, steps=3, reach=2)
    z = fit.encode(rows)
    for label, walk in enumerate(found[:, 0]):
        at = np.stack([5.0 * label + np.array([-6.0, 0.0, 6.0]), np.full(3, z[label, 1])], 1)
        np.testing.assert_allclose(walk, at @ SLOPE + OFFSETS[label], atol=5 * 3.0 * (1 + 2) * 2 / 2000**0.5)
        alone = {n: v[label : label + 1] for n, v in rows.items()}
        np.testing.assert_array_equal(fit.traverse(alone, dims=0, steps=3, reach=2)[0], found[label])


@BOTH
def test_several_latents_go_by_name(backend):
    """z1 follows z2, which it depends on; a class is that of the nearer row."""
    fit, x = ppdgm.Fit(Ladder(), Ladder().initialise(0), backend), np.array([[3.0], [6.0]], np.float32)
    codes = fit.encode(x)
    np.testing.assert_allclose(fit.decode(codes), x + 10, rtol=1e-4, atol=1e-4)
    with pytest.raises(DataError, match=r"has the latents .*Give them by name"):
        fit.decode(codes["z1"])
    with pytest.raises(ProgramError, match="z1"):
        fit.decode({"z1": codes["z1"], "c": codes["c"]})
    np.testing.assert_allclose(fit.interpolate(x[:1], x[1:], 3)[0], [[13.0], [14.5], [16.0]], rtol=1e-4)
    found = fit.traverse(x[:1], site="z2", steps=3, reach=1)[0, 0]
    np.testing.assert_allclose(found - found[1], [[-3.0], [0.0], [3.0]], rtol=0.1, atol=1e-4)
    with pytest.raises(DataError, match=r"the latents \['z1', 'z2'\]"):
        fit.traverse(x)
    with pytest.raises(DataError, match="'c' is discrete"):
        fit.traverse(x, site="c")
    with pytest.raises(DataError, match="site: got 'z3'"):
        fit.traverse(x, site="z3")


@BOTH
def test_what_can_not_be_decoded_is_refused(backend):
    fit, z = fit_of("exact", backend=backend), np.zeros((3, LATENT))
    for bad, words in (
        (np.zeros((3, LATENT + 1)), "got 'z' of shape"),
        (np.float32(1.0), "expected latents"),
        ({}, "expected latents"),
        ({"y": z}, "no field and no site 'y'"),
    ):
        with pytest.raises(DataError, match=words):
            fit.decode(bad)
    with pytest.raises(DataError, match="given twice"):
        fit.decode({"z": z}, given={"z": z})
    with pytest.raises(DataError, match="does not condition on a field 'label'"):
        fit.reconstruct(X, given={"label": 0})
    rows = {"x": np.zeros((2, 3)), "label": np.zeros(2, int)}
    with pytest.raises(DataError, match="3 rows of 'label', expected 2"):
        batches(backend).reconstruct(rows, given={"label": np.zeros(3, int)})
    with pytest.raises(DataError, match="5 rows of a and 3 of b"):
        fit.interpolate(X, X[:3])
    for how, words in (
        ({"dims": LATENT}, "dims: got 2"),
        ({"dims": [0, -1]}, "dims: got -1"),
        ({"dims": [True]}, "dims: got True"),
        ({"steps": 1}, "steps: got 1"),
        ({"reach": 0}, "reach: got 0"),
        ({"reach": np.inf}, "reach: got inf"),
    ):
        with pytest.raises(PpdgmError, match=words):
            fit.traverse(X, **how)


def test_a_plain_pair_has_no_data_at_given_latents():
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", npd.Normal(0.0, 1.0))
            numpyro.sample("x", npd.Normal(2.0 * z, 1.0), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", npd.Normal(x / 2, 0.1))

    fit, x = ppdgm.Fit(Program.from_numpyro(model, guide), {}, "numpyro"), np.array([2.0])
    for ask in (lambda: fit.decode(x), lambda: fit.interpolate(x, x), lambda: fit.traverse(x)):
        with pytest.raises(UnsupportedByBackend, match="can't be drawn at given latents"):
            ask()
