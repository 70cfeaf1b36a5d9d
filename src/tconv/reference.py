"""The definition of a transposed convolution: zero insertion, then an ordinary correlation.

A convolution turns many inputs into one output; its transpose paints one input over many outputs.
The textbook computes it in four steps, and so does `transposed_conv` below, in any number of axes:

1. make the canvas: zeros, with a margin of ``dilation * (kernel_size - 1)`` on every side;
2. insert zeros: lay the inputs onto it, ``stride`` apart;
3. flip the kernel, with ``dilation - 1`` zeros between its taps;
4. correlate: slide the flipped kernel over the canvas.

What comes out is the full result; padding crops it, output padding extends it.

The flip belongs to a *correlation*.  A listing that flips the kernel and then calls
`scipy.signal.convolve2d` goes wrong: a convolution flips its kernel once more, which undoes the
first flip, and the result is that of the mirrored kernel.  With ``mode="same"`` on a canvas of the
output's size such a listing is also shifted unless ``padding == (kernel_size - 1) // 2``: without a
word for less padding, and with an IndexError for more.

This module explains and checks; it is slow, since nearly all it multiplies is an inserted zero.
Therefore it also lets an infinite or NaN weight meet inserted zeros, and spreads the NaN further
than the outputs that the weight takes part in; the other backends do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from . import _activation, _check, _dispatch
from ._api import verbs
from ._geometry import Geometry
from ._memory import empty


@np.errstate(all="ignore")  # infinity and NaN are answers here, as on a GPU
def transposed_conv(
    x: Any,
    weight: Any,
    bias: Any,
    geometry: Geometry,
    *,
    activation: str | None = None,
    precision: str | None = None,  # noqa: ARG001  (float32 is float32 here)
    out: Any = None,
) -> Any:
    """Compute one transposed convolution by its definition, on arrays that fit ``geometry``."""
    g = geometry
    x = _native(x)
    if out is None:
        out = empty(x, g.out_shape, np.empty)
    x, weight = _widen(x), _widen(_native(weight))

    # 1. Make the canvas.
    margin = [d * (k - 1) for d, k in zip(g.dilation, g.kernel_size, strict=True)]
    inner = [(n - 1) * s + 1 for n, s in zip(g.in_size, g.stride, strict=True)]
    canvas_size = [n + 2 * m for n, m in zip(inner, margin, strict=True)]
    canvas = np.zeros((g.batch, g.in_channels, *canvas_size), x.dtype)

    # 2. Insert zeros.
    canvas[:, :, *map(_every, margin, inner, g.stride)] = x

    # 3. Flip the kernel.
    flipped = np.zeros((*weight.shape[:2], *(m + 1 for m in margin)), weight.dtype)
    flipped[:, :, *map(slice, [None] * g.ndim, [None] * g.ndim, g.dilation)] = np.flip(
        weight, tuple(range(2, 2 + g.ndim))
    )

    # 4. Correlate.
    full_size = [n + m for n, m in zip(inner, margin, strict=True)]
    full = np.zeros((g.batch, g.out_channels, *full_size), x.dtype)
    if g.in_channels:
        _correlate(canvas, flipped, g.groups, full)

    # Padding crops the full result; output padding, or a negative padding, extends it.
    result = np.zeros(g.out_shape, x.dtype)
    ours, theirs = zip(*map(_overlap, g.pad_begin, g.out_size, full_size), strict=True)
    result[:, :, *ours] = full[:, :, *theirs]

    if bias is not None:
        result += _widen(_native(bias)).reshape(-1, *[1] * g.ndim)
    _activation.apply(activation, result)
    out[...] = result
    return out


def _native(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _widen(array: Any) -> Any:
    """Return an array in the type it is summed in: half types in float32, all others in their own."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


def _every(margin: int, inner: int, stride: int) -> slice:
    return slice(margin, margin + inner, stride)


def _overlap(begin: int, size: int, full_size: int) -> tuple[slice, slice]:
    """Return where a window lies on the full result, as a slice of the window and one of the full."""
    first, last = max(begin, 0), min(begin + size, full_size)
    last = max(first, last)
    return slice(first - begin, last - begin), slice(first, last)


def _correlate(canvas: Any, flipped: Any, groups: int, full: Any) -> None:
    """Correlate every item of the batch with every output channel's kernel, group by group."""
    in_channels, out_channels = canvas.shape[1] // groups, flipped.shape[1]
    for n in range(canvas.shape[0]):
        for m in range(full.shape[1]):
            first = m // out_channels * in_channels
            group = slice(first, first + in_channels)
            # The channels are an axis like the others, one that the kernel covers whole, so they
            # are summed.  SciPy conjugates its second argument, and its other methods are inexact.
            full[n, m] = scipy.signal.correlate(
                canvas[n, group],
                flipped[group, m % out_channels].conj(),
                mode="valid",
                method="direct",
            )[0]


def _backend(kind: str) -> _dispatch.Compute:
    _check.numpy_only(kind, __name__)
    return transposed_conv


transposed_conv1d, transposed_conv2d, transposed_conv3d = verbs(
    _backend, __name__, "Computed by the definition: zero insertion, then correlation."
)
