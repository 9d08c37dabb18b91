"""What a run measures every few epochs: the KL of each site, active units, mutual information."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ppdgm.data import take
from ppdgm.diagnostics import active_units
from ppdgm.diagnostics.arrays import some_rows
from ppdgm.diagnostics.codebook import code_use
from ppdgm.errors import PpdgmError, TrainingError
from ppdgm.inference.evaluation.estimates import parse_memory
from ppdgm.inference.evaluation.evaluator import Evaluator
from ppdgm.inference.evaluation.information import mutual_information
from ppdgm.inference.evaluation.latents import by_latent
from ppdgm.inference.evaluation.means import plain_means
from ppdgm.inference.evaluation.numbered import numbered
from ppdgm.inference.evaluation.terms import read_terms
from ppdgm.inference.inputs.feed import Feed
from ppdgm.language.runtime import Runtime
from ppdgm.language.tracer import Params

if TYPE_CHECKING:
    from ppdgm.specs import Table

ROWS, ACTIVE = 500, 0.01  # rows that are used, and a dimension is active if its means vary more than this


@dataclass
class Monitor:
    """The measurements so far, on a random choice of the validation data, or of the training data if there are none.

    Args:
        runtime: of the program.
        feed: of the data, as the steps see them; see `with_bits`.
        every: steps.
    """

    runtime: Runtime
    feed: Feed
    every: int
    steps: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    def look(self, params: Params, step: int) -> None:
        """Measure, and save the values."""
        started = time.perf_counter()
        for name, value in self.measure(params).items():
            self.values.setdefault(name, []).append(value)
        self.steps.append(step)
        self.seconds += time.perf_counter() - started

    def measure(self, params: Params) -> dict[str, float]:
        """By name: "live_kl_SITE" in nats, "live_active_SITE" and "live_information" in nats, at most log 500.

        Of codes also the number that are used, "live_codes_SITE", and "live_perplexity_SITE".
        """
        few = Feed(self.runtime, take(self.feed.fields, some_rows(self.feed.size, ROWS)))
        evaluator = Evaluator(self.runtime, params, few, parse_memory("auto", self.runtime.device))
        terms, means = read_terms(evaluator, 1), plain_means(evaluator)[0]
        found = {f"live_kl_{n}": float(v.mean(0).sum()) for n, v in terms.kl.items()}
        there = [n for n in terms.kl if n in means and n not in evaluator.without_meaning]
        codes = {n: by_latent(means[n], terms.latents.get(n)) for n in there}
        found |= {f"live_active_{n}": float(active_units(v, ACTIVE).count) for n, v in codes.items()}
        for name, size in numbered(evaluator.program).items():
            use = code_use(means[name].argmax(-1), size)
            found |= {f"live_codes_{name}": float(use.used), f"live_perplexity_{name}": use.perplexity}
        with suppress(PpdgmError):  # a flow without an inverse knows its density only at its own draws
            found["live_information"] = mutual_information(self.runtime, params, few)
        return found

    def check(self, params: Params) -> None:
        """Refuse a program for which nothing can be measured.

        Raises:
            TrainingError: latents that all rows share, enumerated ones, or none.
        """
        try:
            self.measure(params)
        except PpdgmError as error:
            raise TrainingError(f"diagnose_epochs: {error} Leave it out.") from None

    @property
    def latest(self) -> dict[str, float]:
        """The last measurement."""
        return {n: self.values[n][-1] for n in sorted(self.values) if self.values[n]}

    def history(self) -> dict[str, np.ndarray]:
        """All measurements, as arrays."""
        found = {n: np.array(self.values[n], float) for n in sorted(self.values)}  # a page is read in this order too
        return {"live_step": np.array(self.steps, int), **found}

    def page(self) -> dict[str, object]:
        """Its state as plain values."""
        return {"steps": self.steps, "values": self.values, "seconds": self.seconds}

    def restore(self, page: Table) -> None:
        """Continue from what `page` gave."""
        self.steps, self.seconds = list(page["steps"]), page["seconds"]
        self.values = {n: list(v) for n, v in page["values"].items()}
