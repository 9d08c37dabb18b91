"""Every public part keeps the contract of `ppdgm.testing.check`; and wrong twins, one for each invariant, do not."""

from itertools import count

import jax
import numpy as np
import pytest
from parts import FAMILIES, INSTANCES, NOT_ALONE, public_parts

from ppdgm.catalogue import public_specs
from ppdgm.errors import ContractError, PpdgmError
from ppdgm.models import (
    IAF,
    MLP,
    Bernoulli,
    CategoricalPrior,
    DiagonalNormal,
    Flow,
    Gaussian,
    Likelihood,
    Net,
    Posterior,
    Prior,
    Program,
    RelaxedBernoulli,
    StandardNormal,
)
from ppdgm.models.flows.one_way import OneWay
from ppdgm.models.posteriors import halves
from ppdgm.program import constant, normal, zeros
from ppdgm.specs import Shape
from ppdgm.testing import INVARIANTS, check

PARTS = {name: (part, options) for name, part, options in public_parts()}


@pytest.fixture(autouse=True, scope="module")
def compile_fast():
    """Hundreds of small programs are compiled here, and run once."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


# --- the registry -----------------------------------------------------------------------------------------------------


def test_every_public_part_is_here():
    """A new part joins by being public: it needs an entry in `INSTANCES` only if its defaults are too large."""
    public = {c for c in public_specs() if issubclass(c, FAMILIES) and c.__name__ not in NOT_ALONE}
    assert public == {type(part) for part, _ in PARTS.values()}
    assert set(INSTANCES) <= public


@pytest.mark.parametrize("name", PARTS)
def test_keeps_the_contract(name):
    part, options = PARTS[name]
    report = check(part, **options)
    looked = {r.invariant for r in report.results if r.passed}
    assert looked >= {"spec", "initial", "parity", "gradient", "training", "saved"}
    assert {r.where for r in report.results} == {"both", "numpyro", "pyro"}


# --- wrong twins ------------------------------------------------------------------------------------------------------


class Loud(StandardNormal):
    """Wrong: its density integrates to 1.1."""

    def distribution(self, P, *head):
        right = super().distribution(P, *head)
        draw = lambda random, batch: random.draw(right, batch)
        return P.distribution(
            lambda random, batch: (draw(random, batch)[0], None), lambda z: right.log_prob(z) + 0.1, P.shape
        )


class Wide(Posterior):
    """Wrong: draws are 5 % wider than the density says."""

    def build(self, context, shape):
        return shape

    def distribution(self, P, *head):
        right = P.dist.Normal(head[0], P.full((), 1.0)).to_event(len(P.shape))

        def sample(random, batch):
            return head[0] + 1.05 * random.normal((*batch, *P.shape)), None

        return P.distribution(sample, right.log_prob, P.shape, head[0].shape[:-1])


class OffsetDraws(Wide):
    """Wrong: a draw comes with the log-density of another one."""

    def distribution(self, P, *head):
        right = P.dist.Normal(head[0], P.full((), 1.0)).to_event(len(P.shape))

        def sample(random, batch):
            z, log_q = random.draw(right, batch)
            return z, log_q + 1e-3

        return P.distribution(sample, right.log_prob, P.shape, head[0].shape[:-1])


class Deaf(DiagonalNormal):
    """Wrong: the mean gets no gradient."""

    def distribution(self, P, *head):
        loc, raw = halves(head[0], P.shape)
        return P.dist.Normal(P.stop_gradient(loc), 0.1 + P.softplus(raw)).to_event(len(P.shape))


class HardOfHearing(Likelihood):
    """Wrong: half of its gradient is cut."""

    def build(self, context, shape):
        return shape

    def distribution(self, P, *head):
        loc = 0.5 * head[0] + 0.5 * P.stop_gradient(head[0])
        return P.dist.Normal(loc, P.full((), 1.0)).to_event(len(P.shape))


class FromTheLeft(DiagonalNormal):
    """Wrong: indexes its head from the left, where batches were expected."""

    def distribution(self, P, *head):
        return P.dist.Normal(head[0][:, 0], 0.1 + P.softplus(head[0][:, 1])).to_event(len(P.shape))


class FirstOnly(Likelihood):
    """Wrong: every datum gets the first particle's head."""

    def build(self, context, shape):
        return shape

    def distribution(self, P, *head):
        return P.dist.Bernoulli(logits=head[0] if head[0].ndim < 3 else head[0][:1]).to_event(len(P.shape))


class Overflowing(Posterior):
    """Wrong: exp of a head, which is infinite at 50 squared."""

    def build(self, context, shape):
        return (2, *shape)

    def distribution(self, P, *head):
        loc, raw = halves(head[0], P.shape)
        return P.dist.Normal(loc, P.xp.exp(0.1 * raw * raw)).to_event(len(P.shape))


class HalfLog(Likelihood):
    """Wrong: a where(…) of which the branch not taken has a gradient of NaN."""

    def build(self, context, shape):
        return shape

    def distribution(self, P, *head):
        h = head[0]
        scale = P.xp.where(h > 20.0, h, P.xp.log(1.0 + P.xp.exp(2.0 * h)))
        return P.dist.Normal(P.full(P.shape, 0.0), 0.1 + scale).to_event(len(P.shape))


class Partisan(StandardNormal):
    """Wrong: other numbers on one backend."""

    def distribution(self, P, *head):
        scale = 1.001 if type(P).__name__ == "JaxVocabulary" else 1.0
        return P.dist.Normal(P.full(P.shape, 0.0), P.full(P.shape, scale)).to_event(len(P.shape))


class Single(StandardNormal):
    """Wrong: a constant that is rounded to float32 on one backend only."""

    def distribution(self, P, *head):
        third = P.xp.asarray(1 / 3, dtype=P.xp.float32) if type(P).__name__ == "TorchVocabulary" else 1 / 3
        return P.dist.Normal(P.full(P.shape, 0.0) + third, P.full(P.shape, 1.0)).to_event(len(P.shape))


TICKS = count()


class Restless(StandardNormal):
    """Wrong: first values that are not the seed's."""

    def build(self, context, shape):
        context.param("loc", shape, lambda rng, shape, data: np.full(shape, 1e-3 * next(TICKS)))
        return ()

    def distribution(self, P, *head):
        return P.dist.Normal(P.param("loc"), P.full(P.shape, 1.0)).to_event(len(P.shape))


class Drifting(StandardNormal):
    """Wrong: what text gives back is another."""

    loc: float = 0.0

    def to_dict(self):
        return {**super().to_dict(), "loc": self.loc + 1.0}


class Prudish(Gaussian):
    """Wrong: refuses data that it draws itself."""

    def check(self, name, x):
        Bernoulli().check(name, x)


class Tilted(Bernoulli):
    """Wrong: probabilities of 0 and 1 that add up to more than 1."""

    def distribution(self, P, *head):
        right = super().distribution(P, *head)
        log_prob = lambda x: right.log_prob(x) + 0.01 * P.xp.sum(x, axis=-1)
        return P.distribution(
            lambda random, batch: (random.draw(right, batch)[0], None),
            log_prob,
            P.shape,
            head[0].shape[:-1],
            pathwise=False,
        )


class Shift(Flow):
    """y = exp(s) x + c, with s a parameter and c the context; right."""

    fast = "both"

    def build(self, context, width, conditional):
        context.param("log_scale", (width,), constant(0.3))
        return width if conditional else 0

    def forward(self, P, x, context):
        s = P.param("log_scale")
        return P.xp.exp(s) * x + (0.0 if context is None else context), P.xp.sum(s + 0.0 * x, axis=-1)

    def inverse(self, P, y, context):
        s = P.param("log_scale")
        return P.xp.exp(-s) * (y - (0.0 if context is None else context)), P.xp.sum(-s + 0.0 * y, axis=-1)


class WrongSign(Shift):
    """Wrong: the log-determinant has the other sign."""

    def forward(self, P, x, context):
        y, log_det = super().forward(P, x, context)
        return y, -log_det

    def inverse(self, P, y, context):
        x, log_det = super().inverse(P, y, context)
        return x, -log_det


class NoWayBack(Shift):
    """Wrong: the inverse forgets the context."""

    def inverse(self, P, y, context):
        return super().inverse(P, y, None)


class WrongOneWay(OneWay):
    """Wrong: z ← z + 0.5 tanh(z), whose log-determinant counts one dimension only. One way."""

    depth: int = 1

    def size(self, width):
        return 1

    def steps(self, P, x, numbers):
        h = P.xp.tanh(x + numbers[..., 0, :])
        return x + 0.5 * h, P.xp.log(1.0 + 0.5 * (1.0 - h * h))[..., 0]


class Gossip(Program):
    """Wrong: a datum's code depends on the others in its minibatch."""

    event_shape: Shape = (3,)

    def build(self, context):
        context.param("weight", (3, 2), normal(1.0), label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((2,), 0.0), P.full((2,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(P.concat([z, z[..., :1]]), P.full((3,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            centred = x - P.xp.mean(x, axis=0)
            P.sample("z", P.dist.Normal(centred @ P.param("weight"), P.full((2,), 1.0)).to_event(1))


class Steep(Gossip):
    """Wrong: the square root's gradient at 0 is infinite, and there it starts."""

    def build(self, context):
        context.param("weight", (3, 2), zeros, label="guide")

    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.xp.sqrt(P.xp.abs(x @ P.param("weight"))), P.full((2,), 1.0)).to_event(1))


OPENED = count()


class Forgetful(Net):
    """Wrong: what a run is opened with is another net, as it keeps something outside its fields."""

    def params(self, inputs, outputs):
        return MLP(hidden=()).params(inputs, outputs)

    def apply(self, P, x, inputs, outputs):
        return MLP(hidden=()).apply(P, x, inputs, outputs) + self._mood

    def model_post_init(self, context):
        object.__setattr__(self, "_mood", 1e-3 * next(OPENED))


class Own(Posterior):
    """N(h, 1) with a closed form to a normal, a mean and a density of its own; right."""

    def build(self, context, shape):
        return shape

    def form(self, xp, loc, m, s):
        return 0.5 * (1.0 + (loc - m) ** 2) / s**2 - 0.5 + xp.log(s)

    def mean(self, loc):
        return loc

    def distribution(self, P, *head):
        right = P.dist.Normal(head[0], P.full((), 1.0)).to_event(len(P.shape))
        return P.distribution(
            lambda random, batch: random.draw(right, batch),
            right.log_prob,
            P.shape,
            head[0].shape[:-1],
            mean=lambda: self.mean(head[0]),
            kl=lambda p: self.form(P.xp, head[0], p.base_dist.loc, p.base_dist.scale),
        )


class Generous(Own):
    """Wrong: the closed-form KL is too small by 0.05 nats per dimension."""

    def form(self, xp, loc, m, s):
        return super().form(xp, loc, m, s) - 0.05


class BlindToTheScale(Own):
    """Wrong: the closed-form KL leaves out log σ of the prior."""

    def form(self, xp, loc, m, s):
        return super().form(xp, loc, m, s) - xp.log(s)


class BesideItself(Own):
    """Wrong: its mean is a twentieth of a standard deviation beside that of its draws."""

    def mean(self, loc):
        return loc + 0.05


class MeanLikelihood(Bernoulli):
    """Wrong: its mean is the log-odds."""

    def distribution(self, P, *head):
        right = super().distribution(P, *head)
        return P.distribution(
            lambda random, batch: (random.draw(right, batch)[0], None),
            right.log_prob,
            P.shape,
            head[0].shape[:-1],
            mean=lambda: head[0],
            pathwise=False,
        )


def least_probable(right, P, shift):
    """The same distribution, standing at another value than the most probable one."""
    return P.distribution(
        lambda random, batch: (random.draw(right, batch)[0], None),
        right.log_prob,
        P.shape,
        right.batch_shape,
        mean=lambda: right.mean,
        mode=lambda: shift(right.mode_of()),
        pathwise=False,
    )


class Contrary(RelaxedBernoulli):
    """Wrong: it stands at its least probable bits."""

    def distribution(self, P, *head):
        return least_probable(super().distribution(P, *head).discrete, P, lambda y: -y)


class NextClass(CategoricalPrior):
    """Wrong: it stands at the class after the most probable one."""

    def distribution(self, P, *head):
        right = super().distribution(P, *head)
        right = getattr(right, "discrete", None) or right
        return least_probable(right, P, lambda y: P.concat([y[..., 1:], y[..., :1]]))


TWINS = {  # wrong twin -> the invariants that it breaks, of those that are looked at
    Loud(): ("density",),
    Wide(): ("samples",),
    OffsetDraws(): ("samples",),
    Deaf(): ("gradient",),
    HardOfHearing(): ("slopes",),
    FromTheLeft(): ("leading",),
    FirstOnly(): ("leading",),
    Overflowing(): ("extremes",),
    HalfLog(): ("extremes",),
    Partisan(): ("parity",),
    Single(): ("parity",),
    Restless(): ("initial",),
    Drifting(): ("spec",),
    Prudish(): ("density",),
    Tilted(): ("density",),
    WrongSign(): ("jacobian", "density"),
    NoWayBack(): ("inverse", "samples"),
    WrongOneWay(): ("jacobian", "density"),
    Gossip(): ("particles",),
    Steep(): ("training",),
    Forgetful(): ("saved",),
    Generous(): ("kl",),
    BlindToTheScale(): ("kl",),
    BesideItself(): ("mean",),
    MeanLikelihood(): ("mean",),
    Contrary(): ("mode",),
    NextClass(weights="learned"): ("mode",),
}


def only(*names):
    """What to skip, for these to be looked at."""
    return [n for n in INVARIANTS if n not in names]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: type(twin).__name__)
def test_a_wrong_twin_is_named(twin):
    broken = TWINS[twin]
    with pytest.raises(ContractError) as caught:
        check(twin, skip=only(*broken))
    text = str(caught.value)
    assert text.startswith(f"{type(twin).__name__} does not keep what every ")
    assert {line.split()[0] for line in text.splitlines()[1:]} == set(broken)
    assert "raised" not in text or isinstance(twin, FromTheLeft)


def test_every_invariant_has_a_wrong_twin():
    assert {name for broken in TWINS.values() for name in broken} == set(INVARIANTS)


def test_the_right_twins_pass():
    check(Shift())
    check(Own(), skip=only("kl", "mean", "density"))
    check(IAF(depth=1, hidden=(3,), context_size=2), skip=only("jacobian", "inverse"))


# --- the report, and what is refused ----------------------------------------------------------------------------------


def test_a_report_says_what_was_measured():
    report = check(Loud(), raises=False, skip=only("spec", "density"), backends=["pyro"])
    assert not report.passed
    assert [f.invariant for f in report.failures] == ["density"]
    assert report.failures[0].where == "pyro"
    assert "integral = 1.10517, expected 1" in str(report)
    assert "ok      spec" in str(report)
    assert str(report).splitlines()[0] == "Loud()"


def test_still_is_for_what_has_no_gradient_and_only_that():
    report = check(DiagonalNormal(), still=["head"], raises=False, skip=only("gradient"), backends=["pyro"])
    assert "'head' is said to be still, but gets a gradient" in str(report)


@pytest.mark.parametrize(
    ("part", "options", "words"),
    [
        (3, {}, r"got 3, expected an instance of a prior"),
        (Prior, {}, r"expected an instance of a prior"),
        (StandardNormal(), {"skip": ["densty"]}, r"Did you mean 'density'\?"),
        (StandardNormal(), {"seed": -1}, r"seed: got -1"),
        (PARTS["ConditionalVAE"][0], {}, r"draw data from the program failed.*are given: check\(part, data="),
    ],
)
def test_what_cannot_be_checked_is_refused(part, options, words):
    with pytest.raises(PpdgmError, match=words):
        check(part, **options)


def test_what_is_too_wide_to_integrate_is_said():
    report = check(StandardNormal(), shape=(9,), skip=only("density"))
    assert all(r.passed is None for r in report.results)
    assert "give a smaller shape" in str(report)
