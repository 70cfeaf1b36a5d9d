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

// A lane has two sums of a row, and two of the row that lies 8 below.  added(column) goes to each.
template <typename Added>
__device__ __forceinline__ void put(const Fragment (&sum)[ROW_FRAGMENTS][COLUMN_FRAGMENTS], int row,
                                    int column, Sums& sums, const Added& added)
{
    row += threadIdx.x % 32 / 4;
    column += threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < COLUMN_FRAGMENTS; ++j) {
        const Pair more = {added(column + 8 * j), added(column + 8 * j + 1)};
#pragma unroll
        for (int i = 0; i < ROW_FRAGMENTS * 2; ++i) {
            const Pair two = {sum[i / 2][j][i % 2 * 2] + more.first,
                              sum[i / 2][j][i % 2 * 2 + 1] + more.second};
            float& at = sums.at(row + 8 * i, column + 8 * j);
            if constexpr (OUT_CHANNELS_LAST)
                reinterpret_cast<Pair&>(at) = two;
            else
                at = two.first, sums.at(row + 8 * i, column + 8 * j + 1) = two.second;
        }
    }
}

// So many outputs are stored at once.
template <int COUNT>
struct Together {
    static constexpr int count = COUNT;
};

// The outputs of one block.
struct Outputs {
    Shared& shared;
    const Element *x, *weight, *bias;
    Element* out;
    const Params& p;
    Index begin;  // the block's first column among all

    __device__ __forceinline__ float added(int column) const
    {
        const Index channel = shared.column[column].channel;
        return bias && channel >= 0 ? widen(bias[channel * p.bias_m]) : 0.0f;
    }

    // Visits those that this thread stores: visit(Together<...>, row, its number, column, its number),
    // the first of several whose outputs are neighbours: channels, or phases of the last axis.  Their
    // columns lie `apart`.  QUICK makes loops of their own for whole rows, for the same outputs.
    template <bool QUICK, typename Visit>
    __device__ __forceinline__ void visit(const Visit& visit) const
    {
        const Index left = columns_from(begin, p), columns = left < COLUMNS ? left : COLUMNS;
        if constexpr (OUT_CHANNELS_LAST)
            visit_channels_last(columns, visit);
        else if (OUT_VECTOR > 1 && phases_in_vectors())
            visit_channels_first<QUICK, OUT_VECTOR>(columns, visit);
        else
            visit_channels_first<QUICK && OUT_VECTOR == 1, 1>(columns, visit);
    }

    __device__ __forceinline__ Index apart() const
    {
        return !OUT_CHANNELS_LAST && WEIGHT_PACKED ? p.M.divisor : 1;
    }

    // Is the result made of whole vectors of phases?
    __device__ __forceinline__ bool phases_in_vectors() const
    {
        const Axis& last = p.axis[AXES - 1];
        bool whole = last.out_stride == 1 && last.phases.divisor % OUT_VECTOR == 0
                  && p.out_n % OUT_VECTOR == 0 && p.out_m % OUT_VECTOR == 0;
#pragma unroll
        for (int a = 0; a < AXES - 1; ++a)
            whole = whole && p.axis[a].out_stride % OUT_VECTOR == 0;
        return whole;
    }

    // Lanes run along the channels.
    template <typename Visit>
    __device__ __forceinline__ void visit_channels_last(Index columns, const Visit& visit) const
    {
        constexpr int RUNS = COLUMNS / OUT_VECTOR;
        const int j = threadIdx.x % RUNS * OUT_VECTOR;
        if (j >= columns) return;
        const Column column = shared.column[j];
#pragma unroll 1
        for (int i = threadIdx.x / RUNS; i < ROWS; i += THREADS / RUNS) {
            const Row& row = shared.row[i];
            if (row.whole || is_output(row, column, p))
                visit(Together<OUT_VECTOR>{}, row, i, column, j);
        }
    }

    // Lanes run along the last axis: rows, and within a row its phases if their columns are side by
    // side, or all in this block.  In whole rows WIDTH phases are visited at once, and counted as one.
    template <bool QUICK, int WIDTH, typename Visit>
    __device__ __forceinline__ void visit_channels_first(Index columns, const Visit& visit) const
    {
        Index phases = 1, skipped = 0;
        if (INTERLEAVED) {
            phases = p.axis[AXES - 1].phases.divisor / WIDTH;
            divide(begin, p.axis[AXES - 1].phases, skipped);
            skipped /= WIDTH;
        }
        const Index width = ROWS * phases;
        const Index teams = width < THREADS ? THREADS / width : 1;
#pragma unroll 1
        for (Index e = threadIdx.x; e < width * teams; e += THREADS) {
            const Index team = e / width, phase = e % width % phases;
            const int i = static_cast<int>(e % width / phases);
            const Row row = shared.row[i];
            const auto each = [&](const auto& visit_column) {
                if constexpr (INTERLEAVED && WEIGHT_PACKED) {
                    const Index M = p.M.divisor, all = WIDTH * M;
#pragma unroll 1
                    for (Index first = phase * all; first < columns; first += phases * all)
#pragma unroll (QUICK ? 2 : 1)
                        for (Index m = team; m < M; m += teams)
                            visit_column(static_cast<int>(first + m));
                } else {
                    Index j = team * phases + phase - skipped;
                    if (j < 0) j += teams * phases;
#pragma unroll (QUICK ? 2 : 1)
                    for (; j * WIDTH < columns; j += teams * phases)
                        visit_column(static_cast<int>(j * WIDTH));
                }
            };
            if (QUICK && row.whole)
                each([&](int j) { visit(Together<WIDTH>{}, row, i, shared.column[j], j); });
            else
                each([&](int first) {
#pragma unroll 1
                    for (int e = 0, j = first; e < WIDTH; ++e, j += apart())
                        if (is_output(row, shared.column[j], p))
                            visit(Together<1>{}, row, i, shared.column[j], j);
                });
        }
    }

    __device__ __forceinline__ void store() const
    {
        float watched = 0;
        visit<true>([&](auto together, const Row& row, int i, const Column& column, int j) {
            constexpr int WIDTH = together.count;
            struct alignas(WIDTH * sizeof(Element)) Vector {
                Element element[WIDTH];
            } vector;
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) {
                const float sum = shared.sums.at(i, j + e * apart());
                finish(sum, vector.element[e]);
                watch(watched, sum);
            }
            *reinterpret_cast<Vector*>(out + (row.out_at + column.out_at)) = vector;
        });
        if (is_finite(watched)) return;
        // Infinity or NaN may have met the zero of something absent: what does the definition say?
        visit<false>([&](auto together, const Row& row, int i, const Column& column, int j) {
#pragma unroll 1
            for (int e = 0; e < together.count; ++e) {
                if (is_finite(shared.sums.at(i, j + e))) continue;
                const Column& one = shared.column[j + e];
                Index m;
                const Index group = divide(one.channel, p.M, m);
                finish(one_output(x, weight, p, row.n, group, m, row.q, one.r), added(j + e),
                       out[row.out_at + column.out_at + e]);
            }
        });
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
        shared.row[i] = row_at(row_block * ROWS + i, 0, p);
    for (int j = threadIdx.x; j < COLUMNS; j += THREADS)
        shared.column[j] =
            column_at<INTERLEAVED && !WEIGHT_PACKED>(column_block * COLUMNS + j, group, 0, p);
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
    const Outputs outputs = {shared, x, weight, bias, out, p, column_block * COLUMNS};
    put(sum, my_row, my_column, shared.sums, [&](int j) { return outputs.added(j); });
    __syncthreads();
    outputs.store();
}
