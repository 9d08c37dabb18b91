"""The parts of a report's page that are not figures: verdict, numbers, tables, recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.diagnostics.bits import bits_per_dimension

if TYPE_CHECKING:
    from ppdgm.diagnostics.arrays import Measured
    from ppdgm.diagnostics.found import EstimateLike, Found

_MARKS = {"good": "✓", "warning": "!", "bad": "✗"}
_WORDS = {"good": "good", "warning": "to look at", "bad": "bad"}


def words(text: object) -> str:
    """Text for the page: escaped, with − as the minus of numbers."""
    return escape(re.sub(r"(?<![\w.)\]-])-(?=\.?\d)", "−", str(text)))


def number(value: float, digits: int = 2) -> str:
    """A number with `digits` digits; a dash if it is not finite."""
    return f"{value:,.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def verdict(found: Found) -> str:
    """The findings, the worst first, below one line that counts them."""
    findings = found.verdict
    if not findings:
        return '<p class="card">There is no verdict: none of the chosen parts leads to one.</p>'
    count = {grade: sum(f.grade == grade for f in findings) for grade in ("bad", "warning", "good")}
    told = ", ".join(f"{n} {_WORDS[grade]}" for grade, n in count.items() if n)
    rows = []
    for f in findings:
        advice = f'<p class="advice">{words(f.advice)}</p>' if f.advice else ""
        rows.append(
            f'<li class="{f.grade}"><span class="mark" aria-hidden="true">{_MARKS[f.grade]}</span><div>'
            f'<p><span class="unseen">{_WORDS[f.grade]}: </span><strong>{words(f.about)}</strong>: {words(f.text)}</p>'
            f"{advice}</div></li>"
        )
    return f'<p class="count">{told}</p><ul class="card verdict">{"".join(rows)}</ul>'


def key_numbers(found: Found) -> str:
    """The most important numbers, in boxes."""
    boxes = "".join(
        f"<div><dt>{words(name)}</dt><dd>{words(value)}<small>{words(beside)}</small></dd></div>"
        for name, value, beside in _numbers(found)
    )
    return f'<dl class="card numbers">{boxes}</dl>' if boxes else ""


def _numbers(found: Found) -> Iterable[tuple[str, str, str]]:
    for value, name in ((found.log_likelihood, "log p(x)"), (found.elbo, "ELBO")):
        if value is not None:
            error = value.standard_error  # a single row has none
            of = f" of {value.of}" if value.of else ""
            beside = f"nats{of}" if error != error else f"± {number(error)} nats{of}"
            yield name, number(value.mean), beside + _bits(value, value.mean)
    if found.baseline is not None:
        mean = float(found.baseline.values.mean())
        yield "independent columns", number(mean), f"nats{_bits(found.log_likelihood, mean)}"
    if found.surgery is not None:
        s = found.surgery
        yield "mutual information", number(s.mutual_information.value), f"of {number(s.kl.value)} nats of KL"
    if found.use is not None:
        used, size = (sum(int(a(s)) for s in found.use.sites) for a in (lambda s: s.used.sum(), lambda s: len(s.used)))
        yield "latents in use", f"{used} of {size}", "dimensions"
    if (w := found.weights) is not None:
        k = np.where(np.isnan(w.pareto_k), -np.inf, w.pareto_k)
        yield "k̂ above 0.7", f"{np.sum(k > 0.7):,}", f"of {len(k):,} rows"
        yield "median ESS", number(float(np.median(w.effective_sample_size)), 0), f"of {w.k:,} draws"
    if found.gaps is not None:
        yield "inference gap", number(found.gaps.inference.value), "nats"


def _bits(bound: EstimateLike | None, mean: float) -> str:
    """A mean in bits per dimension, if the bound is on a probability of whole numbers; else nothing."""
    if bound is None or bound.dimensions is None:
        return ""
    return f" · {number(bits_per_dimension(mean, bound.dimensions), 4)} bits/dim"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], total: int | None = None) -> str:
    """A table of text; all columns but the first are aligned right.

    Args:
        head: the heads of the columns; if empty, the table has none.
        rows: text, which is escaped.
        total: index of the row that is highlighted.
    """
    first = "".join(f'<th scope="col">{words(h)}</th>' for h in head)
    body = ""
    for i, (name, *cells) in enumerate(rows):
        columns = "".join(f'<td class="number">{words(c)}</td>' for c in cells)
        kind = ' class="total"' if i == total else ""
        body += f'<tr{kind}><th scope="row">{words(name)}</th>{columns}</tr>'
    heading = f"<thead><tr>{first}</tr></thead>" if head else ""
    return f"<table>{heading}<tbody>{body}</tbody></table>"


def surgery(found: Found) -> str:
    """The parts of the ELBO."""
    if (s := found.surgery) is None:
        return ""
    named = (
        ("reconstruction", s.reconstruction),
        ("− mutual information", s.mutual_information),
        ("− marginal KL", s.marginal_kl),
        ("= ELBO", s.elbo),
    )
    rows = [(name, number(m.value), _error(m)) for name, m in named]
    return table(("", "nats per row", "± error"), rows, 3)


def gaps(found: Found) -> str:
    """The parts of the inference gap."""
    if (g := found.gaps) is None:
        return ""
    least = ", at least" if g.unknown else ""
    named = (
        (f"approximation gap{least}", g.approximation),
        ("+ amortisation gap", g.amortisation),
        (f"= inference gap{least}", g.inference),
    )
    rows = [(name, number(m.value), _error(m)) for name, m in named]
    return table(("", "nats per row", "± error"), rows, 2)


def coverage(found: Found) -> str:
    """How often intervals contain the truth, by level and site."""
    if not found.coverage:
        return ""
    levels = next(iter(found.coverage.values())).levels
    rows = [(name, *(f"{share:.1%}" for share in c.overall)) for name, c in found.coverage.items()]
    return table(("intervals of", *(f"{level:.0%}" for level in levels)), rows)


def annealing(found: Found) -> str:
    """The bracket, in words."""
    if (b := found.bracket) is None:
        return ""
    return (
        f"<p><strong>Annealed importance sampling</strong>, on data simulated from the model: {words(b)}. It bounds "
        "log p(x) from both sides without the guide. These are not the data of the table above.</p>"
    )


def withheld(reasons: Mapping[str, str]) -> str:
    """The parts that are not available, with the reasons."""
    rows = "".join(f"<p><strong>{words(name)}</strong>: {words(why)}</p>" for name, why in reasons.items())
    return f'<div class="card">{rows}</div>'


def colophon(found: Found) -> str:
    """The recipe, the versions, and the time that each part took."""
    parts = []
    if found.recipe:
        text = f"<pre><code>{escape(found.recipe)}</code></pre>"
        parts.append(f'<details class="card"><summary>Recipe (TOML)</summary>{text}</details>')
    both = []
    if found.versions:
        both.append(f'<div class="card"><h3>Versions</h3>{table((), found.versions.items())}</div>')
    if found.seconds:
        rows = [(name, f"{value:,.1f}") for name, value in found.seconds.items()]
        rows.append(("all", f"{sum(found.seconds.values()):,.1f}"))
        both.append(f'<div class="card"><h3>Seconds</h3>{table((), rows, len(rows) - 1)}</div>')
    if both:
        parts.append(f'<div class="two">{"".join(both)}</div>')
    return "".join(parts)


def _error(measured: Measured) -> str:
    return number(measured.error)
