"""Augmentation: what steps see is changed, with noise of their own; evaluations see the data as they are."""

import numpy as np
import pytest
from readings import BACKENDS

import ppdgm
from ppdgm.cli.overrides import read_value
from ppdgm.errors import DataError, ProgramError, TrainingError
from ppdgm.inference import EM, AddNoise, Augmentation, Flip, Optimiser, Shift
from ppdgm.inference.runs.settings import Training
from ppdgm.models import MLP, PPCA, VAE
from ppdgm.registry import backend as load_backend

both = pytest.mark.parametrize("backend", BACKENDS)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2, 4, 5)).astype(np.float32)
BITS = (RNG.random((30, 6)) < 0.3).astype(np.float32)
HOW = {"progress": False, "batch_size": 10, "seed": 1}
BERNOULLI = VAE(event_shape=(6,), latent=1, encoder=MLP(hidden=(3,)), decoder=MLP(hidden=(3,)))


def changed(backend, augment, x=X, seed=0):
    return load_backend(backend).augment_rows(augment, x, seed)


@both
@pytest.mark.parametrize("axis", [-1, -2])
def test_flips_are_mirrors_of_some_rows(backend, axis):
    x = np.repeat(X, 25, axis=0)
    found, mirror = changed(backend, Flip(axis=axis, probability=0.3), x), np.flip(x, axis)
    flipped = (found == mirror).all((1, 2, 3))
    assert ((found == x).all((1, 2, 3)) != flipped).all()
    assert abs(flipped.mean() - 0.3) < 4 * np.sqrt(0.21 / len(x))  # four standard errors


@both
def test_shifts_are_crops_of_padded_images(backend):
    found, seen = changed(backend, Shift(pixels=1, fill=7.0), x := np.repeat(X, 25, axis=0)), np.zeros((3, 3))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=7.0)
    for i in range(3):
        for j in range(3):
            seen[i, j] = (found == padded[:, :, i : i + 4, j : j + 5]).all((1, 2, 3)).sum()
    assert seen.sum() == len(x)
    assert (np.abs(seen - len(x) / 9) < 4 * np.sqrt(len(x) * 8 / 81)).all()  # four standard errors


@both
def test_noise_has_its_scale(backend):
    noise = changed(backend, AddNoise(scale=0.5), np.repeat(X, 25, axis=0)) - np.repeat(X, 25, axis=0)
    assert abs(noise.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * noise.size) and abs(noise.mean()) < 4 * 0.5 / noise.size**0.5
    assert not np.array_equal(changed(backend, AddNoise()), changed(backend, AddNoise(), seed=1))


def mirrored(P, x):
    return P.xp.flip(x, axis=-1)


@both
def test_a_step_is_that_of_changed_rows_and_reports_are_not(backend):
    """Without noise: training on x with a mirror is training on mirrored x."""
    x, program = RNG.normal([2.0, 0.0, -1.0], size=(40, 3)), PPCA(event_shape=(3,), latent=1)
    first = program.initialise(0, {"x": x})
    how = {**HOW, "backend": backend, "epochs": 3, "params": first, "accumulate": 2}
    a = ppdgm.fit(program, x, augment=[mirrored], **how)
    b = ppdgm.fit(program, np.flip(x, axis=-1), **how)
    for name, value in a.params.items():
        np.testing.assert_allclose(value, b.params[name], rtol=1e-6, atol=1e-7)
    assert a.elbo(x).mean == pytest.approx(b.elbo(x).mean, abs=1e-5)
    assert abs(a.elbo(x).mean - b.elbo(np.flip(x, axis=-1)).mean) > 0.1
    twice = ppdgm.fit(program, x, augment=(mirrored, mirrored), **how)
    plain = ppdgm.fit(program, x, **how)
    for name, value in twice.params.items():
        np.testing.assert_allclose(value, plain.params[name], rtol=1e-6, atol=1e-7)


@both
def test_noise_comes_before_bits_and_a_run_goes_on_bit_for_bit(backend, tmp_path):
    x = 0.2 + 0.5 * RNG.random((30, 6)).astype(np.float32)
    how = {**HOW, "backend": backend, "binarise": "dynamic", "augment": [Flip(), AddNoise(scale=0.01)]}
    whole = ppdgm.fit(BERNOULLI, x, epochs=4, **how)
    ppdgm.fit(BERNOULLI, x, epochs=2, out=tmp_path / "run", **how)
    again = ppdgm.resume(tmp_path / "run", x, epochs=4, progress=False)  # the recipe has them
    for name, value in whole.params.items():
        assert np.array_equal(value, again.params[name]), name
    other = ppdgm.fit(BERNOULLI, x, epochs=4, **{**how, "augment": None})
    assert not np.array_equal(other.history["elbo"], whole.history["elbo"])


def test_your_own_is_given_again(tmp_path):
    x, how = RNG.normal(size=(20, 3)), {**HOW, "out": tmp_path / "run", "epochs": 1}
    ppdgm.fit(PPCA(event_shape=(3,), latent=1), x, augment=mirrored, **how)
    assert "its augmentation" in (tmp_path / "run" / "recipe.toml").read_text()
    with pytest.raises(TrainingError, match=r"augmentation in Python.*resume\(…, augment=…\)"):
        ppdgm.resume(tmp_path / "run", x, epochs=2)
    assert ppdgm.resume(tmp_path / "run", x, augment=mirrored, epochs=2, progress=False).info["steps"] == 4


def own_statement(P, x):
    return P.sample("x", P.dist.Normal(x, 1.0))


@both
@pytest.mark.parametrize(
    ("augment", "error", "told"),
    [
        (lambda P, x: x[:, :2], ProgramError, r"got an array of shape \(\d+, 2\), expected .*that of x"),
        (lambda P, x: x > 0, ProgramError, "got numbers of type"),
        (lambda P, x: 3, ProgramError, "got 3, expected an array"),
        (lambda P, x: x / 0.0 * x, DataError, "not finite"),
        (AddNoise(scale=0.1), DataError, "Data 'x'"),
        (own_statement, ProgramError, "it has no P.sample"),
        (Shift(), ProgramError, r"Shift changes images \[\.\.\., H, W\]"),
        (lambda P, x: x + missing, ProgramError, "augment: NameError"),  # noqa: F821  # the mistake that is meant
        (Flip, TrainingError, "expected an augmentation such as"),
        (3, TrainingError, "expected an augmentation such as"),
    ],
)
def test_what_is_no_data_of_the_program_is_refused_before_training(backend, augment, error, told):
    with pytest.raises(error, match=told):
        ppdgm.fit(BERNOULLI, BITS, augment=augment, backend=backend, epochs=1, progress=False)


def test_torch_has_no_negative_steps():
    with pytest.raises(ProgramError, match=r"augment: ValueError: step must be.*P\.xp\.flip\(x, axis=-1\)"):
        ppdgm.fit(BERNOULLI, BITS, augment=lambda P, x: x[:, ::-1], backend="pyro", epochs=1, progress=False)


def test_closed_forms_have_no_minibatches():
    with pytest.raises(TrainingError, match=r"augment: EM\(\) takes closed-form steps"):
        ppdgm.fit(PPCA(event_shape=(3,), latent=1), RNG.normal(size=(20, 3)), engine=EM(), augment=AddNoise(), epochs=1)


def test_augmentations_are_specs():
    assert {c.__name__ for c in Augmentation.__subclasses__()} >= {"Flip", "Shift", "AddNoise"}
    assert Optimiser and Flip.from_toml(Flip(axis=-2).to_toml()) == Flip(axis=-2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Flip", (Flip(),)),
        ("Flip,Shift", (Flip(), Shift())),
        ('{kind = "Shift", pixels = 3}', (Shift(pixels=3),)),
        ('[{kind = "Flip"}, {kind = "AddNoise", scale = 0.5}]', (Flip(), AddNoise(scale=0.5))),
    ],
)
def test_augmentations_of_a_setting(text, expected):
    value = read_value(text, Training.model_fields["augment"].annotation)
    assert Training.from_dict({"kind": Training.kind(), "augment": value}).augment == expected
