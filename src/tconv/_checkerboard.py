"""Where a transposed convolution paints over itself: the map behind checkerboard artifacts."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from . import _check
from ._api import Ints, Padding


def checkerboard(
    kernel_size: Ints,
    stride: Ints,
    *,
    in_size: Ints = 8,
    padding: Padding = 0,
    output_padding: Ints = 0,
    output_size: Ints | None = None,
    dilation: Ints = 1,
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return how many taps reach each output: how often it is covered.

    Away from the border it is the same number everywhere if ``stride`` divides ``kernel_size``, and
    a checkerboard if not; what a network learns then shows through as a pattern.

    Parameters
    ----------
    kernel_size : int or sequence of ints, one per axis
        An int is one axis; any number of axes.
    stride, padding, output_padding, output_size, dilation
        As in `transposed_conv1d`.
    in_size : int or one int per axis, default 8
        Size of the input.

    Returns
    -------
    array of int64
        Of the size of the output.

    Raises
    ------
    TypeError, ValueError
        As `transposed_conv1d` does.

    Notes
    -----
    Odena, Dumoulin and Olah, `Deconvolution and checkerboard artifacts
    <https://distill.pub/2016/deconv-checkerboard/>`_, 2016.

    Examples
    --------
    >>> from tconv import checkerboard
    >>> checkerboard(3, 2, in_size=4)
    array([1, 1, 2, 1, 2, 1, 2, 1, 1])
    >>> checkerboard(4, 2, in_size=4)
    array([1, 1, 2, 2, 2, 2, 2, 2, 1, 1])
    >>> checkerboard((3, 3), 2, in_size=2)
    array([[1, 1, 2, 1, 1],
           [1, 1, 2, 1, 1],
           [2, 2, 4, 2, 2],
           [1, 1, 2, 1, 1],
           [1, 1, 2, 1, 1]])
    """
    sizes = _check.sizes("kernel_size", kernel_size)
    ndim = len(sizes)
    inputs = _check.per_axis("in_size", in_size, ndim)
    geometry = _check.geometry(
        ndim,
        np.broadcast_to(np.int64(1), (1, 1, *inputs)),
        np.broadcast_to(np.int64(1), (1, 1, *sizes)),
        None,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        output_size=output_size,
        dilation=dilation,
        groups=1,
    )
    lines = []
    for axis in range(ndim):
        line = np.zeros(geometry.out_size[axis], np.int64)
        for k in range(sizes[axis]):
            begin, end = geometry.tap_window(axis, k)
            first = k * geometry.dilation[axis] - geometry.pad_begin[axis]
            line[np.arange(begin, end) * geometry.stride[axis] + first] += 1
        lines.append(line)
    return reduce(np.multiply.outer, lines)
