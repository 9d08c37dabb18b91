"""Plain Pyro pairs, as they are: found out, and read per datum."""

import numpy as np
import pyro
import pyro.distributions as dist
import pyro_pairs as pairs
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro_runs import STYLES, B, K, N, X, Z, by_hand, draw, log_weights, quiet, start, train, trainer_of
from scipy.special import softmax
from scipy.stats import norm
from torch import nn

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError, UnsupportedByBackend
from ppdgm.inference.engines import bounds
from ppdgm.inference.engines.svi import SVI

__all__ = ["quiet"]  # a fixture around every test

FULL = {
    "functions": lambda: pairs.Functions().pair,
    "PyroModules": lambda: pairs.Modules().pair,
    "methods": lambda: pairs.VAE().pair,
    "nested, data left": lambda: pairs.nested(-2),
    "nested, data right": lambda: pairs.nested(-1),
    "mask, factor, auxiliary": pairs.everything,
    "global": pairs.with_global,
    "subsample_size = N": lambda: pairs.Functions(N, N).pair,
}


@pytest.mark.parametrize("k", [1, K])
@pytest.mark.parametrize("subsampled", [False, True], ids=["full", "subsampled"])
@pytest.mark.parametrize("style", STYLES)
def test_terms_are_those_by_hand(style, subsampled, k):
    made = STYLES[style](N, B) if subsampled else STYLES[style]()
    x, index = draw(), np.array([7, 2, 10, 5])
    runtime, params, data = start(made.pair, x)
    assert runtime.tracer.batch_size == (B if subsampled else None)
    assert runtime.tracer.subsamples == subsampled
    assert runtime.tracer.particles == "in a plate"
    found = runtime.trace(params, data, index, k, 0, None, True)
    z = torch.tensor(found.values["z"])
    assert z.shape == (k, B, Z)
    with torch.no_grad():
        log_p, log_q = by_hand(made.nets, torch.tensor(x[index]), z)
    np.testing.assert_allclose(found.log_p["z"] + found.log_p["x"], log_p, rtol=1e-5)
    np.testing.assert_allclose(found.log_q["z"], log_q, rtol=1e-5, atol=1e-5)
    assert found.kl["z"].shape in {(1, B, Z), (k, B, Z)}
    assert len(np.unique(z.numpy())) == k * B * Z  # drawn for each particle and datum


def test_the_parameters_of_every_style_are_found():
    names = {"encoder$$$fc1.weight", "decoder$$$fc2.bias", "scale"}
    for style in STYLES.values():
        runtime, params, _ = start(style().pair, draw())
        assert names <= set(params)
        assert len(params) == 6 + 4 + 1
        assert float(params["scale"]) == pytest.approx(np.log(0.8))  # unconstrained
        assert not runtime.tracer.state_names


@pytest.mark.parametrize("name", FULL)
def test_one_particle_is_pyros_own_elbo_and_gradient(name):
    runtime, params, data = start(FULL[name](), draw())
    tracer, index = runtime.tracer, torch.arange(N)
    live = tracer.adopt(params)
    with tracer.training(live):
        torch.manual_seed(1)
        trace = tracer.trace(live, None, data, index, 1)
        ours = bounds.elbo(trace, torch).sum() + N * bounds.shared(trace, torch) / N
        torch.manual_seed(1)
        theirs = -Trace_ELBO().differentiable_loss(tracer.program.model, tracer.program.guide, data["x"])
        grads = [torch.autograd.grad(v, list(live.values()), retain_graph=True) for v in (ours, theirs)]
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for mine, pyros in zip(*grads, strict=True):
        torch.testing.assert_close(mine, pyros, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("data_dim", [-1, -2])
def test_nested_plates(data_dim):
    model, guide = pairs.nested(data_dim)
    x = draw()
    runtime, params, data = start((model, guide), x)
    found = runtime.trace(params, data, np.arange(B), K, 0, None, True)
    assert {n: v.shape for n, v in found.values.items()} == {"z": (K, B), "w": (K, B, 3)}
    assert list(found.kl) == ["z"]
    encoder, decoder = (f.__closure__ for f in (guide, model))
    decoder = next(c.cell_contents for c in decoder if isinstance(c.cell_contents, nn.Linear))
    encoder = next(c.cell_contents for c in encoder if isinstance(c.cell_contents, nn.Linear))
    z, w = (torch.tensor(found.values[n]) for n in "zw")
    xs = torch.tensor(x[:B]).reshape(B, 3, 2)
    with torch.no_grad():
        h = encoder(xs)
        expected = {
            "z": dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(h[..., 0].mean(1), 0.9).log_prob(z),
            "w": (dist.Normal(z.unsqueeze(-1), 0.5).log_prob(w) - dist.Normal(h[..., 1], 0.6).log_prob(w)).sum(-1),
            "x": dist.Normal(decoder(w.unsqueeze(-1)), 0.7).log_prob(xs).sum((-1, -2)),
        }
    for n, value in expected.items():
        np.testing.assert_allclose(found.log_p[n] - found.log_q.get(n, 0.0), value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, K])
@pytest.mark.parametrize("name", ["functions", "PyroModules", "nested, data left", "nested, data right", "global"])
def test_given_values_are_read_as_they_were_drawn(name, k):
    runtime, params, data = start(FULL[name](), draw())
    first = runtime.trace(params, data, np.arange(B), k, 0, None, False)
    again = runtime.trace(params, data, np.arange(B), k, 1, first.values, False)
    for n, value in first.values.items():
        np.testing.assert_array_equal(again.values[n], value)
        for part in ("log_p", "log_q", "shared"):
            if n in getattr(first, part):
                np.testing.assert_allclose(getattr(again, part)[n], getattr(first, part)[n], rtol=1e-5, atol=1e-5)


def test_a_scaled_plate_over_minibatches():
    made, x = pairs.Scaled(), draw()
    runtime, params, data = start(made.pair, x)
    assert (runtime.tracer.batch_size, runtime.tracer.subsamples) == (None, False)
    index = np.array([7, 2, 10, 5, 11])
    found = runtime.trace(params, data, index, K, 0, None, False)
    with torch.no_grad():
        log_p, log_q = by_hand(made.nets, torch.tensor(x[index]), torch.tensor(found.values["z"]))
    np.testing.assert_allclose(found.log_p["z"] + found.log_p["x"], log_p, rtol=1e-5)
    np.testing.assert_allclose(found.log_q["z"], log_q, rtol=1e-5, atol=1e-5)


def test_a_plate_of_fixed_size_takes_all_data_at_once():
    runtime, params, data = start(pairs.Functions(N).pair, draw())
    assert (runtime.tracer.batch_size, runtime.tracer.subsamples) == (N, False)
    assert log_weights(runtime, params, data, np.arange(N), K).shape == (K, N)
    with pytest.raises(ProgramError, match="takes minibatches of 12 rows, got 5"):
        log_weights(runtime, params, data, np.arange(5), K)


@pytest.mark.parametrize(
    ("make", "width", "way"),
    [
        (pairs.convolutional, 16, "as more data"),
        (lambda: pairs.convolutional(N, B), 16, "one at a time"),
        (lambda: pairs.Normalised().pair, X, "one at a time"),
        (lambda: pairs.Labelled().pair, X, "as more data"),
    ],
    ids=["convolutions", "subsampled convolutions", "batch norm", "concatenation"],
)
def test_several_particles_where_networks_take_no_more_dimensions(make, width, way):
    x = draw(width=width)
    x = x.reshape(N, 1, 4, 4) if width == 16 else x
    x = {"x": x, "y": draw(width=1)[:, 0]} if way == "as more data" and width == X else x
    runtime, params, data = start(make(), x)
    assert runtime.tracer.particles == way
    several = runtime.trace(params, data, np.arange(B), K, 0, None, True)
    assert several.values["z"].shape[:2] == (K, B)
    for i in range(K):
        one = runtime.trace(
            params, data, np.arange(B), 1, 0, {n: v[i : i + 1] for n, v in several.values.items()}, True
        )
        for part in ("log_p", "log_q", "kl"):
            for n, value in getattr(one, part).items():
                np.testing.assert_allclose(getattr(several, part)[n][i], value[0], rtol=1e-5, atol=1e-5)


def test_first_values_of_zero_hide_no_difference_between_particles():
    """In a plate of particles axis 1 is the data's; while the weights are 0 a softmax over it changes no term."""
    w = np.linspace(-2.0, 2.0, Z * X).reshape(Z, X).astype(np.float32)

    def model(x):
        weight = pyro.param("w", torch.zeros(Z, X))
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.softmax(z, 1) @ weight, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], Z), 1.0).to_event(1))

    pair, x = Program.from_pyro(model, guide), draw()
    got = ppdgm.trace(pair, {"w": w}, x, k=K)
    expected = norm(softmax(got.values["z"], -1) @ w, 1.0).logpdf(x).sum(-1)
    np.testing.assert_allclose(got.log_p["x"], expected, rtol=1e-5)


def test_dropout_does_not_hinder_particles_in_a_plate():
    made = pairs.Functions()
    made.nets[1].fc1 = nn.Sequential(nn.Dropout(0.5), made.nets[1].fc1)
    runtime, params, data = started = start(made.pair, draw())
    assert runtime.tracer.particles == "in a plate"
    assert made.nets[1].fc1[0].training
    assert np.isfinite(train(trainer_of(started, SVI(k=2)), 3, B)["elbo"]).all()
    a, b = (runtime.trace(params, data, np.arange(B), K, 0, None, False).log_p["x"] for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_named_fields_are_matched_to_arguments():
    data = {"x": draw(), "y": np.ones(N, np.float32)}
    runtime, params, native = start(pairs.Labelled().pair, data)
    assert log_weights(runtime, params, native, np.arange(5), K).shape == (K, 5)
    with pytest.raises(ProgramError, match=r"guide takes \(x, y, unused=None\), but the data have the fields x"):
        start(pairs.Labelled().pair, draw())
    with pytest.raises(
        ProgramError,
        match=r"'label': neither the model nor the guide has an argument of this name\. Known: unused, x, y",
    ):
        start(pairs.Labelled().pair, {**data, "unused": data["y"], "label": data["y"]})


def test_means_follow_one_another():
    made = pairs.Functions()
    x = draw()
    runtime, params, data = start(made.pair, x)
    latents, observed = runtime.means(params, data, np.arange(5))
    with torch.no_grad():
        loc, _ = made.nets[0](torch.tensor(x[:5]))
        np.testing.assert_allclose(latents["z"][0], loc, atol=1e-6)
        np.testing.assert_allclose(observed["x"][0], made.nets[1](loc), atol=1e-6)
    runtime, params, data = start(pairs.nested(-2), x)
    latents, observed = runtime.means(params, data, np.arange(5))
    assert {n: v.shape for n, v in (latents | observed).items()} == {"z": (1, 5), "w": (1, 5, 3), "x": (1, 5, 3, 2)}
    runtime, params, data = start(pairs.everything(), x)
    latents, observed = runtime.means(params, data, np.arange(5))
    assert set(latents) == {"z", "first_unobserved"}
    assert set(observed) == {"x", "first_observed"}
    with pytest.raises(UnsupportedByBackend, match=r"is fit\.sample"):
        runtime.prior(params, {"x": None}, 3, 0, False)


def test_closed_forms_of_the_kl():
    made = pairs.Functions()
    x = draw()
    runtime, params, data = start(made.pair, x)
    found = runtime.trace(params, data, np.arange(B), K, 0, None, True)
    with torch.no_grad():
        loc, sd = made.nets[0](torch.tensor(x[:B]))
        expected = torch.distributions.kl_divergence(
            torch.distributions.Normal(loc, sd), torch.distributions.Normal(0.0, 1.0)
        )
    for kl in found.kl["z"]:
        np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-5)
    runtime, params, data = start(pairs.everything(), x)
    assert list(runtime.trace(params, data, np.arange(B), K, 0, None, True).kl) == ["z"]  # the other is masked
