"""The variational autoencoder with clusters in its latent space."""

from __future__ import annotations

from math import expm1, log
from typing import Literal

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.classes import one_hot_categorical
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.posteriors import DiagonalNormal, Posterior
from ppdgm.models.relaxed import log_softmax
from ppdgm.nets import MLP, Net
from ppdgm.program import Context, Program, constant, normal, zeros
from ppdgm.specs import PositiveFloat, PositiveInt, Shape

_ENUMERATE = {"enumerate": "parallel"}


class MixtureVAE(Program):
    """VAE with clusters: c ~ Cat(π), z|c ~ N(μ_c, diag σ_c²), x ~ likelihood(decoder(z)); q(z|x) q(c|z) = p(c|z).

    Jiang et al. 2017, arXiv:1611.05148 (VaDE). The site c, a one-hot vector, is enumerated, so that both values of
    `assignment` have the same bound. Parameters: `cluster_logits` [C]; `clusters.loc` and `clusters.raw_scale`, [C, D],
    with σ = min_scale + softplus(s).

    Args:
        event_shape: shape of one row of the data.
        components: C, the number of clusters.
        latent: D, the width of z.
        assignment: "exact" has c in the guide, with its exact probabilities p(c|z), which `fit.encode(x)["c"]` gives;
            "summed" has c only in the model, where it is summed out.
        min_scale: a floor under σ_c.
        posterior: q(z|x), given the encoder's output.
        likelihood: p(x|z), given the decoder's output.
        encoder: the net from x to the posterior's head, or your own module.
        decoder: the net from z to the likelihood's head, or your own module.
    """

    event_shape: Shape
    components: PositiveInt = 10
    latent: PositiveInt = 50
    assignment: Literal["exact", "summed"] = "exact"
    min_scale: PositiveFloat = 1e-2
    posterior: Posterior = DiagonalNormal()
    likelihood: Likelihood = Bernoulli()
    encoder: Net = MLP()
    decoder: Net = MLP()

    def build(self, context: Context) -> None:
        if self.posterior.family != "real":
            raise SpecError(
                f"posterior: got {type(self.posterior).__name__}, which is for {self.posterior.family} latents, but "
                "clusters need real latents. Choose a posterior such as DiagonalNormal()."
            )
        d, c = (self.latent,), self.components
        context.param("cluster_logits", (c,), zeros)
        clusters = context.scope("clusters")
        clusters.param("loc", (c, *d), normal(1.0))
        clusters.param("raw_scale", (c, *d), constant(log(expm1(max(1.0 - self.min_scale, 1e-3)))))
        head = context.part(self.posterior, d, label="guide")
        context.net("decoder", self.decoder, d, context.part(self.likelihood, self.event_shape))
        context.net("encoder", self.encoder, self.likelihood.encoded_shape(self.event_shape), head, label="guide")

    def model(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        log_weights, loc, scale = self._clusters(P)
        with P.plate("data", x):
            c = P.sample("c", one_hot_categorical(P, log_weights), infer=_ENUMERATE)
            z = P.sample("z", P.dist.Normal(c @ loc, c @ scale).to_event(1))
            P.sample("x", self.likelihood(P, P.net("decoder")(z), exposure=exposure), obs=x)

    def guide(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        with P.plate("data", x):
            z = P.sample("z", self.posterior(P, P.net("encoder")(self.likelihood.encoded(P, x))))
            if self.assignment == "exact":
                P.sample("c", one_hot_categorical(P, self._given(P, z)), infer=_ENUMERATE)

    def _clusters(self, P: Vocabulary) -> tuple[Array, Array, Array]:
        """log π [C], μ and σ [C, D]."""
        scale = self.min_scale + P.softplus(P.param("clusters.raw_scale"))
        return log_softmax(P, P.param("cluster_logits")), P.param("clusters.loc"), scale

    def _given(self, P: Vocabulary, z: Array) -> Array:
        """log p(c|z) [..., C]."""
        log_weights, loc, scale = self._clusters(P)
        each = -0.5 * ((z[..., None, :] - loc) / scale) ** 2 - P.xp.log(scale)
        return log_softmax(P, log_weights + P.xp.sum(each, axis=-1))

    def check(self, data: Batch) -> None:
        self.likelihood.check_rows(data)
