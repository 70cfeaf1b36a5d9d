"""The tensor-core kernel computes the definition: its source, run on the stand-in for CUDA.

Half types are summed in float32; float32 goes through TF32 where that is asked for, once or three
times.  The stand-in's tensor cores cut their sums off as the coarsest do.
"""

import os
import re
from dataclasses import replace

import numpy as np
import pytest

import cases
import oracle
import standin
from cases import WIDE
from layouts import packed
from standin import Recorder, Standin
from standin.check import nearest
from tconv._geometry import Geometry
from tconv.gpu.call import Call, Strides, contiguous
from tconv.gpu.choice import WarpTile
from tconv.gpu.families.mma import TILES
from tconv.gpu.select import select
from tconv.gpu.source import source
from test_kernels import strided

HALVES = cases.FLOATS[:2]
SINGLE = np.dtype("f4")
KINDS = [*((dtype, None) for dtype in HALVES), (SINGLE, "tf32"), (SINGLE, "tf32x3")]
KIND_NAMES = ["float16", "bfloat16", "tf32", "tf32x3"]
SMALL = {size: WarpTile(64, 16, 128 // size, 16, 8) for size in (2, 4)}
RANDOM = cases.random_cases(int(os.environ.get("TCONV_CASES", "240")), seed=5)
FEW = [*WIDE, *cases.NAMED[::6], *RANDOM[:8]]
"""A type for each, by turns; slow tests run all of them in all types."""


def run(device, x, weight, bias=None, *, tile=None, **call):
    """Compute with the mma kernel; the small tile makes many blocks of few outputs."""
    tile = tile or SMALL[x.dtype.itemsize]
    return device.verbs("mma", tile)(x, weight, bias, **call)


def orders(case, x, weight):
    """Yield x and weight as they may lie in memory."""
    yield x, weight
    if len(case.x) == len(case.weight):
        yield nearest(x, 1), nearest(weight, 0)
    yield x, packed(weight)


@pytest.fixture(scope="session")
def compiled():
    """Compile in a few units what most tests need."""
    standin.skip_without_compiler()
    recorder = Recorder()
    for number, case in enumerate(FEW):
        dtype, precision = KINDS[number % len(KINDS)]
        x, weight, bias = case.integers(dtype, np.random.default_rng(0))
        for operands in orders(case, x, weight):
            run(recorder, *operands, bias, precision=precision, **case.call)
    Standin().prepare(recorder.launched)


@pytest.fixture(params=KINDS, ids=KIND_NAMES)
def kind(request):
    """Element type and precision."""
    return request.param


# --- the definition -------------------------------------------------------------------------------


def assert_exact_in_every_order(device, case, kind, rng):
    dtype, precision = kind
    x, weight, bias = case.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    for operands in orders(case, x, weight):
        y = run(device, *operands, bias, precision=precision, **case.call)
        oracle.assert_exact(y, answer, dtype)


@pytest.mark.parametrize(("number", "case"), [*enumerate(FEW)], ids=map(str, FEW))
def test_integers_are_exact_in_every_order_of_memory(device, number, case, rng):
    assert_exact_in_every_order(device, case, KINDS[number % len(KINDS)], rng)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*WIDE, *cases.NAMED, *RANDOM], ids=str)
def test_integers_are_exact_in_every_order_of_memory_and_type(device, case, kind, rng):
    assert_exact_in_every_order(device, case, kind, rng)


@pytest.mark.slow
@pytest.mark.parametrize("case", WIDE[:6], ids=str)
def test_every_tile_that_is_launched_computes_the_same(device, case, kind, rng):
    dtype, precision = kind
    x, weight, bias = case.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    for tile in TILES[dtype.itemsize]:
        for operands in ((nearest(x, 1), weight), (x, packed(weight))):
            y = run(device, *operands, bias, tile=tile, precision=precision, **case.call)
            oracle.assert_exact(y, answer, dtype)


def test_a_block_stores_all_phases_of_some_packed_columns_and_then_of_others(device, rng):
    case, dtype = WIDE[0], HALVES[0]
    x, weight, bias = case.integers(dtype, rng)
    y = run(device, x, packed(weight), bias, tile=WarpTile(64, 32, 64, 16, 16), **case.call)
    oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), dtype)
    if isinstance(device, Standin):
        assert device.launched[-1]["WEIGHT_PACKED"]
        assert device.launched[-1]["INTERLEAVED"]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("case", WIDE[:5:2], ids=str)
def test_compute_capability_7_5_computes_float16_without_asynchronous_copies(case, rng):
    assert_exact_in_every_order(Standin(capability=75), case, (HALVES[0], None), rng)


def test_integers_as_large_as_the_types_hold_exactly_are_exact(device, kind, rng):
    dtype, precision = kind
    largest = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**11}[dtype.name]
    x = rng.choice([-largest, largest - 1, largest], (1, 3, 4)).astype(dtype)
    weight = rng.choice([-1, 1], (3, 8, 2)).astype(dtype)
    y = run(device, x, weight, stride=2, precision=precision)
    oracle.assert_exact(y, oracle.transposed_conv(x, weight, stride=2), dtype)


def test_arrays_may_lie_in_memory_in_any_way(device, rng):
    for case in WIDE[:2]:
        x, weight, bias = case.integers(HALVES[0], rng)
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        for operands in zip(strided(x, rng), strided(weight, rng), strided(bias, rng), strict=True):
            oracle.assert_exact(run(device, *operands, **case.call), answer, x.dtype)
        around = np.full(answer.size + 2, 99, x.dtype)
        out = around[1:-1].reshape(answer.shape)  # no multiple of what a pair takes
        run(device, x, weight, bias, out=out, **case.call)
        oracle.assert_exact(out, answer, x.dtype)
        assert around[0] == around[-1] == 99


def test_out_may_be_a_slice_and_nothing_around_it_is_written(device, kind, rng):
    dtype, precision = kind
    case = WIDE[0]
    x, weight, bias = case.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    n, m, h, w = answer.shape
    for buffer, view in [
        (np.zeros((n, m + 3, h + 2, w + 5), dtype), lambda b: b[:, 1:-2, 1:-1, 2:-3]),
        (np.zeros((n, h, w, m + 8), dtype), lambda b: b[..., 8:].transpose(0, 3, 1, 2)),
        (np.zeros((n, h, w, m + 4), dtype), lambda b: b[..., 3:-1].transpose(0, 3, 1, 2)),
        (np.zeros((w, h, m, n), dtype), lambda b: b.T),
    ]:
        out = view(buffer)
        run(device, x, weight, bias, out=out, precision=precision, **case.call)
        oracle.assert_exact(out, answer, dtype)
        expected = np.zeros_like(buffer)
        view(expected)[...] = oracle.narrow(answer, dtype)
        assert buffer.tobytes() == expected.tobytes()


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*WIDE[1:12:3], *RANDOM[:4]], ids=str)
def test_reals_lie_within_the_bound(device, case, kind, rng):
    dtype, precision = kind
    x, weight, bias = case.reals(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    limit = oracle.bound(x, weight, bias, sums=precision or "tensor cores", **case.call)
    y = run(device, x, weight, bias, precision=precision, **case.call)
    oracle.assert_within(y, answer, limit)


def badly_scaled(shape, rng):
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-40, 41, shape)


def cancelling(shape, rng):
    """Pairs of channels that nearly cancel, with a little left over."""
    values = np.repeat(rng.standard_normal((shape[0], shape[1] // 2, *shape[2:])), 2, axis=1)
    values[:, 1::2] *= -1 + 2.0**-20 * rng.standard_normal(values[:, 1::2].shape)
    return values


def all_positive(shape, rng):
    return rng.uniform(1, 2, shape)


def alike(shape, rng):
    """The same for every channel."""
    return np.broadcast_to(rng.uniform(1, 2, shape[1:]), shape)


DATA = {
    "badly scaled": (badly_scaled, badly_scaled),
    "cancelling": (cancelling, alike),
    "all positive": (all_positive, all_positive),
}  # fmt: skip


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("precision", ["tf32", "tf32x3"])
def test_the_bound_of_tf32_holds_on_bad_data(device, data, precision, rng):
    x_data, weight_data = DATA[data]
    x = x_data((1, 1000, 6), rng).astype("f4")
    weight = np.ascontiguousarray(weight_data((1000, 8, 3), rng)).astype("f4")
    call = {"stride": 2, "padding": 1}
    answer = oracle.transposed_conv(x, weight, **call)
    limit = oracle.bound(x, weight, sums=precision, **call)
    oracle.assert_within(run(device, x, weight, precision=precision, **call), answer, limit)


def test_three_times_tf32_errs_a_hundred_times_less_than_tf32(device, rng):
    x, weight = all_positive((1, 64, 9), rng), all_positive((64, 8, 3), rng)
    x, weight = x.astype("f4"), weight.astype("f4")
    answer = oracle.transposed_conv(x, weight)
    once, thrice = (
        abs(run(device, x, weight, precision=precision) - answer).max()
        for precision in ("tf32", "tf32x3")
    )
    assert once > 100 * thrice


def test_tf32_rounds_to_nearest(device):
    # Cut off, both would lose almost 2^-10 of themselves.
    x = np.full((1, 8, 1), 1 + 2**-10 - 2**-23, "f4")
    weight = np.full((8, 8, 1), 1 + 2**-10 - 2**-23, "f4")
    y = run(device, x, weight, precision="tf32")
    np.testing.assert_array_equal(y, 8 * (1 + 2**-10) ** 2)


@pytest.mark.parametrize("case", WIDE[::3], ids=str)
@pytest.mark.parametrize("intruder", [np.nan, -np.inf])
def test_nan_and_infinity_reach_only_the_outputs_that_they_take_part_in(
    device, case, kind, intruder, rng
):
    dtype, precision = kind
    for place in ("x", "weight"):
        ones = {"x": np.ones(case.x, dtype), "weight": np.ones(case.weight, dtype)}
        ones[place].flat[rng.integers(ones[place].size)] = intruder
        y = run(device, **ones, precision=precision, **case.call).astype(float)
        np.testing.assert_array_equal(y, oracle.transposed_conv(**ones, **case.call))


@pytest.mark.parametrize("precision", ["tf32", "tf32x3"])
def test_the_largest_floats_do_not_overflow_where_the_definition_does_not(device, precision):
    largest = np.finfo("f4").max  # TF32 rounds it to infinity
    x = np.full((1, 8, 3), largest)
    weight = np.zeros((8, 8, 2), "f4")
    weight[3] = 0.5
    y = run(device, x, weight, stride=2, precision=precision)
    np.testing.assert_array_equal(y, np.full(y.shape, largest / 2))


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
def test_activations_lie_within_their_bound(device, name, kind, rng):
    dtype, precision = kind
    x, weight, bias = WIDE[4].reals(dtype, rng)
    call = {"activation": name, **WIDE[4].call}
    answer = oracle.transposed_conv(x, weight, bias, **call)
    limit = oracle.bound(x, weight, bias, sums=precision or "tensor cores", **call)
    oracle.assert_within(run(device, x, weight, bias, precision=precision, **call), answer, limit)


def test_an_item_gives_the_same_bits_alone_and_in_any_batch(device, kind, rng):
    dtype, precision = kind
    case = replace(WIDE[1], x=(39, *WIDE[1].x[1:]))
    x, weight, bias = case.reals(dtype, rng)
    together = run(device, x, weight, bias, precision=precision, **case.call)
    for n in (0, 1, 38):
        alone = run(device, x[n : n + 1], weight, bias, precision=precision, **case.call)
        assert alone.tobytes() == together[n : n + 1].tobytes()


@pytest.mark.usefixtures("compiled")
def test_the_order_in_which_warps_and_copies_arrive_changes_no_bit(kind, rng):
    dtype, precision = kind
    x, weight, bias = WIDE[1].reals(dtype, rng)
    for operands in orders(WIDE[1], x, weight):
        results = {
            run(Standin(seed=seed, late=late), *operands, bias, precision=precision, **WIDE[1].call)
            .tobytes()
            for seed in range(3)
            for late in (False, True)
        }
        assert len(results) == 1


# --- what fits ------------------------------------------------------------------------------------

SHARED_KILOBYTES = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""What a block may have, from the CUDA guide's table, by compute capability."""
FAR = 2**32


def last(shape):
    """Return strides of an array whose channels are nearest."""
    n, *axes, c = contiguous((shape[0], *shape[2:], shape[1]))
    return n, c, *axes


def as_packed(shape):
    """Return strides of a weight whose output channels are nearest, then its input channels."""
    c, m, *kernel_size = shape
    *taps, c, m = contiguous((*kernel_size, c, m))
    return c, m, *taps


def a_call(
    capability, kind, *, ndim=3, out_channels=128, order=contiguous, weight=contiguous, far=False
):
    """Return a call with weights as a function has them; with ``far`` offsets have 64 bits."""
    dtype, precision = kind
    g = Geometry(
        batch=2, groups=1, in_channels=64, out_channels=out_channels, in_size=(9,) * ndim,
        kernel_size=(4,) * ndim, stride=(2,) * ndim, dilation=(1,) * ndim, pad_begin=(1,) * ndim,
        out_size=(18,) * ndim,
    )  # fmt: skip
    n, *rest = order(g.x_shape)
    strides = Strides((FAR if far else n, *rest), weight(g.weight_shape), 1, order(g.out_shape))
    return Call(g, dtype.name, strides, None, precision, capability)


def kinds_of(capability):
    """Return the kinds that this compute capability multiplies."""
    return KINDS if capability >= 80 else KINDS[:1]


@pytest.mark.parametrize("capability", SHARED_KILOBYTES)
def test_as_many_stages_as_fit_lie_in_the_shared_memory_of_every_target(capability):
    room = SHARED_KILOBYTES[capability] << 10
    for kind in kinds_of(capability):
        for order in (contiguous, last):
            for far in (False, True):
                call = a_call(capability, kind, order=order, far=far)
                narrow = {tile for tile in TILES[kind[0].itemsize] if tile.columns < 128}
                for tile in (None, *narrow):
                    s = select(call, kernel="mma", tile=tile).specialisation
                    stage = (s["ROWS"] + s["COLUMNS"]) * 128
                    assert s["STAGES"] >= 2
                    assert s.shared_bytes <= room
                    most = 4 if capability >= 80 else 2
                    assert s["STAGES"] == most or s.shared_bytes + stage > room


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_tile_is_the_same_however_far_items_lie_apart(kind, ndim):
    call = a_call(80, kind, ndim=ndim, order=last)
    n, *rest = call.strides.x
    tiles = {
        select(replace(call, strides=replace(call.strides, x=(apart, *rest))), kernel="mma").tile
        for apart in (n, n + 1, FAR)
    }
    assert len(tiles) == 1


@pytest.mark.parametrize(
    ("kind", "out_channels", "weight", "packed"),
    [
        (KINDS[0], 128, as_packed, True),
        (KINDS[0], 24, as_packed, True),
        (KINDS[0], 12, as_packed, False),  # 8 neighbours would belong to two taps
        (KINDS[2], 12, as_packed, True),
        (KINDS[0], 128, contiguous, False),
        (KINDS[0], 128, lambda shape: tuple(3 * s for s in as_packed(shape)), False),
        (KINDS[0], 128, lambda shape: (as_packed(shape)[0] + 1, *as_packed(shape)[1:]), False),
    ],
)
def test_output_channels_are_copied_at_once_where_16_bytes_are_aligned_and_of_one_tap(
    kind, out_channels, weight, packed
):
    s = select(a_call(80, kind, out_channels=out_channels, weight=weight)).specialisation
    assert s["WEIGHT_PACKED"] == packed
    assert s["WEIGHT_VECTOR"] == (16 // kind[0].itemsize if packed else 1)


@pytest.mark.parametrize(
    ("out_channels", "order", "interleaved"),
    [(64, contiguous, True), (8, contiguous, True), (24, contiguous, False), (64, last, False)],
)
def test_phases_are_stored_together_where_a_block_has_all_of_the_last_axis(
    out_channels, order, interleaved
):
    call = a_call(80, KINDS[0], out_channels=out_channels, order=order, weight=as_packed)
    s = select(call, tile=TILES[2][0], kernel="mma").specialisation
    assert s["INTERLEAVED"] == interleaved


@pytest.mark.parametrize(
    ("kind", "stride", "pad", "order", "vector"),
    [
        (KINDS[0], 2, 0, contiguous, 2),
        (KINDS[2], 2, 0, contiguous, 2),
        (KINDS[0], 4, 0, contiguous, 4),
        (KINDS[0], 4, 8, contiguous, 4),
        (KINDS[2], 8, 0, contiguous, 4),  # 16 bytes
        (KINDS[0], 3, 0, contiguous, 1),
        (KINDS[0], 2, 1, contiguous, 1),  # phase 0 is the second of a pair
        (KINDS[0], 2, 0, last, 8),  # channels
    ],
)
def test_phases_that_begin_with_the_first_are_stored_by_vectors(kind, stride, pad, order, vector):
    call = a_call(80, kind, ndim=1, out_channels=8, order=order)
    g = replace(call.geometry, stride=(stride,), pad_begin=(pad,), out_size=(9 * stride,))
    strides = replace(call.strides, out=order(g.out_shape))
    s = select(replace(call, geometry=g, strides=strides), kernel="mma").specialisation
    assert s["OUT_VECTOR"] == vector


@pytest.mark.slow
@pytest.mark.nvrtc
@pytest.mark.parametrize("capability", [75, 90, 120])
def test_little_spills_with_wide_offsets_whether_operands_are_gathered_or_copied(capability):
    from tconv.gpu import compile

    calls = [a_call(capability, kind, far=True) for kind in kinds_of(capability)]
    calls += [a_call(capability, kind, order=last, far=True) for kind in kinds_of(capability)[2:3]]
    calls += [
        a_call(capability, kind, order=order, weight=as_packed, far=True)
        for kind in kinds_of(capability)
        for order in (contiguous, last)
    ]
    for call in calls:
        s = select(call, kernel="mma").specialisation
        assert s.index_bits == 64
        assert (s["WEIGHT_VECTOR"] == 1) != s["WEIGHT_PACKED"]
        _, log = compile.compiled(
            source(s), compile.architecture(capability), "--ptxas-options=-v"
        )
        spilled = max(map(int, re.findall(r"(\d+) bytes spill", log)))
        # A tile is the same whether offsets are wide or not, at the price of a few registers.
        assert spilled <= (64 if s.dtype == "float32" and s["WEIGHT_VECTOR"] == 1 else 0)
        assert "warning" not in log
