"""conv1d, conv2d and conv3d: the adjoint, with the arguments of a convolution."""

import numpy as np
import pytest

import cases
import oracle
import tconv
from conftest import Verbs
from test_gradients import LARGE
from test_memory import LAYOUTS

SWEEP = [*cases.NAMED, *cases.random_cases(300, seed=72)]


class Conv:
    """The public convolutions of one module, chosen by the number of axes of the weight."""

    def __init__(self, module):
        self.module = module

    def __call__(self, x, weight, bias=None, **kwargs):
        return getattr(self.module, f"conv{weight.ndim - 2}d")(x, weight, bias, **kwargs)


@pytest.fixture(params=[tconv, tconv.reference], ids=["cpu", "reference"])
def adjoint(request):
    return Conv(request.param)


def arguments(case):
    """Return the arguments of the convolution that is the case's adjoint."""
    ndim = len(case.weight) - 2
    in_size, kernel_size = case.x[-ndim:], case.weight[2:]
    spelling = {name: value for name, value in case.call.items() if name != "groups"}
    stride, dilation, begin, size = oracle.window(in_size, kernel_size, **spelling)
    full = oracle.full_sizes(in_size, kernel_size, stride, dilation)
    # What output_padding adds lies beyond the last tap, where no padding reaches.
    ends = [f - b - n for f, b, n in zip(full, begin, size, strict=True)]
    return {
        "stride": stride,
        "dilation": dilation,
        "padding": tuple(zip(begin, ends, strict=True)),
        "groups": case.call.get("groups", 1),
    }


@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_with_the_same_window_it_is_the_adjoint_exactly(adjoint, case, rng):
    dtype = np.dtype("f8")
    x, weight, _ = case.integers(dtype, rng)
    y = oracle.transposed_conv(x, weight, **case.call)
    other = rng.integers(-8, 9, y.shape).astype(dtype)
    back = adjoint(other, weight, **arguments(case))
    assert back.shape == x.shape
    assert (y * other).sum() == (x * back).sum()
    batched = other if other.ndim == weight.ndim else other[None]
    answer = oracle.adjoint(batched, weight, x.shape[-weight.ndim + 2 :], **case.call)
    oracle.assert_exact(back, answer.reshape(x.shape), dtype)


PLAIN = [
    {},
    {"stride": 2},
    {"stride": 3, "padding": 1},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"padding": ((1, 0), (-1, 2)), "stride": 2},
    {"dilation": 2, "stride": 3, "padding": 3},
]


def correlate(x, weight, *, stride=1, padding=0, dilation=1):
    """Return one channel's sums, output by output, as a textbook writes them."""
    (sh, sw), (dh, dw) = oracle.per_axis(stride, 2), oracle.per_axis(dilation, 2)
    pads = [oracle.per_axis(p, 2) for p in oracle.per_axis(padding, 2)]
    x = np.pad(x, [(max(b, 0), max(e, 0)) for b, e in pads])
    (top, bottom), (left, right) = [(max(-b, 0), max(-e, 0)) for b, e in pads]
    x = x[top : x.shape[0] - bottom, left : x.shape[1] - right]
    kh, kw = weight.shape
    rows = (len(x) - dh * (kh - 1) - 1) // sh + 1
    columns = (x.shape[1] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((rows, columns), x.dtype)
    for i, j in np.ndindex(rows, columns):
        for k, m in np.ndindex(kh, kw):
            y[i, j] += x[i * sh + k * dh, j * sw + m * dw] * weight[k, m]
    return y


@pytest.mark.parametrize("call", PLAIN, ids=str)
def test_it_is_the_textbooks_convolution_with_a_stride(adjoint, call, rng):
    x, weight = rng.integers(-9, 10, (11, 12)), rng.integers(-9, 10, (3, 2))
    y = adjoint(x[None, None], weight[None, None], **call)
    np.testing.assert_array_equal(y[0, 0], correlate(x, weight, **call))


def test_channels_are_summed_within_their_group(adjoint, rng):
    x, weight = rng.integers(-9, 10, (2, 6, 7, 8)), rng.integers(-9, 10, (4, 3, 2, 3))
    y = adjoint(x, weight, groups=2)
    for n, m in np.ndindex(2, 4):
        first = 3 * (m // 2)
        parts = [correlate(x[n, first + c], weight[m, c]) for c in range(3)]
        np.testing.assert_array_equal(y[n, m], sum(parts))


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_bias_is_added_and_half_types_are_rounded_once(adjoint, dtype, rng):
    x = rng.integers(-8, 9, (2, 3, 9)).astype(dtype)
    weight = rng.integers(-8, 9, (4, 3, 3)).astype(dtype)
    bias = (rng.integers(-8, 9, 4) / 16 if dtype.kind in "fV" else rng.integers(-8, 9, 4)).astype(
        dtype
    )
    answer = oracle.adjoint(x, weight, (4,), stride=2) + oracle.wide(bias)[:, None]
    oracle.assert_exact(adjoint(x, weight, bias, stride=2), answer, dtype)


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_it_is_exact_with_a_bias_across_all_blocks(case, rng):
    x, weight, _ = (np.sign(a) for a in case.integers(np.dtype("f4"), rng))
    shape = oracle.transposed_conv(x[:1], weight, **case.call).shape
    other = rng.integers(-1, 2, shape).astype("f4")
    bias = rng.integers(-8, 9, case.x[1]).astype("f4")
    answer = oracle.adjoint(other, weight, case.x[2:], **case.call)
    answer += bias.reshape(-1, *[1] * (weight.ndim - 2))
    back = Conv(tconv)(other, weight, bias, **arguments(case))
    oracle.assert_exact(back, answer, np.dtype("f4"))


@pytest.mark.parametrize("name", ["same", "same_upper", "same_lower"])
@pytest.mark.parametrize("size", [7, 8, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_gives_a_size_of_ceil_size_by_stride(adjoint, name, size, stride):
    """As TensorFlow: the odd zero is at the end, or at the beginning for same_lower."""
    x, weight = np.arange(1, size + 1).reshape(1, 1, -1), np.array([[[1, 10, 100, 1000]]])
    y = adjoint(x, weight, stride=stride, padding=name)
    out = -(-size // stride)
    total = max(0, (out - 1) * stride + 4 - size)
    pads = (
        (total - total // 2, total // 2)
        if name == "same_lower"
        else (total // 2, total - total // 2)
    )
    assert y.shape == (1, 1, out)
    np.testing.assert_array_equal(y, adjoint(x, weight, stride=stride, padding=(pads,)))


@pytest.mark.parametrize("padding", ["same", "same_upper", "same_lower", "valid"])
@pytest.mark.parametrize(
    ("stride", "dilation", "taps"), [(2, 1, 5), (3, 2, 4), (5, 1, 2), (1, 3, 3)]
)
def test_padding_by_name_is_the_adjoint_of_padding_by_name(
    adjoint, padding, stride, dilation, taps, rng
):
    call = {"stride": stride, "dilation": dilation, "padding": padding}
    x, weight = rng.integers(-9, 10, (1, 2, 6)), rng.integers(-9, 10, (2, 3, taps))
    y = Verbs(adjoint.module)(x, weight, **call)
    other = rng.integers(-9, 10, y.shape)
    assert (y * other).sum() == (x * adjoint(other, weight, **call)).sum()


def test_output_size_leaves_out_the_rows_of_a_large_output_padding(adjoint, rng):
    """With stride <= output_padding < dilation no convolution without it has that adjoint."""
    x, weight = rng.integers(-9, 10, (1, 2, 5)), rng.integers(-9, 10, (2, 3, 3))
    call = {"stride": 2, "dilation": 5}
    y = Verbs(adjoint.module)(x, weight, output_padding=4, **call)
    other = rng.integers(-9, 10, y.shape)
    assert adjoint(other, weight, **call).shape == (1, 2, 7)
    back = adjoint(other, weight, output_size=5, **call)
    assert back.shape == x.shape
    assert (y * other).sum() == (x * back).sum()


@pytest.mark.parametrize("wanted", [5, 6, 7, (5,)])
def test_output_size_takes_the_first_outputs(adjoint, wanted, rng):
    x, weight = rng.integers(-9, 10, (1, 2, 23)), rng.integers(-9, 10, (2, 2, 3))
    call = {"stride": 2, "dilation": 5}
    y = adjoint(x, weight, output_size=wanted, **call)
    count = wanted if isinstance(wanted, int) else wanted[0]
    np.testing.assert_array_equal(y, adjoint(x, weight, **call)[..., :count])


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "read-only"])
def test_out_may_lie_in_memory_in_any_way(adjoint, layout, rng):
    x, weight = rng.integers(-9, 10, (2, 4, 7, 9)), rng.integers(-9, 10, (6, 2, 3, 2))
    answer = adjoint(x, weight, stride=(1, 2), groups=2)
    out = LAYOUTS[layout](np.full(answer.shape, 99))
    assert adjoint(x, weight, stride=(1, 2), groups=2, out=out) is out
    np.testing.assert_array_equal(out, answer)


def test_out_of_an_unbatched_call_is_unbatched(adjoint):
    out = np.zeros((3, 4))
    assert adjoint(np.ones((2, 5)), np.ones((3, 2, 2)), out=out) is out
    assert (out == 4).all()


@pytest.mark.parametrize(
    ("x", "weight", "shape"),
    [
        ((0, 2, 5), (3, 2, 2), (0, 3, 4)),
        ((2, 0, 5), (3, 0, 2), (2, 3, 4)),
        ((2, 2, 5), (0, 2, 2), (2, 0, 4)),
    ],
)
def test_empty_batches_and_channels_work(adjoint, x, weight, shape):
    bias = np.full(weight[0], 7.0)
    y = adjoint(np.ones(x), np.ones(weight), bias)
    assert y.shape == shape
    assert (y == 7).all()


X, WEIGHT = np.zeros((2, 4, 5, 6), "f4"), np.zeros((6, 4, 3, 3), "f4")


@pytest.mark.parametrize(
    ("message", "x", "weight", "call"),
    [
        ("x has 2 axes but needs 4, (N, C, H, W), or 3, (C, H, W)", X[0, 0], WEIGHT, {}),
        ("weight has 3 axes but needs 4, (M, C // groups, H, W)", X, WEIGHT[0], {}),
        ("weight has 4 input channels (axis 1) for each of groups=1 but x has 3 (axis 1)",
         X[:, :3], WEIGHT, {}),
        ("weight has 4 input channels (axis 1) for each of groups=1 but x has 3 (axis 0)",
         X[0, :3], WEIGHT, {}),
        ("weight has 4 input channels (axis 1) for each of groups=2 but x has 4 (axis 1)",
         X, WEIGHT, {"groups": 2}),
        ("weight has 6 output channels (axis 0), which groups=4 does not divide",
         X, WEIGHT[:, :1], {"groups": 4}),
        ("bias has shape (4,) but must be (6,): weight has 6 output channels (axis 0)",
         X, WEIGHT, {"bias": np.zeros(4, "f4")}),
        ("x has length 5 along spatial axis 0 and 0 of padding, "
         "together less than the 9 that the kernel covers", X, WEIGHT, {"dilation": (4, 1)}),
        ("x has length 6 along spatial axis 1 and -4 of padding, "
         "together less than the 3 that the kernel covers",
         X, WEIGHT, {"padding": ((0, 0), (-2, -2))}),
        ("output_size=4 must be from 3 to 3 (spatial axis 0)", X, WEIGHT, {"output_size": 4}),
        ("output_size=1 must be from 2 to 2 (spatial axis 1)",
         X, WEIGHT, {"stride": 2, "output_size": (2, 1)}),
        ("output_size=0 must be at least 1", X, WEIGHT, {"output_size": 0}),
        ("padding='same' fixes the output size; leave out output_size",
         X, WEIGHT, {"padding": "same", "output_size": 3}),
        ("padding='full' is not one of valid, same, same_upper, same_lower",
         X, WEIGHT, {"padding": "full"}),
        ("stride=0 must be at least 1", X, WEIGHT, {"stride": 0}),
        ("out has shape (2, 6, 3, 3) but the result has (2, 6, 3, 4)",
         X, WEIGHT, {"out": np.zeros((2, 6, 3, 3), "f4")}),
    ],
)  # fmt: skip
def test_the_message_says_what_is_wrong(message, x, weight, call):
    for conv2d in (tconv.conv2d, tconv.reference.conv2d):
        with pytest.raises(ValueError) as raised:  # noqa: PT011  (the whole message is compared)
            conv2d(x, weight, **call)
        assert str(raised.value) == message


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_gpu_module_computes_numpy_arrays_too(ndim):
    x, weight = np.ones((1, 1, *[4] * ndim)), np.ones((1, 1, *[2] * ndim))
    y = getattr(tconv.gpu, f"conv{ndim}d")(x, weight)
    np.testing.assert_array_equal(y, np.full((1, 1, *[3] * ndim), 2.0**ndim))
    grads = getattr(tconv.gpu, f"transposed_conv{ndim}d_backward")(x, y, weight)
    assert [grad.shape for grad in grads] == [y.shape, weight.shape, (1,)]
    assert grads[2] == 4**ndim
