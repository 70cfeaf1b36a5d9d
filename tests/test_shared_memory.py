"""The lanes of a warp never wait for each other in shared memory: the matrix products' banks.

Shared memory has 32 banks of 4 bytes.  A warp's access takes one pass for each 128 bytes only if no
two of its lanes want different words of one bank.  The kernels' own functions say where each thread
copies to and reads from.
"""

import numpy as np
import pytest

import layouts
import standin
from standin import Standin
from tconv._geometry import Geometry
from tconv.gpu.call import TYPES, Call, Strides, contiguous
from tconv.gpu.families import gemm, hopper, mma
from tconv.gpu.source import read

BANKS, WORD = 32, 4

WITNESS = """
struct Access {
    long at, bytes;
};

template <typename T>
Access access(const Shared& shared, const T& first, long bytes)
{
    return {reinterpret_cast<const char*>(&first) - reinterpret_cast<const char*>(&shared), bytes};
}

template <typename Operand>
Access* copies(const Shared& shared, const Operand& operand, typename Operand::Tile& tile,
               Access* list)
{
    constexpr long BYTES = ASYNC ? sizeof(typename Operand::Vector) : sizeof(Accumulator);
    for (int i = 0; i < Operand::PLACES; ++i)
        for (int d = 0; d < Operand::CHANNELS; ++d)
            *list++ = access(shared, *operand.to(tile, i, d), BYTES);
    return list;
}

// In the place of the kernel: each thread writes down where it copies to and reads from in a step.
extern "C" __global__ void gemm(Access (*lists)[ACCESSES])
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());
    Stage& stage = shared.stage[0];
    const Mine mine(threadIdx.x);
    Loader loader;
    Access* list = lists[threadIdx.x];
    list = copies(shared, loader.x, stage.x, list);
    list = copies(shared, loader.weight, stage.weight, list);
    constexpr long ROW_BYTES = ROW_RUN * X_VECTOR * sizeof(Accumulator);
    for (int c = 0; c < DEPTH; ++c) {
        for (int i = 0; c % X_VECTOR == 0 && i < THREAD_ROWS; i += ROW_RUN)
            *list++ = access(shared, stage.x[c / X_VECTOR][mine.row(i)][0], ROW_BYTES);
        for (int j = 0; j < THREAD_COLUMNS; j += COLUMN_RUN)
            *list++ = access(shared, stage.weight[c][mine.column(j)][0],
                             COLUMN_RUN * sizeof(Accumulator));
    }
    list->bytes = 0;
}
"""
ACCESSES = 200


def packed(shape):
    """Return the strides of a weight whose output channels are nearest, then its channels."""
    c, m, *kernel_size = shape
    taps = contiguous((*kernel_size, c, m))
    return (m, 1, *taps[: len(kernel_size)])


def channels_last(shape):
    n, c, *size = shape
    strides = contiguous((n, *size, c))
    return (strides[0], 1, *strides[1:-1])


def specialisations():
    """Yield what the gemm kernel is compiled for, with all of its tiles and ways to copy."""
    for dtype in ("float32", "float64", "complex128"):
        for order, in_channels in ((contiguous, 64), (channels_last, 63), (channels_last, 64)):
            geometry = Geometry(
                batch=1, groups=1, in_channels=in_channels, out_channels=128, in_size=(32,),
                kernel_size=(2,), stride=(2,), dilation=(1,), pad_begin=(0,), out_size=(64,),
            )  # fmt: skip
            for weight_order in (contiguous, packed):
                strides = Strides(
                    x=order(geometry.x_shape), weight=weight_order(geometry.weight_shape),
                    bias=0, out=order(geometry.out_shape),
                )  # fmt: skip
                call = Call(geometry, dtype, strides)
                for tile in gemm.TILES[TYPES[dtype].accumulator_bytes]:
                    yield gemm.choose(call, tile=tile).specialisation


def witnessed(device, chosen):
    """Yield what each kernel's threads write down, by warp, lane and access: place, bytes."""
    device.prepare(chosen)
    for specialisation in chosen:
        threads = specialisation.threads
        lists = np.zeros((threads, ACCESSES, 2), np.int64)
        device.kernel(specialisation)(
            (1,), (threads,), (lists,), shared_mem=specialisation.shared_bytes
        )
        used = lists[:, : lists[0, :, 1].tolist().index(0)]
        yield specialisation, used.reshape(-1, 32, *used.shape[1:])


def conflicts(accesses):
    """Return in how many accesses two lanes that are served together want one bank.

    Lanes are served together as long as they want 128 bytes: 32 lanes, or 8 that want 16 bytes.
    """
    found = 0
    for at, size in accesses.transpose(1, 2, 0):
        together = BANKS * WORD // size[0]
        words = at[:, None] // WORD + np.arange(size[0] // WORD)
        for lanes in words.reshape(-1, together * words.shape[1]):
            distinct = np.unique(lanes)
            found += len(np.unique(distinct % BANKS)) < len(distinct)
    return found


def test_no_two_lanes_want_one_bank_in_the_main_loop():
    standin.skip_without_compiler()
    before, _, _ = read("gemm.cu").partition('extern "C"')
    witness = WITNESS.replace("[ACCESSES]", f"[{ACCESSES}]")
    device = Standin(texts={"gemm.cu": before + witness})
    chosen = list(dict.fromkeys(specialisations()))
    assert {s["X_VECTOR"] for s in chosen} == {1, 2, 4}
    for specialisation, warps in witnessed(device, chosen):
        assert warps.shape[2] > specialisation["DEPTH"]
        assert not any(map(conflicts, warps)), specialisation


MMA_WITNESS = """
struct Access {
    long at, bytes;
};
Access* lists[THREADS];

void witness(const void* at, int bytes)
{
    const auto* shared = static_cast<const char*>(dynamic_shared());
    *lists[threadIdx.x]++ = {static_cast<const char*>(at) - shared, bytes};
}

template <typename Operand, typename Tile>
void copies(Tile& tile)
{
    if (Operand::COPIED)
        Operand{}.begin(tile, 0);
    else
        for (int load = 0; load < Operand::LOADS; ++load)
            witness(Operand::place(tile, load), sizeof(Chunk));
}

// In the place of the kernel: each thread writes down where it puts chunks, what it multiplies, and
// where it puts the sums.
extern "C" __global__ void mma(Access (*all)[ACCESSES])
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());
    Stage& stage = shared.stage[0];
    lists[threadIdx.x] = all[threadIdx.x];
    copies<Operand<Row, ROWS, X_VECTOR>>(stage.x);
    copies<Weight>(stage.weight);
    Fragment sum[ROW_FRAGMENTS][COLUMN_FRAGMENTS] = {};
    const int warp = threadIdx.x / 32;
    const int row = warp / COLUMN_WARPS * WARP_ROWS, column = warp % COLUMN_WARPS * WARP_COLUMNS;
    if constexpr (MMA == Mma::TF32)
        multiply_promoted(stage, row, column, sum);
    else
        multiply(stage, row, column, sum);
    put(sum, row, column, shared.sums, [](int) { return 0.0f; });
    lists[threadIdx.x]->bytes = 0;
}
"""
WITNESSED = {
    "primitives.cuh": {
        "standin_load_matrices(to, mine, COUNT, transposed);": "witness(row, 16);",
        "standin_copy_async(to, from, BYTES, present);": "witness(to, BYTES);",
    },
    "mma.cuh": {
        "float& at(int row, int column)\n    {":
            "witness(OUT_CHANNELS_LAST ? &sum[row][column] : &sum[column][row], "
            "OUT_CHANNELS_LAST ? 8 : 4);",
    },
    "mma.cu": {
        "Chunk* const four = tile.at(2 * pair + i, lane % 4, (column + lane / 4) / CHUNK);":
            "witness(&four->word[lane / 4 % CHUNK], 4);",
    },
}  # fmt: skip
"""By file: a line, and the call that follows it."""


def mma_texts():
    """Return the sources of a kernel whose accesses of shared memory are written down."""
    texts = {
        "primitives.cuh": (standin.HERE / "primitives.cuh").read_text(),
        "mma.cuh": read("mma.cuh"),
        "mma.cu": read("mma.cu").partition('extern "C"')[0],
    }
    for name, calls in WITNESSED.items():
        for line, call in calls.items():
            assert texts[name].count(line) == 1
            texts[name] = texts[name].replace(line, f"{line} {call}")
    texts["primitives.cuh"] = f"void witness(const void*, int);\n{texts['primitives.cuh']}"
    texts["mma.cu"] += MMA_WITNESS.replace("[ACCESSES]", f"[{ACCESSES}]")
    return texts


def channels_nearest(shape):
    """Return the strides of a weight whose input channels are nearest."""
    c, m, *kernel_size = shape
    others = contiguous((m, *kernel_size, c))
    return (1, *others[:-1])


MMA_KINDS = [
    ("float16", None, 64, 80),
    ("float16", None, 60, 80),  # copies of 8 bytes
    ("float16", None, 62, 80),  # copies of 4 bytes
    ("float32", "tf32", 62, 80),
    ("float16", None, 64, 75),
]


def mma_specialisations(dtype, precision, channels, capability):
    """Yield what the mma kernel is compiled for, with tiles of whole warps of lines."""
    geometry = Geometry(
        batch=1, groups=1, in_channels=channels, out_channels=128, in_size=(32,), kernel_size=(2,),
        stride=(2,), dilation=(1,), pad_begin=(0,), out_size=(64,),
    )  # fmt: skip
    orders = [(contiguous, contiguous), (channels_last, channels_nearest), (contiguous, packed)]
    for order, weight_order in orders:
        strides = Strides(
            x=order(geometry.x_shape), weight=weight_order(geometry.weight_shape),
            bias=0, out=order(geometry.out_shape),
        )  # fmt: skip
        call = Call(geometry, dtype, strides, precision=precision, capability=capability)
        for tile in mma.TILES[TYPES[dtype].element_bytes]:
            if tile.columns >= 32:
                yield mma.choose(call, tile=tile).specialisation


def test_no_two_lanes_want_one_bank_where_tensor_cores_are_fed_and_their_sums_put():
    standin.skip_without_compiler()
    device = Standin(texts=mma_texts())
    chosen = list(dict.fromkeys(s for kind in MMA_KINDS for s in mma_specialisations(*kind)))
    assert {s["X_VECTOR"] for s in chosen} == {s["WEIGHT_VECTOR"] for s in chosen} == {1, 2, 4, 8}
    assert {(s.dtype, s["WEIGHT_PACKED"]) for s in chosen} >= {("float16", True), ("float32", True)}
    for specialisation, warps in witnessed(device, chosen):
        assert warps.shape[2] > 8
        assert not any(map(conflicts, warps)), specialisation


STORE = "*reinterpret_cast<Pair*>(place(column)) = mine;"


def numbers_put(value, tile):
    """Return what the hopper kernel gives if it puts a number of each store in the sums' place."""
    put = f"for (int e = 0; e < 2; ++e) finish({value}, 0.0f, mine.element[e]);"
    text = read("hopper.cu")
    assert text.count(STORE) == 1
    text = text.replace(STORE, f"{{ {put} {STORE} }}")
    device = Standin(capability=90, texts={"hopper.cu": text})
    x, weight = np.ones((1, 8, hopper.ROWS), "f2"), np.ones((8, tile.columns, 1), "f2")
    y = device.verbs("hopper", tile)(layouts.channels_last(x, 1), layouts.packed(weight))
    assert device.launched[0]["OUT_MAPS"]
    return y.astype(int).ravel()


@pytest.mark.parametrize("tile", hopper.TILES, ids=str)
def test_no_two_lanes_put_sums_into_one_bank_where_the_copy_engine_takes_them(tile):
    standin.skip_without_compiler()
    bank = numbers_put("shared_address(place(column)) / 4 % 32", tile)
    thread = numbers_put("threadIdx.x", tile)
    store = numbers_put("2 * pair + half", tile)
    stores = np.unique(np.stack([thread // 32, store, thread, bank]), axis=1).T
    assert len(stores) == hopper.ROWS * tile.columns / 2
    for of_warp in stores.reshape(-1, 32, 4):  # sorted by warp and store
        assert len(np.unique(of_warp[:, :2], axis=0)) == 1
        assert len(np.unique(of_warp[:, 3])) == BANKS
