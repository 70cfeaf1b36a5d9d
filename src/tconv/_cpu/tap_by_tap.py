"""Multiply and add tap by tap: every tap of a phase is a shifted view of the input.

The input is copied with the zeros that its edges need, all rows end to end, so that a shift is
the same everywhere.  This is the way for one input channel a group where `banded` matrices would
be too sparse: ``einsum`` multiplies and adds a tap in one pass over sums that stay in the cache.
It is also the way for kernels so large that the products of `overlap_add` would not fit, then with
one matrix product a tap.

A zero of the edge times an infinite weight would be a NaN, so this is for finite weights.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .. import _activation
from .._geometry import Geometry
from .arrange import extend, flat_strides, store
from .phases import Run, phases
from .scratch import Scratch

Array = np.ndarray[Any, np.dtype[Any]]


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
    g, plan = geometry, phases(geometry)
    before = tuple(max(phase.reach[0] for phase in axis) for axis in plan)
    after = tuple(
        max(phase.reach[1] for phase in axis) - n for axis, n in zip(plan, g.in_size, strict=True)
    )
    before, after = (tuple(max(0, n) for n in edge) for edge in (before, after))
    padded = np.ascontiguousarray(extend(x, before, after, 1, scratch))
    strides = flat_strides(padded.shape[3:])
    positions = g.batch * prod(padded.shape[3:])
    flat = padded.reshape(g.groups, g.in_channels // g.groups, positions)
    weights = weight.astype(scratch.dtype, copy=False)
    weights = weights.reshape(*flat.shape[:2], g.out_channels // g.groups, *g.kernel_size)
    mark = scratch.used
    for phase in product(*plan):
        scratch.used = mark
        sums = _sums(flat, weights, phase, g, before, strides, scratch)
        if bias is not None:
            sums += bias.reshape(-1, 1)
        _activation.apply(activation, sums)
        item, image = sums.itemsize, strides[0] * padded.shape[3]
        windows = as_strided(
            sums,
            (1, g.out_channels, *[1] * g.ndim, g.batch, *(run.size for run in phase)),
            (0, sums.strides[0], *[0] * g.ndim, image * item, *(s * item for s in strides)),
        )
        store(windows, out, g, phase)


def _sums(
    flat: Array,
    weights: Array,
    phase: tuple[Run, ...],
    g: Geometry,
    before: tuple[int, ...],
    strides: tuple[int, ...],
    scratch: Scratch,
) -> Array:
    """Add up the taps of one phase: ``(M, positions)``."""
    image = flat.shape[-1] // g.batch
    spread = sum((run.size - 1) * stride for run, stride in zip(phase, strides, strict=True))
    positions = (g.batch - 1) * image + spread + 1
    sums = scratch.empty((g.out_channels, positions))
    if not all(run.taps for run in phase):
        sums[...] = 0
        return sums

    begin, steps = 0, []
    for run, ahead, stride in zip(phase, before, strides, strict=True):
        begin += (run.begin - run.taps[0][1] + ahead) * stride
        steps.append(-run.between[1] * stride * flat.itemsize)
    inputs = as_strided(
        flat[..., begin:],
        (*flat.shape[:2], *(len(run.taps) for run in phase), positions),
        (*flat.strides[:2], *steps, flat.itemsize),
    )
    stretches = (slice(run.taps[0][0], run.taps[-1][0] + 1, run.between[0]) for run in phase)
    taps = weights[:, :, :, *stretches]
    by_group = sums.reshape(g.groups, -1, positions)
    if flat.shape[1] == 1:
        _multiply_thin(inputs, taps, by_group)
    else:
        _multiply(inputs, taps, by_group, scratch)
    return sums


def _multiply_thin(inputs: Array, taps: Array, sums: Array) -> None:
    """Multiply and add all taps, of one input channel a group."""
    axes = "ijk"[: inputs.ndim - 3]
    # The first index of the result runs fastest: the loops are over neighbouring positions.
    np.einsum(f"gc{axes}q,gcm{axes}->qmg", inputs, taps, out=sums.transpose(2, 1, 0), order="F")


def _multiply(inputs: Array, taps: Array, sums: Array, scratch: Scratch) -> None:
    """Multiply and add all taps, each as one matrix product."""
    sums[...] = 0
    term = scratch.empty(sums.shape)
    for tap in np.ndindex(taps.shape[3:]):
        by_rows = np.ascontiguousarray(taps[..., *tap]).swapaxes(1, 2)
        np.matmul(by_rows, inputs[:, :, *tap], out=term)
        sums += term
