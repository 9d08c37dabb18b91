"""Small instances of every program and option, with data: the contract suite runs over all of them.

The programs of our own below are written as a user would write them.
"""

from zlib import crc32

import numpy as np
from instances import as_float32, noise
from zoo import ZOO

from ppdgm.models import (
    MLP,
    PPCA,
    VAE,
    Bernoulli,
    ConvDecoder,
    ConvEncoder,
    DiagonalNormal,
    GatedMLP,
    Gaussian,
    Net,
    Posterior,
    Program,
    ResidualMLP,
)
from ppdgm.program import constant, normal
from ppdgm.specs import PositiveInt, Shape


class Coupling(Posterior):
    """A flow of a normal: z₀ = μ₀ + σ₀ε₀ and, for the others, zᵢ = μᵢ + aᵢt + σᵢ exp(bᵢt) εᵢ with t = tanh(c z₀).

    μ, σ = 0.1 + softplus(s), a and b come from the encoder; c is the parameter `strength`.
    """

    def build(self, context, shape):
        context.param("strength", (), constant(1.0))
        return (4, *shape)

    def distribution(self, P, *head):
        xp, d = P.xp, P.shape[0]
        loc, raw, shift, stretch = (head[0][..., i, :] for i in range(4))
        scale, strength = 0.1 + P.softplus(raw), P.param("strength")
        moved = P.constant(np.arange(d) > 0)  # all coordinates but the first

        def conditional(first):
            lever = moved * xp.tanh(strength * first[..., None])
            return loc + shift * lever, scale * xp.exp(stretch * lever)

        def log_density(noise, scales):
            return xp.sum(-0.5 * noise**2 - 0.5 * float(np.log(2 * np.pi)) - xp.log(scales), axis=-1)

        def sample(random, batch):
            noise = random.normal((*batch, d))
            mean, scales = conditional(loc[..., 0] + scale[..., 0] * noise[..., 0])
            return mean + scales * noise, log_density(noise, scales)

        def log_prob(z):
            mean, scales = conditional(z[..., 0])
            return log_density((z - mean) / scales, scales)

        return P.distribution(sample, log_prob, event_shape=(d,), batch_shape=tuple(loc.shape[:-1]))


class Hierarchical(Program):
    """z1 ~ N(0, I), z2 ~ N(μ(z1), σ(z1)²), x ~ Bernoulli(decoder(z1, z2)); q(z1|x) q(z2|z1, x)."""

    event_shape: Shape
    latent: PositiveInt = 2
    decoder: Net = MLP(hidden=(4,))

    def build(self, context):
        (x,), d = self.event_shape, self.latent
        context.net("decoder", self.decoder, (2 * d,), (x,))
        context.net("prior", MLP(hidden=(3,)), (d,), (2, d))
        context.net("first", MLP(hidden=(3,)), (x,), (2, d), label="guide")
        context.net("second", MLP(hidden=(3,)), (x + d,), (2, d), label="guide")

    def conditional(self, P, name, *given):
        lead = given[-1].shape[:-1]  # a latent has particles, where x has none
        wide = [P.xp.broadcast_to(g, (*lead, g.shape[-1])) for g in given]
        head = P.net(name)(P.xp.concat(wide, axis=-1))
        return P.dist.Normal(head[..., 0, :], P.softplus(head[..., 1, :])).to_event(1)

    def model(self, P, x):
        d = self.latent
        with P.plate("data", x):
            z1 = P.sample("z1", P.dist.Normal(P.full((d,), 0.0), P.full((d,), 1.0)).to_event(1))
            z2 = P.sample("z2", self.conditional(P, "prior", z1))
            logits = P.deterministic("logits", P.net("decoder")(P.xp.concat([z1, z2], axis=-1)))
            P.sample("x", P.dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            z1 = P.sample("z1", self.conditional(P, "first", x))
            P.sample("z2", self.conditional(P, "second", x, z1))


class Reversed(Hierarchical):
    """The same model, with q(z2|x) q(z1|z2, x): no closed-form KL holds for z2."""

    def guide(self, P, x):
        with P.plate("data", x):
            z2 = P.sample("z2", self.conditional(P, "first", x))
            P.sample("z1", self.conditional(P, "second", x, z2))


class Labelled(Program):
    """z ~ N(0, I), x ~ N(decoder(z), I), label ~ Bernoulli(w·z + b); q(z|x, label). Two fields, one a scalar."""

    event_shape: Shape
    latent: PositiveInt = 2

    def build(self, context):
        (x,), d = self.event_shape, self.latent
        context.net("decoder", MLP(hidden=(4,)), (d,), (x,))
        context.param("slope", (d,), normal(1.0))
        context.param("offset")
        context.net("encoder", MLP(hidden=(4,)), (x + 1,), (2, d), label="guide")

    def model(self, P, x, label):
        d = self.latent
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((d,), 0.0), P.full((d,), 1.0)).to_event(1))
            P.sample("x", P.dist.Normal(P.net("decoder")(z), P.full((1,), 1.0)).to_event(1), obs=x)
            logit = P.xp.sum(z * P.param("slope"), axis=-1) + P.param("offset")
            P.sample("label", P.dist.Bernoulli(logits=logit), obs=label)

    def guide(self, P, x, label):
        with P.plate("data", x):
            head = P.net("encoder")(P.xp.concat([x, label[..., None]], axis=-1))
            P.sample("z", P.dist.Normal(head[..., 0, :], P.softplus(head[..., 1, :])).to_event(1))


def _vae(shape=(5,), latent=2, encoder=None, decoder=None, **parts):
    return VAE(
        event_shape=shape,
        latent=latent,
        encoder=encoder or MLP(hidden=(4,)),
        decoder=decoder or MLP(hidden=(4,)),
        **parts,
    )


_OPTIONS = {"kernel": 3, "norm": "group", "groups": 2, "residual": 1}

PROGRAMS = {
    "vae": lambda: _vae(encoder=MLP(hidden=(4, 3)), likelihood=Bernoulli()),
    "vae fixed scale": lambda: _vae(
        likelihood=Gaussian(scale=0.5),
        encoder=MLP(hidden=(6,), activation="relu"),
        decoder=MLP(hidden=(4,), activation="leaky_relu"),
    ),
    "vae learned scale": lambda: _vae(
        posterior=DiagonalNormal(min_scale=0.2),
        likelihood=Gaussian(min_scale=0.1),
        encoder=MLP(hidden=(4,), activation="elu"),
        decoder=MLP(hidden=(4,), activation="gelu"),
    ),
    "vae scale per dimension": lambda: _vae(
        shape=(2, 3),
        likelihood=Gaussian(scale="per_dimension"),
        encoder=GatedMLP(hidden=(4,)),
        decoder=GatedMLP(hidden=(3, 2), activation="tanh"),
    ),
    "vae scale from network": lambda: _vae(
        shape=(2, 3),
        likelihood=Gaussian(scale="network", min_scale=0.2),
        encoder=ResidualMLP(width=4, blocks=2),
        decoder=ResidualMLP(width=4, blocks=1, activation="softplus", norm=None),
    ),
    "vae layer norm": lambda: _vae(
        latent=3, encoder=MLP(hidden=(4, 4), activation="sigmoid", norm="layer"), decoder=MLP(hidden=())
    ),
    "vae convolutions": lambda: _vae(
        shape=(6, 6), encoder=ConvEncoder(channels=(2, 3)), decoder=ConvDecoder(channels=(3, 2), activation="silu")
    ),
    "vae residual convolutions": lambda: _vae(
        shape=(2, 7, 6),
        posterior=DiagonalNormal(min_scale=0.1),
        likelihood=Gaussian(scale="network", min_scale=0.2),
        encoder=ConvEncoder(channels=(4,), activation="gelu", **_OPTIONS),
        decoder=ConvDecoder(channels=(4, 4), activation="elu", **_OPTIONS),
    ),
    "vae coupling": lambda: _vae(latent=3, posterior=Coupling()),
    "hierarchical": lambda: Hierarchical(event_shape=(5,)),
    "reversed": lambda: Reversed(event_shape=(5,)),
    "labelled": lambda: Labelled(event_shape=(4,)),
    "ppca exact": lambda: PPCA(event_shape=(4,)),
    "ppca exact matrix": lambda: PPCA(event_shape=(2, 3), latent=3),
    "ppca linear": lambda: PPCA(event_shape=(4,), posterior="linear"),
}

LATENTS = dict.fromkeys(PROGRAMS, ("z",)) | dict.fromkeys(("hierarchical", "reversed"), ("z1", "z2"))

# The latents whose closed-form KL is known and valid. One of none: a flow or a full covariance.
CLOSED_FORMS = LATENTS | {"reversed": ("z1",), "vae coupling": (), "ppca exact": (), "ppca exact matrix": ()}


ALL = [*PROGRAMS, *ZOO]


def make_program(name: str):
    """The program of that name, of this file or of the zoo."""
    return ZOO[name].make() if name in ZOO else PROGRAMS[name]()


def make_data(name: str, size: int = 4) -> dict[str, np.ndarray]:
    """`size` data for the program, float32."""
    program, rng = make_program(name), np.random.default_rng(crc32(name.encode()))
    if name in ZOO:
        return as_float32(ZOO[name].data(rng, size, program.event_shape))
    binary = isinstance(program, Hierarchical) or isinstance(getattr(program, "likelihood", None), Bernoulli)
    draw = lambda *shape: rng.normal(size=shape)
    data = {"x": draw(size, *program.event_shape)}
    if binary:
        data["x"] = data["x"] > 0
    if name == "labelled":
        data["label"] = draw(size) > 0
    return as_float32(data)


def make_params(name: str, dtype: str = "float32") -> dict[str, np.ndarray]:
    """The first values of all parameters, moved by noise: none is 0 or 1, and no two are equal. States stay."""
    rng = np.random.default_rng(crc32(name.encode()) + 1)
    first, still = make_program(name).initialise(0, make_data(name), dtype="float64"), states_of(name)
    return {n: (v if n in still else noise(v, rng)).astype(dtype) for n, v in first.items()}


def states_of(name: str) -> set[str]:
    """The states of a program, which have no gradient."""
    return make_program(name).declarations().states
