"""Calls on arrays of a pretended device: computed there, on its stream, in their memory order."""

from contextlib import nullcontext

import numpy as np
import pytest

import oracle
import tconv
import test_gradients
from pretended import made_current, on_device
from tconv import gpu
from tconv._geometry import Geometry
from tconv.gpu import exchange


@pytest.mark.parametrize("precision", [None, "ieee", "tf32", "tf32x3"])
def test_arrays_on_a_device_are_computed_with_that_device_current(with_gpu, precision, rng):
    arrays = [rng.integers(-8, 9, s).astype("f4") for s in ((2, 4, 5), (4, 3, 4), (3,))]
    x, weight, bias = map(on_device, arrays)
    g = Geometry(2, 1, 4, 3, (5,), (4,), (2,), (1,), (1,), (10,))
    y = gpu.transposed_conv(x, weight, bias, g, activation="relu", precision=precision)
    answer = oracle.transposed_conv(*arrays, stride=2, padding=1, activation="relu")
    oracle.assert_exact(np.asarray(y), answer, np.float32)
    assert list(with_gpu) == [3]
    assert made_current() == []


@pytest.mark.usefixtures("with_gpu")
def test_out_may_lie_between_the_elements_of_x_on_a_device_but_not_share_any():
    buffer = on_device(np.ones((2, 8, 3, 3), "f4"))
    weight = on_device(np.full((4, 4, 1, 1), 2, "f4"))
    y = tconv.transposed_conv2d(buffer[:, :4], weight, out=buffer[:, 4:])
    assert (np.asarray(y) == 8).all()
    assert (np.asarray(buffer[:, :4]) == 1).all()
    nothing = on_device(np.ones((0, 4, 3, 3), "f4"))
    assert tconv.transposed_conv2d(nothing, weight, out=nothing) is nothing
    with pytest.raises(ValueError, match=r"^out shares memory with x; it must have memory of"):
        tconv.transposed_conv2d(buffer[:, :4], weight, out=buffer[:, 3:7])


@pytest.mark.usefixtures("with_gpu")
def test_numpy_arrays_go_to_the_gpu_and_come_back_in_their_memory_order(rng):
    x = np.ascontiguousarray(rng.integers(-8, 9, (2, 5, 6, 4)).astype("f4")).transpose(0, 3, 1, 2)
    weight = rng.integers(-8, 9, (4, 3, 2, 2)).astype("f4")
    answer = oracle.transposed_conv(x, weight, stride=2)
    for swapped in (x, x.astype(">f4")):
        y = gpu.transposed_conv2d(swapped, weight, stride=2)
        assert type(y) is np.ndarray
        np.testing.assert_array_equal(y, answer)
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    out = np.empty((2, 3, 10, 24), "f4")[..., ::2]
    assert gpu.transposed_conv2d(x, weight, stride=2, out=out) is out
    np.testing.assert_array_equal(out, answer)


@pytest.mark.parametrize("verbs", [gpu, tconv])
@pytest.mark.parametrize("dtype", [np.dtype("f4"), np.dtype("c8")], ids=str)
def test_gradients_of_arrays_on_a_device_are_computed_with_that_device_current(
    with_gpu, verbs, dtype, rng
):
    shapes = (2, 3, 10), (2, 4, 5), (4, 3, 4)
    y, x, weight = (test_gradients.whole(shape, dtype, rng) for shape in shapes)
    call = {"stride": 2, "padding": 1}
    exact = test_gradients.answers(y, x, weight, **call)
    grads = verbs.transposed_conv1d_backward(*map(on_device, (y, x, weight)), **call)
    for grad, answer in zip(grads, exact, strict=True):
        oracle.assert_exact(np.asarray(grad), answer, dtype)
    back = verbs.conv1d(on_device(y), on_device(weight.conj()), **call)
    oracle.assert_exact(np.asarray(back), exact[0], dtype)
    assert list(with_gpu) == [3]
    assert made_current() == []


def test_gradients_of_numpy_arrays_go_to_the_gpu_and_come_back(with_gpu, rng):
    x = np.ascontiguousarray(rng.integers(-8, 9, (2, 5, 6, 4)).astype("f4")).transpose(0, 3, 1, 2)
    weight = rng.integers(-8, 9, (4, 3, 2, 2)).astype("f4")
    y = rng.integers(-8, 9, (2, 12, 10, 3)).astype("f4").transpose(0, 3, 2, 1)
    exact = test_gradients.answers(y, x, weight, stride=2)
    for given in ((y, x, weight), [a.astype(">f4") for a in (y, x, weight)]):
        grads = gpu.transposed_conv2d_backward(*given, stride=2)
        for grad, answer in zip(grads, exact, strict=True):
            assert type(grad) is np.ndarray
            oracle.assert_exact(grad, answer, np.float32)
    bias, out = np.arange(4, dtype="f4"), np.empty((2, 4, 5, 12), "f4")[..., ::2]
    assert gpu.conv2d(y, weight, bias, stride=2, out=out) is out
    oracle.assert_exact(out, exact[0] + bias[:, None, None], np.float32)
    last = np.ascontiguousarray(np.moveaxis(y, 1, -1))
    back = gpu.conv2d(np.moveaxis(last, -1, 1), weight, stride=2)
    assert np.moveaxis(back, 1, -1).flags.c_contiguous
    assert with_gpu


@pytest.mark.nvrtc
@pytest.mark.parametrize("stream", [0, 4096])
def test_cupy_computes_on_the_stream_of_another_library(stream, monkeypatch):
    cupy = pytest.importorskip("cupy")
    current = []
    monkeypatch.setattr(gpu, "why_not", lambda: None)
    monkeypatch.setattr(cupy.cuda, "Device", lambda number: nullcontext(current.append(number)))
    monkeypatch.setattr(cupy.cuda.Stream, "__enter__", lambda entered: current.append(entered.ptr))
    monkeypatch.setattr(cupy.cuda.Stream, "__exit__", lambda *_: None)
    with exchange.current(3, stream):
        assert current == [3, stream]
