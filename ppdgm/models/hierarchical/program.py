"""The hierarchical VAE: L levels of latents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Batch, Dist, Vocabulary
from ppdgm.models.hierarchical.guides import GUIDES, Guide
from ppdgm.models.likelihoods import Bernoulli, Likelihood
from ppdgm.models.posteriors import DiagonalNormal, Posterior
from ppdgm.models.posteriors.normal import bounded_scale
from ppdgm.models.priors import Prior, StandardNormal, VampPrior
from ppdgm.models.vae import check_family, check_norms, start_of
from ppdgm.nets import MLP, Net
from ppdgm.program import Context, Program
from ppdgm.specs import PositiveFloat, PositiveInt, Shape


class HierarchicalVAE(Program):
    """Hierarchical VAE: z_L ~ prior, z_l ~ N(μ(z_{l+1}), diag σ(z_{l+1})²) for l = L−1, …, 1, x ~ likelihood(z_1).

    The sites are z1, next to the data, to zL. Guides:

    "factorised" is Π q(z_l|x).

    "bottom_up" is q(z_1|x) Π q(z_l|z_{l−1}). Burda et al. 2016, arXiv:1509.00519.

    "top_down", the ladder, is q(z_L|x) Π q(z_l|x, z_{l+1}): the normalised product of the model's N(μ, σ²) and a
    N(m, s²) given x and z_{l+1}, which is N(μ + g(m − μ), g s²) with g = σ²/(σ² + s²). Sønderby et al. 2016,
    arXiv:1602.02282.

    The KL of each level has a closed form if the guide draws from the top down, as the model does; in "bottom_up" only
    the KL of z_L has one. The nets `z<l>.conditional` of p(z_l|z_{l+1}), which the ladder's guide reads too, belong to
    the model and have its label. Deep ladders need a warm-up, SVI(beta=Linear(steps=…)), so that no level stays unused.

    Args:
        event_shape: shape of one row of the data.
        latent: widths of z_1, …, z_L.
        inference: the guide.
        skip: "none"; "decoder": x depends on every level; "all": in addition, each level depends on every level above
            it. With skips "bottom_up" is q(z_1|x) Π q(z_l|x, z_1, …, z_{l−1}).
        prior: p(z_L). VampPrior needs a q(z_L|x), which "bottom_up" does not have.
        posterior: q of each level, given a net's output. In "top_down" it must be a DiagonalNormal; below z_L it is
            N(m, s²).
        likelihood: p(x|z_1), given the decoder's output.
        encoder: the net from x to the head of q(z_l|x), one for each level; in "top_down" the net to h_1.
        decoder: the net from z_1, or with skips from all levels, to x.
        levels: the nets between levels, in model and guide.
        features: for "top_down", the width of the features from x up to z_L: h_1 = a(encoder(x)), h_l = h_{l−1} +
            a(net(h_{l−1})), with the SiLU a(v) = v σ(v); m and s are linear in h_l and z_{l+1}.
        min_scale: a floor under σ(z_{l+1}).
        max_scale: a ceiling over σ(z_{l+1}); near it, σ bends towards it.
    """

    event_shape: Shape
    latent: Annotated[Shape, Field(min_length=1)] = (40, 40)
    inference: Literal["factorised", "bottom_up", "top_down"] = "top_down"
    skip: Literal["none", "decoder", "all"] = "none"
    prior: Prior = StandardNormal()
    posterior: Posterior = DiagonalNormal()
    likelihood: Likelihood = Bernoulli()
    encoder: Net = MLP()
    decoder: Net = MLP()
    levels: Net = MLP()
    features: PositiveInt = 200
    min_scale: PositiveFloat = 0.01
    max_scale: PositiveFloat = 10.0

    @field_validator("max_scale")
    @classmethod
    def _in_order(cls, high: float, info: ValidationInfo) -> float:
        if high <= info.data.get("min_scale", 0.0):
            raise ValueError(f"a number greater than min_scale, {info.data['min_scale']}")
        return high

    def build(self, context: Context) -> None:
        self._check_parts()
        context.part(self.prior, self.latent[-1:], inputs=self.event_shape if self._way.has_top else None)
        for level in range(1, self.depth):
            head = (2, self.latent[level - 1])
            context.scope(f"z{level}").net("conditional", self.levels, (self.width_above(level),), head)
        seen = self.latent[0] if self.skip == "none" else sum(self.latent)
        outputs, start = context.part(self.likelihood, self.event_shape), start_of(self.prior, self.likelihood)
        context.net("decoder", self.decoder, (seen,), outputs, start=start)
        self._way.build(context)
        check_norms(context, self.prior)

    def model(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        with P.plate("data", x):
            z = [P.sample(f"z{self.depth}", self._top(P))]
            for level in range(self.depth - 1, 0, -1):
                loc, scale = self.conditional(P, level, self.above(P, z))
                z.insert(0, P.sample(f"z{level}", P.dist.Normal(loc, scale).to_event(1)))
            seen = z[0] if self.skip == "none" else P.concat(z)
            P.sample("x", self.likelihood(P, P.net("decoder")(seen), exposure=exposure), obs=x)

    def guide(self, P: Vocabulary, x: Array, exposure: Array | None = None) -> None:
        with P.plate("data", x):
            self._way.draw(P, self.likelihood.encoded(P, x))

    def check(self, data: Batch) -> None:
        self.likelihood.check_rows(data)

    # What model and guides share.

    @property
    def seen(self) -> tuple[int, ...]:
        """The shape of x as the encoder sees it."""
        return self.likelihood.encoded_shape(self.event_shape)

    @property
    def depth(self) -> int:
        """L."""
        return len(self.latent)

    def width_above(self, level: int) -> int:
        """The width of the input of p(z_l|…): z_{l+1}, or all levels above."""
        return sum(self.latent[level:]) if self.skip == "all" else self.latent[level]

    def above(self, P: Vocabulary, z: list[Array]) -> Array:
        """The input of the next level down, given the levels drawn so far, lowest first."""
        return P.concat(z) if self.skip == "all" else z[0]

    def conditional(self, P: Vocabulary, level: int, above: Array) -> tuple[Array, Array]:
        """μ and σ of p(z_l|above), [..., D]."""
        head = P.net(f"z{level}.conditional")(above)
        return head[..., 0, :], bounded_scale(P, head[..., 1, :], self.min_scale, self.max_scale)

    def _top(self, P: Vocabulary) -> Dist:
        if not self._way.has_top:
            return self.prior(P)
        return self.prior(P, lambda u: self._way.top(P, self.likelihood.encoded(P, u)))

    @property
    def _way(self) -> Guide:
        return GUIDES[self.inference](self)

    def _check_parts(self) -> None:
        check_family(self.prior, self.posterior)
        if self.posterior.family != "real":
            raise SpecError(
                f"posterior: got {type(self.posterior).__name__}, which is for {self.posterior.family} latents, but "
                "each level is normal given the levels above. Use DiagonalNormal(), or a VAE."
            )
        if isinstance(self.prior, VampPrior) and not self._way.has_top:
            raise SpecError(
                f"prior: VampPrior mixes q(z{self.depth}|u) over inputs u, but inference={self.inference!r} draws "
                f'z{self.depth} given z{self.depth - 1}, not given x. Use inference="top_down" or "factorised", or a '
                "prior such as MixtureOfGaussians()."
            )
