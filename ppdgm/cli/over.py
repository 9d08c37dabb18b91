"""`--over path=8,16,32` and `--over seed=0..4`: fields of a recipe, with the values that they take in turn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from ppdgm.errors import SpecError

MOST = 10_000  # values of one field, and runs
Values = Mapping[str, str]  # path -> a value, as --set takes it
_WHOLE = re.compile(r"([+-]?\d+)\.\.([+-]?\d+)")
_NUMBERS = re.compile(r"([+-]?[\d.]*\d(?:e[+-]?\d+)?)\.\.([+-]?\.?\d[\d.]*(?:e[+-]?\d+)?)", re.IGNORECASE)
_OPEN, _CLOSE = "[{(", "]})"


@dataclass(frozen=True)
class Span:
    """All numbers between two, for a search.

    Attributes:
        low, high: both included.
        whole: whether only whole numbers are meant.
    """

    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        """Whether numbers are drawn on a logarithmic scale: from 1e-4 to 1e-2, not from 8 to 64."""
        return not self.whole and self.low > 0 and self.high / self.low >= 10


@dataclass(frozen=True)
class Over:
    """A field, and its values.

    Attributes:
        path: in the recipe.
        values: as text, or a span.
    """

    path: str
    values: tuple[str, ...] | Span

    @property
    def ends(self) -> tuple[str, ...]:
        """All values of a list; the ends of a span."""
        if not isinstance(self.values, Span):
            return self.values
        return as_text(self.values.low, self.values.whole), as_text(self.values.high, self.values.whole)


def as_text(number: float, whole: bool) -> str:
    """A number as --set takes it."""
    return str(int(number)) if whole else repr(float(number))


def parse_over(text: str, short: Iterable[str] = (), search: bool = False) -> Over:
    """The field and the values of "path=values".

    Args:
        text: values with commas between them; a..b are the whole numbers from a to b. Commas within brackets and
            quotes belong to a value.
        short: names of training's fields, which need no "training." before them.
        search: whether a single range is a span, in which a search chooses numbers.

    Raises:
        SpecError: it is not of this form, or has a value twice.
    """
    path, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not path or not values:
        raise SpecError(f"--over: got {text!r}, expected PATH=VALUES, such as program.latent=8,16,32 or seed=0..4.")
    path = f"training.{path}" if path in short else f"{path}.kind" if path == "engine" else path
    items = list(_split(values, text))
    if search and len(items) == 1 and (span := _span(items[0], text)):
        return Over(path, span)
    found = [v for item in items for v in _expanded(item, text)]
    if twice := next((v for i, v in enumerate(found) if v in found[:i]), None):
        raise SpecError(f"--over: {text!r} has the value {twice} twice. Give each value once.")
    return Over(path, tuple(found))


def combinations(overs: Iterable[Over]) -> list[dict[str, str]]:
    """The product of the values: the last field changes fastest; of spans, only the ends.

    Raises:
        SpecError: there are too many.
    """
    overs, count = list(overs), 1
    for over in overs:
        count *= len(over.ends)
    if count > MOST:
        raise SpecError(f"--over: got {count:,} combinations of values, expected at most {MOST:,}.")
    return [dict(zip([o.path for o in overs], values, strict=True)) for values in product(*(o.ends for o in overs))]


def name_of_values(values: Values, taken: Iterable[str] = ()) -> str:
    """A folder's name that says the values: "latent=8,seed=0"."""
    lasts = [path.rpartition(".")[2] for path in values]
    short = {path: path if lasts.count(last) > 1 else last for path, last in zip(values, lasts, strict=True)}
    name = ",".join(f"{short[path]}={_plain(value)}" for path, value in values.items())[:150]
    taken, n, found = set(taken), 1, name
    while found in taken:
        n += 1
        found = f"{name}-{n}"
    return found


def _plain(value: str) -> str:
    """A value in a folder's name: without signs that shells and file systems have other uses for, and not long."""
    if len(value) > 8 and re.fullmatch(r"-?\d*\.\d{5,}(e[+-]?\d+)?|-?\d\.?\d*e[+-]?\d+", value):
        value = f"{float(value):.4g}"
    value = re.sub(r"[\[\](){}\"']", "", value)
    return re.sub(r"[^\w.+-]+", "-", value)[:40].lstrip(".").rstrip("-.") or "-"


def _split(values: str, text: str) -> Iterator[str]:
    """Parts between commas that are not within brackets or quotes."""
    depth, quote, start = 0, "", 0
    for i, sign in enumerate(values):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in _OPEN + _CLOSE:
            depth += 1 if sign in _OPEN else -1
        elif sign == "," and depth == 0:
            yield _part(values[start:i], text)
            start = i + 1
    yield _part(values[start:], text)


def _part(part: str, text: str) -> str:
    if not part.strip():
        raise SpecError(f"--over: {text!r} has an empty value. Write values with single commas between them.")
    return part.strip()


def _expanded(item: str, text: str) -> Iterable[str]:
    if not (span := _span(item, text)):
        return [item]
    if not span.whole:
        raise SpecError(
            f"--over: {text!r} has a range of numbers that are not whole, which is no list of values. List the values, "
            "or let a search choose them: --trials N."
        )
    if span.high - span.low >= MOST:
        raise SpecError(f"--over: {text!r} has more than {MOST:,} values.")
    return [str(n) for n in range(int(span.low), int(span.high) + 1)]


def _span(item: str, text: str) -> Span | None:
    """The range a..b, or None for another value."""
    whole = _WHOLE.fullmatch(item)
    found = whole or _NUMBERS.fullmatch(item)
    if not found:
        return None
    try:
        low, high = (int(n) if whole else float(n) for n in found.groups())
    except ValueError:
        return None
    if low >= high:
        raise SpecError(f"--over: {text!r} has the range {item}, expected the smaller number first.")
    return Span(low, high, bool(whole))
