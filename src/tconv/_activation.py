"""The element-wise functions that may follow a transposed convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

LEAKY_SLOPE = 0.01


def _relu(a: Array) -> None:
    np.maximum(a, 0, out=a)


def _leaky_relu(a: Array) -> None:
    np.maximum(a, a * LEAKY_SLOPE, out=a)


def _sigmoid(a: Array) -> None:
    from scipy.special import expit

    expit(a, out=a)


def _tanh(a: Array) -> None:
    np.tanh(a, out=a)


def _gelu(a: Array) -> None:
    from scipy.special import ndtr

    np.multiply(a, ndtr(a), out=a)


def _silu(a: Array) -> None:
    from scipy.special import expit

    np.multiply(a, expit(a), out=a)


_FUNCTIONS: dict[str, Callable[[Array], None]] = {
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "gelu": _gelu,
    "silu": _silu,
}


def apply(name: str | None, array: Array) -> None:
    """Apply the activation called `name` to every element of `array`, in place.

    ``gelu`` is the exact one, ``a * (1 + erf(a / sqrt(2))) / 2``.  None leaves the array as it is.
    """
    if name is not None:
        _FUNCTIONS[name](array)
