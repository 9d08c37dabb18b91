"""Small programs around a part: what a check needs of it, as something that both backends can run."""

from __future__ import annotations

from typing import Any

from ppdgm.language import Array, Vocabulary
from ppdgm.models import MLP, Flow, Net, Part, Posterior, Prior
from ppdgm.program import Context, Program, normal
from ppdgm.spec import PositiveInt, Shape


def _declare(context: Context) -> None:
    """A parameter that tells the floating type, where a part has none."""
    context.param("anchor")


def _standard(P: Vocabulary, shape: tuple[int, ...], loc: float = 0.0, scale: float = 1.0) -> Any:
    return P.dist.Normal(P.full(shape, loc), P.full(shape, scale)).to_event(len(shape))


class Alone(Program):
    """One posterior or likelihood over the site "z", of which the heads are the data: no net stands before it.

    Args:
        part: what is looked at.
        shape: of z.
        particles: the data hold a head for each of [B, K], rather than for each of [B].
        standard: the model's z is N(loc, scale²) in each number; by default it is the part's too.
        loc, scale: of that.
        enumerate: all values of z at once.
    """

    part: Part
    shape: Shape
    particles: bool = False
    standard: bool = False
    loc: float = 0.0
    scale: float = 1.0
    enumerate: bool = False

    def build(self, context: Context) -> None:
        _declare(context)
        context.part(self.part, self.shape)

    def draw(self, P: Vocabulary, head: Array) -> Array:
        """z by the part at a head, inside the plate."""
        if self.particles:  # [B, K, …] to [K, B, …]
            head = P.xp.permute_dims(head, (1, 0, *range(2, head.ndim)))
        return P.sample("z", self.part(P, head), infer={"enumerate": "parallel"} if self.enumerate else None)

    def model(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            if self.standard:
                P.sample("z", _standard(P, self.shape, self.loc, self.scale))
            else:
                self.draw(P, x)

    def guide(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            self.draw(P, x)


class AlonePrior(Program):
    """One prior over the site "z", with a posterior where it wants one. The data say only how many draws there are.

    Args:
        part: what is looked at.
        shape: of z.
        posterior: that priors made of posteriors mix.
        inputs: of the posterior.
        enumerate: all values of z at once.
    """

    part: Prior
    shape: Shape
    posterior: Posterior
    inputs: Shape
    enumerate: bool = False

    def build(self, context: Context) -> None:
        _declare(context)
        context.part(self.part, self.shape, inputs=self.inputs)
        head = context.part(self.posterior, self.shape)
        context.net("encoder", MLP(hidden=(3,)), self.inputs, head)

    def draw(self, P: Vocabulary, head: Array) -> Array:
        """z by the prior, inside the plate."""
        d = self.part(P, lambda u: self.posterior.base(P, P.net("encoder")(u)))
        return P.sample("z", d, infer={"enumerate": "parallel"} if self.enumerate else None)

    def model(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            self.draw(P, x)

    def guide(self, P: Vocabulary, x: Array) -> Any:
        self.model(P, x)


class Shown(Program):
    """What others see of z where it stands at its mean: the mean of "seen".

    Args:
        of: the part alone.
    """

    of: Alone | AlonePrior

    def build(self, context: Context) -> None:
        self.of.build(context)

    def model(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            z = self.of.draw(P, x)
            P.sample("seen", P.dist.Normal(z, P.full((), 1.0)).to_event(len(self.of.shape)), obs=x)

    def guide(self, P: Vocabulary, x: Array) -> Any:
        self.of.guide(P, x)


class Observed(Program):
    """z by a likelihood, observed: what is told of it is its mean, whether it has a most probable value or not.

    Args:
        of: the part alone.
    """

    of: Alone

    def build(self, context: Context) -> None:
        self.of.build(context)

    def model(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            P.sample("z", self.of.part(P, x), obs=P.full((1, *self.of.shape), 0.0))  # which means do not look at

    def guide(self, P: Vocabulary, x: Array) -> Any:
        """Nothing is latent."""


class Mixed(Program):
    """log Σ_m q(z|head m), as priors made of posteriors have it: heads [M, …] at values [K, B, 1, …].

    The data are the heads, one for each of [M]; z is another's, [K, M, *shape].
    """

    part: Part
    shape: Shape

    def build(self, context: Context) -> None:
        _declare(context)
        context.part(self.part, self.shape)

    def model(self, P: Vocabulary, x: Array) -> Any:
        components, n = self.part(P, x), len(self.shape)

        def log_prob(z: Array) -> Array:
            wide = P.xp.reshape(z, (*z.shape[: z.ndim - n], 1, *self.shape))
            return P.logsumexp(components.log_prob(wide), -1)

        def sample(random: Any, batch: tuple[int, ...]) -> tuple[Array, None]:
            return random.normal((*batch, *self.shape)), None  # never drawn: the guide draws

        with P.plate("data", x):
            P.sample("z", P.distribution(sample, log_prob, self.shape))

    def guide(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            P.sample("z", _standard(P, self.shape))


class Mapped(Program):
    """A net between a latent and data: z ~ N(0, I), x ~ N(net(z), I); q(z) = N(m, I).

    Args:
        net: what is looked at.
        inputs: shape of z.
        event_shape: of x.
    """

    net: Net
    inputs: Shape
    event_shape: Shape

    def build(self, context: Context) -> None:
        context.net("net", self.net, self.inputs, self.event_shape)
        context.param("loc", self.inputs, normal(1.0), label="guide")

    def model(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            out = P.net("net")(P.sample("z", _standard(P, self.inputs)))
            P.sample("x", P.dist.Normal(out, P.full((), 1.0)).to_event(len(self.event_shape)), obs=x)

    def guide(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("loc"), P.full((), 1.0)).to_event(len(self.inputs)))


class FlowMap(Program):
    """A flow as a function: the means of "y" and "log_det" are f(x; context) and log |det ∂f/∂x|.

    Args:
        flow: what is looked at.
        width: D.
        conditional: whether it gets a context, the field `context`.
        inverse: f⁻¹ in its place.
    """

    flow: Flow
    width: PositiveInt
    conditional: bool = True
    inverse: bool = False

    def build(self, context: Context) -> None:
        _declare(context)
        self.flow.build(context.scope("flow"), self.width, self.conditional)

    def model(self, P: Vocabulary, x: Array, context: Array) -> Any:
        way = self.flow.inverse if self.inverse else self.flow.forward
        y, log_det = way(P.scope("flow"), x, context if self.conditional and context.shape[-1] else None)
        with P.plate("data", x):
            P.sample("y", P.dist.Normal(y, P.full((), 1.0)).to_event(1), obs=x)
            P.sample("log_det", P.dist.Normal(log_det, P.full((), 1.0)), obs=log_det)

    def guide(self, P: Vocabulary, x: Array, context: Array) -> Any:
        """No latents."""
