"""The way to the card, as far as it goes without one: selection, sources, plans and arguments."""

import re
import tomllib
from dataclasses import replace
from functools import cache
from importlib.resources import files
from math import prod

import ml_dtypes
import numpy as np
import pytest

import oracle
import tconv
import test_gradients
from pretended import made_current, on_device
from tconv import gpu
from tconv._geometry import Geometry
from tconv.commands.bench import suite
from tconv.gpu import launch
from tconv.gpu.call import Call, Strides, contiguous
from tconv.gpu.families import FAMILIES, OPERATIONS, WEIGHT_GRADIENT, depthwise_channels_last
from tconv.gpu.families.gemm import MOST_SPLITS, TILES
from tconv.gpu.params import gradient_layout, layout, params
from tconv.gpu.prologue import prologue
from tconv.gpu.select import select
from tconv.gpu.source import kernels, read, source

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
        for dtype, elements in (("float32", 4), ("float16", 4), ("float64", 2)):
            s = plan(name, dtype, channels_last=True).choice.specialisation
            assert s["X_VECTOR"] == s["OUT_VECTOR"] == elements
    assert (
        plan("depthwise-47341", "float16", channels_last=True).choice.specialisation["X_VECTOR"]
        == 8
    )
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
        for name in ("centernet-up", "bigvgan-depthwise"):
            chosen = plan(name, dtype).choice.specialisation
            assert chosen["X_VECTOR"] == chosen["OUT_VECTOR"] == elements
        # 1/64 of this layer's bytes are inputs.
        assert plan("fcn8s-depthwise", dtype).choice.specialisation["OUT_VECTOR"] == elements


def test_every_run_of_the_depthwise_kernel_has_a_thread():
    for name in ("fcn8s-depthwise", "centernet-up", "bigvgan-depthwise", "kernelbench-75"):
        choice, g = plan(name).choice, plan(name).geometry
        s = choice.specialisation
        assert s.threads * s["TILES"] * choice.row_blocks >= choice.group_runs
        assert choice.blocks == g.groups * choice.column_blocks * choice.row_blocks
        run = s["RUN_Q"] * s["STRIDE_X"] * s["PHASES_Y"] * s["OUT_CHANNELS"]
        assert choice.group_runs * choice.column_blocks * g.groups * run >= prod(g.out_shape)


def test_dense_layers_take_the_gemm():
    for name in ("unet-top", "vae-up", "hifigan-1", "nnunet-top", "istft-trt", "dcgan-rgb"):
        assert plan(name).choice.specialisation.kernel == "gemm"


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
    choice = plan("dcgan-rgb").choice
    assert choice.tile.columns == 16
    assert choice.phase_columns == 3


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


# --- the adjoint and the gradients ---------------------------------------------------------------


@pytest.mark.parametrize("layer", SUITE, ids=lambda layer: layer.name)
def test_the_adjoint_and_the_gradients_of_every_layer_fit_a_launch(layer):
    for dtype in ("float16", "float32", "complex128"):
        for operation, families in OPERATIONS.items():
            names = [name for name in families if name in GENERAL] or families
            for kernel in (None, *names):
                choice = choose(layer.geometry, dtype, operation=operation, kernel=kernel)
                assert choice.blocks > 0
                for specialisation, blocks in choice.passes:
                    assert blocks < 2**31
                    assert specialisation.threads <= 1024
                    assert specialisation.shared_bytes <= most_shared_bytes(choice)


@pytest.mark.parametrize("layer", SUITE, ids=lambda layer: layer.name)
def test_the_batch_does_not_change_the_kernel_of_the_adjoint(layer):
    batches = [replace(layer.geometry, batch=n) for n in (1, 2, 3, 64, 70_000)]
    choices = [choose(geometry, operation="conv") for geometry in batches]
    assert len({(c.specialisation.kernel, c.tile, c.phase_columns) for c in choices}) == 1


@pytest.mark.parametrize("layer", SUITE, ids=lambda layer: layer.name)
def test_the_splits_of_the_gradients_cover_all_positions_in_short_sums(layer):
    g = layer.geometry
    for kernel in WEIGHT_GRADIENT:
        choice = choose(g, operation="weight_gradient", kernel=kernel)
        positions = g.batch * prod(g.in_size), g.batch * prod(g.out_size)
        for splits, count in zip((choice.weight, choice.bias), positions, strict=True):
            assert (splits.count - 1) * splits.size < count <= splits.count * splits.size
            assert splits.size <= 2**16
        # The parts take no more than the arrays, or else little memory.
        arrays = sum(map(prod, (g.x_shape, g.out_shape, g.weight_shape)))
        assert choice.workspace_bytes // 4 <= max(arrays, 2**24)


def test_depthwise_layers_take_the_narrow_weight_gradient_and_dense_ones_the_matrix_product():
    for name in ("fcn8s-depthwise", "centernet-up", "bigvgan-depthwise", "depthwise-47341"):
        assert chosen_gradient(name).kernel == "weight_gradient_narrow"
    for name in ("unet-top", "vae-up", "hifigan-1", "nnunet-top", "dcgan-rgb"):
        assert chosen_gradient(name).kernel == "weight_gradient"


def chosen_gradient(name):
    layer = next(layer for layer in SUITE if layer.name == name)
    return choose(layer.geometry, operation="weight_gradient").specialisation


# --- calls --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [None, "ieee", "tf32", "tf32x3"])
def test_arrays_on_a_device_are_computed_with_that_device_current(with_gpu, precision, rng):
    arrays = [rng.integers(-8, 9, s).astype("f4") for s in ((2, 4, 5), (4, 3, 4), (3,))]
    x, weight, bias = map(on_device, arrays)
    g = Geometry(2, 1, 4, 3, (5,), (4,), (2,), (1,), (1,), (10,))
    y = gpu.transposed_conv(x, weight, bias, g, activation="relu", precision=precision)
    answer = oracle.transposed_conv(*arrays, stride=2, padding=1, activation="relu")
    oracle.assert_exact(np.asarray(y), answer, np.float32)
    assert list(with_gpu) == [3]
    assert made_current() == []


@pytest.mark.usefixtures("with_gpu")
def test_numpy_arrays_go_to_the_gpu_and_come_back_in_their_memory_order(rng):
    x = np.ascontiguousarray(rng.integers(-8, 9, (2, 5, 6, 4)).astype("f4")).transpose(0, 3, 1, 2)
    weight = rng.integers(-8, 9, (4, 3, 2, 2)).astype("f4")
    answer = oracle.transposed_conv(x, weight, stride=2)
    for swapped in (x, x.astype(">f4")):
        y = gpu.transposed_conv2d(swapped, weight, stride=2)
        assert type(y) is np.ndarray
        np.testing.assert_array_equal(y, answer)
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    out = np.empty((2, 3, 10, 24), "f4")[..., ::2]
    assert gpu.transposed_conv2d(x, weight, stride=2, out=out) is out
    np.testing.assert_array_equal(out, answer)


@pytest.mark.parametrize("verbs", [gpu, tconv])
def test_gradients_of_arrays_on_a_device_are_computed_with_that_device_current(
    with_gpu, verbs, rng
):
    x, weight = (rng.integers(-8, 9, s).astype("f4") for s in ((2, 4, 5), (4, 3, 4)))
    y = rng.integers(-8, 9, (2, 3, 10)).astype("f4")
    call = {"stride": 2, "padding": 1}
    exact = test_gradients.answers(y, x, weight, **call)
    grads = verbs.transposed_conv1d_backward(*map(on_device, (y, x, weight)), **call)
    for grad, answer in zip(grads, exact, strict=True):
        oracle.assert_exact(np.asarray(grad), answer, np.float32)
    back = verbs.conv1d(on_device(y), on_device(weight), **call)
    oracle.assert_exact(np.asarray(back), exact[0], np.float32)
    assert list(with_gpu) == [3]
    assert made_current() == []


def test_gradients_of_numpy_arrays_go_to_the_gpu_and_come_back(with_gpu, rng):
    x = np.ascontiguousarray(rng.integers(-8, 9, (2, 5, 6, 4)).astype("f4")).transpose(0, 3, 1, 2)
    weight = rng.integers(-8, 9, (4, 3, 2, 2)).astype("f4")
    y = rng.integers(-8, 9, (2, 12, 10, 3)).astype("f4").transpose(0, 3, 2, 1)
    exact = test_gradients.answers(y, x, weight, stride=2)
    for given in ((y, x, weight), [a.astype(">f4") for a in (y, x, weight)]):
        grads = gpu.transposed_conv2d_backward(*given, stride=2)
        for grad, answer in zip(grads, exact, strict=True):
            assert type(grad) is np.ndarray
            oracle.assert_exact(grad, answer, np.float32)
    bias, out = np.arange(4, dtype="f4"), np.empty((2, 4, 5, 12), "f4")[..., ::2]
    assert gpu.conv2d(y, weight, bias, stride=2, out=out) is out
    oracle.assert_exact(out, exact[0] + bias[:, None, None], np.float32)
    last = np.ascontiguousarray(np.moveaxis(y, 1, -1))
    back = gpu.conv2d(np.moveaxis(last, -1, 1), weight, stride=2)
    assert np.moveaxis(back, 1, -1).flags.c_contiguous
    assert with_gpu


# --- plans --------------------------------------------------------------------------------------


def test_a_plan_says_what_would_run_and_why():
    text = str(plan("unet-top"))
    assert text.startswith("gemm on float32, compute capability 8.0\n")
    assert "because     100% of the products in the gemm kernel's tiles are wanted" in text
    assert "tile        128 rows (n, q) x 128 columns (phase, m), 16 channels a step" in text
    assert "grid        8192 blocks of 256 threads" in text
    assert "asynchronous copies, 32-bit offsets" in text
    assert "work        3.44e+10 FLOP, at least 8.05e+08 bytes" in text


FLOORS = [
    (table, dtype, precision, table[f"floor_{name}_us"])
    for table in tomllib.loads((files("tconv.commands") / "suite.toml").read_text("utf-8"))["layer"]
    for name, dtype, precision in [
        ("bf16", "bfloat16", None), ("tf32", "float32", "tf32"), ("fp32", "float32", None),
    ]
    if f"floor_{name}_us" in table
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "dtype", "precision", "microseconds"),
    FLOORS, ids=[f"{table['name']}-{precision or dtype}" for table, dtype, precision, _ in FLOORS],
)  # fmt: skip
def test_a_plan_knows_the_floors_of_the_suite(table, dtype, precision, microseconds):
    p = plan(table["name"], dtype, precision=precision, device="H200")
    assert p.floor.seconds * 1e6 == pytest.approx(microseconds, rel=0.01, abs=0.05)


def test_the_floor_is_the_larger_of_arithmetic_and_memory():
    device = gpu.Ceilings("slow", 80, copy=1e9, half=8e9, tf32=6e9, single=1e9, double=5e8)
    # 2 x 3 inputs, 3 x 4 taps for each, 4 x 8 outputs
    floors = {
        (dtype, precision): gpu.plan(
            (1, 2, 3), (2, 4, 3), dtype, precision=precision, stride=3, device=device
        ).floor
        for dtype, precision in [
            ("float16", None), ("bfloat16", None), ("float32", None), ("float32", "ieee"),
            ("float32", "tf32"), ("float32", "tf32x3"), ("float64", None), ("complex64", None),
            ("complex128", None), ("int32", None), ("int64", None),
        ]
    }  # fmt: skip
    elements, products = 6 + 24 + 36, 72
    nanoseconds = {call: tuple(round(t * 1e9) for t in floor) for call, floor in floors.items()}
    assert nanoseconds == {
        ("float16", None): (2 * products // 8, 2 * elements),
        ("bfloat16", None): (2 * products // 8, 2 * elements),
        ("float32", None): (2 * products, 4 * elements),
        ("float32", "ieee"): (2 * products, 4 * elements),
        ("float32", "tf32"): (2 * products // 6, 4 * elements),
        ("float32", "tf32x3"): (2 * products // 2, 4 * elements),
        ("float64", None): (4 * products, 8 * elements),
        ("complex64", None): (8 * products, 8 * elements),
        ("complex128", None): (16 * products, 16 * elements),
        ("int32", None): (0, 4 * elements),
        ("int64", None): (0, 8 * elements),
    }
    for floor in floors.values():
        assert floor.seconds == max(floor)


def test_a_plan_has_the_numbers_that_it_prints():
    p = plan("unet-top", device="H200")
    assert p.flops == 2 * 8 * 128 * 64 * 512 * 512
    assert p.nbytes == 4 * (8 * 128 * 256 * 256 + 128 * 64 * 4 + 8 * 64 * 512 * 512)
    assert f"tile        {p.tile.rows} rows (n, q) x {p.tile.columns} columns" in str(p)
    assert f"grid        {p.blocks} blocks of " in str(p)
    assert "floor       573 us of arithmetic, 187 us of memory traffic on NVIDIA H200" in str(p)
    assert plan("bigvgan-depthwise").tile is None


def test_a_plan_says_which_device_it_assumes(monkeypatch):
    monkeypatch.setattr("tconv.gpu.planning._current", lambda: None)
    shapes = (1, 4, 9), (4, 8, 4)
    assert "on an assumed NVIDIA A100-SXM4-80GB" in str(gpu.plan(*shapes))
    assert "on an assumed NVIDIA H200" in str(gpu.plan(*shapes, capability=90))
    unknown = gpu.plan(*shapes, capability=75)
    assert unknown.floor is None
    assert "floor       not known; say on which device: H200, H100, A100" in str(unknown)


def test_a_plan_is_for_the_current_device_unless_another_is_asked_for(monkeypatch):
    shapes = (1, 4, 9), (4, 8, 4)
    monkeypatch.setattr("tconv.gpu.planning._current", lambda: ("NVIDIA H200", 90))
    for p in (gpu.plan(*shapes), gpu.plan(*shapes, capability=90)):
        assert (p.capability, p.ceilings.device, p.assumed) == (90, "NVIDIA H200", False)
    asked = gpu.plan(*shapes, device="A100")
    assert (asked.capability, asked.ceilings.device, asked.assumed) == (
        80, "NVIDIA A100-SXM4-80GB", False,
    )  # fmt: skip
    assert gpu.plan(*shapes, capability=80).assumed
    monkeypatch.setattr("tconv.gpu.planning._current", lambda: ("NVIDIA H200 NVL", 90))
    assert gpu.plan(*shapes).floor is None


def test_a_plan_says_what_becomes_of_the_precision_asked_for():
    for precision in ("tf32", "tf32x3"):
        text = str(plan("unet-top", precision=precision))
        assert f"precision   {precision}, as asked for" in text
        text = str(plan("fcn8s-depthwise", precision=precision))
        assert f"precision   float32, more exact than the {precision} asked for" in text
    assert "precision   " not in str(plan("unet-top", precision="ieee"))


def test_a_plan_takes_any_dtype_spelling_memory_order_and_device():
    for dtype in ("bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)):
        p = gpu.plan((1, 8, 9), (8, 8, 4), dtype, channels_last=True, capability=75)
        assert p.choice.specialisation.dtype == "bfloat16"
        assert p.choice.specialisation["X_CHANNELS_LAST"]
        assert str(p).startswith("gemm on bfloat16, compute capability 7.5\n")


def test_a_plan_takes_a_packed_weight_as_a_layer_has_it(with_gpu, monkeypatch):
    asked = []
    monkeypatch.setattr("tconv.gpu.planning.select", lambda call: asked.append(call.strides.weight))
    for shape in ((4, 6, 5), (4, 6, 3, 2), (4, 6, 3, 2, 5)):
        weight = np.zeros(shape, "f4")
        with on_device(weight).device:
            there = launch.packed(weight, with_gpu[3])
        gpu.plan((1, 4, *shape[2:]), shape, packed=True, device="A100")
        assert asked[-1] == tuple(step // 4 for step in there.strides)


def test_a_plan_refuses_what_the_verbs_refuse():
    with pytest.raises(ValueError, match=r"^weight has 3 input channels"):
        gpu.plan((1, 4, 9), (3, 8, 4))
    with pytest.raises(TypeError, match=r"^precision='tf32' is for float32, not float64$"):
        gpu.plan((1, 4, 9), (4, 8, 4), "float64", precision="tf32")
    with pytest.raises(TypeError, match=r"^x is bool"):
        gpu.plan((1, 4, 9), (4, 8, 4), bool)
    with pytest.raises(ValueError, match=r"^device='V100' is not one of H200, H100, A100$"):
        gpu.plan((1, 4, 9), (4, 8, 4), device="V100")
