"""The order in which an array's axes lie in memory, for any library's arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any


def is_channels_last(x: Any) -> bool:
    """Tell whether `x` ``(N, C, *in)`` is a channels-first view of channels-last memory.

    An array that is contiguous both ways (one channel, say) counts as channels-first.
    """
    return _lies_channels_last(x.shape, x.strides, x.dtype.itemsize)


@lru_cache(maxsize=4096)
def _lies_channels_last(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    return not _is_contiguous(shape, strides, itemsize) and _is_contiguous(
        _channels_last(shape), _channels_last(strides), itemsize
    )


def empty(x: Any, shape: tuple[int, ...], allocate: Callable[..., Any]) -> Any:
    """Return a new array of `shape` ``(N, M, *out)`` with the memory order of `x`.

    Its dtype is that of `x`, in the machine's own byte order.

    `allocate` is ``numpy.empty`` or its like: it takes a shape and ``dtype=``.
    """
    dtype = x.dtype.newbyteorder("=")
    if is_channels_last(x):
        array = allocate(_channels_last(shape), dtype=dtype)
        last = len(shape) - 1
        return array.transpose(0, last, *range(1, last))
    return allocate(shape, dtype=dtype)


def _channels_last(values: tuple[int, ...]) -> tuple[int, ...]:
    return (values[0], *values[2:], values[1])


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    if 0 in shape:
        return True
    step = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != step:
                return False
            step *= size
    return True
