"""Names, in types, for what a user gives as data, and for what is learned from data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ppdgm.data.classes import Classes
from ppdgm.data.transform import Transform
from ppdgm.language.native import Array

Data = Array | Mapping[str, Array]  # arrays of any library, lists, tables and Streams; a single one is x
Outward = Callable[[Mapping[str, Array]], dict[str, Array]]  # observed sites in the user's own units
Coding = Transform | Classes
Codings = Mapping[str, Coding]  # by field; that of x is a Transform
