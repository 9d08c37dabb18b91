"""The conditional variational autoencoder."""

from __future__ import annotations

from math import expm1, log, prod

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Batch, Dist, Vocabulary
from ppdgm.models.classes import as_one_hot, beside, check_labels, put_beside
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.posteriors import DiagonalNormal, Posterior
from ppdgm.models.priors import Prior, StandardNormal
from ppdgm.models.vae import as_shape, check_family
from ppdgm.nets import MLP, Net
from ppdgm.nets.base import flatten
from ppdgm.program import Context, Program, constant, normal
from ppdgm.specs import PositiveInt, Shape

_MIN_SCALE = 1e-3  # for the prior of each class


class ConditionalVAE(Program):
    """Conditional VAE: z ~ p(z|y), x ~ likelihood(decoder(z, y)); q(z|x, y) = posterior(encoder(x, y)).

    Sohn, Lee & Yan 2015. The field `label` y [N] holds classes, whole numbers from 0. It is always needed: to draw
    data, use `fit.sample(3, given={"label": [7, 7, 1]})`. Parameters of a conditional prior: `classes.loc` and
    `classes.raw_scale`, [C, *latent].

    Args:
        event_shape: shape of one row of the data.
        classes: C, the number of classes.
        latent: D, the width of z, or its shape.
        prior: p(z), the same for every class.
        conditional_prior: p(z|y) = N(μ_y, diag σ_y²), with a learned mean and scale for each class, instead of `prior`.
        posterior: q(z|x, y), given the encoder's output.
        likelihood: p(x|z, y), given the decoder's output.
        encoder: the net of x and the one-hot label, [X + C]; a ConvEncoder sees C more channels.
        decoder: the net of z and the one-hot label, [D + C].
    """

    event_shape: Shape
    classes: PositiveInt = 10
    latent: PositiveInt | Shape = 50
    prior: Prior = StandardNormal()
    conditional_prior: bool = False
    posterior: Posterior = DiagonalNormal()
    likelihood: Likelihood = Bernoulli()
    encoder: Net = MLP()
    decoder: Net = MLP()

    def build(self, context: Context) -> None:
        z, c = self._latent, self.classes
        if self.conditional_prior:
            if self.prior != StandardNormal():
                raise SpecError(
                    f"conditional_prior: got True, which replaces the prior, but prior={self.prior!r} is given too. "
                    "Give only one of them."
                )
            if self.posterior.family != "real":
                raise SpecError(
                    f"conditional_prior: got True, which is for real latents, but {type(self.posterior).__name__} is "
                    f"for {self.posterior.family} latents. Choose a posterior such as DiagonalNormal()."
                )
            table = context.scope("classes")
            table.param("loc", (c, *z), normal(0.1))
            table.param("raw_scale", (c, *z), constant(log(expm1(1.0 - _MIN_SCALE))))
        else:
            check_family(self.prior, self.posterior)
            context.part(self.prior, z)
        head = context.part(self.posterior, z, label="guide")
        outputs = context.part(self.likelihood, self.event_shape)
        context.net("decoder", self.decoder, (prod(self.posterior.code_shape(z)) + c,), outputs)
        context.net("encoder", self.encoder, beside(self.encoder, self.event_shape, c), head, label="guide")

    @property
    def _latent(self) -> tuple[int, ...]:
        return self.posterior.variable(as_shape(self.latent))

    def model(self, P: Vocabulary, x: Array, label: Array) -> None:
        y = as_one_hot(P, label, self.classes)
        with P.plate("data", x):
            prior = self._conditional(P.scope("classes"), y) if self.conditional_prior else self.prior(P)
            z = P.sample("z", self.posterior.counterpart(prior))
            code = flatten(P, self.posterior.code(P, z), self.posterior.code_shape(self._latent))
            P.sample("x", self.likelihood(P, P.net("decoder")(P.concat([code, y]))), obs=x)

    def _conditional(self, P: Vocabulary, y: Array) -> Dist:
        """N(μ_y, diag σ_y²)."""
        z, c = self._latent, self.classes
        row = lambda name: P.xp.reshape(y @ P.xp.reshape(P.param(name), (c, -1)), (*y.shape[:-1], *z))
        return P.dist.Normal(row("loc"), _MIN_SCALE + P.softplus(row("raw_scale"))).to_event(len(z))

    def guide(self, P: Vocabulary, x: Array, label: Array) -> None:
        y = as_one_hot(P, label, self.classes)
        with P.plate("data", x):
            both = put_beside(P, self.encoder, self.likelihood.encoded(P, x), y, self.event_shape)
            P.sample("z", self.posterior(P, P.net("encoder")(both)), infer=self.posterior.infer)

    def check(self, data: Batch) -> None:
        check_labels(data["label"], self.classes)
        self.likelihood.check("x", data["x"])
