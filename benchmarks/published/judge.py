"""Train each program for a few steps, and compare its ELBO of all data with the library's own."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import ppdgm
from benchmarks.published.listing import Published
from ppdgm.errors import PpdgmError

STEPS, DRAWS, K, WITHIN = 3, 60, 60, 5.0  # training; the library's ELBO; particles of ours; standard errors


@dataclass(frozen=True)
class Verdict:
    """The result for a program.

    Attributes:
        outcome: "unchanged", "changed", "refused" or "fault".
        reason: the reason of a refusal, or of a fault.
        own: ELBO of all data, in nats, and its Monte Carlo error.
        library: the library's own ELBO at the same parameters, with its error.
    """

    outcome: str
    reason: str = ""
    own: tuple[float, float] | None = None
    library: tuple[float, float] | None = None


def judge(program: Published) -> Verdict:
    """Train, evaluate, compare."""
    if program.backend == "pyro":  # its nets are drawn when they are made
        import pyro

        pyro.set_rng_seed(0)
    try:
        model, guide, data = program.make()
        make = getattr(ppdgm.Program, f"from_{program.backend}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pair = make(model, guide, data_plate=program.plate)
            fit = ppdgm.fit(pair, data, steps=STEPS, learning_rate=1e-3, progress=False, **program.settings)
            found = fit.elbo(data, k=K)
            own = found.mean * len(found.values), found.monte_carlo_error * len(found.values)
            floats = {n: v.astype("float32") if v.dtype == "float64" else v for n, v in data.items()}
            library = _library(program.backend, fit, pair, floats)
    except PpdgmError as error:
        return Verdict("refused", str(error).splitlines()[0])
    except Exception as error:
        return Verdict("fault", f"{type(error).__name__}: {error}".splitlines()[0])
    outcome = "changed" if program.change else "unchanged"
    if library is not None:
        error = np.hypot(own[1], library[1]) + 1e-4 * abs(own[0])
        if not abs(own[0] - library[0]) <= WITHIN * error:
            return Verdict("fault", "its ELBO is not the library's", own, library)
    return Verdict(outcome, "", own, library)


def _enumerated(fit: Any) -> bool:
    return bool(fit._runtime.tracer._summed or fit._runtime.tracer._marked)


def _library(backend: str, fit: Any, pair: Any, data: Any) -> tuple[float, float] | None:
    """The library's own ELBO of all data at the fit's parameters: mean and standard error over repetitions.

    None if it is not available: NumPyro enumerates only with funsor.
    """
    if backend == "numpyro" and _enumerated(fit) and importlib.util.find_spec("funsor") is None:
        return None
    losses = (_pyro_losses if backend == "pyro" else _numpyro_losses)(fit, pair, data)
    found = -np.array(losses, dtype=float)
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))


@contextmanager
def _evaluating(fit: Any) -> Any:
    tracer = fit._runtime.tracer
    with tracer.evaluating(fit._runtime.put(fit.params)):
        yield tracer


def _pyro_losses(fit: Any, pair: Any, data: Any) -> list[float]:
    import pyro
    import torch
    from pyro.infer import Trace_ELBO, TraceEnum_ELBO
    from pyro.poutine.messenger import Messenger

    class Unscaled(Messenger):
        def _pyro_sample(self, msg: Any) -> None:
            msg["scale"] = 1.0

    tensors = {n: torch.as_tensor(v) for n, v in fit._runtime.put(data).items()}
    args = (tensors["x"],) if list(tensors) == ["x"] else ()
    call = lambda f: f(*args) if args else f(**_taken(f, tensors, pair.model))
    model, guide = (lambda: call(pair.model)), (lambda: call(pair.guide))
    elbo = TraceEnum_ELBO(max_plate_nesting=3) if _enumerated(fit) else Trace_ELBO()
    if fit._runtime.tracer.scales:  # reports ignore these; the plates here take all rows
        unscaled = Unscaled()
        model, guide = unscaled(model), unscaled(guide)
    with torch.no_grad(), torch.random.fork_rng(), _evaluating(fit):
        torch.manual_seed(0)
        pyro.set_rng_seed(0)
        return [elbo.loss(model, guide) for _ in range(DRAWS)]


def _numpyro_losses(fit: Any, pair: Any, data: Any) -> list[float]:
    import jax
    from numpyro import handlers
    from numpyro.infer import Trace_ELBO, TraceEnum_ELBO

    tracer, native = fit._runtime.tracer, fit._runtime.put(data)
    args = (native["x"],) if list(native) == ["x"] else ()
    kwargs = lambda f: {} if args else _taken(f, native, pair.model)
    value = tracer._values(fit._runtime.put(fit.params))
    at = lambda f: handlers.substitute(f, substitute_fn=lambda m: value(m) if m["type"] == "param" else None)
    model = at(lambda: pair.model(*args, **kwargs(pair.model)))
    guide = at(lambda: pair.guide(*args, **kwargs(pair.guide)))
    elbo = TraceEnum_ELBO() if _enumerated(fit) else Trace_ELBO()
    loss = jax.jit(lambda key: elbo.loss(key, {}, model, guide))
    return [float(loss(key)) for key in jax.random.split(jax.random.key(0), DRAWS)]


def _taken(function: Any, fields: Any, model: Any) -> dict[str, Any]:
    """The fields that a function takes by name; an autoguide takes its model's."""
    own = getattr(function, "guide", function)  # of an EasyGuide
    own = model if hasattr(function, "prototype_trace") and own is function else own
    parameters = inspect.signature(getattr(own, "forward", own)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(fields)
    return {n: v for n, v in fields.items() if n in parameters}
