"""Training with JAX: whole stretches of steps in one compiled loop, with the data on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ppdgm.backends.numpyro.augmenting import change
from ppdgm.backends.numpyro.keys import make_key
from ppdgm.backends.numpyro.precision import products
from ppdgm.backends.numpyro.quick import compile_quickly
from ppdgm.backends.numpyro.runtime import Runtime
from ppdgm.backends.numpyro.tracer import JaxStep, select
from ppdgm.errors import CheckpointError, SpecError
from ppdgm.language.native import OwnOptimiser, Tree
from ppdgm.language.phases import OptimiserLike, PlanLike, StateLike
from ppdgm.language.runtime import Native
from ppdgm.language.step import Objective, at_whole
from ppdgm.language.tracer import Params
from ppdgm.language.trainer import GradientTrainer, Symptoms, part_of
from ppdgm.language.turns import in_turn
from ppdgm.language.vocabulary import Array

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr

Row = dict[str, Tree]  # what the loop needs of a plan, or of one of its steps


def make_optimiser(spec: OptimiserLike | OwnOptimiser) -> optax.GradientTransformation:
    """optax for an `Optimiser` spec, at learning rate 1 (steps are scaled by the schedule), or the user's own."""
    if isinstance(spec, optax.GradientTransformation):
        return spec
    if not hasattr(spec, "clip_norm"):
        raise SpecError(
            f"optimiser: got {type(spec).__name__}; the numpyro backend expects a name such as 'adam', an Optimiser, "
            "or an optax.GradientTransformation."
        )
    b1, b2, eps = spec.beta1, spec.beta2, spec.eps
    rule = {
        "adam": lambda: optax.adam(1.0, b1, b2, eps),
        "adamw": lambda: optax.adamw(1.0, b1, b2, eps, weight_decay=spec.weight_decay),
        "adamax": lambda: optax.adamax(1.0, b1, b2, eps),
        "sgd": lambda: optax.sgd(1.0, spec.momentum or None),
        "rmsprop": lambda: optax.rmsprop(1.0, spec.decay, eps, eps_in_sqrt=False),
    }[spec.name]()
    return optax.chain(optax.clip_by_global_norm(spec.clip_norm), rule) if spec.clip_norm else rule


_FLIP = 2**31 - 1  # folded into a step's key for binarisation; sites have the numbers from 0
_CHANGE = 2**31 - 2  # the same for an augmentation


def _copies(arrays: Tree) -> Tree:
    """NumPy arrays in their own memory: what a stretch donates may be overwritten."""
    return jax.tree.map(lambda a: np.array(a, copy=True), jax.device_get(arrays))


class Trainer(GradientTrainer):
    """The training state on the device, and the compiled stretch that changes it."""

    runtime: Runtime
    compiled = True  # always; `compile` and `insist` are for the other backend

    @in_turn
    def start(self, params: Native, state: Mapping[str, StateLike]) -> None:
        runtime, settings = self.runtime, self.settings
        averaged = [n for n in params if n not in self.tracer.states and settings.average is not None]
        chosen = [phase.optimiser or settings.optimiser for phase in self.phases]
        self.transforms, self.by_name = [make_optimiser(o) for o in chosen], [hasattr(o, "clip_norm") for o in chosen]

        def begin(params: Params) -> tuple[Tree, Tree, Tree]:
            copy = lambda names: {n: jnp.copy(params[n]) for n in names}
            states = [t.init(_moving(params, groups)) for t, groups in zip(self.transforms, self.groups, strict=True)]
            return copy(params), copy(averaged), states

        # Copies, because stretches donate their input, and the caller's arrays must not be donated. Placed like the
        # result of a stretch: counters and zeros, which depend on no parameter, would not be, and the second stretch
        # would be compiled again.
        params = {**params, **runtime.put({n: s.value for n, s in state.items()})}
        self.params, self.average, self.state = runtime.share.put(jax.jit(begin)(params))
        self.key = runtime.share.put(make_key(settings.seed))
        self._keys = compile_quickly(_keys, runtime.device)
        whole = {} if runtime.share.mesh is None else {"out_shardings": runtime.share.everywhere}
        self._stretch = jax.jit(self._run_stretch, donate_argnums=0, **whole)
        self._single = jax.jit(self._step, donate_argnums=0, **whole)
        self._finite = jax.jit(_all_finite)
        self._singly: bool | None = None  # chosen once, from the program and the device

    @in_turn
    def run(self, plan: PlanLike, data: Native) -> dict[str, np.ndarray]:
        """The same as for the base class.

        Raises:
            TrainingError: another process does not answer.
        """
        try:
            with products(self.settings.tf32):
                return self._run(plan, data)
        except jax.errors.JaxRuntimeError as error:
            if self.runtime.share.processes == 1 or "RESOURCE_EXHAUSTED" in str(error):
                raise
            raise self.runtime.share.lost(error) from error

    def _run(self, plan: PlanLike, data: Native) -> dict[str, np.ndarray]:
        arrays = self._put(plan)
        put = self.runtime.share.put
        history = put(np.zeros((len(plan.rate), len(self.settings.metrics)), np.float32))
        carry = (put(np.int32(0)), self.params, self.state, self.average, history)
        stretch = carry, data, arrays, put(np.int32(plan.count))
        if self._steps_singly(*stretch):
            for _ in range(plan.count):
                carry = self._single(carry, data, arrays)
        else:
            carry = self._stretch(*stretch)
        _, self.params, self.state, self.average, history = carry
        self._keep_scheduled(arrays["scheduled"], plan.count - 1)
        values = np.asarray(jax.device_get(history))[: plan.count]
        return {n: values[:, j] for j, n in enumerate(self.settings.metrics)}

    def _keep_scheduled(self, scheduled: Mapping[str, Array], last: int) -> None:
        """The last value of a parameter that a schedule changes is kept among the parameters."""
        now = {n: v[last].astype(self.params[n].dtype) for n, v in scheduled.items()}
        self.params = {**self.params, **now}
        self.average = {**self.average, **now} if self.average else {}

    copies = staticmethod(_copies)

    def further(self) -> dict[str, dict[str, np.ndarray]]:
        """Draws depend only on seed and step."""
        return {"optimiser": _copies({str(i): _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(self.state))})}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        put = lambda a: self.runtime.share.put(jnp.array(a))
        self.params = {n: put(a) for n, a in part_of(arrays, "params").items()}
        self.average = {n: put(a) for n, a in part_of(arrays, "average").items()}
        saved, (leaves, shape) = part_of(arrays, "optimiser"), jax.tree.flatten(self.state)
        if len(saved) != len(leaves):
            raise CheckpointError(
                f"The optimiser has {len(leaves)} arrays, but the checkpoint has {len(saved)}. Give the optimiser that "
                "the run was started with."
            )
        found = [_like(leaf, put(saved[str(i)])) for i, leaf in enumerate(leaves)]
        self.state = self.runtime.share.put(jax.tree.unflatten(shape, found))

    def finite(self) -> bool:
        states = [s for s, by_name in zip(self.state, self.by_name, strict=True) if by_name]
        leaves = jax.tree.leaves((self.params, self.average, states))
        floats = [a for a in leaves if jnp.issubdtype(a.dtype, jnp.floating)]
        if self.runtime.device.platform == "cpu":  # where NumPy needs no compilation and no copy
            return all(np.isfinite(np.asarray(a)).all() for a in floats)
        return bool(self._finite(floats))

    def skip(self) -> None:
        """Nothing to do, because draws belong to the step."""

    @in_turn
    def check_divided(self, plan: PlanLike, data: Native) -> None:
        """Nothing to refuse, because one program computes with the rows of all devices."""

    @in_turn
    def diagnose(self, plan: PlanLike, data: Native) -> Symptoms:
        row = jax.tree.map(lambda a: a[0], self._put(plan))
        j = int(plan.phase[0])

        def quantities(params: Params) -> Tree:
            step = self._step_of(j, params, data, row)
            self.phases[j].engine.objective(step)
            return step.first, step.returned, dict(step.updates)

        terms, returned, updates = self.runtime.fetch(jax.jit(quantities)(self.params))
        _, _, grads = jax.jit(partial(self._gradient, j))(self.params, data, row)
        return Symptoms(terms, returned, _copies(grads), updates)

    def _put(self, plan: PlanLike) -> Row:
        put = self.runtime.share.put
        steps = put(np.arange(plan.first, plan.first + len(plan.rate), dtype=np.int32))
        return {
            "index": put(plan.index),
            "weight": put(plan.weight),
            "rate": put(plan.rate),
            "phase": put(plan.phase),
            "hyperparameters": jax.tree.map(put, plan.hyperparameters),
            "scheduled": jax.tree.map(put, plan.scheduled),
            "key": self._keys(self.key, steps),  # draws belong to the step, wherever stretches end
        }

    def compilations(self) -> int:
        """The number of times that training was compiled."""
        return int(self._stretch._cache_size() + self._single._cache_size())

    def _run_stretch(self, carry: Tree, data: Native, plan: Row, count: Array) -> Tree:
        return jax.lax.fori_loop(0, count, lambda _, now: self._step(now, data, plan), carry)

    def _step(self, carry: Tree, data: Native, plan: Row) -> Tree:
        i, params, state, average, history = carry
        row = jax.tree.map(lambda a: a[i], plan)
        turns = [partial(self._turn, j) for j in range(len(self.phases))]
        if len(turns) == 1:
            metrics, params, state = turns[0](params, state, data, row)
        else:
            metrics, params, state = jax.lax.switch(row["phase"], turns, params, state, data, row)
        average = {n: a + (1.0 - (self.decay or 0.0)) * (params[n] - a) for n, a in average.items()}
        seen = jnp.stack(metrics).astype(history.dtype)
        return i + 1, params, state, average, history.at[i].set(seen)

    def _turn(
        self, j: int, params: Params, state: list[Tree], data: Native, row: Row
    ) -> tuple[list[Array], Native, list[Tree]]:
        """One step of one phase, which changes its own parameters."""
        metrics, own, grads = self._gradient(j, params, data, row)
        moving = {n: params[n] for n in grads}
        updates, new = self.transforms[j].update(grads, state[j], moving)
        moved = jax.tree.map(lambda p, u: p + (row["rate"] * u).astype(p.dtype), moving, updates)
        if (project := self.phases[j].projection) is not None:
            moved = {n: project(jnp, p) for n, p in moved.items()}
        return metrics, {**params, **moved, **own}, [new if i == j else s for i, s in enumerate(state)]

    def _steps_singly(self, carry: Tree, data: Native, arrays: Row, count: Array) -> bool:
        """On a CPU, XLA runs convolutions inside a loop ten times slower than outside, except ours."""
        if self._singly is None:
            row = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), arrays)
            objective = lambda j: lambda params, row: self._found(j, params, data, row)["objective"]
            read = (jax.make_jaxpr(objective(j))(self.params, row).jaxpr for j in range(len(self.phases)))
            # The stretch is traced for its first run in any case. Its derivatives no longer show which ones are ours.
            some = self.runtime.device.platform == "cpu" and _convolves(
                self._stretch.trace(carry, data, arrays, count).jaxpr.jaxpr
            )
            self._singly = some and any(map(_convolves, read))
        return self._singly

    def _step_of(self, j: int, params: Params, data: Native, row: Row) -> JaxStep:
        row = {**row, **self.runtime.share.divide({n: row[n] for n in ("index", "weight")})}
        batch = select(self.tracer, data, row["index"])
        if not self.tracer.subsamples:
            batch = self.runtime.share.divide(batch)
        if self.settings.augment is not None:
            noise = jax.random.fold_in(row["key"], _CHANGE)
            batch = {**batch, "x": change(self.settings.augment, noise, batch["x"])}
        if self.settings.binarise:
            whole = batch["x"]
            x = whole[row["index"]] if self.tracer.subsamples else whole
            flip = jax.random.fold_in(row["key"], _FLIP)
            x = (jax.random.uniform(flip, x.shape, x.dtype) < x).astype(x.dtype)
            batch = {**batch, "x": whole.at[row["index"]].set(x) if self.tracer.subsamples else x}
        params, now = {**params, **row["scheduled"]}, row["hyperparameters"][j]
        settings = self.settings
        at = row["key"], batch, row["index"], row["weight"], now
        how = settings.data_size, settings.mixed, settings.chunk, settings.rematerialise
        return JaxStep(self.tracer, params, *at, *how)

    def _gradient(self, j: int, params: Params, data: Native, row: Row) -> tuple[list[Array], Native, Native]:
        """Metrics, the engine's own numbers, and the gradient of what each player minimises."""
        if self.settings.pieces == 1:
            return self._piece(j, params, data, row)
        cut = lambda a: jnp.reshape(a, (self.settings.pieces, -1))
        weight = cut(row["weight"])
        shares = weight.sum(1) / weight.sum()
        # A piece with only padding counts for nothing, and must not be divided by 0.
        weight = jnp.where(shares[:, None] > 0, weight, 1.0)

        each = (cut(row["index"]), weight, _keys(row["key"], jnp.arange(self.settings.pieces)), shares)

        def total(of_piece: Callable[[Row], Tree]) -> Tree:
            """Σ over pieces, weighted by their shares; the same draws each time."""

            def add(total: Tree, piece: Tree) -> tuple[Tree, None]:
                index, weight, key, share = piece
                found = of_piece({**row, "index": index, "weight": weight, "key": key})
                return jax.tree.map(
                    lambda t, a: t + jnp.where(share > 0, share * a, 0.0).astype(t.dtype), total, found
                ), None

            first = {**row, "index": each[0][0], "weight": weight[0]}
            like = jax.eval_shape(lambda: of_piece(first))
            zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
            return jax.lax.scan(add, zeros, each)[0] if zeros else {}

        means = total(lambda row: self._found(j, params, data, row).get("means", {}))
        return total(lambda row: self._piece(j, params, data, row, means))

    def _found(self, j: int, params: Params, data: Native, row: Row) -> Objective:
        """The result of the phase's objective for the data of one row of the plan."""
        return self.objective(j, params, self._step_of(j, params, data, row))

    def _piece(
        self, j: int, params: Params, data: Native, row: Row, means: Native | None = None
    ) -> tuple[list[Array], Native, Native]:
        groups = self.groups[j]

        def losses(moving: Params) -> tuple[list[Array], tuple[list[Array], Native]]:
            found = self._found(j, {**params, **moving}, data, row)
            found = at_whole(found, means, jax.lax.stop_gradient) if means else found
            return self.losses(j, found), (self.metrics(found), found.get("state", {}))

        moving = _moving(params, groups)
        values, pull, (metrics, own) = jax.vjp(losses, moving, has_aux=True)
        grads: dict[str, Array] = {}
        for i, names in enumerate(groups):
            found = pull([jnp.full(v.shape, i == k, v.dtype) for k, v in enumerate(values)])[0]
            grads |= {n: found[n] for n in names}
        return metrics, own, grads


def _moving(params: Params, groups: Iterable[Iterable[str]]) -> Native:
    """The parameters that a phase's players train."""
    return {n: params[n] for names in groups for n in names}


def _keys(key: Array, numbers: Array) -> Array:
    """A key for each number."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def _is_key(leaf: Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _plain(leaf: Array) -> Array:
    leaf = jnp.asarray(leaf)
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(leaf: Array, saved: Array) -> Array:
    return jax.random.wrap_key_data(saved) if _is_key(jnp.asarray(leaf)) else saved


def _all_finite(arrays: list[Array]) -> Array:
    return jnp.stack([jnp.isfinite(a).all() for a in arrays]).all() if arrays else jnp.array(True)


def _convolves(jaxpr: Jaxpr) -> bool:
    """Whether it has a convolution that is not one of ours (ours have their own derivatives)."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            return True
        values = [w for v in eqn.params.values() for w in (v if isinstance(v, tuple | list) else [v])]
        inner = [j for j in (getattr(v, "jaxpr", v) for v in values) if hasattr(j, "eqns")]
        if eqn.primitive.name != "custom_vjp_call" and any(map(_convolves, inner)):
            return True
    return False
