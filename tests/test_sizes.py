"""Every spelling of padding, output_padding and output_size gives the window it stands for."""

import numpy as np
import pytest

import oracle

X = np.array([[[1, 10, 100]]])
WEIGHT = np.array([[[1, 2, 3]]])
BIAS = np.array([5])


def row(conv, **call):
    return conv(X, WEIGHT, BIAS, **call)[0, 0].tolist()


def test_padding_crops_both_ends(conv):
    assert row(conv, stride=2) == [6, 7, 18, 25, 135, 205, 305]
    assert row(conv, stride=2, padding=1) == [7, 18, 25, 135, 205]
    assert row(conv, stride=2, padding=3) == [25]


def test_a_pair_crops_each_end_by_its_own_number(conv):
    assert row(conv, stride=2, padding=((1, 3),)) == [7, 18, 25]
    assert row(conv, stride=2, padding=((0, 6),)) == [6]
    assert row(conv, stride=2, padding=((6, 0),)) == [305]


def test_a_negative_pair_extends_with_the_bias_alone(conv):
    assert row(conv, stride=2, padding=((-2, 5),)) == [5, 5, 6, 7]
    assert row(conv, stride=2, padding=((5, -2),)) == [205, 305, 5, 5]


def test_a_window_beside_the_full_result_holds_the_bias_alone(conv):
    assert row(conv, stride=2, padding=((-9, 8),)) == [5] * 8
    assert row(conv, stride=2, padding=((7, -3),)) == [5] * 3


def test_output_padding_adds_outputs_at_the_end(conv):
    assert row(conv, stride=2, output_padding=1) == [6, 7, 18, 25, 135, 205, 305, 5]


def test_output_padding_uncovers_what_padding_cropped(conv):
    assert row(conv, stride=2, padding=1, output_padding=1) == [7, 18, 25, 135, 205, 305]


def test_output_padding_may_reach_dilation_where_that_is_more_than_stride(conv):
    assert row(conv, dilation=3, output_padding=2)[-3:] == [305, 5, 5]


@pytest.mark.parametrize("size", [7, 8])
def test_output_size_chooses_among_the_sizes_that_a_stride_allows(conv, size):
    assert row(conv, stride=2, output_size=size) == [6, 7, 18, 25, 135, 205, 305, 5][:size]


def test_output_size_is_an_int_or_one_per_axis_and_never_has_batch_or_channels(conv):
    x, weight = np.ones((2, 1, 3, 3)), np.ones((1, 4, 3, 3))
    assert conv(x, weight, stride=2, output_size=8).shape == (2, 4, 8, 8)
    assert conv(x, weight, stride=2, output_size=(7, 8)).shape == (2, 4, 7, 8)
    assert conv(x[0], weight, stride=2, output_size=[8, 7]).shape == (4, 8, 7)


def test_same_crops_the_odd_element_from_the_end_and_same_lower_from_the_beginning(conv):
    assert row(conv, stride=2, padding="same") == [6, 7, 18, 25, 135, 205]
    assert row(conv, stride=2, padding="same_upper") == [6, 7, 18, 25, 135, 205]
    assert row(conv, stride=2, padding="same_lower") == [7, 18, 25, 135, 205, 305]
    for name in ("same", "same_upper", "same_lower"):
        assert row(conv, padding=name) == [17, 128, 235]


@pytest.mark.parametrize("name", ["same", "same_upper", "same_lower"])
def test_same_appends_at_the_end_where_the_kernel_is_shorter_than_the_stride(conv, name):
    assert row(conv, stride=4, padding=name) == [6, 7, 8, 5, 15, 25, 35, 5, 105, 205, 305, 5]


def test_valid_is_the_full_result_and_at_least_whole_strides(conv):
    assert row(conv, stride=2, padding="valid") == row(conv, stride=2)
    assert row(conv, stride=4, padding="valid") == [*row(conv, stride=4), 5]


def test_a_spelling_by_name_equals_its_pairs(conv, rng):
    x, weight = rng.integers(0, 9, (1, 2, 4, 5)), rng.integers(0, 9, (2, 2, 4, 3))
    by_name = conv(x, weight, stride=(2, 1), padding="same")
    np.testing.assert_array_equal(by_name, conv(x, weight, stride=(2, 1), padding=((1, 1), (1, 1))))
    by_name = conv(x, weight, stride=(3, 2), padding="same_lower")
    np.testing.assert_array_equal(by_name, conv(x, weight, stride=(3, 2), padding=((1, 0), (1, 0))))


@pytest.mark.parametrize("pads", [((1, 2), (0, 3)), [[1, 2], [0, 3]], np.array([[1, 2], [0, 3]])])
def test_pairs_may_be_any_sequences_or_an_array(conv, rng, pads):
    x, weight = rng.integers(0, 9, (1, 2, 4, 5)), rng.integers(0, 9, (2, 2, 4, 3))
    answer = oracle.transposed_conv(x, weight, padding=((1, 2), (0, 3)))
    np.testing.assert_array_equal(conv(x, weight, padding=pads), answer)


def test_two_numbers_for_two_axes_are_one_per_axis_not_a_pair(conv):
    x, weight = np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))
    assert conv(x, weight, padding=(0, 2)).shape == (1, 1, 5, 1)


def test_huge_numbers_cost_nothing_where_they_do_not_enlarge_the_output(conv):
    one = np.ones((1, 1, 1), int)
    assert conv(one, one, stride=2**40, dilation=2**40).tolist() == [[[1]]]
