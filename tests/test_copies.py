"""What is copied or pickled is whole, and shares nothing with this process: fits, data on disk, errors."""

import copy
import gc
import os
import pickle
import pickletools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import ppdgm
from ppdgm.data import Stream, Transform
from ppdgm.errors import CheckpointError, PpdgmError, ProgramError
from ppdgm.inference import IWAE, ReverseKL
from ppdgm.models import MLP, VAE, FlowModel, RealNVP
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


class Own(VAE):
    """A user's own program, at the top level of a module."""

    scale: float = 2.0


def _globals(content):
    """What a pickle imports: of all that it could run, these are the only functions."""
    texts, found = [], set()
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("SHORT_BINUNICODE", "BINUNICODE"):
            texts.append(argument)
        if operation.name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]))
    return found


def test_a_pickle_is_the_run_as_bytes(tmp_path):
    """Of ppdgm's own programs it names one class, `Fit`; the rest is read and checked by ppdgm."""
    program = FlowModel(event_shape=(4,), flow=RealNVP(depth=2, hidden=(4,)))
    np.savetxt(tmp_path / "x.csv", np.random.default_rng(0).normal(3.0, 2.0, (20, 4)), delimiter=",")
    data = ppdgm.load_data(tmp_path / "x.csv", scale="standardise")
    fit = ppdgm.fit(program, data, steps=2, progress=False)
    content = pickle.dumps(fit)
    assert _globals(content) == {"ppdgm.inference.evaluation.result.Fit"}
    again = pickle.loads(content)
    for name in ("program", "backend", "engine", "info", "training", "stopped", "data", "devices", "device"):
        assert getattr(again, name) == getattr(fit, name), name
    assert again.transform.kind == "standardise" and again.codings.keys() == fit.codings.keys()
    assert all(np.array_equal(again.history[n], v) for n, v in fit.history.items())
    assert np.array_equal(again.sample(3), fit.sample(3))  # in the user's own units

    assert pickle.loads(pickle.dumps(ppdgm.Fit(program, fit.params))).engine is None
    assert pickle.loads(pickle.dumps(ppdgm.Fit(program, fit.params, engine=IWAE(k=3)))).engine == IWAE(k=3)
    at = content.index(next(iter(fit.params.values())).tobytes()[:16])
    damaged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    with pytest.raises(CheckpointError, match="is damaged"):
        pickle.loads(damaged)
    with pytest.raises(CheckpointError, match=r"info.*JSON"):
        pickle.dumps(ppdgm.Fit(program, fit.params, info={"steps": object()}))


def test_own_classes_travel_by_name():
    parts = {"event_shape": (3,), "latent": 2, "encoder": MLP(hidden=(3,)), "decoder": MLP(hidden=(3,))}
    own = Own(**parts, scale=3.0)
    content = pickle.dumps(ppdgm.Fit(own, own.initialise(0)))
    assert _globals(content) == {"ppdgm.inference.evaluation.result.Fit", f"{__name__}.Own"}
    assert pickle.loads(content).program == own

    class Hidden(VAE):
        """In a function, where Python finds no class by its name."""

    hidden = Hidden(**parts)
    fit = ppdgm.Fit(hidden, hidden.initialise(0))
    with pytest.raises(ProgramError, match=r"can't pickle .*Hidden.*top level of a module"):
        pickle.dumps(fit)
    assert copy.deepcopy(fit).program == hidden


def _model(x):
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    loc = numpyro.param("loc", jnp.zeros(3))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def _guide(x):
    """No latents."""


def test_what_text_can_not_have_is_pickled_beside_it():
    """Plain pairs, and programs with a user's own modules: as objects, if Python can pickle them."""
    torch = pytest.importorskip("torch")
    fit = ppdgm.fit(ppdgm.Program.from_numpyro(_model, _guide), X, steps=1, progress=False)
    assert np.array_equal(pickle.loads(pickle.dumps(fit)).elbo(X, k=1).values, fit.elbo(X, k=1).values)
    bare = ppdgm.fit(ppdgm.Program.from_numpyro(lambda x: _model(x)), X, steps=1, progress=False)
    with pytest.raises(ProgramError, match=r"can't pickle the program PlainPair.*top level of a module"):
        pickle.dumps(bare)
    assert np.array_equal(copy.deepcopy(bare).elbo(X, k=1).values, bare.elbo(X, k=1).values)

    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Unflatten(-1, (2, 2)))
    program = VAE(event_shape=(3,), latent=2, encoder=module, decoder=MLP(hidden=(3,)))
    own = ppdgm.Fit(program, program.initialise(0), "pyro")
    again = pickle.loads(pickle.dumps(own))
    assert again.program.encoder.module is not module
    assert np.array_equal(again.elbo(X, k=1).values, own.elbo(X, k=1).values)


def _target(P, x):
    return -0.5 * P.xp.sum(x**2, axis=-1)


def test_an_engine_with_a_function():
    flow = FlowModel(event_shape=(2,), flow=RealNVP(depth=2, hidden=(4,)))
    fit = ppdgm.fit(flow, engine=ReverseKL(target=_target), steps=2, batch_size=4, progress=False)
    assert pickle.loads(pickle.dumps(fit)).normaliser(draws=30).log_z == fit.normaliser(draws=30).log_z
    local = ppdgm.Fit(flow, fit.params, engine=ReverseKL(target=lambda P, x: _target(P, x)))
    with pytest.raises(ProgramError, match="can't pickle the engine"):
        pickle.dumps(local)


def _evaluated(fit):
    return fit.elbo(X, k=2).values


@pytest.mark.parametrize("backend, method", [("pyro", "spawn"), ("numpyro", "spawn"), ("pyro", "forkserver")])
def test_process_pools(backend, method):
    fit = ppdgm.Fit(PROGRAM, PROGRAM.initialise(0), backend)
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        assert np.array_equal(pool.submit(_evaluated, fit).result(), _evaluated(fit))


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
