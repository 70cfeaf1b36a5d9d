"""The forward verbs compute the definition, whatever the geometry, the dtype and the backend."""

import ml_dtypes
import numpy as np
import pytest

import cases
import oracle

RANDOM = cases.random_cases(1200)


def test_the_digits_of_the_inputs_show_where_they_went(conv):
    x, weight = np.array([[[1, 10, 100]]]), np.array([[[1, 2, 3]]])
    assert conv(x, weight, stride=3).tolist() == [[[1, 2, 3, 10, 20, 30, 100, 200, 300]]]
    assert conv(x, weight, stride=2).tolist() == [[[1, 2, 13, 20, 130, 200, 300]]]
    assert conv(x, weight).tolist() == [[[1, 12, 123, 230, 300]]]
    assert conv(x, weight, dilation=2).tolist() == [[[1, 10, 102, 20, 203, 30, 300]]]


def test_one_input_becomes_the_kernel_unflipped_and_its_axes_in_order(conv):
    weight = np.arange(1, 25).reshape(1, 1, 2, 3, 4)
    assert conv(np.ones((1, 1, 1, 1, 1), int), weight).tolist() == weight.tolist()


def test_two_channels_are_summed_and_each_output_channel_has_its_own_kernel(conv):
    x = np.array([[[1, 10], [100, 1000]]])
    weight = np.array([[[1, 0], [0, 1]], [[2, 0], [0, 3]]])
    assert conv(x, weight).tolist() == [[[201, 2010, 0], [0, 301, 3010]]]


def test_groups_keep_channels_apart_and_order_outputs_by_group(conv):
    x = np.array([[[1], [10], [100], [1000]]])
    weight = np.array([[[1], [2]], [[3], [4]], [[5], [6]], [[7], [8]]])
    assert conv(x, weight, groups=2).tolist() == [[[31], [42], [7500], [8600]]]


def test_bias_is_added_once_to_every_output_of_its_channel(conv):
    x, weight = np.array([[[1, 2]]]), np.array([[[1], [10]]])
    y = conv(x, weight, np.array([100, 200]), stride=3)
    assert y.tolist() == [[[101, 100, 100, 102], [210, 200, 200, 220]]]


def test_complex_numbers_are_not_conjugated(conv):
    x, weight = np.array([[[1j, 2]]]), np.array([[[3, 1j]]])
    assert conv(x, weight).tolist() == [[[3j, 6 - 1, 2j]]]


@pytest.mark.parametrize("case", cases.NAMED, ids=str)
def test_named_cases_have_the_shape_and_the_exact_values_in_every_dtype(conv, case, rng):
    for dtype in cases.DTYPES:
        x, weight, bias = case.integers(dtype, rng)
        y = conv(x, weight, bias, **case.call)
        assert y.shape == case.out
        oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), dtype)


@pytest.mark.parametrize("case", cases.LARGE, ids=str)
def test_large_geometries_are_exact_on_integers_whatever_their_blocks(cpu, case):
    answers = {}
    for dtype in map(np.dtype, ("f4", "f2", "i8", "c16")):
        x, weight, bias = case.integers(dtype, np.random.default_rng(8))
        key = "complex" if dtype.kind == "c" else "real"
        if key not in answers:
            answers[key] = oracle.transposed_conv(x, weight, bias, **case.call)
        y = cpu(x, weight, bias, **case.call)
        assert y.shape == case.out
        oracle.assert_exact(y, answers[key], dtype)


@pytest.mark.parametrize("case", RANDOM, ids=str)
def test_random_geometries_are_exact_on_integers_in_every_dtype(cpu, case):
    answers = {}
    for dtype in cases.DTYPES:
        x, weight, bias = case.integers(dtype, np.random.default_rng(7))
        # All real dtypes hold the same numbers, and so do both complex ones.
        key = "complex" if dtype.kind == "c" else "real"
        if key not in answers:
            answers[key] = oracle.transposed_conv(x, weight, bias, **case.call)
        oracle.assert_exact(cpu(x, weight, bias, **case.call), answers[key], dtype)


@pytest.mark.parametrize("case", RANDOM, ids=str)
def test_reference_and_cpu_agree_element_for_element_on_integers(cpu, case, rng):
    import tconv.reference

    dtype = cases.DTYPES[RANDOM.index(case) // 3 % len(cases.DTYPES)]
    x, weight, bias = case.integers(dtype, rng)
    verb = getattr(tconv.reference, f"transposed_conv{weight.ndim - 2}d")
    ours, textbook = cpu(x, weight, bias, **case.call), verb(x, weight, bias, **case.call)
    assert ours.dtype == textbook.dtype
    np.testing.assert_array_equal(oracle.comparable(ours), oracle.comparable(textbook))


REAL = (*cases.FLOATS, *cases.COMPLEX)


@pytest.mark.parametrize("case", cases.random_cases(150, seed=1), ids=str)
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_reals_lie_within_the_rounding_bound(conv, case, dtype, rng):
    x, weight, bias = case.reals(dtype, rng)
    y = conv(x, weight, bias, **case.call)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    oracle.assert_within(y, answer, oracle.bound(x, weight, bias, **case.call))


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_long_sums_lie_within_the_rounding_bound(conv, dtype, rng):
    case = cases.Case("", "", (1, 200, 3, 3), (200, 2, 4, 4), {"stride": 2, "padding": 1})
    x, weight, bias = case.reals(dtype, rng)
    y = conv(x, weight, bias, **case.call)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    oracle.assert_within(y, answer, oracle.bound(x, weight, bias, **case.call))


@pytest.mark.parametrize("dtype", cases.FLOATS[:2], ids=str)
def test_half_types_are_summed_in_float32_and_rounded_once(conv, dtype):
    # 1 + 300 tiny terms: summed in a half type, each would be lost.
    tiny = np.float64(ml_dtypes.finfo(dtype).eps) / 4
    x = np.full((1, 301, 1), tiny).astype(dtype)
    x[0, 0, 0] = 1
    y = conv(x, np.ones((301, 1, 1), dtype))
    assert y.item() == np.float64(1 + 300 * tiny).astype(dtype)


@pytest.mark.parametrize("dtype", cases.INTEGERS, ids=str)
def test_integers_wrap_around(conv, dtype, rng):
    limits = np.iinfo(dtype)
    x = rng.integers(limits.min, limits.max, (2, 3, 4, 4), dtype, endpoint=True)
    weight = rng.integers(limits.min, limits.max, (3, 2, 3, 3), dtype, endpoint=True)
    bias = np.array([limits.max, limits.min], dtype)
    answer = oracle.transposed_conv(x, weight, bias, stride=2)
    oracle.assert_exact(conv(x, weight, bias, stride=2), answer, dtype)


@pytest.mark.parametrize("dtype", cases.FLOATS[:3], ids=str)
def test_results_beyond_the_range_are_infinite_and_raise_no_warning(conv, dtype):
    largest = ml_dtypes.finfo(dtype).max
    x = np.full((1, 2, 1), largest, dtype)
    assert np.isposinf(conv(x, np.full((2, 1, 1), 2, dtype)).astype(float)).all()


BATCHED = [case for case in cases.NAMED if len(case.x) == len(case.weight) and case.x[0] > 0]


@pytest.mark.parametrize("case", BATCHED, ids=str)
def test_unbatched_input_gives_the_item_of_a_batch_of_one(conv, case, rng):
    x, weight, bias = case.integers(np.dtype("f4"), rng)
    batched = conv(x[:1], weight, bias, **case.call)
    np.testing.assert_array_equal(conv(x[0], weight, bias, **case.call), batched[0])


def test_default_arguments_are_stride_1_no_padding_no_dilation_one_group(conv, rng):
    x, weight = rng.integers(0, 9, (1, 2, 3, 3)), rng.integers(0, 9, (2, 2, 2, 2))
    spelled = conv(x, weight, stride=1, padding=0, output_padding=0, dilation=1, groups=1)
    np.testing.assert_array_equal(conv(x, weight), spelled)


@pytest.mark.parametrize("precision", [None, "ieee", "tf32", "tf32x3"])
def test_precision_has_no_effect_on_the_cpu(conv, rng, precision):
    x, weight = rng.random((1, 9, 5), np.float32), rng.random((9, 4, 3), np.float32)
    np.testing.assert_array_equal(conv(x, weight, precision=precision), conv(x, weight))


@pytest.mark.parametrize("number", [2, np.int64(2), np.uint8(2), np.array(2)], ids=repr)
def test_numbers_may_be_anything_that_is_an_integer(conv, number):
    x, weight = np.array([[[1, 10, 100]]]), np.array([[[1, 2, 3]]])
    assert conv(x, weight, stride=number).tolist() == [[[1, 2, 13, 20, 130, 200, 300]]]


@pytest.mark.parametrize("numbers", [(2, 3), [2, 3], np.array([2, 3])], ids=repr)
def test_one_number_per_axis_may_be_any_sequence_or_array(conv, numbers, rng):
    x, weight = rng.integers(0, 9, (1, 2, 3, 3)), rng.integers(0, 9, (2, 2, 2, 2))
    answer = oracle.transposed_conv(x, weight, stride=(2, 3))
    np.testing.assert_array_equal(conv(x, weight, stride=numbers), answer)
