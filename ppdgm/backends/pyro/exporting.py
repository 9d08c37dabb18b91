"""Functions of a program as files that torch or onnxruntime read without ppdgm."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch.overrides import TorchFunctionMode

from ppdgm.backends.pyro.runtime import Runtime
from ppdgm.backends.pyro.tracer import TorchTracer
from ppdgm.backends.pyro.vocabulary import unvalidated
from ppdgm.errors import PackageMissing, PpdgmError, UnsupportedByBackend
from ppdgm.language.served import Exported, Served
from ppdgm.language.turns import in_turn
from ppdgm.language.vocabulary import Array

FORMATS = ("pt2", "onnx")
_SMALL, _LARGE = 3, 5  # numbers of rows of the two examples, which show the axes that depend on them
_RANDOM = {
    "rand": "uniform", "rand_like": "uniform", "uniform_": "uniform", "exponential_": "uniform",
    "randn": "normal", "randn_like": "normal", "normal_": "normal", "normal": "normal",
}  # fmt: skip
_OTHER = {"multinomial", "bernoulli", "bernoulli_", "poisson", "binomial", "randperm", "randint", "_standard_gamma",
          "_sample_dirichlet", "cauchy_", "log_normal_", "geometric_"}  # fmt: skip


class NoiseInputs(TorchFunctionMode):
    """Random numbers come from arrays that are given, in the order in which they are drawn.

    Args:
        given: the arrays; None: they are drawn, and their kinds and shapes are kept in `seen`.
    """

    def __init__(self, given: Sequence[Array] | None = None):
        super().__init__()
        self.given, self.seen = given, list[tuple[str, tuple[int, ...]]]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in _OTHER:
            raise UnsupportedByBackend(
                f"export: the program draws with torch's {name}, which is no function of a fixed number of uniform or "
                "normal numbers, so that they can't be an input. Export the encoder or the decoder."
            )
        if name not in _RANDOM:
            return func(*args, **kwargs)
        like = args[0] if isinstance(args[0], torch.Tensor) else None
        sizes = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
        noise = self._next(_RANDOM[name], tuple(sizes if like is None else like.shape))
        if name == "exponential_":
            return -torch.log(noise)
        if name == "normal":
            return args[0] + args[1] * noise
        if name in ("uniform_", "normal_") and (len(args) > 1 or kwargs):
            raise UnsupportedByBackend(f"export: the program calls torch's {name} with arguments of its own.")
        return noise

    def _next(self, kind: str, shape: tuple[int, ...]) -> Array:
        self.seen.append((kind, shape))
        return torch.full(shape, 0.5) if self.given is None else self.given[len(self.seen) - 1]


class _Module(torch.nn.Module):
    """A served function, with the parameters as buffers."""

    def __init__(self, tracer: TorchTracer, params: Mapping[str, Array], served: Served, names: Sequence[str]):
        super().__init__()
        self.run, self.names, self.buffer_names = (tracer, served), tuple(names), dict[str, str]()
        for i, (name, value) in enumerate(params.items()):
            self.buffer_names[name] = f"p{i}_{name.replace('.', '_')}"
            self.register_buffer(self.buffer_names[name], value.detach().clone())

    def forward(self, *arrays: Array) -> tuple[Array, ...]:
        tracer, served = self.run
        own = {n: getattr(self, b) for n, b in self.buffer_names.items()}
        fields = dict(zip(self.names, arrays, strict=False))
        with NoiseInputs(arrays[len(self.names) :]):
            return tuple(served(tracer, own, None, fields).values())


@in_turn
def exported(runtime: Runtime, params: Mapping[str, Array], served: Served, format: str) -> Exported:
    """The function as the content of a .pt2 file (torch.export) or a .onnx file.

    Raises:
        UnsupportedByBackend: torch can't export it, with torch's reason.
        PackageMissing: the package onnx or onnxscript is not installed.
    """
    tracer = cast(TorchTracer, runtime.tracer)  # plain pairs are refused before
    with torch.no_grad(), unvalidated(), tracer.evaluating(params) as params:
        outputs, small = _example(tracer, params, served, _SMALL)
        others, large = _example(tracer, params, served, _LARGE)
        noise = [_axes(a[1], b[1]) for a, b in zip(small, large, strict=True)]
        inputs: list[dict[str, object]] = [
            {"name": n, "shape": ["batch", *s], "dtype": t} for n, (s, t) in served.fields.items()
        ]
        kind = str(next(iter(outputs.values())).dtype).removeprefix("torch.")
        for i, ((name, _), axes) in enumerate(zip(small, noise, strict=True)):
            inputs.append({"name": f"{name}_{i}", "shape": axes, "dtype": kind, "noise": name})
        module = _Module(tracer, params, served, list(served.fields))
        program = _exported(module, _arrays(inputs, _SMALL), inputs)
    told: list[dict[str, object]] = [
        {"name": n, "shape": _axes(v.shape, others[n].shape), "dtype": str(v.dtype).removeprefix("torch.")}
        for n, v in outputs.items()
    ]
    if format == "onnx":
        return Exported(_onnx(program, [str(i["name"]) for i in inputs], [*outputs]), inputs, told)
    file = io.BytesIO()
    torch.export.save(program, file)
    return Exported(file.getvalue(), inputs, told)


def _example(
    tracer: TorchTracer, params: Mapping[str, Array], served: Served, size: int
) -> tuple[dict[str, Array], list[tuple[str, tuple[int, ...]]]]:
    fields = {n: torch.zeros(size, *s, dtype=getattr(torch, t)) for n, (s, t) in served.fields.items()}
    with NoiseInputs() as noise:
        found = served(tracer, params, None, fields)
    return found, noise.seen


def _axes(small: Sequence[int], large: Sequence[int]) -> list[object]:
    """A shape, with "batch" where it has the rows."""
    found: list[object] = []
    for a, b in zip(small, large, strict=True):
        if a != b and (a, b) != (_SMALL, _LARGE):
            raise UnsupportedByBackend(
                f"export: the program has an array of shape {tuple(small)} for {_SMALL} rows and {tuple(large)} for "
                f"{_LARGE}, so no axis has the rows alone. Export the encoder or the decoder."
            )
        found.append(a if a == b else "batch")
    return found


def _arrays(inputs: Sequence[Mapping[str, Any]], size: int) -> tuple[Array, ...]:
    shape = lambda given: tuple(size if n == "batch" else n for n in given["shape"])
    return tuple(torch.full(shape(i), 0.5 if "noise" in i else 0, dtype=getattr(torch, i["dtype"])) for i in inputs)


def _exported(module: torch.nn.Module, arrays: tuple[Array, ...], inputs: Sequence[Mapping[str, Any]]) -> Any:
    batch = torch.export.Dim("batch", min=1, max=2**30)
    rows = tuple({a: batch for a, n in enumerate(i["shape"]) if n == "batch"} for i in inputs)
    with _told("torch.export"):
        return torch.export.export(module, arrays, dynamic_shapes=(rows,))


def _onnx(program: Any, inputs: list[str], outputs: list[str]) -> bytes:
    try:
        import onnx  # noqa: F401  # torch would fail later, without the command that installs it
        import onnxscript  # noqa: F401  # as for onnx
    except ImportError as error:
        raise PackageMissing(f'ONNX files need the package {error.name!r}: pip install "ppdgm[onnx]".') from None
    with _told("torch.onnx"):
        made = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=inputs, output_names=outputs, optimize=True
        )
        return bytes(cast(Any, made).model_proto.SerializeToString())


@contextmanager
def _told(what: str) -> Iterator[None]:
    """torch's errors as one line; without what it logs on the way."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own future
            yield
    except PpdgmError:
        raise
    except Exception as error:  # of many kinds
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise UnsupportedByBackend(
            f"export: {what} can't take this program ({type(error).__name__}: {said})."
        ) from error
    finally:
        logger.setLevel(before)
