"""Invariants of a program: the same numbers on both backends, finite training, and runs that can be loaded again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppdgm.inference import Fit, fit, load
from ppdgm.language.vocabulary import Trace
from ppdgm.testing.bench import Bench
from ppdgm.testing.broken import Broken, NotHere
from ppdgm.testing.flows import flow_points
from ppdgm.testing.part_case import DATA, PARTICLES, PartCase

ROUNDING = {"float64": 1e-10}  #: relative; for float32, the case's tolerance
STEPS = 20

Values = dict[str, np.ndarray]


def spec(case: PartCase) -> str:
    """JSON and TOML give the spec back, equal and with the same hash."""
    if not case.as_text:
        raise NotHere("text can't tell modules of other libraries")
    own, classes = case.spec, case.classes
    for text, back in (
        ("JSON", type(own).from_json(own.to_json(), classes)),
        ("TOML", type(own).from_toml(own.to_toml(), classes)),
    ):
        if back != own or type(back) is not type(own) or hash(back) != hash(own):
            raise Broken(f"{text}: got {back!r} back from {own!r}. Fields must be plain values or specs.")
    return "JSON and TOML"


def initial(case: PartCase) -> str:
    """First values are finite, have the declared shapes, and are the same on all backends."""
    program, seed = case.program, case.seed
    declared = program.declarations().params
    found = [case.bench(program, b).runtime.initialise(seed, case.data, "float32") for b in case.backends]
    for name, described in declared.items():
        values = [f[name] for f in found]
        if not all(v.shape == described.shape and np.isfinite(v).all() for v in values):
            raise Broken(f"{name!r}: first values are not finite numbers of shape {described.shape}.")
        if any(v.tobytes() != values[0].tobytes() for v in values):
            raise Broken(f"{name!r}: first values differ between backends. Draw them from init's rng, with NumPy.")
    return f"{len(declared)} parameters"


def parity(case: PartCase) -> str:
    """At the same values all terms are the same on both backends, in float32 and in float64."""
    if len(case.backends) < 2:
        raise NotHere("one backend only")
    worst: dict[str, float] = {}
    for dtype in ("float32", "float64"):
        allowed = ROUNDING.get(dtype, case.tolerance)
        for what, found in _terms(case, dtype).items():
            first, *others = found.values()
            off = max(_apart(first, other) for other in others)
            worst[dtype] = max(worst.get(dtype, 0.0), off)
            if not off <= allowed:
                raise Broken(
                    f"{what} in {dtype}: {' and '.join(found)} differ by {off:.1e}, relative; expected at most "
                    f"{allowed:.0e}. Constants and types must come from P, and functions from P.xp."
                )
    if not worst:
        raise NotHere("only its own draws can be scored: `density` looks at these")
    return ", ".join(f"{dtype} within {off:.0e}" for dtype, off in worst.items())


def _apart(first: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(first - other).max() / (1 + np.abs(first).max()))


def _terms(case: PartCase, dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """Term -> backend -> numbers."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def note(backend: str, terms: Mapping[str, np.ndarray]) -> None:
        for name, value in terms.items():
            found.setdefault(name, {})[backend] = value

    for b in case.backends:
        if case.flow is not None:
            note(b, case.bench(case.flow, b).means(flow_points(case), dtype))
        if not case.one_way:
            bench = case.bench(case.program, b)
            note(b, _flat(bench.trace(case.data, PARTICLES, latent_draws(case), True, dtype)))
            if case.alone is not None:
                alone = case.bench(case.alone, b)
                note(b, {"log-density": alone.score({"x": case.heads}, case.elsewhere, dtype)})
    return {n: v for n, v in found.items() if len(v) == len(case.backends)}


def _flat(trace: Trace) -> Values:
    terms = {f"log p of {n!r}": v for n, v in trace.log_p.items()}
    terms |= {f"log q of {n!r}": v for n, v in trace.log_q.items()}
    terms |= {f"KL of {n!r}": v.sum(-1) for n, v in trace.kl.items()}
    return terms if trace.marginal is None else {**terms, "log w": trace.marginal}


def latent_draws(case: PartCase) -> Values:
    """Draws of the latents of a program: the same for every reading. Enumerated latents are left out."""
    terms = case.once("latents", lambda: case.bench(case.program, case.quick).trace(case.data, PARTICLES))
    enumerated = lambda v: terms.marginal is not None and v.shape[1:3] == (1, 1)
    return {n: v for n, v in terms.values.items() if not enumerated(v)}


# --- particles, training, saving --------------------------------------------------------------------------------------


def particles(case: PartCase, backend: str) -> str:
    """The terms of a particle and a row depend on nothing else: they are the same among copies of the row."""
    if case.one_way:
        raise NotHere("its draws alone can be scored")
    bench, data, values = case.bench(case.program, backend), case.data, latent_draws(case)
    if any(v.shape[:2] != (PARTICLES, DATA) for v in values.values()):
        raise NotHere("values depend on what is enumerated")
    own = _flat(bench.trace(data, PARTICLES, values, True))
    for axis, what, size in ((0, "particle", PARTICLES), (1, "datum", DATA)):
        for i in range(size):
            copies = {n: np.repeat(v.take([i], axis), size, axis) for n, v in values.items()}
            rows = {n: np.repeat(v[[i]], size, axis=0) for n, v in data.items()} if axis else data
            for name, terms in _flat(bench.trace(rows, PARTICLES, copies, True)).items():
                alone = np.broadcast_to(own[name], (PARTICLES, DATA)).take([i], axis)
                off = _apart(alone, np.broadcast_to(terms, (PARTICLES, DATA)))
                if not off <= 1e-9:
                    raise Broken(
                        f"{name}: with copies of one {what} in the others' place, its own terms differ by {off:.1e}, "
                        "relative; expected rounding. Terms are per datum and particle, and any leading dimensions "
                        "must do: index from the right, x[..., 0], and reshape to (*x.shape[:-1], …)."
                    )
    return "each of [K, B] by itself"


def training(case: PartCase, backend: str) -> str:
    """After twenty training steps, everything is finite."""
    result = trained(case, backend)
    if result.info["skipped"] or not np.isfinite(result.history["objective"]).all():
        raise Broken(f"{result.info['skipped']} of {STEPS} steps were not finite; expected none.")
    return f"{STEPS} steps, ELBO {result.history['elbo'][0]:.2f} to {result.history['elbo'][-1]:.2f}"


def trained(case: PartCase, backend: str) -> Fit:
    """The program after some steps."""
    options: dict[str, Any] = {"steps": STEPS, "batch_size": DATA, "seed": case.seed, "device": "cpu"}
    found: Fit = case.once(
        ("fit", backend), lambda: fit(case.program, case.data, backend=backend, progress=False, **options)
    )
    return found


def saved(case: PartCase) -> str:
    """A run that was saved on one backend loads on the other, with the same parameters and log-weights."""
    first, last = case.backends[0], case.backends[-1]
    result = trained(case, first)
    with tempfile.TemporaryDirectory() as folder:
        path = result.save(Path(folder) / "run")
        program = None if case.as_text else case.program
        opened = load(path, last, program=program, classes=case.classes, device="cpu")
    same = opened.params.keys() == result.params.keys()
    if not same or any(opened.params[n].tobytes() != v.tobytes() for n, v in result.params.items()):
        raise Broken("parameters are not the same after load; every one must be declared in build().")
    if case.as_text and opened.program != case.program:
        raise Broken(f"got {opened.program!r} after load, expected the same program.")
    if case.one_way:
        return f"{first} to {last}: parameters"
    values, worst = latent_draws(case), 0.0
    benches = case.bench(case.program, first), Bench(opened.program, last, opened.params, case.seed)
    mine, its = (_flat(b.trace(case.data, PARTICLES, values, True, "float32", result.params)) for b in benches)
    for name in mine.keys() & its.keys():
        worst = max(worst, _apart(mine[name], its[name]))
    if not worst <= case.tolerance:
        raise Broken(f"terms differ by {worst:.1e}, relative, after load on {last}; expected {case.tolerance:.0e}.")
    return f"{first} to {last}: terms within {worst:.0e}"
