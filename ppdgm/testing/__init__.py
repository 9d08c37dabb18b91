"""The contract suite: what every part must keep, to be run on parts of your own."""

from ppdgm.testing.contract import INVARIANTS, check
from ppdgm.testing.report import Report, Result

__all__ = ["INVARIANTS", "Report", "Result", "check"]
