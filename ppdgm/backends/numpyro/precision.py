"""How exactly matrix products and convolutions are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager

import jax


def products(tf32: bool = False) -> AbstractContextManager[object]:
    """Products of float32 numbers are in float32, or with inputs rounded to TF32.

    XLA would round them on its own where the hardware is faster then: to TF32 on NVIDIA's GPUs since Ampere, to
    bfloat16 on TPUs. On a CPU it never does.
    """
    return jax.default_matmul_precision("tensorfloat32" if tf32 else "float32")
