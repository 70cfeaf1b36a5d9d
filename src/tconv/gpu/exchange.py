"""CuPy arrays from those of other libraries, and on their streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def current(device: int, stream: int) -> Iterator[None]:
    """Let CuPy compute on a device, on the stream with this handle."""
    from . import why_not

    reason = why_not()
    if reason is not None:
        raise RuntimeError(f"tconv cannot compute on CUDA tensors: {reason}")
    import cupy

    with cupy.cuda.Device(device), cupy.cuda.Stream.from_external(_Handle(stream)):
        yield


class _Handle:
    """A stream as CUDA's stream protocol passes it on."""

    def __init__(self, stream: int) -> None:
        self._stream = stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._stream  # the protocol's version first


def there(array: Any) -> Any:
    """Return a CuPy array with a NumPy array's elements, in the machine's byte order."""
    import cupy

    return cupy.asarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def back(array: Any) -> Any:
    """Return a CuPy array's elements in a NumPy array."""
    import cupy

    return cupy.asnumpy(array)


def array(source: Any, *, bfloat16: bool) -> Any:
    """Return a CuPy array on a DLPack source, for bfloat16 on one of its bits as int16."""
    import cupy

    result = cupy.from_dlpack(source)
    if not bfloat16:
        return result
    import ml_dtypes

    return result.view(ml_dtypes.bfloat16)
