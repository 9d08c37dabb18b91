"""Plain pairs with enumerated sites, each written once for Pyro and NumPyro, and its densities once more in SciPy.

`lib` is pyro or numpyro, `dist` its distributions, `new` makes an array of a list. Nothing here knows ppdgm.
`by_hand` adds the densities up over all joint values, one by one.
"""

from itertools import product

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

ALL = {"enumerate": "parallel"}
X, WORDS, VALUES = 3, 2, 3  # columns of x, the words among them, and values of each
TABLES = {
    "first": [0.2, 0.5, 0.3],
    "then": [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]],
    "emit": [[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]],
    "loc": [-1.0, 0.5, 2.0],
    "guess": [[0.2, 0.3, 0.5], [0.5, 0.25, 0.25], [0.3, 0.4, 0.3]],
}


def read(lib, new):
    """The tables, of which `loc` is a parameter."""
    found = {n: new(v) for n, v in TABLES.items()}
    return {**found, "loc": lib.param("loc", found["loc"])}


class Mixture:
    """c ~ Cat, x0|c ~ N; the guide is empty."""

    def __init__(self, lib, dist, new, plate=None):
        plate = plate or (lambda x: lib.plate("data", x.shape[0]))

        def model(x):
            t = read(lib, new)
            with plate(x) as i:
                c = lib.sample("c", dist.Categorical(t["first"]), infer=ALL)
                lib.sample("x", dist.Normal(t["loc"][c], 0.8), obs=x[i, 0])

        self.pair = model, lambda x: None

    sites = (VALUES,)

    @staticmethod
    def log_joint(t, x, c):
        return np.log(t["first"][c]) + norm.logpdf(x[0], t["loc"][c], 0.8)


class Chain:
    """a ~ Cat, b|a ~ Cat, x0|a ~ N, x1|b ~ N, asked for one after another."""

    def __init__(self, lib, dist, new):
        def model(x):
            t = read(lib, new)
            with lib.plate("data", x.shape[0]):
                a = lib.sample("a", dist.Categorical(t["first"]), infer={"enumerate": "sequential"})
                b = lib.sample("b", dist.Categorical(t["then"][a]), infer=ALL)
                lib.sample("x", dist.Normal(t["loc"][a], 0.8), obs=x[:, 0])
                lib.sample("w", dist.Normal(t["loc"][b], 0.6), obs=x[:, 1])

        self.pair = model, lambda x: None

    sites = (VALUES, VALUES)

    @staticmethod
    def log_joint(t, x, a, b):
        seen = norm.logpdf(x[0], t["loc"][a], 0.8) + norm.logpdf(x[1], t["loc"][b], 0.6)
        return np.log(t["first"][a] * t["then"][a][b]) + seen


class Words:
    """A topic for each row and one for each word given it; a row's words lie in a plate inside the data plate."""

    def __init__(self, lib, dist, new, outer=-1):
        def model(x):
            t = read(lib, new)
            words = (x[:, :WORDS] > 0).T if outer == -1 else x[:, :WORDS] > 0
            with lib.plate("data", x.shape[0], dim=outer):
                a = lib.sample("a", dist.Categorical(t["first"]), infer=ALL)
                lib.sample("x", dist.Normal(t["loc"][a], 0.8), obs=x[:, 2] if outer == -1 else x[:, 2:])
                with lib.plate("words", WORDS, dim=-3 - outer):
                    b = lib.sample("b", dist.Categorical(t["then"][a]), infer=ALL)
                    lib.sample("w", dist.Bernoulli(t["emit"][b, 0]), obs=new(1.0) * words)

        self.pair = model, lambda x: None

    sites = (VALUES,) * (1 + WORDS)

    @staticmethod
    def log_joint(t, x, a, *b):
        each = sum(np.log(t["then"][a][b[w]] * word(t, x, b[w], w)) for w in range(WORDS))
        return np.log(t["first"][a]) + norm.logpdf(x[2], t["loc"][a], 0.8) + each


def word(t, x, b, w):
    return t["emit"][b][0] if x[w] > 0 else 1 - t["emit"][b][0]


class Guided:
    """y ~ Cat, b|y ~ Cat, x|y, b ~ N; q(y) q(b|y), both enumerated in the guide, by y's column and x's sign."""

    def __init__(self, lib, dist, new):
        def model(x):
            t = read(lib, new)
            with lib.plate("data", x.shape[0]):
                y = lib.sample("y", dist.Categorical(t["first"]))
                b = lib.sample("b", dist.Categorical(t["then"][y]))
                lib.sample("x", dist.Normal(t["loc"][y] + t["loc"][b], 0.8), obs=x[:, 0])

        def guide(x):
            t = read(lib, new)
            with lib.plate("data", x.shape[0]):
                y = lib.sample("y", dist.Categorical(t["guess"][new(1) * (x[:, 0] > 0)]), infer=ALL)
                lib.sample("b", dist.Categorical(t["guess"][y]), infer=ALL)

        self.pair = model, guide

    sites = (VALUES, VALUES)

    @staticmethod
    def log_joint(t, x, y, b):
        return np.log(t["first"][y] * t["then"][y][b]) + norm.logpdf(x[0], t["loc"][y] + t["loc"][b], 0.8)

    @staticmethod
    def log_guide(t, x, y, b):
        return np.log(t["guess"][int(x[0] > 0)][y] * t["guess"][y][b])


class GuidedWords(Words):
    """The same model, of which the guide enumerates all: q(a) Π q(b_w|a)."""

    def __init__(self, lib, dist, new, outer=-1):
        super().__init__(lib, dist, new, outer)

        def guide(x):
            t = read(lib, new)
            with lib.plate("data", x.shape[0], dim=outer):
                a = lib.sample("a", dist.Categorical(t["guess"][0]), infer=ALL)
                with lib.plate("words", WORDS, dim=-3 - outer):
                    lib.sample("b", dist.Categorical(t["guess"][a]), infer=ALL)

        self.pair = self.pair[0], guide

    @staticmethod
    def log_guide(t, x, a, *b):
        return np.log(t["guess"][0][a]) + sum(np.log(t["guess"][a][b[w]]) for w in range(WORDS))


class After:
    """y ~ Cat, z|y ~ N, x|z, y ~ N; q(y) q(z|y), y enumerated."""

    def __init__(self, lib, dist, new):
        def model(x):
            t = read(lib, new)
            with lib.plate("data", x.shape[0]):
                y = lib.sample("y", dist.Categorical(t["first"]))
                z = lib.sample("z", dist.Normal(t["loc"][y], 1.0))
                lib.sample("x", dist.Normal(z + t["loc"][y], 0.8), obs=x[:, 0])

        def guide(x):
            t = read(lib, new)
            with lib.plate("data", x.shape[0]):
                y = lib.sample("y", dist.Categorical(t["guess"][1]), infer=ALL)
                lib.sample("z", dist.Normal(x[:, 0] - t["loc"][y], 0.7))

        self.pair = model, guide

    sites = (VALUES,)

    @staticmethod
    def log_joint(t, x, y, z):
        loc = t["loc"][y]
        return np.log(t["first"][y]) + norm.logpdf(z, loc, 1.0) + norm.logpdf(x[0], z + loc, 0.8)

    @staticmethod
    def log_guide(t, x, y):
        return np.log(t["guess"][1][y])

    @staticmethod
    def log_drawn(t, x, y, z):
        return norm.logpdf(z, x[0] - t["loc"][y], 0.7)


class Before:
    """z ~ N, c|z ~ Bernoulli, x|c, z ~ N; the guide draws z, and c is summed out."""

    def __init__(self, lib, dist, new):
        def model(x):
            t = read(lib, new)
            with lib.plate("data", x.shape[0]):
                z = lib.sample("z", dist.Normal(new(0.0), 1.0))
                c = lib.sample("c", dist.Bernoulli(logits=z), infer=ALL)
                lib.sample("x", dist.Normal(z + c * t["loc"][2], 0.8), obs=x[:, 0])

        def guide(x):
            with lib.plate("data", x.shape[0]):
                lib.sample("z", dist.Normal(0.5 * x[:, 0], 0.7))

        self.pair = model, guide

    sites = (2,)

    @staticmethod
    def log_joint(t, x, c, z):
        return norm.logpdf(z) - np.log1p(np.exp(z if not c else -z)) + norm.logpdf(x[0], z + c * t["loc"][2], 0.8)

    @staticmethod
    def log_drawn(t, x, z):
        return norm.logpdf(z, 0.5 * x[0], 0.7)


def by_hand(kind, t, x, z=None):
    """ELBO and log-weight of each row, [B], by sums over all joint values; `z` is [B], or [S, B] by y."""
    elbo, log_weight = [], []
    for i, row in enumerate(x):
        joint, guide, drawn = [], [], []
        for v in product(*map(range, kind.sites)):
            at = () if z is None else (z[i] if np.ndim(z) == 1 else z[v[0], i],)
            joint.append(kind.log_joint(t, row, *v, *at))
            guide.append(kind.log_guide(t, row, *v) if hasattr(kind, "log_guide") else np.nan)
            depends = at and np.ndim(z) == 2
            drawn.append(kind.log_drawn(t, row, *(v if depends else ()), *at) if at else 0.0)
        log_weight.append(logsumexp(np.subtract(joint, drawn)))
        terms = np.exp(guide) * (np.array(joint) - drawn - guide)
        elbo.append(log_weight[-1] if np.isnan(terms).all() else terms.sum())
    return np.array(elbo), np.array(log_weight)


def posterior(kind, t, x, z=None):
    """p(site = value | row) of each enumerated site, [B, S] each; given z [B]."""
    found = []
    for i, row in enumerate(x):
        at, values = () if z is None else (z[i],), list(product(*map(range, kind.sites)))
        joint = np.array([kind.log_joint(t, row, *v, *at) for v in values])
        p = np.exp(joint - logsumexp(joint))
        each = [[p[[v[s] == c for v in values]].sum() for c in range(n)] for s, n in enumerate(kind.sites)]
        found.append(each)
    return [np.array([each[s] for each in found]) for s in range(len(kind.sites))]


KINDS = {
    "mixture": Mixture, "chain": Chain, "words": Words, "guided": Guided, "guided words": GuidedWords,
    "after": After, "before": Before,
}  # fmt: skip
