"""Multiply first, then add what overlaps.

Every input position times every tap is one matrix product, ``(M * taps, C) @ (C, positions)``, on
the weights and the input as they lie in memory: nothing is gathered.  The taps of a phase are then
added, shifted against each other, while they are in the cache, and each phase is stored into its
places of the output.

For the sums every phase has a covering tap, whose products reach all its outputs; where there is
none, the input is first extended by the few positions that are missing.  Other taps are added to
the covering one with all rows end to end, as one long row.  Products that would come round the end
of a row into the next are absent ones: no output takes them, so they are set to zero before.  No
absent input ever reaches an output, whatever the weights are.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from .. import _activation
from .._geometry import Geometry
from .arrange import extend, flat_strides, store
from .phases import Axis, axes
from .scratch import Scratch

Array = np.ndarray[Any, np.dtype[Any]]

ALL = slice(None)

# Maps of fewer positions are multiplied as one with those of the other items of the batch.
SMALL_MAP = 512
# Bytes of a cache line.
LINE = 64


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
    g, plan = geometry, axes(geometry)
    extended = tuple(a.before + n + a.after for a, n in zip(plan, g.in_size, strict=True))
    apart, merged = (1, g.batch) if prod(extended) < SMALL_MAP else (g.batch, 1)

    channels = g.in_channels // g.groups
    inputs = extend(x, tuple(a.before for a in plan), tuple(a.after for a in plan), apart, scratch)
    inputs = _operand(inputs.reshape(apart, g.groups, channels, merged * prod(extended)))
    # (apart, M, *kernel_size, merged, *extended)
    products = _multiply(inputs, weight, g, scratch).reshape(
        apart, g.out_channels, *g.kernel_size, merged, *extended
    )
    _drop_absent(products, plan)
    _add_taps(products.reshape(*products.shape[: 2 + g.ndim], -1), plan, extended)

    for runs in product(*(axis.runs for axis in plan)):
        if all(run.taps for run in runs):
            inside = []
            for run, axis in zip(runs, plan, strict=True):
                begin, end = run.inputs
                inside.append(slice(begin + axis.before, end + axis.before))
            sums = products[:, :, *(run.covering for run in runs), :, *inside]
        else:
            sums = np.zeros((1, g.out_channels, *[1] * (2 * g.ndim + 1)), scratch.dtype)
        if bias is not None:
            sums += bias.reshape(-1, *[1] * (sums.ndim - 2))
        _activation.apply(activation, sums)
        shape = (apart, g.out_channels, *(r.count for r in runs), merged, *(r.size for r in runs))
        store(np.broadcast_to(sums, shape), out, g, runs)


def _multiply(inputs: Array, weight: Array, g: Geometry, scratch: Scratch) -> Array:
    """Return every weight times every input: ``(apart, groups, rows, positions)``."""
    apart, groups, channels, positions = inputs.shape
    rows = g.out_channels // g.groups * prod(g.kernel_size)
    weights = _operand(weight.astype(scratch.dtype, copy=False).reshape(groups, channels, rows))
    # Rows end on a spare cache line: at a distance of a power of two they would evict one another.
    spare = LINE // scratch.dtype.itemsize
    products = scratch.empty((apart, groups, rows, positions // spare * spare + 2 * spare))
    products = products[..., :positions]
    if channels == 1:
        np.multiply(weights.swapaxes(1, 2), inputs, out=products)
    else:
        np.matmul(weights.swapaxes(1, 2), inputs, out=products)
    return products


def _operand(matrices: Array) -> Array:
    """Return `matrices` as they are where BLAS takes them in place, otherwise a copy."""
    *_, rows, columns = matrices.shape
    *_, down, along = matrices.strides
    item = matrices.itemsize
    in_place = (along == item and down >= columns * item and down % item == 0) or (
        down == item and along >= rows * item and along % item == 0
    )
    return matrices if in_place and matrices.flags.aligned else np.ascontiguousarray(matrices)


def _drop_absent(products: Array, plan: tuple[Axis, ...]) -> None:
    """Set to zero what lies outside the input, or would come round the end of a row."""
    ndim = len(plan)
    for number, axis in enumerate(plan):
        positions = (ALL,) * (ndim + 3 + number)
        if axis.before:
            products[*positions, : axis.before] = 0
        if axis.after:
            products[*positions, -axis.after :] = 0
        for run in axis.runs:
            for taps, step in run.others:
                tap = products[*(ALL,) * (2 + number), taps]
                edge = slice(0, step) if step > 0 else slice(step, None)
                tap[*positions, edge] = 0


def _add_taps(products: Array, plan: tuple[Axis, ...], extended: tuple[int, ...]) -> None:
    """Add all taps of every phase to its covering tap, one axis after the other, from the last."""
    ndim, positions, strides = len(plan), products.shape[-1], flat_strides(extended)
    covers: list[tuple[slice, ...]] = [()]
    for number in reversed(range(ndim)):
        before = (ALL,) * (2 + number)
        for run in plan[number].runs:
            for taps, step in run.others:
                if abs(step) >= extended[number]:
                    continue
                offset = step * strides[number]
                begin, end = max(0, -offset), positions - max(0, offset)
                for cover in covers:
                    sums = products[*before, run.covering, *cover, begin:end]
                    sums += products[*before, taps, *cover, begin + offset : end + offset]
        covers = [(r.covering, *c) for r in plan[number].runs if r.taps for c in covers]
