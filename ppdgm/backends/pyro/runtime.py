"""A program on a torch device: its data and parameters, its readings as NumPy arrays, its training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import array_api_compat.torch as xp
import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ppdgm.backends.pyro.chains import nuts
from ppdgm.backends.pyro.noise import REMEDY, GeneratorWatch, differ
from ppdgm.backends.pyro.pair import PairTracer
from ppdgm.backends.pyro.precision import products
from ppdgm.backends.pyro.ranks import Ranks, find_ranks
from ppdgm.backends.pyro.step import is_spec
from ppdgm.backends.pyro.support import SUPPORTS
from ppdgm.backends.pyro.tracer import TorchStep, TorchTracer, select
from ppdgm.backends.pyro.vocabulary import unvalidated
from ppdgm.errors import PpdgmError, UnsupportedByBackend
from ppdgm.language import mistakes
from ppdgm.language.native import OwnOptimiser, Tree
from ppdgm.language.phases import EngineLike, OptimiserLike
from ppdgm.language.reader import Gradients
from ppdgm.language.runtime import Arrays, Fields, Name, Native, Question, Rest, at_most
from ppdgm.language.runtime import Runtime as AnyRuntime
from ppdgm.language.step import OWN, Step
from ppdgm.language.supports import Observed, Supports
from ppdgm.language.terms import by_name
from ppdgm.language.tracer import Params
from ppdgm.language.turns import in_turn
from ppdgm.language.vocabulary import Array, Namespace, PairLike, ProgramLike, Trace


def find_device(name: str) -> torch.device:
    """The torch device of a name: "auto", "cpu", "cuda" or "cuda:1"."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise PpdgmError(
            f"No device {name!r} for torch. Found: cpu{', cuda' if torch.cuda.is_available() else ''}."
        ) from None
    return device


@contextmanager
def seeded(device: torch.device, *seed: int) -> Iterator[None]:
    """torch's generators started from `seed`; afterwards the user's own are restored."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
        yield


def precision(dtype: str) -> AbstractContextManager[object]:
    """Does nothing: torch computes in its arrays' own type."""
    return nullcontext()


class Runtime(AnyRuntime):
    """Runs one program with torch.

    Args:
        program: a Program or a plain pair.
        device: "auto", "cpu", "cuda", "cuda:1". "auto" leaves the modules of a plain pair where they are.
        devices: the number of processes that share a minibatch, or "all"; None: this one, whatever others do.
    """

    name: ClassVar[str] = "pyro"
    xp: ClassVar[Namespace] = xp
    supports: ClassVar[Supports] = SUPPORTS
    steps: ClassVar[type[Step]] = TorchStep

    share: Ranks

    def __init__(
        self, program: ProgramLike | PairLike, device: str = "auto", devices: int | Literal["all"] | None = None
    ):
        self._copies: torch.cuda.Stream | None = None  # where streamed rows are sent to a GPU
        self._quiet = False  # whether it is known to draw nothing outside its sites
        if hasattr(program, "data_plate"):
            self.share, place = find_ranks(devices, find_device, device)
            pair = PairTracer(cast(PairLike, program), None if device == "auto" else place)  # it has a plate
            self.tracer: TorchTracer | PairTracer = pair
            self.device: torch.device = pair.device
        else:
            self.tracer = TorchTracer(program)
            self.share, self.device = find_ranks(devices, find_device, device)

    def check_trains(self) -> None:
        if self.share.processes > 1 and isinstance(self.tracer, PairTracer):
            raise UnsupportedByBackend(
                "devices: a plain Pyro pair draws its noise in Pyro's own handlers, for the rows that it gets, so "
                "several processes would not take the step of one. Write it as a Program, or train on one device."
            )

    @property
    def place(self) -> str:
        if self.device.type != "cuda":
            return self.share.shown(str(self.device), self.device.type)
        kind = torch.cuda.get_device_name(self.device)
        return self.share.shown(f"cuda:{self.device.index or torch.cuda.current_device()} ({kind})", kind)

    @in_turn
    def initialise(self, seed: int, data: Arrays, dtype: str) -> dict[str, np.ndarray]:
        with seeded(self.device, seed):
            return super().initialise(seed, data, dtype)

    @in_turn
    def prepare(self, data: Arrays) -> None:
        with seeded(self.device, 0):
            super().prepare(data)

    def put(self, arrays: Arrays, dtype: str | None = None) -> dict[str, Array]:
        cast = lambda a: a.astype(dtype) if dtype and np.issubdtype(a.dtype, np.floating) else a
        return {n: torch.tensor(cast(np.asarray(a)), device=self.device) for n, a in arrays.items()}

    def send(self, arrays: Arrays) -> Callable[[], Native]:
        """The same as for the base class: on a GPU from pinned memory, beside the steps' own kernels."""
        if self.device.type != "cuda":
            return super().send(arrays)
        self._copies = self._copies or torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._copies):
            pinned = {n: torch.tensor(np.asarray(a), pin_memory=True) for n, a in arrays.items()}
            native = {n: a.to(self.device, non_blocking=True) for n, a in pinned.items()}
            sent = self._copies.record_event()

        def arrived() -> Native:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(sent)
            for a in native.values():
                a.record_stream(now)  # its memory is used again only after the kernels that read it
            return native

        return arrived

    def fetch(self, arrays: Tree) -> Tree:
        """Device arrays as NumPy arrays of their own: one that shares a parameter's memory would change with it."""
        own = lambda t: t.detach().to("cpu", copy=True).numpy() if isinstance(t, torch.Tensor) else t
        return tree_map(own, arrays)

    @in_turn
    def ask(self, question: Question, params: Params, seed: tuple[int, ...] | None, *at: Tree, **how: object) -> Tree:
        with self._evaluating(params, *(seed or (0,))) as params:
            return self.fetch(question(self, params, None, *at, **how))

    def index(self, rows: np.ndarray) -> Array:
        return torch.as_tensor(rows, dtype=torch.int64, device=self.device)

    def select(self, data: Native, index: Array) -> Native:
        return dict(select(self.tracer, data, index))

    @in_turn
    def look(self, question: Question, params: Params, *at: Tree, **how: object) -> Tree:
        own = {n: v for n, v in params.items() if n.startswith(OWN)}  # an engine's
        with self._evaluating({n: v for n, v in params.items() if n not in own}, 0) as params:
            return question(self, {**params, **own}, None, *at, **how)

    def slopes(
        self, function: Callable[[dict[Name, Array]], tuple[Array, Rest]], z: dict[Name, Array]
    ) -> tuple[dict[Name, Array], Rest]:
        with torch.enable_grad():
            moved = {n: v.detach().requires_grad_() for n, v in z.items()}
            value, rest = function(moved)
            unknown = [None] * len(moved)
            found = torch.autograd.grad(value, [*moved.values()], allow_unused=True) if value.requires_grad else unknown
        pairs = zip(z, found, strict=True)
        return {n: torch.zeros_like(z[n]) if slope is None else slope for n, slope in pairs}, rest

    nuts = staticmethod(nuts)

    @in_turn
    def validate(self, params: Params, data: Native, k: int, b: int) -> Trace:
        """One reading, with the process's own setting of argument checks: on, unless the user turned them off."""
        rows = self.index(np.arange(b) % len(next(iter(data.values()))))
        with torch.no_grad(), seeded(self.device, 0), self.tracer.evaluating(params) as params:
            before = {n: v._version for n, v in params.items()} if isinstance(self.tracer, TorchTracer) else {}
            found: Trace = self.tracer.trace(params, None, select(self.tracer, data, rows), rows, k, None, True)
            for name, version in before.items():
                if params[name]._version != version:
                    raise mistakes.overwritten(name)
            return found

    @in_turn
    def observed(self, params: Params, data: Native, index: np.ndarray, seed: int) -> list[Observed]:
        with self._evaluating(params, seed) as params:
            rows = self.index(index)
            batch = select(self.tracer, data, rows)
            try:
                with unvalidated(False):
                    found = [SUPPORTS.describe(s, batch) for s in self.tracer.observed(params, None, batch, rows)]
            except (PpdgmError, ValueError):  # errors of parameters or draws, which evaluations report
                found = [SUPPORTS.describe(s, batch, False) for s in self.tracer.observed(params, None, batch, rows)]
            return [replace(o, bounds=self.fetch(o.bounds)) for o in found]

    @in_turn
    def noise(self, params: Params, data: Native, index: np.ndarray) -> str:
        """What to do about random numbers from outside the sample sites; "" if none count.

        Some are drawn and not used: first values of a module whose values are set later.
        """
        if self._quiet:
            return ""
        with self._evaluating(params, 0) as params:
            rows = self.index(index)
            batch, watch = select(self.tracer, data, rows), GeneratorWatch(self.device)
            one = self.tracer.watched(params, batch, rows, {}, watch)
            again = lambda: self.tracer.watched(params, batch, rows, one.values, None)
            found = _remedy(watch, lambda: (by_name(one), by_name(again())))
            self._quiet = not watch.used
            return found

    @in_turn
    def model_noise(self, params: Params, fields: Fields, size: int) -> str:
        """The same for draws from the model, without the guide."""
        with self._evaluating(params, 0) as params:
            native, watch = self.fields(fields), GeneratorWatch(self.device)
            self.tracer.watched_prior(params, native, size, watch)
            return _remedy(watch, lambda: self.tracer.model_twice(params, native, size))

    def why_not_compiled(self, engine: EngineLike, optimiser: OptimiserLike | OwnOptimiser) -> str:
        if self.share.processes > 1:
            return "torch.compile can't compile a step of several processes"
        if not self.tracer.compiles:
            return "torch.compile can't compile Pyro's handlers, which a plain pair needs"
        if not is_spec(optimiser) and not all(p.optimiser for p in engine.phases()):
            return "torch.compile can't compile your own optimiser"
        if self.tracer.state_names - self.tracer.states:
            return "torch.compile can't compile modules whose buffers change in training"
        alone = [type(p.engine).__name__ for p in engine.phases() if p.together]
        return f"torch.compile can't compile {alone[0]}" if alone else ""

    @in_turn
    def batch_statistics(self, params: Params, data: Native, b: int) -> str | None:
        """The same as for the base class.

        These are batch norms, and buffers that a forward pass in training changes.
        """
        for module in self.tracer.all_modules():
            if isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats):
                return f"{type(module).__name__} computes statistics of the minibatch"
        if not self.tracer.state_names:
            return None
        rows = self.index(np.arange(self.tracer.batch_size or b) % len(next(iter(data.values()))))
        with torch.no_grad(), seeded(self.device, 0):
            now = self.tracer.adopt(params)
            before = {n: now[n].clone() for n in self.tracer.state_names}
            with self.tracer.training(now):
                self.tracer.trace(now, None, select(self.tracer, data, rows), rows, 1)
            moved = [n for n, v in before.items() if not torch.equal(v, now[n])]
            for n, v in before.items():
                now[n].copy_(v)
        return f"each forward pass changes the buffer {moved[0]!r}" if moved else None

    @in_turn
    def noise_in_training(self, params: Params, data: Native, b: int) -> bool:
        rows = self.index(np.arange(self.tracer.batch_size or b) % len(next(iter(data.values()))))
        batch, watch = select(self.tracer, data, rows), GeneratorWatch(self.device)
        with torch.no_grad(), unvalidated(), seeded(self.device, 0):
            now = self.tracer.adopt(params)
            with self.tracer.training(now):
                one = self.tracer.watched(now, batch, rows, {}, watch)
                again = lambda: self.tracer.watched(now, batch, rows, one.values, None)
                return bool(_remedy(watch, lambda: (by_name(one), by_name(again()))))

    @in_turn
    def bytes_written(self, params: Params, data: Native, k: int, b: int) -> int:
        index = np.arange(self.tracer.batch_size or b) % len(next(iter(data.values())))
        with _Count() as count:
            self.trace(params, data, index, k, 0, None, True)
        return count.bytes

    @in_turn
    def bytes_of_step(self, params: Params, data: Native, k: int, b: int, rematerialise: bool = False) -> int:
        """The same as for the base class, from readings of a few particles and rows."""
        used = lambda k, b: self._used(params, data, k, b, Gradients(scored=[], rematerialise=rematerialise))
        if fixed := self.tracer.batch_size:
            one = used(1, fixed)
            return one + (k - 1) * (used(2, fixed) - one)
        one = used(1, 2)
        pair = (used(2, 2) - one) / 2  # a particle of a row
        row = (used(1, 4) - one) / 2  # with one particle
        return int(one + (b - 2) * row + (k - 1) * b * pair)

    def _used(self, params: Params, data: Native, k: int, b: int, how: Gradients) -> int:
        moves = lambda n, v: v.is_floating_point() and n not in self.tracer.state_names
        own = {n: v.detach().clone().requires_grad_(moves(n, v)) for n, v in params.items()}
        rows, found = self.index(np.arange(b) % len(next(iter(data.values())))), dict[int, int]()

        def keep(value: Array) -> Array:
            storage = value.untyped_storage()
            if storage.data_ptr() not in theirs:
                found[storage.data_ptr()] = storage.nbytes()
            return value

        with self._evaluating(own, 0) as now, torch.enable_grad():
            batch, theirs = select(self.tracer, data, rows), {v.untyped_storage().data_ptr() for v in now.values()}
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
                # kept until here, so that no memory is used twice
                read = self.tracer.trace(now, None, batch, rows, k, None, True, how)
            del read
        return at_most(found.values())

    def free_bytes(self) -> int | None:
        return int(torch.cuda.mem_get_info(self.device)[0]) if self.device.type == "cuda" else None

    @contextmanager
    def _evaluating(self, params: Params, *seed: int) -> Iterator[Params]:
        with (
            torch.no_grad(),
            unvalidated(),
            products(self.device),
            seeded(self.device, *seed),
            self.tracer.evaluating(params) as params,
        ):
            yield params


def _remedy(watch: GeneratorWatch, twice: Callable[[], Iterable[Mapping[str, Array]]]) -> str:
    """What to do if numbers were drawn between sites, and two runs at the same latents differ; "" if not."""
    watch.site()
    if not watch.used:
        return ""
    try:
        one, other = twice()
        return REMEDY if differ(one, other) else ""
    except (PpdgmError, NotImplementedError):  # only draws of a latent can be scored, as for a one-way flow
        return REMEDY


class _Count(TorchDispatchMode):
    """Adds up the bytes of every operation's results."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.bytes += sum(t.nbytes for t in tree_leaves(out) if isinstance(t, torch.Tensor))
        return out
