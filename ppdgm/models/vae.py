"""The variational autoencoder."""

from __future__ import annotations

from typing import Any

from ppdgm.language import Array, Batch, Vocabulary
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.posteriors import DiagonalNormal, Posterior
from ppdgm.models.priors import Prior, StandardNormal
from ppdgm.nets import MLP, Net
from ppdgm.program import Context, Program
from ppdgm.spec import PositiveInt, Shape


class VAE(Program):
    """Variational autoencoder: z ~ prior, x ~ likelihood(decoder(z)); q(z|x) = posterior(encoder(x)).

    Kingma & Welling 2014, arXiv:1312.6114.

    Args:
        event_shape: shape of one datum.
        latent: D, the width of z.
        prior: p(z).
        posterior: q(z|x), given the encoder's output.
        likelihood: p(x|z), given the decoder's output.
        encoder, decoder: the nets, or modules of your own.
    """

    event_shape: Shape
    latent: PositiveInt = 50
    prior: Prior = StandardNormal()
    posterior: Posterior = DiagonalNormal()
    likelihood: Likelihood = Bernoulli()
    encoder: Net = MLP()
    decoder: Net = MLP()

    def build(self, context: Context) -> None:
        z = (self.latent,)
        context.part(self.prior, z)
        context.net("decoder", self.decoder, z, context.part(self.likelihood, self.event_shape))
        head = context.part(self.posterior, z, label="guide")
        context.net("encoder", self.encoder, self.event_shape, head, label="guide")

    def model(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            z = P.sample("z", self.prior(P))
            P.sample("x", self.likelihood(P, P.net("decoder")(z)), obs=x)

    def guide(self, P: Vocabulary, x: Array) -> Any:
        with P.plate("data", x):
            P.sample("z", self.posterior(P, P.net("encoder")(x)))

    def check(self, data: Batch) -> None:
        self.likelihood.check("x", data["x"])
