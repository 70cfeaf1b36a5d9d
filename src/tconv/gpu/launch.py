"""One call: arrange the arguments, choose a kernel, launch it.

Nothing here names CuPy: a `Device` allocates memory and gives kernels, so the same lines launch
the same sources on a machine without a GPU.
"""

from __future__ import annotations

from math import prod
from typing import Any, Protocol

import numpy as np

from .. import _memory
from .._geometry import Geometry
from .call import Call, Strides
from .choice import Specialisation, Tile
from .params import params
from .select import select


class Kernel(Protocol):
    """A compiled kernel, ready to launch."""

    def __call__(
        self, grid: tuple[int], block: tuple[int], args: tuple[Any, ...], *, shared_mem: int
    ) -> None:
        """Launch on the current stream."""


class Device(Protocol):
    """Where arrays are and kernels run."""

    @property
    def capability(self) -> int:
        """The compute capability as two digits, 80 for 8.0."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return a new array with arbitrary contents."""

    def address(self, array: Any) -> int:
        """Return where an array's first element lies."""

    def bytes_of(self, array: Any) -> Any:
        """Return a view of an array's bytes, with one more axis."""

    def kernel(self, specialisation: Specialisation) -> Kernel:
        """Return a kernel; each is compiled and loaded once."""


def transposed_conv(
    x: Any,
    weight: Any,
    bias: Any,
    geometry: Geometry,
    *,
    activation: str | None,
    precision: str | None,
    out: Any,
    device: Device,
    kernel: str | None = None,
    tile: Tile | None = None,
) -> Any:
    """Compute on one device; ``kernel`` and ``tile`` force a choice."""
    if out is None:
        out = _memory.empty(x, geometry.out_shape, device.empty)
    if prod(geometry.out_shape) == 0:
        return out
    x, weight = _aligned(x, device), _aligned(weight, device)
    bias = None if bias is None else _aligned(bias, device)
    result = out if _is_aligned(out, device) else device.empty(out.shape, out.dtype)
    strides = Strides(
        x=_strides(x),
        weight=_strides(weight),
        bias=0 if bias is None else _strides(bias)[0],
        out=_strides(result),
    )
    call = Call(
        geometry,
        result.dtype.name,
        strides,
        activation=activation,
        precision=precision,
        capability=device.capability,
    )
    choice = select(call, kernel=kernel, tile=tile)
    specialisation = choice.specialisation
    device.kernel(specialisation)(
        (choice.blocks,),
        (specialisation.threads,),
        (x, weight, _NULL if bias is None else bias, result, params(choice, call)),
        shared_mem=specialisation.shared_bytes,
    )
    if result is not out:
        device.bytes_of(out)[...] = device.bytes_of(result)
    return out


_NULL = np.uint64(0)


def _steps(array: Any) -> list[int]:
    """Return the strides in bytes; an axis of one element has none that matters."""
    return [0 if n == 1 else step for n, step in zip(array.shape, array.strides, strict=True)]


def _strides(array: Any) -> tuple[int, ...]:
    return tuple(step // array.dtype.itemsize for step in _steps(array))


def _is_aligned(array: Any, device: Device) -> bool:
    """Tell whether every element lies at a multiple of its size, as the hardware wants it."""
    size = array.dtype.itemsize
    return device.address(array) % size == 0 and all(step % size == 0 for step in _steps(array))


def _aligned(array: Any, device: Device) -> Any:
    """Return an array itself, or a copy if its elements are not aligned."""
    if _is_aligned(array, device):
        return array
    copy = device.empty(array.shape, array.dtype)
    device.bytes_of(copy)[...] = device.bytes_of(array)
    return copy
