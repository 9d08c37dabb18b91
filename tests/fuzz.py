"""What the fuzzing tests have in common: how many examples, what they may end in, and the values that they draw."""

import warnings

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ppdgm.errors import PpdgmError
from ppdgm.specs import known_specs

KINDS = [*known_specs(), "none", "plain:pyro", "plain:", "mine:Class", "os:system"]
NAMES = sorted({field for cls in known_specs().values() for field in cls.model_fields} | {"kind", "format", "versions"})


def fuzzed(examples):
    """The same examples in every run."""
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def attempt(call):
    """What `call` returns, or None where it ends in an error of ours with a single line; a warning is an error too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return call()
        except PpdgmError as error:
            assert str(error).strip() and len(str(error).splitlines()) == 1, repr(str(error))


words = st.text(max_size=8) | st.sampled_from(["", "auto", "nan", "-1", "a.b", "x" * 300, "\0", "\u2028", "\U0001f600"])
plain = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    words,
    st.dates(),
    st.datetimes(),
    st.sampled_from([*KINDS, *NAMES, 0, -1, 1e300, 10**40]),
)
keys = st.sampled_from(NAMES) | words.filter(lambda text: len(text.splitlines()) < 2)  # the command line joins others
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


def damage(how, where, size, junk):
    """A function of bytes that changes a piece of them; `where` is a fraction of their length."""

    def changed(content):
        start = int(where * len(content))
        piece, rest = content[start : start + size], content[start + size :]
        flipped = bytes(b ^ (1 << start % 8) for b in piece)
        new = {"cut": b"", "doubled": 2 * piece, "replaced": junk, "flipped": flipped}
        return {"shortened": content[:start], "other": junk}.get(how, content[:start] + new.get(how, b"") + rest)

    return changed


damages = st.builds(
    damage,
    st.sampled_from(["flipped", "cut", "doubled", "replaced", "shortened", "other"]),
    st.floats(0, 1),
    st.sampled_from([1, 8, 10**9]),
    st.binary(max_size=100),
)
