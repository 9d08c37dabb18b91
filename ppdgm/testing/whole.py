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
from ppdgm.testing.subject import DATA, PARTICLES, Subject

ROUNDING = {"float64": 1e-10}  #: relative; for float32, the subject's tolerance
STEPS = 20

Values = dict[str, np.ndarray]


def spec(subject: Subject) -> str:
    """JSON and TOML give the spec back, equal and with the same hash."""
    if not subject.as_text:
        raise NotHere("text can't tell modules of other libraries")
    own, classes = subject.spec, subject.classes
    for text, back in (
        ("JSON", type(own).from_json(own.to_json(), classes)),
        ("TOML", type(own).from_toml(own.to_toml(), classes)),
    ):
        if back != own or type(back) is not type(own) or hash(back) != hash(own):
            raise Broken(f"{text}: got {back!r} back from {own!r}. Fields must be plain values or specs.")
    return "JSON and TOML"


def initial(subject: Subject) -> str:
    """First values are finite, have the declared shapes, and are the same on all backends."""
    program, seed = subject.program, subject.seed
    declared = program.declarations().params
    found = [subject.bench(program, b).runtime.initialise(seed, subject.data, "float32") for b in subject.backends]
    for name, described in declared.items():
        values = [f[name] for f in found]
        if not all(v.shape == described.shape and np.isfinite(v).all() for v in values):
            raise Broken(f"{name!r}: first values are not finite numbers of shape {described.shape}.")
        if any(v.tobytes() != values[0].tobytes() for v in values):
            raise Broken(f"{name!r}: first values differ between backends. Draw them from init's rng, with NumPy.")
    return f"{len(declared)} parameters"


def parity(subject: Subject) -> str:
    """At the same values all terms are the same on both backends, in float32 and in float64."""
    if len(subject.backends) < 2:
        raise NotHere("one backend only")
    worst: dict[str, float] = {}
    for dtype in ("float32", "float64"):
        allowed = ROUNDING.get(dtype, subject.tolerance)
        for what, found in _terms(subject, dtype).items():
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


def _terms(subject: Subject, dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """Term -> backend -> numbers."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def note(backend: str, terms: Mapping[str, np.ndarray]) -> None:
        for name, value in terms.items():
            found.setdefault(name, {})[backend] = value

    for b in subject.backends:
        if subject.flow is not None:
            note(b, subject.bench(subject.flow, b).means(flow_points(subject), dtype))
        if not subject.one_way:
            bench = subject.bench(subject.program, b)
            note(b, _flat(bench.trace(subject.data, PARTICLES, latent_draws(subject), True, dtype)))
            if subject.alone is not None:
                alone = subject.bench(subject.alone, b)
                note(b, {"log-density": alone.score({"x": subject.heads}, subject.elsewhere, dtype)})
    return {n: v for n, v in found.items() if len(v) == len(subject.backends)}


def _flat(trace: Trace) -> Values:
    terms = {f"log p of {n!r}": v for n, v in trace.log_p.items()}
    terms |= {f"log q of {n!r}": v for n, v in trace.log_q.items()}
    terms |= {f"KL of {n!r}": v.sum(-1) for n, v in trace.kl.items()}
    return terms if trace.marginal is None else {**terms, "log w": trace.marginal}


def latent_draws(subject: Subject) -> Values:
    """Draws of the latents of a program: the same for every reading. Enumerated latents are left out."""
    terms = subject.once(
        "latents", lambda: subject.bench(subject.program, subject.quick).trace(subject.data, PARTICLES)
    )
    enumerated = lambda v: terms.marginal is not None and v.shape[1:3] == (1, 1)
    return {n: v for n, v in terms.values.items() if not enumerated(v)}


# --- particles, training, saving --------------------------------------------------------------------------------------


def particles(subject: Subject, backend: str) -> str:
    """The terms of a particle and a row depend on nothing else: they are the same among copies of the row."""
    if subject.one_way:
        raise NotHere("its draws alone can be scored")
    bench, data, values = subject.bench(subject.program, backend), subject.data, latent_draws(subject)
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


def training(subject: Subject, backend: str) -> str:
    """After twenty training steps, everything is finite."""
    result = trained(subject, backend)
    if result.info["skipped"] or not np.isfinite(result.history["objective"]).all():
        raise Broken(f"{result.info['skipped']} of {STEPS} steps were not finite; expected none.")
    return f"{STEPS} steps, ELBO {result.history['elbo'][0]:.2f} to {result.history['elbo'][-1]:.2f}"


def trained(subject: Subject, backend: str) -> Fit:
    """The program after some steps."""
    options: dict[str, Any] = {"steps": STEPS, "batch_size": DATA, "seed": subject.seed, "device": "cpu"}
    found: Fit = subject.once(
        ("fit", backend), lambda: fit(subject.program, subject.data, backend=backend, progress=False, **options)
    )
    return found


def saved(subject: Subject) -> str:
    """A run that was saved on one backend loads on the other, with the same parameters and log-weights."""
    first, last = subject.backends[0], subject.backends[-1]
    result = trained(subject, first)
    with tempfile.TemporaryDirectory() as folder:
        path = result.save(Path(folder) / "run")
        program = None if subject.as_text else subject.program
        opened = load(path, last, program=program, classes=subject.classes, device="cpu")
    same = opened.params.keys() == result.params.keys()
    if not same or any(opened.params[n].tobytes() != v.tobytes() for n, v in result.params.items()):
        raise Broken("parameters are not the same after load; every one must be declared in build().")
    if subject.as_text and opened.program != subject.program:
        raise Broken(f"got {opened.program!r} after load, expected the same program.")
    if subject.one_way:
        return f"{first} to {last}: parameters"
    values, worst = latent_draws(subject), 0.0
    benches = subject.bench(subject.program, first), Bench(opened.program, last, opened.params, subject.seed)
    mine, its = (_flat(b.trace(subject.data, PARTICLES, values, True, "float32", result.params)) for b in benches)
    for name in mine.keys() & its.keys():
        worst = max(worst, _apart(mine[name], its[name]))
    if not worst <= subject.tolerance:
        raise Broken(f"terms differ by {worst:.1e}, relative, after load on {last}; expected {subject.tolerance:.0e}.")
    return f"{first} to {last}: terms within {worst:.0e}"
