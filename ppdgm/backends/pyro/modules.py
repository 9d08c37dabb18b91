"""The torch modules of a user's functions: which are used, their modes, their buffers."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

import torch
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from ppdgm.language.vocabulary import Array


def in_sight(function: Callable[..., object]) -> list[torch.nn.Module]:
    """The modules that a function directly refers to: itself, its object, and those in its closure and its names."""
    while isinstance(function, functools.partial):
        function = function.func
    owner = getattr(function, "__self__", function)
    seen = [function, owner, *getattr(owner, "__dict__", {}).values()]
    inner = getattr(function, "__func__", function)
    if inspect.isfunction(inner):
        named = {i.argval for i in dis.get_instructions(inner) if i.opname == "LOAD_GLOBAL"}
        seen += [v for n, v in inner.__globals__.items() if n in named]
        for cell in inner.__closure__ or ():
            with suppress(ValueError):  # still empty
                seen.append(cell.cell_contents)
    return [m for m in seen if isinstance(m, torch.nn.Module)]


class Modules:
    """Modules, and the parameters that they had when they were first seen.

    Args:
        device: the device to move each module to; None to leave it where it is.
    """

    def __init__(self, device: torch.device | None) -> None:
        self.device = device
        self._modules: dict[int, torch.nn.Module] = {}
        self._params: dict[int, dict[str, Array]] = {}

    def __iter__(self) -> Iterator[torch.nn.Module]:
        return iter(self._modules.values())

    def add(self, root: torch.nn.Module) -> list[torch.nn.Module]:
        """Add a module and all modules inside it; return the new ones."""
        new = [m for m in root.modules() if id(m) not in self._modules]
        if new and self.device is not None:
            root.to(self.device)
        for m in new:
            self._modules[id(m)] = m
            self._params[id(m)] = {n: p for n, p in m._parameters.items() if p is not None}
        return new

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add every module that is called, in evaluation mode; afterwards all modes and buffers are restored."""
        before: list[tuple[torch.nn.Module, bool, dict[str, Array]]] = []

        def enter(modules: list[torch.nn.Module]) -> None:
            for m in modules:
                before.append((m, m.training, _copies(m)))
                m.training = False

        enter(list(self))
        hook = register_module_forward_pre_hook(lambda module, _: enter(self.add(module)))
        try:
            yield
        finally:
            hook.remove()
            for m, training, buffers in reversed(before):  # a module forgotten and seen again was entered twice
                m.training = training
                _put_back(m, buffers)

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Forget the modules that are first seen inside: a trial run may create some that no later run uses."""
        known = set(self._modules)
        try:
            yield
        finally:
            for i in self._modules.keys() - known:
                del self._modules[i], self._params[i]

    @contextmanager
    def evaluating(self, dropout_only: bool = False) -> Iterator[None]:
        """Modules (or only the dropout ones) in evaluation mode; afterwards all modes and buffers are restored."""
        before = [(m, m.training, _copies(m)) for m in self]
        for m in self:
            m.training = m.training and dropout_only and not isinstance(m, _DropoutNd)
        try:
            yield
        finally:
            for m, training, buffers in before:
                m.training = training
                _put_back(m, buffers)

    def put_back_params(self) -> str | None:
        """Undo Pyro's replacement of a module's parameter by another of the same name; return the first such name."""
        first = None
        for m in self:
            for n, p in self._params[id(m)].items():
                if m._parameters.get(n) is not p:
                    m._parameters[n] = p
                    first = first or n.removesuffix("_unconstrained")
        return first

    def state(self, params: Mapping[str, Array]) -> dict[str, tuple[torch.nn.Module, str]]:
        """Name -> (module, attribute) of all tensors in modules that are not `params`.

        These are buffers, and parameters that Pyro does not train. Names follow those of the parameters beside them.
        """
        names = {id(t): n for n, t in params.items()}
        own = {
            (id(m), leaf): (m, leaf)
            for m in self
            for leaf, t in (*m._buffers.items(), *m._parameters.items())
            if t is not None and not is_lazy(t) and id(t) not in names
        }
        named: dict[str, tuple[torch.nn.Module, str]] = {}
        plain = {i: n.replace("$$$", ".") for i, n in names.items()}
        for known in (names, plain):
            for root in self:
                prefix = _prefix(root, known)
                for path, m in root.named_modules() if prefix is not None else ():
                    for leaf in (*m._buffers, *m._parameters):
                        name = f"{prefix}{path}.{leaf}" if path else f"{prefix}{leaf}"
                        if (id(m), leaf) in own and name not in named and name not in params:
                            named[name] = own.pop((id(m), leaf))
        places = {id(m): i for i, m in enumerate(self)}
        named = {_as_params(n, params): held for n, held in named.items()}
        return named | {f"module{places[i]}.{leaf}": held for (i, leaf), held in own.items()}


def labels_of_params(live: Mapping[str, Array], state: Container[str], of_guide: Container[str]) -> dict[str, str]:
    """Whether each parameter is the guide's or the model's; if a tensor has two names, only one; and no state."""
    one = {id(t): n for n, t in sorted(live.items())}.values()
    return {n: "guide" if n in of_guide else "model" for n in live if n in one and n not in state}


def _as_params(name: str, params: Iterable[str]) -> str:
    """A buffer's name, with Pyro's mark for a module if the parameters beside it have it, whatever was seen first."""
    plain = name.replace("$$$", ".")
    marked = {p[: p.index("$$$") + 3] for p in params if "$$$" in p}
    fits = [m for m in marked if plain.startswith(m.replace("$$$", "."))]
    return max(fits, key=len) + plain[len(max(fits, key=len)) - 2 :] if fits else name


def _prefix(root: torch.nn.Module, names: Mapping[int, str]) -> str | None:
    """The text that Pyro writes before the dotted names of this module's parameters."""
    for path, p in root.named_parameters():
        full = names.get(id(p), "")
        prefix = full.removesuffix(path)
        if full.endswith(path) and (not prefix or prefix.endswith((".", "$$$"))):
            return prefix
    return None


def _copies(m: torch.nn.Module) -> dict[str, tuple[Array, Array]]:
    return {n: (b, b.clone()) for n, b in m._buffers.items() if b is not None and not is_lazy(b)}


def _put_back(m: torch.nn.Module, buffers: Mapping[str, tuple[Array, Array]]) -> None:
    with torch.no_grad():
        for n, (tensor, value) in buffers.items():
            tensor.copy_(value)
            m._buffers[n] = tensor


def tensor_of(module: torch.nn.Module, leaf: str) -> Array:
    """A buffer of a module, or a parameter of it without its gradient."""
    held = module._buffers.get(leaf)
    return held if held is not None else module._parameters[leaf].detach()
