"""Every CUDA kernel computes the definition: the sources themselves, run on the stand-in for CUDA.

Each test drives each kernel by name through the public verbs.  The gemm kernel runs with a tile so
small that even these geometries have many blocks, and with the tiles that tconv really launches.
"""

import os
from itertools import cycle

import numpy as np
import pytest

import cases
import oracle
import standin
import test_torch
from standin import Recorder, Standin
from tconv.gpu import launch
from tconv.gpu.call import TYPES
from tconv.gpu.choice import Tile
from tconv.gpu.families import gemm
from tconv.gpu.families.gemm import TILES
from tconv.gpu.source import read

SMALL = Tile(rows=16, columns=8, depth=8, thread_rows=2, thread_columns=8)
UPSAMPLING = cases.Case("upsampling", "1-D", (2, 4, 40), (4, 5, 4), {"stride": 2, "padding": 1})
FLAT = [case for case in cases.NAMED if len(case.weight) == 4 and 0 not in case.x]
ANY_GEOMETRY = {"gather": ("gather", None), "gemm": ("gemm", SMALL)}
KERNELS = {**ANY_GEOMETRY, "depthwise": ("depthwise", None)}
RANDOM = cases.random_cases(int(os.environ.get("TCONV_CASES", "510")), seed=3)
SHARED = cases.LONG_SUMS[3]
SHORT = 8
"""Products that are worth a part of their own, where blocks shall share even small layers' sums."""
FULL = [case for case in RANDOM if 0 not in case.x and case.bias]


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(
        0, x.ndim - 1, *range(1, x.ndim - 1)
    )


def packed(weight):
    """Return an equal weight whose output channels are nearest in memory, then the channels."""
    order = (*range(2, weight.ndim), 0, 1)
    return np.ascontiguousarray(weight.transpose(order)).transpose(np.argsort(order))


@pytest.fixture(scope="session")
def compiled():
    """Compile in a few units what most tests need, instead of one by one."""
    standin.skip_without_compiler()
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, "LONG_SUM", SHORT)
        for case in cases.LONG_SUMS:
            for x, weight, bias in some_integers(case, np.random.default_rng(0)):
                recorder.verbs("gemm", SMALL)(x, weight, bias, **case.call)
    launch._recalled.cache_clear()
    for case in (case for case in RANDOM[:40] if 0 not in case.x):
        for dtype in cases.DTYPES:
            x, weight, bias = case.integers(dtype, np.random.default_rng(0))
            for name, tile in ANY_GEOMETRY.values():
                conv = recorder.verbs(name, tile)
                conv(x, weight, bias, **case.call)
                if len(case.x) == len(case.weight):
                    conv(channels_last(x), weight, bias, **case.call)
    for name, tile in KERNELS.values():
        for activation in oracle.ACTIVATIONS:
            for dtype in cases.FLOATS:
                x, weight, bias = UPSAMPLING.reals(dtype, np.random.default_rng(0))
                recorder.verbs(name, tile)(
                    x, weight, bias, activation=activation, **UPSAMPLING.call
                )
    for dtype in (np.dtype("f4"), np.dtype("f8"), np.dtype("c16")):
        x, weight, bias = FLAT[0].integers(dtype, np.random.default_rng(0))
        for tile in TILES[TYPES[dtype.name].accumulator_bytes]:
            for capability in (75, 80):
                recorder.capability = capability
                recorder.verbs("gemm", tile)(x, weight, bias, **FLAT[0].call)
    Standin().prepare(recorder.launched)


@pytest.fixture(params=ANY_GEOMETRY)
def gpu(request, device):
    """The verbs, computed by one kernel that takes every geometry."""
    return device.verbs(*ANY_GEOMETRY[request.param])


@pytest.fixture(params=KERNELS)
def each(request, device):
    """The verbs, computed by one kernel, for layers that suit all of them."""
    return device.verbs(*KERNELS[request.param])


@pytest.mark.parametrize("case", cases.NAMED, ids=str)
def test_named_cases_are_exact_on_integers_in_every_dtype(gpu, case, rng):
    for dtype in cases.DTYPES:
        x, weight, bias = case.integers(dtype, rng)
        y = gpu(x, weight, bias, **case.call)
        assert y.shape == case.out
        oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), dtype)


@pytest.mark.parametrize("case", RANDOM, ids=str)
def test_random_geometries_are_exact_on_integers_in_every_dtype(gpu, case, rng):
    for dtype in cases.DTYPES:
        x, weight, bias = case.integers(dtype, rng)
        y = gpu(x, weight, bias, **case.call)
        oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), dtype)


@pytest.mark.parametrize("case", RANDOM[::5], ids=str)
def test_reals_lie_within_the_bound(gpu, case, rng):
    for dtype in (*cases.FLOATS, *cases.COMPLEX):
        x, weight, bias = case.reals(dtype, rng)
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        limit = oracle.bound(x, weight, bias, **case.call)
        oracle.assert_within(gpu(x, weight, bias, **case.call), answer, limit)


@pytest.mark.parametrize("case", RANDOM[::4], ids=str)
def test_channels_last_memory_is_computed_as_it_lies_and_gives_the_same_order(gpu, case, rng):
    if len(case.x) != len(case.weight):
        case = cases.Case("batched", case.why, (1, *case.x), case.weight, case.call, bias=case.bias)
    for dtype in cases.DTYPES:
        x, weight, bias = case.integers(dtype, rng)
        y = gpu(channels_last(x), weight, bias, **case.call)
        oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), dtype)
        if min(x.shape[1:]) > 1 and min(y.shape) > 1:
            assert y.transpose(0, *range(2, y.ndim), 1).flags.c_contiguous


@pytest.mark.torch
@pytest.mark.parametrize("case", test_torch.SWEEP[::3], ids=str)
def test_integers_give_the_same_elements_as_pytorch(gpu, case, rng):
    functional = pytest.importorskip("torch").nn.functional
    x, weight, bias = case.integers(np.dtype("f4"), rng)
    y = gpu(x, weight, bias, **case.call)
    np.testing.assert_array_equal(y, test_torch.peer(functional, case, x, weight, bias))


def assert_every_tile_is_exact(case, dtype, rng, device):
    x, weight, bias = case.integers(dtype, rng)
    # On the stand-in with and without asynchronous copies.
    older = [Standin(capability=75)] if isinstance(device, Standin) else []
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    for tile in TILES[TYPES[dtype.name].accumulator_bytes]:
        for one in (device, *older):
            gpu = one.verbs("gemm", tile)
            oracle.assert_exact(gpu(x, weight, bias, **case.call), answer, dtype)


@pytest.mark.parametrize("case", FLAT[::2], ids=str)
def test_every_tile_that_is_launched_computes_the_same(case, device, rng):
    for dtype in (np.dtype("f4"), np.dtype("f8"), np.dtype("c16")):
        assert_every_tile_is_exact(case, dtype, rng, device)


IN_TURN = list(zip([*cases.NAMED, *RANDOM[:100]], cycle(cases.DTYPES), strict=False))
"""All in all dtypes would be a hundred kernels for each number of axes."""


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dtype"), IN_TURN, ids=str)
def test_every_tile_computes_the_same_in_every_dtype_and_number_of_axes(case, dtype, device, rng):
    assert_every_tile_is_exact(case, dtype, rng, device)


# --- long sums ----------------------------------------------------------------------------------


def some_integers(case, rng):
    """Yield arrays of float32 in both orders of memory, and for one case of all other dtypes."""
    for dtype in cases.DTYPES if case is SHARED else [np.dtype("f4")]:
        x, weight, bias = case.integers(dtype, rng)
        yield x, weight, bias
        if dtype == np.float32:
            yield channels_last(x), weight, bias


PRODUCT = "multiply_add(sum[i][j], x[i][v], weight[v][j]);"


@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last], ids=["rows", "channels"])
@pytest.mark.parametrize("channels", [1, 4, 7, 8, 12, 20, 21])
def test_the_last_step_of_a_shift_multiplies_the_channels_that_are_left_and_no_others(
    order, channels
):
    standin.skip_without_compiler()
    text = read("gemm.cuh")
    assert text.count(PRODUCT) == 1
    device = Standin(texts={"gemm.cuh": text.replace(PRODUCT, "sum[i][j] += 1;")})
    x, weight = np.ones((2, channels, 9), "f4"), np.ones((channels, 5, 4), "f4")
    y = device.verbs("gemm", SMALL)(order(x), weight, stride=2)  # of two shifts
    np.testing.assert_array_equal(y, 2 * channels)


@pytest.fixture
def short_parts(monkeypatch):
    """Let blocks share the sums of small layers."""
    monkeypatch.setattr(gemm, "LONG_SUM", SHORT)
    launch._recalled.cache_clear()
    yield
    launch._recalled.cache_clear()


def both_passes(device):
    """Tell whether the last call was computed in two passes; on a GPU nobody counts."""
    if not isinstance(device, Standin):
        return True
    return [s.kernel for s in device.launched[-2:]] == ["gemm", "gemm_sum"]


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("case", cases.LONG_SUMS, ids=str)
def test_sums_that_blocks_share_are_exact_on_integers(case, device, rng):
    for x, weight, bias in some_integers(case, rng):
        y = device.verbs("gemm", SMALL)(x, weight, bias, **case.call)
        assert both_passes(device)
        oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), x.dtype)


@pytest.mark.usefixtures("short_parts")
def test_the_activation_follows_the_whole_sum(device, rng):
    x, weight, bias = SHARED.reals(np.dtype("f4"), rng)
    call = {"activation": "silu", **SHARED.call}
    answer = oracle.transposed_conv(x, weight, bias, **call)
    limit = oracle.bound(x, weight, bias, **call)
    oracle.assert_within(device.verbs("gemm", SMALL)(x, weight, bias, **call), answer, limit)
    assert both_passes(device)


@pytest.mark.usefixtures("short_parts", "compiled")
def test_shared_sums_are_added_in_one_order_in_any_batch_on_any_device(rng):
    case = SHARED
    x, weight, bias = case.reals(np.dtype("f4"), rng)
    together = np.concatenate([x, rng.standard_normal((30, *x.shape[1:])).astype("f4")])
    devices = [Standin(seed=seed, late=seed > 1) for seed in range(4)]
    for device, multiprocessors in zip(devices, (1, 7, 132, 1000), strict=True):
        device.multiprocessors = multiprocessors
    first, *others = (d.verbs("gemm", SMALL)(together, weight, bias, **case.call) for d in devices)
    assert all(other.tobytes() == first.tobytes() for other in others)
    alone = devices[0].verbs("gemm", SMALL)(x[1:], weight, bias, **case.call)
    assert alone.tobytes() == first[1:2].tobytes()


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("intruder", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", cases.LONG_SUMS[:5], ids=str)
def test_nan_and_infinity_reach_only_the_shared_sums_that_they_take_part_in(
    case, intruder, device, rng
):
    for place in ("x", "weight"):
        ones = {"x": np.ones(case.x, "f4"), "weight": np.ones(case.weight, "f4")}
        ones[place].flat[rng.integers(ones[place].size)] = intruder
        y = device.verbs("gemm", SMALL)(**ones, **case.call)
        assert both_passes(device)
        np.testing.assert_array_equal(y, oracle.transposed_conv(**ones, **case.call))


@pytest.mark.usefixtures("short_parts")
def test_shared_sums_are_written_to_an_out_of_any_strides_and_nothing_around_it_is(device, rng):
    case = SHARED
    x, weight, bias = case.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    n, m, h, w = answer.shape
    around = np.full((n, h, m + 2, 2 * w), 99, "f4")
    out = around[:, ::-1, 1:-1, ::2].transpose(0, 2, 1, 3)
    device.verbs("gemm", SMALL)(x, weight, bias, out=out, **case.call)
    assert both_passes(device)
    oracle.assert_exact(out, answer, x.dtype)
    out[...] = 99
    assert (around == 99).all()


# --- memory -------------------------------------------------------------------------------------


LAYER = cases.Case(
    "layer", "every number different",
    (2, 6, 5, 4), (6, 3, 3, 4), {"stride": (2, 3), "padding": (1, 2), "groups": 2}, (2, 6, 9, 9),
)  # fmt: skip


def strided(array, rng):
    """Return equal arrays that lie in memory in strange ways."""
    spread = np.zeros([2 * n + 1 for n in array.shape], array.dtype)
    spread[tuple(slice(1, None, 2) for _ in array.shape)] = array
    yield spread[tuple(slice(1, None, 2) for _ in array.shape)]
    axes = rng.permutation(array.ndim)
    yield np.ascontiguousarray(array.transpose(axes)).transpose(np.argsort(axes))
    yield np.flip(np.ascontiguousarray(np.flip(array)))
    yield np.asfortranarray(array)
    unaligned = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    assert unaligned.ctypes.data % array.dtype.itemsize
    yield unaligned
    record = np.dtype([("before", "u1"), ("element", array.dtype)])
    records = np.zeros(array.shape, record)
    records["element"] = array
    yield records["element"]
    array.flags.writeable = False
    yield array


def test_inputs_may_lie_in_memory_in_any_way(each, rng):
    for dtype in cases.DTYPES:
        x, weight, bias = LAYER.integers(dtype, rng)
        answer = oracle.transposed_conv(x, weight, bias, **LAYER.call)
        for operands in zip(strided(x, rng), strided(weight, rng), strided(bias, rng), strict=True):
            oracle.assert_exact(each(*operands, **LAYER.call), answer, dtype)


def test_broadcast_inputs_are_read_where_they_are(each):
    x = np.broadcast_to(np.float32(3), LAYER.x)
    weight = np.broadcast_to(np.arange(4, dtype="f4"), LAYER.weight)
    bias = np.broadcast_to(np.float32(7), 6)
    answer = oracle.transposed_conv(x, weight, bias, **LAYER.call)
    oracle.assert_exact(each(x, weight, bias, **LAYER.call), answer, x.dtype)


def test_out_may_have_any_strides_and_nothing_around_it_is_written(each, rng):
    x, weight, bias = LAYER.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **LAYER.call)
    n, m, h, w = LAYER.out
    for buffer, view in [
        (np.empty((n, m + 3, h + 2, w + 5), "f4"), lambda b: b[:, 1:-2, 1:-1, 2:-3]),
        (np.empty((n, h, w, m + 4), "f4"), lambda b: b[..., 3:-1].transpose(0, 3, 1, 2)),
        (np.empty((n, m, 2 * h, 3 * w), "f4"), lambda b: b[:, :, ::-2, ::3]),
        (np.empty((w, h, m, n), "f4"), lambda b: b.T),
        (np.empty(n * m * h * w * 4 + 1, "u1"), lambda b: b[1:].view("f4").reshape(n, m, h, w)),
        (np.empty((n, m, h, w), [("a", "u2"), ("y", "f4")]), lambda b: b["y"]),
    ]:
        poison = np.frombuffer(rng.bytes(buffer.nbytes), buffer.dtype).reshape(buffer.shape)
        buffer[...] = poison
        out = view(buffer)
        assert each(x, weight, bias, out=out, **LAYER.call) is out
        oracle.assert_exact(out, answer, x.dtype)
        expected = poison.copy()
        view(expected)[...] = answer
        assert buffer.tobytes() == expected.tobytes()


def test_inputs_are_never_written(each, rng):
    arrays = LAYER.integers(np.dtype("f4"), rng)
    copies = [a.copy() for a in arrays]
    each(*arrays, **LAYER.call)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.usefixtures("compiled")
def test_contiguous_inputs_are_not_copied_and_one_kernel_is_launched(rng):
    device = Standin()
    allocated = []
    device.empty = lambda shape, dtype: allocated.append(shape) or np.empty(shape, dtype)
    device.verbs("gemm", SMALL)(*LAYER.integers(np.dtype("f4"), rng), **LAYER.call)
    assert allocated == [LAYER.out]
    assert len(device.launched) == 1


OVERLAP = cases.Case(
    "overlap", "shifted rows, packed columns, absent taps",
    (2, 10, 4, 3), (10, 4, 3, 3), {"stride": 2, "padding": 1, "groups": 2},
)  # fmt: skip
ONE_OUTPUT = cases.Case(
    "one output", "phases are the columns, and neighbours in memory",
    (2, 5, 7), (5, 1, 12), {"stride": 4, "padding": ((4, 1),)},
)  # fmt: skip
CHANNELS = cases.Case(
    "channels", "whole vectors of channels, and no whole step",
    (2, 24, 4, 3), (24, 5, 3, 3), {"stride": 2, "padding": 1, "groups": 2},
)  # fmt: skip
WIDE = [
    (OVERLAP, np.array, packed, "WEIGHT_VECTOR"),
    (ONE_OUTPUT, np.array, np.array, "WEIGHT_VECTOR"),
    (CHANNELS, channels_last, np.array, "X_VECTOR"),
]


@pytest.mark.parametrize(("case", "lay", "arrange", "name"), WIDE, ids=[str(w[0]) for w in WIDE])
def test_neighbours_in_memory_are_copied_at_once(case, lay, arrange, name, device, rng):
    gpu = device.verbs("gemm", SMALL)
    for dtype in (np.dtype("f4"), np.dtype("f8"), cases.FLOATS[1]):
        x, weight, bias = case.integers(dtype, rng)
        y = gpu(lay(x), arrange(weight), bias, **case.call)
        oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), dtype)
        if isinstance(device, Standin) and dtype.itemsize >= 4:
            assert device.launched[-1][name] * dtype.itemsize == 16


# --- sizes --------------------------------------------------------------------------------------


def test_a_batch_of_seventy_thousand(each, rng):
    x = rng.integers(-8, 9, (70_000, 2, 2)).astype("f4")
    weight = rng.integers(-8, 9, (2, 1, 2)).astype("f4")
    y = each(x, weight, stride=2)
    oracle.assert_exact(y, oracle.transposed_conv(x, weight, stride=2), x.dtype)


HUGE = [
    ("x", lambda big: {"x": big[: 2**31 + 1 : 2**30].reshape(1, 1, 3)}),
    ("x backwards", lambda big: {"x": big[2**31 :: -(2**30)].reshape(1, 1, 3)}),
    ("channels", lambda big: {"x": big[: 2**31 + 1 : 2**30].reshape(1, 3, 1)}),
    ("batch", lambda big: {"x": big[: 2**31 + 1 : 2**30].reshape(3, 1, 1)}),
    ("weight", lambda big: {"weight": big[: 2**31 + 1 : 2**30].reshape(1, 1, 3)}),
    ("weight's channels", lambda big: {"weight": big[: 2**31 + 1 : 2**30].reshape(1, 3, 1)}),
    ("bias", lambda big: {"bias": big[: 2**31 + 1 : 2**30]}),
    ("out", lambda big: {"out": big[: 2**31 + 1 : 2**30].reshape(1, 1, 3)}),
    ("out's channels", lambda big: {"out": big[: 2**31 + 1 : 2**30].reshape(1, 3, 1)}),
]


@pytest.mark.parametrize("where", [view for _, view in HUGE], ids=[name for name, _ in HUGE])
def test_offsets_beyond_2_to_the_31_elements(each, where):
    big = np.zeros(2**31 + 1, np.float16)  # pages that nobody touches take no memory
    arrays = where(big)
    x = arrays.get("x", np.ones((1, 1, 1), np.float16))
    _, c, size = x.shape
    out = arrays.get("out")
    m, k = (1, 1) if out is None else (out.shape[1], out.shape[2] - size + 1)
    weight = arrays.get("weight", np.ones((c, m if "bias" not in arrays else 3, k), np.float16))
    bias = arrays.get("bias")
    for number, array in enumerate([x, weight] + ([] if bias is None else [bias])):
        array[...] = (np.arange(array.size) + 2 + number).reshape(array.shape)
    answer = oracle.transposed_conv(x, weight, bias)
    oracle.assert_exact(each(x, weight, bias, out=out), answer, x.dtype)


EXTREME = [
    cases.Case("stride", "indices past 2^31, arrays of a few elements",
               (1, 2, 2), (2, 3, 2), {"stride": 2**40, "padding": ((0, 2**40 - 5),)}),
    cases.Case("the far end", "the window lies past 2^31",
               (1, 2, 2), (2, 3, 2), {"stride": 2**40, "padding": ((2**40 - 2, 0),)}),
    cases.Case("dilation", "taps past 2^31",
               (1, 2, 2), (2, 3, 2), {"dilation": 2**33, "padding": ((2**33 - 1, 0),)}),
    cases.Case("one input, one output", "arrays without a stride, the tap past 2^31",
               (1, 2, 1), (2, 3, 2), {"dilation": 2**33, "padding": ((2**33, 0),)}),
    cases.Case("stride at the edge of 32 bits", "products of indices still fit",
               (1, 1, 2), (1, 1, 2), {"stride": 2**30 - 600, "padding": ((2**30 - 610, 0),)}),
    cases.Case("2d", "one axis huge, one small", (1, 2, 2, 3), (2, 2, 2, 2),
               {"stride": (2**35, 1), "padding": ((2**35 - 1, 0), (0, 0))}),
]  # fmt: skip


@pytest.mark.parametrize("case", EXTREME, ids=str)
def test_windows_far_out_are_computed_with_wide_indices(gpu, case, rng):
    x, weight, bias = case.integers(np.dtype("i8"), rng)
    expected = sparse(x, weight, bias, **case.call)
    np.testing.assert_array_equal(gpu(x, weight, bias, **case.call), expected)


def sparse(x, weight, bias, *, stride=1, dilation=1, padding):
    """Return the answer without the full result in between, which would not fit in memory."""
    axes = weight.ndim - 2
    stride, dilation = oracle.per_axis(stride, axes), oracle.per_axis(dilation, axes)
    size = [
        (n - 1) * s + d * (k - 1) + 1 - sum(pair)
        for n, k, s, d, pair in zip(
            x.shape[2:], weight.shape[2:], stride, dilation, padding, strict=True
        )
    ]
    y = np.zeros((len(x), weight.shape[1], *size), x.dtype) + bias.reshape(-1, *[1] * axes)
    for i in np.ndindex(x.shape[2:]):
        for k in np.ndindex(weight.shape[2:]):
            o = [i[a] * stride[a] + k[a] * dilation[a] - padding[a][0] for a in range(axes)]
            if all(0 <= o[a] < size[a] for a in range(axes)):
                y[:, :, *o] += x[:, :, *i] @ weight[:, :, *k]
    return y


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", FULL[:60], ids=str)
@pytest.mark.parametrize("intruder", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_only_the_outputs_that_they_take_part_in(gpu, case, intruder, rng):
    for dtype in (np.dtype("f4"), cases.FLOATS[0]):
        for place in ("x", "weight"):
            ones = {"x": np.ones(case.x, dtype), "weight": np.ones(case.weight, dtype)}
            ones[place].flat[rng.integers(ones[place].size)] = intruder
            y = gpu(**ones, **case.call).astype(float)
            np.testing.assert_array_equal(y, oracle.transposed_conv(**ones, **case.call))


def test_every_kernel_and_tile_gives_the_same_bits(device, rng):
    gather = device.verbs("gather")
    for case in RANDOM[:40]:
        x, weight, bias = case.reals(np.dtype("f4"), rng)
        expected = gather(x, weight, bias, **case.call)
        for tile in (SMALL, *TILES[4]):
            y = device.verbs("gemm", tile)(x, weight, bias, **case.call)
            assert y.tobytes() == expected.tobytes()


def test_an_item_gives_the_same_bits_alone_and_in_any_batch(device, rng):
    chosen = device.verbs()
    x, weight, bias = LAYER.reals(np.dtype("f4"), rng)
    x = np.concatenate([x, rng.standard_normal((37, *x.shape[1:])).astype("f4")])
    together = chosen(x, weight, bias, **LAYER.call)
    for n in (0, 1, 38):
        alone = chosen(x[n : n + 1], weight, bias, **LAYER.call)
        assert alone.tobytes() == together[n : n + 1].tobytes()


@pytest.mark.usefixtures("compiled")
def test_the_order_in_which_threads_and_copies_arrive_changes_no_bit(rng):
    x, weight, bias = LAYER.reals(np.dtype("f4"), rng)
    results = {
        Standin(seed=seed, late=late).verbs("gemm", SMALL)(x, weight, bias, **LAYER.call).tobytes()
        for seed in range(5)
        for late in (False, True)
    }
    assert len(results) == 1


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
def test_activations_lie_within_their_bound(each, name, rng):
    for dtype in cases.FLOATS:
        x, weight, bias = UPSAMPLING.reals(dtype, rng)
        call = {"activation": name, **UPSAMPLING.call}
        answer = oracle.transposed_conv(x, weight, bias, **call)
        limit = oracle.bound(x, weight, bias, **call)
        oracle.assert_within(each(x, weight, bias, **call), answer, limit)


def test_relu_is_for_integers_as_well(each, rng):
    for dtype in cases.INTEGERS:
        x, weight, bias = LAYER.integers(dtype, rng)
        answer = np.maximum(oracle.transposed_conv(x, weight, bias, **LAYER.call), 0)
        y = each(x, weight, bias, activation="relu", **LAYER.call)
        oracle.assert_exact(y, answer, dtype)


def test_integers_wrap(each):
    for dtype in cases.INTEGERS:
        largest = np.iinfo(dtype).max
        x, weight = np.full((1, 2, 1), largest, dtype), np.full((2, 1, 1), largest, dtype)
        assert each(x, weight, np.array([5], dtype)).tolist() == [[[7]]]  # (2^31 - 1)^2 is 1


def test_half_types_round_once_to_even_and_keep_subnormals_and_overflow_to_infinity(each):
    for dtype, unit, smallest in (
        (cases.FLOATS[0], 2.0**-10, 2.0**-24),
        (cases.FLOATS[1], 2.0**-7, 2.0**-133),
    ):
        weight = np.ones((2, 1, 1), dtype)
        largest = float(np.finfo(np.float16).max) if dtype == np.float16 else 3.3895313892515355e38
        pairs = [
            (1, unit / 2),
            (1 + unit, unit / 2),
            (smallest, smallest),
            (largest, largest / 256),
            (-largest, -largest),
        ]
        x = np.array(pairs).T[None].astype(dtype)
        exact = x.astype(np.float64).sum(1, keepdims=True)
        with np.errstate(over="ignore"):
            expected = exact.astype(np.float32).astype(dtype)
        np.testing.assert_array_equal(each(x, weight).astype(float), expected.astype(float))
