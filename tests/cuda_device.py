"""A real GPU in the place of the stand-in: the same verbs on NumPy arrays, computed by CUDA."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest

from standin import forward_verbs, gradient_verbs

ALIGNED = 256
OWN_MEMORY = "TCONV_OWN_MEMORY"
"""If set, no array lies in a pool's memory: compute-sanitizer then knows where each one ends."""


def leave_if_broken():
    """End this process if a kernel has gone wrong: nothing runs on its GPU any more.

    That test has failed by itself, and none of the tests that are left shall fail because of it.
    """
    import cupy

    try:
        cupy.cuda.Device().synchronize()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "PYTEST_XDIST_WORKER" in os.environ:
            os._exit(1)  # xdist lets another worker go on
        pytest.exit(f"nothing runs on the GPU in this process any more: {error}", returncode=1)


class Cuda:
    """CUDA's device 0; every array lies there as it lies in NumPy's memory."""

    def __init__(self):
        import cupy

        from tconv.gpu import compile

        if OWN_MEMORY in os.environ:
            cupy.cuda.set_allocator(None)
        cupy.get_default_memory_pool().free_all_blocks()  # a test leaves up to 4 GiB behind
        self.device = compile.device(0)

    def verbs(self, kernel=None, tile=None):
        """Return a function like the public verbs, for any number of axes, with a kernel forced."""
        return on_numpy(forward_verbs(self.device, kernel, tile))

    def conv(self, kernel=None, tile=None):
        """Return a function like the public convolutions, with a kernel forced."""
        return on_numpy(gradient_verbs(self.device, kernel, tile)[0])

    def backward(self, kernel=None, tile=None):
        """Return a function like the public gradients; the kernel is that of weight and bias."""
        _, backward = gradient_verbs(self.device, kernel, tile)

        def verb(*arrays, **call):
            grads = backward(*(there(a)[0] for a in arrays), **call)
            return tuple(None if grad is None else back(grad) for grad in grads)

        return verb


def on_numpy(verb):
    """Return a function that takes NumPy arrays to the GPU and brings back what a verb computes."""

    def function(x, weight, bias=None, *, out=None, **call):
        arrays = [None if a is None else there(a)[0] for a in (x, weight, bias)]
        if out is None:
            return back(verb(*arrays, **call))
        out_there, memory = there(out)
        verb(*arrays, out=out_there, **call)
        block(out)[...] = memory.get()
        return out

    return function


def there(array):
    """Return a copy on the GPU with the same strides and alignment, and the memory it lies in."""
    import cupy

    low, _ = np.lib.array_utils.byte_bounds(array)
    bytes_here = block(array)
    begin = low % ALIGNED
    memory = cupy.empty(begin + bytes_here.size, np.uint8)[begin:]
    memory.set(bytes_here)
    first = memory.data + (array.ctypes.data - low)
    return cupy.ndarray(array.shape, array.dtype, memptr=first, strides=array.strides), memory


def back(array):
    """Return a NumPy array with the same order of axes in memory."""
    order = np.argsort([-abs(s) for s in array.strides], kind="stable")
    return array.transpose(*map(int, order)).get().transpose(np.argsort(order))


def block(array):
    """Return the bytes between an array's first and last, holes and all."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return np.frombuffer((ctypes.c_char * (high - low)).from_address(low), np.uint8)
