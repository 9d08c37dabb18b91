"""The errors that ppdgm raises. Each message says what was received, what was expected and what to do."""

from __future__ import annotations

import difflib
import numbers
import os
import re
import traceback
import unicodedata
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, ClassVar

_NAMES = 30  # the most names in a message
_LARGEST = 2**63 - 1


class PpdgmError(Exception):
    """Base of every error that ppdgm raises on purpose.

    Every message is made here: what it shows of the user's values is not too long, and can't move a terminal's cursor.
    """

    longest: ClassVar[int] = 1_500  #: characters of a message
    breaks: ClassVar[str] = ""  #: control characters that it may have

    def __init__(self, *told: object) -> None:
        super().__init__(*(_tidy(t, self.longest, self.breaks) if isinstance(t, str) else t for t in told))


class SpecError(PpdgmError, ValueError):
    """A field of a spec has a value that is not allowed."""


class ProgramError(PpdgmError, ValueError):
    """A program's model and guide do not fit each other, or a site's shape does not fit its plate."""


class NoMean(ProgramError):
    """No mean of a latent is known; use the mean of draws instead."""


class DataError(PpdgmError, ValueError):
    """Data that the program can't be trained or judged on."""


class TrainingError(PpdgmError, RuntimeError):
    """A training run that can't start or can't go on."""


class CheckpointError(PpdgmError, ValueError):
    """A run folder that can't be read."""


class UnsupportedByBackend(PpdgmError, NotImplementedError):
    """What one backend can't do, with the reason. It is also Python's own error for what is not implemented."""


class ContractError(PpdgmError, AssertionError):
    """A part that breaks a rule that `ppdgm.testing.check` tests; one line for each finding."""

    longest = 10_000
    breaks = "\n"


class PackageMissing(PpdgmError, ImportError):
    """Something needs a package that is not installed; the message gives the command that installs it."""


class BackendMissing(PackageMissing):
    """A backend whose packages are not installed."""


def require(name: str, value: Any, kind: type | tuple[type, ...], least: float | None, expected: str) -> None:
    """Refuse an argument that is not of `kind`, or is below `least`.

    Raises:
        PpdgmError: names the argument, what was received and what was expected.
    """
    kind = numbers.Integral if kind is int else kind  # NumPy's too
    right = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    # Python's whole numbers have no limit: beyond these, neither NumPy nor a backend has them.
    right = right and not (isinstance(value, numbers.Integral) and abs(int(value)) > _LARGEST)
    if not right or (least is not None and value < least):
        raise PpdgmError(f"{name}: got {shown(value)}; expected {expected}.")


def one_of(name: str, value: object, known: Iterable[str]) -> None:
    """Refuse an argument that is none of the known words.

    Raises:
        PpdgmError: names the argument, what was received and the known words.
    """
    words = list(known)
    if not isinstance(value, str) or value not in words:
        raise PpdgmError(f"{name}: got {shown(value)}. {nearest(value if isinstance(value, str) else '', words)}")


def items(value: Any) -> list[Any] | None:
    """The items of a value, as a list; None if it has none, such as a number in an array."""
    try:
        return list(value)
    except TypeError:
        return None


def shown(value: object) -> str:
    """A value as Python writes it, or only its type if that is too long for a line, or fails."""
    try:
        text = _ADDRESS.sub("", repr(value))
    except Exception:  # an object of the user's, or a number with more digits than Python writes
        text = ""
    return text if 0 < len(text) <= 80 and len(text.splitlines()) == 1 else f"{type(value).__name__}(…)"


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the known word closest to `name`, or lists the known words if none is close."""
    known = sorted(map(str, known))
    close = closest(str(name), known)
    return f"Did you mean {close!r}?" if close else f"Known: {listed(known)}."


def listed(names: Iterable[object]) -> str:
    """Names with commas between them: all, or if there are very many the first of them and their number."""
    found = [str(n) for n in names]
    more = f", … ({len(found):,} in all)" if len(found) > _NAMES else ""
    return ", ".join(found[:_NAMES]) + more or "none"


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # differs in each process, and helps nobody


def _tidy(text: str, longest: int, breaks: str) -> str:
    """A message without addresses and control characters; of a very long one only its beginning and its end."""
    text = _ADDRESS.sub("", text)
    if len(text) > longest:  # the end says what to do
        end = longest // 3
        start = longest - end
        text = f"{text[:start]} … ({len(text) - longest:,} characters left out) … {text[-end:]}"
    if text.isprintable():
        return text
    fine = lambda c: c.isprintable() or c in breaks or unicodedata.category(c) == "Zs"
    return "".join(c if fine(c) else c.encode("unicode_escape").decode() for c in text)


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known word closest to `name`, if any is close; case, hyphens and underscores don't matter."""
    if len(name) > 100:  # not a name that somebody mistyped
        return None
    folded = {_fold(word): word for word in sorted(known)}
    close = difflib.get_close_matches(_fold(name), folded, n=1)
    return folded[close[0]] if close else None


def _fold(word: str) -> str:
    return re.sub(r"[-_\s]", "", str(word)).casefold()


# --- errors from within a user's program ------------------------------------------------------------------------------

_XP = {None: "P.xp", "numpyro": "jax.numpy", "pyro": "torch"}  # a program's mathematics, by a pair's backend
_SHAPES = (
    "Values in a program are [K, B, …], with particles first, and data are [B, …]: check shapes and widths from the "
    "right, h[..., i]."
)
_HINTS = (  # (pattern of "Type: text", what to do)
    (
        r"\bUnseen\b|a field that is not given$",
        "The model computes with data that were not given. Give them: given={{name: array}}, or with `ppdgm sample` "
        "--given name=7 or --given arrays.npz.",
    ),
    (
        r"^(Tracer\w+Conversion|Concretization|NonConcrete)",
        "On numpyro a program is compiled before its values are known (shapes are known). Use {xp}.where(…) instead of "
        "a Python `if`, and {xp} instead of float(), int() and NumPy's functions.",
    ),
    (r"^UnexpectedTracer", "It keeps a value of an earlier call. Compute it again in each call."),
    (
        r"must be Tensor, not|as an abstract array|'Tensor' and '\w*(jax|Array|Tracer)|(ArrayImpl|Tracer)' and 'Tensor",
        "On pyro, arrays are torch's; on numpyro, they are JAX's. Use {xp} for mathematics, and distributions of the "
        "same library.",
    ),
    (
        r"same dtype|found dtype|expected scalar type|expected \w+ but found",
        "A plain pair gets booleans and whole numbers unchanged. If a net reads them, give floating numbers: "
        "x.astype('float32').",
    ),
    (r"JAX arrays are immutable", "Make a new array: {xp}.where(…), {xp}.concat(…) or {xp}.stack(…)."),
    (r"in-?place operation", "torch has no gradient through a change in place. Write a = a + b instead of a += b."),
    (r"requires grad\. Use|numpy\.ndarray|__array", "Use {xp} instead of NumPy, which has no gradients."),
    (r"invalid scale|parameter scale", "A scale must be positive: softplus(…) makes it so, as P.softplus does."),
    (
        r"TypeError: \w*\.?(model|guide)\(\) (missing|takes|got)",
        "Model and guide both take P first, and then each field of the data by name.",
    ),
    (r"P\.plate\(\) missing", 'It takes a name and the data: `with P.plate("data", x):`.'),
    (r"P\.sample\(\)", 'It takes a name, a distribution, and data if it is observed: P.sample("x", dist, obs=x).'),
    (r"P\.(param|net)\(\)", "It takes only a name. Declare shape and first value in build()."),
    (r"Context\.net\(\)", 'It takes a name, a net, and the shapes of input and output: c.net("f", MLP(), (4,), (6,)).'),
    (r"'Context' object has no", "In build(), use context.param, .net, .part and .scope. P is for model and guide."),
)
_PAIR_HINTS = (  # the same for a plain pair, which has no P
    (r"invalid scale|parameter scale", "A scale must be positive: softplus(…) or exp(…) makes it so."),
    (
        r"TypeError: \w*\.?(model|guide)\(\) (missing|takes|got)",
        "Model and guide are called with the fields of the data by name, or with a single array x.",
    ),
)
_SHAPE_WORDS = re.compile(r"^(?!.*(constraint|P has no)).*(shape|size|dimension|broadcast|batch_ndims|mat1)", re.I)


def explain(program: object, error: Exception) -> PpdgmError:
    """An error from within a user's program, in one line, with the line of the program that it came from."""
    if (full := out_of_memory(error)) is not None:
        return full
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "").rstrip(" :.")
    kind, backend = type(error).__name__, getattr(program, "backend", None)
    text = re.sub(r"\b(Torch|Jax)Random\.", "P.random.", text)
    text = re.sub(r"\b(Torch|Jax)?Vocabulary\.", "P.", text if len(text) < 200 else f"{text[:200]}…")
    hints = _HINTS if backend is None else (*_PAIR_HINTS, *_HINTS)
    hint = next((h.format(xp=_XP[backend]) for p, h in hints if re.search(p, f"{kind}: {text}")), "")
    if backend == "pyro" and any("-packages/numpyro/" in f.filename for f in traceback.extract_tb(error.__traceback__)):
        hint = "The pair uses numpyro. Give it to Program.from_numpyro(model, guide)."
    if not hint:
        hint = _attribute(error, backend) or (_SHAPES if backend is None and _SHAPE_WORDS.search(text) else "")
    said = f"{text} ({kind})." if text else f"{kind}."
    return ProgramError(f"{_place(program, error)}: {said} {hint}".rstrip())


def _attribute(error: Exception, backend: str | None) -> str:
    """What to do about a wrong name after a dot, in a program that uses P or in a backend's plain pair."""
    owner, name = getattr(error, "obj", None), getattr(error, "name", None)
    if not isinstance(error, AttributeError) or owner is None or not name:
        return ""
    if isinstance(owner, ModuleType):
        close = closest(name, (n for n in dir(owner) if not n.startswith("_")))
        return f"Did you mean {close!r}?" if close else ""
    if type(owner).__module__.partition(".")[0] in ("torch", "jax", "jaxlib", "numpy"):
        if backend is not None:
            return f"Use the function of {_XP[backend]}: a pair on {backend} has arrays of that library."
        return "torch's and JAX's arrays have few methods in common. Use P.xp, which is the same on both backends."
    return ""


def _place(program: object, error: Exception) -> str:
    """File, line and text of the deepest statement in the user's code; else the program's name."""
    functions = (getattr(program, name, None) for name in ("model", "guide", "build"))
    files = {code.co_filename for f in functions if (code := getattr(f, "__code__", None))}
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not _is_library(f.filename)] or [f for f in frames if f.filename in files]
    if not own:
        return type(program).__name__
    where = f"{own[-1].filename.removeprefix(os.getcwd() + os.sep)}:{own[-1].lineno}"
    return f"{where}, `{own[-1].line}`" if own[-1].line else where


def _is_library(file: str) -> bool:
    homes = (os.path.dirname(__file__), os.path.dirname(os.__file__), "<frozen", "<string")
    return file.startswith(homes) or "site-packages" in file or "dist-packages" in file


# --- memory -----------------------------------------------------------------------------------------------------------

_FULL = re.compile(
    r"^(MemoryError|_ArrayMemoryError|OutOfMemoryError)|RESOURCE_EXHAUSTED|bad_alloc|ALLOC_FAILED|[Oo]ut of memory"
    r"|[Cc]an(no|')t allocate memory"
)


def out_of_memory(error: BaseException) -> TrainingError | None:
    """What to do if an error says that memory ran out, in any library; None for every other error."""
    for cause in _causes(error):
        said = f"{type(cause).__name__}: {cause}"
        if isinstance(cause, TrainingError) and said.startswith("TrainingError: Out of memory"):
            return cause
        named = isinstance(cause, MemoryError | RuntimeError | OSError) or "RESOURCE_EXHAUSTED" in said
        if named and not isinstance(cause, PpdgmError) and _FULL.search(said):
            line = next((t.strip() for t in str(cause).splitlines() if t.strip()), "no more could be allocated")
            line = re.sub(r"^\[enforce.*?DefaultCPUAllocator: |^RESOURCE_EXHAUSTED: (Out of memory )?", "", line)
            line = re.sub(r"(\d{7,}) bytes", lambda m: f"{int(m[1]) / 2**30:,.2f} GiB", line)
            return TrainingError(
                f"Out of memory: {line[:200].rstrip('.')}. Use a smaller batch_size, fewer particles (k=…), a smaller "
                "net; for an evaluation, memory='64 MiB'. Large data can stay on disk: np.load(path, mmap_mode='r')."
            )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
