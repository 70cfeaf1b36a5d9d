"""The decoder of FCN-8s (Long, Shelhamer and Darrell, 2015).

    score32 -> upscore2 -> + score16 -> upscore_pool4 -> + score8 -> upscore8 -> best class
               k4 s2                    k4 s2                        k16 s8

The filters are bilinear, as FCN initialises them.  They upsample each class by itself, so the
layers are depthwise, and the zeros between two classes are not multiplied.

Scores are whole quarters from -8 to 0, so every product and sum here is a multiple of 2^-18 below
2^5.  float32 holds them exactly: a right result equals the reference's, with no tolerance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import gpu, reference, transposed_conv2d
from .pictures import Picture
from .scores import scores

Array = Any
"""A NumPy array, or a CuPy array where there is a GPU."""

LAYERS = (("upscore2", 4, 2), ("upscore_pool4", 4, 2), ("upscore8", 16, 8))
"""Name, kernel size and stride of the transposed convolutions."""

STEPS = 1 + 2 * len(LAYERS)
"""How often `segment` reports a step."""

WINDOW = 64
"""Inputs along a side of what is compared with the reference in one piece."""


@dataclass(frozen=True)
class Layer:
    """What one transposed convolution of the decoder did."""

    name: str
    x_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    milliseconds: float
    is_right: bool
    """Whether the result is the reference's, where it was compared."""
    is_whole: bool
    """Whether every output was compared, or those of the four corners."""


@dataclass(frozen=True)
class Segments:
    """The classes found in a picture: of every cell at 1/32, and of every pixel."""

    picture: Picture
    coarse: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    palette: NDArray[np.float64]
    """The colour of each class."""


def segment(
    pictures: Sequence[Picture], classes: int, step: Callable[[str], None]
) -> tuple[list[Segments], list[Layer]]:
    """Segment pictures of one padded size in one batch."""
    step("scores")
    found = [scores(picture.padded(), classes) for picture in pictures]
    score32, score16, score8 = map(np.stack, zip(*(levels for levels, _ in found), strict=True))
    masks, layers = decode(score32, score16, score8, step)
    coarse = score32.argmax(axis=1).astype(np.uint8)
    segments = []
    for n, (picture, (_, palette)) in enumerate(zip(pictures, found, strict=True)):
        height, width = picture.size
        segments.append(Segments(picture, coarse[n], masks[n, :height, :width], palette))
    return segments, layers


def decode(
    score32: Array, score16: Array, score8: Array, step: Callable[[str], None]
) -> tuple[NDArray[np.uint8], list[Layer]]:
    """Return the best class of every pixel, and what each layer did."""
    on_device = _to_device()
    score32, score16, score8 = map(on_device, (score32, score16, score8))
    classes = score32.shape[1]
    layers = []
    fused = score32
    for (name, kernel_size, stride), skip in zip(LAYERS, (score16, score8, None), strict=True):
        weight = bilinear(classes, kernel_size)
        step(name)
        up, milliseconds = _timed(
            partial(
                transposed_conv2d,
                fused,
                on_device(weight),
                stride=stride,
                padding=(kernel_size - stride) // 2,
                groups=classes,
            )
        )
        step(f"{name}: checking")
        is_right = equals_reference(_to_host(up), _to_host(fused), weight, stride)
        is_whole = max(fused.shape[2:]) <= 2 * WINDOW
        layers.append(Layer(name, fused.shape, up.shape, milliseconds, is_right, is_whole))
        fused = up if skip is None else up + skip
    return _to_host(fused.argmax(axis=1)).astype(np.uint8), layers


def bilinear(classes: int, kernel_size: int) -> NDArray[np.float32]:
    """Return the weight of a depthwise layer that interpolates linearly between its inputs."""
    centre = (kernel_size - 1) / 2
    taps = 1 - np.abs(np.arange(kernel_size) - centre) / (kernel_size / 2)
    return np.tile(np.outer(taps, taps).astype(np.float32), (classes, 1, 1, 1))


def equals_reference(
    y: NDArray[np.float32], x: NDArray[np.float32], weight: NDArray[np.float32], stride: int
) -> bool:
    """Return whether a layer's result equals the reference's.

    All maps share one filter, so a weighted sum of the results must be the result of the weighted
    sum of the inputs.  The factors are random whole numbers and the sums exact in float64: one map
    from the reference checks all classes of the whole batch.
    """
    factors = np.random.default_rng(0).integers(1, 100, x.shape[:2]).astype(np.float64)
    x_sum, y_sum = (np.einsum("nc,nchw->hw", factors, array)[None] for array in (x, y))
    rows, columns = (_windows(size, stride) for size in x.shape[2:])
    for (x_rows, y_rows), (x_columns, y_columns) in product(rows, columns):
        expected = reference.transposed_conv2d(
            x_sum[:, x_rows, x_columns],
            weight[:1].astype(np.float64),
            stride=stride,
            padding=(weight.shape[-1] - stride) // 2,
        )
        if not np.array_equal(expected[:, y_rows, y_columns], y_sum[:, y_rows, y_columns]):
            return False
    return True


def _windows(size: int, stride: int) -> list[tuple[slice, slice]]:
    """Return what is compared along one axis: slices of the inputs, and of their outputs.

    Where a window cuts the map, its last output needs one input more.
    """
    first = slice(WINDOW + 1), slice(WINDOW * stride)
    last = slice(-WINDOW - 1, None), slice(-WINDOW * stride, None)
    return [first] if size <= WINDOW else [first, last]


def _to_device() -> Callable[[Array], Array]:
    """Return what moves an array to where the decoder runs."""
    if not gpu.is_available():
        return np.asarray
    import cupy

    to_gpu: Callable[[Array], Array] = cupy.asarray
    return to_gpu


def _to_host(array: Array) -> NDArray[Any]:
    host: NDArray[Any] = array if isinstance(array, np.ndarray) else array.get()
    return host


def _timed(call: Callable[[], Array]) -> tuple[Array, float]:
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
