"""What each of several torch processes does in test_devices.py; the first argument is the folder for what they find."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import torch
from programs_over_devices import DATA, HOW, PROGRAM, ByHand, Running

import ppdgm
from ppdgm.backends.pyro.density import draw
from ppdgm.backends.pyro.loop import Trainer
from ppdgm.backends.pyro.ranks import find_ranks
from ppdgm.backends.pyro.row_noise import RowNoise, divided
from ppdgm.backends.pyro.runtime import find_device
from ppdgm.errors import PpdgmError, TrainingError
from ppdgm.inference import HMC, MonteCarloEM, WakeSleep

RANK, FOLDER = int(os.environ["RANK"]), Path(sys.argv[1])
DRAWN = [
    lambda p: dist.Normal(p, p),
    lambda p: dist.Gamma(p, p),
    lambda p: dist.Beta(p, p),
    lambda p: dist.Dirichlet(p),
    lambda p: dist.Poisson(p).to_event(1),
    lambda p: dist.Categorical(p),
    lambda p: dist.OneHotCategorical(p),
    lambda p: dist.Bernoulli(p / 9).to_event(1),
    lambda p: dist.Binomial(5, p / 9),
    lambda p: dist.StudentT(p),
    lambda p: dist.Laplace(p, p),
    lambda p: dist.LogNormal(p, p).to_event(1),
    lambda p: dist.MultivariateNormal(p, scale_tril=torch.diag_embed(p)),
    lambda p: dist.LowRankMultivariateNormal(p, p[..., None], p),
    lambda p: dist.MixtureSameFamily(dist.Categorical(p), dist.Normal(p, p)),
    lambda p: dist.RelaxedOneHotCategorical(torch.tensor(0.5), p),
    lambda p: dist.HalfCauchy(p),
    lambda p: dist.NegativeBinomial(p, p / 9),
]


def refused(message, kind=PpdgmError, **how):
    """The run is refused, by every process, before anything is written."""
    out = FOLDER / "refused"
    try:
        ppdgm.fit(**{**HOW, "program": PROGRAM, "data": DATA, "devices": 2, "out": out, **how})
    except kind as error:
        assert re.search(message, str(error)), error
        assert not out.exists()
    else:
        raise AssertionError(f"not refused: {message}")


def check_draws(ranks, k=2, b=10):
    """Each process has its rows of what one process would draw."""
    rows = torch.arange(b)
    rates = torch.rand(b, 4, generator=torch.Generator().manual_seed(1)) + 0.5
    for made in DRAWN:
        shape = tuple(made(rates).batch_shape[1:])
        torch.manual_seed(7)
        whole, after = draw(made(rates), (k, b, *shape))[0], torch.rand(3)
        torch.manual_seed(7)
        with divided(RowNoise(ranks, b // 2)):
            # in ppdgm a batch shape is [K, B]: further axes are made part of the event
            mine = made(rates[ranks.part(rows)])
            mine = draw(mine.to_event(len(shape)), (k, b // 2))[0]
        assert torch.equal(torch.rand(3), after), made(rates)
        torch.testing.assert_close(mine, whole[:, ranks.part(rows)], rtol=0, atol=0)


ranks, _ = find_ranks("all", find_device, "cpu")
check_draws(ranks)

seen = []
fit = ppdgm.fit(PROGRAM, DATA, devices=2, out=FOLDER / "two", callbacks=[lambda now: seen.append(now.step)], **HOW)
assert bool(seen) == (RANK == 0) and fit.info["device"] == "2 × cpu in 2 processes"
np.savez(FOLDER / f"running-{RANK}.npz", **ppdgm.fit(Running(), DATA, devices="all", **HOW).params)
sleep = ppdgm.fit(PROGRAM, DATA, devices=2, **{**HOW, "engine": WakeSleep()})
np.savez(FOLDER / f"sleep-{RANK}.npz", **sleep.params)

refused("the gradient of 2 processes is not that of one", program=ByHand())
refused("not that of one", engine=MonteCarloEM(sampler=HMC()))
refused("torch.compile can't compile a step of several processes", compile=True)
refused("accumulate: each of several processes", accumulate=2, batch_size=20)
refused("devices: got 3, which on the pyro backend is a number of processes, but torchrun started 2", devices=3)
refused("devices: got 1, .* Give devices=2", devices=1)
refused("expected a multiple of 2", batch_size=15)
pair = ppdgm.Program.from_pyro(lambda x: None, lambda x: None)
refused("a plain Pyro pair draws its noise in Pyro's own handlers", program=pair)

run, calls = Trainer.run, []


def dies(self, plan, data):
    calls.append(plan.first)
    if RANK == 1 and len(calls) == 3:
        os._exit(0)
    return run(self, plan, data)


Trainer.run = dies
try:
    ppdgm.fit(PROGRAM, DATA, devices=2, out=FOLDER / "lost", checkpoint_steps=2, **HOW)
except TrainingError as error:
    assert "another of the 2 processes ended" in str(error), error
    print("told")
