"""The adjoint and the gradients on the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _memory, gpu
from .._dispatch import Gradients
from .._geometry import Geometry
from . import compile, exchange, launch


def _conv(y: Any, weight: Any, geometry: Geometry, *, bias: Any = None, out: Any = None) -> Any:
    """Compute on CuPy arrays, on the device of y and the current stream, without waiting."""
    gpu.require()
    with y.device:
        device = compile.device(y.device.id)
        return launch.conv(y, weight, geometry, bias=bias, out=out, device=device)


def _parameters(
    x: Any, grad_output: Any, geometry: Geometry, *, weight: bool = True, bias: bool = True
) -> tuple[Any, Any]:
    """Compute on CuPy arrays, on the device of x and the current stream, without waiting."""
    gpu.require()
    with x.device:
        device = compile.device(x.device.id)
        return launch.parameter_gradients(
            x, grad_output, geometry, weight=weight, bias=bias, device=device
        )


def _conv_from_numpy(
    y: Any, weight: Any, geometry: Geometry, *, bias: Any = None, out: Any = None
) -> Any:
    """Compute there and back."""
    arrays = exchange.there(y), exchange.there(weight)
    result = _conv(*arrays, geometry, bias=None if bias is None else exchange.there(bias))
    if out is None:
        out = _memory.empty(y, geometry.x_shape, np.empty)
    out[...] = exchange.back(result)
    return out


def _parameters_from_numpy(
    x: Any, grad_output: Any, geometry: Geometry, *, weight: bool = True, bias: bool = True
) -> tuple[Any, Any]:
    """Compute there and back."""
    arrays = exchange.there(x), exchange.there(grad_output)
    grads = _parameters(*arrays, geometry, weight=weight, bias=bias)
    grad_weight, grad_bias = (None if g is None else exchange.back(g) for g in grads)
    return grad_weight, grad_bias


CUPY = Gradients(_conv, _parameters)
NUMPY = Gradients(_conv_from_numpy, _parameters_from_numpy)
"""For NumPy arrays on a machine with a GPU."""
