"""The deterministic autoencoder, for comparison with VAEs."""

from __future__ import annotations

from ppdgm.errors import ProgramError
from ppdgm.language.unseen import is_given
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.vae import as_shape
from ppdgm.nets import MLP, Net
from ppdgm.program import Context, Program
from ppdgm.specs import PositiveInt, Shape


class Autoencoder(Program):
    """Deterministic autoencoder, for comparison: z = encoder(x), x ~ likelihood(decoder(z)). Nothing is latent.

    Its `elbo` and `log_likelihood` are the log-probability log p(x|z(x)) of a reconstruction. Do not compare this score
    with that of a generative model: the code z(x) was computed from x. The autoencoder has no prior, so it can't be
    sampled; `fit.encode` gives the codes z.

    Args:
        event_shape: shape of one row of the data.
        latent: D, the width of the code z, or its shape.
        likelihood: p(x|z), given the decoder's output.
        encoder, decoder: the nets, or your own modules.
    """

    event_shape: Shape
    latent: PositiveInt | Shape = 50
    likelihood: Likelihood = Bernoulli()
    encoder: Net = MLP()
    decoder: Net = MLP()

    def build(self, context: Context) -> None:
        code = as_shape(self.latent)
        context.net("decoder", self.decoder, code, context.part(self.likelihood, self.event_shape))
        context.net("encoder", self.encoder, self.likelihood.encoded_shape(self.event_shape), code)

    def model(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        if not is_given(x):
            raise ProgramError(
                "An Autoencoder has no prior over its codes, so no data can be drawn from it. It encodes and "
                "reconstructs data; to draw new data, train a VAE."
            )
        with P.plate("data", x):
            z = P.deterministic("z", P.net("encoder")(self.likelihood.encoded(P, x)))
            P.sample("x", self.likelihood(P, P.net("decoder")(z), exposure=exposure), obs=x)

    def guide(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        """Nothing is latent."""

    def check(self, data: Batch) -> None:
        self.likelihood.check_rows(data)
