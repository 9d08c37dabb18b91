"""What is copied or pickled is whole, and shares nothing with this process: fits, data on disk, errors."""

import copy
import gc
import os
import pickle

import numpy as np
import pytest

import ppdgm
from ppdgm.data import Stream, Transform
from ppdgm.errors import PpdgmError
from ppdgm.models import MLP, VAE
from ppdgm.models.likelihoods.base import BadData

X = (np.random.default_rng(0).random((12, 3)) < 0.5).astype("float32")
PROGRAM = VAE(event_shape=(3,), latent=2, encoder=MLP(hidden=(3,)), decoder=MLP(hidden=(3,)))
COPIES = {"pickle": lambda v: pickle.loads(pickle.dumps(v)), "deepcopy": copy.deepcopy, "copy": copy.copy}


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_a_used_fit(backend):
    fit = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), backend, history={"step": np.arange(3)}, info={"steps": 3})
    before = fit.elbo(X, k=2).values
    for name, copied in ((n, c(fit)) for n, c in COPIES.items()):
        assert copied.program == fit.program and copied.info == fit.info and copied.runtime is None, name
        assert np.array_equal(copied.history["step"], fit.history["step"])
        if name == "pickle":  # one that is compiled anew says enough of the three
            assert np.array_equal(copied.elbo(X, k=2).values, before)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("whole", [True, False])
def test_a_stream_opens_its_file_by_itself(copied, whole, tmp_path):
    """A handle is closed with its owner, and its number is another file's soon."""
    np.save(tmp_path / "x.npy", X)
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    stream = Stream(array if whole else array[1:], np.array([4, 1, 2]), Transform("unit", 2.0))
    expected, found = np.asarray(stream), copied(stream)
    del stream
    gc.collect()
    with open(os.devnull):  # takes the number
        assert np.array_equal(np.asarray(found), expected)


def test_errors():
    """As processes of a pool send them."""
    todo, kinds = [PpdgmError], []
    while todo:
        kinds.append(todo.pop())
        todo += kinds[-1].__subclasses__()
    for kind in kinds:
        one = BadData("x", 3.0, (1, 2), "0 or 1", 1, 9) if kind is BadData else kind("told")
        again = pickle.loads(pickle.dumps(one))
        assert type(again) is kind and str(again) == str(one) and vars(again) == vars(one)
