"""From CUDA source to a loaded kernel: NVRTC, cubins on disk, and CuPy's modules.

The only file that names CuPy's module classes.  Cubins are compiled with options of our own (CuPy's
always flush subnormals to zero) and kept in a folder of our own; each file's name carries a hash of
what it was made from and one of what is in it, so a damaged file is noticed and made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from .. import _config
from .choice import Specialisation
from .launch import Kernel
from .source import source
from .tensor_map import TensorMap, encode

SHARED_BYTES = 48 << 10
"""What a block may have of shared memory without asking for more."""

OPTIONS = ("--std=c++17", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")


@cache
def device(number: int) -> CudaDevice:
    """Return the device with CUDA's number ``number``, with all the kernels it has loaded."""
    return CudaDevice(number)


class CudaDevice:
    """A CUDA device, as `launch` sees it; calls are made with it as CuPy's current device."""

    def __init__(self, number: int) -> None:
        import cupy

        self._cupy = cupy
        self._kernels: dict[Specialisation, Kernel] = {}
        self._lock = Lock()
        device = cupy.cuda.Device(number)
        self.capability = int(device.compute_capability)
        self.multiprocessors = int(device.attributes["MultiProcessorCount"])

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return a new array with arbitrary contents."""
        return self._cupy.empty(shape, dtype)

    def upload(self, array: Any) -> Any:
        """Return a copy of a NumPy array; it is there, for every stream, when this returns."""
        copy = self._cupy.asarray(array)
        self._cupy.cuda.get_current_stream().synchronize()
        return copy

    @property
    def stream(self) -> int:
        """The handle of the current stream."""
        return int(self._cupy.cuda.get_current_stream().ptr)

    def address(self, array: Any) -> int:
        """Return where an array's first element lies."""
        return int(array.data.ptr)

    def bytes_of(self, array: Any) -> Any:
        """Return a view of an array's bytes, with one more axis."""
        shape, strides = (*array.shape, array.dtype.itemsize), (*array.strides, 1)
        return self._cupy.ndarray(shape, self._cupy.uint8, memptr=array.data, strides=strides)

    def placed(self, array: Any, memory: Any, offset: int) -> Any:
        """Return an array like another whose first element lies at this byte of the memory."""
        first = memory.data + offset
        return self._cupy.ndarray(array.shape, array.dtype, memptr=first, strides=array.strides)

    def tensor_maps(self, tensor_maps: tuple[TensorMap, ...], address: int) -> Any:
        """Return tensor maps of one array, as a kernel takes them."""
        return encode(tensor_maps, address)

    def kernel(self, specialisation: Specialisation) -> Kernel:
        """Return a kernel; each is compiled and loaded once."""
        kernel = self._kernels.get(specialisation)
        if kernel is None:
            with self._lock:
                kernel = self._kernels.get(specialisation) or self._load(specialisation)
                self._kernels[specialisation] = kernel
        return kernel

    def _load(self, specialisation: Specialisation) -> Kernel:
        path = cubin(source(specialisation), architecture(self.capability))
        kernel = self._cupy.RawModule(path=str(path)).get_function(specialisation.kernel)
        if specialisation.shared_bytes > SHARED_BYTES:
            kernel.max_dynamic_shared_size_bytes = specialisation.shared_bytes
        loaded: Kernel = kernel
        return loaded


def architecture(capability: int) -> str:
    """Return what NVRTC calls the newest architecture whose cubins this device runs.

    A cubin runs on devices of its own major version, and of its own minor version or a later one.
    """
    from cupy.cuda import nvrtc

    major = capability // 10
    runs = [a for a in nvrtc.getSupportedArchs() if a // 10 == major and a <= capability]
    if not runs:
        raise RuntimeError(
            f"NVRTC {version()} cannot compile for compute capability {major}.{capability % 10}; "
            "install a CuPy for another version of CUDA"
        )
    newest = max(runs)
    return f"sm_{newest}a" if newest == 90 else f"sm_{newest}"


def version() -> str:
    """Return the version of NVRTC."""
    from cupy.cuda import nvrtc

    return ".".join(map(str, nvrtc.getVersion()))


def compiled(text: str, architecture: str, *options: str) -> tuple[bytes, str]:
    """Compile a source; return the cubin and the compiler's messages."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(text, "tconv.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch={architecture}", *OPTIONS, *options))
        # CuPy drops the last byte, as if a cubin ended with a zero as PTX does.
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        messages = nvrtc.getProgramLog(program)
        raise RuntimeError(f"NVRTC refuses a kernel for {architecture}:\n{messages}") from error
    finally:
        nvrtc.destroyProgram(program)


def cubin(text: str, architecture: str) -> Path:
    """Return the file of a compiled source: from the cache, or compiled and put there."""
    identity = [text, architecture, *OPTIONS, version()]
    key = _hash("\0".join(identity).encode())
    folder = _folder()
    for path in folder.glob(f"{key}-*.cubin"):
        with contextlib.suppress(OSError):
            if path.stem == f"{key}-{_hash(path.read_bytes())}":
                return path
    contents, _ = compiled(text, architecture)
    path = folder / f"{key}-{_hash(contents)}.cubin"
    # Written whole under another name first: other processes see a finished file or none.
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(contents)
    os.replace(file.name, path)
    return path


def _hash(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:32]


def _folder() -> Path:
    """Return the cache folder, or one for this process alone if that cannot be written to."""
    folder = _config.cache_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return _private_folder()


@cache
def _private_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tconv-"))
