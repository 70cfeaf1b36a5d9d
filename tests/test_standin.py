"""The stand-in means what PTX says: copies arrive when they may, and matrices lie as documented.

Each kernel here is a few lines around one primitive.  The layouts are written down once more, in
the words of the PTX manual, apart from those of the stand-in.
"""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import standin
from standin import Standin
from tconv.gpu.tensor_map import TensorMap

pytestmark = pytest.mark.skipif(standin.compiler() is None, reason=standin.INSTALL)


# --- copies ---------------------------------------------------------------------------------------

GROUPS = """
#include "primitives.cuh"
extern "C" void groups(const int* from, int* after_one, int* after_both)
{
    int* place = static_cast<int*>(dynamic_shared());
    copy_async<4>(place, from, 4);
    copy_async<8>(place + 2, from + 2, 8);
    copy_async_commit();
    copy_async<16>(place + 4, from + 4, 16);
    copy_async_commit();
    copy_async_wait<1>();
    for (int i = 0; i < 8; ++i) after_one[i] = place[i];
    copy_async_wait<0>();
    for (int i = 0; i < 8; ++i) after_both[i] = place[i];
}
"""


def copied(*, late):
    source, after_one, after_both = np.arange(8, dtype="i4"), np.zeros(8, "i4"), np.zeros(8, "i4")
    source, *seen = (aligned(a) for a in (source, after_one, after_both))
    Standin(late=late).run("groups", GROUPS, source, *seen, threads=1, shared_bytes=32)
    return [array.tolist() for array in seen]


def aligned(array):
    """Return a copy that begins at a multiple of 16."""
    memory = np.empty(array.nbytes + 16, np.uint8)
    begin = -memory.ctypes.data % 16
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


GARBAGE = 0x49494949


def test_a_late_copy_arrives_only_when_its_group_has_been_waited_for():
    after_one, after_both = copied(late=True)
    assert after_one == [0, GARBAGE, 2, 3, *[GARBAGE] * 4]
    assert after_both == [0, GARBAGE, 2, 3, 4, 5, 6, 7]


def test_an_early_copy_arrives_at_once():
    assert copied(late=False) == [[0, GARBAGE, 2, 3, 4, 5, 6, 7]] * 2


ABANDONED = """
#include "primitives.cuh"
extern "C" void abandoned(const int* from, int* to)
{
    int* place = static_cast<int*>(dynamic_shared());
    copy_async<4>(place, from, 4);
    copy_async_wait<0>();
    to[0] = place[0];
}
"""


@pytest.mark.parametrize(("late", "seen"), [(False, 7), (True, GARBAGE)])
def test_a_copy_of_no_group_is_never_waited_for(late, seen):
    result = np.zeros(1, "i4")
    Standin(late=late).run(
        "abandoned", ABANDONED, np.array([7], "i4"), result, threads=1, shared_bytes=16
    )
    assert result[0] == seen


SHORT = """
#include "primitives.cuh"
extern "C" void short_copy(const short* from, short* to)
{
    short* place = static_cast<short*>(dynamic_shared());
    copy_async<16>(place, from, 6);
    copy_async_commit();
    copy_async_wait<0>();
    for (int i = 0; i < 8; ++i) to[i] = place[i];
}
"""


@pytest.mark.parametrize("late", [False, True])
def test_the_rest_of_a_short_copy_is_zero(late):
    # The source ends where the copy does.
    source = Standin().empty((3,), "i2")
    source[...] = [5, 6, 7]
    result = np.zeros(8, "i2")
    Standin(late=late).run("short_copy", SHORT, source, result, threads=1, shared_bytes=16)
    assert result.tolist() == [5, 6, 7, 0, 0, 0, 0, 0]


# --- matrices -------------------------------------------------------------------------------------

LOAD = """
#include "primitives.cuh"
extern "C" void load(const unsigned int* from, unsigned int* to)
{{
    unsigned int* rows = static_cast<unsigned int*>(dynamic_shared());
    for (int i = 0; i < 4; ++i) rows[4 * threadIdx.x + i] = from[4 * threadIdx.x + i];
    __syncwarp();
    unsigned int taken[{count}];
    // Lanes whose address does not count give none.
    {function}(taken, threadIdx.x < {count} * 8 ? rows + 4 * threadIdx.x : nullptr);
    for (int i = 0; i < {count}; ++i) to[{count} * threadIdx.x + i] = taken[i];
}}
"""


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_loaded_as_ldmatrix_does(count, transposed):
    matrices = np.arange(4 * 8 * 8, dtype="u2").reshape(4, 8, 8)
    function = "load_matrices_transposed" if transposed else "load_matrices"
    taken = np.zeros((32, count, 2), "u2")
    text = LOAD.format(count=count, function=function)
    Standin().run("load", text, matrices, taken, shared_bytes=512)
    for lane in range(32):
        row, column = lane // 4, lane % 4 * 2
        for i in range(count):
            matrix = matrices[i].T if transposed else matrices[i]
            np.testing.assert_array_equal(taken[lane, i], matrix[row, column : column + 2])


def fragments(kind, group, thread):
    """Return (row, column) of a's elements in a lane, of b's, and of the sum's.

    As in the PTX manual: i counts elements, the lane is 4 * group + thread.
    """
    if kind == "tf32":
        a = [(group + 8 * (i in (1, 3)), thread + 4 * (i >= 2)) for i in range(4)]
        b = [(thread + 4 * i, group) for i in range(2)]
    elif kind == "f16_k8":
        a = [(group + 8 * (i >= 2), thread * 2 + i % 2) for i in range(4)]
        b = [(thread * 2 + i, group) for i in range(2)]
    else:
        a = [
            (group + 8 * (not (i < 2 or 4 <= i < 6)), thread * 2 + i % 2 + 8 * (i >= 4))
            for i in range(8)
        ]
        b = [(thread * 2 + i % 2 + 8 * (i >= 2), group) for i in range(4)]
    total = [(group + 8 * (i >= 2), thread * 2 + i % 2) for i in range(4)]
    return a, b, total


MMA = """
#include "primitives.cuh"
extern "C" void multiply(const unsigned int* a, const unsigned int* b, float* sum)
{{
    const unsigned int lane = threadIdx.x;
    float mine[4];
    for (int i = 0; i < 4; ++i) mine[i] = sum[4 * lane + i];
    {call}
    for (int i = 0; i < 4; ++i) sum[4 * lane + i] = mine[i];
}}
"""
FULL = """
    unsigned int a_mine[4], b_mine[2];
    for (int i = 0; i < 4; ++i) a_mine[i] = a[4 * lane + i];
    for (int i = 0; i < 2; ++i) b_mine[i] = b[2 * lane + i];
    mma_{kind}(mine, a_mine, b_mine);
"""
CALLS = {
    **{kind: FULL.format(kind=kind) for kind in ("f16", "bf16", "tf32")},
    "f16_k8": "mma_f16_k8(mine, a[2 * lane], a[2 * lane + 1], b[lane]);",
}
DTYPES = {
    "f16": np.dtype("f2"),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "tf32": np.dtype("f4"),
    "f16_k8": np.dtype("f2"),
}


def mma(kind, a, b, c):
    """Return c + a b, computed by a warp of the stand-in."""
    layouts = [fragments(kind, lane // 4, lane % 4) for lane in range(32)]
    given = [
        np.array([[matrix[at] for at in layout[which]] for layout in layouts], matrix.dtype)
        for which, matrix in enumerate((a, b, c))
    ]
    Standin().run("multiply", MMA.format(call=CALLS[kind]), *given)
    result = np.full_like(c, np.nan)
    for layout, values in zip(layouts, given[2], strict=True):
        for at, value in zip(layout[2], values, strict=True):
            result[at] = value
    return result


@pytest.mark.parametrize("kind", DTYPES)
def test_matrices_are_multiplied_as_mma_does(kind, rng):
    dtype, depth = DTYPES[kind], 8 if kind in ("tf32", "f16_k8") else 16
    a = rng.integers(-100, 101, (16, depth))
    b, c = rng.integers(-100, 101, (depth, 8)), rng.integers(-100, 101, (16, 8))
    result = mma(kind, a.astype(dtype), b.astype(dtype), c.astype("f4"))
    np.testing.assert_array_equal(result, a @ b + c)


def test_tensor_cores_cut_sums_off(rng):
    a = rng.uniform(1, 2, (16, 16)).astype("f2")
    b = rng.uniform(1, 2, (16, 8)).astype("f2")
    c = rng.uniform(1, 2, (16, 8)).astype("f4")
    exact = a.astype("f8") @ b.astype("f8") + c
    error = exact - mma("f16", a, b, c)
    assert (error >= 0).all()
    assert (error > np.spacing(exact.astype("f4")) / 2).any()  # a rounded sum errs no more
    assert (error <= 17 * 2**-22 * exact).all()


def test_tf32_looks_at_11_bits():
    a, b = np.zeros((16, 8), "f4"), np.zeros((8, 8), "f4")
    a[0, 0] = 2 - 2**-23
    b[0, 0] = 1
    assert mma("tf32", a, b, np.zeros((16, 8), "f4"))[0, 0] == 2 - 2**-10


ROUND = """
#include "primitives.cuh"
extern "C" void round_all(float* all)
{
    all[threadIdx.x] = float_to_tf32(all[threadIdx.x]);
}
"""


def test_tf32_rounds_to_nearest_and_ties_away_from_zero():
    largest = np.finfo("f4").max
    given = np.array([1, 1 + 2**-11, -1 - 2**-11, 1 + 2**-12, np.inf, largest], "f4")
    result = np.zeros(32, "f4")
    result[: len(given)] = given
    Standin().run("round_all", ROUND, result)
    rounded = [1, 1 + 2**-10, -1 - 2**-10, 1, np.inf, np.inf]
    np.testing.assert_array_equal(result[: len(given)], rounded)


PLACES = """
#include "primitives.cuh"
extern "C" void places(const int* from)
{{
    int* place = static_cast<int*>(dynamic_shared());
    copy_async<16>({arguments});
}}
"""
MISPLACED = {
    "not in the block's shared memory": "place + 8, from, 16",
    "does not come from global memory": "place, place + 4, 16",
    "more bytes than it has": "place, from, 20",
    "fewer than none": "place, from, -4",
}


@pytest.mark.parametrize("words", MISPLACED)
def test_a_copy_leads_from_global_to_shared_memory(words):
    text = PLACES.format(arguments=MISPLACED[words])
    with pytest.raises(RuntimeError, match=words):
        Standin().run("places", text, aligned(np.zeros(8, "i4")), threads=1, shared_bytes=32)


# --- launches -------------------------------------------------------------------------------------

LARGE = """
struct Large { char bytes[4097]; };
extern "C" void large(Large) {}
"""


def test_a_kernel_has_no_more_parameters_than_fit():
    with pytest.raises(RuntimeError, match="parameters have at most 4096 bytes"):
        Standin().run("large", LARGE, np.zeros((), [("bytes", "V4097")]))


def test_a_block_has_no_more_shared_memory_than_there_is():
    with pytest.raises(RuntimeError, match="no block has 232449 bytes of shared memory"):
        Standin().run("large", LARGE, shared_bytes=(227 << 10) + 1)


# --- warps ----------------------------------------------------------------------------------------

BROKEN_WARP = """
#include "primitives.cuh"
extern "C" void broken()
{{
    void* place = dynamic_shared();
    unsigned int taken[1];
    {statement}
}}
"""
BROKEN = {
    "never came": "if (threadIdx.x != 9) load_matrices(taken, place);",
    "came to different instructions": (
        "if (threadIdx.x < 16) load_matrices(taken, place); else __syncwarp();"
    ),
    "misaligned address": "load_matrices(taken, static_cast<char*>(place) + 4);",
    "not in the block's": "load_matrices(taken, static_cast<char*>(place) + 64);",
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_warp_that_does_not_keep_together_is_an_error(words):
    text = BROKEN_WARP.format(statement=BROKEN[words])
    with pytest.raises(RuntimeError, match=words):
        Standin().run("broken", text, shared_bytes=64)


NEIGHBOURS = """
#include "primitives.cuh"
extern "C" void neighbours(int* all)
{
    int* place = static_cast<int*>(dynamic_shared());
    place[threadIdx.x] = threadIdx.x;
    __syncwarp();
    all[threadIdx.x] = place[threadIdx.x ^ 31];
}
"""


def test_lanes_may_come_to_a_barrier_of_their_warp_in_any_order_and_warps_alone():
    for seed in range(5):
        result = np.zeros(64, "i4")
        Standin(seed=seed).run("neighbours", NEIGHBOURS, result, threads=64, shared_bytes=512)
        np.testing.assert_array_equal(result, np.arange(64) ^ 31)


# --- clusters -------------------------------------------------------------------------------------

CLUSTER = """
#include "prologue.cuh"
#include "primitives.cuh"
#include "hopper.cuh"
struct Shared {{
    alignas(1024) unsigned short box[2][64];
    MBarrier barrier;
}};
extern "C" __global__ void __cluster_dims__(2, 1, 1) together(const TensorMap map, int* seen)
{{
    Shared& shared = *static_cast<Shared*>(aligned_shared());
    const int at[] = {{0, 0, 0, 0}}, block = blockIdx.x;
    if (threadIdx.x == 0) mbarrier_init(shared.barrier, 1);
    {statements}
}}
"""
FETCH = """
    cluster_sync();
    if (threadIdx.x == 0) mbarrier_init_fence();
    if (threadIdx.x == 0) mbarrier_arrive_expect_tx(shared.barrier, sizeof shared.box);
    cluster_sync();
    if (threadIdx.x == 0 && block == 1) tma_multicast<2>(shared.box, map, shared.barrier, at);
    cluster_sync();
    seen[2 * block] = shared.box[1][8];
    cluster_sync();
    mbarrier_wait(shared.barrier, 0);
    seen[2 * block + 1] = shared.box[1][8];
"""
LATECOMER = """
    if (threadIdx.x == 0) mbarrier_init_fence();
    if (threadIdx.x == 0) mbarrier_arrive_expect_tx(shared.barrier, sizeof shared.box);
    cluster_sync();
    for (int i = 0; block == 1 && i < 9; ++i) __syncthreads();  // until all of block 0 wait
    if (threadIdx.x == 0 && block == 1) tma_multicast<2>(shared.box, map, shared.barrier, at);
    mbarrier_wait(shared.barrier, 0);
    seen[block] = shared.box[1][8];
    cluster_sync();
"""
SWAP = """
    cluster_sync();
    if (threadIdx.x == 0) mbarrier_arrive_in(1 - block, shared.barrier);
    mbarrier_wait(shared.barrier, 0);
    seen[block] = 5 + block;
    cluster_sync();
"""


BOX = TensorMap("float16", (64, 2, 1, 1), (128, 256, 256), (64, 2, 1, 1))


def together(statements, *, blocks=2, **options):
    """Return what the blocks of a cluster see while they run together."""
    device = Standin(**options)
    source = device.empty((2, 64), "i2")
    source[...] = np.arange(128).reshape(2, 64)
    seen = np.zeros(4, "i4")
    device.run(
        "together", CLUSTER.format(statements=statements),
        device.tensor_maps((BOX,), device.address(source)), seen,
        blocks=blocks, threads=64, shared_bytes=2048,
    )  # fmt: skip
    return seen.tolist()


@pytest.mark.parametrize(("late", "before"), [(False, 64), (True, 0x4949)])
def test_a_box_for_a_cluster_comes_to_every_block_and_each_waits_at_its_own_barrier(late, before):
    # The second row's first piece is the second one in memory.
    assert together(FETCH, late=late) == [before, 64, before, 64]


@pytest.mark.parametrize("late", [False, True])
def test_a_box_that_another_block_asks_for_wakes_those_who_wait(late):
    assert together(LATECOMER, late=late) == [64, 64, 0, 0]


def test_blocks_of_a_cluster_run_together_and_arrive_at_each_others_barriers():
    for seed in range(5):
        assert together(SWAP, seed=seed) == [5, 6, 0, 0]


BROKEN_CLUSTER = {
    "another block may not have made this barrier yet": (SWAP, "cluster_sync", "__syncthreads"),
    "may have ended before another one reached": (SWAP, "block;\n    cluster", "block; //"),
    "the cluster has no such block": (SWAP, "1 - block", "2 + block"),
    "never came": (SWAP, "threadIdx.x == 0", "threadIdx.x + block == 0"),
    "the copy engine has not been shown": (FETCH, "0) mbarrier_i", "block - 1) mbarrier_i"),
    "another number of axes": (
        FETCH,
        "tma_multicast<2>(shared.box, map, shared.barrier, at)",
        "tma_load(shared.box, map, shared.barrier, {0, 0, 0})",
    ),
}


@pytest.mark.parametrize("words", BROKEN_CLUSTER)
def test_a_cluster_that_does_not_keep_together_is_an_error(words):
    statements, right, wrong = BROKEN_CLUSTER[words]
    with pytest.raises(RuntimeError, match=words):
        together(statements.replace(right, wrong, 1))


def test_a_grid_that_is_not_made_of_whole_clusters_is_an_error():
    with pytest.raises(RuntimeError, match="the blocks of a grid must be whole clusters"):
        together(SWAP, blocks=3)


# --- tensor maps, and groups of warps -------------------------------------------------------------

REFUSED = [
    ("three to five axes", {"sizes": (64, 2), "strides": (128,), "box": (64, 2)}),
    ("rows of 128 bytes", {"box": (32, 2, 1, 1)}),
    ("boxes of 1 to 256", {"box": (64, 257, 1, 1)}),
    ("boxes of 1 to 256", {"box": (64, 0, 1, 1)}),
    ("sizes of 1 to 2.32", {"sizes": (64, 0, 1, 1)}),
    ("strides below 2.40", {"strides": (128, 256, 2**40)}),
    ("strides below 2.40", {"strides": (0, 256, 256)}),
    ("multiples of 16 bytes", {"strides": (136, 256, 256)}),
    ("multiples of 16 bytes", {"offset": 8}),
]


@pytest.mark.parametrize(("words", "changes"), REFUSED, ids=str)
def test_a_tensor_map_that_the_driver_would_refuse_is_an_error(words, changes):
    with pytest.raises(RuntimeError, match=f"a tensor map has {words}"):
        Standin().tensor_maps((replace(BOX, **changes),), 0)


WARP_GROUPS = """
#include "prologue.cuh"
#include "primitives.cuh"
#include "hopper.cuh"
extern "C" void together()
{{
    const int group = threadIdx.x / 128;
    {statement}
}}
"""
HAND_OVER = "if (group) increase_registers<224>(); else decrease_registers<56>();"
SOME = "if (group) sync_some<1, 256>();"
BROKEN_GROUPS = [
    ("a multiple of 8", HAND_OVER, "56", "60"),
    ("have 24 to 256 registers", HAND_OVER, "56", "16"),
    ("do not go the other way", HAND_OVER, "224", "160"),
    ("never came to setmaxnreg", HAND_OVER, "else", "else if (threadIdx.x)"),
    ("ask for different registers", HAND_OVER, "group", "threadIdx.x"),
    ("registers that the block does not have", HAND_OVER, "224", "232"),
    ("have the numbers 1 to 15", SOME, "<1,", "<0,"),
    ("have the numbers 1 to 15", SOME, "<1,", "<16,"),
    ("waits for whole warps", SOME, "256", "250"),
    ("always as many", SOME, ">();", ">(); else sync_some<1, 128>();"),
]


def run_groups(statement):
    Standin().run("together", WARP_GROUPS.format(statement=statement), threads=384)


@pytest.mark.parametrize("statement", [HAND_OVER, SOME])
def test_warp_groups_hand_registers_over_and_meet_alone(statement):
    run_groups(statement)


@pytest.mark.parametrize(("words", "statement", "right", "wrong"), BROKEN_GROUPS)
def test_a_warp_group_that_breaks_the_rules_is_an_error(words, statement, right, wrong):
    with pytest.raises(RuntimeError, match=words):
        run_groups(statement.replace(right, wrong, 1))
