"""Small programs around a part, which a check runs on both backends."""

from __future__ import annotations

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models import MLP, Flow, Net, Part, Posterior, Prior
from ppdgm.program import Context, Program, normal
from ppdgm.specs import PositiveInt, Shape


def _declare(context: Context) -> None:
    """A parameter that sets the floating type, in case a part has none."""
    context.param("anchor")


def _standard(P: Vocabulary, shape: tuple[int, ...], loc: float = 0.0, scale: float = 1.0) -> Dist:
    return P.dist.Normal(P.full(shape, loc), P.full(shape, scale)).to_event(len(shape))


class Alone(Program):
    """One posterior or likelihood over the site "z". The data are its heads: there is no net before it.

    Args:
        part: the part that is checked.
        shape: the shape of z.
        particles: the data hold a head for each of [B, K], instead of one for each of [B].
        standard: the model's z is N(loc, scale²) in each number; by default the model's z has the part's distribution.
        loc, scale: location and scale of that normal.
        enumerate: take all values of z at once.
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

    def model(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            if self.standard:
                P.sample("z", _standard(P, self.shape, self.loc, self.scale))
            else:
                self.draw(P, x)

    def guide(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            self.draw(P, x)


class AlonePrior(Program):
    """One prior over the site "z", with a posterior if it needs one. The data only give the number of draws.

    Args:
        part: the part that is checked.
        shape: the shape of z.
        posterior: the posterior for priors that are made of posteriors.
        inputs: the shape of the posterior's inputs.
        enumerate: take all values of z at once.
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

    def model(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            self.draw(P, x)

    def guide(self, P: Vocabulary, x: Array) -> None:
        self.model(P, x)


class Shown(Program):
    """The value that other variables see if z is set to its mean: the mean of "seen".

    Args:
        of: the program with only the part.
    """

    of: Alone | AlonePrior

    def build(self, context: Context) -> None:
        self.of.build(context)

    def model(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            z = self.of.draw(P, x)
            shown = P.dist.Normal(z, P.full((), 1.0)).to_event(len(self.of.shape))
            P.sample("seen", shown, obs=P.full((x.shape[0], *self.of.shape), 0.0))

    def guide(self, P: Vocabulary, x: Array) -> None:
        self.of.guide(P, x)


class ObservedSite(Program):
    """z is observed, with a likelihood: its mean is reported, even if it has a most probable value.

    Args:
        of: the program with only the part.
    """

    of: Alone

    def build(self, context: Context) -> None:
        self.of.build(context)

    def model(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            zeros = P.full((x.shape[0], *self.of.shape), 0.0)  # means do not depend on what is observed
            P.sample("z", self.of.part(P, x), obs=zeros)

    def guide(self, P: Vocabulary, x: Array) -> None:
        """Nothing is latent."""


class Mixed(Program):
    """log Σ_m q(z|head m), as in priors made of posteriors: heads [M, …] at values [K, B, 1, …].

    The data are the heads, one for each of [M]; the values z [K, M, *shape] come from outside.
    """

    part: Part
    shape: Shape

    def build(self, context: Context) -> None:
        _declare(context)
        context.part(self.part, self.shape)

    def model(self, P: Vocabulary, x: Array) -> None:
        components, n = self.part(P, x), len(self.shape)

        def log_prob(z: Array) -> Array:
            wide = P.xp.reshape(z, (*z.shape[: z.ndim - n], 1, *self.shape))
            return P.logsumexp(components.log_prob(wide), -1)

        def sample(random: Random, batch: tuple[int, ...]) -> tuple[Array, None]:
            return random.normal((*batch, *self.shape)), None  # never drawn: the guide draws

        with P.plate("data", x):
            P.sample("z", P.distribution(sample, log_prob, self.shape))

    def guide(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            P.sample("z", _standard(P, self.shape))


class Mapped(Program):
    """A net between a latent and data: z ~ N(0, I), x ~ N(net(z), I); q(z) = N(m, I).

    Args:
        net: the net that is checked.
        inputs: the shape of z.
        event_shape: the shape of x.
    """

    net: Net
    inputs: Shape
    event_shape: Shape

    def build(self, context: Context) -> None:
        context.net("net", self.net, self.inputs, self.event_shape)
        context.param("loc", self.inputs, normal(1.0), label="guide")

    def model(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            out = P.net("net")(P.sample("z", _standard(P, self.inputs)))
            P.sample("x", P.dist.Normal(out, P.full((), 1.0)).to_event(len(self.event_shape)), obs=x)

    def guide(self, P: Vocabulary, x: Array) -> None:
        with P.plate("data", x):
            P.sample("z", P.dist.Normal(P.param("loc"), P.full((), 1.0)).to_event(len(self.inputs)))


class FlowMap(Program):
    """A flow as a function: the means of "y" and "log_det" are f(x; context) and log |det ∂f/∂x|.

    Args:
        flow: the flow that is checked.
        width: D.
        conditional: whether it gets a context, the field `context`.
        inverse: whether to use f⁻¹ instead.
    """

    flow: Flow
    width: PositiveInt
    conditional: bool = True
    inverse: bool = False

    def build(self, context: Context) -> None:
        _declare(context)
        self.flow.build(context.scope("flow"), self.width, self.conditional)

    def model(self, P: Vocabulary, x: Array, context: Array) -> None:
        way = self.flow.inverse if self.inverse else self.flow.forward
        y, log_det = way(P.scope("flow"), x, context if self.conditional and context.shape[-1] else None)
        with P.plate("data", x):
            P.sample("y", P.dist.Normal(y, P.full((), 1.0)).to_event(1), obs=x)
            P.sample("log_det", P.dist.Normal(log_det, P.full((), 1.0)), obs=log_det)

    def guide(self, P: Vocabulary, x: Array, context: Array) -> None:
        """No latents."""
