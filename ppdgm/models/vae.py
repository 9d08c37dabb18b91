"""The variational autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ppdgm.errors import SpecError
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.likelihoods.columns import first_output
from ppdgm.models.posteriors import DiagonalNormal, Posterior, VectorQuantised
from ppdgm.models.priors import Prior, StandardNormal
from ppdgm.nets import MLP, ForeignNet, Net
from ppdgm.program import Context, Program
from ppdgm.specs import PositiveInt, Shape

SETTLED = 500  #: rows that first values of a codebook are found from


class VAE(Program):
    """Variational autoencoder: z ~ prior, x ~ likelihood(decoder(z)); q(z|x) = posterior(encoder(x)).

    Kingma & Welling 2014, arXiv:1312.6114.

    Args:
        event_shape: shape of one row of the data.
        latent: D, the width of z, or its shape: (W, H) for a grid. For a discrete posterior, the number of latents.
        prior: p(z).
        posterior: q(z|x), given the encoder's output.
        likelihood: p(x|z), given the decoder's output.
        encoder, decoder: the nets, or your own modules.
    """

    event_shape: Shape
    latent: PositiveInt | Shape = 50
    prior: Prior = StandardNormal()
    posterior: Posterior = DiagonalNormal()
    likelihood: Likelihood = Bernoulli()
    encoder: Net = MLP()
    decoder: Net = MLP()

    def build(self, context: Context) -> None:
        check_family(self.prior, self.posterior)
        z = self.posterior.variable(as_shape(self.latent))
        context.part(self.prior, z, inputs=self.event_shape)
        head = context.part(self.posterior, z, label="guide")
        code = self.posterior.code_shape(z)
        outputs, start = context.part(self.likelihood, self.event_shape), start_of(self.prior, self.likelihood)
        context.net("decoder", self.decoder, code, outputs, start=start)
        context.net("encoder", self.encoder, self.likelihood.encoded_shape(self.event_shape), head, label="guide")
        check_norms(context, self.prior)
        if self.posterior.settles:
            context.settle(self._settle)

    def _settle(self, P: NumpyVocabulary, data: Batch) -> None:
        """First values of the posterior that depend on what the encoder gives, such as a codebook."""
        if "x" in data and not isinstance(self.encoder, ForeignNet):
            self.posterior.settle(P, self.encode(P, rows_to_settle(data)["x"]))

    def model(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        with P.plate("data", x):
            prior = self.prior(P, lambda u: self.posterior.base(P, self.encode(P, u)))
            z = P.sample("z", self.posterior.counterpart(P, prior))
            P.sample("x", self.likelihood(P, P.net("decoder")(self.posterior.code(P, z)), exposure=exposure), obs=x)

    def guide(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        with P.plate("data", x):
            P.sample("z", self.posterior(P, self.encode(P, x)), infer=self.posterior.infer)

    def encode(self, P: Vocabulary, x: Array) -> Array:
        """The posterior's head, for data or pseudo-inputs."""
        return P.net("encoder")(self.likelihood.encoded(P, x))

    def numbered(self) -> Mapping[str, int]:
        return codes_in("z", self.posterior)

    def check(self, data: Batch) -> None:
        self.likelihood.check_rows(data)


def rows_to_settle(data: Batch) -> dict[str, np.ndarray]:
    """Some rows of the data, chosen at random, for first values."""
    size = len(next(iter(data.values())))
    rows = np.sort(np.random.default_rng(0).permutation(size)[:SETTLED])
    return {name: np.asarray(value, np.float64)[rows] for name, value in data.items()}


def codes_in(site: str, posterior: Posterior) -> dict[str, int]:
    """The site with its number of codes, if its latents are codes of a codebook."""
    return {site: posterior.classes} if isinstance(posterior, VectorQuantised) else {}


def as_shape(latent: int | tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a latent, from its width or its shape."""
    return (latent,) if isinstance(latent, int) else tuple(latent)


def start_of(prior: Prior, likelihood: Likelihood) -> Callable[[Batch], np.ndarray | None] | None:
    """Where a decoder's output starts: at the data's columns, if the prior moves with the guide.

    A decoder that starts elsewhere first learns the means of the columns, and the codes that it reads help with that:
    the encoder moves all of them far away together, and its units saturate. N(0, I) pulls the codes back, but a prior
    that moves with the guide does not.
    """
    if not prior.follows:
        return None

    def start(data: Batch) -> np.ndarray | None:
        if "x" not in data:
            return None
        x = np.asarray(data["x"])
        if likelihood.reads_exposure and "exposure" in data:
            x = x / np.reshape(data["exposure"], (-1, *(1,) * (x.ndim - 1)))
        return first_output(likelihood, x)

    return start


def check_norms(context: Context, prior: Prior) -> None:
    """Refuse batch norm in an encoder that a prior runs too: at its own inputs, which are no rows of the minibatch."""
    states = [n for n in context.declared.states if n.partition(".")[0] not in ("prior", "likelihood", "decoder")]
    if prior.follows and states:
        raise SpecError(
            f"prior: {type(prior).__name__} runs the encoder at inputs that are no rows of the minibatch, but the "
            f"encoder has batch norm (the state {states[0]!r}), which needs these rows. Use norm='layer' in it, or "
            "another prior, such as StandardNormal()."
        )


def check_family(prior: Prior, posterior: Posterior) -> None:
    """Refuse a prior and a posterior that are not over the same kind of variable."""
    if prior.family != posterior.family:
        raise SpecError(
            f"prior: got {type(prior).__name__}, which is for {prior.family} latents, but the posterior "
            f"{type(posterior).__name__} is for {posterior.family} latents. {_REMEDIES[posterior.family]}"
        )


_REMEDIES = {
    "real": "Choose a prior such as StandardNormal().",
    "positive": "Choose prior=GammaPrior() or LogNormalPrior().",
    "unit": "Choose prior=BetaPrior().",
    "simplex": "Choose prior=DirichletPrior().",
    "categorical": "Choose prior=CategoricalPrior().",
    "binary": "Choose prior=BernoulliPrior().",
}
