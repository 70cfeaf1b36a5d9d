"""Working memory of one thread, allocated once and handed out anew for every part."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

ALIGNMENT = 64


class Scratch:
    """A buffer that grows to what the largest part needs, so that its pages are new only once."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._buffer = np.empty(0, np.uint8)
        self.used = 0

    def empty(self, shape: tuple[int, ...]) -> Array:
        """Hand out an uninitialised array, its until `used` is set back before it."""
        size = prod(shape) * self.dtype.itemsize
        end = self.used + size
        if end > self._buffer.size:
            self._buffer = np.empty(end + ALIGNMENT, np.uint8)
        array = self._buffer[self.used : end].view(self.dtype).reshape(shape)
        self.used = -(-end // ALIGNMENT) * ALIGNMENT
        return array
