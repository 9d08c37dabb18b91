"""ppdgm's two backends.

To be finished when the core can train: `_contestant` must hand the rows to the backend's loop and return its
stretch. The public `fit` will not do as it stands, since it draws its own minibatches and compiles once per
call; what is timed here is the stretch of steps inside it. See `problem.Contestant` for what is expected, and
`numpyro_svi._contestant` for the shape of the answer. The initial values may be the program's own (same
widths) as long as the first losses agree.
"""

from .problem import Contestant, Problem, Unavailable


def ppdgm_numpyro(problem: Problem) -> Contestant:
    """The same VAE as a ppdgm program on the NumPyro backend."""
    return _contestant(problem, "numpyro")


def ppdgm_pyro(problem: Problem) -> Contestant:
    """The same VAE as a ppdgm program on the Pyro backend, with `compile="auto"` as its users have it."""
    return _contestant(problem, "pyro")


def _contestant(problem: Problem, backend: str) -> Contestant:
    # When it is: VAE(event_shape=(PIXELS,), latent=LATENT) has this benchmark's networks and distributions by
    # default, and the engine is SVI with problem.particles and the Monte Carlo KL, not the analytic one: the
    # others draw theirs, and the first losses are compared.
    raise Unavailable(f"benchmarks/seconds_per_step/ppdgm_fit.py does not run the {backend} backend yet")
