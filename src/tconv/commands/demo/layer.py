"""What the decoders of the demo share: where and how fast a layer ran, and whether it was right."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import gpu

Array = Any
"""A NumPy array, or a CuPy array where there is a GPU."""


@dataclass(frozen=True)
class Layer:
    """What one transposed convolution of the decoder did."""

    name: str
    x_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    path: str
    """What computed it."""
    milliseconds: float
    is_right: bool
    """Whether the result is the reference's, where it was compared."""
    is_whole: bool
    """Whether every output was compared, or those of the four corners."""
    is_exact: bool = True
    """Whether it must be the reference's bit for bit, or within rounding."""


def path(x: Array, weight: Array, **window: Any) -> str:
    """Return what computes a layer, and on a GPU with which kernel."""
    if not gpu.is_available():
        return "CPU, NumPy"
    plan = gpu.plan(x.shape, weight.shape, x.dtype, **window)
    return f"GPU, {plan.choice.specialisation.kernel}"


def to_device() -> Callable[[Array], Array]:
    """Return what moves an array to where the decoder runs."""
    if not gpu.is_available():
        return np.asarray
    import cupy

    to_gpu: Callable[[Array], Array] = cupy.asarray
    return to_gpu


def to_host(array: Array) -> NDArray[Any]:
    """Return a NumPy array, wherever the array lies."""
    host: NDArray[Any] = array if isinstance(array, np.ndarray) else array.get()
    return host


def timed(call: Callable[[], Array]) -> tuple[Array, float]:
    """Return the result, and the milliseconds of the fastest of three calls after a first one."""
    result, seconds = call(), []
    for _ in range(3):
        _synchronise(result)
        begin = time.perf_counter()
        result = call()
        _synchronise(result)
        seconds.append(time.perf_counter() - begin)
    return result, 1000 * min(seconds)


def _synchronise(array: Array) -> None:
    if not isinstance(array, np.ndarray):
        array.device.synchronize()
