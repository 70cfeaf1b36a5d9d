"""Tensor maps: all that Hopper's copy engine has to know of an array.

The driver encodes them; this is the only file that calls it, through ctypes.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

BYTES = 128
ELEMENTS = {"float16": 6, "bfloat16": 9}
"""The driver's numbers of the element types."""


@dataclass(frozen=True, slots=True)
class TensorMap:
    """An array and the box that is copied at once; the axis that is nearest in memory comes first.

    ``strides`` are in bytes and leave out the first axis, whose elements are neighbours; ``offset``
    is where the first element lies, in bytes from that of the whole array.
    """

    dtype: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    offset: int = 0


# Four take Python some 40 us to make; pools of memory give the same addresses again and again.
@lru_cache(maxsize=1024)
def encode(tensor_maps: tuple[TensorMap, ...], address: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return tensor maps of an array at an address, 128 bytes each, to go to a kernel by value."""
    size = BYTES * len(tensor_maps)
    encoded = _aligned(size, 64)
    for number, tensor_map in enumerate(tensor_maps):
        _encode(tensor_map, address, encoded[number * BYTES :])
    return encoded.view(f"V{size}")


def _encode(tensor_map: TensorMap, address: int, to: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Let the driver encode one: with the swizzle of 128 bytes, and zeros outside the array."""
    rank = len(tensor_map.sizes)
    status = _encode_tiled()(
        ctypes.c_void_p(to.ctypes.data),
        ctypes.c_int(ELEMENTS[tensor_map.dtype]),
        ctypes.c_uint32(rank),
        ctypes.c_void_p(address + tensor_map.offset),
        (ctypes.c_uint64 * rank)(*tensor_map.sizes),
        (ctypes.c_uint64 * (rank - 1))(*tensor_map.strides),
        (ctypes.c_uint32 * rank)(*tensor_map.box),
        (ctypes.c_uint32 * rank)(*[1] * rank),
        ctypes.c_int(0),  # not interleaved
        ctypes.c_int(3),  # swizzle of 128 bytes
        ctypes.c_int(2),  # fetched to L2 in pieces of 128 bytes
        ctypes.c_int(0),  # zeros outside
    )
    if status:
        raise RuntimeError(f"cuTensorMapEncodeTiled refuses {tensor_map}: error {status}")


@cache
def _encode_tiled() -> Any:
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1").cuTensorMapEncodeTiled


def _aligned(size: int, alignment: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return memory that begins at a multiple of ``alignment``."""
    memory = np.zeros(size + alignment, np.uint8)
    begin = -memory.ctypes.data % alignment
    return memory[begin : begin + size]
