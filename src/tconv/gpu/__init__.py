"""Transposed convolution on the GPU, for CuPy arrays, with a fallback for machines without one."""

from __future__ import annotations

import logging
from functools import cache, partial
from typing import Any

import numpy as np

from .. import _cpu, _dispatch, _memory
from .._api import verbs
from .._backward import backward_verbs
from .._conv import conv_verbs
from .._geometry import Geometry
from . import compile, exchange, launch
from .ceilings import Ceilings
from .planning import Plan, plan

__all__ = [
    "Ceilings",
    "Plan",
    "conv1d",
    "conv2d",
    "conv3d",
    "is_available",
    "plan",
    "transposed_conv1d",
    "transposed_conv1d_backward",
    "transposed_conv2d",
    "transposed_conv2d_backward",
    "transposed_conv3d",
    "transposed_conv3d_backward",
    "why_not",
]

_logger = logging.getLogger("tconv")


def is_available() -> bool:
    """Return whether the verbs of this module compute on a GPU on this machine."""
    return why_not() is None


@cache
def why_not() -> str | None:
    """Return why the GPU cannot be used, and what to do about it; None if it can."""
    try:
        import cupy
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return "CuPy is not installed; pip install 'tconv[cuda12x]' or 'tconv[cuda13x]'"
        return f"CuPy cannot be imported; reinstall it for your version of CUDA ({error})"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CUDA finds no driver or no device; install or update NVIDIA's driver ({error})"
    return None if count else "CUDA finds no device; check nvidia-smi and CUDA_VISIBLE_DEVICES"


def transposed_conv(
    x: Any,
    weight: Any,
    bias: Any,
    geometry: Geometry,
    *,
    activation: str | None = None,
    precision: str | None = None,
    out: Any = None,
    workspace: launch.Workspace | None = None,
) -> Any:
    """Compute on CuPy arrays, on the device of x and the current stream, without waiting."""
    require()
    with x.device:
        return launch.transposed_conv(
            x,
            weight,
            bias,
            geometry,
            activation=activation,
            precision=precision,
            out=out,
            device=compile.device(x.device.id),
            workspace=workspace,
        )


def placed(weight: Any, bias: Any, x: Any) -> _dispatch.Placed:
    """Return a layer's weights on the device of x, in the order that the kernels like best."""
    require()
    with x.device:
        device = compile.device(x.device.id)
        there = launch.packed(weight, device)
        bias = None if bias is None else device.upload(bias)
        compute = partial(transposed_conv, workspace=launch.Workspaces(device))
    return _dispatch.Placed(compute, there, bias)


def require() -> None:
    """Raise an error that says why there is no GPU, if there is none."""
    reason = why_not()
    if reason is not None:
        raise RuntimeError(f"tconv cannot compute on CuPy arrays: {reason}")


def _from_numpy(
    x: Any,
    weight: Any,
    bias: Any,
    geometry: Geometry,
    *,
    activation: str | None = None,
    precision: str | None = None,
    out: Any = None,
) -> Any:
    """Compute on NumPy arrays: there and back if there is a GPU, else on the CPU."""
    if not is_available():
        _warn_once()
        return _cpu.transposed_conv(
            x, weight, bias, geometry, activation=activation, precision=precision, out=out
        )
    result = transposed_conv(
        exchange.there(x),
        exchange.there(weight),
        None if bias is None else exchange.there(bias),
        geometry,
        activation=activation,
        precision=precision,
    )
    if out is None:
        out = _memory.empty(x, geometry.out_shape, np.empty)
    out[...] = exchange.back(result)
    return out


@cache
def _warn_once() -> None:
    _logger.warning("tconv.gpu computes on the CPU: %s", why_not())


def _backend(kind: str) -> _dispatch.Compute:
    return transposed_conv if kind == _dispatch.CUPY else _from_numpy


def _gradients(kind: str) -> _dispatch.Gradients:
    if kind == _dispatch.CUPY or not is_available():
        if kind == _dispatch.NUMPY:
            _warn_once()
        return _dispatch.own_gradients(kind)
    from . import gradients

    return gradients.NUMPY


_WHERE = "Computed on the GPU; where there is none, NumPy arrays are computed on the CPU."

transposed_conv1d, transposed_conv2d, transposed_conv3d = verbs(_backend, __name__, _WHERE)

conv1d, conv2d, conv3d = conv_verbs(_gradients, __name__, _WHERE)
(
    transposed_conv1d_backward,
    transposed_conv2d_backward,
    transposed_conv3d_backward,
) = backward_verbs(_gradients, __name__, _WHERE)
