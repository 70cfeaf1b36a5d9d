"""Which calls Hopper's kernel takes, what is copied for it, and what it is told."""

import ctypes
import re
from dataclasses import replace
from math import prod
from types import SimpleNamespace

import numpy as np
import pytest

from standin import Recorder
from tconv import gpu
from tconv._geometry import Geometry
from tconv.commands.bench import suite
from tconv.gpu import tensor_map
from tconv.gpu.call import Call, Strides, contiguous
from tconv.gpu.families import hopper
from tconv.gpu.params import boxes_layout, boxes_params
from tconv.gpu.select import select
from tconv.gpu.source import source
from test_hopper import HALVES, LARGE, compute

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


def test_items_too_oddly_apart_are_copied_since_one_alone_is_computed(monkeypatch):
    monkeypatch.setenv(hopper.SWITCH, "1")
    little = {"kernel_size": (2, 2), "in_channels": 128, "out_channels": 64}
    n, *rest = last(vae(**little).geometry.x_shape)
    alone, together = (
        select(vae(**little, batch=batch, x=(apart, *rest)))
        for batch, apart in ((1, 0), (8, n + 1))
    )
    assert (alone.specialisation.kernel, alone.transpositions) == ("hopper", ())
    assert together.specialisation.kernel == "hopper"
    assert [one.argument for one in together.transpositions] == [0]


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


@pytest.mark.parametrize("name", ["unet-top", "vae-up", "hifigan-1", "nnunet-top"])
def test_layers_of_real_models_take_it_once_it_is_switched_on(name, monkeypatch):
    monkeypatch.setenv(hopper.SWITCH, "1")
    g = next(layer.geometry for layer in suite.load(cpu=False) if layer.name == name)
    strides = Strides(last(g.x_shape), taps_last(g.weight_shape), 1, last(g.out_shape))
    call = Call(g, "float16", strides, capability=90)
    assert select(call).specialisation.kernel == "hopper"


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
