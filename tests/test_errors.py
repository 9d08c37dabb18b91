"""What errors say in general: the nearest word, the line of a program, and memory that ran out."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import ppdgm
from ppdgm.errors import (
    ContractError,
    DataError,
    PackageMissing,
    PpdgmError,
    ProgramError,
    TrainingError,
    closest,
    explain,
    nearest,
    out_of_memory,
    shown,
)
from ppdgm.models import MLP, VAE

X = (np.random.default_rng(0).random((20, 6)) < 0.4).astype("float32")


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("vae", ["VAE", "PPCA"], "Did you mean 'VAE'?"),
        ("VEA", ["VAE", "PPCA"], "Did you mean 'VAE'?"),
        ("kl-monte-carlo", ["kl_monte_carlo", "kl"], "Did you mean 'kl_monte_carlo'?"),
        ("batchsize", ["batch_size", "binarise"], "Did you mean 'batch_size'?"),
        ("Learning Rate", ["learning_rate"], "Did you mean 'learning_rate'?"),
        ("fashion_mnist", ["fashion-mnist", "mnist"], "Did you mean 'fashion-mnist'?"),
        ("Z", ["z", "w"], "Did you mean 'z'?"),
        ("q", ["z", "w"], "Known: w, z."),
        ("q", [], "Known: none."),
        (3, ["pyro"], "Known: pyro."),
    ],
)
def test_the_nearest_word(name, known, expected):
    assert nearest(name, known) == expected


def test_a_word_that_differs_in_case_alone_is_itself():
    assert closest("a", ["A", "a"]) in ("A", "a") and closest("zzz", ["a"]) is None


# --- what a message shows of a user's ---------------------------------------------------------------------------------


def test_a_message_is_of_bounded_length_and_keeps_its_end():
    told = str(DataError(f"Got {'a' * 100_000}. Do that."))
    assert len(told) < 1_600 and told.startswith("Got aaa") and told.endswith("aaa. Do that.")
    assert "(98,514 characters left out)" in told  # of 100,014, 1,500 are there
    assert str(DataError("x" * 1_500)) == "x" * 1_500
    assert nearest("q", map(str, range(1000))).endswith("(1,000 in all).") and len(nearest("q", "ab" * 999)) < 200


def test_a_message_has_no_control_characters():
    told = str(DataError("a\nb\x1b[2Jc\0d\u202ee\u2028f\ud800 β × …\u00a0😀"))
    assert told == r"a\nb\x1b[2Jc\x00d\u202ee\u2028f\ud800 β × …" + "\u00a0😀"
    assert str(ContractError("does not keep:\n  a")) == "does not keep:\n  a"  # a line for each finding


@pytest.mark.parametrize("value", [object(), lambda: 0, print, DataError, SimpleNamespace(a=object()), [object()]])
def test_a_message_shows_no_address(value):
    """Of any object of a user's: the same words in each process."""
    assert "0x" not in shown(value) and "0x" not in str(DataError(f"Got {value!r}, {value}."))


def test_what_can_not_be_written_is_shown_by_its_type():
    class Mute:
        def __repr__(self):
            raise ZeroDivisionError

    assert shown(10**10_000) == "int(…)" and shown(Mute()) == "Mute(…)"


# --- the line of a program --------------------------------------------------------------------------------------------


def caught(function):
    try:
        function()
    except Exception as error:
        return error


def test_the_place_is_the_deepest_line_outside_of_libraries():
    def helper():
        return np.linalg.inv(np.zeros((2, 3)))  # raises in NumPy's own file

    told = explain(SimpleNamespace(model=lambda: helper()), caught(lambda: helper()))
    assert str(told).startswith("tests/test_errors.py:") or "/tests/test_errors.py:" in str(told)
    assert "`return np.linalg.inv(np.zeros((2, 3)))  # raises in NumPy's own file`" in str(told)
    assert "(LinAlgError)" in str(told)


def test_without_a_line_the_program_is_named():
    told = explain(VAE(event_shape=(6,)), ValueError("\n\n first: \nsecond"))
    assert str(told) == "VAE: first (ValueError)."
    assert str(explain(VAE(event_shape=(6,)), ValueError())) == "VAE: ValueError."


def test_long_texts_are_cut():
    assert len(str(explain(VAE(event_shape=(6,)), ValueError("x" * 10_000)))) < 300


# --- memory -----------------------------------------------------------------------------------------------------------

OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})
XlaRuntimeError = type("XlaRuntimeError", (RuntimeError,), {})

FULL = {
    "Python": (MemoryError(), "no more could be allocated"),
    "NumPy": (caught(lambda: np.zeros(10**15)), "Unable to allocate 7.11 PiB"),
    "torch on a GPU": (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.00 GiB"),
    "JAX on a GPU": (
        XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."),
        "while trying to allocate 8.00 GiB",
    ),
    "JAX, put": (ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 400000000 bytes."), "0.37 GiB"),
    "C++": (RuntimeError("std::bad_alloc"), "bad_alloc"),
    "the system": (OSError(12, "Cannot allocate memory"), "Cannot allocate memory"),
}


@pytest.mark.parametrize("library", FULL)
def test_memory_that_ran_out_is_recognised(library):
    error, words = FULL[library]
    told = out_of_memory(error)
    assert isinstance(told, TrainingError) and "\n" not in str(told)
    for word in (words, "batch_size", "k=…", "memory=", "mmap_mode='r'"):
        assert word in str(told)
    assert out_of_memory(told) is told
    wrapped = caught(lambda: raise_from(ProgramError("shapes"), error))
    assert str(out_of_memory(wrapped)) == str(told)
    assert str(explain(VAE(event_shape=(6,)), error)) == str(told)


def raise_from(error, cause):
    raise error from cause


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shape"),
        RuntimeError("mat1 and mat2"),
        OSError(28, "No space left on device"),
        ProgramError("a site named out of memory"),
        PackageMissing("x"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not_taken_for_it(error):
    assert out_of_memory(error) is None


REAL = {
    "torch": "import torch; torch.empty(10**15)",
    "JAX": "import jax.numpy as jnp; jnp.zeros(10**14).block_until_ready()",
    "JAX, compiled": (
        "import jax, jax.numpy as jnp; square = jax.jit(lambda x: x[:, None] * x); "
        "square(jnp.ones(10**7)).block_until_ready()"
    ),
    "torch, at a limit": (
        "import torch, resource; torch.set_num_threads(1); resource.setrlimit(resource.RLIMIT_AS, (2**31,) * 2); "
        "kept = [torch.ones(10**8) for _ in range(20)]"
    ),
}


@pytest.mark.parametrize("library", REAL)
def test_real_memory_errors(library):
    code = (
        "from ppdgm.errors import out_of_memory\n"
        f"try:\n    {REAL[library]}\nexcept Exception as error:\n    print(out_of_memory(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Out of memory: ") and "GiB" in done.stdout


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_a_net_that_does_not_fit_memory(backend):
    program = VAE(event_shape=(6,), encoder=MLP(hidden=(10**13,)))
    with pytest.raises(PpdgmError, match=r"Out of memory: .*a smaller net"):
        ppdgm.fit(program, X, steps=1, backend=backend, progress=False)
