"""The types that sums are made in."""

from __future__ import annotations

from typing import Any

import numpy as np


def sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that `dtype` is summed in: float32 for the half types, else itself."""
    is_half = dtype.itemsize == 2
    return np.dtype(np.float32) if is_half else dtype.newbyteorder("=")
