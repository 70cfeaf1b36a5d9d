"""Bringing the input into the shape that the sums need, and the sums to their places."""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .._geometry import Geometry
from .phases import Run
from .scratch import Scratch

Array = np.ndarray[Any, np.dtype[Any]]
Sizes = tuple[int, ...]

# From so many neighbouring phases on they are stored together, output by output along the axis.
WIDE = 16


def extend(x: Array, before: Sizes, after: Sizes, apart: int, scratch: Scratch) -> Array:
    """Return `x` ``(N, C, *in)`` as ``(apart, C, N // apart, *extended)``, with zeros around.

    It is a view where nothing has to be added or converted.
    """
    batch, channels, *sizes = x.shape
    x = x.reshape(apart, batch // apart, channels, *sizes).swapaxes(1, 2)
    if not any(before) and not any(after):
        return x.astype(scratch.dtype, copy=False)
    extended = (b + n + a for b, n, a in zip(before, sizes, after, strict=True))
    copy = scratch.empty((*x.shape[:3], *extended))
    copy[...] = 0
    inside = tuple(slice(b, b + n) for b, n in zip(before, sizes, strict=True))
    copy[:, :, :, *inside] = x
    return copy


def store(sums: Array, out: Array, g: Geometry, runs: tuple[Run, ...]) -> None:
    """Round `sums` ``(apart, M, *phases, merged, *sizes)`` into `out` ``(N, M, *out_size)``."""
    merged = sums.shape[2 + g.ndim]
    first = (
        run.begin * stride + run.first - pad
        for run, stride, pad in zip(runs, g.stride, g.pad_begin, strict=True)
    )
    n, m, *steps = out.strides
    # A stride beyond the output is never stepped, and may be too long to multiply.
    strides = map(operator.mul, steps, map(min, g.stride, g.out_size))
    places = as_strided(
        out[:, :, *(slice(o, None) for o in first)],
        sums.shape,
        (n * merged, m, *steps, n, *strides),
    )
    last = 1 + g.ndim
    if sums.shape[last] >= WIDE:
        np.copyto(places, sums, casting="unsafe")
    else:
        for r in range(sums.shape[last]):
            phase = (slice(None),) * last + (r,)
            np.copyto(places[phase], sums[phase], casting="unsafe")


def flat_strides(sizes: Sizes) -> Sizes:
    """Return how many positions one step along each axis is, with all axes end to end."""
    return tuple(prod(sizes[axis + 1 :]) for axis in range(len(sizes)))
