"""The sizes, strides and division constants of one call, as the kernels' ``Params`` struct."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np

from .call import Call
from .choice import Choice


@cache
def layout(axes: int, index_bits: int) -> np.dtype[Any]:
    """Return the struct of `kernels/geometry.cuh` as a NumPy dtype."""
    index, unsigned = (np.int32, np.uint32) if index_bits == 32 else (np.int64, np.uint64)
    division = np.dtype([("divisor", index), ("multiplier", unsigned), ("shift", index)])
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
            ("x_n", index),
            ("x_c", index),
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
    g, strides = call.geometry, call.strides
    bits = choice.specialisation.index_bits
    struct = (
        _division(call.out_channels, bits),
        _division(g.out_channels, bits),
        call.channels,
        prod(g.out_shape),
        call.rows,
        _division(choice.phase_columns, bits),
        _division(choice.row_blocks, bits),
        _division(choice.column_blocks, bits),
        *strides.x[:2],
        *strides.weight[:2],
        strides.bias,
        *strides.out[:2],
        [
            (
                g.in_size[a],
                g.kernel_size[a],
                _division(g.out_size[a], bits),
                _division(g.stride[a], bits),
                _division(g.dilation[a], bits),
                axis.q_begin,
                axis.r_begin,
                _division(axis.q_size, bits),
                _division(axis.phases, bits),
                axis.shifts,
                strides.x[2 + a],
                strides.weight[2 + a],
                strides.out[2 + a],
            )
            for a, axis in enumerate(call.axes)
        ],
    )
    return np.array([struct], layout(g.ndim, bits))


def _division(divisor: int, bits: int) -> tuple[int, int, int]:
    """Return ``Division``: for 32 bits, a multiplication and a shift that divide exactly."""
    if bits == 64:
        return divisor, 0, 0
    shift = 31 + (divisor - 1).bit_length()
    return divisor, -(-(1 << shift) // divisor), shift
