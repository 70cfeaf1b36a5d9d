"""The public gradients of a transposed convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, SupportsIndex

from . import _check, _dispatch
from ._api import Array, Ints, Padding, document, library
from ._dispatch import conj


class BackwardVerb(Protocol):
    """The signature of every public function that returns gradients."""

    def __call__(
        self,
        grad_output: Array,
        x: Array,
        weight: Array,
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        output_size: Ints | None = None,
        dilation: Ints = 1,
        groups: SupportsIndex = 1,
        output_mask: Sequence[bool] = (True, True, True),
    ) -> tuple[Array | None, Array | None, Array | None]: ...


def backward_verbs(
    gradients: _dispatch.GradientBackend, module: str, where: str
) -> tuple[BackwardVerb, BackwardVerb, BackwardVerb]:
    """Return the public functions for one, two and three spatial axes, as `_api.verbs` does."""
    one, two, three = (_verb(ndim, gradients, module, where) for ndim in (1, 2, 3))
    return one, two, three


def _verb(ndim: int, gradients: _dispatch.GradientBackend, module: str, where: str) -> BackwardVerb:
    def backward(
        grad_output: Any,
        x: Any,
        weight: Any,
        *,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        output_size: Any = None,
        dilation: Any = 1,
        groups: Any = 1,
        output_mask: Any = (True, True, True),
    ) -> Any:
        kind = library({"x": x, "weight": weight, "grad_output": grad_output})
        of_x, of_weight, of_bias = _check.output_mask(output_mask)
        geometry = _check.geometry(
            ndim,
            x,
            weight,
            None,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            output_size=output_size,
            dilation=dilation,
            groups=groups,
        )
        batched = len(x.shape) == ndim + 2
        _check.grad_output(grad_output, geometry.out_shape if batched else geometry.out_shape[1:])
        if not batched:
            grad_output, x = grad_output[None], x[None]
        backend = gradients(kind)
        grad_x = grad_weight = grad_bias = None
        if of_x:
            grad_x = backend.conv(grad_output, conj(weight), geometry)
            grad_x = grad_x if batched else grad_x[0]
        if of_weight or of_bias:
            x = conj(x) if of_weight else x
            grad_weight, grad_bias = backend.parameters(
                x, grad_output, geometry, weight=of_weight, bias=of_bias
            )
        return grad_x, grad_weight, grad_bias

    example = _EXAMPLE.format(module=module, ndim=ndim, ones="1, " * (ndim - 1))
    name = f"transposed_conv{ndim}d_backward"
    document(backward, name, module, ndim, _DOC, where, example)
    return backward


_DOC = """\
Return the gradients of `transposed_conv{ndim}d` with respect to its arrays.

``grad_x`` is `conv{ndim}d` of ``grad_output``; ``grad_weight`` is the sum over the batch and all
positions of the products of ``x`` and ``grad_output`` that each tap connects; ``grad_bias`` is the
sum of ``grad_output``.
{where}

Parameters
----------
grad_output : array, shape (N, M, {out_axes}) or (M, {out_axes})
    Gradient with respect to the output, before any activation.
x : array, shape (N, C, {axes}) or (C, {axes})
    Input of the transposed convolution.
weight : array, shape (C, M // groups, {taps})
    Its kernel; all three have the same dtype.
stride, padding, output_padding, output_size, dilation, groups
    As they were given to `transposed_conv{ndim}d`.
output_mask : three bools, default (True, True, True)
    Which gradients are wanted: of x, weight and bias.

Returns
-------
grad_x, grad_weight, grad_bias : array or None
    In the shapes of ``x``, ``weight`` and a bias ``(M,)``; None where the mask is False.  Half
    types are summed in float32 and rounded once.  Complex gradients are conjugated, as PyTorch's: a
    step against the gradient makes a real loss smaller.

Raises
------
TypeError
    If an argument is of the wrong type, the dtypes differ, or NumPy and CuPy arrays are mixed.
ValueError
    If the shapes or numbers do not fit together.

Examples
--------
{example}"""

_EXAMPLE = """\
With every output weighted by one, ``grad_x`` is the kernel's sum and ``grad_weight`` that of ``x``:

>>> import numpy as np
>>> from {module} import transposed_conv{ndim}d_backward
>>> x = np.array([1, 10, 100]).reshape(1, 1, {ones}3)
>>> weight = np.array([1, 2, 3]).reshape(1, 1, {ones}3)
>>> grad_output = np.ones((1, 1, {ones}7), int)
>>> grads = transposed_conv{ndim}d_backward(grad_output, x, weight, stride=2)
>>> [grad.ravel().tolist() for grad in grads]
[[6, 6, 6], [111, 111, 111], [7]]
"""

(
    transposed_conv1d_backward,
    transposed_conv2d_backward,
    transposed_conv3d_backward,
) = backward_verbs(
    _dispatch.own_gradients,
    "tconv",
    "NumPy arrays are computed on the CPU, CuPy arrays on their GPU.",
)
