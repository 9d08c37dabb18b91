"""Independent columns of each likelihood, what a verdict makes of them, and runs whose latents are not used."""

import numpy as np
import pytest
from planted import WIDTH, data, fit_of
from readings import BACKENDS
from scipy import stats

import ppdgm
from ppdgm import Program
from ppdgm.diagnostics import latent_use, weight_quality
from ppdgm.diagnostics.diagnosis import Baseline, Diagnosis, Gaps
from ppdgm.errors import DataError
from ppdgm.inference import SVI, Fit
from ppdgm.inference.evaluation.estimates import Estimate
from ppdgm.inference.runs.progress import Progress
from ppdgm.inference.training.unused_latents import Unused
from ppdgm.models import (
    MLP,
    VAE,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    ConvDecoder,
    ConvEncoder,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
    MixtureOfDiscretisedLogistics,
    NegativeBinomial,
    Poisson,
    VampPrior,
    ZeroInflatedNegativeBinomial,
)
from ppdgm.models.likelihoods.columns import columns, held_out

both = pytest.mark.parametrize("backend", BACKENDS)
RNG = np.random.default_rng(0)
SIZE = 4000
P = np.array([0.05, 0.5, 0.9])
REAL = RNG.normal([0.0, 5.0, -2.0], [1.0, 0.2, 3.0], (SIZE, 3))
LOGISTIC = np.clip(np.rint(RNG.logistic([3.0, 8.0, 12.0], [0.5, 1.0, 0.7], (SIZE, 3))), 0, 15)


def mass(x, loc, scale):
    """Of a level of a discretised logistic, with 16 of them; the outer ones take what lies beyond."""
    low, high = (stats.logistic.cdf(x + shift, loc, scale) for shift in (-0.5, 0.5))
    return np.log(np.where(x == 15, 1.0, high) - np.where(x == 0, 0.0, low))


ODDS = 2.0 / (2.0 + np.array([1.0, 4.0, 20.0]))
COUNTS = RNG.negative_binomial(2.0, ODDS, (SIZE, 3)).astype(float)
#: a likelihood, data of known columns, and their right log p of each datum.
FAMILIES = {
    "bernoulli": (Bernoulli(), x := (RNG.random((SIZE, 3)) < P).astype(float), stats.bernoulli.logpmf(x, P)),
    "continuous bernoulli": (ContinuousBernoulli(), u := RNG.random((SIZE, 3)), 0.0 * u),
    "gaussian": (Gaussian(scale="network"), REAL, stats.norm.logpdf(REAL, [0.0, 5.0, -2.0], [1.0, 0.2, 3.0])),
    "gaussian, fixed": (Gaussian(scale=2.0), REAL, stats.norm.logpdf(REAL, [0.0, 5.0, -2.0], 2.0)),
    "gaussian, one scale": (
        Gaussian(), REAL, stats.norm.logpdf(REAL, [0.0, 5.0, -2.0], np.sqrt(np.mean([1.0, 0.04, 9.0]))),
    ),
    "laplace": (
        Laplace(scale="per_dimension"), y := RNG.laplace([0.0, 5.0, 1.0], [1.0, 0.2, 3.0], (SIZE, 3)),
        stats.laplace.logpdf(y, [0.0, 5.0, 1.0], [1.0, 0.2, 3.0]),
    ),
    "poisson": (
        Poisson(), n := RNG.poisson([0.3, 2.0, 30.0], (SIZE, 3)).astype(float),
        stats.poisson.logpmf(n, [0.3, 2.0, 30.0]),
    ),
    "negative binomial": (
        NegativeBinomial(), COUNTS, stats.nbinom.logpmf(COUNTS, 2.0, ODDS),
    ),
    "zero-inflated": (
        ZeroInflatedNegativeBinomial(), COUNTS, stats.nbinom.logpmf(COUNTS, 2.0, ODDS),
    ),
    "categorical": (
        Categorical(levels=3), c := np.stack([RNG.choice(3, SIZE, p=p) for p in ([0.1, 0.2, 0.7], [0.3, 0.3, 0.4])], 1),
        np.log(np.stack([np.take([0.1, 0.2, 0.7], c[:, 0]), np.take([0.3, 0.3, 0.4], c[:, 1])], 1)),
    ),
    "discretised logistic": (
        DiscretisedLogistic(levels=16), LOGISTIC, mass(LOGISTIC, np.array([3.0, 8.0, 12.0]), np.array([0.5, 1.0, 0.7])),
    ),
    "mixture of these": (
        MixtureOfDiscretisedLogistics(levels=16), LOGISTIC,
        mass(LOGISTIC, np.array([3.0, 8.0, 12.0]), np.array([0.5, 1.0, 0.7])),
    ),
}  # fmt: skip


@pytest.mark.statistical
@pytest.mark.parametrize(("likelihood", "x", "right"), FAMILIES.values(), ids=FAMILIES)
def test_columns_have_the_log_density_of_what_they_are_drawn_from(likelihood, x, right):
    """Fitted to nine tenths, they lose some D/2N nats; where by moments (counts, logistics), a little more."""
    lost = right.sum(1) - held_out(likelihood, x)
    assert abs(lost.mean()) < 4 * lost.std() / SIZE**0.5 + 0.01
    other = columns(likelihood, x[:, ::-1]).log_prob(x)  # a wrong twin: of other columns
    assert (right - other).sum(1).mean() > 0.05 or likelihood == ContinuousBernoulli()


@pytest.mark.parametrize(("likelihood", "x", "right"), FAMILIES.values(), ids=FAMILIES)
def test_the_first_output_of_a_decoder_stands_for_the_columns(likelihood, x, right):
    """At the head, the mean is that of the data; of logistics, nearly."""
    program = VAE(
        event_shape=x.shape[1:], latent=1, likelihood=likelihood, encoder=MLP(hidden=()), decoder=MLP(hidden=())
    )
    params = program.initialise(0)
    head = columns(likelihood, x).head
    params |= {"decoder.layers.0.weight": 0.0 * params["decoder.layers.0.weight"]}
    params |= {"decoder.layers.0.bias": head.reshape(-1).astype("float32")}
    made = Fit(program, params).reconstruct(np.zeros((1, *x.shape[1:]), "float32"))[0]
    logistic = isinstance(likelihood, DiscretisedLogistic | MixtureOfDiscretisedLogistics)
    assert np.abs(made - x.mean(0)).max() < (2.0 if logistic else 0.05 * (1 + x.mean(0).max()))


# --- verdicts ---------------------------------------------------------------------------------------------------------


def about(found):
    return {f.about: f for f in found.verdict}


@both
def test_a_model_beside_its_columns(backend):
    x = data(400)
    found = fit_of("exact", backend=backend).diagnose(x, parts="likelihood", k=30)
    right = stats.norm.logpdf(x, x.mean(0), x.std(0)).sum(1)
    assert found.baseline.values.mean() == pytest.approx(right.mean(), abs=0.1) and len(found.baseline.index) == 400
    assert about(found)["Fit"].grade == "good" and "this model gains" in about(found)["Fit"].text
    alone = np.random.default_rng(1).normal(np.linspace(-1, 1, WIDTH), 1.0, (400, WIDTH)).astype("float32")
    fit = fit_of("exact", backend=backend)
    params = fit.params | {"weight": 0 * fit.params["weight"], "log_scale": np.float32(0.0)}
    collapsed = Fit(fit.program, params, backend).diagnose(alone, parts=("likelihood", "latents"), k=30)
    told = about(collapsed)
    assert told["Fit"].grade == told["Latents"].grade == "bad" and "independent columns has" in told["Fit"].text
    binary = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
    worse = Fit(binary, binary.initialise(0), backend).diagnose((x > 1).astype("float32"), parts="likelihood", k=30)
    assert about(worse)["Fit"].grade == "bad" and "do not improve" in about(worse)["Fit"].advice


class NoLatent(Program):
    """x ~ N(0, 3²), without latents, of which no finding must speak."""

    def build(self, c):
        c.param("log_scale", ())

    def model(self, P, x):
        with P.plate("data", x):
            P.sample("x", P.dist.Normal(P.full((2,), 0.0), P.xp.exp(P.param("log_scale"))).to_event(1), obs=x)

    def guide(self, P, x):
        pass


@both
def test_a_model_without_latents_is_told_of_none(backend):
    found = Fit(NoLatent(), {"log_scale": np.float32(np.log(3))}, backend).diagnose(data(50)[:, :2], parts="likelihood")
    assert about(found)["Fit"].grade == "bad" and "not clearly better" in about(found)["Fit"].text
    assert "latents" not in about(found)["Fit"].advice


def test_findings_do_not_contradict_one_another():
    rng = np.random.default_rng(0)
    values, size = rng.normal(-200, 1, 1000), 1000
    likelihood = Estimate(values, np.full(size, 0.01), 1000)
    plain = lambda shift: Baseline(np.arange(size), values + shift)
    heavy = weight_quality(10 * rng.standard_cauchy((200, 50)))
    assert about(Diagnosis("VAE", size, log_likelihood=likelihood, baseline=plain(-30)))["Fit"].grade == "good"
    assert about(Diagnosis("VAE", size, log_likelihood=likelihood, baseline=plain(0.0)))["Fit"].grade == "bad"
    missed = about(Diagnosis("VAE", size, log_likelihood=likelihood, baseline=plain(-30), weights=heavy))
    assert missed["Guide"].grade == "bad" and missed["Fit"].grade == "warning" and "too low" in missed["Fit"].text
    carry = latent_use({"z": rng.normal(size=(50, 2))}, {"z": np.full((50, 2), 2.0)})
    for shift, grades in ((0.0, ("bad", "warning")), (-30, ("good", "good"))):
        told = about(Diagnosis("VAE", size, log_likelihood=likelihood, baseline=plain(shift), use=carry))
        assert (told["Fit"].grade, told["Latents"].grade) == grades and "2 of 2 dimensions carry" in told[
            "Latents"
        ].text
        assert ("no better than one without latents" in told["Latents"].text) == (shift == 0)
    gone = latent_use({"z": 1e-4 * rng.normal(size=(50, 3))}, {"z": np.full((50, 3), 1e-4)})
    assert about(Diagnosis("VAE", size, log_likelihood=likelihood, use=gone))["Fit"].grade == "warning"
    few = np.arange(8.0)
    gaps = lambda gap: Gaps(np.arange(8), few + gap, few, few + 0.5 * gap, "diagonal")
    assert about(Diagnosis("VAE", 8, gaps=gaps(3.24)))["Gaps"].grade == "warning"
    assert about(Diagnosis("VAE", 8, gaps=gaps(3.24)))["Gaps"].advice and about(Diagnosis("VAE", 8, gaps=gaps(0.05)))
    assert about(Diagnosis("VAE", 8, gaps=gaps(0.05)))["Gaps"].grade == "good"


def test_the_few_bad_data_are_counted():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2000, 1000))
    weights[:, :4] = 10 * rng.standard_cauchy((2000, 4))
    found = Diagnosis("VAE", 1000, weights=weight_quality(weights))
    red = int((np.nan_to_num(found.weights.pareto_k) > 0.7).sum())
    assert red >= 4 and f"{red} of the 1,000 rows" in about(found)["Guide"].text and "0%" not in str(found)


# --- a start that works, and runs whose latents are not used ----------------------------------------------------------


def sparse(size=1000, pixels=300):
    """Ten kinds of binary images, of which few pixels are on, as of digits."""
    rng = np.random.default_rng(0)
    kinds = np.where(rng.random((10, pixels)) < 0.12, 0.9, 0.01)
    return (rng.random((size, pixels)) < kinds[rng.integers(0, 10, size)]).astype("float32")


X = sparse()
PROGRAM = VAE(event_shape=(300,), latent=10, prior=VampPrior(components=20),
              encoder=MLP(hidden=(100, 100)), decoder=MLP(hidden=(100, 100)))  # fmt: skip


def test_a_decoder_under_a_vamp_prior_starts_at_the_columns_means():
    p = np.clip((X.sum(0) + 0.5) / (len(X) + 1), 0.01, 0.99)
    started = PROGRAM.initialise(0, {"x": X})
    assert np.abs(started["decoder.layers.2.bias"] - np.log(p / (1 - p))).max() < 1e-5
    assert not PROGRAM.initialise(0)["decoder.layers.2.bias"].any()
    plain = VAE(event_shape=(300,), encoder=PROGRAM.encoder, decoder=PROGRAM.decoder)
    assert not plain.initialise(0, {"x": X})["decoder.layers.2.bias"].any()  # N(0, I) draws codes back
    images = VAE(event_shape=(1, 12, 12), latent=2, prior=VampPrior(components=3), encoder=ConvEncoder(channels=(4,)),
                 decoder=ConvDecoder(channels=(4,)))  # fmt: skip
    x = X[:, :144].reshape(-1, 1, 12, 12)
    p = np.clip((x.sum(0) + 0.5) / (len(x) + 1), 0.01, 0.99)
    assert images.initialise(0, {"x": x})["decoder.convs.0.bias"] == pytest.approx(np.log(p / (1 - p)).mean())


@both
def test_a_vamp_prior_starts_with_its_latents(backend):
    options = {"steps": 120, "batch_size": 50, "backend": backend, "progress": False}
    assert ppdgm.fit(PROGRAM, X, **options).history["kl"][20:].min() > 1.0
    params = PROGRAM.initialise(0, {"x": X})
    params["decoder.layers.2.bias"] *= 0.0  # a wrong twin, which has the means to learn: codes move off together
    assert ppdgm.fit(PROGRAM, X, params=params, **options).history["kl"][60:].max() < 0.3


@both
def test_a_run_without_latents_is_told_of_once(backend, tmp_path, capsys):
    program = VAE(event_shape=(6,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,)))
    x = (data(100) > 0).astype("float32")
    seen: list[Progress] = []
    ppdgm.fit(program, x, steps=600, batch_size=20, backend=backend, progress=False, engine=SVI(beta=30.0),
              learning_rate=1e-2, callbacks=[seen.append], out=tmp_path / "run")  # fmt: skip
    said = capsys.readouterr().err
    assert said.count("The KL has stayed below 0.1 nats per row for") == 1 and "a smaller β" in said
    assert "learns to ignore its latents" in (tmp_path / "run" / "log.txt").read_text()
    assert seen[-1].unused >= 300 and f"latents unused for {seen[-1].unused:,} steps" in seen[-1].bound
    ppdgm.fit(program, x, steps=400, batch_size=20, backend=backend, progress=False, learning_rate=1e-2)
    assert "latents" not in capsys.readouterr().err


def test_steps_without_latents_are_counted_in_blocks_wherever_stretches_end():
    kl = np.concatenate([np.full(150, 5.0), np.full(450, 0.01), [np.nan], np.full(399, 3.0)])
    told = []
    for cuts in ([1000], [1] * 1000, [370, 30, 201, 399]):
        unused, step, news = Unused(), 0, []
        for n in cuts:
            unused.see(kl[step : step + n])
            step += n
            news += [(step, unused.news(step))]
        told.append([(s, n) for s, n in news if n])
    assert told[0] == [] and [s for s, _ in told[1]] == [500, 700] and "in use" in told[1][1][1]
    assert [s for s, _ in told[2]] == [601, 1000]


def test_a_kl_that_is_not_of_latents_of_each_datum_is_not_told_of(capsys):
    ppdgm.fit(ppdgm.models.Autoencoder(event_shape=(6,), latent=2, encoder=MLP(hidden=(4,)), decoder=MLP(hidden=(4,))),
              (data(60) > 0).astype("float32"), steps=400, batch_size=20, progress=False)  # fmt: skip
    assert "latents" not in capsys.readouterr().err


def test_columns_need_a_field_that_is_drawn():
    with pytest.raises(DataError):
        fit_of().diagnose(np.full((3, WIDTH), np.nan))


class Missing(Program):
    """z ~ N(0, 1), and cells x ~ N(z, 1) where they are there."""

    def build(self, c):
        c.param("scale", ())

    def model(self, P, x, there):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((), 0.0), 1.0))
            P.sample("x", P.dist.Normal(z[..., None] + P.full((2,), 0.0), 1.0).mask(there > 0.5).to_event(1), obs=x)

    def guide(self, P, x, there):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("scale") + 0.0 * x[:, 0], 1.0))


@both
def test_cells_that_are_filled_in_are_no_data(backend):
    """Columns of all numbers stand beside no log p of some, and replications beside no fills."""
    rows = {"x": np.where(np.eye(2)[np.arange(60) % 2] > 0, data(60)[:, :2], 7).astype("float32")}
    rows |= {"there": (rows["x"] != 7).astype("float32")}
    fit = Fit(Missing(), {"scale": np.float32(0)}, backend)
    found = fit.diagnose(rows, parts=("likelihood", "predictive"), k=20, replicated=9)
    assert found.baseline is None and "x' is masked" in found.withheld["baseline"]
    assert found.checks == () and "x' is masked" in found.withheld["predictive"]
