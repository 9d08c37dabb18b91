"""Programs that are conditional on classes and covariates together."""

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

import ppdgm
from ppdgm.cli.app import app
from ppdgm.errors import DataError, ProgramError, SpecError
from ppdgm.models import MLP, AutoregressiveModel, ConditionalVAE, FlowModel, Gaussian, RealNVP
from ppdgm.specs import Spec

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
QUIET = {"progress": False, "compile": False}
RNG = np.random.default_rng(0)
N = 60
BATCH, TYPE, Y = np.arange(N) % 3, np.arange(N) // 3 % 2, RNG.normal(size=(N, 2)).astype("float32")
X = (RNG.normal(size=(N, 3)) + BATCH[:, None] + 2 * TYPE[:, None] + 3 * Y[:, :1]).astype("float32")
DATA = {"x": X, "batch": BATCH, "cell_type": TYPE, "y": Y}
LINEAR = MLP(hidden=())
BOTH = {"classes": {"batch": 3, "cell_type": 2}, "covariates": (2,)}
PROGRAM = ConditionalVAE(
    event_shape=(3,), latent=1, **BOTH, likelihood=Gaussian(scale=1.0), encoder=LINEAR, decoder=LINEAR
)


@pytest.fixture(scope="module", params=["numpyro", "pyro"])
def fit(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / request.param
    return ppdgm.fit(
        PROGRAM, DATA, backend=request.param, epochs=150, batch_size=20, learning_rate=0.03, seed=0, out=out, **QUIET
    )


def one_hot(data):
    return np.concatenate([np.eye(3)[data["batch"]], np.eye(2)[data["cell_type"]], data["y"]], 1)


def test_a_linear_decoder_has_its_exact_density(fit):
    """x = W z + V c + b + ε: log N(x; V c + b, W Wᵀ + I), which log p(x) of many particles reaches."""
    weight, bias = (fit.params[f"decoder.layers.0.{n}"].astype(float) for n in ("weight", "bias"))
    mean = one_hot(DATA) @ weight[1:] + bias
    exact = stats.multivariate_normal(np.zeros(3), weight[:1].T @ weight[:1] + np.eye(3)).logpdf(X - mean)
    found = fit.log_likelihood(DATA, k=2000, seed=1)
    assert abs(found.mean - exact.mean()) < 5 * found.monte_carlo_error + 1e-3
    least = np.linalg.lstsq(np.c_[one_hot(DATA), np.ones(N)], X, rcond=None)[0]
    np.testing.assert_allclose(mean, np.c_[one_hot(DATA), np.ones(N)] @ least, atol=0.5)  # it has learned all of them


def test_each_condition_is_read(fit):
    for name, other in (("batch", (BATCH + 1) % 3), ("cell_type", 1 - TYPE), ("y", Y + 1)):
        changed = DATA | {name: other}
        assert np.abs(fit.elbo(changed, seed=1).values - fit.elbo(DATA, seed=1).values).min() > 1e-4, name
        assert np.abs(fit.reconstruct(changed) - fit.reconstruct(DATA)).max() > 0.1, name
        assert (fit.encode(changed) != fit.encode(DATA)).any(), name


def test_draws_at_given_conditions(fit):
    given = {"batch": 2, "cell_type": 1, "y": np.tile([1.0, 0.0], (4000, 1))}
    drawn = fit.sample(4000, seed=1, given=given)
    weight, bias = (fit.params[f"decoder.layers.0.{n}"].astype(float) for n in ("weight", "bias"))
    right = np.array([0, 0, 1, 0, 1, 1.0, 0]) @ weight[1:] + bias
    assert (np.abs(drawn.mean(0) - right) < 5 * drawn.std(0) / 4000**0.5).all()
    z = np.ones((2, 1), "float32")
    decoded = fit.decode(z, given={"batch": [0, 1], "cell_type": 0, "y": Y[:2]}, mean=True)
    rows = {"batch": np.array([0, 1]), "cell_type": np.zeros(2, int), "y": Y[:2]}
    np.testing.assert_allclose(decoded, z @ weight[:1] + one_hot(rows) @ weight[1:] + bias, rtol=1e-4, atol=1e-5)
    with pytest.raises(ProgramError, match="'cell_type', which is not given"):
        fit.sample(3, given={"batch": 1})
    with pytest.raises(ProgramError, match="'y', which is not given"):
        fit.sample(3, given={"batch": 1, "cell_type": 0})
    with pytest.raises(DataError, match=r"'batch': got 3.* expected classes from 0 to 2"):
        fit.sample(3, given={"batch": 3, "cell_type": 0, "y": Y[:3]})


def test_a_run_is_opened_and_drawn_from_on_the_command_line(fit, tmp_path):
    run = next(p for p in (tmp_path.parent).rglob("recipe.toml") if p.parent.name == fit.backend).parent
    again = ppdgm.load(run)
    assert again.program == PROGRAM and again.program.classes == (("batch", 3), ("cell_type", 2))
    np.savez(tmp_path / "given.npz", batch=BATCH[:5], cell_type=TYPE[:5], y=Y[:5])
    call = ["sample", str(run), "--out", str(tmp_path / "x.npy"), "--n", "5"]
    found = CliRunner().invoke(app, [*call, "--given", str(tmp_path / "given.npz")])
    assert found.exit_code == 0, found.output
    right = fit.sample(5, given={"batch": BATCH[:5], "cell_type": TYPE[:5], "y": Y[:5]})
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), right, rtol=1e-6)


@both
def test_a_conditional_prior_is_linear_in_the_condition(backend):
    """At the start each class has the scale 1; then every number of the condition moves mean and scale."""
    program = PROGRAM.replace(conditional_prior=True)
    first = program.initialise(0)
    assert first["classes.loc"].shape == (7, 1)
    scale = 1e-3 + np.log1p(np.exp(one_hot(DATA) @ first["classes.raw_scale"]))
    np.testing.assert_allclose(scale, 1.0, rtol=1e-5)
    moved = {n: v + (RNG.normal(size=v.shape).astype("float32") if "classes" in n else 0.0) for n, v in first.items()}
    moved["decoder.layers.0.weight"] = moved["decoder.layers.0.weight"] * 0 + 1.0
    drawn = ppdgm.Fit(program, moved, backend=backend, info={"fields": list(DATA)}).sample(
        4000, given={"batch": 1, "cell_type": 0, "y": np.tile([0.5, -1.0], (4000, 1))}
    )
    c = np.array([0, 1, 0, 1, 0, 0.5, -1.0])
    loc, spread = c @ moved["classes.loc"], 1e-3 + np.log1p(np.exp(c @ moved["classes.raw_scale"]))
    assert abs(drawn[:, 0].mean() - (loc + c.sum())[0]) < 5 * drawn[:, 0].std() / 4000**0.5
    assert abs(drawn[:, 0].var() - (spread**2 + 1)[0]) < 5 * (spread**2 + 1)[0] * (2 / 4000) ** 0.5


@both
@pytest.mark.parametrize("kind", [AutoregressiveModel, FlowModel])
def test_densities_take_several_classes_too(kind, backend):
    more = {"likelihood": Gaussian()} if kind is AutoregressiveModel else {"flow": RealNVP(depth=2, context_size=4)}
    fit = ppdgm.fit(kind(event_shape=(3,), **BOTH, **more), DATA, backend=backend, steps=3, **QUIET)
    assert np.isfinite(fit.log_likelihood(DATA).values).all()
    assert fit.sample(2, given={"batch": 1, "cell_type": [0, 1], "y": Y[:2]}).shape == (2, 3)


REFUSED = {
    "missing": ({n: v for n, v in DATA.items() if n != "cell_type"}, DataError, "no field 'cell_type'. Give it beside"),
    "no covariates": ({n: v for n, v in DATA.items() if n != "y"}, DataError, r"covariates=\(2,\)\): .*no field 'y'"),
    "too much": (DATA | {"donor": BATCH}, DataError, r"a field 'donor', which p.x. does not read.*classes=…"),
    "an exposure": (DATA | {"exposure": np.ones(N)}, DataError, "'exposure', which Gaussian does not read"),
    "not finite": (DATA | {"y": np.where(Y > 1, np.nan, Y)}, DataError, "'y': got nan"),
    "another shape": (DATA | {"y": Y[:, :1]}, DataError, r"'y': got rows of shape \(1,\), expected \(2,\)"),
    "no class": (DATA | {"batch": BATCH - 1}, DataError, "'batch': got -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_conditions_are_refused(case):
    data, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        ppdgm.fit(PROGRAM, data, steps=1, **QUIET)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_covariates_of_another_size_are_noted(factor):
    with pytest.warns(UserWarning, match="'y': covariate 0 has numbers of size about .*the run keeps no scale"):
        PROGRAM.check(DATA | {"y": factor * Y})


def test_specs_of_conditions():
    assert Spec.from_toml(PROGRAM.to_toml()) == PROGRAM
    assert ConditionalVAE(event_shape=(3,)).class_fields == {"label": 10}
    for classes in ({}, {"x": 3}, {"a b": 3}, (("a", 2), ("a", 3)), {"a": 0}):
        with pytest.raises(SpecError, match=r"ConditionalVAE\.classes"):
            ConditionalVAE(event_shape=(3,), classes=classes)
    with pytest.raises(SpecError, match=r"conditional on nothing.*use a VAE"):
        ConditionalVAE(event_shape=(3,), classes=None).declarations()
