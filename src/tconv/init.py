"""Weights to begin with, so that an untrained transposed convolution already upsamples smoothly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, SupportsIndex

import numpy as np

from . import _check
from ._api import Ints

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = (*_check.FLOATS, *_check.COMPLEX)
"""Integers would round nearly all weights to zero."""


def icnr(
    weight_shape: Sequence[SupportsIndex],
    stride: Ints,
    rng: np.random.Generator,
    *,
    groups: SupportsIndex = 1,
    dtype: Any = np.float32,
) -> Array:
    """Return a random weight without a checkerboard: every phase has the same taps.

    It computes what a convolution with a smaller kernel computes, followed by nearest-neighbour
    upsampling.  That kernel has ``kernel_size // stride`` taps, normally distributed with mean 0
    and a variance of one over the number of products in one output, so that outputs vary as
    much as inputs do.

    Parameters
    ----------
    weight_shape : sequence of ints, (C, M // groups, *kernel_size)
        Along each axis ``stride`` must divide the kernel size.
    stride : int or one int per axis
        Stride of the transposed convolution.
    rng : numpy.random.Generator
        Where the random numbers come from.
    groups : int, default 1
        Groups of the transposed convolution; divides C.
    dtype : dtype, default float32
        Of the result, no integers; the numbers are drawn in float64.

    Returns
    -------
    array, shape ``weight_shape``

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or dtype is one of integers.
    ValueError
        If the stride does not divide the kernel size, or groups does not divide C.

    Notes
    -----
    The name stands for "initialised to convolution, nearest-neighbour resize": Aitken et al.,
    `Checkerboard artifact free sub-pixel convolution <https://arxiv.org/abs/1707.02937>`_, 2017.

    Examples
    --------
    Both outputs of a stride of 2 are alike, whatever the input:

    >>> import numpy as np
    >>> from tconv import init, transposed_conv1d
    >>> weight = init.icnr((3, 1, 4), 2, np.random.default_rng(0))
    >>> y = transposed_conv1d(np.ones((1, 3, 5), np.float32), weight, stride=2, padding=2)
    >>> bool((y[..., ::2] == y[..., 1::2]).all())
    True
    """
    shape, steps, number = _check.phases_alike(weight_shape, stride, groups)
    _check.instances(np.random.Generator, "a numpy.random.Generator", {"rng": rng})
    _check.chosen_dtype(dtype, np.dtype(dtype).name, DTYPES)
    taps = tuple(k // step for k, step in zip(shape[2:], steps, strict=True))
    products = shape[0] // number * prod(taps)
    weight = rng.normal(0, max(1, products) ** -0.5, (*shape[:2], *taps))
    for axis, step in enumerate(steps, 2):
        weight = weight.repeat(step, axis)
    return weight.astype(dtype)


def bilinear(
    channels: SupportsIndex,
    kernel_size: Ints,
    *,
    groups: SupportsIndex = 1,
    dtype: Any = np.float32,
) -> Array:
    """Return the weight that interpolates linearly along each axis, every channel by itself.

    Along an axis it is a triangle around the middle of the kernel that falls to zero within the
    stride.  The stride that belongs to ``kernel_size`` is ``(kernel_size + 1) // 2``, so a stride
    of s takes a kernel of ``2 * s``, or of ``2 * s - 1``.  The output is s times as long as the
    input and aligned with it if ``padding = s // 2`` and the kernel is ``2 * s`` for an even s,
    ``2 * s - 1`` for an odd one.  A kernel of ``2 * s - 1`` with ``padding = s - 1`` leads from the
    first input to the last, for any s.

    Parameters
    ----------
    channels : int
        Input and output channels.
    kernel_size : int or sequence of ints, one per axis
        An int is one axis.
    groups : int, default 1
        Groups of the transposed convolution: ``channels`` makes it depthwise; divides ``channels``.
    dtype : dtype, default float32
        Of the result, no integers.

    Returns
    -------
    array, shape (channels, channels // groups, *kernel_size)

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or dtype is one of integers.
    ValueError
        If there is no axis, or groups does not divide the channels.

    Notes
    -----
    As in the upscoring layers of `FCN <https://arxiv.org/abs/1411.4038>`_ (``groups=1``) and of
    CenterNet (``groups=channels``).

    Examples
    --------
    >>> import numpy as np
    >>> from tconv import init, transposed_conv1d
    >>> weight = init.bilinear(1, 4)
    >>> weight
    array([[[0.25, 0.75, 0.75, 0.25]]], dtype=float32)
    >>> x = np.array([[[0, 4, 8, 12]]], np.float32)
    >>> transposed_conv1d(x, weight, stride=2, padding=1)
    array([[[ 0.,  1.,  3.,  5.,  7.,  9., 11.,  9.]]], dtype=float32)
    """
    channels, groups = _check.channels(channels, groups)
    sizes = _check.sizes("kernel_size", kernel_size)
    _check.chosen_dtype(dtype, np.dtype(dtype).name, DTYPES)
    kernel = reduce(np.multiply.outer, map(_triangle, sizes))
    weight = np.zeros((channels, channels // groups, *sizes))
    channel = np.arange(channels)
    weight[channel, channel % max(1, channels // groups)] = kernel
    return weight.astype(dtype)


def _triangle(size: int) -> Array:
    stride = (size + 1) // 2
    middle = (size - 1) / 2
    return np.asarray(1 - np.abs(np.arange(size) - middle) / stride)
