"""Counts with an exposure: against SciPy, and refused where it is missing, wrong or not read."""

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

import ppdgm
from ppdgm import Program
from ppdgm.cli.app import app
from ppdgm.errors import DataError, ProgramError, SpecError
from ppdgm.inference import SVI
from ppdgm.models import (
    MLP,
    VAE,
    Autoencoder,
    AutoregressiveModel,
    ConditionalVAE,
    Gaussian,
    HierarchicalVAE,
    Likelihood,
    MixtureVAE,
    NegativeBinomial,
    Poisson,
    SemiSupervisedVAE,
    VampPrior,
    ZeroInflatedNegativeBinomial,
)

both = pytest.mark.parametrize("backend", ["numpyro", "pyro"])
QUIET = {"progress": False, "compile": False}
RNG = np.random.default_rng(0)
N, D = 40, 3
EXPOSURE = RNG.uniform(0.5, 20.0, N).astype("float32")
X = RNG.poisson(EXPOSURE[:, None] * [0.5, 2.0, 7.0]).astype("float32")
DATA = {"x": X, "exposure": EXPOSURE}
FIELDS = {"fields": list(DATA)}
RATES = np.array([0.3, 2.0, 9.0])
NET = MLP(hidden=(4,))
VAES = {"event_shape": (D,), "latent": 2, "encoder": NET, "decoder": NET}


class Columns(Program):
    """x ~ likelihood at one head for all rows."""

    likelihood: Likelihood

    def build(self, context):
        context.param("head", context.part(self.likelihood, (D,)))

    def model(self, P, x, exposure):
        with P.plate("data", x):
            P.sample("x", self.likelihood(P, P.param("head"), exposure=exposure), obs=x)


def negative_binomial(x, mean):
    return stats.nbinom.logpmf(x, 1.5, 1.5 / (1.5 + mean))


def inflated(x, mean):
    return np.logaddexp(np.log(0.25) + np.where(x == 0, 0.0, -np.inf), np.log(0.75) + negative_binomial(x, mean))


FIXED = {"exposure": True, "inverse_dispersion": 1.5}
SOFTPLUS = np.log(np.expm1(RATES))
CASES = {
    "poisson": (Poisson(exposure=True), SOFTPLUS, stats.poisson.logpmf, 1.0),
    "poisson exp": (Poisson(exposure=True, link="exp"), np.log(RATES), stats.poisson.logpmf, 1.0),
    "negative binomial": (NegativeBinomial(**FIXED), SOFTPLUS, negative_binomial, 1.0),
    "zero-inflated": (
        ZeroInflatedNegativeBinomial(**FIXED), np.stack([SOFTPLUS, np.full(D, np.log(0.25 / 0.75))]), inflated, 0.75,
    ),
}  # fmt: skip


@both
@pytest.mark.statistical
@pytest.mark.parametrize("name", CASES)
def test_the_mean_is_exposure_times_rate(name, backend):
    """log p against SciPy; means by the equation; 4,000 draws at one exposure, within 5 standard errors."""
    likelihood, head, log_p, kept = CASES[name]
    fit = ppdgm.Fit(Columns(likelihood=likelihood), {"head": head.astype("float32")}, backend=backend, info=FIELDS)
    mean = EXPOSURE[:, None] * RATES
    x = np.concatenate([np.full((1, D), 400.0, "float32"), X[1:]])  # the first row has counts far above its means
    found = fit.log_likelihood({"x": x, "exposure": EXPOSURE}).values
    np.testing.assert_allclose(found, log_p(x, mean).sum(1), rtol=2e-5)
    np.testing.assert_allclose(fit.reconstruct(DATA), kept * mean, rtol=1e-5)
    drawn = fit.sample(4000, seed=1, given={"exposure": 3.0})
    assert (drawn == np.rint(drawn)).all()
    assert (np.abs(drawn.mean(0) - kept * 3 * RATES) < 5 * drawn.std(0) / 4000**0.5).all()


PROGRAMS = {
    "vae": VAE(**VAES, likelihood=Poisson(exposure=True)),
    "vamp": VAE(
        **VAES, likelihood=NegativeBinomial(exposure=True), prior=VampPrior(components=3, range="real")
    ),
    "conditional": ConditionalVAE(**VAES, classes=2, likelihood=ZeroInflatedNegativeBinomial(exposure=True)),
    "semi-supervised": SemiSupervisedVAE(**VAES, classes=2, classifier=NET, likelihood=Poisson(exposure=True)),
    "hierarchy": HierarchicalVAE(
        event_shape=(D,), latent=(2, 2), encoder=NET, decoder=NET, levels=NET, likelihood=Poisson(exposure=True)
    ),
    "mixture": MixtureVAE(**VAES, components=2, likelihood=Poisson(exposure=True)),
    "autoencoder": Autoencoder(**VAES, likelihood=Poisson(exposure=True)),
}  # fmt: skip


@both
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_takes_it(name, backend):
    """Twice the exposure doubles the mean of the same code."""
    program = PROGRAMS[name]
    data = DATA | ({"label": np.arange(N) % 2} if hasattr(program, "classes") else {})
    fit = ppdgm.fit(program, data, backend=backend, steps=2, batch_size=20, **QUIET)
    assert np.isfinite(fit.elbo(data).values).all()
    once, twice = (fit.reconstruct(data | {"exposure": f * EXPOSURE}) for f in (1, 2))
    if name != "semi-supervised":  # its class follows x and the exposure
        np.testing.assert_allclose(twice, 2 * once, rtol=1e-4)
    if name not in ("autoencoder",):
        given = {"exposure": [1.0, 1e4]} | ({"label": 1} if "label" in data else {})
        drawn = fit.sample(2, given=given)
        assert drawn[1].sum() > 20 * drawn[0].sum()
    with pytest.raises((DataError, ProgramError), match="exposure"):
        fit.elbo({n: v for n, v in data.items() if n != "exposure"})


REFUSED = {
    "missing": ({"x": X}, r"Poisson\(exposure=True\): the data have no field 'exposure'.*leave exposure=True out"),
    "zero": ({"x": X, "exposure": np.where(np.arange(N) == 3, 0.0, EXPOSURE)}, r"'exposure': got 0.0 at index \(3,\)"),
    "negative": ({"x": X, "exposure": -EXPOSURE}, "expected positive numbers. 40 of 40"),
    "a table": ({"x": X, "exposure": X}, r"'exposure': got rows of shape \(3,\), expected one number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_exposures_are_refused(case):
    data, words = REFUSED[case]
    with pytest.raises(DataError, match=words):
        ppdgm.fit(PROGRAMS["vae"], data, steps=1, **QUIET)


def test_where_it_is_not_read_it_is_refused():
    with pytest.raises(DataError, match=r"got fields \['x', 'exposure'\], but the model of VAE takes \['x'\]"):
        ppdgm.fit(VAE(**VAES, likelihood=Poisson()), DATA, steps=1, **QUIET)
    with pytest.raises(DataError, match=r"'exposure', which Gaussian does not read.*Poisson\(exposure=True\)"):
        ConditionalVAE(**VAES, classes=2, likelihood=Gaussian()).check(DATA | {"label": np.zeros(N)})
    with pytest.raises(SpecError, match="Poisson can't be the distribution of each number"):
        ppdgm.fit(AutoregressiveModel(event_shape=(D,), likelihood=Poisson(exposure=True)), X, steps=1, **QUIET)


def test_draws_need_an_exposure_that_is_positive(tmp_path):
    np.savez(tmp_path / "counts.npz", x=X, exposure=EXPOSURE)
    fit = ppdgm.fit(PROGRAMS["vae"], DATA, steps=2, out=tmp_path / "run", engine=SVI(), **QUIET)
    with pytest.raises(ProgramError, match=r"'exposure', which is not given.*given=\{'exposure': 1\.0\}"):
        fit.sample(3)
    with pytest.raises(DataError, match=r"'exposure': got 0\.0"):
        fit.sample(3, given={"exposure": 0.0})
    run = [str(tmp_path / "run"), "--n", "5", "--out"]
    found = CliRunner().invoke(app, ["sample", *run, str(tmp_path / "drawn.npy"), "--given", "exposure=4"])
    assert found.exit_code == 0, found.output
    np.testing.assert_array_equal(np.load(tmp_path / "drawn.npy"), fit.sample(5, given={"exposure": 4.0}))
    assert CliRunner().invoke(app, ["sample", *run, str(tmp_path / "none.npy")]).exit_code == 2
    found = CliRunner().invoke(
        app, ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "counts.npz"), "--k", "5"]
    )
    assert found.exit_code == 0, found.output
