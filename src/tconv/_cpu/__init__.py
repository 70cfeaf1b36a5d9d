"""The CPU path on NumPy: matrix products, blocked for the cache and threaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from .. import _memory
from .._dispatch import Placed
from .._geometry import Geometry
from . import banded, overlap_add, tap_by_tap
from .adjoint import conv
from .parts import LARGEST, Part, smallest, split
from .pool import for_each, num_threads
from .scratch import Scratch
from .sums import sum_dtype
from .weight_gradient import bias_gradient, weight_gradient

__all__ = ["bias_gradient", "conv", "transposed_conv", "weight_gradient"]

Array = np.ndarray[Any, np.dtype[Any]]
Strategy = Callable[[Array, Array, Array | None, Array, Geometry, str | None, Scratch], None]

# How large the parts are: elements of intermediate results, how many of them are worth a thread's
# while, and positions.
PRODUCTS = 1 << 21, 1 << 16, 1 << 12
OUTPUTS = 1 << 20, 1 << 16, 1 << 15
SUMS = 1 << 19, 1 << 19, 1 << 15


def transposed_conv(
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    *,
    activation: str | None = None,
    precision: str | None = None,
    out: Array | None = None,
) -> Array:
    """Return the transposed convolution of `x` with `weight`, in the memory order of `x`.

    `precision` has no effect here: float32 is always computed in float32.
    """
    del precision
    if out is None:
        out = _memory.empty(x, geometry.out_shape, np.empty)
    result = out
    dtype = sum_dtype(x.dtype)
    sums = None if bias is None else bias.astype(dtype, copy=False)
    strategy = choose(geometry)
    if strategy is not overlap_add.compute and not np.isfinite(weight).all():
        strategy = overlap_add.compute

    def compute(part: Part, scratch: Scratch) -> None:
        scratch.used = 0
        strategy(
            x[part.x],
            weight[part.weight],
            None if sums is None else sums[part.bias],
            result[part.out],
            part.geometry,
            activation,
            scratch,
        )

    for_each(compute, cut(geometry, strategy, num_threads()), lambda: Scratch(dtype))
    return out


def placed(weight: Array, bias: Array | None, x: Array) -> Placed:
    """Return a layer's weights in the type that they are summed in."""
    del x
    dtype = sum_dtype(weight.dtype)
    sums = None if bias is None else bias.astype(dtype, copy=False)
    return Placed(transposed_conv, weight.astype(dtype, copy=False), sums)


def choose(geometry: Geometry) -> Strategy:
    """Choose how to compute; see the strategies for what each is good for."""
    g = geometry
    if banded.suits(g) and smallest(g, banded.elements(g), OUTPUTS[2]) <= LARGEST:
        return banded.compute
    thin = g.in_channels == g.groups
    if thin or smallest(g, prod(g.kernel_size), PRODUCTS[2]) > LARGEST:
        return tap_by_tap.compute
    return overlap_add.compute


def cut(geometry: Geometry, strategy: Strategy, threads: int) -> Iterator[Part]:
    """Cut the work into parts whose intermediate results stay in the cache."""
    if strategy is banded.compute:
        return split(geometry, banded.elements(geometry), *OUTPUTS, threads)
    if strategy is overlap_add.compute:
        return split(geometry, prod(geometry.kernel_size), *PRODUCTS, threads)
    return split(geometry, 1, *SUMS, threads)
