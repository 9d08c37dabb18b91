"""`check(part)`: every invariant that applies to a part, on every backend that is installed."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ppdgm.errors import ContractError, PpdgmError, nearest, require
from ppdgm.models import Flow, Likelihood, Net, Part, Posterior, Prior, Program
from ppdgm.registry import INSTALL
from ppdgm.specs import Spec
from ppdgm.testing import alone, flows, gradients, moments, whole
from ppdgm.testing.broken import Broken, NotHere
from ppdgm.testing.part_case import DataOf, PartCase
from ppdgm.testing.report import Report, Result


@dataclass(frozen=True)
class Invariant:
    """A property that must hold.

    Attributes:
        look: (case) or (case, backend) -> what was measured, as text; raises `Broken` or `NotHere`.
        of: the families of specs that it applies to.
    """

    look: Callable[..., str]
    of: tuple[type[Spec], ...]

    @property
    def meaning(self) -> str:
        """The property, in one line."""
        return inspect.getdoc(self.look) or ""

    @property
    def each(self) -> bool:
        """Whether it is checked on each backend separately."""
        return len(inspect.signature(self.look).parameters) == 2


_ALL: tuple[type[Spec], ...] = (Program, Part, Net, Flow)
_DENSITY: tuple[type[Spec], ...] = (Part, Flow)
INVARIANTS = {
    "spec": Invariant(whole.spec, _ALL),
    "initial": Invariant(whole.initial, _ALL),
    "parity": Invariant(whole.parity, _ALL),
    "density": Invariant(alone.density, _DENSITY),
    "samples": Invariant(alone.draws_follow_density, _DENSITY),
    "kl": Invariant(moments.kl_agrees, (Program, Prior, Posterior)),
    "mean": Invariant(moments.mean_agrees, (Part,)),
    "mode": Invariant(moments.mode, (Prior, Posterior)),
    "jacobian": Invariant(flows.jacobian, (Flow,)),
    "inverse": Invariant(flows.inverse, (Flow,)),
    "extremes": Invariant(alone.finite_at_extremes, (*_DENSITY, Net)),
    "leading": Invariant(alone.leading_dimensions, _DENSITY),
    "particles": Invariant(whole.particles, _ALL),
    "gradient": Invariant(gradients.gradient, _ALL),
    "slopes": Invariant(gradients.slopes, _ALL),
    "training": Invariant(whole.training, _ALL),
    "saved": Invariant(whole.saved, _ALL),
}  #: name -> what must hold


def check(
    part: Spec,
    *,
    shape: tuple[int, ...] | None = None,
    inputs: tuple[int, ...] | None = None,
    data: DataOf = None,
    still: Mapping[str, str] | Iterable[str] = (),
    skip: Iterable[str] = (),
    tolerance: float = 1e-5,
    seed: int = 0,
    backends: Iterable[str] | None = None,
    raises: bool = True,
) -> Report:
    """Check your own prior, posterior, likelihood, net, flow or program: does it do all that ppdgm needs?

    A part is put into small programs, and noise is added to its first values. `INVARIANTS` lists what must hold.

    Args:
        part: an instance. Give it small sizes: a few components, narrow nets.
        shape: the shape of one draw of a prior, posterior, likelihood or flow, (2,) by default: densities of more than
            two numbers are integrated by Monte Carlo only. For a net, the shape of its outputs.
        inputs: the shape of a net's inputs; for a prior that is made of posteriors, the shape of their inputs.
        data: data for a program, by name, [N, …], or a function (rng, size) that gives them; by default its own draws.
        still: parameters whose gradient may be zero, or "head"; if you like, each with the reason.
        skip: names of invariants that need not hold.
        tolerance: relative difference that is allowed between float32 numbers on the two backends.
        seed: the seed of everything random.
        backends: the backends to check on; by default all that are installed.
        raises: whether a failure is an error.

    Returns:
        A report with one line for each invariant.

    Raises:
        ContractError: some invariant does not hold; the message lists all of them.
        PpdgmError: the argument can't be checked at all.
    """
    if not isinstance(part, Program | Prior | Posterior | Likelihood | Net | Flow):
        raise PpdgmError(
            f"check: got {part!r}, expected an instance of a prior, posterior, likelihood, net, flow or program, such "
            "as MyPrior()."
        )
    require("seed", seed, int, 0, "a whole number, at least 0")
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    if unknown := [n for n in skip if n not in INVARIANTS]:
        raise PpdgmError(f"skip: no invariant is called {unknown[0]!r}. {nearest(unknown[0], INVARIANTS)}")
    case = PartCase(
        spec=part,
        shape=tuple(shape or (2,)),
        inputs=tuple(inputs or (3,)),
        given=data,
        still=dict(still) if isinstance(still, Mapping) else dict.fromkeys(still, ""),
        tolerance=tolerance,
        seed=seed,
        backends=tuple(backends or INSTALL),
    )
    if isinstance(part, Program):
        _ = case.data  # bad data are refused before anything is checked
    results = [Result("backend", name, None, reason) for name, reason in case.missing.items()]
    for name, invariant in INVARIANTS.items():
        if isinstance(part, invariant.of):
            results += _look(name, invariant, case, name in skip)
    report = Report(repr(part), tuple(results))
    if raises and not report.passed:
        causes: dict[str, list[str]] = {}
        for r in report.failures:
            causes.setdefault(r.measured, []).append(f"{r.invariant} ({r.where})")
        failed = "\n".join(f"  {', '.join(where)}: {told}" for told, where in causes.items())
        raise ContractError(f"{type(part).__name__} does not keep what every {_family(part)} must:\n{failed}")
    return report


def _look(name: str, invariant: Invariant, case: PartCase, skipped: bool) -> list[Result]:
    """The results of one invariant. An exception of a part is a failure, and the check goes on."""
    found = []
    for where in case.backends if invariant.each else ("both",):
        if skipped:
            found.append(Result(name, where, None, "skipped"))
            continue
        passed: bool | None = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about numbers that are not finite: these are reported anyway
                told = invariant.look(case, where) if invariant.each else invariant.look(case)
        except Broken as error:
            passed, told = False, str(error)
        except NotHere as error:
            passed, told = None, str(error)
        except Exception as error:
            passed, told = False, f"raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        found.append(Result(name, where, passed, told))
    return found


def _family(part: Spec) -> str:
    names = {Program: "program", Prior: "prior", Posterior: "posterior", Likelihood: "likelihood", Flow: "flow"}
    return next((word for cls, word in names.items() if isinstance(part, cls)), "net")
