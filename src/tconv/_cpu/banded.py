"""Multiply windows of the input by banded matrices: for one input channel a group.

A block of neighbouring outputs depends on a short window of inputs, and every block in the same
way.  So a channel is one matrix product, ``(blocks, window) @ (window, outputs)``.  The matrix on
the right has the taps on its diagonals, each row being the one before a stride further on, and
zeros elsewhere.  The zeros are multiplied too, but BLAS is faster than NumPy by more than that, and
the outputs of all phases come out next to each other.

A block is several steps of the stride along the last axis, and one along each other axis.

A zero times an infinity would be a NaN.  So this is for finite weights, and inputs that are not
finite are left to `tap_by_tap`; so are integers, which BLAS does not compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np

from .. import _activation
from .._geometry import Geometry
from . import tap_by_tap
from .scratch import Scratch

Array = np.ndarray[Any, np.dtype[Any]]

ALL = slice(None)

# Outputs of a block along the last axis, at least: as many as BLAS computes at once.
WIDTH = 16
# So many products with zeros for one with a tap are too many.
MOST_WASTE = 16


@dataclass(frozen=True, slots=True)
class Blocks:
    """How one axis is cut: the `count` blocks hold ``step * stride`` outputs each.

    They begin where the phases do, so that the first `crop` outputs do not exist.  The first block
    reads `window` inputs from `first` on, and each other the window that is `step` further on.
    """

    stride: int
    step: int
    count: int
    crop: int
    first: int
    window: int

    @property
    def size(self) -> int:
        """Outputs of a block."""
        return self.step * self.stride

    @property
    def padded(self) -> int:
        """Inputs that the blocks read, in whole steps so that rows can lie end to end."""
        return (self.count - 1 + -(-self.window // self.step)) * self.step


@lru_cache(maxsize=1024)
def blocks(g: Geometry) -> tuple[Blocks, ...]:
    """Return how every axis is cut."""
    return tuple(_blocks(g, axis) for axis in range(g.ndim))


def _blocks(g: Geometry, axis: int) -> Blocks:
    stride, pad = g.stride[axis], g.pad_begin[axis]
    steps = -(-(g.out_size[axis] + pad % stride) // stride)
    step = min(-(-WIDTH // stride), steps) if axis == g.ndim - 1 else 1
    reach = (g.kernel_size[axis] - 1) * g.dilation[axis] // stride
    return Blocks(
        stride=stride,
        step=step,
        count=-(-steps // step),
        crop=pad % stride,
        first=pad // stride - reach,
        window=step + reach,
    )


def suits(g: Geometry) -> bool:
    """Tell whether each group has one channel, and the taps are close enough together."""
    if g.in_channels != g.groups or any(map(int.__gt__, g.stride, g.out_size)):
        return False
    products = prod(axis.window for axis in blocks(g)) * prod(g.stride)
    return products <= MOST_WASTE * prod(map(max, g.kernel_size, g.stride))


def elements(g: Geometry) -> int:
    """Return how many intermediate results there are for every input position."""
    cut = blocks(g)
    return prod(g.stride) + -(-prod(axis.window for axis in cut) // cut[-1].step)


def compute(
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    geometry: Geometry,
    activation: str | None,
    scratch: Scratch,
) -> None:
    """Write the transposed convolution of `x` with `weight` into `out`."""
    g, cut = geometry, blocks(geometry)
    inputs = _pad(x, g, cut, scratch)
    if inputs.dtype.kind == "i" or not np.isfinite(np.vdot(inputs, inputs)):
        tap_by_tap.compute(x, weight, bias, out, geometry, activation, scratch)
        return
    matrices = _matrices(weight, g, cut, scratch)
    windows = _windows(inputs, g, cut, scratch)
    # (groups, M // groups, phases of the outer axes, blocks, outputs)
    sums = scratch.empty((*matrices.shape[:3], windows.shape[1], cut[-1].size))
    np.matmul(windows[:, None, None], matrices, out=sums)
    if bias is not None:
        sums += bias.reshape(g.groups, -1, 1, 1, 1)
    _activation.apply(activation, sums)
    _store(sums, out, g, cut)


def _pad(x: Array, g: Geometry, cut: tuple[Blocks, ...], scratch: Scratch) -> Array:
    """Return the inputs of all blocks, ``(C, positions)``, with zeros for absent ones."""
    sizes = [axis.padded for axis in cut]
    positions = g.batch * prod(sizes)
    # The window of the last, idle block of a row may reach beyond the end.
    padded = scratch.empty((g.in_channels, positions + cut[-1].window))
    padded[...] = 0
    source, target = [], []
    for axis, n in zip(cut, g.in_size, strict=True):
        begin, end = max(0, axis.first), max(0, min(n, axis.first + axis.padded))
        source.append(slice(begin, end))
        target.append(slice(begin - axis.first, max(begin, end) - axis.first))
    inside = padded[:, :positions].reshape(g.in_channels, g.batch, *sizes)
    inside[:, :, *target] = x.swapaxes(0, 1)[:, :, *source]
    return padded


def _windows(inputs: Array, g: Geometry, cut: tuple[Blocks, ...], scratch: Scratch) -> Array:
    """Return the window of every block, ``(groups, blocks, window)``, blocks being nearest."""
    rows = cut[-1].padded // cut[-1].step
    counts = (*(axis.count for axis in cut[:-1]), rows)
    item, *strides = (inputs.itemsize * prod(a.padded for a in cut[n:]) for n in range(g.ndim + 1))
    view = np.ndarray(
        (g.groups, *(axis.window for axis in cut), g.batch, *counts),
        inputs.dtype,
        inputs,
        strides=(
            inputs.strides[0],
            *strides,
            item,
            *(stride * axis.step for stride, axis in zip(strides, cut, strict=True)),
        ),
    )
    windows = scratch.empty(view.shape)
    windows[...] = view
    return windows.reshape(g.groups, prod(axis.window for axis in cut), -1).swapaxes(1, 2)


def _matrices(weight: Array, g: Geometry, cut: tuple[Blocks, ...], scratch: Scratch) -> Array:
    """Return ``(groups, M // groups, phases of the outer axes, window, outputs)``."""
    # Each kernel with its dilation and zeros around, so that every row is a stretch of it.
    kernels = scratch.empty((*weight.shape[:2], *((a.window - 1) * a.stride + a.size for a in cut)))
    kernels[...] = 0
    begins = ((axis.step - 1) * axis.stride for axis in cut)
    taps = map(slice, begins, (None,) * g.ndim, g.dilation)
    kernels[:, :, *taps][:, :, *map(slice, g.kernel_size)] = weight
    strides = kernels.strides[2:]
    up = [axis.stride * stride for axis, stride in zip(cut, strides, strict=True)]
    diagonals = np.ndarray(
        (*weight.shape[:2], *(a.size for a in cut[:-1]), *(a.window for a in cut), cut[-1].size),
        kernels.dtype,
        kernels,
        sum((axis.window - 1) * step for axis, step in zip(cut, up, strict=True)),
        (*kernels.strides[:2], *strides[:-1], *(-step for step in up), strides[-1]),
    )
    matrices = scratch.empty(diagonals.shape)
    matrices[...] = diagonals
    return matrices.reshape(*weight.shape[:2], -1, prod(axis.window for axis in cut), cut[-1].size)


def _store(sums: Array, out: Array, g: Geometry, cut: tuple[Blocks, ...]) -> None:
    """Round the sums into their places of the output, one phase of the outer axes at a time."""
    *outer, last = cut
    phases = [axis.stride for axis in outer]
    counts = [axis.count for axis in outer]
    rows = sums.reshape(g.out_channels, *phases, g.batch, *counts, -1)
    rows = rows[..., last.crop : last.crop + g.out_size[-1]]
    for phase in product(*map(range, phases)):
        source: list[int | slice] = [ALL, *phase, ALL]
        target = [ALL, ALL]
        for axis, r, n in zip(outer, phase, g.out_size, strict=False):
            places = range((r - axis.crop) % axis.stride, n, axis.stride)
            begin = int(r < axis.crop)
            source.append(slice(begin, begin + len(places)))
            target.append(slice(places.start, None, places.step))
        np.copyto(out[*target], rows[tuple(source)].swapaxes(0, 1), casting="unsafe")
