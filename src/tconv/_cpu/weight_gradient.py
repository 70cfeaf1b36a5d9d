"""The gradients with respect to weight and bias: sums over the batch and all positions.

The weight gradient is a matrix product, ``(C, positions) @ (positions, M * taps)``.  Long sums are
cut into blocks, and the blocks are added pairwise, in an order that depends on the geometry alone:
errors do not pile up, and every run gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np

from .._geometry import Geometry
from .columns import (
    LEAST_POSITIONS,
    MOST_POSITIONS,
    NBYTES,
    Block,
    block,
    boxes,
    columns,
    meets_zeros,
    single_taps,
    stretches,
)
from .pool import for_each
from .scratch import Scratch
from .sums import sum_dtype

Array = np.ndarray[Any, np.dtype[Any]]
Multiply = Callable[[Array, Array, Geometry, Scratch, Array], None]

# Independent sums that a call is cut into at least, so that all threads have work.
LEAST_SUMS = 4
# Blocks that are added one after another; longer sums are halved.
RUN = 8
# Input channels of one tile of the weight: fewer waste the columns that are made for them.
LEAST_CHANNELS, MOST_CHANNELS = 64, 512


@dataclass(frozen=True, slots=True)
class Sum:
    """Blocks of positions that are summed for one tile of the weight: the whole sum, or a part."""

    blocks: tuple[Block, ...]
    is_whole: bool


@np.errstate(all="ignore")
def weight_gradient(x: Array, grad_output: Array, geometry: Geometry) -> Array:
    """Return ``sum(x[i] * grad_output[o])`` over all that each tap carries, in weight's shape."""
    result = _sum(x, grad_output, geometry, _multiply)
    # An infinite input may have met a zero that stands for an output that is not there.
    if meets_zeros(geometry) and not np.isfinite(result).all():
        result = _sum(x, grad_output, geometry, _multiply_taps)
    return result.astype(x.dtype.newbyteorder("="), copy=False)


@np.errstate(all="ignore")
def bias_gradient(grad_output: Array, geometry: Geometry) -> Array:
    """Return the sum of each output channel over the batch and all positions."""
    g = geometry
    dtype = sum_dtype(grad_output.dtype)
    most = NBYTES // dtype.itemsize
    where = tuple(boxes(g.batch, g.out_size, most))
    sums = np.zeros((g.out_channels, len(where)), dtype)
    channels = max(1, most * len(where) // max(1, g.batch * prod(g.out_size)))

    def compute(key: tuple[int, slice], _: None) -> None:
        number, m = key
        n, positions = where[number]
        part = grad_output[(n, m, *positions)].swapaxes(0, 1)
        # NumPy adds pairwise along a contiguous last axis.
        rows = np.ascontiguousarray(part, dtype).reshape(m.stop - m.start, -1)
        rows.sum(axis=1, dtype=dtype, out=sums[m, number])

    for_each(compute, product(range(len(where)), stretches(g.out_channels, channels)), lambda: None)
    result: Array = sums.sum(axis=1, dtype=dtype)
    return result.astype(grad_output.dtype.newbyteorder("="), copy=False)


def _sum(x: Array, y: Array, g: Geometry, multiply: Multiply) -> Array:
    """Return the weight gradient in the type of its sums."""
    dtype = sum_dtype(x.dtype)
    result = np.zeros(g.weight_shape, dtype)
    sums = _split(g, dtype.itemsize)
    partial: dict[int, Array] = {}

    def compute(number: int, scratch: Scratch) -> None:
        total = _add_up(sums[number].blocks, x, y, dtype, multiply, scratch)
        if sums[number].is_whole:
            _store(sums[number], total)
        else:
            partial[number] = total

    def _store(part: Sum, total: Array) -> None:
        index = part.blocks[0].weight
        result[index] += total.reshape(result[index].shape)

    for_each(compute, range(len(sums)), lambda: Scratch(dtype))
    for number in sorted(partial):
        _store(sums[number], partial[number])
    return result


def _add_up(
    blocks: tuple[Block, ...],
    x: Array,
    y: Array,
    dtype: np.dtype[Any],
    multiply: Multiply,
    scratch: Scratch,
) -> Array:
    """Return the sum over blocks of positions, ``(groups, C // groups, M // groups * taps)``."""
    if len(blocks) > RUN:
        half = len(blocks) // 2
        total = _add_up(blocks[:half], x, y, dtype, multiply, scratch)
        total += _add_up(blocks[half:], x, y, dtype, multiply, scratch)
        return total
    g = blocks[0].geometry
    rows = g.out_channels // g.groups * prod(g.kernel_size)
    total = np.empty((g.groups, g.in_channels // g.groups, rows), dtype)
    for number, part in enumerate(blocks):
        scratch.used = 0
        out = scratch.empty(total.shape) if number else total
        multiply(x[part.x], y[part.y], part.geometry, scratch, out)
        if number:
            total += out
    return total


def _multiply(x: Array, y: Array, g: Geometry, scratch: Scratch, out: Array) -> None:
    """Write one block's weight gradient to `out`."""
    channels = x.swapaxes(0, 1)
    inputs = scratch.empty(channels.shape)
    np.copyto(inputs, channels, casting="unsafe")
    matrix = columns(y, g, scratch)
    inputs = inputs.reshape(g.groups, -1, matrix.shape[2])
    np.matmul(inputs, matrix.swapaxes(1, 2), out=out)


def _multiply_taps(x: Array, y: Array, g: Geometry, scratch: Scratch, out: Array) -> None:
    """Write one block's weight gradient to `out`, one tap after another."""
    out.fill(0)
    by_tap = out.reshape(*out.shape[:2], g.out_channels // g.groups, *g.kernel_size)
    operands = scratch.used
    for tap, positions, single in single_taps(g):
        scratch.used = operands
        product = scratch.empty(by_tap.shape[:3])
        _multiply(x[:, :, *positions], y, single, scratch, product)
        by_tap[(slice(None),) * 3 + tap] = product


@lru_cache(maxsize=64)
def _split(g: Geometry, itemsize: int) -> tuple[Sum, ...]:
    """Cut the weight into tiles, and where these are few their sums over all positions too."""
    return tuple(_sums(g, NBYTES // itemsize))


def _sums(g: Geometry, most: int) -> Iterator[Sum]:
    taps = prod(g.kernel_size)
    in_group, out_group = g.in_channels // g.groups, g.out_channels // g.groups
    if not in_group * out_group:
        return
    positions = min(most // (out_group * taps), g.batch * prod(g.in_size) // LEAST_SUMS)
    positions = min(max(positions, LEAST_POSITIONS), MOST_POSITIONS)
    where = tuple(boxes(g.batch, g.in_size, positions))
    if not where:
        return
    n, sizes = where[0]
    positions = (n.stop - n.start) * prod(i.stop - i.start for i in sizes)
    rows = most // max(positions, LEAST_CHANNELS)
    at_once = max(1, min(rows // (out_group * taps), g.groups // LEAST_SUMS))
    outputs = tuple(boxes(out_group, g.kernel_size, rows))
    inputs = in_group
    if at_once == 1:
        # Each block of inputs makes the columns anew.
        few = LEAST_SUMS // (len(where) * g.groups * len(outputs))
        inputs = min(MOST_CHANNELS, max(LEAST_CHANNELS, -(-in_group // max(1, few))))
    tiles = list(product(stretches(g.groups, at_once), stretches(in_group, inputs), outputs))
    sums = tuple(stretches(len(where), -(-len(where) * len(tiles) // LEAST_SUMS)))
    for tile, stretch in product(tiles, sums):
        groups, c, (m, k) = tile
        blocks = tuple(block(g, n, groups, c, m, k, sizes) for n, sizes in where[stretch])
        yield Sum(blocks, is_whole=len(sums) == 1)
