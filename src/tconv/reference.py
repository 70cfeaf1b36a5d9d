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

The gradients are correlations too.  `conv`, the adjoint, slides the kernel, not flipped, over the
full result in steps of ``stride``; `weight_gradient` slides the inputs, ``stride`` apart, over the
full result in steps of ``dilation``.

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
from ._backward import backward_verbs
from ._conv import conv_verbs
from ._geometry import Geometry, full_size
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
    sizes = [*map(full_size, g.in_size, g.kernel_size, g.stride, g.dilation)]
    full = np.zeros((g.batch, g.out_channels, *sizes), x.dtype)
    if g.in_channels:
        _correlate(canvas, flipped, g.groups, full)

    # Padding crops the full result; output padding, or a negative padding, extends it.
    result = np.zeros(g.out_shape, x.dtype)
    ours, theirs = zip(*map(_overlap, g.pad_begin, g.out_size, sizes), strict=True)
    result[:, :, *ours] = full[:, :, *theirs]

    if bias is not None:
        result += _widen(_native(bias)).reshape(-1, *[1] * g.ndim)
    _activation.apply(activation, result)
    out[...] = result
    return out


@np.errstate(all="ignore")
def conv(y: Any, weight: Any, geometry: Geometry, *, bias: Any = None, out: Any = None) -> Any:
    """Compute the adjoint with respect to the input, on arrays that fit ``geometry``."""
    g = geometry
    y = _native(y)
    if out is None:
        out = empty(y, g.x_shape, np.empty)

    # 1. Put the outputs back onto the full result.
    full = _uncrop(_widen(y), g)

    # 2. Exchange the channels of each group: the kernel's outputs are its inputs now.
    shape = (g.groups, g.in_channels // g.groups, g.out_channels // g.groups, *g.kernel_size)
    kernel = _widen(_native(weight)).reshape(shape).swapaxes(1, 2)
    kernel = _spread(kernel.reshape(g.out_channels, shape[1], *g.kernel_size), g.dilation)

    # 3. Correlate.
    correlated = [(n - 1) * s + 1 for n, s in zip(g.in_size, g.stride, strict=True)]
    result = np.zeros((g.batch, g.in_channels, *correlated), full.dtype)
    if g.out_channels:
        _correlate(full, kernel, g.groups, result)

    # 4. Keep what lies in steps of the stride.
    result = result[:, :, *(slice(None, None, s) for s in g.stride)]
    if bias is not None:
        result = result + _widen(_native(bias)).reshape(-1, *[1] * g.ndim)
    out[...] = result
    return out


@np.errstate(all="ignore")
def weight_gradient(x: Any, grad_output: Any, geometry: Geometry) -> Any:
    """Compute the gradient with respect to the weight, on arrays that fit ``geometry``."""
    g = geometry
    x, grad_output = _native(x), _native(grad_output)
    full = _uncrop(_widen(grad_output), g)
    inputs = _spread(_widen(x), g.stride)
    result = np.zeros(g.weight_shape, inputs.dtype)
    in_channels, out_channels = g.in_channels // g.groups, g.out_channels // g.groups
    steps = tuple(slice(None, None, d) for d in g.dilation)
    for c, m in np.ndindex(*g.weight_shape[:2] if g.batch else (0, 0)):
        # The batch is an axis that the inputs cover whole, so it is summed.
        result[c, m] = scipy.signal.correlate(
            full[:, c // in_channels * out_channels + m],
            inputs[:, c].conj(),
            mode="valid",
            method="direct",
        )[0][steps]
    return result.astype(x.dtype, copy=False)


@np.errstate(all="ignore")
def bias_gradient(grad_output: Any, geometry: Geometry) -> Any:  # noqa: ARG001
    """Compute the gradient with respect to the bias: the sum of each output channel."""
    grad_output = _native(grad_output)
    y = _widen(grad_output)
    sums = y.sum(axis=(0, *range(2, y.ndim)), dtype=y.dtype)
    return sums.astype(grad_output.dtype, copy=False)


def _uncrop(y: Any, g: Geometry) -> Any:
    """Return the full result that has ``y`` in its window and zeros elsewhere."""
    size = map(full_size, g.in_size, g.kernel_size, g.stride, g.dilation)
    full = np.zeros((*y.shape[:2], *size), y.dtype)
    ours, theirs = zip(*map(_overlap, g.pad_begin, g.out_size, full.shape[2:]), strict=True)
    full[:, :, *theirs] = y[:, :, *ours]
    return full


def _spread(array: Any, steps: tuple[int, ...]) -> Any:
    """Insert ``step - 1`` zeros between the elements of each spatial axis."""
    sizes = ((n - 1) * step + 1 for n, step in zip(array.shape[2:], steps, strict=True))
    result = np.zeros((*array.shape[:2], *sizes), array.dtype)
    result[:, :, *(slice(None, None, step) for step in steps)] = array
    return result


def _native(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _widen(array: Any) -> Any:
    """Return an array in the type it is summed in: float32 for half types, else its own."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


def _every(margin: int, inner: int, stride: int) -> slice:
    return slice(margin, margin + inner, stride)


def _overlap(begin: int, size: int, whole: int) -> tuple[slice, slice]:
    """Return where a window and the full result overlap, as a slice of each."""
    first, last = max(begin, 0), min(begin + size, whole)
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


def _gradients(kind: str) -> _dispatch.Gradients:
    _check.numpy_only(kind, __name__)
    return _dispatch.Gradients(conv, _dispatch.one_by_one(weight_gradient, bias_gradient))


_WHERE = "Computed by the definition: zero insertion, then correlation."

transposed_conv1d, transposed_conv2d, transposed_conv3d = verbs(_backend, __name__, _WHERE)
conv1d, conv2d, conv3d = conv_verbs(_gradients, __name__, _WHERE)
(
    transposed_conv1d_backward,
    transposed_conv2d_backward,
    transposed_conv3d_backward,
) = backward_verbs(_gradients, __name__, _WHERE)
