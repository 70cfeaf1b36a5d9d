"""Which kernels compute the adjoint and the gradients, and on which grids."""

from dataclasses import replace
from math import prod

import pytest

from tconv._geometry import Geometry
from tconv.gpu import planning
from tconv.gpu.call import Call, Strides, contiguous
from tconv.gpu.choice import Choice
from tconv.gpu.families import (
    OPERATIONS,
    WEIGHT_GRADIENT,
    depthwise_channels_last,
    gather,
    gemm,
)
from tconv.gpu.select import select
from test_gpu import (
    DEPTHWISE,
    DOUBLING,
    GENERAL,
    SUITE,
    choose,
    most_shared_bytes,
    strides,
)


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


def adjoint(name, dtype="float32", *, channels_last=False):
    """Return what is chosen for the adjoint of a layer."""
    g = next(layer.geometry for layer in SUITE if layer.name == name)
    axes = range(2, g.ndim + 2)
    order = (0, *axes, 1) if channels_last else (0, 1, *axes)
    arrays = Strides(
        x=planning.lying(g.out_shape, *order), weight=contiguous(g.weight_shape), bias=1,
        out=planning.lying(g.x_shape, *order),
    )  # fmt: skip
    return select(Call(g, dtype, arrays, operation="conv"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_adjoints_of_dense_layers_take_the_tensor_cores_in_half_precision(dtype):
    for name in ("unet-top", "vae-up", "hifigan-1", "nnunet-top", "monai-3d"):
        assert adjoint(name, dtype).specialisation.kernel == "mma"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_adjoint_of_small_groups_takes_the_depthwise_kernels(dtype):
    for name in ("fcn8s-depthwise", "centernet-up", "bigvgan-depthwise"):
        s = adjoint(name, dtype).specialisation
        assert (s.kernel, s.adjoint) == ("depthwise", True)
        assert s["X_VECTOR"] * (2 if dtype == "float16" else 4) == 16
    assert adjoint("kernelbench-73", dtype).specialisation.kernel == "depthwise"
    for name in ("centernet-up", "bigvgan-depthwise", "depthwise-47341"):
        s = adjoint(name, dtype, channels_last=True).specialisation
        assert (s.kernel, s.adjoint) == ("depthwise_channels_last", True)


def test_the_adjoint_of_few_input_channels_is_summed_directly_in_either_order():
    for last, kernel in ((False, "direct"), (True, "direct_channels_last")):
        for name in ("text-sr", "kernelbench-61", "kernelbench-70", "kernelbench-75"):
            s = adjoint(name, channels_last=last).specialisation
            assert (s.kernel, s.adjoint) == (kernel, True)
    assert adjoint("unet-top").specialisation.kernel == "gemm"


def test_narrow_adjoints_for_which_gemm_would_fetch_what_a_stride_leaves_out_are_summed_directly():
    for name in ("kernelbench-77", "kernelbench-79", "kernelbench-81"):
        assert adjoint(name).specialisation.kernel == "direct"
        assert adjoint(name, channels_last=True).specialisation.kernel == "gemm"
    assert adjoint("hifigan-1").splits > 1  # gemm, where blocks share long sums


def test_inputs_of_which_only_every_other_one_is_wanted_are_loaded_singly():
    vectors = {}
    for name in ("kernelbench-77", "kernelbench-79", "kernelbench-81"):
        g = next(layer.geometry for layer in SUITE if layer.name == name)
        for dtype in ("float32", "float16"):
            s = choose(g, dtype, kernel="direct", operation="conv").specialisation
            vectors[g.stride[-1], g.dilation[-1], dtype] = s["X_VECTOR"]
    assert vectors == {
        (2, 2, "float32"): 1, (2, 2, "float16"): 8, (5, 2, "float32"): 4, (5, 2, "float16"): 4,
    }  # fmt: skip


def test_gemm_fetches_whole_sectors_of_a_row_and_no_more():
    def call(stride, dtype="float32"):
        width = 8 * stride + 3
        g = Geometry(1, 1, 16, 64, (8, 9), (3, 3), (1, stride), (1, 1), (0, 0), (10, width))
        arrays = replace(strides(g), x=contiguous(g.out_shape), out=contiguous(g.x_shape))
        return Call(g, dtype, arrays, operation="conv")

    costs = [gemm.cost(call(stride)) for stride in (1, 4, 8, 9)]
    assert costs[0] < costs[1] < costs[2] == costs[3]
    assert 9 * 64 * 32 * gemm.PRODUCTS_A_BYTE < costs[2] < 10 * 64 * 32 * gemm.PRODUCTS_A_BYTE
    assert costs[2] > gather.cost(call(8))
    assert gemm.cost(call(8, "float64")) == gemm.cost(call(1, "float64"))  # which multiplies longer
    assert isinstance(gemm.choose(call(8)), Choice)  # gather would fetch them, too


def test_the_compiler_knows_where_inputs_of_a_row_are_neighbours():
    for kernel, g in (("direct", DOUBLING), ("depthwise", DEPTHWISE)):
        for size, step, neighbours in ((9, 1, True), (9, 2, False), (9, -1, False), (1, 2, True)):
            one = replace(g, in_size=(4, size), out_size=(8, 2 * size))
            x = (*contiguous((*one.x_shape[:-1], 2 * size))[:-1], step)
            choice = select(Call(one, "float32", replace(strides(one), x=x)), kernel=kernel)
            assert choice.specialisation["X_NEAREST"] == neighbours


@pytest.mark.parametrize(
    ("name", "channels_last"),
    [("fcn8s-depthwise", False), ("bigvgan-depthwise", False), ("kernelbench-73", False),
     ("text-sr", False), ("text-sr", True), ("kernelbench-75", False), ("kernelbench-75", True)],
)  # fmt: skip
def test_every_run_of_the_adjoint_has_a_thread(name, channels_last):
    g = next(layer.geometry for layer in SUITE if layer.name == name)
    choice = adjoint(name, channels_last=channels_last)
    s = choice.specialisation
    assert s.threads * dict(s.constants).get("TILES", 1) * choice.row_blocks >= choice.group_runs
    assert choice.row_runs * s["RUN_Q"] >= g.in_size[-1]
    assert choice.group_runs == g.batch * prod(g.in_size[:-1]) * choice.row_runs
    assert choice.column_blocks * s["OUT_CHANNELS"] * g.groups == g.in_channels


def test_every_input_of_an_adjoint_of_single_channels_has_a_walk():
    for name in ("centernet-up", "bigvgan-depthwise", "depthwise-47341"):
        g = next(layer.geometry for layer in SUITE if layer.name == name)
        choice = adjoint(name, channels_last=True)
        size = g.in_size[-1]
        length = depthwise_channels_last.walk(
            size, choice.row_runs, choice.specialisation["STEP_Q"]
        )
        assert (choice.row_runs - 1) * length < size <= choice.row_runs * length
        assert choice.group_runs == g.batch * prod(g.in_size[:-1]) * choice.row_runs


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
