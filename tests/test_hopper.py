"""The hopper kernel computes the definition, on the stand-in for Hopper, and says when it cannot.

It is off until it has run on a GPU, so every test asks for it by name.
"""

import ctypes
import os
import re
from dataclasses import replace
from math import prod
from types import SimpleNamespace

import numpy as np
import pytest

import cases
import oracle
import standin
from cuda_device import Cuda
from layouts import channels_last, packed
from standin import Recorder, Standin
from tconv import gpu
from tconv._geometry import Geometry
from tconv.gpu import launch, tensor_map
from tconv.gpu.call import Call, Strides, contiguous
from tconv.gpu.families import hopper
from tconv.gpu.params import boxes_layout, boxes_params
from tconv.gpu.select import select
from tconv.gpu.source import read, source

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


COPIES = [
    ({}, ()),
    ({"x": contiguous((8, 512, 32, 32))}, (0,)),
    ({"weight": contiguous((512, 256, 4, 4))}, (1,)),
    ({"in_channels": 12}, (0,)),
    ({"out_channels": 12}, (1,)),
    ({"x": (0, 1, 512 * 32, 512), "weight": (0, 1, 4 * 2**17, 2**17)}, (0, 1)),
]


@pytest.mark.parametrize(("changes", "copied"), COPIES, ids=str)
def test_what_the_copy_engine_cannot_follow_is_copied(changes, copied):
    call = vae(**changes)
    choice = hopper.choose(call, asked=True)
    assert tuple(one.argument for one in choice.transpositions) == copied
    assert ("copied in another order first" in choice.reason) == bool(copied)
    assert (choice.strides is None) == (not copied)
    assert [s.kernel for s, _ in choice.passes] == ["transpose"] * len(copied) + ["hopper"]


@pytest.mark.parametrize(
    ("changes", "pays"),
    [
        ({}, True),
        ({"batch": 100}, True),
        ({"kernel_size": (2, 2), "in_channels": 128, "out_channels": 64}, False),  # little to do
        ({"in_size": (2, 2), "out_size": (4, 4)}, False),  # as many weights as products
    ],
    ids=str,
)
def test_arguments_are_copied_where_products_are_many(monkeypatch, changes, pays):
    monkeypatch.setenv(hopper.SWITCH, "1")
    g = vae(**changes).geometry
    call = vae(**changes, x=contiguous(g.x_shape), weight=contiguous(g.weight_shape))
    choice = select(call)
    assert (choice.specialisation.kernel == "hopper") == pays
    if not pays:
        why = "not hopper: copying x and the weight in another order first would take longer"
        assert choice.refusals[0].startswith(why)


# --- selection ------------------------------------------------------------------------------------


def vae(**changes):
    """Return a layer as it lies when it is packed and channels-last."""
    g = Geometry(batch=8, groups=1, in_channels=512, out_channels=256, in_size=(32, 32),
                 kernel_size=(4, 4), stride=(2, 2), dilation=(1, 1), pad_begin=(1, 1),
                 out_size=(64, 64))  # fmt: skip
    options = {name: changes.pop(name) for name in ("capability", "dtype") if name in changes}
    lying = {name: changes.pop(name) for name in ("x", "weight", "out") if name in changes}
    g = replace(g, **changes)
    strides = Strides(last(g.x_shape), taps_last(g.weight_shape), 1, last(g.out_shape))
    options = {"dtype": "bfloat16", "capability": 90, **options}
    return Call(g, strides=replace(strides, **lying), **options)


def last(shape):
    n, *spatial, c = contiguous((shape[0], *shape[2:], shape[1]))
    return n, c, *spatial


def taps_last(shape):
    *taps, c, m = contiguous((*shape[2:], *shape[:2]))
    return c, m, *taps


def test_it_is_off_until_it_is_switched_on(monkeypatch):
    monkeypatch.delenv(hopper.SWITCH, raising=False)
    choice = select(vae())
    assert choice.specialisation.kernel != "hopper"
    assert f"not hopper: {hopper.SWITCH} is not 1" in "; ".join(choice.refusals)
    monkeypatch.setenv(hopper.SWITCH, "1")
    assert select(vae()).specialisation.kernel == "hopper"


def test_a_plan_shows_why_it_was_not_chosen(monkeypatch):
    monkeypatch.setenv(hopper.SWITCH, "1")
    text = str(gpu.plan((1, 64, 8, 8), (64, 64, 2, 2), "float16", stride=2, capability=90))
    assert "            not hopper: copying x and the weight in another order first would" in text
    assert "asynchronous copies" in text


def test_a_plan_shows_what_is_copied(monkeypatch):
    monkeypatch.setenv(hopper.SWITCH, "1")
    shapes = (8, 512, 64, 64), (512, 256, 4, 4)
    text = str(gpu.plan(*shapes, "float16", stride=2, padding=1, capability=90))
    assert "share their weights; x and the weight are copied in another order first" in text
    assert "copies of whole boxes" in text


REFUSED = [
    ({"capability": 80}, "wgmma needs compute capability 9.0"),
    ({"capability": 100}, "wgmma needs compute capability 9.0"),
    ({"dtype": "float32"}, "wgmma multiplies float16 and bfloat16, not float32"),
    ({"in_channels": 0}, "there are no input channels"),
    ({"x": (512 * 32 * 32, 1, -512 * 32, 512)}, "x must be channels-last"),
    ({"x": contiguous((8, 512, 32, 40))}, "x must be channels-last"),
    ({"weight": (256, 1, 2**17, 2**20)}, "the weight must be packed"),
    ({"batch": 2**31, "x": (0, 1, 512 * 32, 512)}, "the copy engine counts in 32 bits"),
    ({"pad_begin": (-(2**33), 1)}, "the copy engine counts in 32 bits"),
]


@pytest.mark.parametrize(("changes", "why"), REFUSED, ids=str)
def test_it_refuses_what_the_hardware_cannot_and_says_why(changes, why):
    with pytest.raises(ValueError, match=f"^the hopper kernel cannot compute this: {why}"):
        select(vae(**changes), kernel="hopper")


def test_it_leaves_few_output_channels_to_others(monkeypatch):
    monkeypatch.setenv(hopper.SWITCH, "1")
    choice = select(vae(out_channels=24))
    assert choice.refusals[0] == (
        "not hopper: only 38% of the columns in the hopper kernel's tiles are wanted"
    )


def test_neither_the_batch_nor_the_image_size_compiles_anything():
    chosen = {
        select(vae(batch=n, in_size=(s, s), out_size=(2 * s, 2 * s)), kernel="hopper")
        for n in (1, 7)
        for s in (5, 32, 100)
    }
    assert len(chosen) == 6
    assert len({choice.specialisation for choice in chosen}) == 1


CLUSTERS = [
    ({"out_channels": 64}, 1, "100% of the columns in the hopper kernel's tiles are wanted"),
    ({"out_channels": 128}, 2, "100% of the .* are wanted; 2 blocks share their weights"),
    ({"out_channels": 512}, 2, "100% of the .* are wanted; 2 blocks share their weights"),
]


@pytest.mark.parametrize(("changes", "blocks", "reason"), CLUSTERS, ids=str)
@pytest.mark.parametrize("images", [1, 4, 5, 9])
def test_wide_tiles_have_clusters_and_rows_are_filled_up_to_whole_ones(
    changes, blocks, reason, images
):
    # Five images of 5 x 5 are one box.
    call = vae(batch=images, in_size=(5, 5), out_size=(10, 10), **changes)
    choice = select(call, kernel="hopper")
    assert choice.boxes.count == -(-images // 5)
    assert choice.specialisation["CLUSTER"] == blocks
    assert choice.row_blocks == -(-choice.boxes.count // blocks) * blocks
    assert choice.blocks == 4 * choice.column_blocks * choice.row_blocks
    struct = boxes_params(choice.boxes, choice, call)
    assert struct["clusters"]["divisor"] * blocks == choice.row_blocks
    assert re.fullmatch(reason, hopper.choose(call, asked=True).reason)


def test_a_slice_of_a_wider_array_is_read_where_it_lies():
    wider = (1024 * 32 * 32, 1, 1024 * 32, 1024)
    choice = select(vae(x=wider), kernel="hopper")
    assert choice.boxes.x.strides == (2048, 2048 * 32, 2048 * 32 * 32)


STORES = [
    ({}, 4, 8),
    ({"batch": 1, "pad_begin": (0, 0), "out_size": (3, 1), "stride": (4, 4)}, 3, 8),
    ({"out": last((8, 264, 64, 64))}, 4, 8),
    ({"out": last((8, 258, 64, 64))}, 0, 2),
    ({"out": contiguous((8, 256, 64, 64))}, 0, 1),
    ({"groups": 4}, 4, 8),
    ({"stride": (8, 8), "out_size": (256, 256)}, 0, 2),
    # Phases whose elements lie 16 bytes apart but begin 8 bytes apart.
    ({"out_channels": 4, "weight": (8, 1, 2**14, 2**12)}, 0, 2),
]


@pytest.mark.parametrize(("changes", "maps", "vector"), STORES, ids=str)
def test_the_copy_engine_stores_where_it_can(changes, maps, vector):
    choice = select(vae(**changes), kernel="hopper")
    assert len(choice.boxes.out) == choice.specialisation["OUT_MAPS"] == maps
    assert choice.specialisation["OUT_VECTOR"] == vector


def test_each_phase_is_a_view_of_the_result():
    shape = (2, 9, 11, 16)  # memory order
    g = Geometry(2, 1, 16, 16, (4, 4), (3, 3), (2, 3), (1, 1), (1, 2), shape[1:3])
    strides = Strides(last(g.x_shape), taps_last(g.weight_shape), 1, last((2, 16, 9, 11)))
    choice = select(Call(g, "float16", strides, capability=90), kernel="hopper")
    result = np.full(shape, -1, "i2")
    for number, one in enumerate(choice.boxes.out):
        steps = (*reversed(one.strides), 2)
        assert one.offset % 16 == 0
        view = np.lib.stride_tricks.as_strided(
            result.reshape(-1)[one.offset // 2 :], tuple(reversed(one.sizes)), steps
        )
        assert (view == -1).all()
        view[...] = number
    o = np.indices(shape)[1:3]
    np.testing.assert_array_equal(result, (o[0] + 1) % 2 * 3 + (o[1] + 2) % 3)


@pytest.mark.parametrize("tile", hopper.TILES, ids=str)
def test_the_stages_fit_the_shared_memory_of_a_block(tile):
    choice = select(vae(), kernel="hopper", tile=tile)
    assert choice.specialisation.shared_bytes <= 227 << 10
    assert choice.specialisation["STAGES"] >= 3


Q_SIZES = [(1,), (127,), (128,), (129,), (441_000,), (4, 4), (33, 33), (257, 3), (1, 500), (64, 64),
           (2, 3, 5), (9, 10, 11), (100, 1, 7)]  # fmt: skip


@pytest.mark.parametrize("q_sizes", Q_SIZES, ids=str)
def test_boxes_cover_all_positions_and_fit_a_tile(q_sizes):
    images, sizes = hopper._row_box(q_sizes)
    assert images * prod(sizes) <= hopper.ROWS
    assert images == 1 or sizes == q_sizes
    assert all(1 <= size <= q for size, q in zip(sizes, q_sizes, strict=True))
    boxes = prod(-(-q // size) for q, size in zip(q_sizes, sizes, strict=True))
    assert prod(q_sizes) > hopper.ROWS or boxes == 1
    assert boxes * hopper.ROWS < 2.1 * prod(q_sizes) + hopper.ROWS


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_struct_of_boxes_has_no_holes(axes, bits):
    assert boxes_layout(axes, bits).itemsize == (10 + 6 * axes) * bits // 8


def test_the_struct_of_boxes_holds_what_was_chosen():
    call = vae(batch=9)
    choice = select(call, kernel="hopper")
    struct = boxes_params(choice.boxes, choice, call)
    assert struct["batch"] == 9
    assert struct["tiles"] == choice.blocks == 4 * choice.row_blocks
    assert struct["rows"] <= hopper.ROWS
    covered = (
        struct["axis"]["size"]["divisor"][0] * struct["axis"]["count"]["divisor"][0]
    )
    assert covered.tolist() == [32, 32]


class Driver:
    """Takes what the driver would be told."""

    def __init__(self, status=0):
        self.status = status

    def cuTensorMapEncodeTiled(self, *arguments):
        encoded, dtype, rank, address, *arrays = arguments[:8]
        self.told = {
            "dtype": dtype.value, "rank": rank.value, "address": address.value,
            **{name: list(a) for name, a in zip(("sizes", "strides", "box", "steps"), arrays,
                                                strict=True)},
            "rest": [a.value for a in arguments[8:]],
        }  # fmt: skip
        assert encoded.value % 64 == 0
        ctypes.memset(encoded, 7, 128)
        return self.status


@pytest.fixture
def driver(monkeypatch):
    driver = Driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    forget()
    yield driver
    forget()


def forget():
    tensor_map._encode_tiled.cache_clear()
    tensor_map.encode.cache_clear()


def test_the_driver_is_told_what_a_tensor_map_says(driver):
    boxes = select(vae(), kernel="hopper").boxes
    encoded = tensor_map.encode((boxes.x,), 0x7000)
    assert encoded.tobytes() == bytes([7] * 128)
    assert encoded.size == 1
    assert driver.told == {
        "dtype": 9, "rank": 4, "address": 0x7000, "sizes": [512, 32, 32, 8],
        "strides": [1024, 1024 * 32, 1024 * 32 * 32], "box": [64, 16, 8, 1],
        "steps": [1, 1, 1, 1], "rest": [0, 3, 2, 0],
    }  # fmt: skip
    tensor_map.encode((replace(boxes.weight, dtype="float16"),), 0x9000)
    assert driver.told["dtype"] == 6
    assert driver.told["sizes"] == [256, 512, 1, 16]
    assert driver.told["box"] == [64, 64, 1, 1]


def test_the_driver_is_told_that_an_axis_of_one_element_lies_beyond_the_axis_before_it(driver):
    call = vae(batch=1, in_size=(32, 1), in_channels=12, x=(12 * 40, 1, 40, 40), groups=1)
    tensor_map.encode((select(call, kernel="hopper").boxes.x,), 0x7000)
    assert driver.told["sizes"] == [12, 1, 32, 1]
    assert driver.told["strides"] == [32, 80, 80 * 32]
    tensor_map.encode((select(vae(kernel_size=(1, 1)), kernel="hopper").boxes.weight,), 0x7000)
    assert driver.told["sizes"] == [256, 512, 1, 1]
    assert driver.told["strides"] == [512, 512 * 512, 512 * 512]


def test_the_driver_is_told_once_of_an_array_at_an_address(driver):
    maps = select(vae(), kernel="hopper").boxes.out
    first = tensor_map.encode(maps, 0x7000)
    driver.told = None
    again = tensor_map.encode(select(vae(), kernel="hopper").boxes.out, 0x7000)
    assert driver.told is None
    assert again.tobytes() == first.tobytes()
    tensor_map.encode(maps, 0x9000)
    assert driver.told["address"] == 0x9000 + maps[-1].offset


def test_a_refusal_of_the_driver_is_an_error(driver):
    driver.status = 1
    boxes = select(vae(), kernel="hopper").boxes
    with pytest.raises(RuntimeError, match=r"^cuTensorMapEncodeTiled refuses TensorMap.*error 1$"):
        tensor_map.encode((boxes.x,), 0x7000)


@pytest.mark.nvrtc
@pytest.mark.parametrize(
    ("case", "tile", "dtype", "activation"),
    [(LARGE[0], hopper.TILES[0], HALVES[0], "gelu"), (LARGE[0], hopper.TILES[1], HALVES[1], None),
     (LARGE[0], hopper.TILES[2], HALVES[0], None), (LARGE[3], hopper.TILES[0], HALVES[1], None),
     (LARGE[4], hopper.TILES[0], HALVES[1], None)],
    ids=str,
)  # fmt: skip
def test_it_compiles_for_hopper_without_a_spill_or_a_warning(case, tile, dtype, activation):
    from tconv.gpu import compile

    device = Recorder(capability=90)
    arrays = case.integers(dtype, np.random.default_rng(0))
    compute(device, case, arrays, tile=tile, activation=activation)
    _, log = compile.compiled(source(*device.launched), "sm_90a", "--ptxas-options=-v")
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    assert "warning" not in log
    assert "(C7" not in log


@pytest.mark.slow
@pytest.mark.nvrtc
@pytest.mark.parametrize("out", [None, "channels first"])
@pytest.mark.parametrize("tile", hopper.TILES, ids=str)
def test_wide_offsets_do_not_spill(tile, out):
    from tconv.gpu import compile

    far = 2**32
    _, *rest = contiguous((8, 256, 64, 64)) if out else last((8, 256, 64, 64))
    call = vae(x=(far, 1, 512 * 32, 512), out=(far, *rest))
    specialisation = select(call, kernel="hopper", tile=tile).specialisation
    assert specialisation.index_bits == 64
    _, log = compile.compiled(source(specialisation), "sm_90a", "--ptxas-options=-v")
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    assert "warning" not in log
    assert "(C7" not in log


@pytest.mark.nvrtc
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_its_products_take_the_weights_transposed_and_x_as_it_lies(dtype):
    # The tests' own wgmma does not see the operands that say so.
    from static import sass
    from tconv.gpu import compile

    specialisation = select(vae(dtype=dtype.name, out_channels=64), kernel="hopper").specialisation
    cubin, _ = compile.compiled(source(specialisation), "sm_90a")
    products = [str(one) for one in sass.disassemble(cubin) if one.name == "HGMMA"]
    assert len(products) >= 4
    assert all(".tnspB" in one and ".tnspA" not in one for one in products)


@pytest.mark.nvrtc
def test_it_gets_the_shared_memory_that_it_asks_for(monkeypatch, tmp_path):
    cupy = pytest.importorskip("cupy")
    from tconv.gpu import compile

    function = SimpleNamespace()
    module = SimpleNamespace(get_function=lambda name: function if name == "hopper" else None)
    chip = SimpleNamespace(compute_capability="90", attributes={"MultiProcessorCount": 132})
    monkeypatch.setenv("TCONV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cupy, "RawModule", lambda **_: module)
    monkeypatch.setattr(cupy.cuda, "Device", lambda _: chip)
    specialisation = select(vae(), kernel="hopper").specialisation
    assert compile.CudaDevice(0).kernel(specialisation) is function
    assert function.max_dynamic_shared_size_bytes == specialisation.shared_bytes
