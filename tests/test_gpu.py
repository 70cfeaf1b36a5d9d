"""The way to the card, as far as it goes without one: selection, sources and arguments."""

import re
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import product
from math import prod

import pytest

from tconv import gpu
from tconv._geometry import Geometry
from tconv.commands.bench import suite
from tconv.gpu import planning
from tconv.gpu.call import Call, Strides, contiguous
from tconv.gpu.families import (
    FAMILIES,
    WEIGHT_GRADIENT,
    depthwise_channels_last,
    gemm,
)
from tconv.gpu.families.gemm import MOST_SPLITS, TILES
from tconv.gpu.params import gradient_layout, layout, params
from tconv.gpu.prologue import prologue
from tconv.gpu.select import select
from tconv.gpu.source import kernels, read, source
from test_gpu_compile import any_call

KERNELS = tuple(FAMILIES)
GENERAL = ("gemm", "gather")
"""The kernels that can compute every call."""

SUITE = suite.load(cpu=False)
DOUBLING = Geometry(
    batch=8, groups=1, in_channels=128, out_channels=64, in_size=(256, 256), kernel_size=(2, 2),
    stride=(2, 2), dilation=(1, 1), pad_begin=(0, 0), out_size=(512, 512),
)  # fmt: skip
DEPTHWISE = Geometry(
    batch=8, groups=64, in_channels=64, out_channels=64, in_size=(128, 128), kernel_size=(4, 4),
    stride=(2, 2), dilation=(1, 1), pad_begin=(1, 1), out_size=(256, 256),
)  # fmt: skip


def strides(geometry):
    return Strides(
        x=contiguous(geometry.x_shape),
        weight=contiguous(geometry.weight_shape),
        bias=1,
        out=contiguous(geometry.out_shape),
    )


def choose(geometry, dtype="float32", *, kernel=None, tile=None, **options):
    call = Call(geometry, dtype, strides(geometry), **options)
    return select(call, kernel=kernel, tile=tile)


def chosen(kernel):
    """Return a choice of any kernel, for a layer that it can compute."""
    if kernel.startswith("depthwise"):
        return choose(DEPTHWISE, kernel=kernel)
    g = DOUBLING
    n, h, w, c = contiguous((g.batch, *g.in_size, g.in_channels))
    lying = replace(strides(g), x=(n, c, h, w), weight=(64, 1, 2 * 128 * 64, 128 * 64))
    return select(Call(g, "float16", lying, capability=90), kernel=kernel)


@cache
def plan(name, dtype="float32", **options):
    layer = next(layer for layer in SUITE if layer.name == name)
    g = layer.geometry
    return gpu.plan(g.x_shape, g.weight_shape, dtype, **layer.arguments, **options)


# --- selection ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", SUITE, ids=lambda layer: layer.name)
def test_the_batch_changes_neither_kernel_nor_tile(layer):
    choices = [choose(replace(layer.geometry, batch=n)) for n in (1, 2, 3, 64, 70_000)]
    assert len({(c.specialisation.kernel, c.tile, c.splits) for c in choices}) == 1


def test_neither_the_batch_nor_how_far_its_items_lie_apart_changes_the_order_of_a_sum():
    for seed in range(600):
        call = any_call(seed)
        if call.operation == "weight_gradient":
            continue
        if seed % 3:
            call = replace(call, dtype="float32", precision=(None, "tf32", "tf32x3")[seed % 3])
        alone = order_of_sums(call.item)
        for batch, apart in ((2, 0), (3, 1), (2**31, 0)):
            x, out = ((n + apart, *rest) for n, *rest in (call.strides.x, call.strides.out))
            lying = replace(call.strides, x=x, out=out)
            geometry = replace(call.geometry, batch=batch)
            assert order_of_sums(replace(call, geometry=geometry, strides=lying)) == alone, seed


@pytest.mark.parametrize("kernel", ["direct", "direct_channels_last"])
def test_offsets_have_64_bits_where_the_inputs_of_a_run_reach_so_far_beyond_a_row(kernel):
    g = Geometry(1, 1, 3, 2, (4,), (9,), (1,), (1,), (4,), (4,))
    call = Call(g, "float32", strides(g))
    within_reach = (2**31 - 10_000) // call.axes[0].in_reach
    for between, bits in ((within_reach // 64, 32), (within_reach, 64)):
        lying = replace(call.strides, x=(0, 1, between))
        specialisation = select(replace(call, strides=lying), kernel=kernel).specialisation
        assert specialisation.index_bits == bits


def order_of_sums(call):
    """Return what decides in which order, and in which parts, the terms of a sum are added."""
    choice = select(call)
    constants = dict(choice.specialisation.constants)
    return (
        choice.specialisation.kernel,
        choice.tile and choice.tile.columns,
        choice.phase_columns,
        choice.splits,
        constants.get("DEPTH"),
        constants.get("KERNEL_X"),
    )


@pytest.mark.parametrize("layer", [DOUBLING, DEPTHWISE], ids=["dense", "depthwise"])
def test_all_image_sizes_share_one_specialisation(layer):
    sizes = [(7, 9), (31, 1001), (1, 1), (256, 256), (31, 1000), (4, 8)]
    layers = [replace(layer, in_size=s, out_size=(2 * s[0], 2 * s[1])) for s in sizes]
    assert len({choose(one).specialisation for one in layers}) == 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "complex128"])
def test_layers_with_small_groups_take_the_depthwise_kernel(dtype):
    names = ["fcn8s-depthwise", "centernet-up", "bigvgan-depthwise", "depthwise-47341"]
    if dtype not in ("float64", "complex128"):  # A thread's registers hold fewer of these.
        names += ["kernelbench-72", "kernelbench-73", "kernelbench-75"]
    for name in names:
        choice = plan(name, dtype).choice
        assert choice.specialisation.kernel == "depthwise"
        assert choice.reason.startswith("groups of ")
        assert choice.reason.endswith("memory decides")


def test_the_depthwise_kernel_refuses_what_does_not_suit_it_and_says_why():
    for change, reason in (
        ({"groups": 4}, "groups of 16 to 16 channels are not small"),
        ({"kernel_size": (4, 140)}, "a 4x140 window of these channels does not fit"),
        ({"kernel_size": (400, 40)}, "a 400x40 window of these channels does not fit"),
        ({"stride": (2, 5000)}, "the window is too large"),
        ({"dilation": (3000, 2)}, "the window is too large"),
    ):
        refusals = choose(replace(DEPTHWISE, **change)).refusals
        assert any(text.startswith(f"not depthwise: {reason}") for text in refusals)
        with pytest.raises(ValueError, match=f"^the depthwise kernel cannot .*: {reason}"):
            choose(replace(DEPTHWISE, **change), kernel="depthwise")
    last = plan("centernet-up", channels_last=True).choice
    assert last.specialisation.kernel != "depthwise"
    assert "not depthwise: the last axis is not nearest in memory" in last.refusals


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "complex64"])
def test_single_channels_nearest_in_memory_take_a_kernel_of_their_own(dtype):
    for name in ("fcn8s-depthwise", "centernet-up", "bigvgan-depthwise", "depthwise-47341"):
        choice = plan(name, dtype, channels_last=True).choice
        assert choice.specialisation.kernel == "depthwise_channels_last"
        assert choice.reason == "single channels, nearest in memory: memory decides"
    dense = plan("unet-top", dtype, channels_last=True).choice
    (refusal,) = [text for text in dense.refusals if "depthwise_channels_last" in text]
    assert refusal.endswith("channels are not single channels")


def test_the_kernel_of_single_channels_refuses_what_does_not_suit_it_and_says_why():
    for change, reason in (
        ({"kernel_size": (31, 31), "stride": (1, 1)}, "a 31x31 window does not fit a thread"),
        ({"kernel_size": (64, 64), "stride": (32, 32)}, "a 64x64 window does not fit a thread"),
        ({"stride": (2, 5000)}, "the window is too large"),
        ({"dilation": (3000, 2)}, "the window is too large"),
    ):
        with pytest.raises(ValueError, match=f"^the depthwise_channels_last .*: {reason}"):
            choose(replace(DEPTHWISE, **change), kernel="depthwise_channels_last")
    mixed = replace(strides(DEPTHWISE), x=(64 * 128 * 128, 1, 64 * 128, 64))
    refusals = select(Call(DEPTHWISE, "float32", mixed)).refusals
    assert "not depthwise_channels_last: channels are not nearest in memory" in refusals


def test_single_channels_move_by_16_bytes_where_they_are_aligned_and_registers_allow():
    for name in ("centernet-up", "bigvgan-depthwise"):
        for dtype, elements in (("float32", 4), ("float16", 8), ("float64", 2)):
            s = plan(name, dtype, channels_last=True).choice.specialisation
            assert s["X_VECTOR"] == s["OUT_VECTOR"] == elements
            assert s["WEIGHTS_HELD"]
    assert plan("fcn8s-depthwise", channels_last=True).choice.specialisation["X_VECTOR"] == 1


def test_image_sizes_of_single_channels_share_one_specialisation_and_every_output_has_a_walk():
    found = set()
    for height, width in ((7, 9), (31, 1001), (1, 2), (256, 256), (4, 33)):
        shape = (2, 64, height, width)
        choice = gpu.plan(
            shape, (64, 1, 4, 4), stride=2, padding=1, groups=64, channels_last=True
        ).choice
        s = choice.specialisation
        found.add(s)
        length = depthwise_channels_last.walk(width + 1, choice.row_runs, s["STEP_Q"])
        assert (choice.row_runs - 1) * length < width + 1 <= choice.row_runs * length
        assert choice.group_runs == 2 * (height + 1) * choice.row_runs
        assert choice.row_blocks * (s.threads // 16) >= choice.group_runs
    assert len(found) == 1


def test_the_depthwise_kernel_moves_16_bytes_at_once_in_the_layers_it_was_made_for():
    for dtype, elements in (("float32", 4), ("float16", 8), ("bfloat16", 8)):
        for name in ("centernet-up", "bigvgan-depthwise", "fcn8s-depthwise"):
            chosen = plan(name, dtype).choice.specialisation
            assert chosen["X_VECTOR"] == chosen["OUT_VECTOR"] == elements


def test_every_run_of_the_depthwise_kernel_has_a_thread():
    for name in ("fcn8s-depthwise", "centernet-up", "bigvgan-depthwise", "kernelbench-75"):
        choice, g = plan(name).choice, plan(name).geometry
        s = choice.specialisation
        assert s.threads * s["TILES"] * choice.row_blocks >= choice.group_runs
        assert choice.blocks == g.groups * choice.column_blocks * choice.row_blocks
        run = s["RUN_Q"] * s["STRIDE_X"] * s["PHASES_Y"] * s["OUT_CHANNELS"]
        assert choice.group_runs * choice.column_blocks * g.groups * run >= prod(g.out_shape)


def test_dense_layers_take_the_gemm():
    for name in ("unet-top", "vae-up", "hifigan-1", "nnunet-top", "istft-trt", "fcn8s-dense"):
        choice = plan(name).choice
        assert choice.specialisation.kernel == "gemm"
        (refusal,) = [text for text in choice.refusals if text.startswith("not direct: ")]
        assert refusal.endswith(" of what the next best kernel does") or "does not fit" in refusal


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dense_layers_take_the_tensor_cores_in_half_precision(dtype):
    for name in ("unet-top", "vae-up", "hifigan-1", "nnunet-top", "monai-3d", "fcn8s-dense"):
        assert plan(name, dtype).choice.specialisation.kernel == "mma"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_of_few_output_channels_are_summed_directly_on_fma_units(dtype):
    narrow = () if dtype == "float64" else ("text-sr", "kernelbench-71", "kernelbench-78")
    for name in ("dcgan-rgb", "fsrcnn-x3", "kernelbench-70", *narrow):
        choice = plan(name, dtype).choice
        assert choice.specialisation.kernel == "direct"
        costs = r"few output channels: it costs \d\d% of what the next best kernel does"
        assert re.fullmatch(costs, choice.reason)
    for precision, kernel in ((None, "direct"), ("tf32", "mma"), ("tf32x3", "mma")):
        assert plan("dcgan-rgb", precision=precision).choice.specialisation.kernel == kernel
    assert plan("dcgan-rgb", "float16").choice.specialisation.kernel == "mma"


def test_where_channels_are_nearest_they_are_summed_directly_too_in_groups_as_well():
    for name in ("dcgan-rgb", "fsrcnn-x3", "text-sr", "kernelbench-58", "kernelbench-73"):
        choice = plan(name, channels_last=True).choice
        assert choice.specialisation.kernel == "direct_channels_last"
        assert "not direct: the last axis is not nearest in memory" in choice.refusals
        s = choice.specialisation
        assert s["X_VECTOR"] == (2 if name == "kernelbench-58" else 4)  # what registers hold
    dense = plan("unet-top", channels_last=True).choice
    (refusal,) = [text for text in dense.refusals if "not direct_channels_last: " in text]
    assert refusal.endswith(" of what the next best kernel does")
    assert "not direct_channels_last: channels are not nearest in memory" in plan(
        "unet-top"
    ).choice.refusals


@pytest.mark.parametrize(
    ("channels", "x", "out", "vector", "out_vector"),
    [
        (12, 12, 4, 4, 4),
        (10, 10, 4, 2, 4),
        (9, 9, 4, 1, 4),
        (12, 14, 6, 2, 2),  # slices of wider arrays
        (12, 13, 7, 1, 1),
    ],
)
def test_channels_that_lie_side_by_side_are_moved_together(channels, x, out, vector, out_vector):
    g = gpu.plan((1, channels, 32, 32), (channels, 4, 4, 4), stride=2).geometry
    strides = Strides(
        x=(x * 32 * 32, 1, x * 32, x), weight=contiguous(g.weight_shape), bias=1,
        out=(out * 66 * 66, 1, out * 66, out),
    )  # fmt: skip
    s = select(Call(g, "float32", strides), kernel="direct_channels_last").specialisation
    assert (s["X_VECTOR"], s["OUT_VECTOR"]) == (vector, out_vector)


def test_windows_too_long_for_registers_are_summed_in_parts():
    for dilation, parts in ((1, 4), (2, 8)):
        choice = gpu.plan(
            (1, 64, 8192), (64, 1, 127), padding=63, groups=64, dilation=dilation
        ).choice
        s = choice.specialisation
        assert (s.kernel, s["KERNEL_X"] * s["PARTS_X"], s["PARTS_X"]) == ("direct", 128, parts)
        assert s["KERNEL_X"] * dilation % s["X_VECTOR"] == 0
        assert "not depthwise: a 127 window of these channels does not fit" in str(choice.refusals)


@pytest.mark.parametrize("channels_last", [False, True])
def test_every_run_of_the_direct_kernels_has_a_thread(channels_last):
    for name in ("dcgan-rgb", "fsrcnn-x3", "text-sr", "kernelbench-70"):
        choice, g = plan(name, channels_last=channels_last).choice, plan(name).geometry
        s = choice.specialisation
        assert s.threads * choice.row_blocks >= choice.group_runs
        assert choice.blocks == g.groups * choice.column_blocks * choice.row_blocks
        run = s["RUN_Q"] * s["STRIDE_X"] * s["PHASES_Y"] * s["OUT_CHANNELS"]
        assert choice.group_runs * choice.column_blocks * g.groups * run >= prod(g.out_shape)


@pytest.mark.parametrize("kernel", ["depthwise", "direct", "direct_channels_last"])
def test_windows_take_no_more_shared_memory_than_a_block_has_without_being_asked(kernel):
    fit = 0
    for size, stride, m, dtype in product(
        (2, 7, 16, 33, 64), (1, 2, 8, 32), (1, 4, 8), ("float16", "float32", "complex128")
    ):
        g = gpu.plan((1, 8, 40, 40), (8, m, size, size), dtype, stride=stride).geometry
        with suppress(ValueError):
            assert choose(g, dtype, kernel=kernel).specialisation.shared_bytes <= 48 << 10
            fit += 1
    assert fit > 30


def test_image_sizes_of_few_output_channels_share_one_specialisation():
    sizes = [(7, 9), (31, 1001), (3, 2), (256, 256), (31, 1000), (4, 8)]
    plans = [gpu.plan((2, 64, *s), (64, 3, 4, 4), stride=2, padding=1) for s in sizes]
    (specialisation,) = {plan.choice.specialisation for plan in plans}
    assert specialisation.kernel == "direct"


def test_the_last_block_of_the_depthwise_kernel_may_count_beyond_2_to_the_31_outputs():
    lying = Strides(x=(0, 0, 1), weight=(0, 0, 1), bias=0, out=(0, 0, 1))
    just_below, beyond = (
        select(Call(g, "float32", lying)).specialisation
        for n in (2**30 - 250, 2**31)
        for g in [gpu.plan((1, 1, n), (1, 1, 4), stride=2, padding=1).geometry]
    )
    assert just_below.kernel == "depthwise"
    assert just_below == beyond
    assert just_below.index_bits == 64


def test_blocks_share_long_sums_where_one_item_has_few_tiles():
    for name in ("dcgan-1", "istft-torch", "istft-trt"):
        choice = plan(name).choice
        assert [s.kernel for s, blocks in choice.passes if blocks] == ["gemm", "gemm_sum"]
        assert choice.reason.endswith(f"; {choice.splits} blocks share each of their sums")
        assert choice.blocks == choice.splits * choice.row_blocks * choice.column_blocks
    for name in ("unet-deep", "vae-up", "oobleck-1"):  # short sums, or tiles enough
        choice = plan(name).choice
        assert [s.kernel for s, blocks in choice.passes if blocks] == ["gemm"]
        assert choice.splits == 1
        assert choice.workspace_bytes == 0


@pytest.mark.parametrize("layer", SUITE, ids=lambda layer: layer.name)
def test_blocks_share_sums_alike_on_every_device_and_the_parts_take_little_memory(layer):
    g = layer.geometry
    for dtype in ("float32", "float16", "complex128"):
        choices = [choose(g, dtype, kernel="gemm", capability=c) for c in (75, 80, 90, 120)]
        assert len({c.splits for c in choices}) == 1
        parts = choices[0].workspace_bytes // Call(g, dtype, strides(g)).type.accumulator_bytes
        assert parts <= MOST_SPLITS * prod(g.out_shape)


def test_a_smaller_image_whose_sums_are_shared_compiles_nothing():
    window = replace(DOUBLING, kernel_size=(3, 3), in_channels=512)

    def of(size):
        out_size = tuple(2 * n + 1 for n in size)
        return choose(replace(window, in_size=size, out_size=out_size))

    large, small = of((256, 256)), of((4, 5))
    assert large.splits == 1
    assert small.splits > 1
    assert [s for s, _ in large.passes] == [s for s, _ in small.passes]


def test_few_output_channels_take_a_narrow_tile_that_mixes_phases():
    choice = choose(plan("dcgan-rgb").geometry, kernel="gemm")
    assert choice.tile.columns == 16
    assert choice.phase_columns == 3


def test_gather_computes_what_would_leave_a_tile_nearly_empty():
    kernels = {}
    for channels in (1, 2, 8):
        g = gpu.plan((1, 8 * channels, 9, 9), (8 * channels, channels, 4, 4), groups=8).geometry
        columns_nearest = (planning.lying(shape, 0, 1, 3, 2) for shape in (g.out_shape, g.x_shape))
        x, out = columns_nearest  # so that no other kernel takes it
        mixed = replace(strides(g), x=x, out=out)
        choice = select(Call(g, "float32", mixed, operation="conv"))
        kernels[channels] = choice.specialisation.kernel
        assert (choice.specialisation.kernel == "gather") == any(
            re.fullmatch(r"not gemm: it would cost \d+\.\d times as much as gather", refusal)
            for refusal in choice.refusals
        )
    assert kernels == {1: "gather", 2: "gather", 8: "gemm"}


def test_phases_with_different_taps_get_blocks_of_their_own():
    choice = plan("monai-3d").choice  # k3 s2: 1 to 8 taps
    assert choice.phase_columns % choice.tile.columns == 0


def most_shared_bytes(choice):
    """Return what a block has without being asked for more; on compute capability 8.0 mma asks."""
    return (163 if choice.specialisation.kernel == "mma" else 48) << 10


@pytest.mark.parametrize("layer", SUITE, ids=lambda layer: layer.name)
@pytest.mark.parametrize("kernel", [None, *GENERAL])
def test_every_layer_fits_a_launch(layer, kernel):
    for dtype in ("float16", "float32", "complex128"):
        choice = choose(layer.geometry, dtype, kernel=kernel)
        assert 0 < choice.blocks < 2**31
        assert choice.specialisation.threads <= 1024
        assert choice.specialisation.shared_bytes <= most_shared_bytes(choice)


@pytest.mark.parametrize("channels", [1, 8, 21, 36])
def test_channels_that_leave_a_step_of_the_gemm_unfilled_waste_no_products(channels):
    g = replace(DOUBLING, in_channels=channels)
    choice = gemm.choose(Call(g, "float32", strides(g)))
    assert choice.reason == "100% of the products in the gemm kernel's tiles are wanted"


def test_every_block_of_the_gemm_computes_something_and_all_outputs_have_a_block():
    for layer in SUITE:
        g = layer.geometry
        choice = choose(g, kernel="gemm")
        tile = choice.tile
        covered = g.groups * choice.row_blocks * tile.rows * choice.column_blocks * tile.columns
        assert covered >= prod(g.out_shape)


def test_asynchronous_copies_need_compute_capability_8_and_elements_of_4_bytes():
    assert not choose(DOUBLING, capability=75).specialisation["ASYNC"]
    assert choose(DOUBLING, capability=80).specialisation["ASYNC"]
    assert not choose(DOUBLING, "float16", kernel="gemm", capability=90).specialisation["ASYNC"]


def test_offsets_have_64_bits_only_where_an_array_needs_them():
    small = replace(DOUBLING, batch=100)
    large = replace(DOUBLING, batch=200)  # 200 * 64 * 512 * 512 > 2^31
    assert choose(small).specialisation.index_bits == 32
    assert choose(large).specialisation.index_bits == 64


def test_channels_last_is_read_off_the_strides():
    x, out = DOUBLING.x_shape, DOUBLING.out_shape
    last = [(s[1] * s[2] * s[3], 1, s[3] * s[1], s[1]) for s in (x, out)]
    lying = replace(strides(DOUBLING), x=last[0], out=last[1])
    chosen = select(Call(DOUBLING, "float32", lying))
    assert chosen.specialisation["X_CHANNELS_LAST"]
    assert chosen.specialisation["OUT_CHANNELS_LAST"]
    plain = choose(DOUBLING).specialisation
    assert not plain["X_CHANNELS_LAST"]
    assert not plain["OUT_CHANNELS_LAST"]


def test_a_kernel_asked_for_by_name_is_the_one_that_runs():
    for kernel in KERNELS:
        choice = chosen(kernel)
        assert choice.specialisation.kernel == kernel
        assert choice.reason == "asked for by name"
    tile = TILES[4][2]
    assert choose(DOUBLING, kernel="gemm", tile=tile).tile == tile


# --- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_struct_has_no_holes_so_that_cuda_and_numpy_lay_it_out_alike(axes, bits):
    struct = layout(axes, bits)
    numbers = 30 + 25 * axes
    assert struct.itemsize == numbers * bits // 8
    assert gradient_layout(axes, bits).itemsize == (31 + 14 * axes) * bits // 8
    assert struct.itemsize < 4096  # what a kernel takes by value


def test_the_division_constants_divide_exactly(rng):
    numbers = [*rng.integers(0, 2**31, 1000).tolist(), 0, 1, 2**31 - 1, 2**31 - 2, 2**30]
    divisors = [*range(1, 200), *rng.integers(1, 2**31, 200).tolist(), 2**31 - 1, 2**30, 2**30 + 1]
    for divisor in divisors:
        g = replace(DOUBLING, stride=(divisor, 2))
        struct = params(choose(replace(g, stride=(2, 2))), Call(g, "float32", strides(g)))
        _, multiplier, shift = struct["axis"]["stride"][0, 0].item()
        assert multiplier < 2**32
        for n in (*numbers, divisor - 1, divisor):
            assert n * multiplier >> shift == n // divisor


# --- sources ------------------------------------------------------------------------------------


SPECIALISATIONS = [chosen(name).specialisation for name in KERNELS] + [
    specialisation
    for name in WEIGHT_GRADIENT
    for specialisation, _ in choose(DOUBLING, operation="weight_gradient", kernel=name).passes
]
SPECIALISATIONS += [s for s, _ in plan("dcgan-1").choice.passes if s.kernel == "gemm_sum"]


@pytest.mark.parametrize("specialisation", SPECIALISATIONS, ids=lambda s: s.kernel)
def test_a_source_stands_alone(specialisation):
    kernel, text = specialisation.kernel, source(specialisation)
    assert "#include" not in text
    assert "#pragma once" not in text
    assert text.count(f"\n{kernel}(") == text.count('extern "C"') == 1


@pytest.mark.parametrize("specialisation", SPECIALISATIONS, ids=lambda s: s.kernel)
def test_no_header_is_needed_but_our_own(specialisation):
    names = re.findall(r"#include (.*)", read(f"{specialisation.kernel}.cu"))
    assert all((kernels() / name.strip('"')).is_file() for name in names)
    first = ['"prologue.cuh"', '"primitives.cuh"', '"arith.cuh"', '"geometry.cuh"']
    assert names[:4] == first


def test_the_prologue_in_the_folder_declares_what_python_writes():
    def declared(text):
        return re.findall(r"^(?:struct|using|constexpr \w+|constexpr) (\w+)", text, re.MULTILINE)

    from_python = [prologue(specialisation) for specialisation in SPECIALISATIONS]
    written = read("prologue.cuh")
    assert {name for text in from_python for name in declared(text)} == set(declared(written))
    enum = re.search(r"enum class Activation \{.*\}", written)[0]
    assert all(enum in text for text in from_python)


PRIMITIVES = ("primitives.cuh", "hopper.cuh")


def test_all_inline_assembly_is_in_the_primitives():
    for path in kernels().iterdir():
        if path.name.endswith((".cu", ".cuh")) and path.name not in PRIMITIVES:
            assert "asm" not in path.read_text()


@pytest.mark.parametrize("specialisation", SPECIALISATIONS, ids=lambda s: s.kernel)
def test_every_kernel_is_in_the_table_of_the_lecture(specialisation):
    assert f"`{specialisation.kernel}.cu`" in (kernels() / "README.md").read_text()
