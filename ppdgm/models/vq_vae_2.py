"""Two levels of codes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ppdgm.errors import SpecError
from ppdgm.language.arrays import NumpyVocabulary
from ppdgm.language.vocabulary import Array, Batch, Vocabulary
from ppdgm.models.likelihoods import Gaussian, Likelihood
from ppdgm.models.posteriors import VectorQuantised
from ppdgm.models.priors import CategoricalPrior, CodePrior, Prior
from ppdgm.models.vae import as_shape, rows_to_settle
from ppdgm.nets import MLP, ForeignNet, Net
from ppdgm.nets.base import flatten
from ppdgm.nets.sequence import SequenceNet
from ppdgm.program import Context, Program
from ppdgm.specs import PositiveInt, Shape


class VQVAE2(Program):
    """VQ-VAE-2: top codes ~ prior, bottom codes ~ p(·|top), x ~ likelihood(decoder(top, bottom)).

    Razavi et al. 2019, arXiv:1906.00446. The guide is top = Q(E_t(x)), bottom = Q(E_b(x) + net(e_top)). The sites are
    `top` and `bottom`, log one-hot vectors; `encode` returns numbers of codes. First train with freeze=("*.prior.*",),
    then the priors alone, with all else frozen.

    Args:
        event_shape: shape of one row of the data.
        top, bottom: the shapes of both grids of codes.
        posterior: the quantisation of both levels; each has a codebook of its own.
        prior: of the top codes.
        bottom_prior: of the bottom codes; a CodePrior sees the top ones, as the map over the grid that `between` gives,
            or as a vector for nets of sequences.
        channels: the number of channels of that map, or the width of that vector.
        likelihood: p(x|top, bottom), given the decoder's output.
        encoder: E_t and E_b, the nets from x to the head of each level.
        between: the nets from the top's codes to what is added to E_b, and to the condition of the bottom's prior.
        decoder: the net from both levels' codes, as one vector.
    """

    event_shape: Shape
    top: PositiveInt | Shape = (2, 2)
    bottom: PositiveInt | Shape = (4, 4)
    posterior: VectorQuantised = VectorQuantised(classes=64, embedding=16)
    prior: Prior = CategoricalPrior()
    bottom_prior: Prior = CategoricalPrior()
    channels: PositiveInt = 16
    likelihood: Likelihood = Gaussian()
    encoder: Net = MLP()
    between: Net = MLP(hidden=())
    decoder: Net = MLP()

    def build(self, context: Context) -> None:
        for name, prior in (("prior", self.prior), ("bottom_prior", self.bottom_prior)):
            if prior.family != "categorical":
                raise SpecError(
                    f"{name}: got {type(prior).__name__}, which is for {prior.family} latents, but codes are "
                    "categorical. Choose CategoricalPrior() or CodePrior()."
                )
        code = self.posterior.code_shape(self._shape("top"))
        levels = {n: context.scope(n, label="guide") for n in ("top", "bottom")}
        heads = {n: level.part(self.posterior, self._shape(n)) for n, level in levels.items()}
        for name, level in levels.items():
            level.net("encoder", self.encoder, self.likelihood.encoded_shape(self.event_shape), heads[name])
        levels["bottom"].net("between", self.between, code, heads["bottom"])
        context.scope("top").part(self.prior, self._shape("top"))
        below = context.scope("bottom")
        below.part(self.bottom_prior, self._shape("bottom"), condition=self._seen)
        if self._seen:
            below.scope("prior").net("between", self.between, code, self._seen)
        width = sum(prod(self.posterior.code_shape(self._shape(n))) for n in levels)
        context.net("decoder", self.decoder, (width,), context.part(self.likelihood, self.event_shape))
        context.settle(self._settle)

    def _shape(self, level: str) -> tuple[int, ...]:
        return self.posterior.variable(as_shape(self.top if level == "top" else self.bottom))

    @property
    def _seen(self) -> tuple[int, ...]:
        """The shape of what the bottom's prior sees of the top; () for nothing."""
        if not isinstance(self.bottom_prior, CodePrior):
            return ()
        sequence = isinstance(self.bottom_prior.net, SequenceNet)
        return (self.channels,) if sequence else (self.channels, *self._shape("bottom")[:-1])

    def _settle(self, P: NumpyVocabulary, data: Batch) -> None:
        """First codebooks, from what the encoders give."""
        if "x" not in data or isinstance(self.encoder, ForeignNet) or isinstance(self.between, ForeignNet):
            return
        x = self.likelihood.encoded(P, rows_to_settle(data)["x"])
        top, bottom = P.scope("top"), P.scope("bottom")
        head = top.net("encoder")(x)
        self.posterior.settle(top, head)
        codes = self.posterior.vectors(top, head)
        self.posterior.settle(bottom, bottom.net("encoder")(x) + bottom.net("between")(codes))

    def model(self, P: Vocabulary, x: Array) -> None:
        top, bottom, q = P.scope("top"), P.scope("bottom"), self.posterior
        with P.plate("data", x):
            above = q.code(top, P.sample("top", q.counterpart(top, self.prior(top))))
            seen = [bottom.net("prior.between")(P.stop_gradient(above))] if self._seen else []
            below = q.code(bottom, P.sample("bottom", q.counterpart(bottom, self.bottom_prior(bottom, *seen))))
            flat = [flatten(P, c, q.code_shape(self._shape(n))) for c, n in ((above, "top"), (below, "bottom"))]
            P.sample("x", self.likelihood(P, P.net("decoder")(P.concat(flat))), obs=x)

    def guide(self, P: Vocabulary, x: Array) -> None:
        top, bottom, q = P.scope("top"), P.scope("bottom"), self.posterior
        x_seen = self.likelihood.encoded(P, x)
        with P.plate("data", x):
            above = q.code(top, P.sample("top", q(top, top.net("encoder")(x_seen))))
            P.sample("bottom", q(bottom, bottom.net("encoder")(x_seen) + bottom.net("between")(above)))

    def numbered(self) -> Mapping[str, int]:
        return dict.fromkeys(("top", "bottom"), self.posterior.classes)

    def check(self, data: Batch) -> None:
        self.likelihood.check_rows(data)
