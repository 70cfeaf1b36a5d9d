"""A stand-in for CUDA: the kernels compiled as C++, launched by tconv's own launch code on NumPy.

`Standin` is a `tconv.gpu.launch.Device`.  Its kernels are the files of ``kernels/`` with only
``primitives.cuh`` exchanged; the threads of a block are fibres (see ``runtime.cpp``).

There are three builds.  ``plain`` is quick.  The others find what a right result can hide, and need
their sanitizer's runtime loaded before Python (`python`): ``asan``, which is AddressSanitizer
and UndefinedBehaviorSanitizer, sees reads and writes outside arrays and shared memory; ``tsan``
sees two threads of a block that touch the same place without a barrier between them.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np

from tconv import _api, _backward, _config, _conv
from tconv._dispatch import Gradients
from tconv.gpu import launch
from tconv.gpu.source import flatten, source

HERE = Path(__file__).parent

NATIVE = ["-march=native"] if platform.machine() == "x86_64" else []
COMMON = ["-std=c++17", "-fPIC", "-shared", "-g1", "-Wno-unknown-pragmas", *NATIVE]
BUILDS = {
    "plain": (["-O1"], [], None),
    "asan": (
        ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        ["-DSTANDIN_ASAN"],
        "libasan.so",
    ),
    "tsan": (["-O1", "-fsanitize=thread"], ["-DSTANDIN_TSAN"], "libtsan.so"),
}
"""Flags of the kernels, flags of the runtime, and the library to load before Python."""

INSTALL = "the kernels did not run: install g++ or clang++ (Debian and Ubuntu: apt install g++)"


@cache
def compiler():
    """Return the C++ compiler to use, or None."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    return next(filter(None, map(shutil.which, names)), None)


def skip_without_compiler():
    """Skip the test that asks, or all that use the fixture that asks."""
    import pytest  # takes longer than some of the child processes

    if compiler() is None:
        pytest.skip(INSTALL)


def python(build, *, late=False):
    """Return the command and the environment of a child process that uses a build by default."""
    env = {**os.environ, "TCONV_STANDIN_BUILD": build, "TCONV_STANDIN_LATE": "1" if late else ""}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable]
    if BUILDS[build][2] is not None:
        env["LD_PRELOAD"] = _library(BUILDS[build][2])
        # Python's own leaks are not what is looked for, nor are NumPy's threads.
        env["ASAN_OPTIONS"] = "detect_leaks=0"
        env["UBSAN_OPTIONS"] = "print_stacktrace=1"
        env["TSAN_OPTIONS"] = "halt_on_error=1"
        env["OPENBLAS_NUM_THREADS"] = "1"
    if build == "tsan" and _without_randomization():
        # ThreadSanitizer wants memory where it expects it.
        command = ["setarch", "-R", *command]
    return command, env


def sanitizers():
    """Tell whether the compiler brings the sanitizers' runtimes; clang++ calls them otherwise."""
    return compiler() is not None and all(
        Path(_library(library)).is_absolute() for _, _, library in BUILDS.values() if library
    )


def _library(name):
    command = [compiler(), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@cache
def _without_randomization():
    if shutil.which("setarch") is None:
        return False
    return (
        subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False).returncode == 0
    )


class Standin:
    """A device whose kernels run on the CPU.

    ``late`` lets asynchronous copies arrive at the wait, not at once; ``texts`` replaces files of
    ``kernels/``, to plant a fault; ``capability`` is what the device claims to be, and
    ``multiprocessors`` how many it claims to have.
    """

    multiprocessors = 3

    def __init__(self, build=None, *, late=False, seed=0, capability=80, texts=None):
        self.build = build or os.environ.get("TCONV_STANDIN_BUILD", "plain")
        self.late = late or bool(os.environ.get("TCONV_STANDIN_LATE"))
        self.seed = seed
        self.capability = capability
        self.texts = texts or {}
        self.launched = []
        self.stream = 0

    def empty(self, shape, dtype):
        """Return an array on a heap block of exactly its size, filled with NaN."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        runtime = _runtime(self.build)
        address = runtime.standin_allocate(size)
        block = (ctypes.c_char * size).from_address(address)
        weakref.finalize(block, runtime.standin_free, address)
        array = np.frombuffer(block, np.uint8)
        array[...] = 0xFF
        return array.view(dtype).reshape(shape)

    def upload(self, array):
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def address(self, array):
        return array.ctypes.data

    def bytes_of(self, array):
        shape, strides = (*array.shape, array.dtype.itemsize), (*array.strides, 1)
        low, high = np.lib.array_utils.byte_bounds(array)
        memory = (ctypes.c_char * (high - low)).from_address(low)
        return np.ndarray(shape, np.uint8, memory, array.ctypes.data - low, strides)

    def placed(self, array, memory, offset):
        return np.ndarray(array.shape, array.dtype, memory, offset, array.strides)

    def tensor_maps(self, tensor_maps, address):
        """Return what ``hopper.h`` reads in place of the driver's 128 bytes each."""
        return np.array([_map(one, address + one.offset) for one in tensor_maps], MAP)

    def kernel(self, specialisation):
        entry, cluster = self._entry(specialisation)

        def launch_kernel(grid, block, args, *, shared_mem):
            self.launched.append(specialisation)
            self._launch(entry, grid[0], cluster, block[0], shared_mem, args)

        return launch_kernel

    def run(self, name, text, *args, blocks=1, threads=32, shared_bytes=0):
        """Launch a kernel that stands in ``text``; it may include the primitives."""
        _runtime(self.build)  # what the kernel calls
        path = self._compile([(name, flatten("text", {"text": text, **_twin()}))])
        entry = ctypes.CDLL(str(path)).entry_0
        self._launch(entry, blocks, _cluster(text), threads, shared_bytes, args)

    def _launch(self, entry, blocks, cluster, threads, shared_bytes, args):
        if shared_bytes > SHARED_BYTES:
            raise RuntimeError(f"no block has {shared_bytes} bytes of shared memory")
        holders = [_argument(a) for a in args]
        if sum(map(ctypes.sizeof, holders)) > PARAMETER_BYTES:
            raise RuntimeError(f"a kernel's parameters have at most {PARAMETER_BYTES} bytes")
        pointers = (ctypes.c_void_p * len(args))(*map(ctypes.addressof, holders))
        fault = _runtime(self.build).standin_launch(
            entry, blocks, cluster, threads, shared_bytes, pointers, self.seed, self.late
        )
        if fault is not None:
            raise RuntimeError(fault.decode())

    def prepare(self, specialisations):
        """Compile many specialisations at once, in few translation units."""
        _runtime(self.build)  # what the kernels call
        texts = {s: self._source(s) for s in sorted(set(specialisations), key=repr)}
        missing = [s for s in texts if (self.build, texts[s]) not in _entries]
        size = max(1, min(16, -(-len(missing) // 2)))
        bundles = [missing[i : i + size] for i in range(0, len(missing), size)]
        with ThreadPoolExecutor(2) as pool:
            units = [[(s.kernel, texts[s]) for s in bundle] for bundle in bundles]
            paths = pool.map(self._compile, units)
        for bundle, path in zip(bundles, paths, strict=True):
            library = ctypes.CDLL(str(path))
            if self.texts:
                path.unlink()  # nobody wants a mistake again
            for number, specialisation in enumerate(bundle):
                entry, text = getattr(library, f"entry_{number}"), texts[specialisation]
                _entries[self.build, text] = entry, _cluster(text)

    def verbs(self, kernel=None, tile=None):
        """Return a function like the public verbs, for any number of axes, with a kernel forced."""
        return forward_verbs(self, kernel, tile)

    def conv(self, kernel=None, tile=None):
        """Return a function like the public convolutions, with a kernel forced."""
        return gradient_verbs(self, kernel, tile)[0]

    def backward(self, kernel=None, tile=None):
        """Return a function like the public gradients; the kernel is that of weight and bias."""
        return gradient_verbs(self, kernel, tile)[1]

    def _compile(self, kernels):
        # A mistake is compiled for a few small cases.
        flags = [*BUILDS[self.build][0], *(["-O0"] if self.texts else [])]
        return _library_of(kernels, flags)

    def _source(self, specialisation):
        return source(specialisation, {**_twin(), **self.texts})

    def _entry(self, specialisation):
        key = self.build, self._source(specialisation)
        if key not in _entries:
            self.prepare([specialisation])
        return _entries[key]


class Recorder(Standin):
    """A device that only notes which specialisations are asked for; it needs no compiler."""

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def kernel(self, specialisation):
        self.launched.append(specialisation)
        return lambda *_, **__: None


def refuses(verb, *arrays, **call):
    """Tell whether a kernel that is asked for by name cannot compute this."""
    try:
        verb(*arrays, **call)
    except ValueError:
        return True
    return False


def forward_verbs(device, kernel, tile):
    """Return a function like the public verbs, for any number of axes."""

    def backend(x, weight, bias, geometry, *, activation, precision, out):
        return launch.transposed_conv(
            x, weight, bias, geometry,
            activation=activation, precision=precision, out=out,
            device=device, kernel=kernel, tile=tile,
        )  # fmt: skip

    functions = _api.verbs(lambda _: backend, __name__, "Computed on one device.")

    def verb(x, weight, bias=None, **call):
        return functions[weight.ndim - 3](x, weight, bias, **call)

    return verb


def gradient_verbs(device, kernel=None, tile=None):
    """Return functions like the public convolutions and gradients, for any number of axes.

    The kernel forced is that of the convolution, or of the gradients of weight and bias.
    """
    forced = {"device": device, "kernel": kernel, "tile": tile}

    def of_conv(y, weight, geometry, *, bias=None, out=None, **forced):
        return launch.conv(y, weight, geometry, bias=bias, out=out, **forced)

    chosen = partial(of_conv, device=device)
    of_parameters = partial(launch.parameter_gradients, **forced)
    backends = Gradients(partial(of_conv, **forced), None), Gradients(chosen, of_parameters)
    where = "Computed on one device."
    convs = _conv.conv_verbs(lambda _: backends[0], __name__, where)
    backwards = _backward.backward_verbs(lambda _: backends[1], __name__, where)

    def conv(x, weight, bias=None, **call):
        return convs[weight.ndim - 3](x, weight, bias, **call)

    def backward(grad_output, x, weight, **call):
        return backwards[weight.ndim - 3](grad_output, x, weight, **call)

    return conv, backward


_entries = {}

SHARED_BYTES = 227 << 10
"""What a block may have, on the GPUs that let it have most."""

PARAMETER_BYTES = 4096


def _twin():
    return {name: (HERE / name).read_text() for name in ("primitives.cuh", "hopper.cuh")}


def _cluster(text):
    """Return how many blocks of a kernel are a cluster: what its declaration says."""
    declared = re.search(r"__cluster_dims__\((\w+), 1, 1\)", text)
    if declared is None:
        return 1
    constant = re.search(rf"constexpr int {declared[1]} = (\d+);", text)
    return int(constant[1] if constant else declared[1])


MAP = np.dtype(
    [
        ("array", "u8"),
        ("size", "u8", 5),
        ("stride", "u8", 5),
        ("box", "u4", 5),
        ("rank", "u4"),
        ("rest", "V16"),
    ]
)
"""``Map`` of ``hopper.h``."""


def _map(tensor_map, address):
    """Return what stands in a map, if the driver would make it."""
    sizes, strides, box = tensor_map.sizes, tensor_map.strides, tensor_map.box
    rank = len(sizes)
    right = {
        "three to five axes": 3 <= rank <= 5 and len(box) == len(strides) + 1 == rank,
        "rows of 128 bytes": box[0] == 64,
        "boxes of 1 to 256": all(1 <= n <= 256 for n in box),
        "sizes of 1 to 2^32": all(1 <= n <= 2**32 for n in sizes),
        "strides below 2^40": all(0 < n < 2**40 for n in strides),
        "multiples of 16 bytes": not any(n % 16 for n in (address, *strides)),
    }
    for name, kept in right.items():
        if not kept:
            raise RuntimeError(f"{tensor_map}: a tensor map has {name}")
    missing = 5 - rank
    sizes, box = (tuple(s) + (1,) * missing for s in (sizes, box))
    return address, sizes, (0, *strides, *(0,) * missing), box, rank, b""


def _argument(value):
    """Return the memory that holds one kernel argument."""
    if isinstance(value, np.ndarray) and value.dtype.names is None:
        steps = [step for n, step in zip(value.shape, value.strides, strict=True) if n > 1]
        if value.size and any(n % value.itemsize for n in (value.ctypes.data, *steps)):
            raise RuntimeError("misaligned address")  # a GPU refuses these as well
        return ctypes.c_void_p(value.ctypes.data)
    holder = (ctypes.c_char * value.nbytes).from_buffer_copy(value.tobytes())
    return holder


@cache
def _runtime(build):
    flags = [*COMMON, "-O3", "-fno-trapping-math", "-fno-builtin", *BUILDS[build][1]]
    path = _build(flags, (HERE / "runtime.cpp").read_text())
    runtime = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    runtime.standin_launch.argtypes = [
        ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t,
        ctypes.c_void_p, ctypes.c_uint64, ctypes.c_bool,
    ]  # fmt: skip
    runtime.standin_launch.restype = ctypes.c_char_p
    runtime.standin_allocate.argtypes = [ctypes.c_size_t]
    runtime.standin_allocate.restype = ctypes.c_void_p
    runtime.standin_free.argtypes = [ctypes.c_void_p]
    return runtime


def _library_of(kernels, flags):
    """Compile kernels, each (name, source), into one library with an entry for each."""
    parts = ['#include "cuda.h"']
    for number, (name, text) in enumerate(kernels):
        # One name for each specialisation, since extern "C" names are the same in all namespaces.
        unique = f"{name}_{number}"
        parts.append(
            f"#define {name} {unique}\nnamespace specialisation_{number} {{\n{text}\n}}\n"
            f"#undef {name}\n"
            f'extern "C" void entry_{number}(void** arguments)\n'
            f"{{\n    call(specialisation_{number}::{unique}, arguments);\n}}\n"
        )
    return _build([*COMMON, *flags], "\n".join(parts))


def _build(flags, text):
    """Compile a library, unless one of the same text, flags and compiler is there already."""
    headers = [path.read_text() for path in sorted(HERE.glob("*.h"))]
    identity = [_version(), *flags, *headers, text]
    key = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]
    path = _folder() / f"{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unit, output = Path(folder, "unit.cpp"), Path(folder, "unit.so")
            unit.write_text(text)
            command = [compiler(), *flags, f"-I{HERE}", str(unit), "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
            output.replace(path)
    return path


@cache
def _version():
    command = [compiler(), "-v", *NATIVE, "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@cache
def _folder():
    path = _config.cache_folder() / "standin"
    path.mkdir(parents=True, exist_ok=True)
    return path


if sys.byteorder != "little":
    raise ImportError("the stand-in is written for little-endian machines")
