"""A fit as a notebook shows it: what it is, its curve, its settings, its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ppdgm import markup
from ppdgm.inference.runs.settings import Training
from ppdgm.program import AnyProgram, Program

if TYPE_CHECKING:
    from ppdgm.data import Source
    from ppdgm.inference.engines.engine import Engine

Lines = dict[str, tuple[np.ndarray, np.ndarray]]
_APART = ("step", "phase", "skipped_step")


class FitShown(Protocol):
    """What is shown of a fit."""

    @property
    def program(self) -> AnyProgram: ...
    @property
    def params(self) -> Mapping[str, np.ndarray]: ...
    @property
    def backend(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def engine(self) -> Engine | None: ...
    @property
    def history(self) -> Mapping[str, np.ndarray]: ...
    @property
    def info(self) -> Mapping[str, Any]: ...
    @property
    def stopped(self) -> str: ...
    @property
    def training(self) -> Training: ...
    @property
    def data(self) -> Source | None: ...


def fit_as_html(fit: FitShown) -> str:
    """The HTML of a fit; nothing is computed for it."""
    history = fit.history
    watched = next((n for n in history if n.startswith("validation_") and n != "validation_step"), None)
    others = [n for n in history if n not in _APART and not n.startswith(("live_", "validation_"))]
    metric: str | None = next((n for n in ["elbo", "objective", *others] if n in history), None)
    lines: Lines = {metric: (history["step"], history[metric])} if metric and "step" in history else {}
    if watched:
        lines[watched.replace("_", " ")] = history["validation_step"], history[watched]
    program = fit.program
    own = isinstance(program, Program)
    labels = {n: p.label for n, p in program.declarations().params.items()} if isinstance(program, Program) else {}
    title = f"{type(program).__name__ if own else 'Plain pair'} on {fit.backend}: {_steps(fit)}, {fit.stopped}"
    facts = {
        "engine": None if fit.engine is None else type(fit.engine).__name__,
        "data": fit.data.name if fit.data else None,
        "rows": fit.info.get("data_size"),
        "device": fit.info.get("device", fit.device),
        "skipped steps": fit.info.get("skipped") or None,
        **_figures(metric, watched, fit),
    }
    default = Training()
    changed = {n: v for n in Training.model_fields if (v := getattr(fit.training, n)) != getattr(default, n)}
    settings = [markup.details("settings", markup.fields(changed))] if changed else []
    engine = [markup.details("engine", markup.fields({"engine": fit.engine}))] if fit.engine is not None else []
    shapes = {n: np.shape(v) for n, v in fit.params.items()}
    return markup.box(
        title,
        markup.facts(facts),
        markup.lines_over_steps(lines),
        markup.details("program", markup.fields({"program": program})),
        *engine,
        *settings,
        markup.parameters(shapes, labels),
    )


def _steps(fit: FitShown) -> str:
    count = fit.info.get("steps", 0)
    return f"{count:,} step{'' if count == 1 else 's'}"


def _figures(metric: str | None, watched: str | None, fit: FitShown) -> dict[str, object]:
    """The last mean of the metric in training, and the best or last validation, of the parameters that the fit has."""
    found: dict[str, object] = {}
    if metric and len(last := fit.history[metric][-100:]) and np.isfinite(last).any():
        found[f"{metric} in training, mean of the last {len(last)} steps"] = f"{last[np.isfinite(last)].mean():,.4g}"
    if watched and len(values := fit.history[watched]):
        criterion = None if fit.engine is None else fit.engine.criterion()
        best = np.nanmin if criterion is not None and criterion.smaller else np.nanmax
        value = best(values) if fit.training.keep_best and np.isfinite(values).any() else values[-1]
        found[f"{watched.replace('_', ' ')}, {'best' if fit.training.keep_best else 'last'}"] = f"{value:,.4g}"
    return found
