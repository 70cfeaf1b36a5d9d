"""The public adjoint: a convolution with a stride, as the transpose of a transposed convolution."""

from __future__ import annotations

from typing import Any, Protocol, SupportsIndex

from . import _check, _dispatch
from ._api import Array, Ints, Padding, document, library


class ConvVerb(Protocol):
    """The signature of every public convolution."""

    def __call__(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: SupportsIndex = 1,
        output_size: Ints | None = None,
        out: Array | None = None,
    ) -> Array: ...


def conv_verbs(
    gradients: _dispatch.GradientBackend, module: str, where: str
) -> tuple[ConvVerb, ConvVerb, ConvVerb]:
    """Return the public functions for one, two and three spatial axes, as `_api.verbs` does."""
    one, two, three = (_verb(ndim, gradients, module, where) for ndim in (1, 2, 3))
    return one, two, three


def _verb(ndim: int, gradients: _dispatch.GradientBackend, module: str, where: str) -> ConvVerb:
    def conv(
        x: Any,
        weight: Any,
        bias: Any = None,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: Any = 1,
        output_size: Any = None,
        out: Any = None,
    ) -> Any:
        kind = library({"x": x, "weight": weight}, bias=bias, out=out)
        geometry = _check.conv_geometry(
            ndim,
            x,
            weight,
            bias,
            stride=stride,
            padding=padding,
            output_size=output_size,
            dilation=dilation,
            groups=groups,
        )
        batched = len(x.shape) == ndim + 2
        if out is not None:
            _check.out(
                out,
                geometry.x_shape if batched else geometry.x_shape[1:],
                writeable=_dispatch.writeable(out),
                overlaps=_dispatch.overlapping(out, x=x, weight=weight, bias=bias),
            )
        result = gradients(kind).conv(
            x if batched else x[None],
            weight,
            geometry,
            bias=bias,
            out=out if batched or out is None else out[None],
        )
        if out is not None:
            return out
        return result if batched else result[0]

    example = _EXAMPLES[ndim].format(module=module)
    document(conv, f"conv{ndim}d", module, ndim, _DOC, where, example)
    return conv


_DOC = """\
Downsample with a kernel: the adjoint of `transposed_conv{ndim}d` with the same weight.

Along each axis, output ``i`` gathers what a transposed convolution would paint it over:

    y[i] += x[i * stride + k * dilation - pad_begin] * weight[k]

for every tap ``k``, summed over the input channels of a group, with zeros beyond the ends of ``x``.
For all arrays that fit, ``sum(transposed_conv{ndim}d(a, weight) * b)`` equals
``sum(a * conv{ndim}d(b, weight))``: as a matrix, each is the transpose of the other.
{where}

Parameters
----------
x : array, shape (N, C, {axes}) or (C, {axes})
    Input.  One of float16, bfloat16, float32, float64, complex64, complex128, int32, int64; any
    memory layout.
weight : array, shape (M, C // groups, {taps})
    Kernel, as in PyTorch's convolutions and not conjugated; the dtype of ``x``.
bias : array, shape (M,), optional
    Added to every output of its channel.
stride, dilation : int or one int per axis, default 1
    Steps between outputs, and between taps, in elements of ``x``.
padding : int, one int per axis, one (begin, end) pair per axis, or str, default 0
    Zeros at each end of ``x`` (in 1-D a pair is ``((begin, end),)``; a negative number crops).
    ``"same"`` (= ``"same_upper"``) and ``"same_lower"`` give ``ceil(size / stride)`` outputs, an
    odd zero being at the end and at the beginning; ``"valid"`` is 0.
groups : int, default 1
    Blocks of channels that are computed apart; divides C and M.
output_size : int or one int per axis, optional
    A smaller output than the largest possible.  With ``stride < dilation`` a transposed convolution
    may have so much ``output_padding`` that its adjoint gives fewer outputs than fit.
out : array, shape of the result, optional
    Written and returned; any strides, no memory in common with an input.

Returns
-------
array, shape (N, M, {out_axes}) or (M, {out_axes})
    Of the dtype of ``x``, each axis being ``(size + pad_begin + pad_end
    - dilation * (kernel_size - 1) - 1) // stride + 1`` long.  Half types are summed in float32 and
    rounded once; integers wrap around.

Raises
------
TypeError
    If an argument is of the wrong type, the dtypes differ, or NumPy and CuPy arrays are mixed.
ValueError
    If the shapes or numbers do not fit together, or the kernel is longer than ``x``.

Examples
--------
{example}"""

_EXAMPLES = {
    1: """\
Each output gathers the three inputs that its own digit would be painted over:

>>> import numpy as np
>>> from {module} import conv1d, transposed_conv1d
>>> weight = np.array([[[100, 10, 1]]])
>>> conv1d(np.array([[[1, 2, 3, 4, 5, 6, 7]]]), weight, stride=2)
array([[[123, 345, 567]]])
>>> transposed_conv1d(np.array([[[1, 2, 3]]]), weight, stride=2)
array([[[100,  10, 201,  20, 302,  30,   3]]])
""",
    2: """\
Half the size, one sum for each 2 x 2 square:

>>> import numpy as np
>>> from {module} import conv2d
>>> x = np.array([[[[1, 2, 10, 20], [3, 4, 30, 40]]]])
>>> conv2d(x, np.ones((1, 1, 2, 2), int), stride=2)
array([[[[ 10, 100]]]])
""",
    3: """\
A volume of one voxel remains of eight:

>>> import numpy as np
>>> from {module} import conv3d
>>> x = np.arange(1, 9).reshape(1, 1, 2, 2, 2)
>>> conv3d(x, np.ones((1, 1, 2, 2, 2), int))
array([[[[[36]]]]])
""",
}

conv1d, conv2d, conv3d = conv_verbs(
    _dispatch.own_gradients,
    "tconv",
    "NumPy arrays are computed on the CPU, CuPy arrays on their GPU.",
)
