"""How far it is from `fit` to the bound that it climbs: the functions of the package on the way, at run time."""

import traceback
from pathlib import Path

import numpy as np
import pytest

import ppdgm
from ppdgm.inference.engines import bounds
from ppdgm.models import MLP, VAE

HOUSE, MOST = Path(ppdgm.__file__).parent, 25


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_the_bound_is_near(backend, monkeypatch):
    """In training, and in the ELBO that is reported, which is made of the same terms."""
    walks, elbo_terms = [], bounds.elbo_terms

    def seen(*terms):
        walks.append([s.name for s in traceback.extract_stack() if Path(s.filename).is_relative_to(HOUSE)])
        return elbo_terms(*terms)

    monkeypatch.setattr(bounds, "elbo_terms", seen)
    x = np.eye(4, dtype="float32")
    program = VAE(event_shape=(4,), latent=1, encoder=MLP(hidden=(2,)), decoder=MLP(hidden=(2,)))
    fit = ppdgm.fit(program, x, backend=backend, steps=1, progress=False, compile=False)
    assert any("objective" in walk for walk in walks) and max(map(len, walks)) <= MOST
    walks.clear()
    fit.elbo(x)
    assert walks and max(map(len, walks)) <= MOST
