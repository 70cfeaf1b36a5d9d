"""The decoder of FCN-8s (Long, Shelhamer and Darrell, 2015).

    score32 -> upscore2 -> + score16 -> upscore_pool4 -> + score8 -> upscore8 -> best class
               k4 s2                    k4 s2                        k16 s8

The filters are bilinear, as FCN initialises them.  They upsample each class by itself, so the
layers are depthwise, and the zeros between two classes are not multiplied.

Scores are whole quarters from -8 to 0, so every product and sum here is a multiple of 2^-18 below
2^5.  float32 holds them exactly: a right result equals the reference's, with no tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import reference, transposed_conv2d
from ...init import bilinear
from .layer import Array, Layer, path, timed, to_device, to_host
from .pictures import Picture
from .scores import scores

LAYERS = (("upscore2", 4, 2), ("upscore_pool4", 4, 2), ("upscore8", 16, 8))
"""Name, kernel size and stride of the transposed convolutions."""

STEPS = 1 + 2 * len(LAYERS)
"""How often `segment` reports a step."""

WINDOW = 64
"""Inputs along a side of what is compared with the reference in one piece."""


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
    on_device = to_device()
    score32, score16, score8 = map(on_device, (score32, score16, score8))
    classes = score32.shape[1]
    layers = []
    fused = score32
    for (name, kernel_size, stride), skip in zip(LAYERS, (score16, score8, None), strict=True):
        weight = bilinear(classes, (kernel_size, kernel_size), groups=classes)
        window: dict[str, Any] = {
            "stride": stride,
            "padding": (kernel_size - stride) // 2,
            "groups": classes,
        }
        step(name)
        up, milliseconds = timed(partial(transposed_conv2d, fused, on_device(weight), **window))
        step(f"{name}: checking")
        is_right = equals_reference(to_host(up), to_host(fused), weight, stride)
        is_whole = max(fused.shape[2:]) <= 2 * WINDOW
        by = path(fused, weight, **window)
        layers.append(Layer(name, fused.shape, up.shape, by, milliseconds, is_right, is_whole))
        fused = up if skip is None else up + skip
    return to_host(fused.argmax(axis=1)).astype(np.uint8), layers


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
