"""The GPU that takes the stand-in's place with ``-m gpu``, on memory that pretends to be a GPU's.

No machine without a GPU runs those tests, so what they share is tried here.
"""

import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import cases
import oracle
import standin
from cuda_device import OWN_MEMORY, Cuda, leave_if_broken
from pretended import OnDevice
from standin import Standin
from test_gradients import answers, integers

CASE = next(case for case in cases.NAMED if str(case) == "k3 s2")


class Array(OnDevice):
    """An array at a pointer."""

    def __new__(cls, shape, dtype, *, memptr, strides):
        return np.ndarray.__new__(cls, shape, dtype, memptr.memory, memptr.offset, strides)


class Pointer(SimpleNamespace):
    def __add__(self, offset):
        return Pointer(memory=self.memory, offset=self.offset + offset)


class Bytes:
    """Memory, as CuPy's arrays of bytes are."""

    def __init__(self, memory):
        self.memory, self.data = memory, Pointer(memory=memory, offset=0)

    def __getitem__(self, some):
        return Bytes(self.memory[some])

    def set(self, there):
        self.memory[...] = there

    def get(self):
        return self.memory.copy()


class Pretended(Standin):
    def empty(self, shape, dtype):
        return super().empty(shape, dtype).view(Array)


class Broken(Exception):
    """What CuPy raises, every time after a kernel went wrong."""


def broken():
    raise Broken("an illegal memory access was encountered")


@pytest.fixture
def cuda(monkeypatch):
    standin.skip_without_compiler()
    cupy = ModuleType("cupy")
    cupy.ndarray = Array
    cupy.empty = lambda size, dtype: Bytes(np.empty(size, dtype))
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)
    cupy.allocators = []
    cupy.cuda = SimpleNamespace(
        Device=lambda: SimpleNamespace(synchronize=broken),
        runtime=SimpleNamespace(CUDARuntimeError=Broken),
        set_allocator=cupy.allocators.append,
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr("tconv.gpu.compile.device", lambda _: Pretended())
    return Cuda()


@pytest.mark.parametrize(("kernel", "precision"), [("gather", None), ("mma", "tf32")])
def test_verbs_take_numpy_arrays_of_any_strides_and_an_out(cuda, kernel, precision, rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    verb = cuda.verbs(kernel)
    for one in (x, np.flip(np.ascontiguousarray(np.flip(x)))):
        y = verb(one, weight, bias, precision=precision, **CASE.call)
        assert type(y) is np.ndarray
        oracle.assert_exact(y, answer, x.dtype)
    around = np.full((*answer.shape, 2), 99, "f4")
    verb(x, weight, bias, precision=precision, out=around[..., 0], **CASE.call)
    oracle.assert_exact(around[..., 0], answer, x.dtype)
    assert (around[..., 1] == 99).all()


def test_convolutions_and_gradients_take_numpy_arrays(cuda, rng):
    y, x, weight = integers(CASE, np.dtype("f4"), rng)
    exact = answers(y, x, weight, **CASE.call)
    for grad, answer in zip(cuda.backward()(y, x, weight, **CASE.call), exact, strict=True):
        assert type(grad) is np.ndarray
        oracle.assert_exact(grad, answer, x.dtype)
    out = np.empty_like(x)
    cuda.conv()(y, weight, out=out, **CASE.call)
    oracle.assert_exact(out, exact[0], x.dtype)


@pytest.mark.usefixtures("cuda")
def test_where_a_kernel_went_wrong_other_tests_run_in_another_process(monkeypatch):
    left = []
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    with pytest.raises(pytest.exit.Exception, match="any more: an illegal memory access"):
        leave_if_broken()
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    monkeypatch.setattr(os, "_exit", lambda status: left.append(status) or sys.exit())
    with pytest.raises(SystemExit):
        leave_if_broken()
    assert left == [1]
    works = SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(sys.modules["cupy"].cuda, "Device", lambda: works)
    leave_if_broken()


@pytest.mark.usefixtures("cuda")
def test_arrays_share_no_memory_of_a_pool_where_that_is_asked_for(monkeypatch):
    assert sys.modules["cupy"].allocators == []
    monkeypatch.setenv(OWN_MEMORY, "1")
    Cuda()
    assert sys.modules["cupy"].allocators == [None]
