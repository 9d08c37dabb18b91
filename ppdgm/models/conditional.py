"""The conditional variational autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from math import expm1, log, prod

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Batch, Dist, Vocabulary
from ppdgm.models.classes import beside, put_beside
from ppdgm.models.conditions import Conditioned
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.posteriors import DiagonalNormal, Posterior
from ppdgm.models.priors import Prior, StandardNormal
from ppdgm.models.vae import as_shape, check_family, codes_in, rows_to_settle
from ppdgm.nets import MLP, ForeignNet, Net
from ppdgm.nets.base import flatten
from ppdgm.program import Context, normal
from ppdgm.specs import PositiveInt, Shape

_MIN_SCALE = 1e-3  # for the prior of each class


class ConditionalVAE(Conditioned):
    """Conditional VAE: z ~ p(z|c), x ~ likelihood(decoder(z, c)); q(z|x, c) = posterior(encoder(x, c)).

    Sohn, Lee & Yan 2015. The condition c has the one-hot classes, and covariates y beside them, C numbers in all. It is
    always needed: to draw data, use `fit.sample(3, given={"label": [7, 7, 1]})`. Parameters of a conditional prior:
    `classes.loc` and `classes.raw_scale`, [C, *latent].

    Args:
        event_shape: shape of one row of the data.
        classes: the number of classes of the field `label`, whole numbers from 0; or several fields of classes by name,
            classes={"batch": 3, "cell_type": 8}, in a recipe [["batch", 3], ["cell_type", 8]]; None for none.
        covariates: the shape of one row of the field `y`, real numbers of size about 1. They are taken as they are.
        latent: D, the width of z, or its shape.
        prior: p(z), the same for every condition; a CodePrior sees the condition: p(z|c).
        conditional_prior: p(z|c) = N(c m, σ(c s)²) instead of `prior`: a learned mean and scale for each class, and
            covariates add to them linearly.
        posterior: q(z|x, c), given the encoder's output.
        likelihood: p(x|z, c), given the decoder's output.
        encoder: the net of x and the condition, [X + C]; a ConvEncoder sees C more channels.
        decoder: the net of z and the condition, [D + C].
    """

    event_shape: Shape
    classes: PositiveInt | tuple[tuple[str, PositiveInt], ...] | None = 10
    latent: PositiveInt | Shape = 50
    prior: Prior = StandardNormal()
    conditional_prior: bool = False
    posterior: Posterior = DiagonalNormal()
    likelihood: Likelihood = Bernoulli()
    encoder: Net = MLP()
    decoder: Net = MLP()

    def build(self, context: Context) -> None:
        z, c = self._latent, self.condition_width
        if not c:
            raise SpecError(
                "ConditionalVAE: got classes=None and no covariates, so it is conditional on nothing. Give classes or "
                "covariates, or use a VAE."
            )
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
            table.param("raw_scale", (c, *z), self._first_scale)
        else:
            check_family(self.prior, self.posterior)
            context.part(self.prior, z, condition=(c,) if self.prior.conditional else ())
        head = context.part(self.posterior, z, label="guide")
        outputs = context.part(self.likelihood, self.event_shape)
        context.net("decoder", self.decoder, (prod(self.posterior.code_shape(z)) + c,), outputs)
        context.net("encoder", self.encoder, beside(self.encoder, self._seen, c), head, label="guide")
        if self.posterior.settles:
            context.settle(self._settle)

    def _settle(self, P: NumpyVocabulary, data: Batch) -> None:
        """First values of the posterior that depend on what the encoder gives, such as a codebook."""
        if not isinstance(self.encoder, ForeignNet) and {"x", *self.class_fields} <= set(data):
            rows = rows_to_settle(data)
            c = self.condition(P, {n: v for n, v in rows.items() if n not in ("x", "exposure")})
            self.posterior.settle(P, self._head(P, rows["x"], c))

    @property
    def _seen(self) -> tuple[int, ...]:
        """The shape of x as the encoder sees it."""
        return self.likelihood.encoded_shape(self.event_shape)

    @property
    def _latent(self) -> tuple[int, ...]:
        return self.posterior.variable(as_shape(self.latent))

    def _first_scale(self, rng: np.random.Generator, shape: tuple[int, ...], data: Batch | None = None) -> np.ndarray:
        """A scale of 1 for all classes: each field of classes adds its share. Covariates alone start with zeros."""
        value = np.zeros(shape)
        value[: sum(self.class_fields.values())] = log(expm1(1.0 - _MIN_SCALE)) / max(1, len(self.class_fields))
        return value

    def model(self, P: Vocabulary, x: Array, exposure: Array | None = None, **given: Array) -> None:
        c = self.condition(P, given)
        with P.plate("data", x):
            z = P.sample("z", self.posterior.counterpart(P, self._prior(P, c)))
            code = flatten(P, self.posterior.code(P, z), self.posterior.code_shape(self._latent))
            P.sample("x", self.likelihood(P, P.net("decoder")(P.concat([code, c])), exposure=exposure), obs=x)

    def _prior(self, P: Vocabulary, c: Array) -> Dist:
        if self.conditional_prior:
            return self._conditional(P.scope("classes"), c)
        return self.prior(P, c) if self.prior.conditional else self.prior(P)

    def _conditional(self, P: Vocabulary, c: Array) -> Dist:
        """N(c m, σ(c s)²)."""
        z, width = self._latent, self.condition_width
        row = lambda name: P.xp.reshape(c @ P.xp.reshape(P.param(name), (width, -1)), (*c.shape[:-1], *z))
        return P.dist.Normal(row("loc"), _MIN_SCALE + P.softplus(row("raw_scale"))).to_event(len(z))

    def guide(self, P: Vocabulary, x: Array, exposure: Array | None = None, **given: Array) -> None:
        c = self.condition(P, given)
        with P.plate("data", x):
            P.sample("z", self.posterior(P, self._head(P, x, c)), infer=self.posterior.infer)

    def _head(self, P: Vocabulary, x: Array, c: Array) -> Array:
        """What the posterior reads."""
        return P.net("encoder")(put_beside(P, self.encoder, self.likelihood.encoded(P, x), c, self._seen))

    def numbered(self) -> Mapping[str, int]:
        return codes_in("z", self.posterior)

    def check(self, data: Batch) -> None:
        self.check_condition(data, ("exposure",))
        self.likelihood.check_rows(data)
