"""The sizes, strides and division constants of one call, as the kernels' structs."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np

from .call import Call
from .choice import Boxes, Choice, GradientChoice, Transposition


@cache
def layout(axes: int, index_bits: int) -> np.dtype[Any]:
    """Return the struct of `kernels/geometry.cuh` as a NumPy dtype."""
    index, division = _types(index_bits)
    axis = np.dtype(
        [
            ("in_size", index),
            ("kernel_size", index),
            ("out_size", division),
            ("stride", division),
            ("dilation", division),
            ("q_begin", index),
            ("r_begin", index),
            ("q_size", division),
            ("phases", division),
            ("shifts", index),
            ("in_stride", index),
            ("pad_begin", index),
            ("x_stride", index),
            ("weight_stride", index),
            ("out_stride", index),
        ]
    )
    return np.dtype(
        [
            ("M", division),
            ("channels", division),
            ("C", index),
            ("outputs", index),
            ("rows", index),
            ("phase_columns", division),
            ("row_blocks", division),
            ("column_blocks", division),
            ("row_runs", division),
            ("group_runs", index),
            ("x_n", index),
            ("x_c", index),
            ("weight_group", index),
            ("weight_c", index),
            ("weight_m", index),
            ("bias_m", index),
            ("out_n", index),
            ("out_m", index),
            ("axis", axis, (axes,)),
        ]
    )


def params(choice: Choice, call: Call) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the struct, as an array of size 1, which is passed to a kernel by value."""
    if isinstance(choice, GradientChoice):
        return _gradient_params(choice, call)
    g, strides, weight = call.geometry, call.strides, call.weight_strides
    bits = choice.specialisation.index_bits
    struct = (
        _division(call.out_channels, bits),
        _division(call.out_shape[1], bits),
        call.channels,
        prod(call.out_shape),
        call.rows,
        _division(choice.phase_columns, bits),
        _division(choice.row_blocks, bits),
        _division(choice.column_blocks, bits),
        _division(choice.row_runs, bits),
        choice.group_runs,
        *strides.x[:2],
        *weight[:3],
        strides.bias,
        *strides.out[:2],
        [
            (
                axis.in_size,
                g.kernel_size[a],
                _division(axis.out_size, bits),
                _division(axis.stride, bits),
                _division(g.dilation[a], bits),
                axis.q_begin,
                axis.r_begin,
                _division(axis.q_size, bits),
                _division(axis.phases, bits),
                axis.shifts,
                axis.in_stride,
                axis.pad_begin,
                strides.x[2 + a],
                weight[3 + a],
                strides.out[2 + a],
            )
            for a, axis in enumerate(call.axes)
        ],
    )
    return np.array([struct], layout(g.ndim, bits))


@cache
def gradient_layout(axes: int, index_bits: int) -> np.dtype[Any]:
    """Return ``GradientParams`` of `kernels/weight_gradient.cuh` as a NumPy dtype."""
    index, division = _types(index_bits)
    axis = np.dtype(
        [
            *((name, division) for name in ("in_size", "kernel_size", "out_size")),
            *((name, index) for name in ("stride", "dilation", "pad_begin")),
            *((name, index) for name in ("x_stride", "y_stride")),
        ]
    )
    return np.dtype(
        [
            *((name, index) for name in ("groups", "C")),
            ("M", division),
            *((name, index) for name in ("taps", "columns")),
            *((name, index) for name in ("positions", "split_positions")),
            *((name, division) for name in ("splits", "row_blocks", "column_blocks")),
            *((name, index) for name in ("weight_blocks", "weight_sums", "weight_elements")),
            ("channels", index),
            *((name, index) for name in ("outputs", "bias_positions")),
            ("bias_splits", division),
            *((name, index) for name in ("x_n", "x_c", "y_n", "y_m")),
            ("axis", axis, (axes,)),
        ]
    )


def _gradient_params(choice: GradientChoice, call: Call) -> np.ndarray[Any, np.dtype[Any]]:
    g, strides = call.geometry, call.strides
    bits = choice.specialisation.index_bits
    taps = prod(g.kernel_size)
    struct = (
        g.groups,
        call.channels,
        _division(call.out_channels, bits),
        taps,
        taps * call.out_channels,
        g.batch * prod(g.in_size),
        choice.weight.size,
        _division(choice.weight.count, bits),
        _division(choice.row_blocks, bits),
        _division(choice.column_blocks, bits),
        choice.weight_blocks,
        choice.weight_sums,
        prod(g.weight_shape) if call.wanted[0] else 0,
        g.out_channels,
        g.batch * prod(g.out_size),
        choice.bias.size,
        _division(choice.bias.count, bits),
        *strides.x[:2],
        *strides.out[:2],
        [
            (
                _division(g.in_size[a], bits),
                _division(g.kernel_size[a], bits),
                _division(g.out_size[a], bits),
                g.stride[a],
                g.dilation[a],
                g.pad_begin[a],
                strides.x[2 + a],
                strides.out[2 + a],
            )
            for a in range(g.ndim)
        ],
    )
    return np.array([struct], gradient_layout(g.ndim, bits))


def splits_params(count: int, bits: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a ``Division``, as an array of size 1."""
    return np.array([_division(count, bits)], _types(bits)[1])


def _types(index_bits: int) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return ``Index`` and ``Division``."""
    index, unsigned = (np.int32, np.uint32) if index_bits == 32 else (np.int64, np.uint64)
    division = np.dtype([("divisor", index), ("multiplier", unsigned), ("shift", index)])
    return np.dtype(index), division


def boxes_layout(axes: int, index_bits: int) -> np.dtype[Any]:
    """Return ``Boxes`` of `kernels/hopper.cu` as a NumPy dtype."""
    fields = layout(axes, index_bits)
    index, division = fields["C"], fields["M"]
    return np.dtype(
        [
            ("batch", index),
            ("groups", division),
            ("images", index),
            ("rows", index),
            ("tiles", index),
            ("clusters", division),
            ("axis", [("size", division), ("count", division)], (axes,)),
        ]
    )


def boxes_params(boxes: Boxes, choice: Choice, call: Call) -> np.ndarray[Any, np.dtype[Any]]:
    """Return that struct, as an array of size 1."""
    bits = choice.specialisation.index_bits
    struct = (
        call.geometry.batch,
        _division(call.geometry.groups, bits),
        boxes.images,
        boxes.images * prod(boxes.sizes),
        choice.blocks,
        _division(choice.row_blocks // int(choice.specialisation["CLUSTER"]), bits),
        [
            (_division(size, bits), _division(count, bits))
            for size, count in zip(boxes.sizes, boxes.counts, strict=True)
        ],
    )
    return np.array([struct], boxes_layout(call.geometry.ndim, bits))


def transposition_params(of: Transposition) -> np.ndarray[Any, np.dtype[Any]]:
    """Return ``Transposition`` of `kernels/transpose.cu`, as an array of size 1."""
    bits = of.specialisation.index_bits
    index, division = _types(bits)
    layout = np.dtype(
        [
            *((name, index) for name in ("i_size", "j_size")),
            *((name, division) for name in ("i_blocks", "j_blocks")),
            *((name, index) for name in ("b_step", "i_step", "j_step", "b_copied", "j_copied")),
        ]
    )
    blocks = (_division(count, bits) for count in of.counts)
    return np.array([(*of.sizes[1:], *blocks, *of.strides, *of.copied)], layout)


def _division(divisor: int, bits: int) -> tuple[int, int, int]:
    """Return ``Division``: for 32 bits, a multiplication and a shift that divide exactly."""
    divisor = max(1, divisor)  # where there is nothing to divide, no block asks
    if bits == 64:
        return divisor, 0, 0
    shift = 31 + (divisor - 1).bit_length()
    return divisor, -(-(1 << shift) // divisor), shift
