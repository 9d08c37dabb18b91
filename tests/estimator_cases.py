"""Small programs off their optimum, estimators of their gradients, and whose gradient each estimates.

A case is (engine, the bound that the model's parameters climb, the guide's): arguments of `estimates.bound`, or the
name of another reference.
"""

from functools import cache

import numpy as np
from checks import check_mean_gradient
from estimates import expected_bound, ppca_gradients, slopes, wake_sleep_gradient
from measure import sample_gradients
from oracle import gradient, ppca_elbo
from readings import precision

from ppdgm.inference import IWAE, SVI, Renyi, ReweightedWakeSleep, WakeSleep
from ppdgm.models import MLP, PPCA, VAE, CategoricalPrior, Gaussian, GumbelSoftmax, HierarchicalVAE, Program, VampPrior
from ppdgm.program import normal

ELBO, TIGHT, HALF, MIXED, PAIRS, FOURS = (1, 1.0), (), (1, 0.5), (1, 0.0, 0.5), (2,), (4,)
NETS = {n: MLP(hidden=()) for n in ("encoder", "decoder")}


def labels_of(program):
    return {n: p.label for n, p in program.declarations().params.items()}


def by_label(program, model, guide):
    """Of two gradients the model's parameters' and the guide's."""
    return {n: (guide if label == "guide" else model)[n] for n, label in labels_of(program).items()}


def sample(program, params, x, engines, backend, size=64, sizes=None, **settings):
    """Samples {key: {name: [S, *shape]}} of engines {key: engine}; S is `size`, or its own of `sizes`."""
    planned = {key: (engine, (sizes or {}).get(key, size)) for key, engine in engines.items()}
    with precision("float64"):
        return sample_gradients(program, params, x, planned, backend, **settings)


def means_and_errors(samples):
    return {n: g.mean(0) for n, g in samples.items()}, {n: g.std(0, ddof=1) / len(g) ** 0.5 for n, g in samples.items()}


def of_guide(program, parts):
    """One array of the guide's parameters' parts."""
    return np.concatenate([np.ravel(parts[n]) for n, label in labels_of(program).items() if label == "guide"])


# --- PPCA with one latent, whose guide N(A(x − μ) + b, s²) reads the model's μ ----------------------------------------


class Centred(PPCA):
    def guide(self, P, x):
        with P.plate("data", x):
            P.sample("z", self._linear(P.scope("guide"), x - P.param("loc")))


CENTRED = Centred(event_shape=(3,), latent=1, posterior="linear")
SEEN = np.array([[1.3, -0.9, 0.2], [-0.7, 0.4, -1.1]])
POINT = {
    "weight": np.array([[0.9], [-0.6], [0.4]]),
    "loc": np.array([0.1, -0.2, 0.3]),
    "log_scale": np.array(-0.1),
    "guide.weight": np.array([[0.1, -0.1, 0.3]]),
    "guide.bias": np.array([1.2]),
    "guide.log_scale": np.array([-0.3]),
}


def of_draws(k):
    """{name: case} for continuous latents."""
    found = {
        "svi": (SVI(k=k, kl="monte_carlo"), ELBO, ELBO),
        "svi, closed form": (SVI(k=k), ELBO, ELBO),
        "svi, stl": (SVI(k=k, estimator="stl"), ELBO, ELBO),
        "iwae": (IWAE(k=k), TIGHT, TIGHT),
        "iwae, dreg": (IWAE(k=k, estimator="dreg"), TIGHT, TIGHT),
        "renyi": (Renyi(k=k, alpha=0.5), HALF, HALF),
        "renyi, dreg": (Renyi(k=k, alpha=0.5, estimator="dreg"), HALF, HALF),
    }
    if k == 1:
        return found
    return found | {
        "miwae": (IWAE(k=k // 2, groups=2), PAIRS, PAIRS),
        "miwae, dreg": (IWAE(k=k // 2, groups=2, estimator="dreg"), PAIRS, PAIRS),
        "ciwae": (IWAE(k=k, elbo_share=0.5), MIXED, MIXED),
        "ciwae, dreg": (IWAE(k=k, elbo_share=0.5, estimator="dreg"), MIXED, MIXED),
        "piwae": (IWAE(k=k, guide_groups=4), TIGHT, FOURS),
        "piwae, dreg": (IWAE(k=k, guide_groups=4, estimator="dreg"), TIGHT, FOURS),
        "rws": (ReweightedWakeSleep(k=k), "wake p", "wake q"),
        "iwae, stl": (IWAE(k=k, estimator="stl"), TIGHT, TIGHT),  # biased
    }


@cache
def centred_bounds(k):
    """[(bound, gradient, standard error)]: the closed form of the ELBO, and NumPy's differences."""
    elbo = lambda p: ppca_elbo(p | {"guide.bias": p["guide.bias"] - p["guide.weight"] @ p["loc"]}, SEEN).mean()
    found, nothing = gradient(elbo, POINT), {n: np.zeros(v.shape) for n, v in POINT.items()}
    if k == 1:
        return [(kind, found, nothing) for kind in (ELBO, TIGHT, HALF)]
    kinds = [TIGHT, HALF, MIXED, PAIRS, FOURS, "wake p", "wake q"]
    return [(ELBO, found, nothing)] + [
        (kind, *r) for kind, r in zip(kinds, ppca_gradients(POINT, SEEN, k, kinds), strict=True)
    ]


def exact_of_centred(k, model, guide):
    """(gradient, standard error) of the bounds that a case climbs."""
    found = [next(r[1:] for r in centred_bounds(k) if r[0] == bound) for bound in (model, guide)]
    return [by_label(CENTRED, *parts) for parts in zip(*found, strict=True)]


def check_centred(samples, k, model, guide, name=""):
    exact, errors = exact_of_centred(k, model, guide)
    check_mean_gradient(samples, exact, labels_of(CENTRED), errors, f"{name}, K = {k}")


# --- several latents, and a prior that knows the guide: references are sampled too ------------------------------------


class Mixed(Program):
    """z ~ N(0, 1), y|z ~ Cat, x ~ N(z a + c_y, 1); q(z|x) = N(x b, e^2s), q(y|z) = Cat."""

    def build(self, context):
        for name, shape in {"slope": (1, 3), "a": (1, 2), "c": (3, 2)}.items():
            context.param(name, shape, normal(0.5))
        for name, shape in {"b": (2, 1), "s": (1,), "vote": (1, 3)}.items():
            context.param(name, shape, normal(0.5), label="guide")

    def model(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), P.full((1,), 1.0)).to_event(1))
            y = P.one_hot(P.sample("y", P.dist.Categorical(logits=z @ P.param("slope"))), 3)
            mean = z @ P.param("a") + y @ P.param("c")
            P.sample("x", P.dist.Normal(mean, P.full((2,), 1.0)).to_event(1), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(x @ P.param("b"), P.xp.exp(P.param("s"))).to_event(1))
            P.sample("y", P.dist.Categorical(logits=z @ P.param("vote")))


LEVELS = {"event_shape": (2,), "latent": (1, 1), "likelihood": Gaussian(scale=1.0), "levels": NETS["encoder"], **NETS}
VAMP = VampPrior(components=2, range="real", weights="learned")
NESTED = {  # program, seed of its parameters, how far they are from first values (where gradients are large), samples
    "vamp": (VAE(event_shape=(2,), latent=1, likelihood=Gaussian(scale=1.0), prior=VAMP, **NETS), 9, 0.5, 40),
    "ladder": (HierarchicalVAE(inference="top_down", features=2, **LEVELS), 6, 0.4, 64),
    "chain": (HierarchicalVAE(inference="bottom_up", **LEVELS), 69, 0.3, 100),
    "mixed": (Mixed(), 2, 0.5, 40),
}
NESTED_X = np.array([[1.3, -0.9], [-0.7, 0.4]])
REFERENCES = {"elbo": SVI(kl="monte_carlo"), "iwae": IWAE(k=4)}
DRAWN = {"stl": (SVI(estimator="stl"), "elbo"), "dreg": (IWAE(k=4, estimator="dreg"), "iwae")}
SUMMED = {"elbo": SVI(k=4, kl="monte_carlo", estimator="enumerate")}
SCORED = {"score, closed forms": (SVI(k=4, estimator="score"), "elbo")}


def nested(name):
    """(program, parameters, samples, references {bound: engine}, cases {name: (engine, bound)})."""
    program, seed, spread, size = NESTED[name]
    rng, params = np.random.default_rng(seed), program.initialise(seed, dtype="float64")
    params = {
        n: v + spread * rng.normal(size=v.shape) + ("conditional" in n) * ("bias" in n) for n, v in params.items()
    }
    return program, params, size, *((SUMMED, SCORED) if name == "mixed" else (REFERENCES, DRAWN))


@cache
def sampled_bounds(name):
    """{bound: (gradient, standard error)} by a plainer estimator, which other tests compare with differences."""
    program, params, size, references, _ = nested(name)
    found = sample(program, params, NESTED_X, references, "pyro", size=size, seed=1)
    return {bound: means_and_errors(samples) for bound, samples in found.items()}


# --- one categorical latent, two binary pixels: sums over all draws ---------------------------------------------------


CATEGORICAL = VAE(
    event_shape=(2,), latent=1, posterior=GumbelSoftmax(classes=3, kl="relaxed"),
    prior=CategoricalPrior(weights="learned"), **NETS,
)  # fmt: skip
PIXELS = np.array([[1.0, 0.0], [1.0, 1.0]])
TABLES = {
    "prior.logits": np.array([[0.3, -0.2, 0.1]]),
    "decoder.layers.0.weight": np.array([[2.5, -2.0], [-1.0, 1.5], [0.5, -0.5]]),
    "decoder.layers.0.bias": np.array([0.4, -0.2]),
    "encoder.layers.0.weight": np.array([[-0.8, 0.4, 0.2], [0.5, 0.6, -0.7]]),
    "encoder.layers.0.bias": np.array([-0.2, 0.3, 0.1]),
}


def scored(engine, baseline, **settings):
    return engine(estimator="score", baseline=baseline, **settings)


DISCRETE = {
    "svi, none": (scored(SVI, "none", kl="monte_carlo"), ELBO, ELBO),
    "svi, running": (scored(SVI, "running", kl="monte_carlo"), ELBO, ELBO),
    "svi, learned": (scored(SVI, "learned", kl="monte_carlo"), ELBO, ELBO),
    "svi, leave one out, 8": (scored(SVI, "leave_one_out", k=8, kl="monte_carlo"), ELBO, ELBO),
    "svi, enumerate": (SVI(estimator="enumerate"), ELBO, ELBO),
    "iwae, none, 2": (scored(IWAE, "none", k=2), TIGHT, TIGHT),
    "iwae, leave one out, 2": (scored(IWAE, "leave_one_out", k=2), TIGHT, TIGHT),
    "iwae, running, 2": (scored(IWAE, "running", k=2), TIGHT, TIGHT),
    "iwae, learned, 2": (scored(IWAE, "learned", k=2), TIGHT, TIGHT),
    "iwae, vimco, 8": (IWAE(k=8, estimator="vimco"), TIGHT, TIGHT),
    "piwae, vimco, 4": (IWAE(k=4, guide_groups=2, estimator="vimco"), TIGHT, PAIRS),
    "wake-sleep": (WakeSleep(), "wake-sleep", "wake-sleep"),
    "rws, 4": (ReweightedWakeSleep(k=4, wake_phi=0.7, sleep_phi=0.5), "wake-sleep", "wake-sleep"),
}
MANY = {"svi, none": 130, "iwae, none, 2": 370, "iwae, running, 2": 120, "iwae, learned, 2": 110}  # samples; else 64


@cache
def summed_bound(k, kind):
    return slopes(lambda p: expected_bound(CATEGORICAL, p, PIXELS, k, *kind), TABLES)


def exact_of_discrete(engine, model, guide):
    """The gradient of a case's bounds."""
    if model == "wake-sleep":
        settings = {"reweighted": engine.reweighted, "wake": engine.wake_phi, "sleep": engine.sleep_phi}
        return wake_sleep_gradient(CATEGORICAL, TABLES, PIXELS, engine.k, **settings)
    return by_label(CATEGORICAL, *(summed_bound(1 if b == ELBO else engine.particles, b) for b in (model, guide)))


def sample_discrete(cases, backend, **settings):
    engines = {name: case[0] for name, case in cases.items()}
    options = {"copies": 1500, "sizes": MANY, "skip": 50, "scored": ["z"]} | settings
    return sample(CATEGORICAL, TABLES, PIXELS, engines, backend, **options)


def check_discrete(samples, case, name=""):
    check_mean_gradient(samples, exact_of_discrete(*case), labels_of(CATEGORICAL), name=name)


# --- signal and noise -------------------------------------------------------------------------------------------------


PLAIN = PPCA(event_shape=(3,), latent=1, posterior="linear")
MANY_K = (1, 4, 16, 64)


def near_the_posterior(shift=0.3, widen=0.08):
    """(parameters, one datum far from the mean): a guide whose mean and log scale are off the exact posterior's."""
    weight, loc, variance = POINT["weight"], POINT["loc"], np.exp(2 * POINT["log_scale"])
    precision = weight[:, 0] @ weight[:, 0] + variance
    guide = {
        "guide.weight": weight.T / precision,
        "guide.bias": shift - weight.T @ loc / precision,
        "guide.log_scale": np.array([0.5 * np.log(variance / precision) + widen]),
    }
    return POINT | guide, (loc + np.array([2.3, 0.9, 1.7]))[None]


def slope_of_signal(samples, label):
    """Slope of log SNR against log K, the mean over a label's parameters, for samples {K: …}; its standard error."""
    own = [n for n, of in labels_of(PLAIN).items() if of == label]
    log_k = np.log(list(samples))
    weights = (log_k - log_k.mean()) / ((log_k - log_k.mean()) ** 2).sum()

    def log_ratio(parts):
        flat = np.concatenate([parts[n].reshape(len(parts[n]), -1) for n in own], 1)
        return np.log(np.abs(flat.mean(0)) / flat.std(0, ddof=1)).mean()

    def without(parts, i, blocks=10):
        return {n: np.delete(g, slice(i, None, blocks), 0) for n, g in parts.items()}

    slope = weights @ [log_ratio(parts) for parts in samples.values()]
    left_out = [weights @ [log_ratio(without(parts, i)) for parts in samples.values()] for i in range(10)]
    return slope, np.sqrt(0.9 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
