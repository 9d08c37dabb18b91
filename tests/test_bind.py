"""`bind`: Pyro's and NumPyro's own tools run on a program as it is, and nothing global is touched."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import pytest
import torch
from numpyro import handlers
from programs import PROGRAMS, make_data, make_params
from pyro import poutine
from readings import BACKENDS, get_runtime, run_trace, train
from reference.programs import exact_log_likelihood

from ppdgm.errors import ProgramError
from ppdgm.inference.engines import bounds
from ppdgm.models import MLP, VAE, Program

# A guide in another order than the model: Pyro and NumPyro warn that their mean-field ELBO does not hold.
MEAN_FIELD = [name for name in PROGRAMS if name != "reversed"]
# NumPyro compiles each; these differ in more than their nets.
FEW = ["vae", "vae residual convolutions", "vae coupling", "hierarchical", "labelled", "ppca exact"]


def tensors(name):
    return {n: torch.tensor(v) for n, v in make_data(name).items()}


@pytest.fixture(autouse=True)
def pyro_as_it_was():
    """A store with an entry of somebody else's, under a name that programs use too; checks that it stays so."""
    pyro.clear_param_store()
    pyro.param("weight", torch.tensor([3.0, 4.0]))
    before = pyro.get_param_store().get_state()["params"]["weight"].clone()
    validation = torch.distributions.Distribution._validate_args, numpyro.distributions.Distribution._validate_args
    yield
    state = pyro.get_param_store().get_state()["params"]
    assert set(state) == {"weight"}
    assert torch.equal(state["weight"], before)
    assert (torch.distributions.Distribution._validate_args, numpyro.distributions.Distribution._validate_args) == (
        validation
    )
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)
    pyro.clear_param_store()


# --- Pyro's own tools ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "loss"),
    [(n, pyro.infer.Trace_ELBO) for n in PROGRAMS] + [(n, pyro.infer.TraceMeanField_ELBO) for n in MEAN_FIELD],
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
def test_pyro_svi_trains_every_parameter(name, loss):
    model, guide = PROGRAMS[name]().bind("pyro", make_params(name))
    before = {n: p.detach().clone() for n, p in model.params.named_parameters()}
    torch.manual_seed(0)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=loss())
    losses = [svi.step(**tensors(name)) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert set(before) == set(make_params(name))
    for n, p in guide.params.named_parameters():  # the same parameters, moved by Adam's step: at most 0.01 each time
        assert p is dict(model.params.named_parameters())[n]
        assert 0 < (p.detach() - before[n]).abs().max() < 0.04


def test_pyro_svi_of_the_exact_guide_has_the_exact_loss_and_gradient():
    """log w = log p(x) for every draw, so one draw gives Pyro the exact loss, and the gradient of Σ log p(x)."""
    name = "ppca exact"
    params, data = make_params(name, "float64"), make_data(name)
    model, guide = PROGRAMS[name]().bind("pyro", params)
    loss = pyro.infer.Trace_ELBO().loss_and_grads(model, guide, torch.tensor(data["x"].astype(float)))
    exact = lambda params: exact_log_likelihood(params, data["x"].astype(float)).sum()
    np.testing.assert_allclose(-loss, exact(params), rtol=1e-10)
    rng, step = np.random.default_rng(0), 1e-5
    for n, p in model.params.named_parameters():
        direction = rng.normal(size=params[n].shape)
        up, down = (exact(params | {n: params[n] + s * step * direction}) for s in (1, -1))
        np.testing.assert_allclose(-(p.grad.numpy() * direction).sum(), (up - down) / (2 * step), rtol=1e-7)


@pytest.mark.statistical
@pytest.mark.parametrize("loss", [pyro.infer.Trace_ELBO, pyro.infer.TraceMeanField_ELBO], ids=lambda v: v.__name__)
@pytest.mark.parametrize("name", ["vae", "hierarchical", "ppca linear"])
def test_pyro_elbo_is_ours(name, loss):
    """Within 4 standard errors of the difference of two estimates from K = 20,000 draws each, these below 0.3 %."""
    k, params, data = 20_000, make_params(name), make_data(name)
    model, guide = PROGRAMS[name]().bind("pyro", params)
    torch.manual_seed(1)
    theirs = -loss(num_particles=k, vectorize_particles=True, max_plate_nesting=1).loss(model, guide, **tensors(name))
    ours = bounds.log_weights(run_trace(get_runtime("pyro", PROGRAMS[name]()), params, data, k, seed=2), np).sum(1)
    error = 2**0.5 * ours.std(ddof=1) / k**0.5
    assert error <= 0.003 * abs(ours.mean())
    assert abs(theirs - ours.mean()) <= 4 * error


def test_two_bound_programs_trained_in_turns_equal_separate_ones():
    """FIELD row 6, with equal names and different seeds of their first values."""

    def trainer(seed):
        model, guide = PROGRAMS["vae"]().bind("pyro", seed=seed)
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), loss=pyro.infer.Trace_ELBO())

        def step(i):
            torch.manual_seed(100 * seed + i)
            svi.step(**tensors("vae"))
            return {n: p.detach().numpy().tobytes() for n, p in model.params.named_parameters()}

        return step

    alone = [[step(i) for i in range(5)] for step in (trainer(1), trainer(2))]
    first, second = trainer(1), trainer(2)
    in_turns = [(first(i), second(i)) for i in range(5)]
    assert [list(steps) for steps in zip(*in_turns, strict=True)] == alone
    assert alone[0] != alone[1]
    assert alone[0][0] != alone[0][4]


@pytest.mark.statistical
def test_pyro_predictive():
    """Draws of the prior and of the guide: means within 4 standard errors, seed 0."""
    name, n = "ppca linear", 4000
    params = make_params(name)
    model, guide = PROGRAMS[name]().bind("pyro", params, size=3)
    torch.manual_seed(0)
    prior = pyro.infer.Predictive(model, num_samples=n)()
    assert prior["z"].shape == (n, 3, 2)
    assert prior["x"].shape == (n, 3, 4)
    assert (prior["z"].mean(0).abs() <= 4 / n**0.5).all()
    assert_mean(prior["x"].detach().numpy(), params["loc"])
    x = tensors(name)["x"]
    drawn = pyro.infer.Predictive(guide, num_samples=n, parallel=True)(x)["z"].detach().numpy()
    assert_mean(drawn, x.numpy() @ params["guide.weight"].T + params["guide.bias"])
    again = pyro.infer.Predictive(model, guide=guide, num_samples=5)(x)
    assert again["z"].shape == (5, 4, 2)


def assert_mean(draws, expected):
    error = draws.std(0, ddof=1) / len(draws) ** 0.5
    assert (np.abs(draws.mean(0) - expected) <= 4 * error).all()


# --- NumPyro's own tools -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "loss"),
    [(n, numpyro.infer.Trace_ELBO) for n in FEW] + [(n, numpyro.infer.TraceMeanField_ELBO) for n in FEW[:1]],
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
def test_numpyro_svi_trains_every_parameter(name, loss):
    program, data = PROGRAMS[name](), make_data(name)
    model, guide = program.bind("numpyro", make_params(name))
    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(0.01), loss())
    first = svi.get_params(svi.init(jax.random.key(0), **data))
    assert {n: np.asarray(v).tobytes() for n, v in first.items()} == {
        n: v.tobytes() for n, v in make_params(name).items()
    }
    result = svi.run(jax.random.key(0), 3, progress_bar=False, **data)
    assert np.isfinite(result.losses).all()
    for n, v in first.items():
        assert 0 < np.abs(result.params[n] - v).max() < 0.04


def test_numpyro_svi_of_the_exact_guide_has_the_exact_loss():
    name = "ppca exact"
    params, data = make_params(name, "float64"), make_data(name)
    x = data["x"].astype(float)
    with jax.enable_x64(True):
        model, guide = PROGRAMS[name]().bind("numpyro", params)
        elbo = jax.jit(lambda params, x: numpyro.infer.Trace_ELBO().loss(jax.random.key(0), params, model, guide, x))
        exact = exact_log_likelihood(params, x).sum()
        np.testing.assert_allclose(-elbo(params, x), exact, rtol=1e-10)
        # Parameters that are handed over stand in for those that the program was bound with.
        other = {n: v + 0.1 for n, v in params.items()}
        np.testing.assert_allclose(-elbo(other, x), exact_log_likelihood(other, x).sum(), rtol=1e-10)


@pytest.mark.statistical
def test_numpyro_elbo_is_ours():
    """As for Pyro above; with the closed form too."""
    name, k = "vae", 20_000
    params, data = make_params(name), make_data(name)
    ours = bounds.log_weights(run_trace(get_runtime("numpyro", PROGRAMS[name]()), params, data, k, seed=2), np).sum(1)
    error = 2**0.5 * ours.std(ddof=1) / k**0.5
    assert error <= 0.003 * abs(ours.mean())
    model, guide = PROGRAMS[name]().bind("numpyro", params)
    for loss in (numpyro.infer.Trace_ELBO, numpyro.infer.TraceMeanField_ELBO):
        theirs = -jax.jit(lambda x, loss=loss: loss(num_particles=k).loss(jax.random.key(1), {}, model, guide, x))(
            data["x"]
        )
        assert abs(theirs - ours.mean()) <= 4 * error


@pytest.mark.statistical
def test_numpyro_predictive():
    name, n = "ppca linear", 4000
    params, x = make_params(name), jnp.asarray(make_data(name)["x"])
    model, guide = PROGRAMS[name]().bind("numpyro", params, size=3)
    prior = numpyro.infer.Predictive(model, num_samples=n)(jax.random.key(0))
    assert prior["z"].shape == (n, 3, 2)
    assert prior["x"].shape == (n, 3, 4)
    assert (np.abs(prior["z"].mean(0)) <= 4 / n**0.5).all()
    assert_mean(np.asarray(prior["x"]), params["loc"])
    drawn = numpyro.infer.Predictive(guide, params=params, num_samples=n)(jax.random.key(1), x)["z"]
    assert_mean(np.asarray(drawn), np.asarray(x) @ params["guide.weight"].T + params["guide.bias"])
    both = numpyro.infer.Predictive(model, guide=guide, params=params, num_samples=5)(jax.random.key(2), x)
    assert (both["x"] == x).all()  # observed, once for each of 5 draws of z
    assert both["x"].shape == (5, 4, 4)


# --- both ----------------------------------------------------------------------------------------------------------


def handler_log_joint(backend, name, **options):
    """log p(x, z) by the backend's handlers, with the plate's scale, at the latents z = 0.5."""
    data, program = make_data(name), PROGRAMS[name]()
    model, _ = program.bind(backend, make_params(name), **options)
    z = np.full((len(data["x"]), program.latent), 0.5, np.float32)
    if backend == "pyro":
        conditioned = poutine.condition(model, {"z": torch.tensor(z)})
        return poutine.trace(conditioned).get_trace(**tensors(name)).log_prob_sum().item()
    return float(numpyro.infer.util.log_density(model, (), data, {"z": z})[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_data_size_scales_the_plate(backend):
    plain = handler_log_joint(backend, "labelled")
    np.testing.assert_allclose(handler_log_joint(backend, "labelled", data_size=4), plain, rtol=1e-6)
    np.testing.assert_allclose(handler_log_joint(backend, "labelled", data_size=100), 25 * plain, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_data_a_size_is_asked_for(backend):
    model, _ = PROGRAMS["vae"]().bind(backend)
    call = model if backend == "pyro" else handlers.seed(model, 0)
    with pytest.raises(ProgramError, match=r"'data' has no data.*program\.bind\(…, size=B\)"):
        call()


@pytest.mark.parametrize("backend", BACKENDS)
def test_bind_starts_from_the_same_first_values(backend):
    program = PROGRAMS["vae"]()
    model, _ = program.bind(backend, seed=6)
    if backend == "pyro":
        values = {n: p.detach().numpy() for n, p in model.params.named_parameters()}
    else:
        trace = handlers.trace(handlers.seed(model, 0)).get_trace(**make_data("vae"))
        values = {n: np.asarray(s["value"]) for n, s in trace.items() if s["type"] == "param"}
    expected = {n: v for n, v in program.initialise(6).items() if backend == "pyro" or n.startswith("decoder")}
    assert {n: v.tobytes() for n, v in values.items()} == {n: v.tobytes() for n, v in expected.items()}


# --- nothing global is touched (the fixture above looks at Pyro's store and at validation after each test) ----------


@pytest.mark.parametrize("validate", [True, False])
def test_readings_and_training_leave_torch_as_it_was(validate):
    torch.distributions.Distribution.set_default_validate_args(validate)
    try:
        torch.manual_seed(5)
        before = torch.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled()
        runtime, params = get_runtime("pyro", PROGRAMS["vae"]()), make_params("vae")
        run_trace(runtime, params, make_data("vae"), 2, seed=1)
        native, data = runtime.put(params), runtime.put(make_data("vae"))
        runtime.means(native, data, np.arange(4))
        runtime.prior(native, {"x": None}, 3, seed=1, mean=False)
        runtime.initialise(3, make_data("vae"), "float32")
        train("pyro", PROGRAMS["vae"](), make_data("vae"), optimiser="adam")
        assert torch.distributions.Distribution._validate_args is validate
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before[1:]
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)


class Broken(VAE):
    def model(self, P, x):
        raise RuntimeError("in the user's own code")


def test_validation_comes_back_after_an_error():
    program = Broken(event_shape=(5,), latent=2)
    for call in (
        lambda: run_trace(get_runtime("pyro", program), program.initialise(0), make_data("vae"), 2),
        lambda: train("pyro", program, make_data("vae")),
    ):
        with pytest.raises(ProgramError, match="in the user's own code"):
            call()
        assert torch.distributions.Distribution._validate_args is True


class Checked(Program):
    """Its model notes whether distributions are checked."""

    def build(self, context):
        context.net("encoder", MLP(hidden=()), (5,), (2, 2))

    def guide(self, P, x):
        NOTED.append(torch.distributions.Distribution._validate_args)
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.net("encoder")(x)[:, 0], P.full((2,), 1.0)).to_event(1))

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(z[..., :1], P.full((5,), 1.0)).to_event(1), obs=x)


NOTED = []


def test_only_the_direct_readings_skip_validation():
    NOTED.clear()
    run_trace(get_runtime("pyro", Checked()), Checked().initialise(0), make_data("vae"), 2)
    _, guide = Checked().bind("pyro")
    guide(**tensors("vae"))
    assert NOTED == [False, True]


@pytest.mark.filterwarnings("ignore:`torch._prims_common.check` is deprecated:FutureWarning")  # torch's own compiler
@pytest.mark.parametrize("validate", [True, False])
def test_compiled_training_leaves_validation_and_equals_eager_training(validate):
    """torch.compile itself switches validation off, once per process. A program whose objective has no noise."""
    program, data, options = PROGRAMS["ppca exact"](), make_data("ppca exact"), {"optimiser": "adam", "rate": 0.05}
    torch._dynamo.reset()
    torch.distributions.Distribution.set_default_validate_args(validate)
    try:
        compiled, _ = train("pyro", program, data, compile=True, **options)
        assert torch.distributions.Distribution._validate_args is validate
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)
    eager, _ = train("pyro", program, data, **options)
    for n, value in eager.items():
        np.testing.assert_allclose(compiled[n], value, rtol=1e-4, atol=1e-5)
        assert np.abs(value - program.initialise(0)[n]).max() > 0.05
