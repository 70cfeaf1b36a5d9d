// mma: the matrix product of gemm.cu on tensor cores, by warps (mma.sync).
//
//     rows     (n, q)        every output with this q, in all phases, reads inputs around it
//     columns  (phase, m)    the outputs that share a q
//     sum over (shift, c)    x[n, c, q - shift] * weight[c, m, tap of the phase at the shift]
//
// What is summed over is cut into chunks: 16 bytes of channels at one shift.  A step brings 8 chunks
// of every row and of every column into shared memory, one of the STAGES of a ring, while the steps
// before are multiplied; a warp multiplies WARP_ROWS x WARP_COLUMNS.  At the end the sums go through
// shared memory to o = (q - q_begin) * stride + r - r_begin, a pixel shuffle.
//
// Absent inputs and taps are zeros in the tiles; a sum that is not finite is computed anew without.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"
#include "product.cuh"
#include "mma.cuh"

// --- products -------------------------------------------------------------------------------------

using Fragment = float[4];
constexpr int ROW_FRAGMENTS = WARP_ROWS / 16;
constexpr int COLUMN_FRAGMENTS = WARP_COLUMNS / 8;

// A pair of chunks of 16 rows, and of 8 columns.
using RowPair = unsigned int[4];
using ColumnPair = unsigned int[2];

__device__ __forceinline__ void load_rows(RowPair& a, Tile<ROWS>& tile, int row, int pair)
{
    const int lane = threadIdx.x % 32;
    load_matrices(a, tile.at(row + lane % 16, 2 * pair + lane / 16));
}

// Loads two pairs at once.
__device__ __forceinline__ void load_columns(ColumnPair& b, ColumnPair& next, Tile<COLUMNS>& tile,
                                             int column, int pair)
{
    const int lane = threadIdx.x % 32;
    unsigned int both[4];
    load_matrices(both, tile.at(column + lane % 8, 2 * pair + lane / 8));
    b[0] = both[0], b[1] = both[1], next[0] = both[2], next[1] = both[3];
}

// The same of columns that lie side by side.  No instruction transposes 4 bytes, but each lane can
// read its own.
__device__ __forceinline__ void load_columns(ColumnPair& b, ColumnPair& next, PackedTile& tile,
                                             int column, int pair)
{
    const int lane = threadIdx.x % 32;
    unsigned int both[4];
    if constexpr (sizeof(Element) == 2)
        load_matrices_transposed(both, tile.at(2 * pair + lane / 8, lane % 8, column / CHUNK));
    else
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            Chunk* const four = tile.at(2 * pair + i, lane % 4, (column + lane / 4) / CHUNK);
            both[i] = four->word[lane / 4 % CHUNK];
        }
    b[0] = both[0], b[1] = both[1], next[0] = both[2], next[1] = both[3];
}

__device__ __forceinline__ void multiply(Fragment& sum, const RowPair& a, const ColumnPair& b)
{
    if constexpr (MMA == Mma::F16) mma_f16(sum, a, b);
    if constexpr (MMA == Mma::BF16) mma_bf16(sum, a, b);
    if constexpr (MMA == Mma::TF32 || MMA == Mma::TF32X3) mma_tf32(sum, a, b);
    if constexpr (MMA == Mma::F16_K8) {
        mma_f16_k8(sum, a[0], a[1], b[0]);
        mma_f16_k8(sum, a[2], a[3], b[1]);
    }
}

// Splits float32 into TF32 and what that leaves over.  Of infinity it leaves NaN, and so it does
// where the largest floats round to infinity: such sums are computed anew.
template <int COUNT>
__device__ __forceinline__ void split(unsigned int (&high)[COUNT], unsigned int (&low)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        const float value = bits_to_float(high[i]), rounded = float_to_tf32(value);
        high[i] = float_to_bits(rounded);
        low[i] = float_to_bits(float_to_tf32(value - rounded));
    }
}

// Half types: one step's products are added where they are summed, in float32.
__device__ __forceinline__ void multiply(Stage& stage, int row, int column,
                                         Fragment (&sum)[ROW_FRAGMENTS][COLUMN_FRAGMENTS])
{
#pragma unroll
    for (int first = 0; first < CHUNKS / 2; first += 2) {
        ColumnPair b[2][COLUMN_FRAGMENTS];
#pragma unroll
        for (int j = 0; j < COLUMN_FRAGMENTS; ++j)
            load_columns(b[0][j], b[1][j], stage.weight, column + 8 * j, first);
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            RowPair a[ROW_FRAGMENTS];
#pragma unroll
            for (int i = 0; i < ROW_FRAGMENTS; ++i)
                load_rows(a[i], stage.x, row + 16 * i, first + pair);
#pragma unroll
            for (int i = 0; i < ROW_FRAGMENTS; ++i)
#pragma unroll
                for (int j = 0; j < COLUMN_FRAGMENTS; ++j) multiply(sum[i][j], a[i], b[pair][j]);
        }
    }
}

// TF32: tensor cores cut their sums off, so they sum at most 32 products, and rounded additions do
// the rest.  Three times TF32 sums 16: the small products first, low * high and high * low.
__device__ __forceinline__ void multiply_promoted(
    Stage& stage, int row, int column, Fragment (&sum)[ROW_FRAGMENTS][COLUMN_FRAGMENTS])
{
    constexpr bool THREE = MMA == Mma::TF32X3;
    constexpr int PAIRS = THREE ? 2 : 4;
#pragma unroll
    for (int first = 0; first < CHUNKS / 2; first += PAIRS) {
        ColumnPair b[PAIRS][COLUMN_FRAGMENTS], b_low[PAIRS][COLUMN_FRAGMENTS];
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair += 2)
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; ++j) {
                load_columns(b[pair][j], b[pair + 1][j], stage.weight, column + 8 * j,
                             first + pair);
                split(b[pair][j], b_low[pair][j]);
                split(b[pair + 1][j], b_low[pair + 1][j]);
            }
#pragma unroll
        for (int i = 0; i < ROW_FRAGMENTS; ++i) {
            RowPair a[PAIRS], a_low[PAIRS];
#pragma unroll
            for (int pair = 0; pair < PAIRS; ++pair) {
                load_rows(a[pair], stage.x, row + 16 * i, first + pair);
                split(a[pair], a_low[pair]);
            }
            Fragment part[COLUMN_FRAGMENTS] = {};
            const auto add_products = [&](const RowPair (&rows)[PAIRS],
                                          const ColumnPair (&columns)[PAIRS][COLUMN_FRAGMENTS]) {
#pragma unroll
                for (int pair = 0; pair < PAIRS; ++pair)
#pragma unroll
                    for (int j = 0; j < COLUMN_FRAGMENTS; ++j)
                        multiply(part[j], rows[pair], columns[pair][j]);
            };
            if constexpr (THREE) {
                add_products(a_low, b);
                add_products(a, b_low);
            }
            add_products(a, b);
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) sum[i][j][e] += part[j][e];
        }
    }
}

// --- the pixel shuffle ----------------------------------------------------------------------------

struct alignas(8) Pair {
    float first, second;
};

// A lane has two sums of a row, and two of the row that lies 8 below.
__device__ __forceinline__ void put(const Fragment (&sum)[ROW_FRAGMENTS][COLUMN_FRAGMENTS], int row,
                                    int column, Sums& sums)
{
    row += threadIdx.x % 32 / 4;
    column += threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < ROW_FRAGMENTS * 2; ++i)
#pragma unroll
        for (int j = 0; j < COLUMN_FRAGMENTS; ++j) {
            const Pair two = {sum[i / 2][j][i % 2 * 2], sum[i / 2][j][i % 2 * 2 + 1]};
            float& at = sums.at(row + 8 * i, column + 8 * j);
            if constexpr (OUT_CHANNELS_LAST)
                reinterpret_cast<Pair&>(at) = two;
            else
                at = two.first, sums.at(row + 8 * i, column + 8 * j + 1) = two.second;
        }
}

// The outputs of one block.
struct Outputs {
    Shared& shared;
    const Element *x, *weight, *bias;
    Element* out;
    const Params& p;
    Index group;

    __device__ __forceinline__ bool locate(const Row& row, const Column& column, Index& at) const
    {
        bool there = row.n >= 0 && column.m >= 0;
        at = row.n * p.out_n + channel(column) * p.out_m;
#pragma unroll
        for (int a = 0; a < AXES; ++a) {
            const Axis& axis = p.axis[a];
            const Index o = (row.q[a] - axis.q_begin) * axis.stride.divisor + column.r[a]
                            - axis.r_begin;
            there = there && inside(o, axis.out_size.divisor);
            at += o * axis.out_stride;
        }
        return there;
    }

    __device__ __forceinline__ Index channel(const Column& column) const
    {
        return group * p.M.divisor + column.m;
    }

    __device__ __forceinline__ float bias_of(const Column& column) const
    {
        return bias && column.m >= 0 ? widen(bias[channel(column) * p.bias_m]) : 0.0f;
    }

    // Stores WIDTH outputs side by side, from a column on.
    template <int WIDTH>
    __device__ __forceinline__ void store(int row, int column, const float (&added)[WIDTH]) const
    {
        const Row& r = shared.row[row];
        Index at;
        if (!locate(r, shared.column[column], at)) return;
        struct alignas(WIDTH * sizeof(Element)) Vector {
            Element element[WIDTH];
        } vector;
        unsigned int astray = 0;
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) {
            const float sum = shared.sums.at(row, column + e);
            finish(sum, added[e], vector.element[e]);
            if (!is_finite(sum)) astray |= 1u << e;
        }
        *reinterpret_cast<Vector*>(out + at) = vector;
        // Infinity or NaN may have met the zero of something absent: what does the definition say?
        for (int e = 0; astray; ++e, astray >>= 1) {
            if (!(astray & 1)) continue;
            const Column& c = shared.column[column + e];
            finish(one_output(x, weight, p, r.n, group, c.m, r.q, c.r), bias_of(c), out[at + e]);
        }
    }

    // Lanes run along the channels.
    __device__ __forceinline__ void store_channels_last() const
    {
        constexpr int RUNS = COLUMNS / OUT_VECTOR;
        const int column = threadIdx.x % RUNS * OUT_VECTOR;
        float added[OUT_VECTOR];
#pragma unroll
        for (int e = 0; e < OUT_VECTOR; ++e) added[e] = bias_of(shared.column[column + e]);
        for (int row = threadIdx.x / RUNS; row < ROWS; row += THREADS / RUNS)
            store(row, column, added);
    }

    // Lanes run along the last axis: rows, and within a row its phases if their columns are side by
    // side, or all in this block.  `begin` is the block's first column among all.
    __device__ __forceinline__ void store_channels_first(Index begin) const
    {
        Index phases = 1, skipped = 0;
        if (INTERLEAVED) {
            phases = p.axis[AXES - 1].phases.divisor;
            divide(begin, p.axis[AXES - 1].phases, skipped);
        }
        const Index width = ROWS * phases;
        const Index teams = width < THREADS ? THREADS / width : 1;
        for (Index e = threadIdx.x; e < width * teams; e += THREADS) {
            const Index team = e / width, phase = e % width % phases;
            const int row = static_cast<int>(e % width / phases);
            for (Index set = team; set * phases + phase - skipped < COLUMNS; set += teams) {
                Index j = set * phases + phase - skipped;
                if (j < 0) continue;
                if constexpr (INTERLEAVED && WEIGHT_PACKED) {
                    Index m;
                    const Index before = divide(set, p.M, m);
                    j = (before * phases + phase) * p.M.divisor + m;
                }
                const int column = static_cast<int>(j);
                const float added[1] = {bias_of(shared.column[column])};
                store(row, column, added);
            }
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1)
mma(const Element* __restrict__ x, const Element* __restrict__ weight,
    const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());

    // Which tile is mine?  Neighbouring blocks have the same rows and share their inputs in L2.
    Index column_block, row_block;
    const Index rest = divide(static_cast<Index>(blockIdx.x), p.column_blocks, column_block);
    const Index group = divide(rest, p.row_blocks, row_block);
    for (int i = threadIdx.x; i < ROWS; i += THREADS)
        shared.row[i] = row_at(row_block * ROWS + i, p);
    for (int j = threadIdx.x; j < COLUMNS; j += THREADS)
        shared.column[j] =
            column_at<INTERLEAVED && !WEIGHT_PACKED>(column_block * COLUMNS + j, p);
    __syncthreads();

    const Shifts shifts = {p, shared.column[0]};
    const Index chunks = shifts.count() * ((p.C + CHUNK - 1) / CHUNK);
    const Index steps = (chunks + CHUNKS - 1) / CHUNKS;
    Operand<Row, ROWS, X_VECTOR> rows;
    Weight columns;
    rows.first(x + group * p.C * p.x_c, p.x_c, shifts);
    columns.first(weight + group * p.weight_group, p.weight_c, shifts);
    const auto begin = [&](Index step) {
        if (0 <= step && step < steps) {
            rows.begin(shared.stage[step % STAGES].x, p.C);
            columns.begin(shared.stage[step % STAGES].weight, p.C);
        }
        if constexpr (ASYNC) copy_async_commit();
    };
    const auto end = [&](Index step) {
        if (step >= steps) return;
        if (step >= 0) {
            rows.end(shared.stage[step % STAGES].x);
            columns.end(shared.stage[step % STAGES].weight);
        }
        rows.next(shared.row, shifts);
        columns.next(shared.column, shifts);
    };

    const int warp = threadIdx.x / 32;
    const int my_row = warp / COLUMN_WARPS * WARP_ROWS;
    const int my_column = warp % COLUMN_WARPS * WARP_COLUMNS;
    Fragment sum[ROW_FRAGMENTS][COLUMN_FRAGMENTS] = {};
    // The first rounds only find their chunks, and load.
#pragma unroll 1
    for (Index step = -STAGES; step < steps; ++step) {
        // One barrier says that this step is whole and that the stage of the last one is free.
        if constexpr (ASYNC) copy_async_wait<STAGES - 2>();
        __syncthreads();
        begin(step + STAGES - 1);
        if (step >= 0) {
            Stage& stage = shared.stage[step % STAGES];
            if constexpr (MMA == Mma::TF32 || MMA == Mma::TF32X3)
                multiply_promoted(stage, my_row, my_column, sum);
            else
                multiply(stage, my_row, my_column, sum);
        }
        end(step + STAGES - 1);
    }

    // Each sum goes to the output of its q and its phase.
    __syncthreads();
    put(sum, my_row, my_column, shared.sums);
    __syncthreads();
    const Outputs outputs = {shared, x, weight, bias, out, p, group};
    if constexpr (OUT_CHANNELS_LAST)
        outputs.store_channels_last();
    else
        outputs.store_channels_first(column_block * COLUMNS);
}
