"""A program on a torch device: its data and parameters, its readings as NumPy arrays, its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ppdgm.backends.pyro.chains import nuts
from ppdgm.backends.pyro.noise import REMEDY, Watch, apart, differ
from ppdgm.backends.pyro.pair import PairTracer
from ppdgm.backends.pyro.step import is_spec
from ppdgm.backends.pyro.support import describe, rows_inside, within
from ppdgm.backends.pyro.tracer import ProgramTracer, make_tracing, model_at, select
from ppdgm.backends.pyro.vocabulary import unvalidated
from ppdgm.errors import PpdgmError, UnsupportedByBackend
from ppdgm.language import mistakes
from ppdgm.language.interpreter import Gradients, Observed, split
from ppdgm.language.step import OWN, check_told, knobs_of
from ppdgm.language.vocabulary import Array, Trace

Arrays = Mapping[str, np.ndarray]


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


class Runtime:
    """Runs one program with torch.

    Args:
        program: a Program or a plain pair.
        device: "auto", "cpu", "cuda", "cuda:1". "auto" leaves the modules of a plain pair where they are.
    """

    name = "pyro"

    def __init__(self, program: Any, device: str = "auto"):
        self._quiet = False  # whether it is known to draw nothing outside its sites
        if hasattr(program, "data_plate"):
            self.tracer: Any = PairTracer(program, None if device == "auto" else find_device(device))
            self.device: torch.device = self.tracer.device
        else:
            self.tracer, self.device = ProgramTracer(program), find_device(device)
        self.facts: list[Observed] | None = None  #: of the observed sites, once they are known

    def initialise(self, seed: int, data: Arrays, dtype: str) -> dict[str, np.ndarray]:
        """First values of all parameters and buffers."""
        with seeded(self.device, seed):
            values: dict[str, np.ndarray] = self.tracer.initialise(seed, data, dtype)
        return values

    def prepare(self, data: Arrays) -> None:
        """Let a plain pair be analysed with data; nothing for a program."""
        with seeded(self.device, 0):
            self.tracer.prepare(data)

    def put(self, arrays: Arrays, dtype: str | None = None) -> dict[str, Array]:
        """Arrays on the device; floating ones as `dtype`."""
        cast = lambda a: a.astype(dtype) if dtype and np.issubdtype(a.dtype, np.floating) else a
        return {n: torch.tensor(cast(np.asarray(a)), device=self.device) for n, a in arrays.items()}

    def fetch(self, arrays: Any) -> Any:
        """Device arrays as NumPy arrays of their own: one that shares a parameter's memory would change with it."""
        own = lambda t: t.detach().to("cpu", copy=True).numpy() if isinstance(t, torch.Tensor) else t
        return tree_map(own, arrays)

    def trace(
        self, params: Any, data: Any, index: np.ndarray, k: int, seed: int, given: Arrays | None, kl: bool
    ) -> Trace:
        """The per-site terms as NumPy arrays."""
        with self._evaluating(params, seed) as params:
            rows = self._index(index)
            native = self.put(given or {})
            terms = self.tracer.trace(params, select(self.tracer, data, rows), rows, k, native, kl)
            found: Trace = self.fetch(terms)
        return found

    def glance(self, params: Any, data: Any, index: np.ndarray, k: int, given: Arrays) -> Trace:
        """Terms of a few rows as in `trace`."""
        return self.trace(params, data, index, k, 0, given, False)

    def evaluate(
        self,
        function: Callable[[Trace, Any], Array],
        params: Any,
        data: Any,
        index: np.ndarray,
        k: int,
        seed: tuple[int, ...],
        kl: bool,
    ) -> np.ndarray:
        """`function(trace, xp)` [K, B], as a NumPy array."""
        with self._evaluating(params, *seed) as params:
            rows = self._index(index)
            out: np.ndarray = self.fetch(
                function(self.tracer.trace(params, select(self.tracer, data, rows), rows, k, None, kl), xp)
            )
        return out

    def draws(
        self, params: Any, data: Any, index: np.ndarray, k: int, seed: int, given: Arrays | None = None
    ) -> dict[str, np.ndarray]:
        """Latents drawn from the guide, [K, B, *event], except those that are given."""
        with self._evaluating(params, seed) as params:
            rows, held = self._index(index), self.put(given or {})
            drawn = self.tracer.draws(params, select(self.tracer, data, rows), rows, k, held)
            found: dict[str, np.ndarray] = self.fetch(drawn)
        return found

    def means(self, params: Any, data: Any, index: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Latent and observed sites at their means, [1, B, *event]."""
        with self._evaluating(params, 0) as params:
            rows = self._index(index)
            found: tuple[Any, Any] = self.fetch(self.tracer.means(params, select(self.tracer, data, rows), rows))
        return found

    def seen_at(self, params: Any, data: Any, index: np.ndarray, latents: Arrays) -> dict[str, np.ndarray]:
        """Observed sites at their means given the data and all latents of the guide, [1, B, *event]."""
        with self._evaluating(params, 0) as params:
            rows = self._index(index)
            found = self.tracer.means(params, select(self.tracer, data, rows), rows, self.put(latents))
            seen: dict[str, np.ndarray] = self.fetch(found[1])
        return seen

    def guide(self, params: Any, data: Any, index: np.ndarray, given: Arrays) -> np.ndarray:
        """log q(z|x) at given latents [K, B or 1, *event], [K, B]."""
        with self._evaluating(params, 0) as params:
            rows, z = self._index(index), self.put(given)
            batch, k = select(self.tracer, data, rows), len(next(iter(z.values())))
            z = {n: v.expand(k, len(rows), *v.shape[2:]) for n, v in z.items()}
            if hasattr(self.tracer, "guide"):
                terms = self.tracer.guide(params, batch, rows, z)
            else:
                terms = self.tracer.trace(params, batch, rows, k, z).log_q
            found: np.ndarray = self.fetch(sum(terms.values()))
        return found

    def joint(
        self, params: Any, data: Any, index: np.ndarray, given: Arrays, heat: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """log p(z) and log p(x|z) at given latents, [K, B], and the gradient of log p(z) + heat · log p(x|z) by them.

        Args:
            given: latents [K, B, *event].
            heat: [K, B] or [].
        """
        with self._evaluating(params, 0) as params, torch.enable_grad():
            rows, z = self._index(index), self.put(given)
            moved = [v.requires_grad_() for v in z.values() if v.is_floating_point()]
            prior, seen = split(model_at(self.tracer, params, select(self.tracer, data, rows), rows, z), z)
            heated = torch.as_tensor(heat, dtype=prior.dtype, device=self.device)
            total = (prior + heated * seen).sum()
            slopes = iter(torch.autograd.grad(total, moved, allow_unused=True) if total.requires_grad else ())
            found_at = {n: next(slopes, None) if v.is_floating_point() else None for n, v in z.items()}
            known = {n: torch.zeros_like(z[n]) if s is None else s for n, s in found_at.items()}
        found: Any = self.fetch((prior, seen, known))
        return found

    def predictive(self, params: Any, data: Any, index: np.ndarray, given: Arrays, seed: int) -> dict[str, np.ndarray]:
        """Observed sites drawn from the model at given latents, [K, B, *event]."""
        if not hasattr(self.tracer, "predictive"):
            raise UnsupportedByBackend(mistakes.NO_PREDICTIVE)
        with self._evaluating(params, seed) as params:
            rows = self._index(index)
            drawn = self.tracer.predictive(params, select(self.tracer, data, rows), rows, self.put(given))
            found: dict[str, np.ndarray] = self.fetch(drawn)
        return found

    def decoded(self, params: Any, data: Any, index: np.ndarray, given: Arrays) -> dict[str, np.ndarray]:
        """Observed sites at their means given some latents, [1, B, *event]."""
        if not hasattr(self.tracer, "decoded"):
            raise UnsupportedByBackend(mistakes.NO_PREDICTIVE)
        with self._evaluating(params, 0) as params:
            rows = self._index(index)
            found: dict[str, np.ndarray] = self.fetch(
                self.tracer.decoded(params, select(self.tracer, data, rows), rows, self.put(given))
            )
        return found

    def refine(
        self, params: Any, data: Any, start: Arrays, draws: int, warmup: int, seed: int
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Draws of one row's latents from the posterior by Pyro's NUTS; `start` [chains, *event].

        Returns:
            Draws [chains, draws, *event] by site, and statistics [chains, draws].
        """
        with self._evaluating(params, seed) as params:
            rows = self._index(np.zeros(1, int))
            batch = select(self.tracer, data, rows)

            def log_density(z: Any) -> Array:
                given = {n: v[None, None] for n, v in z.items()}
                return sum(v.sum() for v in model_at(self.tracer, params, batch, rows, given).values())

            found: Any = self.fetch(nuts(log_density, self.put(start), draws, warmup))
        return found

    def check_walked(self, params: Any, data: Any, index: np.ndarray) -> None:
        """Refuse latents that Hamiltonian Monte Carlo can't move."""
        how = Gradients(relaxed=False, scored=[], walked=True)
        with self._evaluating(params, 0) as params:
            rows = self._index(index)
            trace = self.tracer.trace(params, select(self.tracer, data, rows), rows, 1, gradients=how)
        mistakes.check_drawn(trace)

    def prior(self, params: Any, fields: Mapping[str, Any], size: int, seed: int, mean: bool) -> tuple[Any, Any]:
        """Draws of latent and observed sites from the model, [1, size, *event], with the data `fields`."""
        with self._evaluating(params, seed) as params:
            found: Any = self.fetch(self.tracer.prior(params, self._fields(fields), size, mean)[:2])
        return found

    def conditioned(
        self,
        params: Any,
        fields: Mapping[str, Any],
        given: Arrays,
        size: int,
        seed: int,
        mean: bool,
        apart: bool = False,
    ) -> tuple[Any, Any, Any]:
        """The same with sites held at `given` [1, size, *event] and at data in `fields`; and the log p of those sites.

        If these are known to be `apart` from the sites drawn before them, they may come after those.
        """
        with self._evaluating(params, seed) as params:
            known = (True,) if apart else ()  # only a program has this
            found: Any = self.fetch(
                self.tracer.prior(params, self._fields(fields), size, mean, self.put(given), *known)
            )
        return found

    def sites(
        self, params: Any, fields: Mapping[str, Any], given: Arrays | None, size: int, apart: bool = False
    ) -> tuple[dict[str, tuple[tuple[int, ...], str]], list[str]]:
        """Shape and type of each site's draws in `conditioned`, and the held sites; without `given`, in `prior`."""
        held: Mapping[str, Any] = {}
        if given is None:
            latents, observed = self.prior(params, fields, size, 0, False)
        else:
            latents, observed, held = self.conditioned(params, fields, given, size, 0, False, apart)
        return {n: (v.shape, str(v.dtype)) for n, v in (latents | observed).items()}, list(held)

    def _fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Data on the device; None for fields that are not given."""
        native = self.put({n: v for n, v in fields.items() if v is not None})
        return {n: native.get(n) for n in fields}

    def validate(self, params: Any, data: Any, k: int, b: int) -> Trace:
        """One reading, with the process's own setting of argument checks: on, unless the user turned them off."""
        rows = self._index(np.arange(b) % len(next(iter(data.values()))))
        with torch.no_grad(), seeded(self.device, 0), self.tracer.evaluating(params) as params:
            before = {n: v._version for n, v in params.items()} if isinstance(self.tracer, ProgramTracer) else {}
            found: Trace = self.tracer.trace(params, select(self.tracer, data, rows), rows, k, None, True)
            for name, version in before.items():
                if params[name]._version != version:
                    raise mistakes.overwritten(name)
            return found

    def observed(self, params: Any, data: Any, index: np.ndarray, seed: int) -> list[Observed]:
        """What is known about each observed site."""
        with self._evaluating(params, seed) as params:
            rows = self._index(index)
            batch = select(self.tracer, data, rows)
            try:
                with unvalidated(False):
                    found = [describe(s, batch, True) for s in self.tracer.observed(params, batch, rows)]
            except (PpdgmError, ValueError):  # errors of parameters or draws, which evaluations report
                found = [describe(s, batch, False) for s in self.tracer.observed(params, batch, rows)]
            return [replace(o, bounds=self.fetch(o.bounds)) for o in found]

    def inside(self, params: Any, data: Any, index: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Whether the value of each observed site is in its support, given a draw of the guide, [B]."""
        with self._evaluating(params, seed) as params:
            rows = self._index(index)
            sites = self.tracer.observed(params, select(self.tracer, data, rows), rows)
            found: dict[str, np.ndarray] = self.fetch({s.name: rows_inside(s) for s in sites})
        return found

    def within(self, support: Any, rows: np.ndarray) -> np.ndarray:
        """Whether all numbers of each row are in a support that has no arrays, [N]."""
        found: np.ndarray = within(support, torch.as_tensor(rows)).numpy()
        return found

    def noise(self, params: Any, data: Any, index: np.ndarray) -> str:
        """What to do about random numbers from outside the sample sites; "" if none count.

        Some are drawn and not used: first values of a module whose values are set later.
        """
        if self._quiet:
            return ""
        with self._evaluating(params, 0) as params:
            rows = self._index(index)
            batch, watch = select(self.tracer, data, rows), Watch(self.device)
            one = self.tracer.watched(params, batch, rows, {}, watch)
            watch.site()
            self._quiet = not watch.used
            if self._quiet:
                return ""
            try:
                other = self.tracer.watched(params, batch, rows, one.values, None)
            except (PpdgmError, NotImplementedError):  # only its own draws can be scored, as for a one-way flow
                return REMEDY
            return REMEDY if differ(one, other) else ""

    def model_noise(self, params: Any, fields: Mapping[str, Any], size: int) -> str:
        """The same for draws from the model, without the guide."""
        with self._evaluating(params, 0) as params:
            native, watch = self._fields(fields), Watch(self.device)
            self.tracer.prior(params, native, size, False, watch=watch)
            watch.site()
            if not watch.used:
                return ""
            try:
                return REMEDY if apart(*self.tracer.model_twice(params, native, size)) else ""
            except (PpdgmError, NotImplementedError):  # only draws of a latent can be scored
                return REMEDY

    def rehearse(
        self, engine: Any, params: Any, data: Any, b: int, knobs: Mapping[str, np.ndarray], data_size: int
    ) -> list[str]:
        """The objective of each phase as in training, only to find its errors.

        Returns:
            The sites whose draws carry no gradient.
        """
        rows = self._index(np.arange(b) % len(next(iter(data.values()))))
        now = {n: torch.as_tensor(v[0], device=self.device) for n, v in knobs.items()}
        own = {n: v for n, v in params.items() if n.startswith(OWN)}
        scored: list[str] = []
        with self._evaluating({n: v for n, v in params.items() if n not in own}, 0) as params:
            batch = select(self.tracer, data, rows)
            for j, phase in enumerate(engine.phases()):
                tracing = make_tracing(self.tracer, phase.engine, {**params, **own}, batch, rows)
                ones = torch.ones(b, device=self.device)
                told = phase.engine.objective(tracing, ones, knobs_of(now, j), data_size)
                check_told(phase.engine, engine.metrics, told)
                scored += tracing.scored
        return scored

    def why_not_compiled(self, engine: Any, optimiser: Any) -> str:
        """Why torch.compile can't compile the steps of a run, in words; "" if it can."""
        if not self.tracer.compiles:
            return "torch.compile can't compile Pyro's handlers, which a plain pair needs"
        if not is_spec(optimiser):
            return "torch.compile can't compile your own optimiser"
        if self.tracer.state_names:
            return "torch.compile can't compile modules whose buffers change in training"
        alone = [type(p.engine).__name__ for p in engine.phases() if not p.engine.compiles]
        return f"torch.compile can't compile {alone[0]}" if alone else ""

    def batch_statistics(self, params: Any, data: Any, b: int) -> str | None:
        """What in the program's modules depends on the rows of a minibatch, in words; None if nothing does.

        These are batch norms, and buffers that a forward pass in training changes.
        """
        for module in self.tracer.all_modules():
            if isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats):
                return f"{type(module).__name__} computes statistics of the minibatch"
        if not self.tracer.state_names:
            return None
        rows = self._index(np.arange(self.tracer.batch_size or b) % len(next(iter(data.values()))))
        with torch.no_grad(), seeded(self.device, 0):
            now = self.tracer.adopt(params)
            before = {n: now[n].clone() for n in self.tracer.state_names}
            with self.tracer.training(now):
                self.tracer.trace(now, select(self.tracer, data, rows), rows, 1)
            moved = [n for n, v in before.items() if not torch.equal(v, now[n])]
            for n, v in before.items():
                now[n].copy_(v)
        return f"each forward pass changes the buffer {moved[0]!r}" if moved else None

    def bytes_written(self, params: Any, data: Any, k: int, b: int) -> int:
        """Bytes of all intermediate results of one reading with K particles and B rows.

        B is the pair's own if its data plate fixes it.
        """
        index = np.arange(self.tracer.batch_size or b) % len(next(iter(data.values())))
        with _Count() as count:
            self.trace(params, data, index, k, 0, None, True)
        return count.bytes

    def _index(self, index: np.ndarray) -> Array:
        return torch.as_tensor(index, dtype=torch.int64, device=self.device)

    @contextmanager
    def _evaluating(self, params: Any, *seed: int) -> Iterator[Any]:
        with (
            torch.no_grad(),
            unvalidated(),
            seeded(self.device, *seed),
            self.tracer.evaluating(params) as params,
        ):
            yield params


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
