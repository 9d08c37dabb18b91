"""Mixed precision: bfloat16 in the nets' products while training, nowhere else, and never unasked."""

import numpy as np
import pytest
from readings import BACKENDS, precision
from test_engines import PROGRAM, X, steps_of, trainer_of

import ppdgm
from ppdgm.errors import TrainingError
from ppdgm.inference import EM, SVI, Optimiser
from ppdgm.models import PPCA, VAE, ConvDecoder, ConvEncoder

both = pytest.mark.parametrize("backend", BACKENDS)
CONVOLVED = VAE(
    event_shape=(1, 8, 8), latent=2, encoder=ConvEncoder(channels=(4,)), decoder=ConvDecoder(channels=(4,))
)  # fmt: skip


def slope(program, x, backend, **options):
    """The direction of one step, at the same draws."""
    params = program.initialise(0)
    trainer = trainer_of(program, params, SVI(), backend, len(x), optimiser=Optimiser(name="sgd"), **options)
    steps_of(trainer, x, 1, len(x), rate=1e-2)
    found = trainer.values()
    assert all(found[n].dtype == np.float32 for n in params)
    return np.concatenate([np.ravel(found[n] - params[n]) for n in sorted(params)])


@both
@pytest.mark.parametrize("program", [PROGRAM, CONVOLVED], ids=["dense", "convolutions"])
def test_a_mixed_step_is_the_full_one_rounded(program, backend):
    x = (np.random.default_rng(0).random((20, *program.event_shape)) < 0.5).astype("float32")
    full, mixed = slope(program, x, backend), slope(program, x, backend, mixed=True)
    apart = np.linalg.norm(mixed - full) / np.linalg.norm(full)
    assert 1e-4 < apart < 0.03  # bfloat16 has 8 bits: it shows, and is no more than that


@both
def test_what_is_evaluated_is_in_full_precision(backend):
    options = {"steps": 30, "batch_size": 8, "backend": backend, "progress": False}
    fit = ppdgm.fit(PROGRAM, X, mixed_precision=True, **options)
    z = np.random.default_rng(0).normal(size=(3, len(X), 2)).astype("float32")
    found = ppdgm.trace(PROGRAM, fit.params, X, k=3, values={"z": z}, backend=backend)
    with precision("float64"):
        wide = {n: v.astype("float64") for n, v in fit.params.items()}
        at = {"z": z.astype("float64")}
        exact = ppdgm.trace(PROGRAM, wide, X.astype("float64"), k=3, values=at, backend=backend)
    for mine, other in ((found.log_p, exact.log_p), (found.log_q, exact.log_q)):
        assert all(np.abs(mine[n] - other[n]).max() < 1e-4 for n in other)  # bfloat16 would be off by a hundred times
    plain = ppdgm.fit(PROGRAM, X, **options)
    assert any(not np.array_equal(plain.params[n], v) for n, v in fit.params.items())
    assert abs(plain.elbo(X).mean - fit.elbo(X).mean) < 0.1
    assert not plain.training.mixed_precision and fit.recipe.table()["training"]["mixed_precision"] is True


def test_it_is_refused_where_it_would_do_nothing():
    with pytest.raises(TrainingError, match="float64"):
        ppdgm.fit(PROGRAM, X, steps=1, mixed_precision=True, dtype="float64")
    with pytest.raises(TrainingError, match="mixed_precision: is for nets"):
        ppdgm.fit(PPCA(event_shape=(6,), posterior="exact"), X, steps=1, engine=EM(), mixed_precision=True)
    pair = ppdgm.Program.from_numpyro(lambda x: None, lambda x: None)
    with pytest.raises(TrainingError, match="plain pairs"):
        ppdgm.fit(pair, X, steps=1, mixed_precision=True)
