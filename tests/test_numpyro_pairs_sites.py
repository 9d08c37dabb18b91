"""Plain NumPyro pairs: where sites stand, what data plates and parameters may be, and what is refused."""

import flax.linen as linen
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import flax_module, nnx_module
from numpyro.distributions import constraints
from numpyro.infer.util import log_density
from numpyro_pairs import (
    DATA,
    RNG,
    SCALE,
    WEIGHT,
    B,
    D,
    N,
    Training,
    X,
    by_param,
    linear,
    log_weights,
    normal,
    open_pair,
    plate,
    read,
    standard,
    vae,
)
from trainers import make_plan, make_trainer

from ppdgm.errors import NoMean, ProgramError, UnsupportedByBackend
from ppdgm.inference import SVI

# --- where sites stand ------------------------------------------------------------------------------------------------


def nested(outer, inner):
    """A local latent, and one per pixel in a plate inside the data plate, or left of it."""

    def plates(x):
        return numpyro.plate("data", x.shape[0], dim=outer), numpyro.plate("pixels", X, dim=inner)

    def lay(z):  # [B] where the data's axis is
        return z[:, None] if outer == -2 else z

    def model(x):
        data, pixels = plates(x)
        with data:
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            with pixels:
                w = numpyro.sample("w", dist.Normal(z, 1.0))
                numpyro.sample("x", dist.Normal(w, 0.5), obs=x if outer == -2 else x.T)

    def guide(x):
        data, pixels = plates(x)
        with data:
            z = numpyro.sample("z", dist.Normal(lay(x.mean(1)), 0.7))
            with pixels:
                numpyro.sample("w", dist.Normal(0.5 * z, 1.1 + numpyro.param("s", 0.0)))

    return model, guide


@pytest.mark.parametrize("dims", [(-2, -1), (-1, -2)])
def test_nested_plates(dims):
    opened = open_pair(*nested(*dims))
    index, log = np.array([4, 1, 20]), lambda x, m, s: -0.5 * ((x - m) / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))
    found = read(opened, index, k=4, kl=True)
    z, w, x = found.values["z"], found.values["w"], DATA[index]
    assert z.shape == (4, 3) and w.shape == (4, 3, X)
    np.testing.assert_allclose(found.log_p["w"], log(w, z[..., None], 1.0).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(found.log_p["x"], log(x, w, 0.5).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(found.log_q["z"], log(z, x.mean(1), 0.7), rtol=1e-4)
    np.testing.assert_allclose(found.log_q["w"], log(w, 0.5 * z[..., None], 1.1).sum(-1), rtol=1e-4)
    assert list(found.kl) == ["z"] and found.kl["z"].shape == (4, 3, 1)
    again = read(opened, index, k=4, given=found.values)
    for name in ("z", "w"):
        assert np.array_equal(again.values[name], found.values[name])
        np.testing.assert_allclose(again.log_q[name], found.log_q[name], rtol=1e-5)
    latents, observed = opened[0].means(*opened[1:], index)
    np.testing.assert_allclose(latents["w"][0], np.repeat(0.5 * x.mean(1)[:, None], X, 1), rtol=1e-5)
    assert observed["x"].shape == (1, 3, X)


def test_agrees_with_numpyros_own_densities():
    model, guide = vae(by_param)
    runtime, params, data = open_pair(model, guide)
    found = runtime.trace(params, data, np.arange(N), 1, 0, None, True)
    constrained = {**params, "scale": jnp.exp(params["scale"])}
    for own, terms in ((model, found.log_p), (guide, found.log_q)):
        theirs, _ = log_density(own, (DATA,), {}, {**constrained, "z": found.values["z"][0]})
        np.testing.assert_allclose(sum(v.sum() for v in terms.values()), theirs, rtol=1e-5)
    mean, scale = np.split(DATA @ params["encoder.weight"] + params["encoder.bias"], 2, 1)
    kl = 0.5 * (mean**2 + np.exp(2 * scale) - 1) - scale
    assert found.kl["z"].shape == (1, N, D)
    np.testing.assert_allclose(found.kl["z"][0], kl, atol=1e-5)


def test_particles_and_data_are_drawn_apart():
    z = read(open_pair(*linear()), [0, 0, 0], k=5).values["z"].reshape(15, D)
    assert len(np.unique(z, axis=0)) == 15


def test_masks_factors_auxiliary_sites_and_deterministics():
    seen = jnp.arange(N) % 3 > 0

    def model(x):
        with numpyro.plate("data", N, subsample_size=B) as i:
            z = numpyro.sample("z", standard())
            numpyro.deterministic("twice", 2 * z)
            numpyro.factor("bonus", x[i, 0])
            with handlers.mask(mask=seen[i]):
                numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT), SCALE), obs=x[i])

    def guide(x):
        with numpyro.plate("data", N, subsample_size=B) as i:
            u = numpyro.sample("u", standard(), infer={"is_auxiliary": True})
            numpyro.sample("z", dist.Delta(u + x[i, :D] + numpyro.param("shift", 0.0), event_dim=1))

    index = np.array([3, 1, 24, 7, 6, 5, 10, 12])
    opened = open_pair(model, guide)
    found = read(opened, index, kl=True)
    z, x = found.values["z"], DATA[index]
    log = lambda v, s: (-0.5 * (v / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))).sum(-1)
    likelihood = np.where(seen[index], log(x - z @ WEIGHT, SCALE), 0.0)
    np.testing.assert_allclose(found.log_p["x"], likelihood, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.log_p["bonus"], np.broadcast_to(x[:, 0], (2, B)))
    assert list(found.values) == ["z"]
    expected = likelihood + x[:, 0] + log(z, 1.0) - log(z - x[:, :D], 1.0)
    np.testing.assert_allclose(log_weights(opened, index, 2), expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(Training(opened).run(3)["objective"]).all()
    with pytest.raises(NoMean, match="auxiliary draw"):  # `encode` takes the mean of draws
        opened[0].means(*opened[1:], index)


def test_masked_latents_have_no_closed_form():
    def model(x):
        with plate(x, None), handlers.mask(mask=jnp.arange(len(x)) > 2):
            numpyro.sample("x", normal(numpyro.sample("z", standard(X))), obs=x)

    def guide(x):
        with plate(x, None), handlers.mask(mask=jnp.arange(len(x)) > 2):
            numpyro.sample("z", normal(x * numpyro.param("a", 1.0)))

    found = read(open_pair(model, guide), kl=True)
    assert found.kl == {} and (found.log_q["z"][:, :3] == 0).all() and (found.log_q["z"][:, 3:] != 0).all()


@pytest.mark.statistical
def test_one_latent_for_all_data():
    """Outside the plate: a term per particle, right in SVI given N, and refused where there is none per datum."""

    def model(x):
        mu = numpyro.sample("mu", standard(X))
        with plate(x, None):
            numpyro.sample("x", normal(mu), obs=x)

    def guide(x):
        loc = numpyro.param("loc", jnp.zeros(X))
        numpyro.sample("mu", normal(loc, numpyro.param("scale", 1.0, constraint=constraints.positive)))

    opened = open_pair(model, guide)
    found = read(opened, [1, 2, 3])
    assert found.shared["mu"].shape == (2,) and found.values["mu"].shape == (2, 1, X) and not found.log_q
    again = read(opened, [1, 2, 3], given=found.values)
    assert np.array_equal(again.values["mu"], found.values["mu"])
    with pytest.raises(ProgramError, match=r"'mu'.*no log-weight per row"):
        log_weights(opened, [0], 1)
    training = Training(opened, SVI(k=50), batch_size=N)
    for training.rate in (0.05, 0.005):
        training.run(300)
    values = training.trainer.values()
    np.testing.assert_allclose(values["loc"], DATA.sum(0) / (N + 1), atol=0.02)
    np.testing.assert_allclose(np.exp(values["scale"]), (N + 1) ** -0.5, rtol=0.05)
    trainer = make_trainer(opened[0], SVI(), opened[1])
    with pytest.raises(ProgramError, match=r"'mu'.*data_size"):
        plan = make_plan(SVI(), *training.batches.rows(0, 1, 1), np.ones(1, np.float32), 0, 1)
        trainer.run(plan, opened[2])


def test_a_latent_for_all_data_in_a_plate_of_its_own():
    def model(x):
        with numpyro.plate("coordinates", X):
            mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        with plate(x, None):
            numpyro.sample("x", normal(mu), obs=x)

    def guide(x):
        loc = numpyro.param("loc", jnp.arange(X) / 10.0)
        with numpyro.plate("coordinates", X):
            numpyro.sample("mu", dist.Normal(loc, 0.1))

    opened = open_pair(model, guide)
    found = read(opened, [1, 2, 3])
    mu = found.values["mu"]
    assert mu.shape == (2, 1, X) and not found.log_q
    log = lambda v, s: (-0.5 * (v / s) ** 2 - np.log(s * np.sqrt(2 * np.pi))).sum(-1)
    expected = log(mu[:, 0], 2.0) - log(mu[:, 0] - np.arange(X) / 10.0, 0.1)
    np.testing.assert_allclose(found.shared["mu"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.log_p["x"], log(DATA[1:4] - mu, 1.0), rtol=1e-4)
    again = read(opened, [1, 2, 3], given=found.values)
    np.testing.assert_allclose(again.shared["mu"], found.shared["mu"], rtol=1e-5)


# --- the data plate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "fresh"), [(lambda x: N, True), (lambda x: x.shape[0], False)])
def test_a_subsampled_pair_reads_data_of_any_size(size, fresh):
    """More or fewer rows than the size that is written into the program, or than its minibatch."""

    def model(x):
        with numpyro.plate("data", size(x), subsample_size=B):
            batch = numpyro.subsample(x, event_dim=1)
            numpyro.sample("x", normal(numpyro.sample("z", standard()) @ jnp.asarray(WEIGHT)), obs=batch)

    def guide(x):
        with numpyro.plate("data", size(x), subsample_size=B) as i:
            numpyro.sample("z", normal(x[i, :D] + numpyro.param("a", 0.0)))

    runtime, params, data = open_pair(model, guide)
    index = np.array([0, 1, 2, 3, 0, 0, 1, 2])
    expected = log_weights((runtime, params, data), index, 3)
    for rows in (4, B, N + 7):
        other = np.concatenate([DATA[:4], RNG.normal(size=(rows - 4, X))]).astype("float32")
        opened = open_pair(model, guide, other, params) if fresh else (runtime, params, runtime.put({"x": other}))
        np.testing.assert_allclose(log_weights(opened, index, 3), expected, rtol=1e-5)


def test_a_full_plate_of_fixed_size_keeps_the_order_of_the_data():
    """Such a program may keep parameters per datum: they must meet their own data in every order of a minibatch."""

    def model(x):
        with numpyro.plate("data", N):
            numpyro.sample("x", normal(numpyro.sample("z", standard(X)), 0.1), obs=x)

    def guide(x):
        with numpyro.plate("data", N):
            numpyro.sample("z", normal(numpyro.param("loc", jnp.asarray(DATA)), 0.1))

    opened = open_pair(model, guide)
    assert opened[0].tracer.batch_size == N
    order = np.random.default_rng(0).permutation(N)
    found = read(opened, order, kl=True)
    assert abs(found.values["z"] - DATA[order]).max() < 0.6
    assert found.log_p["x"].min() > -20
    again = read(opened, order, given=found.values)
    np.testing.assert_allclose(again.log_p["x"], found.log_p["x"], rtol=1e-5)
    latents, observed = opened[0].means(*opened[1:], order)
    np.testing.assert_allclose([latents["z"][0], observed["x"][0]], [DATA[order]] * 2)
    with pytest.raises(ProgramError, match=r"'data' has size=25.*takes minibatches of 25 rows, got 8"):
        read(opened, range(8))


def test_short_minibatch_is_refused():
    with pytest.raises(ProgramError, match=r"subsample_size=8, and takes minibatches of 8 rows, got 5.*Fill the"):
        read(open_pair(*linear(B)), range(5))


def test_parameters_per_datum_meet_their_own_data():
    runtime, params, data = open_pair(linear(B)[0], lambda x: _local(x))
    assert params["loc"].shape == (N, D)
    index = np.array([24, 3, 3, 1, 0, 5, 6, 7])
    rows = {**params, "loc": jnp.arange(N * D, dtype=jnp.float32).reshape(N, D)}
    z = runtime.trace(rows, data, index, 3, 0, None, False).values["z"]
    np.testing.assert_allclose(z, np.broadcast_to(rows["loc"][index], z.shape), atol=0.1)


def _local(x):
    with plate(x, B):
        numpyro.sample("z", normal(numpyro.param("loc", jnp.zeros((x.shape[0], D)), event_dim=1), 0.01))


# --- parameters and fields --------------------------------------------------------------------------------------------


def test_constraints():
    def model(x):
        weights = numpyro.param("weights", jnp.array([0.2, 0.3, 0.5]), constraint=constraints.simplex)
        low = numpyro.param("low", 0.25, constraint=constraints.interval(0.0, jnp.ones(())))
        with plate(x, None):
            z = numpyro.sample("z", standard())
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT) + weights[0], low), obs=x)

    runtime, params, data = open_pair(model, linear()[1])
    assert params["weights"].shape == (2,) and np.isclose(params["low"], np.log(0.25 / 0.75))
    z = runtime.trace(params, data, np.arange(B), 1, 0, None, False)
    log = -0.5 * ((DATA[:B] - z.values["z"][0] @ WEIGHT - 0.2) / 0.25) ** 2 - np.log(0.25 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(z.log_p["x"][0], log.sum(-1), rtol=1e-4)

    def outside(x):
        numpyro.param("s", -1.0, constraint=constraints.positive)
        model(x)

    with pytest.raises(ProgramError, match="'s': its first value is not finite, or outside its constraint"):
        open_pair(outside, linear()[1])
    with pytest.raises(ProgramError, match=r"'weights' has no value\. Did you mean 'weight'"):
        read((runtime, {"weight": params["weights"], "low": params["low"]}, data))


def test_named_fields():
    def model(x, label, mask=None):
        with plate(x, None):
            z = numpyro.sample("z", standard())
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT)), obs=x)
            numpyro.sample("label", dist.Bernoulli(logits=z[:, 0]), obs=label)

    def guide(x):
        with plate(x, None):
            numpyro.sample("z", normal(x[:, :D] * numpyro.param("a", 1.0)))

    both = {"x": DATA, "label": (DATA[:, 0] > 0).astype("float32")}
    found = read(open_pair(model, guide, data=both))
    assert found.log_p["label"].shape == (2, B)
    with pytest.raises(ProgramError, match=r"model\(x, label, mask=None\).*fields x \(missing.*'label'"):
        open_pair(model, guide)
    with pytest.raises(ProgramError, match=r"field 'labels': neither the model nor the guide .* Did you mean 'label'"):
        open_pair(model, guide, data={"x": DATA, "labels": both["label"]})


# --- FIELD 24 and what is refused -------------------------------------------------------------------------------------


def broken(change, where="model"):
    """A sound pair, but for a statement that is put into the plate of one of the two."""

    def model(x):
        with plate(x, None):
            if where == "model":
                change(x)
            z = numpyro.sample("z", standard())
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT)), obs=x)

    def guide(x):
        with plate(x, None):
            if where == "guide":
                change(x)
            numpyro.sample("z", normal(x[:, :D] * numpyro.param("a", 1.0)))

    return model, guide


def _inner_subsample(x):
    with numpyro.plate("pixels", X, subsample_size=2, dim=-2):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)


def _scaled(x):
    with handlers.scale(scale=0.5):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=x[:, 0])


def _batch_norm(x):
    flax_module("net", linen.BatchNorm(use_running_average=False), mutable=["batch_stats"], input_shape=(1, X))(x)


def _nnx_dropout(x):
    nnx_module("net", nnx.Dropout(0.5, rngs=nnx.Rngs(0)))(x)


def _observe(fn, value):
    return lambda x: numpyro.sample("y", fn, obs=value(x))


REFUSED = {
    "no to_event": (
        _observe(dist.Normal(jnp.zeros((1, 3)), 1.0), lambda x: x[:, :3]),
        "model",
        r"'y'.*batch shape \(1, 3\).*add \.to_event\(1\)",
    ),
    "no to_event, square": (
        lambda x: numpyro.sample("y", dist.Normal(jnp.zeros((N, N)), 1.0), obs=jnp.zeros((N, N))),
        "model",
        r"'y'.*batch shape \(25, 25\).*'data' \(25 at dim -1\).*add \.to_event\(1\)",
    ),
    "data of another shape": (
        _observe(normal(jnp.zeros(3)), lambda x: x),
        "model",
        r"'y': got data of shape \(25, 5\).*events of shape \(3,\), so expected \(25, 3\)",
    ),
    "data without the plate's axis": (
        _observe(standard(X), lambda x: x[0]),
        "model",
        r"'y': got data of shape",
    ),
    "latent that the guide lacks": (
        lambda x: numpyro.sample("y", dist.Normal(0.0, 1.0)),
        "model",
        "'y' is latent in the model, but the guide does not draw it",
    ),
    "latent that the model lacks": (
        lambda x: numpyro.sample("y", dist.Normal(0.0, 1.0)),
        "guide",
        "'y' is drawn in the guide, but is not a latent site of the model",
    ),
    "drawn twice": (lambda x: numpyro.sample("z", standard()), "guide", "'z' is drawn twice"),
    "inner plate subsamples": (_inner_subsample, "model", "'pixels': got subsample_size=2 of 5.*only the data plate"),
    "scale": (_scaled, "model", r"'y' is scaled by 0\.5.*SVI\(beta=…\)"),
    "batch norm": (_batch_norm, "model", r"'net\$state' has state.*layer norm or group norm"),
    "dropout": (_nnx_dropout, "guide", r"'net\$state' has state"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    change, where, message = REFUSED[case]
    error = UnsupportedByBackend if "state" in message else ProgramError
    with pytest.raises(error, match=message):
        open_pair(*broken(change, where))


def test_site_outside_the_plate():
    def model(x):
        z = numpyro.sample("z", normal(jnp.zeros((x.shape[0], D))))
        with plate(x, None):
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT)), obs=x)

    with pytest.raises(ProgramError, match=r"'z' is inside the data plate in the guide.*with numpyro\.plate"):
        open_pair(model, linear()[1])

    def once(x):
        z = numpyro.sample("z", standard())
        with plate(x, None):
            numpyro.sample("x", normal(z @ jnp.asarray(WEIGHT)), obs=x)

    with pytest.raises(ProgramError, match=r"'z' is inside the data plate in the guide, but outside it in the model"):
        open_pair(once, linear()[1])


def test_missing_plate_names_those_there_are():
    with pytest.raises(ProgramError, match=r"no plate 'rows'. Its plates: 'data'.*data_plate="):
        open_pair(*linear(), plate="rows")

    def model(x):
        numpyro.sample("x", dist.Normal(x, 1.0).to_event(2), obs=x)

    with pytest.raises(ProgramError, match=r"no plate 'data'\. Its plates: none"):
        open_pair(model, lambda x: None)


def test_control_flow_is_refused():
    def model(x):
        scan(lambda carry, _: (carry, numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)), 0.0, None, length=3)
        linear()[0](x)

    with pytest.raises(UnsupportedByBackend, match="control flow"):
        open_pair(model, linear()[1])


def test_gradients_through_draws_need_pathwise_draws():
    """A discrete latent is refused where they are insisted on, else scored; its log-weights are what they are."""

    def model(x):
        with plate(x, None):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("x", normal(z[:, None] * jnp.ones(X)), obs=x)

    def guide(x):
        with plate(x, None):
            numpyro.sample("z", dist.Bernoulli(logits=x[:, 0] * numpyro.param("a", 1.0)))

    opened = open_pair(model, guide)
    assert log_weights(opened, range(B), 3).shape == (3, B)
    with pytest.raises(ProgramError, match=r"'z': Bernoulli\w* is not reparameterised"):
        Training(opened, SVI(estimator="reparam")).run(1)
    assert np.isfinite(Training(opened, SVI(k=2)).run(3)["objective"]).all()


def test_no_prior_draws_and_no_missing_means():
    runtime, params, _ = open_pair(*linear())
    with pytest.raises(UnsupportedByBackend, match=r"draw from a plain pair is fit.sample\(n\)"):
        runtime.prior(params, {"x": None}, 3, 0, False)

    def model(x):
        with plate(x, None):
            numpyro.sample("x", normal(numpyro.sample("z", standard()) @ jnp.asarray(WEIGHT)), obs=x)
            numpyro.sample("y", dist.Unit(jnp.zeros(len(x))), obs=jnp.zeros((len(x), 0)))

    opened = open_pair(model, linear()[1])
    with pytest.raises(ProgramError, match="'y': Unit has no mean"):
        opened[0].means(*opened[1:], np.arange(B))
