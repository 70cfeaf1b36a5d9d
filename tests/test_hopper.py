"""The hopper kernel computes the definition, on the stand-in for Hopper.

It is off until it has run on a GPU, so every test asks for it by name.
"""

import os
from dataclasses import replace
from math import prod

import numpy as np
import pytest

import cases
import oracle
import standin
from cuda_device import Cuda
from layouts import channels_last, packed
from standin import Recorder, Standin
from tconv import gpu
from tconv.gpu import launch
from tconv.gpu.call import contiguous
from tconv.gpu.families import hopper
from tconv.gpu.source import read

HALVES = cases.FLOATS[:2]
COUNT = int(os.environ.get("TCONV_CASES", "120"))
SMALL = [
    case
    for case in (*cases.NAMED, *cases.random_cases(COUNT, seed=5))
    if 0 not in (*case.x, *case.weight)
]
LARGE = [
    cases.Case("two steps", "channels, columns and rows that no tile divides",
               (2, 72, 9, 11), (72, 136, 4, 4), {"stride": 2, "padding": 1}),
    cases.Case("groups", "a group's last channels lie before another group's first ones",
               (1, 40, 7, 6), (40, 24, 3, 3), {"stride": 2, "groups": 2, "output_padding": 1}),
    cases.Case("many small maps", "several images in one tile",
               (11, 64, 4, 4), (64, 64, 4, 4), {"stride": 2, "padding": 1}),
    cases.Case("vocoder", "1-D, several tiles, halos at both ends",
               (1, 128, 200), (128, 64, 16), {"stride": 8, "padding": 4}),
    cases.Case("volume", "boxes of five axes",
               (1, 16, 5, 6, 7), (16, 40, 2, 2, 2), {"stride": 2}),
    cases.Case("far taps", "shifts that leave out many", (1, 8, 300), (8, 16, 5),
               {"stride": 3, "dilation": 40, "padding": ((7, 2),)}),
]  # fmt: skip


def compile_all():
    """Compile in a few units what most tests need, instead of one by one."""
    recorder = Recorder(capability=90)
    for case in (*SMALL[:40], *LARGE, *cases.SHARED_WEIGHTS):
        for dtype in HALVES:
            for tile in (None, *hopper.TILES):
                compute(recorder, case, case.integers(dtype, np.random.default_rng(0)), tile=tile)
    Standin(capability=90).prepare(recorder.launched)


@pytest.fixture(scope="session")
def compiled():
    standin.skip_without_compiler()
    compile_all()


@pytest.fixture(params=["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda":
        cuda = Cuda()
        if cuda.device.capability != 90:
            pytest.skip("needs compute capability 9.0")
        return cuda
    request.getfixturevalue("compiled")
    return Standin(capability=90)


def compute(device, case, arrays, *, tile=None, out=None, **call):
    """Return the kernel's result on arrays that lie as the copy engine wants them."""
    x, weight, bias = arrays
    verb = device.verbs("hopper", tile)
    x, weight = channels_last(x, weight.ndim - 2), packed(weight)
    return verb(x, weight, bias, out=out, **case.call, **call)


def poison(shape, dtype):
    return np.full(shape, np.nan, dtype)


def nhwc(shape, dtype, ndim):
    """Return poison whose channels are nearest, so that the copy engine stores it."""
    return channels_last(poison(shape, dtype), ndim)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_small_geometries_are_exact_on_integers(device, case, rng):
    for dtype in HALVES:
        arrays = case.integers(dtype, rng)
        answer = oracle.transposed_conv(*arrays, **case.call)
        for out in (nhwc(answer.shape, dtype, len(case.weight) - 2), poison(answer.shape, dtype)):
            assert compute(device, case, arrays, out=out) is out
            oracle.assert_exact(out, answer, dtype)


@pytest.mark.parametrize("tile", hopper.TILES, ids=str)
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_every_tile_is_exact_on_integers(device, case, tile, rng):
    for dtype in HALVES:
        arrays = [a.astype(dtype) for a in integers(case, rng)]
        answer = oracle.transposed_conv(*arrays, **case.call)
        oracle.assert_exact(compute(device, case, arrays, tile=tile), answer, dtype)


def integers(case, rng):
    """Return whole numbers so small that long sums are exact."""
    return [rng.integers(-2, 3, n) for n in (case.x, case.weight, case.out_channels)]


@pytest.mark.parametrize(("room", "shift"), [(0, 0), (2, 0), (3, 0), (8, 0), (0, 1)])
def test_nothing_is_written_but_the_result(device, room, shift, rng):
    # By the copy engine, in pairs and singly, as the distance between positions allows.
    case = LARGE[1]
    arrays = [a.astype("f2") for a in integers(case, rng)]
    answer = oracle.transposed_conv(*arrays, **case.call)
    n, m, h, w = answer.shape
    shape = (n + 1, h + 1, w + 1, m + room)
    buffer = np.full(prod(shape) + shift, 77, "f2")[shift:].reshape(shape)  # aligned, or not
    expected = buffer.copy()
    compute(device, case, arrays, out=buffer[:n, :h, :w, :m].transpose(0, 3, 1, 2))
    expected[:n, :h, :w, :m] = answer.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(buffer, expected)


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_reals_lie_within_the_bound(device, case, rng):
    for dtype in HALVES:
        arrays = case.reals(dtype, rng)
        answer = oracle.transposed_conv(*arrays, **case.call)
        limit = oracle.bound(*arrays, sums="tensor cores", **case.call)
        oracle.assert_within(compute(device, case, arrays), answer, limit)


def vanishing(place):
    """Return a one and products just below 2^-23, which may vanish where the one comes first."""
    x, weight = np.full((1, 4096, 4), 2**-12, "f2"), np.full((4096, 8, 4), 2**-11, "f2")
    weight = np.nextafter(weight, np.float16(0))
    weight[0], x[0, 0, place] = 1, 1
    return cases.Case("long", "", x.shape, weight.shape, {"padding": 3}), (x, weight, None)


@pytest.mark.parametrize("place", [0, -1])
def test_long_sums_of_one_sign_lie_within_the_bound(device, place):
    case, arrays = vanishing(place)
    answer = oracle.transposed_conv(*arrays, **case.call)
    limit = oracle.bound(*arrays, sums="tensor cores", **case.call)
    oracle.assert_within(compute(device, case, arrays), answer, limit)


@pytest.mark.usefixtures("compiled")
def test_the_tests_cut_long_sums_off():
    case, arrays = vanishing(-1)
    assert (compute(Standin(capability=90), case, arrays) < 1 + 2**-9).all()
    assert (oracle.transposed_conv(*arrays, **case.call) > 1 + 2**-9).all()


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
def test_activations_lie_within_their_bound(device, name, rng):
    case = LARGE[1]
    for dtype in HALVES:
        arrays = case.reals(dtype, rng)
        answer = oracle.transposed_conv(*arrays, activation=name, **case.call)
        limit = oracle.bound(*arrays, activation=name, sums="tensor cores", **case.call)
        y = compute(device, case, arrays, activation=name)
        oracle.assert_within(y, answer, limit)


@pytest.mark.parametrize("case", SMALL[::8], ids=str)
@pytest.mark.parametrize("intruder", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_only_the_outputs_that_they_take_part_in(
    device, case, intruder, rng
):
    for place in (0, 1):
        arrays = [np.ones(case.x, "f2"), np.ones(case.weight, "f2"), None]
        arrays[place].flat[rng.integers(arrays[place].size)] = intruder
        answer = oracle.transposed_conv(*arrays, **case.call)
        for out in (nhwc(answer.shape, "f2", len(case.weight) - 2), poison(answer.shape, "f2")):
            compute(device, case, arrays, out=out)
            np.testing.assert_array_equal(out.astype(float), answer)


def test_an_item_gives_the_same_bits_alone_and_in_any_batch(device, rng):
    case = LARGE[2]
    x, weight, bias = case.reals(np.dtype("f2"), rng)
    together = compute(device, case, (x, weight, bias))
    for n in (0, 3, 10):
        alone = compute(device, case, (x[n : n + 1], weight, bias))
        assert alone.tobytes() == np.ascontiguousarray(together[n : n + 1]).tobytes()


@pytest.mark.usefixtures("compiled")
def test_the_order_in_which_threads_and_copies_arrive_changes_no_bit(rng):
    case = LARGE[0]
    arrays = case.reals(np.dtype("f2"), rng)
    results = {
        compute(Standin(capability=90, seed=seed, late=late), case, arrays).tobytes()
        for seed in range(3)
        for late in (False, True)
    }
    assert len(results) == 1


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("multiprocessors", [1, 2, 1000])
def test_any_number_of_blocks_shares_the_tiles(multiprocessors, rng):
    case = LARGE[0]
    arrays = [a.astype("f2") for a in integers(case, rng)]
    device = Standin(capability=90)
    device.multiprocessors = multiprocessors
    answer = oracle.transposed_conv(*arrays, **case.call)
    for tile in hopper.TILES:
        oracle.assert_exact(compute(device, case, arrays, tile=tile), answer, np.dtype("f2"))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("late", [False, True], ids=["early copies", "late copies"])
@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("case", cases.SHARED_WEIGHTS, ids=str)
def test_blocks_share_weights_whether_or_not_there_are_rows_for_the_last_one(
    case, images, late, rng
):
    case = replace(case, x=(images, *case.x[1:]))
    arrays = case.integers(HALVES[0], rng)
    answer = oracle.transposed_conv(*arrays, **case.call)
    for tile in hopper.TILES:
        device = Standin(capability=90, late=late, seed=images)
        out = nhwc(answer.shape, "f2", 1)
        compute(device, case, arrays, tile=tile, out=out)
        oracle.assert_exact(out, answer, out.dtype)


@pytest.mark.usefixtures("compiled")
def test_finite_sums_are_never_computed_anew(rng):
    # Else a wrong tile that holds a NaN would be mended without a word.
    loop = read("gather.cuh").replace("return sum;", "return sum + 1000;")
    device = Standin(capability=90, texts={"gather.cuh": loop})
    case = LARGE[0]
    arrays = [a.astype("f2") for a in integers(case, rng)]
    answer = oracle.transposed_conv(*arrays, **case.call)
    oracle.assert_exact(compute(device, case, arrays), answer, np.dtype("f2"))


@pytest.mark.usefixtures("compiled")
def test_items_may_lie_2_to_the_31_elements_apart(rng):
    case = LARGE[0]
    arrays = [a.astype("f2") for a in integers(case, rng)]
    answer = oracle.transposed_conv(*arrays, **case.call)
    far = np.zeros(2**31 + answer[0].size, np.float16)  # untouched pages take no memory
    steps = (2**32, *(2 * n for n in contiguous(answer.shape)[1:]))
    out = np.lib.stride_tricks.as_strided(far, answer.shape, steps)
    device = Standin(capability=90)
    oracle.assert_exact(compute(device, case, arrays, out=out), answer, out.dtype)
    assert device.launched[0].index_bits == 64


# --- other orders of memory -----------------------------------------------------------------------

OTHER = [
    cases.Case("single channels", "copies that are filled up to 16 bytes",
               (3, 1, 9, 70), (1, 1, 3, 3), {"stride": 2}),
    cases.Case("more than a square", "sides that no square divides",
               (2, 72, 9, 11), (72, 136, 4, 4), {"stride": 2, "padding": 1}),
]  # fmt: skip


@pytest.mark.parametrize("case", [*SMALL[::6], *LARGE, *OTHER], ids=str)
def test_arrays_in_other_orders_are_copied_first(device, case, rng):
    for dtype in HALVES:
        arrays = [a.astype(dtype) for a in integers(case, rng)]
        answer = oracle.transposed_conv(*arrays, **case.call)
        for x, weight, bias in (arrays, reversed_axes(*arrays)):
            out = poison(answer.shape, dtype)
            device.verbs("hopper")(x, weight, bias, out=out, **case.call)
            oracle.assert_exact(out, answer, dtype)


def reversed_axes(x, weight, bias):
    """Return x and weight with channels and items the other way round, and filters flipped."""
    x = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1] if x.ndim == weight.ndim else x
    taps = (slice(None), slice(None), *[slice(None, None, -1)] * (weight.ndim - 2))
    return x, np.ascontiguousarray(weight[taps])[taps], bias


@pytest.mark.usefixtures("compiled")
def test_a_copy_may_be_read_2_to_the_31_elements_apart(rng):
    case = LARGE[2]
    x, weight, bias = (a.astype("f2") for a in integers(case, rng))
    far = np.zeros(2**31 + x[0].size, np.float16)  # untouched pages take no memory
    apart = 2**32 // (len(x) - 1) // 32 * 32
    steps = (apart, *(2 * n for n in contiguous(x.shape)[1:]))
    spread = np.lib.stride_tricks.as_strided(far, x.shape, steps)
    spread[...] = x
    device = Standin(capability=90)
    y = device.verbs("hopper")(spread, weight, bias, **case.call)
    oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), y.dtype)
    assert [(s.kernel, s.index_bits) for s in device.launched] == [
        ("transpose", 64), ("transpose", 32), ("hopper", 32),
    ]  # fmt: skip


@pytest.mark.usefixtures("compiled")
def test_both_copies_lie_in_one_workspace(rng):
    case = LARGE[0]
    x, weight, bias = (a.astype("f2") for a in integers(case, rng))
    device, given = Standin(capability=90), []

    def workspace(size):
        given.append(device.empty((size,), np.uint8))
        return given[-1]

    geometry = gpu.plan(case.x, case.weight, "float16", **case.call).geometry
    y = launch.transposed_conv(
        x, weight, bias, geometry, activation=None, precision=None, out=None,
        device=device, kernel="hopper", workspace=workspace,
    )  # fmt: skip
    oracle.assert_exact(y, oracle.transposed_conv(x, weight, bias, **case.call), y.dtype)
    (memory,) = given
    copied = memory[: 2 * x.size].view("f2").reshape(2, 9, 11, 72)
    np.testing.assert_array_equal(copied, x.transpose(0, 2, 3, 1))
    packed_bytes = memory[-2 * weight.size :]
    assert memory.nbytes - packed_bytes.nbytes == -(-2 * x.size // 256) * 256
