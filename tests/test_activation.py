"""An activation is applied after the bias and adds no more than its own rounding."""

import math

import numpy as np
import pytest

import cases
import oracle

NAMES = ("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu")


def apply(conv, name, values, dtype="f8"):
    """Return the activation of some numbers, through a pointwise call."""
    values = np.array(values, dtype)
    return conv(values.reshape(1, 1, -1), np.ones((1, 1, 1), dtype), activation=name)[0, 0]


def test_relu_keeps_what_is_positive(conv):
    assert apply(conv, "relu", [-2, -0.0, 0, 3]).tolist() == [0, 0, 0, 3]


def test_leaky_relu_has_slope_one_hundredth(conv):
    np.testing.assert_allclose(apply(conv, "leaky_relu", [-2, 3]), [-0.02, 3], rtol=1e-15)


def test_sigmoid_tanh_gelu_and_silu_have_the_textbook_values(conv):
    e = math.e
    np.testing.assert_allclose(apply(conv, "sigmoid", [0, 1]), [0.5, e / (e + 1)], rtol=1e-15)
    np.testing.assert_allclose(apply(conv, "tanh", [0, 1]), [0, math.tanh(1)], rtol=1e-15)
    gelu = [0, (1 + math.erf(math.sqrt(0.5))) / 2, -2 * math.erfc(math.sqrt(2)) / 2]
    np.testing.assert_allclose(apply(conv, "gelu", [0, 1, -2]), gelu, rtol=1e-14)
    np.testing.assert_allclose(apply(conv, "silu", [0, 1]), [0, e / (e + 1)], rtol=1e-15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
def test_activations_lie_within_their_bound(conv, name, dtype, rng):
    for case in cases.random_cases(12, seed=3):
        x, weight, bias = case.reals(dtype, rng)
        y = conv(x, weight, bias, activation=name, **case.call)
        call = {"activation": name, **case.call}
        answer = oracle.transposed_conv(x, weight, bias, **call)
        oracle.assert_within(y, answer, oracle.bound(x, weight, bias, **call))


@pytest.mark.parametrize("dtype", cases.INTEGERS, ids=str)
def test_relu_is_for_integers_as_well(conv, dtype, rng):
    for case in cases.random_cases(12, seed=4):
        x, weight, bias = case.integers(dtype, rng)
        y = conv(x, weight, bias, activation="relu", **case.call)
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        oracle.assert_exact(y, np.maximum(answer, 0), dtype)


def test_outputs_that_only_the_bias_reaches_are_activated_too(conv):
    x, weight, bias = np.ones((1, 1, 2)), np.ones((1, 1, 1)), np.array([-3.0])
    assert conv(x, weight, bias, stride=3, activation="relu").tolist() == [[[0, 0, 0, 0]]]


def test_activation_none_is_no_activation(conv, rng):
    x, weight = rng.standard_normal((1, 2, 3)), rng.standard_normal((2, 2, 3))
    np.testing.assert_array_equal(conv(x, weight, activation=None), conv(x, weight))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
def test_nan_stays_nan_and_touches_nothing_else(conv, name, dtype):
    y = apply(conv, name, [np.nan, 1], dtype).astype(float)
    assert np.isnan(y).tolist() == [True, False]


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
@pytest.mark.parametrize(
    ("name", "at_minus_infinity", "at_infinity"),
    [("relu", 0, np.inf), ("leaky_relu", -np.inf, np.inf), ("sigmoid", 0, 1), ("tanh", -1, 1)],
)
def test_infinity_has_the_value_of_the_limit(conv, name, dtype, at_minus_infinity, at_infinity):
    y = apply(conv, name, [-np.inf, np.inf], dtype)
    assert y.astype(float).tolist() == [at_minus_infinity, at_infinity]


@pytest.mark.parametrize("name", NAMES)
def test_large_numbers_neither_overflow_nor_warn(conv, name):
    y = apply(conv, name, [-1000, -90, 90, 1000], "f4")
    assert np.isfinite(y).all()
