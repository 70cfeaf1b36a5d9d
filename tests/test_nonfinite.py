"""NaN and infinity reach the outputs that they take part in, and no others, on the CPU path."""

import numpy as np
import pytest

import cases
import oracle

GEOMETRIES = [case for case in cases.random_cases(240, seed=5) if 0 not in case.x]


def reached(x_marks, weight_marks, case):
    """Return which outputs a marked input, or a marked weight, takes part in."""
    ones = np.ones(case.x), np.ones(case.weight)
    by_x = oracle.transposed_conv(x_marks.astype(float), ones[1], **case.call)
    by_weight = oracle.transposed_conv(ones[0], weight_marks.astype(float), **case.call)
    return (by_x > 0) | (by_weight > 0)


def marks(shape, rng):
    """Return one marked place of an array, at random."""
    array = np.zeros(shape, bool)
    array.flat[rng.integers(array.size)] = True
    return array


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
@pytest.mark.parametrize("intruder", [np.nan, np.inf, -np.inf])
def test_only_the_outputs_that_they_take_part_in(cpu, case, intruder, rng):
    for where in ("x", "weight", "both"):
        for dtype in (np.dtype("f4"), cases.FLOATS[1]):
            x, weight = np.ones(case.x, dtype), np.ones(case.weight, dtype)
            x_marks, weight_marks = marks(case.x, rng), marks(case.weight, rng)
            x_marks &= where != "weight"
            weight_marks &= where != "x"
            x[x_marks], weight[weight_marks] = intruder, intruder
            y = cpu(x, weight, **case.call).astype(float)
            expected = oracle.transposed_conv(x, weight, **case.call)
            np.testing.assert_array_equal(~np.isfinite(y), reached(x_marks, weight_marks, case))
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("case", cases.LARGE, ids=str)
def test_in_large_geometries_too_whatever_their_blocks(cpu, case, rng):
    x, weight = np.ones(case.x, "f4"), np.ones(case.weight, "f4")
    x_marks, weight_marks = marks(case.x, rng), marks(case.weight, rng)
    x[x_marks], weight[weight_marks] = np.inf, np.nan
    y = cpu(x, weight, **case.call)
    np.testing.assert_array_equal(~np.isfinite(y), reached(x_marks, weight_marks, case))


def test_infinity_times_zero_is_nan_where_they_meet_and_only_there(cpu):
    x, weight = np.array([[[0.0, 1, 2]]]), np.array([[[np.inf, 1]]])
    y = cpu(x, weight, stride=3)[0, 0]
    np.testing.assert_array_equal(y, [np.nan, 0, 0, np.inf, 1, 0, np.inf, 2])


def test_opposite_infinities_give_nan_where_they_meet(cpu):
    x, weight = np.array([[[np.inf, -np.inf]]]), np.array([[[1.0, 1]]])
    np.testing.assert_array_equal(cpu(x, weight)[0, 0], [np.inf, np.nan, -np.inf])


@pytest.mark.parametrize("dtype", [np.dtype("c8"), np.dtype("c16")], ids=str)
def test_complex_nan_stays_in_the_outputs_it_takes_part_in(cpu, dtype):
    x = np.array([[[complex(np.nan, 0), 1, 1]]], dtype)
    y = cpu(x, np.ones((1, 1, 2), dtype), stride=2)
    assert np.isnan(y)[0, 0].tolist() == [True, True, False, False, False, False]


def test_a_nan_of_one_item_group_or_channel_stays_there(cpu):
    x, weight = np.ones((2, 4, 3)), np.ones((4, 2, 2))
    x[0, 0] = np.nan
    y = cpu(x, weight, groups=2)
    assert np.isnan(y).all(axis=2).tolist() == [[True, True, False, False], [False] * 4]
    weight[3, 1] = np.nan
    y = cpu(np.ones((2, 4, 3)), weight, groups=2)
    assert np.isnan(y).any(axis=2).tolist() == [[False, False, False, True]] * 2


def test_a_bias_that_is_not_finite_reaches_its_channel_only(conv):
    y = conv(np.ones((1, 1, 2)), np.ones((1, 3, 2)), np.array([0, np.nan, np.inf]))
    assert np.isfinite(y).all(axis=2).tolist() == [[True, False, False]]


def test_inputs_that_padding_crops_reach_nothing(cpu):
    x = np.array([[[np.nan, 1, 2, np.inf]]])
    assert cpu(x, np.ones((1, 1, 1)), padding=1).tolist() == [[[1, 2]]]
