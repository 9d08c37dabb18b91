"""The report of a check: one line for each invariant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One invariant of one part.

    Attributes:
        invariant: its name, as in `INVARIANTS` and in `skip`.
        where: the backend, or "both".
        passed: whether it holds; None if it was not checked, for the reason in `measured`.
        measured: what was found, in words and numbers.
    """

    invariant: str
    where: str
    passed: bool | None
    measured: str

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "–"}[self.passed]
        return f"{word:<7} {self.invariant:<10} {self.where:<8} {self.measured}"


@dataclass(frozen=True)
class Report:
    """All invariants of one part.

    Attributes:
        part: what was checked, as text.
        results: one for each invariant, or one for each invariant and backend if it is checked on each backend.
    """

    part: str
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Result, ...]:
        """The results that failed."""
        return tuple(r for r in self.results if r.passed is False)

    def __str__(self) -> str:
        return "\n".join([self.part, *map(str, self.results)])
