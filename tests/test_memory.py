"""Any memory layout is read, none is written but the output, and that one whole."""

import numpy as np
import pytest

import cases
import oracle

CASE = cases.Case(
    "", "", (2, 4, 5, 6), (4, 3, 3, 2), {"stride": (2, 3), "padding": 1, "groups": 2}
)  # fmt: skip


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def strided(array):
    """Return a copy that is every third element of a larger array along every axis."""
    memory = np.zeros([3 * n for n in array.shape], array.dtype)
    copy = memory[(slice(1, None, 3),) * array.ndim]
    copy[...] = array
    return copy


def reversed_memory(array):
    """Return a copy whose strides are all negative."""
    every = (slice(None, None, -1),) * array.ndim
    return array[every].copy()[every]


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def channels_last(array):
    """Return a view with the axes in their order and the second axis last in memory."""
    return np.moveaxis(np.moveaxis(array, 1, -1).copy(), -1, 1) if array.ndim > 1 else array


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "channels-last": channels_last,
    "strided": strided,
    "negative strides": reversed_memory,
    "read-only": read_only,
    "unaligned": unaligned,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "subclass": lambda a: a.view(np.memmap),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_inputs_may_lie_in_memory_in_any_way(conv, layout, dtype, rng):
    x, weight, bias = CASE.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    oracle.assert_exact(conv(layout(x), weight, bias, **CASE.call), answer, dtype)
    oracle.assert_exact(conv(x, layout(weight), bias, **CASE.call), answer, dtype)
    oracle.assert_exact(conv(x, weight, layout(bias), **CASE.call), answer, dtype)


@pytest.mark.parametrize("dtype", [d for d in cases.DTYPES if d.name != "bfloat16"], ids=str)
def test_inputs_and_out_may_have_foreign_byte_order_and_new_results_are_native(conv, dtype, rng):
    x, weight, bias = CASE.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    swapped = [array.astype(dtype.newbyteorder()) for array in (x, weight, bias)]
    oracle.assert_exact(conv(*swapped, **CASE.call), answer, dtype)
    out = np.zeros(answer.shape, dtype.newbyteorder())
    oracle.assert_exact(conv(x, weight, bias, out=out, **CASE.call), answer, out.dtype)


def test_inputs_may_be_broadcast(conv, rng):
    x = np.broadcast_to(np.float32(2), (2, 4, 5, 6))
    weight = np.broadcast_to(rng.integers(0, 9, (4, 3, 1, 1)).astype("f4"), (4, 3, 3, 2))
    bias = np.broadcast_to(np.float32(1), (6,))
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    oracle.assert_exact(conv(x, weight, bias, **CASE.call), answer, np.float32)


def test_x_and_weight_may_be_one_array(conv, rng):
    x = rng.integers(0, 9, (3, 3, 4, 4))
    np.testing.assert_array_equal(conv(x, x), oracle.transposed_conv(x, x))


@pytest.mark.parametrize("case", [c for c in cases.NAMED if len(c.x) == len(c.weight)], ids=str)
def test_channels_last_views_give_equal_results_in_the_same_memory_order(conv, case, rng):
    x, weight, bias = case.integers(np.dtype("f4"), rng)
    x = channels_last(x)
    y = conv(x, weight, bias, **case.call)
    oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), np.float32)
    first, last = x.flags.c_contiguous, np.moveaxis(x, 1, -1).flags.c_contiguous
    assert last
    assert np.moveaxis(y, 1, -1).flags.c_contiguous or (first and y.flags.c_contiguous)


def test_an_unbatched_channels_last_view_keeps_its_order_too(conv):
    x = np.ones((5, 6, 4)).transpose(2, 0, 1)
    y = conv(x, np.ones((4, 3, 2, 2)))
    assert y.transpose(1, 2, 0).flags.c_contiguous


def test_any_other_order_gives_a_contiguous_result(conv):
    x = np.asfortranarray(np.ones((2, 4, 5, 6)))
    assert conv(x, np.ones((4, 3, 2, 2))).flags.c_contiguous


@pytest.mark.parametrize("case", cases.NAMED, ids=str)
def test_out_is_written_whole_returned_and_nothing_around_it(conv, case, rng):
    """The output starts poisoned, every second element of a larger array along every axis."""
    for dtype in (np.dtype("f4"), np.dtype("f2"), np.dtype("i8")):
        x, weight, bias = case.integers(dtype, rng)
        poison = 77 if dtype.kind == "i" else np.nan
        memory = np.full([2 * n + 3 for n in case.out], poison, dtype)
        inside = tuple(slice(2, 2 * n + 2, 2) for n in case.out)
        out = memory[inside]
        assert conv(x, weight, bias, out=out, **case.call) is out
        oracle.assert_exact(out, oracle.transposed_conv(x, weight, bias, **case.call), dtype)
        memory[inside] = poison
        np.testing.assert_array_equal(memory, np.full_like(memory, poison))


@pytest.mark.parametrize("layout", ["Fortran", "channels-last", "negative strides", "unaligned"])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_out_may_lie_in_memory_in_any_way(conv, layout, dtype, rng):
    x, weight, bias = CASE.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    out = LAYOUTS[layout](np.full(answer.shape, 99).astype(dtype))
    assert conv(x, weight, bias, out=out, **CASE.call) is out
    oracle.assert_exact(out, answer, dtype)


def test_out_may_be_a_slice_of_a_concatenation_buffer(conv, rng):
    """The U-Net's: the upsampled channels beside the skip connection's."""
    x, weight = rng.integers(0, 9, (2, 4, 3, 3)), rng.integers(0, 9, (4, 2, 2, 2))
    buffer = np.full((2, 5, 6, 6), 7)
    conv(x, weight, stride=2, out=buffer[:, 3:])
    np.testing.assert_array_equal(buffer[:, :3], 7)
    np.testing.assert_array_equal(buffer[:, 3:], oracle.transposed_conv(x, weight, stride=2))


def test_out_may_interleave_with_an_input_without_sharing_an_element(conv, rng):
    x, weight = rng.integers(0, 9, (1, 2, 4)), rng.integers(0, 9, (2, 2, 3))
    buffer = np.zeros((1, 2, 2, 6), int)
    buffer[:, :, 0, :4] = x
    conv(buffer[:, :, 0, :4], weight, out=buffer[:, :, 1])
    np.testing.assert_array_equal(buffer[:, :, 1], oracle.transposed_conv(x, weight))
    np.testing.assert_array_equal(buffer[:, :, 0, :4], x)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_out_is_written_whole_without_a_bias_where_no_tap_reaches(conv, activation):
    out = np.full((1, 1, 7), np.nan)
    conv(np.ones((1, 1, 2)), np.ones((1, 1, 1)), stride=6, activation=activation, out=out)
    assert out.tolist() == [[[1, 0, 0, 0, 0, 0, 1]]]


def test_out_of_an_unbatched_call_is_unbatched(conv):
    out = np.zeros((3, 5))
    assert conv(np.ones((2, 4)), np.ones((2, 3, 2)), out=out) is out
    assert out[0].tolist() == [2, 4, 4, 4, 2]


@pytest.mark.parametrize("case", [*cases.NAMED, *cases.random_cases(60, seed=6)], ids=str)
def test_inputs_are_never_written_nor_their_surroundings(conv, case, rng):
    for dtype in (np.dtype("f4"), cases.FLOATS[1], np.dtype("i4")):
        arrays = [array for array in case.integers(dtype, rng) if array is not None]
        guarded = [guard(array) for array in arrays]
        before = [memory.copy() for memory, _ in guarded]
        conv(*(view for _, view in guarded), activation="relu", **case.call)
        for (memory, _), copy in zip(guarded, before, strict=True):
            np.testing.assert_array_equal(memory, copy)


def guard(array):
    """Return a larger block of bytes, and a copy of the array inside it."""
    memory = np.full(array.nbytes + 128, 0xA5, np.uint8)
    view = memory[64 : 64 + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return memory, view


@pytest.mark.parametrize("case", cases.NAMED, ids=str)
def test_what_lies_around_the_inputs_has_no_influence(conv, case, rng):
    """Surrounded by NaN, an input read beyond its ends would show."""
    x, weight, bias = case.integers(np.dtype("f8"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    x, weight = within_nan(x), within_nan(weight)
    bias = None if bias is None else within_nan(bias)
    oracle.assert_exact(conv(x, weight, bias, **case.call), answer, np.float64)


def within_nan(array):
    memory = np.full([n + 2 for n in array.shape], np.nan)
    copy = memory[(slice(1, -1),) * array.ndim]
    copy[...] = array
    return copy


def test_results_do_not_share_memory_with_inputs_or_each_other(conv):
    x, weight = np.ones((1, 1, 3)), np.ones((1, 1, 1))
    first, second = conv(x, weight), conv(x, weight)
    first[...] = 5
    assert x.tolist() == [[[1, 1, 1]]]
    assert second.tolist() == [[[1, 1, 1]]]
    assert first.flags.writeable
