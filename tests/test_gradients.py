"""The gradients are adjoints of the forward call: exactly on integers, within a bound on reals."""

import tracemalloc
from importlib import import_module
from itertools import product
from math import prod

import ml_dtypes
import numpy as np
import pytest

import cases
import oracle
import tconv
from conftest import Verbs
from test_memory import LAYOUTS

SWEEP = [*cases.NAMED, *cases.random_cases(450, seed=70)]
SMALL = [*cases.NAMED, *cases.random_cases(60, seed=71)]
EXACT = [np.dtype(name) for name in ("f4", "f8", "c8", "c16", "i4", "i8")]


class Backward:
    """The public gradients of one module, chosen by the number of axes of the weight."""

    def __init__(self, module):
        self.module = module

    def __call__(self, grad_output, x, weight, **kwargs):
        verb = getattr(self.module, f"transposed_conv{weight.ndim - 2}d_backward")
        return verb(grad_output, x, weight, **kwargs)


CPU, REFERENCE = Backward(tconv), Backward(tconv.reference)
SWEEP_OF_BOTH = [
    pytest.param(backward, case, id=f"{name}-{case}")
    for name, backward, sweep in (("cpu", CPU, SWEEP), ("reference", REFERENCE, SMALL))
    for case in sweep
]


@pytest.fixture(params=[CPU, REFERENCE], ids=["cpu", "reference"])
def backward(request):
    return request.param


@pytest.fixture
def cpu_backward():
    return CPU


@pytest.fixture(params=["whole", "in crumbs"])
def sizes(request, monkeypatch):
    """Blocks as large as ever, or of a few elements each."""
    if request.param == "in crumbs":
        few = {"NBYTES": 128, "LEAST_POSITIONS": 3, "MOST_POSITIONS": 4, "LEAST_CHANNELS": 1}
        for name in ("adjoint", "weight_gradient"):
            module = import_module(f"tconv._cpu.{name}")
            for constant, value in few.items():
                monkeypatch.setattr(module, constant, value)
            monkeypatch.setattr(module, "_split", module._split.__wrapped__)


def integers(case, dtype, rng):
    """Return a gradient of the output, x and weight, of small whole numbers."""
    x, weight, _ = case.integers(dtype, rng)
    y = oracle.transposed_conv(x, weight, **case.call)
    return whole(y.shape, dtype, rng), x, weight


def whole(shape, dtype, rng):
    values = rng.integers(-8, 9, shape)
    return (values + 1j * rng.integers(-8, 9, shape) if dtype.kind == "c" else values).astype(dtype)


def answers(grad_output, x, weight, **call):
    """Return the exact gradients, conjugated, in the shapes of x, weight and bias."""
    if x.ndim < weight.ndim:
        grad_x, *others = answers(grad_output[None], x[None], weight, **call)
        return grad_x[0], *others
    y, x, weight = map(oracle.wide, (grad_output, x, weight))
    grad_x = oracle.adjoint(y, weight.conj(), x.shape[2:], **call)
    sums = y.sum(axis=(0, *range(2, y.ndim)))
    return grad_x, weight_gradient(x.conj(), y, weight.shape, **call), sums


def weight_gradient(x, y, shape, *, groups=1, **spelling):
    """Return, tap by tap, the sum of x[i] * y[i * stride + k * dilation - begin]."""
    in_size, kernel_size = x.shape[2:], shape[2:]
    stride, dilation, begin, _ = oracle.window(in_size, kernel_size, **spelling)
    full_size = oracle.full_sizes(in_size, kernel_size, stride, dilation)
    full = oracle.cut(y, [-b for b in begin], full_size)
    full = full.reshape(len(y), groups, shape[1], *full_size)
    x = x.reshape(len(x), groups, shape[0] // groups, prod(in_size))
    result = np.zeros((groups, shape[0] // groups, *shape[1:]), x.dtype)
    for tap in product(*map(range, kernel_size)):
        met = full[:, :, :, *map(oracle.landing, tap, in_size, stride, dilation)]
        met = met.reshape(*met.shape[:3], x.shape[-1])
        result[:, :, :, *tap] = np.einsum("ngci,ngmi->gcm", x, met)
    return result.reshape(shape)


def bounds(grad_output, x, weight, **call):
    """Return how far gradients in the arrays' dtype may lie from the exact ones."""
    arrays, dtype = (grad_output, x, weight), x.dtype
    exact = answers(*arrays, **call)
    sizes = answers(*(abs(oracle.wide(a)) for a in arrays), **call)
    terms = answers(*(np.ones(a.shape) for a in arrays), **call)
    u = oracle.UNIT[dtype.name] + 2.0**-53
    relative, absolute = oracle.STORED[dtype.name]
    for answer, size, count in zip(exact, sizes, terms, strict=True):
        error = (np.maximum(count, 1) * (2 if dtype.kind == "c" else 1) + 2) * u * size
        yield error + relative * (abs(answer) + error) + absolute


@pytest.mark.parametrize(("backward", "case"), SWEEP_OF_BOTH)
def test_gradients_of_integers_are_exact(backward, case, rng):
    for dtype in EXACT if case in SMALL else EXACT[:1]:
        arrays = integers(case, dtype, rng)
        grads = backward(*arrays, **case.call)
        for grad, answer in zip(grads, answers(*arrays, **case.call), strict=True):
            oracle.assert_exact(grad, answer, dtype)


@pytest.mark.parametrize(("backward", "case"), SWEEP_OF_BOTH)
def test_the_three_inner_products_are_equal(backward, case, rng):
    """<T(x, w), y> == <x, grad_x> == <w, grad_weight>, without any tolerance and any oracle."""
    conv = Verbs(backward.module)
    for dtype in (np.dtype("f8"), np.dtype("c16")):
        y, x, weight = integers(case, dtype, rng)
        grad_x, grad_weight, grad_bias = backward(y, x, weight, **case.call)
        product = np.vdot(conv(x, weight, **case.call), y)
        assert np.vdot(x, grad_x) == product
        assert np.vdot(weight, grad_weight) == product
        bias = whole(grad_bias.shape, dtype, rng)
        on_zeros = conv(np.zeros_like(x), weight, bias, **case.call)
        assert np.vdot(on_zeros, y) == np.vdot(bias, grad_bias)


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("dtype", cases.FLOATS[:2], ids=str)
def test_half_types_are_summed_in_float32_and_rounded_once(backward, case, dtype, rng):
    arrays = integers(case, dtype, rng)
    grads = backward(*arrays, **case.call)
    for grad, answer in zip(grads, answers(*arrays, **case.call), strict=True):
        oracle.assert_exact(grad, answer, dtype)


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.COMPLEX], ids=str)
@pytest.mark.parametrize("case", SMALL[::3], ids=str)
def test_gradients_of_reals_lie_within_their_bound(backward, case, dtype, rng):
    x, weight, _ = case.reals(dtype, rng)
    y = oracle.transposed_conv(x, weight, **case.call)
    y = rng.standard_normal(y.shape).astype(dtype)
    exact = answers(y, x, weight, **case.call)
    grads = backward(y, x, weight, **case.call)
    for triple in zip(grads, exact, bounds(y, x, weight, **case.call), strict=True):
        oracle.assert_within(*triple)


@pytest.mark.parametrize("shape", [(2, 2, 700, 300), (300, 2, 40, 30), (1, 2, 1, 400_000)])
def test_errors_of_long_sums_do_not_grow_with_their_length(cpu_backward, shape):
    """Added one after another in float32, this many equal numbers would be off by percents."""
    x, weight = np.full(shape, 0.1, np.float32), np.ones((2, 2, 1, 1), np.float32)
    grad_output = np.full(shape, 0.7, np.float32)
    _, grad_weight, grad_bias = cpu_backward(grad_output, x, weight)
    count = x.size // 2
    longest = 2048 + 64  # one block of positions, and the blocks
    for grad, term in ((grad_weight, float(x[0, 0, 0, 0]) * float(grad_output[0, 0, 0, 0])),
                       (grad_bias, float(grad_output[0, 0, 0, 0]))):  # fmt: skip
        np.testing.assert_allclose(grad, count * term, rtol=longest * 2.0**-24, atol=0)
        np.testing.assert_allclose(grad, count * term, rtol=2e-5, atol=0)


@pytest.mark.parametrize("mask", list(product([False, True], repeat=3)), ids=str)
def test_a_gradient_that_is_not_wanted_is_none(backward, mask, rng):
    case = cases.NAMED[4]
    arrays = integers(case, np.dtype("f8"), rng)
    everything = backward(*arrays, **case.call)
    for wanted, grad, answer in zip(
        mask, backward(*arrays, output_mask=mask, **case.call), everything, strict=True
    ):
        if wanted:
            np.testing.assert_array_equal(grad, answer)
        else:
            assert grad is None


@pytest.mark.parametrize("mask", [[True, False, True], np.array([1, 0, 1], bool)], ids=repr)
def test_the_mask_may_be_any_sequence_of_bools(backward, mask):
    grads = backward(np.ones((1, 1, 3)), np.ones((1, 1, 3)), np.ones((1, 1, 1)), output_mask=mask)
    assert [grad is None for grad in grads] == [False, True, False]


def test_a_batch_of_0_has_gradients_of_0(backward):
    x, weight = np.ones((0, 3, 4, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    grads = backward(np.ones((0, 2, 6, 7), np.float32), x, weight)
    assert [grad.shape for grad in grads] == [x.shape, weight.shape, (2,)]
    assert not grads[1].any()
    assert not grads[2].any()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_arrays_may_lie_in_memory_in_any_way(backward, layout, dtype, rng):
    case = cases.Case(
        "", "", (2, 4, 5, 6), (4, 3, 3, 2), {"stride": (2, 3), "padding": 1, "groups": 2}
    )
    arrays = integers(case, dtype, rng)
    exact = answers(*arrays, **case.call)
    for which in range(3):
        given = [layout(a) if i == which else a for i, a in enumerate(arrays)]
        for grad, answer in zip(backward(*given, **case.call), exact, strict=True):
            oracle.assert_exact(grad, answer, dtype)


def test_the_gradient_of_x_has_the_memory_order_of_grad_output(backward, rng):
    case = cases.NAMED[4]
    y, x, weight = integers(case, np.dtype("f4"), rng)
    grad_x, *_ = backward(LAYOUTS["channels-last"](y), x, weight, **case.call)
    assert np.moveaxis(grad_x, 1, -1).flags.c_contiguous
    grad_x, *_ = backward(np.asfortranarray(y), x, weight, **case.call)
    assert grad_x.flags.c_contiguous


@pytest.mark.parametrize("dtype", [d for d in cases.DTYPES if d.name != "bfloat16"], ids=str)
def test_foreign_byte_order_is_read_and_gradients_are_native(backward, dtype, rng):
    case = cases.NAMED[4]
    arrays = integers(case, dtype, rng)
    swapped = [array.astype(dtype.newbyteorder()) for array in arrays]
    for grad, answer in zip(
        backward(*swapped, **case.call), answers(*arrays, **case.call), strict=True
    ):
        oracle.assert_exact(grad, answer, dtype)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("case", [c for c in SMALL if 0 not in c.x + c.weight + c.out], ids=str)
def test_infinity_reaches_only_the_gradients_that_it_takes_part_in(cpu_backward, case, rng):
    y, x, weight = (abs(array) + 1 for array in integers(case, np.dtype("f8"), rng))
    finite = cpu_backward(y, x, weight, **case.call)
    for which, gradient in ((2, 0), (1, 1), (0, 0), (0, 1), (0, 2)):
        given = [y, x, weight]
        place = tuple(rng.integers(0, n) for n in given[which].shape)
        given[which] = given[which].copy()
        given[which][place] = np.inf
        there = [np.zeros(a.shape) if i == which else np.ones(a.shape) for i, a in enumerate(given)]
        there[which][place] = 1
        reached = answers(*there, **case.call)[gradient] > 0
        grad = cpu_backward(*given, **case.call)[gradient]
        np.testing.assert_array_equal(np.isinf(grad), reached)
        np.testing.assert_array_equal(grad[~reached], finite[gradient][~reached])


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.COMPLEX], ids=str)
@pytest.mark.parametrize("value", [np.inf, np.nan, None], ids=["inf", "nan", "largest"])
def test_infinity_nan_and_overflow_warn_of_nothing(backward, dtype, value):
    """Warnings are errors here."""
    if value is None:
        value = float(ml_dtypes.finfo(dtype).max)
    x, weight, y = (np.full((2, 2, n), value, dtype) for n in (600, 3, 602))
    x[..., ::3], weight[..., 0] = -x[..., ::3], -weight[..., 0]
    assert not any(np.isfinite(grad).all() for grad in backward(y, x, weight))


LARGE = [
    cases.Case("decoder", "", (3, 64, 24, 24), (64, 32, 4, 4), {"stride": 2, "padding": 1}),
    cases.Case("vocoder", "", (1, 128, 700), (128, 64, 16), {"stride": 8, "padding": 4}),
    cases.Case("depthwise", "", (2, 48, 50, 50), (48, 1, 4, 4), {"stride": 2, "groups": 48}),
    cases.Case("many channels", "", (2, 700, 3, 3), (700, 300, 3, 3), {"stride": 2}),
    cases.Case("many outputs", "", (1, 16, 700), (16, 200, 16), {"stride": 8}),
    cases.Case("few channels", "", (2, 2, 150, 160), (2, 3, 3, 3), {"stride": 2, "padding": 1}),
    cases.Case("long kernel", "", (1, 40, 300), (40, 1, 1024), {"stride": 256}),
    cases.Case("longer kernel", "", (1, 2, 700), (2, 2, 5000), {"dilation": 2, "padding": 3000}),
    cases.Case("large kernel", "", (1, 2, 30, 30), (2, 3, 41, 41), {"padding": 20}),
    cases.Case("volume", "", (1, 16, 8, 9, 10), (16, 8, 3, 3, 3), {"stride": 2, "groups": 2}),
]
"""Large enough that every loop over blocks goes round more than once."""


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_gradients_are_exact_across_all_blocks(cpu_backward, case, rng):
    for dtype in (np.dtype("f4"), np.dtype("f2")):
        arrays = [np.sign(array.astype("f4")).astype(dtype) for array in integers(case, dtype, rng)]
        grads = cpu_backward(*arrays, **case.call)
        for grad, answer in zip(grads, answers(*arrays, **case.call), strict=True):
            oracle.assert_exact(grad, answer, dtype)


@pytest.mark.parametrize("sizes", ["in crumbs"], indirect=True)
@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_gradients_are_exact_wherever_channels_and_taps_are_cut(cpu_backward, case, rng):
    arrays = integers(case, np.dtype("f4"), rng)
    grads = cpu_backward(*arrays, **case.call)
    for grad, answer in zip(grads, answers(*arrays, **case.call), strict=True):
        oracle.assert_exact(grad, answer, np.dtype("f4"))


@pytest.mark.parametrize("case", LARGE, ids=str)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_gradients_have_the_same_bits_every_time(
    cpu, cpu_backward, case, threads, monkeypatch, rng
):
    x, weight, _ = case.reals(np.dtype("f4"), rng)
    y = rng.standard_normal(cpu(x, weight, **case.call).shape).astype("f4")
    monkeypatch.setenv("TCONV_NUM_THREADS", threads)
    first = cpu_backward(y, x, weight, **case.call)
    for _ in range(3):
        for grad, before in zip(cpu_backward(y, x, weight, **case.call), first, strict=True):
            np.testing.assert_array_equal(grad.view(np.uint32), before.view(np.uint32))


@pytest.mark.parametrize(
    ("x", "weight", "stride"),
    [((1, 32, 256, 256), (32, 32, 8, 8), 2), ((1, 1, 1000), (1, 1, 100_000), 1)],
    ids=["many channels", "long kernel"],
)
def test_working_memory_stays_below_64_mib(cpu, cpu_backward, x, weight, stride):
    """Laid out for one matrix product, these layers would need 512 and 381 MiB."""
    x, weight = np.ones(x, np.float32), np.ones(weight, np.float32)
    grad_output = np.ones_like(cpu(x, weight, stride=stride))
    for mask in ((True, False, False), (False, True, False)):
        tracemalloc.start()
        try:
            grads = cpu_backward(grad_output, x, weight, stride=stride, output_mask=mask)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak - sum(grad.nbytes for grad in grads if grad is not None) < 64 << 20


X, WEIGHT, Y = (
    np.zeros((2, 4, 5, 6), "f4"),
    np.zeros((4, 3, 3, 3), "f4"),
    np.zeros((2, 3, 7, 8), "f4"),
)


@pytest.mark.parametrize(
    ("error", "message", "arguments", "call"),
    [
        (ValueError, "grad_output has shape (2, 3, 7, 9) but the output has (2, 3, 7, 8)",
         (np.zeros((2, 3, 7, 9), "f4"), X, WEIGHT), {}),
        (ValueError, "grad_output has shape (2, 3, 7, 8) but the output has (3, 7, 8)",
         (Y, X[0], WEIGHT), {}),
        (ValueError, "grad_output has shape (2, 3, 7, 8) but the output has (2, 3, 11, 13)",
         (Y, X, WEIGHT), {"stride": 2}),
        (TypeError, "x is float32 but grad_output is float64; convert one of them",
         (Y.astype("f8"), X, WEIGHT), {}),
        (TypeError, "grad_output must be a NumPy or CuPy array, not list",
         (Y.tolist(), X, WEIGHT), {}),
        (TypeError, "x must be a NumPy or CuPy array, not NoneType", (Y, None, WEIGHT), {}),
        (ValueError, "weight has 3 input channels (axis 0) but x has 4 (axis 1)",
         (Y, X, WEIGHT[:3]), {}),
        (TypeError, "output_mask=True must be three bools, for x, weight and bias",
         (Y, X, WEIGHT), {"output_mask": True}),
        (TypeError, "output_mask=(True, False) must be three bools, for x, weight and bias",
         (Y, X, WEIGHT), {"output_mask": (True, False)}),
        (TypeError, "output_mask=(1, 0, 1) must be three bools, for x, weight and bias",
         (Y, X, WEIGHT), {"output_mask": (1, 0, 1)}),
    ],
)  # fmt: skip
def test_the_message_says_what_is_wrong(backward, error, message, arguments, call):
    with pytest.raises(error) as raised:
        backward(*arguments, **call)
    assert str(raised.value) == message
