"""The public verbs: their signature, their documentation, and the way from one to a backend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol, SupportsIndex, TypeVar

from . import _check, _dispatch
from ._geometry import Geometry

Array = TypeVar("Array")
Ints = SupportsIndex | Sequence[SupportsIndex]
Padding = Ints | Sequence[tuple[SupportsIndex, SupportsIndex]] | str


class Verb(Protocol):
    """The signature of every public transposed convolution."""

    def __call__(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        output_size: Ints | None = None,
        dilation: Ints = 1,
        groups: SupportsIndex = 1,
        activation: str | None = None,
        precision: str | None = None,
        out: Array | None = None,
    ) -> Array: ...


def verbs(backend: _dispatch.Backend, module: str, where: str) -> tuple[Verb, Verb, Verb]:
    """Return the public functions for one, two and three spatial axes.

    ``backend`` chooses who computes, ``module`` is where the functions are found, and ``where`` is
    the sentence of their documentation that says where they compute.
    """
    one, two, three = (_verb(ndim, backend, module, where) for ndim in (1, 2, 3))
    return one, two, three


def _verb(ndim: int, backend: _dispatch.Backend, module: str, where: str) -> Verb:
    def transposed_conv(
        x: Any,
        weight: Any,
        bias: Any = None,
        *,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        output_size: Any = None,
        dilation: Any = 1,
        groups: Any = 1,
        activation: Any = None,
        precision: Any = None,
        out: Any = None,
    ) -> Any:
        kind = library({"x": x, "weight": weight}, bias=bias, out=out)
        _check.activation(activation, x)
        _check.precision(precision, x)
        _check.axes(ndim, x, weight)
        window = _check.window(
            ndim,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            output_size=output_size,
            dilation=dilation,
            groups=groups,
        )
        return computed(
            backend(kind),
            x,
            weight,
            bias,
            fitted(window, x, weight, bias),
            activation=activation,
            precision=precision,
            out=out,
        )

    example = _EXAMPLES[ndim].format(module=module)
    document(transposed_conv, f"transposed_conv{ndim}d", module, ndim, _DOC, where, example)
    return transposed_conv


def fitted(window: _check.Window, x: Any, weight: Any, bias: Any) -> Geometry:
    """Return the geometry of a window on these arrays; that of a call made before is at hand."""
    bias_shape = None if bias is None else bias.shape
    return _laid(window, x.shape, weight.shape, bias_shape, x.dtype.itemsize)


_laid = lru_cache(maxsize=4096)(_check.laid)


def computed(
    compute: _dispatch.Compute,
    x: Any,
    weight: Any,
    bias: Any,
    geometry: Geometry,
    *,
    out: Any,
    **options: Any,
) -> Any:
    """Return the result for arrays that fit the geometry, with a batch or without."""
    batched = len(x.shape) == geometry.ndim + 2
    if out is not None:
        _check.out(
            out,
            geometry.out_shape if batched else geometry.out_shape[1:],
            writeable=_dispatch.writeable(out),
            overlaps=_dispatch.overlapping(out, x=x, weight=weight, bias=bias),
        )
    if batched:
        return compute(x, weight, bias, geometry, out=out, **options)
    if out is None:
        return compute(x[None], weight, bias, geometry, out=None, **options)[0]
    compute(x[None], weight, bias, geometry, out=out[None], **options)
    return out


def library(arrays: dict[str, Any], **optional: Any) -> str:
    """Return the array library of the operands, which must be alike."""
    arrays = arrays | {name: array for name, array in optional.items() if array is not None}
    kind = _check.kinds({name: _dispatch.kind(array) for name, array in arrays.items()}, arrays)
    if kind != _dispatch.NUMPY:
        _check.devices({name: _dispatch.device(array) for name, array in arrays.items()})
    _check.dtypes(arrays)
    return kind


def document(
    function: Any, name: str, module: str, ndim: int, doc: str, where: str, example: str
) -> None:
    """Give a public function its name, its home and its documentation."""
    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    function.__annotations__ = {}  # the protocol has the types; Any would only clutter the help
    axes = ("D", "H", "W")[-ndim:]
    function.__doc__ = doc.format(
        name=name,
        ndim=ndim,
        where=where,
        axes=", ".join(axes),
        out_axes=", ".join(f"{axis}_out" for axis in axes),
        taps=", ".join(f"K{axis}" for axis in axes),
        example=example,
    )


_DOC = """\
Upsample with a learnable kernel: a transposed convolution over {ndim} spatial axes.

Also known as ConvTranspose{ndim}d, Conv{ndim}DTranspose, fractionally strided convolution and, by a
misnomer, "deconvolution".  Along each axis, input ``i`` is painted over the outputs

    y[i * stride + k * dilation - pad_begin] += x[i] * weight[k]

for every tap ``k``, summed over the input channels of a group.
{where}

Parameters
----------
x : array, shape (N, C, {axes}) or (C, {axes})
    Input.  One of float16, bfloat16, float32, float64, complex64, complex128, int32, int64.
    Any memory layout; a channels-first view of channels-last memory is computed without a copy and
    gives a result in the same order.
weight : array, shape (C, M // groups, {taps})
    Kernel, not flipped, as in PyTorch and ONNX; the dtype of ``x``.
bias : array, shape (M,), optional
    Added to every output of its channel.
stride, dilation : int or one int per axis, default 1
    Steps between inputs, and between taps, in elements of the output.
padding : int, one int per axis, one (begin, end) pair per axis, or str, default 0
    Elements cropped from each end of the output (in 1-D a pair is ``((begin, end),)``; a negative
    number extends the output, with the bias alone).  ``"same"`` (= ``"same_upper"``) and
    ``"same_lower"`` give ``in_size * stride`` outputs, an odd element being cropped from the end
    and from the beginning; ``"valid"`` gives
    ``(in_size - 1) * stride + max(dilation * (kernel_size - 1) + 1, stride)``.
output_padding : int or one int per axis, default 0
    Elements added at the end; less than ``stride`` or less than ``dilation``.
output_size : int or one int per axis, optional
    The wanted output size, instead of ``output_padding``.
groups : int, default 1
    Blocks of channels that are computed apart; divides C.
activation : {{None, "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu"}}, optional
    Applied after the bias.  The slope of leaky_relu is 0.01; gelu is the exact one (erf).  Integers
    take "relu" only, complex numbers none.
precision : {{None, "ieee", "tf32", "tf32x3"}}, optional
    How a GPU may multiply float32; None is "ieee", strictly float32.  "tf32" rounds the factors
    to 11 bits; "tf32x3" multiplies three times and is nearly as exact as float32.  No effect on
    the CPU.
out : array, shape of the result, optional
    Written and returned; any strides, no memory in common with an input.

Returns
-------
array, shape (N, M, {out_axes}) or (M, {out_axes})
    Of the dtype of ``x``, each axis being ``(in_size - 1) * stride - pad_begin - pad_end
    + dilation * (kernel_size - 1) + output_padding + 1`` long.  Half types are summed in float32
    and rounded once; integers wrap around.

Raises
------
TypeError
    If an argument is of the wrong type, the dtypes differ, or NumPy and CuPy arrays are mixed.
ValueError
    If the shapes or numbers do not fit together, or the output would be empty along an axis.

Notes
-----
The sizes follow `torch.nn.ConvTranspose{ndim}d
<https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose{ndim}d.html>`_; dtypes,
layouts and paddings beyond it are described in the project's documentation.

Examples
--------
{example}"""

_EXAMPLES = {
    1: """\
Each input paints a copy of the kernel; where copies overlap they add up.

>>> import numpy as np
>>> from {module} import transposed_conv1d
>>> x = np.array([[[1, 10, 100]]])
>>> weight = np.array([[[1, 2, 3]]])
>>> transposed_conv1d(x, weight, stride=3)
array([[[  1,   2,   3,  10,  20,  30, 100, 200, 300]]])
>>> transposed_conv1d(x, weight, stride=2)
array([[[  1,   2,  13,  20, 130, 200, 300]]])
""",
    2: """\
Twice the size, as in a U-Net: one 2 x 2 square for each input.

>>> import numpy as np
>>> from {module} import transposed_conv2d
>>> x = np.array([[[[1, 10], [100, 1000]]]])
>>> weight = np.array([[[[1, 2], [3, 4]]]])
>>> transposed_conv2d(x, weight, stride=2)
array([[[[   1,    2,   10,   20],
         [   3,    4,   30,   40],
         [ 100,  200, 1000, 2000],
         [ 300,  400, 3000, 4000]]]])

A batch of 8, from 4 to 3 channels, as the last layer of a decoder:

>>> x = np.ones((8, 4, 16, 16), np.float32)
>>> weight = np.ones((4, 3, 4, 4), np.float32)
>>> transposed_conv2d(x, weight, stride=2, padding=1, activation="relu").shape
(8, 3, 32, 32)
""",
    3: """\
A volume of one voxel becomes the kernel:

>>> import numpy as np
>>> from {module} import transposed_conv3d
>>> x = np.full((1, 1, 1, 1, 1), 10)
>>> weight = np.arange(1, 9).reshape(1, 1, 2, 2, 2)
>>> transposed_conv3d(x, weight, stride=2)[0, 0]
array([[[10, 20],
        [30, 40]],
<BLANKLINE>
       [[50, 60],
        [70, 80]]])
""",
}

transposed_conv1d, transposed_conv2d, transposed_conv3d = verbs(
    _dispatch.own_library,
    "tconv",
    "NumPy arrays are computed on the CPU, CuPy arrays on their GPU.",
)
