"""The kernels of the adjoint and of the gradients: exact on integers, run on the stand-in for CUDA.

As in `test_kernels`, each kernel is driven by name through the public verbs.
"""

import os

import numpy as np
import pytest

import cases
import oracle
import standin
from standin import Recorder, Standin
from tconv.gpu import launch, splits
from tconv.gpu.call import TYPES
from tconv.gpu.choice import Tile
from tconv.gpu.families import gemm, weight_gradient, weight_gradient_narrow
from test_conv import arguments
from test_gradients import answers, bounds, integers, whole
from test_kernels import EXTREME, FLAT, LAYER, channels_last, strided

SMALL = Tile(rows=16, columns=8, depth=4, thread_rows=2, thread_columns=2)
CONV = {"gather": ("gather", None), "gemm": ("gemm", SMALL)}
WEIGHT = {
    "weight_gradient": ("weight_gradient", SMALL),
    "weight_gradient_narrow": ("weight_gradient_narrow", None),
}
RANDOM = cases.random_cases(int(os.environ.get("TCONV_CASES", "510")), seed=3)
SPLIT = [
    cases.Case("many positions", "several splits, each of many steps",
               (3, 5, 40, 41), (5, 3, 3, 2), {"stride": 2, "padding": 1}),
    cases.Case("long", "sums of thousands, added in runs",
               (1, 2, 9001), (2, 3, 5), {"stride": 3, "dilation": 4, "padding": 7}),
    cases.Case("depthwise", "lanes along the groups where channels are nearest in memory",
               (2, 40, 21, 17), (40, 1, 3, 3), {"stride": 2, "groups": 40}),
    cases.Case("groups of three", "more groups than lanes, not a multiple of them",
               (1, 102, 31, 4), (102, 2, 2, 2), {"stride": (1, 2), "groups": 34}),
    cases.Case("many channels", "rows and columns in several blocks",
               (2, 70, 9, 9), (70, 19, 4, 4), {"stride": 2, "padding": 1}),
    cases.Case("volume", "three axes", (2, 4, 9, 11, 8), (4, 3, 3, 2, 4), {"stride": (2, 1, 3)}),
]  # fmt: skip
"""Enough positions for several splits, and for sums that are added in runs."""

LAST = (np.dtype("f4"), np.dtype("f2"))
EVERYWHERE = pytest.mark.parametrize(
    "everywhere", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["quick", "everywhere"]
)


def dtypes(case, everywhere=False):
    """Return all dtypes, or where there are not two axes one: each is compiled apart."""
    return cases.DTYPES if everywhere or len(case.weight) == 4 else (np.dtype("f4"),)


LONG = cases.Case("long", "all of a convolution's taps in one sum, groups of 5 and 21 channels",
                  (2, 10, 2, 3), (10, 21, 3, 2), {"stride": 2, "groups": 2})  # fmt: skip


@pytest.fixture(scope="session")
def compiled():
    """Compile in a few units what most tests need, instead of one by one."""
    standin.skip_without_compiler()
    recorder = Recorder()
    for case in (case for case in RANDOM[:24] if 0 not in case.x):
        for dtype in dtypes(case):
            y, x, weight = integers(case, dtype, np.random.default_rng(0))
            for last in (False, True):
                if last and (len(case.x) != len(case.weight) or dtype not in LAST):
                    continue
                y, x = (channels_last(a) for a in (y, x)) if last else (y, x)
                for forced in CONV.values():
                    recorder.conv(*forced)(y, weight, **arguments(case))
                for forced in WEIGHT.values():
                    recorder.backward(*forced)(
                        y, x, weight, output_mask=(False, True, True), **case.call
                    )
    Standin().prepare(recorder.launched)


@pytest.fixture(params=CONV)
def conv(request, device):
    """The adjoint, computed by one kernel."""
    return device.conv(*CONV[request.param])


@pytest.fixture(params=WEIGHT)
def backward(request, device):
    """The gradients, those of weight and bias computed by one kernel."""
    return device.backward(*WEIGHT[request.param])


def batched(case):
    """Return the case with a batch axis, which channels-last memory needs."""
    if len(case.x) == len(case.weight):
        return case
    return cases.Case("batched", case.why, (1, *case.x), case.weight, case.call, bias=case.bias)


def reals(case, dtype, rng):
    """Return a gradient of the output, x and weight."""
    x, weight, _ = case.reals(dtype, rng)
    shape = oracle.transposed_conv(x, weight, **case.call).shape
    parts = rng.standard_normal((2, *shape))
    return (parts[0] + 1j * parts[1] if dtype.kind == "c" else parts[0]).astype(dtype), x, weight


def conj(array):
    return array.conj() if array.dtype.kind == "c" else array


def assert_all_exact(grads, exact, dtype):
    for grad, answer in zip(grads, exact, strict=True):
        oracle.assert_exact(grad, answer, dtype)


# --- the definition -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        *(*cases.NAMED, *SPLIT, *RANDOM[:30]),
        *(pytest.param(case, marks=pytest.mark.slow) for case in RANDOM[30:]),
    ],
    ids=str,
)
def test_the_three_inner_products_are_equal(device, case, rng):
    """<T(x, w), y> == <x, grad_x> == <w, grad_weight>, without any tolerance and any oracle."""
    for dtype in (np.dtype("f8"), np.dtype("c16")):
        y, x, weight = integers(case, dtype, rng)
        product = np.vdot(device.verbs("gather")(x, weight, **case.call), y)
        for forced in CONV.values():
            back = device.conv(*forced)(y, weight.conj(), **arguments(case))
            assert np.vdot(x, back) == product
        for forced in WEIGHT.values():
            mask = (False, True, True)
            _, grad, sums = device.backward(*forced)(y, x, weight, output_mask=mask, **case.call)
            assert np.vdot(weight, grad) == product
            axes = tuple(a for a in range(y.ndim) if a != y.ndim - weight.ndim + 1)
            np.testing.assert_array_equal(sums, y.sum(axes))


@EVERYWHERE
@pytest.mark.parametrize("case", [*cases.NAMED, *RANDOM[::15]], ids=str)
def test_the_adjoint_of_integers_is_exact(conv, case, everywhere, rng):
    for dtype in dtypes(case, everywhere):
        y, x, weight = integers(case, dtype, rng)
        bias = whole(weight.shape[:1], dtype, rng)
        exact, *_ = answers(y, x, conj(weight), **case.call)
        exact = exact + oracle.wide(bias).reshape(-1, *[1] * (weight.ndim - 2))
        oracle.assert_exact(conv(y, weight, bias, **arguments(case)), exact, dtype)


def test_sums_that_blocks_share_in_the_adjoint_are_exact(device, monkeypatch, rng):
    monkeypatch.setattr(gemm, "LONG_SUM", 8)
    y, x, weight = integers(LONG, np.dtype("f4"), rng)
    back = device.conv("gemm", SMALL)(y, weight, **arguments(LONG))
    exact, *_ = answers(y, x, weight, **LONG.call)
    oracle.assert_exact(back, exact, np.dtype("f4"))
    if isinstance(device, Standin):
        assert [s.kernel for s in device.launched] == ["gemm", "gemm_sum"]



@EVERYWHERE
@pytest.mark.parametrize("case", [*cases.NAMED, *RANDOM[::15], *SPLIT], ids=str)
def test_gradients_of_integers_are_exact(backward, case, everywhere, rng):
    for dtype in dtypes(case, everywhere):
        arrays = integers(case, dtype, rng)
        assert_all_exact(backward(*arrays, **case.call), answers(*arrays, **case.call), dtype)


@pytest.mark.parametrize("case", [*RANDOM[::30], *SPLIT], ids=str)
def test_gradients_of_reals_lie_within_their_bound(conv, backward, case, rng):
    for dtype in dtypes(case)[:6]:
        y, x, weight = reals(case, dtype, rng)
        limits = list(bounds(y, x, weight, **case.call))
        exact = answers(y, x, weight, **case.call)
        grads = *backward(y, x, weight, **case.call), conv(y, conj(weight), **arguments(case))
        for triple in zip(grads, (*exact, exact[0]), (*limits, limits[0]), strict=True):
            oracle.assert_within(*triple)


@EVERYWHERE
@pytest.mark.parametrize("case", [*RANDOM[::20], *SPLIT], ids=str)
def test_channels_last_memory_is_computed_as_it_lies(conv, backward, case, everywhere, rng):
    case = batched(case)
    for dtype in cases.DTYPES if everywhere else LAST:
        y, x, weight = integers(case, dtype, rng)
        exact = answers(y, x, weight, **case.call)
        for first, second in ((True, True), (True, False), (False, True)):
            given = channels_last(y) if first else y, channels_last(x) if second else x
            assert_all_exact(backward(*given, weight, **case.call), exact, dtype)
        back = conv(channels_last(y), conj(weight), **arguments(case))
        oracle.assert_exact(back, exact[0], dtype)
        if min(x.shape[1:]) > 1 and min(y.shape) > 1:
            assert back.transpose(0, *range(2, y.ndim), 1).flags.c_contiguous


@pytest.fixture
def few_blocks(monkeypatch):
    """Let few blocks be enough, so that each has a long sum."""
    monkeypatch.setattr(splits, "ENOUGH", 4)
    launch._kept.cache_clear()
    yield
    launch._kept.cache_clear()


@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("case", SPLIT, ids=str)
def test_sums_that_are_added_in_runs_are_exact_and_within_their_bound(backward, case, rng):
    mask = (False, True, True)
    for dtype in (np.dtype("f4"), np.dtype("f2")):
        arrays = integers(case, dtype, rng)
        grads = backward(*arrays, output_mask=mask, **case.call)
        assert_all_exact(grads[1:], answers(*arrays, **case.call)[1:], dtype)
    arrays = reals(case, np.dtype("f4"), rng)
    grads = backward(*arrays, output_mask=mask, **case.call)
    exact, limits = answers(*arrays, **case.call), list(bounds(*arrays, **case.call))
    for triple in zip(grads[1:], exact[1:], limits[1:], strict=True):
        oracle.assert_within(*triple)


@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("shape", [(2, 2, 70, 300), (300, 2, 14, 10), (1, 2, 1, 140_000)])
def test_errors_of_long_sums_do_not_grow_with_their_length(backward, shape):
    """Added one after another in float32, this many equal numbers would be off by percents."""
    x, weight = np.full(shape, 0.1, np.float32), np.ones((2, 2, 1, 1), np.float32)
    y = np.full(shape, 0.7, np.float32)
    _, grad_weight, grad_bias = backward(y, x, weight, output_mask=(False, True, True))
    count, longest = x.size // 2, 2 * 256
    for grad, term in ((grad_weight, float(x.flat[0]) * float(y.flat[0])),
                       (grad_bias, float(y.flat[0]))):  # fmt: skip
        np.testing.assert_allclose(grad, count * term, rtol=longest * 2.0**-24, atol=0)


@pytest.mark.parametrize("case", FLAT[::4], ids=str)
def test_every_tile_that_is_launched_computes_the_same(case, device, rng):
    older = [Standin(capability=75)] if isinstance(device, Standin) else []
    for dtype in (np.dtype("f4"), np.dtype("f8"), np.dtype("c16")):
        arrays = integers(case, dtype, rng)
        exact = answers(*arrays, **case.call)[1:]
        size = TYPES[dtype.name].accumulator_bytes
        forced = [("weight_gradient", tile) for tile in weight_gradient.TILES[size]]
        forced += [("weight_gradient_narrow", tile) for tile in weight_gradient_narrow.TILES]
        for kernel in forced:
            for one in (device, *older):
                _, *grads = one.backward(*kernel)(
                    *arrays, output_mask=(False, True, True), **case.call
                )
                assert_all_exact(grads, exact, dtype)


# --- memory -------------------------------------------------------------------------------------


def test_inputs_may_lie_in_memory_in_any_way(conv, backward, rng):
    for dtype in cases.DTYPES:
        arrays = integers(LAYER, dtype, rng)
        exact = answers(*arrays, **LAYER.call)
        for y, x, weight in zip(*(strided(a, rng) for a in arrays), strict=True):
            assert_all_exact(backward(y, x, weight, **LAYER.call), exact, dtype)
            oracle.assert_exact(conv(y, conj(weight), **arguments(LAYER)), exact[0], dtype)


def test_out_may_have_any_strides_and_nothing_around_it_is_written(conv, rng):
    y, x, weight = integers(LAYER, np.dtype("f4"), rng)
    exact, *_ = answers(y, x, weight, **LAYER.call)
    n, c, h, w = LAYER.x
    for buffer, view in [
        (np.empty((n, c + 3, h + 2, w + 5), "f4"), lambda b: b[:, 1:-2, 1:-1, 2:-3]),
        (np.empty((n, h, w, c + 4), "f4"), lambda b: b[..., 3:-1].transpose(0, 3, 1, 2)),
        (np.empty((n, c, 2 * h, 3 * w), "f4"), lambda b: b[:, :, ::-2, ::3]),
        (np.empty(n * c * h * w * 4 + 1, "u1"), lambda b: b[1:].view("f4").reshape(n, c, h, w)),
    ]:
        poison = np.frombuffer(rng.bytes(buffer.nbytes), buffer.dtype).reshape(buffer.shape)
        buffer[...] = poison
        out = view(buffer)
        assert conv(y, weight, out=out, **arguments(LAYER)) is out
        oracle.assert_exact(out, exact, x.dtype)
        expected = poison.copy()
        view(expected)[...] = exact
        assert buffer.tobytes() == expected.tobytes()


def test_inputs_are_never_written(conv, backward, rng):
    arrays = integers(LAYER, np.dtype("f4"), rng)
    copies = [a.copy() for a in arrays]
    backward(*arrays, **LAYER.call)
    conv(arrays[0], arrays[2], **arguments(LAYER))
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.usefixtures("compiled")
def test_the_gradients_of_weight_and_bias_take_two_launches_together(rng):
    device = Standin()
    mask = (False, True, True)
    device.backward()(*integers(LAYER, np.dtype("f4"), rng), output_mask=mask, **LAYER.call)
    assert [s.kernel for s in device.launched][1:] == ["sum_splits"]


@pytest.mark.parametrize("mask", [(False, True, False), (False, False, True)])
def test_a_gradient_alone_has_the_same_bits_as_with_the_other(backward, mask, rng):
    for case in (LAYER, *SPLIT[:3]):
        arrays = reals(case, np.dtype("f4"), rng)
        both = backward(*arrays, output_mask=(False, True, True), **case.call)
        alone = backward(*arrays, output_mask=mask, **case.call)
        for wanted, grad, other in zip(mask, alone, both, strict=True):
            assert grad is None if not wanted else grad.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("x", "weight"), [((0, 3, 4, 5), (3, 2, 3, 3)), ((2, 0, 4, 5), (0, 2, 3, 3)),
                      ((2, 3, 4, 5), (3, 0, 3, 3))],
)  # fmt: skip
def test_without_items_or_channels_gradients_are_zeros_or_empty(conv, backward, x, weight):
    y = np.ones((x[0], weight[1], 6, 7), "f4")
    grads = backward(y, np.ones(x, "f4"), np.ones(weight, "f4"))
    assert [grad.shape for grad in grads] == [x, weight, (weight[1],)]
    assert not grads[0].any()
    assert not grads[1].any()
    assert (grads[2] == x[0] * 42).all()
    assert not conv(y, np.ones(weight, "f4"), np.zeros(x[1], "f4")).any()


HUGE = [
    ("x", (1, 1, 3)), ("channels", (1, 3, 1)), ("batch", (3, 1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("shape", [shape for _, shape in HUGE], ids=[name for name, _ in HUGE])
def test_offsets_beyond_2_to_the_31_elements(conv, backward, shape):
    big = np.zeros(2**31 + 1, np.float16)  # pages that nobody touches take no memory
    far = big[: 2**31 + 1 : 2**30].reshape(shape)
    far[...] = np.arange(2, 5).reshape(shape)
    near = np.arange(far[:, :1].size, dtype="f2").reshape(shape[0], 1, shape[2]) + 5
    weight = np.arange(far.shape[1], dtype="f2").reshape(-1, 1, 1) + 3
    exact = answers(near, far, weight)
    assert_all_exact(backward(near, far, weight), exact, far.dtype)
    exact = answers(far, near, weight.reshape(1, -1, 1))
    assert_all_exact(backward(far, near, weight.reshape(1, -1, 1)), exact, far.dtype)
    oracle.assert_exact(conv(far, weight.reshape(1, -1, 1)), exact[0], far.dtype)
    out = big[: 2**31 + 1 : 2**30].reshape(1, 1, 3)
    assert conv(np.ones((1, 1, 3), "f2"), np.full((1, 1, 1), 7, "f2"), out=out) is out
    assert out.tolist() == [[[7, 7, 7]]]


@pytest.mark.parametrize("case", EXTREME, ids=str)
def test_windows_far_out_are_computed_with_wide_indices(conv, backward, case, rng):
    dtype = np.dtype("i8")
    x, weight, _ = case.integers(dtype, rng)
    ndim = len(case.weight) - 2
    window = oracle.window(x.shape[2:], weight.shape[2:], **case.call)
    y = whole((len(x), weight.shape[1], *window[3]), dtype, rng)
    grad_x, grad_weight = np.zeros_like(x), np.zeros_like(weight)
    for i in np.ndindex(x.shape[2:]):
        for k in np.ndindex(weight.shape[2:]):
            o = [i[a] * window[0][a] + k[a] * window[1][a] - window[2][a] for a in range(ndim)]
            if all(0 <= o[a] < window[3][a] for a in range(ndim)):
                grad_x[:, :, *i] += y[:, :, *o] @ weight[:, :, *k].T
                grad_weight[:, :, *k] += x[:, :, *i].T @ y[:, :, *o]
    np.testing.assert_array_equal(conv(y, weight, **arguments(case)), grad_x)
    grads = backward(y, x, weight, **case.call)
    np.testing.assert_array_equal(grads[0], grad_x)
    np.testing.assert_array_equal(grads[1], grad_weight)


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in RANDOM[:40] if 0 not in c.x], ids=str)
def test_infinity_reaches_only_the_gradients_that_it_takes_part_in(backward, case, rng):
    y, x, weight = (abs(array) + 1 for array in integers(case, np.dtype("f4"), rng))
    finite = backward(y, x, weight, **case.call)
    for which, gradient in ((2, 0), (1, 1), (0, 0), (0, 1), (0, 2)):
        given = [y, x, weight]
        place = tuple(rng.integers(0, n) for n in given[which].shape)
        given[which] = given[which].copy()
        given[which][place] = np.inf
        there = [np.zeros(a.shape) if i == which else np.ones(a.shape) for i, a in enumerate(given)]
        there[which][place] = 1
        reached = answers(*there, **case.call)[gradient] > 0
        grad = backward(*given, **case.call)[gradient]
        np.testing.assert_array_equal(np.isinf(grad), reached)
        np.testing.assert_array_equal(grad[~reached], finite[gradient][~reached])


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("case", [LAYER, *SPLIT[:4]], ids=str)
@pytest.mark.parametrize("kernel", WEIGHT)
def test_the_order_in_which_threads_and_copies_arrive_changes_no_bit(kernel, case, rng):
    arrays = reals(case, np.dtype("f4"), rng)
    results = set()
    for seed in range(3):
        device = Standin(seed=seed, late=seed == 1)
        grads = device.backward(*WEIGHT[kernel])(
            *arrays, output_mask=(False, True, True), **case.call
        )
        results.add(b"".join(grad.tobytes() for grad in grads[1:]))
    assert len(results) == 1


def test_every_kernel_and_tile_of_the_adjoint_gives_the_same_bits(device, rng):
    for case in RANDOM[:20]:
        y, _, weight = reals(case, np.dtype("f4"), rng)
        expected = device.conv("gather")(y, weight, **arguments(case))
        for tile in (SMALL, *gemm.TILES[4]):
            back = device.conv("gemm", tile)(y, weight, **arguments(case))
            assert back.tobytes() == expected.tobytes()


def test_an_item_gives_the_same_bits_alone_and_in_any_batch(device, rng):
    y, _, weight = reals(LAYER, np.dtype("f4"), rng)
    y = np.concatenate([y, rng.standard_normal((37, *y.shape[1:])).astype("f4")])
    conv = device.conv()
    together = conv(y, weight, **arguments(LAYER))
    for n in (0, 1, 38):
        alone = conv(y[n : n + 1], weight, **arguments(LAYER))
        assert alone.tobytes() == together[n : n + 1].tobytes()


def test_integers_wrap(conv, backward):
    for dtype in cases.INTEGERS:
        largest = np.full((1, 2, 1), np.iinfo(dtype).max, dtype)  # its square is 1
        ones = np.ones((1, 2, 1), dtype)
        assert conv(largest, largest, np.array([5], dtype)).tolist() == [[[7]]]
        _, grad_weight, grad_bias = backward(largest, ones[:, :1], ones)
        assert grad_weight.tolist() == largest.tolist()
        assert grad_bias.tolist() == largest[0, :, 0].tolist()
