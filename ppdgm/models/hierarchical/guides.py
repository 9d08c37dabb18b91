"""The guides of a hierarchical VAE: their nets and parts, and how they draw z_1, …, z_L given x."""

from __future__ import annotations

from math import prod
from typing import Protocol

from ppdgm.errors import SpecError
from ppdgm.language.vocabulary import Array, Dist, Vocabulary
from ppdgm.models.posteriors import DiagonalNormal, Posterior, halves
from ppdgm.nets import MLP, Net
from ppdgm.nets.base import flatten
from ppdgm.program import Context

HEAD = MLP(hidden=())  #: for the ladder's levels: their features are deep enough, and deeper nets learn slowly


class Hierarchy(Protocol):
    """A HierarchicalVAE, whose file imports this one."""

    @property
    def seen(self) -> tuple[int, ...]: ...
    @property
    def latent(self) -> tuple[int, ...]: ...
    @property
    def skip(self) -> str: ...
    @property
    def features(self) -> int: ...
    @property
    def posterior(self) -> Posterior: ...
    @property
    def encoder(self) -> Net: ...
    @property
    def levels(self) -> Net: ...
    @property
    def depth(self) -> int: ...
    def width_above(self, level: int) -> int: ...
    def above(self, P: Vocabulary, z: list[Array]) -> Array: ...
    def conditional(self, P: Vocabulary, level: int, above: Array) -> tuple[Array, Array]: ...


class Guide:
    """One way to draw the latents of the program `spec`. Nets of level l are under `z<l>.`."""

    def __init__(self, spec: Hierarchy):
        self.spec = spec

    @property
    def has_top(self) -> bool:
        """Whether the draw of z_L depends only on x."""
        return True

    def build(self, context: Context) -> None:
        """Declare the guide's nets and parts."""
        raise NotImplementedError

    def draw(self, P: Vocabulary, x: Array) -> None:
        """Draw every level; x is already encoded for the nets (`likelihood.encoded`)."""
        raise NotImplementedError

    def top(self, P: Vocabulary, u: Array) -> Dist:
        """The q(z_L|u) that priors made of posteriors mix; u is encoded like x."""
        scope = P.scope(f"z{self.spec.depth}")
        return self.spec.posterior.base(scope, scope.net("encoder")(u))

    def _level(self, context: Context, level: int, net: Net, inputs: tuple[int, ...]) -> None:
        """Declare the posterior of a level, and the net from `inputs` to its head."""
        scope = context.scope(f"z{level}", label="guide")
        scope.net("encoder", net, inputs, scope.part(self.spec.posterior, (self.spec.latent[level - 1],)))

    def _posterior(self, P: Vocabulary, level: int, given: Array) -> Dist:
        scope = P.scope(f"z{level}")
        return self.spec.posterior(scope, scope.net("encoder")(given))


class Factorised(Guide):
    """Π q(z_l|x), drawn from the top down like the model, so that the closed form of each level's KL is valid."""

    def build(self, context: Context) -> None:
        for level in range(1, self.spec.depth + 1):
            self._level(context, level, self.spec.encoder, self.spec.seen)

    def draw(self, P: Vocabulary, x: Array) -> None:
        for level in range(self.spec.depth, 0, -1):
            P.sample(f"z{level}", self._posterior(P, level, x))


class BottomUp(Guide):
    """q(z_1|x) Π q(z_l|z_{l−1}); if the model has skips, each level depends on x and every level below it."""

    @property
    def has_top(self) -> bool:
        return self.spec.depth == 1

    def build(self, context: Context) -> None:
        self._level(context, 1, self.spec.encoder, self.spec.seen)
        for level in range(2, self.spec.depth + 1):
            below, x = self.spec.latent[: level - 1], prod(self.spec.seen)
            width = below[-1] if self.spec.skip == "none" else x + sum(below)
            self._level(context, level, self.spec.levels, (width,))

    def draw(self, P: Vocabulary, x: Array) -> None:
        z = [P.sample("z1", self._posterior(P, 1, x))]
        for level in range(2, self.spec.depth + 1):
            given = z[-1] if self.spec.skip == "none" else P.concat([flatten(P, x, self.spec.seen), *z])
            z.append(P.sample(f"z{level}", self._posterior(P, level, given)))


class TopDown(Guide):
    """The ladder: h_1, …, h_L go up from x; then q(z_L|h_L), and q(z_l|h_l, z_{l+1}), a residual of p(z_l|z_{l+1})."""

    def build(self, context: Context) -> None:
        spec, features = self.spec, (self.spec.features,)
        if type(spec.posterior) is not DiagonalNormal:
            raise SpecError(
                f"posterior: got {type(spec.posterior).__name__}, but each level of the ladder multiplies it by a "
                'diagonal normal. Use DiagonalNormal(), or inference="factorised" or "bottom_up".'
            )
        context.net("encoder", spec.encoder, spec.seen, features, label="guide")
        for level in range(2, spec.depth + 1):
            context.scope(f"z{level}", label="guide").net("features", spec.levels, features, features)
        self._level(context, spec.depth, HEAD, features)
        for level in range(1, spec.depth):
            self._level(context, level, HEAD, (spec.features + spec.width_above(level),))

    def draw(self, P: Vocabulary, x: Array) -> None:
        h, spec = self._features(P, x), self.spec
        z = [P.sample(f"z{spec.depth}", self._posterior(P, spec.depth, h[-1]))]
        for level in range(spec.depth - 1, 0, -1):
            above = spec.above(P, z)
            loc, scale = spec.conditional(P, level, above)
            own, raw = halves(P.net(f"z{level}.encoder")(P.concat([h[level - 1], above])), (spec.latent[level - 1],))
            own_scale = spec.posterior.scale(P, raw)  # type: ignore[attr-defined]  # a DiagonalNormal: `build` looks
            gate = scale**2 / (scale**2 + own_scale**2)
            q = P.dist.Normal(loc + gate * (own - loc), own_scale * P.xp.sqrt(gate)).to_event(1)
            z.insert(0, P.sample(f"z{level}", q))

    def top(self, P: Vocabulary, u: Array) -> Dist:
        return super().top(P, self._features(P, u)[-1])

    def _features(self, P: Vocabulary, x: Array) -> list[Array]:
        """h_1, …, h_L."""
        h = [P.activation("silu", P.net("encoder")(x))]
        for level in range(2, self.spec.depth + 1):
            h.append(h[-1] + P.activation("silu", P.net(f"z{level}.features")(h[-1])))
        return h


GUIDES: dict[str, type[Guide]] = {"factorised": Factorised, "bottom_up": BottomUp, "top_down": TopDown}
