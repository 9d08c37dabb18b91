"""Several JAX devices, in one process or many: the parameters are on each of them, and the rows are divided."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ppdgm.errors import PpdgmError
from ppdgm.language.native import Device, Tree
from ppdgm.language.shares import Share

ADDRESS, PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@dataclass(frozen=True)
class Devices(Share):
    """The devices of a run, as one row of them.

    Attributes:
        mesh: of all devices of all processes; None for a single device.
        home: the first device of this process.
    """

    mesh: Mesh | None = None
    home: Device = None

    @property
    def everywhere(self) -> Device | NamedSharding:
        """Where arrays are that every device has."""
        return self.home if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    @property
    def divided(self) -> NamedSharding:
        """Where an array is of which each device has its rows, the first axis."""
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec("data"))

    def put(self, tree: Tree) -> Tree:
        """Arrays on every device."""
        if self.processes == 1:
            return jax.device_put(tree, self.everywhere)
        return jax.tree.map(partial(_put, self.everywhere), tree)

    def put_rows(self, rows: np.ndarray) -> jax.Array:
        """Places of rows, divided among the devices if they can be divided evenly."""
        if self.mesh is None or len(rows) % self.devices:
            return self.put(rows)
        return jax.make_array_from_callback(rows.shape, self.divided, lambda part: rows[part])

    def divide(self, tree: Tree) -> Tree:
        """In a compiled function: each device computes with its own rows."""
        return tree if self.mesh is None else jax.lax.with_sharding_constraint(tree, self.divided)

    def largest(self, numbers: np.ndarray) -> np.ndarray:
        if self.processes == 1:
            return numbers
        from jax.experimental.multihost_utils import process_allgather

        try:
            found: np.ndarray = np.asarray(process_allgather(np.asarray(numbers))).max(0)
        except jax.errors.JaxRuntimeError as error:
            raise self.lost(error) from error
        return found


def _put(where: NamedSharding, array: Tree) -> jax.Array:
    """An array that all processes have, without a comparison of what they have."""
    if jnp.issubdtype(getattr(array, "dtype", float), jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(where, jax.random.key_data(array)))
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, where, lambda part: host[part])


def find_devices(
    name: str, count: int | Literal["all"] | None = None, environment: Mapping[str, str] = os.environ
) -> Devices:
    """The JAX devices of a name: one, or a number of them, or all.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:1".
        count: the number of devices, over all processes; None: one of this process, whatever others do.
        environment: says whether this process is one of several.

    Raises:
        PpdgmError: there are no such devices.
    """
    if count not in (1, None):
        _join(environment)
    kind, _, index = name.partition(":")
    try:
        platform = None if name == "auto" else {"cuda": "gpu"}.get(kind, kind)
        own, every = jax.local_devices(backend=platform), jax.devices(platform)
        home = own[int(index or 0)]
    except (RuntimeError, IndexError, ValueError):
        found = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
        raise PpdgmError(f"No device {name!r} for JAX. Found: {found}. For a GPU: pip install 'ppdgm[cuda]'.") from None
    number, processes = len(every) if count == "all" else count or 1, jax.process_count()
    if count is None or (count == 1 and processes == 1):
        return Devices(home=home)
    if index:
        raise PpdgmError(f"device: got {name!r}, which is one device, with devices={count!r}. Give device={kind!r}.")
    if number > len(every) or (processes > 1 and number < len(every)):
        one = f"{len(every)} of kind {every[0].platform!r}"
        cpu = " JAX sees a CPU as one device; XLA_FLAGS=--xla_force_host_platform_device_count=8 makes it 8."
        raise PpdgmError(
            f"devices: got {number}, but JAX found {one}{f' in {processes} processes' if processes > 1 else ''}. Give "
            f"devices={len(every)}, or devices='all'.{cpu if every[0].platform == 'cpu' and processes == 1 else ''}"
        )
    if number == 1:
        return Devices(home=home)
    mesh = jax.make_mesh((number,), ("data",), axis_types=(AxisType.Auto,), devices=every[:number])
    return Devices(number, jax.process_index(), processes, mesh, home)


def _join(environment: Mapping[str, str]) -> None:
    """Meet the other processes, if this one was started as one of several, by Slurm or by variables.

    Raises:
        PpdgmError: a variable is missing or wrong, or JAX can't meet them.
    """
    by_name = ADDRESS in environment
    by_slurm = all(n in environment for n in _SLURM) and environment["SLURM_NTASKS"] != "1"
    if jax.distributed.is_initialized() or not (by_name or by_slurm):
        return
    how = {}
    if by_name and not by_slurm:
        try:
            how = {"num_processes": int(environment[PROCESSES]), "process_id": int(environment[PROCESS])}
        except (KeyError, ValueError):
            raise PpdgmError(
                f"{ADDRESS} is set, so this process is one of several. Set {PROCESSES} to their number too, and "
                f"{PROCESS} to the number of this one, from 0."
            ) from None
    try:
        jax.distributed.initialize(**how)
    except (RuntimeError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise PpdgmError(
            f"devices: JAX could not meet the other processes ({said}). Call fit before anything else uses JAX, or "
            "jax.distributed.initialize() at the start of your program."
        ) from error
