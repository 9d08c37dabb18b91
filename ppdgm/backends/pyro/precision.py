"""How exactly matrix products and convolutions are computed on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def products(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """Products of float32 numbers are in float32, or with inputs rounded to TF32; afterwards as they were.

    torch would round the inputs of convolutions on its own, on NVIDIA's GPUs since Ampere.
    """
    if device.type != "cuda":
        yield
        return
    matmul, cudnn, kind = torch.backends.cuda.matmul, torch.backends.cudnn, "tf32" if tf32 else "ieee"
    places: list[tuple[object, str, object]] = [(matmul, "allow_tf32", tf32), (cudnn, "allow_tf32", tf32)]
    if hasattr(matmul, "fp32_precision"):  # since torch 2.9, which refuses to read the older names beside it
        places = [(matmul, "fp32_precision", kind), (cudnn.conv, "fp32_precision", kind)]
    before = [getattr(home, name) for home, name, _ in places]
    try:
        for home, name, value in places:
            setattr(home, name, value)
        yield
    finally:
        for (home, name, _), value in zip(places, before, strict=True):
            setattr(home, name, value)
