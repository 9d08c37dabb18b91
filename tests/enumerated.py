"""Small programs with enumerated sites, each with its densities once more in SciPy, for one particle of one datum.

`by_hand` adds them up over all joint values, one by one.
"""

from itertools import product
from zlib import crc32

import numpy as np
from scipy.special import expit, log_softmax, logsumexp, softmax
from scipy.stats import norm

from ppdgm.models import Program
from ppdgm.program import normal

ALL = {"enumerate": "parallel"}
X, D = 3, 2  # widths of x and z
CLASSES, BITS = 3, 2


class Tables(Program):
    """Parameters are tables of random numbers."""

    def build(self, context):
        for name, shape in SHAPES.items():
            context.param(name, shape, normal(0.7))


SHAPES = {
    "prior": (CLASSES,),
    "guess": (X, CLASSES),  # x to the logits of q(y|x)
    "mean": (CLASSES, D),  # of z, by y
    "shift": (CLASSES, D),  # of q(z|x, y), by y
    "encode": (X, D),
    "decode": (D, X),
    "offset": (CLASSES, X),  # of x, by y
    "bit": (CLASSES,),  # logit of a bit, by y
    "vote": (X,),  # x to a bit's logit
    "lift": (D,),  # of z, by the bit
}


def unit_normal(P, mean):
    return P.dist.Normal(mean, P.full((), 1.0)).to_event(1)


class Child(Tables):
    """y ~ Cat, z|y ~ N, x|z, y ~ N, w|y ~ Bernoulli; q(y|x) q(z|x, y), y enumerated in the guide."""

    def model(self, P, x, w):
        with P.plate("data", x):
            y = P.one_hot(P.sample("y", P.dist.Categorical(logits=P.param("prior"))), CLASSES)
            z = P.sample("z", unit_normal(P, y @ P.param("mean")))
            P.sample("x", unit_normal(P, z @ P.param("decode") + y @ P.param("offset")), obs=x)
            P.sample("w", P.dist.Bernoulli(logits=y @ P.param("bit")), obs=w)

    def guide(self, P, x, w):
        with P.plate("data", x):
            y = P.sample("y", P.dist.Categorical(logits=x @ P.param("guess")), infer=ALL)
            shift = P.one_hot(y, CLASSES) @ P.param("shift")
            P.sample("z", P.dist.Normal(x @ P.param("encode") + shift, P.xp.exp(0.3 * shift)).to_event(1))

    @staticmethod
    def log_joint(p, x, w, y, z):
        seen = norm.logpdf(x, z @ p["decode"] + p["offset"][y]).sum() + log_bit(p["bit"][y], w)
        return log_softmax(p["prior"])[y] + norm.logpdf(z, p["mean"][y]).sum() + seen

    @staticmethod
    def log_guide(p, x, w, y, z):
        scale = np.exp(0.3 * p["shift"][y])
        return log_softmax(x @ p["guess"])[y], norm.logpdf(z, x @ p["encode"] + p["shift"][y], scale).sum()


class After(Child):
    """The same model, but q(z|x) q(y|z)."""

    def guide(self, P, x, w):
        with P.plate("data", x):
            z = P.sample("z", unit_normal(P, x @ P.param("encode")))
            P.sample("y", P.dist.Categorical(logits=z @ P.param("mean").T), infer=ALL)

    @staticmethod
    def log_guide(p, x, w, y, z):
        return log_softmax(p["mean"] @ z)[y], norm.logpdf(z, x @ p["encode"]).sum()


class Summed(Child):
    """The same model, of which the guide has z alone: y is summed out."""

    def model(self, P, x, w):
        with P.plate("data", x):
            y = P.sample("y", P.dist.Categorical(logits=P.param("prior")), infer=ALL)
            y = P.one_hot(y, CLASSES)
            z = P.sample("z", unit_normal(P, y @ P.param("mean")))
            P.sample("x", unit_normal(P, z @ P.param("decode") + y @ P.param("offset")), obs=x)
            P.sample("w", P.dist.Bernoulli(logits=y @ P.param("bit")), obs=w)

    def guide(self, P, x, w):
        with P.plate("data", x):
            P.sample("z", unit_normal(P, x @ P.param("encode")))

    @staticmethod
    def log_guide(p, x, w, z):
        return 0.0, norm.logpdf(z, x @ p["encode"]).sum()


class Discrete(Child):
    """Without z: nothing is drawn."""

    def model(self, P, x, w):
        with P.plate("data", x):
            y = P.one_hot(P.sample("y", P.dist.Categorical(logits=P.param("prior"))), CLASSES)
            P.sample("x", unit_normal(P, y @ P.param("offset")), obs=x)
            P.sample("w", P.dist.Bernoulli(logits=y @ P.param("bit")), obs=w)

    def guide(self, P, x, w):
        with P.plate("data", x):
            P.sample("y", P.dist.Categorical(logits=x @ P.param("guess")), infer=ALL)

    @staticmethod
    def log_joint(p, x, w, y):
        return log_softmax(p["prior"])[y] + norm.logpdf(x, p["offset"][y]).sum() + log_bit(p["bit"][y], w)

    @staticmethod
    def log_guide(p, x, w, y):
        return log_softmax(x @ p["guess"])[y], 0.0


class Two(Tables):
    """y ~ Cat, b|y ~ Bernoulli, z|b ~ N, x|z, y; q(y|x) q(b|x, y) q(z|x, b, y), both enumerated."""

    def model(self, P, x, w):
        with P.plate("data", x):
            y = P.one_hot(P.sample("y", P.dist.Categorical(logits=P.param("prior"))), CLASSES)
            b = P.sample("b", P.dist.Bernoulli(logits=y @ P.param("bit")))
            z = P.sample("z", unit_normal(P, b[..., None] * P.param("lift")))
            P.sample("x", unit_normal(P, z @ P.param("decode") + y @ P.param("offset")), obs=x)

    def guide(self, P, x, w):
        with P.plate("data", x):
            y = P.sample("y", P.dist.Categorical(logits=x @ P.param("guess")), infer=ALL)
            y = P.one_hot(y, CLASSES)
            b = P.sample("b", P.dist.Bernoulli(logits=x @ P.param("vote") - y @ P.param("bit")), infer=ALL)
            mean = x @ P.param("encode") + y @ P.param("shift") - b[..., None] * P.param("lift")
            P.sample("z", unit_normal(P, mean))

    @staticmethod
    def log_joint(p, x, w, y, b, z):
        seen = norm.logpdf(x, z @ p["decode"] + p["offset"][y]).sum()
        return log_softmax(p["prior"])[y] + log_bit(p["bit"][y], b) + norm.logpdf(z, b * p["lift"]).sum() + seen

    @staticmethod
    def log_guide(p, x, w, y, b, z):
        mean = x @ p["encode"] + p["shift"][y] - b * p["lift"]
        discrete = log_softmax(x @ p["guess"])[y] + log_bit(x @ p["vote"] - p["bit"][y], b)
        return discrete, norm.logpdf(z, mean).sum()


class Apart(Two):
    """The same model, with q(y|x) q(b|x) q(z|x, b): the two know nothing of each other."""

    def guide(self, P, x, w):
        with P.plate("data", x):
            P.sample("y", P.dist.Categorical(logits=x @ P.param("guess")), infer=ALL)
            b = P.sample("b", P.dist.Bernoulli(logits=x @ P.param("vote")), infer=ALL)
            P.sample("z", unit_normal(P, x @ P.param("encode") - b[..., None] * P.param("lift")))

    @staticmethod
    def log_guide(p, x, w, y, b, z):
        discrete = log_softmax(x @ p["guess"])[y] + log_bit(x @ p["vote"], b)
        return discrete, norm.logpdf(z, x @ p["encode"] - b * p["lift"]).sum()


class Half(Two):
    """The same model, with y in the guide and b summed out."""

    def model(self, P, x, w):
        with P.plate("data", x):
            y = P.one_hot(P.sample("y", P.dist.Categorical(logits=P.param("prior"))), CLASSES)
            b = P.sample("b", P.dist.Bernoulli(logits=y @ P.param("bit")), infer=ALL)
            z = P.sample("z", unit_normal(P, b[..., None] * P.param("lift")))
            P.sample("x", unit_normal(P, z @ P.param("decode") + y @ P.param("offset")), obs=x)

    def guide(self, P, x, w):
        with P.plate("data", x):
            y = P.sample("y", P.dist.Categorical(logits=x @ P.param("guess")), infer=ALL)
            P.sample("z", unit_normal(P, x @ P.param("encode") + P.one_hot(y, CLASSES) @ P.param("shift")))

    @staticmethod
    def log_guide(p, x, w, y, z):
        return log_softmax(x @ p["guess"])[y], norm.logpdf(z, x @ p["encode"] + p["shift"][y]).sum()


class Neither(Two):
    """The same model, of which the guide has z alone: y and b are summed out."""

    def model(self, P, x, w):
        with P.plate("data", x):
            y = P.sample("y", P.dist.Categorical(logits=P.param("prior")), infer=ALL)
            y = P.one_hot(y, CLASSES)
            b = P.sample("b", P.dist.Bernoulli(logits=y @ P.param("bit")), infer=ALL)
            z = P.sample("z", unit_normal(P, b[..., None] * P.param("lift")))
            P.sample("x", unit_normal(P, z @ P.param("decode") + y @ P.param("offset")), obs=x)

    def guide(self, P, x, w):
        with P.plate("data", x):
            P.sample("z", unit_normal(P, x @ P.param("encode")))

    @staticmethod
    def log_guide(p, x, w, z):
        return 0.0, norm.logpdf(z, x @ p["encode"]).sum()


SITES = {  # enumerated in the guide, in its order; in the model alone
    Child: (("y",), ()),
    After: (("y",), ()),
    Summed: ((), ("y",)),
    Discrete: (("y",), ()),
    Two: (("y", "b"), ()),
    Apart: (("y", "b"), ()),
    Half: (("y",), ("b",)),
    Neither: ((), ("y", "b")),
}
COUNTS = {"y": CLASSES, "b": BITS}


def log_bit(logit, value):
    return np.log(expit(logit if value else -logit))


def make(kind, dtype="float64", size=4):
    """The program, parameters and data from nowhere in particular."""
    program, rng = kind(), np.random.default_rng(crc32(kind.__name__.encode()))
    data = {"x": rng.normal(size=(size, X)), "w": (rng.random(size) < 0.5) * 1.0}
    return program, program.initialise(1, dtype=dtype), {n: v.astype(dtype) for n, v in data.items()}


def by_hand(kind, params, data, values):
    """(ELBO, log w), each [K, B], at the guide's draws of z: sums over all joint values of the enumerated sites."""
    p = {n: np.asarray(v, float) for n, v in params.items()}
    guided, summed = SITES[kind]
    counts = [COUNTS[n] for n in guided]
    z = values.get("z", np.zeros((1, len(data["x"]), 0)))
    z = np.broadcast_to(z, (*counts[::-1], *z.shape[-3:]))  # the first site's axis is next to K
    elbo, log_weights = np.zeros(z.shape[-3:-1]), np.zeros(z.shape[-3:-1])
    for k, b in np.ndindex(elbo.shape):
        seen, weights, terms = (data["x"][b].astype(float), data["w"][b]), [], []
        for chosen in product(*map(range, counts)):
            given = dict(zip(guided, chosen, strict=True))
            drawn = {} if kind is Discrete else {"z": z[(*chosen[::-1], k, b)].astype(float)}
            rest = [dict(zip(summed, v, strict=True)) for v in product(*(range(COUNTS[n]) for n in summed))]
            joint = logsumexp([kind.log_joint(p, *seen, **given, **own, **drawn) for own in rest])
            discrete, continuous = kind.log_guide(p, *seen, **given, **drawn)
            weights.append(joint - continuous)
            terms.append(np.exp(discrete) * (joint - discrete - continuous))
        elbo[k, b], log_weights[k, b] = sum(terms), logsumexp(weights)
    return elbo, log_weights


def probabilities(params, x):
    """q(y|x) of `Child`, [B, C]."""
    return softmax(x @ params["guess"], axis=-1)
