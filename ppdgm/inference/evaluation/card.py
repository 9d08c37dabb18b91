"""The model card of a run: Markdown below a header in YAML, as model hubs read it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.plus_minus import plus_minus
from ppdgm.inference.runs.folder import versions
from ppdgm.program import PlainPair
from ppdgm.registry import is_pair

if TYPE_CHECKING:
    from ppdgm.inference.evaluation.estimates import Estimate
    from ppdgm.inference.evaluation.result import Fit

TO_FILL_IN = "*To be filled in by whoever shares this model.*"


def model_card(
    fit: Fit,
    name: str,
    licence: str | None,
    figures: Mapping[str, Estimate],
    held_out: str,
    why_none: str,
    pictures: Sequence[str],
    written: str,
) -> str:
    """The text of a model card.

    Args:
        fit: what is shared; its recipe names no place.
        name: of the model.
        licence: an identifier, or None.
        figures: estimates on held-out rows, by what they are.
        held_out: which rows these are.
        why_none: why a figure is missing; "" if none is.
        pictures: paths of pictures within the folder.
        written: the recipe as text.
    """
    program, engine = type(fit.program).__name__, type(fit.engine).__name__
    if isinstance(fit.program, PlainPair):
        program = f"plain {fit.backend} pair"
    size = sum(int(np.size(v)) for v in fit.params.values())
    parts = [
        _header(fit, licence),
        f"# {_plain(name)}",
        f"A {program} of {_package()}, trained with {engine} on the {fit.backend} backend. {_about(fit)}".strip(),
        "## How to load it",
        _loading(fit),
        "## Figures",
        *_figures(fit, figures, held_out, why_none),
        "## Data",
        _table(_data(fit)),
        _of_rows(fit),
        "## Training",
        _table({"steps": f"{fit.info.get('steps', 0):,}", "ended": fit.stopped, "parameters": f"{size:,}"}),
        "The recipe repeats the run, with the same data and the same versions of the packages:",
        f"```toml\n{written.strip()}\n```",
        *(f"![{p.rpartition('/')[2].partition('.')[0]}]({p})" for p in pictures),
        "## Intended use",
        TO_FILL_IN,
        "## Limitations",
        TO_FILL_IN,
        "## Licence",
        f"`{licence}`" if licence else "No licence was chosen. Without one, nobody else may use the model.",
    ]
    return "\n\n".join(parts) + "\n"


def _header(fit: Fit, licence: str | None) -> str:
    kinds = ["generative-model", "probabilistic-programming", fit.backend]
    tags = kinds + ([] if isinstance(fit.program, PlainPair) else [type(fit.program).__name__.lower()])
    lines = [f"license: {json.dumps(licence or 'unknown')}", "library_name: ppdgm", "tags:"]
    return "\n".join(["---", *lines, *(f"- {json.dumps(t)}" for t in tags), "---"])


def _package() -> str:
    return f"ppdgm {versions().get('ppdgm', '')}".strip()


def _about(fit: Fit) -> str:
    """The first paragraph of what the program's class says of itself."""
    if isinstance(fit.program, PlainPair):
        return ""
    text = vars(type(fit.program)).get("__doc__") or ""
    return _plain(" ".join(inspect.cleandoc(text).partition("\n\n")[0].split()))


def _loading(fit: Fit) -> str:
    kind = str(fit.recipe.table()["program"]["kind"])
    own = ", program=pair" if is_pair(kind) else ", classes=[…]" if ":" in json.dumps(_kinds(fit)) else ""
    told = {
        ", program=pair": "The pair itself is not in this folder: it is code. Ask whoever shares this model for it.",
        ", classes=[…]": "It has classes that are not ppdgm's: they are code, which is not in this folder.",
    }.get(own, "Loading runs no code from this folder and needs no data.")
    code = f'import ppdgm\n\nfit = ppdgm.load("FOLDER"{own})  # this folder, downloaded\nnew = fit.sample(16)'
    return f"```python\n{code}\n```\n\n{told}"


def _kinds(fit: Fit) -> list[str]:
    """All kinds that the recipe names."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, Mapping):
            found.append(str(value.get("kind", "")))
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)

    walk({n: v for n, v in fit.recipe.table().items() if n != "data"})
    return found


def _figures(fit: Fit, figures: Mapping[str, Estimate], held_out: str, why_none: str) -> list[str]:
    rows = []
    for name, e in figures.items():
        noise = "exact" if e.exact else "unknown" if np.isnan(e.monte_carlo_error) else f"{e.monte_carlo_error:.2g}"
        bits = "" if e.bits_per_dimension is None else f"{e.bits_per_dimension:.4f}"
        of = f"{name}, of {e.of}" if e.of else name
        value = plus_minus(e.mean, e.standard_error, 3)
        rows.append((of, value, f"{len(e.values):,}", "" if e.exact else f"{e.k:,}", noise, bits))
    found = []
    if rows:
        head = ("", "nats per row, ± standard error over rows", "N", "K", "Monte Carlo error", "bits/dim")
        width = len(head) if any(r[-1] for r in rows) else len(head) - 1
        lines = ["| " + " | ".join(r[:width]) + " |" for r in (head, *rows)]
        lines.insert(1, "|" + "---|" * width)
        found += [f"On {_plain(held_out)}:", "\n".join(lines)]
        found += ["K is the number of particles for each row. The Monte Carlo error is that of the mean."]
    found += [_plain(why_none)] if why_none else []
    watched = [n for n in fit.history if n.startswith("validation_") and n != "validation_step"]
    for key in watched:
        values = fit.history[key][np.isfinite(fit.history[key])]
        if len(values):
            smaller = fit.engine is not None and getattr(fit.engine.criterion(), "smaller", False)
            best = values.min() if smaller else values.max()
            found.append(f"Best {key.replace('_', ' ')} during training: {best:.3f} ({len(values)} validations).")
    return found


def _data(fit: Fit) -> dict[str, object]:
    shapes = fit.info.get("shapes") or dict.fromkeys(fit.info.get("fields", ()), "")
    found: dict[str, object] = {"name": _plain(fit.data.name) if fit.data else "given in Python"}
    found |= {"rows for training": f"{fit.info['data_size']:,}"} if "data_size" in fit.info else {}
    found |= {f"field `{_plain(n)}`, shape of a row": tuple(s) if s != "" else "–" for n, s in shapes.items()}
    if fit.transform is not None:
        found["preparation of x"] = f"{fit.transform.in_words() or 'none'}; binarise: {fit.transform.binarise}"
    if "fingerprint" in fit.info:
        found["SHA-256 of the training data, as prepared"] = f"`{fit.info['fingerprint']}`"
    return found


def _of_rows(fit: Fit) -> str:
    began = "VampPrior" in _kinds(fit) and '"initial": "random"' not in json.dumps(fit.recipe.table())
    also = " But the pseudo-inputs of its VampPrior, which are in the weights, began at some of their rows."
    return "The training data are not in this folder." + (also if began else "")


def _table(facts: Mapping[str, object]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {n} | {v} |" for n, v in facts.items())])


def _plain(text: object) -> str:
    """Text without what Markdown or HTML would read as its own."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", " ".join(str(text).split()))
