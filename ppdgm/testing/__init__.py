"""The contract suite: properties that every part must have. Run it on your own parts."""

from ppdgm.testing.contract import INVARIANTS, check
from ppdgm.testing.report import Report, Result

__all__ = ["INVARIANTS", "Report", "Result", "check"]
