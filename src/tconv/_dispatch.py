"""Which array library the arguments come from, and who computes on them.

Arrays are recognised through ``sys.modules``: an array of a library that nobody has imported does
not exist, so nothing is imported to recognise it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ._geometry import Geometry

Compute = Callable[..., Any]
"""``(x, weight, bias, geometry, *, activation, precision, out) -> array``, as backends offer it."""

Backend = Callable[[str], Compute]
"""From an array library's name to the function that computes on its arrays."""


class Placed(NamedTuple):
    """Weights where a layer computes with them, and the function that does."""

    compute: Compute
    weight: Any
    bias: Any


Placing = Callable[[Any, Any, Any], Placed]
"""``(weight, bias, x) -> Placed``: packs NumPy arrays for computing where x is."""


class Gradients(NamedTuple):
    """What a backend offers besides: the adjoint, and the gradients of weight and bias.

    ``geometry`` is that of the transposed convolution.
    """

    conv: Callable[..., Any]
    """``(y, weight, geometry, *, bias=None, out=None) -> array`` of ``geometry.x_shape``."""

    parameters: Callable[..., tuple[Any, Any]]
    """``(x, grad_output, geometry, *, weight=True, bias=True) -> (grad_weight, grad_bias)``.

    Those of weight, in its shape, and of bias; None for one that is not wanted.  Conjugates
    nothing.
    """


def one_by_one(
    weight_gradient: Callable[..., Any], bias_gradient: Callable[..., Any]
) -> Callable[..., tuple[Any, Any]]:
    """Return `Gradients.parameters` that computes each gradient by a function of its own."""

    def parameters(
        x: Any, grad_output: Any, geometry: Geometry, *, weight: bool = True, bias: bool = True
    ) -> tuple[Any, Any]:
        return (
            weight_gradient(x, grad_output, geometry) if weight else None,
            bias_gradient(grad_output, geometry) if bias else None,
        )

    return parameters


GradientBackend = Callable[[str], Gradients]
"""From an array library's name to the functions that differentiate on its arrays."""

NUMPY, CUPY = "NumPy", "CuPy"


def kind(array: Any) -> str | None:
    """Return ``"NumPy"``, ``"CuPy"``, or None for what is neither."""
    if type(array) is np.ndarray:
        return NUMPY
    # No CuPy, or one whose import failed halfway, has no arrays.
    if isinstance(array, getattr(sys.modules.get("cupy"), "ndarray", ())):
        return CUPY
    # A masked array would lose its mask without a word; a matrix cannot have more than two axes.
    if isinstance(array, np.ndarray) and not isinstance(array, (np.ma.MaskedArray, np.matrix)):
        return NUMPY
    return None


def device(array: Any) -> str:
    """Return where an array's memory is, in words."""
    return "the CPU" if kind(array) == NUMPY else f"GPU {array.device.id}"


def conj(array: Any) -> Any:
    """Return the complex conjugates, computed where the array's memory is."""
    if array.dtype.kind != "c":
        return array
    with nullcontext() if kind(array) == NUMPY else array.device:
        return array.conj()


def kept(array: Any) -> Any:
    """Return a copy as a NumPy array, C-contiguous, in native byte order, that nobody can write."""
    if kind(array) == CUPY:
        array = array.get()
    copy = np.array(array, array.dtype.newbyteorder("="), order="C")
    copy.flags.writeable = False
    return copy


def writeable(array: Any) -> bool:
    """Return whether an array can be written."""
    return bool(getattr(array.flags, "writeable", True))


def overlapping(out: Any, **inputs: Any) -> str | None:
    """Return the name of the first input that shares memory with ``out``, or "itself"."""
    if _overlaps_itself(out):
        return "itself"
    for name, array in inputs.items():
        if array is not None and _share_memory(out, array):
            return name
    return None


def _share_memory(a: Any, b: Any) -> bool:
    if kind(a) != NUMPY:
        a, b = _addresses(a), _addresses(b)
    most_work: Any = 100_000
    try:
        # Two slices of one buffer may interleave without sharing an element.
        return np.shares_memory(a, b, max_work=most_work)
    except np.exceptions.TooHardError:
        return np.may_share_memory(a, b)


def _addresses(array: Any) -> Any:
    """Return an array of NumPy's at the addresses of one on a device: nobody may look at it."""
    there = {
        "shape": array.shape,
        "strides": array.strides,
        "typestr": f"|V{array.dtype.itemsize}",
        "data": array.__cuda_array_interface__["data"],
        "version": 3,
    }
    return np.asarray(SimpleNamespace(__array_interface__=there))


def _overlaps_itself(array: Any) -> bool:
    """Return True unless each axis steps over all that the smaller steps cover."""
    if array.flags.c_contiguous:
        return False
    covered = array.dtype.itemsize
    for stride, size in sorted(
        (abs(s), n) for s, n in zip(array.strides, array.shape, strict=True)
    ):
        if size > 1 and stride < covered:
            return bool(array.size > 0)
        covered += stride * (size - 1)
    return False


def own_library(kind: str) -> Compute:
    """Compute where the arrays are: NumPy arrays on the CPU, CuPy arrays on their GPU."""
    if kind == CUPY:
        from . import gpu

        return gpu.transposed_conv
    from . import _cpu

    return _cpu.transposed_conv


def own_placing(kind: str) -> Placing:
    """Pack a layer's weights for where the arrays are."""
    if kind == CUPY:
        from . import gpu

        return gpu.placed
    from . import _cpu

    return _cpu.placed


def own_gradients(kind: str) -> Gradients:
    """Differentiate where the arrays are."""
    if kind == CUPY:
        from .gpu import gradients

        return gradients.CUPY
    from . import _cpu

    return Gradients(_cpu.conv, one_by_one(_cpu.weight_gradient, _cpu.bias_gradient))
