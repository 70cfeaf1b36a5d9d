"""What a launch gives its kernels, seen on a device whose kernels do nothing."""

from dataclasses import replace

import numpy as np
import pytest

import cases
import tconv
from standin import Recorder
from tconv import _api
from tconv.gpu import launch
from tconv.gpu.families import FAMILIES, gather

CASE = cases.Case(
    "launch", "every number different",
    (2, 6, 5, 4), (6, 3, 3, 4), {"stride": (2, 3), "padding": (1, 2), "groups": 2}, (2, 6, 9, 9),
)  # fmt: skip


class Watch(Recorder):
    """A device that keeps what its kernels are given."""

    def __init__(self):
        super().__init__()
        self.given = []
        self.allocated = []

    def kernel(self, specialisation):
        super().kernel(specialisation)
        return lambda *args, **kwargs: self.given.append((specialisation, *args, kwargs))

    def empty(self, shape, dtype):
        self.allocated.append(shape)
        return np.empty(shape, dtype)


@pytest.fixture
def family(monkeypatch):
    """Let one family, made from gather's choice by a function, compute everything."""

    def install(change):
        def choose(call, *, asked, tile):
            return change(gather.choose(call, asked=asked, tile=tile))

        monkeypatch.setitem(FAMILIES, "gather", choose)
        launch._recalled.cache_clear()

    yield install
    launch._recalled.cache_clear()


def at(array, offset):
    """Return an equal array that begins so many bytes beyond a multiple of 64."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    begin = -memory.ctypes.data % 64 + offset
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def in_vectors(choice):
    names = ("X_VECTOR", "WEIGHT_VECTOR", "OUT_VECTOR")
    constants = choice.specialisation.constants + tuple((name, 4) for name in names)
    return replace(choice, specialisation=replace(choice.specialisation, constants=constants))


@pytest.mark.parametrize("offset", [4, 8, 12])
def test_arrays_that_a_kernel_moves_in_vectors_begin_where_it_can(family, offset, rng):
    family(in_vectors)
    device = Watch()
    x, weight, bias = (at(a, offset) for a in CASE.integers(np.dtype("f4"), rng))
    flipped, out = x[:, ::-1, :, ::-1], at(np.zeros(CASE.out, "f4"), offset)
    device.verbs("gather")(flipped, weight, bias, out=out, **CASE.call)
    ((_, _, _, args, _),) = device.given
    for array, original in zip(args, (flipped, weight, bias, out), strict=False):
        assert array.strides == original.strides
    for array in (args[0], args[1], args[3]):
        assert array.ctypes.data % 16 == 0
    for array, original in zip(args[:3], (flipped, weight, bias), strict=True):
        np.testing.assert_array_equal(array, original)


def test_arrays_that_begin_there_already_are_not_copied(family, rng):
    family(in_vectors)
    device = Watch()
    arrays = [at(a, 16) for a in CASE.integers(np.dtype("f4"), rng)]
    out = at(np.zeros(CASE.out, "f4"), 16)
    device.verbs("gather")(*arrays, out=out, **CASE.call)
    assert device.allocated == []
    for given, array in zip(device.given[0][3], (*arrays, out), strict=False):
        assert given is array


def test_an_address_never_changes_the_choice(rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    devices = [Watch() for _ in range(4)]
    for offset, device in enumerate(devices):
        device.verbs()(at(x, 4 * offset), at(weight, 12 - 4 * offset), bias, **CASE.call)
    assert len({d.given[0][0] for d in devices}) == 1


def test_two_passes_share_their_arguments_and_a_workspace(family, rng):
    def split(choice):
        second = replace(choice.specialisation, threads=64)
        return replace(choice, workspace_bytes=1000, second=(second, 7))

    family(split)
    device = Watch()
    device.verbs("gather")(*CASE.integers(np.dtype("f4"), rng), **CASE.call)
    (one, _, block, args, _), (two, grid, *_, again, _) = device.given
    assert (one.threads, two.threads) == (256, 64)
    assert (block, grid) == ((256,), (7,))
    assert args is again
    assert device.allocated == [CASE.out, (1000,)]
    assert args[4].nbytes == 1000


def test_a_second_pass_of_no_blocks_is_compiled_and_not_launched(family, rng):
    def split(choice):
        return replace(choice, splits=1, second=(replace(choice.specialisation, threads=64), 0))

    family(split)
    device = Watch()
    device.verbs("gather")(*CASE.integers(np.dtype("f4"), rng), **CASE.call)
    assert [s.threads for s in device.launched] == [256, 64]
    ((one, _, _, args, _),) = device.given
    assert one.threads == 256
    assert device.allocated == [CASE.out]
    assert args[4] == 0  # a pointer to no workspace
    assert args[6].tolist() == [(1, 2**31, 31)]


def test_without_a_second_pass_there_is_no_workspace(rng):
    device = Watch()
    device.verbs("gather")(*CASE.integers(np.dtype("f4"), rng), **CASE.call)
    ((_, _, _, args, _),) = device.given
    assert len(args) == 5
    assert device.allocated == [CASE.out]


def test_a_call_like_one_before_works_nothing_out_anew(monkeypatch, rng):
    device = Watch()
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    device.verbs()(x, weight, bias, **CASE.call)

    def anew(*_args, **_kwargs):
        raise AssertionError("worked out anew")

    for name in ("tconv.gpu.launch.select", "tconv.gpu.launch.params", "tconv._check._sizes_of"):
        monkeypatch.setattr(name, anew)
    device.verbs()(x + 1, weight + 1, bias, **CASE.call)
    assert device.given[0][0] is device.given[1][0]
    with pytest.raises(AssertionError, match="worked out anew"):
        device.verbs()(x[..., 1:], weight, bias, **CASE.call)


CHANGES = {
    "stride": lambda call: {**call, "stride": (2, 1)},
    "padding": lambda call: {**call, "padding": (1, 1)},
    "output_padding": lambda call: {**call, "output_padding": 1},
    "output_size": lambda call: {**call, "output_size": (10, 10)},
    "dilation": lambda call: {**call, "dilation": 2},
    "groups": lambda call: {**call, "groups": 1},
    "activation": lambda call: {**call, "activation": "relu"},
    "bias": lambda call: {**call, "bias": None},
    "dtype": lambda call: {name: getattr(a, "astype", lambda _, a=a: a)("f8")
                           for name, a in call.items()},
    "x": lambda call: {**call, "x": call["x"][..., 1:]},
    "x's memory": lambda call: {**call, "x": np.asfortranarray(call["x"])},
    "weight's memory": lambda call: {**call, "weight": np.asfortranarray(call["weight"])},
    "bias's memory": lambda call: {**call, "bias": np.repeat(call["bias"], 2)[::2]},
    "out's memory": lambda call: {**call, "out": np.empty(CASE.out[::-1], "f4").T},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_calls_that_differ_in_anything_are_told_apart(change, rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    call = {"x": x, "weight": weight, "bias": bias, **CASE.call}
    if "groups" in change(call) and change(call)["groups"] == 1:
        call["bias"] = None

    def seen(call):
        device = Watch()
        device.verbs("gemm")(**call)
        ((specialisation, grid, _, args, _),) = device.given
        return specialisation, grid, args[5].tobytes()

    first, second = seen(call), seen(change(call))
    assert first != second
    launch._recalled.cache_clear()
    _api._laid.cache_clear()
    assert seen(change(call)) == second


def test_devices_of_different_capability_are_told_apart(rng):
    old, new = Watch(), Watch()
    old.capability = 75
    for device in (old, new):
        device.verbs("gemm")(*CASE.integers(np.dtype("f4"), rng), **CASE.call)
    assert not old.given[0][0]["ASYNC"]
    assert new.given[0][0]["ASYNC"]


def test_true_is_no_stride_even_where_one_was_before(rng):
    x, weight, _ = CASE.integers(np.dtype("f4"), rng)
    tconv.transposed_conv2d(x, weight, stride=(1, 1))
    with pytest.raises(TypeError, match=r"^stride=True is a bool; it must be an int$"):
        tconv.transposed_conv2d(x, weight, stride=(True, 1))
    with pytest.raises(TypeError, match=r"^stride=1\.0 is of type float; it must be an int$"):
        tconv.transposed_conv2d(x, weight, stride=(1, 1.0))
