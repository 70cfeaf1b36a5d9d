"""What users call, on a GPU: CuPy's arrays and NumPy's, in every element type and as they may lie.

The kernels are tested elsewhere, one by one.  This is the way to them, through CuPy itself.
"""

import pickle

import numpy as np
import pytest

import cases
import oracle
import tconv
from tconv import gpu
from test_gradients import answers

pytestmark = pytest.mark.gpu

CASE = cases.Case(
    "upsampling", "wide enough for tensor cores",
    (2, 16, 5, 6), (16, 24, 4, 4), {"stride": 2, "padding": 1}, (2, 24, 10, 12),
)  # fmt: skip
DTYPES = pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


def last(array):
    """Return an equal array whose channels are nearest, in NumPy's or CuPy's memory."""
    return array.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)


@DTYPES
@pytest.mark.parametrize("order", [lambda array: array, last], ids=["channels first", "last"])
def test_cupy_arrays_are_computed_exactly_where_they_are(cupy, dtype, order, rng):
    x, weight, bias = CASE.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    there = order(cupy.asarray(x)), cupy.asarray(weight), cupy.asarray(bias)
    for verb in (tconv.transposed_conv2d, gpu.transposed_conv2d):
        y = verb(*there, **CASE.call)
        assert isinstance(y, cupy.ndarray)
        assert y.dtype == dtype
        assert y.strides[1] == (dtype.itemsize if order is last else 10 * 12 * dtype.itemsize)
        oracle.assert_exact(np.ascontiguousarray(y.get()), answer, dtype)
    out = cupy.empty(CASE.out, dtype)
    layer = tconv.TransposedConv2d(weight, bias, **CASE.call)
    assert pickle.loads(pickle.dumps(layer))(there[0], out=out) is out
    oracle.assert_exact(out.get(), answer, dtype)


@DTYPES
def test_gradients_of_cupy_arrays_are_exact(cupy, dtype, rng):
    x, weight, _ = CASE.integers(dtype, rng)
    y = rng.integers(-2, 3, CASE.out).astype(dtype)
    exact = answers(y, x, weight, **CASE.call)
    there = [cupy.asarray(array) for array in (y, x, weight)]
    for grad, answer in zip(
        tconv.transposed_conv2d_backward(*there, **CASE.call), exact, strict=True
    ):
        assert isinstance(grad, cupy.ndarray)
        oracle.assert_exact(grad.get(), answer, dtype)
    back = tconv.conv2d(there[0], there[2], **CASE.call)
    oracle.assert_exact(back.get(), exact[0], dtype)


@DTYPES
def test_numpy_arrays_go_to_the_gpu_and_come_back(dtype, rng):
    assert gpu.is_available(), gpu.why_not()
    x, weight, bias = CASE.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    for one in (x, last(x)):
        y = gpu.transposed_conv2d(one, weight, bias, **CASE.call)
        assert type(y) is np.ndarray
        oracle.assert_exact(y, answer, dtype)


def test_views_of_cupy_arrays_are_computed_wherever_they_begin(cupy, rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    around = cupy.zeros((2, 18, 7, 9), "f4")
    inside = around[:, 1:-1, 1:-1, 2:-1]
    inside[...] = cupy.asarray(x)
    backwards = cupy.asarray(x[:, :, ::-1].copy())[:, :, ::-1]
    memory = cupy.zeros(x.nbytes + 2, "u1")
    memory[2:] = cupy.asarray(np.frombuffer(x.tobytes(), "u1"))
    odd = cupy.ndarray(x.shape, x.dtype, memptr=memory.data + 2)
    out = cupy.full((2, 26, 10, 14), 99, "f4")[:, 1:-1, :, 1:-1]
    for one in (inside, backwards, odd):
        y = tconv.transposed_conv2d(one, cupy.asarray(weight), cupy.asarray(bias), **CASE.call)
        oracle.assert_exact(y.get(), answer, x.dtype)
        tconv.transposed_conv2d(one, cupy.asarray(weight), cupy.asarray(bias), out=out, **CASE.call)
        oracle.assert_exact(out.get(), answer, x.dtype)
    assert out.base[:, 0].get().min() == out.base[:, :, :, -1].get().max() == 99


def test_this_gpu_has_a_plan():
    plan = gpu.plan(CASE.x, CASE.weight, "float16", **CASE.call)
    assert "assumed" not in str(plan)
