"""Training discrete latents: exact enumeration, the bias of relaxed gradients against it, temperatures that move."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from discrete_parts import NET, X, check_slopes, every_backend, gradient, moved, training_trace, vae
from readings import get_runtime, precision, run_trace, train
from reference import forward, log_joint_and_guide
from scipy.special import log_softmax, logsumexp
from scipy.stats import norm

import ppdgm
from ppdgm.errors import ProgramError, SpecError
from ppdgm.inference import SVI, Exponential, Linear
from ppdgm.inference.engines import bounds
from ppdgm.models import (
    VAE,
    BernoulliPrior,
    CategoricalPrior,
    GumbelSoftmax,
    Part,
    Program,
    RelaxedBernoulli,
    StandardNormal,
)

# --- enumeration ------------------------------------------------------------------------------------------------------


def certain(program):
    """All joint values of the latents, [S, *event]."""
    shape = program.declarations().shapes["posterior"]
    if isinstance(program.posterior, RelaxedBernoulli):
        return 1000.0 * np.array(list(product((-1, 1), repeat=int(np.prod(shape))))).reshape(-1, *shape)
    codes = np.array(list(product(np.eye(shape[-1]), repeat=int(np.prod(shape[:-1])))))
    return 1000.0 * (codes.reshape(-1, *shape) - 1.0)


def by_hand(program, params, x):
    """(ELBO, log p(x)) [B] as sums over all values, by the reference's densities."""
    each = [np.broadcast_to(c, (1, len(x), *c.shape)) for c in certain(program)]
    terms = [log_joint_and_guide(program.to_dict(), params, {"x": x}, {"z": z}) for z in each]
    log_p, log_q = (np.concatenate(t) for t in zip(*terms, strict=True))
    assert np.exp(log_q).sum(0) == pytest.approx(1.0)
    return (np.exp(log_q) * (log_p - log_q)).sum(0), logsumexp(log_p, axis=0)


ENUMERATED = {
    "one latent": lambda: vae(GumbelSoftmax(classes=3, embedding=2, enumerate=True)),
    "two latents": lambda: vae(GumbelSoftmax(classes=3, enumerate=True), latent=2),
    "bits": lambda: vae(RelaxedBernoulli(enumerate=True), latent=(2, 2), prior=BernoulliPrior(probs="learned")),
}


@every_backend
@pytest.mark.parametrize("name", ENUMERATED)
def test_enumerated_bounds_are_the_sums_by_hand(name, backend):
    """With 3 particles, of a minibatch, in evaluation and in training; and the gradient."""
    program = ENUMERATED[name]()
    params, rows = moved(program), [3, 1]
    elbo, log_likelihood = by_hand(program, params, X[rows])
    runtime = get_runtime(backend, program)
    seen = runtime.trace(runtime.put(params), runtime.put({"x": X}), np.array(rows), 3, 0, None, True)
    for found in (seen, training_trace(backend, program, params, X[rows], k=3, kl=False)):
        np.testing.assert_allclose(bounds.elbo(found, np), [elbo] * 3, rtol=1e-5)
        np.testing.assert_allclose(bounds.log_weights(found, np), [log_likelihood] * 3, rtol=1e-5)
    exact = moved(program, "float64")
    with precision("float64"):
        gradients = gradient(backend, program, X.astype(float), 3, bounds.elbo)(exact, 0)
    check_slopes(gradients, lambda p: by_hand(program, p, X)[0].mean(), exact)


@every_backend
def test_a_training_step_and_an_evaluation_see_the_enumerated_bound(backend):
    program = ENUMERATED["two latents"]()
    params = moved(program)
    elbo, log_likelihood = by_hand(program, params, X)
    _, history = train(backend, program, {"x": X}, params, steps=1, engine=SVI(k=3))
    assert history["elbo"][0] == pytest.approx(elbo.mean(), rel=1e-5)
    fit = ppdgm.inference.Fit(program, params, backend)
    np.testing.assert_allclose(fit.elbo(X, k=2).values, elbo, rtol=1e-5)
    np.testing.assert_allclose(fit.log_likelihood(X, k=2).values, log_likelihood, rtol=1e-5)
    head = forward(program.to_dict()["encoder"], params, "encoder", X, (2, 3))
    np.testing.assert_allclose(fit.encode(X), log_softmax(head, -1), rtol=1e-5)
    draws = fit.encode(X, k=5)
    assert draws.shape == (5, 4, 2, 3) and np.isin(draws, (0, -1000)).all() and (draws == 0).sum(-1).max() == 1
    assert fit.reconstruct(X).shape == X.shape and fit.sample(7).shape == (7, 5)


class Clustered(Program):
    """c ~ prior, z ~ N(W[c], 1), x ~ N(decoder(z), 1); q(c|x) q(z|x, c)."""

    prior: Part = CategoricalPrior(weights="learned")
    posterior: Part = GumbelSoftmax(classes=3, embedding=2, enumerate=True)

    def build(self, context):
        context.part(self.prior, (1, 3))
        context.net("encoder", NET, (5,), context.part(self.posterior, (1, 3), label="guide"), label="guide")
        context.net("child", NET, (7,), (2,), label="guide")
        context.net("decoder", NET, (2,), (5,))

    def model(self, P, x):
        with P.plate("data", x):
            c = P.sample("c", self.prior(P))
            z = P.sample("z", P.dist.Normal(self.posterior.code(P, c)[..., 0], P.full((2,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(P.net("decoder")(z), P.full((5,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            c = P.sample("c", self.posterior(P, P.net("encoder")(x)), infer=self.posterior.infer)
            mean = P.net("child")(P.concat([x, self.posterior.code(P, c)[..., 0]]))
            P.sample("z", P.dist.Normal(mean, P.full((2,), 0.5)).to_event(1))


@every_backend
def test_a_continuous_latent_under_an_enumerated_one_has_particles_for_each_value(backend):
    program = Clustered()
    params = moved(program)
    seen = run_trace(get_runtime(backend, program), params, {"x": X}, 3)
    z, p = seen.values["z"], {n: v.astype(float) for n, v in params.items()}
    assert z.shape == (3, 3, 4, 2)  # classes, particles, data
    net, book = NET.to_dict(), p["posterior.codebook"]
    log_q = log_softmax(forward(net, p, "encoder", X, (3,)), -1)
    log_prior = log_softmax(p["prior.logits"][0])
    weights = []
    for c in range(3):
        given = np.concatenate([X, np.tile(book[c], (4, 1))], -1)
        guide = norm.logpdf(z[c], forward(net, p, "child", given, (2,)), 0.5).sum(-1)
        x_given = norm.logpdf(X, forward(net, p, "decoder", z[c].reshape(-1, 2), (5,)).reshape(3, 4, 5)).sum(-1)
        weights.append(log_prior[c] + norm.logpdf(z[c], book[c]).sum(-1) + x_given - guide)
    weights, q = np.array(weights), np.exp(log_q.T)[:, None]
    np.testing.assert_allclose(bounds.elbo(seen, np), (q * (weights - np.log(q))).sum(0), rtol=1e-5)
    np.testing.assert_allclose(bounds.log_weights(seen, np), logsumexp(weights, axis=0), rtol=1e-5)


@every_backend
def test_too_many_joint_values_are_refused_before_there_is_an_array_of_them(backend):
    for program in (
        vae(GumbelSoftmax(classes=10, enumerate=True), latent=40),
        vae(RelaxedBernoulli(enumerate=True), latent=(8, 8)),
    ):
        with pytest.raises(ProgramError, match=r"Site 'z'.* at most 10000 are allowed.*GumbelSoftmax"):
            run_trace(get_runtime(backend, program), program.initialise(), {"x": X}, 1)


# --- bias -------------------------------------------------------------------------------------------------------------


TAUS = (0.1, 0.3, 0.5, 1.0, 2.0)


@cache
def biases(backend, straight_through):
    """‖E[g] − exact‖ / ‖exact‖ of the encoder's gradient g at each τ, and standard errors: K = 64,000, B = 4."""
    schedule = Linear(start=1.0, steps=1)  # so that τ is an argument, and JAX compiles once
    relaxed = GumbelSoftmax(classes=3, temperature=schedule, min_temperature=0.01, straight_through=straight_through)
    program, exact = vae(relaxed, latent=2), vae(GumbelSoftmax(classes=3, enumerate=True), latent=2)
    params = {n: 2.0 * v for n, v in moved(exact).items()}  # a decoder that bends

    def flat(gradients):
        return np.concatenate([g.ravel() for n, g in sorted(gradients.items()) if n.startswith("encoder")])

    right = flat(gradient(backend, exact, X, 1, bounds.elbo)(params, 0))
    run, found = gradient(backend, program, X, 4000, bounds.elbo, kl=True), []
    for tau in TAUS:
        now = params | {"posterior.temperature": np.float32(tau)}
        each = np.array([flat(run(now, seed)) for seed in range(16)]) - right
        error = each.std(0, ddof=1) / 4
        found.append((np.linalg.norm(each.mean(0)), np.linalg.norm(error)))
    return np.array(found).T / np.linalg.norm(right)


@pytest.mark.statistical
@every_backend
def test_the_bias_of_relaxed_gradients_falls_with_the_temperature(backend):
    """At each step of τ by more than 3 standard errors. Straight through some stays, as the decoder bends."""
    soft, soft_error = biases(backend, False)
    assert (np.diff(soft) > 3 * np.hypot(soft_error[1:], soft_error[:-1])).all()
    assert soft[0] < 0.2 * soft[-1]
    hard, hard_error = biases(backend, True)
    assert hard[-1] - hard[0] > 3 * np.hypot(hard_error[0], hard_error[-1])
    assert (hard > soft + 3 * np.hypot(hard_error, soft_error)).all()
    assert hard[0] > 0.5 * hard[-1]


# --- temperatures -----------------------------------------------------------------------------------------------------


class Crash(Exception):
    pass


@every_backend
@pytest.mark.parametrize("kind", ("scheduled", "learned"))
def test_a_temperature_that_moves_is_where_it_should_be_and_goes_on_after_a_crash(backend, kind, tmp_path):
    """A schedule's value is that of the last step; a learned one moves, and stays above its floor."""
    schedule = Exponential(start=1.0, rate=0.5, every=10)
    if kind == "scheduled":
        program = vae(GumbelSoftmax(classes=3, temperature=schedule, kl="relaxed"), latent=2)
    else:
        program = vae(RelaxedBernoulli(temperature="learned", min_temperature=0.3), latent=2)
    options = {"steps": 14, "batch_size": 3, "compile": False, "progress": False}
    options |= {"learning_rate": 0.05, "backend": backend}
    whole = ppdgm.fit(program, X, **options)
    if kind == "scheduled":
        assert whole.params["posterior.temperature"] == pytest.approx(0.5**1.3, rel=1e-6)
    else:
        first = program.initialise()["posterior.raw_temperature"]
        assert 0.3 + np.logaddexp(0, first) == pytest.approx(1.0, rel=1e-6)
        assert abs(whole.params["posterior.raw_temperature"] - first) > 0.01

    def crash(now):
        if now.step >= 7:
            raise Crash

    with pytest.raises(Crash):
        ppdgm.fit(program, X, out=tmp_path / "run", callbacks=[crash], checkpoint_steps=5, **options)
    resumed = ppdgm.resume(tmp_path / "run", X, progress=False)
    assert all(np.array_equal(v, resumed.params[n]) for n, v in whole.params.items())
    assert np.array_equal(whole.history["elbo"], resumed.history["elbo"])


def test_an_annealed_temperature_stops_at_its_floor():
    """max(0.5, exp(−rt)), as in Jang et al.: the reference's densities of relaxed values."""
    program = vae(GumbelSoftmax(classes=3, temperature=Exponential(start=1.0, rate=0.5), min_temperature=0.5))
    params = moved(program) | {"posterior.temperature": np.float32(0.01)}
    seen = training_trace("pyro", program, params, X)
    log_p, log_q = log_joint_and_guide(program.to_dict(), params, {"x": X}, seen.values)
    np.testing.assert_allclose(bounds.log_weights(seen, np), log_p - log_q, rtol=2e-5)


# --- what is refused --------------------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("posterior", (GumbelSoftmax(), RelaxedBernoulli()))
def test_an_engine_that_weighs_draws_refuses_a_closed_form_of_the_discrete(backend, posterior):
    program = vae(posterior)
    with pytest.raises(ProgramError, match=r"Site 'z'.*the engine weighs draws.*kl=\"relaxed\""):
        train(backend, program, {"x": X}, steps=1, engine=SVI(kl="monte_carlo"))
    relaxed = program.replace(posterior=posterior.replace(kl="relaxed"))
    with pytest.raises(ProgramError, match="no closed-form KL"):
        train(backend, relaxed, {"x": X}, steps=1, engine=SVI(kl="analytic"))


@pytest.mark.parametrize("drawn", [{"straight_through": True}, {"temperature": 0.1}, {"kl": "relaxed"}])
@pytest.mark.parametrize("kind", [GumbelSoftmax, RelaxedBernoulli])
def test_enumeration_refuses_what_is_about_draws(kind, drawn):
    with pytest.raises(SpecError, match=f"enumerate=True draws nothing, so {next(iter(drawn))} would have no effect"):
        kind(enumerate=True, **drawn)
    assert kind(enumerate=True).infer and kind(**drawn)


def test_prior_and_posterior_of_two_families_are_refused():
    for prior, posterior, remedy in (
        (StandardNormal(), GumbelSoftmax(), "CategoricalPrior"),
        (CategoricalPrior(), RelaxedBernoulli(), "BernoulliPrior"),
    ):
        with pytest.raises(SpecError, match=f"prior: got {type(prior).__name__}.*{remedy}"):
            vae(posterior, prior=prior).declarations()


def test_recipes_say_everything_and_refuse_in_words():
    program = vae(
        GumbelSoftmax(classes=8, embedding=16, temperature=Linear(start=1.0, end=0.3, steps=9), kl="relaxed"),
        latent=(4, 4),
        prior=CategoricalPrior(weights="learned", temperature=0.7),
    )
    assert Program.from_toml(program.to_toml()) == program
    text = 'kind = "VAE"\nevent_shape = [5]\nlatent = 6\nprior = {kind = "BernoulliPrior", probs = 0.25}\n'
    text += 'posterior = {kind = "RelaxedBernoulli", temperature = "learned", straight_through = true}\n'
    posterior = RelaxedBernoulli(temperature="learned", straight_through=True)
    assert Program.from_toml(text) == VAE(
        event_shape=(5,), latent=6, prior=BernoulliPrior(probs=0.25), posterior=posterior
    )
    for make, told in (
        (lambda: GumbelSoftmax(classes=1), "classes: got 1; expected a number greater than or equal to 2"),
        (lambda: GumbelSoftmax(temperature="hot"), "temperature: got 'hot'"),
        (lambda: GumbelSoftmax(temperature=0.0), "temperature: got 0.0"),
        (lambda: GumbelSoftmax(kl="bernoulli"), "kl: got 'bernoulli'"),
        (lambda: BernoulliPrior(probs=1.0), "probs: got 1.0"),
    ):
        with pytest.raises(SpecError, match=told):
            make()
