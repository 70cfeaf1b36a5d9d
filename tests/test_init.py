"""Weights to begin with, and the map of how often each output is covered."""

import numpy as np
import pytest

import tconv
from tconv import checkerboard, init


@pytest.fixture(params=[(4,), (6, 4), (4, 2, 6)], ids=lambda kernel: f"{len(kernel)}d")
def kernel_size(request):
    return request.param


def verb(ndim):
    return getattr(tconv, f"transposed_conv{ndim}d")


def test_icnr_starts_as_nearest_neighbour_of_a_smaller_convolution(kernel_size, rng):
    """Every tap is repeated stride times; without overlap the whole layer only repeats."""
    ndim = len(kernel_size)
    weight = init.icnr((4, 3, *kernel_size), 2, rng, groups=2, dtype=np.float64)
    small = weight[:, :, *[slice(None, None, 2)] * ndim]
    x = rng.standard_normal((2, 4, *[5] * ndim))
    y = verb(ndim)(x, weight, stride=2, groups=2)
    before = verb(ndim)(x, small, groups=2)
    for axis in range(2, 2 + ndim):
        before = before.repeat(2, axis)
    np.testing.assert_allclose(y, before, rtol=1e-12, atol=1e-12)


def test_icnr_keeps_the_variance_of_its_input(rng):
    """Each output sums 32 channels and 2 x 2 taps."""
    weight = init.icnr((64, 50, 6, 6), 3, rng, groups=2)
    small = weight[:, :, ::3, ::3]
    assert weight.shape == (64, 50, 6, 6)
    assert weight.dtype == np.float32
    assert abs(small.mean()) < 5 * small.std() / small.size**0.5
    np.testing.assert_allclose(small.std(), (32 * 2 * 2) ** -0.5, rtol=0.05)


def test_icnr_draws_from_the_generator_that_it_is_given():
    shape = (3, 2, 4, 4)
    one, same, other = (init.icnr(shape, 2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert init.icnr((0, 2, 4), 2, np.random.default_rng(0)).shape == (0, 2, 4)


@pytest.mark.parametrize("stride", [2, 3, 4, 8])
def test_bilinear_interpolates_a_line_exactly(stride):
    """A straight line stays straight, and lies between the inputs where it should."""
    size = 2 * stride if stride % 2 == 0 else 2 * stride - 1
    weight = init.bilinear(1, size, dtype=np.float64)
    x = np.arange(10.0).reshape(1, 1, -1)
    y = tconv.transposed_conv1d(x, weight, stride=stride, padding=(size - stride) // 2)[0, 0]
    assert y.shape == (10 * stride,)
    outputs = (np.arange(10 * stride) + 0.5) / stride - 0.5
    inside = slice(stride, -stride)
    np.testing.assert_allclose(y[inside], outputs[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [2, 3, 4, 5])
def test_bilinear_leads_from_the_first_input_to_the_last(stride):
    weight = init.bilinear(1, 2 * stride - 1, dtype=np.float64)
    x = np.arange(10.0).reshape(1, 1, -1)
    y = tconv.transposed_conv1d(x, weight, stride=stride, padding=stride - 1)[0, 0]
    np.testing.assert_allclose(y, np.linspace(0, 9, 9 * stride + 1), rtol=0, atol=1e-12)


def test_bilinear_is_the_product_of_its_axes():
    weight = init.bilinear(1, (4, 3, 2))
    lines = [init.bilinear(1, size)[0, 0] for size in (4, 3, 2)]
    np.testing.assert_array_equal(weight[0, 0], np.einsum("i,j,k->ijk", *lines))
    np.testing.assert_array_equal(lines[0], [0.25, 0.75, 0.75, 0.25])
    np.testing.assert_array_equal(lines[1], [0.5, 1, 0.5])


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_bilinear_takes_every_channel_to_itself(groups, rng):
    weight = init.bilinear(6, (4, 4), groups=groups)
    assert weight.shape == (6, 6 // groups, 4, 4)
    x = rng.integers(-8, 9, (1, 6, 5, 5)).astype("f4")
    y = tconv.transposed_conv2d(x, weight, stride=2, padding=1, groups=groups)
    alone = init.bilinear(1, (4, 4))
    for c in range(6):
        one = tconv.transposed_conv2d(x[:, c : c + 1], alone, stride=2, padding=1)
        np.testing.assert_array_equal(y[:, c : c + 1], one)


CALLS = [
    {},
    {"stride": 2},
    {"stride": 3, "padding": 1, "output_padding": 2},
    {"stride": 2, "dilation": 3, "padding": ((2, -3),)},
    {"stride": 2, "padding": "same"},
]


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize("taps", [1, 3, 4])
def test_the_checkerboard_is_what_ones_paint(call, taps):
    call = {"stride": 1, **call}
    y = tconv.transposed_conv1d(np.ones((1, 1, 7), int), np.ones((1, 1, taps), int), **call)
    board = checkerboard(taps, in_size=7, **call)
    np.testing.assert_array_equal(board, y[0, 0])
    assert board.dtype == np.int64


def test_the_checkerboard_has_any_number_of_axes():
    call = {"stride": (2, 1, 3), "padding": (1, 0, 2), "dilation": (1, 2, 1)}
    x, weight = np.ones((1, 1, 3, 4, 5), int), np.ones((1, 1, 3, 2, 4), int)
    board = checkerboard((3, 2, 4), in_size=(3, 4, 5), **call)
    np.testing.assert_array_equal(board, tconv.transposed_conv3d(x, weight, **call)[0, 0])
    assert checkerboard((2,) * 5, 1, in_size=3).shape == (4,) * 5
    assert checkerboard((2,) * 5, 1, in_size=3).max() == 2**5


def test_the_inside_is_even_if_the_stride_divides_the_kernel_and_uneven_if_not():
    assert set(checkerboard((4, 6), 2)[4:-4, 6:-6].flat) == {6}
    assert set(checkerboard((3, 5), 2)[4:-4, 6:-6].flat) == {2, 3, 4, 6}


FLOATING = "float16, bfloat16, float32, float64, complex64, complex128"


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "weight_shape has length 3 along axis 2, which stride=2 does not divide",
         lambda: init.icnr((4, 2, 3, 4), 2, np.random.default_rng(0))),
        (ValueError, "weight_shape=(4, 2) has 2 axes but needs 3 to 5, "
                     "(C, M // groups, *kernel_size)",
         lambda: init.icnr((4, 2), 2, np.random.default_rng(0))),
        (ValueError, "weight_shape=(4, 2, 2, 2, 2, 2) has 6 axes but needs 3 to 5, "
                     "(C, M // groups, *kernel_size)",
         lambda: init.icnr((4, 2, 2, 2, 2, 2), 2, np.random.default_rng(0))),
        (ValueError, "weight_shape has length 0 along axis 2; it must be at least 1",
         lambda: init.icnr((2, 3, 0, 4), 2, np.random.default_rng(0))),
        (TypeError, "weight_shape=4 is of type int; it must be a sequence of ints",
         lambda: init.icnr(4, 2, np.random.default_rng(0))),
        (ValueError, "stride has 1 value but needs 2, one per spatial axis",
         lambda: init.icnr((4, 2, 4, 4), (2,), np.random.default_rng(0))),
        (TypeError, "rng must be a numpy.random.Generator, not int",
         lambda: init.icnr((4, 2, 4), 2, 0)),
        (TypeError, f"dtype=<class 'int'> is not one of {FLOATING}",
         lambda: init.icnr((4, 2, 4), 2, np.random.default_rng(0), dtype=int)),
        (TypeError, f"dtype=<class 'int'> is not one of {FLOATING}",
         lambda: init.bilinear(1, 4, dtype=int)),
        (TypeError, f"dtype=None is not one of {FLOATING}",
         lambda: init.bilinear(1, 4, dtype=None)),
        (ValueError, "kernel_size=() has 0 axes but needs at least 1",
         lambda: init.bilinear(1, ())),
        (ValueError, "weight_shape has 4 channels (axis 0), which groups=3 does not divide",
         lambda: init.icnr((4, 2, 4), 2, np.random.default_rng(0), groups=3)),
        (ValueError, "weight_shape=-1 must be at least 0",
         lambda: init.icnr((4, -1, 4), 2, np.random.default_rng(0))),
        (TypeError, "weight_shape=2.5 is of type float; it must be an int",
         lambda: init.icnr((4, 2.5, 4), 2, np.random.default_rng(0))),
        (ValueError, "channels=4 is a number that groups=3 does not divide",
         lambda: init.bilinear(4, 4, groups=3)),
        (ValueError, "kernel_size=0 must be at least 1", lambda: init.bilinear(4, (3, 0))),
        (TypeError, "kernel_size='4' is of type str; it must be an int",
         lambda: init.bilinear(4, "4")),
        (ValueError, "in_size=0 must be at least 1", lambda: checkerboard(3, 2, in_size=0)),
        (ValueError, "kernel_size=() has 0 axes but needs at least 1", lambda: checkerboard((), 1)),
        (ValueError, "stride has 2 values but needs 1, one per spatial axis",
         lambda: checkerboard(3, [2, 2])),
        (ValueError, "stride=0 must be at least 1", lambda: checkerboard(3, 0)),
        (ValueError, "output_padding=2 must be less than stride=2 or dilation=1 (spatial axis 0)",
         lambda: checkerboard(3, 2, output_padding=2)),
    ],
)  # fmt: skip
def test_the_message_says_what_is_wrong(error, message, call):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message
