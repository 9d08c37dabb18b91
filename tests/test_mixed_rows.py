"""Rows of a minibatch, or particles, that a program mixes: found by `fit`'s first reading, and nothing else is."""

import numpy as np
import numpyro
import numpyro.distributions as npd
import pyro
import pyro.distributions as pyd
import pytest
import torch

import ppdgm
from ppdgm import Program
from ppdgm.data import as_fields
from ppdgm.errors import ProgramError
from ppdgm.inference.inputs.feed import Feed
from ppdgm.inference.inputs.row_independence import check_apart
from ppdgm.models import MLP, Bernoulli, DiagonalNormal, Net
from ppdgm.registry import backend as load

X = (np.random.default_rng(0).random((300, 6)) < 0.4).astype("float32")
ROW, PARTICLE = "the terms of one row change", "the terms of one particle change"


class TwoLevels(Program):
    """Right with how="", else with one slip."""

    how: str = ""
    net: Net = MLP(hidden=(4,))

    def build(self, c):
        c.net("up", self.net, (3,), (2, 4))
        c.net("decoder", self.net, (4,), c.part(Bernoulli(), (6,)))
        c.net("bottom", self.net, (6,), c.part(DiagonalNormal(), (4,), label="guide"), label="guide")
        c.net("top", self.net, (4,), (2, 3), label="guide")
        c.net("side", MLP(hidden=()), (6,), (2, 3), label="guide")
        c.param("zero", (6,), label="guide")  # through which nothing shows at first

    def model(self, P, x):
        with P.plate("data", x):
            z2 = P.sample("z2", P.dist.Normal(P.full((3,), 0.0), P.full((3,), 1.0)).to_event(1))
            h = P.net("up")({"z[0]": z2[0], "z[:, :1]": z2[:, :1]}.get(self.how, z2))
            loc = h[0, 1, 0] if self.how == "h[0, 1, 0]" else h[..., 0, :]
            z1 = P.sample("z1", P.dist.Normal(loc, P.softplus(h[..., 1, :])).to_event(1))
            P.sample("x", Bernoulli()(P, P.net("decoder")(z1)), obs=x)

    def guide(self, P, x):
        with P.plate("data", x):
            seen = {"x.mean()": x - x.mean(), "x.mean(0)": x - x.mean(0), "0·x[0]": x + P.param("zero") * x[0]}
            z1 = P.sample("z1", DiagonalNormal()(P, P.net("bottom")(seen.get(self.how, x))))
            h = P.net("top")(z1)
            loc = P.net("side")(x)[0, 1] if self.how == "h[0, 1]" else h[..., 0, :]
            loc = h[:, -1:, 0] if self.how == "h[:, -1:, 0]" else loc
            P.sample("z2", P.dist.Normal(loc, P.softplus(h[..., 1, :])).to_event(1))
            P.penalty("moment", P.xp.broadcast_to(((z1.mean((0, 1)) - 1) ** 2).sum(), z1.shape[1:2]))


SLIPS = ("h[0, 1, 0]", "z[:, :1]", "x.mean()", "x.mean(0)", "0·x[0]", "h[0, 1]", "h[:, -1:, 0]")


def first_reading(program, backend):
    runtime = load(backend).Runtime(program, "cpu")
    feed = Feed(runtime, {"x": X})
    check_apart(runtime, runtime.initialise(0, feed.sample, "float32"), feed)


def test_fit_looks_before_it_trains():
    with pytest.raises(ProgramError, match=ROW):
        ppdgm.fit(TwoLevels(how="x.mean()"), X, backend="pyro", steps=1, progress=False)


@pytest.mark.parametrize("how", ["", "z[0]", *SLIPS])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_program_that_mixes_rows_or_particles_is_refused(backend, how):
    run = lambda: first_reading(TwoLevels(how=how), backend)
    if not how:
        run()  # a penalty may be of the whole minibatch
        return
    with pytest.raises(ProgramError, match=PARTICLE if how == "z[0]" else ROW) as told:
        run()
    assert "Index from the right" in str(told.value)


class Labelled(Program):
    """Rare labels, which the model sees relative to the mean of the labelled rows, if it is wrong."""

    wrong: bool

    def build(self, c):
        c.net("encoder", MLP(hidden=()), (6,), c.part(DiagonalNormal(), (1,), label="guide"), label="guide")

    def model(self, P, x, label, there):
        with P.plate("data", x):
            z = P.sample("z", P.dist.Normal(P.full((1,), 0.0), 1.0).to_event(1))
            P.sample("x", P.dist.Normal(z, P.full((6,), 1.0)).to_event(1), obs=x)
            seen = P.xp.where(there > 0, label, 0.0 * label)
            middle = P.xp.sum(seen) if self.wrong else 0.0
            P.sample("label", P.dist.Normal(z[..., 0] + middle, 1.0), obs=seen, mask=there)

    def guide(self, P, x, label, there):
        with P.plate("data", x):
            P.sample("z", DiagonalNormal()(P, P.net("encoder")(x)))


@pytest.mark.parametrize("wrong", [True, False])
@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_rows_that_are_mixed_only_where_there_are_labels(backend, wrong):
    there = np.isin(np.arange(len(X)), (123, 234))
    data = {"x": X, "label": np.where(there, 1.5, -9.0).astype("float32"), "there": there}
    runtime = load(backend).Runtime(Labelled(wrong=wrong), "cpu")
    feed = Feed(runtime, as_fields(data))
    run = lambda: check_apart(runtime, runtime.initialise(0, feed.sample, "float32"), feed)
    if not wrong:
        run()
        return
    with pytest.raises(ProgramError, match=ROW):
        run()


def pyro_pair(how, part=None):
    net, norm = torch.nn.Linear(6, 6), torch.nn.BatchNorm1d(6)
    plate = lambda x: pyro.plate("data", len(X) if part else x.shape[0], subsample_size=part)

    def model(x):
        with plate(x) as i:
            z = pyro.sample("z", pyd.Normal(torch.zeros(3), 1.0).to_event(1))
            shown = z.repeat(1, 2)[:1] if how == "z[:1]" else z.repeat(1, 2)
            pyro.sample("x", pyd.Bernoulli(logits=shown).to_event(1), obs=x[i])

    def guide(x):
        pyro.module("net", net), pyro.module("norm", norm)
        with plate(x) as i:
            h = net(norm(x[i])).reshape(-1, 2, 3)
            loc = {"h[0, 1]": h[0, 1], "x.mean()": h[:, 0] * x[i].mean()}.get(how, h[:, 0])
            pyro.sample("z", pyd.Normal(loc, h[:, 1].exp()).to_event(1))

    return Program.from_pyro(model, guide)


def numpyro_pair(how, part=None):
    plate = lambda x: numpyro.plate("data", len(X) if part else x.shape[0], subsample_size=part)

    def model(x):
        with plate(x) as i:
            z = numpyro.sample("z", npd.Normal(np.zeros(3), 1.0).to_event(1))
            shown = np.tile(np.eye(3), 2)
            logits = (z[:1] if how == "z[:1]" else z) @ shown
            numpyro.sample("x", npd.Bernoulli(logits=logits).to_event(1), obs=x[i])

    def guide(x):
        weight = numpyro.param("weight", np.random.default_rng(1).normal(size=(6, 6)).astype("float32"))
        with plate(x) as i:
            h = (x[i] @ weight).reshape(-1, 2, 3)
            loc = {"h[0, 1]": h[0, 1], "x.mean()": h[:, 0] * x[i].mean()}.get(how, h[:, 0])
            numpyro.sample("z", npd.Normal(loc, np.e ** h[:, 1]).to_event(1))

    return Program.from_numpyro(model, guide)


@pytest.mark.parametrize("part", [None, 4])
@pytest.mark.parametrize("how", ["", "z[:1]", "h[0, 1]", "x.mean()"])
@pytest.mark.parametrize("pair", [pyro_pair, numpyro_pair])
def test_a_pair_that_mixes_rows_is_refused(pair, how, part):
    run = lambda: first_reading(pair(how, part), "pyro" if pair is pyro_pair else "numpyro")
    if not how:
        run()  # BatchNorm evaluates with its running statistics
        return
    with pytest.raises(ProgramError, match=ROW):
        run()
