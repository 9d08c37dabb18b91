"""What each of two torch processes does in test_ranks.py; the first argument is the folder for what they find.

One process imports everything, which takes most of the time, and then becomes two.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
from programs_over_devices import DATA, HOW, PROGRAM

import ppdgm
from ppdgm.backends.pyro.runtime import Runtime
from ppdgm.errors import PpdgmError, ProgramError


def trained(fit):
    """Its numbers."""
    return {f"params/{n}": v for n, v in fit.params.items()} | {"validation": fit.history["validation_elbo"]}


ROWS = np.concatenate([DATA] * 25)  # more than the 512 of a chunk


def answers(fit):
    """What a fit says of data, in several chunks of rows."""
    elbo, likelihood = fit.elbo(DATA, k=3, memory=20_000), fit.log_likelihood(DATA, k=7, memory=20_000)
    found = {"elbo": elbo.values, "likelihood": likelihood.values, "bias": likelihood.biases}
    found |= {"weights": fit.log_weights(DATA, k=5, memory=20_000), "means": fit.encode(ROWS)}
    found |= {"draws": fit.encode(ROWS, k=2, seed=3), "seen": fit.reconstruct(ROWS)}
    parts = fit.diagnose(ROWS, parts=["latents", "surgery"])
    return found | {"use": parts.use.sites[0].kl, "surgery": np.array(parts.surgery.marginal_kl.value)}


def shared(x=None, n=None):
    """A plain pair, with one latent for all rows."""
    import pyro
    import pyro.distributions as dist
    import torch

    z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z + torch.zeros(6, dtype=torch.float64), 1.0).to_event(1), obs=x)


def guide(x=None):
    import pyro
    import pyro.distributions as dist

    pyro.sample("z", dist.Normal(pyro.param("m", x.new_zeros(())), 1.0))


def pair_draws(devices):
    """Of a latent that all rows share, over several chunks."""
    pair = ppdgm.Program.from_pyro(shared, guide)
    return ppdgm.Fit(pair, {"m": np.zeros(())}, "pyro", "cpu", devices=devices).encode(ROWS, k=3, seed=1)


def both(message, call, kind=PpdgmError):
    """The same error in both processes, though only one of them finds it."""
    try:
        call()
    except kind as error:
        assert message in str(error), error
    else:
        raise AssertionError(f"no error: {message}")


def main(folder):
    """Train, and evaluate."""
    steps = {**HOW, "steps": 4, "validation": DATA[:20]}
    here = ppdgm.fit(PROGRAM, DATA, devices=2, **steps)
    assert here.devices is None
    fit = here.over("all")
    read, seen = Runtime.evaluate, []

    def evaluate(self, function, params, data, rows, k, seed, kl):
        seen.append(seed[1])
        return read(self, function, params, data, rows, k, seed, kl)

    Runtime.evaluate = evaluate
    fit.log_likelihood(DATA, k=7, memory=20_000)
    assert len(seen) >= 2 and {i % 2 for i in seen} == {fit.process}, seen  # every other chunk
    np.savez(folder / f"found-{fit.process}.npz", **answers(fit), pair=pair_draws(2), **trained(fit))

    def fails(self, *how):
        if fit.process == 1:
            raise ProgramError("of the second process")
        return read(self, *how)

    Runtime.evaluate = fails
    both("of the second process", lambda: fit.elbo(DATA, k=3, memory=20_000), ProgramError)
    Runtime.evaluate = read
    both("the processes compute different things", lambda: fit.elbo(DATA, k=2 + fit.process))


if __name__ == "__main__":
    import_module("torch._dynamo")  # torch's optimisers import it: here, so that it is done once
    child = os.fork()
    os.environ.update(RANK=str(int(not child)), LOCAL_RANK=str(int(not child)), WORLD_SIZE="2")
    main(Path(sys.argv[1]))
    if child and os.waitpid(child, 0)[1]:
        sys.exit("The second process failed.")
