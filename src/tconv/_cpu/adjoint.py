"""The adjoint of a transposed convolution: gather what the taps reach, then one matrix product.

The weights are used as they lie in memory: ``(C, M * taps) @ (M * taps, positions)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from .. import _memory
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

# Blocks that a call is cut into at least, so that all threads have work.
LEAST_BLOCKS = 4
# Input channels of one block at least: fewer waste the columns that are made for them.
LEAST_CHANNELS = 64


def conv(
    y: Array,
    weight: Array,
    geometry: Geometry,
    *,
    bias: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Return the adjoint of the transposed convolution of `geometry`, ``(N, C, *in_size)``.

    That is ``x[i] = sum(y[o] * weight[k])`` over the outputs ``o`` that the taps ``k`` carry input
    ``i`` to: a convolution with a stride, in the memory order of `y`.
    """
    g = geometry
    if out is None:
        out = _memory.empty(y, g.x_shape, np.empty)
    result = out
    dtype = sum_dtype(y.dtype)
    weight = np.require(weight, dtype, ["C", "A"])
    # An infinite weight must not meet a zero that stands for an output that is not there.
    is_safe = not meets_zeros(g) or np.isfinite(weight).all()
    multiply = _multiply if is_safe else _multiply_taps

    def compute(whole: tuple[Block, ...], scratch: Scratch) -> None:
        first = whole[0]
        scratch.used = 0
        total = scratch.empty(_shape(first.geometry))
        product = total if len(whole) == 1 else scratch.empty(total.shape)
        operands = scratch.used
        for number, part in enumerate(whole):
            scratch.used = operands
            multiply(y[part.y], weight[part.weight], part.geometry, scratch, product)
            if product is not total:
                np.add(total if number else 0, product, out=total)
        if bias is not None:
            total += bias[first.x[1]].astype(dtype).reshape(-1, *[1] * (g.ndim + 1))
        np.copyto(result[first.x].swapaxes(0, 1), total, casting="unsafe")

    for_each(compute, _split(g, dtype.itemsize), lambda: Scratch(dtype))
    return out


def _shape(g: Geometry) -> tuple[int, ...]:
    return (g.in_channels, g.batch, *g.in_size)


def _multiply(y: Array, weight: Array, g: Geometry, scratch: Scratch, out: Array) -> None:
    """Write the adjoint of one block to `out`."""
    rows = g.in_channels // g.groups
    matrix = columns(y, g, scratch)
    np.matmul(
        weight.reshape(g.groups, rows, matrix.shape[1]),
        matrix,
        out=out.reshape(g.groups, rows, matrix.shape[2]),
    )


def _multiply_taps(y: Array, weight: Array, g: Geometry, scratch: Scratch, out: Array) -> None:
    """Write the adjoint of one block to `out`, one tap after another."""
    out.fill(0)
    operands = scratch.used
    for tap, positions, single in single_taps(g):
        scratch.used = operands
        product = scratch.empty(_shape(single))
        taps = np.ascontiguousarray(weight[:, :, *map(_only, tap)])
        _multiply(y, taps, single, scratch, product)
        out[:, :, *positions] += product


def _only(k: int) -> slice:
    return slice(k, k + 1)


@lru_cache(maxsize=64)
def _split(g: Geometry, itemsize: int) -> tuple[tuple[Block, ...], ...]:
    """Cut the result into blocks, and each into the blocks of channels and taps to sum over."""
    return tuple(_blocks(g, NBYTES // itemsize))


def _blocks(g: Geometry, most: int) -> Iterator[tuple[Block, ...]]:
    taps = prod(g.kernel_size)
    in_group, out_group = g.in_channels // g.groups, g.out_channels // g.groups
    positions = min(max(most // max(1, out_group * taps), LEAST_POSITIONS), MOST_POSITIONS)
    where = tuple(boxes(g.batch, g.in_size, positions))
    if not where or not g.in_channels:
        return
    n, sizes = where[0]
    positions = (n.stop - n.start) * prod(i.stop - i.start for i in sizes)
    rows = most // max(positions, LEAST_CHANNELS)
    at_once = max(1, min(rows // max(1, out_group * taps), g.groups // LEAST_BLOCKS))
    # Without output channels there is one empty sum.
    nothing = slice(0, 0), tuple(slice(0, k) for k in g.kernel_size)
    summed = tuple(boxes(out_group, g.kernel_size, rows)) or (nothing,)
    pieces = max(1, LEAST_BLOCKS // (len(where) * -(-g.groups // at_once)))
    inputs = max(LEAST_CHANNELS, -(-in_group // pieces))
    for n, sizes in where:
        for groups in stretches(g.groups, at_once):
            single = groups.stop - groups.start == 1
            for c in stretches(in_group, inputs) if single else [slice(0, in_group)]:
                yield tuple(block(g, n, groups, c, m, k, sizes) for m, k in summed)
