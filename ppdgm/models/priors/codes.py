"""An autoregressive prior of codes."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import ClassVar

from ppdgm.language.vocabulary import Array, Dist, Random, Vocabulary
from ppdgm.models.likelihoods.autoregressive import autoregressive, declare_autoregressive
from ppdgm.models.likelihoods.one_hot import OneHot
from ppdgm.models.posteriors import Family
from ppdgm.models.priors.base import Prior
from ppdgm.models.relaxed import CERTAIN, hardened
from ppdgm.nets import GatedPixelCNN
from ppdgm.nets.base import zeros
from ppdgm.nets.causal import CausalNet
from ppdgm.nets.sequence import SequenceNet
from ppdgm.program import Context


class CodePrior(Prior):
    """p(c) = Π_j p(c_j | c_<j) over a grid of codes, by a causal net, for VectorQuantised and GumbelSoftmax.

    van den Oord et al. 2017, arXiv:1711.00937. It starts uniform, so that a first stage with `freeze=("prior.*",)`
    trains the VQ-VAE, and a second one, with all else frozen, the prior. The net sees one-hot vectors of the codes,
    like C colours of a pixel; nets of sequences read a grid row by row. Parameters: those of the net, in `net`.

    Args:
        net: the causal net, which also sees a condition, if there is one: GatedPixelCNN(colours="together") or
            PixelSNAIL for a grid of codes (H, W); Transformer, WaveNet and others for a sequence of codes, or a grid.
    """

    family: ClassVar[Family] = "categorical"
    mean_is_a_point: ClassVar[bool] = True
    conditional: ClassVar[bool] = True

    net: CausalNet = GatedPixelCNN(layers=4, first_kernel=3, colours="together")

    def build(self, context: Context, shape: tuple[int, ...]) -> tuple[int, ...]:
        before = set(context.declared.params)
        event = self._event(shape)
        declare_autoregressive(context, self.net, self._each, event, context.condition)
        declared = context.declared.params
        *_, last = (n for n in declared if n not in before and n.endswith(".weight"))
        for name in (last, last.removesuffix("weight") + "bias"):
            declared[name] = replace(declared[name], init=zeros)
        return ()

    @property
    def _each(self) -> OneHot:
        return OneHot(classes="last" if isinstance(self.net, SequenceNet) else "first")

    def _event(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one-hot vectors as the net sees them, for latents [*latent, C]."""
        *latent, classes = shape
        return (prod(latent), classes) if isinstance(self.net, SequenceNet) else (classes, *latent)

    def distribution(self, P: Vocabulary, *head: Array) -> Dist:
        xp, shape = P.xp, P.shape
        event, ahead = self._event(shape), isinstance(self.net, SequenceNet)
        given = P.scope("net.condition").shape
        condition = head[0] if given else None
        batch = () if condition is None else tuple(condition.shape[: condition.ndim - len(given)])
        codes = autoregressive(P, self.net, self._each, event, condition, batch)

        def seen(y: Array) -> Array:
            """Log one-hot vectors [..., *latent, C] as the net sees them; relaxed ones straight through."""
            chosen = hardened(P, P.one_hot(xp.argmax(y, axis=-1), shape[-1]), xp.exp(y))
            lead = chosen.shape[: chosen.ndim - len(shape)]
            return xp.reshape(chosen if ahead else xp.moveaxis(chosen, -1, -len(shape)), (*lead, *event))

        def certain(x: Array) -> Array:
            """Back to log one-hot vectors; probabilities become their most probable codes."""
            x = x if ahead else xp.moveaxis(x, -len(shape), -1)
            x = xp.reshape(x, (*x.shape[: x.ndim - (2 if ahead else len(shape))], *shape))
            return CERTAIN * (P.one_hot(xp.argmax(x, axis=-1), shape[-1]) - 1.0)

        def sample(random: Random, leading: tuple[int, ...]) -> tuple[Array, None]:
            return certain(random.draw(codes, leading)[0]), None

        return P.distribution(
            sample,
            lambda y: codes.log_prob(seen(y)),
            shape,
            batch,
            mean=lambda: certain(codes.mean),
            pathwise=False,
            about={"of_codes": True},
        )
