"""Latents under a mask: where it is off, their values have no meaning, and no part of a diagnosis looks at them."""

import numpy as np
import numpyro
import numpyro.distributions as npd
import pyro
import pyro.distributions as pyd
import pytest

import ppdgm
from ppdgm import Program
from ppdgm.errors import ProgramError
from ppdgm.inference import LaggingInference

T, N = 3, 60
RNG = np.random.default_rng(0)
LENGTH = RNG.integers(1, T + 1, N)
X = RNG.normal(size=(N, T, 1)).astype(np.float32) * 2**0.5


class Chain(Program):
    """z_t ~ N(0, 1), x_t ~ N(z_t, 1), with the exact guide where there are data, and N(7, ½) elsewhere; u ~ N(0, 1)."""

    event_shape: tuple[int, ...] = (T, 1)
    own: bool = True

    def build(self, c):
        c.param("a", (1,))

    def there(self, P, length):
        return P.constant(np.arange(T)) < length[:, None]

    def model(self, P, x, length):
        def body(P, z, x):
            z = P.sample("z", P.dist.Normal(P.param("a") + 0 * z, 1.0).to_event(1))
            P.sample("x", P.dist.Normal(z, 1.0).to_event(1), obs=x)
            return z, None

        with P.plate("data", x):
            if self.own:
                P.sample("u", P.dist.Normal(P.full((), 0.0), 1.0))
            P.scan(body, P.full((1,), 0.0), x, mask=self.there(P, length))

    def guide(self, P, x, length):
        def body(P, z, x):
            return P.sample("z", P.dist.Normal(0.5 * x + 0 * z, 0.5**0.5).to_event(1)), None

        with P.plate("data", x):
            if self.own:
                P.sample("u", P.dist.Normal(P.full((), 0.0), 1.0))
            seen = P.xp.where(self.there(P, length)[..., None], x, P.full((), 14.0))
            P.scan(body, P.full((1,), 0.0), seen, mask=self.there(P, length))


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
@pytest.mark.parametrize("own", [True, False])
def test_values_under_a_mask_are_not_looked_at(own, backend):
    """The exact guide was told to be not calibrated, and its means to have a variance of some 12."""
    program = Chain(own=own)
    fit = ppdgm.Fit(program, program.initialise(0), backend)
    parts = ("latents", "calibration", "pictures")
    found = fit.diagnose({"x": X, "length": LENGTH}, parts=parts, simulated=60, ranks=19)
    assert "'z' is under a mask" in found.withheld["calibration"]
    assert set(found.calibration or {}) == ({"u"} if own else set())
    use = {site.name: site for site in found.use.sites}
    assert use["z"].variance is None and use["z"].kl.shape == (T,)
    assert set(found.pictures.codes) == set(found.pictures.aggregated) == ({"u"} if own else set())


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_there_is_no_mutual_information_of_rows_of_different_lengths(backend):
    """Each row's density was one of other latents: the information of a guide that is the prior was not 0."""
    data, how = {"x": X, "length": LENGTH}, {"backend": backend, "epochs": 1, "progress": False, "compile": False}
    program = Chain(own=False)
    found = ppdgm.fit(program, data, diagnose_epochs=1, **how).history
    assert {n for n in found if n.startswith("live_")} == {"live_step", "live_kl_z"}
    with pytest.raises(ProgramError, match="'z' is under a mask"):
        ppdgm.fit(program, data, engine=LaggingInference(), **how)


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
@pytest.mark.parametrize("handler", [True, False])
def test_a_pair_with_a_masked_latent_has_no_mutual_information(handler, backend):
    """Its masks were not known: a guide that is the prior had an information of some −0.3 nats."""
    lib = {"numpyro": numpyro, "pyro": pyro}[backend]
    dist, mask = (npd, numpyro.handlers.mask) if backend == "numpyro" else (pyd, pyro.poutine.mask)

    def draw(there):
        if not handler:
            return lib.sample("z", dist.Normal(0.0 * there, 1.0).mask(there > 0))
        with mask(mask=there > 0):
            return lib.sample("z", dist.Normal(0.0 * there, 1.0))

    def model(x, there):
        with lib.plate("data", len(x)):
            z = draw(there)
            lib.sample("x", dist.Normal(z + lib.param("m", 0.0 * x[0]), 1.0), obs=x)

    def guide(x, there):
        with lib.plate("data", len(x)):
            draw(there)

    pair = Program.from_numpyro(model, guide) if backend == "numpyro" else Program.from_pyro(model, guide)
    data = {"x": X[:, 0, 0], "there": (LENGTH > 1).astype(np.float32)}
    fit = ppdgm.fit(pair, data, epochs=1, diagnose_epochs=1, batch_size=N, progress=False)
    assert {n for n in fit.history if n.startswith("live_")} == {"live_step", "live_kl_z"}


def test_there_is_no_mutual_information_without_latents():
    """It was a StopIteration."""

    class Plain(Program):
        def build(self, c):
            c.param("m", (1,))
            c.param("unused", (), label="guide")

        def model(self, P, x):
            with P.plate("data", x):
                P.sample("x", P.dist.Normal(P.param("m"), 1.0).to_event(1), obs=x)

    with pytest.raises(ProgramError, match="draws no latent"):
        ppdgm.fit(Plain(), X[:, 0], engine=LaggingInference(), epochs=1, progress=False)
